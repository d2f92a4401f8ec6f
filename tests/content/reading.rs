//! Files that are only read.

use std::time::{Duration, Instant};

use ferryfs::vfs::error::ErrorKind;

use super::*;
use crate::support::memory::Op;

const MB: usize = 1 << 20;

#[test]
fn a_small_file_is_fetched_whole_and_its_connection_given_back() {
    let mount = Mount::new();
    let content = pattern(100_000);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    assert_eq!(file.read(50_000, 1000), content[50_000..51_000]);
    assert_eq!(mount.server.in_use(), 0);
    assert_eq!(file.read_all(4096), content);
    let traffic = mount.server.traffic();
    assert_eq!((traffic.retrieves, traffic.sent), (1, 100_000));
    drop(file);
    mount.until("buffers given back", || {
        mount.contents.report().buffered == 0
    });
}

#[test]
fn a_sequential_reader_needs_one_download() {
    let mount = Mount::new();
    let content = pattern(9 * MB + 12_345);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    assert_eq!(file.read_all(128 << 10), content);
    let traffic = mount.server.traffic();
    assert_eq!((traffic.retrieves, traffic.sent), (1, content.len() as u64));
    assert_eq!(
        mount.server.in_use(),
        0,
        "the end gives the connection back"
    );
    assert_eq!(file.read(content.len() as u64, 10), b"");
    assert_eq!(file.read(u64::MAX, 10), b"");
}

#[test]
fn an_empty_file_needs_no_command() {
    let mount = Mount::new();
    mount.server.put("a", "");
    let file = mount.open("a", READ);
    assert_eq!(file.read(0, 100), b"");
    assert_eq!(mount.server.traffic().retrieves, 0);
}

#[test]
fn requests_out_of_order_are_read_through_and_served_from_the_window() {
    let mount = Mount::new();
    let content = pattern(8 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    let step = 128 << 10;
    for pair in (0..content.len() / step).collect::<Vec<_>>().chunks(4) {
        for block in pair.iter().rev() {
            let at = block * step;
            assert_eq!(file.read(at as u64, step), content[at..at + step]);
        }
    }
    assert_eq!(mount.server.traffic().retrieves, 1);
}

#[test]
fn jumps_open_a_few_streams_at_most_and_are_right() {
    let mount = Mount::new();
    let content = pattern(40 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    let mut at = 7_usize;
    for _ in 0..200 {
        at = (at * 1_103_515_245 + 12_345) % (content.len() - 4096);
        assert_eq!(file.read(at as u64, 4096), content[at..at + 4096]);
        assert!(mount.server.in_use() <= 6);
    }
    // What a jump fetched is kept: the neighbourhood costs nothing.
    let before = mount.server.traffic().sent;
    for near in (at + 4096..(at + 128 * 1024).min(content.len() - 4096)).step_by(4096) {
        assert_eq!(file.read(near as u64, 4096), content[near..near + 4096]);
    }
    assert_eq!(mount.server.traffic().sent, before);
}

#[test]
fn memory_stays_within_the_budget_whatever_is_read() {
    let budget = 3 * MB;
    let mount = Mount::on(MemoryServer::new(), budget);
    let content = pattern(6 * MB);
    let files: Vec<_> = (0..12)
        .map(|i| {
            let name = format!("f{i}");
            mount.server.put(&name, content.clone());
            mount.open(&name, READ)
        })
        .collect();
    for at in (0..content.len()).step_by(256 << 10) {
        for file in &files {
            assert_eq!(
                file.read(at as u64, 256 << 10),
                content[at..at + (256 << 10)]
            );
            let buffered = mount.contents.report().buffered;
            assert!(buffered <= budget as u64, "{buffered}");
        }
    }
}

#[test]
fn without_any_budget_reads_are_slow_and_right() {
    let mount = Mount::on(MemoryServer::new(), 0);
    let content = pattern(3 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    assert_eq!(file.read_all(100_000), content);
    assert_eq!(file.read(MB as u64, 10), content[MB..MB + 10]);
    assert_eq!(file.read(5, 10), content[5..15]);
}

#[test]
fn a_file_of_unknown_size_ends_where_the_server_says() {
    let mount = Mount::new();
    mount.server.tell_sizes(false);
    for len in [0, 1, 5000, 3 * MB] {
        let content = pattern(len);
        mount.server.put("a", content.clone());
        let file = mount.open("a", READ);
        assert_eq!(file.size(), None);
        assert_eq!(file.read_all(128 << 10), content);
        assert_eq!(mount.server.in_use(), 0);
    }
}

#[test]
fn threads_share_streams_and_all_read_the_truth() {
    let mount = Mount::new();
    let content = pattern(12 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    std::thread::scope(|scope| {
        for reader in 0..6_usize {
            let (file, content) = (&file, &content);
            scope.spawn(move || {
                let step = (64 << 10) + reader * 7;
                let mut at = reader * 100_000;
                while at < content.len() {
                    let end = (at + step).min(content.len());
                    assert_eq!(file.read(at as u64, step), content[at..end]);
                    at = end;
                }
            });
        }
    });
}

#[test]
fn many_readers_on_one_connection_all_finish() {
    let mount = Mount::on(MemoryServer::with_connections(1), 64 << 20);
    let content = pattern(20 * MB);
    let files: Vec<_> = (0..6)
        .map(|i| {
            let name = format!("f{i}");
            mount.server.put(&name, content.clone());
            mount.open(&name, READ)
        })
        .collect();
    std::thread::scope(|scope| {
        for file in &files {
            let content = &content;
            scope.spawn(move || assert!(file.read_all(MB) == *content));
        }
    });
    assert_eq!(mount.server.peak(), 1);
}

#[test]
fn an_idle_stream_gives_its_connection_to_who_needs_it() {
    let mount = Mount::on(MemoryServer::with_connections(1), 64 << 20);
    mount.server.put("big", pattern(4 * MB));
    mount.server.put("other", "content");
    let big = mount.open("big", READ);
    big.read(0, 1000);
    assert_eq!(mount.contents.report().streams, 1);
    let began = Instant::now();
    assert_eq!(mount.open("other", READ).read(0, 100), b"content");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(big.read_all(MB), pattern(4 * MB));
}

#[test]
fn a_forgotten_stream_hangs_up() {
    let mount = Mount::new();
    mount.server.put("a", pattern(4 * MB));
    let file = mount.open("a", READ);
    file.read(0, 1000);
    assert_eq!(mount.server.in_use(), 1);
    mount
        .contents
        .sweep(Instant::now() + Duration::from_secs(5));
    assert_eq!(mount.server.in_use(), 1);
    mount
        .contents
        .sweep(Instant::now() + Duration::from_secs(11));
    assert_eq!(mount.server.in_use(), 0);
    assert_eq!(file.read(1000, 10), pattern(1010)[1000..]);
}

#[test]
fn close_and_drop_leave_no_connection_behind() {
    let mount = Mount::new();
    mount.server.put("a", pattern(4 * MB));
    let file = mount.open("a", READ);
    file.read(0, 1000);
    file.close().unwrap();
    assert_eq!(mount.server.in_use(), 0);
    drop(file);
    let file = mount.open("a", READ);
    file.read(0, 1000);
    drop(file);
    mount.until("hang up", || mount.server.in_use() == 0);
    assert_eq!(mount.contents.report().open_files, 0);
}

#[test]
fn a_file_changed_by_another_is_stale_never_a_mix() {
    let mount = Mount::new();
    let (old, new) = (pattern(4 * MB), vec![7; 4 * MB]);
    mount.server.put("a", old.clone());
    let file = mount.open("a", READ);
    assert_eq!(file.read(0, 1000), old[..1000]);
    // In place and shorter: the open download ends too early.
    mount.server.put_in_place("a", new[..3 * MB].to_vec());
    let mut seen = Vec::new();
    let end = loop {
        match file.try_read(2 * MB as u64 + seen.len() as u64, 256 << 10) {
            Ok(piece) => seen.extend(piece),
            Err(err) => break err,
        }
    };
    assert_eq!(end.kind(), ErrorKind::Stale);
    // It stays so for him: who opens the new version opens another file.
    assert_eq!(kind(file.try_read(0, 10)), Some(ErrorKind::Stale));
    let known = mount.server.peek("a");
    let reopened = file.file.reopen(&path("a"), known.as_ref(), READ);
    assert_eq!(kind(reopened), Some(ErrorKind::Stale));
    assert!(file.file.is_outdated());
    assert_eq!(kind(file.try_read(0, 10)), Some(ErrorKind::Stale));
    assert_eq!(mount.open("a", READ).read_all(MB), new[..3 * MB]);
}

/// No size tells, and the download goes on: who reads to the end learns of it there.
#[test]
fn a_file_written_to_in_place_during_a_long_read_is_stale_at_its_end() {
    let mount = Mount::new();
    let old = pattern(16 * MB);
    mount.server.put("a", old.clone());
    let file = mount.open("a", READ);
    assert_eq!(file.read(0, MB), old[..MB]);
    mount.server.put_in_place("a", vec![7; 16 * MB]);
    // A look at the server is good for five seconds.
    std::thread::sleep(Duration::from_millis(5100));
    let mut end = MB;
    let err = loop {
        match file.try_read(end as u64, 128 << 10) {
            Ok(piece) => end += piece.len(),
            Err(err) => break err,
        }
        assert!(end < 16 * MB, "the end was shown");
    };
    assert_eq!(err.kind(), ErrorKind::Stale);
    assert_eq!(kind(file.try_read(0, 10)), Some(ErrorKind::Stale));
}

#[test]
fn the_end_of_a_long_read_asks_once_whether_the_file_is_what_it_was() {
    let mount = Mount::new();
    let content = pattern(4 * MB);
    mount.server.put("a", content.clone());
    let file = mount.open("a", READ);
    assert_eq!(file.read(0, MB), content[..MB]);
    std::thread::sleep(Duration::from_millis(5100));
    assert_eq!(file.read_all(MB), content);
    mount
        .faulty
        .fail_always(Op::StatNow, ErrorKind::Disconnected);
    assert_eq!(file.read_all(MB), content);
}

#[test]
fn a_file_removed_by_another_is_stale() {
    let mount = Mount::new();
    mount.server.put("a", pattern(8 * MB));
    let file = mount.open("a", READ);
    file.read(0, 10);
    mount.server.remove("a");
    assert_eq!(
        kind(file.try_read(6 * MB as u64, 10)),
        Some(ErrorKind::Stale)
    );
}

#[test]
fn reopen_adopts_what_the_server_has_but_not_what_is_older() {
    let mount = Mount::new();
    mount.server.put("a", "first");
    let first = mount.server.peek("a").unwrap();
    let file = mount.open("a", READ);
    assert_eq!(file.read(0, 100), b"first");
    mount.server.put("a", "second version");
    let second = mount.server.peek("a").unwrap();
    file.file.reopen(&path("a"), Some(&second), READ).unwrap();
    assert_eq!(file.read(0, 100), b"second version");
    assert_eq!(file.size(), Some(14));
    // A caller who looked before our own commit knows less than we do.
    file.file.reopen(&path("a"), Some(&first), READ).unwrap();
    assert_eq!(file.read(0, 100), b"second version");
}
