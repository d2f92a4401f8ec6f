//! Sending through real servers, where somebody runs them as `mail-peers.md` section 6 sets them
//! up: Postfix with Dovecot's SASL, `smtp-sink`. `FERRYFS_MAIL_LAB` is the directory with
//! `cert.pem`; Postfix listens on 13525 (clear), 13587 (STARTTLS), 13465 (TLS).

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferryfs::mail::connect::{Endpoint, Security};
use ferryfs::mail::envelope::{Envelope, address};
use ferryfs::mail::queue::{Entry, Id, Queue, QueueOptions, State};
use ferryfs::mail::sasl::Mechanism;
use ferryfs::mail::sender::{Receipts, Relay, Route, SendOptions, Sender, Word};
use ferryfs::secret::Secret;
use ferryfs::vfs::error::Result;

const PATIENCE: Duration = Duration::from_secs(60);

struct Nobody;

impl Receipts for Nobody {
    fn accepted(&self, _: &Entry, _: &mut File) -> Result<()> {
        Ok(())
    }

    fn failed(&self, _: &Entry, _: &[usize], _: &mut File, _: Option<&[u8]>) -> Result<()> {
        Ok(())
    }

    fn delayed(&self, _: &Entry, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn settled(&self, _: &Entry) {}
}

fn lab() -> Option<PathBuf> {
    let lab = std::env::var_os("FERRYFS_MAIL_LAB").map(PathBuf::from);
    if lab.is_none() {
        eprintln!("FERRYFS_MAIL_LAB names no lab");
    }
    lab
}

fn relay(lab: &std::path::Path, port: u16, security: Security) -> Relay {
    Relay::new(Endpoint {
        host: "localhost".into(),
        port,
        security,
        trust: Box::new(ferryfs::net::trust::TlsOptions {
            ca_file: Some(lab.join("cert.pem")),
            ..Default::default()
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
#[ignore = "needs a Postfix that somebody set up: FERRYFS_MAIL_LAB"]
fn postfix_takes_mail_in_every_way_to_log_in() {
    let Some(lab) = lab() else { return };
    let token = std::env::var("FERRYFS_MAIL_TOKEN").ok();
    for (port, security) in [(13587, Security::Upgrade), (13465, Security::Implicit)] {
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
                let secret = match (good, is_token, &token) {
                    (true, true, None) => continue,
                    (true, true, Some(token)) => token.clone(),
                    (true, false, _) => "secret".to_owned(),
                    (false, ..) => "wrong".to_owned(),
                };
                let user = if is_token { "bob" } else { "alice" };
                let mut relay = relay(&lab, port, security);
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
#[ignore = "needs a Postfix that somebody set up: FERRYFS_MAIL_LAB"]
fn postfix_refuses_some_and_delivers_the_rest_byte_for_byte() {
    let Some(lab) = lab() else { return };
    let (_dir, queue, sender) = post(relay(&lab, 13525, Security::Off));
    let word = format!("{:?}", Instant::now());
    let text = format!("Subject: {word}\nFrom: a@example.com\n\n.dot\n..\n\ncafé\nend");
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
    let begun = Instant::now();
    loop {
        let new = lab.join("mail/alice/new");
        let found = std::fs::read_dir(new)
            .ok()
            .into_iter()
            .flatten()
            .find_map(|file| {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                text.contains(&word).then_some(text)
            });
        if let Some(delivered) = found {
            let body = delivered.split_once("\n\n").unwrap().1;
            assert_eq!(body, ".dot\n..\n\ncafé\nend\n");
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    sender.stop(PATIENCE);
}

struct Sink(Child);

impl Sink {
    fn start(port: u16, words: &[&str]) -> Self {
        let child = Command::new("smtp-sink")
            .args(["-u", "nobody"])
            .args(words)
            .args([&format!("127.0.0.1:{port}"), "200"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs a Postfix that somebody set up: FERRYFS_MAIL_LAB"]
fn smtp_sink_with_every_fault() {
    let Some(lab) = lab() else { return };
    let plain = b"Subject: x\n\nhi\n".to_vec();
    let eight = "Subject: x\n\né\n".as_bytes().to_vec();
    let large = [&plain[..], &b"x\n".repeat(1 << 20)].concat();
    for (number, (words, text, want)) in [
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
    ]
    .into_iter()
    .enumerate()
    {
        let port = 13600 + u16::try_from(number).unwrap();
        let _sink = Sink::start(port, words);
        let (_dir, queue, sender) = post(relay(&lab, port, Security::Off));
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
}

/// `FERRYFS_BENCH_PORT` is a sink: 1,000 messages of 5 KB, durably queued and accepted.
#[test]
#[ignore = "a measurement"]
fn a_thousand_messages() {
    let port = std::env::var("FERRYFS_BENCH_PORT")
        .unwrap()
        .parse()
        .unwrap();
    let Some(lab) = lab() else { return };
    let text = format!(
        "Subject: bench\n\n{}",
        "0123456789abcdefghijklmnopqrstuvwxyz\n".repeat(135)
    );
    let dir = tempfile::tempdir_in(&lab).unwrap();
    let (queue, _) = Queue::open(dir.path(), QueueOptions::default()).unwrap();
    let queue = Arc::new(queue);
    let to = std::env::var("FERRYFS_BENCH_TO").unwrap_or_else(|_| "bob@sink.example".into());
    let mut options = SendOptions::new(
        Route::Relay(relay(&lab, port, Security::Off)),
        "client.example",
    );
    if let Ok(batch) = std::env::var("FERRYFS_BENCH_BATCH") {
        options.batch = batch.parse().unwrap();
    }
    let single = std::env::var_os("FERRYFS_BENCH_SINGLE").is_some();
    let begun = Instant::now();
    let sender = Sender::start(Arc::clone(&queue), options, Arc::new(Nobody)).unwrap();
    let group = if single { 1 } else { 50 };
    for _ in 0..1000 / group {
        let staged = (0..group).map(|_| {
            let to = vec![address(&to).unwrap()];
            let envelope = Envelope::new(Some(address("alice@example.com").unwrap()), to);
            queue.stage(envelope, &mut text.as_bytes()).unwrap()
        });
        queue.commit(staged.collect(), Duration::ZERO).unwrap();
    }
    let queued = begun.elapsed();
    while !queue.is_empty() {
        let seen = queue.changes();
        if !queue.is_empty() {
            queue.wait_for_change(seen, Duration::from_millis(100));
        }
    }
    println!(
        "queued {:.3} s, all accepted {:.3} s",
        queued.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    sender.stop(PATIENCE);
}
