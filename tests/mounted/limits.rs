//! Servers that serve few at a time.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Limit, Quirks};

fn sixteen_readers(reply: &str) {
    let server = Ftpd::with(Quirks {
        limit: Some(Limit {
            sessions: 2,
            reply: reply.into(),
        }),
        rate: Some(2_000_000),
        ..Quirks::default()
    });
    let content = bytes(400_000);
    for n in 0..16 {
        server.put(format!("big{n}"), &content);
        server.put(format!("dir{n}/file"), "");
    }
    let Some(mount) = mounting(&server)
        .option("timeout=20s")
        .expect_log("")
        .start()
    else {
        return;
    };
    thread::scope(|scope| {
        for n in 0..16 {
            let (mount, content) = (&mount, &content);
            scope.spawn(move || {
                let read = fs::read(mount.path(format!("big{n}")));
                assert!(
                    &read.unwrap_or_else(|err| panic!("big{n}: {err}")) == content,
                    "big{n}"
                );
            });
        }
        // Who looks around does not wait for the transfers.
        scope.spawn(|| {
            for n in 0..16 {
                let before = Instant::now();
                assert_eq!(
                    fs::read_dir(mount.path(format!("dir{n}"))).unwrap().count(),
                    1
                );
                let took = before.elapsed();
                assert!(
                    took < Duration::from_secs(1),
                    "{reply}: ls dir{n} took {took:?}"
                );
            }
        });
    });
    assert!(server.sessions_peak() <= 2);
    let logins = server.count("PASS");
    assert!(logins <= 12, "{reply}: {logins} logins");
    mount.finish();
}

#[test]
fn sixteen_readers_where_two_are_welcome_421() {
    sixteen_readers("421 Too many connections from your address.");
}

#[test]
fn sixteen_readers_where_two_are_welcome_530() {
    sixteen_readers(
        "530 Sorry, the maximum number of clients (2) from your host are already connected.",
    );
}

#[test]
fn one_connection_is_enough() {
    let server = Ftpd::with(Quirks {
        limit: Some(Limit {
            sessions: 1,
            reply: "421 Too many users.".into(),
        }),
        ..Quirks::default()
    });
    for n in 0..20 {
        server.put(format!("dir{}/file{n}", n % 4), bytes(100_000));
    }
    let Some(mount) = mounting(&server).expect_log("").start() else {
        return;
    };
    mount.sh("mkdir copy && cp -r dir* copy/ && diff -r dir1 copy/dir1 && cat dir2/* >all");
    assert_eq!(server.get("all").len(), 500_000);
    // A reader that stands still does not keep the others waiting for ever.
    mount.sh("exec 3<dir0/file0; head -c 10 <&3 >/dev/null; ls dir3; echo x >new; cat <&3 | wc -c");
    mount.finish();
}

#[test]
fn more_files_are_open_than_the_shell_allows() {
    let server = Ftpd::start();
    for n in 0..120 {
        server.put(format!("old{n}"), bytes(3000));
    }
    let Some(mount) = mounting(&server).descriptors(100).start() else {
        return;
    };
    let mut open = Vec::new();
    for n in 0..120 {
        let mut new = fs::File::create(mount.path(format!("new{n}"))).unwrap();
        new.write_all(b"some").unwrap();
        let mut old = Vec::new();
        let mut file = fs::File::open(mount.path(format!("old{n}"))).unwrap();
        file.read_to_end(&mut old).unwrap();
        assert_eq!(old.len(), 3000);
        open.push((new, file));
    }
    drop(open);
    assert_eq!(server.get("new119"), b"some");
    mount.finish();
}

/// A long upload has the only connection for contents: another waits for as long as it goes on.
#[test]
fn who_waits_behind_a_long_upload_waits_for_its_end() {
    let server = Ftpd::with(Quirks {
        limit: Some(Limit {
            sessions: 2,
            reply: "421 Too many users.".into(),
        }),
        rate: Some(1_000_000),
        ..Quirks::default()
    });
    let Some(mount) = mounting(&server).option("timeout=5s").start() else {
        return;
    };
    let (long, short) = (vec![7; 36_000_000], bytes(1000));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::create(mount.path("long")).unwrap();
            file.write_all(&long).unwrap();
            file.sync_all().unwrap();
        });
        while server.count("STOR") == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        // Its own limit is half a minute.
        let mut file = fs::File::create(mount.path("short")).unwrap();
        file.write_all(&short).unwrap();
        file.sync_all().unwrap();
    });
    assert_eq!(server.get("short"), short);
    assert_eq!(server.get("long").len(), long.len());
    mount.finish();
}
