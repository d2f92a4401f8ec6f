//! `-o bwlimit=`: contents go no faster than that, and hardly slower.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::{bytes, mounting};
use crate::support::ftpd::Ftpd;
use crate::support::mount::TestMount;

const RATE: u64 = 2 << 20;
const LEN: u64 = 5 << 20;

fn stage(limit: &str) -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::start();
    let mount = mounting(&server)
        .option(format!("bwlimit={limit}"))
        .start()?;
    Some((server, mount))
}

/// Looks at a counter of the server while `work` runs: the most that it grew in two seconds, and how
/// long all took.
fn watched(counter: impl Fn() -> u64 + Sync, work: impl FnOnce() + Send) -> (u64, Duration) {
    let begin = Instant::now();
    thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut seen = vec![(begin, counter())];
        let mut most = 0;
        while !work.is_finished() {
            thread::sleep(Duration::from_millis(20));
            let (now, count) = (Instant::now(), counter());
            let since = |(when, _): &&(Instant, u64)| now - *when <= Duration::from_secs(2);
            if let Some((_, before)) = seen.iter().find(since) {
                most = most.max(count - before);
            }
            seen.push((now, count));
        }
        work.join().unwrap();
        (most, begin.elapsed())
    })
}

/// Reads a file piece by piece, and counts. What the server sends first fills its own buffers.
fn read(path: &Path, counter: &AtomicU64) -> Vec<u8> {
    let (mut file, mut all) = (File::open(path).unwrap(), Vec::new());
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut piece).unwrap();
        if count == 0 {
            return all;
        }
        counter.fetch_add(count as u64, SeqCst);
        all.extend_from_slice(&piece[..count]);
    }
}

fn assert_rate(what: &str, (most, took): (u64, Duration)) {
    println!("{what}: at most {most} bytes in 2 s");
    assert!(
        most <= 2 * RATE * 110 / 100,
        "{what}: {most} bytes in two seconds"
    );
    assert_time(what, took);
}

fn assert_time(what: &str, took: Duration) {
    println!("{what}: {LEN} bytes in {took:?}");
    let slowest = Duration::from_millis(LEN * 1000 * 100 / (RATE * 80));
    assert!(took <= slowest, "{what}: took {took:?}, not {slowest:?}");
    assert!(
        took >= Duration::from_millis(LEN * 900 / RATE),
        "{what}: took {took:?} only"
    );
}

#[test]
fn uploads_and_downloads_keep_the_rate_and_reach_it() {
    let Some((server, mount)) = stage("2M") else {
        return;
    };
    let content = bytes(usize::try_from(LEN).unwrap());
    server.put("there", &content);
    let up = watched(
        || server.bytes_received(),
        || {
            fs::write(mount.path("file"), &content).unwrap();
        },
    );
    assert_rate("upload", up);
    assert!(server.get("file") == content);
    let counter = AtomicU64::new(0);
    let down = watched(
        || counter.load(SeqCst),
        || assert!(read(&mount.path("there"), &counter) == content),
    );
    // What is read comes in pieces of up to a MiB, so two seconds say nothing here.
    assert_time("download", down.1);
    mount.finish();
}

#[test]
fn transfers_share_a_rate_and_names_do_not_wait_for_it() {
    let Some((server, mount)) = stage("off:2M") else {
        return;
    };
    let half = bytes(usize::try_from(LEN / 2).unwrap());
    for name in ["a", "b"] {
        server.put(name, &half);
    }
    server.put("dir/file", "");
    let counter = AtomicU64::new(0);
    let ends = watched(
        || counter.load(SeqCst),
        || {
            thread::scope(|scope| {
                let reader = |name| {
                    let (mount, half, counter) = (&mount, &half, &counter);
                    move || {
                        assert!(read(&mount.path(name), counter) == *half);
                        Instant::now()
                    }
                };
                let (a, b) = (scope.spawn(reader("a")), scope.spawn(reader("b")));
                thread::sleep(Duration::from_millis(500));
                let begin = Instant::now();
                assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), 1);
                assert!(
                    begin.elapsed() < Duration::from_millis(500),
                    "{:?}",
                    begin.elapsed()
                );
                let (a, b) = (a.join().unwrap(), b.join().unwrap());
                let apart = if a > b { a - b } else { b - a };
                assert!(apart < Duration::from_millis(800), "ended {apart:?} apart");
            });
        },
    );
    assert_time("two downloads", ends.1);
    let begin = Instant::now();
    fs::write(mount.path("up"), &half).unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "uploads are not limited"
    );
    mount.finish();
}
