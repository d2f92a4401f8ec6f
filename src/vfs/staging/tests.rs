#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use super::*;

fn dir() -> (tempfile::TempDir, Arc<StagingDir>) {
    let root = tempfile::tempdir().unwrap();
    let staging = StagingDir::new(&root.path().join("staging")).unwrap();
    (root, Arc::new(staging))
}

fn place() -> RemotePath {
    RemotePath::parse(b"dir/letter").unwrap()
}

fn local(staged: &Staged, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    staged.read(offset, &mut buf).unwrap();
    buf
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let (_root, dir) = dir();
    let mut staged = Staged::over(&dir, &place(), 100).unwrap();
    staged.write(90, b"0123456789").unwrap();
    staged.set_len(50).unwrap();
    staged.set_len(100).unwrap();
    assert_eq!(staged.run(49), Run::Remote(50));
    assert_eq!(staged.run(50), Run::Local(100));
    assert_eq!(local(&staged, 50, 50), vec![0; 50]);
}

#[test]
fn a_hole_behind_the_end_is_zeros_and_local() {
    let (_root, dir) = dir();
    let mut staged = Staged::over(&dir, &place(), 10).unwrap();
    staged.write(20, b"x").unwrap();
    assert_eq!(staged.len(), 21);
    assert_eq!(staged.run(0), Run::Remote(10));
    assert_eq!(staged.run(10), Run::Local(21));
    assert_eq!(staged.run(21), Run::End);
    assert_eq!(staged.snapshot().unchanged, 10);
}

#[test]
fn what_comes_from_the_server_does_not_cover_what_was_written() {
    let (_root, dir) = dir();
    let mut staged = Staged::over(&dir, &place(), 10).unwrap();
    staged.write(4, b"WW").unwrap();
    assert_eq!(staged.first_missing(), Some(0..4));
    staged.fill(0, b"abcdefghij-beyond").unwrap();
    assert_eq!(staged.first_missing(), None);
    assert_eq!(local(&staged, 0, 10), b"abcdWWghij");
}

#[test]
fn a_change_during_a_commit_leaves_the_file_dirty_and_known_from_where() {
    let (_root, dir) = dir();
    let mut staged = Staged::create(&dir, &place(), None).unwrap();
    staged.write(0, &[1; 100]).unwrap();
    let snapshot = staged.snapshot();
    staged.write(100, b"tail").unwrap();
    staged.published(&snapshot);
    assert!(staged.is_dirty());
    assert_eq!(staged.snapshot().unchanged, 100);
    let snapshot = staged.snapshot();
    staged.published(&snapshot);
    assert!(!staged.is_dirty());
}

#[test]
fn a_staged_file_is_deleted_or_kept_never_both() {
    let (root, dir) = dir();
    let staged = Staged::create(&dir, &place(), None).unwrap();
    let gone = staged.named().path().to_path_buf();
    assert!(gone.exists());
    drop(staged);
    assert!(!gone.exists());

    for _ in 0..2 {
        let mut staged = Staged::create(&dir, &place(), None).unwrap();
        staged.write(0, b"precious").unwrap();
        let kept = staged
            .keep(Path::new("letter"), "/dir/letter", "no room")
            .unwrap();
        let reason = fs::read_to_string(format!("{}.reason", kept.display())).unwrap();
        assert!(
            reason.contains("/dir/letter") && reason.contains("no room"),
            "{reason}"
        );
        assert_eq!(fs::read(&kept).unwrap(), b"precious");
        assert!(kept.starts_with(root.path().join("lost+found")));
    }
}

#[test]
fn offsets_no_file_can_have_are_refused() {
    let (_root, dir) = dir();
    let mut staged = Staged::create(&dir, &place(), None).unwrap();
    for offset in [u64::MAX, i64::MAX as u64] {
        let refused = staged.write(offset, b"xx").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
    }
    assert_eq!(
        staged.set_len(u64::MAX).unwrap_err().kind(),
        ErrorKind::TooLarge
    );
}

#[test]
fn seconds_are_rounded_down_before_1970_too() {
    let at = |secs, nanos| UNIX_EPOCH + Duration::new(secs, nanos);
    assert_eq!(whole_seconds(at(5, 999_999_999)), at(5, 0));
    let before = UNIX_EPOCH - Duration::from_millis(1500);
    assert_eq!(whole_seconds(before), UNIX_EPOCH - Duration::from_secs(2));
}

#[test]
fn what_a_killed_mount_staged_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let staging = root.path().join("staging");
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("staged-7"), "unsent").unwrap();
    fs::write(staging.join("staged-8"), "").unwrap();
    fs::write(staging.join("staged-9"), "in the journal").unwrap();
    let dir = StagingDir::new(&staging).unwrap();
    dir.rescue(|path| path.ends_with("staged-9")).unwrap();
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
    let kept: Vec<_> = fs::read_dir(root.path().join("lost+found"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none())
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), b"unsent");
}

#[test]
fn a_name_as_long_as_names_can_be_is_kept_too() {
    let (root, dir) = dir();
    let name = [b'n'; 255];
    let named = dir.new_file(&RemotePath::parse(&name).unwrap()).unwrap();
    named.file().write_all_at(b"unsent", 0).unwrap();
    named.hold();
    drop(named);
    // Else no later mount would ever begin.
    dir.rescue(|_| false).unwrap();
    let kept = fs::read_dir(root.path().join("lost+found")).unwrap();
    let mut kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    assert_eq!(kept.len(), 2, "and its reason");
    assert_eq!(fs::read(&kept[0]).unwrap(), b"unsent");
}

#[test]
fn what_the_journal_has_is_never_changed() {
    let (_root, dir) = dir();
    let mut staged = Staged::create(&dir, &place(), None).unwrap();
    staged.write(0, b"0123456789").unwrap();
    let frozen = staged.freeze().unwrap();
    frozen.named.hold();
    // Behind it in the same file, below its end in another.
    staged.write(10, b"tail").unwrap();
    assert!(Arc::ptr_eq(&frozen.named, staged.named()));
    staged.write(2, b"xx").unwrap();
    assert!(!Arc::ptr_eq(&frozen.named, staged.named()));
    assert_eq!(local(&staged, 0, 14), b"01xx456789tail");
    staged.set_len(3).unwrap();
    assert_eq!(fs::read(frozen.named.path()).unwrap(), b"0123456789tail");

    let restored = Staged::restore(&dir, &place(), frozen).unwrap();
    assert!(restored.is_dirty());
    assert_eq!((restored.len(), restored.remote_bytes()), (10, 0));
    assert_eq!(local(&restored, 0, 10), b"0123456789");
}

#[test]
fn small_files_are_used_again_when_nobody_has_them() {
    let root = tempfile::tempdir().unwrap();
    let dir = Arc::new(StagingDir::new(&root.path().join("staging")).unwrap());
    let names = |dir: &str| {
        let entries = std::fs::read_dir(root.path().join(dir)).into_iter();
        entries.flatten().count()
    };
    let write = |name: &[u8], len: usize| {
        let at = RemotePath::parse(name).unwrap();
        let mut staged = Staged::create(&dir, &at, None).unwrap();
        staged.write(0, &vec![7; len]).unwrap();
        staged
    };
    drop(write(b"a", 5000));
    assert_eq!((names("staging"), names("spare")), (0, 1));
    let again = write(b"b", 3);
    assert_eq!((names("staging"), names("spare")), (1, 0));
    let found = again.named().file().metadata().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(std::fs::metadata(again.named().path()).unwrap().len(), 3);

    // An upload that was given up may still read it.
    let source = again.source();
    drop(again);
    let mut content = [0; 3];
    source.file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(content, [7; 3]);
    drop(write(b"big", (1 << 20) + 1));
    assert_eq!((names("staging"), names("spare")), (0, 0));

    drop(write(b"c", 1));
    assert_eq!(names("spare"), 1);
    drop(dir);
    assert!(!root.path().join("spare").exists());
}

#[test]
fn what_a_killed_mount_had_spare_is_neither_kept_nor_used() {
    let root = tempfile::tempdir().unwrap();
    let spare = root.path().join("spare");
    std::fs::create_dir(&spare).unwrap();
    std::fs::write(spare.join("1"), "old").unwrap();
    let dir = Arc::new(StagingDir::new(&root.path().join("staging")).unwrap());
    assert!(!spare.exists());
    let at = RemotePath::parse(b"a").unwrap();
    let staged = Staged::create(&dir, &at, None).unwrap();
    assert_eq!(staged.named().file().metadata().unwrap().len(), 0);
}
