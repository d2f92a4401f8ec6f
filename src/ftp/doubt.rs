//! Uploads of ours of which nobody said what became of them.
//!
//! The answer to a rename may be lost with the connection, and with it the next attempts to ask. The
//! content may have its name nevertheless, or come to it later, when the link lets the command
//! through: it is no version of somebody else's then, whatever the next attempt brings.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::server::FtpServer;
use super::times::apart;
use crate::vfs::attr::Attr;
use crate::vfs::path::RemotePath;

/// Most that are remembered.
const MOST: usize = 256;

/// Times this near to each other are one.
const SLACK: Duration = Duration::from_secs(2);

/// An upload that failed, perhaps after it had reached its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) at: RemotePath,
    /// Bytes that it has if it is there.
    pub(super) size: u64,
    /// Or fewer: it was written in place.
    pub(super) partial: bool,
    /// The time that was to be set before it got its name.
    pub(super) mtime: Option<SystemTime>,
}

impl Doubt {
    fn is(&self, at: &RemotePath, found: &Attr) -> bool {
        let size = found.size.is_some_and(|size| match self.partial {
            true => size <= self.size,
            false => size == self.size,
        });
        let exact = found.mtime.filter(|_| found.mtime_exact && !self.partial);
        let other = |(then, now)| apart(then, now) > SLACK;
        self.at == *at && size && !self.mtime.zip(exact).is_some_and(other)
    }
}

/// The uploads in doubt of one server.
#[derive(Debug, Default)]
pub(super) struct Doubts(VecDeque<Doubt>);

impl FtpServer {
    /// Remembers an upload that failed.
    pub(super) fn doubt(&self, doubt: Doubt) {
        self.doubts.with(|Doubts(all)| {
            all.push_back(doubt);
            if all.len() > MOST {
                all.pop_front();
            }
        });
    }

    /// Whether what was `found` at `at` is, by all that can be seen, of an upload in doubt.
    pub(super) fn was_ours(&self, at: &RemotePath, found: &Attr) -> bool {
        self.doubts
            .with(|Doubts(all)| all.iter().any(|doubt| doubt.is(at, found)))
    }

    /// What is at `at` is known again.
    pub(super) fn no_doubt(&self, at: &RemotePath) {
        self.doubts
            .with(|Doubts(all)| all.retain(|doubt| doubt.at != *at));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vfs::attr::FileKind;

    #[test]
    fn what_came_through_is_known_by_its_size_and_the_time_it_was_to_have() {
        let path = |name: &str| RemotePath::parse(name.as_bytes()).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let doubt = Doubt {
            at: path("f"),
            size: 7,
            partial: false,
            mtime: Some(at(1_000)),
        };
        let found = |size, mtime| Attr {
            size: Some(size),
            mtime: Some(at(mtime)),
            mtime_exact: true,
            ..Attr::new(FileKind::File)
        };
        assert!(doubt.is(&path("f"), &found(7, 1_001)));
        assert!(!doubt.is(&path("g"), &found(7, 1_000)));
        assert!(!doubt.is(&path("f"), &found(6, 1_000)));
        assert!(!doubt.is(&path("f"), &found(7, 2_000)));
        let untimed = Doubt {
            mtime: None,
            ..doubt.clone()
        };
        assert!(untimed.is(&path("f"), &found(7, 2_000)));
        let torn = Doubt {
            partial: true,
            ..doubt
        };
        assert!(torn.is(&path("f"), &found(6, 2_000)));
        assert!(!torn.is(&path("f"), &found(8, 2_000)));
    }
}
