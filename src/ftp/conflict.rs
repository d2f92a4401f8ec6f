//! Somebody else's version where an upload is to go.
//!
//! What an upload may replace is known since the file was opened. Which version the server has now
//! is asked in the round trip that sets the times of the new content; where there should be none,
//! whatever is there is moved aside in the round trip that gives the content its name. So the check
//! costs no round trip of its own, unless there is a conflict.

use std::time::{Duration, SystemTime};

use super::intents::Intent;
use super::listing::{self, format_time};
use super::options::Conflict;
use super::pool::Lease;
use super::probes::{self, Seen};
use super::refusal::refusal;
use super::replace::Replacement;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::stat::{size_of, time_of};
use super::sweep::Outcome;
use super::temporary;
use super::times::{agrees, apart, zone_between};
use crate::vfs::attr::{Attr, FileKind};
use crate::vfs::backend::{self, Publish, Replaces};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Times this near to each other may be one: FAT keeps every other second.
const SLACK: Duration = Duration::from_secs(2);

/// A day, wherever it begins.
const DAYS: Duration = Duration::from_secs(2 * 86_400);

/// What shows that a version is not the one that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// There should be none, or its size is another.
    Plain,
    /// Its time alone. A server that does not keep the times it was told shows that, too.
    Time,
}

/// What of a version on the server shows that it is not what an upload may replace.
pub(super) fn sign(what: &Publish, found: &Attr, now: SystemTime) -> Option<Sign> {
    if found.is_dir() || is_ours(what, found) {
        return None;
    }
    match what.replaces {
        Replaces::Anything => None,
        Replaces::Nothing => Some(Sign::Plain),
        Replaces::Version(seen) => another(&seen, found, now),
    }
}

/// Whether `found` is what the upload itself brings: an earlier attempt came through.
fn is_ours(what: &Publish, found: &Attr) -> bool {
    let times = found.mtime.filter(|_| found.mtime_exact).zip(what.mtime);
    found.size == Some(what.size) && times.is_some_and(|(a, b)| apart(a, b) < SLACK)
}

fn another(seen: &backend::Seen, found: &Attr, now: SystemTime) -> Option<Sign> {
    if seen
        .size
        .zip(found.size)
        .is_some_and(|(then, now)| then != now)
    {
        return Some(Sign::Plain);
    }
    let exact = found.mtime.filter(|_| found.mtime_exact);
    let (then, exact) = seen.mtime.zip(exact)?;
    let same = if seen.exact {
        apart(then, exact) <= SLACK
    } else {
        // Shown to the minute, or to the day; perhaps before the zone was known.
        agrees(then, exact, now)
            || zone_between(then, exact, now).is_some()
            || may_be_a_day(then) && apart(then, exact) < DAYS
    };
    (!same).then_some(Sign::Time)
}

/// Whether `listed` may stand for a day, as in some listings even of new files: midnight, in some
/// zone.
fn may_be_a_day(listed: SystemTime) -> bool {
    let since = listed.duration_since(SystemTime::UNIX_EPOCH);
    since.is_ok_and(|since| since.as_secs() % 900 == 0)
}

impl FtpServer {
    /// Whether an upload of `what` minds what it would replace.
    pub(super) fn minds(&self, what: &Publish) -> bool {
        self.options().conflict != Conflict::Overwrite && what.replaces != Replaces::Anything
    }

    /// The commands that tell which version is at `path`.
    pub(super) fn version_lines(&self, s: &Session, path: &RemotePath) -> Result<Vec<Vec<u8>>> {
        let verbs: &[&str] = match self.has_mlst(s) {
            true => &["MLST"],
            false => &["SIZE", "MDTM"],
        };
        verbs.iter().map(|verb| self.line(verb, path)).collect()
    }

    /// What they were answered; `None` if nothing is there, or nobody will tell.
    pub(super) fn version_told(&self, replies: &[Reply]) -> Option<Attr> {
        match replies {
            [facts] if facts.is_ok() => {
                let line = facts.body().first()?;
                listing::parse_facts(line).map(|(attr, _)| attr)
            }
            [facts] => {
                if matches!(facts.code(), 500 | 502 | 504) {
                    self.ways.with(|ways| ways.mlst = Some(false));
                }
                None
            }
            [size, time] => {
                let (size, mtime) = (size_of(size)?, time_of(time));
                Some(Attr {
                    size: self.believes_size().then_some(size),
                    mtime,
                    mtime_exact: mtime.is_some(),
                    ..Attr::new(FileKind::File)
                })
            }
            _ => None,
        }
    }

    pub(super) fn version_now(&self, s: &mut Session, path: &RemotePath) -> Result<Option<Attr>> {
        let lines = self.version_lines(s, path)?;
        let replies = s.batch(&lines)?;
        Ok(self.version_told(&replies))
    }

    /// The name that a version of `at` which is in the way gets.
    pub(super) fn aside_name(&self, at: &RemotePath) -> Result<RemotePath> {
        let time = self.free_second(at);
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        let suffix = format!(".conflict-{}-{}", plain(&host), format_time(time));
        temporary::beside(at, &suffix)
    }

    /// Two versions of one file that are kept in one second would have one name.
    fn free_second(&self, at: &RemotePath) -> SystemTime {
        let now = SystemTime::now();
        self.set_aside.with(|last| match last {
            Some((path, time)) if path == at => now.max(*time + Duration::from_secs(1)),
            _ => now,
        })
    }

    /// Does with the version that an upload must not replace what the options say: the name that it
    /// has then, `aside` as a rule. The caller ends the intent when the new version has its place.
    ///
    /// # Errors
    /// `Stale` if that is to fail; what the server says if it cannot be moved aside.
    pub(super) fn make_way(
        &self,
        lease: &mut Option<Lease>,
        job: &Replacement<'_>,
        aside: &RemotePath,
    ) -> Result<RemotePath> {
        let (at, mut aside) = (job.to, aside.clone());
        if self.options().conflict == Conflict::Fail {
            let detail = format!(
                "{at}: somebody else has changed it since it was opened, and conflict=fail is set"
            );
            return Err(Error::new(ErrorKind::Stale, detail));
        }
        let keep = |aside: &RemotePath| {
            let intent = Intent::Keep { home: at.clone() };
            self.intents
                .begin(aside, intent, true)
                .map_err(|err| err.context(format_args!("{at} cannot be moved aside safely")))
        };
        keep(&aside)?;
        let moved = self.recovering(lease, |s, lost| {
            if let Some(lost) = lost {
                if self.bar(s, (at, &aside), lost)? {
                    self.set_aside
                        .with(|last| *last = Some((at.clone(), SystemTime::now())));
                    aside = self.aside_name(at)?;
                    keep(&aside)?;
                } else if self.look(s, &aside)? == Seen::File {
                    return Ok(true);
                }
            }
            let [from, to] = self.rename_once(s, at, &aside)?;
            if to.is_ok() {
                return Ok(true);
            }
            self.intents.end(&aside, false);
            // It went by itself.
            if !from.wants_more() && self.look(s, at)? == Seen::Missing {
                return Ok(false);
            }
            let refused = if from.wants_more() {
                ("RNTO", &aside, to)
            } else {
                ("RNFR", at, from)
            };
            Err(self.explain(s, probes::PLACE, (refused.0, refused.1), &refused.2))
        });
        if moved.inspect_err(|_| self.over_with(&aside))? {
            self.kept(at, &aside);
        }
        Ok(aside)
    }

    /// The commands that move what is at `job.to`, where nothing should be, aside: mostly nothing is,
    /// and they are refused. A name of the kind that was taken for the new content will be taken, so
    /// that what comes behind them replaces nothing.
    pub(super) fn lines_past(&self, job: &Replacement<'_>) -> Result<Vec<Vec<u8>>> {
        self.in_flight.with(|names| names.insert(job.aside()));
        // As a rule nothing is moved, so that no disk is waited for.
        let home = job.to.clone();
        let _ = self
            .intents
            .begin(&job.aside(), Intent::Unseen { home }, false);
        self.lines_of_rename(job.to, &job.aside())
    }

    /// What was moved from `at` to `aside` goes back: the upload failed after all.
    ///
    /// # Errors
    /// If it cannot now; it is tried again later.
    pub(super) fn take_back(
        &self,
        s: &mut Session,
        aside: &RemotePath,
        at: &RemotePath,
    ) -> Result<()> {
        let [_, to] = self.rename_once(s, aside, at)?;
        if to.is_ok() {
            self.reveal(aside);
            return Ok(());
        }
        let err = refusal(&format!("RNTO {at}"), &to);
        Err(err.context(format_args!(
            "{at}: the version that was there is {aside} now"
        )))
    }

    /// After a rename behind [`lines_past`](Self::lines_past) of which the answer was lost: whether
    /// the content has its name.
    ///
    /// # Errors
    /// `Disconnected` if it is nowhere.
    pub(super) fn resume_past(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        what: &Publish,
        lost: ErrorKind,
    ) -> Result<bool> {
        let named = self.resume_naming(s, job)?;
        let aside = job.aside();
        if self.intents.of(&aside).is_none() {
            return Ok(named);
        }
        if !named && self.bar(s, (job.to, &aside), lost)? {
            job.wait_elsewhere(self)?;
            return Ok(false);
        }
        match self.look(s, &aside)? {
            Seen::Missing => self.reveal(&aside),
            _ if named => self.made_way(s, job, what)?,
            _ => self.take_back(s, &aside, job.to)?,
        }
        Ok(named)
    }

    /// Something was at `job.to`, where nothing should have been; it is aside now, and the content in
    /// its place.
    ///
    /// # Errors
    /// `IsADirectory` if it was a directory, which has its name again.
    pub(super) fn made_way(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        what: &Publish,
    ) -> Result<()> {
        let aside = &job.aside();
        let seen = Intent::Replace {
            home: job.to.clone(),
            by: None,
        };
        let _ = self.intents.begin(aside, seen, true);
        let found = self.version_now(s, aside)?;
        let directory = match &found {
            Some(attr) => attr.is_dir(),
            None => self.look(s, aside)? == Seen::Directory,
        };
        if directory {
            let _ = self.rename_once(s, job.to, job.from)?;
            self.take_back(s, aside, job.to)?;
            let detail = format!("{}: is a directory now", job.to);
            return Err(Error::new(ErrorKind::IsADirectory, detail));
        }
        let ours = |found: Attr| is_ours(what, &found) || self.was_ours(job.to, &found);
        if found.is_some_and(ours) {
            log::debug!("{}: was there already", job.to);
            self.conceal(aside);
            self.discard(s, aside);
            return Ok(());
        }
        if let Outcome::Later(why) = self.keep_beside(s, aside, job.to)? {
            log::error!("{}: somebody else has changed it, too: {why}", job.to);
        }
        Ok(())
    }

    pub(super) fn kept(&self, at: &RemotePath, aside: &RemotePath) {
        self.times.with(|times| times.renamed(at, aside));
        let time = self.free_second(at);
        self.set_aside.with(|last| *last = Some((at.clone(), time)));
        log::warn!("{at}: somebody else has changed it, too; that version is kept as {aside}");
    }

    /// A conflict was seen by the time alone, and `mtime` was set since: a server that shows another
    /// one again does not keep times, and they tell nothing.
    pub(super) fn check_times(
        &self,
        s: &mut Session,
        at: &RemotePath,
        mtime: SystemTime,
    ) -> Result<()> {
        let now = self.version_now(s, at)?.and_then(|found| found.mtime);
        if now.is_some_and(|now| apart(now, mtime) > SLACK) {
            log::info!("{at}: the server does not keep the time it was told");
            self.ways.with(|ways| ways.keeps_times = Some(false));
        }
        Ok(())
    }
}

/// A host's name as a part of a file's.
fn plain(host: &str) -> String {
    let kept = host.split('.').next().unwrap_or_default().chars();
    let kept: String = kept
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(32)
        .collect();
    if kept.is_empty() {
        "ferryfs".to_owned()
    } else {
        kept
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn found(size: u64, mtime: u64) -> Attr {
        Attr {
            size: Some(size),
            mtime: Some(at(mtime)),
            mtime_exact: true,
            ..Attr::new(FileKind::File)
        }
    }

    fn upload(replaces: Replaces) -> Publish {
        Publish {
            size: 7,
            mtime: Some(at(NOW)),
            mode: None,
            new: replaces == Replaces::Nothing,
            replaces,
        }
    }

    fn seen(size: u64, mtime: u64, exact: bool) -> Publish {
        upload(Replaces::Version(backend::Seen {
            size: Some(size),
            mtime: Some(at(mtime)),
            exact,
        }))
    }

    #[test]
    fn what_was_seen_exactly_differs_by_size_or_by_more_than_two_seconds() {
        let old = NOW - 10_000;
        let sign = |found: &Attr| sign(&seen(3, old, true), found, at(NOW));
        assert_eq!(sign(&found(3, old)), None);
        assert_eq!(sign(&found(3, old + 2)), None);
        assert_eq!(sign(&found(4, old)), Some(Sign::Plain));
        assert_eq!(sign(&found(3, old + 3)), Some(Sign::Time));
        assert_eq!(sign(&found(3, old - 3)), Some(Sign::Time));
        assert_eq!(sign(&found(7, NOW)), None, "our own earlier attempt");
    }

    #[test]
    fn what_was_seen_to_the_minute_gives_no_false_alarm() {
        let minute = (NOW - 10_000) / 60 * 60;
        let sign = |found: &Attr| sign(&seen(3, minute, false), found, at(NOW));
        assert_eq!(sign(&found(3, minute + 59)), None);
        assert_eq!(sign(&found(3, minute + 3_600)), None, "a zone, perhaps");
        assert_eq!(sign(&found(3, minute + 400)), Some(Sign::Time));
        assert_eq!(sign(&found(4, minute)), Some(Sign::Plain));
    }

    #[test]
    fn what_was_seen_to_the_day_gives_no_false_alarm() {
        let day = (NOW - 400 * 86_400) / 86_400 * 86_400;
        let sign = |found: &Attr| sign(&seen(3, day, false), found, at(NOW));
        assert_eq!(sign(&found(3, day + 80_000)), None);
        assert_eq!(sign(&found(3, NOW - 100)), Some(Sign::Time));
        let today = NOW / 86_400 * 86_400;
        let seen = seen(3, today, false);
        assert_eq!(super::sign(&seen, &found(3, NOW - 100), at(NOW)), None);
    }

    #[test]
    fn where_nothing_should_be_everything_is_a_conflict_but_a_directory() {
        let new = upload(Replaces::Nothing);
        assert_eq!(sign(&new, &found(3, NOW), at(NOW)), Some(Sign::Plain));
        let dir = Attr::new(FileKind::Directory);
        assert_eq!(sign(&new, &dir, at(NOW)), None);
        let any = upload(Replaces::Anything);
        assert_eq!(sign(&any, &found(3, NOW), at(NOW)), None);
    }

    #[test]
    fn a_size_that_nobody_tells_is_no_conflict() {
        let mut there = found(3, NOW - 10_000);
        there.size = None;
        assert_eq!(sign(&seen(5, NOW - 10_000, true), &there, at(NOW)), None);
    }

    #[test]
    fn host_names_become_a_part_of_a_name() {
        assert_eq!(plain("desk.example.org"), "desk");
        assert_eq!(plain("a b/c"), "abc");
        assert_eq!(plain(""), "ferryfs");
    }
}
