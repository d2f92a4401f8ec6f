//! The table: what can go wrong, in filesystem words, to the errno a program sees. The only place
//! that knows errno constants.

#![deny(clippy::wildcard_enum_match_arm)]

use fuser::Errno;
use log::Level;

use crate::vfs::error::ErrorKind;

/// The errno of `kind`. No `_` arm: a new kind does not compile until somebody chooses.
pub(super) fn errno(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::Exists => Errno::EEXIST,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::NotEmpty => Errno::ENOTEMPTY,
        ErrorKind::PermissionDenied | ErrorKind::Untrusted => Errno::EACCES,
        ErrorKind::NotPermitted => Errno::EPERM,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::QuotaExceeded => Errno::from_i32(libc::EDQUOT),
        ErrorKind::Invalid => Errno::EINVAL,
        ErrorKind::NameTooLong => Errno::ENAMETOOLONG,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::Loop => Errno::ELOOP,
        ErrorKind::Busy => Errno::EBUSY,
        ErrorKind::TimedOut => Errno::ETIMEDOUT,
        // ENOTCONN would be the word, but users know it as "the daemon died".
        ErrorKind::Disconnected | ErrorKind::Corrupt | ErrorKind::Protocol => Errno::EIO,
        ErrorKind::Interrupted => Errno::EINTR,
        ErrorKind::Stale => Errno::from_i32(libc::ESTALE),
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::NoData => Errno::from_i32(libc::ENODATA),
        ErrorKind::Range => Errno::ERANGE,
        ErrorKind::BadHandle => Errno::EBADF,
        ErrorKind::NoRecipient => Errno::from_i32(libc::EDESTADDRREQ),
        ErrorKind::BadMessage => Errno::from_i32(libc::EBADMSG),
        ErrorKind::MessageTooLong => Errno::from_i32(libc::EMSGSIZE),
        ErrorKind::Local(errno) => Errno::from_i32(errno),
    }
}

/// Its name, for the metrics; `LOCAL` is one of a system call here.
pub(super) const fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "ENOENT",
        ErrorKind::Exists => "EEXIST",
        ErrorKind::NotADirectory => "ENOTDIR",
        ErrorKind::IsADirectory => "EISDIR",
        ErrorKind::NotEmpty => "ENOTEMPTY",
        ErrorKind::PermissionDenied | ErrorKind::Untrusted => "EACCES",
        ErrorKind::NotPermitted => "EPERM",
        ErrorKind::ReadOnly => "EROFS",
        ErrorKind::NoSpace => "ENOSPC",
        ErrorKind::QuotaExceeded => "EDQUOT",
        ErrorKind::Invalid => "EINVAL",
        ErrorKind::NameTooLong => "ENAMETOOLONG",
        ErrorKind::TooLarge => "EFBIG",
        ErrorKind::Loop => "ELOOP",
        ErrorKind::Busy => "EBUSY",
        ErrorKind::TimedOut => "ETIMEDOUT",
        ErrorKind::Disconnected | ErrorKind::Corrupt | ErrorKind::Protocol => "EIO",
        ErrorKind::Interrupted => "EINTR",
        ErrorKind::Stale => "ESTALE",
        ErrorKind::Unsupported => "EOPNOTSUPP",
        ErrorKind::NoData => "ENODATA",
        ErrorKind::Range => "ERANGE",
        ErrorKind::BadHandle => "EBADF",
        ErrorKind::NoRecipient => "EDESTADDRREQ",
        ErrorKind::BadMessage => "EBADMSG",
        ErrorKind::MessageTooLong => "EMSGSIZE",
        ErrorKind::Local(_) => "LOCAL",
    }
}

/// Says "this kernel request is not implemented", which the kernel remembers for the whole mount and
/// from then on does by itself: right for what it can do without us (`access`, `lseek` for holes,
/// `copy_file_range`, `fallocate`, `ioctl`, `poll`), wrong for everything else.
pub(super) const NEVER_ASK_AGAIN: Errno = Errno::ENOSYS;

/// How loudly `kind` is logged: what programs provoke all day is for debugging only.
pub(super) const fn level(kind: ErrorKind) -> Level {
    match kind {
        ErrorKind::NotFound
        | ErrorKind::Exists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::NotEmpty
        | ErrorKind::NotPermitted
        | ErrorKind::ReadOnly
        | ErrorKind::Invalid
        | ErrorKind::NameTooLong
        | ErrorKind::Loop
        | ErrorKind::Interrupted
        | ErrorKind::Unsupported
        | ErrorKind::NoData
        | ErrorKind::Range
        | ErrorKind::BadHandle => Level::Debug,
        ErrorKind::PermissionDenied
        | ErrorKind::NoRecipient
        | ErrorKind::BadMessage
        | ErrorKind::MessageTooLong => Level::Info,
        ErrorKind::NoSpace
        | ErrorKind::QuotaExceeded
        | ErrorKind::TooLarge
        | ErrorKind::Busy
        | ErrorKind::Untrusted
        | ErrorKind::TimedOut
        | ErrorKind::Disconnected
        | ErrorKind::Stale
        | ErrorKind::Corrupt
        | ErrorKind::Local(_)
        | ErrorKind::Protocol => Level::Warn,
    }
}
