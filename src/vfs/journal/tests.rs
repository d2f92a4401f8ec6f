#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::vfs::staging::Staged;

struct State {
    root: tempfile::TempDir,
    staging: Arc<StagingDir>,
    journal: Journal,
}

impl State {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), "ftp://h/")
    }

    fn at(root: tempfile::TempDir, account: &str) -> Self {
        let staging = Arc::new(StagingDir::new(&root.path().join("staging")).unwrap());
        let journal = Journal::new(
            root.path().join("journal"),
            account,
            false,
            staging.spares(),
        );
        Self {
            root,
            staging,
            journal,
        }
    }

    /// As after `kill -9`: nothing is dropped in order.
    fn killed(self, account: &str) -> Self {
        Self::at(self.root, account)
    }

    fn write(&self, at: &str, content: &[u8]) -> Staged {
        let mut staged = Staged::create(&self.staging, &path(at), Some(0o640)).unwrap();
        staged.write(0, content).unwrap();
        staged
    }

    fn record(&self, at: &str, staged: &mut Staged) -> Entry {
        let frozen = staged.freeze().unwrap();
        self.journal.record(&path(at), &frozen, None, None).unwrap()
    }

    fn recover(&self) -> Vec<(String, Vec<u8>)> {
        let saved = self.journal.recover(&self.staging).unwrap();
        let read = |saved: Saved| {
            let at = saved.path().to_string();
            let staged = Staged::restore(&self.staging, &path("x"), saved.frozen).unwrap();
            let mut content = vec![0; usize::try_from(staged.len()).unwrap()];
            staged.read(0, &mut content).unwrap();
            (at, content)
        };
        saved.into_iter().map(read).collect()
    }

    fn files(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.path().join(dir));
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn reasons(&self) -> String {
        let dir = self.root.path().join("lost+found");
        let names = self.files("lost+found").into_iter();
        let reasons = names.filter(|name| name.ends_with(".reason"));
        reasons
            .map(|name| fs::read_to_string(dir.join(name)).unwrap())
            .collect()
    }
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

#[test]
fn what_was_recorded_comes_back_and_what_was_not_goes_to_lost_and_found() {
    let state = State::new();
    let mut a = state.write("d/a", b"acknowledged");
    let mut b = state.write("d/b", b"stored");
    let c = state.write("d/c", b"half wri");
    let entries = [state.record("d/a", &mut a), state.record("d/b", &mut b)];
    // A little more, which nobody acknowledged.
    a.write(12, b" and more").unwrap();
    let [_kept, stored] = entries;
    stored.remove();
    std::mem::forget((a, c));
    drop(b);

    let state = state.killed("ftp://h/");
    let back = state.recover();
    assert_eq!(back, [("/d/a".to_owned(), b"acknowledged".to_vec())]);
    assert_eq!(state.files("lost+found").len(), 2);
    assert!(state.files("lost+found")[0].starts_with("c-"));
    assert!(
        state.reasons().contains("path: /d/c"),
        "{}",
        state.reasons()
    );
    assert!(state.reasons().contains("before the program"));
    assert_eq!(state.files("staging").len(), 1);
    // And again, if that mount is killed at once.
    let state = state.killed("ftp://h/");
    assert_eq!(state.recover().len(), 1);
}

#[test]
fn of_two_records_of_one_path_the_later_holds() {
    let state = State::new();
    let mut old = state.write("f", b"old");
    let mut new = state.write("f", b"new");
    let _entries = (state.record("f", &mut old), state.record("f", &mut new));
    std::mem::forget((old, new));
    let state = state.killed("ftp://h/");
    assert_eq!(state.recover(), [("/f".to_owned(), b"new".to_vec())]);
    assert_eq!(state.files("journal").len(), 1);
    assert_eq!(state.files("lost+found"), Vec::<String>::new());
}

#[test]
fn another_accounts_content_is_not_uploaded_here() {
    let state = State::new();
    let mut staged = state.write("f", b"mine");
    let _entry = state.record("f", &mut staged);
    std::mem::forget(staged);
    let state = state.killed("ftp://other/");
    assert_eq!(state.recover(), []);
    assert!(state.reasons().contains("ftp://h/, not to ftp://other/"));
    assert_eq!(state.files("lost+found").len(), 2);
    assert_eq!(state.files("journal"), Vec::<String>::new());
}

#[test]
fn what_is_damaged_is_not_believed_and_not_deleted() {
    let state = State::new();
    let mut torn = state.write("torn", b"bytes of torn");
    let mut short = state.write("short", b"bytes of short");
    let entries = [
        state.record("torn", &mut torn),
        state.record("short", &mut short),
    ];
    let record = fs::read(&entries[0].path).unwrap();
    fs::write(&entries[0].path, &record[..record.len() / 2]).unwrap();
    fs::write(entries[0].path.with_extension("new"), b"ferryfs").unwrap();
    short.named().file().set_len(3).unwrap();
    std::mem::forget((torn, short));
    let state = state.killed("ftp://h/");
    assert_eq!(state.recover(), []);
    assert_eq!(state.files("journal"), Vec::<String>::new());
    assert_eq!(
        state.files("lost+found").len(),
        4,
        "two, with their reasons"
    );
    assert!(state.reasons().contains("did not survive"));
}

#[test]
fn a_record_that_is_done_with_serves_again_and_tells_nothing() {
    let state = State::new();
    let mut first = state.write("first", b"a content that is longer than the next");
    state.record("first", &mut first).remove();
    drop(first);
    assert_eq!(state.files("journal"), Vec::<String>::new());
    assert_eq!(state.files("staging"), Vec::<String>::new());
    assert_eq!(state.files("spare").len(), 2);
    let mut next = state.write("next", b"short");
    let _entry = state.record("next", &mut next);
    assert_eq!(state.files("spare").len(), 0);
    let mut last = state.write("last", b"stored");
    state.record("last", &mut last).remove();
    std::mem::forget((next, last));
    let state = state.killed("ftp://h/");
    assert_eq!(state.recover(), [("/next".to_owned(), b"short".to_vec())]);
    assert_eq!(state.files("spare"), Vec::<String>::new());
}
