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

/// Where the name that it is to have is refused, and what comes behind that would be taken.
#[test]
fn a_version_that_cannot_be_given_its_name_is_not_lost() {
    let refused = |quirks: Quirks| quirks.answer("RNTO /new.conflict-*", "553 Not that name.");
    for quirks in [refused(Quirks::default()), refused(Quirks::like_iis())] {
        let server = Ftpd::with(quirks);
        let Some(mount) = mounting(&server).expect_log("").start() else {
            return;
        };
        mount.sh("echo 1 >first");
        let mut file = open(&mount, "new");
        server.put("new", "theirs");
        file.write_all(b"ours").unwrap();
        file.sync_all().unwrap();
        drop(file);
        let names = names_there(&server);
        let contents: Vec<_> = names.iter().map(|name| server.get(name)).collect();
        assert_eq!(contents, [&b"theirs"[..], b"1\n", b"ours"], "{names:?}");
        assert!(mount.log().contains("somebody else has changed it, too"));
        server.change(|quirks| {
            quirks
                .answers
                .retain(|rule| !rule.pattern.contains("conflict"))
        });
        until("it has its name", || kept(&server) == ["theirs"]);
        mount.finish();
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

/// `old` and `new` are known here; then somebody else changes both, and ours are renamed over them:
/// what rename(2) says.
fn renamed_over(server: &Ftpd, mount: &TestMount) -> [std::io::Result<()>; 2] {
    server.put("old", "before");
    mount.sh("echo ours >a; echo ours >b; sync a b; cat old; ls -l; ! test -e new");
    server.put("old", "theirs, old");
    server.put("new", "theirs, new");
    [("a", "old"), ("b", "new")].map(|(from, to)| fs::rename(mount.path(from), mount.path(to)))
}

#[test]
fn a_rename_keeps_the_version_that_nobody_here_has_seen() {
    for quirks in kinds() {
        for options in ["conflict=keep", "writeback"] {
            let server = Ftpd::with(quirks.clone());
            let mounting = mounting(&server).option(options).option("dir_cache=60");
            let Some(mount) = mounting.expect_log("somebody else has changed it").start() else {
                return;
            };
            for told in renamed_over(&server, &mount) {
                told.unwrap();
            }
            assert_eq!(server.get("old"), b"ours\n");
            assert_eq!(server.get("new"), b"ours\n");
            assert_eq!(kept(&server), ["theirs, new", "theirs, old"]);
            // What is known is replaced, in the way of editors and rsync, and no more is kept.
            mount.sh("echo 1 >tmp; mv tmp old; echo 2 >tmp; sync tmp; mv tmp old; mv old other");
            mount.sh("mkdir d e; mv d e; ln -s new link && mv link new || true");
            assert_eq!(server.get("other"), b"2\n");
            assert_eq!(kept(&server).len(), 2, "{:?}", names_there(&server));
            mount.finish();
        }
    }
}

#[test]
fn a_rename_fails_where_it_is_told_to_and_replaces_what_was_looked_at_since() {
    for quirks in [Quirks::default(), Quirks::like_iis()] {
        let server = Ftpd::with(quirks);
        let mounting = mounting(&server).option("conflict=fail,dir_cache=3");
        let Some(mount) = mounting.expect_log("").start() else {
            return;
        };
        for told in renamed_over(&server, &mount) {
            let told = told.unwrap_err();
            assert_eq!(Errno::from_io_error(&told), Some(Errno::EXIST), "{told}");
        }
        assert!(
            mount.log().contains("somebody else has changed it"),
            "{}",
            mount.log()
        );
        assert_eq!(server.get("old"), b"theirs, old");
        assert_eq!(server.get("new"), b"theirs, new");
        assert_eq!(names_there(&server), ["a", "b", "new", "old"]);
        // What is in memory is believed for so long.
        std::thread::sleep(Duration::from_millis(3200));
        assert_eq!(mount.sh("cat old new"), "theirs, oldtheirs, new");
        mount.sh("mv a old; mv b new");
        assert_eq!(names_there(&server), ["new", "old"]);
        assert_eq!(server.get("new"), b"ours\n");
        mount.finish();
    }
}

#[test]
fn a_rename_to_a_new_name_asks_nothing_first() {
    let server = Ftpd::start();
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    mount.sh("echo 1 >first; echo 2 >a; sync a; ls -l");
    server.clear_log();
    mount.sh("mv a b");
    let said = server.commands();
    assert!(
        !said
            .iter()
            .any(|line| line.starts_with("MLST") || line.starts_with("SIZE")),
        "{said:?}"
    );
    assert_eq!(server.get("b"), b"2\n");
    mount.finish();
}

/// `old`, opened and written here, and changed by somebody else in between; what `fsync` says.
fn overtaken(server: &Ftpd, mount: &TestMount) -> (File, std::io::Result<()>) {
    mount.sh("cat old");
    let mut file = OpenOptions::new()
        .write(true)
        .open(mount.path("old"))
        .unwrap();
    server.put("old", "theirs, old");
    file.write_all(b"ours, and so on").unwrap();
    let told = file.sync_all();
    (file, told)
}

/// With `upload=direct` nothing can be done about what changes while the upload is under way.
#[test]
fn an_upload_in_place_minds_the_version_that_is_there() {
    for (policy, ours, others) in [
        ("keep", "ours, and so on", vec!["theirs, old"]),
        ("overwrite", "ours, and so on", vec![]),
        ("fail", "theirs, old", vec![]),
    ] {
        for quirks in kinds() {
            let server = Ftpd::with(quirks);
            server.put("old", "before");
            let mounting = super::mounting(&server).option("upload=direct");
            let mounting = mounting.option(format!("conflict={policy}"));
            let Some(mount) = mounting.expect_log("").start() else {
                return;
            };
            let (file, told) = overtaken(&server, &mount);
            match policy {
                "fail" => {
                    let told = told.unwrap_err();
                    assert_eq!(Errno::from_io_error(&told), Some(Errno::STALE), "{told}");
                }
                _ => told.unwrap(),
            }
            drop(file);
            if policy == "fail" {
                until("given up", || mount.log().contains("kept as"));
            }
            assert_eq!(String::from_utf8(server.get("old")).unwrap(), ours);
            assert_eq!(kept(&server), others);
            if policy == "keep" {
                mount.sh("echo ours again >old; sync old; echo more >old");
                assert_eq!(kept(&server), others, "our own is no conflict");
                assert_eq!(server.get("old"), b"more\n");
            }
            mount.finish();
        }
    }
}

/// Guests may not rename here, so that what is there already is written in place.
#[test]
fn a_guest_replaces_no_version_that_he_has_not_seen() {
    let quirks = Quirks::default().answer("RNFR", "550 Permission denied.");
    let server = Ftpd::with(quirks);
    server.put("old", "before");
    let mounting = super::mounting(&server).option("dir_cache=0");
    let Some(mount) = mounting.expect_log("").start() else {
        return;
    };
    let (file, told) = overtaken(&server, &mount);
    let told = told.unwrap_err();
    assert_eq!(Errno::from_io_error(&told), Some(Errno::ACCESS), "{told}");
    drop(file);
    until("what was written is kept here", || {
        mount.log().contains("kept as")
    });
    assert_eq!(server.get("old"), b"theirs, old");
    // What he has seen he may replace.
    mount.sh("cat old; echo his >old; sync old");
    assert_eq!(server.get("old"), b"his\n");
    mount.finish();
}

/// The rename that gives an upload its name is done, and its answer never comes; then the server is
/// away for longer than anybody asks what became of it. Nothing that can be seen of the file but its
/// size tells that it is ours: this server does not set times.
#[test]
fn our_own_upload_whose_answer_was_lost_in_an_outage_is_no_conflict() {
    for (name, later) in [
        ("old", "ours, 1"),
        ("new", "ours, 1"),
        ("old", "and longer"),
    ] {
        let server = Ftpd::with(Quirks::default().without(&["MFMT", "MFF", "SITE UTIME"]));
        server.put("old", "before");
        let mounting = mounting(&server).option("hard").option("writeback");
        let mounting = mounting.patience(Duration::from_secs(60)).expect_log("");
        let Some(mount) = mounting.start() else {
            return;
        };
        mount.sh("echo 1 >first; echo 2 >second; sync first second; cat old");
        let seconds = |seconds| std::thread::sleep(Duration::from_secs(seconds));
        seconds(3);
        server.change(|quirks| *quirks = quirks.clone().reply_instead("RNTO", "150 Wait."));
        fs::write(mount.path(name), "ours, 1").unwrap();
        until("named", || {
            fs::read(server.path(name)).is_ok_and(|there| there == b"ours, 1")
        });
        server.go_down();
        server.change(|quirks| quirks.instead.clear());
        fs::write(mount.path(name), later).unwrap();
        seconds(4);
        server.come_back();
        mount.sh(&format!("sync {name}"));
        assert_eq!(String::from_utf8(server.get(name)).unwrap(), later);
        assert!(
            kept(&server).is_empty(),
            "{name}: {:?}",
            names_there(&server)
        );
        mount.finish();
    }
}
