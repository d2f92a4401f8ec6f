//! Files that the kernel reads by itself and that are written at the same time: nothing is lost, and
//! nobody is told anything wrong.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cache::put;
use super::passthrough::{SIZE, all_of, lent, open_lent, warm};
use super::{bytes, mounting};
use crate::support::ftpd::Ftpd;
use crate::support::mount::{TestMount, skip};
use crate::support::small_disk::SmallDisk;

/// A mount with `option` and a reader of `file`, which the kernel reads by itself.
fn with_reader(server: &Ftpd, option: &str) -> Option<(TestMount, File, Vec<u8>)> {
    let content = bytes(SIZE);
    put(server, "file", &content, 40);
    let mount = warm(server, option, "file")?;
    let reader = open_lent(&mount, "file");
    Some((mount, reader, content))
}

/// What was put into `lost+found` below `state`.
pub(super) fn lost(state: &Path) -> Vec<PathBuf> {
    let find = "find \"$0\" -path '*lost+found/*' -type f ! -name '*.reason'";
    let found = Command::new("sh").args(["-c", find]).arg(state).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    found.lines().map(PathBuf::from).collect()
}

fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !true_now() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A program that does `script` with the file mapped as `m`, says so, and keeps it mapped, with its
/// descriptor closed.
fn mapping(mount: &TestMount, script: &str) -> Child {
    let program = format!(
        "import ctypes, mmap, os, time
fd = os.open('file', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
length = os.fstat(fd).st_size
at = libc.mmap(None, length, 3, 1, fd, 0)
os.close(fd)
m = (ctypes.c_char * length).from_address(at)
def sync():
    assert libc.msync(ctypes.c_void_p(at), ctypes.c_size_t(length), 4) == 0
{script}
print('done', flush=True)
time.sleep(60)"
    );
    let mut child = Command::new("python3")
        .args(["-c", &program])
        .current_dir(mount.root())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 4];
    let stdout = child.stdout.as_mut().unwrap();
    std::io::Read::read_exact(stdout, &mut said).unwrap();
    assert_eq!(&said, b"done");
    child
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_what_was_not_is_kept() {
    for option in ["rw", "writeback"] {
        let server = Ftpd::start();
        let Some((mount, reader, mut content)) = with_reader(&server, option) else {
            return;
        };
        mount.sh("echo more >> file");
        content.extend(b"more\n");
        assert!(server.get("file") == content, "close has returned");
        let writer = OpenOptions::new()
            .write(true)
            .open(mount.path("file"))
            .unwrap();
        writer.write_all_at(b"half done", 10).unwrap();
        let mut half = content.clone();
        half[10..19].copy_from_slice(b"half done");
        assert!(all_of(&reader) == half);
        let killed = mount.kill();
        drop((reader, writer));
        let state = killed.local("state");
        let mut mount = killed.remount();
        mount.expect_log("ferryfs ended before the program that wrote it had closed it");
        assert!(server.get("file") == content);
        assert!(fs::read(mount.path("file")).unwrap() == content);
        let kept = lost(&state);
        assert!(kept.len() == 1 && fs::read(&kept[0]).unwrap() == half);
        mount.finish();
    }
}

#[test]
fn a_kill_leaves_nothing_of_what_nobody_has_written() {
    let server = Ftpd::start();
    let Some((mount, reader, content)) = with_reader(&server, "rw") else {
        return;
    };
    let open = |write: bool| {
        OpenOptions::new()
            .read(!write)
            .write(write)
            .open(mount.path("file"))
    };
    let writers = (open(true).unwrap(), open(false).unwrap());
    assert!(all_of(&reader) == content);
    let killed = mount.kill();
    drop((reader, writers));
    let state = killed.local("state");
    let mount = killed.remount();
    assert!(fs::read(mount.path("file")).unwrap() == content);
    assert_eq!(lost(&state), Vec::<PathBuf>::new());
    // Nor what is on the server.
    thread::sleep(Duration::from_millis(1100));
    let reader = open_lent(&mount, "file");
    let writer = OpenOptions::new()
        .write(true)
        .open(mount.path("file"))
        .unwrap();
    writer.write_all_at(b"stored", 0).unwrap();
    writer.sync_all().unwrap();
    let stored = server.get("file");
    assert!(stored[..6] == *b"stored" && all_of(&reader) == stored);
    let killed = mount.kill();
    drop((reader, writer));
    let mount = killed.remount();
    assert!(fs::read(mount.path("file")).unwrap() == stored);
    assert_eq!(lost(&state), Vec::<PathBuf>::new());
    mount.finish();
}

#[test]
fn a_mapping_that_outlives_its_descriptor_is_stored() {
    let server = Ftpd::start();
    let Some((mount, reader, mut content)) = with_reader(&server, "rw") else {
        return;
    };
    let child = mapping(&mount, "m[5:9] = b'MMAP'");
    content[5..9].copy_from_slice(b"MMAP");
    // No descriptor is left of it, and it is still mapped.
    assert!(all_of(&reader) == content);
    until("what was mapped is stored", || {
        server.get("file") == content
    });
    drop(reader);
    // Who opens it now meets it as well.
    let late = File::open(mount.path("file")).unwrap();
    assert!(all_of(&late) == content);
    mount.sh("printf LATE | dd of=file bs=1 seek=50 conv=notrunc status=none");
    content[50..54].copy_from_slice(b"LATE");
    assert!(all_of(&late) == content && server.get("file") == content);
    drop(late);
    end(child);
    let open = || {
        let status = mount.ferryfs(&["status", "--json"]).stdout;
        let status = String::from_utf8_lossy(&status).into_owned();
        let (_, rest) = status.split_once("\"fetched_whole\"").unwrap();
        let (_, rest) = rest.split_once("\"open\":").unwrap();
        rest.trim_start().starts_with('0')
    };
    until("nobody has it any more", open);
    assert!(fs::read(mount.path("file")).unwrap() == content);
    mount.finish();
}

#[test]
fn what_was_synced_by_a_mapping_is_kept_when_the_mount_is_killed() {
    let server = Ftpd::start();
    let Some((mount, reader, mut content)) = with_reader(&server, "rw") else {
        return;
    };
    // With a writer the content is not whole before he has closed it.
    let writer = OpenOptions::new()
        .write(true)
        .open(mount.path("file"))
        .unwrap();
    let child = mapping(&mount, "m[5:9] = b'MMAP'\nsync()");
    let old = content.clone();
    content[5..9].copy_from_slice(b"MMAP");
    let killed = mount.kill();
    end(child);
    drop((reader, writer));
    let state = killed.local("state");
    let mut mount = killed.remount();
    mount.expect_log("ferryfs ended before the program that wrote it had closed it");
    let kept = lost(&state);
    assert!(kept.len() == 1 && fs::read(&kept[0]).unwrap() == content);
    assert!(server.get("file") == old);
    mount.finish();
}

#[test]
fn a_full_disk_is_told_to_the_writer_and_nobody_reads_anything_else() {
    let server = Ftpd::start();
    let Some(small) = SmallDisk::ext4("40m") else {
        return skip("no filesystem can be made");
    };
    let content = bytes(SIZE);
    put(&server, "file", &content, 40);
    let at = small.path().display();
    let options = format!("state_dir={at}/state,cache_dir={at}/cache,cache_size=16M");
    let mounting = mounting(&server)
        .option("dir_cache=1s")
        .option(options)
        .expect_log("No space left");
    if let Some(mount) = mounting.start() {
        assert!(fs::read(mount.path("file")).unwrap() == content);
        thread::sleep(Duration::from_secs(2));
        drop(File::open(mount.path("file")).unwrap());
        if lent(&mount).is_none() {
            return mount.finish();
        }
        let reader = open_lent(&mount, "file");
        let full = small.path().join("full");
        let filled = fs::write(&full, vec![1; 40 << 20]);
        assert!(filled.is_err());
        let (status, said) =
            mount.try_sh("dd if=/dev/zero of=file bs=1M seek=3 count=2 conv=notrunc");
        assert!(!status.success() && said.contains("No space"), "{said}");
        // What is there can be overwritten.
        assert!(all_of(&reader)[..SIZE] == content[..SIZE]);
        fs::remove_file(&full).unwrap();
        mount.sh("truncate -s 3000001 file");
        assert!(all_of(&reader) == server.get("file"));
        mount.sh("dd if=/dev/zero of=file bs=1M seek=3 count=2 conv=notrunc status=none");
        assert!(all_of(&reader) == server.get("file"));
        assert_eq!(server.get("file").len(), 5 << 20);
        drop(reader);
        mount.finish();
    }
    small.unmount();
}

#[test]
fn locks_hold_between_readers_and_writers_and_holes_are_told() {
    let server = Ftpd::start();
    let Some((mount, reader, _)) = with_reader(&server, "rw") else {
        return;
    };
    let before = lent(&mount).unwrap();
    mount.sh(
        "python3 -c '
import fcntl, os, subprocess, sys
reader = open(\"file\", \"rb\")
def refused(command, mode):
    code = f\"import fcntl; f = open(\\\"file\\\", \\\"{mode}\\\"); fcntl.{command}(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\"
    return subprocess.run([sys.executable, \"-c\", code], stderr=subprocess.DEVNULL).returncode != 0
for command in (\"flock\", \"lockf\"):
    for mode in (\"ab\", \"r+b\"):
        assert not refused(command, mode)
        getattr(fcntl, command)(reader, fcntl.LOCK_SH)
        assert refused(command, mode), (command, mode)
        getattr(fcntl, command)(reader, fcntl.LOCK_UN)
writer = os.open(\"file\", os.O_WRONLY)
os.pwrite(writer, b\"end\", 5000000)
assert reader.seek(0, os.SEEK_END) == 5000003
assert os.lseek(reader.fileno(), 4999990, os.SEEK_DATA) >= 4999990
assert os.lseek(reader.fileno(), 0, os.SEEK_HOLE) <= 5000003
assert os.fstat(reader.fileno()).st_ino == os.fstat(writer).st_ino == os.stat(\"file\").st_ino
now = os.fstat(reader.fileno()).st_mtime
assert abs(now - __import__(\"time\").time()) < 10, now
'",
    );
    assert!(lent(&mount).unwrap() > before + 8);
    assert!(all_of(&reader) == server.get("file"));
    drop(reader);
    mount.finish();
}

#[test]
fn what_another_client_changes_meanwhile_is_a_conflict_as_ever() {
    let server = Ftpd::start();
    let Some((mut mount, reader, mut content)) = with_reader(&server, "rw") else {
        return;
    };
    mount.expect_log("somebody else has changed it, too");
    let writer = OpenOptions::new()
        .write(true)
        .open(mount.path("file"))
        .unwrap();
    let others = bytes(SIZE + 9);
    put(&server, "file", &others, 30);
    thread::sleep(Duration::from_millis(1200));
    // It is being written here, so that is what everybody sees here.
    assert!(fs::read(mount.path("file")).unwrap() == content);
    writer.write_all_at(b"ours", 0).unwrap();
    content[..4].copy_from_slice(b"ours");
    let closed = writer.sync_all();
    assert!(all_of(&reader) == content);
    drop((writer, reader));
    assert!(closed.is_ok(), "{closed:?}");
    let names: Vec<_> = fs::read_dir(server.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let kept = names.iter().find(|name| name.starts_with("file.conflict-"));
    let kept = kept.unwrap_or_else(|| panic!("{names:?}"));
    let both = [server.get("file"), server.get(kept)];
    assert!(both.contains(&others) && both.contains(&content));
    // With nobody left, the other version is found.
    thread::sleep(Duration::from_millis(1200));
    assert!(fs::read(mount.path("file")).unwrap() == server.get("file"));
    mount.finish();
}

#[test]
fn what_is_removed_or_moved_while_it_is_written_stays_with_those_who_have_it() {
    let server = Ftpd::start();
    let Some((mount, reader, mut content)) = with_reader(&server, "rw") else {
        return;
    };
    let writer = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.path("file"))
        .unwrap();
    writer.write_all_at(b"one", 0).unwrap();
    mount.sh("mkdir d; mv file d/moved; mv d e");
    writer.write_all_at(b"two", 100).unwrap();
    content[..3].copy_from_slice(b"one");
    content[100..103].copy_from_slice(b"two");
    assert!(all_of(&reader) == content && all_of(&writer) == content);
    writer.sync_all().unwrap();
    assert!(server.get("e/moved") == content);
    assert_eq!(
        reader.metadata().unwrap().ino(),
        fs::metadata(mount.path("e/moved")).unwrap().ino()
    );
    fs::remove_file(mount.path("e/moved")).unwrap();
    writer.write_all_at(b"three", 200).unwrap();
    content[200..205].copy_from_slice(b"three");
    assert!(all_of(&reader) == content && all_of(&writer) == content);
    drop((writer, reader));
    assert_eq!(mount.sh("ls -A e"), "");
    assert!(!server.path("e/moved").exists());
    mount.finish();
}

/// The cache has no name for it any more when the writer comes.
#[test]
fn a_file_that_has_moved_is_written_for_its_readers_all_the_same() {
    let server = Ftpd::start();
    let Some((mount, reader, mut content)) = with_reader(&server, "rw") else {
        return;
    };
    mount.sh("mkdir d; mv file d/moved; mv d e; echo more >> e/moved");
    content.extend(b"more\n");
    assert!(all_of(&reader) == content && server.get("e/moved") == content);
    drop(reader);
    mount.finish();
}

#[test]
fn databases_and_repositories_work_beside_readers() {
    let server = Ftpd::start();
    let Some(mount) = mounting(&server).option("dir_cache=1s").start() else {
        return;
    };
    let before = lent(&mount);
    let said = mount.sh(
        "set -e
        python3 - <<'END'
import sqlite3
db = sqlite3.connect('db')
db.execute('create table t (n integer primary key, x blob)')
db.executemany('insert into t values (?, randomblob(3000))', [(n,) for n in range(700)])
db.commit()
END
        touch -d '40 days ago' db
        for n in 1 2 3; do cat db > /dev/null; sleep 1; done
        exec 3< db
        python3 - <<'END'
import os, sqlite3, subprocess, sys
reader = sqlite3.connect('file:db?mode=ro', uri=True)
writer = sqlite3.connect('db', timeout=20)
for n in range(5):
    writer.execute('update t set x = ? where n = ?', (b'%d' % n, 100 * n))
    writer.execute('insert into t values (?, ?)', (1000 + n, b'new'))
    writer.commit()
    assert reader.execute('select count(*) from t').fetchone() == (701 + n,)
    assert reader.execute('select x from t where n = ?', (100 * n,)).fetchone() == (b'%d' % n,)
    writer.execute('pragma mmap_size=100000000')
assert reader.execute('pragma integrity_check').fetchone() == ('ok',)
END
        cat <&3 > $HOME/seen; cmp $HOME/seen db
        exec 3<&-
        test $(sqlite3 db 'select count(*) from t' 2>/dev/null || echo 705) = 705
        git init -q r; cd r; git config user.email a@b; git config user.name a
        head -c 3000000 /dev/urandom > big; git add big; git commit -qm one
        touch -d '40 days ago' big; for n in 1 2 3; do cat big > /dev/null; sleep 1; done
        exec 4< big
        echo more >> big; git commit -qam two; git gc -q; git fsck --full
        cat <&4 > $HOME/seen; cmp $HOME/seen big; exec 4<&-
        git checkout -q HEAD~1 -- big; git status --short; cd ..
        export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_BASE_DIR=$HOME/borg
        if command -v borg > /dev/null; then
            borg init -e none b; borg create b::one r
            find b/data -type f -size +1M -exec touch -d '40 days ago' {} +
            for n in 1 2 3; do find b/data -type f -exec cat {} + > /dev/null; sleep 1; done
            echo x >> r/big; borg create b::two r; borg check --verify-data b; borg delete b::one; borg compact b
            borg check b; echo borg
        fi",
    );
    println!("{said} {before:?} {:?}", lent(&mount));
    mount.finish();
}
