//! What was read is kept: for the next reader, after `kill -9`, within its bounds, and never when
//! it is not the server's any more.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{TestMount, skip};

/// A file that was last changed `days` ago.
pub(super) fn put(server: &Ftpd, name: &str, content: &[u8], days: u64) {
    let path = server.put(name, content);
    let file = File::options().write(true).open(path).unwrap();
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    file.set_modified(then).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

fn cached_files(mount: &TestMount) -> Vec<PathBuf> {
    let mut all = files(&mount.local("cache"));
    all.retain(|path| path.file_name().unwrap().len() == 12);
    all
}

fn taken(mount: &TestMount) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let sizes = files(&mount.local("cache")).into_iter();
    let sizes = sizes.filter_map(|path| fs::metadata(path).ok());
    sizes.map(|data| data.blocks() * 512).sum()
}

/// The cache is filled behind the reader.
pub(super) fn until_taken(mount: &TestMount, least: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while taken(mount) < least {
        assert!(Instant::now() < deadline, "{} of {least}", taken(mount));
        thread::sleep(Duration::from_millis(20));
    }
    // The record of a block comes just behind it.
    thread::sleep(Duration::from_millis(300));
}

#[test]
fn what_was_read_is_there_after_a_crash_and_costs_the_server_nothing() {
    let server = Ftpd::start();
    let contents = [bytes(700_001), bytes(5000)];
    put(&server, "big", &contents[0], 40);
    put(&server, "small", &contents[1], 40);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    for (name, content) in ["big", "small"].iter().zip(&contents) {
        assert!(fs::read(mount.path(name)).unwrap() == *content);
    }
    until_taken(&mount, 700_001 + 5000);
    let mount = mount.kill().remount();
    server.clear_log();
    for (name, content) in ["big", "small"].iter().zip(&contents) {
        assert!(fs::read(mount.path(name)).unwrap() == *content);
    }
    assert_eq!(server.count("RETR"), 0, "{:?}", server.commands());
    let status = mount.ferryfs(&["status", "--json"]).stdout;
    assert!(String::from_utf8_lossy(&status).contains("\"hit_bytes\": 705001"));
    mount.finish();
}

#[test]
fn what_changed_on_the_server_is_not_taken_from_the_cache() {
    let server = Ftpd::start();
    let (old, new) = (bytes(300_000), vec![7; 300_000]);
    put(&server, "file", &old, 40);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    assert!(fs::read(mount.path("file")).unwrap() == old);
    until_taken(&mount, 300_000);
    let mount = mount.kill().remount();
    // The same size, another day.
    put(&server, "file", &new, 39);
    assert!(fs::read(mount.path("file")).unwrap() == new);
    mount.finish();
}

/// A release takes the place of another: its files have the same names, sizes and times.
#[test]
fn what_is_in_a_directory_of_another_name_is_not_taken_from_the_cache() {
    let server = Ftpd::with(Quirks {
        facts: vec!["type", "size", "modify"],
        ..Quirks::default()
    });
    for (dir, content) in [("site", "version 1.0.3"), ("next", "version 1.0.4")] {
        server.put(format!("{dir}/about/version"), content);
        let file = fs::File::options()
            .write(true)
            .open(server.root().join(dir).join("about/version"))
            .unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.set_modified(time).unwrap();
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    assert_eq!(mount.sh("cat site/about/version"), "version 1.0.3");
    mount.sh("mv site old && mv next site");
    assert_eq!(mount.sh("cat site/about/version"), "version 1.0.4");
    assert_eq!(mount.sh("cat old/about/version"), "version 1.0.3");
    mount.finish();
}

#[test]
fn a_damaged_cache_is_noticed_and_mended() {
    let server = Ftpd::start();
    let content = bytes(900_000);
    put(&server, "file", &content, 40);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    assert!(fs::read(mount.path("file")).unwrap() == content);
    until_taken(&mount, 900_000);
    let data = cached_files(&mount);
    let killed = mount.kill();
    for path in data {
        let file = File::options().write(true).open(path).unwrap();
        for at in [3, 70_000, 400_000] {
            file.write_all_at(b"damaged", at).unwrap();
        }
        file.set_len(800_000).unwrap();
    }
    let mut mount = killed.remount();
    mount.expect_log("damaged");
    server.clear_log();
    assert!(fs::read(mount.path("file")).unwrap() == content);
    assert!(server.count("RETR") > 0);
    mount.finish();
}

/// Each of two mounts, at two places, of one server with one `cache_dir` shows what is there, while
/// both read, one writes, and after one was killed.
#[test]
fn two_mounts_with_one_cache_directory_do_each_other_no_harm() {
    let server = Ftpd::start();
    let shared = tempfile::tempdir().unwrap();
    let contents: Vec<_> = (0..8).map(|n| bytes(400_000 + n * 1000)).collect();
    for (n, content) in contents.iter().enumerate() {
        put(&server, &format!("file{n}"), content, 40);
    }
    let mount = || {
        let option = format!("cache_dir={},dir_cache=0s", shared.path().display());
        mounting(&server).option(option).expect_log("cache").start()
    };
    let (Some(one), Some(two)) = (mount(), mount()) else {
        return;
    };
    let all_are_right = |mount: &TestMount| {
        for (n, content) in contents.iter().enumerate() {
            let read = fs::read(mount.path(format!("file{n}"))).unwrap();
            assert!(read == *content, "file{n}");
        }
    };
    thread::scope(|scope| {
        for mount in [&one, &two, &one, &two] {
            scope.spawn(move || (0..3).for_each(|_| all_are_right(mount)));
        }
    });
    // The same size, through one of them; another second, for that is all that FTP tells.
    let changed: Vec<u8> = contents[3].iter().map(|byte| !byte).collect();
    fs::write(one.path("file3"), &changed).unwrap();
    for mount in [&one, &two] {
        assert!(fs::read(mount.path("file3")).unwrap() == changed);
    }
    thread::sleep(Duration::from_millis(1100));
    fs::write(two.path("file3"), &contents[3]).unwrap();
    all_are_right(&one);
    // Who had the cache is killed; the other goes on, and so does the next.
    drop(one.kill());
    all_are_right(&two);
    let Some(third) = mount() else { return };
    all_are_right(&third);
    all_are_right(&two);
    for mount in [two, third] {
        mount.finish();
    }
}

#[test]
fn the_cache_keeps_its_limit() {
    let server = Ftpd::start();
    let contents: Vec<_> = (0..6).map(|n| bytes(500_000 + n)).collect();
    for (n, content) in contents.iter().enumerate() {
        put(&server, &n.to_string(), content, 40);
    }
    let Some(mount) = mounting(&server).option("cache_size=1M").start() else {
        return;
    };
    for (n, content) in contents.iter().enumerate() {
        assert!(fs::read(mount.path(n.to_string())).unwrap() == *content);
        assert!(taken(&mount) <= 1 << 20);
    }
    until_taken(&mount, 400_000);
    assert!(taken(&mount) <= 1 << 20, "{}", taken(&mount));
    mount.finish();

    let Some(mount) = mounting(&server).option("cache_size=0").start() else {
        return;
    };
    assert!(fs::read(mount.path("0")).unwrap() == contents[0]);
    assert!(cached_files(&mount).is_empty());
    mount.finish();
}

#[test]
fn a_full_disk_is_no_reason_not_to_read() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can make a small disk");
    }
    let server = Ftpd::start();
    let content = bytes(3_000_000);
    put(&server, "file", &content, 40);
    let disk = tempfile::tempdir().unwrap();
    let sh = |script: String| {
        let done = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .status();
        done.is_ok_and(|status| status.success())
    };
    let at = disk.path().display();
    if !sh(format!("mount -t tmpfs -o size=1m none '{at}'")) {
        return skip("no tmpfs");
    }
    let mounting = mounting(&server)
        .option(format!("cache_dir={at}"))
        .expect_log("");
    if let Some(mount) = mounting.start() {
        assert!(fs::read(mount.path("file")).unwrap() == content);
        // Others fill it up.
        let _ = fs::write(disk.path().join("other"), vec![1; 1 << 20]);
        put(&server, "other", &content, 39);
        assert!(fs::read(mount.path("other")).unwrap() == content);
        mount.finish();
    }
    assert!(sh(format!("umount -l '{at}'")));
}

#[test]
fn a_file_that_is_jumped_about_in_is_read_right() {
    let server = Ftpd::start();
    let content = bytes(6_000_000);
    put(&server, "file", &content, 40);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let file = File::open(mount.path("file")).unwrap();
    let mut at = 7_usize;
    for _ in 0..300 {
        at = at.wrapping_mul(1_103_515_245).wrapping_add(12_345) % (content.len() - 5000);
        let mut buf = vec![0; 4096];
        file.read_exact_at(&mut buf, at as u64).unwrap();
        assert!(buf == content[at..at + 4096], "at {at}");
    }
    drop(file);
    // After a few jumps it was fetched whole: three hundred did not cost as many downloads.
    assert!(server.count("RETR") < 60, "{}", server.count("RETR"));
    assert!(fs::read(mount.path("file")).unwrap() == content);
    mount.finish();
}

/// LIST shows the minute. What this mount knows of the second, as it wrote the file, says nothing of
/// a version that somebody else wrote in the same minute.
#[test]
fn another_version_of_the_same_minute_and_size_is_seen_where_list_shows_no_seconds() {
    for listed_first in [true, false] {
        let server = Ftpd::with(Quirks::like_vsftpd());
        let Some(mount) = mounting(&server).option("dir_cache=1s").start() else {
            return;
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let minute = SystemTime::UNIX_EPOCH + Duration::from_secs(now - now % 60 - 60);
        let read = || {
            if listed_first {
                fs::read_dir(mount.path("")).unwrap().for_each(drop);
            }
            fs::read(mount.path("leader")).unwrap()
        };
        fs::write(mount.path("leader"), "host A").unwrap();
        let set = |path: PathBuf, second| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(minute + Duration::from_secs(second))
                .unwrap();
        };
        set(mount.path("leader"), 1);
        thread::sleep(Duration::from_millis(1_200));
        assert_eq!(read(), b"host A");
        let shown = || {
            fs::metadata(mount.path("leader"))
                .unwrap()
                .modified()
                .unwrap()
        };
        assert_eq!(shown(), minute + Duration::from_secs(1));
        set(server.put("leader", "host B"), 31);
        thread::sleep(Duration::from_millis(1_200));
        assert_eq!(read(), b"host B", "{:?}", server.commands());
        mount.finish();
    }
}

#[test]
fn what_was_written_with_an_older_time_needs_no_second_look_at_it() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    let Some(mount) = mounting(&server).option("dir_cache=1s").start() else {
        return;
    };
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_001);
    for name in ["a", "b", "c"] {
        fs::write(mount.path(name), "content").unwrap();
        let file = File::options().write(true).open(mount.path(name)).unwrap();
        file.set_modified(then).unwrap();
    }
    thread::sleep(Duration::from_millis(1_200));
    server.clear_log();
    for entry in fs::read_dir(mount.path("")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().modified().unwrap(), then);
    }
    assert_eq!(server.count("MDTM"), 0, "{:?}", server.commands());
    mount.finish();
}

/// As above, where the server sets the time itself: the kernel's pages are of ours only.
#[test]
fn another_version_of_the_same_minute_is_seen_where_times_cannot_be_set() {
    let mut quirks = Quirks::like_vsftpd().without(&["MLSD", "MLST", "MFMT", "OPTS MLST", "SITE"]);
    quirks.mdtm_sets = false;
    let server = Ftpd::with(quirks);
    let Some(mount) = mounting(&server).option("dir_cache=1s").start() else {
        return;
    };
    let since = SystemTime::UNIX_EPOCH;
    let minute = || since.elapsed().unwrap().as_secs() / 60;
    let begun = loop {
        let begun = minute();
        fs::write(mount.path("leader"), "host A").unwrap();
        thread::sleep(Duration::from_millis(1_200));
        server.put("leader", "host B");
        if minute() == begun {
            break begun;
        }
    };
    thread::sleep(Duration::from_millis(1_200));
    fs::read_dir(mount.path("")).unwrap().for_each(drop);
    let shown = fs::metadata(mount.path("leader"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(shown.duration_since(since).unwrap().as_secs(), begun * 60);
    assert_eq!(fs::read(mount.path("leader")).unwrap(), b"host B");
    mount.finish();
}

#[test]
fn a_file_that_is_held_open_is_opened_anew_where_list_shows_another_minute() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    let Some(mount) = mounting(&server).option("dir_cache=1s").start() else {
        return;
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // A minute that could be no day, three hours ago.
    let minute = SystemTime::UNIX_EPOCH + Duration::from_secs(now - now % 900 - 10_620);
    let put = |content, minutes: u64| {
        let path = server.put("table", content);
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(minute + Duration::from_secs(60 * minutes + 5))
            .unwrap();
    };
    put("old version", 0);
    let read = || {
        fs::read_dir(mount.path("")).unwrap().for_each(drop);
        fs::read(mount.path("table")).unwrap()
    };
    assert_eq!(read(), b"old version");
    let held = File::open(mount.path("table")).unwrap();
    let mut bytes = [0; 11];
    held.read_exact_at(&mut bytes, 0).unwrap();
    put("new version", 5);
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(read(), b"new version");
    drop(held);
    mount.finish();
}
