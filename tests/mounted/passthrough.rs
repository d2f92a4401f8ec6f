//! Files that the kernel reads by itself: nobody is asked, every byte is right, and who wants another
//! version, or to write, gets it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cache::{put, until_taken};
use super::{bytes, mounting};
use crate::support::ftpd::Ftpd;
use crate::support::mount::{TestMount, skip};

pub(super) const SIZE: usize = 3_000_001;

/// A number in `ferryfs status --json`.
pub(super) fn number(mount: &TestMount, before: &str) -> Option<u64> {
    let status = mount.ferryfs(&["status", "--json"]).stdout;
    let status = String::from_utf8_lossy(&status).into_owned();
    let (_, rest) = status.split_once(before)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Opens that the kernel took; `None` where it takes none.
pub(super) fn lent(mount: &TestMount) -> Option<u64> {
    number(mount, "\"passthrough\": \"on, ")
}

fn hits(mount: &TestMount) -> u64 {
    number(mount, "\"hits\": ").unwrap()
}

/// A mount with `option` that has read `name`, all of which is in the cache; `None` where the kernel
/// does not read by itself.
pub(super) fn warm(server: &Ftpd, option: &str, name: &str) -> Option<TestMount> {
    let mount = mounting(server)
        .option(option)
        .option("dir_cache=1s")
        .start()?;
    assert!(fs::read(mount.path(name)).unwrap() == server.get(name));
    until_taken(&mount, server.get(name).len() as u64);
    drop(File::open(mount.path(name)).unwrap());
    if lent(&mount).is_none() {
        let status = mount.ferryfs(&["status"]).stdout;
        skip(&String::from_utf8_lossy(&status));
        mount.finish();
        return None;
    }
    Some(mount)
}

/// What a file that is open has, wherever its position is.
pub(super) fn all_of(file: &File) -> Vec<u8> {
    let mut all = vec![0; 2 * SIZE];
    let mut len = 0;
    loop {
        match file.read_at(&mut all[len..], len as u64).unwrap() {
            0 => break,
            count => len += count,
        }
    }
    all.truncate(len);
    all
}

/// Opens a file that is lent; the last close may be behind.
pub(super) fn open_lent(mount: &TestMount, name: &str) -> File {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        drop(fs::read(mount.path(name)).unwrap());
        let before = lent(mount).unwrap();
        let file = File::open(mount.path(name)).unwrap();
        let hits_before = hits(mount);
        let mut byte = [0];
        file.read_exact_at(&mut byte, SIZE as u64 / 2).unwrap();
        if lent(mount).unwrap() > before && hits(mount) == hits_before {
            return file;
        }
        assert!(Instant::now() < deadline, "{name} is not lent");
        drop(file);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_file_read_again_is_read_by_the_kernel() {
    let server = Ftpd::start();
    let content = bytes(SIZE);
    put(&server, "file", &content, 40);
    put(&server, "small", &content[..5000], 40);
    let Some(mount) = warm(&server, "ro", "file") else {
        return;
    };
    let file = open_lent(&mount, "file");
    server.clear_log();
    let asked = hits(&mount);
    assert!(all_of(&file) == content);
    assert_eq!(file.metadata().unwrap().len(), SIZE as u64);
    // Side by side, by other calls, and mapped.
    assert!(fs::read(mount.path("file")).unwrap() == content);
    mount.sh(
        "cmp file file; cp file $HOME/copy; cmp file $HOME/copy; tail -c 1000 file >/dev/null
        python3 -c 'import mmap
f = open(\"file\", \"rb\")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
assert m[:] == open(\"file\", \"rb\").read()'",
    );
    assert_eq!((server.count("RETR"), hits(&mount)), (0, asked));
    // Small files are as ever.
    let before = lent(&mount).unwrap();
    for _ in 0..2 {
        assert!(fs::read(mount.path("small")).unwrap() == content[..5000]);
    }
    assert_eq!(lent(&mount).unwrap(), before);
    drop(file);
    mount.finish();
}

#[test]
fn who_opens_a_changed_file_reads_the_new_one_and_others_the_old_one() {
    let server = Ftpd::start();
    let (old, new) = (bytes(SIZE), vec![7; SIZE + 5]);
    put(&server, "file", &old, 40);
    let Some(mount) = warm(&server, "ro", "file") else {
        return;
    };
    let mut reader = open_lent(&mount, "file");
    let mut half = vec![0; SIZE / 2];
    reader.read_exact(&mut half).unwrap();
    put(&server, "file", &new, 30);
    thread::sleep(Duration::from_millis(1200));
    assert!(fs::read(mount.path("file")).unwrap() == new);
    let (before, now) = (
        reader.metadata().unwrap(),
        fs::metadata(mount.path("file")).unwrap(),
    );
    assert_eq!((before.len(), now.len()), (SIZE as u64, SIZE as u64 + 5));
    assert_ne!(before.ino(), now.ino());
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!([half, rest].concat() == old && all_of(&reader) == old);
    // The new one is lent in its turn, beside the old one.
    let second = open_lent(&mount, "file");
    assert!(all_of(&second) == new && all_of(&reader) == old);
    // And one that was removed.
    fs::remove_file(server.path("file")).unwrap();
    thread::sleep(Duration::from_millis(1200));
    assert!(File::open(mount.path("file")).is_err());
    assert!(all_of(&second) == new && all_of(&reader) == old);
    drop((reader, second));
    mount.finish();
}

/// Changes that a reader sees who had the file open before.
const SEEN: &[&str] = &[
    "echo more >> file; test \"$(tail -c 5 file)\" = more",
    "echo new > file; test \"$(cat file)\" = new",
    "python3 -c 'import mmap
with open(\"file\", \"r+b\") as f:
    m = mmap.mmap(f.fileno(), 0)
    m[0:4] = b\"MMAP\"
    m.flush()
assert open(\"file\", \"rb\").read(4) == b\"MMAP\"'",
    "truncate -s 2000000 file; test $(stat -c %s file) = 2000000",
    "python3 -c 'import os
os.truncate(\"file\", 1500000)'; test $(stat -c %s file) = 1500000",
    "dd if=/dev/zero of=file bs=1 seek=100 count=10 conv=notrunc status=none",
    "dd if=/dev/zero of=file bs=1M seek=4 count=1 conv=notrunc status=none",
    "cat file > $HOME/copy; echo end >> $HOME/copy; cp $HOME/copy file; cmp file $HOME/copy",
    "exec 3<>file; echo one >&3; exec 4>>file; echo two >&4; exec 3>&-; echo three >&4; exec 4>&-",
    "touch -d @1600000000 file; echo after >> file",
    "mv file moved; echo moved >> moved; mv moved file",
];

#[test]
fn who_reads_sees_what_is_written() {
    let server = Ftpd::start();
    put(&server, "file", &bytes(SIZE), 50);
    let Some(mount) = warm(&server, "rw", "file") else {
        return;
    };
    for (number, script) in SEEN.iter().enumerate() {
        let content = bytes(SIZE + number + 1);
        put(&server, "file", &content, 40);
        thread::sleep(Duration::from_millis(1100));
        let reader = open_lent(&mount, "file");
        let before = reader.metadata().unwrap().ino();
        mount.sh(script);
        let now = server.get("file");
        assert!(now != content || script.contains("touch"), "{script}");
        assert!(all_of(&reader) == now, "after {script}");
        assert_eq!(
            reader.metadata().unwrap().len(),
            now.len() as u64,
            "{script}"
        );
        let path = fs::metadata(mount.path("file")).unwrap();
        assert_eq!(
            (path.ino(), path.len()),
            (before, now.len() as u64),
            "{script}"
        );
        // Who comes now sees the same, and so does who comes when all have gone.
        assert!(
            fs::read(mount.path("file")).unwrap() == now,
            "after {script}"
        );
        drop(reader);
        assert!(
            fs::read(mount.path("file")).unwrap() == now,
            "after {script}"
        );
    }
    mount.finish();
}

#[test]
fn who_reads_keeps_what_is_replaced() {
    let server = Ftpd::start();
    put(&server, "file", &bytes(SIZE), 50);
    put(&server, "other", b"other\n", 40);
    let Some(mount) = warm(&server, "rw", "file") else {
        return;
    };
    let mut readers = Vec::new();
    let scripts = [
        "sed -i s/more/less/ file",
        "mv file moved; cp moved file; touch -d @1700000000 file; rm moved",
        "cp other new; mv new file; cmp other file",
        "rm file; test ! -e file",
    ];
    for (number, script) in scripts.iter().enumerate() {
        // Another's version, so that each has a reader of its own, and is old enough to be kept.
        let content = bytes(SIZE + number + 1);
        put(&server, "file", &content, 40);
        thread::sleep(Duration::from_millis(1100));
        readers.push((open_lent(&mount, "file"), content));
        mount.sh(script);
        match script.split_once(' ') {
            Some(("rm", _)) => assert!(!server.path("file").exists()),
            _ => assert!(fs::read(mount.path("file")).unwrap() == server.get("file")),
        }
        for (reader, content) in &readers {
            assert!(all_of(reader) == *content, "an old version after {script}");
        }
    }
    drop(readers);
    mount.finish();
}

#[test]
fn nothing_is_lent_where_it_is_not_wanted_or_there_is_no_cache() {
    let server = Ftpd::start();
    put(&server, "file", &bytes(SIZE), 40);
    for options in [&["rw", "passthrough=off"], &["rw", "cache_size=0"]] {
        let mut mounting = mounting(&server);
        for option in options {
            mounting = mounting.option(*option);
        }
        let Some(mount) = mounting.start() else {
            return;
        };
        for _ in 0..3 {
            assert!(fs::read(mount.path("file")).unwrap() == server.get("file"));
        }
        assert_eq!(lent(&mount).unwrap_or(0), 0, "{options:?}");
        mount.finish();
    }
}

#[test]
fn a_lent_file_outlives_its_place_in_the_cache() {
    let server = Ftpd::start();
    let contents: Vec<Vec<u8>> = (1..5_u8).map(|n| bytes(SIZE + usize::from(n))).collect();
    for (name, content) in ["a", "b", "c", "d"].iter().zip(&contents) {
        put(&server, name, content, 40);
    }
    let mount = mounting(&server)
        .option("ro")
        .option("cache_size=4M")
        .start();
    let Some(mount) = mount else {
        return;
    };
    let mut readers = Vec::new();
    for (name, content) in ["a", "b", "c", "d"].iter().zip(&contents) {
        for _ in 0..3 {
            assert!(fs::read(mount.path(name)).unwrap() == *content);
            thread::sleep(Duration::from_millis(300));
        }
        readers.push((File::open(mount.path(name)).unwrap(), content));
        for (reader, content) in &readers {
            assert!(all_of(reader) == **content);
        }
    }
    drop(readers);
    mount.finish();
}

#[test]
fn after_a_crash_the_cache_is_looked_at_before_it_is_lent() {
    let server = Ftpd::start();
    let content = bytes(SIZE);
    put(&server, "file", &content, 40);
    let Some(mount) = warm(&server, "ro", "file") else {
        return;
    };
    let reader = open_lent(&mount, "file");
    let killed = mount.kill();
    drop(reader);
    let mount = killed.remount();
    server.clear_log();
    assert!(fs::read(mount.path("file")).unwrap() == content);
    assert_eq!(lent(&mount), Some(0));
    let reader = open_lent(&mount, "file");
    assert!(all_of(&reader) == content);
    assert_eq!(server.count("RETR"), 0);
    drop(reader);
    mount.finish();
}

/// Everything at once: the kernel answers EIO where one inode is opened in two ways.
#[test]
fn readers_and_writers_side_by_side_are_never_refused() {
    let server = Ftpd::start();
    put(&server, "file", &vec![b'0'; SIZE], 40);
    let Some(mount) = warm(&server, "rw", "file") else {
        return;
    };
    let over = AtomicBool::new(false);
    let path = mount.path("file");
    let uniform = |place: &Path| {
        let content = match fs::read(place) {
            Ok(content) => content,
            Err(err) => panic!("{}: {err}", place.display()),
        };
        assert!(content.iter().all(|byte| *byte == content[0]), "a mix");
        content.len()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(uniform(&path), SIZE);
                }
            });
        }
        for round in 0..4 {
            thread::sleep(Duration::from_millis(2500));
            let new = vec![b'1' + round; SIZE];
            let staged = mount.path("new");
            fs::write(&staged, &new).unwrap();
            let then = std::time::SystemTime::now() - Duration::from_secs(86_400 * 30);
            File::options()
                .append(true)
                .open(&staged)
                .unwrap()
                .set_modified(then)
                .unwrap();
            fs::rename(&staged, &path).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(server.get("file") == vec![b'4'; SIZE]);
    assert!(lent(&mount).unwrap() > 0);
    mount.finish();
}

/// Writers of all kinds, mappings among them, and readers who were there before.
#[test]
fn readers_see_every_write_at_once() {
    let server = Ftpd::start();
    let rounds = std::env::var("FERRYFS_TORTURE").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(4);
    put(&server, "file", &bytes(SIZE), 50);
    let Some(mount) = warm(&server, "rw", "file") else {
        return;
    };
    for seed in 0..rounds {
        put(&server, "file", &bytes(SIZE + seed), 40);
        thread::sleep(Duration::from_millis(1100));
        drop(open_lent(&mount, "file"));
        let maps = if seed % 2 == 0 { "map" } else { "nomap" };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mounted/torture.py");
        let stored = server.path("file");
        let stored = stored.display();
        // While the last close is behind, a file is not lent, and not later to who joins.
        let mut opens = 0;
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(300));
            let before = lent(&mount).unwrap();
            mount.sh(&format!("python3 {script} file {stored} {seed} 150 {maps}"));
            opens = lent(&mount).unwrap() - before;
            if opens > 10 {
                break;
            }
        }
        assert!(opens > 10, "{opens} opens");
    }
    mount.finish();
}
