//! Checksums that the server computes: HASH (draft-bryan-ftpext-hash) and the older X-commands.

use std::time::Duration;

use super::features::Features;
use super::options::Verify;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use crate::vfs::checksum::{Algorithm, Checksum};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Best first: SHA-256 is fast on most processors of today.
const PREFERRED: [Algorithm; 5] = [
    Algorithm::Sha256,
    Algorithm::Sha512,
    Algorithm::Sha1,
    Algorithm::Md5,
    Algorithm::Crc32,
];

/// What a slow server reads of its disk in a second, beyond the time limit of any reply.
const SLOWEST: u64 = 10 << 20;

/// How a server is asked for one kind of checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `OPTS HASH name`, then HASH.
    Hash,
    /// A command of its own.
    Own(&'static str),
}

/// The older commands for an algorithm.
const fn commands(algorithm: Algorithm) -> &'static [&'static str] {
    match algorithm {
        Algorithm::Sha512 => &["XSHA512"],
        Algorithm::Sha256 => &["XSHA256"],
        Algorithm::Sha1 => &["XSHA1", "XSHA"],
        Algorithm::Md5 => &["XMD5"],
        Algorithm::Crc32 => &["XCRC"],
    }
}

/// How the server of these features computes this. HASH first, since it tells of which bytes.
pub(super) fn way(features: &Features, algorithm: Algorithm) -> Option<Way> {
    let named = features.parameters("HASH").is_some_and(|list| {
        let mut names = list
            .split(';')
            .map(|name| name.trim().trim_end_matches('*'));
        names.any(|name| name.eq_ignore_ascii_case(algorithm.name()))
    });
    if named {
        return Some(Way::Hash);
    }
    let mut commands = commands(algorithm).iter();
    let command = commands.find(|command| features.has(command))?;
    Some(Way::Own(command))
}

impl FtpServer {
    /// By which checksum contents are compared, if the options ask for it and the server has one.
    pub(super) fn checks_by(&self) -> Option<Algorithm> {
        if self.options().verify == Verify::Off || self.ways.with(|ways| ways.no_checksums) {
            return None;
        }
        self.offered()
    }

    /// The best checksum that the server claims to compute.
    pub(super) fn offered(&self) -> Option<Algorithm> {
        let features = self.pool.host().facts(|facts| facts.features.clone())?;
        PREFERRED
            .into_iter()
            .find(|algorithm| way(&features, *algorithm).is_some())
    }

    /// Whether `verify=` can be kept.
    ///
    /// # Errors
    /// `Unsupported` where it is required, and the server computes no checksums.
    pub(super) fn can_verify(&self) -> Result<()> {
        match (self.checks_by(), self.options().verify) {
            (None, Verify::Require) => Err(Error::new(
                ErrorKind::Unsupported,
                "the server computes no checksums (HASH, XSHA256, XSHA1, XMD5, XCRC), and \
                 verify=require asks for them; use verify=auto",
            )),
            (None, Verify::Auto) => {
                log::info!("verify=auto: the server computes no checksums; sizes are compared");
                Ok(())
            }
            (Some(algorithm), _) => {
                log::info!("contents are compared by {}", algorithm.name());
                Ok(())
            }
            (None, Verify::Off) => Ok(()),
        }
    }

    /// Compares `ours` with what the server computes of the file at `path`; `what` did it for the
    /// log (`STOR`).
    ///
    /// # Errors
    /// `Corrupt` if they differ; with `verify=require` also `Protocol` if the server does not tell.
    pub(super) fn compare(
        &self,
        s: &mut Session,
        what: &str,
        path: &RemotePath,
        ours: &Checksum,
    ) -> Result<()> {
        let name = ours.algorithm.name();
        let Some(way) = way(s.features(), ours.algorithm) else {
            return self.untold(what, path, "it has no command for that any more");
        };
        let limit = Duration::from_secs(ours.len / SLOWEST);
        let reply = self.computed(s, path, way, ours.algorithm, limit)?;
        if !reply.is_ok() {
            if matches!(reply.code(), 500 | 502 | 504) {
                self.ways.with(|ways| ways.no_checksums = true);
            }
            return self.untold(what, path, &reply.text());
        }
        let Some(theirs) = told(&reply, ours.algorithm) else {
            return self.untold(what, path, &reply.text());
        };
        let differs = |how: String| {
            let line = format!("{what} {path}: damaged on the way, or on the server: {how}");
            log::error!("{line}");
            Err(self.noted(path, Error::new(ErrorKind::Corrupt, line)))
        };
        // ProFTPD's range ends behind the last byte, the draft's with it.
        let whole = |(from, to): (u64, u64)| from == 0 && (to == ours.len || to + 1 == ours.len);
        if let Some((from, to)) = theirs.range.filter(|range| !whole(*range)) {
            let len = ours.len;
            return differs(format!(
                "the {name} is of bytes {from}-{to}, not of all {len}"
            ));
        }
        if theirs.digits != ours.digits {
            let (ours, theirs) = (&ours.digits, &theirs.digits);
            return differs(format!("its {name} is {theirs}, not {ours}"));
        }
        log::debug!("{what} {path}: {name} {}: the same", ours.digits);
        Ok(())
    }

    /// The server does not tell: that is no damage, but no proof either.
    fn untold(&self, what: &str, path: &RemotePath, why: &str) -> Result<()> {
        if self.options().verify == Verify::Require {
            let line = format!("{what} {path}: not verified, as verify=require asks: {why}");
            return Err(Error::new(ErrorKind::Protocol, line));
        }
        log::warn!("{what} {path}: compared by its size only: {why}");
        Ok(())
    }

    /// The server's answer to the question for a checksum, which may take `longer` than others.
    pub(super) fn computed(
        &self,
        s: &mut Session,
        path: &RemotePath,
        way: Way,
        algorithm: Algorithm,
        longer: Duration,
    ) -> Result<Reply> {
        let lines = match way {
            Way::Own(command) => vec![self.line(command, path)?],
            Way::Hash => vec![
                format!("OPTS HASH {}", algorithm.name()).into_bytes(),
                self.line("HASH", path)?,
            ],
        };
        let mut replies = s.batch_within(&lines, self.options().timeout + longer)?;
        let chosen = replies.len() == 1 || replies.first().is_some_and(Reply::is_ok);
        let last = replies.pop();
        let reply = if chosen { last } else { replies.pop() };
        reply.ok_or_else(|| ErrorKind::Disconnected.into())
    }
}

/// What a reply says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Lower case, all digits.
    pub(super) digits: String,
    /// Of which bytes, where it says that.
    range: Option<(u64, u64)>,
}

/// The checksum in a reply: HASH puts the algorithm and the range before it, X-commands nothing or
/// a few words, and what follows is the file's name.
pub(super) fn told(reply: &Reply, algorithm: Algorithm) -> Option<Told> {
    let mut range = None;
    let words = reply
        .lines()
        .iter()
        .flat_map(|line| line.split(|b| *b == b' '));
    for word in words {
        let word = String::from_utf8_lossy(word);
        let word = word.trim_matches('"');
        let hex = !word.is_empty() && word.bytes().all(|b| b.is_ascii_hexdigit());
        // Some print a CRC as a number, without zeros before it.
        let fits = match algorithm {
            Algorithm::Crc32 => (4..=8).contains(&word.len()),
            _ => word.len() == algorithm.digits(),
        };
        if hex && fits {
            let digits = format!("{:0>1$}", word.to_ascii_lowercase(), algorithm.digits());
            return Some(Told { digits, range });
        }
        let ends = word.split_once('-');
        let ends = ends.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        range = range.or(ends);
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    const MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

    #[test]
    fn checksums_are_found_in_all_their_replies() {
        for (text, range) in [
            ("250 D41D8CD98F00B204E9800998ECF8427E", None),
            (
                "213 MD5 0-49 d41d8cd98f00b204e9800998ecf8427e filename.ext",
                Some((0, 49)),
            ),
            (
                "250-Computing MD5 checksum\r\n250 D41D8CD98F00B204E9800998ECF8427E",
                None,
            ),
            ("251 \"file\" d41d8cd98f00b204e9800998ecf8427e", None),
        ] {
            let found = told(&reply(format!("{text}\r\n").as_bytes()), Algorithm::Md5);
            let digits = MD5.to_owned();
            assert_eq!(found, Some(Told { digits, range }), "{text}");
        }
        for text in ["250 all done", "250 d41d8cd98f00b204e9800998ecf842"] {
            let text = format!("{text}\r\n");
            assert_eq!(told(&reply(text.as_bytes()), Algorithm::Md5), None);
        }
        let crc = told(&reply(b"250 0A1B2C\r\n"), Algorithm::Crc32).unwrap();
        assert_eq!(crc.digits, "000a1b2c");
    }

    #[test]
    fn hash_is_better_than_its_elders() {
        let features = |lines: &str| {
            Features::parse(&reply(
                format!("211-Features:\r\n{lines}211 End\r\n").as_bytes(),
            ))
        };
        let both = features(" HASH SHA-1;SHA-256*;MD5\r\n XSHA256\r\n XCRC\r\n");
        assert_eq!(way(&both, Algorithm::Sha256), Some(Way::Hash));
        assert_eq!(way(&both, Algorithm::Crc32), Some(Way::Own("XCRC")));
        assert_eq!(way(&both, Algorithm::Sha512), None);
        assert_eq!(
            way(&features(" XSHA\r\n"), Algorithm::Sha1),
            Some(Way::Own("XSHA"))
        );
    }
}
