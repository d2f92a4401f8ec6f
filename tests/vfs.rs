//! What single operations of the filesystem promise, on the model in memory.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime};

use ferryfs::vfs::attr::FileKind;
use ferryfs::vfs::backend::{Backend, OpenHow, Transfers};
use ferryfs::vfs::cache::Cached;
use ferryfs::vfs::content::Contents;
use ferryfs::vfs::error::{ErrorKind, Result};
use ferryfs::vfs::{Change, Entry, Ino, NewTime, Opened, ROOT, RenameHow, Vfs, View};

use crate::support::memory::{Faulty, MemoryBackend, MemoryServer, Op, Traffic, path};
use crate::support::opening::{LONG, READ, VIEW, WRITE};

struct Mount {
    vfs: Vfs,
    server: MemoryServer,
    names: Arc<Faulty<MemoryBackend>>,
    transfers: Arc<Faulty<MemoryServer>>,
    _staging: tempfile::TempDir,
}

impl Mount {
    fn new(ttl: Duration, view: View) -> Self {
        let staging = tempfile::tempdir().unwrap();
        let server = MemoryServer::new();
        let transfers = Arc::new(Faulty::new(Arc::new(server.clone())));
        let contents = Contents::new(staging.path(), 64 << 20).unwrap();
        let through: Arc<dyn Transfers> = Arc::<Faulty<MemoryServer>>::clone(&transfers);
        let backend = MemoryBackend::over(&server, through, &contents);
        let names = Arc::new(Faulty::new(Arc::new(backend)));
        let inner: Arc<dyn Backend> = Arc::<Faulty<MemoryBackend>>::clone(&names);
        Self {
            vfs: Vfs::new(Arc::new(Cached::new(inner, ttl, 10_000)), view),
            server,
            names,
            transfers,
            _staging: staging,
        }
    }

    fn caching() -> Self {
        Self::new(LONG, VIEW)
    }

    fn asking() -> Self {
        Self::new(Duration::ZERO, VIEW)
    }

    fn find(&self, at: &str) -> Result<Entry> {
        let mut found = Err(ErrorKind::Invalid.into());
        let mut ino = ROOT;
        for name in at.split('/') {
            found = self.vfs.lookup(ino, OsStr::new(name));
            ino = found.clone()?.stat.ino;
        }
        found
    }

    fn ino(&self, at: &str) -> Ino {
        self.find(at).unwrap().stat.ino
    }

    fn open(&self, at: &str, how: OpenHow) -> Opened {
        self.vfs.open(self.ino(at), how).unwrap()
    }

    fn create(&self, name: &str) -> (Entry, u64) {
        let created = self.vfs.create(ROOT, OsStr::new(name), 0o644, WRITE, true);
        let (entry, opened) = created.unwrap();
        (entry, opened.fh)
    }

    fn read(&self, fh: u64) -> Result<Vec<u8>> {
        let mut buf = vec![0; 4096];
        let count = self.vfs.read(fh, 0, &mut buf)?;
        buf.truncate(count);
        Ok(buf)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let how = RenameHow::default();
        self.vfs
            .rename(ROOT, OsStr::new(from), ROOT, OsStr::new(to), how)
    }

    fn unlink(&self, name: &str) -> Result<()> {
        self.vfs.unlink(ROOT, OsStr::new(name))
    }

    /// Lists a directory as `ls -l` does; names and sizes.
    fn ls(&self, dir: Ino) -> Vec<(String, u64)> {
        let fh = self.vfs.opendir(dir).unwrap();
        let mut all = Vec::new();
        self.vfs
            .readdirplus(fh, 2, &mut |plus| {
                let name = plus.item.name.to_str().unwrap().to_owned();
                let size = plus.entry.map(|entry| entry.stat.size);
                all.push((name, size.unwrap_or(u64::MAX)));
                true
            })
            .unwrap();
        self.vfs.releasedir(fh);
        all
    }

    fn questions(&self) -> (u64, u64) {
        let Traffic { stats, lists, .. } = self.server.traffic();
        (stats, lists)
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_tree_is_shown_with_one_listing_for_each_directory() {
    let mount = Mount::caching();
    for dir in 0..10 {
        for file in 0..20 {
            mount.server.put(&format!("d{dir}/f{file}"), vec![0; file]);
        }
    }
    assert_eq!(mount.ls(ROOT).len(), 10);
    for dir in 0..10 {
        let ino = mount.ino(&format!("d{dir}"));
        assert_eq!(mount.ls(ino)[7].0, "f15");
        for file in 0..20 {
            let entry = mount.find(&format!("d{dir}/f{file}")).unwrap();
            assert_eq!(entry.stat.size, file);
            assert!(entry.valid > Duration::from_secs(3000));
            mount.vfs.getattr(entry.stat.ino).unwrap();
        }
        assert_eq!(
            kind(mount.find(&format!("d{dir}/nope"))),
            ErrorKind::NotFound
        );
    }
    assert_eq!(mount.questions(), (0, 11));
}

#[test]
fn unpacking_an_archive_asks_for_nothing_it_made_itself() {
    let mount = Mount::caching();
    mount.vfs.getattr(ROOT).unwrap();
    mount.ls(ROOT);
    let before = mount.questions();
    let dir = mount
        .vfs
        .mkdir(ROOT, OsStr::new("d"), 0o755)
        .unwrap()
        .stat
        .ino;
    for i in 0..50 {
        let name = format!("f{i}");
        let name = OsStr::new(&name);
        assert_eq!(kind(mount.vfs.lookup(dir, name)), ErrorKind::NotFound);
        let (entry, opened) = mount.vfs.create(dir, name, 0o644, WRITE, true).unwrap();
        mount.vfs.write(opened.fh, 0, b"content").unwrap();
        let change = Change {
            mtime: Some(NewTime::At(SystemTime::UNIX_EPOCH + Duration::from_secs(i))),
            mode: Some(0o600),
            ..Change::default()
        };
        mount.vfs.setattr(entry.stat.ino, &change).unwrap();
        mount.vfs.flush(opened.fh).unwrap();
        mount.vfs.release(opened.fh).unwrap();
    }
    mount.vfs.getattr(dir).unwrap();
    assert_eq!(mount.ls(dir).len(), 50);
    assert!(mount.ls(dir).iter().all(|(_, size)| *size == 7));
    let (stats, lists) = mount.questions();
    assert_eq!(lists, before.1, "listed again");
    // Creating and publishing may ask for themselves; this layer adds nothing.
    assert!(stats - before.0 <= 100, "{stats} questions");
    assert_eq!(mount.find("d/f9").unwrap().stat.perm, 0o600);
}

#[test]
fn what_memory_knows_is_answered_without_asking() {
    let mount = Mount::caching();
    mount.server.put("a", "x");
    let name = OsStr::new("a");
    assert!(mount.vfs.lookup_cached(ROOT, name).is_none());
    assert!(mount.vfs.opendir_cached(ROOT).is_none());
    mount.ls(ROOT);
    let before = mount.questions();
    let entry = mount.vfs.lookup_cached(ROOT, name).unwrap().unwrap();
    assert!(mount.vfs.getattr_cached(entry.stat.ino).unwrap().is_ok());
    let nope = mount.vfs.lookup_cached(ROOT, OsStr::new("nope")).unwrap();
    assert_eq!(kind(nope), ErrorKind::NotFound);
    assert!(mount.vfs.opendir_cached(ROOT).unwrap().is_ok());
    assert_eq!(mount.questions(), before);
}

#[test]
fn attributes_are_shown_as_the_view_says() {
    let view = View {
        umask: Some(0o077),
        ..VIEW
    };
    let mount = Mount::new(LONG, view);
    mount.server.put("f", vec![0; 513]);
    let stat = mount.find("f").unwrap().stat;
    assert_eq!((stat.uid, stat.gid, stat.perm), (1000, 100, 0o600));
    assert_eq!((stat.size, stat.blocks, stat.nlink), (513, 2, 1));
    assert_eq!(mount.vfs.getattr(ROOT).unwrap().0.perm, 0o700);
}

#[test]
fn a_read_only_view_refuses_every_change_before_the_server_hears_of_it() {
    let view = View {
        read_only: true,
        ..VIEW
    };
    let mount = Mount::new(LONG, view);
    mount.server.put("f", "x");
    let ino = mount.ino("f");
    let (vfs, name) = (&mount.vfs, OsStr::new("new"));
    let change = Change::default();
    let refused = [
        kind(vfs.open(ino, WRITE)),
        kind(vfs.create(ROOT, name, 0o644, WRITE, false)),
        kind(vfs.mkdir(ROOT, name, 0o755)),
        kind(vfs.symlink(ROOT, name, b"f")),
        kind(mount.unlink("f")),
        kind(vfs.rmdir(ROOT, OsStr::new("f"))),
        kind(mount.rename("f", "g")),
        kind(vfs.setattr(ino, &change)),
    ];
    assert_eq!(refused, [ErrorKind::ReadOnly; 8]);
    let opened = vfs.open(ino, READ).unwrap();
    assert_eq!(mount.read(opened.fh).unwrap(), b"x");
}

#[test]
fn the_owner_can_only_stay() {
    let mount = Mount::caching();
    mount.server.put("f", "x");
    let ino = mount.ino("f");
    let chown = |uid, gid| {
        let change = Change {
            uid,
            gid,
            ..Change::default()
        };
        mount.vfs.setattr(ino, &change)
    };
    chown(Some(1000), None).unwrap();
    chown(None, Some(100)).unwrap();
    assert_eq!(kind(chown(Some(0), None)), ErrorKind::NotPermitted);
    assert_eq!(kind(chown(None, Some(0))), ErrorKind::NotPermitted);
    assert_eq!(mount.server.traffic().set_attrs, 0);
}

#[test]
fn pages_are_kept_while_the_version_is_the_same() {
    let mount = Mount::asking();
    mount.server.put("f", "one");
    let keeps = |how| {
        let opened = mount.open("f", how);
        mount.vfs.release(opened.fh).unwrap();
        opened.keep_cache
    };
    assert!(!keeps(READ), "the first open");
    assert!(keeps(READ));
    mount.server.put("f", "two");
    assert!(!keeps(READ), "someone else's version");
    assert!(keeps(READ));
    let opened = mount.open("f", WRITE);
    mount.vfs.write(opened.fh, 0, b"three").unwrap();
    assert!(keeps(READ), "what is being written went through the pages");
    mount.vfs.flush(opened.fh).unwrap();
    mount.vfs.release(opened.fh).unwrap();
    assert!(keeps(READ), "our own version");
    mount.server.put("f", "other");
    assert!(!keeps(READ), "the same size at another time");
}

#[test]
fn a_file_of_unknown_size_is_read_directly() {
    let mount = Mount::asking();
    mount.server.put("f", "x");
    mount.server.tell_sizes(false);
    assert!(mount.open("f", READ).direct_io);
    mount.server.tell_sizes(true);
    mount.server.put("g", "x");
    assert!(!mount.open("g", READ).direct_io);
}

#[test]
fn a_handle_serves_only_the_direction_it_was_opened_for() {
    let mount = Mount::caching();
    mount.server.put("f", "x");
    let reader = mount.open("f", READ).fh;
    let writer = mount.open(
        "f",
        OpenHow {
            read: false,
            ..WRITE
        },
    );
    assert_eq!(kind(mount.vfs.write(reader, 0, b"y")), ErrorKind::BadHandle);
    assert_eq!(kind(mount.read(writer.fh)), ErrorKind::BadHandle);
    assert_eq!(kind(mount.read(999)), ErrorKind::BadHandle);
    assert_eq!(kind(mount.vfs.open(ROOT, READ)), ErrorKind::IsADirectory);
}

#[test]
fn a_file_is_on_the_server_when_flush_said_so_and_visible_here_before() {
    let mount = Mount::caching();
    mount.ls(ROOT);
    let (entry, fh) = mount.create("new");
    mount.vfs.write(fh, 0, b"hello").unwrap();
    assert!(!mount.vfs.flush_clean(fh));
    assert_eq!(mount.server.get("new"), None);
    assert_eq!(mount.vfs.getattr(entry.stat.ino).unwrap().0.size, 5);
    assert_eq!(mount.find("new").unwrap().stat.size, 5);
    assert_eq!(mount.ls(ROOT), [("new".to_owned(), 5)]);
    let dirty = mount.vfs.dirty();
    assert_eq!((dirty[0].path.clone(), dirty[0].bytes), (path("new"), 5));
    mount.vfs.flush(fh).unwrap();
    assert!(mount.vfs.flush_clean(fh));
    assert_eq!(mount.server.get("new").unwrap(), b"hello");
    mount.vfs.release(fh).unwrap();
    assert_eq!(mount.find("new").unwrap().stat.size, 5);
}

#[test]
fn a_failed_flush_is_told_and_the_next_one_tries_again() {
    let mount = Mount::caching();
    mount.server.put("f", "old");
    let fh = mount.open("f", WRITE).fh;
    mount.vfs.write(fh, 0, b"newer").unwrap();
    mount.transfers.fail(Op::Publish, ErrorKind::NoSpace);
    assert_eq!(kind(mount.vfs.flush(fh)), ErrorKind::NoSpace);
    assert_eq!(mount.server.get("f").unwrap(), b"old");
    assert_eq!(mount.find("f").unwrap().stat.size, 5);
    mount.transfers.heal();
    mount.vfs.commit_all().unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"newer");
    mount.vfs.release(fh).unwrap();
}

#[test]
fn a_readers_close_does_not_upload_what_another_half_wrote() {
    let mount = Mount::caching();
    let (_, writer) = mount.create("f");
    mount.vfs.write(writer, 0, b"half").unwrap();
    let reader = mount.open("f", READ).fh;
    assert_eq!(mount.read(reader).unwrap(), b"half");
    assert!(mount.vfs.flush_clean(reader));
    mount.vfs.flush(reader).unwrap();
    mount.vfs.release(reader).unwrap();
    assert_eq!(mount.server.get("f"), None);
    mount.vfs.fsync(writer).unwrap();
    assert!(mount.server.get("f").is_some());
}

#[test]
fn a_removed_file_lives_on_for_its_handles_only() {
    let mount = Mount::caching();
    mount.server.put("f", "content");
    let fh = mount.open("f", WRITE).fh;
    let ino = mount.ino("f");
    mount.unlink("f").unwrap();
    assert_eq!(mount.server.get("f"), None);
    assert_eq!(kind(mount.find("f")), ErrorKind::NotFound);
    assert_eq!(mount.read(fh).unwrap(), b"content");
    mount.vfs.write(fh, 0, b"CON").unwrap();
    assert_eq!(mount.read(fh).unwrap(), b"CONtent");
    assert_eq!(mount.vfs.getattr(ino).unwrap().0.nlink, 0);
    let (other, other_fh) = mount.create("f");
    assert_ne!(other.stat.ino, ino);
    mount.vfs.flush(fh).unwrap();
    mount.vfs.release(fh).unwrap();
    mount.vfs.release(other_fh).unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"", "not resurrected");
}

#[test]
fn only_a_file_with_handles_is_said_to_be_open() {
    let mount = Mount::caching();
    mount.server.put("f", "content");
    let is_open = |name| mount.vfs.is_open(ROOT, OsStr::new(name));
    mount.ino("f");
    assert!(!is_open("f") && !is_open("absent") && !is_open(".."));
    let reader = mount.open("f", READ).fh;
    let (_, writer) = mount.create("new");
    assert!(is_open("f") && is_open("new"));
    mount.vfs.release(reader).unwrap();
    mount.vfs.release(writer).unwrap();
    assert!(!is_open("f") && !is_open("new"));
}

#[test]
fn a_removal_that_fails_leaves_readers_their_content_and_others_the_file() {
    let mount = Mount::caching();
    mount.server.put("f", "content");
    let fh = mount.open("f", READ).fh;
    mount.names.fail(Op::Unlink, ErrorKind::PermissionDenied);
    assert_eq!(kind(mount.unlink("f")), ErrorKind::PermissionDenied);
    assert_eq!(mount.read(fh).unwrap(), b"content");
    let again = mount.open("f", WRITE).fh;
    mount.vfs.write(again, 0, b"changed").unwrap();
    mount.vfs.flush(again).unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"changed");
    assert_eq!(mount.read(fh).unwrap(), b"content");
}

#[test]
fn what_was_written_to_a_file_whose_removal_fails_can_still_be_stored() {
    let mount = Mount::caching();
    mount.server.put("f", "content");
    let fh = mount.open("f", WRITE).fh;
    mount.vfs.write(fh, 0, b"kept").unwrap();
    mount.names.fail(Op::Unlink, ErrorKind::PermissionDenied);
    mount.unlink("f").unwrap_err();
    assert_eq!(mount.read(fh).unwrap(), b"keptent");
    mount.vfs.flush(fh).unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"keptent");
}

#[test]
fn what_is_written_after_a_removal_that_failed_is_stored() {
    let mount = Mount::caching();
    for (name, failing) in [("f", Op::Unlink), ("g", Op::Rename)] {
        mount.server.put(name, "content");
        mount.server.put("other", "other");
        let fh = mount.open(name, WRITE).fh;
        mount.names.fail(failing, ErrorKind::PermissionDenied);
        let failed = match failing {
            Op::Unlink => mount.unlink(name),
            _ => mount.rename("other", name),
        };
        assert_eq!(kind(failed), ErrorKind::PermissionDenied);
        mount.vfs.write(fh, 0, b"CON").unwrap();
        mount.vfs.flush(fh).unwrap();
        mount.vfs.release(fh).unwrap();
        assert_eq!(mount.server.get(name).unwrap(), b"CONtent", "{name}");
    }
}

#[test]
fn an_open_that_nobody_was_told_of_changes_nothing() {
    let mount = Mount::caching();
    mount.server.put("f", "content");
    let truncate = OpenHow {
        truncate: true,
        ..WRITE
    };
    let fh = mount.open("f", truncate).fh;
    mount.vfs.take_back(fh);
    assert_eq!(mount.server.get("f").unwrap(), b"content");
    let (entry, fh) = mount.create("new");
    mount.vfs.take_back(fh);
    mount.vfs.forget(entry.stat.ino, 1);
    assert_eq!(mount.server.paths(), [path("f")]);
    // Somebody else has written to it meanwhile.
    let writer = mount.open("f", WRITE).fh;
    mount.vfs.write(writer, 0, b"CON").unwrap();
    let fh = mount.open("f", WRITE).fh;
    mount.vfs.take_back(fh);
    mount.vfs.flush(writer).unwrap();
    mount.vfs.release(writer).unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"CONtent");
    assert_eq!(mount.vfs.census().file_handles, 0);
    assert_eq!(mount.vfs.census().open_files, 0);
}

#[test]
fn a_reader_gets_nothing_of_the_version_that_another_opens() {
    let mount = Mount::asking();
    let size = 5 << 20;
    mount.server.put("f", vec![1; size]);
    let (old_ino, old) = (mount.ino("f"), mount.open("f", READ).fh);
    let first = |fh, at| {
        let mut byte = [0];
        mount.vfs.read(fh, at, &mut byte).map(|_| byte[0])
    };
    assert_eq!(first(old, 0).unwrap(), 1);
    mount.server.put("f", vec![2; size]);
    // As the kernel does, which looks again then.
    assert_eq!(kind(mount.vfs.open(old_ino, READ)), ErrorKind::Stale);
    let new = mount.open("f", READ).fh;
    assert_ne!(mount.ino("f"), old_ino);
    let end = size as u64 - 1;
    assert_eq!((first(new, 0).unwrap(), first(new, end).unwrap()), (2, 2));
    let rest = first(old, end);
    assert!(
        rest.as_ref()
            .map_or_else(|e| e.kind() == ErrorKind::Stale, |byte| *byte == 1),
        "{rest:?}"
    );
    mount.vfs.release(old).unwrap();
    mount.vfs.release(new).unwrap();

    // Who follows a file that grows goes on with it, and so does who may write to it.
    mount.server.put("log", "one");
    let follower = mount.open("log", READ).fh;
    assert_eq!(mount.read(follower).unwrap(), b"one");
    mount.server.put("log", "one, two");
    mount.open("log", READ);
    assert_eq!(mount.read(follower).unwrap(), b"one, two");
    mount.open("log", WRITE);
    mount.server.put("log", "new");
    mount.open("log", READ);
    assert_eq!(mount.read(follower).unwrap(), b"new");
}

#[test]
fn what_has_no_name_any_more_is_not_said_to_be_stored() {
    let mount = Mount::asking();
    mount.vfs.mkdir(ROOT, OsStr::new("d"), 0o755).unwrap();
    let (dir, name) = (mount.ino("d"), OsStr::new("f"));
    let created = mount.vfs.create(dir, name, 0o644, WRITE, true).unwrap();
    mount.vfs.write(created.1.fh, 0, b"content").unwrap();
    mount.server.remove("d");
    mount.server.put("d", "a file now");
    assert_ne!(mount.ino("d"), dir);
    let failed = mount.vfs.commit_all().unwrap_err();
    assert_eq!(failed[0].1.kind(), ErrorKind::Stale);
}

#[test]
fn an_open_file_is_stored_under_the_name_it_has_then() {
    let mount = Mount::caching();
    let (entry, fh) = mount.create("a");
    mount.vfs.write(fh, 0, b"one").unwrap();
    mount.rename("a", "b").unwrap();
    assert_eq!(mount.server.get("b").unwrap(), b"one");
    mount.vfs.write(fh, 0, b"two").unwrap();
    mount.vfs.mkdir(ROOT, OsStr::new("d"), 0o755).unwrap();
    mount
        .vfs
        .rename(
            ROOT,
            OsStr::new("b"),
            mount.ino("d"),
            OsStr::new("c"),
            RenameHow::default(),
        )
        .unwrap();
    mount.vfs.write(fh, 0, b"three").unwrap();
    mount.rename("d", "e").unwrap();
    mount.vfs.flush(fh).unwrap();
    assert_eq!(mount.server.get("e/c").unwrap(), b"three");
    assert_eq!(mount.ino("e/c"), entry.stat.ino);
    assert_eq!(mount.server.paths(), [path("e"), path("e/c")]);
}

#[test]
fn a_rename_over_an_open_file_leaves_its_reader_the_old_content() {
    let mount = Mount::caching();
    mount.server.put("old", "old");
    mount.server.put("new", "new");
    let reader = mount.open("old", READ).fh;
    mount.rename("new", "old").unwrap();
    assert_eq!(mount.read(reader).unwrap(), b"old");
    let other = mount.open("old", READ).fh;
    assert_eq!(mount.read(other).unwrap(), b"new");
}

/// Who comes while the server renames finds what was there or what is there then, and never a file
/// that has the name for that moment only.
#[test]
fn who_asks_for_a_name_that_is_being_replaced_waits_for_it() {
    let mount = Mount::caching();
    mount.server.put("old", "old");
    mount.server.put("new", "newer");
    let reader = mount.open("old", READ).fh;
    let (old, new) = (mount.ino("old"), mount.ino("new"));
    mount.names.delay(Op::Rename, Duration::from_millis(300));
    thread::scope(|scope| {
        let renaming = scope.spawn(|| mount.rename("new", "old"));
        thread::sleep(Duration::from_millis(100));
        assert_eq!(mount.vfs.getattr(old).unwrap().0.size, 3);
        assert!(mount.vfs.lookup_cached(ROOT, OsStr::new("old")).is_none());
        let opening = scope.spawn(|| mount.vfs.open(old, READ));
        assert_eq!(mount.ino("old"), new, "looked up when it had moved");
        assert_eq!(kind(opening.join().unwrap()), ErrorKind::Stale);
        renaming.join().unwrap().unwrap();
    });
    let other = mount.vfs.open(new, READ).unwrap().fh;
    assert_eq!(mount.read(reader).unwrap(), b"old");
    assert_eq!(mount.read(other).unwrap(), b"newer");
    // Told so, he looks again, and finds the file there when he comes.
    mount.names.heal();
    mount.server.put("third", "3");
    let stale = ErrorKind::Stale.into();
    mount.vfs.answers(7, old, Some(&stale));
    thread::scope(|scope| {
        let renaming = scope.spawn(|| mount.rename("third", "old"));
        thread::sleep(Duration::from_millis(100));
        mount.vfs.looks_up(7, ROOT, OsStr::new("old"));
        assert_eq!(mount.ino("old"), new);
        let opened = mount.vfs.open(new, READ);
        mount.vfs.answers(7, new, opened.as_ref().err());
        renaming.join().unwrap().unwrap();
        assert_eq!(mount.read(opened.unwrap().fh).unwrap(), b"newer");
    });
    assert_ne!(mount.ino("old"), new);
}

#[test]
fn a_rename_that_fails_changes_nothing() {
    let mount = Mount::caching();
    mount.server.put("a", "a");
    mount.server.put_directory("d");
    mount.server.put_directory("e");
    let (a, d) = (mount.ino("a"), mount.ino("d"));
    mount.names.fail(Op::Rename, ErrorKind::PermissionDenied);
    assert_eq!(kind(mount.rename("a", "b")), ErrorKind::PermissionDenied);
    mount.names.fail(Op::Rename, ErrorKind::TimedOut);
    assert_eq!(kind(mount.rename("d", "e")), ErrorKind::TimedOut);
    assert_eq!((mount.ino("a"), mount.ino("d")), (a, d));
    assert_eq!(mount.server.paths(), [path("a"), path("d"), path("e")]);
}

#[test]
fn flags_and_kinds_of_rename() {
    let mount = Mount::caching();
    for file in ["f", "g", "d/x"] {
        mount.server.put(file, file);
    }
    mount.server.put_directory("empty");
    let no_replace = RenameHow { no_replace: true };
    let (f, g) = (OsStr::new("f"), OsStr::new("g"));
    let kept = mount.vfs.rename(ROOT, f, ROOT, g, no_replace);
    assert_eq!(kind(kept), ErrorKind::Exists);
    assert_eq!(kind(mount.rename("f", "d")), ErrorKind::IsADirectory);
    assert_eq!(kind(mount.rename("d", "f")), ErrorKind::NotADirectory);
    assert_eq!(kind(mount.rename("empty", "d")), ErrorKind::NotEmpty);
    assert_eq!(kind(mount.rename("nope", "f")), ErrorKind::NotFound);
    let below = mount.vfs.rename(
        ROOT,
        OsStr::new("d"),
        mount.ino("d"),
        f,
        RenameHow::default(),
    );
    assert_eq!(kind(below), ErrorKind::Invalid);
    mount.rename("f", "f").unwrap();
    mount.rename("d", "empty").unwrap();
    assert_eq!(mount.server.get("empty/x").unwrap(), b"d/x");
}

#[test]
fn another_kind_under_the_same_name_is_another_inode() {
    let mount = Mount::asking();
    mount.server.put("x", "file");
    let file = mount.ino("x");
    mount.server.remove("x");
    mount.server.put_directory("x");
    assert_eq!(kind(mount.vfs.getattr(file)), ErrorKind::Stale);
    let entry = mount.find("x").unwrap();
    assert_eq!(entry.stat.kind, FileKind::Directory);
    assert_ne!(entry.stat.ino, file);
    assert_eq!(mount.vfs.getattr(file).unwrap().0.nlink, 0);
}

#[test]
fn a_name_that_vanished_behind_the_caches_back_is_created_anew() {
    let mount = Mount::caching();
    mount.server.put("f", "x");
    mount.ls(ROOT);
    mount.server.remove("f");
    let how = OpenHow {
        truncate: true,
        ..WRITE
    };
    let (_, opened) = mount
        .vfs
        .create(ROOT, OsStr::new("f"), 0o644, how, false)
        .unwrap();
    mount.vfs.write(opened.fh, 0, b"new").unwrap();
    mount.vfs.flush(opened.fh).unwrap();
    assert_eq!(mount.server.get("f").unwrap(), b"new");
}

#[test]
fn a_removed_directory_is_empty_and_takes_nothing() {
    let mount = Mount::caching();
    mount.server.put_directory("d");
    let dir = mount.ino("d");
    mount.vfs.rmdir(ROOT, OsStr::new("d")).unwrap();
    assert!(mount.ls(dir).is_empty());
    assert_eq!(mount.vfs.getattr(dir).unwrap().0.nlink, 0);
    let name = OsStr::new("x");
    assert_eq!(kind(mount.vfs.lookup(dir, name)), ErrorKind::NotFound);
    assert_eq!(kind(mount.vfs.mkdir(dir, name, 0o755)), ErrorKind::NotFound);
    let created = mount.vfs.create(dir, name, 0o644, WRITE, false);
    assert_eq!(kind(created), ErrorKind::NotFound);
}

#[test]
fn an_open_directory_stays_as_it_was_until_rewound() {
    let mount = Mount::caching();
    mount.server.put("a", "");
    mount.server.put("b", "");
    let fh = mount.vfs.opendir(ROOT).unwrap();
    let read = |offset| {
        let mut names = Vec::new();
        let mut each = |item: ferryfs::vfs::DirItem<'_>| {
            names.push(item.name.to_str().unwrap().to_owned());
            true
        };
        mount.vfs.readdir(fh, offset, &mut each).unwrap();
        names.join(" ")
    };
    assert_eq!(read(0), ". .. a b");
    mount.unlink("a").unwrap();
    mount.vfs.release(mount.create("c").1).unwrap();
    assert_eq!(read(2), "a b");
    assert_eq!(read(3), "b");
    assert_eq!(read(0), ". .. b c");
    assert_eq!(read(99), "");
}

#[test]
fn a_name_removed_since_the_directory_was_opened_is_not_believed_in_again() {
    let mount = Mount::caching();
    mount.server.put("a", "");
    mount.server.put("b", "");
    let fh = mount.vfs.opendir(ROOT).unwrap();
    mount.unlink("a").unwrap();
    let mut names = Vec::new();
    mount
        .vfs
        .readdirplus(fh, 2, &mut |plus| {
            names.push((plus.item.name.to_owned(), plus.entry.is_some()));
            true
        })
        .unwrap();
    assert_eq!(names, [("b".into(), true)]);
}

#[test]
fn times_of_a_link_are_left_alone_and_its_target_too() {
    let mount = Mount::caching();
    mount.server.put("f", "x");
    let link = mount.vfs.symlink(ROOT, OsStr::new("l"), b"f").unwrap();
    assert_eq!((link.stat.kind, link.stat.size), (FileKind::Symlink, 1));
    let change = Change {
        mtime: Some(NewTime::Now),
        ..Change::default()
    };
    mount.vfs.setattr(link.stat.ino, &change).unwrap();
    assert_eq!(mount.server.traffic().set_attrs, 0);
    assert_eq!(mount.vfs.readlink(link.stat.ino).unwrap(), b"f");
    assert_eq!(kind(mount.vfs.readlink(mount.ino("f"))), ErrorKind::Invalid);
}

#[test]
fn nobody_is_asked_for_attributes_no_server_has() {
    let mount = Mount::caching();
    mount.server.put("f", "x");
    let ino = mount.ino("f");
    mount.names.fail_always(Op::Xattrs, ErrorKind::TimedOut);
    for name in ["security.capability", "system.posix_acl_access"] {
        let value = mount.vfs.getxattr(ino, OsStr::new(name));
        assert_eq!(kind(value), ErrorKind::Unsupported);
    }
    assert_eq!(mount.names.struck(), 0);
    mount.names.heal();
    let value = mount.vfs.getxattr(ino, OsStr::new("user.ftp.nope"));
    assert_eq!(kind(value), ErrorKind::NoData);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mount = Mount::caching();
    for (name, expected) in [
        ("a\nb", ErrorKind::Invalid),
        ("a\rb", ErrorKind::Invalid),
        (&"x".repeat(256), ErrorKind::NameTooLong),
    ] {
        let name = OsStr::new(name);
        assert_eq!(kind(mount.vfs.lookup(ROOT, name)), expected);
        assert_eq!(kind(mount.vfs.mkdir(ROOT, name, 0o755)), expected);
    }
}

#[test]
fn many_who_open_one_file_share_it() {
    let mount = Mount::caching();
    mount.server.put("f", "content");
    let ino = mount.ino("f");
    mount.names.delay(Op::Open, Duration::from_millis(30));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let fh = mount.vfs.open(ino, READ).unwrap().fh;
                assert_eq!(mount.read(fh).unwrap(), b"content");
                thread::sleep(Duration::from_millis(60));
                mount.vfs.release(fh).unwrap();
            });
        }
    });
    assert_eq!(mount.server.traffic().retrieves, 1);
    assert_eq!(mount.vfs.census().open_files, 0);
}

/// Threads that open, write, rename and remove the same few names. What each gets depends on the
/// others; that all end, and that nothing is left over, does not.
#[test]
fn nothing_hangs_and_nothing_is_left_when_all_happens_at_once() {
    const NAMES: [&str; 3] = ["a", "b", "d/c"];
    let mount = Arc::new(Mount::caching());
    mount.server.put_directory("d");
    let (done, finished) = channel();
    for seed in 0..6_usize {
        let (mount, done) = (Arc::clone(&mount), done.clone());
        thread::spawn(move || {
            for round in 0..200 {
                storm(
                    &mount,
                    NAMES[(seed + round) % 3],
                    NAMES[(seed * 7 + round / 3) % 3],
                    round + seed,
                );
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..6 {
        finished.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    let census = mount.vfs.census();
    assert_eq!((census.file_handles, census.open_files), (0, 0));
    assert_eq!(mount.vfs.dirty(), []);
    assert_eq!(mount.server.in_use(), 0);
    let mut shown: Vec<String> = mount.ls(ROOT).into_iter().map(|(name, _)| name).collect();
    shown.extend(
        mount
            .ls(mount.ino("d"))
            .into_iter()
            .map(|(name, _)| format!("d/{name}")),
    );
    shown.sort();
    let there: Vec<String> = mount
        .server
        .paths()
        .iter()
        .map(|at| at.to_string()[1..].to_owned())
        .collect();
    assert_eq!(shown, there, "what is shown is what is there");
}

fn storm(mount: &Mount, one: &str, two: &str, round: usize) {
    let split = |at: &str| match at.split_once('/') {
        Some((dir, name)) => Some((mount.find(dir).ok()?.stat.ino, name.to_owned())),
        None => Some((ROOT, at.to_owned())),
    };
    let (Some((dir, name)), Some((to_dir, to_name))) = (split(one), split(two)) else {
        return;
    };
    let (name, to_name) = (OsStr::new(&name), OsStr::new(&to_name));
    let _ = match round % 5 {
        0..=2 => mount
            .vfs
            .create(dir, name, 0o644, WRITE, false)
            .map(|(entry, opened)| {
                let _ = mount.vfs.write(opened.fh, 0, b"data");
                let _ = mount.vfs.getattr(entry.stat.ino);
                let _ = mount.vfs.flush(opened.fh);
                let _ = mount.vfs.release(opened.fh);
            }),
        3 => mount
            .vfs
            .rename(dir, name, to_dir, to_name, RenameHow::default()),
        _ => mount.vfs.unlink(dir, name),
    };
}
