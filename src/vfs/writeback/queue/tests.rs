#![allow(clippy::unwrap_used)]

use super::*;

fn error(kind: ErrorKind) -> Option<(Error, Verdict)> {
    let error = Error::new(kind, "no");
    let verdict = Verdict::of(&error);
    Some((error, verdict))
}

struct Line {
    queue: Queue,
    now: Instant,
}

impl Line {
    fn new() -> Self {
        Self {
            queue: Queue::new(SETTLE),
            now: Instant::now(),
        }
    }

    fn add(&mut self, ino: Ino, bytes: u64) -> bool {
        self.queue.add(ino, bytes, self.now)
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn next(&mut self) -> Next {
        self.queue.next(7, self.now)
    }

    fn ended(&mut self, ino: Ino, error: Option<(Error, Verdict)>) -> After {
        self.queue.ended(ino, error, self.now)
    }

    /// How long until there is something to do.
    fn pause(&mut self) -> Duration {
        match self.next() {
            Next::Wait(Some(time)) => time,
            _ => Duration::ZERO,
        }
    }
}

#[test]
fn files_go_in_order_a_moment_after_they_were_closed() {
    let mut line = Line::new();
    assert!(line.add(1, 10));
    assert_eq!(line.next(), Next::Wait(Some(SETTLE)));
    line.after(SETTLE / 2);
    assert!(line.add(2, 10));
    // Written again: it may be written once more.
    assert!(!line.add(1, 30));
    assert_eq!(line.queue.bytes(), 40);
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(2));
    assert_eq!(line.next(), Next::Take(1));
    assert_eq!(line.next(), Next::Wait(None));
    assert_eq!(line.ended(1, None), After::Done);
    // Acknowledged again while it was under way.
    assert!(!line.add(2, 5));
    assert_eq!(line.ended(2, None), After::Stays);
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(2));
    assert_eq!(line.ended(2, None), After::Done);
    assert_eq!((line.queue.len(), line.queue.bytes()), (0, 0));
}

#[test]
fn large_files_leave_room_for_small_ones() {
    let mut line = Line::new();
    for ino in 1..=7 {
        line.add(ino, LARGE);
    }
    line.add(8, 1);
    line.after(SETTLE);
    for ino in [1, 2, 3, 4, 5, 8] {
        assert_eq!(line.next(), Next::Take(ino));
    }
    assert_eq!(line.next(), Next::Wait(None));
    line.ended(1, None);
    assert_eq!(line.next(), Next::Take(6));
}

#[test]
fn while_the_server_is_away_one_file_asks_at_growing_intervals() {
    let mut line = Line::new();
    for ino in 1..=100 {
        line.add(ino, 1);
    }
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(1));
    assert_eq!(line.next(), Next::Take(2));
    for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let running = line.queue.jobs.iter().find(|(_, job)| job.running);
        let ino = *running.unwrap().0;
        line.ended(ino, error(ErrorKind::Disconnected));
        if line.queue.running > 0 {
            line.ended(3 - ino, error(ErrorKind::TimedOut));
        }
        let pause = line.pause();
        assert_eq!(pause.as_secs(), expected);
        line.after(pause);
        assert!(matches!(line.next(), Next::Take(_)));
        assert_eq!(line.next(), Next::Wait(None), "one at a time");
    }
    let ino = *line
        .queue
        .jobs
        .iter()
        .find(|(_, job)| job.running)
        .unwrap()
        .0;
    assert_eq!(line.ended(ino, None), After::Done);
    assert!(matches!(line.next(), Next::Take(_)));
    assert!(matches!(line.next(), Next::Take(_)), "all at once again");
}

#[test]
fn a_conflict_is_final_at_once() {
    let mut line = Line::new();
    line.add(1, 10);
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(1));
    assert_eq!(line.ended(1, error(ErrorKind::Stale)), After::Refused);
    assert_eq!(line.queue.len(), 0);
}

#[test]
fn a_full_disk_is_waited_for_and_a_refusal_is_final_at_the_sixth() {
    let mut line = Line::new();
    line.add(1, 1);
    line.add(2, 1);
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(1));
    assert_eq!(line.next(), Next::Take(2));
    for _ in 0..20 {
        assert_eq!(line.ended(1, error(ErrorKind::NoSpace)), After::Stays);
        let pause = line.pause();
        assert!(pause <= LONGEST_PAUSE && pause >= FIRST_PAUSE);
        assert_eq!(line.after(pause).next(), Next::Take(1));
    }
    for _ in 1..REFUSALS {
        let refused = error(ErrorKind::PermissionDenied);
        assert_eq!(line.ended(2, refused), After::Stays);
        let pause = line.pause();
        assert_eq!(line.after(pause).next(), Next::Take(2));
    }
    let refused = error(ErrorKind::PermissionDenied);
    assert_eq!(line.ended(2, refused), After::Refused);
    assert_eq!(line.queue.progress(line.now).waiting, 1);
}

#[test]
fn what_was_stored_by_another_way_is_let_go_at_once() {
    let mut line = Line::new();
    line.add(1, 1);
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(1));
    line.ended(1, error(ErrorKind::NoSpace));
    assert!(line.queue.hasten(1, line.now));
    assert_eq!(line.next(), Next::Take(1));
    assert!(!line.queue.hasten(1, line.now), "under way");
    assert!(!line.queue.hasten(9, line.now), "not in line");
}

#[test]
fn few_workers_are_enough_until_uploads_take_their_time() {
    let mut line = Line::new();
    for ino in 1..=20 {
        line.add(ino, 10);
    }
    let workers = |queue: &mut Queue| {
        while queue.wants_worker(7) {}
        queue.threads
    };
    assert_eq!(workers(&mut line.queue), FEW);
    // Two logins, and a server next door.
    for time in [SLOW * 10, SLOW * 10, SLOW / 3, SLOW, SLOW, SLOW, SLOW / 2] {
        line.queue.took(time);
    }
    assert_eq!(workers(&mut line.queue), FEW);
    (0..SLOW_ONES).for_each(|_| line.queue.took(SLOW));
    assert_eq!(workers(&mut line.queue), 7);
}

#[test]
fn nobody_waits_behind_a_few_that_take_long() {
    let mut line = Line::new();
    for (ino, bytes) in [(1, 10), (2, BULKY), (3, 10)] {
        line.add(ino, bytes);
    }
    line.after(SETTLE);
    assert_eq!(line.next(), Next::Take(1));
    let workers = |queue: &mut Queue| {
        while queue.wants_worker(7) {}
        queue.threads
    };
    assert_eq!(workers(&mut line.queue), FEW);
    assert_eq!(line.next(), Next::Take(2));
    assert_eq!(workers(&mut line.queue), 3);
    line.ended(2, None);
    assert_eq!(line.queue.running_bulky, 0);
}
