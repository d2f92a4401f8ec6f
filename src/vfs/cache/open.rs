//! An open file whose commits show in the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Memory;
use crate::vfs::attr::{Attr, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow, Replaces};
use crate::vfs::chunk::Chunk;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Passes everything on, and enters in the cache what a commit made of the file.
pub(super) struct CachedFile {
    inner: Arc<dyn OpenFile>,
    memory: Memory,
    /// Commits whose result is not in the cache yet. Until it is, the file says that it is dirty,
    /// so that nobody takes an older listing for the truth.
    committing: AtomicUsize,
}

impl CachedFile {
    pub(super) const fn new(inner: Arc<dyn OpenFile>, memory: Memory) -> Self {
        Self {
            inner,
            memory,
            committing: AtomicUsize::new(0),
        }
    }

    /// Runs what stores the content. If there was any, the cache learns what the file has become.
    fn publish(&self, at: &RemotePath, store: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.inner.is_dirty() {
            return store();
        }
        self.committing.fetch_add(1, Ordering::SeqCst);
        let result = self.memory.change(&[at], store, |listings, now, ()| {
            listings.put(at, self.inner.attr(), now);
        });
        self.committing.fetch_sub(1, Ordering::SeqCst);
        result
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

    fn read_at(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.refute(at, self.inner.read_at(at, offset, buf))
    }

    fn read_chunk(&self, at: &RemotePath, offset: u64, len: usize) -> Result<Chunk> {
        self.refute(at, self.inner.read_chunk(at, offset, len))
    }

    fn peek(&self, offset: u64, len: usize) -> Option<Chunk> {
        self.inner.peek(offset, len)
    }

    fn write_at(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<()> {
        self.refute(at, self.inner.write_at(at, offset, data))
    }

    fn set_len(&self, at: &RemotePath, len: u64) -> Result<()> {
        self.refute(at, self.inner.set_len(at, len))
    }

    fn set_attr(&self, at: &RemotePath, change: &SetAttr) -> Result<()> {
        // Of a dirty file it is the commit that sets them.
        if self.inner.is_dirty() {
            let set = self.inner.set_attr(at, change);
            // A commit came in between, perhaps, and the server was told itself.
            if !self.is_dirty() {
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

    fn is_dirty(&self) -> bool {
        self.committing.load(Ordering::SeqCst) > 0 || self.inner.is_dirty()
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
        self.committing.load(Ordering::SeqCst) == 0 && self.inner.is_acknowledged()
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
