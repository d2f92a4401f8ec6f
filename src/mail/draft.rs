//! A file in `outbox/`, judged while it is written.
//!
//! Shell redirections see the error of `write` only, `cp` that of `close` too, and nobody sees what
//! happens later. So a [`Draft`] is shown every write and refuses the first one that cannot be part
//! of a good message. What it does not refuse is judged whole by [`examine`] when the file commits.

use std::io::{Read, Seek, SeekFrom};

use jiff::ZonedDateTime;

use crate::vfs::error::{Error, ErrorKind, Result};

use super::address::Mailbox;
use super::aliases::Aliases;
use super::content::Content;
use super::fields::{self, HEADER_MAX, fields, line_len, without_end};
use super::media;

mod header;
mod place;

pub use header::{Header, Wishes};
pub use place::{Place, is_unfinished};

/// Longest name of a field: the longest line of RFC 5322.
const NAME_MAX: usize = 998;

/// What a draft is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Names that may stand for addresses.
    pub aliases: &'a Aliases,
    /// The largest message the server takes (SIZE of RFC 1870), in bytes; `None` if it does not say.
    pub max_size: Option<u64>,
    /// Now, in the user's zone.
    pub now: &'a ZonedDateTime,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Header and body, as RFC 5322 has them.
    Message,
    /// A text without header.
    Body,
    /// Something to attach, of the type its name promises.
    Attachment(&'static str),
}

/// A good draft: what [`super::compose`] needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
    /// Its header; of a body, an empty one.
    pub header: Header,
    /// Who gets it.
    pub recipients: Vec<Mailbox>,
    /// Where the header begins, behind a byte order mark and an mbox line, and ends, in bytes.
    pub header_at: (usize, usize),
    /// Where the body begins.
    pub body_at: u64,
    /// Size of the file.
    pub size: u64,
}

/// Judges a whole file. This is the verdict that counts: at `rename`, `link` and the last `close`.
///
/// # Errors
/// [`ErrorKind::NoRecipient`], [`ErrorKind::BadMessage`], [`ErrorKind::MessageTooLong`], each with a
/// line that names the fault; those of reading the file.
pub fn examine(place: &Place, content: &dyn Content, rules: &Rules<'_>) -> Result<Plan> {
    let failed = |err: std::io::Error| Error::local("outbox", &err);
    let mut stream = content.open().map_err(failed)?;
    let size = stream.seek(SeekFrom::End(0)).map_err(failed)?;
    stream.seek(SeekFrom::Start(0)).map_err(failed)?;
    if size == 0 {
        return Err(Error::new(
            ErrorKind::BadMessage,
            "an empty file is no message",
        ));
    }
    let mut judge = Judge::new(place.clone());
    stream
        .take(HEADER_MAX as u64 + 1)
        .read_to_end(&mut judge.head)
        .map_err(failed)?;
    within(size, rules)?;
    let whole = judge.head.len() as u64 == size;
    judge.proceed(rules, whole)?;
    let kind = judge.kind.unwrap_or(Kind::Body);
    let recipients = judge.header.envelope(place, rules.aliases)?;
    let start = judge.start;
    let (header_at, body_at) = match kind {
        Kind::Message => {
            let rest = judge.head.get(start..).unwrap_or_default();
            let (end, body) = fields::end_of_header(rest).unwrap_or((rest.len(), rest.len()));
            ((start, start + end), (start + body) as u64)
        }
        _ => ((0, 0), 0),
    };
    let mut header = judge.header;
    header.wishes.send_at = place.at.or(header.wishes.send_at);
    Ok(Plan {
        place: place.clone(),
        kind,
        header,
        recipients,
        header_at,
        body_at,
        size,
    })
}

/// Reads a header that stands alone, as the file `headers` of a directory does.
///
/// # Errors
/// [`ErrorKind::BadMessage`], as [`examine`].
pub fn read_header(raw: &[u8], rules: &Rules<'_>) -> Result<Header> {
    if raw.len() > HEADER_MAX {
        return Err(too_long());
    }
    let mut header = Header::default();
    for field in fields(raw) {
        header.field(&field.map_err(no_field)?, rules.aliases, rules.now)?;
    }
    Ok(header)
}

/// A file being written.
#[derive(Debug)]
pub struct Draft {
    judge: Judge,
    refused: Option<Error>,
}

impl Draft {
    /// An empty file at `place`.
    #[must_use]
    pub const fn new(place: Place) -> Self {
        Self {
            judge: Judge::new(place),
            refused: None,
        }
    }

    /// Looks at a write before it is done. A refused file stays refused until it is emptied: what a
    /// program writes after an error it overlooked is half a letter.
    ///
    /// # Errors
    /// As [`examine`]; the write is not to be done then.
    pub fn write(&mut self, offset: u64, bytes: &[u8], rules: &Rules<'_>) -> Result<()> {
        if let Some(err) = &self.refused {
            return Err(err.clone());
        }
        let judged = within(offset.saturating_add(bytes.len() as u64), rules).and_then(|()| {
            self.judge.overlay(offset, bytes);
            self.judge.proceed(rules, false)
        });
        self.refused = judged.as_ref().err().cloned();
        judged
    }

    /// The file was cut, or made longer, to `size` bytes.
    pub fn truncate(&mut self, size: u64) {
        if size == 0 {
            self.refused = None;
        }
        self.judge.truncate(size);
    }

    /// Why this file must not be sent whatever it contains now: a write was refused.
    #[must_use]
    pub const fn refused(&self) -> Option<&Error> {
        self.refused.as_ref()
    }
}

fn within(size: u64, rules: &Rules<'_>) -> Result<()> {
    match rules.max_size {
        Some(most) if size > most => Err(Error::new(
            ErrorKind::MessageTooLong,
            format!("{size} bytes; the server takes at most {most}"),
        )),
        _ => Ok(()),
    }
}

/// The beginning of a file and how far it was looked at.
#[derive(Debug)]
struct Judge {
    place: Place,
    head: Vec<u8>,
    kind: Option<Kind>,
    /// Where the header begins.
    start: usize,
    /// How far the fields are checked.
    checked: usize,
    header: Header,
    /// Nothing more to look at.
    done: bool,
    /// A write left a hole: only the whole file can be judged.
    blind: bool,
}

impl Judge {
    const fn new(place: Place) -> Self {
        Self {
            place,
            head: Vec::new(),
            kind: None,
            start: 0,
            checked: 0,
            header: Header::EMPTY,
            done: false,
            blind: false,
        }
    }

    fn restart(&mut self) {
        let place = std::mem::take(&mut self.place);
        let head = std::mem::take(&mut self.head);
        let blind = self.blind;
        *self = Self::new(place);
        self.head = head;
        self.blind = blind;
    }

    fn overlay(&mut self, offset: u64, bytes: &[u8]) {
        let Some(start) = usize::try_from(offset)
            .ok()
            .filter(|start| *start <= HEADER_MAX)
        else {
            self.blind |= !self.done;
            return;
        };
        if start > self.head.len() {
            self.blind |= !self.done;
            return;
        }
        let bytes = bytes
            .get(..bytes.len().min(HEADER_MAX + 1 - start))
            .unwrap_or_default();
        let end = start + bytes.len();
        let rewritten = start < self.head.len();
        if end > self.head.len() {
            self.head.resize(end, 0);
        }
        if let Some(room) = self.head.get_mut(start..end) {
            room.copy_from_slice(bytes);
        }
        if rewritten {
            self.restart();
        }
    }

    fn truncate(&mut self, size: u64) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size < self.head.len() {
            self.head.truncate(size);
            self.blind &= size > 0;
            self.restart();
        }
    }

    /// Looks at what is new; `whole` if there will be no more.
    fn proceed(&mut self, rules: &Rules<'_>, whole: bool) -> Result<()> {
        if self.done || self.blind {
            return Ok(());
        }
        if self.kind.is_none() {
            rules.aliases.resolve(&self.place.to)?;
            self.kind = self.decide(whole);
        }
        match self.kind {
            None if self.head.len() > HEADER_MAX => Err(too_long()),
            None => Ok(()),
            Some(Kind::Message) => self.check_fields(rules, whole),
            Some(Kind::Body | Kind::Attachment(_)) => {
                self.done = true;
                self.header.envelope(&self.place, rules.aliases).map(drop)
            }
        }
    }

    /// What the file is, if that can be told already.
    fn decide(&mut self, whole: bool) -> Option<Kind> {
        let addressed = !self.place.to.is_empty();
        let promised = media::by_name(&self.place.name).filter(|_| addressed);
        match promised {
            None | Some("text/plain" | "message/rfc822") => {}
            Some("text/html") => return Some(Kind::Body),
            Some(media) => return Some(Kind::Attachment(media)),
        }
        self.start = beginning(&self.head, whole)?;
        if promised == Some("message/rfc822") || self.start > 3 {
            return Some(Kind::Message);
        }
        let mut rest = self.head.get(self.start..)?;
        let mut fields_seen = false;
        while !rest.is_empty() {
            let line = rest.get(..line_len(rest))?;
            let complete = line.ends_with(b"\n") || whole;
            let field = fields(line).next().and_then(std::result::Result::ok);
            match field {
                Some(field) if header::is_known(field.name) || !addressed => {
                    return Some(Kind::Message);
                }
                Some(_) => fields_seen = true,
                None if fields_seen && matches!(line.first(), Some(b' ' | b'\t')) => {}
                None if complete || !may_become_field(line) => return Some(Kind::Body),
                None => return None,
            }
            if !complete {
                return None;
            }
            rest = rest.get(line.len()..)?;
        }
        (whole || self.head.len() > HEADER_MAX).then_some(Kind::Body)
    }

    fn check_fields(&mut self, rules: &Rules<'_>, whole: bool) -> Result<()> {
        self.checked = self.checked.max(self.start);
        let fresh = self.head.get(self.checked..).unwrap_or_default();
        let end = fields::end_of_header(fresh).map(|(end, _)| end);
        let complete = match end {
            Some(end) => end,
            None if whole => fresh.len(),
            None if self.head.len() > HEADER_MAX => return Err(too_long()),
            None => complete_fields(fresh),
        };
        for field in fields(fresh.get(..complete).unwrap_or_default()) {
            let field = field.map_err(no_field)?;
            self.header.field(&field, rules.aliases, rules.now)?;
        }
        // The last field may go on, but its name is known as soon as its line is.
        let last = fresh.get(complete..).unwrap_or_default();
        if end.is_none() && !last.is_empty() && !may_become_field(last) {
            let line = last.get(..line_len(last)).unwrap_or_default();
            if let Some(Err(line)) = fields(line).next() {
                return Err(no_field(line));
            }
        }
        self.checked += complete;
        if end.is_some() || whole {
            self.done = true;
            self.header.envelope(&self.place, rules.aliases)?;
        }
        Ok(())
    }
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::BadMessage,
        format!("a header over {HEADER_MAX} bytes"),
    )
}

fn no_field(line: &[u8]) -> Error {
    let shown: String = fields::text_of(without_end(line))
        .chars()
        .take(60)
        .collect();
    let detail = format!("not a header field: \"{}\"", shown.escape_debug());
    Error::new(ErrorKind::BadMessage, detail)
}

/// Where a header would begin: behind the byte order mark that Windows editors write, and behind
/// the `From ` line of an mbox. `None` if more must be seen.
fn beginning(head: &[u8], whole: bool) -> Option<usize> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let start = if head.starts_with(MARK) {
        MARK.len()
    } else {
        0
    };
    let rest = head.get(start..)?;
    let mbox: &[u8] = b"From ";
    if !rest.starts_with(mbox) {
        let undecided = !whole && (mbox.starts_with(rest) || MARK.starts_with(head));
        return (!undecided).then_some(start);
    }
    let len = line_len(rest);
    let next = rest.get(len..).unwrap_or_default();
    if next.is_empty() && !whole {
        return None;
    }
    // "From now on ..." is prose: an mbox line is followed by a field.
    let field = next
        .get(..line_len(next))
        .and_then(|line| fields(line).next());
    match field {
        Some(Ok(_)) => Some(start + len),
        _ if !whole && !next.contains(&b'\n') && may_become_field(next) => None,
        _ => Some(start),
    }
}

/// Whether the unfinished `line` could still become a field.
fn may_become_field(line: &[u8]) -> bool {
    if line.ends_with(b"\n") {
        return false;
    }
    let name = line.iter().take_while(|b| b.is_ascii_graphic()).count();
    let rest = line.get(name..).unwrap_or_default();
    (1..=NAME_MAX).contains(&name) && rest.trim_ascii().is_empty()
}

/// Length of the fields that cannot be continued any more.
fn complete_fields(bytes: &[u8]) -> usize {
    memchr::memrchr_iter(b'\n', bytes)
        .map(|at| at + 1)
        .find(|next| {
            bytes
                .get(*next)
                .is_some_and(|b| !matches!(b, b' ' | b'\t' | b'\r'))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
