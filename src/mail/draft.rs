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
use super::fields::{self, HEADER_MAX, fields};

mod header;
mod judge;
mod place;

use judge::{Judge, no_field, too_long};

pub use header::{Header, Wishes};
pub use place::{Place, is_unfinished};

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

#[cfg(test)]
mod tests;
