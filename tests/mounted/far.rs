//! A server far away, where a round trip is what things cost: which are saved, and who gives way on
//! a link that has enough to carry.

use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use super::ranges::{MB, status};
use super::{bytes, mounting};
use crate::support::far::Far;
use crate::support::ftpd::{Command, Completion, Early, Ftpd, Limit, Quirks};
use crate::support::mount::TestMount;

/// In milliseconds.
const ROUND_TRIP: u32 = 40;

/// A mount of `server` at this end of the link.
fn mount_over(far: &Far, server: &Ftpd) -> Option<TestMount> {
    far.at_client(|| mounting(server).option("timeout=10s").start())
}

/// A link, a server at its far end that has one file in a directory, and a mount of it.
fn one_file(quirks: Quirks) -> Option<(Far, Ftpd, TestMount)> {
    let far = Far::link(ROUND_TRIP, 0)?;
    let server = far.server(quirks);
    server.put("dir/file", "content");
    let mount = mount_over(&far, &server)?;
    Some((far, server, mount))
}

/// What the server was told in `session`, and when.
fn told(server: &Ftpd, session: usize) -> Vec<Command> {
    let log = server.log().into_iter();
    log.filter(|command| command.session == session).collect()
}

/// Waits until the server has been told something like it in `session`.
fn until_told(server: &Ftpd, session: usize, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !told(server, session).iter().any(|it| it.line == what) {
        assert!(Instant::now() < deadline, "{:?}", server.commands());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_first_listing_costs_one_round_trip() {
    let Some((_far, server, mount)) = one_file(Quirks::default().without(&["STAT"])) else {
        return;
    };
    // Asked for with the login, and answered before anybody asks for a listing.
    until_told(&server, 0, "EPSV");
    server.clear_log();
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 1);
    let listed = told(&server, 0);
    assert!(listed[0].line.starts_with("MLSD"), "{listed:?}");
    mount.finish();
}

/// What the first look at a server asks is on its way before the listing has ended, and with it the
/// data connection of the file that is read next.
#[test]
fn the_first_file_is_read_on_a_connection_that_is_there_already() {
    let Some(far) = Far::link(ROUND_TRIP, 0) else {
        return;
    };
    let mut quirks = Quirks::like_vsftpd();
    quirks.completion = Completion::Asked(Duration::from_secs(5));
    let server = far.server(quirks);
    server.put("file", "content");
    let Some(mount) = mount_over(&far, &server) else {
        return;
    };
    until_told(&server, 0, "EPSV");
    server.clear_log();
    fs::metadata(mount.path("file")).unwrap();
    assert_eq!(server.asked_early(), 1, "{:?}", server.commands());
    until_told(&server, 0, "EPSV");
    let first: Vec<_> = told(&server, 0)
        .iter()
        .map(|it| it.line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(first, ["LIST", "STAT", "MDTM", "EPSV"]);
    server.clear_log();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"content");
    let then = server.log();
    assert!(then[0].line.starts_with("RETR"), "{then:?}");
    mount.finish();
}

#[test]
fn who_begins_to_use_a_mount_far_away_has_a_second_session() {
    let Some((_far, server, mount)) = one_file(Quirks::default()) else {
        return;
    };
    fs::read_dir(mount.path("dir")).unwrap().for_each(drop);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !status(&mount).contains("\"idle\":2") {
        assert!(Instant::now() < deadline, "{}", status(&mount));
        thread::sleep(Duration::from_millis(5));
    }
    server.clear_log();
    assert_eq!(fs::read(mount.path("dir/file")).unwrap(), b"content");
    assert_eq!(server.count("USER"), 0, "{:?}", server.commands());
    assert_eq!(server.count("RETR"), 1, "{:?}", server.commands());
    assert_eq!(server.sessions_opened(), 2);
    mount.finish();
}

#[test]
fn a_server_nearby_is_not_asked_for_what_may_not_be_needed() {
    let server = Ftpd::with(Quirks::default().without(&["STAT"]));
    server.put("dir/file", "content");
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    assert_eq!(server.count("EPSV"), 0, "{:?}", server.commands());
    fs::read_dir(mount.path("dir")).unwrap().for_each(drop);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.sessions_opened(), 1);
    mount.finish();
}

#[test]
fn on_a_link_that_is_full_one_stream_goes_on() {
    // As long as one download carries all that the link does, others would only take from it. What
    // helps on links that are not full is in `ranges.rs`. So slow that it is the link which holds
    // the download up, and no busy machine.
    let Some(far) = Far::link(20, 50) else {
        return;
    };
    let server = far.server(Quirks::default());
    let file = server.put("big", bytes(MB).repeat(96));
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(86_400);
    let opened = File::options().write(true).open(file).unwrap();
    opened.set_modified(long_ago).unwrap();
    let Some(mount) = mount_over(&far, &server) else {
        return;
    };
    // Long enough for others to be tried and to be judged.
    let mut got = vec![0; 36 * MB];
    let mut file = File::open(mount.path("big")).unwrap();
    file.read_exact(&mut got).unwrap();
    assert!(got == bytes(MB).repeat(36));
    let downloads = server.count("RETR");
    assert!(downloads <= 2, "{downloads} downloads");
    drop(file);
    mount.finish();
}

#[test]
fn what_the_root_is_comes_with_the_login() {
    let Some((_far, server, mount)) = one_file(Quirks::default()) else {
        return;
    };
    assert!(fs::metadata(mount.root()).unwrap().is_dir());
    let roots = server.log().into_iter();
    let roots = roots
        .filter(|command| command.line.starts_with("MLST "))
        .count();
    assert_eq!(roots, 1, "{:?}", server.commands());
    mount.finish();
}

/// Most sessions during a walk through 60 directories of 40 files each.
fn walk(quirks: Quirks, option: &str) -> Option<usize> {
    let far = Far::link(ROUND_TRIP, 0)?;
    let server = far.server(quirks.without(&["STAT"]));
    for dir in 0..60 {
        for file in 0..40 {
            server.put(format!("d{dir:02}/f{file:02}"), "content");
        }
    }
    let mount = far.at_client(|| {
        let mount = mounting(&server).option("timeout=10s").option(option);
        mount.expect_log("").start()
    })?;
    assert_eq!(mount.sh("find . -type f -size 1 | wc -l"), "2400\n");
    assert!(server.count("MLSD") <= 61 + 2, "{}", server.count("MLSD"));
    let peak = server.sessions_peak();
    mount.finish();
    Some(peak)
}

#[test]
fn a_tree_far_away_is_walked_by_many_connections() {
    let Some(peak) = walk(Quirks::default(), "prefetch=on") else {
        return;
    };
    assert!((10..=32).contains(&peak), "{peak} connections");
}

#[test]
fn a_tree_far_away_is_walked_by_as_many_connections_as_there_may_be() {
    let Some(peak) = walk(Quirks::default(), "connections=4") else {
        return;
    };
    assert!(peak <= 4, "{peak} connections");
    let limit = Limit {
        sessions: 10,
        reply: "421 Too many connections.".into(),
    };
    let limited = Quirks {
        limit: Some(limit),
        ..Quirks::default()
    };
    assert!(walk(limited, "prefetch=on").is_some_and(|peak| peak <= 10));
}

#[test]
fn those_that_walk_connect_while_the_first_login_at_once_is_tried() {
    let Some(far) = Far::link(ROUND_TRIP, 0) else {
        return;
    };
    let slow = Quirks::default().delay("PASS", Duration::from_secs(2));
    let server = far.server(slow.without(&["STAT"]));
    for dir in 0..60 {
        server.put(format!("d{dir:02}/file"), "content");
    }
    let Some(mount) = mount_over(&far, &server) else {
        return;
    };
    thread::scope(|scope| {
        let found = scope.spawn(|| mount.sh("find . -type f | wc -l"));
        while server.count("USER") < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        // That is answered two seconds later.
        let deadline = Instant::now() + Duration::from_secs(1);
        while server.sessions_opened() < 10 {
            let opened = server.sessions_opened();
            assert!(Instant::now() < deadline, "{opened} connections");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(found.join().unwrap(), "60\n");
    });
    mount.finish();
}

/// Walks a tree of 40 directories of 40 files each on a server that does so with a command that came
/// with a listing. How many listings came so, and how many had their data connection closed early.
fn walk_together(early: Early, completion: Completion) -> Option<(usize, usize)> {
    let far = Far::link(ROUND_TRIP, 0)?;
    let quirks = Quirks {
        early,
        completion,
        ..Quirks::default()
    };
    let server = far.server(quirks.without(&["STAT"]));
    for dir in 0..40 {
        for file in 0..40 {
            server.put(format!("d{dir:02}/f{file:02}"), "content");
        }
    }
    let mount = far.at_client(|| {
        let mount = mounting(&server).option("timeout=10s");
        mount.expect_log("").start()
    })?;
    let found = mount.sh("find . -type f -size 1 | wc -l");
    assert_eq!(found, "1600\n", "{early:?}");
    let counts = (server.asked_early(), server.closed_early());
    mount.finish();
    Some(counts)
}

#[test]
fn of_many_listings_each_has_the_next_connection_asked_for_with_it() {
    let Some((asked, _)) = walk_together(Early::Waits, Completion::Normal) else {
        return;
    };
    assert!(asked > 15, "{asked} of 41");
}

#[test]
fn a_server_that_waits_for_us_to_close_does_not_wait() {
    let Some((asked, closed)) = walk_together(Early::Waits, Completion::Awaited) else {
        return;
    };
    assert!(asked > 10 && closed > 10, "{asked} and {closed} of 41");
}

#[test]
fn servers_that_cannot_take_two_commands_are_asked_so_once() {
    thread::scope(|scope| {
        for early in [
            Early::Refused,
            Early::Dropped,
            Early::BreaksOff,
            Early::BreaksOffWell,
            Early::HangsUp,
        ] {
            scope.spawn(move || {
                if let Some((asked, _)) = walk_together(early, Completion::Normal) {
                    assert!((1..=3).contains(&asked), "{early:?}: {asked} times");
                }
            });
        }
    });
}
