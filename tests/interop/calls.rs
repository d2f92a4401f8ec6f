//! One system call after the other, in the manner of sshfs' own suite: files and what is in them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{self as unix, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Stage;
use super::entries::{names, set};

pub(super) fn create(stage: &Stage) {
    let file = File::create(stage.path("new")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    assert!(names(&stage.path("")).contains("new"));
    drop(file);
    assert!(stage.path("new").metadata().unwrap().is_file());
    assert_eq!(stage.there("new").metadata().unwrap().len(), 0);
}

pub(super) fn create_exclusive(stage: &Stage) {
    stage.put("there", "old");
    let err = File::create_new(stage.path("there")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::AlreadyExists);
    File::create_new(stage.path("new"))
        .unwrap()
        .write_all(b"new")
        .unwrap();
    assert_eq!(fs::read(stage.there("there")).unwrap(), b"old");
    assert_eq!(fs::read(stage.there("new")).unwrap(), b"new");
}

pub(super) fn open_missing(stage: &Stage) {
    stage.put("file", "");
    for path in ["missing", "missing/below"] {
        assert_eq!(
            File::open(stage.path(path)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            fs::metadata(stage.path(path)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    let err = File::create(stage.path("missing/below")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    let err = File::open(stage.path("file/below")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotADirectory);
    let err = OpenOptions::new()
        .write(true)
        .open(stage.path(""))
        .unwrap_err();
    assert_eq!(err.kind(), ErrorKind::IsADirectory);
}

pub(super) fn read(stage: &Stage) {
    let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    stage.put("file", &content);
    assert_eq!(fs::read(stage.path("file")).unwrap(), content);
    let file = File::open(stage.path("file")).unwrap();
    let mut part = [0; 1000];
    for offset in [199_000, 0, 100_001, 3] {
        file.read_exact_at(&mut part, offset).unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert_eq!(part[..], content[offset..offset + 1000]);
    }
    assert_eq!(file.read_at(&mut part, 199_900).unwrap(), 100);
    assert_eq!(file.read_at(&mut part, 200_000).unwrap(), 0);
}

pub(super) fn write(stage: &Stage) {
    let content = b"some content\n".repeat(10_000);
    fs::write(stage.path("file"), &content).unwrap();
    assert_eq!(fs::read(stage.there("file")).unwrap(), content);
    assert_eq!(fs::read(stage.path("file")).unwrap(), content);
    fs::write(stage.path("file"), "short").unwrap();
    assert_eq!(fs::read(stage.there("file")).unwrap(), b"short");
    assert_eq!(names(&stage.path("")), set(&["file"]));
}

pub(super) fn append(stage: &Stage) {
    stage.put("file", "one\n");
    for word in ["two\n", "three\n"] {
        let mut file = OpenOptions::new()
            .append(true)
            .open(stage.path("file"))
            .unwrap();
        file.write_all(word.as_bytes()).unwrap();
        drop(file);
    }
    assert_eq!(fs::read(stage.there("file")).unwrap(), b"one\ntwo\nthree\n");
    let mut made = OpenOptions::new()
        .append(true)
        .create(true)
        .open(stage.path("new"))
        .unwrap();
    made.write_all(b"first").unwrap();
    drop(made);
    assert_eq!(fs::read(stage.there("new")).unwrap(), b"first");
}

pub(super) fn two_appenders(stage: &Stage) {
    stage.put("file", "");
    let open = || {
        OpenOptions::new()
            .append(true)
            .open(stage.path("file"))
            .unwrap()
    };
    let (mut a, mut b) = (open(), open());
    for _ in 0..3 {
        a.write_all(b"a").unwrap();
        b.write_all(b"b").unwrap();
    }
    drop((a, b));
    assert_eq!(fs::read(stage.there("file")).unwrap(), b"ababab");
}

pub(super) fn seek(stage: &Stage) {
    let mut file = File::create_new(stage.path("file")).unwrap();
    file.seek(SeekFrom::Start(5)).unwrap();
    file.write_all(b"com").unwrap();
    file.seek(SeekFrom::Start(1)).unwrap();
    file.write_all(b"fub").unwrap();
    drop(file);
    assert_eq!(fs::read(stage.there("file")).unwrap(), b"\0fub\0com");
    assert_eq!(fs::read(stage.path("file")).unwrap(), b"\0fub\0com");
}

pub(super) fn truncate_path(stage: &Stage) {
    let content: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    stage.put("file", &content);
    let truncate = |size: &str| stage.mount.sh(&format!("truncate -s {size} file"));
    truncate("200000");
    assert_eq!(stage.path("file").metadata().unwrap().len(), 200_000);
    let longer = fs::read(stage.there("file")).unwrap();
    assert_eq!(longer.len(), 200_000);
    assert_eq!(longer[..100_000], content[..]);
    assert!(longer[100_000..].iter().all(|b| *b == 0));
    truncate("70000");
    assert_eq!(fs::read(stage.there("file")).unwrap(), content[..70_000]);
    truncate("0");
    assert_eq!(stage.there("file").metadata().unwrap().len(), 0);
    assert_eq!(stage.path("file").metadata().unwrap().len(), 0);
}

pub(super) fn truncate_open_file(stage: &Stage) {
    stage.put("file", "0123456789");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(stage.path("file"))
        .unwrap();
    file.set_len(4).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
    file.set_len(6).unwrap();
    let mut all = Vec::new();
    (&file).read_to_end(&mut all).unwrap();
    assert_eq!(all, b"0123\0\0");
    file.write_all_at(b"x", 5).unwrap();
    drop(file);
    assert_eq!(fs::read(stage.there("file")).unwrap(), b"0123\0x");
}

pub(super) fn unlink_open_file(stage: &Stage) {
    stage.put("file", "old content");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(stage.path("file"))
        .unwrap();
    fs::remove_file(stage.path("file")).unwrap();
    let err = fs::metadata(stage.path("file")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    file.write_all(b"new").unwrap();
    file.rewind().unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "new content");
    drop(file);
    // No litter: neither the name nor one to hide the file under.
    stage.comes_to_have(&[]);
    assert_eq!(names(&stage.path("")), set(&[]));

    let mut file = File::create_new(stage.path("born")).unwrap();
    file.write_all(b"and dead").unwrap();
    fs::remove_file(stage.path("born")).unwrap();
    file.write_all(b" at once").unwrap();
    drop(file);
    stage.comes_to_have(&[]);
}

pub(super) fn create_with_mode(stage: &Stage) {
    for mode in [0o600, 0o640, 0o755] {
        let name = format!("file{mode:o}");
        let how = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .clone();
        how.open(stage.path(&name))
            .unwrap()
            .write_all(b"x")
            .unwrap();
        let shown = stage.path(&name).metadata().unwrap().mode() & 0o777;
        assert_eq!(format!("{shown:o}"), format!("{mode:o}"));
        let there = stage.there(&name).metadata().unwrap().mode() & 0o777;
        assert_eq!(format!("{there:o}"), format!("{mode:o}"));
    }
}

pub(super) fn chmod(stage: &Stage) {
    stage.put("file", "x");
    fs::create_dir(stage.path("dir")).unwrap();
    for name in ["file", "dir"] {
        for mode in [0o700, 0o644, 0o755] {
            fs::set_permissions(stage.path(name), Permissions::from_mode(mode)).unwrap();
            assert_eq!(stage.path(name).metadata().unwrap().mode() & 0o7777, mode);
            assert_eq!(stage.there(name).metadata().unwrap().mode() & 0o7777, mode);
        }
    }
}

pub(super) fn chown(stage: &Stage) {
    stage.put("file", "x");
    let path = stage.path("file");
    let now = path.metadata().unwrap();
    unix::chown(&path, Some(now.uid()), Some(now.gid())).unwrap();
    unix::chown(&path, None, None).unwrap();
    let err = unix::chown(&path, Some(now.uid() + 1), None).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::PermissionDenied, "{err}");
}

pub(super) fn utimens(stage: &Stage) {
    stage.put("file", "x");
    for seconds in [1_000_000_000, 1_752_345_678, 86_399] {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        let file = OpenOptions::new()
            .write(true)
            .open(stage.path("file"))
            .unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        assert_eq!(
            stage.path("file").metadata().unwrap().modified().unwrap(),
            time
        );
        assert_eq!(
            stage.there("file").metadata().unwrap().modified().unwrap(),
            time
        );
    }
    // The time that is set last wins over the writing before it.
    let time = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    let mut file = File::create(stage.path("written")).unwrap();
    file.write_all(b"x").unwrap();
    file.set_modified(time).unwrap();
    drop(file);
    assert_eq!(
        stage
            .there("written")
            .metadata()
            .unwrap()
            .modified()
            .unwrap(),
        time
    );
    assert_eq!(
        stage
            .path("written")
            .metadata()
            .unwrap()
            .modified()
            .unwrap(),
        time
    );
}

pub(super) fn utimens_now(stage: &Stage) {
    let before = SystemTime::now() - Duration::from_secs(2);
    stage.put("file", "x");
    stage.mount.sh("touch -d @1000000000 file && touch file");
    let after = SystemTime::now() + Duration::from_secs(2);
    for path in [stage.path("file"), stage.there("file")] {
        let time = path.metadata().unwrap().modified().unwrap();
        assert!(before <= time && time <= after, "{time:?}");
    }
}

pub(super) fn mmap_read(stage: &Stage) {
    stage.put("file", "0123456789".repeat(5000));
    let found = stage.mount.sh("python3 -c 'import mmap
f = open(\"file\", \"rb\")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print(len(m), m[49990:].decode(), m.find(b\"90\", 20000))'");
    assert_eq!(found, "50000 0123456789 20009\n");
}

pub(super) fn mmap_write(stage: &Stage) {
    stage.put("file", "0123456789".repeat(1000));
    stage.mount.sh("python3 -c 'import mmap
f = open(\"file\", \"r+b\")
m = mmap.mmap(f.fileno(), 0)
m[5000:5005] = b\"hello\"
m.flush()
m[0:2] = b\"AB\"
m.close()
f.close()'");
    let content = fs::read_to_string(stage.there("file")).unwrap();
    assert_eq!(content.len(), 10_000);
    assert_eq!((&content[..4], &content[4999..5006]), ("AB23", "9hello5"));
}

pub(super) fn rename_open_file(stage: &Stage) {
    let mut file = File::create_new(stage.path("before")).unwrap();
    file.write_all(b"one ").unwrap();
    fs::rename(stage.path("before"), stage.path("after")).unwrap();
    file.write_all(b"two").unwrap();
    drop(file);
    assert_eq!(names(&stage.there("")), set(&["after"]));
    assert_eq!(fs::read(stage.there("after")).unwrap(), b"one two");
}

pub(super) fn open_write_close_stat(stage: &Stage) {
    for n in 1..20_u64 {
        let path = stage.path("file");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(file.metadata().unwrap().len(), n * 10);
        drop(file);
        assert_eq!(path.metadata().unwrap().len(), n * 10);
        assert_eq!(stage.there("file").metadata().unwrap().len(), n * 10);
    }
}

pub(super) fn two_handles(stage: &Stage) {
    stage.put("file", "0123456789");
    let writer = OpenOptions::new()
        .write(true)
        .open(stage.path("file"))
        .unwrap();
    let reader = File::open(stage.path("file")).unwrap();
    writer.write_all_at(b"abc", 3).unwrap();
    let mut all = [0; 10];
    reader.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"012abc6789");
    let by_name = stage.path("file").metadata().unwrap();
    assert_eq!(by_name.ino(), reader.metadata().unwrap().ino());
    drop((writer, reader));
    assert_eq!(fs::read(stage.there("file")).unwrap(), b"012abc6789");
}

pub(super) fn locks(stage: &Stage) {
    stage.put("file", "x");
    let (a, b) = (
        File::open(stage.path("file")).unwrap(),
        File::open(stage.path("file")).unwrap(),
    );
    flock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    let second = flock(&b, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(second, Err(Errno::WOULDBLOCK));
    flock(&a, FlockOperation::Unlock).unwrap();
    flock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
    // Between processes, and gone with the one that had it.
    let said = stage.mount.sh("python3 -c 'import fcntl, subprocess, sys
def lock():
    f = open(\"file\", \"r+\")
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return f
if len(sys.argv) > 1:
    lock()
    sys.exit()
other = [sys.executable, \"-c\", open(\"/proc/self/cmdline\").read().split(chr(0))[2], \"x\"]
kept = lock()
print(subprocess.run(other, stderr=subprocess.DEVNULL).returncode)
kept.close()
print(subprocess.run(other).returncode)'");
    assert_eq!(said, "1\n0\n");
}
