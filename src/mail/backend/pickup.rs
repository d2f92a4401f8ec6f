//! Messages that programs hand in beside `outbox/`, with an envelope of their own.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::ZonedDateTime;

use super::composing::{Scratch, envelopes};
use super::local::failed;
use super::outbox::{Outbox, Times};
use crate::mail::aliases::Aliases;
use crate::mail::ask::Pickup;
use crate::mail::compose::{self, Account, Stamp};
use crate::mail::content::{Content, Joined, range};
use crate::mail::draft::{self, Kind, Place, Rules};
use crate::mail::envelope;
use crate::mail::fields::HEADER_MAX;
use crate::mail::options::MailOptions;
use crate::mail::pickup::{Locals, header_at, sender};
use crate::mail::queue::{Id, Queue, QueueOptions};
use crate::mail::store;
use crate::vfs::error::{Error, ErrorKind, Result};

impl Outbox {
    /// Makes a message of what was handed in and queues it, durably.
    ///
    /// # Errors
    /// `NoRecipient`, `BadMessage`, `NotFound` for a name nobody has, `MessageTooLong`, the disk's.
    pub(super) fn pick_up(&self, handed: &Pickup) -> Result<Vec<Id>> {
        self.may_send()?;
        let Some(own) = self.from.clone() else {
            return Err(ErrorKind::NotPermitted.into());
        };
        let aliases = self.aliases();
        // Users of a directory service are not asked for: most machines of one person have none.
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let locals = Locals::new(&aliases, &own.address, &passwd);
        let path = &handed.message;
        let mut head = Vec::new();
        range(path, 0, HEADER_MAX as u64 + 1)
            .and_then(|mut head_of| head_of.read_to_end(&mut head))
            .map_err(|err| failed(path, &err))?;
        let found = header_at(&head);
        if found.is_none() && handed.header_too {
            let line = "no header to take the recipients from: it begins with none";
            return Err(Error::new(ErrorKind::BadMessage, line));
        }
        let (start, end) = found.unwrap_or((0, 0));
        let header = head.get(start..end).unwrap_or_default();
        let message = Joined {
            head: locals.header(header, handed.header_too)?,
            tail: path,
            from: end as u64,
        };

        let typed = locals.recipients(&handed.to)?;
        let mut place = Place {
            to: typed.clone(),
            ..Place::default()
        };
        if found.is_some() {
            // Whatever fields it has: it is no text.
            place.name = b"message.eml".to_vec();
        }
        if handed.header_too {
            place.to.clear();
        }
        let mut account = Account { from: own.clone() };
        let from = handed.sender.as_deref().map(|from| sender(from, &locals));
        let from = from.transpose()?;
        if let Some(Some(address)) = &from {
            account.from.address = address.clone();
        }
        if handed.name.is_some() {
            account.from.name.clone_from(&handed.name);
        }
        let now = ZonedDateTime::now();
        let rules = Rules {
            aliases: &aliases,
            max_size: self.largest(),
            now: &now,
        };
        let mut plan = match draft::examine(&place, &message, &rules) {
            // With others named on the command line the header need have none.
            Err(err) if err.kind() == ErrorKind::NoRecipient && !typed.is_empty() => {
                place.to.clone_from(&typed);
                draft::examine(&place, &message, &rules)?
            }
            plan => plan?,
        };
        let mut recipients = aliases.resolve(&typed)?;
        if handed.header_too {
            let mut known: HashSet<_> = recipients.iter().map(|to| to.address.key()).collect();
            let more = plan.recipients.drain(..);
            let more: Vec<_> = more.filter(|to| known.insert(to.address.key())).collect();
            recipients.extend(more);
        }
        plan.recipients = recipients;
        // Who is on the command line may be in a Bcc: nobody is shown that the header does not show.
        if plan.kind == Kind::Message || plan.recipients.len() > 1 {
            plan.place.to.clear();
        }
        self.queue_pickup(handed, &plan, &message, &account, from, &rules)
    }

    fn queue_pickup(
        &self,
        handed: &Pickup,
        plan: &draft::Plan,
        message: &dyn Content,
        account: &Account,
        from: Option<Option<crate::mail::address::Address>>,
        rules: &Rules<'_>,
    ) -> Result<Vec<Id>> {
        let stamp = Stamp::new().map_err(|err| Error::local("randomness", &err))?;
        let mut scratch = Scratch::new(&self.spool(), plan.size)?;
        let mut out = io::BufWriter::new(&mut scratch);
        let composed = compose::compose(plan, message, account, &stamp, rules, &mut out)?;
        out.flush().map_err(|err| Error::local("spool", &err))?;
        drop(out);
        let mut staged = Vec::new();
        for mut envelope in envelopes(&composed)? {
            envelope.bring_back = handed.bring_back.or(envelope.bring_back);
            envelope.envelope_id.clone_from(&handed.envelope_id);
            match &from {
                None => {}
                Some(None) => envelope.sender = None,
                Some(Some(address)) => {
                    let parsed = envelope::address(address.as_str());
                    envelope.sender = Some(parsed.map_err(|err| {
                        Error::new(ErrorKind::BadMessage, format!("{address}: {err}"))
                    })?);
                }
            }
            for recipient in &mut envelope.recipients {
                recipient.notify = handed.notify.or(recipient.notify);
            }
            let rewound = scratch.rewind();
            rewound.map_err(|err| Error::local("spool", &err))?;
            staged.push(self.queue.stage(envelope, &mut scratch)?);
        }
        self.queue.commit(staged, Duration::ZERO)
    }

    /// Who is behind names and addresses, as a message to them would reach.
    pub(super) fn behind(&self, names: &[String]) -> Result<Vec<String>> {
        let Some(own) = &self.from else {
            return Err(ErrorKind::NotPermitted.into());
        };
        let aliases: Aliases = self.aliases();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let items = Locals::new(&aliases, &own.address, &passwd).recipients(names)?;
        let mailboxes = aliases.resolve(&items)?;
        Ok(mailboxes.iter().map(|to| to.address.to_string()).collect())
    }
}

/// Queues a message for an account that is not mounted; its next mount sends it.
///
/// # Errors
/// `Busy` where another process has the queue, and as for a mounted one.
pub fn hand_in(state_dir: &Path, options: &MailOptions, handed: &Pickup) -> Result<Vec<Id>> {
    let root = store::directory(state_dir, &options.fetch.account());
    store::make(&root).map_err(|err| failed(&root, &err))?;
    let (queue, recovered) = Queue::open(&root.join("queue"), QueueOptions::default())?;
    let from = options.submission.as_ref().and(options.from.clone());
    let times = Times {
        linger: Duration::ZERO,
        patience: Duration::ZERO,
    };
    let outbox = Outbox::open(&root, Arc::new(queue), &recovered, from, times)?;
    outbox.pick_up(handed)
}
