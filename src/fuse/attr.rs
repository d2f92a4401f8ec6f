//! Attributes in FUSE's words.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};

use crate::vfs::attr::FileKind;
use crate::vfs::{Ino, Stat};

/// Longest a name that does not exist is taken for absent by the kernel, without asking us: short,
/// since it adds to the age of the listing that said so.
pub(super) const NEGATIVE_VALIDITY: Duration = Duration::from_secs(1);

/// `st_blksize`: what programs should read at once. `cp` and `cat` go by it.
const BLOCK_SIZE: u32 = 128 * 1024;

pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
    }
}

pub(super) const fn file_attr(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.ino),
        size: stat.size,
        blocks: stat.blocks,
        // FTP knows one time; the others follow it.
        atime: stat.mtime,
        mtime: stat.mtime,
        ctime: stat.mtime,
        crtime: stat.mtime,
        kind: file_type(stat.kind),
        perm: stat.perm,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes of which only number and kind count.
pub(super) const fn bare(ino: Ino, kind: FileKind) -> FileAttr {
    file_attr(&Stat {
        ino,
        kind,
        size: 0,
        blocks: 0,
        mtime: SystemTime::UNIX_EPOCH,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
    })
}

pub(super) const fn ino(ino: INodeNo) -> Ino {
    ino.0
}
