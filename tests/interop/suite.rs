//! The 29 functions that sshfs' own suite has, said in our words, on one mount with its caches on.
//! Three ask for what FTP has not; those must fail with the errno that the manual names.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{self as unix, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::Stage;
use super::entries::{names, set};

/// A directory of the function's own, in the mount and on the server's disk.
struct Place<'a> {
    stage: &'a Stage,
    here: PathBuf,
    there: PathBuf,
}

impl Place<'_> {
    fn here(&self, name: &str) -> PathBuf {
        self.here.join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.there.join(name)
    }

    /// A file that the server has before anybody looks.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.there(name), content).unwrap();
        self.stage.server.give_all_to_the_user();
    }
}

const TEXT: &str = include_str!("suite.rs");

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

fn gone(path: &Path) {
    assert_eq!(errno(path.symlink_metadata()), Errno::NOENT);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(!names(path.parent().unwrap()).contains(name));
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

type Function = fn(&Place<'_>);

const FUNCTIONS: [(&str, Function); 29] = [
    ("statvfs", |p| {
        let about = rustix::fs::statvfs(&p.here).unwrap();
        assert!(about.f_bsize > 0 && about.f_blocks > 0 && about.f_namemax == 255);
    }),
    ("readdir", |p| {
        fs::create_dir_all(p.there("dir/sub")).unwrap();
        p.put("dir/file", "x");
        p.put("dir/sub/file", "x");
        assert_eq!(names(&p.here("dir")), set(&["file", "sub"]));
        assert_eq!(names(&p.here("dir/sub")), set(&["file"]));
    }),
    ("open_read", |p| {
        p.put("file", TEXT);
        assert_eq!(text(&p.here("file")), TEXT);
    }),
    ("open_write", |p| {
        p.put("file", "");
        fs::write(p.here("file"), TEXT).unwrap();
        assert_eq!(text(&p.here("file")), TEXT);
        assert_eq!(text(&p.there("file")), TEXT);
    }),
    ("append", |p| {
        p.put("file", "");
        let how = |append| {
            OpenOptions::new()
                .write(true)
                .append(append)
                .open(p.here("file"))
        };
        how(false).unwrap().write_all(b"foo\n").unwrap();
        how(true).unwrap().write_all(b"bar\n").unwrap();
        assert_eq!(text(&p.here("file")), "foo\nbar\n");
    }),
    ("seek", |p| {
        p.put("file", "");
        for (offset, words) in [(1, "foobar\n"), (4, "com")] {
            let mut file = OpenOptions::new().write(true).open(p.here("file")).unwrap();
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.write_all(words.as_bytes()).unwrap();
        }
        assert_eq!(text(&p.here("file")), "\0foocom\n");
    }),
    ("create", |p| {
        let path = p.here("file");
        gone(&path);
        File::create_new(&path).unwrap();
        assert_eq!(names(&p.here), set(&["file"]));
        let about = path.symlink_metadata().unwrap();
        assert!(about.is_file() && about.nlink() == 1 && about.len() == 0);
    }),
    ("passthrough", |p| {
        // What either side makes, the other has.
        File::create_new(p.here("ours")).unwrap();
        assert_eq!(names(&p.there), set(&["ours"]));
        assert_eq!(names(&p.here), set(&["ours"]));
        p.put("theirs", "");
        thread::sleep(Duration::from_millis(5200));
        assert_eq!(names(&p.here), set(&["ours", "theirs"]));
        assert!(p.here("theirs").metadata().unwrap().is_file());
    }),
    ("mkdir", |p| {
        fs::create_dir(p.here("dir")).unwrap();
        let about = p.here("dir").metadata().unwrap();
        assert!(about.is_dir() && [1, 2].contains(&about.nlink()));
        assert_eq!(names(&p.here("dir")), set(&[]));
        assert_eq!(names(&p.here), set(&["dir"]));
    }),
    ("rmdir", |p| {
        fs::create_dir(p.there("dir")).unwrap();
        p.stage.server.give_all_to_the_user();
        assert_eq!(names(&p.here), set(&["dir"]));
        fs::remove_dir(p.here("dir")).unwrap();
        gone(&p.here("dir"));
        gone(&p.there("dir"));
    }),
    ("rename", |p| {
        fs::write(p.here("a"), "data").unwrap();
        fs::rename(p.here("a"), p.here("b")).unwrap();
        gone(&p.here("a"));
        assert_eq!(names(&p.here), set(&["b"]));
        assert_eq!(text(&p.here("b")), "data");
        fs::remove_file(p.here("b")).unwrap();
    }),
    ("rename_over", |p| {
        fs::write(p.here("a"), "new").unwrap();
        fs::write(p.here("b"), "what was there").unwrap();
        fs::rename(p.here("a"), p.here("b")).unwrap();
        gone(&p.here("a"));
        assert_eq!(text(&p.here("b")), "new");
        fs::remove_file(p.here("b")).unwrap();
    }),
    ("chmod", |p| {
        fs::write(p.here("file"), "x").unwrap();
        for mode in [0o644, 0o755] {
            fs::set_permissions(p.here("file"), Permissions::from_mode(mode)).unwrap();
            assert_eq!(p.here("file").metadata().unwrap().mode() & 0o7777, mode);
        }
    }),
    ("fsync", |p| {
        let mut file = File::create_new(p.here("file")).unwrap();
        file.write_all(b"data").unwrap();
        file.sync_all().unwrap();
        // Not closed yet.
        assert_eq!(text(&p.there("file")), "data");
        drop(file);
        fs::remove_file(p.here("file")).unwrap();
    }),
    ("unlink", |p| {
        p.put("file", "hello");
        assert_eq!(names(&p.here), set(&["file"]));
        fs::remove_file(p.here("file")).unwrap();
        gone(&p.here("file"));
        gone(&p.there("file"));
    }),
    ("symlink", |p| {
        unix::symlink("/imaginary/dest", p.here("link")).unwrap();
        let target = fs::read_link(p.here("link")).unwrap();
        assert_eq!(target, Path::new("/imaginary/dest"));
    }),
    ("chown", |p| {
        fs::create_dir(p.here("dir")).unwrap();
        let uid = p.here("dir").metadata().unwrap().uid() + 1;
        unix::chown(p.here("dir"), Some(uid), None).unwrap();
        assert_eq!(p.here("dir").metadata().unwrap().uid(), uid);
    }),
    ("utimens", |p| {
        fs::write(p.here("file"), "x").unwrap();
        let time = UNIX_EPOCH + Duration::from_millis(1_234_567_890_600);
        let file = OpenOptions::new().write(true).open(p.here("file")).unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        for path in [p.here("file"), p.there("file")] {
            let found = path.metadata().unwrap().modified().unwrap();
            assert!(time.duration_since(found).unwrap() < Duration::from_secs(1));
        }
    }),
    ("utimens_now", |p| {
        let before = SystemTime::now() - Duration::from_secs(2);
        fs::write(p.here("file"), "x").unwrap();
        p.stage.mount.sh("touch utimens_now/file");
        let found = p.here("file").metadata().unwrap();
        assert!(found.modified().unwrap() > before && found.accessed().unwrap() > before);
    }),
    ("link", |p| {
        fs::write(p.here("a"), TEXT).unwrap();
        assert_eq!(p.here("a").metadata().unwrap().nlink(), 1);
        fs::hard_link(p.here("a"), p.here("b")).unwrap();
        assert_eq!(text(&p.here("b")), TEXT);
    }),
    ("truncate_path", |p| {
        let size = TEXT.len() as u64;
        p.put("file", TEXT);
        let cut = |len: u64| {
            p.stage
                .mount
                .sh(&format!("truncate -s {len} truncate_path/file"));
            assert_eq!(p.here("file").metadata().unwrap().len(), len);
        };
        cut(size + 1024);
        assert_eq!(
            text(&p.here("file")),
            format!("{TEXT}{}", "\0".repeat(1024))
        );
        cut(size - 1024);
        assert_eq!(text(&p.here("file")), TEXT[..TEXT.len() - 1024]);
    }),
    ("truncate_fd", |p| {
        let mut file = File::create_new(p.here("file")).unwrap();
        file.write_all(TEXT.as_bytes()).unwrap();
        let size = TEXT.len() as u64;
        for (len, expected) in [
            (size + 1024, format!("{TEXT}{}", "\0".repeat(1024))),
            (size - 1024, TEXT[..TEXT.len() - 1024].to_owned()),
        ] {
            file.set_len(len).unwrap();
            assert_eq!(file.metadata().unwrap().len(), len);
            file.rewind().unwrap();
            let mut found = String::new();
            file.read_to_string(&mut found).unwrap();
            assert!(found == expected, "{len}");
        }
    }),
    ("open_unlink", |p| {
        let mut file = File::create_new(p.here("file")).unwrap();
        file.write_all(b"foo").unwrap();
        fs::remove_file(p.here("file")).unwrap();
        gone(&p.here("file"));
        file.write_all(b"bar").unwrap();
        file.rewind().unwrap();
        let mut found = String::new();
        file.read_to_string(&mut found).unwrap();
        assert_eq!(found, "foobar");
    }),
    ("open_writeonly_read", |p| {
        let how = OpenOptions::new().write(true).create_new(true).clone();
        let mut file = how.open(p.here("file")).unwrap();
        file.write_all(b"hello").unwrap();
        assert_eq!(errno(file.read(&mut [0; 10])), Errno::BADF);
    }),
    ("access", |p| {
        let how = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .clone();
        how.open(p.here("file"))
            .unwrap()
            .write_all(b"test")
            .unwrap();
        access(p.here("file"), Access::READ_OK).unwrap();
    }),
    ("mkdir_exist", |p| {
        fs::create_dir(p.here("dir")).unwrap();
        assert_eq!(errno(fs::create_dir(p.here("dir"))), Errno::EXIST);
        fs::remove_dir(p.here("dir")).unwrap();
    }),
    ("readdir_repeated", |p| {
        let all = ["a", "b", "c", "d", "e"];
        fs::create_dir(p.here("dir")).unwrap();
        all.iter()
            .for_each(|name| fs::write(p.here("dir").join(name), "x").unwrap());
        for _ in 0..2 {
            assert_eq!(names(&p.here("dir")), set(&all));
        }
        fs::remove_dir_all(p.here("dir")).unwrap();
    }),
    ("rename_sibling", |p| {
        fs::write(p.here("a"), "aaa").unwrap();
        fs::write(p.here("b"), "bbb").unwrap();
        fs::rename(p.here("a"), p.here("c")).unwrap();
        gone(&p.here("a"));
        assert_eq!(text(&p.here("b")), "bbb");
    }),
    ("rename_open_release", |p| {
        let mut file = File::create_new(p.here("a")).unwrap();
        file.write_all(b"data").unwrap();
        fs::rename(p.here("a"), p.here("b")).unwrap();
        drop(file);
        gone(&p.here("a"));
        assert_eq!(text(&p.here("b")), "data");
    }),
];

pub(super) fn twenty_nine_functions(stage: &Stage) {
    for (name, _) in FUNCTIONS {
        fs::create_dir(stage.there(name)).unwrap();
    }
    stage.server.give_all_to_the_user();
    let holds = |(name, function): &(&str, Function)| {
        let (here, there) = (stage.path(name), stage.there(name));
        let place = Place { stage, here, there };
        catch_unwind(AssertUnwindSafe(|| function(&place))).is_ok()
    };
    let failed: Vec<_> = FUNCTIONS
        .iter()
        .filter(|f| !holds(f))
        .map(|f| f.0)
        .collect();
    let held = FUNCTIONS.len() - failed.len();
    println!(
        "{}: {held} of 29 hold; not: {failed:?}",
        stage.server.name()
    );
    assert_eq!(failed, ["symlink", "chown", "link"]);
    // As the manual says.
    let made = unix::symlink("/imaginary/dest", stage.path("symlink/link"));
    assert!([Errno::PERM, Errno::OPNOTSUPP, Errno::ACCESS].contains(&errno(made)));
    let owned = unix::chown(stage.path("chown/dir"), Some(4711), None);
    assert_eq!(errno(owned), Errno::PERM);
    let linked = fs::hard_link(stage.path("link/a"), stage.path("link/b"));
    assert_eq!(errno(linked), Errno::PERM);
}
