//! Connections that break, servers that go away and come back.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::{bytes, names_there, stage};
use crate::support::ftpd::{Break, Ftpd, Quirks};
use crate::support::mount::Mounting;
use crate::support::wire::{Snap, Wire};

#[test]
fn a_download_goes_on_where_it_broke() {
    for what in [
        Break::HangUp,
        Break::CloseData("426 Failure writing network stream.".into()),
        Break::CloseData("226 Transfer complete.".into()),
        Break::ResetData("451 Local error.".into()),
    ] {
        let quirks = Quirks::default()
            .fault("RETR", 1_000_000, 1, what.clone())
            .fault("RETR", 300_000, 1, what);
        let Some((server, mut mount)) = stage(quirks) else {
            return;
        };
        mount.expect_log("");
        let content = bytes(3_000_000);
        server.put("file", &content);
        assert!(fs::read(mount.path("file")).unwrap() == content);
        mount.finish();
    }
}

#[test]
fn an_upload_starts_again_when_the_server_hangs_up() {
    let quirks = Quirks::default().fault("STOR", 500_000, 1, Break::HangUp);
    let Some((server, mut mount)) = stage(quirks) else {
        return;
    };
    mount.expect_log("");
    server.put("file", "old");
    let content = bytes(2_000_000);
    let mut file = File::create(mount.path("file")).unwrap();
    file.write_all(&content).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert!(server.get("file") == content);
    mount.finish();
}

#[test]
fn idle_connections_may_die_unnoticed() {
    let Some((server, mut mount)) = stage(Quirks::default()) else {
        return;
    };
    mount.expect_log("");
    server.put("dir/file", "content");
    for round in 0..5 {
        fs::write(mount.path(format!("file{round}")), "x").unwrap();
        server.hang_up();
        let before = Instant::now();
        assert_eq!(fs::read(mount.path("dir/file")).unwrap(), b"content");
        fs::create_dir(mount.path(format!("dir{round}"))).unwrap();
        fs::remove_file(mount.path(format!("file{round}"))).unwrap();
        assert!(before.elapsed() < Duration::from_secs(2), "round {round}");
    }
    mount.finish();
}

#[test]
fn a_server_that_was_gone_is_back_within_two_seconds() {
    let Some((server, mut mount)) = stage(Quirks::default()) else {
        return;
    };
    mount.expect_log("");
    server.put("dir/file", "content");
    fs::read(mount.path("dir/file")).unwrap();
    server.go_down();
    mount.within(Duration::from_secs(10), || {
        let mut refused = 0;
        while refused < 3 {
            refused += usize::from(fs::create_dir(mount.path("new")).is_err());
        }
    });
    server.come_back();
    let back = Instant::now();
    while fs::create_dir(mount.path("new")).is_err() {
        assert!(
            back.elapsed() < Duration::from_secs(2),
            "not back after 2 seconds"
        );
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read(mount.path("dir/file")).unwrap(), b"content");
    mount.finish();
}

#[test]
fn a_silent_server_is_waited_for_as_long_as_said() {
    for verb in ["MLSD", "RETR", "MKD", "*"] {
        let Some((server, mut mount)) = stage(Quirks::default()) else {
            return;
        };
        mount.expect_log("");
        server.put("dir/file", "content");
        server.change(|quirks| *quirks = quirks.clone().stall(verb));
        // The time limit is 2 seconds; an operation may try twice.
        let before = Instant::now();
        mount.within(Duration::from_secs(15), || {
            let listed = fs::read_dir(mount.path("dir")).is_ok();
            let read = fs::read(mount.path("dir/file")).is_ok();
            let made = fs::create_dir(mount.path("made")).is_ok();
            let went_well = [("MLSD", listed), ("RETR", read), ("MKD", made)];
            assert!(
                went_well.iter().any(|(_, well)| !well),
                "{verb}: {went_well:?}"
            );
        });
        server.change(|quirks| quirks.stalls.clear());
        mount.within(Duration::from_secs(10), || {
            assert_eq!(
                fs::read(mount.path("dir/file")).unwrap(),
                b"content",
                "{verb}"
            );
        });
        assert!(before.elapsed() > Duration::from_secs(1));
        mount.finish();
    }
}

#[test]
fn data_that_stops_coming_is_no_end() {
    let quirks = Quirks::default().fault("RETR", 200_000, 1, Break::Stall);
    let Some((server, mut mount)) = stage(quirks) else {
        return;
    };
    mount.expect_log("");
    let content = bytes(1_000_000);
    server.put("file", &content);
    mount.within(Duration::from_secs(20), || {
        // Either it was taken up again on another connection, or the reader was told.
        if let Ok(read) = fs::read(mount.path("file")) {
            assert!(read == content);
        }
    });
    server.change(|quirks| quirks.faults.clear());
    assert!(fs::read(mount.path("file")).unwrap() == content);
    mount.finish();
}

/// Breaks the wire at one place after the other, while a file is replaced and read. Nothing may
/// hang, no half file may pass for a whole one, and the next attempt must succeed.
fn snap_everywhere(how: Snap, step: u64, most: u64) {
    let server = Ftpd::start();
    let wire = Wire::to(server.address());
    server.change(|quirks| quirks.advertise = Some(wire.hook()));
    let url = format!("ftp://{}/", wire.address());
    let mounting = Mounting::of(url).option("timeout=1s").expect_log("");
    let Some(mount) = mounting.patience(Duration::from_secs(280)).start() else {
        return;
    };
    let contents = [bytes(3000), b"short".to_vec()];
    server.put("file", &contents[1]);
    let mut at = 0;
    let mut round = 0;
    while at < most {
        let (new, old) = (&contents[round % 2], &contents[(round + 1) % 2]);
        wire.snap_at(wire.bytes() + at, how);
        let stored = mount.within(Duration::from_secs(20), || {
            File::create(mount.path("file"))
                .and_then(|mut file| file.write_all(new).and_then(|()| file.sync_all()))
        });
        let read = mount.within(Duration::from_secs(20), || {
            let mut read = Vec::new();
            File::open(mount.path("file"))
                .and_then(|mut f| f.read_to_end(&mut read))
                .map(|_| read)
        });
        wire.heal();
        let there = server.get("file");
        match stored {
            Ok(()) => assert!(there == *new, "{how:?} at {at}: stored, but is not there"),
            Err(_) => assert!(
                there == *new || there == *old,
                "{how:?} at {at}: half a file"
            ),
        }
        if let Ok(read) = read {
            assert!(
                read == *new || read == *old,
                "{how:?} at {at}: {} bytes were read",
                read.len()
            );
        }
        mount.within(Duration::from_secs(20), || {
            fs::write(mount.path("file"), new).unwrap_or_else(|err| {
                panic!("{how:?} at {at}: the next attempt: {err}");
            });
        });
        assert!(server.get("file") == *new, "{how:?} at {at}");
        at += step;
        round += 1;
    }
    // What was left behind is swept up by later work, not at once.
    thread::sleep(Duration::from_secs(2));
    fs::write(mount.path("file"), "the last").unwrap();
    assert_eq!(names_there(&server), ["file"]);
    mount.finish();
}

#[test]
fn the_wire_may_break_anywhere() {
    snap_everywhere(Snap::Close, 29, 5000);
}

#[test]
fn the_wire_may_go_silent_anywhere() {
    snap_everywhere(Snap::Stall, 307, 5000);
}
