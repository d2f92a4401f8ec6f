//! What the store needs to know of a message's header: when it came, and whether two are the same.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail_parser::{HeaderName, HeaderValue, MessageParser};
use ring::digest::{Context, SHA256};

/// Fields that servers write, change or show as they like.
const FICKLE: [&[u8]; 7] = [
    b"status",
    b"x-status",
    b"x-uid",
    b"x-uidl",
    b"x-keywords",
    b"content-length",
    b"lines",
];

/// Clocks may be wrong by so much; a message from further in the future has a forged date.
const SKEW: Duration = Duration::from_secs(86_400);

static DATES: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .header_received(HeaderName::Received)
        .header_date(HeaderName::Date)
        .default_header_ignore()
});

/// A SHA-256.
pub type Digest = [u8; 32];

/// An identity made of a digest, for messages whose server gives them none.
#[must_use]
pub fn hex(kind: char, digest: &Digest) -> Vec<u8> {
    let mut text = String::from(kind);
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text.into_bytes()
}

/// The header of a message: up to and without the first empty line.
#[must_use]
pub fn header_of(message: &[u8]) -> &[u8] {
    if message.first() == Some(&b'\n') {
        return &[];
    }
    let end = memchr::memmem::find(message, b"\n\n").map(|at| at + 1);
    message
        .get(..end.unwrap_or(message.len()))
        .unwrap_or(message)
}

/// What stays the same of a header (lines ended by LF), whichever command shows it: TOP and RETR
/// of one message have equal fingerprints.
#[must_use]
pub fn fingerprint(header: &[u8]) -> Digest {
    let mut hash = Context::new(&SHA256);
    let mut skipped = false;
    for line in header.split_inclusive(|b| *b == b'\n') {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            skipped = FICKLE.contains(&name.to_ascii_lowercase().as_slice());
        }
        if !skipped {
            hash.update(line);
        }
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

/// When the message came: the topmost Received field (written by the user's own server, so not to
/// be forged), else Date. `None` if neither says, or says something before 1980 or after `now`.
#[must_use]
pub fn arrival(header: &[u8], now: SystemTime) -> Option<SystemTime> {
    // The first 64 KiB hold both; a header can be all of a hostile message.
    let header = header.get(..64 * 1024).unwrap_or(header);
    let parsed = DATES.parse_headers(header)?;
    let received = parsed
        .headers()
        .iter()
        .find_map(|field| match (&field.name, &field.value) {
            (HeaderName::Received, HeaderValue::Received(received)) => received.date(),
            _ => None,
        });
    [received, parsed.date().copied()]
        .into_iter()
        .flatten()
        .filter(mail_parser::DateTime::is_valid)
        .filter_map(|date| u64::try_from(date.to_timestamp()).ok())
        .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
        .find(|time| *time >= UNIX_EPOCH + Duration::from_secs(315_532_800) && *time <= now + SKEW)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seconds(header: &str) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        arrival(header.as_bytes(), now).map(|t| t.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn the_topmost_received_says_when_it_came() {
        let header = "Return-Path: <a@b>\n\
             Received: from x by y with ESMTP id 1\n\tfor <u@y>; Tue, 1 Jul 2003 10:52:37 +0200\n\
             Received: from w by x; Tue, 1 Jul 2003 09:00:00 +0200\n\
             Date: Mon, 30 Jun 2003 08:00:00 +0000\n";
        assert_eq!(seconds(header), Some(1_057_049_557));
        assert_eq!(
            seconds("Date: Mon, 30 Jun 2003 08:00:00 +0000\n"),
            Some(1_056_960_000)
        );
    }

    #[test]
    fn forged_and_missing_dates_are_no_dates() {
        for bad in [
            "",
            "Subject: x\n",
            "Date: yesterday\n",
            "Date: Thu, 1 Jan 1970 00:00:00 +0000\n",
            "Date: Mon, 30 Jun 2103 08:00:00 +0000\n",
            "Date: Mon, 99 Jun 2003 08:00:00 +0000\n",
        ] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fickle_fields_are_not_part_of_the_fingerprint() {
        let one = fingerprint(b"From: a\nSubject: x\n");
        let other = b"From: a\nStatus: RO\nX-UIDL: 12\n 34\nSubject: x\n";
        assert_eq!(one, fingerprint(other));
        assert_ne!(one, fingerprint(b"From: a\nSubject: y\n"));
    }

    #[test]
    fn a_header_ends_at_the_first_empty_line() {
        assert_eq!(header_of(b"a: b\nc: d\n\nbody\n\nmore"), b"a: b\nc: d\n");
        assert_eq!(header_of(b"\nbody"), b"");
        assert_eq!(header_of(b"a: b\n"), b"a: b\n");
    }
}
