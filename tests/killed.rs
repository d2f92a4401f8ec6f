//! Real servers whose sessions are killed and that are restarted, that let in few at a time, and
//! backup programs that must not notice.

use std::fs;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::mount::TestMount;
use crate::support::real::RealServer;

/// How long after a killed session or a restarted server the first success may take.
const BACK: Duration = Duration::from_secs(2);

/// A server and a mount of it, whose complaints are no failures: that is what is played here.
fn stage(name: &'static str, words: &[&str]) -> Option<(RealServer, TestMount)> {
    let server = RealServer::start(name, "user", words)?;
    let mounting = server.mounting().option("timeout=20s").expect_log("");
    let mount = mounting.patience(Duration::from_secs(400)).start()?;
    Some((server, mount))
}

/// `work` until it succeeds: how long that took.
fn until_success(mut work: impl FnMut() -> io::Result<()>) -> Duration {
    let start = Instant::now();
    loop {
        let done = work();
        let took = start.elapsed();
        match done {
            Ok(()) => return took,
            Err(err) => assert!(took < Duration::from_secs(20), "never: {err}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Something done with a mount.
type Use<'a> = Box<dyn FnMut() -> io::Result<()> + 'a>;

/// Ways of using the mount that need the server.
fn uses(mount: &TestMount, round: usize) -> [(&'static str, Use<'_>); 4] {
    let fresh = format!("fresh{round}");
    let made = format!("made{round}");
    let renamed = format!("renamed{round}");
    [
        ("mkdir", Box::new(move || fs::create_dir(mount.path(&made)))),
        ("write", {
            let fresh = fresh.clone();
            Box::new(move || fs::write(mount.path(&fresh), "content"))
        }),
        ("rename", {
            let fresh = fresh.clone();
            Box::new(move || fs::rename(mount.path(&fresh), mount.path(&renamed)))
        }),
        (
            "read",
            Box::new(move || {
                let content = fs::read(mount.path(format!("old{round}")))?;
                assert_eq!(content, b"old");
                Ok(())
            }),
        ),
    ]
}

fn first_success(name: &'static str) {
    const ROUNDS: usize = 4;
    let Some((mut server, mount)) = stage(name, &[]) else {
        return;
    };
    for n in 0..ROUNDS * 2 {
        fs::write(server.path(format!("old{n}")), "old").unwrap();
    }
    server.give_all_to_the_user();
    fs::read_dir(mount.root()).unwrap();
    let mut slowest = Duration::ZERO;
    let mut killed = 0;
    for round in 0..ROUNDS {
        for (what, mut work) in uses(&mount, round) {
            killed += server.kill_sessions();
            let took = until_success(&mut work);
            assert!(
                took < BACK,
                "{name}, {what} after a killed session: {took:?}"
            );
            slowest = slowest.max(took);
        }
    }
    // What was read ahead needs no session.
    assert!(killed >= ROUNDS * 2, "only {killed} sessions were killed");
    let mut restarted = Duration::ZERO;
    for round in ROUNDS..ROUNDS * 2 {
        server.restart();
        for (what, mut work) in uses(&mount, round) {
            let took = until_success(&mut work);
            assert!(took < BACK, "{name}, {what} after a restart: {took:?}");
            restarted = restarted.max(took);
        }
    }
    println!(
        "{name}: first success after a killed session within {slowest:.0?}, after a restart within {restarted:.0?}"
    );
    mount.finish();
}

/// Sixteen read at once where two are let in, while somebody looks around.
fn sixteen_readers(name: &'static str, words: &[&str]) {
    let Some((server, mount)) = stage(name, words) else {
        return;
    };
    let content: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    for n in 0..16 {
        fs::write(server.path(format!("big{n}")), &content).unwrap();
        fs::create_dir(server.path(format!("dir{n}"))).unwrap();
        fs::write(server.path(format!("dir{n}/file")), "").unwrap();
    }
    server.give_all_to_the_user();
    let left = AtomicUsize::new(16);
    let slowest = thread::scope(|scope| {
        for n in 0..16 {
            let (mount, content, left) = (&mount, &content, &left);
            scope.spawn(move || {
                let read = fs::read(mount.path(format!("big{n}")));
                left.fetch_sub(1, SeqCst);
                assert!(read.unwrap() == *content, "big{n}");
            });
        }
        let looking = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            for n in 0..16 {
                let before = Instant::now();
                let seen = fs::read_dir(mount.path(format!("dir{n}"))).unwrap().count();
                assert_eq!(seen, 1);
                slowest = slowest.max(before.elapsed());
            }
            slowest
        });
        looking.join().unwrap()
    });
    println!("{name}: 16 readers on 2 connections; the slowest ls took {slowest:.0?}");
    assert!(
        slowest < Duration::from_secs(1),
        "{name}: ls took {slowest:?}"
    );
    mount.finish();
}

/// Runs `script` on a mount while every session is killed again and again.
fn while_sessions_die(name: &'static str, programs: &[&str], script: &str) {
    for program in programs {
        if Command::new(program).arg("--version").output().is_err() {
            return crate::support::mount::skip(&format!("{program} is not installed"));
        }
    }
    let Some((server, mount)) = stage(name, &[]) else {
        return;
    };
    let (over, killed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let printed = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                thread::sleep(Duration::from_millis(1500));
                killed.fetch_add(server.kill_sessions(), SeqCst);
            }
        });
        let source = mount.local("source");
        let back = mount.local("back");
        let script = format!("S='{}' B='{}'\n{script}", source.display(), back.display());
        let printed = mount.try_sh(&script);
        over.store(true, SeqCst);
        printed
    });
    let (status, words) = printed;
    assert!(status.success(), "{status}\n{words}\n{}", mount.log());
    let killed = killed.into_inner();
    assert!(killed > 2, "only {killed} sessions were killed");
    println!("{name}, {programs:?}: {killed} sessions were killed");
    mount.finish();
}

/// What is backed up: 12 MB in files of all sizes, a part of which changes for a second backup.
const SOURCE: &str = r#"
mkdir -p "$S/deep/er" "$B"
for n in 1 2 3 4 5 6 7 8; do
    head -c 1000000 /dev/urandom >"$S/big$n"
    seq "$n" 3000 >"$S/deep/er/text$n"
done
head -c 4000000 /dev/urandom >"$S/deep/huge"
ln -s big1 "$S/link"
"#;

fn borg(name: &'static str) {
    let script = format!(
        r#"{SOURCE}
export BORG_BASE_DIR="$B/borg" BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
borg init --encryption=none repo
borg create repo::one "$S"
sleep 2
echo more >>"$S/big2"; rm "$S/big3"
borg create repo::two "$S"
sleep 2
borg check --verify-data repo
sleep 2
cd "$B" && borg extract "$OLDPWD/repo::two" && diff -r --no-dereference "$S" "./$S""#
    );
    while_sessions_die(name, &["borg"], &script);
}

fn restic(name: &'static str) {
    let script = format!(
        r#"{SOURCE}
export RESTIC_PASSWORD=secret RESTIC_CACHE_DIR="$B/restic"
restic -q init --repo repo
restic -q --repo repo backup "$S"
sleep 2
echo more >>"$S/big2"; rm "$S/big3"
restic -q --repo repo backup "$S"
sleep 2
restic -q --repo repo check --read-data
sleep 2
restic -q --repo repo restore latest --target "$B/out" && diff -r --no-dereference "$S" "$B/out/$S""#
    );
    while_sessions_die(name, &["restic"], &script);
}

#[test]
fn vsftpd_first_success_within_two_seconds() {
    first_success("vsftpd");
}

#[test]
fn proftpd_first_success_within_two_seconds() {
    first_success("proftpd");
}

#[test]
fn vsftpd_sixteen_readers_where_two_are_welcome() {
    sixteen_readers("vsftpd", &["max_per_ip=2"]);
}

#[test]
fn proftpd_sixteen_readers_where_two_are_welcome() {
    sixteen_readers("proftpd", &["MaxClientsPerHost 2"]);
}

#[test]
fn pyftpdlib_sixteen_readers_where_two_are_welcome() {
    sixteen_readers("pyftpdlib", &["max_cons_per_ip=2"]);
}

#[test]
fn borg_while_sessions_die() {
    borg("vsftpd");
}

#[test]
fn restic_while_sessions_die() {
    restic("proftpd");
}
