//! Round trips that are saved: replies read behind the reader, listings and files fetched ahead.

use std::fs;
use std::time::{Duration, Instant};

use super::{bytes, stage};
use crate::support::ftpd::{Completion, Quirks};

#[test]
fn a_reader_does_not_wait_for_the_last_word() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    for name in ["a", "b", "c"] {
        server.put(
            format!("dir/{name}"),
            [name.as_bytes(), &bytes(5_000)].concat(),
        );
    }
    mount.sh("ls -l dir");
    server.change(|quirks| quirks.completion = Completion::Late(Duration::from_millis(600)));
    let began = Instant::now();
    assert_eq!(fs::read(mount.path("dir/a")).unwrap(), server.get("dir/a"));
    assert!(began.elapsed() < Duration::from_millis(500));
    // They share one connection: each waits for the end of the one before it.
    for name in ["b", "c"] {
        let path = format!("dir/{name}");
        assert_eq!(fs::read(mount.path(&path)).unwrap(), server.get(&path));
    }
    assert_eq!(server.sessions_opened(), 1);
    assert_eq!(server.count("RETR"), 3);
    mount.finish();
}

#[test]
fn a_server_that_ends_transfers_oddly_is_waited_for_from_then_on() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    for name in 0..6 {
        server.put(format!("dir/{name}"), bytes(5_000 + name));
    }
    mount.sh("ls -l dir");
    server.change(|quirks| quirks.completion = Completion::Twice);
    for name in 0..6 {
        let path = format!("dir/{name}");
        assert_eq!(fs::read(mount.path(&path)).unwrap(), server.get(&path));
    }
    server.change(|quirks| quirks.completion = Completion::Never);
    mount.sh("cat dir/0; ls dir >/dev/null");
    mount.finish();
}
