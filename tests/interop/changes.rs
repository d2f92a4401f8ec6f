//! What is on the server's disk, and when.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::Stage;

/// Bytes that differ from one place to the next, and from one `seed` to the next.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

fn names_there(stage: &Stage) -> BTreeSet<String> {
    fs::read_dir(stage.there(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

pub(super) fn close_means_stored(stage: &Stage) {
    for len in [
        0, 1, 4095, 4096, 4097, 65_536, 131_072, 1_048_577, 5_000_000,
    ] {
        let content = bytes(len as u64, len);
        fs::write(stage.path("file"), &content).unwrap();
        assert!(
            fs::read(stage.there("file")).unwrap() == content,
            "{len} bytes"
        );
        assert!(
            fs::read(stage.path("file")).unwrap() == content,
            "{len} bytes"
        );
    }
    assert_eq!(names_there(stage).len(), 1);
}

pub(super) fn fsync_means_stored(stage: &Stage) {
    let mut file = File::create_new(stage.path("file")).unwrap();
    let mut all = Vec::new();
    for step in 0..5 {
        let more = bytes(step, 100_000);
        file.write_all(&more).unwrap();
        all.extend_from_slice(&more);
        file.sync_all().unwrap();
        assert!(fs::read(stage.there("file")).unwrap() == all, "step {step}");
    }
    drop(file);
    assert!(fs::read(stage.there("file")).unwrap() == all);
}

pub(super) fn big_file(stage: &Stage) {
    let local = stage.mount.local("big");
    fs::write(&local, bytes(7, 40_000_000)).unwrap();
    let (local, there) = (local.display(), stage.there("big"));
    stage.mount.sh(&format!(
        "cp {local} big && cmp {local} {there} && cmp {local} big && rm big",
        there = there.display()
    ));
    assert!(!there.exists());
    let status = fs::read_to_string(format!("/proc/{}/status", stage.mount.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 * 1024, "the daemon took {peak} KiB");
}

pub(super) fn overwritten_in_the_middle(stage: &Stage) {
    let mut content = bytes(1, 1_000_000);
    stage.put("file", &content);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(stage.path("file"))
        .unwrap();
    for (n, offset) in [700_000, 3, 99_999, 100_002, 999_990, 500_000]
        .into_iter()
        .enumerate()
    {
        let patch = bytes(n as u64, 20_000);
        file.write_all_at(&patch, offset).unwrap();
        let from = usize::try_from(offset).unwrap();
        let end = content.len().max(from + patch.len());
        content.resize(end, 0);
        content[from..from + patch.len()].copy_from_slice(&patch);
        let mut seen = vec![0; 30_000];
        file.read_exact_at(&mut seen, 90_000).unwrap();
        assert!(seen == content[90_000..120_000], "patch {n}");
    }
    drop(file);
    assert!(fs::read(stage.there("file")).unwrap() == content);
    assert!(fs::read(stage.path("file")).unwrap() == content);
}

pub(super) fn replaced_many_times(stage: &Stage) {
    for round in 0..30 {
        let content = bytes(round, 10_000 + usize::try_from(round).unwrap() * 100);
        fs::write(stage.path("file"), &content).unwrap();
        assert!(
            fs::read(stage.there("file")).unwrap() == content,
            "round {round}"
        );
    }
    // Temporary names are gone.
    assert_eq!(names_there(stage), BTreeSet::from(["file".to_owned()]));
}

/// Each version is one byte again and again, as often as is right for that byte.
pub(super) fn others_see_whole_versions(stage: &Stage) {
    let version = |round: u8| vec![round; 300_000 + usize::from(round) * 10_000];
    fs::write(stage.path("file"), version(1)).unwrap();
    let over = AtomicBool::new(false);
    let (seen, looks) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut seen, mut looks) = (BTreeSet::new(), 0);
            while !over.load(SeqCst) {
                let found = fs::read(stage.there("file")).expect("it always has its name");
                let round = *found.first().expect("it is never empty");
                assert!(found == version(round), "{} bytes of {round}", found.len());
                seen.insert(round);
                looks += 1;
            }
            (seen, looks)
        });
        // At once, and with pauses. By a program of its own: whoever starts another program while a
        // file is open closes the copy of its descriptor, too.
        let written = stage.mount.try_sh(
            "python3 -c 'import time
for n in range(2, 26):
    size = 300000 + n * 10000
    with open(\"file\", \"wb\", buffering=0) as f:
        for at in range(0, size, 90000):
            f.write(bytes([n]) * min(90000, size - at))
            if n % 2: time.sleep(.002)'",
        );
        over.store(true, SeqCst);
        assert!(written.0.success(), "{}", written.1);
        other.join().unwrap()
    });
    assert!(seen.len() > 3 && looks > 25, "{looks} looks saw {seen:?}");
}

pub(super) fn changed_behind_our_back(stage: &Stage) {
    stage.put("changed", "before");
    stage.put("removed", "before");
    assert_eq!(fs::read(stage.path("changed")).unwrap(), b"before");
    assert_eq!(fs::read(stage.path("removed")).unwrap(), b"before");
    stage.put("changed", "and after");
    stage.put("new", "new");
    fs::remove_file(stage.there("removed")).unwrap();
    // Listings are trusted for 5 seconds.
    thread::sleep(Duration::from_millis(5500));
    assert_eq!(fs::read(stage.path("changed")).unwrap(), b"and after");
    assert_eq!(fs::read(stage.path("new")).unwrap(), b"new");
    assert!(fs::read(stage.path("removed")).is_err());
}

pub(super) fn changed_while_it_is_open_here(stage: &Stage) {
    stage.put("old", "before");
    // Twice: what was just stored here is known exactly.
    for (theirs, ours) in [("their first", "ours"), ("their second one", "ours, too")] {
        let mut file = File::create(stage.path("old")).unwrap();
        stage.put("old", theirs);
        file.write_all(ours.as_bytes()).unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(fs::read(stage.there("old")).unwrap(), ours.as_bytes());
        thread::sleep(Duration::from_millis(1100));
    }
    let mut file = File::create_new(stage.path("new")).unwrap();
    stage.put("new", "theirs");
    file.write_all(b"ours").unwrap();
    drop(file);
    stage.mount.sh("sync new");
    assert_eq!(fs::read(stage.there("new")).unwrap(), b"ours");
    let mut kept: Vec<_> = names_there(stage).into_iter().collect();
    kept.retain(|name| name.contains(".conflict-"));
    let kept: Vec<_> = kept
        .iter()
        .map(|name| fs::read_to_string(stage.there(name)).unwrap())
        .collect();
    assert_eq!(kept, ["theirs", "their first", "their second one"]);
    assert_eq!(names_there(stage).len(), 5, "{:?}", names_there(stage));
    // Who replaces a name replaces what is known of it.
    stage
        .mount
        .sh("echo newer >tmp; echo newest >other; sync tmp other; cat old; ! test -e late");
    stage.put("old", "unseen");
    stage.put("late", "unseen, too");
    stage.mount.sh("mv tmp old && mv other late && rm new");
    assert_eq!(fs::read(stage.there("old")).unwrap(), b"newer\n");
    assert_eq!(fs::read(stage.there("late")).unwrap(), b"newest\n");
    let mut kept: Vec<_> = names_there(stage).into_iter().collect();
    kept.retain(|name| name.contains(".conflict-"));
    assert_eq!(kept.len(), 5, "{kept:?}");
    stage
        .mount
        .sh("echo more >tmp; sync tmp; mv tmp old; mv old new");
    assert_eq!(fs::read(stage.there("new")).unwrap(), b"more\n");
    assert_eq!(names_there(stage).len(), 7, "{:?}", names_there(stage));
}

pub(super) fn deep_tree(stage: &Stage) {
    let deep = vec!["level"; 20].join("/");
    fs::create_dir_all(stage.path(&deep)).unwrap();
    fs::write(stage.path(&format!("{deep}/file")), "deep").unwrap();
    assert_eq!(
        fs::read(stage.there(&format!("{deep}/file"))).unwrap(),
        b"deep"
    );
    fs::rename(stage.path("level"), stage.path("top")).unwrap();
    let moved = deep.replacen("level", "top", 1);
    assert_eq!(
        fs::read(stage.path(&format!("{moved}/file"))).unwrap(),
        b"deep"
    );
    assert_eq!(stage.mount.sh("find . -type d | wc -l"), "21\n");
    fs::remove_dir_all(stage.path("top")).unwrap();
    assert!(names_there(stage).is_empty());
}

pub(super) fn many_small_files(stage: &Stage) {
    fs::create_dir(stage.path("dir")).unwrap();
    let name = |n: u64| format!("dir/file{n}");
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for n in (part..200).step_by(4) {
                    fs::write(stage.path(&name(n)), bytes(n, 500)).unwrap();
                }
            });
        }
    });
    for n in 0..200 {
        assert!(
            fs::read(stage.there(&name(n))).unwrap() == bytes(n, 500),
            "{n}"
        );
    }
    assert_eq!(fs::read_dir(stage.there("dir")).unwrap().count(), 200);
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for n in (part..200).step_by(4) {
                    assert!(
                        fs::read(stage.path(&name(n))).unwrap() == bytes(n, 500),
                        "{n}"
                    );
                }
            });
        }
    });
    fs::remove_dir_all(stage.path("dir")).unwrap();
    assert!(names_there(stage).is_empty());
}
