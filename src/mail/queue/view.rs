//! A message in the queue as people read it: `queue/ID`.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use super::entry::{Entry, State};
use crate::mail::smtp::meaning;

/// The text of `queue/ID`: the envelope, each recipient with its last reply, each attempt.
#[must_use]
pub fn text(entry: &Entry) -> String {
    let mut text = String::new();
    let envelope = &entry.envelope;
    let sender = envelope.sender.as_ref().map_or("<>", AsRef::as_ref);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}: {}", printable(value));
    };
    line("Id", entry.id.as_str());
    line("State", &state(entry));
    line("From", sender);
    if !envelope.subject.is_empty() {
        line("Subject", &envelope.subject);
    }
    if let Some(id) = &envelope.message_id {
        line("Message-ID", id);
    }
    line("Size", &envelope.needs.octets.to_string());
    line("Queued", &time(entry.queued_at));
    if let Some(at) = envelope.send_at {
        line("Send-At", &time(at));
    }
    line("Attempts", &entry.attempts.to_string());
    for (recipient, progress) in envelope.recipients.iter().zip(&entry.recipients) {
        let mut value = format!("{}: {}", recipient.address, progress.state.word());
        if let Some(original) = &recipient.original {
            value = format!(
                "{} (for {original}): {}",
                recipient.address,
                progress.state.word()
            );
        }
        if !progress.text.is_empty() {
            let _ = write!(value, " since {}: {}", time(progress.at), progress.text);
            if let Some(code) = progress.text.get(..3).and_then(|code| code.parse().ok()) {
                let _ = write!(value, " ({})", meaning(code));
            }
        }
        match progress.due {
            Some(due) if !progress.text.is_empty() => {
                let _ = write!(value, "; next attempt {}", time(due));
            }
            None if !progress.state.is_final() => {
                value.push_str("; waits for you: retry or cancel")
            }
            _ => {}
        }
        line("To", &value);
    }
    for attempt in &entry.history {
        let _ = writeln!(text, "\nAttempt of {}", time(attempt.at));
        for said in &attempt.said {
            let _ = writeln!(text, "  {}", printable(said));
        }
    }
    text
}

fn state(entry: &Entry) -> String {
    if entry.is_settled() {
        return entry.state().word().to_owned();
    }
    if entry.hold {
        return "on hold".to_owned();
    }
    match (entry.state(), entry.due()) {
        (State::InDoubt, _) => {
            "in doubt: the server had the whole message, and its answer was lost".to_owned()
        }
        (state, Some(due)) => format!("{}, next attempt {}", state.word(), time(due)),
        (state, None) => state.word().to_owned(),
    }
}

/// UTC to the second, as in `2026-11-23T12:00:00Z`.
fn time(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(1 << 37)));
    time.map_or_else(String::new, |time| {
        humantime::format_rfc3339_seconds(time).to_string()
    })
}

/// One line: what a server or a subject says may hold anything.
fn printable(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::entry::{Id, Told};
    use super::super::record::Event;
    use super::*;
    use crate::mail::envelope::{Envelope, address};

    #[test]
    fn every_reply_is_there_and_nothing_breaks_the_lines() {
        let names = ["bob@example.org", "carol@example.org", "dave@example.org"];
        let names = names.map(|name| address(name).unwrap()).to_vec();
        let mut envelope = Envelope::new(Some(address("alice@example.org").unwrap()), names);
        envelope.subject = "Hello\nTo: eve".into();
        let mut entry = Entry::new(Id::parse("id1").unwrap(), Arc::new(envelope), 0, 0);
        let told = |recipient, state, due, text: &str| Told {
            recipient,
            state,
            due,
            text: text.into(),
        };
        let event = Event::Told {
            counted: true,
            told: vec![
                told(0, State::Accepted, None, "250 2.0.0 Ok"),
                told(1, State::Deferred, Some(60), "450 4.7.1 Greylisted"),
            ],
            said: vec!["> MAIL FROM:<alice@example.org>".into(), "< 250 ok".into()],
        };
        entry.apply(1, &event);
        let shown = text(&entry);
        for want in [
            "Id: id1\nState: deferred, next attempt 1970-01-01T00:00:00Z\nFrom: alice@example.org\n",
            "Subject: Hello To: eve\n",
            "To: bob@example.org: accepted since 1970-01-01T00:00:01Z: 250 2.0.0 Ok (done)\n",
            "450 4.7.1 Greylisted (mailbox unavailable now); next attempt 1970-01-01T00:01:00Z\n",
            "To: dave@example.org: queued\n",
            "\nAttempt of 1970-01-01T00:00:01Z\n  > MAIL FROM:<alice@example.org>\n  < 250 ok\n",
        ] {
            assert!(shown.contains(want), "{want} in\n{shown}");
        }
        let doubt = Event::Told {
            counted: true,
            told: vec![told(1, State::InDoubt, None, "the server hung up")],
            said: Vec::new(),
        };
        entry.apply(2, &doubt);
        let shown = text(&entry);
        assert!(shown.contains("State: in doubt"), "{shown}");
        assert!(
            shown.contains("the server hung up; waits for you"),
            "{shown}"
        );
    }
}
