//! What a fast reader left out of the cache comes behind the last close, and disturbs nobody.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;

use ferryfs::vfs::backend::{Need, Transfers};
use ferryfs::vfs::blocks::{Blocks, Limits};
use ferryfs::vfs::chunk::Chunk;
use ferryfs::vfs::content::Keeping;

use super::*;
use crate::support::memory::Op;
use crate::support::small_disk::SmallDisk;

const MB: usize = 1 << 20;
const SIZE: usize = 66 * MB + 5;

/// Longer than nothing else must have moved.
const QUIET: Duration = Duration::from_millis(900);

/// A mount with a cache, to which everything comes fast.
fn mount_in(dir: &Path, server: MemoryServer) -> Mount {
    mount_with(dir, server, 400 << 20)
}

/// The same, with a cache of so many bytes.
fn mount_with(dir: &Path, server: MemoryServer, bytes: u64) -> Mount {
    let limits = Limits {
        bytes,
        age: None,
        memory: 2 << 20,
        fast: 1,
    };
    let state = tempfile::tempdir().unwrap();
    let faulty = Arc::new(Faulty::new(Arc::new(server.clone())));
    let staging = state.path().join("staging");
    let blocks = Blocks::open(dir, limits);
    let contents = Contents::with_cache(&staging, 16 << 20, blocks, Keeping::default()).unwrap();
    let backend = MemoryBackend::over(&server, Arc::clone(&faulty) as _, &contents);
    Mount {
        server,
        faulty,
        contents,
        backend,
        state,
    }
}

fn server() -> MemoryServer {
    let server = MemoryServer::new();
    server.put("a", pattern(SIZE));
    server
}

impl Mount {
    fn read_and_close(&self) {
        let file = self.open("a", READ);
        assert!(file.read_all(MB) == self.server.get("a").unwrap());
        file.close().unwrap();
    }

    fn is_whole(&self) -> bool {
        let attr = self.server.peek("a").unwrap();
        self.contents.blocks().is_complete(&path("a"), &attr)
    }

    fn filled(&self) -> u64 {
        self.contents.report().filled_bytes
    }

    fn until_whole(&self) {
        self.while_it_comes("all of it is here", || self.is_whole());
        self.until_nothing_is_left();
    }

    fn until_nothing_is_left(&self) {
        self.while_it_comes("nothing is left to do", || {
            self.contents.report().filled_files == 0 && self.server.in_use() == 0
        });
    }

    /// Waits for as long as something comes: the thread that fetches it is the least important one,
    /// and takes its time on a machine that is busy.
    fn while_it_comes(&self, what: &str, done: impl Fn() -> bool) {
        let (mut filled, mut since) = (self.filled(), Instant::now());
        while !done() {
            if self.filled() > filled {
                (filled, since) = (self.filled(), Instant::now());
            }
            let stands = since.elapsed() > Duration::from_secs(20);
            assert!(!stands, "{what}: {:?}", self.contents);
            sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn what_came_too_fast_for_the_cache_comes_once_more_when_nobody_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.read_and_close();
    assert!(!mount.is_whole() && mount.contents.report().filled_files == 1);
    mount.until_whole();
    assert!((1..=SIZE as u64).contains(&mount.filled()));
    let before = mount.server.traffic();
    assert!(before.sent <= 2 * SIZE as u64);
    mount.read_and_close();
    sleep(QUIET);
    let after = mount.server.traffic();
    assert_eq!(
        (after.sent, after.retrieves),
        (before.sent, before.retrieves)
    );
}

#[test]
fn only_what_was_read_comes_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    let file = mount.open("a", READ);
    for at in 0..40 {
        file.read(at * MB as u64, MB);
    }
    file.close().unwrap();
    drop(file);
    mount.until("it came", || mount.filled() > 0);
    mount.until_nothing_is_left();
    assert!(mount.filled() <= 44 * MB as u64 && !mount.is_whole());
}

#[test]
fn who_opens_it_ends_that_until_the_next_close() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.read_and_close();
    let file = mount.open("a", READ);
    sleep(QUIET);
    assert_eq!((mount.filled(), mount.server.in_use()), (0, 0));
    assert!(file.read(50 * MB as u64, 10) == pattern(SIZE)[50 * MB..50 * MB + 10]);
    file.close().unwrap();
    drop(file);
    // In the middle of it.
    mount.faulty.delay(Op::Read, Duration::from_millis(20));
    mount.until("it has begun", || mount.filled() > 0);
    let writer = mount.open("a", WRITE);
    mount.until("it ended", || mount.server.in_use() == 0);
    writer.write(3, b"new");
    mount.faulty.heal();
    writer.commit();
    writer.close().unwrap();
    drop(writer);
    let mut expected = pattern(SIZE);
    expected[3..6].copy_from_slice(b"new");
    assert!(mount.server.get("a").unwrap() == expected);
    mount.read_and_close();
}

#[test]
fn nothing_comes_once_more_without_foresight_or_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.contents.fetch_nothing_ahead();
    mount.read_and_close();
    assert_eq!(mount.contents.report().filled_files, 0);
    drop(mount);
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.read_and_close();
    mount.faulty.delay(Op::Read, Duration::from_millis(20));
    mount.until("it has begun", || mount.filled() > 0);
    mount.contents.fill_nothing();
    mount.until("it ended", || mount.server.in_use() == 0);
    assert!(!mount.is_whole());
    // The next mount has what came, asks for the rest, and has all of it in the end.
    let server = mount.server.clone();
    drop(mount);
    let mount = mount_in(dir.path(), server);
    let before = mount.server.traffic().sent;
    mount.read_and_close();
    mount.until_whole();
    assert!(mount.server.traffic().sent - before < 2 * SIZE as u64);
    mount.read_and_close();
}

#[test]
fn what_an_earlier_mount_left_is_looked_through_and_completed_for_who_reads_a_little() {
    let content = pattern(SIZE);
    for left in [SIZE, 40 * MB, 20 * MB] {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            bytes: 400 << 20,
            age: None,
            memory: 2 << 20,
            fast: u64::MAX,
        };
        let server = MemoryServer::new();
        server.put("a", content.clone());
        let attr = server.peek("a").unwrap();
        let earlier = Blocks::open(dir.path(), limits);
        let cached = earlier.version(&path("a"), &attr).unwrap();
        for (nth, piece) in content[..left].chunks(MB).enumerate() {
            let chunk = Chunk::new(piece.to_vec());
            assert!(cached.put_wait((nth * MB) as u64, chunk, Duration::from_secs(10)));
        }
        drop((cached, earlier));
        let mount = mount_in(dir.path(), server);
        let file = mount.open("a", READ);
        assert!(file.read(9 * MB as u64, 5) == content[9 * MB..9 * MB + 5]);
        let before = mount.server.traffic().sent;
        file.close().unwrap();
        drop(file);
        if left < SIZE / 2 {
            assert_eq!(mount.contents.report().filled_files, 0);
            continue;
        }
        mount.until_whole();
        assert_eq!(mount.server.traffic().sent - before, (SIZE - left) as u64);
        let file = mount.open("a", READ);
        assert!(
            file.file.whole().is_some(),
            "the kernel may have it, {left}"
        );
        assert!(file.read_all(MB) == content);
        file.close().unwrap();
    }
}

/// Of a thread of ours with this name; the least, if there are several.
fn niceness_of(name: &str) -> Option<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let niceness = tasks.flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (named, rest) = stat.rsplit_once(") ")?;
        // Of proc(5)'s fields, the 19th; this is the third.
        let nice = rest.split(' ').nth(16)?.parse().ok()?;
        named.ends_with(&format!("({name}")).then_some(nice)
    });
    niceness.min()
}

#[test]
fn others_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.server.put("b", pattern(100));
    let mut other = mount
        .server
        .retrieve(&path("b"), 0, Need::Stream { wait: false })
        .unwrap();
    mount.read_and_close();
    for _ in 0..60 {
        other.read(&mut [0]).unwrap();
        sleep(Duration::from_millis(20));
    }
    assert_eq!(mount.filled(), 0, "something else moved all the time");
    mount.faulty.delay(Op::Read, Duration::from_millis(20));
    mount.until("it has begun", || mount.filled() > 0);
    assert_eq!(niceness_of("cache-fill"), Some(19));
    other.read(&mut [0]).unwrap();
    mount.until("it leaves its connection", || mount.server.in_use() == 1);
    drop(other);
    mount.faulty.heal();
    mount.until_whole();
}

#[test]
fn what_others_read_meanwhile_takes_its_room() {
    const OTHERS: [&str; 3] = ["b", "c", "d"];
    let room = 150 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_with(dir.path(), server(), room);
    let other = pattern(60 * MB + 1);
    for name in OTHERS {
        mount.server.put(name, other.clone());
    }
    mount.read_and_close();
    mount.faulty.delay(Op::Read, Duration::from_millis(10));
    mount.until("it has begun", || mount.filled() > 0);
    mount.faulty.heal();
    for name in OTHERS {
        let file = mount.open(name, READ);
        assert!(file.read_all(MB) == other);
        file.close().unwrap();
    }
    mount.until_nothing_is_left();
    mount.until("there is no more than may be", || {
        mount.contents.blocks().report().bytes <= room
    });
    mount.read_and_close();
}

#[test]
fn who_looks_before_the_first_block_is_on_disk_finds_it_there_later() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), MemoryServer::new());
    let content = pattern(100_000);
    for n in 0..200 {
        let name = format!("f{n}");
        mount.server.put(&name, content.clone());
        let attr = mount.server.peek(&name).unwrap();
        let cached = mount
            .contents
            .blocks()
            .version(&path(&name), &attr)
            .unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut got = [0; 100];
                    let count = cached.read(0, &mut got);
                    assert!(content.starts_with(&got[..count]));
                }
            });
            assert!(cached.put_wait(0, Chunk::new(content.clone()), QUIET));
            mount.contents.blocks().settle();
            over.store(true, Ordering::Relaxed);
        });
        assert!(cached.whole_file().is_some(), "{name}");
    }
}

#[test]
fn another_version_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.read_and_close();
    // Somebody else's: that shows when it is asked for.
    mount.server.put("a", vec![7; SIZE]);
    mount.until("nothing is done", || {
        mount.contents.report().filled_files == 0
    });
    assert_eq!(mount.filled(), 0);
    mount.read_and_close();
    mount.faulty.delay(Op::Read, Duration::from_millis(20));
    mount.until("it has begun", || mount.filled() > 0);
    // Ours, as a rename and a removal are.
    mount.contents.blocks().forget(&path("a"));
    mount.until("it ended", || {
        mount.server.in_use() == 0 && mount.contents.report().filled_files == 0
    });
    mount.faulty.heal();
    mount.read_and_close();
    mount.until_whole();
}

#[test]
fn a_broken_connection_or_a_full_disk_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_in(dir.path(), server());
    mount.read_and_close();
    mount
        .faulty
        .cut(Op::Read, 9 * MB as u64, ErrorKind::Disconnected);
    mount.until("it ended", || {
        mount.filled() > 0 && mount.contents.report().filled_files == 0
    });
    assert!(!mount.is_whole() && mount.filled() < 12 * MB as u64);
    mount.read_and_close();
    mount.until_whole();
    drop(mount);
    let Some(disk) = SmallDisk::mount("20m") else {
        return;
    };
    let mount = mount_in(&disk.path().join("cache"), server());
    mount.read_and_close();
    mount.until("it ended", || {
        mount.filled() > 0 && mount.contents.report().filled_files == 0
    });
    assert!(!mount.is_whole());
    assert!(mount.filled() < 60 * MB as u64, "{}", mount.filled());
    mount.read_and_close();
    drop(mount);
    disk.unmount();
}
