//! What a directory entry is known to be: kind, size, times, mode, link target.

use std::time::{Duration, SystemTime};

use super::path::Name;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file, or anything a server can only retrieve (device, fifo, socket).
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Attributes as a listing or a server's reply gives them. What the server did not say is `None`,
/// never a made-up value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// File, directory or link.
    pub kind: FileKind,
    /// Bytes; `None` where the server does not tell (such a file is read with direct I/O).
    pub size: Option<u64>,
    /// Last modification, UTC.
    pub mtime: Option<SystemTime>,
    /// Whether `mtime` is exact to the second (MLSx, MDTM) and not to the minute or day (LIST).
    pub mtime_exact: bool,
    /// Permission bits, setuid, setgid and sticky included (`0o7777`).
    pub mode: Option<u32>,
    /// Owner and group as the server prints them, names or numbers.
    pub owner: Option<Box<str>>,
    /// See `owner`.
    pub group: Option<Box<str>>,
    /// The server's identity of this file (the `unique` fact, RFC 3659 section 7.5.2).
    pub unique: Option<Box<[u8]>>,
    /// What the `perm` fact allows (RFC 3659 section 7.5.5), lower case; `None` where not told.
    pub perm: Option<Box<str>>,
    /// A link's target in the server's bytes; `None` where it is not a link or not told.
    pub target: Option<Box<[u8]>>,
}

impl Attr {
    /// Attributes of `kind` of which nothing else is known.
    #[must_use]
    pub const fn new(kind: FileKind) -> Self {
        Self {
            kind,
            size: None,
            mtime: None,
            mtime_exact: false,
            mode: None,
            owner: None,
            group: None,
            unique: None,
            perm: None,
            target: None,
        }
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether `other` is plainly another version of the file: another size, another identity, or
    /// a modification time that differs by more than the coarser of the two can explain.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        let told = |a: Option<u64>, b: Option<u64>| matches!((a, b), (Some(a), Some(b)) if a != b);
        if self.kind != other.kind || told(self.size, other.size) {
            return true;
        }
        if let (Some(a), Some(b)) = (&self.unique, &other.unique)
            && a != b
        {
            return true;
        }
        let (Some(a), Some(b)) = (self.mtime, other.mtime) else {
            return false;
        };
        let apart = a
            .duration_since(b)
            .or_else(|_| b.duration_since(a))
            .unwrap_or_default();
        let apart = apart.as_secs();
        if self.mtime_exact && other.mtime_exact {
            return apart >= 1;
        }
        // LIST tells the minute for half a year, then the day. Times of two commands may be a zone
        // apart, which is quarters of an hour.
        let a_day = |time, exact: bool| !exact && past_the_quarter(time) == 0;
        let zone = self.mtime_exact != other.mtime_exact
            && !(60..=QUARTER - 60).contains(&(apart % QUARTER));
        let may_be = a_day(a, self.mtime_exact) || a_day(b, other.mtime_exact) || zone;
        apart >= if may_be { 86_400 } else { 60 }
    }
}

/// Seconds.
const QUARTER: u64 = 900;

/// Seconds since the last full quarter of an hour, as it was in every zone.
fn past_the_quarter(time: SystemTime) -> u64 {
    let epoch = SystemTime::UNIX_EPOCH;
    match time.duration_since(epoch) {
        Ok(after) => after.as_secs() % QUARTER,
        Err(before) => (QUARTER - before.duration().as_secs() % QUARTER) % QUARTER,
    }
}

/// What `setattr` may ask of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New modification time, UTC.
    pub mtime: Option<SystemTime>,
    /// New permission bits (`0o7777`).
    pub mode: Option<u32>,
}

/// `time` rounded down to whole seconds, which is all that FTP can express (RFC 3659 section 2.3
/// makes fractions optional, and hardly a server keeps them).
#[must_use]
pub fn whole_seconds(time: SystemTime) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH;
    match time.duration_since(epoch) {
        Ok(after) => epoch + Duration::from_secs(after.as_secs()),
        Err(before) => {
            let before = before.duration();
            let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
            epoch
                .checked_sub(Duration::from_secs(seconds))
                .unwrap_or(epoch)
        }
    }
}

/// Space of the server's filesystem or the account's quota, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of it all, where known.
    pub total: Option<u64>,
    /// What may still be written.
    pub available: u64,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Name,
    /// What the listing says of it.
    pub attr: Attr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_times_are_one_version_if_a_coarse_one_can_be_the_other() {
        const DAY: u64 = 1_700_006_400;
        let noon = DAY + 43_200;
        let attr = |(time, exact): (u64, bool)| Attr {
            size: Some(5),
            mtime: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(time)),
            mtime_exact: exact,
            ..Attr::new(FileKind::File)
        };
        for (a, b, differ) in [
            ((noon, true), (noon + 1, true), true),
            // The minute.
            ((noon + 360, false), (noon + 419, true), false),
            ((noon + 360, false), (noon + 420, false), true),
            ((noon + 360, false), (noon + 11_160, false), true),
            ((noon + 360, false), (noon + 600, true), true),
            // The day, of an old one.
            ((noon + 360, true), (DAY, false), false),
            ((noon + 360, false), (DAY, false), false),
            ((noon + 360, false), (DAY - 86_400, false), true),
            // The minute, in another zone.
            ((noon + 360, false), (noon + 7_200 + 401, true), false),
            ((noon + 360, false), (noon + 86_400 + 401, true), true),
        ] {
            let (a, b) = (attr(a), attr(b));
            assert_eq!(a.differs_from(&b), differ, "{a:?} {b:?}");
            assert_eq!(b.differs_from(&a), differ, "{b:?} {a:?}");
        }
    }
}
