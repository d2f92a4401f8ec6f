//! Somebody else changes a file while it is open here: `-o conflict=`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::names_there;
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{Mounting, TestMount};

/// Servers with and without MLST, that are strict about renames, and that refuse to rename over a
/// file.
fn kinds() -> [Quirks; 4] {
    [
        Quirks::default(),
        Quirks::like_vsftpd(),
        Quirks::like_proftpd(),
        Quirks::like_iis(),
    ]
}

/// Guests store new files straight under their names; others do not.
fn mounting(server: &Ftpd) -> Mounting {
    super::mounting(server).option("upload=rename")
}

/// `name`, emptied. What is written to it is written after somebody else's change: a process that
/// another test starts meanwhile has the descriptor for a moment, and closing it stores the file.
fn open(mount: &TestMount, name: &str) -> File {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.open(mount.path(name)).unwrap()
}

/// What was kept on the server of others' versions, sorted.
fn kept(server: &Ftpd) -> Vec<String> {
    let names = names_there(server).into_iter();
    let mut kept: Vec<_> = names
        .filter(|name| name.contains(".conflict-"))
        .map(|name| String::from_utf8(server.get(name)).unwrap())
        .collect();
    kept.sort();
    kept
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Our version of `old` and `new`, after both were changed by somebody else, and what `sync` of
/// them says.
fn clash(server: &Ftpd, mount: &TestMount) -> [std::io::Result<()>; 2] {
    server.put("old", "before");
    mount.sh("cat old");
    let files = ["old", "new"].map(|name| open(mount, name));
    server.put("old", "theirs, old");
    server.put("new", "theirs, new");
    files.map(|mut file| {
        file.write_all(b"ours").unwrap();
        file.sync_all()
    })
}

#[test]
fn the_other_version_is_kept() {
    for quirks in kinds() {
        for options in ["conflict=keep", "writeback"] {
            let server = Ftpd::with(quirks.clone());
            let mounting = mounting(&server).option(options);
            let Some(mount) = mounting.expect_log("somebody else has changed it").start() else {
                return;
            };
            for told in clash(&server, &mount) {
                told.unwrap();
            }
            assert_eq!(server.get("old"), b"ours");
            assert_eq!(server.get("new"), b"ours");
            assert_eq!(kept(&server), ["theirs, new", "theirs, old"]);
            let name = names_there(&server).remove(1);
            let stamp = name.rsplit('-').next().unwrap();
            assert!(
                name.starts_with("new.conflict-") && stamp.len() == 14,
                "{name}"
            );
            // Our own next version replaces our own last one.
            mount.sh("echo ours again >old; sync old");
            assert_eq!(names_there(&server).len(), 4, "{:?}", names_there(&server));
            mount.finish();
        }
    }
}

#[test]
fn the_upload_fails_where_it_is_told_to() {
    for quirks in kinds() {
        let server = Ftpd::with(quirks);
        let mounting = mounting(&server).option("conflict=fail");
        let started = mounting
            .expect_log("not on the server")
            .expect_log("somebody else has changed it")
            .start();
        let Some(mount) = started else { return };
        for told in clash(&server, &mount) {
            let told = told.unwrap_err();
            assert_eq!(Errno::from_io_error(&told), Some(Errno::STALE), "{told}");
        }
        until("what was written is kept here", || {
            mount.log().matches("kept as").count() >= 2
        });
        let log = mount.log();
        let places = log.lines().filter_map(|line| line.split("kept as ").nth(1));
        for place in places {
            let place = place.trim();
            assert_eq!(fs::read(place).unwrap(), b"ours", "{place}");
            let reason = fs::read_to_string(format!("{place}.reason")).unwrap();
            assert!(reason.contains("somebody else has changed it"), "{reason}");
        }
        assert_eq!(server.get("old"), b"theirs, old");
        assert_eq!(server.get("new"), b"theirs, new");
        assert_eq!(names_there(&server), ["new", "old"]);
        mount.finish();
    }
}

#[test]
fn with_writeback_a_failed_upload_is_told_by_the_next_use() {
    let server = Ftpd::start();
    let mounting = mounting(&server).option("conflict=fail,writeback");
    let started = mounting
        .expect_log("not on the server")
        .expect_log("given up")
        .expect_log("somebody else has changed it")
        .start();
    let Some(mount) = started else { return };
    server.put("old", "before");
    mount.sh("cat old");
    let mut file = open(&mount, "old");
    server.put("old", "theirs, and longer");
    file.write_all(b"ours").unwrap();
    drop(file);
    until("given up at once", || mount.log().contains("given up"));
    let told = fs::read(mount.path("old")).unwrap_err();
    assert_eq!(Errno::from_io_error(&told), Some(Errno::IO), "{told}");
    assert_eq!(server.get("old"), b"theirs, and longer");
    mount.finish();
}

#[test]
fn the_last_one_wins_where_it_is_told_to() {
    for quirks in kinds() {
        let server = Ftpd::with(quirks);
        let Some(mount) = mounting(&server).option("conflict=overwrite").start() else {
            return;
        };
        for told in clash(&server, &mount) {
            told.unwrap();
        }
        assert_eq!(names_there(&server), ["new", "old"]);
        assert_eq!(server.get("old"), b"ours");
        assert_eq!(server.get("new"), b"ours");
        mount.finish();
    }
}

#[test]
fn a_directory_that_somebody_made_meanwhile_keeps_its_name() {
    let server = Ftpd::start();
    let mounting = mounting(&server).expect_log("not on the server");
    let Some(mount) = mounting.start() else {
        return;
    };
    // The first ones find out how times are set.
    mount.sh("echo 1 >first; echo 2 >second; rm first second");
    let mut file = open(&mount, "name");
    server.put("name/below", "theirs");
    file.write_all(b"ours").unwrap();
    let told = file.sync_all().unwrap_err();
    assert_eq!(Errno::from_io_error(&told), Some(Errno::ISDIR), "{told}");
    drop(file);
    until("given up", || mount.log().contains("kept as"));
    assert_eq!(server.get("name/below"), b"theirs");
    until("nothing is left", || names_there(&server) == ["name"]);
    mount.finish();
}

#[test]
fn an_append_to_a_version_that_is_gone_is_no_append() {
    let server = Ftpd::start();
    let mounting = mounting(&server).expect_log("somebody else has changed it");
    let Some(mount) = mounting.start() else {
        return;
    };
    let mut file = open(&mount, "log");
    file.write_all(b"one\n").unwrap();
    file.sync_all().unwrap();
    file.write_all(b"two\n").unwrap();
    file.sync_all().unwrap();
    server.put("log", "theirs\n");
    file.write_all(b"three\n").unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(server.get("log"), b"one\ntwo\nthree\n");
    assert_eq!(kept(&server), ["theirs\n"]);
    mount.finish();
}
