#![allow(clippy::unwrap_used, clippy::unimplemented)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::sync::Locked;
use crate::vfs::attr::FileKind;
use crate::vfs::cache::listings::Listings;
use crate::vfs::error::ErrorKind;

type Hook = Box<dyn FnOnce() + Send>;

/// A file of one byte more with every write, whose steps can be stopped in between.
#[derive(Default)]
struct Stepwise {
    written: Locked<u64>,
    on_server: Locked<(u64, u64)>,
    detached: Locked<bool>,
    mode: Locked<Option<u32>>,
    /// What happens before the file says whether it is dirty, before a commit and after it, before
    /// its mode is set, and when somebody has found out what the server has.
    asked: Locked<Option<Hook>>,
    before: Locked<Option<Hook>>,
    after: Locked<Option<Hook>>,
    setting: Locked<Option<Hook>>,
    told: Locked<Option<Hook>>,
}

impl Stepwise {
    fn attr_of(&self, size: u64) -> Attr {
        Attr {
            size: Some(size),
            mode: self.mode.with(|mode| *mode),
            ..Attr::new(FileKind::File)
        }
    }

    fn run(hook: &Locked<Option<Hook>>) {
        if let Some(hook) = hook.with(Option::take) {
            hook();
        }
    }

    fn dirty(&self) -> bool {
        let written = self.written.with(|written| *written);
        !self.detached.with(|gone| *gone) && written != self.on_server.with(|(size, _)| *size)
    }
}

impl OpenFile for Stepwise {
    fn attr(&self) -> Attr {
        self.attr_of(self.written.with(|written| *written))
    }

    fn reopen(&self, _: &RemotePath, _: Option<&Attr>, _: OpenHow) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn read_at(&self, _: &RemotePath, _: u64, _: &mut [u8]) -> Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _: &RemotePath, _: u64, data: &[u8]) -> Result<()> {
        self.written.with(|written| *written += data.len() as u64);
        Ok(())
    }

    fn set_len(&self, _: &RemotePath, _: u64) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_attr(&self, _: &RemotePath, change: &SetAttr) -> Result<()> {
        Self::run(&self.setting);
        self.mode.with(|mode| *mode = change.mode);
        Ok(())
    }

    fn commit(&self, _: &RemotePath) -> Result<()> {
        Self::run(&self.before);
        if self.dirty() {
            let written = self.written.with(|written| *written);
            self.on_server
                .with(|(size, times)| (*size, *times) = (written, *times + 1));
        }
        Self::run(&self.after);
        Ok(())
    }

    fn stored(&self) -> Option<(u64, Attr)> {
        let (size, times) = self.on_server.with(|known| *known);
        let attr = self.attr_of(size);
        Self::run(&self.told);
        Some((times, attr))
    }

    fn is_dirty(&self) -> bool {
        Self::run(&self.asked);
        self.dirty()
    }

    fn detach(&self, _: &RemotePath) -> Result<bool> {
        self.detached.with(|gone| *gone = true);
        Ok(self.on_server.with(|(_, times)| *times > 0))
    }

    fn close(&self, _: Option<&RemotePath>) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

fn at() -> RemotePath {
    RemotePath::parse(b"name").unwrap()
}

/// The file behind a cache that never forgets.
fn open() -> (Arc<Stepwise>, Arc<CachedFile>) {
    let listings = Listings::new(Duration::from_secs(3600), 1000);
    let memory = Memory(Arc::new(Locked::new(listings)));
    let inner = Arc::new(Stepwise::default());
    let file: Arc<dyn OpenFile> = Arc::<Stepwise>::clone(&inner);
    (inner, Arc::new(CachedFile::new(file, memory)))
}

/// What the cache knows of the file: `None`: nothing, so the server is asked.
fn known(file: &CachedFile) -> Option<Option<u64>> {
    let known = file
        .memory
        .0
        .with(|listings| listings.known(&at(), Instant::now()))?;
    Some(known.0.unwrap().size)
}

/// A hook that tells when it is reached and goes on when it is told to.
fn stop() -> (Hook, Receiver<()>, Sender<()>) {
    let (reached, is_reached) = channel();
    let (go, may_go) = channel::<()>();
    let hook = move || {
        reached.send(()).unwrap();
        may_go.recv().unwrap();
    };
    (Box::new(hook), is_reached, go)
}

#[test]
fn a_file_is_dirty_until_the_cache_has_what_a_commit_made_of_it() {
    let (inner, file) = open();
    file.write_at(&at(), 0, b"x").unwrap();
    let (hook, reached, go) = stop();
    inner.after.with(|after| *after = Some(hook));
    let committer = Arc::clone(&file);
    let (begun, has_begun) = channel();
    // Who asks is overtaken by a commit from its beginning to where the server has the content.
    let overtake = move || {
        let committing = thread::spawn(move || committer.commit(&at()).unwrap());
        reached.recv().unwrap();
        begun.send(committing).unwrap();
    };
    inner.asked.with(|asked| *asked = Some(Box::new(overtake)));
    // The first to ask is who wants to know, not the commit.
    assert!(file.is_dirty(), "an older listing is believed");
    go.send(()).unwrap();
    has_begun.recv().unwrap().join().unwrap();
    assert!(!file.is_dirty());
    assert_eq!(known(&file), Some(Some(1)));
}

#[test]
fn a_second_commit_does_not_answer_for_the_first() {
    let (inner, file) = open();
    file.write_at(&at(), 0, b"x").unwrap();
    let (hook, reached, go) = stop();
    inner.after.with(|after| *after = Some(hook));
    let committer = Arc::clone(&file);
    let committing = thread::spawn(move || committer.commit(&at()).unwrap());
    reached.recv().unwrap();
    // The server has it, and nothing is left to do.
    file.commit(&at()).unwrap();
    assert!(file.is_dirty(), "an older listing is believed");
    go.send(()).unwrap();
    committing.join().unwrap();
    assert!(!file.is_dirty());
    assert_eq!(known(&file), Some(Some(1)));
}

#[test]
fn what_is_written_just_before_a_commit_of_nothing_is_not_missed() {
    let (inner, file) = open();
    let writer = Arc::clone(&file);
    let write = move || writer.write_at(&at(), 0, b"xy").unwrap();
    inner.before.with(|before| *before = Some(Box::new(write)));
    file.commit(&at()).unwrap();
    assert!(!file.is_dirty());
    assert_eq!(known(&file), Some(Some(2)));
}

#[test]
fn a_commit_that_finds_the_name_given_up_enters_nothing() {
    let (inner, file) = open();
    file.write_at(&at(), 0, b"x").unwrap();
    let remover = Arc::clone(&file);
    let remove = move || assert!(!remover.detach(&at()).unwrap());
    inner.before.with(|before| *before = Some(Box::new(remove)));
    file.commit(&at()).unwrap();
    assert_eq!(known(&file), None, "a name that no server has");
}

#[test]
fn what_is_written_during_a_commit_is_not_taken_for_what_the_server_has() {
    let (inner, file) = open();
    file.write_at(&at(), 0, b"x").unwrap();
    let writer = Arc::clone(&file);
    let write = move || writer.write_at(&at(), 1, b"yz").unwrap();
    inner.after.with(|after| *after = Some(Box::new(write)));
    file.commit(&at()).unwrap();
    assert!(file.is_dirty());
    assert_eq!(known(&file), Some(Some(1)));
}

#[test]
fn a_mode_set_while_a_commit_ends_is_not_overwritten_by_it() {
    let (inner, file) = open();
    file.write_at(&at(), 0, b"x").unwrap();
    // The change finds a dirty file. Before it is made, a commit has stored the content and found
    // out what the server has, but has not entered it yet.
    let (hook, reached, go) = stop();
    let then = Arc::clone(&inner);
    let stop_there = move || then.told.with(|told| *told = Some(hook));
    inner
        .before
        .with(|before| *before = Some(Box::new(stop_there)));
    let committer = Arc::clone(&file);
    let (begun, has_begun) = channel();
    let commit = move || {
        begun
            .send(thread::spawn(move || committer.commit(&at()).unwrap()))
            .unwrap();
        reached.recv().unwrap();
    };
    inner
        .setting
        .with(|setting| *setting = Some(Box::new(commit)));
    let change = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    file.set_attr(&at(), &change).unwrap();
    go.send(()).unwrap();
    has_begun.recv().unwrap().join().unwrap();
    let mode = file.memory.0.with(|listings| {
        let known = listings.known(&at(), Instant::now())?;
        Some(known.0.unwrap().mode)
    });
    assert!(
        mode.is_none_or(|mode| mode == Some(0o600)),
        "the cache says {mode:?}"
    );
}

#[test]
fn a_commit_of_nothing_leaves_answers_on_their_way_alone() {
    let (_, file) = open();
    let before = file.memory.generation();
    file.commit(&at()).unwrap();
    assert_eq!(file.memory.generation(), before);
}
