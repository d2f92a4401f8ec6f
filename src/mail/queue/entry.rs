//! A message in the queue: what is known of each recipient, and how events change it. The same
//! code runs when something happens and when the journal is read again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::Event;
use crate::mail::envelope::Envelope;

/// Attempts whose words are kept; the first ones go first.
const ATTEMPTS_KEPT: usize = 12;

/// Lines kept of one attempt.
const LINES_KEPT: usize = 60;

/// A clock that is so much behind, in seconds, was set back.
const CLOCK_SLACK: u64 = 300;

/// The name of a message in the queue; later ones sort later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Arc<str>);

impl Id {
    const LONGEST: usize = 32;

    /// A new one: microseconds since 1970 and 20 random bits.
    #[must_use]
    pub(super) fn new(now: std::time::Duration) -> Self {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut random = [0; 4];
        // Microseconds alone are unique enough; the queue refuses a name that is taken.
        let _ = getrandom::fill(&mut random);
        let mut number = (now.as_micros() << 20) | u128::from(u32::from_le_bytes(random) >> 12);
        let mut digits = [b'0'; 15];
        for digit in digits.iter_mut().rev() {
            let index = usize::try_from(number & 31).unwrap_or_default();
            *digit = DIGITS.get(index).copied().unwrap_or(b'0');
            number >>= 5;
        }
        Self(String::from_utf8_lossy(&digits).into())
    }

    /// A name somebody typed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(plain);
        good.then(|| Self(text.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a queue id")
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// What became of a recipient so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Not tried yet.
    Queued,
    /// Tried, to be tried again.
    Deferred,
    /// A server has the message and its answer was lost.
    InDoubt,
    /// A server took responsibility.
    Accepted,
    /// It will never be taken.
    Failed,
    /// The user changed his mind.
    Cancelled,
}

impl State {
    /// Nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Accepted | Self::Failed | Self::Cancelled)
    }

    /// The word people see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Deferred => "deferred",
            Self::InDoubt => "in doubt",
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far an attempt under way has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Flight {
    /// There is none.
    #[default]
    Grounded,
    /// It was announced in the journal.
    Armed,
    /// The final dot was on its way.
    Dot,
}

/// News of one recipient, from an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Index in the envelope.
    pub recipient: usize,
    /// What it is now.
    pub state: State,
    /// When it is tried again, in seconds since 1970; `None`: when the user says so, or never.
    pub due: Option<u64>,
    /// The server's reply, or what went wrong.
    pub text: String,
}

/// One recipient's progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What became of it so far.
    pub state: State,
    /// When `state` was told last, in seconds since 1970.
    pub at: u64,
    /// When it is tried (again); `None`: when the user says so, or never.
    pub due: Option<u64>,
    /// The last reply.
    pub text: String,
    /// It was in doubt before: another doubt is not answered by another copy.
    pub doubted: bool,
    pub(super) flight: Flight,
    /// The sender was told of the failure.
    pub(super) reported: bool,
}

/// What was said in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// `>` us, `<` the server, `!` what went wrong.
    pub said: Vec<String>,
}

/// A message in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub id: Id,
    /// Who it is from and for.
    pub envelope: Arc<Envelope>,
    /// When it was queued, in seconds since 1970.
    pub queued_at: u64,
    /// As many as the envelope has recipients.
    pub recipients: Vec<Progress>,
    /// Attempts that counted.
    pub attempts: u32,
    /// The user keeps it back.
    pub hold: bool,
    /// The last attempts, in order.
    pub history: Vec<Attempt>,
    pub(super) filed: bool,
    pub(super) delay_reported: bool,
    /// Somebody works on it. Not written: who worked is gone after a crash.
    #[serde(skip)]
    pub(super) taken: bool,
}

impl Entry {
    pub(super) fn new(id: Id, envelope: Arc<Envelope>, at: u64, due: u64) -> Self {
        let progress = Progress {
            state: State::Queued,
            at,
            due: Some(due),
            text: String::new(),
            doubted: false,
            flight: Flight::Grounded,
            reported: false,
        };
        Self {
            id,
            recipients: vec![progress; envelope.recipients.len()],
            hold: envelope.hold,
            envelope,
            queued_at: at,
            attempts: 0,
            history: Vec::new(),
            filed: false,
            delay_reported: false,
            taken: false,
        }
    }

    #[cfg(test)]
    pub(in crate::mail) fn for_tests(id: Id, envelope: Arc<Envelope>) -> Self {
        Self::new(id, envelope, 0, 0)
    }

    /// Nothing more will happen to any recipient.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.recipients.iter().all(|r| r.state.is_final())
    }

    /// One word for all recipients: the worst that still goes on, else the worst that happened.
    #[must_use]
    pub fn state(&self) -> State {
        let order = [
            State::InDoubt,
            State::Deferred,
            State::Queued,
            State::Failed,
            State::Accepted,
            State::Cancelled,
        ];
        let has = |state: &State| self.recipients.iter().any(|r| r.state == *state);
        order.into_iter().find(has).unwrap_or(State::Cancelled)
    }

    /// When something is to be done; `None`: when the user says so, or never.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        if self.hold {
            return None;
        }
        let open = self.recipients.iter().filter(|r| !r.state.is_final());
        open.filter_map(|r| r.due).min()
    }

    /// Whether something is due at `now`, and since when.
    #[must_use]
    pub(super) fn due_since(&self, now: u64) -> Option<u64> {
        let open = self.recipients.iter().filter(|_| !self.hold);
        open.filter_map(|r| self.due_of(r, now)).min()
    }

    /// Recipients that are due at `now`.
    #[must_use]
    pub fn due_recipients(&self, now: u64) -> Vec<usize> {
        self.indices(|r| self.due_of(r, now).is_some())
    }

    /// Since when `progress` is due, if it is at `now`. A time that was reckoned from a clock that
    /// is set back since would come too late by as much: nobody waits for that.
    fn due_of(&self, progress: &Progress, now: u64) -> Option<u64> {
        let due = progress.due.filter(|_| !progress.state.is_final())?;
        let set_back = progress.at > now.saturating_add(CLOCK_SLACK)
            && self.envelope.send_at.is_none_or(|at| at <= now);
        if set_back { Some(now) } else { Some(due) }.filter(|due| *due <= now)
    }

    /// Somebody took it and there is no copy in `.Sent`.
    #[must_use]
    pub fn owes_copy(&self) -> bool {
        !self.filed && self.recipients.iter().any(|r| r.state == State::Accepted)
    }

    /// Recipients that were tried in vain so far.
    #[must_use]
    pub fn undelivered(&self) -> Vec<usize> {
        self.indices(|r| r.state == State::Deferred)
    }

    /// Failures the sender does not know of.
    #[must_use]
    pub fn unreported(&self) -> Vec<usize> {
        self.indices(|r| r.state == State::Failed && !r.reported)
    }

    /// Whether it was tried in vain since `late`, in seconds since 1970, and the sender does not
    /// know. What waits for a time of its own does not take long.
    #[must_use]
    pub fn owes_delay_report(&self, late: u64) -> bool {
        let begun = self.queued_at.max(self.envelope.send_at.unwrap_or(0));
        let in_vain = |r: &Progress| r.state == State::Deferred;
        !self.delay_reported && !self.hold && begun <= late && self.recipients.iter().any(in_vain)
    }

    /// Indices of the recipients for which `wanted` is true.
    pub(super) fn indices(&self, wanted: impl Fn(&Progress) -> bool) -> Vec<usize> {
        let all = self.recipients.iter().enumerate();
        all.filter(|(_, r)| wanted(r)).map(|(i, _)| i).collect()
    }

    fn fly(&mut self, recipients: &[usize], flight: Flight) {
        for index in recipients {
            if let Some(progress) = self.recipients.get_mut(*index) {
                progress.flight = flight;
            }
        }
    }

    /// Changes what `event` changes.
    pub(super) fn apply(&mut self, at: u64, event: &Event) {
        match event {
            Event::Armed(recipients) => self.fly(recipients, Flight::Armed),
            Event::Dot(recipients) => self.fly(recipients, Flight::Dot),
            Event::Disarmed(recipients) => self.fly(recipients, Flight::Grounded),
            Event::Told {
                counted,
                told,
                said,
            } => {
                self.attempts += u32::from(*counted);
                for news in told {
                    self.tell(at, news);
                }
                self.remember(at, said);
            }
            Event::Retry => {
                self.hold = false;
                for progress in self.recipients.iter_mut().filter(|r| !r.state.is_final()) {
                    progress.due = Some(at);
                    // The user knows; it is not a silent duplicate.
                    progress.doubted = false;
                }
            }
            Event::Hold(hold) => self.hold = *hold,
            Event::Cancelled => {
                for progress in self.recipients.iter_mut().filter(|r| !r.state.is_final()) {
                    progress.state = State::Cancelled;
                    progress.at = at;
                    progress.due = None;
                }
            }
            Event::Filed => self.filed = true,
            Event::Reported(recipients) => {
                for index in recipients {
                    if let Some(progress) = self.recipients.get_mut(*index) {
                        progress.reported = true;
                    }
                }
            }
            Event::DelayReported => self.delay_reported = true,
            Event::Opened { .. } | Event::Queued { .. } | Event::Gone | Event::Whole(_) => {}
        }
    }

    fn tell(&mut self, at: u64, news: &Told) {
        let Some(progress) = self.recipients.get_mut(news.recipient) else {
            return;
        };
        progress.doubted |= news.state == State::InDoubt;
        progress.state = news.state;
        progress.at = at;
        progress.due = news.due;
        progress.text.clone_from(&news.text);
        progress.flight = Flight::Grounded;
    }

    /// Keeps what was said, in memory and for `queue/ID`.
    pub(super) fn remember(&mut self, at: u64, said: &[String]) {
        if said.is_empty() {
            return;
        }
        if self.history.len() >= ATTEMPTS_KEPT {
            self.history.remove(0);
        }
        let mut said: Vec<_> = said.iter().take(LINES_KEPT).cloned().collect();
        if said.len() == LINES_KEPT {
            said.push("...".into());
        }
        self.history.push(Attempt { at, said });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::mail::envelope::address;

    fn entry(recipients: usize) -> Entry {
        let names = (0..recipients).map(|i| address(&format!("u{i}@example.org")).unwrap());
        let envelope = Arc::new(Envelope::new(None, names.collect()));
        Entry::new(Id::parse("a").unwrap(), envelope, 100, 100)
    }

    fn told(recipient: usize, state: State, due: Option<u64>) -> Event {
        Event::Told {
            counted: true,
            told: vec![Told {
                recipient,
                state,
                due,
                text: "x".into(),
            }],
            said: vec!["< x".into()],
        }
    }

    #[test]
    fn ids_sort_by_age_and_are_safe_names() {
        let at = |micros| Id::new(std::time::Duration::from_micros(micros));
        let early = at(1_700_000_000_000_000);
        assert!(early < at(1_700_000_000_000_001));
        assert!(early < at(4_000_000_000_000_000));
        assert_eq!(Id::parse(early.as_str()), Some(early));
        for bad in ["", ".", "..", "a/b", "A", "a b", "é", &"a".repeat(33)] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_recipient_goes_its_own_way() {
        let mut entry = entry(3);
        assert_eq!(entry.due_recipients(100), [0, 1, 2]);
        entry.apply(101, &told(0, State::Accepted, None));
        entry.apply(101, &told(1, State::Deferred, Some(160)));
        assert_eq!(entry.due_recipients(101), [2]);
        assert_eq!(entry.state(), State::Deferred);
        entry.apply(102, &told(2, State::Failed, None));
        assert_eq!((entry.due(), entry.is_settled()), (Some(160), false));
        entry.apply(160, &told(1, State::Accepted, None));
        assert_eq!((entry.due(), entry.is_settled()), (None, true));
        assert_eq!(entry.state(), State::Failed);
        assert_eq!((entry.attempts, entry.history.len()), (4, 4));
    }

    #[test]
    fn the_user_holds_retries_and_cancels() {
        let mut entry = entry(2);
        entry.apply(101, &told(0, State::Accepted, None));
        entry.apply(101, &told(1, State::InDoubt, None));
        assert_eq!(entry.due(), None);
        assert!(entry.recipients[1].doubted);
        entry.apply(102, &Event::Retry);
        assert_eq!(entry.due_recipients(102), [1]);
        entry.apply(103, &Event::Hold(true));
        assert_eq!(entry.due(), None);
        entry.apply(104, &Event::Cancelled);
        assert!(entry.is_settled());
        assert_eq!(entry.recipients[0].state, State::Accepted);
    }

    #[test]
    fn news_of_nobody_is_no_news() {
        let mut entry = entry(1);
        entry.apply(1, &told(7, State::Failed, None));
        entry.apply(1, &Event::Dot(vec![9]));
        assert_eq!(entry.state(), State::Queued);
    }
}
