//! Refusals, full disks and the many ways to publish a file: the old version or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::io::Errno;

use super::passthrough_writing::lost;
use super::{bytes, mounting, names_there, stage};
use crate::support::ftpd::{Break, Disk, Ftpd, Quirks, RestStor, SiteUtime};
use crate::support::mount::skip;

/// Writes as a careful program does: the error of `close` is told by `fsync`, which Rust can see.
fn store(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What is there after the attempt to replace [`OLD`]: the new version if that is what was told;
/// after an error either, since the close behind it tries again.
fn one_whole_version(stored: &io::Result<()>, there: &[u8], new: &[u8]) {
    let what = || format!("{} bytes are there after {stored:?}", there.len());
    assert!(
        there == new || (stored.is_err() && there == OLD),
        "{}",
        what()
    );
}

const OLD: &[u8] = b"the old version";

#[test]
fn what_the_local_disk_had_no_room_for_replaces_nothing() {
    let server = Ftpd::start();
    let small = tempfile::tempdir().unwrap();
    let at = small.path().display().to_string();
    let mount_tmpfs = ["-t", "tmpfs", "-o", "size=1m,mode=700", "none", &at];
    let done = Command::new("mount").args(mount_tmpfs).status();
    if !done.is_ok_and(|status| status.success()) {
        return skip("no tmpfs can be mounted");
    }
    server.put("old", OLD);
    server.put("kept", OLD);
    let mounting = mounting(&server).option(format!("state_dir={at}"));
    if let Some(mount) = mounting.expect_log("No space left").start() {
        for script in [
            "head -c 3000000 /dev/zero >old",
            "head -c 3000000 /dev/zero >new",
            "head -c 3000000 /dev/zero >>kept",
        ] {
            let (status, said) = mount.try_sh(script);
            assert!(
                !status.success() && said.contains("No space"),
                "{script}: {said}"
            );
        }
        for name in ["old", "kept"] {
            assert_eq!(server.get(name), OLD, "{name}");
            assert_eq!(fs::read(mount.path(name)).unwrap(), OLD, "{name}");
        }
        // Whoever writes again what was missing, or does without, has a file.
        let file = File::create(mount.path("old")).unwrap();
        let content = bytes(2_000_000);
        file.write_all_at(&content[..1000], 0).unwrap();
        assert!(file.write_all_at(&content[1000..], 1000).is_err());
        assert_eq!(
            file.sync_all().unwrap_err().raw_os_error(),
            Some(Errno::NOSPC.raw_os_error())
        );
        assert_eq!(server.get("old"), OLD);
        file.set_len(10).unwrap();
        file.sync_all().unwrap();
        assert_eq!(server.get("old"), &content[..10]);
        drop(file);
        mount.sh("echo fits >new");
        assert_eq!(server.get("new"), b"fits\n");
        mount.finish();
    }
    let done = Command::new("umount").arg(&at).status();
    assert!(done.unwrap().success());
}

#[test]
fn a_full_disk_is_told_and_the_old_version_stays() {
    for (words, errno) in [
        ("552 Disk full.", Errno::NOSPC),
        ("452 Insufficient storage space.", Errno::NOSPC),
        ("552 Quota exceeded.", Errno::DQUOT),
        ("552 Transfer aborted: Disc quota exceeded.", Errno::DQUOT),
        ("451 No space left on device", Errno::NOSPC),
    ] {
        let Some((server, mut mount)) = stage(Quirks::default()) else {
            return;
        };
        server.put("old", OLD);
        mount.expect_log("");
        server.change(|quirks| {
            quirks.disk = Some(Disk {
                bytes: 100_000,
                reply: words.into(),
            });
        });
        for name in ["old", "new"] {
            let err = store(&mount.path(name), &bytes(300_000)).unwrap_err();
            assert_eq!(Errno::from_io_error(&err), Some(errno), "{words}: {err}");
        }
        // The program that only closes is told, too.
        let (status, said) = mount.try_sh("head -c 300000 /dev/zero >other && echo fine");
        assert!(
            !status.success() || !said.contains("fine"),
            "{words}: {said}"
        );
        assert_eq!(server.get("old"), OLD, "{words}");
        server.change(|quirks| quirks.disk = None);
        store(&mount.path("old"), b"the new version").unwrap();
        assert_eq!(server.get("old"), b"the new version");
        mount.finish();
    }
}

#[test]
fn a_redirection_stores_once() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    server.put("old", OLD);
    for (command, name, content) in [
        ("echo hello >new", "new", "hello\n"),
        ("echo hello >old", "old", "hello\n"),
        (": >empty", "empty", ""),
        ("{ echo one; cat /dev/null; } >group", "group", "one\n"),
        (
            "dd if=/dev/zero of=zeros bs=100 count=1 2>/dev/null",
            "zeros",
            "\0".repeat(100).as_str(),
        ),
    ] {
        server.clear_log();
        mount.sh(command);
        assert_eq!(server.get(name), content.as_bytes(), "{command}");
        assert_eq!(server.count("STOR"), 1, "{command}");
    }
    mount.finish();
}

/// Starting a program closes the descriptors it does not inherit while its `/proc` is locked.
#[test]
fn a_program_started_beside_a_new_file_does_not_hang() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    let mut new = fs::File::create(mount.path("new")).unwrap();
    let begun = Instant::now();
    assert!(Command::new("true").status().unwrap().success());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    new.write_all(b"whole").unwrap();
    drop(new);
    assert_eq!(server.get("new"), b"whole");
    mount.finish();
}

/// A copy of a descriptor that another program got is closed when that begins or ends. Who only got
/// it has nothing to publish; who wrote has.
#[test]
fn a_program_that_starts_others_does_not_publish_half_of_its_file() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    server.put("file", OLD);
    let there = server.path("file");
    let said = mount.sh(&format!(
        "python3 -c 'import subprocess
def there(): return open(\"{}\").read()
f = open(\"file\", \"wb\", buffering=0)
subprocess.run([\"true\"])
print(there())
f.write(b\"half\")
subprocess.run([\"true\"])
subprocess.run([\"sh\", \"-c\", \"true; exit 0\"], pass_fds=[f.fileno()])
print(there())
subprocess.run([\"sh\", \"-c\", \"echo more >&$0\", str(f.fileno())], pass_fds=[f.fileno()])
print(there())
f.write(b\"end\")
subprocess.run([\"true\"])
f.close()
print(there())'",
        there.display()
    ));
    assert_eq!(
        said,
        "the old version\nthe old version\nhalfmore\n\nhalfmore\nend\n"
    );
    mount.finish();
}

/// A copy into a directory where nothing may be created asks for a file or two, not for each.
#[test]
fn a_directory_that_refused_new_files_is_not_asked_for_each() {
    let quirks = Quirks::default().answer("STOR", "550 Permission denied.");
    let Some((server, mut mount)) = stage(quirks) else {
        return;
    };
    mount.expect_log("");
    let refused = |name: &str| {
        let err = fs::File::create(mount.path(name)).unwrap_err();
        let errno = Errno::from_io_error(&err).unwrap();
        assert!([Errno::ACCESS, Errno::ROFS].contains(&errno), "{err}");
    };
    // The name may be what it does not like.
    for _ in 0..2 {
        refused("one");
    }
    refused("two");
    server.clear_log();
    refused("three");
    refused("four");
    assert_eq!(server.count("STOR"), 0, "{:?}", server.commands());
    // Another directory may be another matter, and a change of permissions helps.
    server.change(|quirks| *quirks = Quirks::default());
    fs::create_dir(mount.path("dir")).unwrap();
    store(&mount.path("five"), b"5").unwrap();
    store(&mount.path("dir/six"), b"6").unwrap();
    mount.finish();
}

#[test]
fn a_refused_upload_is_eacces_and_changes_nothing() {
    let quirks = Quirks::default()
        .answer("STOR", "550 Permission denied.")
        .answer("APPE", "550 Permission denied.");
    let Some((server, mut mount)) = stage(quirks) else {
        return;
    };
    mount.expect_log("");
    server.put("old", OLD);
    for name in ["old", "new"] {
        let err = store(&mount.path(name), b"x").unwrap_err();
        let errno = Errno::from_io_error(&err).unwrap();
        assert!(
            [Errno::ACCESS, Errno::ROFS].contains(&errno),
            "{name}: {err}"
        );
    }
    assert_eq!(server.get("old"), OLD);
    assert_eq!(names_there(&server), ["old"]);
    mount.finish();
}

#[test]
fn a_server_that_renames_over_nothing_is_worked_around() {
    let quirks = Quirks {
        rnto_over_refused: Some("550 File exists.".into()),
        ..Quirks::default()
    };
    let Some((server, mount)) = stage(quirks) else {
        return;
    };
    server.put("file", "old");
    for round in 0..3 {
        let content = bytes(50_000 + round);
        store(&mount.path("file"), &content).unwrap();
        assert!(server.get("file") == content);
    }
    fs::write(mount.path("other"), "other").unwrap();
    fs::rename(mount.path("other"), mount.path("file")).unwrap();
    assert_eq!(server.get("file"), b"other");
    assert_eq!(names_there(&server), ["file"]);
    mount.finish();
}

#[test]
fn a_publication_that_fails_halfway_leaves_one_whole_version() {
    let texts = [
        ("RNTO", "550 Permission denied."),
        ("RNTO", "553 Not allowed."),
        ("RNFR", "550 Permission denied."),
        ("SIZE", "550 Could not get file size."),
        ("MFMT", "550 Not your file."),
        ("DELE", "550 Permission denied."),
    ];
    for (verb, words) in texts {
        for over_refused in [None, Some("550 File exists.".to_owned())] {
            let quirks = Quirks {
                rnto_over_refused: over_refused,
                ..Quirks::default()
            };
            let server = Ftpd::with(quirks.answer(verb, words));
            // Where nothing can be renamed the file is written in place: a time limit that a busy
            // machine exceeds would leave half of it, as the manual says.
            let mounting = mounting(&server).option("timeout=20s").expect_log("");
            let Some(mount) = mounting.start() else {
                return;
            };
            server.put("file", OLD);
            let content = bytes(200_000);
            let stored = store(&mount.path("file"), &content);
            one_whole_version(&stored, &server.get("file"), &content);
            mount.finish();
        }
    }
}

#[test]
fn an_upload_cut_short_is_never_taken_for_complete() {
    for words in [
        "226 Transfer complete.",
        "426 Connection closed.",
        "451 Local error.",
    ] {
        // Guests may often not ask for the size of what they stored.
        for guest in [false, true] {
            let cut = Break::CloseData(words.into());
            let mut quirks = Quirks::default().fault("STOR", 70_000, 1, cut);
            if guest {
                quirks = quirks.answer("SIZE", "550 Could not get file size.");
            }
            let Some((server, mut mount)) = stage(quirks) else {
                return;
            };
            mount.expect_log("");
            server.put("file", OLD);
            let content = bytes(200_000);
            let stored = store(&mount.path("file"), &content);
            one_whole_version(&stored, &server.get("file"), &content);
            store(&mount.path("file"), &content).unwrap();
            assert!(server.get("file") == content, "{words}");
            assert_eq!(names_there(&server), ["file"]);
            mount.finish();
        }
    }
}

#[test]
fn who_may_not_look_at_what_he_stores_learns_nothing_of_stat_by_that() {
    let quirks = Quirks::like_vsftpd()
        .answer("SIZE /.ferryfs*", "550 Could not get file size.")
        .answer("STAT /.ferryfs*", "550 Not yours.");
    let server = Ftpd::with(quirks);
    let mounting = mounting(&server).option("upload=rename");
    let Some(mount) = mounting.start() else {
        return;
    };
    for round in 1..4 {
        let content = bytes(round * 1000);
        store(&mount.path("file"), &content).unwrap();
        assert!(server.get("file") == content);
    }
    assert_eq!(
        server.count("STAT /.ferryfs*"),
        3,
        "{:?}",
        server.commands()
    );
    mount.finish();
}

#[test]
fn what_is_stored_is_there_whatever_size_says() {
    for quirks in [Quirks::default(), Quirks::like_vsftpd()] {
        for said in ["213 0", "213 4294967295"] {
            let server = Ftpd::with(quirks.clone().answer("SIZE", said));
            let mounting = mounting(&server).option("upload=rename");
            let Some(mount) = mounting.expect_log("not believed any more").start() else {
                return;
            };
            for round in 1..4 {
                let content = bytes(round * 30_000);
                for name in ["file", "other"] {
                    store(&mount.path(name), &content).unwrap();
                    assert!(server.get(name) == content, "{said}");
                    assert!(fs::read(mount.path(name)).unwrap() == content, "{said}");
                    let shown = fs::metadata(mount.path(name)).unwrap();
                    assert_eq!(shown.len(), content.len() as u64, "{said}");
                }
                fs::rename(mount.path("other"), mount.path("file")).unwrap();
                assert_eq!(names_there(&server), ["file"]);
            }
            assert_eq!(mount.log().matches("SIZE says").count(), 1);
            mount.finish();
        }
    }
}

#[test]
fn tails_are_appended_right_on_every_kind_of_server() {
    let kinds = [
        Quirks::default(),
        Quirks::default().without(&["APPE"]),
        Quirks::default().without(&["APPE", "REST", "SIZE"]),
        Quirks {
            rest_stor: RestStor::Truncates,
            ..Quirks::default().without(&["APPE"])
        },
        Quirks {
            rest_stor: RestStor::ZeroFills,
            ..Quirks::default().without(&["APPE"])
        },
        Quirks::like_vsftpd(),
        Quirks::like_proftpd(),
    ];
    for (kind, quirks) in kinds.into_iter().enumerate() {
        let Some((server, mount)) = stage(quirks) else {
            return;
        };
        let mut content = bytes(100_000);
        server.put("log", &content);
        for n in 0..5 {
            let line = format!("line {n}\n");
            let mut file = OpenOptions::new()
                .append(true)
                .open(mount.path("log"))
                .unwrap();
            file.write_all(line.as_bytes()).unwrap();
            drop(file);
            content.extend_from_slice(line.as_bytes());
            assert!(server.get("log") == content, "kind {kind}, line {n}");
        }
        mount.finish();
    }
}

#[test]
fn an_append_sends_the_tail_only() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    server.put("log", bytes(5_000_000));
    for _ in 0..5 {
        let mut file = OpenOptions::new()
            .append(true)
            .open(mount.path("log"))
            .unwrap();
        file.write_all(b"one more line\n").unwrap();
    }
    assert_eq!(server.get("log").len(), 5_000_070);
    // The first may have found out how this server appends.
    assert!(
        server.bytes_received() < 5_100_000,
        "{} bytes",
        server.bytes_received()
    );
    mount.finish();
}

#[test]
fn directories_are_made_and_removed_whatever_the_reply() {
    for reply in ["250 Done.", "200 OK", "257 Created", "257 \"\" created."] {
        let Some((server, mount)) = stage(Quirks::default().reply_instead("MKD", reply)) else {
            return;
        };
        fs::create_dir(mount.path("dir")).unwrap_or_else(|err| panic!("{reply}: {err}"));
        assert!(server.path("dir").is_dir());
        mount.finish();
    }
    let quirks = Quirks::default()
        .answer("MKD /denied", "550 Failed.")
        .answer("MKD denied", "550 Failed.")
        .answer("RMD /full", "550 Failed.")
        .answer("RMD full", "550 Failed.")
        .answer("MKD /taken", "521 It exists.")
        .answer("MKD taken", "521 It exists.");
    let Some((server, mount)) = stage(quirks) else {
        return;
    };
    server.put("full/file", "");
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind(fs::create_dir(mount.path("denied"))),
        ErrorKind::PermissionDenied
    );
    assert_eq!(
        kind(fs::remove_dir(mount.path("full"))),
        ErrorKind::DirectoryNotEmpty
    );
    assert_eq!(
        kind(fs::create_dir(mount.path("full"))),
        ErrorKind::AlreadyExists
    );
    // Somebody else was quicker.
    fs::create_dir(server.path("taken")).unwrap();
    assert_eq!(
        kind(fs::create_dir(mount.path("taken"))),
        ErrorKind::AlreadyExists
    );
    mount.finish();
}

#[test]
fn times_are_set_by_whatever_the_server_has() {
    let without = |commands: &[&str]| Quirks::default().without(commands);
    let kinds = [
        ("MFMT", without(&["SITE"])),
        (
            "SITE UTIME, 2 words",
            Quirks {
                site_utime: SiteUtime::Two,
                ..without(&["MFMT"])
            },
        ),
        (
            "SITE UTIME, 5 words",
            Quirks {
                site_utime: SiteUtime::Five,
                ..without(&["MFMT"])
            },
        ),
        (
            "MDTM",
            Quirks {
                mdtm_sets: true,
                ..without(&["MFMT", "SITE"])
            },
        ),
    ];
    for (kind, quirks) in kinds {
        let Some((server, mount)) = stage(quirks) else {
            return;
        };
        server.put("a file", "x");
        let time = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
        let file = OpenOptions::new()
            .write(true)
            .open(mount.path("a file"))
            .unwrap();
        file.set_modified(time)
            .unwrap_or_else(|err| panic!("{kind}: {err}"));
        drop(file);
        assert_eq!(
            server
                .path("a file")
                .metadata()
                .unwrap()
                .modified()
                .unwrap(),
            time,
            "{kind}"
        );
        assert_eq!(
            mount.path("a file").metadata().unwrap().modified().unwrap(),
            time,
            "{kind}"
        );
        mount.finish();
    }
}

#[test]
fn a_read_only_server_is_readable() {
    let quirks = Quirks {
        read_only: Some("550 Permission denied.".into()),
        ..Quirks::default()
    };
    let Some((server, mut mount)) = stage(quirks) else {
        return;
    };
    mount.expect_log("");
    server.put("dir/file", "content");
    let refused = [Errno::ROFS, Errno::ACCESS];
    let denied = |what: &str, result: io::Result<()>| {
        let err = result.expect_err(what);
        assert!(
            refused.contains(&Errno::from_io_error(&err).unwrap()),
            "{what}: {err}"
        );
    };
    denied("create", store(&mount.path("new"), b"x"));
    denied("overwrite", store(&mount.path("dir/file"), b"x"));
    denied("mkdir", fs::create_dir(mount.path("dir/new")));
    denied("unlink", fs::remove_file(mount.path("dir/file")));
    denied("rename", fs::rename(mount.path("dir"), mount.path("other")));
    assert_eq!(fs::read(mount.path("dir/file")).unwrap(), b"content");
    assert_eq!(names_there(&server), ["dir"]);
    mount.finish();
}

/// What was sent is changed, so the upload behind the writer is given up, and all is sent again:
/// where there is no temporary name, not before the first is over.
#[test]
fn a_new_file_in_place_is_not_removed_behind_its_writer() {
    let server = Ftpd::with(Quirks {
        rate: Some(2_000_000),
        ..Quirks::default()
    });
    let mounting = mounting(&server).option("upload=direct,timeout=10s");
    let Some(mount) = mounting.start() else {
        return;
    };
    for way in ["header", "again"] {
        let mut content = bytes(6_000_000);
        let mut file = File::create(mount.path(way)).unwrap();
        file.write_all(&content).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        if way == "again" {
            fs::remove_file(mount.path(way)).unwrap();
            content = b"another".to_vec();
            file = File::create(mount.path(way)).unwrap();
            file.write_all(&content).unwrap();
        } else {
            file.write_all_at(b"HEADER", 0).unwrap();
            content[..6].copy_from_slice(b"HEADER");
        }
        file.sync_all().unwrap();
        drop(file);
        std::thread::sleep(Duration::from_secs(2));
        assert!(server.get(way) == content, "{way}");
    }
    mount.finish();
}

/// `lost+found` is for what the server has not: a file that a program holds open may be there whole.
#[test]
fn what_was_synced_is_not_lost_when_the_mount_is_killed() {
    let server = Ftpd::start();
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let hold = |name: &str| {
        let mut file = File::create(mount.path(name)).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
        file
    };
    let (whole, mut changed, cut) = (hold("whole"), hold("changed"), hold("cut"));
    changed.write_all(b", and more").unwrap();
    cut.set_len(4).unwrap();
    let killed = mount.kill();
    drop((whole, changed, cut));
    let state = killed.local("state");
    let mut mount = killed.remount();
    for name in ["changed", "cut"] {
        mount.expect_log(&format!("/{name}: not on the server"));
    }
    let mut kept: Vec<_> = lost(&state)
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["sync", "synced, and more"]);
    for name in ["whole", "changed", "cut"] {
        assert_eq!(server.get(name), b"synced");
    }
    mount.finish();
}
