//! A message that somebody wrote with its header: completed, cleaned, and otherwise left alone.

use std::io;

use super::fields::Header;
use super::{Account, Stamp, failed};
use crate::mail::address::{Address, Item, parse_list};
use crate::mail::aliases::Aliases;
use crate::mail::draft::{self, Place};
use crate::mail::encode::Crlf;
use crate::mail::fields::{Field, fields};
use crate::mail::filter::Filter;
use crate::mail::parameters::{Valued, written};
use crate::mail::scan::{LINE_MAX, Scan};
use crate::mail::words;
use crate::vfs::error::Result;

/// Fields that are ours to read and nobody else's.
const PRIVATE: [&str; 8] = [
    "bcc",
    "resent-bcc",
    "return-path",
    "x-send-at",
    "x-send-to",
    "x-separate",
    "x-dsn",
    "x-account",
];

const ADDRESSES: [&str; 10] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "resent-from",
    "resent-sender",
    "resent-to",
    "resent-cc",
    "resent-reply-to",
];

/// Where a header comes from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// What its fields say.
    pub(super) written: &'a draft::Header,
    pub(super) place: &'a Place,
    pub(super) account: &'a Account,
    pub(super) stamp: &'a Stamp,
    pub(super) aliases: &'a Aliases,
}

impl Source<'_> {
    /// The sender of the envelope: who resends, sends, or wrote the message.
    pub(super) fn envelope_from(&self) -> Address {
        let written = self.written;
        let resent = written
            .resent
            .then_some(written.resent_from.as_ref())
            .flatten();
        let author = written
            .sender
            .as_ref()
            .or(written.from.first())
            .filter(|_| !written.resent);
        resent
            .or(author)
            .unwrap_or(&self.account.from)
            .address
            .clone()
    }

    /// What an alias is in a header: those it stands for; or, where each gets a copy of his own and
    /// is not told who else does, a group without members.
    fn name(&self, name: &str) -> Vec<String> {
        match self.aliases.expand(name) {
            Ok(mailboxes) if !self.written.wishes.separate => {
                mailboxes.iter().map(ToString::to_string).collect()
            }
            _ => vec![format!("{}:;", words::phrase(name))],
        }
    }
}

/// The header to send, and what was taken out of it for the sender's own copy.
pub(super) struct Normalised {
    pub(super) header: Header,
    pub(super) bcc: Vec<u8>,
    pub(super) message_id: String,
    /// Decoded.
    pub(super) subject: String,
}

/// Where the `Content-` fields come from.
#[derive(Clone, Copy)]
pub(super) enum Contents<'a> {
    /// From the header, completed by what is found in the body.
    Written(&'a dyn Fn() -> io::Result<Scan>),
    /// From this, whatever the header says.
    Made(&'a dyn Fn(&mut Header)),
}

/// Normalises the fields `raw`.
pub(super) fn header(
    raw: &[u8],
    source: &Source<'_>,
    contents: Contents<'_>,
) -> Result<Normalised> {
    let mut done = Normalised {
        header: Header::default(),
        bcc: Vec::new(),
        message_id: String::new(),
        subject: String::new(),
    };
    let replaced = matches!(contents, Contents::Made(_));
    for field in fields(raw).flatten() {
        let name = field.name.to_ascii_lowercase();
        match name.as_str() {
            "bcc" | "resent-bcc" => done.bcc.extend(crlf(&field)),
            name if PRIVATE.contains(&name) => {}
            "mime-version" if replaced => {}
            name if replaced && name.starts_with("content-") => {}
            // RFC 5322 has no empty list; a template that was not filled in does.
            name if ADDRESSES.contains(&name) && field.unfolded().is_empty() => {}
            name if ADDRESSES.contains(&name) => addresses(&mut done.header, &field, source)?,
            "content-type" | "content-disposition" => valued(&mut done.header, &field, contents)?,
            name => {
                match name {
                    "message-id" => done.message_id = field.text(),
                    "subject" => done.subject = words::decode(&field.unfolded()),
                    _ => {}
                }
                if field.raw.is_ascii() && longest_line(field.raw) <= LINE_MAX {
                    done.header.0.extend(crlf(&field));
                } else {
                    done.header
                        .text(field.name, &words::decode(&field.unfolded()));
                }
            }
        }
    }
    complete(&mut done, source, contents)?;
    Ok(done)
}

/// A field with parameters: in ASCII, and text with its charset.
fn valued(header: &mut Header, field: &Field<'_>, contents: Contents<'_>) -> Result<()> {
    let parsed = Valued::parse(&field.unfolded());
    if field.raw.is_ascii() {
        header.0.extend(crlf(field));
    } else {
        let parameters = parsed.parameters.iter();
        let parameters = parameters.map(|(name, value)| written(name, value.as_bytes()));
        header.ready(
            field.name,
            &(parsed.value.clone() + &parameters.collect::<String>()),
        );
    }
    // Shell scripts write `Content-Type: text/html` and UTF-8 behind it.
    let unlabelled = parsed.value.starts_with("text/") && parsed.get("charset").is_none();
    if let Contents::Written(body) = contents
        && unlabelled
    {
        let scan = body().map_err(|err| failed(&err))?;
        if scan.high > 0 {
            header.parameter("charset", scan.charset());
        }
    }
    Ok(())
}

fn complete(done: &mut Normalised, source: &Source<'_>, contents: Contents<'_>) -> Result<()> {
    let Source {
        written,
        place,
        account,
        stamp,
        ..
    } = *source;
    let header = &mut done.header;
    let own = std::slice::from_ref(&account.from);
    if !written.has("date") {
        header.ready("Date", &stamp.date());
    }
    if written.from.is_empty() {
        header.mailboxes("From", own);
    }
    let visible = fields(&header.0)
        .flatten()
        .any(|field| field.is("To") || field.is("Cc"));
    if !written.addressed && !place.to.is_empty() {
        header.items("To", &place.to, &|name| source.name(name));
    } else if !visible {
        header.ready("To", "undisclosed-recipients:;");
    }
    if done.message_id.is_empty() {
        let author = written.from.first().unwrap_or(&account.from);
        done.message_id = stamp.message_id(0, author.address.domain());
        header.ready("Message-ID", &done.message_id);
    }
    if written.resent {
        // The block of who resends stands on top (RFC 5322 section 3.6.6).
        let by = written.resent_from.as_ref().unwrap_or(&account.from);
        let mut block = Header::default();
        if !written.has("resent-date") {
            block.ready("Resent-Date", &stamp.date());
        }
        if !written.has("resent-from") {
            block.mailboxes("Resent-From", own);
        }
        if !written.has("resent-message-id") {
            block.ready(
                "Resent-Message-ID",
                &stamp.message_id(1, by.address.domain()),
            );
        }
        block.0.append(&mut header.0);
        *header = block;
    }
    match contents {
        Contents::Made(content) => {
            header.ready("MIME-Version", "1.0");
            content(header);
        }
        Contents::Written(body) => {
            if !written.has("mime-version") {
                header.ready("MIME-Version", "1.0");
            }
            if !written.has("content-type") && !written.has("content-transfer-encoding") {
                let scan = body().map_err(|err| failed(&err))?;
                let encoding = if scan.high > 0 { "8bit" } else { "7bit" };
                header.ready(
                    "Content-Type",
                    &format!("text/plain; charset={}", scan.charset()),
                );
                header.ready("Content-Transfer-Encoding", encoding);
            }
        }
    }
    Ok(())
}

/// A field of addresses: left alone if it is ASCII and all of it addresses.
fn addresses(header: &mut Header, field: &Field<'_>, source: &Source<'_>) -> Result<()> {
    let items = parse_list(&field.text())?;
    let has_name = items.iter().any(|item| match item {
        Item::Name(_) => true,
        Item::Group(_, members) => members.iter().any(|m| matches!(m, Item::Name(_))),
        Item::Mailbox(_) => false,
    });
    if has_name || !field.raw.is_ascii() || longest_line(field.raw) > LINE_MAX {
        header.items(field.name, &items, &|name| source.name(name));
    } else {
        header.0.extend(crlf(field));
    }
    Ok(())
}

fn longest_line(raw: &[u8]) -> u64 {
    raw.split(|b| *b == b'\n')
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0) as u64
}

fn crlf(field: &Field<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    Crlf::default().feed(field.raw, &mut lines);
    if !lines.ends_with(b"\n") {
        lines.extend_from_slice(b"\r\n");
    }
    lines
}
