//! Connections beyond the usual number, which many jumping readers have for a moment: they keep the
//! limits that all keep, and end as all end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::mounting;
use super::ranges::{MB, slow, slow_link, status};
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::TestMount;

const READERS: usize = 8;

/// Eight readers jump about in the file `rounds` times each. How many jumps succeeded.
fn jump(path: &PathBuf, content: &[u8], rounds: usize) -> usize {
    thread::scope(|scope| {
        let reader = |job: usize| {
            move || {
                let Ok(file) = File::open(path) else { return 0 };
                let (mut at, mut done) = (job * 7 + 1, 0);
                for _ in 0..rounds {
                    at = (at * 1_103_515_245 + 12_345) % (content.len() - 5_000);
                    let mut got = vec![0; 5_000];
                    if file.read_exact_at(&mut got, at as u64).is_err() {
                        break;
                    }
                    assert!(got == content[at..at + 5_000], "at {at}");
                    done += 1;
                }
                done
            }
        };
        let readers: Vec<_> = (0..READERS).map(|job| scope.spawn(reader(job))).collect();
        readers.into_iter().map(|r| r.join().unwrap()).sum()
    })
}

fn received(mount: &TestMount) -> u64 {
    let shown: serde_json::Value = serde_json::from_str(&status(mount)).unwrap();
    shown[0]["totals"]["received_bytes"].as_u64().unwrap()
}

#[test]
fn extra_connections_share_the_limit_of_bandwidth() {
    const LIMIT: u64 = 4 << 20;
    let server = slow_link(16 << 20);
    let Some(mount) = mounting(&server).option("bwlimit=4M").start() else {
        return;
    };
    let content = server.get("big");
    let before = received(&mount);
    let began = Instant::now();
    assert_eq!(jump(&mount.path("big"), &content, 3), READERS * 3);
    // What is fetched behind them counts, too.
    thread::sleep(Duration::from_secs(3).saturating_sub(began.elapsed()));
    let received = received(&mount) - before;
    let allowed = LIMIT * u64::try_from(began.elapsed().as_millis()).unwrap() / 1000;
    assert!(
        received <= allowed * 110 / 100 + 2 * MB as u64,
        "{received} bytes, {allowed} are allowed"
    );
    mount.finish();
}

/// How many sessions were being logged in at the same time, at most.
fn logins_at_once(server: &Ftpd) -> usize {
    let log = server.log();
    let mut steps = Vec::new();
    for session in 0..server.sessions_opened() {
        let mut said = log.iter().filter(|said| said.session == session);
        let begins = said.find(|said| said.line.starts_with("USER"));
        let ends = said.find(|said| !said.line.starts_with("PASS"));
        steps.extend(begins.map(|said| (said.at, 1)));
        steps.extend(ends.map(|said| (said.at, -1)));
    }
    steps.sort_unstable();
    let mut now = 0_isize;
    let peaks = steps.iter().map(|(_, step)| {
        now += step;
        now
    });
    usize::try_from(peaks.max().unwrap()).unwrap()
}

/// Servers take their time to check a password, and would for thirty at once take thirty times it
/// until the first is done.
#[test]
fn extra_connections_are_opened_a_few_at_a_time_and_used_as_they_come() {
    let pause = Duration::from_millis(100);
    let quirks = Quirks::default().delay("PASS*", pause);
    let server = slow(64 << 20, 96, quirks);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    assert_eq!(jump(&mount.path("big"), &content, 60), READERS * 60);
    assert!(server.sessions_peak() > 12, "{}", server.sessions_peak());
    let at_once = logins_at_once(&server);
    assert!(at_once <= 12, "{at_once} logins at once");
    mount.finish();
}

#[test]
fn extra_connections_end_with_a_killed_mount_and_the_next_has_the_usual_ones() {
    let server = slow_link(16 << 20);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let (content, path) = (server.get("big"), mount.path("big"));
    let killed = thread::scope(|scope| {
        let jumping = scope.spawn(|| jump(&path, &content, 200));
        let deadline = Instant::now() + Duration::from_secs(15);
        while server.sessions_open() <= 8 && Instant::now() < deadline {
            assert!(!jumping.is_finished(), "never more than the usual ones");
            thread::sleep(Duration::from_millis(2));
        }
        assert!(server.sessions_open() > 8, "never more than the usual ones");
        let killed = mount.kill();
        assert!(jumping.join().unwrap() < READERS * 200);
        killed
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.sessions_open() > 0 {
        assert!(Instant::now() < deadline, "{} open", server.sessions_open());
        thread::sleep(Duration::from_millis(10));
    }
    let mount = killed.remount();
    let file = File::open(mount.path("big")).unwrap();
    let mut got = vec![0; 5_000];
    file.read_exact_at(&mut got, 1_000_000).unwrap();
    assert!(got == content[1_000_000..1_005_000]);
    let told = status(&mount);
    assert!(told.contains("\"limit\":8,"), "{told}");
    drop(file);
    mount.finish();
}
