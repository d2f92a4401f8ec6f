//! How far the beginning of a file shows what it is, and whether it is good.

use super::header::{self, Header};
use super::{Kind, Place, Rules};
use crate::mail::fields::{self, HEADER_MAX, fields, line_len, without_end};
use crate::mail::media;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Longest name of a field: the longest line of RFC 5322.
const NAME_MAX: usize = 998;

/// The beginning of a file and how far it was looked at.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) place: Place,
    pub(super) head: Vec<u8>,
    pub(super) kind: Option<Kind>,
    /// Where the header begins.
    pub(super) start: usize,
    /// How far the fields are checked.
    checked: usize,
    pub(super) header: Header,
    /// Nothing more to look at.
    done: bool,
    /// A write left a hole: only the whole file can be judged.
    blind: bool,
}

impl Judge {
    pub(super) const fn new(place: Place) -> Self {
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

    pub(super) fn overlay(&mut self, offset: u64, bytes: &[u8]) {
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

    pub(super) fn truncate(&mut self, size: u64) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size < self.head.len() {
            self.head.truncate(size);
            self.blind &= size > 0;
            self.restart();
        }
    }

    /// Looks at what is new; `whole` if there will be no more.
    pub(super) fn proceed(&mut self, rules: &Rules<'_>, whole: bool) -> Result<()> {
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

pub(super) fn too_long() -> Error {
    Error::new(
        ErrorKind::BadMessage,
        format!("a header over {HEADER_MAX} bytes"),
    )
}

pub(super) fn no_field(line: &[u8]) -> Error {
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
