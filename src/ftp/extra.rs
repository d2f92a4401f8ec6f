//! Sessions beyond the usual number, for a moment.
//!
//! A jump in a large file takes one round trip on a session that is ready for it, and two more until
//! the session is ready again. Where several readers jump about, the usual number of sessions is
//! soon used up by waiting. So when many jump at once, more are opened behind, with their data
//! connections made; nobody waits for that, for a spot takes the first session that is free. A
//! thread keeps watch as long as there are any: when they were not needed for a few seconds it
//! closes them and ends. A server that refuses one is not asked for more for a good while, and gets
//! half of them back.
//!
//! The same is done for a walk through many directories on a far server, where each listing takes
//! round trips on a session of its own. There a few are opened at a time: many servers let no more
//! than five or ten wait to be greeted, and forget the others.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::admission::{Idle, State};
use super::pool::Pool;
use super::session::Session;

/// Round trips of a jump: with so many sessions a reader always finds one that is ready.
const EACH: usize = 3;

/// How many are opened at a time for listings.
const WAVE: usize = 4;

/// How long they are kept that nobody needs.
const KEPT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long they come behind those that are waited for, at most: a round trip.
const MOST_DELAY: Duration = Duration::from_millis(200);

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
    /// So many are of use for listings ahead.
    for_listings: usize,
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

    /// How many of those that are `useful` are to be opened now; they are counted as being opened.
    fn begin(&mut self, useful: usize) -> usize {
        if self.is_refused() {
            return 0;
        }
        let more = useful.min(self.most);
        let more = more.saturating_sub(self.open + self.opening);
        self.opening += more;
        more
    }

    /// How many are to be opened now for listings; they are counted as being opened.
    fn begin_for_listings(&mut self) -> usize {
        let free = WAVE.saturating_sub(self.opening);
        let wanted = self.for_listings.min(self.open + self.opening + free);
        self.begin(wanted)
    }

    /// As many as there are and come, and one more if listings have a use for it.
    fn one_more(&self) -> usize {
        self.for_listings.min(self.open + self.opening + 1)
    }

    fn is_needed(&self) -> bool {
        self.needed.is_some_and(|at| at.elapsed() < KEPT)
    }
}

impl State {
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
        let more = self.state.with(|state| {
            state.extra.need();
            let spots = readers.saturating_mul(EACH);
            let useful = spots.saturating_add(others);
            if state.closed {
                return 0;
            }
            let extra = useful.saturating_sub(state.most_transfers());
            state.extra.begin(extra)
        });
        self.bring(more);
    }

    /// So many sessions are of use for listings ahead: has more opened behind, if there may be. How
    /// many there are for them. Never blocks.
    pub(super) fn expect_listings(self: &Arc<Self>, useful: usize) -> usize {
        // What is logged in to step by step has one listing less for each.
        let at_once = self.host().facts(|facts| facts.at_once.works()) == Some(true);
        let (more, usual) = self.state.with(|state| {
            let usual = state.limit.saturating_sub(1);
            let extra = &mut state.extra;
            let wanted = useful.saturating_sub(usual);
            extra.for_listings = if at_once { wanted } else { 0 };
            if extra.for_listings > 0 {
                extra.need();
            }
            let more = match state.closed {
                true => 0,
                false => extra.begin_for_listings(),
            };
            (more, usual + extra.open)
        });
        self.bring(more);
        usual
    }

    /// Opens so many that are counted as being opened, and has somebody watch them.
    fn bring(self: &Arc<Self>, more: usize) {
        let watch = self
            .state
            .with(|state| more > 0 && !std::mem::replace(&mut state.extra.watched, true));
        if watch && !self.spawn(|pool| pool.watch_extra()) {
            self.state.with(|state| {
                state.extra.watched = false;
                state.extra.opening -= more;
            });
            return;
        }
        for _ in 0..more {
            if !self.spawn(|pool| pool.bring_extra()) {
                self.state.with(|state| state.extra.opening -= 1);
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

    fn bring_extra(self: &Arc<Self>) {
        // Those that readers wait for log in first.
        thread::sleep(self.host().round_trip().min(MOST_DELAY));
        while self.bring_one() {}
    }

    /// Whether another is to be brought; it is counted as being opened.
    fn bring_one(self: &Arc<Self>) -> bool {
        let opened = Session::connect(self.host(), true).and_then(|mut session| {
            session.arrange_ahead()?;
            Ok(session)
        });
        let (left_over, again) = self.state.with(|state| {
            state.extra.opening -= 1;
            let mut left_over = Vec::new();
            match opened {
                Ok(session) => {
                    state.extra.open += 1;
                    left_over.extend(state.keep(session));
                    state.serve();
                }
                Err(failure) => {
                    log::debug!("no more sessions: {}", failure.error);
                    state.extra.refuse();
                }
            }
            left_over.extend(state.take_half().into_iter().map(|idle| idle.session));
            let again = !state.closed && state.extra.begin(state.extra.one_more()) > 0;
            (left_over, again)
        });
        left_over.into_iter().for_each(Session::quit);
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_for_listings_are_opened_a_few_at_a_time() {
        let mut extra = Extra::new(24);
        assert_eq!(extra.begin_for_listings(), 0, "none is of use");
        extra.for_listings = 20;
        assert_eq!(extra.begin_for_listings(), WAVE);
        assert_eq!(extra.begin_for_listings(), 0);
        // One has come.
        extra.opening -= 1;
        extra.open += 1;
        assert_eq!(extra.begin(extra.one_more()), 1);
        extra.open = 20;
        extra.opening = 0;
        assert_eq!(extra.begin(extra.one_more()), 0);
        extra.open = 10;
        extra.refuse();
        assert_eq!(extra.begin_for_listings(), 0);
    }

    #[test]
    fn a_server_that_refuses_some_gets_half_of_the_others_back() {
        let mut state = State::new(8, 24);
        assert_eq!(state.extra.begin(99), 24);
        state.extra.open = 12;
        state.extra.opening = 1;
        state.extra.refuse();
        assert!(
            state.take_half().is_empty() && state.most() == 20,
            "one may come yet"
        );
        state.extra.opening = 0;
        state.take_half();
        state.take_half();
        assert_eq!((state.most(), state.extra.begin(99)), (14, 0));
    }
}
