//! Large files on a slow link: several connections at once, for who reads in sequence and for who
//! jumps about.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Limit, Quirks};
use crate::support::mount::TestMount;

use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;

pub(super) const MB: usize = 1 << 20;

/// Each transfer gets so many bytes a second, and every command takes a while.
pub(super) fn slow_link(rate: u64) -> Ftpd {
    slow(rate, 96, Quirks::default())
}

pub(super) fn slow(rate: u64, megabytes: usize, quirks: Quirks) -> Ftpd {
    let quirks = Quirks {
        rate: Some(rate),
        ..quirks
    };
    let server = Ftpd::with(quirks.delay("*", Duration::from_millis(10)));
    let file = server.put("big", bytes(megabytes * MB));
    // Old enough for its time stamp to tell a change.
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(86_400);
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(long_ago).unwrap();
    server
}

#[test]
fn a_sequential_reader_of_a_slow_link_gets_several_connections() {
    let rate = 24 << 20;
    let server = slow_link(rate);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let began = Instant::now();
    let mut got = Vec::new();
    let mut file = File::open(mount.path("big")).unwrap();
    file.read_to_end(&mut got).unwrap();
    let took = began.elapsed();
    assert!(got == server.get("big"));
    let peak = server.sessions_peak();
    assert!((4..=8).contains(&peak), "{peak} connections");
    // What overlaps is fetched once, more or less.
    let sent = server.bytes_sent();
    assert!(sent < 120 * MB as u64, "{sent} bytes");
    let alone = Duration::from_secs(got.len() as u64 / rate);
    assert!(took < alone, "{took:?}, one connection takes {alone:?}");
    drop(file);
    mount.finish();
}

#[test]
fn what_a_slow_connection_has_left_is_shared_by_those_who_are_done() {
    // The second of five parts comes at 6 MiB/s, the others at 24.
    let slow = (57 * MB as u64..60 * MB as u64, 6 << 20);
    let quirks = Quirks {
        rate_from: Some(slow),
        ..Quirks::default()
    };
    let server = self::slow(24 << 20, 192, quirks);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let began = Instant::now();
    assert!(fs::read(mount.path("big")).unwrap() == server.get("big"));
    let took = began.elapsed();
    let begun = |line: &String| line.strip_prefix("REST ").and_then(|at| at.parse().ok());
    let begun: Vec<usize> = server.commands().iter().filter_map(begun).collect();
    assert!(
        begun.iter().any(|at| (57 * MB..60 * MB).contains(at)),
        "{begun:?}"
    );
    assert!(
        begun.iter().any(|at| (64 * MB..92 * MB).contains(at)),
        "{begun:?}"
    );
    let alone = Duration::from_millis(5_500);
    assert!(took < alone, "{took:?}, one connection takes {alone:?}");
    let sent = server.bytes_sent();
    assert!(sent < 220 * MB as u64, "{sent} bytes");
    mount.finish();
}

/// Eight readers jump about in the file; some read on from where they jumped to.
fn jump_side_by_side(mount: &TestMount, content: &[u8]) {
    std::thread::scope(|scope| {
        for job in 0..8_usize {
            let path = mount.path("big");
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut at = job * 7 + 1;
                for round in 0..24 {
                    at = (at * 1_103_515_245 + 12_345) % (content.len() - 200_000);
                    for step in 0..=round % 3 {
                        let from = at + step * 65_536;
                        let mut got = vec![0; 5_000];
                        file.read_exact_at(&mut got, from as u64).unwrap();
                        assert!(got == content[from..from + 5_000], "at {from}");
                    }
                }
            });
        }
    });
}

#[test]
fn who_jump_side_by_side_have_more_connections_for_a_moment() {
    let server = slow_link(16 << 20);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    jump_side_by_side(&mount, &content);
    let peak = server.sessions_peak();
    assert!((9..=32).contains(&peak), "{peak} connections");
    // Once it is here, it needs no server.
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.bytes_sent() < content.len() as u64 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut got = Vec::new();
    File::open(mount.path("big"))
        .and_then(|mut file| file.read_to_end(&mut got))
        .unwrap();
    assert!(got == content);
    // Only the usual ones stay.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !status(&mount).contains("\"limit\":8,") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
    }
    let told = status(&mount);
    assert!(told.contains("\"limit\":8,"), "{told}");
    let open = (0..=8).find(|open| told.contains(&format!("\"open\":{open},")));
    assert!(open.is_some(), "{told}");
    mount.finish();
}

#[test]
fn a_number_of_connections_that_was_asked_for_is_kept_to() {
    let server = slow_link(16 << 20);
    let Some(mount) = mounting(&server).option("connections=8").start() else {
        return;
    };
    jump_side_by_side(&mount, &server.get("big"));
    let peak = server.sessions_peak();
    assert!(peak <= 8, "{peak} connections");
    mount.finish();
}

#[test]
fn a_server_that_has_enough_connections_is_not_asked_again() {
    let limit = Limit {
        sessions: 10,
        reply: "421 Too many connections.".into(),
    };
    let quirks = Quirks {
        limit: Some(limit),
        ..Quirks::default()
    };
    let server = slow(16 << 20, 96, quirks);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    jump_side_by_side(&mount, &content);
    let opened = server.sessions_opened();
    jump_side_by_side(&mount, &content);
    let peak = server.sessions_peak();
    assert!(peak <= 10, "{peak} connections");
    let again = server.sessions_opened() - opened;
    assert!(again <= 8, "{again} more connections");
    // It has some of them back; none outlives the mount.
    let open = server.sessions_open();
    assert!((4..10).contains(&open), "{open} connections");
    mount.finish();
    let deadline = Instant::now() + Duration::from_secs(3);
    while server.sessions_open() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.sessions_open(), 0);
}

/// Opens a file of which the kernel is to read only what is asked for.
fn jumper(path: &Path) -> File {
    let file = File::open(path).unwrap();
    fadvise(&file, 0, None, Advice::Random).unwrap();
    file
}

/// Reads a little at `count` places far from each other, `from` the how-manieth on. The longest.
fn jump(file: &File, content: &[u8], from: usize, count: usize) -> Duration {
    let took = (from..from + count).map(|nth| {
        let at = (nth * 37_000_003 + 5_000_000) % (content.len() - 5_000);
        let mut got = vec![0; 4_096];
        let began = Instant::now();
        file.read_exact_at(&mut got, at as u64).unwrap();
        assert!(got == content[at..at + 4_096], "at {at}");
        began.elapsed()
    });
    took.max().unwrap_or_default()
}

pub(super) fn status(mount: &TestMount) -> String {
    let told = mount.ferryfs(&["status", "--json"]).stdout;
    String::from_utf8_lossy(&told).replace(char::is_whitespace, "")
}

/// How much the server sends once nobody asks for anything any more.
fn settled(server: &Ftpd) -> u64 {
    std::thread::sleep(Duration::from_millis(700));
    let sent = server.bytes_sent();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(server.bytes_sent(), sent, "it goes on");
    sent
}

#[test]
fn three_lookups_fetch_what_they_read_and_little_more() {
    let server = slow(64 << 20, 48, Quirks::default());
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    let file = jumper(&mount.path("big"));
    jump(&file, &content, 0, 3);
    let sent = settled(&server);
    assert!(sent < 16 * MB as u64, "{sent} bytes");
    // One is to find out whether REST works.
    assert!(server.count("RETR") <= 4, "{}", server.count("RETR"));
    drop(file);
    mount.finish();
}

#[test]
fn one_who_goes_on_jumping_soon_has_all_of_the_file_here() {
    let server = slow(64 << 20, 48, Quirks::default());
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    let file = jumper(&mount.path("big"));
    jump(&file, &content, 0, 5);
    let ends = Instant::now() + Duration::from_secs(20);
    let (mut jumps, mut shown) = (5, false);
    // As long as jumps cost anything.
    while server.count("RETR") > 0 && Instant::now() < ends {
        shown |= status(&mount).contains("\"fetched_whole\":1");
        server.clear_log();
        jump(&file, &content, jumps, 50);
        jumps += 50;
    }
    assert!(shown, "status does not tell");
    let longest = jump(&file, &content, jumps, 200);
    assert!(server.count("RETR") < 5, "{}", server.count("RETR"));
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    // Not twice, but for what was on its way when a jump was given up.
    let sent = server.bytes_sent();
    assert!(sent < 200 * MB as u64, "{sent} bytes");
    drop(file);
    mount.finish();
}

/// Jumps about in a file of 48 MiB on a mount with `option`: it is not fetched whole.
fn jumps_fetch_little(option: &str) {
    let server = slow(8 << 20, 48, Quirks::default());
    let Some(mount) = mounting(&server).option(option).start() else {
        return;
    };
    let content = server.get("big");
    let file = jumper(&mount.path("big"));
    jump(&file, &content, 0, 9);
    let sent = settled(&server);
    assert!(sent < 40 * MB as u64, "{sent} bytes");
    drop(file);
    mount.finish();
}

#[test]
fn with_prefetch_off_jumps_fetch_only_what_they_read() {
    jumps_fetch_little("prefetch=off");
}

#[test]
fn what_is_larger_than_half_the_cache_is_not_fetched_for_jumps() {
    jumps_fetch_little("cache_size=80M");
}

#[test]
fn who_closes_the_file_ends_the_fetching_and_keeps_what_came() {
    let server = slow(4 << 20, 48, Quirks::default());
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    let file = jumper(&mount.path("big"));
    jump(&file, &content, 0, 20);
    drop(file);
    let sent = settled(&server);
    assert!(sent < 40 * MB as u64, "{sent} bytes");
    // The first parts are here.
    server.clear_log();
    let mut got = vec![0; 65_536];
    let file = jumper(&mount.path("big"));
    file.read_exact_at(&mut got, 0).unwrap();
    assert!(got == content[..65_536]);
    assert_eq!(server.count("RETR"), 0);
    drop(file);
    mount.finish();
}

#[test]
fn another_version_is_not_mixed_with_what_was_fetched() {
    let server = slow(12 << 20, 48, Quirks::default());
    let Some(mut mount) = mounting(&server).option("dir_cache=1s").start() else {
        return;
    };
    // The old handle, of which nothing more is to be had.
    mount.expect_log("has no name any more");
    let content = server.get("big");
    let file = jumper(&mount.path("big"));
    jump(&file, &content, 0, 8);
    let new: Vec<u8> = content.iter().map(|byte| !byte).collect();
    // Under the same name, as servers' clients do it.
    server.put("new", &new[..45 * MB]);
    fs::rename(server.path("new"), server.path("big")).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    let again = jumper(&mount.path("big"));
    jump(&again, &new[..45 * MB], 0, 40);
    // Never the new bytes for the old version.
    let mut got = vec![0; 4_096];
    match file.read_exact_at(&mut got, 33 << 20) {
        Ok(()) => assert!(
            got == content[33 << 20..(33 << 20) + 4_096]
                || got == new[33 << 20..(33 << 20) + 4_096]
        ),
        Err(err) => assert_eq!(err.raw_os_error(), Some(Errno::STALE.raw_os_error())),
    }
    drop((file, again));
    mount.finish();
}

#[test]
fn jumps_and_listings_come_before_what_nobody_asked_for() {
    // One connection for files, one for everything else.
    let server = slow(12 << 20, 48, Quirks::default());
    for number in 0..40 {
        server.put(format!("d{number}/f"), "x");
    }
    // The fetching keeps its connection from part to part, but not from somebody else.
    let Some(mount) = mounting(&server).option("connections=2").start() else {
        return;
    };
    let content = server.get("big");
    std::thread::scope(|scope| {
        let jumps = scope.spawn(|| {
            let file = jumper(&mount.path("big"));
            jump(&file, &content, 0, 40)
        });
        for number in 0..40 {
            let began = Instant::now();
            fs::metadata(mount.path(format!("d{number}/f"))).unwrap();
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
            if number % 8 == 7 {
                let began = Instant::now();
                assert_eq!(fs::read(mount.path(format!("d{number}/f"))).unwrap(), b"x");
                let took = began.elapsed();
                assert!(took < Duration::from_millis(1_500), "reading: {took:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let longest = jumps.join().unwrap();
        // A few round trips, and the shortest time for which the fetching keeps its connection.
        assert!(longest < Duration::from_millis(1_200), "{longest:?}");
    });
    mount.finish();
}

#[test]
fn readers_of_a_slow_link_share_it_and_listings_come_first() {
    let rate = 16 << 20;
    let server = slow(rate, 96, Quirks::default());
    fs::copy(server.path("big"), server.path("big2")).unwrap();
    for number in 0..30 {
        server.put(format!("d{number}/f"), "x");
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let (content, began) = (server.get("big"), Instant::now());
    std::thread::scope(|scope| {
        let readers = ["big", "big2"].map(|name| {
            let (path, content) = (mount.path(name), &content);
            scope.spawn(move || assert!(fs::read(path).unwrap() == *content))
        });
        let mut number = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            let began = Instant::now();
            let dir = format!("d{}", number % 30);
            assert_eq!(fs::read_dir(mount.path(&dir)).unwrap().count(), 1);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "listing: {took:?}");
            assert_eq!(fs::read(mount.path(dir).join("f")).unwrap(), b"x");
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "reading: {took:?}");
            number += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // One after the other, by one connection.
    let alone = Duration::from_secs(2 * content.len() as u64 / rate);
    let took = began.elapsed();
    assert!(took < alone, "{took:?}, one connection takes {alone:?}");
    let peak = server.sessions_peak();
    assert!((4..=8).contains(&peak), "{peak} connections");
    mount.finish();
}

#[test]
fn without_rest_one_stream_fetches_the_file_once() {
    for server in [
        slow(48 << 20, 24, Quirks::default().without(&["REST"])),
        slow(
            48 << 20,
            24,
            Quirks {
                rest_ignored: true,
                ..Quirks::default()
            },
        ),
    ] {
        let Some(mount) = mounting(&server).option("timeout=10s").start() else {
            return;
        };
        let content = server.get("big");
        let file = jumper(&mount.path("big"));
        jump(&file, &content, 0, 40);
        // A few jumps from the start, and then once.
        let sent = server.bytes_sent();
        assert!(sent < 150 * MB as u64, "{sent} bytes");
        assert!(server.count("RETR") < 9, "{}", server.count("RETR"));
        drop(file);
        mount.finish();
    }
}

#[test]
fn of_many_who_come_at_once_one_finds_out_about_rest() {
    let server = slow(64 << 20, 24, Quirks::default());
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    std::thread::scope(|scope| {
        for job in 0..6 {
            let (path, content) = (mount.path("big"), &content);
            scope.spawn(move || jump(&jumper(&path), content, job, 1));
        }
    });
    let last = format!("REST {}", content.len() - 1);
    assert_eq!(server.count(&last), 1);
    mount.finish();
}
