//! One system call after the other, in the manner of sshfs' own suite.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{self as unix, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::Stage;

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

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

pub(super) fn mkdir(stage: &Stage) {
    fs::create_dir(stage.path("dir")).unwrap();
    assert!(stage.there("dir").is_dir());
    assert!(stage.path("dir").metadata().unwrap().is_dir());
    assert_eq!(names(&stage.path("dir")), set(&[]));
    let err = fs::create_dir(stage.path("dir")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::AlreadyExists);
    let err = fs::create_dir(stage.path("missing/dir")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    fs::create_dir_all(stage.path("dir/a/b/c")).unwrap();
    assert!(stage.there("dir/a/b/c").is_dir());
}

pub(super) fn rmdir(stage: &Stage) {
    fs::create_dir_all(stage.path("dir/below")).unwrap();
    fs::write(stage.path("file"), "").unwrap();
    let kind = |path: &str| fs::remove_dir(stage.path(path)).unwrap_err().kind();
    assert_eq!(kind("dir"), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind("file"), ErrorKind::NotADirectory);
    assert_eq!(kind("missing"), ErrorKind::NotFound);
    fs::remove_dir(stage.path("dir/below")).unwrap();
    fs::remove_dir(stage.path("dir")).unwrap();
    assert!(!stage.there("dir").exists());
    assert_eq!(names(&stage.path("")), set(&["file"]));
}

pub(super) fn unlink(stage: &Stage) {
    stage.put("file", "content");
    fs::remove_file(stage.path("file")).unwrap();
    assert!(!stage.there("file").exists());
    let err = fs::metadata(stage.path("file")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert_eq!(
        fs::remove_file(stage.path("file")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    fs::create_dir(stage.path("dir")).unwrap();
    assert_eq!(
        fs::remove_file(stage.path("dir")).unwrap_err().kind(),
        ErrorKind::IsADirectory
    );
    assert_eq!(names(&stage.path("")), set(&["dir"]));
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
    assert_eq!(names(&stage.there("")), set(&[]));
    assert_eq!(names(&stage.path("")), set(&[]));

    let mut file = File::create_new(stage.path("born")).unwrap();
    file.write_all(b"and dead").unwrap();
    fs::remove_file(stage.path("born")).unwrap();
    file.write_all(b" at once").unwrap();
    drop(file);
    assert_eq!(names(&stage.there("")), set(&[]));
}

pub(super) fn symlink(stage: &Stage) {
    fs::create_dir(stage.there("dir")).unwrap();
    unix::symlink("../file", stage.there("dir/link")).unwrap();
    unix::symlink("nowhere", stage.there("dir/dangling")).unwrap();
    stage.put("file", "content");
    assert_eq!(fs::read(stage.path("dir/link")).unwrap(), b"content");
    // pyftpdlib shows links as what they point to, and dangling ones not at all.
    if stage.server.name() != "pyftpdlib" {
        assert!(
            stage
                .path("dir/link")
                .symlink_metadata()
                .unwrap()
                .is_symlink()
        );
        assert_eq!(
            fs::read_link(stage.path("dir/link")).unwrap(),
            Path::new("../file")
        );
        assert_eq!(
            fs::read_link(stage.path("dir/dangling")).unwrap(),
            Path::new("nowhere")
        );
        fs::remove_file(stage.path("dir/link")).unwrap();
        assert!(stage.there("dir/link").symlink_metadata().is_err());
        assert_eq!(fs::read(stage.there("file")).unwrap(), b"content");
    }
    let made = unix::symlink("file", stage.path("made"));
    if stage.makes_links() {
        made.unwrap();
        assert_eq!(
            fs::read_link(stage.there("made")).unwrap(),
            Path::new("file")
        );
        assert_eq!(
            fs::read_link(stage.path("made")).unwrap(),
            Path::new("file")
        );
        assert_eq!(fs::read(stage.path("made")).unwrap(), b"content");
    } else {
        let err = made.unwrap_err();
        let allowed = [Errno::PERM.raw_os_error(), Errno::OPNOTSUPP.raw_os_error()];
        assert!(allowed.contains(&err.raw_os_error().unwrap()), "{err}");
    }
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

pub(super) fn link(stage: &Stage) {
    stage.put("file", "x");
    let err = fs::hard_link(stage.path("file"), stage.path("other")).unwrap_err();
    let allowed = [Errno::PERM.raw_os_error(), Errno::OPNOTSUPP.raw_os_error()];
    assert!(allowed.contains(&err.raw_os_error().unwrap()), "{err}");
    assert!(!stage.there("other").exists());
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

pub(super) fn readdir(stage: &Stage) {
    fs::create_dir_all(stage.path("dir/sub")).unwrap();
    fs::write(stage.path("dir/file"), "").unwrap();
    fs::write(stage.path("dir/.hidden"), "").unwrap();
    assert_eq!(names(&stage.path("dir")), set(&["sub", "file", ".hidden"]));
    let all = stage.mount.sh("ls -a dir");
    assert_eq!(
        all.lines().collect::<Vec<_>>(),
        [".", "..", ".hidden", "file", "sub"]
    );
    let types: Vec<_> = fs::read_dir(stage.path("dir"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name() == "sub",
                entry.file_type().unwrap().is_dir(),
            )
        })
        .collect();
    assert!(
        types.iter().all(|(is_sub, is_dir)| is_sub == is_dir),
        "{types:?}"
    );
    assert_eq!(
        fs::read_dir(stage.path("dir/file")).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        fs::read_dir(stage.path("missing")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

pub(super) fn readdir_repeated(stage: &Stage) {
    for n in 0..300 {
        fs::write(stage.there(&format!("file{n}")), "").unwrap();
    }
    // rewinddir(3) on one descriptor, which std does not offer.
    let counts = stage.mount.sh("python3 -c 'import os
fd = os.open(\".\", os.O_RDONLY)
print([len(os.listdir(fd)) for _ in range(3)])'");
    assert_eq!(counts, "[300, 300, 300]\n");
    for _ in 0..3 {
        assert_eq!(names(&stage.path("")).len(), 300);
    }
}

pub(super) fn readdir_sees_changes(stage: &Stage) {
    for n in 0..20 {
        fs::write(stage.path(&format!("a{n}")), "").unwrap();
        assert_eq!(names(&stage.path("")).len(), n + 1);
    }
    for n in 0..20 {
        fs::rename(stage.path(&format!("a{n}")), stage.path(&format!("b{n}"))).unwrap();
        assert!(!names(&stage.path("")).contains(&format!("a{n}")));
    }
    for n in 0..20 {
        fs::remove_file(stage.path(&format!("b{n}"))).unwrap();
        assert_eq!(names(&stage.path("")).len(), 19 - n);
    }
}

pub(super) fn statvfs(stage: &Stage) {
    let about = rustix::fs::statvfs(stage.path("")).unwrap();
    assert_eq!(about.f_namemax, 255);
    assert!(about.f_bsize > 0);
    // df and cp ask before they begin, and may not be frightened.
    stage.mount.sh("df . && stat -f .");
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

pub(super) fn rename(stage: &Stage) {
    stage.put("file", "content");
    fs::create_dir(stage.path("dir")).unwrap();
    fs::rename(stage.path("file"), stage.path("dir/other")).unwrap();
    assert_eq!(fs::read(stage.there("dir/other")).unwrap(), b"content");
    assert!(!stage.there("file").exists());
    assert_eq!(fs::read(stage.path("dir/other")).unwrap(), b"content");
    assert_eq!(
        fs::metadata(stage.path("file")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let err = fs::rename(stage.path("missing"), stage.path("x")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    let err = fs::rename(stage.path("dir/other"), stage.path("missing/x")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
}

pub(super) fn rename_over(stage: &Stage) {
    fs::write(stage.path("old"), "old content").unwrap();
    fs::write(stage.path("new"), "new").unwrap();
    fs::rename(stage.path("new"), stage.path("old")).unwrap();
    assert_eq!(fs::read(stage.there("old")).unwrap(), b"new");
    assert_eq!(fs::read(stage.path("old")).unwrap(), b"new");
    assert_eq!(names(&stage.there("")), set(&["old"]));
    fs::create_dir(stage.path("dir")).unwrap();
    let err = fs::rename(stage.path("old"), stage.path("dir")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::IsADirectory);
    let err = fs::rename(stage.path("dir"), stage.path("old")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotADirectory);
}

pub(super) fn rename_directory(stage: &Stage) {
    fs::create_dir_all(stage.path("dir/sub")).unwrap();
    fs::write(stage.path("dir/sub/file"), "content").unwrap();
    fs::rename(stage.path("dir"), stage.path("other")).unwrap();
    assert_eq!(fs::read(stage.there("other/sub/file")).unwrap(), b"content");
    assert_eq!(fs::read(stage.path("other/sub/file")).unwrap(), b"content");
    let err = fs::metadata(stage.path("dir/sub")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    fs::create_dir_all(stage.path("full/x")).unwrap();
    let err = fs::rename(stage.path("other"), stage.path("full")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::DirectoryNotEmpty);
    let err = fs::rename(stage.path("other"), stage.path("other/sub/deeper")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InvalidInput);
}

pub(super) fn rename_noreplace(stage: &Stage) {
    stage.put("a", "a");
    stage.put("b", "b");
    let renamed = |to: &str, flags| renameat_with(CWD, stage.path("a"), CWD, stage.path(to), flags);
    assert_eq!(renamed("b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(renamed("b", RenameFlags::EXCHANGE), Err(Errno::INVAL));
    assert_eq!(fs::read(stage.there("b")).unwrap(), b"b");
    renamed("c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(stage.there("c")).unwrap(), b"a");
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
    stage.mount.sh("python3 -c 'import fcntl
f = open(\"file\", \"r+\")
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)'");
}

pub(super) fn special_files(stage: &Stage) {
    for command in ["mkfifo fifo", "mknod device c 1 3"] {
        let (status, said) = stage.mount.try_sh(command);
        assert!(!status.success());
        let refused = said.contains("not permitted") || said.contains("not supported");
        assert!(refused, "{said}");
    }
    assert_eq!(names(&stage.there("")), set(&[]));
}
