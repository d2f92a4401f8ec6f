//! The SMTP client against a server that does everything right, everything wrong, or stops.

use std::time::{Duration, Instant};

use ferryfs::mail::connect::{Connector, Endpoint, Security};
use ferryfs::mail::envelope::{Envelope, address};
use ferryfs::mail::failure::{Class, Failure, Result};
use ferryfs::mail::sasl::Mechanism;
use ferryfs::mail::smtp::{
    Credentials, Encryption, Extensions, Measure, Outcome, Session, Terms, Timeouts, Transaction,
    Unfit, Verdict,
};
use ferryfs::secret::Secret;

use crate::support::smtpd::{Drop, PASSWORD, Quirks, Smtpd, USER};

const TIMEOUT: Duration = Duration::from_millis(500);
const BODY: &[u8] = b"Subject: x\n\n.dot\nbare\rcr\n..\n\ncaf\xc3\xa9";
const ON_WIRE: &[u8] = b"Subject: x\r\n\r\n..dot\r\nbare\r\ncr\r\n...\r\n\r\ncaf\xc3\xa9\r\n";

fn connector(server: &Smtpd, security: Security) -> Connector {
    Connector::new(Endpoint {
        host: "localhost".into(),
        port: server.port,
        security,
        trust: Box::new(ferryfs::net::trust::TlsOptions {
            ca_file: Some(server.ca_file.clone()),
            ..Default::default()
        }),
        proxy: None,
        timeout: TIMEOUT,
        bind: None,
    })
    .unwrap()
}

fn terms() -> Terms {
    Terms {
        timeouts: Timeouts::all(TIMEOUT),
        ..Terms::new("client.example")
    }
}

fn open(server: &Smtpd) -> Result<Session> {
    let connector = connector(server, Security::Off);
    Session::open(&connector, &terms(), None, &mut |_| ())
}

fn log_in(
    server: &Smtpd,
    security: Security,
    mechanism: Option<Mechanism>,
    secret: &str,
) -> Result<Session> {
    let secret = Secret::new(secret);
    let who = Credentials {
        user: USER,
        secret: &secret,
        is_token: mechanism.is_some_and(Mechanism::takes_token),
        mechanism,
    };
    Session::open(
        &connector(server, security),
        &terms(),
        Some(&who),
        &mut |_| (),
    )
}

fn envelope(recipients: &[&str], body: &[u8]) -> Envelope {
    let to = recipients
        .iter()
        .map(|name| address(&format!("{name}@example.org")).unwrap());
    let mut envelope = Envelope::new(Some(address("alice@example.org").unwrap()), to.collect());
    let mut measure = Measure::default();
    measure.add(body);
    envelope.needs = measure.finish();
    envelope
}

fn transaction(offered: &Extensions, recipients: &[&str], body: &[u8]) -> Transaction {
    let all: Vec<_> = (0..recipients.len()).collect();
    Transaction::new(offered, &envelope(recipients, body), &all, "id1").unwrap()
}

fn carry(session: &mut Session, recipients: &[&str], body: &[u8]) -> Outcome {
    let transaction = transaction(session.extensions(), recipients, body);
    session.carry(&transaction, &mut &*body, &mut || Ok(()), None)
}

fn verdicts(outcome: &Outcome) -> Vec<Verdict> {
    outcome.answers.iter().map(|a| a.verdict).collect()
}

/// One message to Bob over a connection of its own.
fn send(server: &Smtpd) -> Outcome {
    carry(&mut open(server).unwrap(), &["bob"], BODY)
}

use Verdict::{Accepted, Account, Deferred, InDoubt, Refused, TooMany};

#[test]
fn a_message_arrives_byte_for_byte_with_or_without_extensions() {
    let none = Quirks {
        extensions: vec!["8BITMIME".into()],
        ..Quirks::default()
    };
    for quirks in [
        Quirks::default(),
        none,
        Quirks::default().without("PIPELINING"),
    ] {
        let server = Smtpd::start(quirks);
        let mut session = open(&server).unwrap();
        for _ in 0..3 {
            let outcome = carry(&mut session, &["bob", "carol"], BODY);
            assert_eq!(verdicts(&outcome), [Accepted, Accepted], "{outcome:?}");
            assert!(outcome.failure.is_none() && !outcome.dot_sent);
        }
        session.quit();
        let received = server.received();
        assert_eq!(received.len(), 3);
        for one in received {
            assert_eq!(one.raw, ON_WIRE);
            assert!(one.mail.starts_with("MAIL FROM:<alice@example.org>"));
            assert!(one.mail.contains(" BODY=8BITMIME"));
            assert_eq!(one.rcpts.len(), 2);
        }
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn a_chunk_arrives_byte_for_byte_where_it_is_of_use() {
    let large = [BODY, &b"\n.x".repeat(400_000)].concat();
    let long = [BODY, &[b'y'; 2000]].concat();
    let chunking = || Quirks::default().with("CHUNKING");
    for (quirks, body, chunk) in [
        (chunking(), BODY, false),
        (chunking(), &large, true),
        (chunking().without("PIPELINING"), BODY, true),
        (chunking().without("PIPELINING"), &large, true),
        (chunking(), &long, false),
        (chunking().with("BINARYMIME"), &long, true),
    ] {
        let quirks = quirks.recipient("nosuch@example.org", &["550 5.1.1 no"]);
        let server = Smtpd::start(quirks);
        let mut session = open(&server).unwrap();
        let transactions: Vec<_> = [&["bob", "nosuch"][..], &["nosuch"], &["carol"], &["dave"]]
            .map(|names| transaction(session.extensions(), names, body))
            .into();
        let mut got = Vec::new();
        for (at, one) in transactions.iter().enumerate() {
            let outcome = session.carry(one, &mut &*body, &mut || Ok(()), transactions.get(at + 1));
            assert!(outcome.failure.is_none(), "{outcome:?}");
            got.extend(verdicts(&outcome));
        }
        assert_eq!(got, [Accepted, Refused, Refused, Accepted, Accepted]);
        session.quit();
        let kept = server.kept();
        assert_eq!(kept.len(), 3);
        for one in &kept {
            assert_eq!(one.chunk, chunk);
            let mut want = String::from_utf8(body.to_vec()).unwrap();
            want = want.replace('\r', "\n") + "\n";
            assert!(one.text() == want.replace('\n', "\r\n").into_bytes());
        }
        let binary = kept.iter().all(|one| one.mail.contains(" BODY=BINARYMIME"));
        assert_eq!(binary, chunk && body.len() == long.len());
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn a_server_that_does_not_know_the_chunks_it_offers_has_said_nothing_of_the_message() {
    let server = Smtpd::start(Quirks {
        no_bdat: Some("502 5.5.1 unknown".into()),
        ..Quirks::default().with("CHUNKING").without("PIPELINING")
    });
    let mut session = open(&server).unwrap();
    let outcome = carry(&mut session, &["bob"], BODY);
    assert_eq!(verdicts(&outcome), [Deferred], "{outcome:?}");
    assert!(outcome.chunk_refused && !outcome.dot_sent && !session.is_usable());
    let mut session = open(&server).unwrap();
    session.forgo_chunks();
    let outcome = carry(&mut session, &["bob"], BODY);
    assert_eq!(verdicts(&outcome), [Accepted], "{outcome:?}");
    // What is there is not what was measured: nothing is ended.
    let mut session = open(&server).unwrap();
    let short = transaction(session.extensions(), &["bob"], BODY);
    let outcome = session.carry(&short, &mut &BODY[1..], &mut || panic!("dot"), None);
    assert_eq!(verdicts(&outcome), [Deferred], "{outcome:?}");
    assert_eq!(server.received().len(), 1);
}

#[test]
fn each_recipient_has_its_own_answer() {
    for quirks in [Quirks::default(), Quirks::default().without("PIPELINING")] {
        let server = Smtpd::start(
            quirks
                .recipient("nosuch@example.org", &["550 5.1.1 no such user"])
                .recipient("grey@example.org", &["450 4.7.1 greylisted", "250 ok"])
                .recipient("full@example.org", &["452 4.5.3 too many"])
                .recipient("moved@example.org", &["251 will forward"]),
        );
        let mut session = open(&server).unwrap();
        let names = ["nosuch", "bob", "grey", "full", "moved"];
        let outcome = carry(&mut session, &names, BODY);
        assert_eq!(
            verdicts(&outcome),
            [Refused, Accepted, Deferred, TooMany, Accepted]
        );
        assert_eq!(outcome.answers[0].text, "550 5.1.1 no such user");
        assert_eq!(outcome.answers[1].text, "250 2.0.0 Ok: queued");
        let again = carry(&mut session, &["grey"], BODY);
        assert_eq!(verdicts(&again), [Accepted]);
        assert_eq!(server.received()[0].rcpts.len(), 2);
    }
}

#[test]
fn when_nobody_is_accepted_nothing_is_sent_and_the_session_lives() {
    let no = |q: Quirks| q.recipient("nosuch@example.org", &["550 5.1.1 no"]);
    for quirks in [
        no(Quirks::default()),
        no(Quirks::default().without("PIPELINING")),
        no(Quirks {
            always_354: true,
            ..Quirks::default()
        }),
    ] {
        let server = Smtpd::start(quirks);
        let mut session = open(&server).unwrap();
        let outcome = carry(&mut session, &["nosuch"], BODY);
        assert_eq!(verdicts(&outcome), [Refused]);
        assert_eq!(outcome.answers[0].text, "550 5.1.1 no");
        assert!(
            server
                .received()
                .iter()
                .all(|r| r.raw.is_empty() && !r.kept)
        );
        let outcome = carry(&mut session, &["bob"], BODY);
        assert_eq!(verdicts(&outcome), [Accepted], "{:?}", server.log());
    }
}

#[test]
fn a_refused_sender_refuses_all_and_the_session_lives() {
    for quirks in [Quirks::default(), Quirks::default().without("PIPELINING")] {
        let server = Smtpd::start(quirks);
        let forge = |reply: Option<&str>| {
            server.with(|s| match reply {
                Some(reply) => drop(s.quirks.forged.insert("MAIL".into(), reply.into())),
                None => s.quirks.forged.clear(),
            });
        };
        forge(Some("553 5.7.1 not your address"));
        let outcome = send(&server);
        assert_eq!(verdicts(&outcome), [Refused]);
        assert!(outcome.failure.is_none());
        forge(Some("530 5.7.0 log in"));
        assert_eq!(verdicts(&send(&server)), [Account]);
        forge(Some("452 4.3.1 disk full"));
        assert_eq!(verdicts(&send(&server)), [Deferred]);
        forge(Some("421 4.3.2 going down"));
        let outcome = send(&server);
        assert_eq!(verdicts(&outcome), [Deferred]);
        assert!(outcome.failure.is_some());
        forge(None);
        assert_eq!(verdicts(&send(&server)), [Accepted]);
    }
}

#[test]
fn the_answer_to_the_message_is_for_all() {
    let server = Smtpd::start(Quirks {
        finals: ["554 5.7.1 spam", "451 4.3.0 later", "421 4.3.2 bye", "250"]
            .map(String::from)
            .into(),
        ..Quirks::default().recipient("nosuch@example.org", &["550 no"])
    });
    let mut session = open(&server).unwrap();
    let next = |session: &mut Session| verdicts(&carry(session, &["bob", "nosuch"], BODY));
    assert_eq!(next(&mut session), [Refused, Refused]);
    assert_eq!(next(&mut session), [Deferred, Refused]);
    assert_eq!(next(&mut session), [Deferred, Refused]);
    assert!(!session.is_usable());
    assert_eq!(next(&mut open(&server).unwrap()), [Accepted, Refused]);
}

#[test]
fn a_lost_connection_is_safe_before_the_dot_and_in_doubt_behind_it() {
    let large = [BODY, &b"x\n".repeat(500_000)].concat();
    for (pipelining, chunk) in [(true, false), (false, false), (true, true), (false, true)] {
        for (drop, want) in [
            (Drop::At("MAIL"), Deferred),
            (Drop::At("RCPT"), Deferred),
            (Drop::At(if chunk { "BDAT" } else { "DATA" }), Deferred),
            (Drop::InBody(200_000), Deferred),
            (Drop::AfterDot { kept: true }, InDoubt),
            (Drop::AfterDot { kept: false }, InDoubt),
        ] {
            let quirks = Quirks {
                drop: Some(drop.clone()),
                ..Quirks::default()
            };
            let quirks = if pipelining {
                quirks
            } else {
                quirks.without("PIPELINING")
            };
            let quirks = if chunk {
                quirks.with("CHUNKING")
            } else {
                quirks
            };
            let server = Smtpd::start(quirks);
            let mut session = open(&server).unwrap();
            let outcome = carry(&mut session, &["bob"], &large);
            assert_eq!(verdicts(&outcome), [want], "{drop:?}: {outcome:?}");
            assert!(outcome.failure.is_some());
            assert_eq!(outcome.dot_sent, want == InDoubt, "{drop:?}");
            assert!(!session.is_usable());
        }
    }
}

#[test]
fn a_refusal_in_the_middle_of_a_message_is_heard() {
    let large = [BODY, &b"x\n".repeat(4_000_000)].concat();
    for security in [Security::Off, Security::Implicit] {
        for (early, want) in [
            ("552 5.3.4 too large", Refused),
            ("421 4.3.2 bye", Deferred),
        ] {
            let server = Smtpd::start(Quirks {
                early: Some((100_000, early.into())),
                tls: security == Security::Implicit,
                ..Quirks::default().without("SIZE")
            });
            let connector = connector(&server, security);
            let mut session = Session::open(&connector, &terms(), None, &mut |_| ()).unwrap();
            let outcome = carry(&mut session, &["bob"], &large);
            assert_eq!(verdicts(&outcome), [want], "{outcome:?}");
            assert_eq!(outcome.answers[0].text, early);
            assert!(!session.is_usable());
        }
    }
}

#[test]
fn the_end_of_the_message_goes_out_only_when_the_journal_is_ready() {
    let large = [BODY, &b"x\n".repeat(500_000)].concat();
    for body in [BODY, &large] {
        let server = Smtpd::start(Quirks::default());
        let mut session = open(&server).unwrap();
        let transaction = transaction(session.extensions(), &["bob"], body);
        let mut refuse = || Err(Failure::new(Class::Local, "disk full"));
        let outcome = session.carry(&transaction, &mut &*body, &mut refuse, None);
        assert_eq!(verdicts(&outcome), [Deferred]);
        assert_eq!(outcome.answers[0].text, "disk full");
        drop(session);
        std::thread::sleep(Duration::from_millis(100));
        assert!(server.received().is_empty());
    }
}

#[test]
fn the_next_envelope_travels_with_the_message() {
    let server = Smtpd::start(Quirks::default().recipient("nosuch@example.org", &["550 no"]));
    let mut session = open(&server).unwrap();
    let names = ["bob", "nosuch", "carol", "nosuch", "dave"];
    let all: Vec<_> = names
        .iter()
        .map(|name| transaction(session.extensions(), &[name], BODY))
        .collect();
    let mut got = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let outcome = session.carry(one, &mut &*BODY, &mut || Ok(()), all.get(at + 1));
        got.extend(verdicts(&outcome));
    }
    assert_eq!(got, [Accepted, Refused, Accepted, Refused, Accepted]);
    assert_eq!(server.kept().len(), 3);
    assert!(server.kept().iter().all(|r| r.raw == ON_WIRE));
}

#[test]
fn a_server_that_ends_behind_a_message_has_taken_it() {
    for end in ["", "421 4.7.0 one is enough"] {
        let server = Smtpd::start(Quirks {
            one_message: Some(end.into()),
            ..Quirks::default()
        });
        let mut session = open(&server).unwrap();
        let one = transaction(session.extensions(), &["bob"], BODY);
        let two = transaction(session.extensions(), &["carol"], BODY);
        let first = session.carry(&one, &mut &*BODY, &mut || Ok(()), Some(&two));
        assert_eq!(verdicts(&first), [Accepted]);
        let second = session.carry(&two, &mut &*BODY, &mut || Ok(()), None);
        assert_eq!(verdicts(&second), [Deferred]);
        assert!(!second.dot_sent);
        assert_eq!(server.received().len(), 1);
    }
}

#[test]
fn end_of_connection_at_every_octet_of_the_answers() {
    let whole = Smtpd::start(Quirks::default());
    let mut session = open(&whole).unwrap();
    assert_eq!(verdicts(&carry(&mut session, &["bob"], BODY)), [Accepted]);
    drop(session);
    let mut in_doubt = 0;
    for cut in 1.. {
        let server = Smtpd::start(Quirks {
            cut_after: Some(cut),
            ..Quirks::default()
        });
        let outcome = match open(&server) {
            Ok(mut session) => carry(&mut session, &["bob"], BODY),
            Err(failure) => {
                assert_eq!(failure.class(), Class::Transient, "{failure}");
                continue;
            }
        };
        let kept = server.kept().len();
        match verdicts(&outcome)[..] {
            [Deferred] => assert_eq!(kept, 0, "cut at {cut}"),
            // A reply without its line end is no reply.
            [InDoubt] => in_doubt += 1,
            [Accepted] => break,
            ref other => panic!("cut at {cut}: {other:?}"),
        }
        assert!(cut < 2000);
    }
    assert!(in_doubt > 10);
}

#[test]
fn garbled_endless_and_slow_answers_end_in_time() {
    let endless_line = "2".repeat(100_000);
    let endless_reply = "250-x\r\n".repeat(10_000);
    for (verb, answer) in [
        ("EHLO", "250_what\r\n"),
        ("EHLO", "hello\r\n"),
        ("EHLO", "\r\n"),
        ("EHLO", "\u{0}\u{1}\r\n"),
        ("EHLO", "999 x\r\n"),
        ("EHLO", &endless_line),
        ("EHLO", &endless_reply),
        ("MAIL", "250-\r\n"),
        ("MAIL", "354 what\r\n"),
        ("MAIL", "220\r\n334 x\r\n"),
        ("DATA", "250 thank you\r\n"),
        ("DATA", "334 dHdv\r\n"),
        ("DATA", "454 x\r\n999 y\r\n"),
        ("RCPT", "\r\n"),
    ] {
        let server = Smtpd::start(Quirks::default());
        server.with(|s| s.quirks.forged.insert(verb.into(), answer.into()));
        let begun = Instant::now();
        match open(&server) {
            Ok(mut session) => {
                let outcome = carry(&mut session, &["bob"], BODY);
                assert!(!verdicts(&outcome).contains(&Accepted), "{verb} {answer}");
                assert!(!verdicts(&outcome).contains(&InDoubt), "{verb} {answer}");
            }
            Err(failure) => assert_ne!(failure.class(), Class::Account, "{failure}"),
        }
        assert!(begun.elapsed() < 4 * TIMEOUT, "{verb} {answer}");
        assert!(server.received().is_empty());
    }
    let drip = Smtpd::start(Quirks {
        drip: Some(Duration::from_millis(50)),
        ..Quirks::default()
    });
    let begun = Instant::now();
    assert!(open(&drip).is_err());
    assert!(begun.elapsed() < 4 * TIMEOUT);
}

#[test]
fn a_slow_verdict_is_waited_for_and_its_absence_is_a_doubt() {
    let server = Smtpd::start(Quirks {
        slow_end: TIMEOUT / 2,
        ..Quirks::default()
    });
    assert_eq!(verdicts(&send(&server)), [Accepted]);
    server.with(|s| s.quirks.slow_end = 3 * TIMEOUT);
    let outcome = send(&server);
    assert_eq!(verdicts(&outcome), [InDoubt]);
    assert!(
        outcome.answers[0].text.contains("no answer in time"),
        "{outcome:?}"
    );
}

#[test]
fn what_a_server_cannot_take_is_known_before_mail() {
    let server = Smtpd::start(
        Quirks::default()
            .without("8BITMIME")
            .without("SIZE")
            .with("size 10"),
    );
    let session = open(&server).unwrap();
    let ascii = b"Subject: x\n\n";
    let unfit = |body| Transaction::new(session.extensions(), &envelope(&["bob"], body), &[0], "i");
    assert_eq!(unfit(b"\n\n\xc3\xa9").unwrap_err(), Unfit::NeedsSevenBit);
    assert_eq!(unfit(ascii).unwrap_err(), Unfit::TooLarge(10));
    assert!(server.log().iter().all(|l| !l.starts_with("MAIL")));
}

#[test]
fn an_old_server_is_greeted_in_the_old_way() {
    let server = Smtpd::start(Quirks {
        esmtp: false,
        ..Quirks::default()
    });
    let mut session = open(&server).unwrap();
    assert_eq!(*session.extensions(), Extensions::default());
    let outcome = carry(&mut session, &["bob"], b"Subject: x\n\nhi\n");
    assert_eq!(verdicts(&outcome), [Accepted]);
    assert_eq!(
        server.log()[..2],
        ["EHLO client.example", "HELO client.example"]
    );
}

#[test]
fn banners() {
    for (banner, class) in [
        ("554 5.3.2 no SMTP service here", Class::Account),
        ("421 4.3.2 too busy", Class::Transient),
        ("220-hello\r\n220-\r\n220\r\n", Class::Local),
        ("+OK POP3\r\n", Class::Protocol),
    ] {
        let server = Smtpd::start(Quirks {
            banner: banner.into(),
            ..Quirks::default()
        });
        match open(&server) {
            Ok(_) => assert_eq!(class, Class::Local, "{banner}"),
            Err(failure) => assert_eq!(failure.class(), class, "{failure}"),
        }
    }
}

#[test]
fn every_way_to_log_in_over_tls() {
    use Mechanism::{Login, OauthBearer, Plain, Xoauth2};
    for (security, tls) in [(Security::Implicit, true), (Security::Upgrade, false)] {
        for mechanism in [
            None,
            Some(Plain),
            Some(Login),
            Some(Xoauth2),
            Some(OauthBearer),
        ] {
            let quirks = Quirks {
                tls,
                needs_auth: true,
                ..Quirks::default().with("AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER")
            };
            let quirks = if tls { quirks } else { quirks.with("STARTTLS") };
            let server = Smtpd::start(quirks);
            let mut session = log_in(&server, security, mechanism, PASSWORD).unwrap();
            assert_eq!(verdicts(&carry(&mut session, &["bob"], BODY)), [Accepted]);
            let refused = log_in(&server, security, mechanism, "wrong").unwrap_err();
            assert_eq!(refused.class(), Class::Account, "{refused}");
            let text = refused.to_string();
            assert!(
                text.contains("535 5.7.8") && !text.contains("wrong"),
                "{text}"
            );
        }
    }
}

#[test]
fn transcripts_hold_no_secret() {
    let server = Smtpd::start(Quirks {
        tls: true,
        ..Quirks::default().with("AUTH PLAIN LOGIN XOAUTH2")
    });
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2] {
        let mut session = log_in(&server, Security::Implicit, Some(mechanism), PASSWORD).unwrap();
        let said = session.take_transcript().join("\n");
        assert!(said.contains("> AUTH"), "{said}");
        for secret in [PASSWORD, "c2VjcmV0", "AGFsaWNlAHNlY3JldA=="] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn no_tls_no_mail_unless_the_other_side_cannot_and_we_may() {
    let server = Smtpd::start(Quirks::default());
    let upgrade = connector(&server, Security::Upgrade);
    let refused = Session::open(&upgrade, &terms(), None, &mut |_| ()).unwrap_err();
    assert_eq!(refused.class(), Class::Account);
    assert!(refused.to_string().contains("STARTTLS"), "{refused}");
    let relaxed = Terms {
        encryption: Encryption::IfOffered,
        ..terms()
    };
    assert!(Session::open(&upgrade, &relaxed, None, &mut |_| ()).is_ok());
    // Offered and refused: a server in trouble, or somebody on the way.
    server.with(|s| {
        s.quirks.extensions.push("STARTTLS".into());
        s.quirks
            .forged
            .insert("STARTTLS".into(), "454 4.7.0 not now".into());
    });
    assert!(Session::open(&upgrade, &relaxed, None, &mut |_| ()).is_err());
}

#[test]
fn words_in_front_of_the_curtain_do_not_count_behind_it() {
    let server = Smtpd::start(Quirks {
        injected: b"250-test\r\n250 AUTH PLAIN\r\n".to_vec(),
        ..Quirks::default().with("STARTTLS")
    });
    let failed = log_in(&server, Security::Upgrade, None, PASSWORD).unwrap_err();
    assert_eq!(failed.class(), Class::Protocol, "{failed}");
    assert!(!server.log().iter().any(|l| l.starts_with("AUTH")));
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let server = Smtpd::start(Quirks {
        tls: true,
        ..Quirks::default()
    });
    let connector = Connector::new(Endpoint {
        host: "localhost".into(),
        port: server.port,
        security: Security::Implicit,
        trust: Box::default(),
        proxy: None,
        timeout: TIMEOUT,
        bind: None,
    });
    // A machine without any certificates trusts nobody from the start.
    let Ok(connector) = connector else { return };
    let refused = Session::open(&connector, &terms(), None, &mut |_| ()).unwrap_err();
    assert_eq!(refused.class(), Class::Account, "{refused}");
}
