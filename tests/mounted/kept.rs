//! The kernel keeps the names of a directory for as long as they are right, and no longer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::Dir;

use super::mounting;
use super::numbers::numbers;
use crate::support::ftpd::Ftpd;
use crate::support::mount::{Place, TestMount};

/// A server with a directory of 50 files, and a mount of it that relies on listings for so long.
fn directory(dir_cache: &str) -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::start();
    for n in 0..50 {
        server.put(format!("dir/f{n:02}"), "content");
    }
    let mount = mounting(&server)
        .option(format!("dir_cache={dir_cache}"))
        .start()?;
    Some((server, mount))
}

/// Names in `dir`, each once. They are kept by the kernel if it knows their attributes.
fn names(dir: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::from([".".to_owned(), "..".to_owned()]);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        // It may be gone by now.
        let _ = entry.metadata();
        let name = entry.file_name().into_string().unwrap();
        assert!(names.insert(name.clone()), "{name} twice");
    }
    names
}

/// The rest of an open directory, each name once.
fn read(dir: &mut Dir) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in dir {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "{name} twice");
    }
    names
}

#[test]
fn names_are_asked_for_once() {
    let server = Ftpd::start();
    for n in 0..50 {
        server.put(format!("dir/f{n:02}"), "content");
    }
    let place = Place::new();
    let file = place.path("ferryfs.prom");
    let options = mounting(&server).option(format!("metrics={}", file.display()));
    let Some(mount) = options.option("dir_cache=1m").start() else {
        return;
    };
    for _ in 0..40 {
        assert_eq!(names(&mount.path("dir")).len(), 52);
    }
    let root = mount.root().display().to_string();
    mount.finish();
    let told = numbers(&fs::read_to_string(&file).unwrap(), &root);
    // Each opens it, and one or two read it.
    let answers = told["ferryfs_memory_answers_total"];
    assert!((39..60).contains(&answers), "{answers}");
}

#[test]
fn what_changes_here_is_seen_at_once_also_by_who_reads_it_again() {
    let Some((_server, mount)) = directory("1m") else {
        return;
    };
    let dir = mount.path("dir");
    for _ in 0..3 {
        assert_eq!(names(&dir).len(), 52);
    }
    let mut open = Dir::read_from(File::open(&dir).unwrap()).unwrap();
    assert_eq!(read(&mut open).len(), 52);
    for n in 0..5 {
        let (new, old) = (format!("new{n}"), format!("f{n:02}"));
        fs::write(dir.join(&new), "content").unwrap();
        fs::remove_file(dir.join(&old)).unwrap();
        fs::rename(dir.join(format!("f1{n}")), dir.join(format!("moved{n}"))).unwrap();
        open.rewind();
        for seen in [read(&mut open), names(&dir), names(&dir)] {
            assert!(
                seen.contains(&new) && seen.contains(&format!("moved{n}")),
                "{seen:?}"
            );
            assert!(
                !seen.contains(&old) && !seen.contains(&format!("f1{n}")),
                "{seen:?}"
            );
            assert_eq!(seen.len(), 52);
        }
    }
    drop(open);
    mount.finish();
}

#[test]
fn what_changes_on_the_server_is_seen_when_the_listing_is_not_relied_on_any_more() {
    let Some((server, mount)) = directory("1s") else {
        return;
    };
    let dir = mount.path("dir");
    // The kernel does not see by its time that it has changed.
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let unchanged = || {
        File::open(server.path("dir"))
            .unwrap()
            .set_modified(long_ago)
    };
    unchanged().unwrap();
    for n in 0..3 {
        for _ in 0..3 {
            names(&dir);
        }
        // Somebody has it open, and has read a part.
        let mut open = Dir::read_from(File::open(&dir).unwrap()).unwrap();
        assert!(open.next().is_some());
        server.put(format!("dir/new{n}"), "content");
        fs::remove_file(server.path(format!("dir/f{n:02}"))).unwrap();
        unchanged().unwrap();
        thread::sleep(Duration::from_millis(1_200));
        let seen = names(&dir);
        assert!(seen.contains(&format!("new{n}")), "{seen:?}");
        assert!(!seen.contains(&format!("f{n:02}")), "{seen:?}");
        assert_eq!(names(&dir), seen);
        // It reads on as it began.
        assert_eq!(read(&mut open).len(), 51);
        open.rewind();
        assert_eq!(read(&mut open), seen);
    }
    mount.finish();
}

#[test]
fn what_stays_is_seen_once_by_everybody_whatever_else_changes() {
    let Some((server, mount)) = directory("100ms") else {
        return;
    };
    let dir = mount.path("dir");
    let stays: BTreeSet<String> = (0..50).map(|n| format!("f{n:02}")).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (dir, stays, over) = (&dir, &stays, &over);
            scope.spawn(move || {
                let mut open = Dir::read_from(File::open(dir).unwrap()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    if reader > 0 {
                        assert!(names(dir).is_superset(stays));
                        continue;
                    }
                    // One that stops in between, and goes back to the start.
                    open.rewind();
                    open.by_ref().take(20).for_each(drop);
                    open.rewind();
                    assert!(read(&mut open).is_superset(stays));
                }
            });
        }
        let ends = Instant::now() + Duration::from_secs(2);
        for n in 0.. {
            if Instant::now() > ends {
                break;
            }
            fs::write(dir.join(format!("a{n}")), "content").unwrap();
            server.put(format!("dir/b{n}"), "content");
            if n > 3 {
                fs::remove_file(dir.join(format!("a{}", n - 3))).unwrap();
                fs::remove_file(server.path(format!("dir/b{}", n - 3))).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    mount.finish();
}
