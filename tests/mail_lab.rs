//! Sending through real servers: Postfix with Dovecot's logins, and Postfix' `smtp-sink` with every
//! fault it can have. `scripts/test` sets them up; see `RealServer`.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferryfs::mail::connect::{Endpoint, Security};
use ferryfs::mail::envelope::{Envelope, address};
use ferryfs::mail::queue::{Entry, Id, Queue, QueueOptions, State};
use ferryfs::mail::sasl::Mechanism;
use ferryfs::mail::sender::{Receipts, Relay, Route, SendOptions, Sender, Word};
use ferryfs::net::trust::TlsOptions;
use ferryfs::secret::Secret;
use ferryfs::vfs::error::Result;

use crate::support::mount::skip;
use crate::support::real::RealServer;

const PATIENCE: Duration = Duration::from_secs(60);

struct Nobody;

impl Receipts for Nobody {
    fn accepted(&self, _: &Entry, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn failed(&self, _: &Entry, _: &[usize], _: &mut dyn Read, _: Option<&[u8]>) -> Result<()> {
        Ok(())
    }

    fn delayed(&self, _: &Entry, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn settled(&self, _: &Entry) {}
}

/// Postfix, and the Dovecot that knows its users.
struct Servers {
    postfix: RealServer,
    dovecot: RealServer,
}

impl Servers {
    fn start() -> Option<Self> {
        let dovecot = RealServer::start("dovecot", "user", &[])?;
        let sasl = format!("sasl={}/run/sasl-auth", dovecot.fact("state"));
        let postfix = RealServer::start("postfix", "user", &[&sasl])?;
        Some(Self { postfix, dovecot })
    }

    fn relay(&self, port: &str, security: Security) -> Relay {
        let port = self.postfix.fact(port).parse().unwrap();
        relay(port, security, Some(self.postfix.fact("cafile").into()))
    }
}

fn relay(port: u16, security: Security, ca_file: Option<PathBuf>) -> Relay {
    Relay::new(Endpoint {
        host: "localhost".into(),
        port,
        security,
        trust: Box::new(TlsOptions {
            ca_file,
            ..TlsOptions::default()
        }),
        proxy: None,
        timeout: Duration::from_secs(10),
        bind: None,
    })
}

fn post(relay: Relay) -> (tempfile::TempDir, Arc<Queue>, Sender) {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(dir.path(), QueueOptions::default()).unwrap();
    let queue = Arc::new(queue);
    let mut options = SendOptions::new(Route::Relay(relay), "client.example");
    options.pause = Duration::from_millis(100);
    let sender = Sender::start(Arc::clone(&queue), options, Arc::new(Nobody)).unwrap();
    (dir, queue, sender)
}

fn add(queue: &Queue, to: &[&str], text: &[u8]) -> Id {
    let to = to.iter().map(|name| address(name).unwrap()).collect();
    let envelope = Envelope::new(Some(address("alice@example.com").unwrap()), to);
    queue.add(envelope, &mut &*text).unwrap()
}

#[test]
fn postfix_takes_mail_in_every_way_to_log_in() {
    let Some(servers) = Servers::start() else {
        return;
    };
    let (password, token) = (
        servers.dovecot.fact("password"),
        servers.dovecot.fact("token"),
    );
    for (port, security) in [
        ("submission_port", Security::Upgrade),
        ("tls_port", Security::Implicit),
    ] {
        let mechanisms = [
            None,
            Some(Mechanism::Plain),
            Some(Mechanism::Login),
            Some(Mechanism::ScramSha256),
            Some(Mechanism::Xoauth2),
            Some(Mechanism::OauthBearer),
        ];
        for mechanism in mechanisms {
            let is_token = mechanism.is_some_and(Mechanism::takes_token);
            for good in [true, false] {
                let secret = match (good, is_token) {
                    (true, true) => token.to_owned(),
                    (true, false) => password.to_owned(),
                    (false, _) => "wrong".to_owned(),
                };
                let user = if is_token { "bob" } else { "alice" };
                let mut relay = servers.relay(port, security);
                relay.login = Some((user.into(), Arc::new(move |_| Ok(Secret::new(&*secret)))));
                relay.is_token = is_token;
                relay.mechanism = mechanism;
                let (_dir, queue, sender) = post(relay);
                let id = add(&queue, &["alice@example.com"], b"Subject: login\n\nhi\n");
                match sender.word(&id, PATIENCE) {
                    Word::Accepted => assert!(good, "{mechanism:?}"),
                    Word::Trouble(failure) => {
                        assert!(!good, "{mechanism:?}: {failure}");
                        assert!(failure.detail().contains("535"), "{mechanism:?}: {failure}");
                    }
                    other => panic!("{mechanism:?}: {other:?}"),
                }
                sender.stop(PATIENCE);
            }
        }
    }
}

#[test]
fn postfix_refuses_some_and_delivers_the_rest_byte_for_byte() {
    let Some(servers) = Servers::start() else {
        return;
    };
    // Over a mebibyte it is a chunk.
    for (padding, command) in [("", "> DATA"), ("pad\n", "> BDAT ")] {
        refuses_some_and_delivers_the_rest(&servers, &padding.repeat(1 << 18), command);
    }
}

fn refuses_some_and_delivers_the_rest(servers: &Servers, padding: &str, command: &str) {
    let (_dir, queue, sender) = post(servers.relay("port", Security::Off));
    let word = format!("{:?}", Instant::now());
    let body = format!(".dot\n..\n{padding}\ncafé\nend");
    let text = format!("Subject: {word}\nFrom: a@example.com\n\n{body}");
    let to = [
        "alice@example.com",
        "nosuch@example.com",
        "someone@elsewhere.example",
    ];
    let id = add(&queue, &to, text.as_bytes());
    let Word::Refused(reply) = sender.word(&id, PATIENCE) else {
        panic!("{:?}", queue.get(&id));
    };
    assert!(reply.contains("5.1.1"), "{reply}");
    let states: Vec<_> = queue
        .get(&id)
        .unwrap()
        .recipients
        .iter()
        .map(|r| r.state)
        .collect();
    assert_eq!(
        states[..2],
        [State::Accepted, State::Failed],
        "{:?}",
        queue.get(&id)
    );
    let said = queue.get(&id).unwrap().history;
    let mut said = said.iter().flat_map(|attempt| &attempt.said);
    assert!(said.any(|line| line.starts_with(command)), "{command}");
    let begun = Instant::now();
    loop {
        let new = servers.postfix.path("alice/new");
        let found = std::fs::read_dir(new)
            .ok()
            .into_iter()
            .flatten()
            .find_map(|file| {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                text.contains(&word).then_some(text)
            });
        if let Some(delivered) = found {
            let delivered = delivered.split_once("\n\n").unwrap().1;
            assert!(delivered == format!("{body}\n"));
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    sender.stop(PATIENCE);
}

struct Sink {
    child: Child,
    port: u16,
}

impl Sink {
    fn start(words: &[&str]) -> Self {
        let begun = Instant::now();
        loop {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut child = Command::new("smtp-sink")
                .args(["-u", "nobody"])
                .args(words)
                .args([&format!("127.0.0.1:{port}"), "200"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // Another test may have taken the port meanwhile: then it ends at once.
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port };
                }
                assert!(begun.elapsed() < PATIENCE);
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(begun.elapsed() < PATIENCE);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn smtp_sink_with_every_fault() {
    let wanted = std::env::var("FERRYFS_INTEROP").unwrap_or_default();
    if !wanted.split(' ').any(|word| word == "postfix") {
        skip("FERRYFS_INTEROP does not list postfix");
        return;
    }
    let plain = b"Subject: x\n\nhi\n".to_vec();
    let eight = "Subject: x\n\né\n".as_bytes().to_vec();
    let large = [&plain[..], &b"x\n".repeat(1 << 20)].concat();
    let faults = [
        (&[][..], &plain, "accepted"),
        (&["-p"], &plain, "accepted"),
        (&["-e"], &plain, "accepted"),
        (&["-8"], &plain, "accepted"),
        (&["-8"], &eight, "refused"),
        (&["-N"], &plain, "accepted"),
        (&["-E"], &plain, "accepted"),
        (&["-T", "1"], &large, "accepted"),
        (&["-q", "."], &plain, "in doubt"),
        (&["-q", "DATA"], &plain, "deferred"),
        (&["-q", "RCPT"], &plain, "deferred"),
        (&["-q", "MAIL"], &plain, "deferred"),
        (&["-q", "EHLO"], &plain, "trouble"),
        (&["-Q", "MAIL"], &plain, "deferred"),
        (&["-Q", "EHLO"], &plain, "trouble"),
        (&["-Q", "."], &plain, "deferred"),
        (&["-r", "RCPT"], &plain, "deferred"),
        (&["-f", "RCPT"], &plain, "refused"),
        (&["-r", "MAIL"], &plain, "deferred"),
        (&["-f", "MAIL"], &plain, "refused"),
        (&["-r", "DATA"], &plain, "deferred"),
        (&["-f", "DATA"], &plain, "refused"),
        (&["-r", "."], &plain, "deferred"),
        (&["-f", "."], &plain, "refused"),
        (&["-A", "0"], &plain, "refused"),
        // Longer than connecting may take.
        (&["-A", "12"], &large, "refused"),
    ];
    // Some of them take their time.
    std::thread::scope(|scope| {
        for (words, text, want) in faults {
            scope.spawn(move || one_fault(words, text, want));
        }
    });
}

fn one_fault(words: &[&str], text: &[u8], want: &str) {
    let sink = Sink::start(words);
    let (_dir, queue, sender) = post(relay(sink.port, Security::Off, None));
    let id = add(&queue, &["bob@example.org"], text);
    let got = match sender.word(&id, PATIENCE) {
        Word::Accepted => "accepted",
        Word::Refused(_) => "refused",
        Word::Deferred(_) => "deferred",
        Word::InDoubt(_) => "in doubt",
        Word::Trouble(_) => "trouble",
        other => panic!("{words:?}: {other:?}"),
    };
    assert_eq!(got, want, "{words:?}: {:?}", queue.get(&id));
    sender.stop(PATIENCE);
}
