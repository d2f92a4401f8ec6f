//! How requests and answers look in FUSE's words.

use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, OpenAccMode,
    OpenFlags, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::attr::{NEGATIVE_VALIDITY, bare, file_attr, ino};
use super::errno;
use super::requests::{Class, Request, report};
use crate::traffic::TRAFFIC;
use crate::vfs::attr::{FileKind, Space};
use crate::vfs::backend::OpenHow;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::NAME_MAX;
use crate::vfs::{Entry, Keep, Loan, Opened};

/// Requests the kernel may have under way in the background (read-ahead, mostly).
const BACKGROUND: u16 = 64;

/// The largest request; the kernel cuts it to its own limit (1 MiB by default).
const MAX_WRITE: u32 = 1024 * 1024;

/// Asks the kernel for what it can do for us. Whether files that go around its pages can be mapped
/// into memory all the same.
pub(super) fn tune(config: &mut KernelConfig) -> bool {
    // Each is an optimisation or a nicety that an older kernel may lack. The kernel decides when a
    // listing brings attributes: each entry that has them is an inode, here and in the kernel.
    for wanted in [
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_MAX_PAGES,
    ] {
        let _ = config.add_capabilities(wanted);
    }
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_background(BACKGROUND);
    if let Err(most) = config.set_max_readahead(MAX_WRITE) {
        let _ = config.set_max_readahead(most);
    }
    // FTP's times are whole seconds (RFC 3659 section 2.3); the kernel rounds likewise.
    let _ = config.set_time_granularity(Duration::from_secs(1));
    config
        .add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
        .is_ok()
}

pub(super) fn request(
    name: &'static str,
    class: Class,
    req: &fuser::Request,
    of: INodeNo,
) -> Request {
    Request {
        name,
        ino: ino(of),
        caller: req.pid(),
        class,
    }
}

/// Counts what is answered from memory.
pub(super) fn from_memory<T>(known: Option<T>) -> Option<T> {
    if known.is_some() {
        TRAFFIC.from_memory.count();
    }
    known
}

pub(super) fn failed(name: &str, of: INodeNo, err: &Error) -> Errno {
    report(name, ino(of), err);
    errno::errno(err.kind())
}

/// The kernel opens what it remembers to be there. Told ESTALE where that is gone, it looks the
/// name up again, and creates it where that is wanted; ENOENT it would pass on.
pub(super) fn look_again(err: Error) -> Error {
    if err.kind() == ErrorKind::NotFound {
        return Error::new(ErrorKind::Stale, err.detail());
    }
    err
}

pub(super) fn answer_entry(reply: ReplyEntry, entry: Entry) {
    reply.entry(
        &entry.valid,
        &file_attr(&entry.stat),
        Generation(entry.generation),
    );
}

pub(super) fn answer_lookup(
    reply: ReplyEntry,
    name: &'static str,
    of: INodeNo,
    outcome: Result<Entry>,
) {
    match outcome {
        Ok(entry) => answer_entry(reply, entry),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            // Inode 0 means "absent, and you may remember it".
            let absent = bare(0, FileKind::File);
            reply.entry(&NEGATIVE_VALIDITY, &absent, Generation(0));
        }
        Err(err) => reply.error(failed(name, of, &err)),
    }
}

pub(super) fn answer_open(reply: ReplyOpen, (opened, loan): (Opened, Option<Loan>)) {
    let fh = FileHandle(opened.fh);
    match loan.as_deref().and_then(|loan| loan.downcast_ref()) {
        // What a writer does comes to us. The kernel takes no other flag beside.
        Some(id) => {
            let mut flags = open_flags(&opened);
            flags.remove(FopenFlags::FOPEN_KEEP_CACHE);
            reply.opened_passthrough(fh, flags, id);
        }
        None => reply.opened(fh, open_flags(&opened)),
    }
}

pub(super) fn answer_opendir(reply: ReplyOpen, fh: u64, keep: Keep) {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_CACHE_DIR, keep != Keep::Nothing);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep == Keep::Old);
    reply.opened(FileHandle(fh), flags);
}

pub(super) fn answer_space(reply: ReplyStatfs, space: Option<Space>) {
    /// Of a server that does not tell its space: with 0 borg, file managers and others that look
    /// before they write would not even begin.
    const UNKNOWN_SPACE: u64 = 1 << 50;
    const BLOCK: u64 = 4096;
    let (total, free) = space.map_or((UNKNOWN_SPACE, UNKNOWN_SPACE), |s| {
        (s.total.unwrap_or(s.available), s.available)
    });
    let (total, free) = (total / BLOCK, free / BLOCK);
    let (block, name) = (BLOCK as u32, NAME_MAX as u32);
    reply.statfs(total, free, free, 0, 0, block, name, block);
}

pub(super) fn answer_write(reply: ReplyWrite, written: usize) {
    reply.written(u32::try_from(written).unwrap_or(u32::MAX));
}

pub(super) fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags
}

pub(super) fn how(flags: OpenFlags) -> OpenHow {
    let mode = flags.acc_mode();
    OpenHow {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        truncate: flags.0 & libc::O_TRUNC != 0,
        create: None,
    }
}

/// `size` 0 asks how large the answer is.
pub(super) fn answer_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        reply.size(len);
    } else if len > size {
        reply.error(errno::errno(ErrorKind::Range));
    } else {
        reply.data(value);
    }
}
