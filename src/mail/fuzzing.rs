//! Doors for the fuzz targets (`fuzz/`): each gives a parser bytes as a stranger would, and checks
//! what must hold whatever they are. Not part of the program: behind the feature `fuzzing`, and in
//! the tests, which try them with a little noise.
#![allow(clippy::panic, clippy::missing_panics_doc)]

use std::io::{self, Cursor, Read};
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::address::Mailbox;
use super::aliases::Aliases;
use super::compose::{self, Account, Stamp};
use super::draft::{self, Draft, Place, Rules};
use super::line::LineReader;
use super::parts::{self, Parts};
use super::pop3::{self, Capabilities};
use super::smtp;
use super::templates::{self, Audience};
use crate::net::Deadline;
use crate::vfs::path::{Name, RemotePath};

/// No time passes here.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Gives at most so many bytes at once, as a network does.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.1.min(buf.len());
        self.0.read(buf.get_mut(..most).unwrap_or_default())
    }
}

/// The first byte says in which pieces the rest comes.
fn pieces(bytes: &[u8]) -> (Pieces<'_>, usize) {
    let (first, rest) = bytes.split_first().unwrap_or((&1, &[]));
    (Pieces(rest, usize::from(*first).max(1)), rest.len())
}

/// What a POP3 server says: status lines, CAPA, UIDL and LIST, a message.
pub fn pop3(bytes: &[u8]) {
    let (source, len) = pieces(bytes);
    let mut lines = LineReader::new(source);
    let mut capabilities = Capabilities::default();
    while let Ok(line) = lines.line(512, Deadline::after(PATIENCE)) {
        if let Some(reply) = pop3::Reply::parse(line) {
            for stage in [pop3::Stage::Login, pop3::Stage::Transaction] {
                let failure = reply.failure("X", stage);
                assert!(!failure.detail().contains(char::is_control));
            }
        }
        if let Some((number, value)) = pop3::numbered(line) {
            assert!(number > 0 && !value.is_empty());
        }
        capabilities.add(line);
    }
    let mut text = Vec::new();
    let read = LineReader::new(pieces(bytes).0).text(&mut text, 4096, PATIENCE);
    assert!(text.len() <= len.min(4096));
    if let Ok(counts) = read {
        assert_eq!(counts.written, text.len() as u64);
    }
}

/// What an SMTP server says.
pub fn smtp(bytes: &[u8]) {
    let mut lines = LineReader::new(pieces(bytes).0);
    let mut gathering = smtp::Gathering::default();
    while let Ok(line) = lines.line(8192, Deadline::after(PATIENCE)) {
        let Some(line) = smtp::Line::parse(line) else {
            continue;
        };
        gathering.add(&line);
        if line.more {
            continue;
        }
        let reply = std::mem::take(&mut gathering).finish(line.code);
        assert!((200..600).contains(&reply.code));
        let text = reply.text();
        assert!(text.len() < 2000 && !text.contains(char::is_control));
    }
}

/// The user's alias file.
pub fn aliases(bytes: &[u8]) {
    let aliases = Aliases::parse(bytes);
    for name in aliases.names() {
        assert!(aliases.contains(name));
        // A group may have nobody in it; then there is nobody to send to.
        assert_eq!(aliases.expand(name).is_ok(), aliases.text(name).is_ok());
    }
    assert!(aliases.problems().count() <= bytes.len());
}

/// A file in the outbox, as it is judged while it is written, and the message it makes.
pub fn outbox(bytes: &[u8]) {
    let Ok(now) = Timestamp::from_second(1_795_437_005) else {
        return;
    };
    let now = now.to_zoned_datetime(TimeZone::UTC);
    let aliases = Aliases::parse(b"team: alice@example.org, Bob <bob@example.org>\n");
    let rules = Rules {
        aliases: &aliases,
        max_size: Some(1 << 20),
        now: &now,
    };
    let (first, content) = bytes.split_first().unwrap_or((&0, &[]));
    let path: &[u8] = match first % 4 {
        0 => b"m",
        1 => b"bob@example.org/Weekly report.txt",
        2 => b"team/a.pdf",
        _ => b"at/2030-01-01T09:00/m",
    };
    let place = RemotePath::parse(path).and_then(|path| Place::of_file(&path, &now));
    let Ok(place) = place else { return };
    let mut written = Draft::new(place.clone());
    let step = usize::from(*first).max(1);
    for (number, piece) in content.chunks(step).enumerate() {
        // A refusal stays: what follows must not change that, and must not break anything.
        let _ = written.write((number * step) as u64, piece, &rules);
    }
    let content = content.to_vec();
    let Ok(plan) = draft::examine(&place, &content, &rules) else {
        return;
    };
    let Ok(from) = Mailbox::parse("Me <me@example.org>") else {
        return;
    };
    let stamp = Stamp {
        now: now.clone(),
        seed: [7; 16],
    };
    let mut out = Vec::new();
    let composed = compose::compose(&plan, &content, &Account { from }, &stamp, &rules, &mut out);
    let Ok(composed) = composed else { return };
    assert_eq!(composed.size, out.len() as u64);
    assert!(out.ends_with(b"\r\n") && !out.contains(&0));
    for line in out.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998 && !line.contains(&b'\r'));
    }
    let header = memchr::memmem::find(&out, b"\r\n\r\n").unwrap_or(out.len());
    let header = out.get(..header).unwrap_or_default().to_ascii_lowercase();
    assert!(memchr::memmem::find(&header, b"\nbcc:").is_none());
}

/// A message as it is shown in `parts`, and the answers to it.
pub fn message(bytes: &[u8]) {
    let message = bytes.to_vec();
    let Ok(tree) = Parts::read(&message) else {
        return;
    };
    let mut names = std::collections::HashSet::new();
    for (index, entry) in tree.entries().iter().enumerate().skip(1) {
        assert!(entry.parent < index && Name::new(entry.name.as_bytes()).is_ok());
        assert!(names.insert((entry.parent, entry.name.clone())), "twice");
        if let Some(view) = &entry.view {
            let size = view.size(Cursor::new(bytes));
            let mut shown = Vec::new();
            if let Ok(mut stream) = view.over(Cursor::new(bytes)) {
                let _ = stream.read_to_end(&mut shown);
            }
            assert_eq!(size.ok(), Some(shown.len() as u64));
            assert!(shown.len() <= 4 * bytes.len() + 4096);
        }
    }
    let _ = parts::piece(&message);
    let header = super::header::header_of(bytes);
    for audience in [Audience::Author, Audience::Everyone] {
        let _ = templates::reply(
            header,
            Box::new(Cursor::new(message.clone())),
            &[],
            audience,
        );
    }
    let _ = templates::forward(header, Box::new(Cursor::new(message)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words that parsers look for, and noise between them.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(
            b"To: |Subject: |Content-Type: multipart/mixed; boundary=b|--b|--b--|\r\n|\n|\n\n|+OK |-ERR [IN-USE] |\
              250-|550 5.1.1 |team: |:include:|a@b.c|<|>|\"|,|.|..\r\n|=?utf-8?q?|?=|Content-Transfer-Encoding: base64|\
              message/partial; id=x; number=1|message/rfc822|filename*0*=utf-8''%C3|Bcc: |1 "
                .split(|b| *b == b'|')
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>(),
        );
        let piece = prop_oneof![3 => words, 1 => prop::collection::vec(any::<u8>(), 0..12)];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// What fuzzing found once.
    #[test]
    fn a_nul_outside_of_all_parts_is_not_sent() {
        outbox(b"\x01Content-Type: multipart/mixed; boundary=b\n\n\0");
        outbox(b"\x01Content-Type: multipart/mixed; boundary=b\n\n--b\nX: \0\n\nx\n--b--\n\0");
    }

    #[test]
    fn an_alias_for_an_empty_group_is_nobody() {
        aliases(b"nobody: To: ;\t");
    }

    proptest! {
        #[test]
        fn whatever_strangers_say_is_survived(bytes in noise(), first in any::<u8>()) {
            let bytes = [&[first][..], &bytes].concat();
            pop3(&bytes);
            smtp(&bytes);
            aliases(&bytes);
            outbox(&bytes);
            message(&bytes);
        }
    }
}
