//! Files become messages and messages become files: round trips through our own reader, through
//! mail-parser and through Python's `email`; what tools write; hostile input; fixed examples.

use std::cell::Cell;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use ferryfs::mail::address::Mailbox;
use ferryfs::mail::aliases::Aliases;
use ferryfs::mail::compose::{self, Account, Composed, Enclosure, Stamp};
use ferryfs::mail::content::{Content, Stream};
use ferryfs::mail::draft::{self, Draft, Place, Rules, is_unfinished};
use ferryfs::mail::parts::{self, Parts};
use ferryfs::vfs::error::{Error, ErrorKind};
use ferryfs::vfs::path::RemotePath;
use jiff::{Timestamp, ZonedDateTime, tz::TimeZone};
use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

fn now() -> ZonedDateTime {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    Timestamp::from_second(1_795_437_005)
        .unwrap()
        .to_zoned_datetime(zone)
}

fn stamp() -> Stamp {
    Stamp {
        now: now(),
        seed: [7; 16],
    }
}

fn account() -> Account {
    Account {
        from: Mailbox::parse("J\u{f6}rg <me@example.org>").unwrap(),
    }
}

fn aliases() -> Aliases {
    Aliases::parse(b"team: alice@example.org, Bob <bob@example.org>\n")
}

fn place(path: &[u8]) -> Place {
    Place::of_file(&RemotePath::parse(path).unwrap(), &now()).unwrap()
}

fn with_rules<R>(work: impl FnOnce(&Rules<'_>) -> R) -> R {
    work(&Rules {
        aliases: &aliases(),
        max_size: None,
        now: &now(),
    })
}

fn send(path: &[u8], content: &dyn Content) -> Result<(Composed, Vec<u8>), Error> {
    with_rules(|rules| {
        let plan = draft::examine(&place(path), content, rules)?;
        let mut out = Vec::new();
        let composed = compose::compose(&plan, content, &account(), &stamp(), rules, &mut out)?;
        check_wire(&composed, &out);
        Ok((composed, out))
    })
}

fn sent(path: &str, text: &str) -> (Composed, String) {
    let (composed, out) = send(path.as_bytes(), &text.as_bytes().to_vec()).unwrap();
    (composed, String::from_utf8_lossy(&out).into_owned())
}

fn send_directory(path: &str, files: &[(&[u8], &[u8])]) -> (Composed, Vec<u8>) {
    let contents: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let enclosures: Vec<_> = files
        .iter()
        .zip(&contents)
        .map(|((name, _), content)| Enclosure { name, content })
        .collect();
    let mut out = Vec::new();
    let composed = with_rules(|rules| {
        compose::compose_directory(
            &place(path.as_bytes()),
            &enclosures,
            &account(),
            &stamp(),
            rules,
            &mut out,
        )
    });
    let composed = composed.unwrap();
    check_wire(&composed, &out);
    (composed, out)
}

/// What holds for every message that goes out.
fn check_wire(composed: &Composed, message: &[u8]) {
    assert_eq!(composed.size, message.len() as u64);
    assert!(message.ends_with(b"\r\n"));
    assert!(!message.contains(&0), "NUL");
    let text = message.strip_suffix(b"\r\n").unwrap();
    for line in text.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(
            line.len() <= 998 && !line.contains(&b'\r'),
            "a line that SMTP does not carry"
        );
    }
    assert_eq!(
        memchr::memmem::find_iter(message, b"\r\n").count(),
        memchr::memchr_iter(b'\n', message).count()
    );
    let header_end = memchr::memmem::find(message, b"\r\n\r\n").unwrap();
    let (header, body) = message.split_at(header_end);
    assert!(composed.smtputf8 || header.is_ascii());
    assert_eq!(composed.eight_bit, !body.is_ascii());
    let lower = header.to_ascii_lowercase();
    for private in [
        "bcc:",
        "x-send-at:",
        "return-path:",
        "x-dsn:",
        "x-separate:",
        "x-account:",
    ] {
        assert!(memchr::memmem::find(&lower, format!("\n{private}").as_bytes()).is_none());
    }
    for name in ["date:", "from:", "message-id:", "mime-version:"] {
        let found = header
            .split(|b| *b == b'\n')
            .filter(|l| l.to_ascii_lowercase().starts_with(name.as_bytes()));
        assert_eq!(found.count(), 1, "{name}");
    }
}

/// The message as the store keeps it.
fn stored(message: &[u8]) -> Vec<u8> {
    let mut out = message.to_vec();
    let mut at = 0;
    out.retain(|b| {
        at += 1;
        !(*b == b'\r' && message.get(at) == Some(&b'\n'))
    });
    out
}

/// The files of a message: path and bytes.
fn files(message: &[u8]) -> Vec<(String, Vec<u8>)> {
    let message = message.to_vec();
    let parts = Parts::read(&message).unwrap();
    let file = |entry: &parts::Entry| {
        let view = entry.view.as_ref()?;
        let mut bytes = Vec::new();
        view.over(Cursor::new(&message))
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(
            view.size(Cursor::new(&message)).unwrap(),
            bytes.len() as u64
        );
        Some((entry.name.clone(), bytes))
    };
    parts.entries().iter().filter_map(file).collect()
}

fn file(message: &[u8], name: &str) -> Vec<u8> {
    let files = files(message);
    let found = files.iter().find(|(n, _)| n == name);
    found
        .unwrap_or_else(|| {
            panic!(
                "no {name} in {:?}",
                files.iter().map(|(n, _)| n).collect::<Vec<_>>()
            )
        })
        .1
        .clone()
}

const HEAD: &str =
    "Date: Mon, 23 Nov 2026 13:30:05 +0100\r\nFrom: =?utf-8?Q?J=C3=B6rg?= <me@example.org>\r\n";
const ID: &str = "Message-ID: <a4dqoby/@example.org>\r\n";

/// A message as it looks without its random names.
fn plain(message: &str) -> String {
    let start = message.find("Message-ID: <").unwrap() + 13;
    let end = start + message[start..].find('@').unwrap();
    assert_eq!(end - start, 26);
    let id = &message[start..end];
    let message: String = message.replace(id, "a4dqoby/");
    let shown = |line: &str| {
        if line.starts_with("Content-ID: <") {
            "Content-ID: <...>\r\n".into()
        } else {
            line.to_owned()
        }
    };
    let message: String = message.split_inclusive("\r\n").map(shown).collect();
    let Some(at) = message.find("boundary=\"=_") else {
        return message;
    };
    let boundary = message[at + 12..at + 38].to_owned();
    message.replace(&boundary, "B")
}

#[test]
fn a_body_and_a_place_are_enough() {
    let (composed, message) = sent("team/Weekly report.txt", "Hello,\nall is well.\n");
    assert_eq!(
        plain(&message),
        format!(
            "Subject: Weekly report\r\n{HEAD}To: alice@example.org, Bob <bob@example.org>\r\n{ID}MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             Hello,\r\nall is well.\r\n"
        )
    );
    assert_eq!(composed.from.as_str(), "me@example.org");
    assert_eq!(composed.to.len(), 2);
}

#[test]
fn a_directory_becomes_alternatives_and_attachments() {
    let files: [(&[u8], &[u8]); 4] = [
        (b"a.png", b"\x89PNG\0"),
        (b"text.html", b"<p>caf\xc3\xa9"),
        (b"text.txt", b"caf\xc3\xa9"),
        (b"notes.csv", b"1,2\n"),
    ];
    let (_, message) = send_directory("bob@example.org/.Photos from Rome", &files);
    assert_eq!(
        plain(&String::from_utf8(message.clone()).unwrap()),
        format!(
            "Subject: Photos from Rome\r\n{HEAD}To: bob@example.org\r\n{ID}MIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed;\r\n boundary=\"=_B-0\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             --=_B-0\r\nContent-Type: multipart/alternative;\r\n boundary=\"=_B-1\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             --=_B-1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncaf\u{e9}\r\n\
             --=_B-1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>caf\u{e9}\r\n\
             --=_B-1--\r\n\
             --=_B-0\r\nContent-Type: image/png;\r\n name=a.png\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=a.png\r\nContent-Description: a.png\r\n\
             Content-ID: <...>\r\n\r\niVBORwA=\r\n\r\n\
             --=_B-0\r\nContent-Type: text/csv; charset=us-ascii;\r\n name=notes.csv\r\nContent-Transfer-Encoding: 7bit\r\n\
             Content-Disposition: attachment;\r\n filename=notes.csv\r\nContent-Description: notes.csv\r\n\
             Content-ID: <...>\r\n\r\n1,2\r\n\r\n--=_B-0--\r\n"
        )
    );
    assert_eq!(file(&stored(&message), "a.png"), b"\x89PNG\0");
    assert_eq!(file(&stored(&message), "notes.csv"), b"1,2\n");
    assert_eq!(file(&stored(&message), "text"), "caf\u{e9}".as_bytes());
    let headers: [(&[u8], &[u8]); 2] = [
        (
            b"headers",
            b"Subject: x\nTo: team\nBcc: z@example.org\nContent-Type: x/y\n",
        ),
        (b"text", b"hi\n"),
    ];
    let (composed, message) = send_directory("m", &headers);
    assert_eq!(composed.to.len(), 3);
    assert!(
        String::from_utf8(message)
            .unwrap()
            .contains("Content-Type: text/plain; charset=us-ascii\r\n")
    );
}

#[test]
fn a_full_message_is_completed_and_left_alone() {
    let original = "From x@y Mon Nov 23 00:00:00 2026\nReturn-Path: <r@example.org>\nX-Odd:  two  spaces\n\tfolded\n\
        To: Alice\n <alice@example.org>\nBcc: team,\n z@example.org\nX-Send-At: +1h\nFrom: other@example.net\n\
        Message-ID: <mine@x>\n\n.\nFrom the start\n  trailing  \n\n\nend";
    let (composed, message) = sent("m", original);
    assert_eq!(
        message,
        "X-Odd:  two  spaces\r\n\tfolded\r\nTo: Alice\r\n <alice@example.org>\r\nFrom: other@example.net\r\n\
         Message-ID: <mine@x>\r\nDate: Mon, 23 Nov 2026 13:30:05 +0100\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         .\r\nFrom the start\r\n  trailing  \r\n\r\n\r\nend\r\n"
    );
    assert_eq!(composed.from.as_str(), "other@example.net");
    let to: Vec<_> = composed.to.iter().map(|a| a.as_str()).collect();
    assert_eq!(
        to,
        ["alice@example.org", "bob@example.org", "z@example.org"]
    );
    assert_eq!(composed.message_id, "<mine@x>");
    assert_eq!(composed.bcc, b"Bcc: team,\r\n z@example.org\r\n");
    assert!(composed.wishes.send_at.is_some());
    let (again, second) = send(b"m", &original.as_bytes().to_vec()).unwrap();
    assert_eq!((again.size, second), (composed.size, message.into_bytes()));
}

#[test]
fn recipients_are_shown_as_they_should_be() {
    let shown = |path: &str, text: &str| {
        let message = sent(path, text).1;
        let fields = message
            .split("\r\n\r\n")
            .next()
            .unwrap()
            .replace("\r\n ", " ");
        let to = fields
            .lines()
            .filter(|l| l.starts_with("To:") || l.starts_with("Cc:"));
        to.collect::<Vec<_>>().join("|")
    };
    assert_eq!(
        shown("m", "Bcc: a@example.org\n\nx"),
        "To: undisclosed-recipients:;"
    );
    assert_eq!(
        shown("m", "To: team\n\nx"),
        "To: alice@example.org, Bob <bob@example.org>"
    );
    assert_eq!(
        shown("m", "To: team, c@example.org\nX-Separate: yes\n\nx"),
        "To: team:;, c@example.org"
    );
    assert_eq!(
        shown("m", "To: \nCc: a@example.org\n\nx"),
        "Cc: a@example.org"
    );
    assert_eq!(
        shown("m", "To: J\u{f6} <a@b\u{fc}cher.example>\n\nx"),
        "To: =?utf-8?B?SsO2?= <a@xn--bcher-kva.example>"
    );
    assert_eq!(
        shown("c@example.org/m", "Subject: x\nCc: a@example.org\n\nx"),
        "Cc: a@example.org|To: c@example.org"
    );
    let long: String = (0..300).map(|n| format!("user{n}@example.org, ")).collect();
    assert!(shown("m", &format!("To: {long}\n\nx")).contains("user299@example.org"));
}

#[test]
fn a_resent_message_goes_to_those_it_is_resent_to() {
    let (composed, message) = sent(
        "m",
        "Resent-To: r@example.org\nResent-Bcc: s@example.org\nFrom: a@x.org\nTo: b@x.org\n\
        Date: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-ID: <1@x>\n\nbody\n",
    );
    let to: Vec<_> = composed.to.iter().map(|a| a.as_str()).collect();
    assert_eq!(to, ["r@example.org", "s@example.org"]);
    assert_eq!(composed.from.as_str(), "me@example.org");
    assert!(
        message.starts_with("Resent-Date: ")
            && message.contains("\r\nResent-From: ")
            && !message.contains("s@example")
    );
    assert!(message.contains("\r\nMessage-ID: <1@x>\r\n"));
}

#[test]
fn headers_in_any_charset_are_encoded() {
    let (_, message) = sent(
        "m",
        "To: a@example.org\nSubject: Gr\u{fc}\u{df}e\nX-Note: \u{20ac}\n\nx",
    );
    assert!(
        message.contains("Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n"),
        "{message}"
    );
    let latin = b"To: a@example.org\nSubject: caf\xe9\nContent-Type: text/plain; charset=utf-8; name=\"\xe9.txt\"\n\nx".to_vec();
    let message = String::from_utf8(send(b"m", &latin).unwrap().1).unwrap();
    assert!(
        message.contains("Subject: =?utf-8?Q?caf=C3=A9?=\r\n"),
        "{message}"
    );
    assert!(message.contains(" name*=utf-8''%C3%A9.txt"), "{message}");
    let (composed, message) = sent(
        "m",
        "To: a@example.org\nSubject: =?utf-8?Q?=C3=A9?=\nContent-Type: text/html;\n\n<p>\u{e9}",
    );
    assert!(
        message.contains("Content-Type: text/html;\r\n charset=utf-8\r\n"),
        "{message}"
    );
    assert!(
        message.contains("Content-Transfer-Encoding: 8bit\r\n"),
        "{message}"
    );
    assert_eq!(composed.subject, "\u{e9}");
    let (composed, _) = sent("m", "To: j\u{f6}rg@example.org\n\nx");
    assert!(composed.smtputf8);
    let (_, message) = sent(
        "m",
        &format!("To: a@example.org\nSubject: {}\n\nx", "y".repeat(5000)),
    );
    assert!(message.contains("=?utf-8?"));
}

#[test]
fn encodings_are_chosen_rightly() {
    let chosen = |path: &str, content: &[u8]| {
        let message = send(path.as_bytes(), &content.to_vec()).unwrap().1;
        let message = String::from_utf8_lossy(&message).into_owned();
        let last = |name: &str| {
            message
                .lines()
                .rfind(|l| l.starts_with(name))
                .map(|l| l[name.len()..].to_owned())
        };
        (
            last("Content-Transfer-Encoding: ").unwrap(),
            last("Content-Type: ").unwrap(),
        )
    };
    let long = "word ".repeat(300);
    let chinese = "\u{6f22}".repeat(2000);
    for (path, content, encoding, media) in [
        (
            "team/m",
            &b"ascii\n"[..],
            "7bit",
            "text/plain; charset=us-ascii",
        ),
        (
            "team/m",
            "caf\u{e9}\n".as_bytes(),
            "8bit",
            "text/plain; charset=utf-8",
        ),
        (
            "team/m",
            b"caf\xe9\n",
            "8bit",
            "text/plain; charset=iso-8859-1",
        ),
        (
            "team/m",
            b"\x93caf\xe9\x94\n",
            "8bit",
            "text/plain; charset=windows-1252",
        ),
        (
            "team/m",
            b"a\nFrom b\n",
            "quoted-printable",
            "text/plain; charset=us-ascii",
        ),
        (
            "team/m",
            b"a\n.\n",
            "quoted-printable",
            "text/plain; charset=us-ascii",
        ),
        (
            "team/m",
            b"10%\r20%\n",
            "quoted-printable",
            "text/plain; charset=us-ascii",
        ),
        (
            "team/m",
            long.as_bytes(),
            "quoted-printable",
            "text/plain; charset=us-ascii",
        ),
        (
            "team/m",
            chinese.as_bytes(),
            "base64",
            "text/plain; charset=utf-8",
        ),
        ("team/m", b"\0binary", "base64", "application/octet-stream;"),
        (
            "team/m",
            b"\xff\xfeh\0i\0",
            "base64",
            "text/plain; charset=utf-16",
        ),
        ("team/p.html", b"<p>", "7bit", "text/html; charset=us-ascii"),
        ("team/a.pdf", b"%PDF ascii\n", "base64", "application/pdf;"),
        (
            "team/a.csv",
            b"1,2\r\n",
            "base64",
            "text/csv; charset=us-ascii;",
        ),
        (
            "team/a.csv",
            b"1,2\n",
            "7bit",
            "text/csv; charset=us-ascii;",
        ),
        (
            "team/a.patch",
            b"From 1234\n",
            "quoted-printable",
            "text/x-diff; charset=us-ascii;",
        ),
    ] {
        assert_eq!(
            chosen(path, content),
            (encoding.into(), media.into()),
            "{path} {content:?}"
        );
    }
}

#[test]
fn boundaries_do_not_occur_inside() {
    let body: [(&[u8], &[u8]); 2] = [(b"text.txt", b"hello\n"), (b"a.csv", b"x\n")];
    let first = send_directory("team/m", &body).1;
    let text = String::from_utf8(first).unwrap();
    let at = text.find("boundary=\"").unwrap() + 10;
    let boundary = &text[at..at + text[at..].find('"').unwrap()];
    let evil = format!("x\n--{boundary}\nContent-Type: text/html\n\n<p>\n--{boundary}--\n");
    let body: [(&[u8], &[u8]); 2] = [(b"text.txt", evil.as_bytes()), (b"a.csv", b"x\n")];
    let message = stored(&send_directory("team/m", &body).1);
    assert_eq!(file(&message, "text"), evil.as_bytes());
    assert_eq!(file(&message, "a.csv"), b"x\n");
}

const MIXED: &str = "To: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=A\n\
    Content-Transfer-Encoding: 8bit\n\npreamble\n--A\nContent-Type: text/plain; charset=utf-8\n\
    Content-Transfer-Encoding: 8bit\n\ncaf\u{e9}\n--A\nContent-Type: message/rfc822\n\nSubject: in\n\
    Content-Type: text/plain; charset=utf-8\n\nna\u{ef}ve\n--A\nContent-Type: text/plain\n\nascii\n--A--\n";

#[test]
fn a_server_without_8bitmime_gets_7bit() {
    let (composed, message) = send(b"m", &MIXED.as_bytes().to_vec()).unwrap();
    assert!(composed.eight_bit);
    let mut out = Vec::new();
    let size = compose::to_seven_bit(&message, &mut out).unwrap();
    assert!(out.is_ascii() && size == out.len() as u64);
    let text = String::from_utf8(out.clone()).unwrap();
    assert_eq!(text.matches("quoted-printable").count(), 2, "{text}");
    assert!(!text.contains("8bit") && text.contains("\r\npreamble\r\n"));
    let texts = |message: &[u8]| {
        let files = files(&stored(message));
        files
            .into_iter()
            .filter(|(name, _)| !name.starts_with("headers"))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&out), texts(&message));
    let plain = send(b"team/m", &"caf\u{e9}\n".as_bytes().to_vec())
        .unwrap()
        .1;
    let mut out = Vec::new();
    compose::to_seven_bit(&plain, &mut out).unwrap();
    assert!(out.ends_with(b"\r\n\r\ncaf=C3=A9\r\n"));
    let mut same = Vec::new();
    compose::to_seven_bit(&out, &mut same).unwrap();
    assert_eq!(out, same);
    let partial = "To: a@x.org\nContent-Type: message/partial; id=x; number=1\n\ncaf\u{e9}\n";
    let message = send(b"m", &partial.as_bytes().to_vec()).unwrap().1;
    let err = compose::to_seven_bit(&message, &mut Vec::new()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::BadMessage);
}

#[test]
fn long_lines_in_a_full_message_are_encoded() {
    let long = "x".repeat(2000);
    let text = format!(
        "To: a@example.org\nContent-Type: multipart/mixed; boundary=A\n\n--A\n\n{long}\n--A--\n"
    );
    let message = stored(&send(b"m", &text.into_bytes()).unwrap().1);
    assert_eq!(file(&message, "text"), long.as_bytes());
    let text = format!("To: a@example.org\nSubject: x\n\n{long}\0\n");
    let message = stored(&send(b"m", &text.into_bytes()).unwrap().1);
    assert_eq!(file(&message, "text"), format!("{long}\0\n").as_bytes());
}

#[test]
fn the_size_counts_as_it_is_sent() {
    let zeros = vec![0; 3000];
    let aliases = aliases();
    let now = now();
    let rules = Rules {
        aliases: &aliases,
        max_size: Some(4000),
        now: &now,
    };
    let place = place(b"team/a.bin");
    let plan = draft::examine(&place, &zeros, &rules).unwrap();
    let err =
        compose::compose(&plan, &zeros, &account(), &stamp(), &rules, &mut Vec::new()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::MessageTooLong);
}

/// A file of `size` bytes that is nowhere, and the largest piece anybody asked of it.
struct Huge {
    size: u64,
    largest: Cell<usize>,
}

struct HugeStream<'a>(&'a Huge, u64);

impl Content for Huge {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        Ok(Box::new(HugeStream(self, 0)))
    }
}

impl Read for HugeStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.largest.set(self.0.largest.get().max(buf.len()));
        let n = buf
            .len()
            .min(usize::try_from(self.0.size - self.1).unwrap());
        buf[..n].fill(b'\xfe');
        self.1 += n as u64;
        Ok(n)
    }
}

impl Seek for HugeStream<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.1 = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.0.size.saturating_add_signed(by),
            SeekFrom::Current(by) => self.1.saturating_add_signed(by),
        };
        Ok(self.1)
    }
}

struct Sink(usize);

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self.0.max(buf.len());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn large_files_go_through_in_small_pieces() {
    let huge = Huge {
        size: 20_000_000,
        largest: Cell::new(0),
    };
    with_rules(|rules| {
        let plan = draft::examine(&place(b"team/a.iso"), &huge, rules).unwrap();
        let mut sink = Sink(0);
        let composed =
            compose::compose(&plan, &huge, &account(), &stamp(), rules, &mut sink).unwrap();
        assert!(composed.size > 26_000_000);
        assert!(
            sink.0 < 300_000 && huge.largest.get() < 300_000,
            "{} {}",
            sink.0,
            huge.largest.get()
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_come_back_as_they_were(
        name in "[^/\\p{C}\\p{Zl}\\p{Zp}]{1,60}",
        subject in "[^/\\p{C}\\p{Zl}\\p{Zp}]{1,60}",
        content in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            "[ -~\n\u{e9}\r.]{0,3000}".prop_map(String::into_bytes),
            "(From |\\.|--|=_|caf\u{e9}|[a-z ]{0,80}|\n){0,60}".prop_map(String::into_bytes),
        ],
    ) {
        let enclosures: [(&[u8], &[u8]); 2] = [(b"text.txt", b"hi\n"), (name.as_bytes(), &content)];
        prop_assume!(!["text", "html", "headers", "text.txt", "text.html"].contains(&name.as_str()));
        prop_assume!(name != "." && name != ".." && subject != "." && subject != "..");
        prop_assume!(name.len() <= 255 && subject.len() <= 255 && !subject.starts_with('.'));
        let (_, message) = send_directory(&format!("bob@example.org/{subject}"), &enclosures);

        let parsed = MessageParser::new().parse(&message).unwrap();
        prop_assert_eq!(parsed.subject().unwrap_or(""), place(subject.as_bytes()).subject());
        // mail-parser 0.11 takes a message for a message, not for a file.
        if !name.to_lowercase().ends_with(".eml") {
            let attached = parsed.attachment(0).unwrap();
            prop_assert_eq!(attached.attachment_name(), Some(name.as_str()));
            // It sees CRLF where the wire has it; the store, and so our own reader, has LF.
            let stored = stored(&message);
            let parsed = MessageParser::new().parse(&stored).unwrap();
            let attached = parsed.attachment(0).unwrap();
            // It gives text in UTF-8, whatever it was.
            if !attached.is_text() || std::str::from_utf8(&content).is_ok() {
                prop_assert_eq!(attached.contents(), &content[..]);
            }
            let files = files(&stored);
            let own = files.iter().rfind(|(name, _)| !["headers", "text"].contains(&name.as_str())).unwrap();
            prop_assert_eq!(&own.1, &content);
            if !name.starts_with('.') && name.trim() == name && !name.contains('\\') {
                prop_assert_eq!(&own.0, &name);
            }
        }
    }

    #[test]
    fn bodies_come_back_as_they_were(body in prop_oneof![
        "[ -~\n\u{e9}\u{6f22}]{1,2000}",
        "(From |\\.|--|caf\u{e9}|[a-z ]{0,1100}|\n){1,40}",
    ]) {
        let message = stored(&send(b"team/m.html", &body.clone().into_bytes()).unwrap_or_else(|e| panic!("{e}")).1);
        let mut want = body;
        let got = String::from_utf8(file(&message, "html")).unwrap();
        if !want.ends_with('\n') && got.ends_with('\n') {
            want.push('\n');
        }
        prop_assert_eq!(&got, &want);
        let parsed = MessageParser::new().parse(&message).unwrap();
        // Text in base64 has CRLF (RFC 2045 section 6.8), and mail-parser leaves it there.
        let theirs = parsed.body_html(0).map(|t| t.replace("\r\n", "\n")).unwrap_or_default();
        prop_assert_eq!(theirs, want);
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 1..400), head in any::<bool>()) {
        let mut content = if head { b"To: a@x.org\n".to_vec() } else { Vec::new() };
        content.extend(&bytes);
        let _ = send(b"m", &content);
        let _ = send(b"team/m", &content);
        files(&content);
    }
}

/// What each tool does to the file `m` in `outbox/` (mail-peers.md section 5.2), as far as a draft
/// sees it: writes at offsets, truncations, and where the name commits.
#[derive(Debug)]
enum Call {
    Write(u64, &'static str),
    Truncate(u64),
    Flush,
    Close,
}
use Call::{Close, Flush, Truncate, Write as W};

#[test]
fn what_tools_write_is_judged_where_they_notice() {
    const GOOD: &str = "To: a@example.org\n\nhi\n";
    const BAD: &str = "To: a@@example.org\n\nhi\n";
    for (tool, name, calls, verdict) in [
        (
            "echo",
            "m",
            &[Truncate(0), Flush, W(0, GOOD), Flush, Close][..],
            Ok(()),
        ),
        (
            "echo",
            "m",
            &[Truncate(0), Flush, W(0, BAD), Flush, Close],
            Err(ErrorKind::BadMessage),
        ),
        (
            "echo",
            "m",
            &[Truncate(0), Flush, W(0, "hi\n"), Flush, Close],
            Err(ErrorKind::NoRecipient),
        ),
        ("cat <<EOF", "m", &[Flush, W(0, GOOD), Flush, Close], Ok(())),
        (
            "{ a; b; c; } >",
            "m",
            &[
                Flush,
                W(0, "To: a@exa"),
                W(9, "mple.org\n"),
                Flush,
                W(18, "\n"),
                Flush,
                W(19, "hi\n"),
                Flush,
                Close,
            ],
            Ok(()),
        ),
        // The shell goes on after the refused write; nothing of the rest may be sent.
        (
            "{ a; b; c; } >",
            "m",
            &[
                Flush,
                W(0, "Subject: x\n"),
                W(11, "\n"),
                W(11, "To: a@example.org\n\nhi\n"),
                Flush,
                Close,
            ],
            Err(ErrorKind::NoRecipient),
        ),
        ("cp", "m", &[W(0, GOOD), Flush, Close], Ok(())),
        ("mv", "m", &[W(0, GOOD), Flush, Close], Ok(())),
        (
            "tee",
            "m",
            &[W(0, "To: a@example.org\n"), W(18, "\nhi\n"), Flush, Close],
            Ok(()),
        ),
        (
            "dd bs=8",
            "m",
            &[
                Flush,
                W(0, "To: a@ex"),
                W(8, "ample.or"),
                W(16, "g\n\nhi\n"),
                Flush,
                Close,
            ],
            Ok(()),
        ),
        ("install", "m", &[W(0, GOOD), Flush, Close], Ok(())),
        ("rsync", ".m.Xy12Zw", &[W(0, GOOD), Flush, Close], Ok(())),
        ("sed -i", "sedA1b2C3", &[W(0, GOOD), Flush, Close], Ok(())),
        ("vi", "m", &[Truncate(0), W(0, GOOD), Flush, Close], Ok(())),
        (
            "touch",
            "m",
            &[Flush, Flush, Close],
            Err(ErrorKind::BadMessage),
        ),
        (
            "echo >; echo >>",
            "m",
            &[
                W(0, "To: a@example.org\n\n"),
                Close,
                W(19, "more\n"),
                Flush,
                Close,
            ],
            Ok(()),
        ),
        ("perl", "m", &[W(0, GOOD), Close], Ok(())),
        ("python", "m", &[W(0, GOOD), Close], Ok(())),
        (
            "rewriting in place",
            "m",
            &[W(0, "To: x\n\n"), Close],
            Err(ErrorKind::BadMessage),
        ),
        (
            "cp over it",
            "m",
            &[
                W(0, "To: a@example.org\n\nlong old text"),
                Truncate(0),
                W(0, GOOD),
                Close,
            ],
            Ok(()),
        ),
    ] {
        with_rules(|rules| {
            let mut draft = Draft::new(place(name.as_bytes()));
            let mut file = Vec::new();
            for call in calls {
                match call {
                    W(offset, text) => {
                        if draft.write(*offset, text.as_bytes(), rules).is_ok() {
                            file.truncate(*offset as usize);
                            file.extend_from_slice(text.as_bytes());
                        }
                    }
                    Truncate(size) => {
                        draft.truncate(*size);
                        file.truncate(*size as usize);
                    }
                    Flush | Close => {}
                }
            }
            // rsync and sed rename what they wrote; that is when it is judged.
            let committed = if is_unfinished(name.as_bytes()) {
                "m"
            } else {
                name
            };
            let judged = match draft.refused() {
                Some(err) => Err(err.kind()),
                None => draft::examine(&place(committed.as_bytes()), &file, rules)
                    .map(drop)
                    .map_err(|e| e.kind()),
            };
            assert_eq!(judged, verdict, "{tool}");
        });
    }
}

const READER: &str = r#"
import sys, json, base64, email, email.policy
def parts(m):
    if m.is_multipart():
        return [m.get_content_type(), [parts(p) for p in m.iter_parts()]]
    body = m.get_payload(decode=True)
    return [m.get_content_type(), m.get_filename(), base64.b64encode(body).decode()]
for line in sys.stdin:
    m = email.message_from_bytes(base64.b64decode(line), policy=email.policy.default)
    print(json.dumps([m["subject"], str(m["to"]), parts(m), [str(d) for d in m.defects]]), flush=True)
"#;

#[test]
fn python_reads_the_same_parts() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let samples: [(&str, &str, &[u8]); 9] = [
        ("Weekly report", "a.bin", b"\0\x01\xff\r\n\r\n"),
        (
            "Gr\u{fc}\u{df}e aus M\u{fc}nchen, und zwar ein sehr langer Betreff, der gefaltet werden mu\u{df}",
            "caf\u{e9}.pdf",
            b"%PDF",
        ),
        (
            "=?utf-8?Q?fake?=",
            "quote\"back\\slash;semi=x.txt",
            b"a\nFrom b\n.\n",
        ),
        (
            "\u{6f22}\u{5b57}".repeat(20).leak(),
            "\u{6f22}\u{5b57}".repeat(20).leak(),
            b"text\n",
        ),
        ("spaces  two", "a  b.csv", b"1,2\r\n3,4\r\n"),
        ("emoji \u{1f600}", "\u{1f600}.png", &[0x89; 500]),
        ("x", "100%.txt", b"no end of line"),
        ("x", "it's.txt", "caf\u{e9}\n".as_bytes()),
        ("x", "long.txt", &[b'y'; 3000]),
    ];
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), READER).unwrap();
    let mut python = Command::new("python3")
        .arg(script.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for this test");
    let mut input = String::new();
    for (subject, name, content) in samples {
        let files: [(&[u8], &[u8]); 3] = [
            (b"text.txt", b"hello\n"),
            (b"text.html", "<p>\u{e9}\n".as_bytes()),
            (name.as_bytes(), content),
        ];
        let (_, message) = send_directory(&format!("Bob B. <bob@example.org>/{subject}"), &files);
        input += &format!("{}\n", STANDARD.encode(stored(&message)));
    }
    python
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.len(), samples.len());
    for ((subject, name, content), read) in samples.into_iter().zip(lines) {
        let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
        assert_eq!(read[0], subject);
        assert_eq!(read[1], "\"Bob B.\" <bob@example.org>");
        let parts = &read[2][1];
        assert_eq!(read[2][0], "multipart/mixed");
        assert_eq!(parts[0][0], "multipart/alternative");
        assert_eq!(
            parts[0][1][0],
            serde_json::json!(["text/plain", null, encoded(b"hello\n")])
        );
        assert_eq!(
            parts[0][1][1],
            serde_json::json!(["text/html", null, encoded("<p>\u{e9}\n".as_bytes())])
        );
        assert_eq!(parts[1][1], name);
        assert_eq!(parts[1][2], encoded(content), "{name}");
        assert_eq!(read[3], serde_json::json!([]), "{name}");
    }
}
