//! The inbox with a real POP3 server, Dovecot, and the programs people read, index and save mail
//! with. `scripts/test` sets it up; see `RealServer`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::{Duration, Instant};

use ferryfs::mail::connect::{Connector, Endpoint, Security};
use ferryfs::mail::failure::{Class, Result};
use ferryfs::mail::pop3::{Auth, Credentials, Maildrop};
use ferryfs::mail::sasl::Mechanism;
use ferryfs::net::trust::TlsOptions;
use ferryfs::secret::Secret;

use crate::support::mount::{Mounting, TestMount};
use crate::support::real::RealServer;

/// Longer than any session here takes.
const PATIENCE: Duration = Duration::from_secs(40);

fn dovecot(words: &[&str]) -> Option<RealServer> {
    RealServer::start("dovecot", "user", words)
}

fn endpoint(server: &RealServer, security: Security) -> Endpoint {
    let port = match security {
        Security::Implicit => "tls_port",
        Security::Upgrade | Security::Off => "port",
    };
    Endpoint {
        host: "localhost".into(),
        port: server.fact(port).parse().unwrap(),
        security,
        trust: Box::new(TlsOptions {
            ca_file: Some(server.fact("cafile").into()),
            ..TlsOptions::default()
        }),
        proxy: None,
        timeout: Duration::from_secs(20),
        bind: None,
    }
}

fn open(server: &RealServer, security: Security, auth: Auth, secret: &str) -> Result<Maildrop> {
    let is_token = matches!(auth, Auth::Sasl(m) if m.takes_token());
    let secret = Secret::new(secret);
    let who = Credentials {
        user: if is_token { "bob" } else { "alice" },
        secret: &secret,
        is_token,
        auth,
    };
    Maildrop::open(&Connector::new(endpoint(server, security))?, &who, &|_| ())
}

/// Puts a message into the Maildir that the server serves, as a delivery agent does.
fn deliver(server: &RealServer, user: &str, name: &str, text: &[u8]) {
    let written = server.path(user).join("tmp").join(name);
    fs::write(&written, text).unwrap();
    chown(&written, Some(8), Some(8)).unwrap();
    fs::rename(written, server.path(user).join("new").join(name)).unwrap();
}

/// Messages of all sorts, by number.
fn text(number: usize) -> Vec<u8> {
    let mut text = format!(
        "From: Bob <bob@example.org>\nTo: alice@example.org\nSubject: Number {number}\n\
         Message-ID: <{number}@example.org>\nDate: Mon, 23 Nov 2026 10:00:{:02} +0000\n\n",
        number % 60
    )
    .into_bytes();
    let line = format!("line of {number}\n");
    match number % 6 {
        0 => text.extend(line.repeat(number * 10).into_bytes()),
        1 => text.extend(b".\n..\n.dots\n\n.\n"),
        2 => text.extend(
            (0_u8..=255)
                .filter(|b| !b"\r\n\0".contains(b))
                .chain(*b"\n"),
        ),
        3 => text.extend([vec![b'x'; 5000], b"\n".to_vec()].concat()),
        4 => text.extend(line.into_bytes()),
        // A header alone.
        _ => {}
    }
    text
}

fn mounting(server: &RealServer) -> Mounting {
    Mounting::of(format!(
        "pop3s://alice@localhost:{}/",
        server.fact("tls_port")
    ))
    .password(server.fact("password"))
    .option(format!("cafile={}", server.fact("cafile")))
}

/// Waits until `count` messages are in the inbox.
fn fetched(mount: &TestMount, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let here = || fs::read_dir(mount.path("new")).unwrap().count();
    while here() < count {
        let status = || fs::read_to_string(mount.path("status"));
        assert!(Instant::now() < deadline, "{} here: {:?}", here(), status());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The messages below `maildir`, each with its file name, which must tell its size.
fn messages(maildir: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    for dir in ["new", "cur"] {
        for entry in fs::read_dir(maildir.join(dir)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let text = fs::read(entry.path()).unwrap();
            assert_eq!(entry.metadata().unwrap().len(), text.len() as u64, "{name}");
            let (base, _) = name.split_once(":2,").unwrap_or((&name, ""));
            assert!(base.ends_with(&format!(",S={}", text.len())), "{name}");
            let twice = found.insert(text, name);
            assert_eq!(twice, None, "twice");
        }
    }
    found
}

#[test]
fn dovecot_takes_every_way_to_log_in() {
    let Some(server) = dovecot(&[]) else { return };
    deliver(&server, "alice", "1.a.b", &text(1));
    deliver(&server, "bob", "1.a.b", &text(1));
    for security in [Security::Implicit, Security::Upgrade, Security::Off] {
        for auth in [
            Auth::Auto,
            Auth::User,
            Auth::Apop,
            Auth::Sasl(Mechanism::Plain),
            Auth::Sasl(Mechanism::Login),
            Auth::Sasl(Mechanism::ScramSha256),
            Auth::Sasl(Mechanism::Xoauth2),
            Auth::Sasl(Mechanism::OauthBearer),
        ] {
            let good = match auth {
                Auth::Sasl(mechanism) if mechanism.takes_token() => "token",
                _ => "password",
            };
            let mut maildrop = open(&server, security, auth, server.fact(good)).unwrap();
            let listed = maildrop.list().unwrap();
            assert_eq!(listed.len(), 1, "{auth:?}");
            let mut retrieval = maildrop.retrieve(&[1], 8);
            assert!(retrieval.next().unwrap().unwrap().reply.ok);
            let mut got = Vec::new();
            retrieval.text(&mut got, 1 << 20).unwrap();
            assert_eq!(got, text(1));
            assert!(retrieval.next().unwrap().is_none());
            drop(retrieval);
            maildrop.quit().unwrap();
            let refused = open(&server, security, auth, "wrong").unwrap_err();
            assert_eq!(refused.class(), Class::Account, "{auth:?}: {refused}");
        }
    }
}

#[test]
fn programs_work_on_a_mailbox() {
    const ALL: usize = 60;
    let Some(server) = dovecot(&["tls"]) else {
        return;
    };
    for number in 0..ALL {
        deliver(&server, "alice", &format!("{number}.a.b"), &text(number));
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    fetched(&mount, ALL);
    let wanted: Vec<_> = (0..ALL).map(text).collect();
    let found = messages(&mount.root());
    assert_eq!(found.len(), ALL);
    for text in &wanted {
        assert!(
            found.contains_key(text),
            "{}",
            String::from_utf8_lossy(text)
        );
    }
    saved(&mount);
    indexed(&mount, ALL);
    // One more, while they have what they have.
    deliver(&server, "alice", "last.a.b", &text(ALL));
    mount.sh("echo poll > ctl");
    fetched(&mount, ALL + 1);
    let local = mount.local("").display().to_string();
    let added = mount.sh(&format!(
        "export NOTMUCH_CONFIG={local}/nm.conf; notmuch new 2>&1"
    ));
    assert!(added.contains("Added 1 new message"), "{added}");
    mount.sh(&format!("mu index --muhome={local}/mu --quiet"));
    let count = mount.sh(&format!(
        "mu find --muhome={local}/mu --fields=m '' | wc -l"
    ));
    assert_eq!(count.trim(), (ALL + 1).to_string());
    read_by_mutt(&mount, ALL + 1);
    mount.finish();
}

/// A backup of everything in the mount, twice: the second finds nothing to do.
fn saved(mount: &TestMount) {
    let to = mount.local("saved").display().to_string();
    mount.sh(&format!("rsync -a ./ {to}/"));
    assert_eq!(mount.sh(&format!("rsync -ai ./ {to}/")), "");
    mount.sh(&format!("diff -r new {to}/new && diff -r parts {to}/parts"));
    mount.sh(&format!("tar cf {to}.tar . && tar df {to}.tar"));
}

/// notmuch keeps its index beside the mount.
fn indexed(mount: &TestMount, all: usize) {
    let local = mount.local("").display().to_string();
    let root = mount.root().display().to_string();
    let count = mount.sh(&format!(
        "mkdir {local}/nm; printf '[database]\\npath={local}/nm\\nmail_root={root}\\n[new]\\ntags=new\\n\
         ignore=parts;outbox;drafts;queue;failed;aliases;status;ctl\\n' > {local}/nm.conf
         export NOTMUCH_CONFIG={local}/nm.conf
         notmuch new > {local}/nm.log 2>&1; notmuch count '*'
         notmuch search --output=files subject:7 | xargs -d '\\n' grep -l 'Number 7$' | wc -l
         mu init --muhome={local}/mu --maildir={root} --quiet
         mu index --muhome={local}/mu --quiet
         mu find --muhome={local}/mu --fields=m '' | wc -l"
    ));
    assert_eq!(count, format!("{all}\n1\n{all}\n"));
}

/// mutt copies every message, flags one as read and goes.
fn read_by_mutt(mount: &TestMount, all: usize) {
    let local = mount.local("").display().to_string();
    mount.sh(&format!(
        "cat > {local}/muttrc <<'END'
set mbox_type=mbox confirmappend=no confirmcreate=no delete=no quit=yes sleep_time=0
set wait_key=no mark_old=no move=no auto_tag=yes sort=date-sent header_cache={local}/hcache folder={local}
END
        # A terminal that nobody types at, and nobody hangs up.
        mkfifo {local}/keys && exec 3<> {local}/keys
        export TERM=xterm
        script -qec 'mutt -n -F {local}/muttrc -f . -e \"push \\\"<tag-pattern>~A<enter><copy-message>{local}/mbox<enter><untag-pattern>~A<enter><first-entry><set-flag>N<first-entry><clear-flag>N<quit>\\\"\"' \
            {local}/mutt.log <&3 > /dev/null"
    ));
    let mbox = fs::read(mount.local("mbox")).unwrap();
    let subjects = mbox
        .split(|b| *b == b'\n')
        .filter(|line| line.starts_with(b"Subject: Number "))
        .count();
    let screen = fs::read(mount.local("mutt.log")).unwrap();
    let screen = screen
        .utf8_chunks()
        .map(|c| c.valid().to_owned())
        .collect::<String>();
    assert_eq!(subjects, all, "{screen}");
    assert_eq!(mount.sh("ls new cur | grep -c ,S=").trim(), all.to_string());
    assert_eq!(mount.sh("ls cur | grep -c ':2,S$'").trim(), "1");
}

/// Kills the mount again and again while it fetches and deletes on the server. `FERRYFS_KILLS` is
/// how often.
#[test]
fn a_mailbox_that_is_killed_loses_and_doubles_nothing() {
    const ALL: usize = 400;
    let kills = std::env::var("FERRYFS_KILLS").ok();
    let kills: u64 = kills.and_then(|kills| kills.parse().ok()).unwrap_or(4);
    let Some(server) = dovecot(&[]) else { return };
    let fill = |round: usize| {
        for number in round * ALL..(round + 1) * ALL {
            deliver(&server, "alice", &format!("{number}.a.b"), &text(number));
        }
    };
    fill(0);
    let mut rounds = 1;
    let there = |rounds: usize| {
        let left = messages_there(&server);
        (0..rounds * ALL)
            .filter(|n| !left.contains(n))
            .collect::<Vec<_>>()
    };
    let options = ["server_delete=after-fetch", "poll=1s"];
    let mut mounting = mounting(&server);
    for option in options {
        mounting = mounting.option(option);
    }
    let Some(mut mount) = mounting.expect_log("fetching mail").start() else {
        return;
    };
    for kill in 0..kills {
        // Spread over a whole session, with no pattern in it.
        std::thread::sleep(Duration::from_millis(20 + kill * 7919 % 700));
        let killed = mount.kill();
        let gone = there(rounds);
        mount = killed.remount();
        mount.expect_log("fetching mail");
        // What the server has no longer is here, and whole; nothing is here twice.
        let found = messages(&mount.root());
        for number in gone {
            assert!(
                found.contains_key(&text(number)),
                "kill {kill}: {number} is lost"
            );
        }
        if found.len() == rounds * ALL {
            fill(rounds);
            rounds += 1;
        }
    }
    fetched(&mount, rounds * ALL);
    let found = messages(&mount.root());
    assert_eq!(found.len(), rounds * ALL);
    for number in 0..rounds * ALL {
        assert!(found.contains_key(&text(number)), "{number} is lost");
    }
    let deadline = Instant::now() + PATIENCE;
    while !messages_there(&server).is_empty() {
        assert!(Instant::now() < deadline, "not deleted on the server");
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{kills} kills, {} messages", rounds * ALL);
    mount.finish();
}

/// The numbers of the messages that the server has.
fn messages_there(server: &RealServer) -> Vec<usize> {
    let mut found = Vec::new();
    for dir in ["new", "cur"] {
        for entry in fs::read_dir(server.path("alice").join(dir)).unwrap() {
            // Dovecot moves them from new to cur, and removes them, meanwhile.
            let name = entry.unwrap().file_name().into_string().unwrap();
            found.extend(name.split('.').next().and_then(|n| n.parse::<usize>().ok()));
        }
    }
    found
}

/// From the outbox through Postfix, with TLS and a login, into Dovecot's maildrop and by POP3 into
/// the inbox of the same mount.
#[test]
fn what_is_sent_comes_back_byte_for_byte() {
    let Some(dovecot) = dovecot(&[]) else { return };
    let sasl = format!("sasl={}/run/sasl-auth", dovecot.fact("state"));
    let base = format!("virtual_mailbox_base={}", dovecot.fact("root"));
    let Some(postfix) = RealServer::start("postfix", "user", &[&sasl, &base]) else {
        return;
    };
    let authorities = tempfile::NamedTempFile::new().unwrap();
    let pem = |server: &RealServer| fs::read(server.fact("cafile")).unwrap();
    fs::write(&authorities, [pem(&dovecot), pem(&postfix)].concat()).unwrap();
    for (scheme, port) in [("smtps", "tls_port"), ("smtp", "submission_port")] {
        let Some(mount) = Mounting::of(format!(
            "pop3s://alice@localhost:{}/",
            dovecot.fact("tls_port")
        ))
        .password(dovecot.fact("password"))
        .option(format!("cafile={}", authorities.path().display()))
        .option(format!("smtp={scheme}://localhost:{}", postfix.fact(port)))
        .option("from=Alice A. <alice@example.com>,poll=1s")
        .start() else {
            return;
        };
        round_trip(&mount, &dovecot);
        mount.finish();
        for user in ["alice", "bob", "carol"] {
            for dir in ["new", "cur"] {
                let dir = dovecot.path(user).join(dir);
                for mail in fs::read_dir(dir).unwrap() {
                    fs::remove_file(mail.unwrap().path()).unwrap();
                }
            }
        }
    }
}

/// How people write a file.
const WAYS: [(&str, &str); 6] = [
    ("echo", "echo \"$(cat $M)\" > $O"),
    ("cp", "cp $M $O"),
    ("heredoc", "cat > $O <<END\n$(cat $M)\nEND"),
    ("mv", "cp $M $M.moved; mv $M.moved $O"),
    ("mv within", "cp $M drafts/d; mv drafts/d $O"),
    ("now", "cp $M drafts/n; mv drafts/n outbox/now/n"),
];

fn round_trip(mount: &TestMount, dovecot: &RealServer) {
    let before = fs::read_dir(mount.path("new")).unwrap().count();
    let body = "caf\u{e9} .dot\n.\n..\n\nFrom the start\n".to_owned() + &"line\n".repeat(500);
    let message = mount.local("message");
    for (number, (way, script)) in WAYS.iter().enumerate() {
        let header = format!(
            "From: alice@example.com\nTo: alice@example.com\nSubject: {way}\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
        );
        fs::write(&message, header + &body).unwrap();
        let script = script.replace("$M", &message.display().to_string());
        mount.sh(&script.replace("$O", &format!("outbox/m{number}")));
    }
    mount.sh(
        "printf 'lunch: alice@example.com, friends\\nfriends: bob@example.com, carol@example.com\\n' \\
            > aliases/.aliases
         echo 'At noon.' > outbox/lunch/Lunch.txt
         echo 'All of you.' > outbox/team@example.com/Team.txt",
    );
    fetched(mount, before + WAYS.len() + 2);
    std::thread::sleep(Duration::from_millis(1500));
    let mut bodies = BTreeMap::new();
    for text in messages(&mount.root()).into_keys() {
        let text = String::from_utf8(text).unwrap();
        let (header, body) = text.split_once("\n\n").unwrap();
        let subject = header
            .lines()
            .find_map(|line| line.strip_prefix("Subject: "));
        *bodies
            .entry((subject.unwrap().to_owned(), body.to_owned()))
            .or_insert(0) += 1;
    }
    for (way, _) in WAYS {
        let times = bodies.get(&(way.to_owned(), body.clone()));
        assert!(times.is_some(), "{way}: {:?}", bodies.keys());
    }
    // One list is ours, the other Postfix'.
    for (subject, body) in [("Lunch", "At noon.\n"), ("Team", "All of you.\n")] {
        let times = bodies.get(&(subject.to_owned(), body.to_owned()));
        assert!(times.is_some(), "{subject}: {:?}", bodies.keys());
    }
    let of = |user: &str| {
        fs::read_dir(dovecot.path(user).join("new"))
            .unwrap()
            .count()
    };
    assert_eq!((of("bob"), of("carol")), (2, 2));
    assert_eq!(mount.sh("ls failed queue"), "failed:\n\nqueue:\n");
}
