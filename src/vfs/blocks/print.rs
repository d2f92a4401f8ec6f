//! Which version of a file cached blocks are of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};

use crate::vfs::attr::Attr;
use crate::vfs::path::RemotePath;

/// A path, shortened. 128 bits of SHA-256: two paths of one mount never share them.
pub(super) type PathKey = [u8; 16];

/// Shortens `path`.
pub(super) fn key_of(path: &RemotePath) -> PathKey {
    let mut key = [0; 16];
    let hash = digest(&SHA256, path.as_bytes());
    for (to, from) in key.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    key
}

/// The directories above `path`, shortened to 64 bits, the root first.
pub(super) fn above(path: &RemotePath) -> Box<[u64]> {
    let mut above = Vec::new();
    let mut dir = path.parent();
    while let Some(at) = dir {
        above.push(short_of(&at));
        dir = at.parent();
    }
    above.reverse();
    above.into()
}

/// A directory as [`above`] has it.
pub(super) fn short_of(dir: &RemotePath) -> u64 {
    let key = key_of(dir);
    u64::from_le_bytes(key.first_chunk().copied().unwrap_or_default())
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) size: u64,
    /// Seconds since 1970, UTC.
    pub(super) mtime: i64,
    /// Whether `mtime` is exact to the second and not to the minute or the day.
    pub(super) exact: bool,
    /// The first 64 bits of the hash of the `unique` fact; 0 where the server tells none.
    pub(super) unique: u64,
}

impl Print {
    /// `None` where the server does not say enough to tell versions apart.
    pub(super) fn of(attr: &Attr) -> Option<Self> {
        let unique = attr.unique.as_ref().map_or(0, |unique| {
            let hash = digest(&SHA256, unique);
            let bytes = hash.as_ref().first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(bytes).max(1)
        });
        Some(Self {
            size: attr.size?,
            mtime: seconds(attr.mtime?),
            exact: attr.mtime_exact,
            unique,
        })
    }

    /// Whether a change that came after `seen` surely shows in the time stamp. A stamp that is
    /// coarse and recent may stay as it is.
    pub(super) const fn is_settled(&self, seen: i64) -> bool {
        seen.saturating_sub(self.mtime) > grain(self.exact)
    }

    /// Whether `now` is this version, of which the data was fetched from `seen` on. LIST shows the
    /// minute of what MDTM tells to the second: one version, if the minute was over by then.
    pub(super) fn is(&self, now: &Self, seen: i64) -> bool {
        let other_file = self.unique != 0 && now.unique != 0 && self.unique != now.unique;
        if self.size != now.size || other_file {
            return false;
        }
        if self.exact == now.exact {
            return self.mtime == now.mtime;
        }
        let minute = |time: i64| time.div_euclid(60);
        let coarse = if self.exact { now } else { self };
        coarse.mtime.rem_euclid(60) == 0
            && minute(self.mtime) == minute(now.mtime)
            && seen.saturating_sub(coarse.mtime) > grain(false)
    }
}

/// Seconds within which a second change may not show, and some for clocks that differ.
const fn grain(exact: bool) -> i64 {
    if exact { 2 } else { 120 }
}

/// Whole seconds since 1970, rounded down.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration() + Duration::from_nanos(999_999_999)),
    }
}
