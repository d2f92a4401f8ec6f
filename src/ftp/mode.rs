//! Which transfers are packed: MODE Z (draft-preston-ftpext-deflate-04) where it pays.
//!
//! MODE belongs to a session, which keeps it until it is told another. Packing pays on a slow link,
//! and for what is not packed already; how fast the link is shows in the transfers themselves, and
//! what is packed already by the suffix of files that came out no smaller.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::data::DataConnection;
use super::host::Host;
use super::options::Compress;
use super::session::{Begun, Session};
use crate::traffic::Direction;
use crate::vfs::error::{Error, ErrorKind, Result};

/// A link is slow below so many bytes in a second. ProFTPD packs text at 31 MB/s on a processor of
/// today (`scripts/bench-deflate`): faster links gain nothing. Slow processors have a sixth of that.
const SLOW: f64 = 5_000_000.0;

/// The first bytes of a transfer show how far the server is, and not how fast the link.
pub(super) const HEAD: u64 = 256 << 10;

/// How long a link is taken to be what it was. What is packed shows how fast the server packs, so
/// that some transfers must not be, now and then.
const LASTS: Duration = Duration::from_secs(300);

/// Bytes that must have passed before anything is believed of the link.
const ENOUGH: f64 = 256.0 * 1024.0;

/// The last transfers count: so many bytes of them.
const LATELY: f64 = (8 << 20) as f64;

/// Bytes that show whether a content packs, and the part of them that must be saved.
const SAMPLE: u64 = 64 << 10;
const WORTH: f64 = 0.9;

/// Suffixes that are remembered, and their greatest length.
const SUFFIXES: usize = 64;
const SUFFIX_MAX: usize = 12;

/// What passed over one data connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Bytes on the way.
    pub(super) wire: u64,
    /// Bytes of the content.
    pub(super) content: u64,
    /// Bytes on the way behind the first, and how long the link was waited for while they came.
    pub(super) timed: u64,
    pub(super) waited: Duration,
}

/// What is known of packing on one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Packing {
    /// MODE Z works; `Some(false)` since it was refused or went wrong.
    pub(super) works: Option<bool>,
    /// What is sent packed is unpacked there, as was tried.
    pub(super) works_up: Option<bool>,
    down: Flow,
    up: Flow,
    /// Of files that were packed already.
    dense: HashSet<String>,
}

/// Bytes in seconds, lately.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    bytes: f64,
    seconds: f64,
    at: Option<Instant>,
}

impl Flow {
    fn add(&mut self, passed: Passed, now: Instant) {
        if !self.holds(now) {
            *self = Self::default();
        }
        self.at = Some(now);
        self.bytes += passed.timed as f64;
        self.seconds += passed.waited.as_secs_f64();
        if self.bytes > LATELY {
            self.bytes /= 2.0;
            self.seconds /= 2.0;
        }
    }

    fn holds(self, now: Instant) -> bool {
        self.at.is_some_and(|at| now.duration_since(at) < LASTS)
    }

    fn is_slow(self, now: Instant) -> bool {
        self.holds(now) && self.bytes >= ENOUGH && self.bytes < SLOW * self.seconds
    }
}

impl Packing {
    /// A transfer has ended: what it shows of the link, and of files with this suffix.
    fn learn(&mut self, direction: Option<Direction>, suffix: Option<String>, passed: Passed) {
        let (packed, now) = (passed.content != passed.wire, Instant::now());
        match direction {
            _ if packed || passed.timed == 0 => {}
            Some(Direction::Up) => self.up.add(passed, now),
            Some(Direction::Down) | None => self.down.add(passed, now),
        }
        let dense = packed
            && passed.content >= SAMPLE
            && passed.wire as f64 > passed.content as f64 * WORTH;
        if let Some(suffix) = suffix.filter(|_| dense)
            && self.dense.len() < SUFFIXES
        {
            self.dense.insert(suffix);
        }
    }

    fn is_slow(&self, direction: Option<Direction>) -> bool {
        match direction {
            Some(Direction::Up) => self.up.is_slow(Instant::now()),
            Some(Direction::Down) | None => self.down.is_slow(Instant::now()),
        }
    }
}

/// What may tell of a file's content.
pub(super) fn suffix_of(name: &str) -> Option<String> {
    let name = name.rsplit('/').next()?;
    let (stem, suffix) = name.rsplit_once('.')?;
    let fits = !stem.is_empty() && !suffix.is_empty() && suffix.len() <= SUFFIX_MAX;
    fits.then(|| suffix.to_ascii_lowercase())
}

impl Session {
    /// Whether the next transfer is better packed: of a file with this suffix, or a listing.
    pub(super) fn packs(&self, direction: Option<Direction>, suffix: Option<&str>) -> bool {
        let may = match direction {
            // Whoever takes it wrongly has another content then.
            Some(Direction::Up) => self
                .host
                .facts(|facts| facts.packing.works_up == Some(true)),
            Some(Direction::Down) | None => true,
        };
        may && self.would_pack(direction, suffix)
    }

    /// The same, if the server is up to it.
    pub(super) fn would_pack(&self, direction: Option<Direction>, suffix: Option<&str>) -> bool {
        let wanted = self.host.options().compress;
        self.features().has("MODE Z")
            && self.host.facts(|facts| {
                let packing = &facts.packing;
                let pays = match wanted {
                    Compress::Off => false,
                    // Over TLS, the length of what is packed tells of the content.
                    Compress::Auto => self.tls.is_none() && packing.is_slow(direction),
                    Compress::On => true,
                };
                let dense = || suffix.is_some_and(|suffix| packing.dense.contains(suffix));
                packing.works != Some(false) && pays && !dense()
            })
    }

    /// As [`begin_data`](Self::begin_data), packed or not, whatever the options say.
    ///
    /// # Errors
    /// The same.
    pub(super) fn begin_as(&mut self, command: &[u8], packed: bool) -> Result<Begun> {
        self.packs_next = Some(packed);
        let begun = self.begin_data(command, 0);
        self.packs_next = None;
        begun
    }

    /// Whether it is in MODE Z.
    pub(super) const fn is_packed(&self) -> bool {
        self.packed
    }

    /// Sends MODE, if the session is in another.
    ///
    /// # Errors
    /// As [`command`](Self::command); `Disconnected` if the session cannot go back to MODE S.
    pub(super) fn set_mode(&mut self, packed: bool) -> Result<()> {
        if self.packed == packed {
            return Ok(());
        }
        let line: &[u8] = if packed { b"MODE Z" } else { b"MODE S" };
        let reply = self.command(line)?;
        if reply.is_ok() {
            self.packed = packed;
            return Ok(());
        }
        if packed {
            self.host
                .packs_no_more(&format!("MODE Z is refused: {}", reply.text()));
            return Ok(());
        }
        self.host
            .packs_no_more(&format!("MODE S is refused: {}", reply.text()));
        let why = format!("{}: MODE S: {}", self.host.options().host, reply.text());
        Err(self.break_off(Error::new(ErrorKind::Disconnected, why)))
    }

    /// What came there is not what was sent, as `err` says: perhaps it was not unpacked.
    pub(super) fn misunderstood(&self, err: Error) -> Error {
        if !self.packed {
            return err;
        }
        self.host.packs_up_no_more(err.detail());
        // Worth another try, in MODE S.
        Error::new(ErrorKind::Disconnected, err.detail())
    }

    /// A transfer is over, or given up: takes note of what it showed.
    pub(super) fn learn_flow(&self, data: &mut DataConnection) {
        let (direction, suffix, passed) = (data.direction(), data.suffix(), data.flow());
        self.host
            .facts(|facts| facts.packing.learn(direction, suffix, passed));
    }
}

impl Host {
    /// What becomes of the transfers, for `status`.
    pub(super) fn packs_in_words(&self) -> &'static str {
        let (offered, secured, works, works_up) = self.facts(|facts| {
            let offered = facts.features.as_ref().map(|known| known.has("MODE Z"));
            let Packing {
                works, works_up, ..
            } = facts.packing;
            (offered, facts.tls, works, works_up)
        });
        match self.options().compress {
            Compress::Off => "off",
            _ if offered != Some(true) => "not offered",
            _ if works == Some(false) => "refused",
            Compress::Auto if secured == Some(true) => "not over TLS",
            Compress::On if works_up == Some(false) => "on, not for uploads",
            Compress::On => "on",
            Compress::Auto if works_up == Some(false) => "when slow, not for uploads",
            Compress::Auto => "when slow",
        }
    }

    /// Uploads in MODE Z went wrong, or would.
    pub(super) fn packs_up_no_more(&self, why: &str) {
        let before = self.facts(|facts| facts.packing.works_up.replace(false));
        if before != Some(false) {
            let name = &self.options().host;
            log::info!("{name}: uploads in MODE Z: {why}; not used any more");
        }
    }

    /// MODE Z was refused, or went wrong.
    pub(super) fn packs_no_more(&self, why: &str) {
        let before = self.facts(|facts| facts.packing.works.replace(false));
        if before != Some(false) {
            log::info!("{}: {why}; not used any more", self.options().host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(wire: u64, content: u64, millis: u64) -> Passed {
        Passed {
            wire,
            content,
            timed: wire.saturating_sub(HEAD),
            waited: Duration::from_millis(millis),
        }
    }

    #[test]
    fn a_link_is_slow_once_enough_has_passed_slowly() {
        let mut packing = Packing::default();
        packing.learn(None, None, passed(300_000, 300_000, 100));
        assert!(!packing.is_slow(None), "too little to tell");
        packing.learn(Some(Direction::Down), None, passed(600_000, 600_000, 4_000));
        assert!(packing.is_slow(None) && !packing.is_slow(Some(Direction::Up)));
        // Packed ones show the server's processor.
        packing.learn(None, None, passed(40_000_000, 90_000_000, 400));
        assert!(packing.is_slow(None));
        // It became another.
        packing.learn(None, None, passed(40_000_000, 40_000_000, 400));
        assert!(!packing.is_slow(None));
        packing.learn(
            Some(Direction::Up),
            None,
            passed(1_000_000, 1_000_000, 1_000),
        );
        assert!(packing.is_slow(Some(Direction::Up)));
        let later = Instant::now() + LASTS;
        assert!(!packing.up.is_slow(later), "not for ever");
    }

    #[test]
    fn what_comes_out_no_smaller_is_not_packed_again() {
        let mut packing = Packing::default();
        for (suffix, wire, content) in [
            ("txt", 20_000, 100_000),
            ("gz", 100_030, 100_000),
            ("tiny", 1_010, 1_000),
            ("plain", 100_000, 100_000),
        ] {
            packing.learn(None, Some(suffix.to_owned()), passed(wire, content, 1));
        }
        assert_eq!(packing.dense, HashSet::from(["gz".to_owned()]));
    }

    #[test]
    fn a_suffix_is_behind_the_last_dot_of_a_name() {
        assert_eq!(suffix_of("/a.b/photo.JPG").as_deref(), Some("jpg"));
        assert_eq!(suffix_of("x.tar.gz").as_deref(), Some("gz"));
        for name in ["/a.b/none", ".hidden", "dot.", "a.averylongsuffix"] {
            assert_eq!(suffix_of(name), None, "{name}");
        }
    }
}
