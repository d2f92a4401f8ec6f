//! Sessions beyond the usual number, for a moment.
//!
//! A jump in a large file takes one round trip on a session that is ready for it, and two more until
//! the session is ready again. Where several readers jump about, the usual number of sessions is
//! soon used up by waiting. So when many jump at once, more are opened behind, with their data
//! connections made. While some are on their way nobody who jumps opens one himself: he takes the
//! first session that is free. A thread keeps watch as long as there are any: when they were not
//! needed for a few seconds it closes them and ends. A server that refuses one is not asked for more
//! for a good while, and gets half of them back.
//!
//! The same is done for a walk through many directories on a far server, where each listing takes
//! round trips on a session of its own.
//!
//! A few are opened at a time, and the next when one has come. To check a password takes a server
//! some hundredths of a second of its processor, on purpose: of thirty logins at once the first is
//! done when the last one is. And many servers let no more than five or ten wait to be greeted, and
//! forget the others. Where logins come as soon as the way to the server allows, each that comes
//! brings two, and there are twice as many under way soon.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::admission::{Idle, State};
use super::at_once::AtOnce;
use super::host::Facts;
use super::pool::Pool;
use super::session::Session;

/// Round trips of a jump: with so many sessions a reader always finds one that is ready.
const EACH: usize = 3;

/// How many are opened at a time, first and at most.
const WAVE: usize = 4;
const MOST_AT_ONCE: usize = 8;

/// Round trips of a login that the server does not think about for long: two, and less than one more.
const QUICK: u32 = 3;

/// How long they are kept that nobody needs.
const KEPT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long those for listings come behind those that are waited for, at most: a round trip.
const MOST_DELAY: Duration = Duration::from_millis(200);

/// How long after the last one came, or was begun, the next is waited for.
const COMING: Duration = Duration::from_secs(2);

/// How long a server that refused one is not asked for more.
const REFUSAL_HOLDS: Duration = Duration::from_secs(600);

/// The books of what is extra.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// So many there may be.
    most: usize,
    /// So many there are.
    pub(super) open: usize,
    opening: usize,
    /// When the last one came or was begun.
    stirred: Option<Instant>,
    /// So many are of use to whom they were last brought for.
    useful: usize,
    /// There is a thread that keeps watch.
    watched: bool,
    /// When one was last needed.
    needed: Option<Instant>,
    refused: Option<Instant>,
    /// One was refused, and none was given back for that yet.
    too_many: bool,
}

impl Extra {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Somebody needs one, or has one.
    pub(super) fn need(&mut self) {
        self.needed = Some(Instant::now());
    }

    /// The server has enough.
    pub(super) fn refuse(&mut self) {
        self.refused = Some(Instant::now());
        self.too_many = true;
    }

    fn is_refused(&self) -> bool {
        let recent = |at: Instant| at.elapsed() < REFUSAL_HOLDS;
        self.refused.is_some_and(recent)
    }

    /// How many are to be opened now, so that `at_once` are being opened; they are counted as being so.
    fn begin(&mut self, at_once: usize) -> usize {
        if self.is_refused() {
            return 0;
        }
        let missing = self.useful.min(self.most);
        let missing = missing.saturating_sub(self.open + self.opening);
        let more = missing.min(at_once.min(MOST_AT_ONCE).saturating_sub(self.opening));
        if more > 0 {
            self.opening += more;
            self.stirred = Some(Instant::now());
        }
        more
    }

    /// One that was being opened has come, or will not.
    fn end(&mut self) {
        self.opening -= 1;
        self.stirred = Some(Instant::now());
    }

    /// Whether one will be there soon.
    pub(super) fn is_coming(&self) -> bool {
        let recent = |at: Instant| at.elapsed() < COMING;
        self.opening > 0 && self.stirred.is_some_and(recent)
    }

    fn is_needed(&self) -> bool {
        self.needed.is_some_and(|at| at.elapsed() < KEPT)
    }
}

impl State {
    /// As [`begin`](Extra::begin), unless the mount is at its end.
    fn begin_extra(&mut self, at_once: usize) -> usize {
        match self.closed {
            true => 0,
            false => self.extra.begin(at_once),
        }
    }

    /// What there is too much of, when it is not needed any more.
    fn take_extra(&mut self) -> Vec<Idle> {
        if !self.closed && self.extra.is_needed() {
            return Vec::new();
        }
        let over = self.open().saturating_sub(self.limit);
        let taken = self.idle.drain(..over.min(self.idle.len())).collect();
        let over = self.open().saturating_sub(self.limit);
        self.extra.open = self.extra.open.min(over);
        taken
    }

    /// Half of what is extra, once it is known how many there are, where the server had not enough for
    /// all: others may want them. Those in use follow.
    fn take_half(&mut self) -> Vec<Idle> {
        if self.extra.opening > 0 || !std::mem::take(&mut self.extra.too_many) {
            return Vec::new();
        }
        self.extra.open /= 2;
        let over = self.open().saturating_sub(self.most());
        self.idle.drain(..over.min(self.idle.len())).collect()
    }
}

impl Pool {
    /// So many readers jump about, beside so many other transfers: has as many sessions opened behind
    /// as they can use, if there may be more. Never blocks.
    pub(super) fn expect_spots(self: &Arc<Self>, readers: usize, others: usize) {
        let spots = readers.saturating_mul(EACH);
        let more = self.state.with(|state| {
            state.extra.need();
            let usual = state.open().saturating_sub(state.extra.open);
            let useful = spots.saturating_add(others);
            state.extra.useful = useful.saturating_sub(usual.min(state.most_transfers()));
            state.begin_extra(WAVE)
        });
        self.bring(more, Duration::ZERO);
    }

    /// So many sessions are of use for listings ahead: has more opened behind, if there may be. How
    /// many there are for them. Never blocks.
    pub(super) fn expect_listings(self: &Arc<Self>, useful: usize) -> usize {
        // What is logged in to step by step has one listing less for each. Whoever logs in waits for
        // the first to try, his connection made.
        let at_once =
            |facts: &mut Facts| matches!(facts.at_once, AtOnce::Trying | AtOnce::Works { .. });
        let at_once = self.host().facts(at_once);
        let (more, usual) = self.state.with(|state| {
            let usual = state.limit.saturating_sub(1);
            let wanted = useful.saturating_sub(usual);
            state.extra.useful = if at_once { wanted } else { 0 };
            if state.extra.useful > 0 {
                state.extra.need();
            }
            (state.begin_extra(WAVE), usual + state.extra.open)
        });
        // Those that are waited for log in first.
        self.bring(more, self.host().round_trip().min(MOST_DELAY));
        usual
    }

    /// Opens so many that are counted as being opened, after a `delay`, and has somebody watch them.
    fn bring(self: &Arc<Self>, more: usize, delay: Duration) {
        let watch = self
            .state
            .with(|state| more > 0 && !std::mem::replace(&mut state.extra.watched, true));
        if watch && !self.spawn(|pool| pool.watch_extra()) {
            self.state.with(|state| {
                state.extra.watched = false;
                state.extra.opening -= more;
                state.serve();
            });
            return;
        }
        for _ in 0..more {
            if !self.spawn(move |pool| pool.bring_extra(delay)) {
                self.state.with(|state| {
                    state.extra.end();
                    state.serve();
                });
            }
        }
    }

    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> bool {
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("ftp-extra".into());
        let started = thread.spawn(move || work(&pool));
        if let Err(err) = &started {
            log::debug!("no thread for more sessions: {err}");
        }
        started.is_ok()
    }

    fn watch_extra(self: &Arc<Self>) {
        loop {
            thread::sleep(LOOK);
            let (taken, ends) = self.state.with(|state| {
                let taken = state.take_extra();
                let extra = &mut state.extra;
                let ends = state.closed || extra.open + extra.opening == 0;
                extra.watched = !ends;
                // Who waited for one that does not come opens one himself.
                state.serve();
                (taken, ends)
            });
            for idle in taken {
                idle.session.quit();
            }
            if ends {
                return;
            }
        }
    }

    fn bring_extra(self: &Arc<Self>, delay: Duration) {
        thread::sleep(delay);
        loop {
            match self.bring_one() {
                0 => return,
                more => self.bring(more - 1, Duration::ZERO),
            }
        }
    }

    /// How many more are to be brought; they are counted as being opened.
    fn bring_one(self: &Arc<Self>) -> usize {
        let began = Instant::now();
        let opened = Session::connect(self.host(), true).and_then(|mut session| {
            session.arrange_ahead()?;
            Ok(session)
        });
        let quick = began.elapsed() < self.host().round_trip() * QUICK;
        let (left_over, more) = self.state.with(|state| {
            state.extra.end();
            let mut left_over = Vec::new();
            match opened {
                Ok(session) => {
                    state.extra.open += 1;
                    left_over.extend(state.keep(session));
                }
                Err(failure) => {
                    log::debug!("no more sessions: {}", failure.error);
                    state.extra.refuse();
                }
            }
            left_over.extend(state.take_half().into_iter().map(|idle| idle.session));
            let more = state.begin_extra(state.extra.opening + 1 + usize::from(quick));
            state.serve();
            (left_over, more)
        });
        left_over.into_iter().for_each(Session::quit);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::{Admission, Grant, Purpose};
    use super::*;

    #[test]
    fn they_are_opened_a_few_at_a_time() {
        let mut extra = Extra::new(24);
        assert_eq!(extra.begin(WAVE), 0, "none is of use");
        extra.useful = 20;
        assert_eq!(extra.begin(WAVE), WAVE);
        assert_eq!(extra.begin(WAVE), 0);
        // Each that came brings another, or two if it came quickly, up to so many.
        extra.end();
        extra.open += 1;
        assert_eq!(extra.begin(extra.opening + 1), 1);
        assert_eq!(extra.begin(WAVE), 0);
        for opening in WAVE + 1..=MOST_AT_ONCE {
            extra.end();
            extra.open += 1;
            assert_eq!(extra.begin(extra.opening + 2), 2);
            assert_eq!(extra.opening, opening);
        }
        extra.end();
        extra.open += 1;
        assert_eq!(extra.begin(extra.opening + 2), 1);
        (extra.open, extra.opening) = (20, 0);
        assert_eq!(extra.begin(WAVE), 0);
        extra.open = 10;
        extra.refuse();
        assert_eq!(extra.begin(WAVE), 0);
    }

    #[test]
    fn who_jumps_waits_for_one_that_is_on_its_way_and_no_longer() {
        let spot = |state: &mut State| {
            let admission = state.admit(Purpose::Spot, false);
            matches!(admission, Admission::Granted(_))
        };
        let mut state = State::new(8, 24);
        state.extra.useful = 20;
        assert_eq!(state.begin_extra(WAVE), WAVE);
        assert!(spot(&mut state), "nothing else would come free");
        assert!(!spot(&mut state));
        let Admission::Queued(_, granted) = state.admit(Purpose::Spot, true) else {
            unreachable!("those that come are waited for");
        };
        state.serve();
        assert!(granted.try_recv().is_err());
        (0..WAVE).for_each(|_| state.extra.end());
        state.serve();
        assert!(matches!(granted.try_recv(), Ok(Grant::New)), "none came");
        assert_eq!(state.begin_extra(WAVE), WAVE);
        state.extra.stirred = Instant::now().checked_sub(COMING);
        assert!(spot(&mut state), "they take too long");
    }

    #[test]
    fn a_server_that_refuses_some_gets_half_of_the_others_back() {
        let mut state = State::new(8, 24);
        (state.extra.open, state.extra.opening) = (12, 1);
        state.extra.refuse();
        assert!(
            state.take_half().is_empty() && state.most() == 20,
            "one may come yet"
        );
        state.extra.opening = 0;
        state.take_half();
        state.take_half();
        state.extra.useful = 24;
        assert_eq!((state.most(), state.begin_extra(WAVE)), (14, 0));
    }
}
