//! Connections that break, servers that refuse: never a short file, never a lost one.

use ferryfs::vfs::error::ErrorKind;

use super::*;
use crate::support::memory::Op;

const MB: usize = 1 << 20;

#[test]
fn a_retrieve_cut_anywhere_is_resumed() {
    let content = pattern(70);
    for at in 0..=70 {
        let mount = Mount::new();
        mount.server.put("a", content.clone());
        mount.faulty.short_reads(9);
        mount.faulty.cut(Op::Read, at, ErrorKind::Disconnected);
        let file = mount.open("a", READ);
        assert_eq!(file.read_all(16), content, "cut at {at}");
        assert_eq!(mount.server.in_use(), 0);
    }
}

#[test]
fn a_retrieve_that_ends_early_is_never_the_end_of_the_file() {
    let content = pattern(70);
    for agrees in [false, true] {
        for at in 0..70 {
            let mount = Mount::new();
            mount.server.put("a", content.clone());
            mount.faulty.end(at, agrees);
            let file = mount.open("a", READ);
            assert_eq!(file.read_all(16), content, "end at {at}");

            // Twice is an error, not a short file.
            mount.faulty.end(at, agrees);
            mount.faulty.end(0, agrees);
            let file = mount.open("a", READ);
            let read = file.try_read_all(16);
            assert!(read.is_err() || read.as_ref() == Ok(&content), "{read:?}");
        }
    }
}

#[test]
fn an_end_the_server_does_not_confirm_is_asked_for_again() {
    let mount = Mount::new();
    let content = pattern(3 * MB);
    for sizes in [true, false] {
        mount.server.tell_sizes(sizes);
        mount.server.put("a", content.clone());
        let file = mount.open("a", READ);
        mount.faulty.fail(Op::Finish, ErrorKind::Protocol);
        assert_eq!(file.read_all(MB), content);
        let file = mount.open("a", READ);
        mount.faulty.fail_always(Op::Finish, ErrorKind::Protocol);
        assert_eq!(kind(file.try_read_all(MB)), Some(ErrorKind::Protocol));
        mount.faulty.heal();
    }
}

#[test]
fn a_resumed_read_does_not_mix_versions() {
    let mount = Mount::new();
    mount.server.put("a", pattern(5 * MB));
    let file = mount.open("a", READ);
    // So little that nothing is read ahead.
    file.read(0, 1000);
    mount.server.put("a", vec![1; 5 * MB]);
    mount.faulty.fail(Op::Read, ErrorKind::Disconnected);
    assert_eq!(kind(file.try_read(MB as u64, MB)), Some(ErrorKind::Stale));
}

#[test]
fn a_file_longer_than_its_size_is_an_error() {
    let mount = Mount::new();
    mount.server.put("a", pattern(2 * MB));
    let file = mount.open("a", READ);
    mount.server.put_in_place("a", pattern(3 * MB));
    assert_eq!(kind(file.try_read_all(MB)), Some(ErrorKind::Stale));
}

#[test]
fn a_server_that_stays_away_is_told_and_later_forgiven() {
    let mount = Mount::new();
    mount.server.put("a", pattern(5 * MB));
    let file = mount.open("a", READ);
    for op in [Op::Read, Op::Retrieve] {
        mount.faulty.fail_always(op, ErrorKind::TimedOut);
        assert_eq!(kind(file.try_read(0, 100)), Some(ErrorKind::TimedOut));
        mount.faulty.heal();
    }
    assert_eq!(file.read_all(MB), pattern(5 * MB));
}

#[test]
fn a_store_cut_anywhere_is_made_again() {
    let content = pattern(70);
    for at in 0..=70 {
        let mount = Mount::new();
        mount.server.put("a", "old");
        mount.faulty.cut(Op::Write, at, ErrorKind::Disconnected);
        let file = mount.open("a", TRUNCATE);
        file.write(0, &content);
        file.commit();
        assert_eq!(mount.server.get("a"), Some(content.clone()), "cut at {at}");
        assert_eq!(mount.server.in_use(), 0);
    }
}

#[test]
fn a_store_that_breaks_again_and_again_leaves_the_old_version() {
    let content = pattern(70);
    for at in 0..70 {
        let mount = Mount::new();
        mount.server.put("a", "old");
        for _ in 0..3 {
            mount.faulty.cut(Op::Write, at, ErrorKind::Disconnected);
        }
        let file = mount.open("a", TRUNCATE);
        file.write(0, &content);
        assert_eq!(kind(file.try_commit()), Some(ErrorKind::Disconnected));
        assert!(file.file.is_dirty());
        assert_eq!(mount.server.get("a").as_deref(), Some(&b"old"[..]));
        assert_eq!(file.read_all(16), content);
        file.commit();
        assert_eq!(mount.server.get("a"), Some(content.clone()));
    }
}

#[test]
fn an_append_cut_anywhere_ends_with_the_whole_file() {
    for at in 0..=20 {
        for again in [false, true] {
            let mount = Mount::new();
            let mut content = pattern(50);
            mount.server.put("a", content.clone());
            let file = mount.open("a", WRITE);
            file.write(50, &[9; 20]);
            content.extend([9; 20]);
            mount.faulty.cut(Op::Write, at, ErrorKind::Disconnected);
            if again {
                mount.faulty.fail(Op::StatNow, ErrorKind::TimedOut);
                // 20 bytes are never cut at 20: the append is done before.
                assert_eq!(file.try_commit().is_err(), at < 20, "cut at {at}");
            }
            mount.faulty.heal();
            file.commit();
            assert_eq!(mount.server.get("a"), Some(content.clone()), "cut at {at}");
            assert_eq!(file.read_all(16), content);
        }
    }
}

#[test]
fn what_a_broken_append_left_is_no_conflict() {
    let mount = Mount::new();
    mount.server.put("a", "0123456789");
    let file = mount.open("a", WRITE);
    file.write(10, b"tail");
    mount.faulty.cut(Op::Write, 2, ErrorKind::Disconnected);
    file.commit();
    let content = b"0123456789tail".to_vec();
    assert_eq!(mount.server.get("a"), Some(content));
    assert_eq!(mount.server.paths(), [path("a")]);
}

#[test]
fn a_file_that_is_cut_while_it_is_sent_is_sent_again() {
    for written_behind in [false, true] {
        let mount = Mount::new();
        mount.server.put("a", "old");
        let file = match written_behind {
            true => mount.open("a", TRUNCATE),
            false => mount.open("a", WRITE),
        };
        mount.faulty.delay(Op::Write, Duration::from_millis(100));
        file.write(0, &pattern(8 * MB));
        std::thread::scope(|scope| {
            let committing = scope.spawn(|| file.try_commit());
            std::thread::sleep(Duration::from_millis(150));
            file.set_len(10);
            committing.join().unwrap().unwrap();
        });
        file.commit();
        assert_eq!(mount.server.get("a"), Some(pattern(10)));
    }
}

#[test]
fn what_was_sent_below_a_directory_that_was_renamed_is_sent_again() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, &pattern(MB));
    mount.faulty.fail(Op::Publish, ErrorKind::NotFound);
    file.commit();
    assert_eq!(mount.server.get("a"), Some(pattern(MB)));
}

#[test]
fn an_append_whose_answer_is_lost_is_not_made_twice() {
    let mount = Mount::new();
    mount.server.put("a", "0123456789");
    let file = mount.open("a", WRITE);
    file.write(10, b"tail");
    mount
        .faulty
        .fail(Op::PublishAnswer, ErrorKind::Disconnected);
    file.commit();
    assert_eq!(
        mount.server.get("a").as_deref(),
        Some(&b"0123456789tail"[..])
    );
    assert_eq!(mount.server.traffic().appends, 1);
}

#[test]
fn after_a_broken_append_the_file_is_still_read_and_committed() {
    for sizes in [true, false] {
        let mount = Mount::new();
        let mut content = pattern(2 * MB);
        mount.server.put("a", content.clone());
        let file = mount.open("a", WRITE);
        if !sizes {
            file.set_len(content.len() as u64 - 1);
            content.pop();
            file.commit();
            mount.server.tell_sizes(false);
        }
        file.write(content.len() as u64, b"tail");
        content.extend(b"tail");
        mount.faulty.fail(Op::Publish, ErrorKind::NoSpace);
        assert_eq!(kind(file.try_commit()), Some(ErrorKind::NoSpace));
        // The server's file has grown, by our own doing.
        assert_eq!(file.read_all(MB), content);
        file.commit();
        assert_eq!(mount.server.get("a"), Some(content));
    }
}

#[test]
fn a_failed_commit_keeps_the_old_version_and_the_new_content() {
    for op in [Op::Store, Op::Write, Op::Publish] {
        let mount = Mount::new();
        let old = pattern(3 * MB);
        mount.server.put("a", old.clone());
        let file = mount.open("a", WRITE);
        file.write(MB as u64, b"CHANGED");
        for error in [ErrorKind::NoSpace, ErrorKind::Disconnected] {
            mount.faulty.fail_always(op, error);
            assert_eq!(kind(file.try_commit()), Some(error), "{op:?}");
            assert!(file.file.is_dirty());
            assert!(mount.server.get("a").as_ref() == Some(&old));
            mount.faulty.heal();
        }
        assert_eq!(file.read(MB as u64, 7), b"CHANGED");
        file.commit();
        assert_eq!(mount.server.get("a").unwrap()[MB..MB + 7], *b"CHANGED");
    }
}

#[test]
fn a_full_server_is_told_to_the_writer() {
    let mount = Mount::new();
    mount.faulty.fail(Op::Write, ErrorKind::NoSpace);
    let file = mount.open("a", CREATE);
    let piece = pattern(256 << 10);
    let mut at = 0;
    let told = loop {
        if let Err(err) = file.try_write(at, &piece) {
            break err;
        }
        at += piece.len() as u64;
        assert!(at < 1 << 30, "never told");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(told.kind(), ErrorKind::NoSpace);
    assert_eq!(kind(file.try_commit()), Some(ErrorKind::NoSpace));
    assert!(file.file.is_dirty());
    // Told twice, then tried again.
    file.commit();
    assert_eq!(mount.server.get("a").unwrap().len() as u64, at);
}

#[test]
fn trouble_of_the_upload_behind_the_writer_is_not_told() {
    let mount = Mount::new();
    mount
        .faulty
        .cut(Op::Write, 300_000, ErrorKind::Disconnected);
    let file = mount.open("a", CREATE);
    let content = pattern(2 * MB);
    for (i, piece) in content.chunks(100_000).enumerate() {
        file.write(i as u64 * 100_000, piece);
    }
    mount.until("cut", || mount.faulty.struck() == 1);
    file.commit();
    assert_eq!(mount.server.get("a"), Some(content));
}

#[test]
fn what_cannot_be_uploaded_at_the_end_is_kept() {
    let mount = Mount::new();
    let file = mount.open("dir-less", CREATE);
    file.write(0, b"precious");
    mount
        .faulty
        .fail_always(Op::Publish, ErrorKind::QuotaExceeded);
    assert_eq!(kind(file.close()), Some(ErrorKind::QuotaExceeded));
    let kept = mount.state("lost+found");
    assert_eq!(kept.len(), 1);
    assert!(kept[0].starts_with("dir-less-"));
    let kept = mount.state.path().join("lost+found").join(&kept[0]);
    assert_eq!(std::fs::read(kept).unwrap(), b"precious");
    drop(file);
    assert!(mount.state("staging").is_empty());
    assert_eq!(mount.state("lost+found").len(), 1);
}

#[test]
fn what_was_never_closed_is_kept() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, b"precious");
    drop(file);
    assert_eq!(mount.state("lost+found").len(), 1);
    assert_eq!(mount.server.in_use(), 0);
}
