//! What `status` shows, to people as a file and to programs as JSON.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::MailBackend;
use crate::mail::fetch::Activity;
use crate::mail::sender::SendActivity;
use crate::vfs::attr::{Attr, FileKind};

impl MailBackend {
    /// Attributes of a file whose content is different each time: without a size, so that it is
    /// read to its end whatever that is, and with one time, so that a backup finds no change.
    pub(super) fn live_attr(&self, mode: u32) -> Attr {
        let mut attr = Attr::new(FileKind::File);
        attr.mtime = Some(self.started);
        attr.mtime_exact = true;
        attr.mode = Some(mode);
        attr
    }

    /// How fetching and sending go.
    #[must_use]
    pub fn report(&self) -> Map<String, Value> {
        let mut report = Map::new();
        if let Some(fetcher) = self.fetcher() {
            let status = fetcher.status();
            let inbox = json!({
                "state": fetching(&status.activity),
                "fetched_at": status.succeeded.map(unix),
                "next_poll_at": status.next.map(unix),
                "server": status.implementation,
                "error": status.failed.as_ref().map(|(_, failure)| failure.to_string()),
                "held_back": status.report.held,
            });
            report.insert("inbox".to_owned(), without_nulls(inbox));
        }
        let Some(sender) = self.sender() else {
            return report;
        };
        let status = sender.status();
        let sending = json!({
            "state": sending(status.activity),
            "queued": status.queued,
            "deferred": status.deferred,
            "accepted": status.accepted,
            "refused": status.refused,
            "next_attempt_at": status.next.map(unix),
            "error": status.trouble.as_ref().map(|(_, failure)| failure.to_string()),
        });
        report.insert("outbox".to_owned(), without_nulls(sending));
        let queue = self.queue.list();
        let queue = queue.iter().map(|entry| {
            let to: Vec<_> = entry
                .envelope
                .recipients
                .iter()
                .map(|to| to.address.to_string())
                .collect();
            let due = entry.due();
            without_nulls(json!({
                "id": entry.id.as_str(),
                "state": entry.state().word(),
                "to": to,
                "subject": entry.envelope.subject,
                "size": entry.envelope.needs.octets,
                "next_attempt_at": due,
            }))
        });
        report.insert("queue".to_owned(), queue.collect());
        report
    }

    /// The text of the file `status`.
    pub(super) fn status_text(&self) -> String {
        let mut text = format!("account: {}\n", self.account);
        for (name, value) in self.report() {
            match value {
                Value::Object(members) => {
                    for (key, value) in members {
                        let key = key.replace('_', " ");
                        let _ = writeln!(text, "{name} {key}: {}", plain(&key, &value));
                    }
                }
                Value::Array(entries) => {
                    for entry in entries {
                        let word = |key| {
                            entry
                                .get(key)
                                .map(|value| plain(key, value))
                                .unwrap_or_default()
                        };
                        let _ = writeln!(
                            text,
                            "{name} {}: {}, to {}",
                            word("id"),
                            word("state"),
                            word("to")
                        );
                    }
                }
                _ => {}
            }
        }
        for (file, why) in self.outbox.stuck() {
            let _ = writeln!(text, "{file}: not queued, tried again: {why}");
        }
        let failed = fs::read_dir(self.areas.root.join("failed")).map_or(0, Iterator::count);
        if failed > 0 {
            let _ = writeln!(text, "failed: {failed}, see failed/");
        }
        text
    }
}

fn fetching(activity: &Activity) -> String {
    match activity {
        Activity::Idle => "idle".to_owned(),
        Activity::Paused => "paused".to_owned(),
        Activity::Connecting => "connecting".to_owned(),
        Activity::Listing => "listing".to_owned(),
        Activity::Fetching {
            wanted, received, ..
        } => format!("fetching {received} of {wanted}"),
        Activity::Ending => "ending".to_owned(),
    }
}

fn sending(activity: SendActivity) -> String {
    format!("{activity:?}").to_lowercase()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect(),
        value => value,
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn plain(key: &str, value: &Value) -> String {
    match value {
        Value::Number(number) if key.ends_with(" at") => {
            let time =
                UNIX_EPOCH + Duration::from_secs(number.as_u64().unwrap_or_default().min(1 << 37));
            humantime::format_rfc3339_seconds(time).to_string()
        }
        Value::String(text) => text.replace(|c: char| c.is_control(), " "),
        Value::Array(entries) => entries
            .iter()
            .map(|entry| plain("", entry))
            .collect::<Vec<_>>()
            .join(", "),
        value => value.to_string(),
    }
}
