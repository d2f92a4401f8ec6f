//! What the manual's SEMANTICS says of servers that go their own way, and of other clients.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::{bytes, mounting, stage};
use crate::support::ftpd::{Break, Ftpd, Quirks};

#[test]
fn free_space_is_what_the_server_tells() {
    for (extras, free) in [(vec!["AVBL"], 123_456_789), (vec![], 1 << 50)] {
        let Some((_server, mount)) = stage(Quirks {
            extras,
            ..Quirks::default()
        }) else {
            return;
        };
        let about = rustix::fs::statvfs(mount.root()).unwrap();
        assert_eq!(about.f_bavail, free / about.f_frsize);
        mount.finish();
    }
}

/// The download goes on, so that no transfer ends early: the reader learns of it at the end.
#[test]
fn a_file_written_to_in_place_while_it_is_read_is_estale() {
    let server = Ftpd::start();
    let there = server.put("file", vec![b'o'; 24 << 20]);
    let old = File::options().write(true).open(&there).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000))
        .unwrap();
    let Some(mount) = mounting(&server).expect_log("").start() else {
        return;
    };
    let mut reader = File::open(mount.path("file")).unwrap();
    let mut buf = vec![0; 1 << 20];
    reader.read_exact(&mut buf).unwrap();
    (&old).write_all(&vec![b'n'; 24 << 20]).unwrap();
    thread::sleep(Duration::from_millis(5200));
    let end = loop {
        match reader.read(&mut buf) {
            Ok(0) => panic!("a mix was shown as a whole"),
            Ok(_) => {}
            Err(err) => break err,
        }
    };
    assert_eq!(Errno::from_io_error(&end), Some(Errno::STALE));
    drop(reader);
    // Who opens it now has all of the new one.
    assert!(fs::read(mount.path("file")).unwrap() == vec![b'n'; 24 << 20]);
    mount.finish();
}

/// A slow reader, and a quick one who comes when the file has another version.
#[test]
fn two_readers_of_two_versions_get_one_each() {
    let server = Ftpd::start();
    let put = |letter: u8, time: u64| {
        let there = server.put("new", vec![letter; 8 << 20]);
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(time);
        let file = File::options().write(true).open(&there).unwrap();
        file.set_modified(time).unwrap();
        fs::rename(there, server.path("file")).unwrap();
    };
    put(b'o', 1_600_000_000);
    let mount = mounting(&server).option("dir_cache=1s").expect_log("");
    let Some(mount) = mount.start() else { return };
    let mut slow = File::open(mount.path("file")).unwrap();
    let mut seen = vec![0; 1 << 20];
    slow.read_exact(&mut seen).unwrap();
    put(b'n', 1_650_000_000);
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(mount.sh("tr -d n <file | wc -c").trim(), "0");
    let end = slow.read_to_end(&mut seen);
    assert!(seen.iter().all(|byte| *byte == b'o'), "a mix");
    match end {
        Ok(_) => assert_eq!(seen.len(), 8 << 20),
        Err(err) => assert_eq!(Errno::from_io_error(&err), Some(Errno::STALE)),
    }
    drop(slow);
    assert!(fs::read(mount.path("file")).unwrap() == vec![b'n'; 8 << 20]);
    // Writers, and who cuts it by its name, are told to look again as well.
    let reader = File::open(mount.path("file")).unwrap();
    put(b'm', 1_660_000_000);
    thread::sleep(Duration::from_millis(1200));
    mount.sh("truncate -s 5 file; printf xy | dd of=file conv=notrunc status=none; cat file");
    assert_eq!(server.get("file"), b"xymmm");
    drop(reader);
    mount.finish();
}

#[test]
fn a_broken_append_leaves_the_old_version_and_is_mended() {
    let server = Ftpd::start();
    let old = bytes(200_000);
    server.put("file", &old);
    let Some(mount) = mounting(&server).expect_log("").start() else {
        return;
    };
    let mut file = OpenOptions::new()
        .append(true)
        .open(mount.path("file"))
        .unwrap();
    let tail = vec![b't'; 100_000];
    file.write_all(&tail).unwrap();
    // The tail breaks, and the server is not there for the rest.
    server.change(|quirks| {
        *quirks = quirks
            .clone()
            .fault("APPE", 50_000, 1, Break::HangUp)
            .answer("STOR", "421 Gone.");
    });
    file.sync_all().unwrap_err();
    let there = server.get("file");
    assert!(there.starts_with(&old) && there.len() < 300_000);
    assert!(there[old.len()..].iter().all(|byte| *byte == b't'));
    server.change(|quirks| quirks.answers.clear());
    file.sync_all().unwrap();
    drop(file);
    assert!(server.get("file") == [old, tail].concat());
    mount.finish();
}

#[test]
fn a_direct_upload_is_seen_to_grow() {
    for (option, grows) in [("upload=direct", true), ("upload=auto", false)] {
        let quirks = Quirks {
            rate: Some(2_000_000),
            login: Some(("lab".into(), "secret".into())),
            ..Quirks::default()
        };
        let server = Ftpd::with(quirks);
        let mounting = mounting(&server).option(option).password("secret");
        let Some(mount) = mounting.start() else {
            return;
        };
        let writer = thread::spawn({
            let path = mount.path("file");
            move || fs::write(path, bytes(1_000_000)).unwrap()
        });
        let mut partial = false;
        while !writer.is_finished() {
            let seen = server.path("file").metadata().map_or(0, |m| m.len());
            partial |= 0 < seen && seen < 1_000_000;
            thread::sleep(Duration::from_millis(5));
        }
        writer.join().unwrap();
        assert!(server.get("file") == bytes(1_000_000));
        assert_eq!(partial, grows, "{option}");
        mount.finish();
    }
}
