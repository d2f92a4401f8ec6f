//! One record: a line with a checksum, then JSON. A record that a power cut left torn is seen as
//! such and never believed.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::vfs::attr::{Attr, FileKind, SetAttr};
use crate::vfs::backend::{Replaces, Seen};
use crate::vfs::path::RemotePath;

const MAGIC: &str = "ferryfs journal 1";

/// A file with acknowledged content that the server has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of two records of one path the higher one holds.
    pub(super) sequence: u64,
    /// Whose file it is.
    pub(super) account: String,
    /// For people who look.
    pub(super) shown: String,
    /// The path's bytes in base64.
    pub(super) path: String,
    /// Name of the staged file.
    pub(super) staged: String,
    pub(super) len: u64,
    pub(super) base_len: u64,
    pub(super) unchanged: u64,
    /// Ranges of the staged file that count; the rest below `base_len` is the server's.
    pub(super) local: Vec<(u64, u64)>,
    /// The server's version that it was made from.
    pub(super) base: Option<Base>,
    /// What it takes the place of, where that is not the base.
    pub(super) replaces: Option<Expected>,
    /// Seconds since 1970.
    pub(super) mtime: Option<i64>,
    pub(super) mode: Option<u32>,
    /// See [`Frozen`](crate::vfs::staging::Frozen).
    #[serde(default)]
    pub(super) sent: Option<(u64, i64)>,
}

/// A version of a file, as far as it is to be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    size: Option<u64>,
    mtime: Option<i64>,
    exact: bool,
    mode: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expected {
    Anything,
    Nothing,
    Version(Base),
}

impl Base {
    pub(super) fn of(attr: &Attr) -> Self {
        Self {
            size: attr.size,
            mtime: attr.mtime.map(seconds),
            exact: attr.mtime_exact,
            mode: attr.mode,
        }
    }

    pub(super) fn attr(self) -> Attr {
        Attr {
            size: self.size,
            mtime: self.mtime.and_then(time),
            mtime_exact: self.exact,
            mode: self.mode,
            ..Attr::new(FileKind::File)
        }
    }
}

impl Expected {
    pub(super) fn of(replaces: Replaces) -> Self {
        match replaces {
            Replaces::Anything => Self::Anything,
            Replaces::Nothing => Self::Nothing,
            Replaces::Version(seen) => Self::Version(Base {
                size: seen.size,
                mtime: seen.mtime.map(seconds),
                exact: seen.exact,
                mode: None,
            }),
        }
    }

    pub(super) fn replaces(self) -> Replaces {
        match self {
            Self::Anything => Replaces::Anything,
            Self::Nothing => Replaces::Nothing,
            Self::Version(base) => Replaces::Version(Seen::of(&base.attr())),
        }
    }
}

impl Record {
    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let mut text = format!("{MAGIC} {:08x}\n", crc32fast::hash(&body)).into_bytes();
        text.extend_from_slice(&body);
        Ok(text)
    }

    /// `None` for what is no whole record.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = (text.get(..end)?, text.get(end + 1..)?);
        let sum = std::str::from_utf8(head).ok()?.strip_prefix(MAGIC)?;
        let sum = u32::from_str_radix(sum.trim_start(), 16).ok()?;
        if crc32fast::hash(body) != sum {
            return None;
        }
        let record: Self = serde_json::from_slice(body).ok()?;
        let plain = Path::new(&record.staged).file_name()? == record.staged.as_str();
        plain.then_some(record)
    }

    pub(super) fn path(&self) -> Option<RemotePath> {
        RemotePath::parse(&STANDARD.decode(&self.path).ok()?).ok()
    }

    /// The end of the last range that counts.
    pub(super) fn end(&self) -> u64 {
        let ends = self.local.iter().map(|(_, end)| *end);
        ends.max().unwrap_or_default()
    }

    pub(super) fn sent(&self) -> Option<(u64, SystemTime)> {
        let (size, at) = self.sent?;
        Some((size, time(at)?))
    }

    pub(super) fn attr(&self) -> SetAttr {
        SetAttr {
            mtime: self.mtime.and_then(time),
            mode: self.mode,
        }
    }
}

pub(super) fn spelled(path: &RemotePath) -> String {
    STANDARD.encode(path.as_bytes())
}

/// Since 1970, rounded down.
pub(super) fn seconds(at: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration()) - i64::from(before.duration().subsec_nanos() > 0),
    }
}

fn time(seconds: i64) -> Option<SystemTime> {
    let away = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH.checked_sub(away)
    } else {
        UNIX_EPOCH.checked_add(away)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn record() -> Record {
        let base = Base {
            size: Some(5),
            mtime: Some(-7),
            exact: true,
            mode: Some(0o640),
        };
        Record {
            sequence: 3,
            account: "ftp://h/".into(),
            shown: "/a\u{fffd}".into(),
            path: spelled(&RemotePath::parse(b"a\xff").unwrap()),
            staged: "staged-1".into(),
            len: 9,
            base_len: 5,
            unchanged: 2,
            local: vec![(2, 4), (6, 9)],
            base: Some(base),
            replaces: Some(Expected::Version(base)),
            mtime: Some(1_700_000_000),
            mode: None,
            sent: Some((7, 1_700_000_001)),
        }
    }

    #[test]
    fn a_record_comes_back_and_a_torn_one_does_not() {
        let text = record().encode().unwrap();
        let back = Record::decode(&text).unwrap();
        assert_eq!(back, record());
        assert_eq!(back.path().unwrap().as_bytes(), b"a\xff");
        for cut in 0..text.len() {
            assert_eq!(Record::decode(&text[..cut]), None, "cut at {cut}");
            let mut bad = text.clone();
            bad[cut] ^= 0x10;
            // Hexadecimal digits have two spellings.
            if cut > MAGIC.len() + 9 {
                assert_eq!(Record::decode(&bad), None, "flipped at {cut}");
            }
        }
    }

    #[test]
    fn a_record_cannot_name_a_file_elsewhere() {
        for name in ["../../etc/passwd", "a/b", "..", ""] {
            let staged = name.to_owned();
            let text = Record { staged, ..record() }.encode().unwrap();
            assert_eq!(Record::decode(&text), None, "{name}");
        }
    }

    #[test]
    fn times_before_1970_are_rounded_down() {
        let before = UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(seconds(before), -2);
        assert_eq!(time(-2), Some(UNIX_EPOCH - Duration::from_secs(2)));
    }
}
