//! The header that somebody wrote: checked field by field, as soon as each is complete.

use std::time::SystemTime;

use jiff::ZonedDateTime;

use super::Place;
use crate::mail::address::{Item, Mailbox, parse_list};
use crate::mail::aliases::Aliases;
use crate::mail::dates;
use crate::mail::envelope::BringBack;
use crate::mail::fields::Field;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Fields that a header has once at most (RFC 5322 section 3.6); large providers refuse mail with
/// two. `To` and `Cc` are not here: programs write several, and their sum is what they mean.
const ONCE: [&str; 10] = [
    "from",
    "sender",
    "reply-to",
    "date",
    "subject",
    "message-id",
    "in-reply-to",
    "references",
    "content-type",
    "content-transfer-encoding",
];

/// Fields that show that what begins a text is a header and not `Note: buy milk`.
const KNOWN: [&str; 23] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "date",
    "subject",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "received",
    "return-path",
    "delivered-to",
    "x-send-at",
    "x-send-to",
    "x-separate",
    "x-dsn",
    "x-account",
    "x-mailer",
];

/// What the user wants of us; these fields are not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `X-Send-At`, or the directory `at/TIME`.
    pub send_at: Option<SystemTime>,
    /// `X-Separate: yes`: an envelope for each recipient.
    pub separate: bool,
    /// `X-DSN`, as the NOTIFY parameter of RFC 3461 wants it: `SUCCESS,FAILURE`.
    pub notify: Option<String>,
    /// `X-DSN`: what the report brings back.
    pub bring_back: Option<BringBack>,
    /// `X-Send-To`: those who get it, whoever is in the other fields.
    pub only_to: Vec<Item>,
    /// `X-Account`.
    pub account: Option<String>,
}

/// What the fields so far say.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// `From`.
    pub from: Vec<Mailbox>,
    /// `Sender`.
    pub sender: Option<Mailbox>,
    /// Recipients of `To`, `Cc` and `Bcc`, as they were written.
    pub recipients: Vec<Item>,
    /// Whether there is a `To` with somebody in it.
    pub addressed: bool,
    /// Recipients of the first block of `Resent-` fields.
    pub resent_recipients: Vec<Item>,
    /// Who resends.
    pub resent_from: Option<Mailbox>,
    /// Whether there are `Resent-` fields.
    pub resent: bool,
    /// The control fields.
    pub wishes: Wishes,
    seen: Vec<String>,
    resent_seen: Vec<String>,
    later_block: bool,
}

/// Whether a field of this name begins headers, not prose.
pub(super) fn is_known(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    KNOWN.contains(&name.as_str()) || name.starts_with("resent-") || name.starts_with("list-")
}

fn bad(field: &Field<'_>, why: &str) -> Error {
    Error::new(ErrorKind::BadMessage, format!("{}: {why}", field.name))
}

impl Header {
    /// No fields.
    pub(super) const EMPTY: Self = Self {
        from: Vec::new(),
        sender: None,
        recipients: Vec::new(),
        addressed: false,
        resent_recipients: Vec::new(),
        resent_from: None,
        resent: false,
        wishes: Wishes {
            send_at: None,
            separate: false,
            notify: None,
            bring_back: None,
            only_to: Vec::new(),
            account: None,
        },
        seen: Vec::new(),
        resent_seen: Vec::new(),
        later_block: false,
    };

    /// Whether a field (in lower case) was there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.seen.iter().any(|seen| seen == name)
    }

    /// Takes the next field.
    ///
    /// # Errors
    /// [`ErrorKind::BadMessage`]: malformed addresses, an unknown alias, a field that may not be
    /// there twice, a control field that makes no sense, octets that no header has.
    pub fn field(
        &mut self,
        field: &Field<'_>,
        aliases: &Aliases,
        now: &ZonedDateTime,
    ) -> Result<()> {
        let value = field.unfolded();
        if field.raw.contains(&0) || lone_cr(field.raw) {
            return Err(bad(field, "NUL or a lone CR in it"));
        }
        let name = field.name.to_ascii_lowercase();
        // In this order: there may be 80,000 of them.
        if ONCE.contains(&name.as_str()) && self.has(&name) {
            return Err(bad(field, "there twice"));
        }
        let list = || parse_list(&field.text()).map_err(|err| err.context(field.name));
        let recipients = || {
            let items = list()?;
            aliases
                .resolve(&items)
                .map_err(|err| err.context(field.name))?;
            Ok::<_, Error>(items)
        };
        match name.as_str() {
            "to" | "cc" => {
                let items = recipients()?;
                self.addressed |= name == "to" && !items.is_empty();
                self.recipients.extend(items);
            }
            "bcc" => self.recipients.extend(recipients()?),
            "from" => self.from = mailboxes(field, &list()?)?,
            "sender" => self.sender = mailboxes(field, &list()?)?.pop(),
            "reply-to" => drop(list()?),
            "x-send-at" => {
                let time =
                    dates::parse(&field.text(), now).map_err(|err| err.context(field.name))?;
                self.wishes.send_at = Some(time);
            }
            "x-separate" => {
                self.wishes.separate = match value.to_ascii_lowercase().as_slice() {
                    b"yes" | b"true" | b"1" => true,
                    b"no" | b"false" | b"0" => false,
                    _ => return Err(bad(field, "yes or no")),
                };
            }
            "x-send-to" => self.wishes.only_to.extend(recipients()?),
            "x-dsn" => (self.wishes.notify, self.wishes.bring_back) = report(field)?,
            "x-account" => self.wishes.account = Some(field.text()).filter(|name| !name.is_empty()),
            _ if name.starts_with("resent-") => self.resent(&name, field, recipients)?,
            _ => {}
        }
        self.seen.push(name);
        Ok(())
    }

    /// RFC 5322 section 3.6.6: who resends puts a block of fields on top; older blocks follow.
    fn resent(
        &mut self,
        name: &str,
        field: &Field<'_>,
        recipients: impl FnOnce() -> Result<Vec<Item>>,
    ) -> Result<()> {
        self.resent = true;
        self.later_block |= self.resent_seen.iter().any(|seen| seen == name);
        self.resent_seen.push(name.to_owned());
        if self.later_block {
            return Ok(());
        }
        match name {
            "resent-to" | "resent-cc" | "resent-bcc" => {
                self.resent_recipients.extend(recipients()?)
            }
            "resent-from" => {
                let list = parse_list(&field.text()).map_err(|err| err.context(field.name))?;
                self.resent_from = mailboxes(field, &list)?.pop();
            }
            _ => {}
        }
        Ok(())
    }

    /// Who gets the message: those of the place and those of the header. A header with a `To` of its
    /// own in a directory with recipients goes to the directory's only, as `sendmail bob < message`
    /// does: else moving an old message there would send it again to all who had it.
    ///
    /// # Errors
    /// [`ErrorKind::NoRecipient`] if nobody does, and as [`Aliases::expand`].
    pub fn envelope(&self, place: &Place, aliases: &Aliases) -> Result<Vec<Mailbox>> {
        let mut items = place.to.clone();
        if items.is_empty() && !self.wishes.only_to.is_empty() {
            items.clone_from(&self.wishes.only_to);
        } else if self.resent && items.is_empty() {
            items.extend(self.resent_recipients.iter().cloned());
        } else if items.is_empty() || !self.resent && !self.addressed {
            items.extend(self.recipients.iter().cloned());
        }
        let mailboxes = aliases.resolve(&items)?;
        if mailboxes.is_empty() {
            return Err(Error::new(
                ErrorKind::NoRecipient,
                "no recipient: no To, Cc or Bcc",
            ));
        }
        Ok(mailboxes)
    }
}

fn mailboxes(field: &Field<'_>, items: &[Item]) -> Result<Vec<Mailbox>> {
    items
        .iter()
        .map(|item| match item {
            Item::Mailbox(mailbox) => Ok(mailbox.clone()),
            _ => Err(bad(field, "only addresses may stand here")),
        })
        .collect()
}

fn lone_cr(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', raw).any(|at| raw.get(at + 1) != Some(&b'\n'))
}

/// `X-DSN: success, failure, headers`: NOTIFY and RET of RFC 3461.
fn report(field: &Field<'_>) -> Result<(Option<String>, Option<BringBack>)> {
    let wrong = || {
        bad(
            field,
            "never, or success, failure, delay; and full or headers",
        )
    };
    let (mut wanted, mut bring_back) = (Vec::new(), None);
    for word in field.text().split(',') {
        let word = word.trim().to_ascii_uppercase();
        match word.as_str() {
            "" => {}
            "FULL" => bring_back = Some(BringBack::Full),
            "HEADERS" | "HDRS" => bring_back = Some(BringBack::Headers),
            "NEVER" | "SUCCESS" | "FAILURE" | "DELAY" if !wanted.contains(&word) => {
                wanted.push(word)
            }
            "NEVER" | "SUCCESS" | "FAILURE" | "DELAY" => {}
            _ => return Err(wrong()),
        }
    }
    // RFC 3461 section 4.1: NEVER stands alone.
    let never = wanted.iter().any(|w| w == "NEVER");
    if wanted.is_empty() && bring_back.is_none() || wanted.len() > 1 && never {
        return Err(wrong());
    }
    let notify = (!wanted.is_empty()).then(|| wanted.join(","));
    Ok((notify, bring_back))
}
