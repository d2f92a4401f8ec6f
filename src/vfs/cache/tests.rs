#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;
use crate::vfs::path::Name;

const LONG: Duration = Duration::from_secs(3600);

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

/// A server of empty files in one directory, whose answers can be held back.
#[derive(Default)]
struct Gated {
    names: Locked<BTreeSet<String>>,
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    lists: AtomicUsize,
    stats: AtomicUsize,
    failure: Locked<Option<ErrorKind>>,
}

impl Gated {
    /// The next answer tells when it was read, and waits to be let through.
    fn hold(&self) -> (Receiver<()>, Sender<()>) {
        let (read, has_read) = channel();
        let (go, may_go) = channel();
        *self.gate.lock().unwrap() = Some((read, may_go));
        (has_read, go)
    }

    fn pass_gate(&self) {
        let gate = self.gate.lock().unwrap().take();
        if let Some((read, go)) = gate {
            read.send(()).unwrap();
            go.recv().unwrap();
        }
    }

    fn counts(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.stats), load(&self.lists))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>)) -> Result<()> {
        match self.failure.with(Option::take) {
            Some(kind) => Err(kind.into()),
            None => {
                self.names.with(change);
                Ok(())
            }
        }
    }
}

impl Backend for Gated {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        self.stats.fetch_add(1, Ordering::SeqCst);
        let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let found = self.names.with(|names| names.contains(&name));
        self.pass_gate();
        if found {
            return Ok(Attr::new(FileKind::File));
        }
        Err(ErrorKind::NotFound.into())
    }

    fn list(&self, _: &RemotePath) -> Result<Arc<[DirEntry]>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let entry = |name: &String| DirEntry {
            name: Name::new(name).unwrap(),
            attr: Attr::new(FileKind::File),
        };
        let entries = self.names.with(|names| names.iter().map(entry).collect());
        self.pass_gate();
        Ok(entries)
    }

    fn open(&self, _: &RemotePath, _: Option<&Attr>, _: OpenHow) -> Result<Arc<dyn OpenFile>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn mkdir(&self, _: &RemotePath, _: Option<u32>) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        let name = path.to_os_string().into_string().unwrap();
        self.change(|names| {
            names.remove(&name);
        })
    }

    fn rmdir(&self, _: &RemotePath) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &RemotePath, _: &RemotePath, _: Replaces) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_attr(&self, _: &RemotePath, _: &SetAttr) -> Result<()> {
        self.change(|_| {})
    }

    fn read_link(&self, _: &RemotePath) -> Result<Vec<u8>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn symlink(&self, _: &[u8], path: &RemotePath) -> Result<()> {
        let name = path.to_os_string().into_string().unwrap();
        self.change(|names| {
            names.insert(name);
        })
    }

    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    fn xattrs(&self, _: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

fn cached(names: &[&str]) -> (Arc<Gated>, Arc<Cached>) {
    let server = Arc::new(Gated::default());
    server
        .names
        .with(|all| all.extend(names.iter().map(ToString::to_string)));
    let inner: Arc<dyn Backend> = Arc::<Gated>::clone(&server);
    (server, Arc::new(Cached::new(inner, LONG, 1000)))
}

fn names(cached: &Cached) -> Vec<String> {
    let entries = cached.list(&RemotePath::root()).unwrap();
    entries.iter().map(|entry| entry.name.to_string()).collect()
}

#[test]
fn a_listing_read_before_a_removal_does_not_bring_the_name_back() {
    let (server, cached) = cached(&["a", "b"]);
    let (has_read, go) = server.hold();
    let lister = thread::spawn({
        let cached = Arc::clone(&cached);
        move || names(&cached)
    });
    has_read.recv().unwrap();
    cached.unlink(&path("a")).unwrap();
    assert_eq!(names(&cached), ["b"], "asked after the removal");
    go.send(()).unwrap();
    assert_eq!(lister.join().unwrap(), ["a", "b"], "asked before it");
    assert_eq!(names(&cached), ["b"]);
    let err = cached.known(&path("a")).unwrap().0.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
}

#[test]
fn an_answer_read_before_a_removal_does_not_bring_the_name_back() {
    let (server, cached) = cached(&["a"]);
    let (has_read, go) = server.hold();
    let asker = thread::spawn({
        let cached = Arc::clone(&cached);
        move || cached.stat(&path("a"))
    });
    has_read.recv().unwrap();
    cached.unlink(&path("a")).unwrap();
    go.send(()).unwrap();
    assert!(asker.join().unwrap().is_ok(), "asked before it");
    assert!(cached.stat(&path("a")).is_err());
}

#[test]
fn many_who_want_one_listing_cost_one() {
    let (server, cached) = cached(&["a"]);
    let (has_read, go) = server.hold();
    let ask = || {
        let cached = Arc::clone(&cached);
        thread::spawn(move || names(&cached))
    };
    let first = ask();
    has_read.recv().unwrap();
    let others: Vec<_> = (0..8).map(|_| ask()).collect();
    thread::sleep(Duration::from_millis(50));
    go.send(()).unwrap();
    for asker in others.into_iter().chain([first]) {
        assert_eq!(asker.join().unwrap(), ["a"]);
    }
    assert_eq!(server.counts(), (0, 1));
}

#[test]
fn names_of_one_directory_cost_two_stats_and_a_listing() {
    let (server, cached) = cached(&["a", "b", "c", "d"]);
    for name in ["a", "nope", "b", "c", "d", "neither", "a"] {
        let found = cached.stat(&path(name)).is_ok();
        assert_eq!(found, name.len() == 1, "{name}");
    }
    assert_eq!(server.counts(), (2, 1));
}

#[test]
fn own_changes_cost_nothing_more() {
    let (server, cached) = cached(&["a", "b"]);
    names(&cached);
    cached.unlink(&path("a")).unwrap();
    cached.symlink(b"target", &path("c")).unwrap();
    assert_eq!(names(&cached), ["b", "c"]);
    assert!(cached.stat(&path("a")).is_err());
    let link = cached.stat(&path("c")).unwrap();
    assert_eq!((link.kind, link.size), (FileKind::Symlink, Some(6)));
    assert_eq!(server.counts(), (0, 1));
}

#[test]
fn a_change_that_may_have_happened_is_asked_about() {
    let (server, cached) = cached(&["a", "b"]);
    names(&cached);
    server.names.with(|names| names.remove("a"));
    server
        .failure
        .with(|kind| *kind = Some(ErrorKind::TimedOut));
    cached.unlink(&path("a")).unwrap_err();
    assert!(cached.known(&path("a")).is_none());
    assert!(cached.known(&path("b")).is_some());
    assert!(cached.stat(&path("a")).is_err());
    assert_eq!(names(&cached), ["b"]);
    assert_eq!(server.counts(), (1, 1));
}

#[test]
fn a_refusal_changes_nothing() {
    let (server, cached) = cached(&["a"]);
    names(&cached);
    server
        .failure
        .with(|kind| *kind = Some(ErrorKind::Unsupported));
    let change = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    cached.set_attr(&path("a"), &change).unwrap_err();
    assert!(cached.stat(&path("a")).unwrap().mode.is_none());
    assert_eq!(server.counts(), (0, 1));
}

#[test]
fn changes_of_one_name_at_once_leave_it_to_the_server() {
    let (_, cached) = cached(&["a"]);
    names(&cached);
    let memory = cached.memory.clone();
    let at = path("a");
    let changed = memory.change(
        &[&at],
        || cached.unlink(&at),
        |listings, now, ()| listings.put(&at, Attr::new(FileKind::File), now),
    );
    changed.unwrap();
    assert!(cached.known(&at).is_none());
    assert!(cached.stat(&at).is_err());
}
