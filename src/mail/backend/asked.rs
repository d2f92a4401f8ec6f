//! Answers to programs beside the mount.

use std::path::Path;

use serde_json::{Value, json};

use super::MailBackend;
use crate::mail::ask::Ask;
use crate::mail::failure::Class;
use crate::mail::options::MailOptions;
use crate::mail::queue::{Entry, Id, Queue, QueueOptions, State};
use crate::mail::store;
use crate::vfs::error::{Error, ErrorKind, Result};

impl MailBackend {
    /// Does what is asked.
    ///
    /// # Errors
    /// As [`Ask`] tells: of submitting, those of [`hand_in`](super::hand_in).
    pub fn answer(&self, ask: &Ask) -> Result<Value> {
        match ask {
            Ask::Submit(handed) => {
                let ids = self.outbox.pick_up(handed)?;
                Ok(ids.iter().map(Id::as_str).collect())
            }
            Ask::Fate(names) => self.fate(names),
            Ask::Retry => {
                self.outbox.may_send()?;
                self.queue.retry_all()?;
                self.sender().iter().for_each(|sender| sender.trigger());
                Ok(Value::Null)
            }
            Ask::Expand(names) => self.outbox.behind(names).map(Value::from),
        }
    }

    fn fate(&self, names: &[String]) -> Result<Value> {
        let messages: Vec<Value> = if names.is_empty() {
            let queued = self.queue.list();
            queued.iter().map(|entry| self.fared(entry)).collect()
        } else {
            let fates = names.iter().map(|name| self.fate_of(name));
            fates.collect::<Result<_>>()?
        };
        let trouble = self.sender().and_then(|sender| sender.status().trouble);
        let trouble = trouble.map(|(_, failure)| {
            json!({"account": failure.class() == Class::Account, "line": failure.to_string()})
        });
        // A file is judged after its close, which nobody waits for.
        let writing = self.outbox.is_written();
        Ok(json!({"messages": messages, "trouble": trouble, "writing": writing}))
    }

    fn fate_of(&self, name: &str) -> Result<Value> {
        let id = Id::parse(name);
        if let Some(entry) = id.as_ref().and_then(|id| self.queue.get(id)) {
            return Ok(self.fared(&entry));
        }
        // It left before this mount began, or long ago.
        let left = |state: State| json!({"id": name, "state": state.word(), "settled": true, "recipients": []});
        let root = &self.areas.root;
        if id.is_some() && root.join("failed").join(name).is_dir() {
            return Ok(left(State::Failed));
        }
        let copy = format!(".L{name}.");
        let sent = ["cur", "new"].iter().any(|dir| {
            let files = std::fs::read_dir(root.join("Sent").join(dir));
            let mut files = files.into_iter().flatten().flatten();
            id.is_some() && files.any(|file| file.file_name().to_string_lossy().contains(&copy))
        });
        if sent {
            return Ok(left(State::Accepted));
        }
        let line = format!("{name}: no message of that name is or was in the queue");
        Err(Error::new(ErrorKind::NotFound, line))
    }

    fn fared(&self, entry: &Entry) -> Value {
        fared(entry, self.queue.is_taken(&entry.id))
    }
}

/// How the messages of an account fare that is not mounted.
///
/// # Errors
/// `Busy` where another process has the queue; the disk's.
pub fn look(state_dir: &Path, options: &MailOptions) -> Result<Value> {
    let dir = store::directory(state_dir, &options.fetch.account()).join("queue");
    if !dir.exists() {
        return Ok(json!({"messages": []}));
    }
    let (queue, _) = Queue::open(&dir, QueueOptions::default())?;
    let messages: Vec<_> = queue
        .list()
        .iter()
        .map(|entry| fared(entry, false))
        .collect();
    Ok(json!({"messages": messages}))
}

fn fared(entry: &Entry, is_taken: bool) -> Value {
    let recipients = entry.envelope.recipients.iter().zip(&entry.recipients);
    let recipients: Vec<_> = recipients
        .map(|(to, progress)| {
            json!({
                "address": to.address.to_string(),
                "state": progress.state.word(),
                "text": progress.text,
                "at": progress.at,
            })
        })
        .collect();
    json!({
        "id": entry.id.as_str(),
        "state": entry.state().word(),
        // What is being worked on is not durable yet.
        "settled": entry.is_settled() && !is_taken,
        "held": !entry.is_settled() && entry.due().is_none(),
        "from": entry.envelope.sender.as_ref().map(ToString::to_string),
        "size": entry.envelope.needs.octets,
        "queued_at": entry.queued_at,
        "next_attempt_at": entry.due(),
        "recipients": recipients,
    })
}
