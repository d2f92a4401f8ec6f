//! What can go wrong, in filesystem words.
//!
//! Every protocol turns its server's words into an [`Error`] in one function; `fuse/errno.rs`
//! turns the [`ErrorKind`] into an errno in one exhaustive `match`.

use std::fmt;

/// Result of everything below the FUSE binding.
pub type Result<T> = std::result::Result<T, Error>;

/// What an application can tell apart: one variant for each errno we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such name (ENOENT). Common, never worth a warning.
    NotFound,
    /// The name is taken (EEXIST).
    Exists,
    /// A directory was needed (ENOTDIR).
    NotADirectory,
    /// A directory was not wanted (EISDIR).
    IsADirectory,
    /// `rmdir` or `rename` onto a directory with entries (ENOTEMPTY).
    NotEmpty,
    /// The server refuses this user (EACCES).
    PermissionDenied,
    /// TLS is not to be had as asked, or the server's certificate is not trusted (EACCES).
    Untrusted,
    /// Our own policy or the protocol forbids it (EPERM).
    NotPermitted,
    /// The mount or the server takes no changes at all (EROFS).
    ReadOnly,
    /// The disk is full, there or here (ENOSPC).
    NoSpace,
    /// The account's quota is used up (EDQUOT).
    QuotaExceeded,
    /// A name or an argument that cannot be expressed (EINVAL).
    Invalid,
    /// A name over 255 bytes (ENAMETOOLONG).
    NameTooLong,
    /// A file larger than server or client can hold (EFBIG).
    TooLarge,
    /// Too many links were followed (ELOOP).
    Loop,
    /// No connection became free in time (EBUSY).
    Busy,
    /// The server did not answer in time, the one allowed retry included (ETIMEDOUT).
    TimedOut,
    /// The server hung up or cannot be reached, the one allowed retry included (EIO).
    Disconnected,
    /// The caller was told to stop while it waited (EINTR).
    Interrupted,
    /// The file changed on the server under an open handle, or the handle is gone (ESTALE).
    Stale,
    /// The server cannot do this (EOPNOTSUPP; never ENOSYS, which the kernel remembers for ever).
    Unsupported,
    /// No such extended attribute (ENODATA).
    NoData,
    /// The caller's buffer is too small (ERANGE).
    Range,
    /// A file descriptor opened for the other direction (EBADF).
    BadHandle,
    /// A message without anyone to send it to (EDESTADDRREQ).
    NoRecipient,
    /// A message with a malformed address or header (EBADMSG).
    BadMessage,
    /// A message over the size that the server takes (EMSGSIZE).
    MessageTooLong,
    /// A local system call failed with this errno (the staging disk and the like).
    Local(i32),
    /// The content is not what its checksum on the server says (EIO).
    Corrupt,
    /// Everything else the server said (EIO).
    Protocol,
}

/// An [`ErrorKind`] and, for the log and `ferryfs status`, one line that names the thing and the
/// cause. The line may quote a server, never a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    detail: Box<str>,
}

impl Error {
    /// `detail` names what was asked and what the server said, e.g. `RETR /a: 550 No such file`.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into().into_boxed_str(),
        }
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The line for people; empty where the kind says it all.
    #[must_use]
    pub const fn detail(&self) -> &str {
        &self.detail
    }

    /// The same error with `context: ` before its line.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        let detail = if self.detail.is_empty() {
            context.to_string()
        } else {
            format!("{context}: {}", self.detail)
        };
        Self::new(self.kind, detail)
    }

    /// A failed local system call on `thing`.
    pub fn local(thing: impl fmt::Display, err: &std::io::Error) -> Self {
        let kind = match err.raw_os_error() {
            Some(errno) => ErrorKind::Local(errno),
            None => ErrorKind::Protocol,
        };
        Self::new(kind, format!("{thing}: {}", words(err)))
    }
}

/// An error of the system in its own words, without Rust's.
pub(crate) fn words(err: &std::io::Error) -> String {
    let text = err.to_string();
    let lookup = "failed to lookup address information: ";
    let text = text.strip_prefix(lookup).unwrap_or(&text);
    let words = text
        .split_once(" (os error")
        .map_or(text, |(words, _)| words);
    words.to_owned()
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, "")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self.detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{:?}", self.kind)
        } else {
            f.write_str(&self.detail)
        }
    }
}

impl std::error::Error for Error {}
