//! A thread that fetches a file behind its readers, part by part, on a connection of its own.
//!
//! Those who wait for a jump come first. Where several helpers fetch for jumps, the firm ones keep
//! their connections while others do, for that is what ends the jumps; but no jump waits for long.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::behind::WHOLE_HELPERS;
use super::judge::rate;
use super::plan::Plan;
use super::version::Version;
use crate::vfs::backend::Download;
use crate::vfs::blocks::BLOCK;

/// Those who fetch for jumps go on where the jumps need connections, but for no more than what part
/// of them there are; so many of them also where others do.
const FIRM_PART: usize = 2;
const FIRMEST: usize = 3;

/// Connections that one who jumps about can use.
const JUMPER: usize = 3;

/// How long such a one keeps its connection while others wait who want something else.
const SHARE: Duration = Duration::from_secs(1);

/// How long a helper waits for the disk, or for a connection.
const DISK: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_millis(50);
const TRIES: u32 = 100;

const STEP: usize = 512 << 10;

/// So much must be here already for a download to be begun anew behind it.
const WORTH_A_JUMP: u64 = 4 << 20;

/// How far before a reader's own stream it begins again.
const LEAD: u64 = 8 << 20;

/// A download that is open, and where it is.
struct Open {
    download: Box<dyn Download>,
    position: u64,
    /// Since when it has its connection.
    since: Instant,
    /// Bytes a second, of late.
    rate: Option<u64>,
}

impl Open {
    fn came(&mut self, bytes: u64, took: Duration) {
        self.position += bytes;
        let now = rate(bytes, took);
        self.rate = Some(self.rate.map_or(now, |before| before / 2 + now / 2));
    }
}

/// What a helper is at: known to the plan by where it began.
#[derive(Clone, Copy)]
struct Part {
    from: u64,
    next: u64,
    end: u64,
}

/// How an attempt to fetch ended.
enum Done {
    /// It may go on.
    Some,
    /// With another part.
    Elsewhere,
    /// For want of a connection.
    Crowded,
    /// Enough for now: it was given up, or nothing is saved up for it.
    Enough,
    /// It cannot be fetched: that is left to those who read it.
    Failed,
}

/// Starts the `nth` helper of `version`, which the plan has counted.
pub(super) fn start(version: &Arc<Version>, nth: usize) -> io::Result<()> {
    let helped = Arc::downgrade(version);
    let thread = thread::Builder::new().name("content-fetch".into());
    thread
        .spawn(move || {
            let helper = RangeFetch { helped, nth };
            helper.work();
            helper.change(|plan| plan.helpers -= 1);
        })
        .map(drop)
}

struct RangeFetch {
    helped: Weak<Version>,
    nth: usize,
}

/// How many take their turn as the jumps do.
pub(super) fn firm(version: &Version) -> usize {
    (version.transfers().downloads() / FIRM_PART).clamp(1, WHOLE_HELPERS)
}

/// How many there may be: they leave to one who jumps about what he can use.
pub(super) fn most(version: &Version) -> usize {
    let left = version.transfers().downloads().saturating_sub(JUMPER);
    left.clamp(1, WHOLE_HELPERS)
}

impl RangeFetch {
    /// Whether there is another, who is enough for a slow link.
    const fn is_spare(&self) -> bool {
        self.nth > 0
    }

    /// Whether it takes its turn as the jumps do.
    fn is_firm(&self, version: &Version) -> bool {
        version.behind().is_whole() && self.nth < firm(version)
    }

    fn work(&self) {
        let (mut open, mut done) = (None, None);
        while let Some(mut part) = self.next(done) {
            if !self.fetch(&mut part, &mut open) {
                break;
            }
            done = Some(part);
        }
    }

    /// Has `done` with a part, and takes the next.
    fn next(&self, done: Option<Part>) -> Option<Part> {
        let version = self.helped.upgrade()?;
        let behind = version.behind();
        let size = version.size().unwrap_or_default();
        let goes_on = !version.is_stale() && behind.goes_on(size, self.is_spare());
        let own = behind.own(version.furthest());
        // In one step: who waits for the only helper there is must not see none.
        let next = behind.change(|plan| {
            let after = done.map(|part| {
                plan.stop(part.from);
                part.end
            });
            if goes_on { plan.take(after, own) } else { None }
        });
        next.map(|Range { start, end }| Part {
            from: start,
            next: start,
            end,
        })
    }

    /// Fetches a part. Whether there may be another.
    fn fetch(&self, part: &mut Part, open: &mut Option<Open>) -> bool {
        let (mut tries, mut goes_on) = (0, true);
        while part.next < part.end && tries < TRIES && goes_on {
            let before = part.next;
            let done = self.fetch_some(part, open);
            tries = if part.next > before { 0 } else { tries + 1 };
            match done {
                Done::Some => {}
                Done::Crowded => goes_on = self.pause(part),
                Done::Elsewhere => {
                    self.change(|plan| plan.put_back(part.from, part.next));
                    break;
                }
                Done::Enough => {
                    self.change(|plan| plan.put_back(part.from, part.next));
                    goes_on = false;
                }
                Done::Failed => break,
            }
        }
        goes_on
    }

    fn change(&self, change: impl FnOnce(&mut Plan)) {
        if let Some(version) = self.helped.upgrade() {
            version.behind().change(change);
        }
    }

    /// Others need the connection, or there is none. Nobody waits for the part meanwhile. Whether
    /// to go on with it; else it is left to the firm.
    fn pause(&self, part: &mut Part) -> bool {
        let Some(version) = self.helped.upgrade() else {
            return false;
        };
        let behind = version.behind();
        if behind.is_whole() && !self.is_firm(&version) {
            behind.change(|plan| plan.put_back(part.from, part.next));
            return false;
        }
        // Another may have taken some of it.
        part.end = behind
            .change(|plan| plan.stop(part.from))
            .unwrap_or(part.end);
        drop(version);
        thread::sleep(BUSY);
        part.from = part.next;
        self.change(|plan| plan.resume(part.from..part.end));
        true
    }

    /// Fetches on by one download.
    fn fetch_some(&self, part: &mut Part, open: &mut Option<Open>) -> Done {
        let (from, end) = (part.from, part.end);
        let next = &mut part.next;
        let Some(version) = self.helped.upgrade() else {
            return Done::Failed;
        };
        let ready = open.take().filter(|open| open.position == *next);
        let here = version.run_from(*next, end - *next);
        // What is here already need not come again.
        if ready.is_none() || here >= WORTH_A_JUMP {
            let skip = if *next + here < end {
                here - here % BLOCK
            } else {
                here
            };
            *next += skip;
            if here >= WORTH_A_JUMP && version.is_before(*next, end) {
                // He who reads is before it, and fast: it gets out of his way.
                *next = end.min((*next + LEAD).next_multiple_of(BLOCK));
            }
            if *next >= end {
                return Done::Some;
            }
        }
        let ready = ready.filter(|open| open.position == *next);
        let mut reading = match ready {
            Some(open) => open,
            None => {
                // Nobody waits for one who waits.
                version.behind().change(|plan| plan.wait(from, *next));
                match self.begin(&version, *next) {
                    Ok(open) => open,
                    Err(done) => return done,
                }
            }
        };
        let advance = |plan: &mut Plan| plan.advance(from, *next, reading.rate);
        version.behind().change(advance);
        drop(version);
        while part.next < part.end {
            if let Err(done) = self.step(&mut reading, part) {
                return done;
            }
            let Some(version) = self.helped.upgrade() else {
                return Done::Failed;
            };
            if version.behind().is_in_sequence()
                && version.run_from(part.next, WORTH_A_JUMP) >= WORTH_A_JUMP
            {
                return Done::Some;
            }
        }
        let Some(version) = self.helped.upgrade() else {
            return Done::Failed;
        };
        if version.size() != Some(part.end) {
            *open = Some(reading);
        } else if matches!(reading.download.read(&mut [0]), Ok(0)) {
            let _ = reading.download.conclude();
            if let Err(err) = version.compare() {
                log::debug!("what was fetched ahead: {err}");
                return Done::Failed;
            }
        }
        Done::Some
    }

    fn begin(&self, version: &Version, position: u64) -> Result<Open, Done> {
        let Some(at) = version.behind().name() else {
            return Err(Done::Failed);
        };
        let in_turn = self.is_firm(version);
        match version.retrieve_behind(&at, position, in_turn) {
            Ok(Some(download)) => {
                version.behind().comes();
                Ok(Open {
                    download,
                    position,
                    since: Instant::now(),
                    rate: None,
                })
            }
            Ok(None) if !version.behind().has_begun_ranges() && version.is_link_full() => {
                log::debug!("one connection fills the link");
                version.ranges_have_no_room();
                version.behind().put_off();
                Err(Done::Enough)
            }
            Ok(None) => Err(Done::Crowded),
            Err(err) => {
                log::debug!("{at}: fetching ahead: {err}");
                Err(Done::Failed)
            }
        }
    }

    /// Reads on, a little way towards the end of `part`.
    fn step(&self, open: &mut Open, part: &mut Part) -> Result<(), Done> {
        let next = &mut part.next;
        let mut buffer = {
            let version = self.helped.upgrade().ok_or(Done::Failed)?;
            let size = version.size().unwrap_or(part.end);
            if version.is_stale() || !version.behind().goes_on(size, self.is_spare()) {
                return Err(Done::Enough);
            }
            if self.gives_way(&version, open.since) {
                return Err(Done::Crowded);
            }
            let most = usize::try_from(part.end - *next).unwrap_or(STEP).min(STEP);
            // Nobody is kept from closing the file meanwhile.
            version.buffer(most)
        };
        let (mut count, began) = (0, Instant::now());
        while let Some(rest) = buffer
            .as_mut_slice()
            .get_mut(count..)
            .filter(|rest| !rest.is_empty())
        {
            match open.download.read(rest) {
                Ok(0) | Err(_) => return Err(Done::Failed),
                Ok(more) => count += more,
            }
        }
        let version = self.helped.upgrade().ok_or(Done::Failed)?;
        version.passed(*next, buffer.as_mut_slice());
        if !version.keep_behind(*next, buffer.filled(count), DISK) {
            return Err(Done::Failed);
        }
        *next += count as u64;
        open.came(count as u64, began.elapsed());
        let behind = version.behind();
        if !behind.came(count as u64, version.furthest()) {
            version.ranges_do_not_pay();
            behind.go_on_by_few(version.furthest());
        }
        let recalled = behind.change(|plan| {
            let end = plan.advance(part.from, *next, open.rate);
            part.end = end.unwrap_or(part.end);
            plan.is_recalled(part.from)
        });
        if recalled {
            Err(Done::Elsewhere)
        } else {
            Ok(())
        }
    }

    /// Whether others come first who wait for a connection.
    fn gives_way(&self, version: &Version, since: Instant) -> bool {
        if self.is_firm(version) {
            let behind = version.behind();
            let long = self.nth >= FIRMEST || since.elapsed() >= SHARE;
            return long && behind.strangers_claim(version.strangers_wait())
                || behind.spots().claim_turn();
        }
        version.others_wait()
    }
}
