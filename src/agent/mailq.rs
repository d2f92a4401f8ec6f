//! `mailq`, in the columns that scripts cut out.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Account, array, ask, flag, text};
use crate::exit::Failure;
use crate::mail::ask::Ask;
use crate::mail::backend;
use crate::mount::mail::sysexit;

/// Prints what is queued.
///
/// # Errors
/// Of asking the mount, or of reading the queue where there is none.
pub(super) fn print(account: &Account) -> Result<(), Failure> {
    let fate = match account {
        Account::Mounted(found) => ask(found, Ask::Fate(Vec::new()))?,
        Account::Unmounted(mailbox) => {
            backend::look(&mailbox.state_dir, &mailbox.options).map_err(|err| sysexit(&err))?
        }
    };
    crate::print(&table(&fate))
}

fn table(fate: &Value) -> String {
    let messages = array(fate, "messages");
    if messages.is_empty() {
        return "Mail queue is empty\n".to_owned();
    }
    let mut out =
        String::from("-Queue ID-        --Size-- ----Arrival Time---- -Sender/Recipient-------\n");
    let number = |message: &Value, key| message.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut octets = 0;
    for message in messages {
        let size = number(message, "size");
        octets += size;
        let held = if flag(message, "held") { '!' } else { ' ' };
        let id = format!("{}{held}", text(message, "id"));
        let from = match text(message, "from") {
            "" => "MAILER-DAEMON",
            from => from,
        };
        let arrived = arrival(number(message, "queued_at"));
        let _ = writeln!(out, "{id:<17} {size:>8} {arrived:<20} {from}");
        for to in array(message, "recipients") {
            if !text(to, "text").is_empty() {
                let _ = writeln!(
                    out,
                    "{:>18}({}: {})",
                    "",
                    text(to, "state"),
                    text(to, "text")
                );
            }
            let _ = writeln!(out, "{:>48}{}", "", text(to, "address"));
        }
        out.push('\n');
    }
    let many = if messages.len() == 1 { "" } else { "s" };
    let _ = writeln!(
        out,
        "-- {} Kbytes in {} Request{many}.",
        octets.div_ceil(1024),
        messages.len()
    );
    out
}

/// `Mon Nov 23 12:00:00`, local.
fn arrival(at: u64) -> String {
    let time = i64::try_from(at)
        .ok()
        .and_then(|at| jiff::Timestamp::from_second(at).ok());
    time.map_or_else(String::new, |time| {
        time.to_zoned_datetime(jiff::tz::TimeZone::system())
            .strftime("%a %b %e %H:%M:%S")
            .to_string()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_columns_are_those_of_postfix() {
        assert_eq!(table(&json!({"messages": []})), "Mail queue is empty\n");
        let to = json!([{"address": "b@x.org", "state": "deferred", "text": "450 greylisted"}]);
        let shown = table(
            &json!({"messages": [{"id": "abc", "size": 1025, "queued_at": 0,
            "from": "a@x.org", "held": false, "recipients": to}]}),
        );
        assert!(shown.contains("\nabc "), "{shown}");
        assert!(shown.contains("a@x.org\n"), "{shown}");
        assert!(shown.contains("(deferred: 450 greylisted)\n"), "{shown}");
        assert!(
            shown.ends_with("b@x.org\n\n-- 2 Kbytes in 1 Request.\n"),
            "{shown}"
        );
    }
}
