//! Files that are written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferryfs::vfs::attr::SetAttr;
use ferryfs::vfs::error::ErrorKind;

use super::*;
use crate::support::memory::Op;

const MB: usize = 1 << 20;

#[test]
fn a_new_file_appears_whole_at_the_commit_and_not_before() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    let content = pattern(3 * MB);
    for (i, piece) in content.chunks(128 << 10).enumerate() {
        file.write((i * (128 << 10)) as u64, piece);
    }
    assert_eq!(file.size(), Some(content.len() as u64));
    assert_eq!(mount.server.get("a"), None);
    file.commit();
    assert_eq!(mount.server.get("a"), Some(content.clone()));
    assert_eq!(mount.server.peek("a").unwrap().mode, Some(0o640));
    let traffic = mount.server.traffic();
    assert_eq!(
        (traffic.stores, traffic.received),
        (1, content.len() as u64)
    );
    // What is on the server is also still here.
    assert_eq!(file.read_all(MB), content);
    assert_eq!(mount.server.traffic().retrieves, 0);
    file.close().unwrap();
    assert!(mount.state("staging").is_empty());
}

#[test]
fn an_empty_file_is_created_by_close() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    assert!(file.file.is_dirty());
    file.close().unwrap();
    assert_eq!(mount.server.get("a"), Some(Vec::new()));
    assert_eq!(mount.server.traffic().stores, 1);
}

#[test]
fn the_upload_runs_behind_the_writer() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    let content = pattern(2 * MB);
    file.write(0, &content[..4096]);
    assert_eq!(mount.server.traffic().received, 0, "not worth a piece yet");
    for at in (4096..content.len()).step_by(4096) {
        file.write(at as u64, &content[at..at + 4096]);
    }
    let nearly = content.len() as u64 - (256 << 10);
    mount.until("upload", || mount.server.traffic().received >= nearly);
    assert_eq!(mount.server.get("a"), None);
    file.commit();
    assert_eq!(mount.server.traffic().received, content.len() as u64);
    assert_eq!(mount.server.get("a"), Some(content));
}

/// `dd` and every shell close the empty file once before they write to it.
#[test]
fn the_upload_runs_behind_the_writer_also_after_a_commit_of_nothing() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.commit();
    assert_eq!(mount.server.get("a"), Some(Vec::new()));
    let content = pattern(3 * MB);
    for at in (0..content.len()).step_by(65_536) {
        file.write(at as u64, &content[at..at + 65_536]);
    }
    let nearly = content.len() as u64 - (256 << 10);
    mount.until("upload", || mount.server.traffic().received >= nearly);
    assert_eq!(mount.server.get("a"), Some(Vec::new()));
    file.commit();
    assert_eq!(mount.server.traffic().received, content.len() as u64);
    assert_eq!(mount.server.get("a"), Some(content));
}

#[test]
fn a_change_of_what_was_sent_sends_all_again() {
    let mount = Mount::new();
    let change: [fn(&Handle, &mut Vec<u8>); 3] = [
        |file, content| {
            file.write(10, b"HEADER");
            content[10..16].copy_from_slice(b"HEADER");
        },
        |file, content| {
            file.set_len(100);
            content.truncate(100);
        },
        |file, content| {
            file.set_len(0);
            file.write(0, b"new");
            *content = b"new".to_vec();
        },
    ];
    for change in change {
        let file = mount.open(
            "a",
            if mount.server.get("a").is_some() {
                TRUNCATE
            } else {
                CREATE
            },
        );
        let mut content = pattern(MB);
        let before = mount.server.traffic().received;
        file.write(0, &content);
        mount.until("pump", || mount.server.traffic().received > before);
        change(&file, &mut content);
        file.commit();
        assert_eq!(mount.server.get("a"), Some(content));
        mount.until("hang up", || mount.server.in_use() == 0);
    }
}

#[test]
fn preallocation_does_not_stop_the_upload() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    let content = pattern(2 * MB);
    file.set_len(content.len() as u64);
    for (i, piece) in content.chunks(64 << 10).enumerate() {
        file.write((i * (64 << 10)) as u64, piece);
    }
    file.commit();
    let traffic = mount.server.traffic();
    assert_eq!(
        (traffic.stores, traffic.received),
        (1, content.len() as u64)
    );
    assert_eq!(mount.server.get("a"), Some(content));
}

#[test]
fn overwriting_a_range_keeps_the_rest() {
    let mount = Mount::new();
    for len in [100, 3 * MB] {
        let mut content = pattern(len);
        mount.server.put("a", content.clone());
        mount.server.chmod("a", 0o751);
        let file = mount.open("a", WRITE);
        let middle = len / 2;
        file.write(middle as u64, b"WRITTEN");
        content[middle..middle + 7].copy_from_slice(b"WRITTEN");
        assert_eq!(file.read_all(100_000), content);
        assert_eq!(
            mount.server.get("a").unwrap()[middle..middle + 7],
            pattern(len)[middle..middle + 7]
        );
        file.commit();
        assert_eq!(mount.server.get("a"), Some(content));
        assert_eq!(
            mount.server.peek("a").unwrap().mode,
            Some(0o751),
            "the old mode stays"
        );
    }
}

#[test]
fn an_append_sends_the_tail_only_again_and_again() {
    let mount = Mount::new();
    let mut content = pattern(2 * MB);
    mount.server.put("log", content.clone());
    let file = mount.open("log", WRITE);
    for line in 0..5_u8 {
        file.write(content.len() as u64, &[line; 50]);
        content.extend([line; 50]);
        file.commit();
        assert_eq!(mount.server.get("log").as_ref(), Some(&content));
    }
    let traffic = mount.server.traffic();
    assert_eq!(
        (traffic.appends, traffic.stores, traffic.received),
        (5, 0, 250)
    );
    assert_eq!(traffic.sent, 0);
    assert_eq!(file.read_all(100_000), content);
}

#[test]
fn what_was_written_whole_is_appended_to_later() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, &pattern(1000));
    file.commit();
    file.write(1000, b"tail");
    file.commit();
    let traffic = mount.server.traffic();
    assert_eq!(
        (traffic.stores, traffic.appends, traffic.received),
        (1, 1, 1004)
    );
    assert_eq!(mount.server.get("a").unwrap().len(), 1004);
}

#[test]
fn where_the_server_cannot_append_the_whole_file_is_sent() {
    let mount = Mount::new();
    mount.server.allow_append(false);
    let mut content = pattern(2 * MB);
    mount.server.put("log", content.clone());
    let file = mount.open("log", WRITE);
    file.write(content.len() as u64, b"tail");
    content.extend(b"tail");
    file.commit();
    assert_eq!(mount.server.get("log"), Some(content.clone()));
    let traffic = mount.server.traffic();
    assert_eq!(
        (traffic.stores, traffic.received),
        (1, content.len() as u64)
    );
}

#[test]
fn truncation_works_both_ways() {
    let mount = Mount::new();
    let mut content = pattern(2 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", WRITE);
    for len in [2 * MB - 10, 5, 0, 3000, 100] {
        file.set_len(len as u64);
        content.resize(len, 0);
        assert_eq!(file.read_all(100_000), content);
        assert_eq!(file.size(), Some(len as u64));
        file.commit();
        assert_eq!(mount.server.get("a").as_ref(), Some(&content), "at {len}");
    }
    // Only the growth at the end is zeros, and only that is sent.
    let before = mount.server.traffic().received;
    file.set_len(200);
    file.commit();
    assert_eq!(mount.server.traffic().received, before + 100);
}

#[test]
fn a_commit_without_a_change_does_nothing() {
    let mount = Mount::new();
    mount.server.put("a", "content");
    let file = mount.open("a", WRITE);
    let before = mount.server.traffic();
    file.commit();
    file.set_len(7);
    file.write(3, b"");
    file.commit();
    file.close().unwrap();
    assert_eq!(mount.server.traffic(), before);
}

#[test]
fn a_change_that_was_undone_sends_the_time_only_if_the_server_takes_one() {
    for takes in [true, false] {
        let mount = Mount::new();
        mount.server.put("a", "content");
        let file = mount.open("a", WRITE);
        file.set_len(100);
        file.set_len(7);
        if !takes {
            mount.faulty.fail(Op::SetAttr, ErrorKind::Unsupported);
        }
        file.commit();
        let traffic = mount.server.traffic();
        assert_eq!((traffic.stores, traffic.appends), (0, 0));
        assert_eq!(traffic.set_attrs, u64::from(takes));
        assert_eq!(file.read(0, 100), b"content");
    }
}

#[test]
fn a_refusal_is_told_by_open() {
    let mount = Mount::new();
    mount.faulty.fail(Op::Store, ErrorKind::PermissionDenied);
    assert_eq!(
        kind(mount.try_open("a", CREATE)),
        Some(ErrorKind::PermissionDenied)
    );
    mount.server.put("a", "old");
    mount.faulty.fail(Op::Store, ErrorKind::ReadOnly);
    assert_eq!(
        kind(mount.try_open("a", TRUNCATE)),
        Some(ErrorKind::ReadOnly)
    );
    assert_eq!(mount.server.get("a").as_deref(), Some(&b"old"[..]));
    assert!(mount.state("staging").is_empty());
    assert!(mount.state("lost+found").is_empty());
}

#[test]
fn without_a_free_connection_open_does_not_wait() {
    let mount = Mount::on(MemoryServer::with_connections(1), 64 << 20);
    let first = mount.open("a", CREATE);
    let second = mount.open("b", CREATE);
    second.write(0, b"second");
    first.write(0, b"first");
    second.commit();
    first.commit();
    assert_eq!(mount.server.get("a").as_deref(), Some(&b"first"[..]));
    assert_eq!(mount.server.get("b").as_deref(), Some(&b"second"[..]));
}

#[test]
fn times_and_mode_go_with_the_content_or_alone() {
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    file.write(0, b"x");
    let now = SystemTime::now();
    let written = file.file.attr().mtime.unwrap();
    assert!(written <= now && now < written + Duration::from_secs(5));
    let change = SetAttr {
        mtime: Some(at(1_000_000) + Duration::from_millis(700)),
        mode: Some(0o600),
    };
    file.file.set_attr(&path("a"), &change).unwrap();
    file.commit();
    let attr = mount.server.peek("a").unwrap();
    assert_eq!((attr.mtime, attr.mode), (Some(at(1_000_000)), Some(0o600)));
    assert_eq!(file.file.attr().mtime, Some(at(1_000_000)));
    assert_eq!(mount.server.traffic().set_attrs, 0);

    let change = SetAttr {
        mtime: Some(at(2_000_000)),
        mode: None,
    };
    file.file.set_attr(&path("a"), &change).unwrap();
    assert!(!file.file.is_dirty());
    assert_eq!(mount.server.peek("a").unwrap().mtime, Some(at(2_000_000)));
    // Our own change is not another's version.
    assert_eq!(file.read(0, 10), b"x");
    let reader = mount.open("a", READ);
    reader.file.set_attr(&path("a"), &change).unwrap();
    assert_eq!(reader.read(0, 10), b"x");
}

#[test]
fn a_file_of_unknown_size_can_be_written() {
    let mount = Mount::new();
    mount.server.tell_sizes(false);
    let mut content = pattern(2 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", WRITE);
    file.write(5, b"WRITTEN");
    content[5..12].copy_from_slice(b"WRITTEN");
    file.write(content.len() as u64, b"tail");
    content.extend(b"tail");
    assert_eq!(file.read_all(100_000), content);
    file.commit();
    assert_eq!(mount.server.get("a"), Some(content));
    let file = mount.open("a", TRUNCATE);
    file.write(0, b"short");
    file.commit();
    assert_eq!(mount.server.get("a").as_deref(), Some(&b"short"[..]));
}

#[test]
fn an_upload_whose_writer_pauses_is_given_up_and_made_again() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    let content = pattern(MB);
    file.write(0, &content);
    mount.until("pump", || {
        mount.server.traffic().received >= MB as u64 - (256 << 10)
    });
    mount
        .contents
        .sweep(std::time::Instant::now() + Duration::from_secs(21));
    mount.until("hang up", || mount.server.in_use() == 0);
    file.write(MB as u64, b"tail");
    file.commit();
    assert_eq!(
        mount.server.get("a").unwrap(),
        [&content[..], b"tail"].concat()
    );
}

#[test]
fn impossible_offsets_are_refused() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    assert_eq!(
        kind(file.try_write(u64::MAX - 1, b"xxxx")),
        Some(ErrorKind::TooLarge)
    );
    file.commit();
    assert_eq!(mount.server.get("a"), Some(Vec::new()));
}
