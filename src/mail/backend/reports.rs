//! Reports of other machines (RFC 3464) that come into the inbox, matched to what was sent.
//!
//! What they say of message ID is appended to `reports/ID` and shown as attributes of the copy in
//! `.Sent`; for those who will never get it there is `failed/ID`, as if our own server had refused
//! them.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::ZonedDateTime;

use super::MailBackend;
use super::local::failed;
use super::receipts::{copy, send_to};
use crate::mail::address::{Address, Item, parse_list};
use crate::mail::dsn::{Action, Incoming};
use crate::mail::fields::{HEADER_MAX, fields, find};
use crate::mail::queue::Id;
use crate::mail::store::Delivered;
use crate::vfs::error::Result;

/// Of a new message, what must show that it is a report.
const HEAD: u64 = 16 * 1024;

/// Larger reports are not read: they bring a large message back.
const LARGEST: u64 = 4 << 20;

/// Copies in `.Sent` that are searched for a Message-ID, newest first.
const SEARCHED: usize = 5000;

impl MailBackend {
    /// Looks at new mail. Whatever goes wrong, the mail is in the inbox.
    pub(super) fn look_for_reports(&self, delivered: &[Delivered]) {
        for one in delivered {
            if let Err(err) = self.look_at(&self.areas.maildir.join("new").join(&*one.name)) {
                log::debug!("{}: {err}", one.name);
            }
        }
    }

    fn look_at(&self, path: &Path) -> Result<()> {
        let read = |most: u64| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(path)?.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let head = read(HEAD).map_err(|err| failed(path, &err))?;
        let is_report = find(&head, "Content-Type").is_some_and(|field| {
            let value = field.text().to_ascii_lowercase();
            value.starts_with("multipart/report")
        });
        if !is_report {
            return Ok(());
        }
        let report = read(LARGEST).map_err(|err| failed(path, &err))?;
        // Our own reports are of what is known already.
        let Some(mut incoming) = Incoming::parse(&report) else {
            return Ok(());
        };
        let Some((id, sent)) = self.sent_message(&incoming) else {
            return Ok(());
        };
        // Who read the Message-ID somewhere could name himself, to be sent the message by the retry.
        if incoming.envelope_id.as_deref() != Some(id.as_str()) {
            let known = addressed(&sent);
            let is_known = |address: &str| {
                Address::parse(address).is_ok_and(|address| known.contains(&address.key()))
            };
            incoming
                .recipients
                .retain(|to| is_known(to.original.as_deref().unwrap_or(&to.address)));
        }
        if incoming.recipients.is_empty() {
            return Ok(());
        }
        self.note(&id, &incoming)?;
        let lost = |action| action == Action::Failed;
        if incoming.recipients.iter().any(|to| lost(to.action)) {
            self.give_back(&id, &sent, &incoming, &report)?;
        }
        Ok(())
    }

    /// The copy in `.Sent` that a report is about, and its name in the queue.
    fn sent_message(&self, report: &Incoming) -> Option<(Id, PathBuf)> {
        let mut copies: Vec<PathBuf> = Vec::new();
        for room in ["cur", "new"] {
            let dir = self.areas.root.join("Sent").join(room);
            let entries = fs::read_dir(dir).ok()?;
            copies.extend(entries.flatten().map(|entry| entry.path()));
        }
        let named = report.envelope_id.as_deref();
        if let Some(found) = copies.iter().find(|path| {
            let id = id_of(path);
            id.is_some_and(|id| Some(id.as_str()) == named)
        }) {
            return Some((id_of(found)?, found.clone()));
        }
        let wanted = report.message_id.as_deref()?;
        copies.sort_unstable_by(|a, b| b.file_name().cmp(&a.file_name()));
        let found = copies.into_iter().take(SEARCHED).find(|path| {
            let mut head = Vec::new();
            let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
            let id = fields(&head).flatten().find(|field| field.is("Message-ID"));
            read.is_ok() && id.is_some_and(|id| id.text() == wanted)
        })?;
        Some((id_of(&found)?, found))
    }

    /// Appends what a report says to what is known of the message.
    fn note(&self, id: &Id, report: &Incoming) -> Result<()> {
        let dir = self.areas.root.join("reports");
        fs::create_dir_all(&dir).map_err(|err| failed(&dir, &err))?;
        let path = dir.join(id.as_str());
        let noted = OpenOptions::new().create(true).append(true).open(&path);
        noted
            .and_then(|mut file| file.write_all(lines(report).as_bytes()))
            .map_err(|err| failed(&path, &err))
    }

    /// The message to those who will never get it, in `failed/`, as if our server had refused them.
    fn give_back(&self, id: &Id, sent: &Path, report: &Incoming, raw: &[u8]) -> Result<()> {
        let dir = self.areas.root.join("failed").join(id.as_str());
        let lost = report.recipients.iter();
        let lost = lost.filter(|to| to.action == Action::Failed);
        let to: Vec<String> = lost
            .map(|to| to.original.as_deref().unwrap_or(&to.address))
            .filter_map(|address| Address::parse(address).ok())
            .map(|address| address.to_string())
            .collect();
        if to.is_empty() {
            return Ok(());
        }
        let mut message = File::open(sent).map_err(|err| failed(sent, &err))?;
        fs::create_dir_all(&dir).map_err(|err| failed(&dir, &err))?;
        let top = send_to(&dir, to.into_iter());
        copy(&top, &mut message, &dir.join("message"))?;
        let reason = dir.join("reason");
        let text = format!("{id} was accepted, and came back:\n{}", lines(report));
        fs::write(&reason, text).map_err(|err| failed(&reason, &err))?;
        let dsn = dir.join("dsn");
        fs::write(&dsn, raw).map_err(|err| failed(&dsn, &err))
    }

    /// What is known of a copy in `.Sent`.
    pub(super) fn sent_attributes(&self, real: &Path) -> Vec<(String, Vec<u8>)> {
        let Some(id) = id_of(real) else {
            return Vec::new();
        };
        let path = self.areas.root.join("reports").join(id.as_str());
        let reports = fs::read_to_string(path).unwrap_or_default();
        let states = || reports.lines().filter_map(|line| line.split(' ').nth(1));
        let state = states()
            .find(|state| *state == "failed")
            .or_else(|| states().next_back());
        let mut known = vec![
            ("user.mail.id".to_owned(), id.as_str().into()),
            (
                "user.mail.state".to_owned(),
                state.unwrap_or("accepted").into(),
            ),
        ];
        if !reports.is_empty() {
            known.push(("user.mail.reports".to_owned(), reports.into_bytes()));
        }
        known
    }
}

/// Who is addressed in the header of the copy at `sent`.
fn addressed(sent: &Path) -> HashSet<String> {
    let mut head = Vec::new();
    // What cannot be read names nobody.
    let _ = File::open(sent).and_then(|file| file.take(HEADER_MAX as u64).read_to_end(&mut head));
    let names = ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];
    let lists = fields(&head)
        .flatten()
        .filter(|field| names.iter().any(|name| field.is(name)))
        .filter_map(|field| parse_list(&field.text()).ok());
    let members = lists.flatten().flat_map(|item| match item {
        Item::Group(_, members) => members,
        item => vec![item],
    });
    members
        .filter_map(|item| match item {
            Item::Mailbox(mailbox) => Some(mailbox.address.key()),
            Item::Name(_) | Item::Group(..) => None,
        })
        .collect()
}

/// One line for each recipient: when, what, who, why, who says so.
fn lines(report: &Incoming) -> String {
    let now = ZonedDateTime::now().strftime("%Y-%m-%dT%H:%M:%S%z");
    let by = report.reporter.as_deref().unwrap_or("somebody");
    let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = report.recipients.iter().map(|to| {
        let action = format!("{:?}", to.action).to_lowercase();
        let text = format!(
            "{now} {action} {} {} {} (by {by})",
            to.address, to.status, to.diagnostic
        );
        line(text) + "\n"
    });
    all.collect()
}

/// The name in the queue that a copy in `.Sent` had: `TIME.LID.HOST`.
fn id_of(path: &Path) -> Option<Id> {
    let name = path.file_name()?.to_str()?;
    let id = name.split('.').nth(1)?.strip_prefix('L')?;
    Id::parse(id)
}
