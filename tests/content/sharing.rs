//! Several handles, renames, removals and concurrent commits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferryfs::vfs::backend::Replaces;
use ferryfs::vfs::error::ErrorKind;

use super::*;
use crate::support::memory::Op;

const MB: usize = 1 << 20;

#[test]
fn what_one_handle_wrote_another_reads_at_once() {
    let mount = Mount::new();
    mount.server.put("a", pattern(2 * MB));
    let reader = mount.open("a", READ);
    assert_eq!(reader.read(10, 5), pattern(15)[10..]);
    let how = OpenHow {
        read: false,
        ..WRITE
    };
    reader.file.reopen(&path("a"), None, how).unwrap();
    let writer = reader.clone();
    writer.write(10, b"HELLO");
    assert_eq!(
        reader.read(8, 9),
        [&pattern(10)[8..], b"HELLO", &pattern(17)[15..]].concat()
    );
    writer.file.reopen(&path("a"), None, TRUNCATE).unwrap();
    assert_eq!(reader.read(0, 100), b"");
    assert_eq!(mount.server.get("a"), Some(pattern(2 * MB)));
    writer.write(0, b"new");
    writer.commit();
    assert_eq!(mount.server.get("a").as_deref(), Some(&b"new"[..]));
}

#[test]
fn what_is_dirty_here_wins_over_what_another_put_there() {
    let mount = Mount::new();
    mount.server.put("a", "old");
    let file = mount.open("a", WRITE);
    file.write(0, b"OURS");
    mount.server.put("a", "a new version of theirs");
    let theirs = mount.server.peek("a");
    file.file.reopen(&path("a"), theirs.as_ref(), READ).unwrap();
    assert_eq!(file.read(0, 100), b"OURS");
}

#[test]
fn an_overwrite_of_a_file_that_changed_meanwhile_is_stale() {
    let mount = Mount::new();
    mount.server.put("a", pattern(8 * MB));
    let file = mount.open("a", WRITE);
    file.read(0, 100);
    file.write(10, b"OURS");
    let theirs = vec![1; 100];
    mount.server.put_in_place("a", theirs.clone());
    assert_eq!(kind(file.try_commit()), Some(ErrorKind::Stale));
    assert!(file.file.is_dirty());
    assert_eq!(
        mount.server.get("a"),
        Some(theirs),
        "never a mix of old and new"
    );
}

#[test]
fn a_renamed_file_is_committed_where_it_is_now() {
    let mount = Mount::new();
    let mut file = mount.open("a", CREATE);
    file.write(0, b"content");
    file.commit();
    file.write(7, b" and more");
    mount
        .backend
        .rename(&path("a"), &path("b"), Replaces::Anything)
        .unwrap();
    file.name = "b".into();
    file.commit();
    assert_eq!(
        mount.server.get("b").as_deref(),
        Some(&b"content and more"[..])
    );
    assert_eq!(mount.server.get("a"), None);
}

#[test]
fn who_looked_under_the_old_name_leaves_a_renamed_file_to_its_readers() {
    let mount = Mount::new();
    let content = pattern(9 * MB);
    mount.server.put("a", content.clone());
    let mut file = mount.open("a", READ);
    file.read(0, 10);
    mount
        .backend
        .rename(&path("a"), &path("b"), Replaces::Anything)
        .unwrap();
    for other in [None, Some("another")] {
        if let Some(other) = other {
            mount.server.put("a", other);
        }
        // Somebody whose read was on its way.
        file.name = "a".into();
        let read = file.try_read(6 * MB as u64, 10);
        assert!(other.is_some() || kind(read) == Some(ErrorKind::Stale));
        file.name = "b".into();
        let known = mount.server.peek("b");
        let reopened = file.file.reopen(&path("b"), known.as_ref(), READ);
        assert_eq!(kind(reopened), None);
        assert_eq!(file.read_all(MB), content);
    }
}

#[test]
fn a_removed_file_stays_readable_and_is_never_uploaded() {
    let mount = Mount::new();
    let mut content = pattern(5 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", WRITE);
    file.read(0, 100);
    file.write(50, b"WRITTEN");
    content[50..57].copy_from_slice(b"WRITTEN");
    assert!(
        file.file.detach(&path("a")).unwrap(),
        "it must be removed there"
    );
    mount.server.remove("a");
    assert_eq!(file.read_all(MB), content);
    file.write(0, b"still");
    file.set_len(1000);
    assert_eq!(file.read(0, 5), b"still");
    assert!(!file.file.is_dirty());
    file.try_commit().unwrap();
    file.file.close(None).unwrap();
    drop(file);
    assert_eq!(mount.server.paths(), []);
    assert_eq!(mount.server.in_use(), 0);
    assert!(mount.state("staging").is_empty());
    assert!(mount.state("lost+found").is_empty());
}

#[test]
fn a_file_removed_before_its_first_commit_was_never_there() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, &pattern(MB));
    assert!(!file.file.detach(&path("a")).unwrap());
    // The pump lets go of it when it is done sending.
    mount.until("connection", || mount.server.in_use() == 0);
    assert_eq!(file.read(0, MB), pattern(MB));
    file.file.close(None).unwrap();
    assert_eq!(mount.server.paths(), []);
}

#[test]
fn a_file_that_is_only_written_is_not_fetched_for_its_removal() {
    let mount = Mount::new();
    mount.server.put("log", pattern(5 * MB));
    let how = OpenHow {
        read: false,
        ..WRITE
    };
    let file = mount.open("log", how);
    file.write(5 * MB as u64, b"line");
    assert!(file.file.detach(&path("log")).unwrap());
    assert_eq!(mount.server.traffic().sent, 0);
    assert_eq!(kind(file.try_read(0, 10)), Some(ErrorKind::Stale));
}

#[test]
fn what_has_no_name_any_more_by_nobodys_wish_is_kept() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, b"content");
    file.file.close(None).unwrap();
    let kept = mount.state("lost+found");
    assert!(kept.iter().any(|name| name.starts_with("a-")), "{kept:?}");
}

#[test]
fn an_open_that_nobody_was_told_of_leaves_the_old_version() {
    let mount = Mount::new();
    mount.server.put("a", "old");
    for how in [TRUNCATE, CREATE] {
        let name = if how == CREATE { "new" } else { "a" };
        let file = mount.open(name, how);
        file.file.discard();
        assert!(!file.file.is_dirty());
        file.file.close(Some(&path(name))).unwrap();
    }
    assert_eq!(mount.server.get("a").as_deref(), Some(&b"old"[..]));
    assert_eq!(mount.server.paths(), [path("a")]);
    assert_eq!(mount.server.in_use(), 0);
    assert!(mount.state("staging").is_empty() && mount.state("lost+found").is_empty());
}

#[test]
fn a_detach_that_cannot_fetch_fails_and_loses_nothing() {
    let mount = Mount::new();
    mount.server.put("a", pattern(5 * MB));
    let file = mount.open("a", READ);
    mount.faulty.fail_always(Op::Read, ErrorKind::Disconnected);
    assert_eq!(
        kind(file.file.detach(&path("a"))),
        Some(ErrorKind::Disconnected)
    );
    mount.faulty.heal();
    assert_eq!(file.read_all(MB), pattern(5 * MB));
}

#[test]
fn writers_go_on_during_a_commit_and_the_file_stays_dirty() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, &pattern(1000));
    mount.faulty.delay(Op::Publish, Duration::from_secs(1));
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| file.try_commit());
        std::thread::sleep(Duration::from_millis(100));
        let began = std::time::Instant::now();
        file.write(1000, b"during");
        assert_eq!(
            file.read(998, 100),
            [&pattern(1000)[998..], b"during"].concat()
        );
        assert!(began.elapsed() < Duration::from_millis(500), "it waited");
        committing.join().unwrap().unwrap();
    });
    assert_eq!(mount.server.get("a"), Some(pattern(1000)));
    assert!(file.file.is_dirty());
    file.commit();
    assert_eq!(
        mount.server.get("a").unwrap(),
        [&pattern(1000)[..], b"during"].concat()
    );
    let traffic = mount.server.traffic();
    assert_eq!((traffic.appends, traffic.received), (1, 1006));
}

#[test]
fn many_writers_readers_and_commits_end_with_the_same_content() {
    let mount = Mount::new();
    let block = 10_000_u64;
    mount.server.put("a", vec![0; 40 * block as usize]);
    let file = mount.open("a", WRITE);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (file, done) = (&file, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                file.try_commit().unwrap();
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for at in 0..40 {
                    let seen = file.read(at * block, block as usize);
                    assert!(seen.iter().all(|b| *b == 0 || u64::from(*b) == at % 4 + 1));
                }
            }
        });
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..40 {
                        let at = (round * 7 % 10) * 4 + writer;
                        file.write(at * block, &vec![writer as u8 + 1; block as usize]);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    file.commit();
    let expected: Vec<u8> = (0..40 * block).map(|i| (i / block % 4 + 1) as u8).collect();
    assert!(mount.server.get("a") == Some(expected));
}

#[test]
fn the_report_counts_what_is_dirty() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, &[1; 5000]);
    let report = mount.contents.report();
    assert_eq!((report.open_files, report.uploads), (1, 1));
    assert_eq!((report.dirty_files, report.dirty_bytes), (1, 5000));
    file.commit();
    let report = mount.contents.report();
    assert_eq!(
        (report.dirty_files, report.dirty_bytes, report.uploads),
        (0, 0, 0)
    );
}
