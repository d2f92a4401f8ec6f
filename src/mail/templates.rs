//! The beginning of an answer: a text to save, to finish in an editor, and to move to `outbox/`.
//!
//! What is written is readable UTF-8; [`super::compose`] encodes it.

use std::collections::HashSet;
use std::io::{self, Read};

use super::address::{Address, Item, Mailbox, parse_list};
use super::decode::Lf;
use super::fields::{find, text_of};
use super::filter::Filtered;
use super::words;

/// Most text that is quoted, in bytes.
const QUOTED_MAX: u64 = 256 * 1024;

/// Most identifiers kept of `References`: the first and the last ones.
const REFERENCES_MAX: usize = 20;

/// To whom an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Who wrote the message.
    Author,
    /// All who wrote or received it, ourselves left out.
    Everyone,
}

/// An answer to the message with this header and this text (in UTF-8).
///
/// # Errors
/// Those of reading `text`.
pub fn reply(
    header: &[u8],
    text: impl Read,
    me: &[Address],
    audience: Audience,
) -> io::Result<String> {
    let mut known: HashSet<String> = me.iter().map(Address::key).collect();
    let from = mailboxes(header, "From");
    let mut to = mailboxes(header, "Reply-To");
    if to.is_empty() {
        to.clone_from(&from);
    }
    if to
        .iter()
        .all(|mailbox| known.contains(&mailbox.address.key()))
    {
        // An answer to what we wrote goes on to whom we wrote.
        to = mailboxes(header, "To");
    }
    known.extend(to.iter().map(|mailbox| mailbox.address.key()));
    let mut cc = Vec::new();
    if audience == Audience::Everyone {
        for name in ["To", "Cc"] {
            cc.extend(
                mailboxes(header, name)
                    .into_iter()
                    .filter(|m| known.insert(m.address.key())),
            );
        }
    }
    let mut draft = format!("To: {}\n", list(&to));
    if !cc.is_empty() {
        draft += &format!("Cc: {}\n", list(&cc));
    }
    draft += &format!(
        "Subject: {}\n",
        prefixed("Re: ", &["re:", "aw:", "sv:"], &value(header, "Subject"))
    );
    draft += &threading(header);
    draft += "\n";
    let author = from
        .first()
        .map_or_else(|| "someone".to_owned(), Mailbox::shown);
    match value(header, "Date") {
        date if date.is_empty() => draft += &format!("{author} wrote:\n"),
        date => draft += &format!("On {date}, {author} wrote:\n"),
    }
    for line in quoted(text)?.lines() {
        draft += if line.starts_with('>') || line.is_empty() {
            ">"
        } else {
            "> "
        };
        draft += line;
        draft.push('\n');
    }
    Ok(draft)
}

/// The message with this header and this text, to be sent on. `To` is left empty, so that it cannot
/// be sent before somebody is named.
///
/// # Errors
/// Those of reading `text`.
pub fn forward(header: &[u8], text: impl Read) -> io::Result<String> {
    let subject = value(header, "Subject");
    let mut draft = format!(
        "To: \nSubject: {}\n",
        prefixed("Fwd: ", &["fwd:", "fw:", "wg:"], &subject)
    );
    draft += &references(header)
        .last()
        .map_or_else(String::new, |id| format!("References: {id}\n"));
    draft += "\n\n---------- Forwarded message ----------\n";
    for name in ["From", "Date", "Subject", "To", "Cc"] {
        let value = value(header, name);
        if !value.is_empty() {
            draft += &format!("{name}: {value}\n");
        }
    }
    draft.push('\n');
    draft += &quoted(text)?;
    Ok(draft)
}

fn value(header: &[u8], name: &str) -> String {
    let field = find(header, name);
    field.map_or_else(String::new, |field| {
        words::decode(&field.unfolded())
            .trim()
            .chars()
            .take(900)
            .collect()
    })
}

/// The addresses of a field; those that are malformed cannot be answered and are left out.
fn mailboxes(header: &[u8], name: &str) -> Vec<Mailbox> {
    let Some(field) = find(header, name) else {
        return Vec::new();
    };
    let items = parse_list(&field.text()).unwrap_or_default();
    let flat = items.into_iter().flat_map(|item| match item {
        Item::Group(_, members) => members,
        item => vec![item],
    });
    flat.filter_map(|item| match item {
        Item::Mailbox(mailbox) => Some(mailbox),
        _ => None,
    })
    .take(500)
    .collect()
}

fn list(mailboxes: &[Mailbox]) -> String {
    mailboxes
        .iter()
        .map(Mailbox::shown)
        .collect::<Vec<_>>()
        .join(",\n ")
}

fn prefixed(prefix: &str, known: &[&str], subject: &str) -> String {
    let lower = subject.to_lowercase();
    if known.iter().any(|k| lower.starts_with(k)) {
        return subject.to_owned();
    }
    format!("{prefix}{subject}")
}

/// RFC 5322 section 3.6.4.
fn threading(header: &[u8]) -> String {
    let references = references(header);
    let parent = find(header, "Message-ID").map(|field| ids(&field.unfolded()));
    let Some(parent) = parent.and_then(|ids| ids.into_iter().next()) else {
        return String::new();
    };
    format!(
        "In-Reply-To: {parent}\nReferences: {}\n",
        references.join("\n ")
    )
}

/// What `References` of an answer are: those of the message and itself.
fn references(header: &[u8]) -> Vec<String> {
    let of = |name| {
        find(header, name)
            .map(|field| ids(&field.unfolded()))
            .unwrap_or_default()
    };
    let mut references = of("References");
    if references.is_empty() {
        references = of("In-Reply-To");
        references.truncate(1);
    }
    if references.len() > REFERENCES_MAX {
        references.drain(1..references.len() - REFERENCES_MAX + 1);
    }
    references.extend(of("Message-ID").into_iter().next());
    references
}

/// The identifiers in a value: what stands in angle brackets, without white space.
fn ids(value: &[u8]) -> Vec<String> {
    text_of(value)
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>').map(|(id, _)| id))
        .filter(|id| !id.is_empty() && id.len() < 900 && id.bytes().all(|b| b.is_ascii_graphic()))
        .map(|id| format!("<{id}>"))
        .collect()
}

fn quoted(text: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    Filtered::new(text, Lf::default())
        .take(QUOTED_MAX + 1)
        .read_to_end(&mut bytes)?;
    let more = bytes.len() as u64 > QUOTED_MAX;
    bytes.truncate(QUOTED_MAX as usize);
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if more {
        text.push_str("[...]\n");
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADER: &[u8] =
        b"From: =?utf-8?Q?J=C3=B6rg?= <j@x.org>\nTo: me@here.org, Bob <b@x.org>\n\
        Cc: friends: c@x.org, B@X.ORG;, j@x.org\nDate: Mon, 23 Nov 2026 13:30:05 +0100\n\
        Subject: =?utf-8?Q?caf=C3=A9?=\nMessage-ID: <3@x>\nReferences: <1@x>\n <2@x>\n";

    fn me() -> Vec<Address> {
        vec![Address::parse("me@here.org").unwrap()]
    }

    #[test]
    fn answers_are_addressed_threaded_and_quoted() {
        let text = reply(
            HEADER,
            &b"hello\r\n\r\n> old\n"[..],
            &me(),
            Audience::Author,
        )
        .unwrap();
        assert_eq!(
            text,
            "To: J\u{f6}rg <j@x.org>\nSubject: Re: caf\u{e9}\nIn-Reply-To: <3@x>\nReferences: <1@x>\n <2@x>\n <3@x>\n\n\
             On Mon, 23 Nov 2026 13:30:05 +0100, J\u{f6}rg <j@x.org> wrote:\n> hello\n>\n>> old\n"
        );
        let all = reply(HEADER, &b""[..], &me(), Audience::Everyone).unwrap();
        assert!(
            all.contains("Cc: Bob <b@x.org>,\n c@x.org,\n B@X.ORG\n"),
            "{all}"
        );
    }

    #[test]
    fn forwarding_waits_for_a_name() {
        let text = forward(HEADER, &b"hello"[..]).unwrap();
        assert!(
            text.starts_with("To: \nSubject: Fwd: caf\u{e9}\nReferences: <3@x>\n\n\n---"),
            "{text}"
        );
        assert!(text.ends_with("\n\nhello\n"));
    }

    #[test]
    fn odd_messages_have_answers_too() {
        let empty = reply(b"", &b"\xff"[..], &me(), Audience::Everyone).unwrap();
        assert_eq!(empty, "To: \nSubject: Re: \n\nsomeone wrote:\n> \u{fffd}\n");
        let own = reply(
            b"From: me@here.org\nTo: b@x.org\nSubject: RE: x\n",
            &b""[..],
            &me(),
            Audience::Author,
        )
        .unwrap();
        assert!(own.starts_with("To: b@x.org\nSubject: RE: x\n\n"));
        let hostile = format!(
            "From: a@x.org\nMessage-ID: <{}>\nReferences: {}\n",
            "x".repeat(2000),
            "<r@x> ".repeat(5000)
        );
        let text = reply(
            hostile.as_bytes(),
            &vec![b'x'; 1_000_000][..],
            &[],
            Audience::Everyone,
        )
        .unwrap();
        assert!(text.len() < 300_000 && text.ends_with("> [...]\n"));
    }
}
