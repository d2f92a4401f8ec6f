//! The server's tree as the filesystem wants it: every call goes to the room that knows how.

use std::sync::Arc;

use super::intents::Intents;
use super::options::FtpOptions;
use super::report::Report;
use super::server::FtpServer;
use crate::traffic::TRAFFIC;
use crate::vfs::Saved;
use crate::vfs::attr::{Attr, DirEntry, SetAttr, Space};
use crate::vfs::backend::{
    Backend, Download, Need, OpenFile, OpenHow, Replaces, Together, Transfers, Upload,
};
use crate::vfs::checksum::{Algorithm, Checksum};
use crate::vfs::content::Contents;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// A directory on an FTP server.
#[derive(Debug)]
pub struct FtpBackend {
    server: Arc<FtpServer>,
    contents: Arc<Contents>,
}

impl FtpBackend {
    /// Logs in and makes sure that the URL's directory is there. `contents` keeps what is open.
    ///
    /// # Errors
    /// One line that names the host or the directory and the cause: `Disconnected`, `TimedOut`,
    /// `PermissionDenied` for the login, `NotFound` or `NotADirectory` for the directory.
    pub fn connect(options: FtpOptions, contents: Arc<Contents>) -> Result<Self> {
        Self::with_intents(options, contents, Intents::default())
    }

    /// As [`connect`](Self::connect); what is under way is written down in `intents`.
    ///
    /// # Errors
    /// As those of `connect`.
    pub fn with_intents(
        options: FtpOptions,
        contents: Arc<Contents>,
        intents: Intents,
    ) -> Result<Self> {
        let server = FtpServer::connect(options, intents)?;
        Ok(Self { server, contents })
    }

    /// Puts right what an earlier mount left on the server, by its intents: within moments, or later
    /// if the server goes away. Where the mount is `read_only`, nothing is done, and that told.
    pub fn heal(&self, read_only: bool) {
        match read_only {
            true => self.server.leave_unhealed(),
            false => self.server.heal(),
        }
    }

    /// What was found out about the server.
    #[must_use]
    pub fn report(&self) -> Report {
        self.server.report()
    }

    /// For what moves contents without the filesystem (`ferryfs shell`, the journal's replay).
    #[must_use]
    pub fn transfers(&self) -> Arc<dyn Transfers> {
        Arc::new(FtpTransfers(Arc::clone(&self.server)))
    }

    /// Removes what failed uploads left, and says goodbye. The mount is over.
    pub fn close(&self) {
        self.server.close();
    }
}

impl Backend for FtpBackend {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        self.server.stat(path)
    }

    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        self.server.list(dir).map(Arc::from)
    }

    fn lists_at_once(&self, dir: &RemotePath) -> bool {
        self.server.lists_at_once(dir)
    }

    fn list_ahead(
        &self,
        dirs: &[RemotePath],
        each: &(dyn Fn(usize, Arc<[DirEntry]>) + Sync),
    ) -> bool {
        self.server.list_ahead(dirs, each)
    }

    fn lists_together(&self, waiting: usize) -> Together {
        self.server.lists_together(waiting)
    }

    fn fetch_ahead(&self, files: &[(RemotePath, Attr)]) {
        if !files.is_empty() {
            self.contents.fetch_ahead(&self.transfers(), files);
        }
    }

    fn open(
        &self,
        path: &RemotePath,
        known: Option<&Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        let known = match known {
            Some(known) => Some(known.clone()),
            None if how.create.is_some() => None,
            None => Some(self.server.stat(path)?),
        };
        let new = how.create.is_some();
        if new && let Some(refusal) = self.server.refused_just_now(path) {
            return Err(refusal);
        }
        let opened = self.contents.open(self.transfers(), path, known, how);
        if new && let Err(err) = &opened {
            self.server.note_refusal(path, err);
        }
        opened
    }

    fn restore(&self, saved: Saved) -> Result<Arc<dyn OpenFile>> {
        self.contents.restore(self.transfers(), saved)
    }

    fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()> {
        self.server.forget_refusals();
        self.server.mkdir(path, mode)
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        let outcome = self.server.unlink(path);
        self.contents.blocks().forget(path);
        outcome
    }

    fn rmdir(&self, path: &RemotePath) -> Result<()> {
        self.server.rmdir(path)
    }

    fn rename(&self, from: &RemotePath, to: &RemotePath, replaces: Replaces) -> Result<()> {
        let outcome = self.server.rename(from, to, replaces);
        self.server.forget_refusals();
        // What has a name now may look like what had it before: the same size, the same minute.
        self.contents.blocks().forget(from);
        self.contents.blocks().forget(to);
        // A directory replaces no version. What is in it has another name, too.
        if replaces == Replaces::Anything {
            self.contents.blocks().forget_below(from);
            self.contents.blocks().forget_below(to);
        }
        outcome
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.server.forget_refusals();
        self.server.set_attr(path, change)
    }

    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.server.read_link(path)
    }

    fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        self.server.symlink(target, path)
    }

    fn space(&self) -> Result<Option<Space>> {
        self.server.space()
    }

    fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(self.server.xattrs(path))
    }

    fn xattr(&self, path: &RemotePath, name: &str) -> Result<Vec<u8>> {
        self.server.xattr(path, name)
    }
}

/// The server, for what is open: it may outlive the backend.
#[derive(Debug)]
struct FtpTransfers(Arc<FtpServer>);

impl Transfers for FtpTransfers {
    fn stat_now(&self, path: &RemotePath) -> Result<Attr> {
        self.0.stat(path)
    }

    fn retrieve(&self, path: &RemotePath, offset: u64, need: Need) -> Result<Box<dyn Download>> {
        self.0.retrieve(path, offset, need)
    }

    fn expect_spots(&self, readers: usize, others: usize) {
        self.0.pool.expect_spots(readers, others);
    }

    fn resumes(&self, offset: u64) -> bool {
        self.0.resumes(offset)
    }

    fn downloads(&self) -> usize {
        self.0.pool.most_transfers()
    }

    fn store(&self, path: &RemotePath, replaces: Replaces, wait: bool) -> Result<Box<dyn Upload>> {
        self.0.store(path, replaces, None, wait)
    }

    fn store_all(
        &self,
        path: &RemotePath,
        replaces: Replaces,
        len: u64,
        wait: bool,
    ) -> Result<Box<dyn Upload>> {
        self.0.store(path, replaces, Some(len), wait)
    }

    fn surely_stores(&self, path: &RemotePath) -> bool {
        self.0.surely_stores(path)
    }

    fn append(&self, path: &RemotePath, base: u64) -> Result<Box<dyn Upload>> {
        self.0.append(path, base)
    }

    fn moved(&self) -> u64 {
        TRAFFIC.received.get() + TRAFFIC.sent.get()
    }

    fn is_on_this_machine(&self) -> bool {
        self.0.pool.host().facts(|facts| facts.on_this_machine)
    }

    fn is_link_full(&self) -> bool {
        self.0.pool.host().is_link_full()
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.0.set_attr(path, change)
    }

    fn checks_by(&self) -> Option<Algorithm> {
        self.0.checks_by()
    }

    fn compare(&self, path: &RemotePath, ours: &Checksum) -> Result<()> {
        self.0.on_session(|s| self.0.compare(s, "RETR", path, ours))
    }
}
