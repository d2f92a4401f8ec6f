//! `ferryfs mail wait`: until servers have spoken, with an exit status that says what.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{array, ask, flag, text};
use crate::exit::{Exit, Failure};
use crate::mail::ask::Ask;
use crate::state::Found;

/// Times between two looks: short at first, when most messages go.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Waits until nothing more will happen to the messages `ids`, or to all that are queued now.
///
/// # Errors
/// The worst of what happened: refused ([`Exit::MailNoUser`], [`Exit::MailData`],
/// [`Exit::MailUnavailable`]), a refused login ([`Exit::MailDenied`]), not yet
/// ([`Exit::MailLater`]).
pub(super) fn wait(found: &Found, ids: &[String], timeout: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut ids = ids.to_vec();
    if ids.is_empty() {
        let mut fate = ask(found, Ask::Fate(Vec::new()))?;
        while flag(&fate, "writing") && begun.elapsed() < timeout {
            thread::sleep(LOOKS.0);
            fate = ask(found, Ask::Fate(Vec::new()))?;
        }
        ids.extend(
            array(&fate, "messages")
                .iter()
                .map(|message| text(message, "id").to_owned()),
        );
        if ids.is_empty() {
            return Ok(());
        }
    }
    let fate = follow(found, &ids, timeout.saturating_sub(begun.elapsed()))?;
    verdict(&fate)
}

/// Waits, and prints what became of the messages; that it is not known yet is no error.
pub(super) fn watch(found: &Found, ids: &[String], timeout: Duration) -> Result<(), Failure> {
    let fate = follow(found, ids, timeout)?;
    let lines = array(&fate, "messages").iter().flat_map(|message| {
        let id = text(message, "id");
        array(message, "recipients").iter().map(move |to| {
            let (address, state, said) = (text(to, "address"), text(to, "state"), text(to, "text"));
            format!("{id}: {address}: {state} {said}\n")
        })
    });
    crate::print(&lines.collect::<String>())
}

fn follow(found: &Found, ids: &[String], timeout: Duration) -> Result<Value, Failure> {
    let deadline = Instant::now() + timeout;
    let mut pause = LOOKS.0;
    loop {
        let fate = ask(found, Ask::Fate(ids.to_vec()))?;
        // What the user keeps back, or must decide about, does not move by waiting.
        let at_rest = |message: &Value| flag(message, "settled") || flag(message, "held");
        let done = array(&fate, "messages").iter().all(at_rest);
        let left = deadline.saturating_duration_since(Instant::now());
        if done || left.is_zero() || denied(&fate).is_some() {
            return Ok(fate);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOOKS.1);
    }
}

/// Why no mail of this account is sent, if it is the account's fault.
fn denied(fate: &Value) -> Option<&str> {
    let trouble = fate
        .get("trouble")
        .filter(|trouble| flag(trouble, "account"))?;
    Some(text(trouble, "line"))
}

fn verdict(fate: &Value) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut worst: Option<Exit> = None;
    for message in array(fate, "messages") {
        let exit = match text(message, "state") {
            "accepted" => continue,
            "failed" => refusal(message),
            "cancelled" => Exit::MailUnavailable,
            _ if denied(fate).is_some() => Exit::MailDenied,
            _ => Exit::MailLater,
        };
        let said = array(message, "recipients")
            .iter()
            .find(|to| text(to, "state") != "accepted");
        let mut line = format!("{}: {}", text(message, "id"), text(message, "state"));
        if let Some(to) = said {
            line = format!("{line}: {} {}", text(to, "address"), text(to, "text"));
        }
        lines.push(line);
        // What will never be sent is worse than what is not sent yet.
        let is_final = |exit: Exit| !matches!(exit, Exit::MailLater | Exit::MailDenied);
        if worst.is_none_or(|before| is_final(exit) && !is_final(before)) {
            worst = Some(exit);
        }
    }
    let Some(exit) = worst else { return Ok(()) };
    if let Some(why) = denied(fate).filter(|_| exit == Exit::MailDenied) {
        lines.push(why.to_owned());
    }
    Err(Failure::new(exit, lines.join("; ")))
}

/// The exit status for what a server refused.
fn refusal(message: &Value) -> Exit {
    let failed = array(message, "recipients")
        .iter()
        .find(|to| text(to, "state") == "failed");
    let said = failed.map(|to| text(to, "text")).unwrap_or_default();
    let enhanced = said.split_whitespace().nth(1).unwrap_or_default();
    match (said.get(..3), enhanced) {
        (_, status) if status.starts_with("5.1.") => Exit::MailNoUser,
        (_, status) if status.starts_with("5.6.") || status.starts_with("5.3.4") => Exit::MailData,
        (Some("552" | "554"), _) => Exit::MailData,
        (Some("551" | "553"), _) => Exit::MailNoUser,
        (Some("550"), status) if !status.starts_with("5.7.") => Exit::MailNoUser,
        _ => Exit::MailUnavailable,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fate(states: &[(&str, &str)], trouble: bool) -> Result<(), Exit> {
        let messages = states.iter().map(|(state, said)| {
            json!({"id": "x", "state": state, "recipients": [{"address": "a@b", "state": state, "text": said}]})
        });
        let trouble = trouble.then(|| json!({"account": true, "line": "535 no"}));
        let fate = json!({"messages": messages.collect::<Vec<_>>(), "trouble": trouble});
        verdict(&fate).map_err(|failure| failure.code())
    }

    #[test]
    fn the_worst_decides() {
        assert_eq!(fate(&[("accepted", "250 ok")], false), Ok(()));
        for (said, exit) in [
            ("550 5.1.1 no such user", Exit::MailNoUser),
            ("550 no", Exit::MailNoUser),
            ("550 5.7.1 spam", Exit::MailUnavailable),
            ("552 5.3.4 too large", Exit::MailData),
            ("554 no", Exit::MailData),
            ("gave up after 5 days", Exit::MailUnavailable),
        ] {
            assert_eq!(fate(&[("failed", said)], false), Err(exit), "{said}");
        }
        assert_eq!(
            fate(&[("deferred", "450 x"), ("failed", "550 x")], false),
            Err(Exit::MailNoUser)
        );
        assert_eq!(fate(&[("queued", "")], true), Err(Exit::MailDenied));
        assert_eq!(
            fate(&[("queued", ""), ("accepted", "")], false),
            Err(Exit::MailLater)
        );
    }
}
