//! An open file whose commits show in the cache.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Memory;
use crate::vfs::attr::{Attr, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow, Origin, Replaces};
use crate::vfs::chunk::Chunk;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Passes everything on, and enters in the cache what a commit made of the file.
pub(super) struct CachedFile {
    inner: Arc<dyn OpenFile>,
    memory: Memory,
    /// How many of the commits that [`stored`](OpenFile::stored) counts are in the cache.
    entered: AtomicU64,
    /// Commits under way where nobody counts.
    uncounted: AtomicUsize,
}

impl CachedFile {
    pub(super) fn new(inner: Arc<dyn OpenFile>, memory: Memory) -> Self {
        let entered = inner.stored().map_or(0, |(count, _)| count);
        Self {
            inner,
            memory,
            entered: AtomicU64::new(entered),
            uncounted: AtomicUsize::new(0),
        }
    }

    /// Runs what stores the content. If that gave the server something, the cache learns what it
    /// has now. Whether it did is not to be told from outside: a writer may come before it, or
    /// somebody who takes the name away.
    fn publish(&self, at: &RemotePath, store: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.inner.stored();
        let uncounted = before.is_none() && self.inner.is_dirty();
        self.uncounted
            .fetch_add(usize::from(uncounted), Ordering::SeqCst);
        let mut outcome = Ok(());
        // Only of what this commit enters: another may have stored more, and is about to enter it.
        let mut count = 0;
        let store = || {
            outcome = store();
            match (&before, self.inner.stored()) {
                (Some((before, _)), Some((now, attr))) if now != *before => {
                    count = now;
                    Ok(Some(attr))
                }
                _ => outcome
                    .clone()
                    .map(|()| uncounted.then(|| self.inner.attr())),
            }
        };
        let entered =
            self.memory
                .change_if(&[at], store, Option::is_some, |listings, now, attr| {
                    if let Some(attr) = attr {
                        listings.put(at, attr.clone(), now);
                    }
                });
        self.uncounted
            .fetch_sub(usize::from(uncounted), Ordering::SeqCst);
        self.entered.fetch_max(count, Ordering::SeqCst);
        outcome.and(entered.map(drop))
    }

    /// Whether a commit has stored something that is not in the cache yet. Until it is, the file
    /// says that it is dirty, so that nobody takes an older listing for the truth.
    fn is_entering(&self) -> bool {
        let stored = self.inner.stored().map(|(count, _)| count);
        stored.is_some_and(|count| count > self.entered.load(Ordering::SeqCst))
            || self.uncounted.load(Ordering::SeqCst) > 0
    }

    fn refute<T>(&self, at: &RemotePath, result: Result<T>) -> Result<T> {
        if let Err(err) = &result {
            self.memory.refuted(at, err);
        }
        result
    }
}

impl OpenFile for CachedFile {
    fn attr(&self) -> Attr {
        self.inner.attr()
    }

    fn reopen(&self, at: &RemotePath, known: Option<&Attr>, how: OpenHow) -> Result<()> {
        self.refute(at, self.inner.reopen(at, known, how))
    }

    fn is_outdated(&self) -> bool {
        self.inner.is_outdated()
    }

    fn discard(&self) {
        self.inner.discard();
    }

    fn read_at(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.refute(at, self.inner.read_at(at, offset, buf))
    }

    fn read_chunk(&self, at: &RemotePath, offset: u64, len: usize) -> Result<Chunk> {
        self.refute(at, self.inner.read_chunk(at, offset, len))
    }

    fn peek(&self, offset: u64, len: usize) -> Option<Chunk> {
        self.inner.peek(offset, len)
    }

    fn whole(&self) -> Option<File> {
        self.inner.whole()
    }

    fn origin(&self) -> Origin {
        self.inner.origin()
    }

    fn share_whole(&self, may_be_mapped: bool) -> Result<()> {
        self.inner.share_whole(may_be_mapped)
    }

    fn shares_whole(&self) -> bool {
        self.inner.shares_whole()
    }

    fn may_be_mapped(&self) -> bool {
        self.inner.may_be_mapped()
    }

    fn look(&self) {
        self.inner.look();
    }

    fn write_at(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<()> {
        self.refute(at, self.inner.write_at(at, offset, data))
    }

    fn write_now(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<bool> {
        self.refute(at, self.inner.write_now(at, offset, data))
    }

    fn set_len(&self, at: &RemotePath, len: u64) -> Result<()> {
        self.refute(at, self.inner.set_len(at, len))
    }

    fn set_attr(&self, at: &RemotePath, change: &SetAttr) -> Result<()> {
        // Of a dirty file it is the commit that sets them.
        if self.inner.is_dirty() {
            let set = self.inner.set_attr(at, change);
            // A commit came in between, perhaps, and the server was told itself: what that commit
            // is about to enter in the cache may be older.
            if !self.inner.is_dirty() {
                self.memory.doubt(at);
            }
            return set;
        }
        self.memory.change(
            &[at],
            || self.inner.set_attr(at, change),
            |listings, now, ()| listings.set_attr(at, change, now),
        )
    }

    fn commit(&self, at: &RemotePath) -> Result<()> {
        self.publish(at, || self.inner.commit(at))
    }

    fn commit_acknowledged(&self, at: &RemotePath) -> Result<()> {
        self.publish(at, || self.inner.commit_acknowledged(at))
    }

    fn has_record(&self) -> bool {
        self.inner.has_record()
    }

    fn awaits_writer(&self) -> bool {
        self.inner.awaits_writer()
    }

    fn stored(&self) -> Option<(u64, Attr)> {
        self.inner.stored()
    }

    // In this order: a commit that makes it clean in between has counted that.
    fn is_dirty(&self) -> bool {
        self.inner.is_dirty() || self.is_entering()
    }

    fn bring(&self, at: &RemotePath) {
        self.inner.bring(at);
    }

    fn detach(&self, at: &RemotePath) -> Result<bool> {
        self.inner.detach(at)
    }

    fn removed(&self) {
        self.inner.removed();
    }

    fn reattach(&self) -> bool {
        self.inner.reattach()
    }

    fn acknowledge(&self, at: &RemotePath) -> Result<()> {
        self.inner.acknowledge(at)
    }

    fn is_acknowledged(&self) -> bool {
        !self.is_entering() && self.inner.is_acknowledged()
    }

    fn moved(&self, to: &RemotePath, replaces: Replaces) -> Result<bool> {
        self.inner.moved(to, replaces)
    }

    fn close(&self, at: Option<&RemotePath>) -> Result<()> {
        match at {
            Some(path) => self.publish(path, || self.inner.close(at)),
            None => self.inner.close(None),
        }
    }
}

#[cfg(test)]
mod tests;
