//! The POP3 client against a server that does everything right, everything wrong, or stops.

use std::io;
use std::time::{Duration, Instant};

use ferryfs::mail::connect::{Connector, Endpoint, Security};
use ferryfs::mail::failure::{Class, Failure, Result};
use ferryfs::mail::line::LineReader;
use ferryfs::mail::pop3::{Auth, Capabilities, Credentials, Maildrop, Reply, Stage};
use ferryfs::mail::sasl::Mechanism;
use ferryfs::secret::Secret;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::pop3d::{Mail, PASSWORD, Pop3d, Quirks, USER};

/// Long enough for a machine that is busy with other things.
const TIMEOUT: Duration = Duration::from_secs(3);

fn mail(uidl: &str, text: &[u8]) -> Mail {
    Mail {
        uidl: uidl.into(),
        text: text.into(),
    }
}

fn three() -> Vec<Mail> {
    vec![
        mail("one", b"Subject: 1\n\nbody\n"),
        mail("two", b"Subject: 2\n\n.dot\n..\n.\ncaf\xe9\0\n"),
        mail("three", b"Subject: 3\n\n"),
    ]
}

fn endpoint(server: &Pop3d, security: Security) -> Endpoint {
    Endpoint {
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
    }
}

fn open_as(server: &Pop3d, security: Security, auth: Auth, secret: &str) -> Result<Maildrop> {
    let connector = Connector::new(endpoint(server, security))?;
    let secret = Secret::new(secret);
    let who = Credentials {
        user: USER,
        secret: &secret,
        is_token: matches!(auth, Auth::Sasl(m) if m.takes_token()),
        auth,
    };
    Maildrop::open(&connector, &who, &|_| ())
}

fn open(server: &Pop3d) -> Result<Maildrop> {
    open_as(server, Security::Off, Auth::Auto, PASSWORD)
}

fn all(maildrop: &mut Maildrop, window: usize) -> Result<Vec<Vec<u8>>> {
    let numbers: Vec<_> = maildrop.list()?.iter().map(|e| e.number).collect();
    let mut texts = Vec::new();
    let mut retrieval = maildrop.retrieve(&numbers, window);
    while let Some(answer) = retrieval.next()? {
        assert!(answer.reply.ok);
        let mut text = Vec::new();
        let counts = retrieval.text(&mut text, 1 << 30)?;
        assert_eq!(counts.written, text.len() as u64);
        texts.push(text);
    }
    Ok(texts)
}

/// Everything a session does.
fn session(server: &Pop3d) -> Result<Vec<Vec<u8>>> {
    let mut maildrop = open(server)?;
    let texts = all(&mut maildrop, 64)?;
    let mut headers = Vec::new();
    maildrop.headers(&[1, 2, 3], 64, |n, text| headers.push((n, text.is_ok())))?;
    maildrop.delete(&[1], 64)?;
    maildrop.quit()?;
    Ok(texts)
}

fn texts(mails: &[Mail]) -> Vec<Vec<u8>> {
    mails.iter().map(|m| m.text.clone()).collect()
}

#[test]
fn messages_arrive_octet_by_octet() {
    for pipelining in [true, false] {
        let server = Pop3d::start(
            three(),
            Quirks {
                pipelining,
                ..Quirks::default()
            },
        );
        assert_eq!(session(&server).unwrap(), texts(&three()));
        assert_eq!(server.uidls(), ["two", "three"]);
    }
}

#[test]
fn a_listing_has_identities_and_sizes() {
    let server = Pop3d::start(three(), Quirks::default());
    let mut maildrop = open(&server).unwrap();
    let entries = maildrop.list().unwrap();
    let sizes: Vec<_> = entries.iter().map(|e| e.size.unwrap()).collect();
    assert_eq!(sizes, [20, 14 + 6 + 4 + 3 + 7, 14]);
    assert_eq!(entries[1].uidl.as_deref(), Some(&b"two"[..]));
    maildrop.noop().unwrap();
    maildrop.delete(&[1], 1).unwrap();
    maildrop.reset().unwrap();
    maildrop.quit().unwrap();
    assert_eq!(server.uidls().len(), 3);
}

#[test]
fn an_empty_maildrop_is_empty() {
    let server = Pop3d::start(Vec::new(), Quirks::default());
    assert!(open(&server).unwrap().list().unwrap().is_empty());
}

#[test]
fn every_way_to_log_in() {
    let server = Pop3d::start(three(), Quirks::default());
    for auth in [
        Auth::Auto,
        Auth::User,
        Auth::Apop,
        Auth::Sasl(Mechanism::Plain),
        Auth::Sasl(Mechanism::Xoauth2),
    ] {
        open_as(&server, Security::Off, auth, PASSWORD)
            .unwrap()
            .quit()
            .unwrap();
        let wrong = open_as(&server, Security::Off, auth, "wrong").unwrap_err();
        assert_eq!(wrong.class(), Class::Account, "{auth:?}: {wrong}");
        assert!(!wrong.detail().contains("wrong"));
    }
    assert_eq!(
        server.count("AUTH XOAUTH2 "),
        0,
        "a token is never sent ahead"
    );
}

#[test]
fn tls_from_the_first_octet_and_on_request() {
    let implicit = Pop3d::start(
        three(),
        Quirks {
            tls: true,
            ..Quirks::default()
        },
    );
    let mut maildrop = open_as(&implicit, Security::Implicit, Auth::Auto, PASSWORD).unwrap();
    assert_eq!(all(&mut maildrop, 8).unwrap(), texts(&three()));
    maildrop.quit().unwrap();

    let upgrade = Pop3d::start(three(), Quirks::default());
    let mut maildrop = open_as(&upgrade, Security::Upgrade, Auth::Auto, PASSWORD).unwrap();
    assert_eq!(all(&mut maildrop, 8).unwrap(), texts(&three()));
    assert_eq!(
        upgrade.count("CAPA"),
        3,
        "before and after TLS, and after login"
    );
}

#[test]
fn a_certificate_nobody_vouches_for_is_refused_with_the_remedy() {
    let server = Pop3d::start(
        three(),
        Quirks {
            tls: true,
            ..Quirks::default()
        },
    );
    let mut endpoint = endpoint(&server, Security::Implicit);
    endpoint.trust.ca_file =
        Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mail_pop3/stranger.pem").into());
    let connector = Connector::new(endpoint).unwrap();
    let err = connector.connect().unwrap_err();
    assert_eq!(err.class(), Class::Account);
    assert!(err.detail().contains("cafile="), "{err}");
    assert!(err.detail().contains("fingerprint"), "{err}");
}

#[test]
fn no_password_goes_out_when_tls_is_not_offered() {
    let server = Pop3d::start(
        three(),
        Quirks {
            stls: false,
            ..Quirks::default()
        },
    );
    let err = open_as(&server, Security::Upgrade, Auth::Auto, PASSWORD).unwrap_err();
    assert_eq!(err.class(), Class::Account);
    let log = server.with(|s| s.log.join("\n"));
    assert_eq!(log, "CAPA");
}

#[test]
fn what_is_injected_before_tls_is_not_heard() {
    let server = Pop3d::start(
        three(),
        Quirks {
            injected: b"+OK\r\nSASL LOGIN\r\n.\r\n".to_vec(),
            ..Quirks::default()
        },
    );
    let mut maildrop = open_as(&server, Security::Upgrade, Auth::Auto, PASSWORD).unwrap();
    assert_eq!(all(&mut maildrop, 8).unwrap(), texts(&three()));
    assert_eq!(server.count("AUTH LOGIN"), 0);
}

#[test]
fn refusals_have_their_class() {
    let class = |reply: &str| {
        let server = Pop3d::start(
            three(),
            Quirks {
                login: Some(reply.into()),
                ..Quirks::default()
            },
        );
        let err = open(&server).unwrap_err();
        (err.class(), err.wait().is_some())
    };
    assert_eq!(class("-ERR [IN-USE] locked"), (Class::Transient, true));
    assert_eq!(class("-ERR [LOGIN-DELAY] slow"), (Class::Transient, true));
    assert_eq!(class("-ERR [SYS/TEMP] ill"), (Class::Transient, false));
    assert_eq!(class("-ERR [SYS/PERM] off"), (Class::Permanent, false));
    assert_eq!(class("-ERR maildrop locked"), (Class::Transient, true));
    assert_eq!(class("-ERR no"), (Class::Account, false));
}

#[test]
fn old_servers_without_capa_or_uidl_work() {
    let server = Pop3d::start(
        three(),
        Quirks {
            capa: false,
            uidl: false,
            top: false,
            pipelining: false,
            greeting: "+OK".into(),
            ..Quirks::default()
        },
    );
    let mut maildrop = open(&server).unwrap();
    assert!(maildrop.list().unwrap().iter().all(|e| e.uidl.is_none()));
    assert_eq!(all(&mut maildrop, 64).unwrap(), texts(&three()));
}

/// The session must not go on after an error, and above all not say QUIT.
fn fails(quirks: Quirks) -> Failure {
    let server = Pop3d::start(three(), quirks);
    let before = Instant::now();
    let err = session(&server).unwrap_err();
    assert!(
        before.elapsed() < 4 * TIMEOUT,
        "{err}: {:?}",
        before.elapsed()
    );
    assert_eq!(server.uidls().len(), 3, "{err}");
    err
}

#[test]
fn the_end_at_every_octet_is_an_error_and_deletes_nothing() {
    // One whole session, to know how long it is.
    let server = Pop3d::start(
        three(),
        Quirks {
            cut_after: Some(usize::MAX),
            ..Quirks::default()
        },
    );
    session(&server).unwrap();
    let mut cut = 0;
    loop {
        let server = Pop3d::start(
            three(),
            Quirks {
                cut_after: Some(cut),
                ..Quirks::default()
            },
        );
        match session(&server) {
            Err(err) => assert!(
                matches!(err.class(), Class::Transient | Class::Protocol),
                "{cut}: {err:?}"
            ),
            Ok(texts) => {
                assert_eq!(texts, self::texts(&three()));
                break;
            }
        }
        // The last reply is QUIT's: then the server has deleted already.
        if server.count("QUIT") == 0 {
            assert_eq!(server.uidls().len(), 3, "{cut}");
        }
        cut += 1;
    }
    assert!(cut > 300, "{cut}");
}

#[test]
fn endless_answers_come_to_an_end() {
    for command in ["CAPA", "UIDL", "LIST"] {
        let err = fails(Quirks {
            endless: Some((command.into(), false)),
            ..Quirks::default()
        });
        assert_eq!(err.class(), Class::Protocol, "{command}");
    }
    let err = fails(Quirks {
        endless: Some(("CAPA".into(), true)),
        ..Quirks::default()
    });
    assert_eq!(err.class(), Class::Protocol);
}

#[test]
fn an_endless_message_stops_at_the_limit() {
    let server = Pop3d::start(
        three(),
        Quirks {
            endless: Some(("RETR".into(), false)),
            ..Quirks::default()
        },
    );
    let mut maildrop = open(&server).unwrap();
    let mut retrieval = maildrop.retrieve(&[1], 1);
    retrieval.next().unwrap();
    let err = retrieval.text(&mut io::sink(), 10_000_000).unwrap_err();
    assert_eq!(err.class(), Class::Protocol);
    drop(retrieval);
    assert!(maildrop.quit().is_err());
    assert_eq!(server.count("QUIT"), 0);
}

#[test]
fn garbage_is_no_reply() {
    for (command, garbage) in [
        ("CAPA", &b"220 smtp here\r\n"[..]),
        ("APOP", b"\xff\xfe\x00\r\n"),
        ("STAT", b"+ go on\r\n"),
        ("RETR", b"+OKAY\r\n"),
        ("QUIT", b"\r\n"),
    ] {
        let err = fails(Quirks {
            forged: [(command.to_owned(), garbage.to_vec())].into(),
            ..Quirks::default()
        });
        assert_eq!(err.class(), Class::Protocol, "{command}: {err}");
    }
}

#[test]
fn a_drip_is_cut_off() {
    let err = fails(Quirks {
        drip: Some(Duration::from_millis(200)),
        ..Quirks::default()
    });
    assert_eq!(err.class(), Class::Transient);
}

#[test]
fn an_answer_too_many_ends_the_session() {
    let forged = b"+OK\r\nSubject: 1\r\n\r\n.\r\n+OK\r\nSubject: forged\r\n\r\n.\r\n".to_vec();
    let server = Pop3d::start(
        three(),
        Quirks {
            forged: [("RETR".to_owned(), forged)].into(),
            ..Quirks::default()
        },
    );
    let mut maildrop = open(&server).unwrap();
    let err = all(&mut maildrop, 1).unwrap_err();
    assert_eq!(err.class(), Class::Protocol);
    assert!(maildrop.quit().is_err());
}

#[test]
fn a_retrieval_left_unfinished_ends_the_session() {
    let server = Pop3d::start(three(), Quirks::default());
    let mut maildrop = open(&server).unwrap();
    maildrop.delete(&[3], 1).unwrap();
    maildrop.retrieve(&[1, 2], 8).next().unwrap();
    assert!(maildrop.quit().is_err());
    assert_eq!(server.uidls().len(), 3);
}

#[test]
fn nobody_there_is_said_soon() {
    let server = Pop3d::start(Vec::new(), Quirks::default());
    let mut closed = endpoint(&server, Security::Off);
    closed.port = 1;
    let err = Connector::new(closed).unwrap().connect().unwrap_err();
    assert_eq!(err.class(), Class::Transient);
}

#[test]
fn a_user_name_cannot_carry_a_command() {
    let server = Pop3d::start(three(), Quirks::default());
    let connector = Connector::new(endpoint(&server, Security::Off)).unwrap();
    let secret = Secret::new("x\r\nDELE 1");
    let who = Credentials {
        user: USER,
        secret: &secret,
        is_token: false,
        auth: Auth::User,
    };
    assert!(Maildrop::open(&connector, &who, &|_| ()).is_err());
    assert_eq!(server.count("PASS"), 0);
}

#[test]
fn a_large_message_streams() {
    let line = [&[b'x'; 70_000][..], b"\n"].concat();
    let text = [b"Subject: big\n\n", &line.repeat(300)[..]].concat();
    let server = Pop3d::start(vec![mail("big", &text)], Quirks::default());
    let mut maildrop = open(&server).unwrap();
    assert!(all(&mut maildrop, 4).unwrap()[0] == text);
}

/// As a server sends it.
fn stuffed(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in lines {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend(line);
        wire.extend(b"\r\n");
    }
    wire.extend(b".\r\n");
    wire
}

/// Gives at most so many octets for each read.
struct Pieces<'a>(&'a [u8], usize);

impl io::Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.1.min(buf.len());
        self.0.read(&mut buf[..most])
    }
}

proptest! {
    #[test]
    fn any_text_arrives_whatever_it_is_cut_into(
        lines in vec(vec(select(b".a \r\0\xff".to_vec()), 0..6), 0..8),
        piece in 1_usize..9,
    ) {
        // CR at the end of a line is part of its end, however many there are.
        let lines: Vec<Vec<u8>> = lines
            .into_iter()
            .map(|mut line| {
                while line.last() == Some(&b'\r') {
                    line.pop();
                }
                line
            })
            .collect();
        let wire = stuffed(&lines);
        let mut text = Vec::new();
        let counts = LineReader::new(Pieces(&wire, piece))
            .text(&mut text, u64::MAX, TIMEOUT)
            .unwrap();
        let mut expected = lines.join(&b'\n');
        if !lines.is_empty() {
            expected.push(b'\n');
        }
        prop_assert_eq!(&text, &expected);
        prop_assert_eq!(counts.octets as usize, text.len() + lines.len());
    }

    #[test]
    fn nothing_a_server_says_is_too_much(
        octets in vec(any::<u8>(), 0..300),
        ok in select(vec![&b""[..], b"+OK ", b"-ERR [", b"+ "]),
    ) {
        let said = [ok, &octets[..]].concat();
        if let Some(reply) = Reply::parse(&said) {
            let failure = reply.failure("X", Stage::Login);
            prop_assert!(failure.detail().chars().all(|c| !c.is_control()));
            prop_assert!(failure.detail().len() < 2000);
        }
        let mut capabilities = Capabilities::default();
        capabilities.add(&said);
        let mut text = Vec::new();
        let _ = LineReader::new(&said[..]).text(&mut text, 1000, TIMEOUT);
        prop_assert!(text.len() <= said.len());
    }
}
