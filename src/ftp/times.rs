//! Exact times, kept beside the coarse ones of LIST, and the zone that LIST is in.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::vfs::attr::{Attr, FileKind};
use crate::vfs::path::RemotePath;

const DAY: u64 = 86_400;

/// `ls` shows a year instead of the hour beyond half a year; some days less, for its roundings.
const MINUTES_SHOWN_FOR: Duration = Duration::from_secs(170 * DAY);

/// As long after a time a change may still show in LIST as that time, which is cut to the minute; and
/// some for clocks that differ.
const GRAIN: Duration = Duration::from_secs(120);

/// Most files whose exact time is remembered.
const REMEMBERED: usize = 32_768;

/// How far two times are apart.
pub(crate) fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b)
        .or_else(|_| b.duration_since(a))
        .unwrap_or_default()
}

/// `time` without its fraction: what commands can carry.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => UNIX_EPOCH + Duration::from_secs(after.as_secs()),
        Err(before) => {
            let before = before.duration();
            let whole = before.as_secs() + u64::from(before.subsec_nanos() > 0);
            UNIX_EPOCH
                .checked_sub(Duration::from_secs(whole))
                .unwrap_or(time)
        }
    }
}

/// `time` moved by `seconds`; unchanged where that is no time.
pub(crate) fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds >= 0 {
        time.checked_add(by)
    } else {
        time.checked_sub(by)
    }
    .unwrap_or(time)
}

/// Whether LIST shows `time` to the minute, and not only to the day.
pub(crate) fn shows_minutes(time: SystemTime, now: SystemTime) -> bool {
    !now.duration_since(time)
        .is_ok_and(|age| age > MINUTES_SHOWN_FOR)
}

/// Seconds that a LIST time is ahead of the true one: a multiple of a quarter of an hour, as time
/// zones are. `None` where the two are not of the same version of the file, or the listed time is
/// only a day.
pub(crate) fn zone_between(listed: SystemTime, exact: SystemTime, now: SystemTime) -> Option<i64> {
    if !shows_minutes(exact, now) {
        return None;
    }
    let signed = |t: SystemTime| match t.duration_since(UNIX_EPOCH) {
        Ok(d) => i64::try_from(d.as_secs()).ok(),
        Err(e) => i64::try_from(e.duration().as_secs()).ok().map(|s| -s),
    };
    let ahead = signed(listed)? - (signed(exact)? - signed(exact)?.rem_euclid(60));
    let quarter = 900;
    let zone = (ahead + quarter / 2).div_euclid(quarter) * quarter;
    ((ahead - zone).abs() <= 60 && zone.abs() <= 14 * 3_600).then_some(zone)
}

/// Times that were set through this mount or told exactly, for files that LIST shows to the minute
/// only; and times of directories that the server would not set.
#[derive(Debug, Default)]
pub(crate) struct ExactTimes {
    known: HashMap<RemotePath, Exact>,
    order: VecDeque<RemotePath>,
}

#[derive(Debug, Clone, Copy)]
struct Exact {
    mtime: SystemTime,
    size: Option<u64>,
    /// When this was surely so.
    since: SystemTime,
    /// For a directory: what the server said when this was first shown instead.
    instead_of: Option<Option<SystemTime>>,
}

impl Exact {
    /// Whether `attr` is of a file and coarse, and may be of this version.
    fn explains(&self, attr: &Attr, now: SystemTime) -> bool {
        let agrees = |listed| agrees(listed, self.mtime, now);
        attr.kind == FileKind::File
            && self.instead_of.is_none()
            && !attr.mtime_exact
            && attr.size == self.size
            && attr.mtime.is_none_or(agrees)
    }

    /// Whether LIST shows every change that came after this was known.
    fn is_proven(&self) -> bool {
        let age = self.since.duration_since(self.mtime);
        age.is_ok_and(|age| age > GRAIN)
    }
}

impl ExactTimes {
    /// The file at `path`, `size` bytes long, was last modified at `mtime`.
    pub(crate) fn learn(&mut self, path: &RemotePath, size: Option<u64>, mtime: SystemTime) {
        self.insert(
            path,
            Exact {
                mtime,
                size,
                since: SystemTime::now(),
                instead_of: None,
            },
        );
    }

    /// The directory at `path` shall show `mtime` until the server shows another time than now.
    pub(crate) fn pretend(&mut self, path: &RemotePath, mtime: SystemTime) {
        self.insert(
            path,
            Exact {
                mtime,
                size: None,
                since: SystemTime::now(),
                instead_of: Some(None),
            },
        );
    }

    /// `path` was removed or replaced.
    pub(crate) fn forget(&mut self, path: &RemotePath) {
        self.known.remove(path);
    }

    /// `from` and all below it is now at `to`.
    pub(crate) fn renamed(&mut self, from: &RemotePath, to: &RemotePath) {
        let moved: Vec<_> = self
            .known
            .extract_if(|path, _| path.is_within(from))
            .filter_map(|(path, exact)| Some((path.rebase(from, to)?, exact)))
            .collect();
        for (path, exact) in moved {
            self.insert(&path, exact);
        }
    }

    /// The server says exactly when the file at `path` was last modified: where another time is
    /// remembered, it is another version.
    pub(crate) fn told(&mut self, path: &RemotePath, size: Option<u64>, mtime: SystemTime) {
        let known = self.known.get(path);
        if known.is_some_and(|exact| exact.instead_of.is_none()) {
            self.learn(path, size, mtime);
        }
    }

    /// Whether [`refine`](Self::refine) would give `attr` a time that somebody else's version may
    /// have, too: one of this minute, of which LIST shows no more. Then the server is to be asked,
    /// and what it says [`told`](Self::told).
    pub(crate) fn is_open(&self, path: &RemotePath, attr: &Attr, now: SystemTime) -> bool {
        let open = |exact: &Exact| !exact.is_proven() && exact.explains(attr, now);
        self.known.get(path).is_some_and(open)
    }

    /// Makes the time in `attr` exact where it is coarse and what is known agrees with it.
    pub(crate) fn refine(&mut self, path: &RemotePath, attr: &mut Attr, now: SystemTime) {
        let Some(exact) = self.known.get_mut(path) else {
            return;
        };
        if exact.explains(attr, now) {
            attr.mtime = Some(exact.mtime);
            attr.mtime_exact = true;
        } else if attr.kind == FileKind::Directory
            && let Some(seen) = &mut exact.instead_of
        {
            let shown = attr.mtime.unwrap_or(UNIX_EPOCH);
            if *seen.get_or_insert(shown) == shown {
                attr.mtime = Some(exact.mtime);
                attr.mtime_exact = true;
            } else {
                self.known.remove(path);
            }
        }
    }

    fn insert(&mut self, path: &RemotePath, exact: Exact) {
        if self.known.insert(path.clone(), exact).is_none() {
            self.order.push_back(path.clone());
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Whether LIST would show `exact` as `listed`: cut to the minute, or to the day when it is old.
pub(crate) fn agrees(listed: SystemTime, exact: SystemTime, now: SystemTime) -> bool {
    let old = !shows_minutes(exact, now);
    let within = if old { DAY } else { 60 };
    exact
        .duration_since(listed)
        .is_ok_and(|late| late.as_secs() < within)
        // The day of an old file begins at midnight of the server, which may be a zone away.
        || old && apart(exact, listed).as_secs() < within
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_zone_is_a_multiple_of_a_quarter_of_an_hour() {
        let now = at(1_000_000_000);
        let exact = at(999_990_047);
        let minute = 999_990_000;
        assert_eq!(zone_between(at(minute), exact, now), Some(0));
        assert_eq!(zone_between(at(minute + 7_200), exact, now), Some(7_200));
        assert_eq!(zone_between(at(minute - 12_600), exact, now), Some(-12_600));
        assert_eq!(zone_between(at(minute + 5_000), exact, now), None);
        assert_eq!(zone_between(at(minute + 90_000), exact, now), None);
        assert_eq!(
            zone_between(at(0), at(30), now),
            None,
            "only a day is shown"
        );
    }

    fn listed(mtime: u64, size: u64) -> Attr {
        Attr {
            mtime: Some(at(mtime)),
            size: Some(size),
            ..Attr::new(FileKind::File)
        }
    }

    #[test]
    fn a_known_time_replaces_the_minute_it_lies_in() {
        let (now, path) = (at(1_000_000_000), RemotePath::parse(b"a/f").unwrap());
        let mut times = ExactTimes::default();
        times.learn(&path, Some(5), at(999_999_977));
        let mut attr = listed(999_999_960, 5);
        times.refine(&path, &mut attr, now);
        assert_eq!(
            (attr.mtime, attr.mtime_exact),
            (Some(at(999_999_977)), true)
        );
        for other in [
            listed(999_999_960, 6),
            listed(999_999_900, 5),
            listed(1_000_000_020, 5),
        ] {
            let mut attr = other.clone();
            times.refine(&path, &mut attr, now);
            assert_eq!(attr, other, "someone else wrote the file");
        }
    }

    #[test]
    fn a_time_of_the_minute_in_which_it_was_learned_proves_nothing_later() {
        let (now, path) = (SystemTime::now(), RemotePath::parse(b"f").unwrap());
        let mut times = ExactTimes::default();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let minute = seconds - seconds % 60;
        times.learn(&path, Some(5), at(minute + 1));
        assert!(times.is_open(&path, &listed(minute, 5), now));
        assert!(
            !times.is_open(&path, &listed(minute, 6), now),
            "plainly another"
        );
        assert!(!times.is_open(&path, &listed(minute - 60, 5), now));
        times.told(&path, Some(5), at(minute + 31));
        let mut attr = listed(minute, 5);
        times.refine(&path, &mut attr, now);
        assert_eq!(attr.mtime, Some(at(minute + 31)));
        times.learn(&path, Some(5), at(minute - 299));
        assert!(!times.is_open(&path, &listed(minute - 300, 5), now));
        // Nothing was known of it.
        let other = RemotePath::parse(b"g").unwrap();
        times.told(&other, Some(5), at(minute));
        assert!(!times.is_open(&other, &listed(minute, 5), now));
    }

    #[test]
    fn an_old_time_agrees_with_its_day() {
        let (now, path) = (at(1_000_000_000), RemotePath::parse(b"f").unwrap());
        let mut times = ExactTimes::default();
        times.learn(&path, Some(5), at(86_400 * 100 + 40_000));
        let mut attr = listed(86_400 * 100, 5);
        times.refine(&path, &mut attr, now);
        assert_eq!(attr.mtime, Some(at(86_400 * 100 + 40_000)));
    }

    #[test]
    fn a_directory_shows_its_pretended_time_until_the_server_says_otherwise() {
        let (now, path) = (at(1_000_000_000), RemotePath::parse(b"d").unwrap());
        let mut times = ExactTimes::default();
        times.pretend(&path, at(5));
        let dir = |t| Attr {
            mtime: Some(at(t)),
            ..Attr::new(FileKind::Directory)
        };
        for _ in 0..2 {
            let mut attr = dir(999_999_900);
            times.refine(&path, &mut attr, now);
            assert_eq!(attr.mtime, Some(at(5)));
        }
        let mut attr = dir(999_999_960);
        times.refine(&path, &mut attr, now);
        assert_eq!(attr, dir(999_999_960));
    }

    #[test]
    fn renaming_a_directory_takes_its_times_along() {
        let path = |p: &[u8]| RemotePath::parse(p).unwrap();
        let mut times = ExactTimes::default();
        times.learn(&path(b"d/f"), Some(5), at(999_999_977));
        times.renamed(&path(b"d"), &path(b"e"));
        let mut attr = listed(999_999_960, 5);
        times.refine(&path(b"e/f"), &mut attr, at(1_000_000_000));
        assert!(attr.mtime_exact);
        let mut attr = listed(999_999_960, 5);
        times.refine(&path(b"d/f"), &mut attr, at(1_000_000_000));
        assert!(!attr.mtime_exact);
    }
}
