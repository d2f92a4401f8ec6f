//! What waits to be uploaded, and when it is its turn.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::vfs::error::{Error, ErrorKind};
use crate::vfs::inodes::Ino;
use crate::vfs::path::RemotePath;

/// How long content is left alone first: it is often renamed, written again or removed at once.
pub(super) const SETTLE: Duration = Duration::from_millis(60);

/// The first and the longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Refusals after which a file is given up: a server's mind has had half a minute to change.
const REFUSALS: u32 = 6;

/// How long what somebody is writing to is left alone, if its next close is not told.
const IN_USE: Duration = Duration::from_millis(500);

/// Files from this size on leave some connections to the small ones.
const LARGE: u64 = 8 << 20;

/// Files from this size on may take long, however soon the server answers.
const BULKY: u64 = 128 << 10;

/// Workers that keep a server busy that answers at once.
const FEW: usize = 2;

/// What an upload takes at least over a link on which more of them side by side are faster, and how
/// many in a row show that it is one: more than those that waited for their login.
const SLOW: Duration = Duration::from_millis(6);
const SLOW_ONES: usize = 4;

/// Failures remembered for those who use the file next.
const REMEMBERED: usize = 1_000;

/// One file that waits.
#[derive(Debug)]
struct Job {
    key: (Instant, u64),
    bytes: u64,
    running: bool,
    /// As it was when it began to run.
    large: bool,
    bulky: bool,
    /// It was acknowledged again while it was being uploaded.
    again: bool,
    refusals: u32,
    attempts: u32,
    error: Option<Error>,
}

/// The server cannot be reached: one file at a time asks, and all wait.
#[derive(Debug)]
struct Outage {
    attempts: u32,
    until: Instant,
    error: Error,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Uploads this.
    Take(Ino),
    /// Waits for so long at most, or to be woken.
    Wait(Option<Duration>),
}

/// What becomes of a file after an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It is on the server, and nobody waits for it any more.
    Done,
    /// It stays in line.
    Stays,
    /// It is given up.
    Refused,
}

/// In numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files that wait, those under way included.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Files under way.
    pub uploading: usize,
    /// Files of which an attempt failed.
    pub retrying: usize,
    /// Why, of the last failure.
    pub last_error: Option<String>,
    /// When the next attempt is made, where nothing is under way.
    pub next_attempt: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// How long content is left alone before its turn can come.
    settle: Duration,
    jobs: HashMap<Ino, Job>,
    line: BTreeMap<(Instant, u64), Ino>,
    next: u64,
    bytes: u64,
    running: usize,
    running_large: usize,
    running_bulky: usize,
    outage: Option<Outage>,
    last_error: Option<Error>,
    failed: BTreeMap<RemotePath, Error>,
    /// How many uploads in a row took long.
    slow: usize,
    pub(super) threads: usize,
    pub(super) ended: bool,
}

impl Queue {
    /// Nothing waits.
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            settle,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether `ino` is in line.
    pub(super) fn has(&self, ino: Ino) -> bool {
        self.jobs.contains_key(&ino)
    }

    /// Whether one more of `most` workers is to be started, which is counted. Each brings a login:
    /// few are enough until uploads turn out to take their time.
    pub(super) fn wants_worker(&mut self, most: usize) -> bool {
        let most = match self.slow >= SLOW_ONES || self.running_bulky > 0 {
            true => most,
            false => most.min(FEW),
        };
        let start = !self.ended && self.threads < most.min(self.jobs.len());
        self.threads += usize::from(start);
        start
    }

    /// An upload took `time`, the making of its connection included.
    pub(super) fn took(&mut self, time: Duration) {
        self.slow = match time >= SLOW {
            true => self.slow.saturating_add(1),
            false => 0,
        };
    }

    /// `ino` has `bytes` to be uploaded. Whether it was not in line before.
    pub(super) fn add(&mut self, ino: Ino, bytes: u64, now: Instant) -> bool {
        self.next += 1;
        let key = (now + self.settle, self.next);
        let Some(job) = self.jobs.get_mut(&ino) else {
            let job = Job {
                key,
                bytes,
                running: false,
                large: false,
                bulky: false,
                again: false,
                refusals: 0,
                attempts: 0,
                error: None,
            };
            self.jobs.insert(ino, job);
            self.line.insert(key, ino);
            self.bytes += bytes;
            return true;
        };
        self.bytes = self.bytes - job.bytes + bytes;
        job.bytes = bytes;
        if job.running {
            job.again = true;
            return false;
        }
        self.line.remove(&job.key);
        job.key = key;
        self.line.insert(key, ino);
        false
    }

    /// `ino` was stored by somebody else, or need not be any more: it is its turn now.
    pub(super) fn hasten(&mut self, ino: Ino, now: Instant) -> bool {
        let Some(job) = self.jobs.get_mut(&ino).filter(|job| !job.running) else {
            return false;
        };
        self.line.remove(&job.key);
        job.key = (now, 0);
        // Several may come at one instant.
        while self.line.contains_key(&job.key) {
            job.key.1 += 1;
        }
        self.line.insert(job.key, ino);
        true
    }

    /// The next upload for a worker, of `most` that may run.
    pub(super) fn next(&mut self, most: usize, now: Instant) -> Next {
        let most = match &self.outage {
            Some(outage) if now < outage.until => return Next::Wait(Some(outage.until - now)),
            Some(_) => 1,
            None => most,
        };
        if self.running >= most {
            return Next::Wait(None);
        }
        let large_allowed = self.running_large < most.saturating_sub(2).max(1);
        let found = self.line.iter().find_map(|(key, ino)| {
            if key.0 > now {
                return Some(Err(key.0 - now));
            }
            let large = self.jobs.get(ino).is_some_and(|job| job.bytes >= LARGE);
            (!large || large_allowed).then_some(Ok((*key, *ino)))
        });
        let (key, ino) = match found {
            Some(Ok(found)) => found,
            Some(Err(wait)) => return Next::Wait(Some(wait)),
            None => return Next::Wait(None),
        };
        self.line.remove(&key);
        if let Some(job) = self.jobs.get_mut(&ino) {
            job.running = true;
            job.again = false;
            job.attempts += 1;
            job.large = job.bytes >= LARGE;
            job.bulky = job.bytes >= BULKY;
            self.running += 1;
            self.running_large += usize::from(job.large);
            self.running_bulky += usize::from(job.bulky);
        }
        Next::Take(ino)
    }

    /// Somebody is writing to `ino`, of which the next acknowledgement will be told by
    /// [`add`](Self::add). That it does not come is no reason to forget about it.
    pub(super) fn put_off(&mut self, ino: Ino, now: Instant) {
        self.leave_run(ino);
        self.next += 1;
        let next = self.next;
        let settle = self.settle;
        let Some(job) = self.jobs.get_mut(&ino) else {
            return;
        };
        let pause = match std::mem::take(&mut job.again) {
            true => settle,
            false => IN_USE,
        };
        job.key = (now + pause, next);
        self.line.insert(job.key, ino);
    }

    /// It does not run any more.
    fn leave_run(&mut self, ino: Ino) {
        if let Some(job) = self.jobs.get_mut(&ino) {
            self.running -= 1;
            self.running_large -= usize::from(job.large);
            self.running_bulky -= usize::from(job.bulky);
            job.running = false;
        }
    }

    /// An attempt has ended; with an error, `by_server` says whether it is a verdict on the file.
    pub(super) fn ended(
        &mut self,
        ino: Ino,
        error: Option<(Error, Verdict)>,
        now: Instant,
    ) -> After {
        self.leave_run(ino);
        let Some(job) = self.jobs.get_mut(&ino) else {
            return After::Done;
        };
        let again = std::mem::take(&mut job.again);
        let pause = match error {
            None => {
                self.outage = None;
                if !again {
                    self.bytes -= job.bytes;
                    self.jobs.remove(&ino);
                    return After::Done;
                }
                (job.refusals, job.error) = (0, None);
                self.settle
            }
            Some((error, verdict)) => {
                self.last_error = Some(error.clone());
                job.error = Some(error.clone());
                match verdict {
                    Verdict::Unreachable => {
                        let known = self.outage.as_ref();
                        let (before, until) = known.map_or((0, now), |o| (o.attempts, o.until));
                        // Others were under way when the first found out.
                        if until <= now {
                            let attempts = before + 1;
                            let until = now + pause(attempts);
                            self.outage = Some(Outage {
                                attempts,
                                until,
                                error,
                            });
                        }
                        Duration::ZERO
                    }
                    Verdict::Later => pause(job.attempts),
                    Verdict::Refused | Verdict::Final => {
                        job.refusals += 1;
                        let enough = verdict == Verdict::Final || job.refusals >= REFUSALS;
                        if enough && !again {
                            self.bytes -= job.bytes;
                            self.jobs.remove(&ino);
                            return After::Refused;
                        }
                        pause(job.refusals)
                    }
                }
            }
        };
        self.next += 1;
        job.key = (now + pause, self.next);
        self.line.insert(job.key, ino);
        After::Stays
    }

    /// `path` was given up; whoever uses it next is told, once.
    pub(super) fn note_failure(&mut self, path: RemotePath, error: Error) {
        if self.failed.len() < REMEMBERED {
            self.failed.insert(path, error);
        }
    }

    pub(super) fn take_failure(&mut self, path: &RemotePath) -> Option<Error> {
        self.failed.remove(path)
    }

    pub(super) fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(super) fn error_of(&self, ino: Ino) -> Option<&Error> {
        self.jobs.get(&ino)?.error.as_ref()
    }

    pub(super) fn progress(&self, now: Instant) -> Progress {
        let due = self.line.keys().next().map(|key| key.0);
        let outage = self.outage.as_ref();
        let due = due.max(outage.map(|outage| outage.until));
        let retrying = |job: &&Job| job.error.is_some();
        let last_error = outage.map(|o| &o.error).or(self.last_error.as_ref());
        Progress {
            waiting: self.jobs.len(),
            waiting_bytes: self.bytes,
            uploading: self.running,
            retrying: self.jobs.values().filter(retrying).count(),
            last_error: last_error.map(ToString::to_string),
            next_attempt: due
                .filter(|_| self.running == 0 && !self.jobs.is_empty())
                .map(|due| due.saturating_duration_since(now)),
        }
    }
}

/// What a failed attempt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing of the file: the server cannot be reached.
    Unreachable,
    /// Not now: disk full, no connection free, an answer that nobody understands.
    Later,
    /// Not this file: after a few attempts it is given up.
    Refused,
    /// Never: what it was to replace, or where it was to be, is not there any more.
    Final,
}

impl Verdict {
    pub(super) const fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Disconnected | ErrorKind::TimedOut | ErrorKind::Untrusted => {
                Self::Unreachable
            }
            ErrorKind::Busy
            | ErrorKind::Interrupted
            | ErrorKind::Protocol
            | ErrorKind::Corrupt
            | ErrorKind::NoSpace
            | ErrorKind::QuotaExceeded
            | ErrorKind::Local(_) => Self::Later,
            ErrorKind::Stale => Self::Final,
            _ => Self::Refused,
        }
    }
}

fn pause(attempts: u32) -> Duration {
    let doubled = 2u32.saturating_pow(attempts.saturating_sub(1).min(16));
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
