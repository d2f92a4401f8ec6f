//! Who may have a session: the books of the [pool](super::pool), which are kept behind its lock.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::extra::Extra;
use super::session::Session;
use crate::vfs::error::Error;

/// How long a limit that the server taught us holds.
const LIMIT_HOLDS: Duration = Duration::from_secs(60);

/// What a session is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A command or a listing: soon given back. One connection is always kept for these.
    Metadata,
    /// A file's content: may be kept for long.
    Transfer,
    /// The same, beside one that is under way: it leaves others the session that they need at once.
    Help,
    /// A few bytes of a content: soon given back. Counts among the transfers, and may have what is
    /// [extra](super::extra).
    Spot,
    /// What nobody has asked for yet: only while one more is free, and given back soon.
    Foresight,
    /// The same, while somebody is about to ask: of a server that is far it leaves the last idle
    /// session, and opens one.
    Scan,
}

/// Who has what. A session is either idle, in here, or accounted for by a lease (also while it is
/// being opened).
#[derive(Debug, Default)]
pub(super) struct State {
    /// The one used last is at the end, and is taken first: so the others grow old.
    pub(super) idle: Vec<Idle>,
    /// There is a thread that closes what is [idle](super::idle) for too long.
    pub(super) minded: bool,
    metadata: usize,
    pub(super) transfers: usize,
    pub(super) spots: usize,
    foresight: usize,
    pub(super) limit: usize,
    pub(super) extra: Extra,
    /// When the limit was last changed, if it is below that of the options.
    limited: Option<Instant>,
    pub(super) queue: VecDeque<Waiter>,
    tickets: u64,
    /// When a session that was open already was last lent.
    pub(super) lent: Option<Instant>,
    /// A login takes long.
    pub(super) far: bool,
    pub(super) closed: bool,
    pub(super) last_error: Option<Error>,
}

#[derive(Debug)]
pub(super) struct Idle {
    pub(super) session: Session,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) purpose: Purpose,
    grant: Sender<Grant>,
}

/// Leave to use a session.
#[derive(Debug)]
pub(super) enum Grant {
    Idle(Box<Session>),
    /// To open one.
    New,
}

#[derive(Debug)]
pub(super) enum Admission {
    Granted(Grant),
    Queued(u64, Receiver<Grant>),
    Refused,
    Closed,
}

impl State {
    pub(super) fn new(limit: usize, extra: usize) -> Self {
        Self {
            limit,
            extra: Extra::new(extra),
            ..Self::default()
        }
    }

    pub(super) fn open(&self) -> usize {
        self.used() + self.idle.len()
    }

    const fn used(&self) -> usize {
        self.metadata + self.transfers + self.spots + self.foresight
    }

    /// One is kept for metadata, if there is more than one.
    pub(super) fn most_transfers(&self) -> usize {
        self.limit.saturating_sub(1).max(1)
    }

    /// Most sessions there may be, those included that are extra.
    pub(super) const fn most(&self) -> usize {
        self.limit + self.extra.open
    }

    pub(super) fn admit(&mut self, purpose: Purpose, wait: bool) -> Admission {
        if self.closed {
            return Admission::Closed;
        }
        let overtakes = self.queue.iter().any(|w| {
            let favour = matches!(purpose, Purpose::Foresight | Purpose::Scan | Purpose::Help);
            favour || w.purpose == Purpose::Metadata || w.purpose == purpose
        });
        if !overtakes && let Some(grant) = self.grant(purpose) {
            return Admission::Granted(grant);
        }
        if !wait {
            return Admission::Refused;
        }
        let (grant, granted) = mpsc::channel();
        self.tickets += 1;
        self.queue.push_back(Waiter {
            ticket: self.tickets,
            purpose,
            grant,
        });
        Admission::Queued(self.tickets, granted)
    }

    fn grant(&mut self, purpose: Purpose) -> Option<Grant> {
        let transfers = matches!(purpose, Purpose::Transfer | Purpose::Help);
        let carries = transfers || purpose == Purpose::Spot;
        // What is extra is for spots and listings only.
        if transfers && self.transfers >= self.most_transfers()
            || carries && self.transfers + self.spots >= self.most_transfers() + self.extra.open
        {
            return None;
        }
        let ahead = matches!(purpose, Purpose::Foresight | Purpose::Scan);
        if self.used() + usize::from(ahead) >= self.most() {
            return None;
        }
        if purpose == Purpose::Spot && self.transfers + self.spots >= self.most_transfers() {
            self.extra.need();
        }
        // A data connection that was asked for long ago is made by now.
        let ready = self.idle.iter().enumerate();
        let ready = ready.filter(|_| carries);
        let ready = ready.filter_map(|(at, idle)| Some((idle.session.ahead_since()?, at)));
        let ready = ready.min();
        // Whoever jumps about takes the first that is free.
        let none = self.idle.is_empty();
        if purpose == Purpose::Spot && none && self.used() > 0 && self.extra.is_coming() {
            return None;
        }
        let idle = match ready {
            _ if purpose == Purpose::Help && self.is_last_idle() => None,
            // Who opened a directory is about to ask for it, and a login takes long.
            _ if purpose == Purpose::Scan && self.far && self.is_last() => None,
            Some((_, at)) => Some(self.idle.remove(at)),
            None => self.idle.pop(),
        };
        let grant = idle.map_or(Grant::New, |idle| Grant::Idle(Box::new(idle.session)));
        match purpose {
            Purpose::Metadata => self.metadata += 1,
            Purpose::Transfer | Purpose::Help => self.transfers += 1,
            Purpose::Spot => self.spots += 1,
            Purpose::Foresight | Purpose::Scan => self.foresight += 1,
        }
        Some(grant)
    }

    /// Whether metadata could be asked for at once by one session only.
    fn is_last(&self) -> bool {
        self.idle.len() == 1 && self.metadata == 0
    }

    /// The same, and another can be opened.
    fn is_last_idle(&self) -> bool {
        self.is_last() && self.open() < self.limit
    }

    /// Gives what is free to those who wait.
    pub(super) fn serve(&mut self) {
        for metadata in [true, false] {
            let mut at = 0;
            while let Some(purpose) = self.queue.get(at).map(|waiter| waiter.purpose) {
                let served = (purpose == Purpose::Metadata) == metadata;
                let Some(grant) = served.then(|| self.grant(purpose)).flatten() else {
                    at += 1;
                    continue;
                };
                // Who gives up leaves the queue first, so there is somebody to receive it.
                if let Some(waiter) = self.queue.remove(at) {
                    let _ = waiter.grant.send(grant);
                }
            }
        }
    }

    pub(super) const fn leave(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Metadata => self.metadata -= 1,
            Purpose::Transfer | Purpose::Help => self.transfers -= 1,
            Purpose::Spot => self.spots -= 1,
            Purpose::Foresight | Purpose::Scan => self.foresight -= 1,
        }
    }

    /// Keeps a session for the next one, unless it is no good or one too many.
    pub(super) fn keep(&mut self, session: Session) -> Option<Session> {
        if self.closed || !session.is_reusable() || self.open() >= self.most() {
            self.extra.open = self.extra.open.min(self.open().saturating_sub(self.limit));
            return Some(session);
        }
        self.idle.push(Idle {
            session,
            since: Instant::now(),
        });
        None
    }

    /// What was idle for so long.
    pub(super) fn take_stale(&mut self, most: Duration) -> Vec<Idle> {
        let fresh = self
            .idle
            .partition_point(|idle| idle.since.elapsed() >= most);
        self.idle.drain(..fresh).collect()
    }

    /// How long the one has been idle that was so first.
    pub(super) fn oldest_idle(&self) -> Option<Duration> {
        self.idle.first().map(|idle| idle.since.elapsed())
    }

    /// The server will not have more than there are.
    pub(super) fn lower_limit(&mut self) {
        self.extra.refuse();
        self.extra.open = self.open().saturating_sub(self.limit);
        self.limit = self.open().clamp(1, self.limit);
        self.limited = Some(Instant::now());
    }

    pub(super) fn raise_limit(&mut self, wanted: usize) {
        if self.limit < wanted && self.limited.is_some_and(|at| at.elapsed() > LIMIT_HOLDS) {
            self.limit += 1;
            self.limited = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_granted(state: &mut State, purpose: Purpose) -> bool {
        matches!(state.admit(purpose, false), Admission::Granted(_))
    }

    #[test]
    fn what_is_extra_is_for_spots_only() {
        let mut state = State::new(3, 2);
        assert!(is_granted(&mut state, Purpose::Transfer));
        assert!(is_granted(&mut state, Purpose::Spot));
        assert!(
            !is_granted(&mut state, Purpose::Spot),
            "one is for metadata"
        );
        state.extra.open = 2;
        assert!(is_granted(&mut state, Purpose::Spot));
        assert!(is_granted(&mut state, Purpose::Spot));
        assert!(!is_granted(&mut state, Purpose::Spot));
        assert!(is_granted(&mut state, Purpose::Metadata));
        assert!(!is_granted(&mut state, Purpose::Metadata) && state.open() == 5);
        // Transfers wait for the usual ones.
        state.leave(Purpose::Spot);
        state.leave(Purpose::Transfer);
        for _ in 0..2 {
            assert!(is_granted(&mut state, Purpose::Transfer));
        }
        state.leave(Purpose::Spot);
        assert!(!is_granted(&mut state, Purpose::Transfer));
        assert!(is_granted(&mut state, Purpose::Spot));
    }

    #[test]
    fn listings_ahead_have_what_is_extra_and_leave_one() {
        let mut state = State::new(3, 4);
        for _ in 0..2 {
            assert!(is_granted(&mut state, Purpose::Scan));
        }
        assert!(!is_granted(&mut state, Purpose::Scan));
        state.extra.open = 1;
        assert!(is_granted(&mut state, Purpose::Scan));
        assert!(!is_granted(&mut state, Purpose::Scan));
        assert!(is_granted(&mut state, Purpose::Metadata), "its own is left");
    }

    #[test]
    fn a_server_that_refuses_has_no_more_than_there_are() {
        let mut state = State::new(2, 8);
        state.extra.open = 1;
        assert!(is_granted(&mut state, Purpose::Spot));
        assert!(is_granted(&mut state, Purpose::Spot));
        state.lower_limit();
        assert_eq!((state.limit, state.extra.open), (2, 0));
        state.leave(Purpose::Spot);
        state.lower_limit();
        assert_eq!((state.limit, state.extra.open), (1, 0));
    }

    #[test]
    fn whoever_carries_contents_is_served_in_turn() {
        let mut state = State::new(2, 0);
        assert!(is_granted(&mut state, Purpose::Transfer));
        let queued = [Purpose::Transfer, Purpose::Spot].map(|purpose| {
            let Admission::Queued(_, granted) = state.admit(purpose, true) else {
                unreachable!("there is one too few");
            };
            granted
        });
        for granted in queued {
            state.leave(Purpose::Transfer);
            state.serve();
            assert!(granted.try_recv().is_ok());
        }
    }
}
