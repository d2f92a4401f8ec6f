//! One open file whose server is waited for.

use std::fs::File;
use std::sync::Arc;

use super::Outage;
use crate::vfs::attr::{Attr, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow, Origin, Replaces};
use crate::vfs::chunk::Chunk;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// See [the module](super). What fails leaves the file as it was, so everything may be done again.
pub(super) struct PatientFile {
    inner: Arc<dyn OpenFile>,
    outage: Arc<Outage>,
}

impl PatientFile {
    pub(super) const fn new(inner: Arc<dyn OpenFile>, outage: Arc<Outage>) -> Self {
        Self { inner, outage }
    }
}

impl OpenFile for PatientFile {
    fn attr(&self) -> Attr {
        self.inner.attr()
    }

    fn reopen(&self, at: &RemotePath, known: Option<&Attr>, how: OpenHow) -> Result<()> {
        self.outage.patiently(|| self.inner.reopen(at, known, how))
    }

    fn is_outdated(&self) -> bool {
        self.inner.is_outdated()
    }

    fn discard(&self) {
        self.inner.discard();
    }

    fn read_at(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.outage
            .patiently(|| self.inner.read_at(at, offset, buf))
    }

    fn read_chunk(&self, at: &RemotePath, offset: u64, len: usize) -> Result<Chunk> {
        self.outage
            .patiently(|| self.inner.read_chunk(at, offset, len))
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
        self.inner.write_at(at, offset, data)
    }

    fn write_now(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<bool> {
        self.inner.write_now(at, offset, data)
    }

    fn set_len(&self, at: &RemotePath, len: u64) -> Result<()> {
        self.outage.patiently(|| self.inner.set_len(at, len))
    }

    fn set_attr(&self, at: &RemotePath, change: &SetAttr) -> Result<()> {
        self.outage.patiently(|| self.inner.set_attr(at, change))
    }

    fn commit(&self, at: &RemotePath) -> Result<()> {
        self.outage.patiently(|| self.inner.commit(at))
    }

    fn commit_acknowledged(&self, at: &RemotePath) -> Result<()> {
        self.outage.patiently(|| self.inner.commit_acknowledged(at))
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

    fn is_dirty(&self) -> bool {
        self.inner.is_dirty()
    }

    fn bring(&self, at: &RemotePath) {
        self.inner.bring(at);
    }

    fn detach(&self, at: &RemotePath) -> Result<bool> {
        self.outage.patiently(|| self.inner.detach(at))
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
        self.inner.is_acknowledged()
    }

    fn moved(&self, to: &RemotePath, replaces: Replaces) -> Result<bool> {
        self.inner.moved(to, replaces)
    }

    /// There is no second close: what is dirty is brought to the server before it.
    fn close(&self, at: Option<&RemotePath>) -> Result<()> {
        if let Some(at) = at.filter(|_| self.inner.is_dirty()) {
            // Whatever came of it, the close says so again.
            let _ = self.commit(at);
        }
        self.inner.close(at)
    }
}
