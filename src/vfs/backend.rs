//! The contract between the filesystem and what lies behind it.
//!
//! Two traits, both addressed by path and both called from many threads at once:
//!
//! * [`Backend`]: a remote tree. FTP, mail and TFTP implement it; [`Cached`](super::cache::Cached)
//!   decorates it; tests have a model in memory and a wrapper that injects faults.
//! * [`OpenFile`]: one file that is open, **shared by every handle of its inode** on this mount,
//!   so that what one descriptor wrote another reads at once. For servers whose files come and go
//!   whole, [`Content`](super::content::Content) implements it over [`Transfers`]; mail implements
//!   it over its local store.
//!
//! Implementations may block, but for a bounded time: every socket has a time limit, and every
//! operation at most one retry.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attr::{Attr, DirEntry, SetAttr, Space};
use super::checksum::{Algorithm, Checksum};
use super::chunk::Chunk;
use super::error::{ErrorKind, Result};
use super::journal::Saved;
use super::path::{Name, RemotePath};
pub use super::seen::Seen;

/// Where a content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// All of it is here, or it is being changed here.
    Local,
    /// From a server on this machine, which gives it as fast as memory does.
    SameMachine,
    /// From a server behind a network.
    Network,
}

/// How a file is opened. The flags mean what `open(2)` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenHow {
    /// The handle may read.
    pub read: bool,
    /// The handle may write.
    pub write: bool,
    /// `O_TRUNC`: the old content is not wanted.
    pub truncate: bool,
    /// `O_CREAT` with these permission bits: the name does not exist (the caller looked).
    pub create: Option<u32>,
}

/// Hears of changes that nobody asked for through this mount.
pub trait Listener: Send + Sync {
    /// `names` have appeared in `dir`. Called with no lock held; never blocks.
    fn appeared(&self, dir: &RemotePath, names: Vec<Name>);
}

/// How directories are best listed ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// Calls side by side.
    pub calls: usize,
    /// Directories in each: as many take about as long as a single one.
    pub dirs: usize,
    /// It is better begun while somebody waits for another listing than after that.
    pub early: bool,
}

impl OpenHow {
    /// Whether nothing of the file can change by it.
    #[must_use]
    pub const fn only_reads(self) -> bool {
        self.read && !self.write && !self.truncate && self.create.is_none()
    }
}

/// A remote tree of files. It answers in filesystem words and knows nothing of inodes or errno.
pub trait Backend: Send + Sync {
    /// Attributes of one name, links not followed.
    ///
    /// # Errors
    /// [`NotFound`](super::error::ErrorKind::NotFound) only if the name surely does not exist.
    fn stat(&self, path: &RemotePath) -> Result<Attr>;

    /// A complete listing without `.` and `..`, each name once.
    ///
    /// # Errors
    /// `NotFound` if the directory does not exist, even where the server would answer with an
    /// empty success; `NotADirectory` for a file.
    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>>;

    /// What is known of `path` without asking anyone, and for how long it may be relied on. `None`:
    /// only [`stat`](Self::stat) can tell. Never blocks. The only error is `NotFound`.
    fn known(&self, _path: &RemotePath) -> Option<(Result<Attr>, Duration)> {
        None
    }

    /// As [`known`](Self::known), for [`list`](Self::list).
    fn known_list(&self, _dir: &RemotePath) -> Option<(Arc<[DirEntry]>, Duration)> {
        None
    }

    /// Whether what [`list`](Self::list) says is relied on for a while: it says the same by the same
    /// slice until it says something else.
    fn relies_on_listings(&self) -> bool {
        false
    }

    /// Whether a [`list`](Self::list) of `dir` takes no longer than a [`stat`](Self::stat) of a
    /// name in it, or is needed for that in any case. Never blocks.
    fn lists_at_once(&self, _dir: &RemotePath) -> bool {
        false
    }

    /// Lists directories that may be wanted soon, while nobody needs what that takes for anything
    /// else. Gives `each` a place in `dirs` and what was found there, as it comes, in any order;
    /// what could not be listed is left out, and will be asked for again when it is wanted. `false`:
    /// nothing can be spared for it now.
    fn list_ahead(
        &self,
        _dirs: &[RemotePath],
        _each: &(dyn Fn(usize, Arc<[DirEntry]>) + Sync),
    ) -> bool {
        true
    }

    /// How [`list_ahead`](Self::list_ahead) is best called for so many directories. Never blocks.
    fn lists_together(&self, _waiting: usize) -> Together {
        Together {
            calls: 1,
            dirs: usize::MAX,
            early: false,
        }
    }

    /// Files that may be opened soon, the first first, with their attributes in the listing. What is
    /// done about them is done behind, and for nothing that anybody waits for.
    fn fetch_ahead(&self, _files: &[(RemotePath, Attr)]) {}

    /// Opens a file. `known` is what the caller believes the file to be, if that is fresh enough
    /// to be relied on: then no command need be sent. With `how.create` the name is new, and the
    /// backend begins to create it, so that a refusal is told here wherever possible and not only
    /// by `commit`.
    fn open(
        &self,
        path: &RemotePath,
        known: Option<&Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>>;

    /// Opens what an earlier mount acknowledged and had not brought to the server.
    ///
    /// # Errors
    /// `Unsupported` where nothing is ever acknowledged before the server has it.
    fn restore(&self, _saved: Saved) -> Result<Arc<dyn OpenFile>> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Creates a directory.
    fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()>;

    /// Removes a file or a link.
    fn unlink(&self, path: &RemotePath) -> Result<()>;

    /// Removes an empty directory.
    fn rmdir(&self, path: &RemotePath) -> Result<()>;

    /// Renames a file or a directory, replacing a file at `to`. On any error `to` is as before.
    /// Where others change files too, what is at `to` is compared with what it `replaces`.
    ///
    /// # Errors
    /// `Exists` if `to` is another version than that, and is to stay.
    fn rename(&self, from: &RemotePath, to: &RemotePath, replaces: Replaces) -> Result<()>;

    /// Sets what `change` names of a file that is not open for writing.
    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()>;

    /// The link's target, made safe: relative, or whatever the mount's policy allows to leave it.
    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>>;

    /// Creates a symbolic link at `path`.
    fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()>;

    /// Free space, where the server tells.
    fn space(&self) -> Result<Option<Space>>;

    /// Names and values of the read-only extended attributes of `path` (`user.ftp.…`) that are known
    /// at once: programs ask for them of every file.
    fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>>;

    /// One extended attribute. There may be more than [`xattrs`](Self::xattrs) names: what the server
    /// must be asked for (a checksum) is found out only when it is asked for by its name.
    ///
    /// # Errors
    /// [`NoData`](super::error::ErrorKind::NoData) if there is none of that name.
    fn xattr(&self, path: &RemotePath, name: &str) -> Result<Vec<u8>> {
        let mut all = self.xattrs(path)?.into_iter();
        all.find_map(|(known, value)| (known == name).then_some(value))
            .ok_or_else(|| ErrorKind::NoData.into())
    }

    /// Gives the file `from` a second name.
    ///
    /// # Errors
    /// [`NotPermitted`](ErrorKind::NotPermitted) where files have one name only: programs that
    /// link rename then.
    fn link(&self, _from: &RemotePath, _to: &RemotePath) -> Result<()> {
        Err(ErrorKind::NotPermitted.into())
    }

    /// Whom to tell of changes that come from elsewhere; called at most once. Most backends never
    /// hear of any.
    fn tell(&self, _listener: Arc<dyn Listener>) {}
}

/// One open file, shared by all handles of its inode.
///
/// It does not remember its path: the file may be renamed while it is open, so the caller says
/// where it is now (`at`) whenever the server must be told.
pub trait OpenFile: Send + Sync {
    /// The writer's view of size and times, which wins over any listing. Never blocks.
    fn attr(&self) -> Attr;

    /// Another handle opens the same file: revalidate against `known` (fresh, or `None` if the
    /// file is being written here), gain write access, truncate.
    ///
    /// # Errors
    /// `Stale` also if it [`is_outdated`](Self::is_outdated).
    fn reopen(&self, at: &RemotePath, known: Option<&Attr>, how: OpenHow) -> Result<()>;

    /// Whether [`reopen`](Self::reopen) found that the server has another version, and left this
    /// one to those who are reading it: who wants the new one opens it as another file.
    fn is_outdated(&self) -> bool {
        false
    }

    /// Forgets what was written: nobody was told that the file was opened, and nobody else has it
    /// open.
    fn discard(&self) {}

    /// Fills `buf` from `offset`; fewer bytes than asked only at the end of the file.
    ///
    /// # Errors
    /// `Stale` if the file changed on the server since it was opened: never a mix of old and new.
    fn read_at(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// As [`read_at`](Self::read_at), without a copy where the bytes are in memory in one piece.
    ///
    /// # Errors
    /// As `read_at`.
    fn read_chunk(&self, at: &RemotePath, offset: u64, len: usize) -> Result<Chunk> {
        let mut bytes = vec![0; len];
        let count = self.read_at(at, offset, &mut bytes)?;
        bytes.truncate(count);
        Ok(Chunk::new(bytes))
    }

    /// What `read_chunk` would give, if that is in memory. Never blocks.
    fn peek(&self, _offset: u64, _len: usize) -> Option<Chunk> {
        None
    }

    /// A local file that has all of the content, if nothing was written to it here. Nobody ever
    /// changes that file before [`share_whole`](Self::share_whole). Never blocks.
    fn whole(&self) -> Option<std::fs::File> {
        None
    }

    /// Where the content of who reads all of it comes from. Never blocks.
    fn origin(&self) -> Origin {
        Origin::Local
    }

    /// Makes the file that [`whole`](Self::whole) gave the place of every change to come, so that who
    /// reads it by himself sees them at once; it is what `whole` gives from then on. If it
    /// `may_be_mapped`, programs write to it by themselves, too, which [`look`](Self::look) finds.
    /// May wait for the local disk.
    ///
    /// # Errors
    /// `Unsupported` where that cannot be; those of the local disk. Then nothing has changed.
    fn share_whole(&self, _may_be_mapped: bool) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Whether [`share_whole`](Self::share_whole) was done. Never blocks.
    fn shares_whole(&self) -> bool {
        false
    }

    /// Whether only [`look`](Self::look) can tell that nothing was written. Never blocks.
    fn may_be_mapped(&self) -> bool {
        false
    }

    /// Takes what programs wrote by mappings for written. [`commit`](Self::commit) does so first.
    /// May wait for the local disk.
    fn look(&self) {}

    /// Writes all of `data` at `offset`; visible to `read_at` at once, to others by `commit`.
    /// The error of an upload already under way may be told here.
    fn write_at(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<()>;

    /// As [`write_at`](Self::write_at), for who must not wait long: `Ok(false)` if that would take
    /// long, and nothing was written.
    ///
    /// # Errors
    /// As `write_at`.
    fn write_now(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<bool> {
        self.write_at(at, offset, data).map(|()| true)
    }

    /// `ftruncate`, smaller or larger.
    fn set_len(&self, at: &RemotePath, len: u64) -> Result<()>;

    /// Sets times or mode; deferred to `commit` while there is unwritten content.
    fn set_attr(&self, at: &RemotePath, change: &SetAttr) -> Result<()>;

    /// Makes what was written complete on the server and verifies it. Called by `flush` and
    /// `fsync`: any number of times, also in mid-write, perhaps never. Nothing to do when clean.
    ///
    /// # Errors
    /// On any error the server's old version is untouched and the content stays dirty, so that a
    /// later `commit` tries again.
    fn commit(&self, at: &RemotePath) -> Result<()>;

    /// As [`commit`](Self::commit), of what is [acknowledged](Self::acknowledge): not where somebody
    /// has written to it since, who may be in the middle of it.
    ///
    /// # Errors
    /// As `commit`.
    fn commit_acknowledged(&self, at: &RemotePath) -> Result<()> {
        self.commit(at)
    }

    /// Whether something [acknowledged](Self::acknowledge) is not on the server. Never blocks.
    fn has_record(&self) -> bool {
        false
    }

    /// Whether what is acknowledged waits for somebody who has written to it since. Never blocks.
    fn awaits_writer(&self) -> bool {
        false
    }

    /// How often a commit brought something to the server so far, and what the server has of the
    /// file since the last time. `None` where nobody counts. Never blocks.
    fn stored(&self) -> Option<(u64, Attr)> {
        None
    }

    /// Whether there is content that no `commit` has brought to the server; a file that was
    /// created and not committed is dirty even if empty. Never blocks.
    fn is_dirty(&self) -> bool;

    /// The name is to be removed or replaced: does beforehand what takes long in
    /// [`detach`](Self::detach), if anything does.
    fn bring(&self, _at: &RemotePath) {}

    /// The name is about to be removed or replaced: keep the content readable for the handles
    /// that have it, without the server, and never upload it again. `Ok(true)` if the file exists
    /// on the server (and so must be removed there), `Ok(false)` if no `commit` ever put it there.
    fn detach(&self, at: &RemotePath) -> Result<bool>;

    /// The name that [`detach`](Self::detach) gave up is gone: nothing need survive.
    fn removed(&self) {}

    /// The name that [`detach`](Self::detach) gave up could not be removed. Whether the file can
    /// have it back, with what was written to it and what will be.
    fn reattach(&self) -> bool {
        false
    }

    /// Makes what was written survive this process, as content of `at` that a later mount brings to
    /// the server. Never asks the server.
    ///
    /// # Errors
    /// `Unsupported` where only [`commit`](Self::commit) can do that; those of the local disk.
    fn acknowledge(&self, _at: &RemotePath) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Whether all that was written is [acknowledged](Self::acknowledge) and nothing of the file is
    /// on the server: then [`moved`](Self::moved) renames it. Never blocks.
    fn is_acknowledged(&self) -> bool {
        false
    }

    /// The file is to be at `to`, in place of what `replaces` says. `Ok(true)` if that is all,
    /// since it was acknowledged and is not on the server yet; `Ok(false)` if the server must be
    /// told. The caller makes sure that nothing is committed meanwhile.
    fn moved(&self, _to: &RemotePath, _replaces: Replaces) -> Result<bool> {
        Ok(false)
    }

    /// The last handle is gone. `at` is `None` after `detach`. Commits what is still dirty; its
    /// error can only be logged.
    fn close(&self, at: Option<&RemotePath>) -> Result<()>;
}

/// Moves whole contents between this machine and a server; what [`Content`](super::content::Content)
/// is built on. FTP, TFTP and the model in memory implement it.
pub trait Transfers: Send + Sync {
    /// Attributes as the server has them now, not from any cache.
    fn stat_now(&self, path: &RemotePath) -> Result<Attr>;

    /// Begins to read `path` at `offset` bytes. Holds a connection until the download is finished
    /// or dropped.
    ///
    /// # Errors
    /// `Busy` at once (not after a wait) when there is no connection for this `need`.
    fn retrieve(&self, path: &RemotePath, offset: u64, need: Need) -> Result<Box<dyn Download>>;

    /// Bytes that went over data connections so far, either way. Never blocks.
    fn moved(&self) -> u64 {
        0
    }

    /// Whether the server is on this machine, with no network between. Never blocks.
    fn is_on_this_machine(&self) -> bool {
        false
    }

    /// Whether what is under way seems to fill the link, by what was seen of it of late. Never
    /// blocks.
    fn is_link_full(&self) -> bool {
        false
    }

    /// So many readers jump about at once: they can use more connections than others, while so many
    /// downloads beside them have theirs. Never blocks.
    fn expect_spots(&self, _readers: usize, _others: usize) {}

    /// Whether [`retrieve`](Self::retrieve) begins at `offset`, and not at the start to throw away
    /// what comes before it, as far as known. Never blocks.
    fn resumes(&self, _offset: u64) -> bool {
        true
    }

    /// How many downloads may be under way at once, as far as known, with those of a few bytes. Never
    /// blocks.
    fn downloads(&self) -> usize {
        usize::MAX
    }

    /// Begins to store a new content beside `path`, out of others' sight until `publish`. Where it
    /// must be written in place, that is in place of what it `replaces` only.
    ///
    /// # Errors
    /// The server's refusal; `Busy` as for [`retrieve`](Self::retrieve); `Stale` if another version
    /// is at `path` that is to stay.
    fn store(&self, path: &RemotePath, replaces: Replaces, wait: bool) -> Result<Box<dyn Upload>>;

    /// Whether a [`store`](Self::store) at `path` is as good as certain to be taken, so that `open`
    /// need not begin it to hear of a refusal. Never blocks.
    fn surely_stores(&self, _path: &RemotePath) -> bool {
        false
    }

    /// As [`store`](Self::store), of a content of `len` bytes that is all there: a refusal may be
    /// told later.
    ///
    /// # Errors
    /// As those of `store`.
    fn store_all(
        &self,
        path: &RemotePath,
        replaces: Replaces,
        _len: u64,
        wait: bool,
    ) -> Result<Box<dyn Upload>> {
        self.store(path, replaces, wait)
    }

    /// Begins to append at the end of `path`, which must have `base` bytes now.
    ///
    /// # Errors
    /// `Unsupported` where this server is not known to do it right: store the whole file instead.
    fn append(&self, path: &RemotePath, base: u64) -> Result<Box<dyn Upload>>;

    /// Sets times or mode of a file.
    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()>;

    /// By which checksum downloads are to be [compared](Self::compare); `None`: by none.
    fn checks_by(&self) -> Option<Algorithm> {
        None
    }

    /// Compares a content that was read with what the server has at `path`.
    ///
    /// # Errors
    /// `Corrupt` if they differ.
    fn compare(&self, _path: &RemotePath, _ours: &Checksum) -> Result<()> {
        Ok(())
    }
}

/// What a download is for, and so which connection it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// What a reader goes on with; with `wait`, when a connection is free.
    Stream {
        /// Else `Busy` at once.
        wait: bool,
    },
    /// A few bytes, with which the download is dropped; with `wait`, when a connection is free.
    Spot {
        /// Else `Busy` at once.
        wait: bool,
    },
    /// The same as another download under way, elsewhere: not on the connection that others would
    /// ask next.
    Beside {
        /// Only if those under way leave room on the link, as far as can be told before anything
        /// moves; `Busy` where they do not.
        with_room: bool,
    },
    /// What nobody has asked for yet: only on a connection that nobody needs.
    Ahead,
}

/// A content on its way from the server. Dropping it closes the transfer early, without blocking
/// the caller for long.
pub trait Download: Send {
    /// Reads on; 0 at the end of data, which means nothing until [`finish`](Self::finish) agreed.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// The end of data was read: `Ok` if the server says that the transfer is complete.
    fn finish(self: Box<Self>) -> Result<()>;

    /// As [`finish`](Self::finish), of a file whose size is known and all of whose bytes were read
    /// before the end of data: the server's word, which can add nothing, need not be waited for.
    fn conclude(self: Box<Self>) -> Result<()> {
        self.finish()
    }
}

/// What an upload may take the place of; anything else there is a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// Whatever is there.
    Anything,
    /// Nothing: the name is new.
    Nothing,
    /// This version, or nothing.
    Version(Seen),
}

/// What an upload publishes with the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Size the server must have at the end, in bytes.
    pub size: u64,
    /// Modification time to set.
    pub mtime: Option<SystemTime>,
    /// Permission bits to set, where the server can.
    pub mode: Option<u32>,
    /// The name had no file when this one was created, so that there is no old version to keep.
    pub new: bool,
    /// What it may take the place of.
    pub replaces: Replaces,
}

/// A content on its way to the server. Dropping it abandons it: what was stored under a temporary
/// name is removed, the old version stays.
pub trait Upload: Send {
    /// Sends all of `data`.
    fn write(&mut self, data: &[u8]) -> Result<()>;

    /// Sends `len` bytes of `file` from `offset`, without a copy where the connection allows.
    fn send_file(&mut self, file: &std::fs::File, offset: u64, len: u64) -> Result<()>;

    /// All is sent: waits for the server's word, verifies the size, sets times and mode, and gives
    /// the content its name `at` in one step. Returns the attributes the file has now.
    ///
    /// # Errors
    /// Whatever fails, the old version is as before. A server that lost the answer is asked what
    /// happened before an error is returned.
    fn publish(self: Box<Self>, at: &RemotePath, what: &Publish) -> Result<Attr>;
}
