//! A version of a file as it was seen once.

use std::time::SystemTime;

use super::attr::{Attr, FileKind};

/// A version of a file, as far as it can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Bytes, where the server tells.
    pub size: Option<u64>,
    /// Last modification, UTC.
    pub mtime: Option<SystemTime>,
    /// Whether `mtime` is exact to the second.
    pub exact: bool,
}

impl Seen {
    /// The version that has these attributes.
    #[must_use]
    pub const fn of(attr: &Attr) -> Self {
        Self {
            size: attr.size,
            mtime: attr.mtime,
            exact: attr.mtime_exact,
        }
    }

    /// Whether `now` is plainly another version; see [`Attr::differs_from`].
    #[must_use]
    pub fn differs_from(&self, now: &Attr) -> bool {
        let then = Attr {
            size: self.size,
            mtime: self.mtime,
            mtime_exact: self.exact,
            ..Attr::new(FileKind::File)
        };
        then.differs_from(now)
    }
}
