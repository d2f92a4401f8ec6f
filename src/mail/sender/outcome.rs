//! From what a server said to what the queue keeps.

use crate::mail::queue::{Entry, Queue, State, Told, now};
use crate::mail::smtp::{Answer, Outcome, Unfit, Verdict};

/// What an attempt means for one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// It counts for the schedule.
    pub(super) counted: bool,
    pub(super) told: Vec<Told>,
    /// Recipients for which it is as if nothing had happened.
    pub(super) untouched: Vec<usize>,
    /// The account is the trouble, in these words.
    pub(super) account: Option<String>,
}

/// What `outcome` means. `reused`: the connection had carried something before.
/// `relay`: the server is one where we have an account.
pub(super) fn meaning(
    queue: &Queue,
    entry: &Entry,
    outcome: &Outcome,
    reused: bool,
    relay: bool,
) -> Meaning {
    let mut meaning = Meaning::default();
    // A server that closes a connection it has seen enough of says nothing about the message. On a
    // fresh one it is tried again at once, and there it counts.
    let no_fault = reused || outcome.chunk_refused;
    let unheard = outcome.failure.is_some() && no_fault && !has_news(&outcome.answers);
    if unheard || outcome.hold_refused {
        meaning.untouched = outcome.answers.iter().map(|a| a.recipient).collect();
        return meaning;
    }
    let any_accepted = outcome
        .answers
        .iter()
        .any(|a| a.verdict == Verdict::Accepted);
    for answer in &outcome.answers {
        match answer.verdict {
            Verdict::Accepted => meaning.tell(answer, State::Accepted, None),
            Verdict::Refused => meaning.tell(answer, State::Failed, None),
            // The rest goes into a transaction of its own, now.
            Verdict::TooMany if any_accepted => meaning.untouched.push(answer.recipient),
            // A stranger who wants a login, or does not like us, has spoken of this message.
            Verdict::Account if !relay && answer.text.starts_with('5') => {
                meaning.tell(answer, State::Failed, None);
            }
            Verdict::Account if !relay => {
                meaning.counted = true;
                meaning.defer(queue, entry, answer);
            }
            Verdict::Account => {
                meaning.untouched.push(answer.recipient);
                meaning.account = Some(answer.text.clone());
            }
            Verdict::Deferred | Verdict::TooMany => {
                meaning.counted = true;
                meaning.defer(queue, entry, answer);
            }
            Verdict::InDoubt => {
                meaning.counted = true;
                let progress = entry.recipients.get(answer.recipient);
                let due = queue.due_in_doubt(progress.is_some_and(|p| p.doubted));
                meaning.tell(answer, State::InDoubt, not_before(entry, due));
            }
        }
    }
    meaning
}

/// `due`, but not before the time that the message has of its own: a server was asked to hold it.
fn not_before(entry: &Entry, due: Option<u64>) -> Option<u64> {
    due.map(|due| due.max(entry.envelope.send_at.unwrap_or(0)))
}

fn has_news(answers: &[Answer]) -> bool {
    answers.iter().any(|a| a.verdict != Verdict::Deferred)
}

impl Meaning {
    fn tell(&mut self, answer: &Answer, state: State, due: Option<u64>) {
        self.told.push(Told {
            recipient: answer.recipient,
            state,
            due,
            text: answer.text.clone(),
        });
    }

    fn defer(&mut self, queue: &Queue, entry: &Entry, answer: &Answer) {
        let begun = entry.queued_at.max(entry.envelope.send_at.unwrap_or(0));
        let due = queue.schedule().next(begun, entry.attempts + 1, now());
        if due.is_some() {
            self.tell(answer, State::Deferred, not_before(entry, due));
        } else {
            let days = queue.schedule().give_up.as_secs() / 86_400;
            let given_up = Answer {
                text: format!(
                    "gave up after {days} days; the last answer was: {}",
                    answer.text
                ),
                ..answer.clone()
            };
            self.tell(&given_up, State::Failed, None);
        }
    }
}

/// The answers a server would have given to a message it cannot take.
pub(super) fn refusal(unfit: Unfit, recipients: &[usize]) -> Vec<Told> {
    let text = match unfit {
        Unfit::TooLarge(limit) => {
            format!("552 5.3.4 the server takes messages up to {limit} octets")
        }
        Unfit::NeedsSevenBit => {
            "554 5.6.3 the server takes ASCII only, and the message cannot be put that way".into()
        }
        Unfit::NeedsUtf8 => {
            "553 5.6.7 the server cannot take addresses or headers beyond ASCII".to_owned()
        }
    };
    let told = recipients.iter().map(|recipient| Told {
        recipient: *recipient,
        state: State::Failed,
        due: None,
        text: text.clone(),
    });
    told.collect()
}
