//! Large files on a slow link: several connections at once, for who reads in sequence and for who
//! jumps about.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Quirks};

const MB: usize = 1 << 20;

/// Each transfer gets so many bytes a second, and every command takes a while.
fn slow_link(rate: u64) -> Ftpd {
    let quirks = Quirks {
        rate: Some(rate),
        ..Quirks::default()
    };
    let server = Ftpd::with(quirks.delay("*", Duration::from_millis(10)));
    let file = server.put("big", bytes(96 * MB));
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
fn jumps_are_short_while_the_whole_file_comes() {
    let server = slow_link(16 << 20);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let content = server.get("big");
    std::thread::scope(|scope| {
        for job in 0..8_usize {
            let (path, content) = (mount.path("big"), &content);
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut at = job * 7 + 1;
                for round in 0..24 {
                    at = (at * 1_103_515_245 + 12_345) % (content.len() - 200_000);
                    // Some read on from where they jumped to.
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
    let peak = server.sessions_peak();
    assert!(peak <= 8, "{peak} connections");
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
    mount.finish();
}
