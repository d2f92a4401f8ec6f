//! The floor of FUSE on this machine: a filesystem with one file of zeros, which nothing that does
//! more than answer can be faster than. `scripts/bench` builds and runs it: `fuse-floor DIR BYTES`.

use std::ffi::OsStr;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry,
    ReplyOpen, Request,
};

const ZEROS: INodeNo = INodeNo(2);
const VALID: Duration = Duration::from_secs(60);

struct Floor {
    size: u64,
    zeros: Vec<u8>,
}

impl Floor {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let file = ino == ZEROS;
        FileAttr {
            ino,
            size: if file { self.size } else { 0 },
            blocks: if file { self.size.div_ceil(512) } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if file { 0o444 } else { 0o555 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_MAX_PAGES);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "zeros" {
            reply.entry(&VALID, &self.attr(ZEROS), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&VALID, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let most = left.min(size as usize).min(self.zeros.len());
        reply.data(self.zeros.get(..most).unwrap_or_default());
    }
}

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(size)) = (args.next(), args.next().and_then(|n| n.parse().ok())) else {
        return Err(std::io::Error::other("usage: fuse-floor DIR BYTES"));
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("fuse-floor".into())];
    config.n_threads = Some(2);
    let zeros = vec![0; 1 << 20];
    fuser::mount(Floor { size, zeros }, dir, &config)
}
