//! From a good draft to the message that is sent and the envelope it is sent in.
//!
//! The message has CRLF line ends and is not dot-stuffed. There may be 8-bit octets in it
//! ([`Composed::eight_bit`]; [`to_seven_bit`] is for servers that cannot take them), but no line
//! over 998 octets, no NUL, no lone CR or LF. Contents are read twice and never held whole.

use std::io::{self, Read, Write};

use crate::vfs::error::{Error, ErrorKind, Result};

use super::address::{Address, Mailbox};
use super::content::{Content, Joined, range};
use super::draft::{self, Kind, Place, Plan, Rules, Wishes};
use super::fields::HEADER_MAX;
use super::{media, scan::Scan};

mod entity;
mod fields;
mod leaf;
mod reencode;
mod stamp;
mod whole;

pub use reencode::to_seven_bit;
pub use stamp::Stamp;

use entity::Entity;
use fields::Header;
use leaf::Leaf;
use reencode::Rewriting;
use whole::{Contents, Normalised, Source};

/// Boundaries tried before a content is held to contain them all, which is an attack.
const BOUNDARIES: u32 = 8;

/// Who sends.
#[derive(Debug, Clone)]
pub struct Account {
    /// `From`, where the message does not say.
    pub from: Mailbox,
}

/// What goes with a message that was written.
#[derive(Debug, Clone)]
pub struct Composed {
    /// Sender of the envelope.
    pub from: Address,
    /// Recipients of the envelope, each once.
    pub to: Vec<Address>,
    /// `Message-ID`, with its brackets.
    pub message_id: String,
    /// `Subject`, decoded: for listings.
    pub subject: String,
    /// What the user wants.
    pub wishes: Wishes,
    /// The `Bcc` fields that were taken out, with CRLF: they belong into the sender's own copy.
    pub bcc: Vec<u8>,
    /// Size of the message in octets.
    pub size: u64,
    /// Whether there are 8-bit octets in its body: BODY=8BITMIME.
    pub eight_bit: bool,
    /// Whether it goes only over SMTPUTF8.
    pub smtputf8: bool,
}

/// A file of a directory that is a message.
pub struct Enclosure<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its bytes.
    pub content: &'a dyn Content,
}

impl std::fmt::Debug for Enclosure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Enclosure({})",
            String::from_utf8_lossy(self.name).escape_debug()
        )
    }
}

fn failed(err: &io::Error) -> Error {
    Error::local("outbox", err)
}

/// Composes the message of one file, which [`draft::examine`] found good.
///
/// # Errors
/// [`ErrorKind::BadMessage`] where a part cannot be made fit for SMTP,
/// [`ErrorKind::MessageTooLong`], and those of reading and writing.
pub fn compose(
    plan: &Plan,
    content: &dyn Content,
    account: &Account,
    stamp: &Stamp,
    rules: &Rules<'_>,
    out: &mut dyn Write,
) -> Result<Composed> {
    let source = Source {
        written: &plan.header,
        place: &plan.place,
        account,
        stamp,
        aliases: rules.aliases,
    };
    let to = addresses(&plan.recipients);
    let name = plan.place.name.as_slice();
    let entity = |text: bool, promised: Option<&str>, boundary: &str| {
        let leaf = Leaf::new(content, promised, name, text, boundary)?;
        Ok(leaf.map(|leaf| match leaf.is_file() {
            true => Entity::Multi("mixed", vec![Entity::Leaf(leaf)]),
            false => Entity::Leaf(leaf),
        }))
    };
    match plan.kind {
        Kind::Message => whole_message(&source, plan, to, content, rules, out),
        Kind::Body => {
            let promised = media::by_name(name);
            new_message(
                &source,
                &[],
                to,
                &|boundary| entity(true, promised, boundary),
                rules,
                out,
            )
        }
        Kind::Attachment(media) => new_message(
            &source,
            &[],
            to,
            &|boundary| entity(false, Some(media), boundary),
            rules,
            out,
        ),
    }
}

/// Composes the message of a directory: `text.txt` and `text.html` (or `text` and `html`) are its
/// text, together as alternatives; everything else is attached, in the order given. Fields in a
/// file `headers` (`Subject:`, `Cc:` and so on) count as those of a message do.
///
/// # Errors
/// As [`compose`] and [`draft::examine`].
pub fn compose_directory(
    place: &Place,
    enclosures: &[Enclosure<'_>],
    account: &Account,
    stamp: &Stamp,
    rules: &Rules<'_>,
    out: &mut dyn Write,
) -> Result<Composed> {
    if enclosures.is_empty() {
        return Err(Error::new(
            ErrorKind::BadMessage,
            "an empty directory is no message",
        ));
    }
    let (headers, files): (Vec<_>, Vec<_>) = enclosures.iter().partition(|e| e.name == b"headers");
    let mut raw = Vec::new();
    if let Some(headers) = headers.first() {
        let stream =
            range(headers.content, 0, HEADER_MAX as u64 + 1).map_err(|err| failed(&err))?;
        { stream }
            .read_to_end(&mut raw)
            .map_err(|err| failed(&err))?;
    }
    let mut written = draft::read_header(&raw, rules)?;
    let to = addresses(&written.envelope(place, rules.aliases)?);
    written.wishes.send_at = place.at.or(written.wishes.send_at);
    let source = Source {
        written: &written,
        place,
        account,
        stamp,
        aliases: rules.aliases,
    };
    let domain = account.from.address.domain();
    new_message(
        &source,
        &raw,
        to,
        &|boundary| enclosed(&files, stamp, domain, boundary),
        rules,
        out,
    )
}

fn enclosed<'a>(
    files: &[&Enclosure<'a>],
    stamp: &Stamp,
    domain: &str,
    boundary: &str,
) -> io::Result<Option<Entity<'a>>> {
    let (mut plain, mut html, mut attached) = (None, None, Vec::new());
    for (number, file) in (100..).zip(files) {
        let (text, promised) = match file.name {
            b"text.txt" | b"text" => (&mut plain, Some("text/plain")),
            b"text.html" | b"html" => (&mut html, Some("text/html")),
            name => (&mut None, media::by_name(name)),
        };
        let wanted = promised
            .is_some_and(|_| matches!(file.name, b"text.txt" | b"text" | b"text.html" | b"html"));
        let Some(leaf) = Leaf::new(
            file.content,
            promised,
            file.name,
            wanted && text.is_none(),
            boundary,
        )?
        else {
            return Ok(None);
        };
        if leaf.is_file() {
            let id = stamp.message_id(number, domain);
            attached.push(Entity::Leaf(leaf.identified(id)));
        } else {
            *text = Some(Entity::Leaf(leaf));
        }
    }
    let text = match (plain, html) {
        (Some(plain), Some(html)) => Some(Entity::Multi("alternative", vec![plain, html])),
        (plain, html) => plain.or(html),
    };
    Ok(Some(match text {
        Some(text) if attached.is_empty() => text,
        text => Entity::Multi("mixed", text.into_iter().chain(attached).collect()),
    }))
}

/// A message made of contents.
fn new_message<'a>(
    source: &Source<'_>,
    raw: &[u8],
    to: Vec<Address>,
    entity: &dyn Fn(&str) -> io::Result<Option<Entity<'a>>>,
    rules: &Rules<'_>,
    out: &mut dyn Write,
) -> Result<Composed> {
    let mut fields = Vec::new();
    let named = !source.place.name.is_empty();
    if named && !source.written.has("subject") {
        let mut subject = Header::default();
        subject.text("Subject", &source.place.subject());
        fields = subject.0;
    }
    fields.extend_from_slice(raw);
    for number in 0..BOUNDARIES {
        let boundary = source.stamp.boundary(number);
        let Some(entity) = entity(&boundary).map_err(|err| failed(&err))? else {
            continue;
        };
        let content = |header: &mut Header| entity.header(&boundary, 0, header);
        let done = whole::header(&fields, source, Contents::Made(&content))?;
        let mut out = Counting { out, written: 0 };
        out.write_all(&done.header.0)
            .and_then(|()| out.write_all(b"\r\n"))
            .and_then(|()| entity.write(&boundary, 0, &mut out))
            .map_err(|err| failed(&err))?;
        return composed(source, done, to, out.written, entity.eight_bit(), rules);
    }
    Err(Error::new(
        ErrorKind::BadMessage,
        "every boundary occurs in a part",
    ))
}

/// A message that was written with its header.
fn whole_message(
    source: &Source<'_>,
    plan: &Plan,
    to: Vec<Address>,
    content: &dyn Content,
    rules: &Rules<'_>,
    out: &mut dyn Write,
) -> Result<Composed> {
    let (start, end) = plan.header_at;
    let mut raw = Vec::new();
    range(content, start as u64, (end - start) as u64)
        .and_then(|mut header| header.read_to_end(&mut raw))
        .map_err(|err| failed(&err))?;
    let scan = || Scan::of(&mut range(content, plan.body_at, u64::MAX)?, None);
    let done = whole::header(&raw, source, Contents::Written(&scan))?;
    let mut head = done.header.0.clone();
    head.extend_from_slice(b"\r\n");
    let message = Joined {
        head,
        tail: content,
        from: plan.body_at,
    };
    let rewriting = Rewriting::new(&message, true)?;
    let size = rewriting.write(&message, out).map_err(|err| failed(&err))?;
    composed(source, done, to, size, rewriting.eight_bit, rules)
}

fn composed(
    source: &Source<'_>,
    done: Normalised,
    to: Vec<Address>,
    size: u64,
    eight_bit: bool,
    rules: &Rules<'_>,
) -> Result<Composed> {
    if let Some(most) = rules.max_size.filter(|most| size > *most) {
        let detail = format!("{size} bytes when encoded; the server takes at most {most}");
        return Err(Error::new(ErrorKind::MessageTooLong, detail));
    }
    let from = source.envelope_from();
    let smtputf8 = !done.header.0.is_ascii()
        || from.needs_smtputf8()
        || to.iter().any(Address::needs_smtputf8);
    Ok(Composed {
        from,
        to,
        message_id: done.message_id,
        subject: done.subject,
        wishes: source.written.wishes.clone(),
        bcc: done.bcc,
        size,
        eight_bit,
        smtputf8,
    })
}

fn addresses(mailboxes: &[Mailbox]) -> Vec<Address> {
    mailboxes
        .iter()
        .map(|mailbox| mailbox.address.clone())
        .collect()
}

struct Counting<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
