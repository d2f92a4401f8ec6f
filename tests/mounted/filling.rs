//! What came faster than the disk takes it is fetched once more behind the last close: the kernel can
//! have the file then, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use super::cache::put;
use super::passthrough::{lent, number};
use super::{bytes, mounting};
use crate::support::ftpd::Ftpd;
use crate::support::mount::{TestMount, skip};

const SIZE: usize = 96 << 20;

fn content() -> Vec<u8> {
    bytes(1 << 20).repeat(SIZE >> 20)
}

fn filled(mount: &TestMount) -> u64 {
    number(mount, "\"filled_behind_bytes\": ").unwrap()
}

fn is_filling(mount: &TestMount) -> bool {
    number(mount, "\"filled_behind\": ").unwrap() > 0
}

/// Reads the file, fast.
fn read(mount: &TestMount, name: &str) {
    let mut file = File::open(mount.path(name)).unwrap();
    let mut buf = vec![0; 1 << 20];
    while file.read(&mut buf).unwrap() > 0 {}
}

/// A mount that is filling its cache, and the name of what it fetches; `None` where nothing comes
/// so fast.
fn filling(server: &Ftpd) -> Option<(TestMount, String)> {
    let content = content();
    let mount = mounting(server).option("dir_cache=0s").start()?;
    for name in (0..5).map(|n| format!("file{n}")) {
        put(server, &name, &content, 40);
        read(&mount, &name);
        let deadline = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < deadline {
            if filled(&mount) > 0 {
                return Some((mount, name));
            }
        }
    }
    mount.finish();
    skip("this machine is busy: nothing comes as fast as from a disk");
    None
}

fn until_filled(mount: &TestMount) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_filling(mount) {
        assert!(Instant::now() < deadline, "{} came", filled(mount));
        thread::sleep(Duration::from_millis(20));
    }
    // What came last is on its way to the disk.
    thread::sleep(Duration::from_millis(500));
}

#[test]
fn a_kill_in_the_middle_leaves_gaps_that_the_next_mount_fills() {
    let server = Ftpd::start();
    let Some((mount, name)) = filling(&server) else {
        return;
    };
    let mut mount = mount;
    for _ in 0..6 {
        mount = mount.kill().remount();
        server.clear_log();
        assert!(fs::read(mount.path(&name)).unwrap() == content());
        if server.count("RETR") == 0 {
            return mount.finish();
        }
        // What came is not asked for again; the rest comes as fast as before, or to the cache at once.
        until_filled(&mount);
    }
    panic!("the gaps stay: {:?}", server.commands());
}

#[test]
fn when_all_of_it_came_the_kernel_reads_it() {
    let server = Ftpd::start();
    let Some((mount, name)) = filling(&server) else {
        return;
    };
    until_filled(&mount);
    let Some(before) = lent(&mount) else {
        return mount.finish();
    };
    server.clear_log();
    assert!(fs::read(mount.path(&name)).unwrap() == content());
    assert!(lent(&mount).unwrap() > before, "it is not lent");
    assert_eq!(server.count("RETR"), 0, "{:?}", server.commands());
    mount.finish();
}

#[test]
fn who_writes_to_it_meanwhile_has_it_at_once() {
    let server = Ftpd::start();
    let Some((mount, name)) = filling(&server) else {
        return;
    };
    let mut expected = content();
    let name_here = mount.path(&name);
    let file = File::options()
        .read(true)
        .write(true)
        .open(name_here)
        .unwrap();
    for at in [0, SIZE / 2, SIZE - 3] {
        file.write_all_at(b"new", at as u64).unwrap();
        expected[at..at + 3].copy_from_slice(b"new");
    }
    drop(file);
    assert!(server.get(&name) == expected);
    assert!(fs::read(mount.path(&name)).unwrap() == expected);
    mount.finish();
}

#[test]
fn the_end_of_the_mount_does_not_wait_for_it() {
    let server = Ftpd::start();
    let Some((mount, _)) = filling(&server) else {
        return;
    };
    let began = Instant::now();
    mount.finish();
    assert!(began.elapsed() < Duration::from_secs(3));
}
