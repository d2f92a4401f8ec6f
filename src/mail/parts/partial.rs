//! A message that was sent in pieces, put together again (message/partial, RFC 2046 section 5.2.2).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::mail::content::{Content, range};
use crate::mail::fields::{HEADER_MAX, end_of_header, fields};
use crate::mail::structure::{self, Part};

/// Most pieces of one message.
const PIECES_MAX: u32 = 1000;

/// Which piece of which message a message is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The same for all pieces of one message.
    pub id: String,
    /// From 1 on.
    pub number: u32,
    /// How many there are; only the last has to say.
    pub total: Option<u32>,
}

/// What piece `message` is, if it is one.
///
/// # Errors
/// Those of reading it.
pub fn piece(message: &dyn Content) -> io::Result<Option<Piece>> {
    Ok(structure::read(message)?.first().and_then(piece_of))
}

fn piece_of(part: &Part) -> Option<Piece> {
    let number = |name| {
        part.content_type
            .get(name)
            .and_then(|n| n.parse::<u32>().ok())
    };
    let piece = Piece {
        id: part
            .content_type
            .get("id")
            .filter(|_| part.is("message/partial"))?
            .to_owned(),
        number: number("number").filter(|n| (1..=PIECES_MAX).contains(n))?,
        total: number("total").filter(|n| (1..=PIECES_MAX).contains(n)),
    };
    Some(piece)
}

/// Writes the message that the pieces among `messages` make, if they are all there; other messages,
/// and pieces of another `id`, are passed over. Returns whether it did.
///
/// # Errors
/// Those of reading the messages and of writing.
pub fn join(id: &str, messages: &[&dyn Content], out: &mut dyn Write) -> io::Result<bool> {
    let mut pieces = BTreeMap::new();
    let mut total = None;
    for message in messages {
        let parts = structure::read(*message)?;
        let Some(part) = parts.into_iter().next() else {
            continue;
        };
        let Some(piece) = piece_of(&part).filter(|piece| piece.id == id) else {
            continue;
        };
        total = total.or(piece.total);
        pieces.entry(piece.number).or_insert((*message, part));
    }
    let complete = total.is_some_and(|total| pieces.keys().copied().eq(1..=total));
    let Some((message, first)) = pieces.get(&1).filter(|_| complete) else {
        return Ok(false);
    };
    let outer = bytes(*message, first.header.start, first.header.end)?;
    let inner = bytes(*message, first.body.start, first.body.end)?;
    let (end, body) = end_of_header(&inner).unwrap_or((inner.len(), inner.len()));
    let inner = inner.get(..end).unwrap_or_default();
    // Of the outer header what tells of the way, of the inner one what tells of the message.
    for (header, wanted) in [(outer.as_slice(), false), (inner, true)] {
        for field in fields(header)
            .flatten()
            .filter(|field| belongs_inside(field.name) == wanted)
        {
            out.write_all(field.raw)?;
        }
    }
    out.write_all(b"\n")?;
    for (number, (message, part)) in &pieces {
        let start = part.body.start + if *number == 1 { body as u64 } else { 0 };
        let len = part.body.end.saturating_sub(start);
        io::copy(&mut range(*message, start, len)?, out)?;
    }
    Ok(true)
}

fn belongs_inside(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("content-")
        || matches!(
            name.as_str(),
            "subject" | "message-id" | "encrypted" | "mime-version"
        )
}

fn bytes(message: &dyn Content, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    range(message, start, (end - start).min(HEADER_MAX as u64))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_a_message_when_all_are_there() {
        let one = b"From: a@x.org\nSubject: piece 1\nMessage-ID: <1@x>\nMIME-Version: 1.0\n\
            Content-Type: message/partial; id=\"abc\"; number=1; total=2\n\n\
            Message-ID: <whole@x>\nSubject: whole\nX-Lost: y\nContent-Type: text/html\n\nfirst half, "
            .to_vec();
        let two = b"From: a@x.org\nContent-Type: message/partial; id=\"abc\"; number=2; total=2\n\nsecond half\n".to_vec();
        let other = b"Subject: x\n\n".to_vec();
        let mut out = Vec::new();
        assert!(!join("abc", &[&one, &other], &mut out).unwrap() && out.is_empty());
        assert!(!join("abd", &[&one, &two], &mut out).unwrap() && out.is_empty());
        assert!(join("abc", &[&two, &other, &one, &two], &mut out).unwrap());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "From: a@x.org\nMessage-ID: <whole@x>\nSubject: whole\nContent-Type: text/html\n\nfirst half, second half\n"
        );
        assert_eq!(piece(&two).unwrap().unwrap().number, 2);
        assert_eq!(piece(&other).unwrap(), None);
        assert_eq!(
            piece(&b"Content-Type: message/partial; id=a; number=0\n\n".to_vec()).unwrap(),
            None
        );
    }
}
