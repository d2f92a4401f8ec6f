use std::sync::Arc;

use super::*;
use crate::mail::envelope::{Envelope, address};
use crate::mail::queue::{Id, State};

fn entry() -> Entry {
    let names = ["bob@example.org", "jürgen@exämple.org"];
    let names = names.map(|name| address(name).unwrap()).to_vec();
    let mut envelope = Envelope::new(Some(address("alice@example.org").unwrap()), names);
    envelope.message_id = Some("<1@example.org>".into());
    envelope.subject = "Grüße".into();
    let mut entry = Entry::for_tests(Id::parse("id1").unwrap(), Arc::new(envelope));
    for (progress, text) in entry
        .recipients
        .iter_mut()
        .zip(["550 5.1.1 No such user", "gave up"])
    {
        progress.state = State::Failed;
        progress.text = text.into();
    }
    entry
}

const MESSAGE: &[u8] =
    b"Message-ID: <1@example.org>\r\nSubject: x\r\n\r\nfirst --=_id1\r\n\xc3\xa9\r\n";

fn failed(entry: &Entry) -> Option<Vec<u8>> {
    report(
        Occasion::Failed,
        entry,
        &[0, 1],
        "here.example",
        &mut &MESSAGE[..],
    )
    .unwrap()
}

#[test]
fn a_failure_report_can_be_read_by_anybody() {
    let bytes = failed(&entry()).unwrap();
    assert!(!bytes.contains(&b'\r'));
    let parsed = mail_parser::MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(parsed.subject().unwrap(), "Undelivered mail: Grüße");
    assert_eq!(parsed.attachment_count(), 2);
    let text = parsed.body_text(0).unwrap();
    assert!(
        text.contains("bob@example.org\n    550 5.1.1 No such user"),
        "{text}"
    );
    let ours = Incoming::parse(&bytes).unwrap();
    assert_eq!(ours.message_id.as_deref(), Some("<1@example.org>"));
    assert!(ours.is_about("id1", None));
    assert!(ours.is_about("other", Some("<1@example.org>")));
    assert!(!ours.is_about("other", None));
    let recipients: Vec<_> = ours
        .recipients
        .iter()
        .map(|r| {
            (
                r.address.as_str(),
                r.action,
                r.status.as_str(),
                r.diagnostic.as_str(),
            )
        })
        .collect();
    assert_eq!(
        recipients,
        [
            (
                "bob@example.org",
                Action::Failed,
                "5.1.1",
                "550 5.1.1 No such user"
            ),
            (
                "jürgen@xn--exmple-cua.org",
                Action::Failed,
                "5.4.7",
                "gave up"
            ),
        ]
    );
}

#[test]
fn mail_without_a_sender_and_mail_that_wants_none_get_no_report() {
    let mut silent = entry();
    let mut envelope = (*silent.envelope).clone();
    envelope.sender = None;
    silent.envelope = Arc::new(envelope.clone());
    assert_eq!(failed(&silent), None);
    envelope.sender = Some(address("alice@example.org").unwrap());
    for recipient in &mut envelope.recipients {
        recipient.notify = Some(Notify::default());
    }
    silent.envelope = Arc::new(envelope);
    assert_eq!(failed(&silent), None);
}

#[test]
fn headers_alone_come_back_on_wish_and_a_delay_says_until_when() {
    let mut delayed = entry();
    let mut envelope = (*delayed.envelope).clone();
    envelope.bring_back = Some(BringBack::Headers);
    delayed.envelope = Arc::new(envelope);
    let occasion = Occasion::Delayed { until: 86_400 };
    let bytes = report(occasion, &delayed, &[0], "here.example", &mut &MESSAGE[..]).unwrap();
    let text = String::from_utf8(bytes.unwrap()).unwrap();
    assert!(text.contains("Content-Type: text/rfc822-headers"));
    assert!(text.contains("\n\nMessage-ID: <1@example.org>\nSubject: x\n\n--="));
    assert!(!text.contains("first"));
    assert!(text.contains("Action: delayed\nStatus: 4.0.0\n"));
    assert!(
        text.contains("Will-Retry-Until: Fri, 2 Jan 1970 00:00:00 +0000\n"),
        "{text}"
    );
}

#[test]
fn reports_of_postfix_and_exim_are_understood() {
    let postfix = "From: MAILER-DAEMON@mx\nContent-Type: multipart/report; report-type=delivery-status;\n\
        \tboundary=\"b\"\n\n--b\nContent-Type: text/plain\n\nsorry\n--b\n\
        Content-Type: message/delivery-status\n\n\
        Reporting-MTA: dns; mx.example.com\nOriginal-Envelope-Id: id+2B1\n\n\
        Final-Recipient: rfc822; nosuch@example.com\n\
        Original-Recipient: rfc822;team+40example.com\nAction: failed\nStatus: 5.1.1\n\
        Diagnostic-Code: smtp; 550 5.1.1 <nosuch@example.com>:\n    Recipient address rejected\n\n\
        --b\nContent-Type: message/rfc822\n\nMessage-ID: <x@y>\nSubject: s\n\nbody\n--b--\n";
    let report = Incoming::parse(postfix.as_bytes()).unwrap();
    assert_eq!(report.envelope_id.as_deref(), Some("id+1"));
    assert_eq!(report.message_id.as_deref(), Some("<x@y>"));
    assert_eq!(report.reporter.as_deref(), Some("mx.example.com"));
    let recipient = report.recipients.first().unwrap();
    assert_eq!(recipient.original.as_deref(), Some("team@example.com"));
    assert_eq!(
        recipient.diagnostic,
        "550 5.1.1 <nosuch@example.com>: Recipient address rejected"
    );
    assert_eq!(Incoming::parse(b"Subject: x\n\nAction: failed\n"), None);
    for cut in 0..postfix.len() {
        let _ = Incoming::parse(postfix.as_bytes().get(..cut).unwrap());
    }
}

#[test]
fn no_report_is_nested_too_deep() {
    let mut bomb = b"Content-Type: multipart/report; boundary=b\n\n--b\n".to_vec();
    while bomb.len() < 4 << 20 {
        bomb.extend_from_slice(b"Content-Type: message/rfc822\n\n");
    }
    // On a thread as small as those that fetch.
    let read = std::thread::spawn(move || Incoming::parse(&bomb).is_some());
    assert!(!read.join().unwrap());
    let mut bomb = Vec::new();
    let mut number = 0;
    while bomb.len() < 4 << 20 {
        number += 1;
        bomb.extend_from_slice(
            format!("Content-Type: multipart/report; boundary=b{number}\n\n--b{number}\n")
                .as_bytes(),
        );
    }
    let read = std::thread::spawn(move || Incoming::parse(&bomb).is_some());
    assert!(!read.join().unwrap());
}
