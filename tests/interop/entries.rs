//! One system call after the other, in the manner of sshfs' own suite: names and directories.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs as unix;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::Stage;

pub(super) fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

pub(super) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
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
        // The server has its own way to say where it leads.
        assert_eq!(
            fs::canonicalize(stage.there("made")).unwrap(),
            stage.there("file")
        );
        assert_eq!(
            fs::read_link(stage.path("made")).unwrap(),
            Path::new("file")
        );
        assert_eq!(fs::read(stage.path("made")).unwrap(), b"content");
        unix::symlink("../file", stage.path("dir/made")).unwrap();
        assert_eq!(fs::read(stage.there("dir/made")).unwrap(), b"content");
        assert_eq!(
            fs::read_link(stage.path("dir/made")).unwrap(),
            Path::new("../file")
        );
    } else {
        let err = made.unwrap_err();
        let allowed = [Errno::PERM.raw_os_error(), Errno::OPNOTSUPP.raw_os_error()];
        assert!(allowed.contains(&err.raw_os_error().unwrap()), "{err}");
    }
}

pub(super) fn link(stage: &Stage) {
    stage.put("file", "x");
    let err = fs::hard_link(stage.path("file"), stage.path("other")).unwrap_err();
    let allowed = [Errno::PERM.raw_os_error(), Errno::OPNOTSUPP.raw_os_error()];
    assert!(allowed.contains(&err.raw_os_error().unwrap()), "{err}");
    assert!(!stage.there("other").exists());
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
    assert!(about.f_bavail > 0, "borg would not begin");
    stage.mount.sh("df . && stat -f .");
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

pub(super) fn special_files(stage: &Stage) {
    for command in ["mkfifo fifo", "mknod device c 1 3"] {
        let (status, said) = stage.mount.try_sh(command);
        assert!(!status.success());
        let refused = said.contains("not permitted") || said.contains("not supported");
        assert!(refused, "{said}");
    }
    assert_eq!(names(&stage.there("")), set(&[]));
}
