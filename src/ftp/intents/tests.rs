#![allow(clippy::unwrap_used)]

use std::time::UNIX_EPOCH;

use super::*;

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

fn replace(home: &str, from: &str) -> Intent {
    Intent::Replace {
        home: path(home),
        by: Some(Successor {
            from: path(from),
            temporary: true,
            size: 3,
            mtime: None,
        }),
    }
}

#[test]
fn what_was_begun_and_not_ended_comes_back_and_a_torn_line_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(INTENTS);
    let intents = Intents::open(file.clone()).unwrap();
    assert!(!file.exists(), "nothing is written before it must be");
    intents
        .begin(&path("a/part"), Intent::Remove, false)
        .unwrap();
    intents.begin(&path("b"), Intent::Remove, false).unwrap();
    let old = replace("a/\u{e9}", "a/part");
    intents.begin(&path("a/old"), old.clone(), true).unwrap();
    intents.end(&path("b"), false);
    drop(intents);
    assert!(has_intents(dir.path()));
    let whole = fs::read(&file).unwrap();
    let last = whole.len() - 1;
    for cut in 0..whole.len() {
        fs::write(&file, whole.get(..cut).unwrap_or_default()).unwrap();
        let names = Intents::open(file.clone()).unwrap().names();
        assert!(names.len() <= 3 && (cut < last || names.len() == 3));
    }
    fs::write(&file, &whole).unwrap();
    let again = Intents::open(file.clone()).unwrap();
    assert_eq!(again.of(&path("a/old")), Some(old));
    assert_eq!(again.of(&path("a/part")), Some(Intent::Remove));
    assert_eq!(again.of(&path("b")), None);
    again.end(&path("a/old"), false);
    again.end(&path("a/part"), false);
    assert!(!has_intents(dir.path()));
    again.close();
    assert!(!file.exists());
}

#[test]
fn a_temporary_name_that_is_not_in_use_any_more_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(INTENTS);
    let intents = Intents::open(file.clone()).unwrap();
    intents
        .begin(&path("old"), replace("f", "part"), true)
        .unwrap();
    let unproven = Some(Intent::Replace {
        home: path("f"),
        by: None,
    });
    assert_eq!(Intents::open(file).unwrap().of(&path("old")), unproven);
    assert_ne!(intents.of(&path("old")), unproven);
    intents.removed(&path("part"));
    assert_eq!(intents.of(&path("old")), unproven);
}

#[test]
fn the_log_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(INTENTS);
    let intents = Intents::open(file.clone()).unwrap();
    intents
        .begin(&path("old"), replace("f", "part"), true)
        .unwrap();
    for n in 0..20_000 {
        let name = path(&format!("dir/.ferryfs-{n:016x}.part"));
        intents.begin(&name, Intent::Remove, false).unwrap();
        intents.end(&name, false);
        assert!(fs::metadata(&file).unwrap().len() < LONGEST + 1_000);
    }
    assert_eq!(Intents::open(file.clone()).unwrap().names(), [path("old")]);
    intents.end(&path("old"), false);
    assert!(fs::metadata(&file).unwrap().len() < TIDY);
}

#[test]
fn a_successor_is_known_by_its_size_and_time() {
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut by = Successor {
        from: path("x"),
        temporary: true,
        size: 3,
        mtime: at(10),
    };
    assert!(by.is(Some(3), at(11)) && by.is(Some(3), None));
    assert!(!by.is(Some(4), at(10)) && !by.is(None, at(10)) && !by.is(Some(3), at(13)));
    by.temporary = false;
    assert!(by.is(Some(3), at(10)) && !by.is(Some(3), None));
}

#[test]
fn without_a_disk_nothing_precious_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let intents = Intents::open(dir.path().join("gone").join(INTENTS)).unwrap();
    intents.begin(&path("part"), Intent::Remove, false).unwrap();
    intents
        .begin(&path("old"), replace("f", "part"), true)
        .unwrap_err();
    assert_eq!(intents.names(), [path("part")]);
    intents.end(&path("part"), false);
}

#[test]
fn the_seeds_of_the_fuzz_target_are_lines_of_the_log() {
    let seeds = include_bytes!("../../../fuzz/seeds/intents/all");
    let log: String = seeds
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let text = std::str::from_utf8(line).unwrap();
            format!("{:08x} {text}\n", crc32fast::hash(line))
        })
        .collect();
    let (live, damaged) = understood(log.as_bytes());
    assert_eq!((live.len(), damaged), (4, 0));
    let late = live.get(&path("d~")).cloned().unwrap();
    assert!(matches!(late, Intent::Late { barred: true, .. }) && !late.is_precious());
    fuzz(seeds);
}
