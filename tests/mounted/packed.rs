//! `-o compress=`: contents and listings in MODE Z.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::{bytes, mounting, names_there};
use crate::support::ftpd::quirks::Break;
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::Mounting;

fn offering(more: &[&'static str]) -> Quirks {
    Quirks {
        extras: [&["MODE Z"], more].concat(),
        ..Quirks::default()
    }
}

/// Packed always, and nothing kept here, so that every read is a transfer.
fn packing(server: &Ftpd) -> Mounting {
    let mounting = mounting(server).option("compress=on,cache_size=0");
    mounting.option("prefetch=off,dir_cache=0")
}

/// Text of `len` bytes that packs well, and no two parts of it alike.
fn text(len: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|n| format!("line {n} of a text for packing\n").into_bytes());
    lines.take(len).collect()
}

#[test]
fn contents_and_listings_come_whole_and_cost_less() {
    let server = Ftpd::with(offering(&[]));
    let content = text(3_000_000);
    server.put("there", &content);
    for n in 0..500 {
        server.put(format!("dir/a file with a long name {n}"), "");
    }
    let Some(mount) = packing(&server).start() else {
        return;
    };
    assert!(fs::read(mount.path("there")).unwrap() == content);
    assert!(server.bytes_sent() < 600_000, "{}", server.bytes_sent());
    assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), 500);
    assert!(server.bytes_sent() < 620_000, "{}", server.bytes_sent());
    fs::write(mount.path("new"), &content).unwrap();
    assert!(server.get("new") == content);
    assert!(server.bytes_received() < 700_000);
    // A tail, an offset, an empty one, and what is given up in the middle.
    mount.sh("echo tail >>new; : >empty; cat empty");
    assert!(
        server.get("new").ends_with(b"packing\ntail\n") || server.get("new").ends_with(b"tail\n")
    );
    assert_eq!(server.get("new").len(), content.len() + 5);
    let file = File::open(mount.path("there")).unwrap();
    let mut part = vec![0; 5_000];
    for at in [2_500_000, 17, 1_000_003] {
        file.read_exact_at(&mut part, at).unwrap();
        let at = usize::try_from(at).unwrap();
        assert!(part == content[at..at + 5_000], "at {at}");
    }
    drop(file);
    assert!(fs::read(mount.path("there")).unwrap() == content);
    // Once a session is in it, it stays so.
    assert!(server.count("MODE Z") <= server.sessions_opened());
    assert_eq!(server.count("MODE S"), 0);
    let status = mount.ferryfs(&["status", "--json"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("\"packing\""), "{status}");
    mount.finish();
}

#[test]
fn what_is_packed_already_is_not_packed_again() {
    let server = Ftpd::with(offering(&[]));
    let noise = noise(200_000);
    for name in ["a.gz", "b.gz", "c.txt"] {
        server.put(name, &noise);
    }
    let Some(mount) = packing(&server).option("connections=2").start() else {
        return;
    };
    assert!(fs::read(mount.path("a.gz")).unwrap() == noise);
    assert_eq!(server.count("MODE S"), 0);
    assert!(fs::read(mount.path("b.gz")).unwrap() == noise);
    assert!(server.count("MODE S") > 0);
    fs::write(mount.path("new.gz"), &noise).unwrap();
    assert!(server.get("new.gz") == noise);
    let before = server.count("MODE Z");
    assert!(fs::read(mount.path("c.txt")).unwrap() == noise);
    assert!(server.count("MODE Z") > before, "another suffix");
    mount.finish();
}

#[test]
fn a_slow_link_is_noticed_and_a_fast_one_is_left_alone() {
    for (rate, packs) in [(Some(1_000_000), true), (None, false)] {
        let server = Ftpd::with(Quirks {
            rate,
            ..offering(&[])
        });
        let content = text(1_500_000);
        server.put("first", &content);
        server.put("second", &content);
        let mounting = mounting(&server).option("cache_size=0,prefetch=off");
        let Some(mount) = mounting.start() else {
            return;
        };
        assert!(fs::read(mount.path("first")).unwrap() == content);
        assert_eq!(server.count("MODE Z"), 0);
        assert!(fs::read(mount.path("second")).unwrap() == content);
        assert_eq!(server.count("MODE Z") > 0, packs, "{:?}", server.commands());
        mount.finish();
    }
}

#[test]
fn a_server_that_refuses_is_asked_once() {
    let server = Ftpd::with(offering(&[]).answer("MODE Z", "504 Not now."));
    let content = text(300_000);
    server.put("there", &content);
    let Some(mount) = packing(&server).start() else {
        return;
    };
    assert!(fs::read(mount.path("there")).unwrap() == content);
    fs::write(mount.path("new"), &content).unwrap();
    assert!(server.get("new") == content);
    assert_eq!(server.count("MODE Z"), 1);
    mount.finish();
}

/// It says 200 to MODE Z, and takes and sends everything as it is.
#[test]
fn a_server_that_only_says_so_is_found_out() {
    for (reads_first, lie) in [
        (true, "NO MODE Z"),
        (false, "NO MODE Z"),
        (true, "NO MODE Z UP"),
        (false, "NO MODE Z UP"),
    ] {
        let server = Ftpd::with(offering(&[lie]));
        let content = text(300_000);
        server.put("there", &content);
        let Some(mount) = packing(&server).start() else {
            return;
        };
        if reads_first {
            assert!(fs::read(mount.path("there")).unwrap() == content);
        }
        fs::write(mount.path("new"), &content).unwrap();
        assert!(server.get("new") == content, "{reads_first}");
        assert!(fs::read(mount.path("there")).unwrap() == content);
        assert_eq!(names_there(&server), ["new", "there"]);
        mount.finish();
    }
}

#[test]
fn a_packed_content_that_is_cut_or_damaged_is_never_taken_for_whole() {
    for words in ["226 Transfer complete.", "426 Connection closed."] {
        for (size, after) in [(3_000_000, 100_000), (3_000_000, 1), (20_000, 3_000)] {
            let content = noise(size);
            let quirks = offering(&[]).fault("RETR", after, 1, Break::CloseData(words.into()));
            let server = Ftpd::with(quirks.fault("STOR", after, 1, Break::CloseData(words.into())));
            server.put("there", &content);
            let Some(mount) = packing(&server).expect_log("").start() else {
                return;
            };
            // Gone on where it was cut.
            assert!(fs::read(mount.path("there")).unwrap() == content, "{words}");
            let stored = fs::write(mount.path("new"), &content);
            match stored {
                Ok(()) => assert!(server.get("new") == content, "{words}"),
                Err(_) => assert!(!server.path("new").exists()),
            }
            mount.finish();
        }
    }
}

/// What does not pack.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let noise: Vec<u8> = (0..len).map(|_| next()).collect();
    assert_ne!(noise[..9], bytes(9));
    noise
}
