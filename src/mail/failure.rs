//! What went wrong with a mail server, in the one distinction that matters: what helps.

use std::fmt;
use std::time::Duration;

use crate::vfs::error::{Error, ErrorKind};

/// Result of a mail session.
pub type Result<T> = std::result::Result<T, Failure>;

/// Longest part of a server's own words that is kept.
const WORDS_KEPT: usize = 300;

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Time: a connection that broke, a server that is busy. Trying again later is right.
    Transient,
    /// The user: a wrong password, a refused certificate, a server without TLS. Trying again
    /// soon is wrong; servers lock accounts.
    Account,
    /// Nothing: the server refuses this, and will again.
    Permanent,
    /// The server says what no server may say. It may be better next time.
    Protocol,
    /// This machine: disk full, no permission.
    Local,
}

/// A [`Class`], its cause, one line for people, and how long the server wants to be left alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    class: Class,
    cause: Option<ErrorKind>,
    detail: Box<str>,
    wait: Option<Duration>,
}

impl Failure {
    /// `detail` names what was asked and what the server said; it holds no secret.
    pub fn new(class: Class, detail: impl Into<String>) -> Self {
        Self {
            class,
            cause: None,
            detail: detail.into().into_boxed_str(),
            wait: None,
        }
    }

    /// The same of another cause than its class has as a rule: `Untrusted`, not a wrong password.
    #[must_use]
    pub const fn because(mut self, cause: ErrorKind) -> Self {
        self.cause = Some(cause);
        self
    }

    /// The same, not to be tried again before `wait` has passed.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// The same error with `context: ` before its line.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.detail = format!("{context}: {}", self.detail).into_boxed_str();
        self
    }

    /// A failed local system call on `thing`.
    pub fn local(thing: impl fmt::Display, err: &std::io::Error) -> Self {
        Self::new(Class::Local, format!("{thing}: {err}"))
    }

    /// What helps.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it is for those who do not care for mail: `PermissionDenied` is a refused login,
    /// `Untrusted` a refused certificate or a server without TLS.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        if let Some(cause) = self.cause {
            return cause;
        }
        match self.class {
            Class::Transient => ErrorKind::Disconnected,
            Class::Account => ErrorKind::PermissionDenied,
            Class::Permanent => ErrorKind::NotPermitted,
            Class::Protocol => ErrorKind::Protocol,
            Class::Local => ErrorKind::Local(rustix::io::Errno::IO.raw_os_error()),
        }
    }

    /// The line for people.
    #[must_use]
    pub const fn detail(&self) -> &str {
        &self.detail
    }

    /// How long the server asked to be left alone (`[IN-USE]`, `[LOGIN-DELAY]`).
    #[must_use]
    pub const fn wait(&self) -> Option<Duration> {
        self.wait
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.class, self.detail)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

/// Errors of sockets and certificates.
impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        let class = match err.kind() {
            ErrorKind::TimedOut | ErrorKind::Disconnected => Class::Transient,
            ErrorKind::PermissionDenied | ErrorKind::Untrusted | ErrorKind::Invalid => {
                Class::Account
            }
            ErrorKind::Local(_) => Class::Local,
            _ => Class::Protocol,
        };
        let failure = Self::new(class, err.detail());
        match class {
            Class::Account => failure.because(err.kind()),
            _ => failure,
        }
    }
}

/// For calls of programs.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind(), failure.to_string())
    }
}

/// A server's words, fit for a log line: printable, one line, not endless.
#[must_use]
pub fn words(bytes: &[u8]) -> String {
    let cut = bytes.get(..WORDS_KEPT).unwrap_or(bytes);
    let mut text: String = String::from_utf8_lossy(cut)
        .trim()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if cut.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
