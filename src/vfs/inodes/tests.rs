#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const FILE: FileKind = FileKind::File;
const DIR: FileKind = FileKind::Directory;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(path: &str) -> Option<Place> {
    Some(Place::At(RemotePath::parse(path.as_bytes()).unwrap()))
}

/// `a/b/c`, each looked up once.
fn three() -> (Inodes, Ino, Ino, Ino) {
    let mut inodes = Inodes::new();
    let a = inodes.look_up(ROOT, &name("a"), DIR).unwrap();
    let b = inodes.look_up(a, &name("b"), DIR).unwrap();
    let c = inodes.look_up(b, &name("c"), FILE).unwrap();
    (inodes, a, b, c)
}

#[test]
fn a_name_keeps_its_number_while_known_and_gets_another_after() {
    let mut inodes = Inodes::new();
    let first = inodes.look_up(ROOT, &name("x"), FILE).unwrap();
    assert_eq!(inodes.look_up(ROOT, &name("x"), FILE), Some(first));
    inodes.forget(first, 1);
    assert_eq!(inodes.look_up(ROOT, &name("x"), FILE), Some(first));
    inodes.forget(first, 2);
    assert_eq!(inodes.len(), 1);
    assert_ne!(inodes.look_up(ROOT, &name("x"), FILE), Some(first));
}

#[test]
fn forgetting_in_any_order_leaves_only_the_root() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let (mut inodes, a, b, c) = three();
        for i in order {
            inodes.forget([a, b, c][i], 1);
        }
        assert_eq!(inodes.len(), 1, "{order:?}");
        assert!(inodes.children(ROOT).is_empty());
    }
}

#[test]
fn a_parent_the_kernel_forgot_still_gives_its_child_a_path() {
    let (mut inodes, a, b, c) = three();
    inodes.forget(a, 1);
    inodes.forget(b, 1);
    assert_eq!(inodes.place(c), at("a/b/c"));
}

#[test]
fn too_many_forgets_do_no_harm() {
    let (mut inodes, a, _, c) = three();
    inodes.forget(c, 9);
    inodes.forget(ROOT, 9);
    inodes.forget(77, 1);
    assert_eq!(inodes.place(c), None);
    assert_eq!(inodes.place(a), at("a"));
    assert_eq!(inodes.place(ROOT), at(""));
}

#[test]
fn renaming_a_directory_moves_what_is_below() {
    let (mut inodes, a, b, c) = three();
    inodes.rename((a, &name("b")), (ROOT, &name("z")), None);
    assert_eq!(inodes.place(c), at("z/c"));
    assert_eq!(inodes.parent(b), ROOT);
    assert_eq!(inodes.find(a, &name("b")), None);
    assert_eq!(inodes.find(ROOT, &name("z")), Some(b));
}

#[test]
fn renaming_over_a_name_orphans_its_inode() {
    let mut inodes = Inodes::new();
    let old = inodes.look_up(ROOT, &name("old"), FILE).unwrap();
    let new = inodes.look_up(ROOT, &name("new"), FILE).unwrap();
    inodes.pin(old);
    let mut last = Attr::new(FILE);
    last.size = Some(7);
    inodes.rename((ROOT, &name("new")), (ROOT, &name("old")), Some(last));
    assert_eq!(inodes.place(new), at("old"));
    assert_eq!(inodes.place(old), Some(Place::Orphan));
    assert_eq!(inodes.last(old).unwrap().size, Some(7));
    inodes.forget(old, 1);
    assert!(inodes.place(old).is_some());
    inodes.unpin(old);
    assert_eq!(inodes.place(old), None);
}

#[test]
fn renaming_what_is_not_known_still_orphans_the_target() {
    let mut inodes = Inodes::new();
    let old = inodes.look_up(ROOT, &name("old"), FILE).unwrap();
    inodes.rename((ROOT, &name("never seen")), (ROOT, &name("old")), None);
    assert_eq!(inodes.place(old), Some(Place::Orphan));
    assert_eq!(inodes.find(ROOT, &name("old")), None);
}

#[test]
fn a_directory_is_never_moved_below_itself() {
    let (mut inodes, _, b, c) = three();
    inodes.rename((ROOT, &name("a")), (b, &name("a")), None);
    assert_eq!(inodes.place(c), at("a/b/c"));
}

#[test]
fn below_an_orphan_there_is_no_path() {
    let (mut inodes, a, _, c) = three();
    inodes.orphan(a, &name("b"), None);
    assert_eq!(inodes.place(c), Some(Place::Orphan));
}

#[test]
fn another_kind_is_another_inode() {
    let mut inodes = Inodes::new();
    let file = inodes.look_up(ROOT, &name("x"), FILE).unwrap();
    let dir = inodes.look_up(ROOT, &name("x"), DIR).unwrap();
    assert_ne!(file, dir);
    assert_eq!(inodes.place(file), Some(Place::Orphan));
    assert_eq!(inodes.place(dir), at("x"));
}

#[test]
fn a_recent_coarse_time_stamp_proves_nothing() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let mut attr = Attr::new(FILE);
    attr.size = Some(1);
    for (age, exact, settled) in [
        (1, true, false),
        (3, true, true),
        (100, false, false),
        (130, false, true),
    ] {
        attr.mtime = Some(now - Duration::from_secs(age));
        attr.mtime_exact = exact;
        assert_eq!(
            Version::settled(&attr, now).is_some(),
            settled,
            "{age} {exact}"
        );
    }
    attr.mtime = Some(now + Duration::from_secs(60));
    assert!(Version::settled(&attr, now).is_none());
}

#[test]
fn a_second_name_outlives_the_first() {
    let (mut inodes, a, b, c) = three();
    assert!(inodes.link(c, a, &name("d")));
    assert_eq!((inodes.names(c), inodes.find(a, &name("d"))), (2, Some(c)));
    inodes.orphan(a, &name("d"), None);
    assert_eq!((inodes.names(c), inodes.place(c)), (1, at("a/b/c")));
    assert!(inodes.link(c, a, &name("d")));
    inodes.orphan(b, &name("c"), None);
    assert_eq!(inodes.place(c), at("a/d"));
    inodes.rename((a, &name("d")), (ROOT, &name("e")), None);
    assert_eq!((inodes.names(c), inodes.place(c)), (1, at("e")));
    assert!(inodes.link(c, b, &name("c")));
    assert_eq!(inodes.find(b, &name("c")), Some(c));
    for (ino, lookups) in [(a, 1), (b, 1), (c, 4)] {
        inodes.forget(ino, lookups);
    }
    assert_eq!(inodes.len(), 1);
}
