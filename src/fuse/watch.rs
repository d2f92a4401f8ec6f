//! The watchdog: no process that waits for us is unkillable.
//!
//! fuser answers `FUSE_INTERRUPT` with ENOSYS, after which the kernel waits for our reply whatever
//! the caller is told, `kill -9` included. So requests that take long are watched from here: where
//! the caller has been told to stop, its request is answered with EINTR, and where a deadline has
//! passed, with ETIMEDOUT. The work behind goes on until its own time limits end it, and finds that
//! nobody waits for the answer any more.

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fuser::Errno;

use crate::sync::Locked;

/// Requests younger than this are left alone: nearly all of them.
const GRACE: Duration = Duration::from_millis(100);

/// Signals that ask a process to stop, whether or not it catches them: HUP, INT, QUIT, KILL, TERM.
/// A caught SIGALRM or SIGCHLD must not fail a `read` that programs expect to complete.
const STOP_SIGNALS: u64 = mask(&[1, 2, 3, 9, 15]);

/// Signals that do not end a process by default: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
const HARMLESS_SIGNALS: u64 = mask(&[17, 18, 19, 20, 21, 22, 23, 28]);

/// A request that somebody waits for.
pub(super) trait Waiting: Send + Sync {
    /// Whether it has been answered.
    fn is_answered(&self) -> bool;
    /// Answers with `errno` unless it has been answered.
    fn give_up(&self, errno: Errno);
}

/// Watches requests; ends when dropped.
pub(super) struct Watch {
    watched: Arc<Locked<Vec<Watched>>>,
    wake: mpsc::Sender<()>,
    /// Whether every process can be seen here (proc(5), `hidepid`).
    sees_all: bool,
}

struct Watched {
    request: Weak<dyn Waiting>,
    caller: u32,
    /// Whether the caller has been seen, so that not to see it means that it is gone.
    seen: bool,
    since: Instant,
    deadline: Option<Instant>,
}

impl Watch {
    pub(super) fn start() -> std::io::Result<Self> {
        let watched = Arc::new(Locked::new(Vec::new()));
        let (wake, woken) = mpsc::channel();
        let list = Arc::clone(&watched);
        thread::Builder::new()
            .name("watch".into())
            .spawn(move || run(&list, &woken))?;
        let sees_all = fs::metadata("/proc/1/status").is_ok();
        Ok(Self {
            watched,
            wake,
            sees_all,
        })
    }

    /// Watches `request` of the thread `caller` (0: not visible from here), at most for `limit`.
    pub(super) fn add(&self, request: Weak<dyn Waiting>, caller: u32, limit: Option<Duration>) {
        let since = Instant::now();
        let deadline = limit.map(|limit| since + limit);
        let seen = self.sees_all;
        let first = self.watched.with(|list| {
            list.push(Watched {
                request,
                caller,
                seen,
                since,
                deadline,
            });
            list.len() == 1
        });
        if first {
            let _ = self.wake.send(());
        }
    }
}

fn run(list: &Locked<Vec<Watched>>, woken: &mpsc::Receiver<()>) {
    loop {
        // Sleep until something is watched, then look at it every GRACE.
        if list.with(|list| list.is_empty()) && woken.recv().is_err() {
            return;
        }
        match woken.recv_timeout(GRACE) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let old = list.with(|list| {
            list.retain(|watched| {
                watched
                    .request
                    .upgrade()
                    .is_some_and(|request| !request.is_answered())
            });
            let young = |watched: &mut Watched| watched.since.elapsed() < GRACE;
            list.extract_if(.., |watched| !young(watched))
                .collect::<Vec<_>>()
        });
        let still_waiting: Vec<_> = old.into_iter().filter_map(look_at).collect();
        list.with(|list| list.extend(still_waiting));
    }
}

/// Answers a request if it has waited long enough; gives it back if not.
fn look_at(mut watched: Watched) -> Option<Watched> {
    let request = watched.request.upgrade()?;
    match state_of(watched.caller) {
        Caller::Waits => watched.seen = true,
        Caller::ToldToStop => {
            request.give_up(Errno::EINTR);
            return None;
        }
        // It was killed while it waited for a page that this request is to fill: until we answer,
        // whoever opens the file next waits for that page, and cannot be killed.
        Caller::Gone if watched.seen => {
            request.give_up(Errno::EINTR);
            return None;
        }
        Caller::Gone | Caller::Unknown => {}
    }
    if watched
        .deadline
        .is_some_and(|deadline| Instant::now() >= deadline)
    {
        request.give_up(Errno::ETIMEDOUT);
        return None;
    }
    Some(watched)
}

/// What the thread that waits for a request is doing.
enum Caller {
    Waits,
    ToldToStop,
    Gone,
    /// In another pid namespace, or none of our business.
    Unknown,
}

fn state_of(thread: u32) -> Caller {
    if thread == 0 {
        return Caller::Unknown;
    }
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) if stops(&status) => Caller::ToldToStop,
        // What it closes on its way out is waited for like any other close, and nobody can kill a
        // process twice.
        Ok(_) if was_killed(thread) => Caller::ToldToStop,
        Ok(_) => Caller::Waits,
        Err(_) => Caller::Gone,
    }
}

/// Whether a signal has ended the process, which is on its way out (proc_pid_stat(5): `flags` and
/// `exit_code`).
fn was_killed(thread: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat"));
    stat.is_ok_and(|stat| ends_by_signal(&stat))
}

fn ends_by_signal(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    // The second field is a name, in which there may be anything.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |nth: usize| {
        fields
            .get(nth - 3)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (flags, code) = (number(9), number(52));
    flags.is_some_and(|flags| flags & PF_EXITING != 0) && code.is_some_and(|code| code & 0x7f != 0)
}

fn stops(status: &str) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = field("SigPnd:") | field("ShdPnd:");
    let deliverable = pending & !field("SigBlk:") & !field("SigIgn:");
    let caught = field("SigCgt:");
    deliverable & (STOP_SIGNALS | !(caught | HARMLESS_SIGNALS)) != 0
}

const fn mask(signals: &[u32]) -> u64 {
    let mut mask = 0;
    let mut rest = signals;
    while let [signal, tail @ ..] = rest {
        mask |= 1 << (*signal - 1);
        rest = tail;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: &[u32], blocked: &[u32], ignored: &[u32], caught: &[u32]) -> String {
        format!(
            "Name:\tcp\nSigQ:\t0/1\nSigPnd:\t{:016x}\nShdPnd:\t0000000000000000\nSigBlk:\t{:016x}\n\
             SigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
            mask(pending),
            mask(blocked),
            mask(ignored),
            mask(caught)
        )
    }

    #[test]
    fn a_process_told_to_stop_is_seen() {
        for signal in [1, 2, 3, 9, 15] {
            assert!(stops(&status(&[signal], &[], &[], &[])), "{signal}");
            assert!(
                stops(&status(&[signal], &[], &[], &[signal])),
                "{signal} caught"
            );
        }
        assert!(
            stops(&status(&[14], &[], &[], &[])),
            "an uncaught SIGALRM ends the process"
        );
    }

    #[test]
    fn a_process_that_a_signal_ended_is_told_from_one_that_exits() {
        let stat = |name: &str, flags: u32, code: u32| {
            let zeros = "0 ".repeat(42);
            format!("7 ({name}) D 1 1 1 0 -1 {flags} {zeros}{code}\n")
        };
        assert!(ends_by_signal(&stat("a) b (", 0x0040_0004, 15)));
        assert!(!ends_by_signal(&stat("cp", 0x0040_0000, 15)), "lives");
        assert!(!ends_by_signal(&stat("cp", 0x0040_0004, 0x100)), "exit(1)");
        assert!(!ends_by_signal("") && !ends_by_signal("7 (x) D"));
    }

    #[test]
    fn other_signals_are_left_alone() {
        assert!(!stops(&status(&[], &[], &[], &[])));
        assert!(
            !stops(&status(&[14], &[], &[], &[14])),
            "git's progress timer"
        );
        assert!(
            !stops(&status(&[17], &[], &[], &[17])),
            "a child of the shell ended"
        );
        assert!(!stops(&status(&[17, 28], &[], &[], &[])));
        assert!(!stops(&status(&[2], &[2], &[], &[])), "blocked");
        assert!(!stops(&status(&[2], &[], &[2], &[])), "ignored");
        assert!(!stops("not a status file"));
    }
}
