//! The FUSE binding: unpacks each request, calls the [`Vfs`], replies. No decisions are made here.
//!
//! What memory can answer is answered on fuser's event threads; the rest is handed, with its
//! reply, to threads that may wait for the network (`requests`), or done in its place where that is
//! quick (`in_place`), under a watchdog (`watch`).

mod answers;
mod attr;
mod descriptors;
pub(crate) mod direct;
mod errno;
pub(crate) mod in_place;
pub(crate) mod mounting;
pub(crate) mod news;
mod operations;
mod pages;
pub(crate) mod passthrough;
mod requests;
mod watch;
mod workers;
mod writers;

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
    WriteFlags,
};

use self::answers::{
    answer_open, answer_opendir, answer_space, answer_write, answer_xattr, failed, how, look_again,
    open_flags, request, tune,
};
use self::attr::{bare, file_attr, file_type, ino};
use self::direct::DirectReads;
use self::in_place::OnEnd;
use self::pages::Pages;
use self::passthrough::Passthrough;
use self::requests::{Class, Requests};
use self::writers::Writers;
use crate::traffic::TRAFFIC;
use crate::vfs::backend::{OpenHow, Origin};
use crate::vfs::error::ErrorKind;
use crate::vfs::{Change, DirItemPlus, NewTime, RenameHow, Vfs};

/// The filesystem as fuser wants it.
pub(crate) struct Filesystem {
    vfs: Arc<Vfs>,
    directory: PathBuf,
    requests: Requests,
    pages: Pages,
    writers: Arc<Writers>,
    passthrough: Arc<Passthrough>,
    direct: Arc<DirectReads>,
}

impl Filesystem {
    /// Serves `vfs` on `directory`. `limit` is the longest a metadata request may take, if there is
    /// one. `on_end` is called when the session ends while a request is under way that the end of
    /// [`Session::run`](fuser::Session::run) waits for.
    pub(crate) fn new(
        vfs: Arc<Vfs>,
        directory: &Path,
        limit: Option<Duration>,
        passthrough: Arc<Passthrough>,
        direct: Arc<DirectReads>,
        on_end: OnEnd,
    ) -> std::io::Result<Self> {
        Ok(Self {
            vfs,
            directory: directory.to_owned(),
            requests: Requests::new(limit, on_end)?,
            pages: Pages::default(),
            writers: Arc::default(),
            passthrough,
            direct,
        })
    }
}

// fuser's signatures, one parameter a line, would fill half of this file.
#[rustfmt::skip]
#[allow(clippy::too_many_arguments)]
impl fuser::Filesystem for Filesystem {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.vfs.allow_direct_io(tune(config));
        self.passthrough.ask(config);
        Ok(())
    }

    fn lookup(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.look_up(req, parent, name, reply);
    }

    fn forget(&self, _: &fuser::Request, of: INodeNo, lookups: u64) {
        self.vfs.forget(ino(of), lookups);
    }

    fn getattr(&self, req: &fuser::Request, of: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if let Some(outcome) = answers::from_memory(self.vfs.getattr_cached(ino(of))) {
            return match outcome {
                Ok((stat, valid)) => reply.attr(&valid, &file_attr(&stat)),
                Err(err) => reply.error(failed("getattr", of, &err)),
            };
        }
        let vfs = Arc::clone(&self.vfs);
        self.requests.hand_over(
            request("getattr", Class::Metadata, req, of),
            reply,
            move || vfs.getattr(ino(of)),
            |reply, (stat, valid)| reply.attr(&valid, &file_attr(&stat)),
            |_| {},
        );
    }

    fn setattr(
        &self, req: &fuser::Request, of: INodeNo, mode: Option<u32>, uid: Option<u32>,
        gid: Option<u32>, size: Option<u64>, _atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>, fh: Option<FileHandle>, _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>, _bkuptime: Option<SystemTime>, _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mtime = mtime.map(|time| match time {
            TimeOrNow::SpecificTime(time) => NewTime::At(time),
            TimeOrNow::Now => NewTime::Now,
        });
        let change = Change {
            mode,
            uid,
            gid,
            size,
            mtime,
            fh: fh.map(|fh| fh.0),
        };
        // A truncate uploads the file before it answers.
        let class = if size.is_some() {
            Class::Content
        } else {
            Class::Metadata
        };
        let vfs = Arc::clone(&self.vfs);
        let caller = req.pid();
        self.requests.hand_over(
            request("setattr", class, req, of),
            reply,
            move || {
                let changed = vfs.setattr(ino(of), &change);
                let by_name = change.fh.is_none();
                vfs.answers(caller, ino(of), changed.as_ref().err().filter(|_| by_name));
                changed
            },
            |reply, (stat, valid)| reply.attr(&valid, &file_attr(&stat)),
            |_| {},
        );
    }

    fn readlink(&self, req: &fuser::Request, of: INodeNo, reply: ReplyData) {
        let vfs = Arc::clone(&self.vfs);
        self.requests.hand_over(
            request("readlink", Class::Metadata, req, of),
            reply,
            move || vfs.readlink(ino(of)),
            |reply, target| reply.data(&target),
            |_| {},
        );
    }

    fn mknod(
        &self, req: &fuser::Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32,
        _rdev: u32, reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG && mode & libc::S_IFMT != 0 {
            return reply.error(errno::errno(ErrorKind::NotPermitted));
        }
        let name = name.to_os_string();
        self.entry_op(
            request("mknod", Class::Content, req, parent),
            reply,
            move |vfs| {
                let how = OpenHow {
                    write: true,
                    ..OpenHow::default()
                };
                let (entry, opened) = vfs.create(ino(parent), &name, mode & !umask, how, true)?;
                let stored = vfs.flush(opened.fh);
                let released = vfs.release(opened.fh);
                stored.and(released).map(|()| entry).inspect_err(|_| {
                    vfs.forget(entry.stat.ino, 1);
                })
            },
        );
    }

    fn mkdir(
        &self, req: &fuser::Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_os_string();
        self.entry_op(
            request("mkdir", Class::Metadata, req, parent),
            reply,
            move |vfs| vfs.mkdir(ino(parent), &name, mode & !umask),
        );
    }

    fn unlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_os_string();
        // The content of an open file is fetched before the server's copy goes.
        let class = if self.vfs.is_open(ino(parent), &name) {
            Class::Content
        } else {
            Class::Metadata
        };
        self.empty_op(
            request("unlink", class, req, parent),
            reply,
            move |vfs| vfs.unlink(ino(parent), &name),
        );
    }

    fn rmdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_os_string();
        self.empty_op(
            request("rmdir", Class::Metadata, req, parent),
            reply,
            move |vfs| vfs.rmdir(ino(parent), &name),
        );
    }

    fn symlink(
        &self, req: &fuser::Request, parent: INodeNo, name: &OsStr, target: &Path,
        reply: ReplyEntry,
    ) {
        let (name, target) = (name.to_os_string(), target.as_os_str().as_bytes().to_vec());
        self.entry_op(
            request("symlink", Class::Metadata, req, parent),
            reply,
            move |vfs| vfs.symlink(ino(parent), &name, &target),
        );
    }

    fn link(
        &self, req: &fuser::Request, of: INodeNo, newparent: INodeNo, newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = newname.to_os_string();
        self.entry_op(
            request("link", Class::Content, req, of),
            reply,
            move |vfs| vfs.link(ino(of), ino(newparent), &name),
        );
    }

    fn rename(
        &self, req: &fuser::Request, parent: INodeNo, name: &OsStr, newparent: INodeNo,
        newname: &OsStr, flags: RenameFlags, reply: ReplyEmpty,
    ) {
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return reply.error(errno::errno(ErrorKind::Invalid));
        }
        let how = RenameHow {
            no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
        };
        let (name, newname) = (name.to_os_string(), newname.to_os_string());
        // An open source is uploaded first, an open target fetched.
        self.empty_op(
            request("rename", Class::Content, req, parent),
            reply,
            move |vfs| vfs.rename(ino(parent), &name, ino(newparent), &newname, how),
        );
    }

    fn open(&self, req: &fuser::Request, of: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, undoing) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        let (how, passthrough) = (how(flags), Arc::clone(&self.passthrough));
        let (caller, direct, undone) = (req.pid(), Arc::clone(&self.direct), Arc::clone(&self.direct));
        self.requests.hand_over_with(
            request("open", Class::Metadata, req, of),
            reply,
            move |slot| {
                let lend = |file: &_| slot.with(|reply| passthrough.lend(reply, file)).flatten();
                let asked = Cell::new(None);
                let around = |origin| {
                    let opener = direct.opener(caller, origin);
                    let likely = opener.likely;
                    asked.set((likely || origin == Origin::SameMachine).then_some(opener));
                    likely
                };
                let opened = vfs.open_lending(ino(of), how, Some(&lend), Some(&around));
                let opened = opened.map_err(look_again);
                vfs.answers(caller, ino(of), opened.as_ref().err());
                opened.inspect(|(opened, loan)| {
                    passthrough.opened(loan.as_ref());
                    if let Some(opener) = asked.take() { direct.opened(opened.fh, opener, opened.around); }
                })
            },
            answer_open,
            move |(opened, _)| {
                undone.forget(opened.fh);
                undoing.take_back(opened.fh);
            },
        );
    }

    fn create(
        &self, req: &fuser::Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32,
        flags: i32, reply: ReplyCreate,
    ) {
        let (vfs, undoing) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        let name = name.to_os_string();
        let how = how(OpenFlags(flags));
        let exclusive = flags & libc::O_EXCL != 0;
        let caller = req.pid();
        self.requests.hand_over(
            request("create", Class::Metadata, req, parent),
            reply,
            move || {
                let mode = mode & !umask & 0o7777;
                let created = vfs.create(ino(parent), &name, mode, how, exclusive);
                vfs.answers_in(caller, (ino(parent), &name), created.as_ref().err());
                created
            },
            |reply, (entry, opened)| {
                let attr = file_attr(&entry.stat);
                let generation = Generation(entry.generation);
                let (fh, flags) = (FileHandle(opened.fh), open_flags(&opened));
                reply.created(&entry.valid, &attr, generation, fh, flags);
            },
            move |(entry, opened)| {
                undoing.take_back(opened.fh);
                undoing.forget(entry.stat.ino, 1);
            },
        );
    }

    fn read(
        &self, req: &fuser::Request, of: INodeNo, fh: FileHandle, offset: u64, size: u32,
        _: OpenFlags, owner: Option<LockOwner>, reply: ReplyData,
    ) {
        // The kernel names an owner to those who read, and none for its pages.
        self.direct.note(fh.0, offset, size, owner.is_none());
        let len = size as usize;
        if let Some(chunk) = self.vfs.read_cached(fh.0, offset, len) {
            return reply.data(chunk.as_slice());
        }
        let vfs = Arc::clone(&self.vfs);
        self.requests.hand_over(
            request("read", Class::Read, req, of),
            reply,
            move || vfs.read_chunk(fh.0, offset, len),
            |reply, chunk| reply.data(chunk.as_slice()),
            |_| {},
        );
    }

    /// On the event thread: writes go to the local staging file and never wait for the network. One
    /// that must copy the file first is for another thread.
    fn write(
        &self, req: &fuser::Request, of: INodeNo, fh: FileHandle, offset: u64, data: &[u8],
        _: WriteFlags, _: OpenFlags, _: Option<LockOwner>, reply: ReplyWrite,
    ) {
        self.writers.note(fh.0, req.pid());
        match self.vfs.write_now(fh.0, offset, data) {
            Ok(Some(written)) => return answer_write(reply, written),
            Err(err) => return reply.error(failed("write", of, &err)),
            Ok(None) => {}
        }
        let (vfs, data) = (Arc::clone(&self.vfs), data.to_vec());
        self.requests.hand_over(
            request("write", Class::Write, req, of),
            reply,
            move || vfs.write(fh.0, offset, &data),
            answer_write,
            |_| {},
        );
    }

    fn flush(
        &self, req: &fuser::Request, of: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty,
    ) {
        if self.vfs.flush_clean(fh.0) {
            return reply.ok();
        }
        let (pages, writers) = (self.pages.clone(), Arc::clone(&self.writers));
        let (directory, closing) = (self.directory.clone(), req.pid());
        self.empty_op(
            request("close", Class::Content, req, of),
            reply,
            // It waits for /proc, which an event thread should not.
            move |vfs| {
                let path = vfs.path_of(fh.0).map(|path| directory.join(path.to_os_string()));
                let again = |path: PathBuf| writers.flush_again(fh.0, closing, &path, vfs.is_unwritten(fh.0));
                if path.is_some_and(again) { return Ok(()); }
                vfs.flush(fh.0).map(|()| pages.share(vfs, fh.0))
            },
        );
    }

    fn release(
        &self, req: &fuser::Request, of: INodeNo, fh: FileHandle, _: OpenFlags,
        _: Option<LockOwner>, _flush: bool, reply: ReplyEmpty,
    ) {
        self.writers.forget(fh.0);
        self.direct.forget(fh.0);
        self.empty_op(
            request("release", Class::Release, req, of),
            reply,
            move |vfs| vfs.release(fh.0),
        );
    }

    fn fsync(
        &self, req: &fuser::Request, of: INodeNo, fh: FileHandle, _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.empty_op(
            request("fsync", Class::Content, req, of),
            reply,
            move |vfs| vfs.fsync(fh.0),
        );
    }

    fn opendir(&self, req: &fuser::Request, of: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match answers::from_memory(self.vfs.opendir_cached(ino(of))) {
            Some(Ok(fh)) => return answer_opendir(reply, fh, self.vfs.keeps_names(fh)),
            Some(Err(err)) => return reply.error(failed("opendir", of, &err)),
            None => {}
        }
        let (vfs, undoing) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        self.requests.hand_over(
            // A long listing takes as long as it flows.
            request("opendir", Class::Metadata, req, of),
            reply,
            move || vfs.opendir(ino(of)).map(|fh| (fh, vfs.keeps_names(fh))),
            |reply, (fh, keep)| answer_opendir(reply, fh, keep),
            move |(fh, _)| undoing.releasedir(fh),
        );
    }

    fn readdir(
        &self, _: &fuser::Request, of: INodeNo, fh: FileHandle, offset: u64,
        mut reply: ReplyDirectory,
    ) {
        TRAFFIC.from_memory.count();
        let outcome = self.vfs.readdir(fh.0, offset, &mut |item| {
            !reply.add(
                INodeNo(item.ino),
                item.offset,
                file_type(item.kind),
                item.name,
            )
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(failed("readdir", of, &err)),
        }
    }

    fn readdirplus(
        &self, _: &fuser::Request, of: INodeNo, fh: FileHandle, offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        TRAFFIC.from_memory.count();
        let outcome = self.vfs.readdirplus(fh.0, offset, &mut |item| {
            let DirItemPlus { item, entry } = item;
            let (attr, valid) = match entry {
                Some(entry) => (file_attr(&entry.stat), entry.valid),
                // `.` and `..`, of which the kernel looks at nothing but number and kind.
                None => (bare(item.ino, item.kind), Duration::ZERO),
            };
            let (ino, generation) = (INodeNo(item.ino), Generation(0));
            !reply.add(ino, item.offset, item.name, &valid, &attr, generation)
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(failed("readdir", of, &err)),
        }
    }

    fn releasedir(
        &self, _: &fuser::Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty,
    ) {
        self.vfs.releasedir(fh.0);
        reply.ok();
    }

    /// What the server did is done; there is nothing of ours to bring to it.
    fn fsyncdir(
        &self, _: &fuser::Request, _: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, req: &fuser::Request, of: INodeNo, reply: ReplyStatfs) {
        let vfs = Arc::clone(&self.vfs);
        self.requests.hand_over(
            request("statfs", Class::Metadata, req, of),
            reply,
            move || vfs.statfs(),
            answer_space,
            |_| {},
        );
    }

    fn setxattr(
        &self, _: &fuser::Request, _: INodeNo, _name: &OsStr, _value: &[u8], _flags: i32,
        _position: u32, reply: ReplyEmpty,
    ) {
        reply.error(errno::errno(ErrorKind::Unsupported));
    }

    fn removexattr(&self, _: &fuser::Request, _: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno::errno(ErrorKind::Unsupported));
    }

    fn getxattr(
        &self, req: &fuser::Request, of: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr,
    ) {
        // The kernel asks for security.capability before every write; `ls -l` for that of SELinux
        // and an ACL of every file, unless it is told that there is no such thing here.
        if !name.as_bytes().starts_with(b"user.") {
            return reply.error(errno::errno(ErrorKind::Unsupported));
        }
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_os_string());
        self.requests.hand_over(
            request("getxattr", Class::Metadata, req, of),
            reply,
            move || vfs.getxattr(ino(of), &name),
            move |reply, value| answer_xattr(reply, size, &value),
            |_| {},
        );
    }

    fn access(&self, _: &fuser::Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(errno::NEVER_ASK_AGAIN);
    }

    fn fallocate(
        &self, _: &fuser::Request, _: INodeNo, _: FileHandle, _offset: u64, _length: u64,
        _mode: i32, reply: ReplyEmpty,
    ) {
        reply.error(errno::NEVER_ASK_AGAIN);
    }

    fn lseek(
        &self, _: &fuser::Request, _: INodeNo, _: FileHandle, _offset: i64, _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(errno::NEVER_ASK_AGAIN);
    }

    fn copy_file_range(
        &self, _: &fuser::Request, _: INodeNo, _: FileHandle, _offset_in: u64, _: INodeNo,
        _: FileHandle, _offset_out: u64, _len: u64, _: CopyFileRangeFlags, reply: ReplyWrite,
    ) {
        reply.error(errno::NEVER_ASK_AGAIN);
    }

    fn ioctl(
        &self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _command: u32,
        _data: &[u8], _out_size: u32, reply: ReplyIoctl,
    ) {
        reply.error(errno::NEVER_ASK_AGAIN);
    }

    fn poll(
        &self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: PollNotifier, _: PollEvents,
        _: PollFlags, reply: ReplyPoll,
    ) {
        reply.error(errno::NEVER_ASK_AGAIN);
    }

    fn listxattr(&self, req: &fuser::Request, of: INodeNo, size: u32, reply: ReplyXattr) {
        let vfs = Arc::clone(&self.vfs);
        self.requests.hand_over(
            request("listxattr", Class::Metadata, req, of),
            reply,
            move || vfs.listxattr(ino(of)),
            move |reply, names| {
                let list: Vec<u8> = names
                    .iter()
                    .flat_map(|name| name.bytes().chain([0]))
                    .collect();
                answer_xattr(reply, size, &list);
            },
            |_| {},
        );
    }
}
