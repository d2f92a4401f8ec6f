//! Free space, from the servers that tell: AVBL, `SITE QUOTA`, XQUOTA.

use std::time::{Duration, Instant};

use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::stat::size_of;
use crate::vfs::attr::Space;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// `statfs` is called often, and answers to it age slowly.
const FRESH: Duration = Duration::from_secs(10);

impl FtpServer {
    /// Free space of the mount's directory; `None` where the server does not tell.
    pub(super) fn space(&self) -> Result<Option<Space>> {
        let fresh = self.space.with(|known| {
            known.and_then(|(since, space)| (since.elapsed() < FRESH).then_some(space))
        });
        if let Some(space) = fresh {
            return Ok(space);
        }
        let space = self.on_session(|s| self.ask_space(s))?;
        self.space
            .with(|known| *known = Some((Instant::now(), space)));
        Ok(space)
    }

    fn ask_space(&self, s: &mut Session) -> Result<Option<Space>> {
        // draft-peterson-streamlined-ftp-command-extensions section 4.
        if s.features().has("AVBL") {
            let reply = self.ask(s, "AVBL", &RemotePath::root())?;
            if let Some(available) = size_of(&reply) {
                return Ok(Some(Space {
                    total: None,
                    available,
                }));
            }
        }
        for (feature, parse) in [
            ("SITE QUOTA", site_quota as fn(&Reply) -> Option<Space>),
            ("XQUOTA", xquota),
        ] {
            if s.features().has(feature) {
                let reply = s.command(feature.as_bytes())?;
                if let Some(space) = reply.is_ok().then(|| parse(&reply)).flatten() {
                    return Ok(Some(space));
                }
            }
        }
        Ok(None)
    }
}

/// ProFTPD's mod_quotatab: `Uploaded Kb: 12.50/2048.00`, in the unit of its configuration.
fn site_quota(reply: &Reply) -> Option<Space> {
    texts(reply).find_map(|line| {
        let (label, value) = line.split_once(':')?;
        let unit = label.trim().to_ascii_lowercase();
        let scale = match unit.strip_prefix("uploaded ")?.trim() {
            "bytes" => 1.0,
            "kb" => 1024.0,
            "mb" => 1024.0 * 1024.0,
            "gb" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        let (used, limit) = value.split_once('/')?;
        let number = |text: &str| text.trim().parse::<f64>().ok();
        space(number(used)? * scale, number(limit)? * scale)
    })
}

/// Serv-U: `Disk usage: 1532791` and `Disk quota: 2048000`, or `unlimited`.
fn xquota(reply: &Reply) -> Option<Space> {
    let find = |wanted: &str| {
        texts(reply).find_map(|line| {
            let (label, value) = line.split_once(':')?;
            let found = label.trim().eq_ignore_ascii_case(wanted);
            found.then(|| value.trim().parse::<f64>().ok()).flatten()
        })
    };
    space(find("disk usage")?, find("disk quota")?)
}

fn texts(reply: &Reply) -> impl Iterator<Item = &str> {
    reply
        .lines()
        .iter()
        .filter_map(|line| std::str::from_utf8(line).ok())
}

/// Out of what is used and what may be used, in bytes.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn space(used: f64, limit: f64) -> Option<Space> {
    let sane = used.is_finite() && limit.is_finite() && used >= 0.0 && limit > 0.0;
    sane.then(|| Space {
        total: Some(limit as u64),
        available: (limit - used).max(0.0) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    #[test]
    fn quotas_of_proftpd() {
        let told = reply(
            b"200-The current quota for this session are [current/limit]:\r\n Name: ann\r\n   \
              Uploaded Kb:\t512.00/2048.00\r\n   Downloaded Kb:\tunlimited\r\n200 Please contact x\r\n",
        );
        let space = Space {
            total: Some(2_097_152),
            available: 1_572_864,
        };
        assert_eq!(site_quota(&told), Some(space));
        let unlimited = reply(b"200-x\r\n   Uploaded bytes:\tunlimited\r\n200 y\r\n");
        assert_eq!(site_quota(&unlimited), None);
    }

    #[test]
    fn quotas_of_serv_u() {
        let told = reply(
            b"213-File and disk usage:\r\n File count: 3\r\n Disk usage: 3000\r\n Disk quota: 2000\r\n\
              213 File and disk usage end.\r\n",
        );
        assert_eq!(
            xquota(&told),
            Some(Space {
                total: Some(2_000),
                available: 0
            })
        );
        let unlimited = reply(b"213-x\r\n Disk usage: 3000\r\n Disk quota: unlimited\r\n213 y\r\n");
        assert_eq!(xquota(&unlimited), None);
    }
}
