#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::vfs::attr::FileKind;

const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    age: None,
    memory: 1 << 20,
    fast: u64::MAX,
};

fn path(name: &str) -> RemotePath {
    RemotePath::parse(name.as_bytes()).unwrap()
}

/// A file of `size` bytes, changed long ago; how long is all that tells versions apart.
fn attr(size: u64, age: u64) -> Attr {
    Attr {
        size: Some(size),
        mtime: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000 - age)),
        mtime_exact: true,
        ..Attr::new(FileKind::File)
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn content(seed: u64, size: u64) -> Vec<u8> {
    (0..size)
        .map(|at| ((at / 7).wrapping_mul(seed + 3) >> 2) as u8)
        .collect()
}

fn read(cached: &Cached, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    let count = cached.read(offset, &mut buf);
    buf.truncate(count);
    buf
}

/// What a reader of a mount gets, and whether it was read ahead.
fn read_on(cached: &Cached, offset: u64, len: usize) -> (Vec<u8>, bool) {
    let ahead = cached.peek(offset, len);
    let ahead = ahead.or_else(|| cached.await_ahead(offset, len));
    match ahead {
        Some(chunk) => (chunk.as_slice().to_vec(), true),
        None => (read(cached, offset, len), false),
    }
}

/// Reads all there is from `offset` on in sequence: the bytes, and how many were read ahead.
fn read_all(cached: &Cached, offset: u64, step: usize) -> (Vec<u8>, usize) {
    let (mut all, mut ahead) = (Vec::new(), 0);
    loop {
        let (bytes, early) = read_on(cached, offset + all.len() as u64, step);
        if bytes.is_empty() {
            return (all, ahead);
        }
        if early {
            ahead += bytes.len();
        } else {
            // Time for the threads to begin.
            std::thread::sleep(Duration::from_millis(5));
        }
        all.extend(bytes);
    }
}

/// Bytes of files in `dir`.
fn taken(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(dir).unwrap().flatten();
    let blocks = files.filter_map(|file| file.metadata().ok());
    blocks.map(|data| data.blocks() * 512).sum()
}

fn fill(blocks: &Arc<Blocks>, name: &str, attr: &Attr, data: &[u8]) -> Arc<Cached> {
    let cached = blocks.version(&path(name), attr).unwrap();
    for (at, chunk) in (0..).zip(data.chunks(3 * BLOCK as usize)) {
        let chunk = Chunk::new(chunk.to_vec());
        assert!(cached.put_wait(at * 3 * BLOCK, chunk, Duration::from_secs(10)));
    }
    blocks.settle();
    cached
}

#[test]
fn what_was_put_is_read_now_and_by_the_next_mount() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("blocks");
    let (attr, data) = (attr(1_000_001, 100), content(1, 1_000_001));
    let blocks = Blocks::open(&dir, LIMITS);
    let cached = fill(&blocks, "a", &attr, &data);
    assert!(cached.is_complete() && cached.whole_file().is_some());
    assert!(read(&cached, 0, 2_000_000) == data);
    drop((cached, blocks));

    let blocks = Blocks::open(&dir, LIMITS);
    assert!(blocks.is_complete(&path("a"), &attr));
    let cached = blocks.version(&path("a"), &attr).unwrap();
    assert!(cached.whole_file().is_none(), "nobody has looked at it yet");
    assert!(read(&cached, 70_000, 100) == data[70_000..70_100]);
    assert!(read(&cached, 999_999, 100) == data[999_999..]);
    assert!(read(&cached, 0, 2_000_000) == data);
    assert!(cached.whole_file().is_some());
    assert_eq!(blocks.report().files, 1);
}

#[test]
fn another_version_is_another_content() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let (old, new) = (attr(100_000, 1000), attr(100_000, 900));
    let before = fill(&blocks, "a", &old, &content(1, 100_000));
    assert!(read(&before, 0, 10) == content(1, 10));
    let after = blocks.version(&path("a"), &new).unwrap();
    assert!(read(&after, 0, 10).is_empty());
    assert!(!before.put(0, Chunk::new(content(1, 65_536))), "it is gone");
    // Who has it open reads on: it is a version that was there.
    assert!(read(&before, 70_000, 10) == content(1, 70_010)[70_000..]);
    assert_eq!(blocks.report().bytes, 0);
}

#[test]
fn what_is_forgotten_is_not_found_again() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let attr = attr(100_000, 1000);
    let open = fill(&blocks, "a", &attr, &content(1, 100_000));
    blocks.forget(&path("a"));
    assert!(!blocks.is_complete(&path("a"), &attr));
    assert!(!open.put(0, Chunk::new(content(1, 65_536))));
    drop((open, blocks));
    let blocks = Blocks::open(temp.path(), LIMITS);
    assert!(!blocks.is_complete(&path("a"), &attr));
}

#[test]
fn what_is_in_a_renamed_directory_is_not_found_again() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let attr = attr(100_000, 1000);
    for name in ["site/index", "site/a/b", "siteb", "other/site"] {
        drop(fill(&blocks, name, &attr, &content(1, 100_000)));
    }
    drop(blocks);
    // By another mount than the one that read them.
    let blocks = Blocks::open(temp.path(), LIMITS);
    blocks.forget_below(&path("site"));
    let known = |name| blocks.is_complete(&path(name), &attr);
    assert!(!known("site/index") && !known("site/a/b"));
    assert!(known("siteb") && known("other/site"));
}

#[test]
fn a_time_stamp_that_may_hide_a_change_is_not_believed_for_long() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let fresh = Attr {
        mtime: Some(SystemTime::now()),
        ..attr(1000, 0)
    };
    let cached = blocks.version(&path("a"), &fresh).unwrap();
    assert!(
        !cached.put(0, Chunk::new(content(1, 1000))),
        "never on disk"
    );
    assert!(cached.put_whole(content(1, 1000)));
    assert!(blocks.is_complete(&path("a"), &fresh));
    std::thread::sleep(VOLATILE + Duration::from_millis(10));
    assert!(!blocks.is_complete(&path("a"), &fresh));
    assert_eq!(blocks.report().bytes, 0);

    let coarse = Attr {
        mtime_exact: false,
        mtime: Some(SystemTime::now() - Duration::from_secs(60)),
        ..attr(1000, 0)
    };
    assert!(!blocks.version(&path("b"), &coarse).unwrap().keeps());
    let future = Attr {
        mtime: Some(SystemTime::now() + Duration::from_secs(3600)),
        ..attr(1000, 0)
    };
    assert!(!blocks.version(&path("c"), &future).unwrap().keeps());
}

#[test]
fn the_minute_of_a_listing_is_the_second_of_mdtm_when_it_is_over() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let minute = (now() - 600) / 60 * 60;
    let at = |seconds: u64, exact: bool| Attr {
        mtime: Some(UNIX_EPOCH + Duration::from_secs(seconds)),
        mtime_exact: exact,
        ..attr(1000, 0)
    };
    fill(&blocks, "a", &at(minute + 7, true), &content(1, 1000));
    assert!(blocks.is_complete(&path("a"), &at(minute, false)));
    assert!(!blocks.is_complete(&path("a"), &at(minute + 8, true)));
    assert!(!blocks.is_complete(&path("a"), &at(minute + 60, false)));
}

#[test]
fn damage_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let (attr, data) = (attr(500_000, 100), content(5, 500_000));
    drop(fill(&Blocks::open(temp.path(), LIMITS), "a", &attr, &data));
    let file = temp.path().join(format!("{:012x}", 0));
    let damaged = fs::File::options().write(true).open(&file).unwrap();
    damaged.write_all_at(b"!", 2 * BLOCK + 5).unwrap();
    // What a power cut does to the end of a file.
    damaged.set_len(6 * BLOCK).unwrap();
    damaged.set_len(500_000).unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let cached = blocks.version(&path("a"), &attr).unwrap();
    assert!(read(&cached, 2 * BLOCK + 100, 50).is_empty());
    assert!(read(&cached, 0, 500_000) == data[..2 * BLOCK as usize]);
    assert!(read(&cached, 3 * BLOCK, 500_000) == data[3 * BLOCK as usize..6 * BLOCK as usize]);
    for block in 6..8 {
        assert!(read(&cached, block * BLOCK, 500_000).is_empty());
    }
    assert!(!cached.is_complete());
    // It mends.
    drop(fill(&blocks, "a", &attr, &data));
    assert!(read(&cached, 0, 500_000) == data);
    // A file that is too short.
    damaged.set_len(10).unwrap();
    drop((cached, blocks));
    let blocks = Blocks::open(temp.path(), LIMITS);
    let cached = blocks.version(&path("a"), &attr).unwrap();
    assert!(read(&cached, 0, 500_000).is_empty());
}

#[test]
fn a_sequential_reader_is_read_ahead_of() {
    const SIZE: u64 = 9_012_345;
    let temp = tempfile::tempdir().unwrap();
    let (attr, data) = (attr(SIZE, 100), content(7, SIZE));
    drop(fill(&Blocks::open(temp.path(), LIMITS), "a", &attr, &data));
    for step in [16_384, 100_000, 128 << 10, 1 << 20] {
        let blocks = Blocks::open(temp.path(), LIMITS);
        let cached = blocks.version(&path("a"), &attr).unwrap();
        // What an earlier mount wrote is compared first; then it is as before.
        for _ in 0..2 {
            let (all, ahead) = read_all(&cached, 0, step);
            assert!(all == data, "in steps of {step}");
            assert!(ahead > all.len() / 2, "{ahead} bytes in steps of {step}");
        }
        assert!(cached.whole_file().is_some());
        // Its memory does not outlive the reader.
        drop(cached);
        for _ in 0..500 {
            if blocks.readers_ahead.load(Ordering::Relaxed) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(blocks.readers_ahead.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn who_jumps_is_not_read_ahead_of() {
    const SIZE: u64 = 64 << 20;
    let temp = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 128 << 20,
        ..LIMITS
    };
    let blocks = Blocks::open(temp.path(), limits);
    let (attr, data) = (attr(SIZE, 100), content(8, SIZE));
    let cached = fill(&blocks, "a", &attr, &data);
    for n in [50, 7, 33, 12, 60, 1, 27, 40] {
        let (bytes, ahead) = read_on(&cached, n << 20, 512 << 10);
        let from = (n as usize) << 20;
        assert!(
            bytes == data[from..from + (512 << 10)] && !ahead,
            "at {n} MiB"
        );
    }
    assert_eq!(blocks.readers_ahead.load(Ordering::Relaxed), 0);
}

#[test]
fn reading_ahead_ends_at_what_is_not_there_or_not_good() {
    const SIZE: u64 = 6 << 20;
    let temp = tempfile::tempdir().unwrap();
    let (attr, data) = (attr(SIZE, 100), content(9, SIZE));
    let (hole, bad) = (40 * BLOCK, 70 * BLOCK);
    {
        let blocks = Blocks::open(temp.path(), LIMITS);
        let cached = blocks.version(&path("a"), &attr).unwrap();
        for range in [0..hole, hole + BLOCK..SIZE] {
            for at in range.step_by(BLOCK as usize) {
                let chunk = Chunk::new(data[at as usize..(at + BLOCK) as usize].to_vec());
                assert!(cached.put_wait(at, chunk, Duration::from_secs(10)));
            }
        }
        blocks.settle();
    }
    let file = temp.path().join(format!("{:012x}", 0));
    let file = fs::File::options().write(true).open(&file).unwrap();
    file.write_all_at(b"!", bad + 5).unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let cached = blocks.version(&path("a"), &attr).unwrap();
    let (all, _) = read_all(&cached, 0, 1 << 20);
    assert!(all == data[..hole as usize]);
    let (all, _) = read_all(&cached, hole + BLOCK, 1 << 20);
    assert!(all == data[(hole + BLOCK) as usize..bad as usize]);
    let (all, _) = read_all(&cached, bad + BLOCK, 1 << 20);
    assert!(all == data[(bad + BLOCK) as usize..]);
    assert!(!cached.is_complete());
}

#[test]
fn the_limit_holds_and_the_oldest_go() {
    let temp = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 4 << 20,
        ..LIMITS
    };
    let blocks = Blocks::open(temp.path(), limits);
    for n in 0..20 {
        drop(fill(
            &blocks,
            &n.to_string(),
            &attr(1 << 20, 100 + n),
            &content(n, 1 << 20),
        ));
        assert!(taken(temp.path()) <= limits.bytes);
        assert!(blocks.report().bytes <= limits.bytes);
        // One is used again and again.
        let first = blocks.version(&path("0"), &attr(1 << 20, 100)).unwrap();
        assert!(read(&first, 0, 10) == content(0, 10));
    }
    assert!(blocks.is_complete(&path("19"), &attr(1 << 20, 119)));
    assert!(!blocks.is_complete(&path("5"), &attr(1 << 20, 105)));
    // More than it may hold: a part of it.
    let large = fill(
        &blocks,
        "large",
        &attr(10 << 20, 100),
        &content(1, 10 << 20),
    );
    assert!(!large.is_complete());
    assert!(taken(temp.path()) <= limits.bytes);
    drop((large, blocks));
    let limits = Limits {
        bytes: 1 << 20,
        ..LIMITS
    };
    let blocks = Blocks::open(temp.path(), limits);
    assert!(taken(temp.path()) <= limits.bytes, "{:?}", blocks.report());
}

#[test]
fn two_mounts_do_not_share_a_directory() {
    let temp = tempfile::tempdir().unwrap();
    let first = Blocks::open(temp.path(), LIMITS);
    let second = Blocks::open(temp.path(), LIMITS);
    assert!(first.has_disk() && !second.has_disk());
    let trouble = second.report().trouble.unwrap();
    assert!(trouble.contains("another mount"), "{trouble}");
    // It goes on in memory.
    let version = second.version(&path("a"), &attr(10, 100)).unwrap();
    assert!(version.put_whole(content(1, 10)));
    assert!(read(&version, 0, 10) == content(1, 10));
    drop(first);
    assert!(Blocks::open(temp.path(), LIMITS).has_disk());
}

#[test]
fn nothing_is_left_of_nothing_and_old_things_go() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("blocks");
    drop(Blocks::open(&dir, LIMITS));
    assert!(!dir.exists());
    let old = attr(10, 100);
    drop(fill(
        &Blocks::open(&dir, LIMITS),
        "a",
        &old,
        &content(1, 10),
    ));
    fs::write(dir.join("000000000099"), "litter").unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    let limits = Limits {
        age: Some(Duration::from_secs(1)),
        ..LIMITS
    };
    let blocks = Blocks::open(&dir, limits);
    assert!(!blocks.is_complete(&path("a"), &old));
    drop(blocks);
    assert!(!dir.exists());
}

#[test]
fn small_files_are_in_memory_at_once_and_bounded() {
    let blocks = Blocks::in_memory(100_000);
    for n in 0..30 {
        let version = blocks
            .version(&path(&n.to_string()), &attr(10_000, 100))
            .unwrap();
        assert!(version.put_whole(content(n, 10_000)));
        assert_eq!(
            version.peek(5, 10).unwrap().as_slice(),
            &content(n, 15)[5..]
        );
    }
    let here = |n: &u64| blocks.is_complete(&path(&n.to_string()), &attr(10_000, 100));
    assert_eq!((0..30).filter(here).count(), 10);
    let version = blocks.version(&path("x"), &attr(200_000, 100)).unwrap();
    assert!(
        !version.put_whole(content(1, 200_000)),
        "too large for memory"
    );
    let version = blocks.version(&path("y"), &attr(10, 100)).unwrap();
    assert!(!version.put_whole(content(1, 9)), "another size");
}

#[test]
fn what_is_on_disk_leaves_memory_and_is_read_from_there() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    let version = blocks.version(&path("a"), &attr(70_000, 100)).unwrap();
    assert!(version.put_whole(content(3, 70_000)));
    blocks.settle();
    assert!(version.peek(0, 10).is_some() && blocks.store.has_memory());
    blocks.store.leave_memory();
    assert!(version.peek(0, 10).is_none() && !blocks.store.has_memory());
    assert!(read(&version, 0, 70_000) == content(3, 70_000));
}

/// What a stormy life of the cache consists of.
#[derive(Debug, Clone)]
enum Step {
    Put { file: u64, block: u64, blocks: u64 },
    Whole { file: u64 },
    Read { file: u64, offset: u64, len: usize },
    Change { file: u64 },
    Remount { torn: u64 },
    Damage { file: usize, at: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = 0..4_u64;
    let step = prop_oneof![
        4 => (file.clone(), 0..6_u64, 1..4_u64)
            .prop_map(|(file, block, blocks)| Step::Put { file, block, blocks }),
        1 => file.clone().prop_map(|file| Step::Whole { file }),
        6 => (file.clone(), 0..400_000_u64, 1..200_000_usize)
            .prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        1 => file.prop_map(|file| Step::Change { file }),
        1 => (0..200_u64).prop_map(|torn| Step::Remount { torn }),
        1 => (0..4_usize, 0..400_000_u64).prop_map(|(file, at)| Step::Damage { file, at }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens to it, the cache never gives a byte that is not the file's, never takes more
    /// than its limit, and never fails.
    #[test]
    fn it_never_lies(steps in steps()) {
        let temp = tempfile::tempdir().unwrap();
        let limits = Limits { bytes: 700_000, age: None, memory: 300_000, fast: u64::MAX };
        let sizes = [0, 60_000, 131_072, 390_001];
        let mut versions: HashMap<u64, u64> = HashMap::new();
        let mut blocks = Blocks::open(temp.path(), limits);
        for step in steps {
            let describe = |versions: &HashMap<u64, u64>, file: u64| {
                let version = versions.get(&file).copied().unwrap_or_default();
                let size = sizes[file as usize];
                (attr_at(size, version), content(file * 100 + version, size))
            };
            match step {
                Step::Put { file, block, blocks: count } => {
                    let (attr, data) = describe(&versions, file);
                    let cached = blocks.version(&path(&file.to_string()), &attr).unwrap();
                    let begin = (block * BLOCK).min(data.len() as u64 / BLOCK * BLOCK) as usize;
                    let end = (begin + (count * BLOCK) as usize).min(data.len());
                    let chunk = Chunk::new(data[begin..end].to_vec());
                    let _ = cached.put_wait(begin as u64, chunk, Duration::from_secs(5));
                }
                Step::Whole { file } => {
                    let (attr, data) = describe(&versions, file);
                    let cached = blocks.version(&path(&file.to_string()), &attr).unwrap();
                    cached.put_whole(data);
                }
                Step::Read { file, offset, len } => {
                    let (attr, data) = describe(&versions, file);
                    let cached = blocks.version(&path(&file.to_string()), &attr).unwrap();
                    let whole = cached.whole_file().is_some();
                    let from = (offset as usize).min(data.len());
                    let want = len.min(data.len() - from);
                    let mut got = Vec::new();
                    // What the writer has not let go of yet comes in pieces.
                    while got.len() < want {
                        let piece = read(&cached, offset + got.len() as u64, want - got.len());
                        if piece.is_empty() {
                            break;
                        }
                        got.extend(piece);
                    }
                    prop_assert!(data[from..].starts_with(&got), "file {file} at {offset}");
                    prop_assert!(!whole || got.len() == want, "file {file} at {offset}");
                }
                Step::Change { file } => *versions.entry(file).or_default() += 1,
                Step::Remount { torn } => {
                    drop(blocks);
                    let index = temp.path().join("index");
                    if let Ok(file) = fs::File::options().write(true).open(index) {
                        let len = file.metadata().unwrap().len();
                        file.set_len(len.saturating_sub(torn.saturating_sub(100))).unwrap();
                    }
                    blocks = Blocks::open(temp.path(), limits);
                }
                Step::Damage { file, at } => {
                    // Only what an earlier mount wrote is looked at again.
                    drop(blocks);
                    let data = fs::read_dir(temp.path()).into_iter().flatten().flatten();
                    let mut data: Vec<_> = data.map(|file| file.path()).collect();
                    data.retain(|path| path.file_name().unwrap() != "lock");
                    data.sort();
                    if let Some(path) = data.get(file) {
                        let file = fs::File::options().read(true).write(true).open(path).unwrap();
                        let mut byte = [0];
                        if file.read_at(&mut byte, at).unwrap() == 1 {
                            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
                        }
                    }
                    blocks = Blocks::open(temp.path(), limits);
                }
            }
            prop_assert!(taken(temp.path()) <= limits.bytes);
        }
    }
}

/// The last records of a log that was cut off are lost, and with them what was in a data file.
#[test]
fn a_data_file_whose_blocks_are_not_in_the_log_goes() {
    let temp = tempfile::tempdir().unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    drop(fill(
        &blocks,
        "a",
        &attr(131_072, 100),
        &content(1, 131_072),
    ));
    drop(blocks);
    let full = taken(temp.path());
    assert!(full > 131_072);
    let index = fs::File::options()
        .write(true)
        .open(temp.path().join("index"));
    let index = index.unwrap();
    index.set_len(index.metadata().unwrap().len() - 1).unwrap();
    let blocks = Blocks::open(temp.path(), LIMITS);
    assert!(taken(temp.path()) < 131_072, "{full}");
    drop(blocks);
}

/// The version number `version` of a file: a minute apart.
fn attr_at(size: u64, version: u64) -> Attr {
    Attr {
        mtime: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 60 * version)),
        ..attr(size, 0)
    }
}

#[test]
fn what_goes_before_it_is_read_is_no_trouble_of_the_disk() {
    let temp = tempfile::tempdir().unwrap();
    let (attr, data) = (attr(300_000, 100), content(1, 300_000));
    let blocks = Blocks::open(temp.path(), LIMITS);
    for removed in [false, true] {
        drop(fill(&blocks, "a", &attr, &data));
        let cached = blocks.version(&path("a"), &attr).unwrap();
        let files = fs::read_dir(temp.path()).unwrap().flatten();
        match removed {
            true => files.for_each(|file| fs::remove_file(file.path()).unwrap()),
            false => blocks.forget(&path("a")),
        }
        assert!(read(&cached, 0, 1000).is_empty() && blocks.report().trouble.is_none());
    }
}
