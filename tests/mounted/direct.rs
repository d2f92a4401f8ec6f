//! Large files of a server on this machine, read around the kernel's pages: every byte is right, by
//! whatever call, and who reads in small pieces, or maps, has the pages.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cache::put;
use super::passthrough::number;
use super::{bytes, mounting};
use crate::support::ftpd::{Break, Ftpd, Quirks};
use crate::support::mount::TestMount;

const MIB: usize = 1 << 20;
const SIZE: usize = 66 * MIB + 4321;

fn content() -> Vec<u8> {
    let mut content = bytes(MIB + 77).repeat(68);
    content.truncate(SIZE);
    content
}

/// Opens around the pages so far.
fn around(mount: &TestMount) -> u64 {
    let opens = |how| number(mount, &format!("\"direct_io\": \"{how}, "));
    opens("auto").or_else(|| opens("on")).unwrap()
}

/// Gives the last close time to be told: only who is alone reads around the pages.
fn until_closed() {
    thread::sleep(Duration::from_millis(300));
}

/// A server with a large file, and a mount of it; `None` where there is no such way of reading.
fn stage(option: &str) -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::start();
    put(&server, "large", &content(), 40);
    for name in ["other", "third"] {
        fs::hard_link(server.root().join("large"), server.root().join(name)).unwrap();
    }
    put(&server, "small", &bytes(3 * MIB), 40);
    let mount = mounting(&server)
        .option("dir_cache=0s")
        .option("cache_size=0")
        .option(option)
        .start()?;
    Some((server, mount))
}

#[test]
fn every_byte_is_right_by_whatever_call() {
    let Some((server, mount)) = stage("direct_io=on") else {
        return;
    };
    let (content, original) = (content(), server.root().join("large"));
    let original = original.display();
    for block in ["1M", "128k", "100001", "4M"] {
        let before = around(&mount);
        mount.sh(&format!(
            "dd if=large bs={block} status=none | cmp - {original}"
        ));
        assert_eq!(around(&mount), before + 1, "{block}");
        until_closed();
    }
    let file = File::open(mount.path("large")).unwrap();
    let mut piece = vec![0; 3 * MIB];
    for at in [
        0,
        1,
        4095,
        5 * MIB + 3,
        40 * MIB,
        SIZE - 5,
        SIZE,
        SIZE + 9,
        77,
    ] {
        let expected = content.get(at..).unwrap_or_default();
        let expected = &expected[..expected.len().min(piece.len())];
        let mut got = 0;
        loop {
            match file.read_at(&mut piece[got..], (at + got) as u64).unwrap() {
                0 => break,
                more => got += more,
            }
        }
        assert!(&piece[..got] == expected, "at {at}");
    }
    // Mapped, and sent by the kernel, of a file that is open so.
    let before = around(&mount);
    drop(file);
    until_closed();
    mount.sh(&format!(
        "python3 -c 'import mmap, os
f = open(\"large\", \"rb\", buffering=0)
with open(\"{original}\", \"rb\") as c: all = c.read()
for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
    m = mmap.mmap(f.fileno(), 0, flags=kind, prot=mmap.PROT_READ)
    assert m[:] == all
    m.close()
with open(os.environ[\"HOME\"] + \"/sent\", \"wb\") as out:
    at = 0
    while at < len(all):
        at += os.sendfile(out.fileno(), f.fileno(), at, len(all) - at)'
        cmp $HOME/sent {original}; rm $HOME/sent"
    ));
    assert!(around(&mount) > before);
    mount.finish();
}

#[test]
fn who_is_seen_to_read_in_large_pieces_goes_around_the_pages_the_next_time() {
    let Some((server, mount)) = stage("rw") else {
        return;
    };
    let program = |read: &str, name: &str| {
        until_closed();
        let before = around(&mount);
        mount.sh(&format!(
            "python3 -c 'import mmap, os
f = os.open(\"{name}\", os.O_RDONLY)
{read}'"
        ));
        around(&mount) - before
    };
    let small = "for at in range(64): assert len(os.pread(f, 4096, at * 4096)) == 4096";
    let large = "for at in range(60): assert len(os.pread(f, 1 << 20, at << 20)) == 1 << 20";
    assert_eq!((program(small, "large"), program(small, "large")), (0, 0));
    assert_eq!((program(large, "other"), program(large, "third")), (0, 1));
    assert_eq!((program(small, "third"), program(small, "third")), (1, 0));
    // The kernel asks for what it has not only.
    server.clear_log();
    assert_eq!((program(small, "third"), server.count("RETR")), (0, 0));
    fs::hard_link(server.path("large"), server.path("fourth")).unwrap();
    assert_eq!(program(large, "fourth"), 0, "seen to read in small ones");
    // Who copies is known to read in large ones, and shares the pages there are.
    fs::hard_link(server.path("large"), server.path("fifth")).unwrap();
    let before = around(&mount);
    mount.sh("tar cf - fifth | cat >/dev/null; dd if=large of=/dev/null bs=1M status=none");
    mount.sh("cat small >/dev/null");
    assert_eq!(around(&mount), before);
    fs::hard_link(server.path("large"), server.path("sixth")).unwrap();
    mount.sh("dd if=sixth of=/dev/null bs=1M status=none");
    assert_eq!(around(&mount), before + 1);
    mount.finish();

    let Some((_server, mount)) = stage("direct_io=off") else {
        return;
    };
    mount.sh("dd if=large of=/dev/null bs=1M status=none");
    let status = mount.ferryfs(&["status", "--json"]).stdout;
    assert!(String::from_utf8_lossy(&status).contains("\"direct_io\": \"off\""));
    mount.finish();
}

#[test]
fn several_who_have_it_open_see_what_is_written_and_share_the_pages() {
    let Some((server, mount)) = stage("direct_io=on") else {
        return;
    };
    let mut expected = content();
    let first = File::open(mount.path("large")).unwrap();
    let mut piece = vec![0; MIB];
    first.read_exact_at(&mut piece, 0).unwrap();
    let second = File::open(mount.path("large")).unwrap();
    assert_eq!(around(&mount), 1, "the second shares");
    second.read_exact_at(&mut piece, 0).unwrap();
    let writer = File::options()
        .write(true)
        .open(mount.path("large"))
        .unwrap();
    for at in [10, 30 * MIB + 5] {
        writer.write_all_at(b"written", at as u64).unwrap();
        expected[at..at + 7].copy_from_slice(b"written");
        for reader in [&first, &second] {
            reader.read_exact_at(&mut piece, at as u64).unwrap();
            assert!(piece == expected[at..at + MIB], "at {at}");
        }
    }
    drop(writer);
    assert!(server.get("large") == expected);
    drop((first, second));
    until_closed();
    // Another version, by another client.
    expected[5] ^= 1;
    put(&server, "large", &expected, 30);
    assert!(fs::read(mount.path("large")).unwrap() == expected);
    mount.finish();
}

#[test]
fn who_is_killed_in_the_middle_of_a_read_leaves_all_as_it_was() {
    let server = Ftpd::start();
    put(&server, "large", &content(), 40);
    let mount = mounting(&server)
        .option("cache_size=0")
        .option("dir_cache=0s")
        .option("connections=3")
        .start();
    let Some(mount) = mount else { return };
    let done = |mount: &TestMount| number(mount, "\"done_bytes\": ").unwrap_or(0);
    let status = |mount: &TestMount| String::from_utf8(mount.ferryfs(&["status", "--json"]).stdout);
    let is_quiet = |mount: &TestMount| status(mount).unwrap().contains("\"transfers\": []");
    // So slow that a read waits.
    server.change(|quirks| quirks.rate = Some(3_000_000));
    for nth in 1..=6 {
        let mut reader = Command::new("dd")
            .args(["if=large", "of=/dev/null", "bs=4M", "status=none"])
            .current_dir(mount.root())
            .spawn()
            .unwrap();
        until("it reads", || done(&mount) > 500_000);
        assert_eq!(around(&mount), nth);
        kill_process(Pid::from_child(&reader), Signal::KILL).unwrap();
        until("it ends", || reader.try_wait().unwrap().is_some());
        until("nothing comes any more", || is_quiet(&mount));
        until_closed();
    }
    assert!(server.sessions_peak() <= 3);
    server.change(|quirks| quirks.rate = None);
    let original = server.path("large");
    let original = original.display();
    mount.sh(&format!("dd if=large bs=1M status=none | cmp - {original}"));
    assert_eq!(around(&mount), 7);
    mount.finish();
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_reads_what_breaks_off_gets_it_all_or_an_error() {
    let broken = Break::CloseData("426 Failure.".into());
    for (times, after, what) in [(1, 20 << 20, Break::HangUp), (100, 0, broken)] {
        let server = Ftpd::with(Quirks::default().fault("RETR", after, times, what));
        put(&server, "large", &content(), 40);
        let Some(mount) = mounting(&server)
            .option("cache_size=0")
            .option("direct_io=on")
            .expect_log("426 Failure.")
            .start()
        else {
            return;
        };
        let mut all = Vec::new();
        let read = File::open(mount.path("large"))
            .unwrap()
            .read_to_end(&mut all);
        assert_eq!((around(&mount), read.is_ok()), (1, times == 1), "{read:?}");
        assert!(all == content()[..all.len()], "{times} times");
        assert!(read.is_err() || all.len() == SIZE, "{times} times");
        mount.finish();
    }
}
