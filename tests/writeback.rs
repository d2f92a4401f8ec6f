//! Uploads behind their writers, on the model in memory: what is acknowledged, in which order the
//! server learns of it, and what a mount that was killed leaves to the next.

use std::ffi::OsStr;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ferryfs::vfs::backend::{Backend, OpenHow, Transfers};
use ferryfs::vfs::blocks::Blocks;
use ferryfs::vfs::cache::Cached;
use ferryfs::vfs::content::{Contents, Keeping};
use ferryfs::vfs::error::{ErrorKind, Result};
use ferryfs::vfs::{Change, Ino, NewTime, Policy, ROOT, RenameHow, Vfs};

use crate::support::memory::{Faulty, MemoryBackend, MemoryServer, Op};
use crate::support::opening::{LONG, READ, TRUNCATE, VIEW, WRITE};

struct Mount {
    vfs: Arc<Vfs>,
    server: MemoryServer,
    transfers: Arc<Faulty<MemoryServer>>,
    names: Arc<Faulty<MemoryBackend>>,
    /// While it is set nothing is uploaded.
    held: Arc<AtomicBool>,
    state: tempfile::TempDir,
}

impl Mount {
    fn new() -> Self {
        Self::on(MemoryServer::new(), tempfile::tempdir().unwrap(), u64::MAX)
    }

    fn on(server: MemoryServer, state: tempfile::TempDir, most_bytes: u64) -> Self {
        let transfers = Arc::new(Faulty::new(Arc::new(server.clone())));
        let keeping = Keeping {
            account: "memory".to_owned(),
            writeback: true,
            ..Keeping::default()
        };
        let staging = state.path().join("staging");
        let contents = Contents::with_cache(&staging, 64 << 20, Blocks::in_memory(0), keeping);
        let contents = contents.unwrap();
        let through: Arc<dyn Transfers> = Arc::<Faulty<MemoryServer>>::clone(&transfers);
        let backend = MemoryBackend::over(&server, through, &contents);
        let names = Arc::new(Faulty::new(Arc::new(backend)));
        let inner: Arc<dyn Backend> = Arc::<Faulty<MemoryBackend>>::clone(&names);
        let vfs = Arc::new(Vfs::new(Arc::new(Cached::new(inner, LONG, 10_000)), VIEW));
        vfs.start_writeback(Policy {
            enabled: true,
            settle: Policy::SETTLE,
            uploads: 4,
            most_files: 100,
            most_bytes,
            is_crowded: Arc::new(|| false),
        });
        for saved in contents.take_saved() {
            vfs.restore(saved).unwrap();
        }
        Self {
            vfs,
            server,
            transfers,
            names,
            held: Arc::default(),
            state,
        }
    }

    /// A server on which no upload gets through before [`resume`](Self::resume).
    fn hold(&self) {
        self.transfers.fail_always(Op::Store, ErrorKind::NoSpace);
        self.transfers.fail_always(Op::Append, ErrorKind::NoSpace);
        self.held.store(true, Ordering::SeqCst);
    }

    fn resume(&self) {
        self.transfers.heal();
        self.held.store(false, Ordering::SeqCst);
    }

    /// `kill -9`, and the next mount of the same state.
    fn kill(self) -> Self {
        // The threads of the killed one live on in this process, and what they remove just then cannot
        // be copied; extended attributes come along.
        let copied = || {
            let copy = tempfile::tempdir().unwrap();
            let all = ["staging", "journal"].map(|dir| self.state.path().join(dir));
            let done = all.iter().all(|from| {
                let mut copying = std::process::Command::new("cp");
                copying.arg("-a").arg(from).arg(copy.path());
                copying.status().unwrap().success()
            });
            done.then_some(copy)
        };
        let copy = (0..5).find_map(|_| copied()).unwrap();
        let server = self.server.clone();
        self.hold();
        std::mem::forget(self);
        Self::on(server, copy, u64::MAX)
    }

    fn ino(&self, at: &str) -> Ino {
        self.try_ino(at).unwrap()
    }

    fn try_ino(&self, at: &str) -> Result<Ino> {
        let mut ino = ROOT;
        for name in at.split('/') {
            ino = self.vfs.lookup(ino, OsStr::new(name))?.stat.ino;
        }
        Ok(ino)
    }

    fn create(&self, name: &str) -> u64 {
        let created = self.vfs.create(ROOT, OsStr::new(name), 0o644, WRITE, false);
        created.unwrap().1.fh
    }

    fn close(&self, fh: u64) -> Result<()> {
        let flushed = self.vfs.flush(fh);
        self.vfs.release(fh).unwrap();
        flushed
    }

    fn put(&self, name: &str, content: &[u8]) {
        let fh = self.create(name);
        self.vfs.write(fh, 0, content).unwrap();
        self.close(fh).unwrap();
    }

    fn read(&self, at: &str) -> Vec<u8> {
        let fh = self.vfs.open(self.ino(at), READ).unwrap().fh;
        let mut buf = vec![0; 1 << 16];
        let count = self.vfs.read(fh, 0, &mut buf).unwrap();
        self.vfs.release(fh).unwrap();
        buf.truncate(count);
        buf
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to, how) = (OsStr::new(from), OsStr::new(to), RenameHow::default());
        self.vfs.rename(ROOT, from, ROOT, to, how)
    }

    fn unlink(&self, name: &str) -> Result<()> {
        self.vfs.unlink(ROOT, OsStr::new(name))
    }

    fn ls(&self) -> Vec<(String, u64)> {
        let fh = self.vfs.opendir(ROOT).unwrap();
        let mut all = Vec::new();
        let each = &mut |plus: ferryfs::vfs::DirItemPlus<'_>| {
            let name = plus.item.name.to_str().unwrap().to_owned();
            all.push((name, plus.entry.unwrap().stat.size));
            true
        };
        self.vfs.readdirplus(fh, 2, each).unwrap();
        self.vfs.releasedir(fh);
        all.sort();
        all
    }

    fn waiting(&self) -> usize {
        self.vfs.writeback_progress().unwrap().waiting
    }

    /// Until nothing waits any more, and nothing is left of it.
    fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.waiting() > 0 {
            assert!(Instant::now() < deadline, "{:?}", self.vfs.dirty());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.vfs.dirty(), []);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !(self.files("staging").is_empty() && self.files("journal").is_empty())
            || self.vfs.census().open_files > 0
        {
            assert!(Instant::now() < deadline, "{:?}", self.files("journal"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn until_given_up(&self) {
        self.until(|| !self.files("lost+found").is_empty());
    }

    fn until(&self, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "{:?}", self.vfs.dirty());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn files(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.state.path().join(dir));
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".reason")).collect()
    }
}

#[test]
fn what_is_closed_is_seen_at_once_and_on_the_server_soon() {
    let mount = Mount::new();
    mount.hold();
    mount.put("f", b"content");
    assert_eq!(mount.server.get("f"), None);
    assert_eq!(mount.read("f"), b"content");
    assert_eq!(mount.ls(), [("f".to_owned(), 7)]);
    assert_eq!(mount.vfs.dirty().len(), 1);
    let change = Change {
        mode: Some(0o600),
        mtime: Some(NewTime::At(std::time::UNIX_EPOCH + LONG)),
        ..Change::default()
    };
    let (stat, _) = mount.vfs.setattr(mount.ino("f"), &change).unwrap();
    assert_eq!((stat.perm, stat.size), (0o600, 7));
    mount.resume();
    mount.settle();
    assert_eq!(mount.server.get("f").unwrap(), b"content");
    assert_eq!(mount.server.peek("f").unwrap().mode, Some(0o600));
    assert_eq!(mount.read("f"), b"content");
    assert_eq!(mount.server.traffic().publishes, 1);
}

#[test]
fn fsync_and_flush_wait_for_the_server_and_say_what_it_says() {
    let mount = Mount::new();
    mount.hold();
    let fh = mount.create("f");
    mount.vfs.write(fh, 0, b"one").unwrap();
    assert_eq!(mount.vfs.fsync(fh).unwrap_err().kind(), ErrorKind::NoSpace);
    mount.vfs.flush(fh).unwrap();
    let failed = mount.vfs.commit_all().unwrap_err();
    assert_eq!(failed.len(), 1);
    mount.resume();
    mount.vfs.fsync(fh).unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"one");
    mount.vfs.write(fh, 3, b", two").unwrap();
    mount.vfs.flush(fh).unwrap();
    mount.vfs.commit_all().unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"one, two");
    mount.vfs.release(fh).unwrap();
    mount.settle();
}

#[test]
fn what_waits_is_renamed_in_the_journal() {
    let mount = Mount::new();
    mount.server.put("old", "old");
    mount.hold();
    mount.put("tmp", b"new");
    mount.put("other", b"other");
    mount.rename("tmp", "old").unwrap();
    mount.rename("other", "renamed").unwrap();
    assert_eq!(
        mount.try_ino("tmp").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(mount.read("old"), b"new");
    let expected = [("old".to_owned(), 3), ("renamed".to_owned(), 5)];
    assert_eq!(mount.ls(), expected);
    assert_eq!(mount.server.get("old").unwrap(), b"old");
    // It waits, and is replaced by one that waits.
    mount.put("tmp", b"newest");
    mount.rename("tmp", "old").unwrap();
    assert_eq!(mount.read("old"), b"newest");
    mount.resume();
    mount.settle();
    assert_eq!(mount.server.get("old").unwrap(), b"newest");
    assert_eq!(mount.server.get("renamed").unwrap(), b"other");
    assert_eq!(mount.server.paths().len(), 2, "{:?}", mount.server.paths());
}

#[test]
fn a_directory_is_renamed_after_what_waits_in_it() {
    let mount = Mount::new();
    let dir = mount.vfs.mkdir(ROOT, OsStr::new("d"), 0o755).unwrap();
    for i in 0..20 {
        let name = format!("f{i}");
        let how = (dir.stat.ino, OsStr::new(&name), 0o644);
        let (_, opened) = mount.vfs.create(how.0, how.1, how.2, WRITE, true).unwrap();
        mount.vfs.write(opened.fh, 0, name.as_bytes()).unwrap();
        mount.close(opened.fh).unwrap();
    }
    mount.rename("d", "e").unwrap();
    for i in 0..20 {
        let content = mount.server.get(&format!("e/f{i}")).unwrap();
        assert_eq!(content, format!("f{i}").into_bytes());
    }
    mount.settle();
}

#[test]
fn what_waits_can_be_removed_and_its_directory_after_it() {
    let mount = Mount::new();
    mount.server.put("old", "old");
    mount.hold();
    let dir = mount.vfs.mkdir(ROOT, OsStr::new("d"), 0o755).unwrap().stat;
    let created = mount
        .vfs
        .create(dir.ino, OsStr::new("f"), 0o644, WRITE, true);
    mount.close(created.unwrap().1.fh).unwrap();
    let refused = mount.vfs.rmdir(ROOT, OsStr::new("d")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotEmpty);
    mount.vfs.unlink(dir.ino, OsStr::new("f")).unwrap();
    mount.vfs.rmdir(ROOT, OsStr::new("d")).unwrap();
    // Over an old version, by name and by rename: that one goes too.
    mount.put("tmp", b"new");
    mount.rename("tmp", "old").unwrap();
    mount.unlink("old").unwrap();
    mount.resume();
    mount.settle();
    assert_eq!(mount.server.paths().len(), 0, "{:?}", mount.server.paths());
}

#[test]
fn a_removal_that_fails_loses_nothing_acknowledged() {
    let mount = Mount::new();
    mount.server.put("f", "old");
    mount.hold();
    let fh = mount.vfs.open(mount.ino("f"), TRUNCATE).unwrap().fh;
    mount.vfs.write(fh, 0, b"new").unwrap();
    mount.close(fh).unwrap();
    mount.names.fail(Op::Unlink, ErrorKind::Disconnected);
    mount.unlink("f").unwrap_err();
    assert_eq!(mount.read("f"), b"new");
    mount.resume();
    mount.settle();
    assert_eq!(mount.server.get("f").unwrap(), b"new");
}

#[test]
fn a_rename_over_what_waits_that_fails_leaves_it_waiting() {
    let mount = Mount::new();
    mount.put("other", b"other");
    mount.settle();
    mount.put("f", b"new");
    // Its turn comes in the middle.
    mount.names.delay(Op::Rename, Policy::SETTLE * 6);
    mount.names.fail(Op::Rename, ErrorKind::Disconnected);
    mount.rename("other", "f").unwrap_err();
    assert_eq!(mount.read("f"), b"new");
    mount.settle();
    assert_eq!(mount.server.get("f").unwrap(), b"new");
    assert_eq!(mount.server.get("other").unwrap(), b"other");
}

#[test]
fn what_may_be_on_the_server_is_renamed_and_removed_there() {
    for removed in [false, true] {
        let mount = Mount::new();
        let fh = mount.create("f");
        mount.vfs.write(fh, 0, b"one").unwrap();
        mount
            .transfers
            .fail_always(Op::PublishAnswer, ErrorKind::Disconnected);
        mount.vfs.fsync(fh).unwrap_err();
        assert_eq!(mount.server.get("f").unwrap(), b"one");
        mount.transfers.heal();
        mount.vfs.write(fh, 0, b"two").unwrap();
        mount.close(fh).unwrap();
        match removed {
            true => mount.unlink("f").unwrap(),
            false => mount.rename("f", "g").unwrap(),
        }
        mount.settle();
        assert_eq!(mount.server.get("f"), None);
        let expected = (!removed).then(|| b"two".to_vec());
        assert_eq!(mount.server.get("g"), expected);
    }
}

#[test]
fn the_next_mount_goes_on_after_a_kill() {
    let mount = Mount::new();
    mount.server.put("changed", "0123456789");
    mount.server.put("grown", "0123456789");
    mount.server.put("d/replaced", "old");
    mount.hold();
    mount.put("new", b"new");
    let fh = mount.vfs.open(mount.ino("changed"), WRITE).unwrap().fh;
    mount.vfs.write(fh, 3, b"xxx").unwrap();
    mount.close(fh).unwrap();
    let fh = mount.vfs.open(mount.ino("grown"), WRITE).unwrap().fh;
    mount.vfs.write(fh, 10, b"more").unwrap();
    mount.close(fh).unwrap();
    let fh = mount
        .vfs
        .open(mount.ino("d/replaced"), TRUNCATE)
        .unwrap()
        .fh;
    mount.vfs.write(fh, 0, b"and how").unwrap();
    mount.close(fh).unwrap();
    mount.put("tmp", b"moved");
    mount.rename("tmp", "moved").unwrap();
    mount.put("gone", b"gone");
    mount.unlink("gone").unwrap();
    // Never closed: not acknowledged.
    let fh = mount.create("half");
    mount.vfs.write(fh, 0, b"half wri").unwrap();
    // Acknowledged, then half overwritten, and half replaced.
    mount.put("again", b"first version");
    let again = mount.ino("again");
    let fh = mount.vfs.open(again, TRUNCATE).unwrap().fh;
    mount.vfs.write(fh, 0, b"sec").unwrap();

    let mount = mount.kill();
    let dirty: Vec<String> = mount
        .vfs
        .dirty()
        .iter()
        .map(|d| d.path.to_string())
        .collect();
    let expected = [
        "/again",
        "/changed",
        "/d/replaced",
        "/grown",
        "/moved",
        "/new",
    ];
    assert_eq!(dirty, expected);
    // It shows at once.
    assert_eq!(mount.read("again"), b"first version");
    assert_eq!(mount.read("changed"), b"012xxx6789");
    mount.settle();
    for (name, content) in [
        ("new", "new"),
        ("changed", "012xxx6789"),
        ("grown", "0123456789more"),
        ("d/replaced", "and how"),
        ("moved", "moved"),
        ("again", "first version"),
    ] {
        let found = mount.server.get(name).unwrap();
        assert_eq!(String::from_utf8_lossy(&found), content, "{name}");
    }
    for name in ["gone", "tmp", "half"] {
        assert_eq!(mount.server.get(name), None, "{name}");
    }
    let mut kept = mount.files("lost+found");
    kept.sort();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept[0].starts_with("again-") && kept[1].starts_with("half-"));
}

#[test]
fn half_of_a_content_takes_the_place_of_no_acknowledged_one() {
    let mount = Mount::new();
    mount.server.put("old", "old");
    for name in ["old", "new"] {
        let fh = match name {
            "old" => mount.vfs.open(mount.ino(name), TRUNCATE).unwrap().fh,
            _ => mount.create(name),
        };
        mount.vfs.write(fh, 0, b"acknowledged").unwrap();
        mount.close(fh).unwrap();
    }
    let names = ["old", "new"];
    let writers = names.map(|name| mount.vfs.open(mount.ino(name), TRUNCATE).unwrap().fh);
    for fh in writers {
        mount.vfs.write(fh, 0, b"hal").unwrap();
    }
    // Its turn has come, and comes again.
    mount.until(|| mount.files("journal").len() == 2);
    std::thread::sleep(Policy::SETTLE * 5);
    assert_eq!(mount.server.get("old").unwrap(), b"old");
    assert_eq!(mount.server.get("new"), None);
    assert_eq!(mount.waiting(), 2);
    let mount = mount.kill();
    mount.settle();
    for name in names {
        assert_eq!(mount.server.get(name).unwrap(), b"acknowledged");
    }
    // A late word of an earlier close says nothing of who writes now.
    let fh = mount.vfs.open(mount.ino("new"), TRUNCATE).unwrap().fh;
    mount.vfs.write(fh, 0, b"second").unwrap();
    mount.vfs.flush(fh).unwrap();
    let writer = mount.vfs.open(mount.ino("new"), TRUNCATE).unwrap().fh;
    mount.vfs.release(fh).unwrap();
    std::thread::sleep(Policy::SETTLE * 5);
    let mount = mount.kill();
    mount.settle();
    assert_eq!(mount.server.get("new").unwrap(), b"second");
    let _ = writer;
    // Nor does that of one which fsync had left nothing to do.
    let fh = mount.vfs.open(mount.ino("new"), TRUNCATE).unwrap().fh;
    mount.vfs.write(fh, 0, b"third").unwrap();
    mount.vfs.fsync(fh).unwrap();
    assert!(mount.vfs.flush_clean(fh));
    mount.vfs.open(mount.ino("new"), TRUNCATE).unwrap();
    mount.vfs.release(fh).unwrap();
    std::thread::sleep(Policy::SETTLE * 5);
    assert_eq!(mount.server.get("new").unwrap(), b"third");
    let mount = mount.kill();
    mount.settle();
    assert_eq!(mount.server.get("new").unwrap(), b"third");
    // What is closed goes.
    let fh = mount.vfs.open(mount.ino("old"), TRUNCATE).unwrap().fh;
    mount.vfs.write(fh, 0, b"one").unwrap();
    mount.vfs.flush(fh).unwrap();
    mount.vfs.write(fh, 0, b"two, and").unwrap();
    std::thread::sleep(Policy::SETTLE * 5);
    assert_eq!(mount.server.get("old").unwrap(), b"acknowledged");
    mount.close(fh).unwrap();
    mount.settle();
    assert_eq!(mount.server.get("old").unwrap(), b"two, and");
}

#[test]
fn times_and_modes_of_what_waits_survive_a_kill() {
    let mount = Mount::new();
    mount.hold();
    mount.put("f", b"content");
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let change = Change {
        mode: Some(0o600),
        mtime: Some(NewTime::At(time)),
        ..Change::default()
    };
    mount.vfs.setattr(mount.ino("f"), &change).unwrap();
    let mount = mount.kill();
    mount.settle();
    assert_eq!(mount.server.get("f").unwrap(), b"content");
    let attr = mount.server.peek("f").unwrap();
    assert_eq!((attr.mtime, attr.mode), (Some(time), Some(0o600)));
}

#[test]
fn a_kill_between_upload_and_record_makes_no_conflict() {
    let mount = Mount::new();
    mount.hold();
    mount.put("f", b"content");
    mount.put("removed", b"content");
    let copy = tempfile::tempdir().unwrap();
    for dir in ["staging", "journal"] {
        fs::create_dir(copy.path().join(dir)).unwrap();
        for name in mount.files(dir) {
            let from = mount.state.path().join(dir).join(&name);
            fs::copy(from, copy.path().join(dir).join(name)).unwrap();
        }
    }
    mount.resume();
    mount.settle();
    // As if the records were still there.
    let mount = Mount::on(mount.server.clone(), copy, u64::MAX);
    mount.unlink("removed").unwrap();
    mount.settle();
    assert_eq!(mount.server.paths().len(), 1, "{:?}", mount.server.paths());
}

#[test]
fn what_was_acknowledged_during_an_upload_replaces_that_after_a_kill() {
    let cases = [
        (None, 3, " and two", "one and two"),
        (Some("old"), 3, " and two", "one and two"),
        (Some("old"), 0, "two", "two"),
        (Some("an old one"), 0, "two", "twoold one"),
    ];
    // Killed when the first upload was over, and before anybody here knew that it was.
    let kills = [Op::Store, Op::PublishAnswer].into_iter();
    for (slow, (old, at, change, new)) in kills.flat_map(|op| cases.map(|case| (op, case))) {
        let mount = Mount::new();
        if let Some(old) = old {
            mount.server.put("f", old);
        }
        mount.transfers.delay(slow, Duration::from_millis(400));
        let put = |offset, content: &[u8]| {
            let known = mount.try_ino("f").ok();
            let fh = known.map_or_else(
                || mount.create("f"),
                |ino| mount.vfs.open(ino, WRITE).unwrap().fh,
            );
            mount.vfs.write(fh, offset, content).unwrap();
            mount.close(fh).unwrap();
        };
        put(0, b"one");
        std::thread::sleep(Duration::from_millis(250));
        put(at, change.as_bytes());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !mount
            .server
            .get("f")
            .is_some_and(|now| now.starts_with(b"one"))
        {
            assert!(Instant::now() < deadline, "{:?}", mount.vfs.dirty());
            std::thread::sleep(Duration::from_millis(2));
        }
        mount.hold();
        std::thread::sleep(Duration::from_millis(20));
        let stored = mount.server.get("f").unwrap();
        assert_ne!(
            stored,
            new.as_bytes(),
            "the second was not stored before the kill"
        );
        let mount = mount.kill();
        mount.settle();
        assert_eq!(mount.server.get("f").unwrap(), new.as_bytes());
        assert_eq!(mount.server.paths().len(), 1, "{:?}", mount.server.paths());
    }
}

#[test]
fn an_append_that_a_kill_cut_is_made_whole() {
    let mount = Mount::new();
    mount.server.put("f", "0123456789");
    mount.server.put("g", "0123456789");
    mount.hold();
    for name in ["f", "g"] {
        let fh = mount.vfs.open(mount.ino(name), WRITE).unwrap().fh;
        mount.vfs.write(fh, 10, b"abcdef").unwrap();
        mount.close(fh).unwrap();
    }
    mount.server.put_in_place("f", "0123456789ab");
    mount.server.put_in_place("g", "0123456789abcdef");
    let mount = mount.kill();
    mount.settle();
    for name in ["f", "g"] {
        assert_eq!(mount.server.get(name).unwrap(), b"0123456789abcdef");
    }
}

#[test]
fn what_was_changed_on_the_server_meanwhile_is_kept() {
    let mount = Mount::new();
    mount.server.put("f", "old");
    mount.hold();
    mount.put("new", b"ours");
    let fh = mount.vfs.open(mount.ino("f"), TRUNCATE).unwrap().fh;
    mount.vfs.write(fh, 0, b"ours").unwrap();
    mount.close(fh).unwrap();
    mount.server.put("f", "theirs, and longer");
    mount.server.put("new", "theirs");
    let mount = mount.kill();
    mount.settle();
    assert_eq!(mount.server.get("f").unwrap(), b"ours");
    assert_eq!(mount.server.get("new").unwrap(), b"ours");
    let kept: Vec<_> = mount.server.paths();
    let kept = kept.iter().filter(|p| p.to_string().contains(".conflict-"));
    assert_eq!(kept.count(), 2);
}

#[test]
fn missing_ranges_of_a_version_that_is_gone_are_never_made_up() {
    let mount = Mount::new();
    mount.server.put("f", "0123456789");
    mount.hold();
    let fh = mount.vfs.open(mount.ino("f"), WRITE).unwrap().fh;
    mount.vfs.write(fh, 3, b"xxx").unwrap();
    mount.close(fh).unwrap();
    mount.server.put("f", "abcdefghijk");
    let mount = mount.kill();
    mount.until_given_up();
    assert_eq!(mount.server.get("f").unwrap(), b"abcdefghijk");
    assert_eq!(mount.files("lost+found").len(), 1);
    let told = mount.vfs.open(mount.ino("f"), READ).unwrap_err();
    // Not ESTALE, after which the kernel opens once more.
    assert_eq!(told.kind(), ErrorKind::Protocol, "once");
    assert_eq!(mount.read("f"), b"abcdefghijk");
}

#[test]
fn beyond_the_limit_close_waits_for_the_server() {
    let mount = Mount::on(MemoryServer::new(), tempfile::tempdir().unwrap(), 10);
    mount.transfers.delay(Op::Store, Duration::from_millis(300));
    mount.put("a", b"0123456789");
    assert_eq!(mount.server.get("a"), None);
    mount.put("b", b"x");
    assert_eq!(mount.server.get("b").unwrap(), b"x");
    mount.settle();
}

#[test]
fn nobody_waits_while_a_big_file_in_the_journal_is_copied_for_a_writer() {
    const PIECE: usize = 16 << 20;
    let mount = Mount::new();
    mount.hold();
    let fh = mount.create("big");
    // Not in sequence: no upload follows.
    for n in [5, 4, 3, 2, 1, 0] {
        let piece = vec![b'a' + n; PIECE];
        mount
            .vfs
            .write(fh, (usize::from(n) * PIECE) as u64, &piece)
            .unwrap();
    }
    mount.close(fh).unwrap();
    let ino = mount.ino("big");
    let fh = mount
        .vfs
        .open(
            ino,
            OpenHow {
                read: true,
                ..WRITE
            },
        )
        .unwrap()
        .fh;
    assert_eq!(mount.vfs.write_now(fh, 7, b"x").unwrap(), None);
    let done = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let writers = [(7, b"x"), (8, b"y")].map(|(at, byte)| {
            let vfs = &mount.vfs;
            scope.spawn(move || vfs.write(fh, at, byte).unwrap())
        });
        let asking = scope.spawn(|| {
            let mut answered = 0;
            while !done.load(Ordering::SeqCst) {
                mount.vfs.getattr(ino).unwrap();
                let mut byte = [0];
                mount.vfs.read(fh, 0, &mut byte).unwrap();
                answered += usize::from(byte == *b"a");
            }
            answered
        });
        assert_eq!(writers.map(|writer| writer.join().unwrap()), [1, 1]);
        done.store(true, Ordering::SeqCst);
        asking.join().unwrap()
    });
    assert!(answered > 100, "{answered} answers while it was copied");
    assert_eq!(mount.vfs.write_now(fh, 9, b"z").unwrap(), Some(1));
    let mut start = [0; 11];
    mount.vfs.read(fh, 0, &mut start).unwrap();
    assert_eq!(&start, b"aaaaaaaxyza");
    // What was closed is what the journal has.
    let next = mount.kill();
    next.vfs.commit_all().unwrap();
    let stored = next.server.get("big").unwrap();
    assert_eq!(stored.len(), 6 * PIECE);
    assert_eq!(&stored[..11], b"aaaaaaaaaaa");
    assert!((0..6).all(|n| {
        stored[n * PIECE..][..PIECE]
            .iter()
            .all(|b| *b == b'a' + n as u8)
    }));
}

#[test]
fn a_refusal_is_told_to_who_uses_the_file_next() {
    let mount = Mount::new();
    mount.transfers.fail_always(Op::Store, ErrorKind::Invalid);
    mount.put("f", b"refused");
    mount.until_given_up();
    assert_eq!(mount.files("lost+found").len(), 1);
    // The journal lets it go once it is there.
    mount.until(|| mount.files("journal").is_empty());
    mount.transfers.heal();
    let again = mount.vfs.create(ROOT, OsStr::new("f"), 0o644, WRITE, false);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Invalid);
    mount.put("f", b"taken");
    mount.settle();
    assert_eq!(mount.server.get("f").unwrap(), b"taken");
}

#[test]
fn many_files_from_many_threads_all_arrive() {
    let mount = Mount::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                for i in 0..50 {
                    let name = format!("{writer}-{i}");
                    mount.put(&name, name.as_bytes());
                    if i % 5 == 0 {
                        mount.rename(&name, &format!("{name}r")).unwrap();
                    } else if i % 7 == 0 {
                        mount.unlink(&name).unwrap();
                    } else if i % 3 == 0 {
                        mount.put(&name, b"again");
                    }
                }
            });
        }
    });
    mount.settle();
    for writer in 0..4 {
        for i in 0..50 {
            let name = format!("{writer}-{i}");
            let (at, content) = match i {
                _ if i % 5 == 0 => (format!("{name}r"), Some(name.clone())),
                _ if i % 7 == 0 => (name.clone(), None),
                _ if i % 3 == 0 => (name.clone(), Some("again".to_owned())),
                _ => (name.clone(), Some(name.clone())),
            };
            let found = mount.server.get(&at);
            assert_eq!(found, content.map(String::into_bytes), "{at}");
        }
    }
}
