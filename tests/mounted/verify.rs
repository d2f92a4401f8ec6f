//! `-o verify=`: contents are compared with the server's by checksum.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{bytes, mounting, names_there};
use crate::support::ftpd::{Break, Ftpd, Quirks};
use crate::support::mount::TestMount;
use crate::support::real::RealServer;

/// A server that computes these, and a mount that wants them compared.
fn checked(extras: &[&'static str]) -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::with(Quirks {
        extras: extras.to_vec(),
        login: Some(("user".into(), "secret".into())),
        ..Quirks::default()
    });
    let mounting = mounting(&server)
        .password("secret")
        .option("verify=auto,dir_cache=0");
    let mount = mounting.start()?;
    Some((server, mount))
}

/// As `fs::write`, which does not look at what `close` says.
fn write(path: impl AsRef<std::path::Path>, content: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content.as_ref())?;
    file.sync_all()
}

fn errno(result: std::io::Result<()>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn what_is_transferred_whole_is_compared_before_anybody_sees_it() {
    for (extras, command) in [
        (&["HASH SHA-1*;SHA-256;MD5", "XCRC"][..], "HASH"),
        (&["XMD5", "XCRC"], "XMD5"),
        (&["XCRC"], "XCRC"),
        (&["XSHA512", "XSHA1"], "XSHA512"),
    ] {
        let Some((server, mount)) = checked(extras) else {
            return;
        };
        for (name, len) in [("empty", 0), ("small", 5_000), ("large", 3_000_001)] {
            let content = bytes(len);
            server.clear_log();
            write(mount.path(name), &content).unwrap();
            let commands = server.commands();
            let place = |verb: &str| commands.iter().position(|line| line.starts_with(verb));
            assert!(place(command) < place("RNTO"), "{command}: {commands:?}");
            assert!(place(command) > place("STOR"), "{command}: {commands:?}");
            assert!(server.get(name) == content);
            server.put(format!("{name}-there"), &content);
            server.clear_log();
            let read = fs::read(mount.path(format!("{name}-there"))).unwrap();
            assert!(read == content);
            let asked = server.count(command);
            assert_eq!(asked, usize::from(len > 0), "{command} of {name}");
        }
        mount.finish();
    }
}

#[test]
fn a_damaged_upload_fails_and_leaves_the_old_version() {
    let Some((server, mut mount)) = checked(&["HASH SHA-256*"]) else {
        return;
    };
    mount.expect_log("damaged");
    server.put("old", "old");
    server.change(|quirks| quirks.garbles = Some("STOR".into()));
    for (name, len) in [("old", 4_000), ("new", 4_000), ("old", 2_000_000)] {
        let written = write(mount.path(name), bytes(len));
        assert_eq!(errno(written), Some(Errno::IO.raw_os_error()), "{name}");
    }
    assert_eq!(server.get("old"), b"old");
    assert_eq!(names_there(&server), ["old"]);
    let log = mount.log();
    assert!(log.contains("STOR /") && log.contains("SHA-256"), "{log}");
    server.change(|quirks| quirks.garbles = None);
    let content = bytes(2_000_000);
    write(mount.path("old"), &content).unwrap();
    assert!(server.get("old") == content);
    mount.finish();
}

#[test]
fn one_damage_on_the_way_is_made_good_by_another_try() {
    let Some((server, mut mount)) = checked(&["XSHA256"]) else {
        return;
    };
    mount.expect_log("damaged");
    server.change(|quirks| {
        let wrong = "250 ".to_owned() + &"0".repeat(64);
        *quirks = quirks.clone().answer_times("XSHA256", 1, &wrong);
    });
    write(mount.path("file"), "content").unwrap();
    assert_eq!(server.get("file"), b"content");
    assert_eq!(server.count("STOR"), 2);
    mount.finish();
}

#[test]
fn a_checksum_of_a_part_is_no_proof() {
    let Some((server, mut mount)) = checked(&["HASH SHA-256*"]) else {
        return;
    };
    mount.expect_log("not of all");
    let mut sum = ferryfs::vfs::checksum::Algorithm::Sha256.begin();
    sum.add(b"content");
    let right = format!("213 SHA-256 0-3 {} x", sum.end().digits);
    server.change(|quirks| *quirks = quirks.clone().answer("HASH", &right));
    server.put("there", "content");
    assert!(write(mount.path("file"), "content").is_err());
    assert!(fs::read(mount.path("there")).is_err());
    mount.finish();
}

#[test]
fn a_damaged_download_is_an_error_and_nothing_of_it_is_kept() {
    let Some((server, mut mount)) = checked(&["XMD5"]) else {
        return;
    };
    mount.expect_log("damaged");
    for (name, len) in [("small", 4_000), ("large", 3_000_000)] {
        let content = bytes(len);
        server.put(name, &content);
        server.change(|quirks| quirks.garbles = Some("RETR".into()));
        for round in 0..2 {
            let mut got = Vec::new();
            let mut file = File::open(mount.path(name)).unwrap();
            let err = file.read_to_end(&mut got).unwrap_err();
            assert_eq!(
                err.raw_os_error(),
                Some(Errno::IO.raw_os_error()),
                "{name} {round}"
            );
            assert!(got.len() < len, "{name}");
            // Nor the end alone, while it is open.
            file.seek(SeekFrom::Start(len as u64 - 10)).unwrap();
            assert!(file.read(&mut [0; 10]).is_err(), "{name}");
        }
        server.change(|quirks| quirks.garbles = None);
        assert!(fs::read(mount.path(name)).unwrap() == content, "{name}");
    }
    assert!(
        mount.log().contains("RETR /large: damaged"),
        "{}",
        mount.log()
    );
    mount.finish();
}

#[test]
fn a_download_that_was_resumed_is_compared_too() {
    let Some((server, mut mount)) = checked(&["XMD5"]) else {
        return;
    };
    mount.expect_log("");
    let content = bytes(3_000_000);
    server.put("file", &content);
    server.change(|quirks| *quirks = quirks.clone().fault("RETR", 1_000_000, 1, Break::HangUp));
    assert!(fs::read(mount.path("file")).unwrap() == content);
    // The one that broke, the one on which REST was tried, and the rest.
    assert_eq!((server.count("RETR"), server.count("XMD5")), (3, 1));
    mount.finish();
}

#[test]
fn a_file_grows_by_being_sent_whole() {
    let Some((server, mount)) = checked(&["XMD5"]) else {
        return;
    };
    server.put("log", "one\n");
    let mut log = File::options()
        .append(true)
        .open(mount.path("log"))
        .unwrap();
    log.write_all(b"two\n").unwrap();
    drop(log);
    assert_eq!(server.get("log"), b"one\ntwo\n");
    assert_eq!((server.count("APPE"), server.count("STOR")), (0, 1));
    mount.finish();
}

#[test]
fn a_server_without_checksums_is_refused_only_if_they_are_required() {
    let server = Ftpd::start();
    let Some(mount) = mounting(&server).option("verify=auto,dir_cache=0").start() else {
        return;
    };
    write(mount.path("file"), "content").unwrap();
    mount.finish();
    let stage = crate::support::mount::Place::new();
    let output = stage
        .command()
        .arg(server.url(""))
        .arg(stage.mountpoint())
        .args(["-o", "verify=require,timeout=2s"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && words.contains("verify=auto"),
        "{words}"
    );
}

#[test]
fn a_server_that_does_not_tell_after_all_is_believed_unless_it_must_not_be() {
    for (option, allowed) in [("verify=auto", true), ("verify=require", false)] {
        let server = Ftpd::with(Quirks {
            extras: vec!["XMD5"],
            ..Quirks::default()
        });
        server.change(|quirks| *quirks = quirks.clone().answer("XMD5", "550 Not for you."));
        let mounting = mounting(&server).option(option).expect_log("");
        let Some(mount) = mounting.start() else {
            return;
        };
        let written = write(mount.path("file"), "content");
        assert_eq!(written.is_ok(), allowed, "{option}");
        // A guest's new file has its name from the start: it is tried once more when it is released.
        // Before that has ended its way it would be told by the unmount.
        let done = || allowed || mount.log().contains("release of inode");
        let there = || server.path("file").exists();
        let deadline = Instant::now() + Duration::from_secs(10);
        while (there() != allowed || !done()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(there(), allowed, "{option}");
        assert!(done(), "{}", mount.log());
        mount.finish();
    }
}

/// ProFTPD's mod_digest, which Debian has and does not load.
#[test]
fn proftpd_computes_them() {
    let words = ["LoadModule mod_digest.c", "DigestEngine on"];
    let Some(server) = RealServer::start("proftpd", "user", &words) else {
        return;
    };
    server.give_all_to_the_user();
    let Some(mount) = server
        .mounting()
        .option("verify=require,dir_cache=0")
        .start()
    else {
        return;
    };
    for (name, len) in [("empty", 0), ("a b  c", 5_000), ("größe", 3_000_001)] {
        let content = bytes(len);
        write(mount.path(name), &content).unwrap();
        let stored = fs::read(server.path(name));
        assert!(
            stored.is_ok_and(|stored| stored == content),
            "{name}\n{}",
            mount.sh("ls -la")
        );
        let there = server.path(format!("{name} there"));
        fs::write(&there, &content).unwrap();
        server.give_all_to_the_user();
        assert!(fs::read(mount.path(format!("{name} there"))).unwrap() == content);
    }
    mount.finish();
}
