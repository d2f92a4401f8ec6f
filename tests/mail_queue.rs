//! The queue and the thread that sends: nothing is lost, nothing is sent twice in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferryfs::mail::connect::{Endpoint, Security};
use ferryfs::mail::dsn::Incoming;
use ferryfs::mail::envelope::{Envelope, address};
use ferryfs::mail::mx::Resolver;
use ferryfs::mail::queue::{Entry, Id, Queue, QueueOptions, Recovered, State, Step};
use ferryfs::mail::schedule::{InDoubtPolicy, Schedule};
use ferryfs::mail::sender::{MxRoute, Receipts, Relay, Route, SendOptions, Sender, Word};
use ferryfs::mail::smtp::Timeouts;
use ferryfs::net::trust::TlsOptions;
use ferryfs::secret::Secret;
use ferryfs::vfs::error::{Error, ErrorKind, Result};

use crate::support::smtpd::{Drop, PASSWORD, Quirks, Smtpd, USER};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the user was told, by message.
#[derive(Debug, Default)]
struct Told {
    copies: BTreeMap<Id, usize>,
    failed: BTreeMap<Id, BTreeSet<usize>>,
    reports: Vec<Vec<u8>>,
    delayed: BTreeMap<Id, usize>,
    settled: BTreeMap<Id, State>,
    /// The disk of the user is full.
    full: bool,
}

#[derive(Debug, Default)]
struct User(Mutex<Told>);

impl User {
    fn with<R>(&self, work: impl FnOnce(&mut Told) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

impl Receipts for User {
    fn accepted(&self, entry: &Entry, message: &mut dyn Read) -> Result<()> {
        let mut text = String::new();
        message.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("Subject: "), "{text}");
        self.with(|told| {
            if told.full {
                return Err(Error::new(ErrorKind::NoSpace, "full"));
            }
            *told.copies.entry(entry.id.clone()).or_default() += 1;
            Ok(())
        })
    }

    fn failed(
        &self,
        entry: &Entry,
        recipients: &[usize],
        _: &mut dyn Read,
        report: Option<&[u8]>,
    ) -> Result<()> {
        self.with(|told| {
            told.failed
                .entry(entry.id.clone())
                .or_default()
                .extend(recipients);
            told.reports.extend(report.map(<[u8]>::to_vec));
            Ok(())
        })
    }

    fn delayed(&self, entry: &Entry, _: &[u8]) -> Result<()> {
        self.with(|told| *told.delayed.entry(entry.id.clone()).or_default() += 1);
        Ok(())
    }

    fn settled(&self, entry: &Entry) {
        self.with(|told| told.settled.insert(entry.id.clone(), entry.state()));
    }

    fn seven_bit(&self, _: &Entry, message: &mut dyn Read) -> Result<Option<Vec<u8>>> {
        let mut text = String::new();
        message.read_to_string(&mut text).unwrap();
        Ok(Some(text.replace('é', "=C3=A9").into_bytes()))
    }
}

fn schedule() -> Schedule {
    Schedule {
        waits: vec![Duration::from_secs(1)],
        give_up: Duration::from_secs(3600),
        delay_report: Duration::from_secs(3600),
        in_doubt: InDoubtPolicy::Hold,
    }
}

fn options() -> QueueOptions {
    QueueOptions {
        schedule: schedule(),
        ..QueueOptions::default()
    }
}

fn open(dir: &Path) -> Queue {
    let (queue, recovered) = Queue::open(dir, options()).unwrap();
    assert_eq!(recovered, Recovered::default());
    queue
}

fn relay(port: u16) -> SendOptions {
    let endpoint = Endpoint {
        host: "localhost".into(),
        port,
        security: Security::Off,
        trust: Box::default(),
        proxy: None,
        timeout: Duration::from_secs(2),
        bind: None,
    };
    let mut options = SendOptions::new(Route::Relay(Relay::new(endpoint)), "client.example");
    options.terms.timeouts = Timeouts::all(Duration::from_secs(2));
    options.pause = Duration::from_secs(1);
    options.account_pause = Duration::from_secs(600);
    options
}

fn envelope(names: &[&str]) -> Envelope {
    let to = names
        .iter()
        .map(|name| address(&format!("{name}@example.org")).unwrap());
    let mut envelope = Envelope::new(Some(address("alice@example.org").unwrap()), to.collect());
    envelope.message_id = Some("<1@example.org>".into());
    envelope
}

fn add(queue: &Queue, names: &[&str], word: &str) -> Id {
    let text = format!("Subject: {word}\n\nbody\n");
    queue.add(envelope(names), &mut text.as_bytes()).unwrap()
}

struct Post {
    queue: Arc<Queue>,
    user: Arc<User>,
    sender: Sender,
}

fn start(queue: Queue, options: SendOptions) -> Post {
    let (queue, user) = (Arc::new(queue), Arc::new(User::default()));
    let sender = Sender::start(Arc::clone(&queue), options, user.clone()).unwrap();
    Post {
        queue,
        user,
        sender,
    }
}

impl Post {
    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            let shown: Vec<_> = self
                .queue
                .list()
                .iter()
                .map(ferryfs::mail::queue::text)
                .collect();
            assert!(begun.elapsed() < PATIENCE, "{what}: {}", shown.join("\n"));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_until_empty(&self) {
        self.wait("empty", |post| post.queue.is_empty());
    }

    fn state(&self, id: &Id) -> Option<State> {
        self.queue
            .get(id)
            .filter(|_| !self.queue.is_taken(id))
            .map(|e| e.state())
    }

    fn wait_for(&self, id: &Id, state: State) {
        self.wait(state.word(), |post| post.state(id) == Some(state));
    }

    fn stop(self) -> (Arc<Queue>, Arc<User>) {
        self.sender.stop(PATIENCE);
        (self.queue, self.user)
    }
}

/// How often each subject was taken by the server.
fn kept(server: &Smtpd) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in server.kept() {
        let text = String::from_utf8(one.text()).unwrap();
        let word = text.lines().next().unwrap()["Subject: ".len()..].to_owned();
        *counts.entry(word).or_default() += 1;
    }
    counts
}

#[test]
fn what_is_queued_is_sent_once_filed_and_gone() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let queue = open(dir.path());
    let ids: Vec<_> = (0..40)
        .map(|i| add(&queue, &["bob"], &i.to_string()))
        .collect();
    let post = start(queue, relay(server.port));
    post.wait_until_empty();
    assert_eq!(post.sender.status().accepted, 40);
    assert_eq!(post.sender.word(&ids[3], PATIENCE), Word::Accepted);
    let late = add(&post.queue, &["bob"], "late");
    assert_eq!(post.sender.word(&late, PATIENCE), Word::Accepted);
    post.wait_until_empty();
    let (_, user) = post.stop();
    assert_eq!(kept(&server).len(), 41);
    assert!(kept(&server).values().all(|n| *n == 1));
    assert!(server.connections() <= 2);
    user.with(|told| {
        assert_eq!(told.copies.len(), 41);
        assert!(told.settled.values().all(|s| *s == State::Accepted));
    });
    assert_eq!(
        std::fs::read_dir(dir.path().join("message"))
            .unwrap()
            .count(),
        0
    );
    assert!(open(dir.path()).is_empty());
}

#[test]
fn recipients_go_their_own_ways_and_failures_are_reported() {
    let quirks = Quirks::default()
        .recipient("nosuch@example.org", &["550 5.1.1 no such user"])
        .recipient("grey@example.org", &["450 4.7.1 greylisted", "250 ok"]);
    let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
    let post = start(open(dir.path()), relay(server.port));
    let id = add(&post.queue, &["bob", "nosuch", "grey"], "mixed");
    assert_eq!(
        post.sender.word(&id, PATIENCE),
        Word::Refused("550 5.1.1 no such user".into())
    );
    let shown = ferryfs::mail::queue::text(&post.queue.get(&id).unwrap());
    assert!(shown.contains("< 450 4.7.1 greylisted"), "{shown}");
    post.wait_until_empty();
    let (_, user) = post.stop();
    let rcpts: Vec<_> = server.kept().iter().map(|r| r.rcpts.len()).collect();
    assert_eq!(rcpts, [1, 1]);
    user.with(|told| {
        assert_eq!(told.copies[&id], 1);
        assert_eq!(told.failed[&id], BTreeSet::from([1]));
        let report = Incoming::parse(&told.reports[0]).unwrap();
        assert!(report.is_about(id.as_str(), None));
        assert_eq!(report.recipients[0].status, "5.1.1");
    });
}

#[test]
fn trouble_with_the_account_pauses_it_and_counts_nothing() {
    let quirks = Quirks {
        needs_auth: true,
        ..Quirks::default().with("AUTH PLAIN")
    };
    let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
    let mut options = relay(server.port);
    let password = Arc::new(Mutex::new("wrong"));
    let source = Arc::clone(&password);
    if let Route::Relay(relay) = &mut options.route {
        relay.login = Some((
            USER.into(),
            Arc::new(move |_| Ok(Secret::new(*source.lock().unwrap()))),
        ));
    }
    let post = start(open(dir.path()), options);
    let id = add(&post.queue, &["bob"], "1");
    let Word::Trouble(failure) = post.sender.word(&id, PATIENCE) else {
        panic!("no trouble");
    };
    assert!(failure.detail().contains("535 5.7.8"), "{failure}");
    let entry = post.queue.get(&id).unwrap();
    assert_eq!((entry.state(), entry.attempts), (State::Queued, 0));
    // One more message does not mean one more login.
    add(&post.queue, &["bob"], "2");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.connections(), 1);
    *password.lock().unwrap() = PASSWORD;
    post.sender.trigger();
    post.wait_until_empty();
    assert!(post.sender.status().trouble.is_none());
    let (_, user) = post.stop();
    assert!(user.with(|told| told.failed.is_empty()));
    assert_eq!(kept(&server).len(), 2);
}

#[test]
fn a_relay_that_cannot_be_reached_loses_nothing() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    drop(deaf);
    let post = start(open(dir.path()), relay(port));
    let id = add(&post.queue, &["bob"], "1");
    assert!(matches!(post.sender.word(&id, PATIENCE), Word::Trouble(_)));
    assert_eq!(post.queue.get(&id).unwrap().attempts, 0);
    drop(post.stop());
    let post = start(open(dir.path()), relay(server.port));
    post.wait_until_empty();
    assert_eq!(kept(&server).len(), 1);
}

#[test]
fn a_message_in_doubt_waits_for_the_user_or_goes_once_more() {
    for policy in [
        InDoubtPolicy::Hold,
        InDoubtPolicy::RetryOnce(Duration::ZERO),
    ] {
        let server = Smtpd::start(Quirks {
            drop: Some(Drop::AfterDot { kept: true }),
            ..Quirks::default()
        });
        let dir = tempfile::tempdir().unwrap();
        let mut options = options();
        options.schedule.in_doubt = policy;
        let (queue, _) = Queue::open(dir.path(), options).unwrap();
        let post = start(queue, relay(server.port));
        let id = add(&post.queue, &["bob"], "1");
        post.wait_for(&id, State::InDoubt);
        post.wait("held", |post| post.queue.get(&id).unwrap().due().is_none());
        assert!(matches!(post.sender.word(&id, PATIENCE), Word::InDoubt(_)));
        let copies = if policy == InDoubtPolicy::Hold { 1 } else { 2 };
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(kept(&server)["1"], copies);
        server.with(|s| s.quirks.drop = None);
        post.queue.retry(&id).unwrap();
        post.wait_until_empty();
        assert_eq!(kept(&server)["1"], copies + 1);
        // Always the same bytes.
        assert!(
            server
                .kept()
                .windows(2)
                .all(|pair| pair[0].raw == pair[1].raw)
        );
    }
}

#[test]
fn one_bad_message_does_not_keep_the_others() {
    let quirks = Quirks {
        drop: Some(Drop::InBody(100_000)),
        ..Quirks::default()
    };
    let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
    let queue = open(dir.path());
    let large = format!("Subject: large\n\n{}", "x\n".repeat(100_000));
    let bad = queue
        .add(envelope(&["bob"]), &mut large.as_bytes())
        .unwrap();
    for i in 0..30 {
        add(&queue, &["bob"], &i.to_string());
    }
    let post = start(queue, relay(server.port));
    post.wait("others", |_| kept(&server).len() == 30);
    let text = post.queue.get(&bad).unwrap().recipients[0].text.clone();
    assert!(!text.is_empty() && !text.starts_with('2'), "{text}");
    post.queue
        .cancel(&bad)
        .or_else(|_| {
            std::thread::sleep(Duration::from_millis(500));
            post.queue.cancel(&bad)
        })
        .unwrap();
    post.wait_until_empty();
    let (_, user) = post.stop();
    assert_eq!(user.with(|told| told.settled[&bad]), State::Cancelled);
}

#[test]
fn a_relay_that_takes_one_message_a_connection_gets_one_a_connection() {
    for end in ["", "421 4.7.0 one is enough"] {
        let quirks = Quirks {
            one_message: Some(end.into()),
            ..Quirks::default()
        };
        let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
        let queue = open(dir.path());
        for i in 0..5 {
            add(&queue, &["bob"], &i.to_string());
        }
        let post = start(queue, relay(server.port));
        let begun = Instant::now();
        post.wait_until_empty();
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(kept(&server).values().collect::<Vec<_>>(), [&1; 5]);
    }
}

#[test]
fn many_recipients_go_in_hundreds_and_as_many_as_the_server_likes() {
    let quirks = Quirks::default().recipient("u3@example.org", &["452 4.5.3 too many", "250 ok"]);
    let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
    let post = start(open(dir.path()), relay(server.port));
    let names: Vec<_> = (0..250).map(|i| format!("u{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let id = add(&post.queue, &names, "1");
    post.wait_until_empty();
    let mut rcpts: Vec<_> = server.kept().iter().map(|r| r.rcpts.len()).collect();
    rcpts.sort_unstable();
    assert_eq!(rcpts.iter().sum::<usize>(), 250);
    assert!(rcpts.iter().all(|n| *n <= 100), "{rcpts:?}");
    assert_eq!(
        post.queue.get(&id).unwrap().attempts,
        0,
        "nothing was deferred"
    );
    assert_eq!(post.user.with(|told| told.copies[&id]), 1);
}

#[test]
fn what_a_server_cannot_take_is_put_in_ascii_or_given_back() {
    let quirks = Quirks::default()
        .without("8BITMIME")
        .without("SMTPUTF8")
        .without("SIZE");
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(quirks.with("SIZE 1000")),
    );
    let post = start(open(dir.path()), relay(server.port));
    let eight = post
        .queue
        .add(envelope(&["bob"]), &mut "Subject: 8\n\né\n".as_bytes())
        .unwrap();
    assert_eq!(post.sender.word(&eight, PATIENCE), Word::Accepted);
    assert_eq!(server.kept()[0].text(), b"Subject: 8\r\n\r\n=C3=A9\r\n");
    let utf8 = add(&post.queue, &["jürgen"], "utf8");
    let Word::Refused(text) = post.sender.word(&utf8, PATIENCE) else {
        panic!("not refused");
    };
    assert!(text.starts_with("553 5.6.7"), "{text}");
    let large = format!("Subject: large\n\n{}", "x\n".repeat(1000));
    let large = post
        .queue
        .add(envelope(&["bob"]), &mut large.as_bytes())
        .unwrap();
    let Word::Refused(text) = post.sender.word(&large, PATIENCE) else {
        panic!("not refused");
    };
    assert!(text.starts_with("552 5.3.4"), "{text}");
    post.wait_until_empty();
    assert_eq!(post.user.with(|told| told.reports.len()), 2);
}

#[test]
fn time_runs_out_with_a_report_and_drags_on_with_another() {
    let quirks = Quirks::default().recipient("grey@example.org", &["450 4.7.1 never"]);
    let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
    let mut options = options();
    options.schedule.give_up = Duration::from_secs(2);
    options.schedule.delay_report = Duration::from_secs(0);
    let (queue, _) = Queue::open(dir.path(), options).unwrap();
    let post = start(queue, relay(server.port));
    let id = add(&post.queue, &["grey"], "1");
    assert!(matches!(post.sender.word(&id, PATIENCE), Word::Deferred(_)));
    post.wait_until_empty();
    let entry = post.queue.get(&id).unwrap();
    assert!(
        entry.recipients[0].text.contains("gave up"),
        "{:?}",
        entry.recipients
    );
    post.user.with(|told| {
        assert_eq!(told.delayed[&id], 1);
        assert_eq!(told.failed[&id].len(), 1);
        assert_eq!(told.reports.len(), 1);
        assert!(told.copies.is_empty());
    });
}

#[test]
fn hold_send_at_cancel_and_linger() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let queue = open(dir.path());
    let mut held = envelope(&["bob"]);
    held.hold = true;
    let held = queue.add(held, &mut &b"Subject: held\n\n"[..]).unwrap();
    let mut later = envelope(&["bob"]);
    later.send_at = Some(u64::MAX / 4);
    let later = queue.add(later, &mut &b"Subject: later\n\n"[..]).unwrap();
    let staged = queue
        .stage(envelope(&["bob"]), &mut &b"Subject: linger\n\n"[..])
        .unwrap();
    let lingering = queue.commit(vec![staged], Duration::from_secs(2)).unwrap();
    let post = start(queue, relay(server.port));
    add(&post.queue, &["bob"], "now");
    post.wait("first", |_| kept(&server).len() == 1);
    post.queue.cancel(&lingering[0]).unwrap();
    post.queue.hold(&held, false).unwrap();
    post.wait("second", |_| kept(&server).len() == 2);
    assert_eq!(
        post.queue.list().iter().filter(|e| !e.is_settled()).count(),
        1
    );
    post.queue.retry(&later).unwrap();
    post.wait_until_empty();
    let words: Vec<_> = kept(&server).into_keys().collect();
    assert_eq!(words, ["held", "later", "now"]);
    assert_eq!(
        post.queue.cancel(&held).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_clock_that_is_set_back_keeps_no_mail_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let id = add(&queue, &["bob"], "soon");
    let mut later = envelope(&["bob"]);
    later.send_at = Some(seconds_now() + 7200);
    let later = queue.add(later, &mut &b"Subject: later\n\n"[..]).unwrap();
    // An hour ago by the clock of today.
    let past = seconds_now() - 3600;
    let jobs = queue.claim(past, 10);
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((&jobs[0].id, &jobs[0].recipients), (&id, &vec![0]));
    queue.release(&[id]);
    assert!(queue.claim(past, 10).iter().all(|job| job.id != later));
}

#[test]
fn several_messages_are_cancelled_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let ids = [add(&queue, &["bob"], "1"), add(&queue, &["carol"], "2")];
    let soon = seconds_now() + 10;
    let jobs = queue.claim(soon, 1);
    let err = queue.cancel_all(&ids).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Busy);
    assert!(queue.list().iter().all(|e| e.state() == State::Queued));
    queue.release(&[jobs[0].id.clone()]);
    queue.cancel_all(&ids).unwrap();
    assert!(queue.list().iter().all(|e| e.state() == State::Cancelled));
    drop(queue);
    let queue = open(dir.path());
    assert!(queue.list().iter().all(|e| e.state() == State::Cancelled));
    queue.leave(&ids).unwrap();
    queue.cancel_all(&ids).unwrap();
}

/// Seconds since 1970.
fn seconds_now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_server_that_holds_messages_gets_them_early() {
    let server = Smtpd::start(Quirks::default().with("FUTURERELEASE 86400 2030-01-01T00:00:00Z"));
    let dir = tempfile::tempdir().unwrap();
    let post = start(open(dir.path()), relay(server.port));
    let mut later = envelope(&["bob"]);
    later.send_at = Some(seconds_now() + 3600);
    post.queue
        .add(later, &mut &b"Subject: later\n\n"[..])
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        kept(&server).is_empty(),
        "nobody knows yet what the server can do"
    );
    add(&post.queue, &["bob"], "now");
    post.wait_until_empty();
    let mails: Vec<_> = server.kept().iter().map(|r| r.mail.clone()).collect();
    assert!(mails.iter().any(|m| m.contains(" HOLDFOR=3")), "{mails:?}");
}

/// It says that it holds messages, and does not: that is no word on the message.
#[test]
fn a_server_that_refuses_to_hold_a_message_gets_it_at_its_time() {
    for pipelining in [true, false] {
        let mut quirks = Quirks::default().with("FUTURERELEASE 86400 2030-01-01T00:00:00Z");
        if !pipelining {
            quirks = quirks.without("PIPELINING");
        }
        quirks.no_hold = Some("555 5.5.4 HOLDFOR parameter not recognized".into());
        let server = Smtpd::start(quirks);
        let dir = tempfile::tempdir().unwrap();
        let post = start(open(dir.path()), relay(server.port));
        let mut later = envelope(&["bob"]);
        later.send_at = Some(seconds_now() + 3600);
        let id = post
            .queue
            .add(later, &mut &b"Subject: later\n\n"[..])
            .unwrap();
        add(&post.queue, &["bob"], "now");
        post.wait("refused", |_| {
            server.log().iter().any(|line| line.contains(" HOLDFOR="))
        });
        post.wait("sent", |_| kept(&server).contains_key("now"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(post.state(&id), Some(State::Queued), "{pipelining}");
        let tried = server
            .log()
            .iter()
            .filter(|l| l.contains(" HOLDFOR="))
            .count();
        assert_eq!(tried, 1, "{pipelining}");
        post.queue.retry(&id).unwrap();
        post.wait("sent", |_| kept(&server).contains_key("later"));
    }
}

#[test]
fn nothing_goes_before_its_time_but_at_the_users_word() {
    let held = "FUTURERELEASE 86400 2030-01-01T00:00:00Z";
    let server = Smtpd::start(Quirks::default().with(held));
    let dir = tempfile::tempdir().unwrap();
    let mut options = relay(server.port);
    options.idle = Duration::from_millis(50);
    let post = start(open(dir.path()), options);
    let now = seconds_now();
    let add_later = |word: &str, seconds: u64| {
        let mut later = envelope(&["bob"]);
        later.send_at = Some(now + seconds);
        let text = format!("Subject: {word}\n\n");
        post.queue.add(later, &mut text.as_bytes()).unwrap()
    };
    // It knows now what the server can do, and the server gets another mind.
    add(&post.queue, &["bob"], "now");
    post.wait_until_empty();
    post.wait("idle", |_| server.log().iter().any(|line| line == "QUIT"));
    server.with(|state| state.quirks = Quirks::default());
    let early = add_later("early", 3600);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(kept(&server).len(), 1, "sent before its time");
    assert_eq!(post.state(&early), Some(State::Queued));
    post.queue.cancel(&early).unwrap();
    // The server does not hold it that long, and the user wants it to go.
    server.with(|state| state.quirks = Quirks::default().with(held));
    let far = add_later("far", 864_000);
    post.queue.retry(&far).unwrap();
    post.wait("sent", |_| kept(&server).contains_key("far"));
    let mail = server.kept().last().unwrap().mail.clone();
    assert!(!mail.contains("HOLDFOR"), "{mail}");
    // The server puts it off: it is tried again at its time, not in a minute.
    server.with(|state| state.quirks.finals = ["451 4.3.0 later".into()].into());
    let id = add_later("put off", 7200);
    post.wait_for(&id, State::Deferred);
    assert_eq!(post.queue.get(&id).unwrap().due(), Some(now + 7200));
    // Who wants all to be tried has no message in mind.
    post.queue.retry_all().unwrap();
    assert_eq!(post.queue.get(&id).unwrap().due(), Some(now + 7200));
}

#[test]
fn what_the_server_took_is_not_sent_again_though_that_cannot_be_written() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let appends = Mutex::new(0);
    let with_fault = QueueOptions {
        watch: Arc::new(move |step| {
            let mut appends = appends.lock().unwrap();
            *appends += usize::from(step == Step::Append);
            // Opened, queued, armed, the dot; what the server said finds the disk full.
            if step == Step::Append && *appends == 5 {
                return Err(Error::new(ErrorKind::Local(28), "no space"));
            }
            Ok(())
        }),
        ..options()
    };
    let (queue, _) = Queue::open(dir.path(), with_fault).unwrap();
    let id = add(&queue, &["bob"], "1");
    let post = start(queue, relay(server.port));
    post.wait_until_empty();
    assert_eq!(kept(&server)["1"], 1);
    let (_, user) = post.stop();
    user.with(|told| {
        assert_eq!(told.copies[&id], 1);
        assert_eq!(told.settled[&id], State::Accepted);
    });
}

#[test]
fn a_server_that_does_not_know_the_chunks_it_offers_gets_data() {
    let server = Smtpd::start(Quirks {
        no_bdat: Some("500 5.5.1 what".into()),
        ..Quirks::default().with("CHUNKING").without("PIPELINING")
    });
    let dir = tempfile::tempdir().unwrap();
    let post = start(open(dir.path()), relay(server.port));
    let id = add(&post.queue, &["bob"], "1");
    post.wait_until_empty();
    let attempts = post.queue.get(&id).unwrap().attempts;
    add(&post.queue, &["bob"], "2");
    post.wait_until_empty();
    let chunks = server
        .log()
        .iter()
        .filter(|l| l.starts_with("BDAT"))
        .count();
    assert_eq!((attempts, chunks, server.connections()), (0, 1, 2));
    assert_eq!(kept(&server).len(), 2);
}

#[test]
fn a_copy_that_cannot_be_kept_keeps_the_message_in_the_queue() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let queue = open(dir.path());
    let id = add(&queue, &["bob"], "1");
    let post = start(queue, relay(server.port));
    post.user.with(|told| told.full = true);
    post.wait_for(&id, State::Accepted);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(post.queue.len(), 1);
    drop(post.stop());
    let post = start(open(dir.path()), relay(server.port));
    post.wait_until_empty();
    assert_eq!(post.user.with(|told| told.copies[&id]), 1);
    assert_eq!(kept(&server)["1"], 1);
}

#[test]
fn a_queue_serves_one_process_and_takes_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = options();
    limited.largest = 100;
    let (queue, _) = Queue::open(dir.path(), limited).unwrap();
    assert_eq!(
        Queue::open(dir.path(), options()).unwrap_err().kind(),
        ErrorKind::Busy
    );
    let large = queue.stage(envelope(&["bob"]), &mut &[b'x'; 101][..]);
    assert_eq!(large.unwrap_err().kind(), ErrorKind::TooLarge);
    let nobody = queue.stage(envelope(&[]), &mut &b"x"[..]);
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::Invalid);
    drop(queue.stage(envelope(&["bob"]), &mut &b"x"[..]).unwrap());
    drop(queue);
    assert_eq!(
        std::fs::read_dir(dir.path().join("tmp")).unwrap().count(),
        0
    );

    // A disk that fills up at any step: the error comes back, nothing is queued.
    for (at, small) in (0..6).flat_map(|at| [(at, 0), (at, 1 << 16)]) {
        let steps = Arc::new(Mutex::new(0));
        let watch = move |_| {
            let mut steps = steps.lock().unwrap();
            *steps += 1;
            // Opening takes some.
            if *steps == at + 3 {
                return Err(Error::new(ErrorKind::Local(28), "no space"));
            }
            Ok(())
        };
        let dir = tempfile::tempdir().unwrap();
        let with_fault = QueueOptions {
            watch: Arc::new(watch),
            small,
            ..options()
        };
        let Ok((queue, _)) = Queue::open(dir.path(), with_fault) else {
            continue;
        };
        let staged: Vec<_> = (0..3)
            .map(|_| {
                queue
                    .stage(envelope(&["bob"]), &mut &b"Subject: 1\n\n"[..])
                    .unwrap()
            })
            .collect();
        let committed = queue.commit(staged, Duration::ZERO);
        let expected = if committed.is_ok() { 3 } else { 0 };
        assert_eq!(queue.len(), expected, "fault at step {at}: {committed:?}");
        drop(queue);
        let (queue, _) = Queue::open(dir.path(), options()).unwrap();
        assert_eq!(queue.len(), expected, "fault at step {at}, reopened");
    }
}

/// Stands between any two steps on disk, and after so many of them lets nothing happen any more.
#[derive(Debug)]
struct Death {
    left: Mutex<Option<usize>>,
    /// Journal that survives a power failure.
    durable: Mutex<u64>,
}

impl Death {
    fn after(steps: usize) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(Some(steps)),
            durable: Mutex::new(0),
        })
    }

    fn watch(&self, step: Step) -> Result<()> {
        let mut left = self.left.lock().unwrap();
        match &mut *left {
            Some(0) => Err(Error::new(ErrorKind::Protocol, "killed")),
            Some(steps) => {
                *steps -= 1;
                if let Step::Synced(length) | Step::Rewritten(length) = step {
                    *self.durable.lock().unwrap() = length;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn has_come(&self) -> bool {
        *self.left.lock().unwrap() == Some(0)
    }
}

/// Queues three messages and sends them, dies after `steps`, and goes on in another process.
/// `false` once nothing is left to die in.
fn die_and_go_on(steps: usize, power_failure: bool, small: u64) -> bool {
    let quirks = Quirks::default().recipient("nosuch@example.org", &["550 5.1.1 no"]);
    let (dir, server) = (tempfile::tempdir().unwrap(), Smtpd::start(quirks));
    let death = Death::after(steps);
    let watched = Arc::clone(&death);
    let first = QueueOptions {
        watch: Arc::new(move |step| watched.watch(step)),
        boot: Some("first".into()),
        small,
        ..options()
    };
    let mut queued = Vec::new();
    let mut copies = BTreeMap::new();
    if let Ok((queue, _)) = Queue::open(dir.path(), first) {
        for (word, names) in [
            ("1", &["bob"][..]),
            ("2", &["bob", "nosuch"]),
            ("3", &["carol"]),
        ] {
            let text = format!("Subject: {word}\n\nbody\n");
            if queue.add(envelope(names), &mut text.as_bytes()).is_ok() {
                queued.push(word.to_owned());
            }
        }
        let mut options = relay(server.port);
        options.connections = 1;
        let post = start(queue, options);
        let begun = Instant::now();
        while !post.queue.is_empty() && !death.has_come() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (_, user) = post.stop();
        copies = user.with(|told| std::mem::take(&mut told.copies));
    }
    let survived = !death.has_come();
    let journal = dir.path().join("journal");
    if power_failure && journal.exists() && !survived {
        let file = File::options().write(true).open(&journal).unwrap();
        let durable = *death.durable.lock().unwrap();
        file.set_len(durable.min(file.metadata().unwrap().len()))
            .unwrap();
    }
    let second = QueueOptions {
        boot: Some(if power_failure { "second" } else { "first" }.into()),
        ..options()
    };
    let (queue, recovered) = Queue::open(dir.path(), second).unwrap();
    let context = format!("death after {steps} steps, {power_failure}, {small}");
    assert_eq!(
        (recovered.damaged, recovered.lost.len()),
        (0, 0),
        "{context}"
    );
    let before = kept(&server);
    let doubtful: BTreeSet<_> = recovered
        .in_doubt
        .iter()
        .map(|id| {
            let mut text = String::new();
            queue
                .open_message(id)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            text.lines().next().unwrap()["Subject: ".len()..].to_owned()
        })
        .collect();
    if !power_failure {
        assert!(
            doubtful.len() <= 1,
            "{context}: one message can be at its dot"
        );
    }
    for id in &recovered.unqueued {
        queue.discard_unqueued(id).unwrap();
    }
    let post = start(queue, relay(server.port));
    post.wait(&context, |post| post.queue.len() == doubtful.len());
    let after = kept(&server);
    for word in &queued {
        let times = after.get(word).copied().unwrap_or(0);
        if doubtful.contains(word) {
            assert_eq!(
                times,
                before.get(word).copied().unwrap_or(0),
                "{context}: {word}"
            );
        } else {
            assert_eq!(times, 1, "{context}: {word}");
        }
    }
    assert!(after.values().all(|n| *n == 1), "{context}: {after:?}");
    // The user hears of everything, twice at worst.
    for (id, more) in post.user.with(|told| told.copies.clone()) {
        *copies.entry(id).or_default() += more;
    }
    let certain = after
        .keys()
        .filter(|word| !doubtful.contains(*word))
        .count();
    assert!(copies.len() >= certain, "{context}: {copies:?}");
    for id in &recovered.in_doubt {
        post.queue.retry(id).unwrap();
    }
    post.wait_until_empty();
    !survived
}

#[test]
fn death_between_any_two_steps_loses_nothing_and_repeats_nothing() {
    for (small, least) in [(0, 40), (1 << 16, 25)] {
        let mut steps = 0;
        while die_and_go_on(steps, false, small) {
            steps += 1;
        }
        assert!(steps > least, "{steps}");
    }
}

#[test]
fn a_power_failure_between_any_two_steps_loses_nothing_and_repeats_nothing() {
    for (small, least) in [(0, 40), (1 << 16, 25)] {
        let mut steps = 0;
        while die_and_go_on(steps, true, small) {
            steps += 1;
        }
        assert!(steps > least, "{steps}");
    }
}

#[test]
fn a_damaged_journal_sends_nothing_without_the_users_word() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let with_files = QueueOptions {
        small: 0,
        ..options()
    };
    let (queue, _) = Queue::open(dir.path(), with_files).unwrap();
    for i in 0..3 {
        add(&queue, &["bob"], &i.to_string());
    }
    drop(queue);
    let journal = dir.path().join("journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    let second = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .nth(1)
        .unwrap()
        .0;
    bytes[second - 3] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let (queue, recovered) = Queue::open(dir.path(), options()).unwrap();
    assert_eq!(
        (recovered.damaged, recovered.in_doubt.len()),
        (1, 3),
        "{recovered:?}"
    );
    let set_aside = std::fs::read(dir.path().join("journal.damaged")).unwrap();
    assert_eq!(set_aside, bytes);
    let ids: Vec<_> = queue.list().into_iter().map(|e| e.id).collect();
    let post = start(queue, relay(server.port));
    std::thread::sleep(Duration::from_millis(100));
    assert!(kept(&server).is_empty());
    ids.iter().for_each(|id| post.queue.retry(id).unwrap());
    post.wait_until_empty();
    assert_eq!(kept(&server).len(), 3);
}

#[test]
fn end_of_connection_at_every_octet_and_the_queue_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Smtpd::start(Quirks::default());
    let mut options = relay(server.port);
    options.pause = Duration::from_millis(1);
    options.idle = Duration::ZERO;
    let post = start(open(dir.path()), options);
    let mut doubts = 0;
    for cut in (1..450).step_by(3) {
        server.with(|s| s.quirks.cut_after = Some(cut));
        let word = cut.to_string();
        let id = add(&post.queue, &["bob"], &word);
        let verdict = post.sender.word(&id, PATIENCE);
        server.with(|s| s.quirks.cut_after = None);
        let shown = format!("{verdict:?}");
        match verdict {
            Word::Accepted => {}
            Word::InDoubt(_) => {
                doubts += 1;
                post.queue.cancel(&id).unwrap();
            }
            Word::Trouble(_) => post.sender.trigger(),
            Word::Deferred(_) => while post.queue.retry(&id).is_err() && !post.queue.is_empty() {},
            other => panic!("cut at {cut}: {other:?}"),
        }
        post.wait_until_empty();
        let times = kept(&server).get(&word).copied().unwrap_or(0);
        // In doubt means just that.
        let doubtful = shown.starts_with("InDoubt");
        assert!(
            times == 1 || (doubtful && times == 0),
            "cut at {cut}: {shown}, {times} times"
        );
    }
    assert!(doubts > 3, "{doubts}");
}

#[test]
fn a_journal_that_is_written_anew_keeps_what_is_queued() {
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let queue = open(dir.path());
    let mut kept_back = envelope(&["bob"]);
    kept_back.hold = true;
    let text = "Subject: kept back\n\n\u{e9} \"x\"\\\r\n\tend";
    let id = queue.add(kept_back, &mut text.as_bytes()).unwrap();
    let post = start(queue, relay(server.port));
    let long = format!("Subject: %\n\n{}", "x".repeat(999).repeat(60));
    let journal = || std::fs::metadata(dir.path().join("journal")).unwrap().len();
    let mut longest = 0;
    for round in 0..7 {
        let some = (0..50).map(|n| long.replace('%', &format!("{round}.{n}")));
        let staged: Vec<_> = some
            .map(|text| {
                post.queue
                    .stage(envelope(&["bob"]), &mut text.as_bytes())
                    .unwrap()
            })
            .collect();
        post.queue.commit(staged, Duration::ZERO).unwrap();
        post.wait("sent", |post| post.queue.len() == 1);
        longest = longest.max(journal());
    }
    assert!(
        longest > 8 << 20 && journal() < 8 << 20,
        "{longest}, {}",
        journal()
    );
    let (queue, user) = post.stop();
    drop(user);
    drop(Arc::into_inner(queue).unwrap());
    let queue = open(dir.path());
    let mut found = String::new();
    queue
        .open_message(&id)
        .unwrap()
        .read_to_string(&mut found)
        .unwrap();
    assert_eq!((queue.len(), found.as_str()), (1, text));
    let post = start(queue, relay(server.port));
    post.queue.retry(&id).unwrap();
    post.wait_until_empty();
    assert_eq!(kept(&server).len(), 351);
    assert_eq!(
        std::fs::read_dir(dir.path().join("message"))
            .unwrap()
            .count(),
        0
    );
}

/// Also those that were found so by a process that was killed before anybody looked.
fn in_doubt(queue: &Queue) -> Vec<Id> {
    let all = queue.list().into_iter();
    all.filter(|entry| entry.state() == State::InDoubt)
        .map(|entry| entry.id)
        .collect()
}

const CHILD: &str = "mail_queue::child_that_is_killed";

/// Queues and sends until somebody kills it. Only run by the test below.
#[test]
#[ignore = "runs inside of another test"]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var("FERRYFS_TEST_QUEUE") else {
        return;
    };
    let port = std::env::var("FERRYFS_TEST_PORT").unwrap().parse().unwrap();
    let round = std::env::var("FERRYFS_TEST_ROUND").unwrap();
    // Files and the journal, in turns.
    let small = if round.ends_with(['0', '2', '4', '6', '8']) {
        0
    } else {
        1 << 16
    };
    let with_both = QueueOptions { small, ..options() };
    let (queue, recovered) = Queue::open(Path::new(&dir), with_both).unwrap();
    println!("doubts {}", recovered.in_doubt.len());
    for id in in_doubt(&queue) {
        // The user looks, and says: once more. That is the visible duplicate.
        println!("again {id}");
        queue.retry(&id).unwrap();
    }
    let post = start(queue, relay(port));
    for number in 0.. {
        let word = format!("{round}.{number}");
        add(&post.queue, &["bob"], &word);
        println!("queued {word}");
    }
}

#[test]
fn kill_9_at_any_time_loses_nothing_and_repeats_only_what_was_in_doubt() {
    let rounds = std::env::var("FERRYFS_KILLS").map_or(12, |n| n.parse().unwrap());
    let (dir, server) = (
        tempfile::tempdir().unwrap(),
        Smtpd::start(Quirks::default()),
    );
    let (mut queued, mut doubts) = (BTreeSet::new(), 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--ignored", "--nocapture"])
            .env("FERRYFS_TEST_QUEUE", dir.path())
            .env("FERRYFS_TEST_PORT", server.port.to_string())
            .env("FERRYFS_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || lines.map_while(|l| l.ok()).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_micros(30_000 + (round * 7919) % 90_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            if let Some(word) = line.strip_prefix("queued ") {
                queued.insert(word.to_owned());
            } else if line.starts_with("again ") {
                doubts += 1;
            }
        }
    }
    let (queue, _) = Queue::open(dir.path(), options()).unwrap();
    for id in in_doubt(&queue) {
        doubts += 1;
        queue.retry(&id).unwrap();
    }
    let post = start(queue, relay(server.port));
    post.wait_until_empty();
    let kept = kept(&server);
    let lost: Vec<_> = queued
        .iter()
        .filter(|word| !kept.contains_key(*word))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    let twice = kept.values().filter(|n| **n > 1).count();
    println!("{} queued, {doubts} in doubt, {twice} twice", queued.len());
    assert!(twice <= doubts, "{twice} twice, {doubts} in doubt");
    assert!(!queued.is_empty() && doubts <= rounds as usize);
}

#[test]
fn between_servers_tls_is_used_where_it_can_be() {
    for trusted in [true, false] {
        let server = Smtpd::start(Quirks::default().with("STARTTLS"));
        let trust = TlsOptions {
            ca_file: trusted.then(|| server.ca_file.clone()),
            ..TlsOptions::default()
        };
        let route = MxRoute {
            resolver: Resolver::new(Vec::new(), Duration::from_secs(1)),
            port: server.port,
            security: Security::Upgrade,
            trust: Box::new(trust),
            timeout: Duration::from_secs(5),
            bind: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let queue = open(dir.path());
        let to = vec![address("bob@[127.0.0.1]").unwrap()];
        let envelope = Envelope::new(None, to);
        let id = queue
            .add(envelope, &mut &b"Subject: direct\n\nhi\n"[..])
            .unwrap();
        let post = start(queue, SendOptions::new(Route::Mx(route), "client.example"));
        assert_eq!(post.sender.word(&id, PATIENCE), Word::Accepted, "{trusted}");
        let log = server.log();
        assert!(log.contains(&"STARTTLS".to_owned()), "{log:?}");
        // Refused, it is tried once more in clear text.
        assert_eq!(server.connections(), if trusted { 1 } else { 2 }, "{log:?}");
    }
}
