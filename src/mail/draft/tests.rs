#![allow(clippy::unwrap_used)]

use jiff::{Timestamp, tz::TimeZone};

use super::*;
use crate::vfs::path::RemotePath;

fn now() -> ZonedDateTime {
    Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC)
}

fn place(path: &str) -> Place {
    Place::of_file(&RemotePath::parse(path.as_bytes()).unwrap(), &now()).unwrap()
}

fn with_rules<R>(work: impl FnOnce(&Rules<'_>) -> R) -> R {
    let aliases = Aliases::parse(b"team: a@x.org, b@x.org\nloop: loop\n");
    work(&Rules {
        aliases: &aliases,
        max_size: Some(400_000),
        now: &now(),
    })
}

/// What a file of these pieces is told: the piece whose write is refused, and the verdict.
fn written(path: &str, pieces: &[&str]) -> (Option<usize>, std::result::Result<Plan, ErrorKind>) {
    with_rules(|rules| {
        let mut draft = Draft::new(place(path));
        let mut offset = 0;
        for (n, piece) in pieces.iter().enumerate() {
            if let Err(err) = draft.write(offset, piece.as_bytes(), rules) {
                assert!(!err.detail().is_empty() && !err.detail().contains('\n'));
                assert_eq!(draft.write(0, b"To: a@x.org\n\n", rules).unwrap_err(), err);
                return (Some(n), Err(err.kind()));
            }
            offset += piece.len() as u64;
        }
        let whole = pieces.concat().into_bytes();
        (
            None,
            examine(&place(path), &whole, rules).map_err(|err| err.kind()),
        )
    })
}

#[test]
fn the_write_that_shows_the_fault_is_refused() {
    for (path, pieces, refused, kind) in [
        // No header and nobody in the directory's name.
        (
            "m",
            &["hello world\n", "more\n"][..],
            0,
            ErrorKind::NoRecipient,
        ),
        ("m", &["hello w"], 0, ErrorKind::NoRecipient),
        ("m", &["\n"], 0, ErrorKind::NoRecipient),
        (
            "m",
            &["Subject: x\n", "From: a@x.org\n", "\n", "body"],
            2,
            ErrorKind::NoRecipient,
        ),
        ("m", &["To: \n", "\n", "body"], 1, ErrorKind::NoRecipient),
        (
            "m",
            &["To: a@@x.org\n", "Subject: x\n"],
            1,
            ErrorKind::BadMessage,
        ),
        (
            "m",
            &["To: a@x.org\nnot a field\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        ("m", &["To: eve\n\n"], 0, ErrorKind::BadMessage),
        ("m", &["Bcc: loop\n\n"], 0, ErrorKind::BadMessage),
        (
            "m",
            &["To: a@x.org\nSubject: 1\nSubject: 2\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        (
            "m",
            &["To: a@x.org\nX-Send-At: soon\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        (
            "m",
            &["To: a@x.org\nX-DSN: never, success\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        (
            "m",
            &["To: a@x.org\nX-Separate: perhaps\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        (
            "m",
            &["To: a@x.org\nSubject: a\rb\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        (
            "m",
            &["From: me\nTo: a@x.org\n\n"],
            0,
            ErrorKind::BadMessage,
        ),
        ("eve/m", &["hello"], 0, ErrorKind::BadMessage),
        ("team/m", &["Subject: x\noops\n"], 0, ErrorKind::BadMessage),
    ] {
        let (at, verdict) = written(path, pieces);
        assert_eq!(
            (at, verdict.unwrap_err()),
            (Some(refused), kind),
            "{path} {pieces:?}"
        );
    }
}

#[test]
fn good_files_are_taken_however_they_are_cut() {
    for (path, text, kind, to) in [
        (
            "m",
            "To: a@x.org\nSubject: x\n\nbody\n",
            Kind::Message,
            "a@x.org",
        ),
        (
            "m",
            "To: a@x.org,\n team\r\nBcc: z@x.org\r\n\r\nbody",
            Kind::Message,
            "a@x.org b@x.org z@x.org",
        ),
        ("m", "To: a@x.org", Kind::Message, "a@x.org"),
        ("m", "\u{feff}To: a@x.org\n\nx", Kind::Message, "a@x.org"),
        (
            "m",
            "From z@y.org Thu Jan  1 00:00:00 1970\nTo: a@x.org\n\nx",
            Kind::Message,
            "a@x.org",
        ),
        (
            "m",
            "Resent-To: r@x.org\nTo: a@x.org\n\nx",
            Kind::Message,
            "r@x.org",
        ),
        (
            "m",
            "Resent-To: r@x.org\nResent-From: q@x.org\nResent-To: old@x.org\nTo: a@x.org\n\nx",
            Kind::Message,
            "r@x.org",
        ),
        ("c@x.org/m", "hello\n", Kind::Body, "c@x.org"),
        ("c@x.org/m", "Dear Bob: hi\n", Kind::Body, "c@x.org"),
        (
            "c@x.org/m",
            "Note: buy milk\nand eggs\n",
            Kind::Body,
            "c@x.org",
        ),
        (
            "c@x.org/m",
            "Note: buy milk\n\nand eggs\n",
            Kind::Body,
            "c@x.org",
        ),
        (
            "c@x.org/m",
            "From now on\nit rains\n",
            Kind::Body,
            "c@x.org",
        ),
        ("c@x.org/m", "Subject: hi\n", Kind::Message, "c@x.org"),
        (
            "c@x.org/m",
            "X-Odd: y\nCc: d@x.org\n\nx",
            Kind::Message,
            "c@x.org d@x.org",
        ),
        // An old message moved there goes to nobody else.
        (
            "c@x.org/m",
            "To: old@x.org\nCc: d@x.org\n\nx",
            Kind::Message,
            "c@x.org",
        ),
        (
            "team/photo.jpg",
            "\u{1}\u{2}",
            Kind::Attachment("image/jpeg"),
            "a@x.org b@x.org",
        ),
        (
            "team/notes.yaml",
            "Subject: x\n",
            Kind::Attachment("application/yaml"),
            "a@x.org b@x.org",
        ),
        (
            "team/page.html",
            "<p>Subject: x\n",
            Kind::Body,
            "a@x.org b@x.org",
        ),
        (
            "team/x.eml",
            "Odd: x\n\nbody",
            Kind::Message,
            "a@x.org b@x.org",
        ),
        ("now/team/x.txt", "hi", Kind::Body, "a@x.org b@x.org"),
    ] {
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        for pieces in [&[text][..], &bytes] {
            let (refused, plan) = written(path, pieces);
            assert_eq!(refused, None, "{path} {text:?}");
            let plan = plan.unwrap();
            let got: Vec<_> = plan.recipients.iter().map(|m| m.address.as_str()).collect();
            assert_eq!(
                (plan.kind, got.join(" ").as_str()),
                (kind, to),
                "{path} {text:?}"
            );
        }
    }
}

#[test]
fn a_rewritten_beginning_is_judged_again() {
    with_rules(|rules| {
        let mut draft = Draft::new(place("m"));
        draft.write(0, b"To: a@x.org\nSubject: x\n", rules).unwrap();
        draft.write(4, b"b@x.org", rules).unwrap();
        assert_eq!(
            draft.write(4, b"b@@@@@@\nQ: ", rules).unwrap_err().kind(),
            ErrorKind::BadMessage
        );
        assert!(draft.refused().is_some());
        draft.truncate(5);
        assert!(draft.write(5, b"x", rules).is_err());
        draft.truncate(0);
        draft.write(0, b"To: a@x.org\n\nbody", rules).unwrap();
        assert!(draft.refused().is_none());
        // A hole: nothing can be said before the file is whole.
        draft.truncate(0);
        draft.write(100, b"no header", rules).unwrap();
        draft.write(0, b"To: a@@x.org\n\n", rules).unwrap();
    });
}

#[test]
fn too_large_is_refused_at_the_write_that_is() {
    with_rules(|rules| {
        let mut draft = Draft::new(place("team/m"));
        draft.write(0, &[b'x'; 300_000], rules).unwrap();
        let err = draft.write(300_000, &[b'x'; 100_001], rules).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::MessageTooLong);
        let mut draft = Draft::new(place("m"));
        let header = format!("To: a@x.org\nX: {}", "y".repeat(HEADER_MAX));
        assert_eq!(
            draft.write(0, header.as_bytes(), rules).unwrap_err().kind(),
            ErrorKind::BadMessage
        );
        assert_eq!(
            examine(&place("m"), &header.into_bytes(), rules)
                .unwrap_err()
                .kind(),
            ErrorKind::BadMessage
        );
        assert_eq!(
            examine(&place("team/m"), &Vec::new(), rules)
                .unwrap_err()
                .kind(),
            ErrorKind::BadMessage
        );
    });
}

#[test]
fn wishes_are_understood() {
    let text = "To: a@x.org\nX-Send-At: +2h\nX-Separate: yes\nX-DSN: success, FAILURE\nX-Account: work\n\nx";
    let wishes = written("m", &[text]).1.unwrap().header.wishes;
    assert_eq!(
        wishes.send_at,
        Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7200))
    );
    assert!(wishes.separate);
    assert_eq!(wishes.notify.as_deref(), Some("SUCCESS,FAILURE"));
    assert_eq!(wishes.account.as_deref(), Some("work"));
    let at = written("at/1970-01-01T05:00/team/m", &["x"])
        .1
        .unwrap()
        .header
        .wishes
        .send_at;
    assert_eq!(
        at,
        Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5 * 3600))
    );
}

#[test]
fn no_number_of_fields_takes_long() {
    let fields = "a:\n".repeat(80_000);
    let message = format!("To: bob@example.org\n{fields}\nhi\n");
    let begun = std::time::Instant::now();
    let (_, plan) = written("m", &[&message]);
    plan.unwrap();
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}
