//! How the command ends: an exit code that scripts can tell apart and one line for people.

use std::fmt;
use std::process::ExitCode;

pub(crate) use crate::vfs::error::words;

/// Exit codes; `man/ferryfs.1` documents them and scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything without a code of its own.
    Failed = 1,
    /// A wrong command line, URL, option or configuration file.
    Usage = 2,
    /// No password was found, or a source of one failed.
    Secret = 3,
    /// The server's name does not resolve, or nothing answers there.
    Connect = 4,
    /// The server refuses the user or the password.
    Login = 5,
    /// TLS is required and not to be had, or the certificate is not trusted.
    Tls = 6,
    /// The directory of the URL does not exist on the server.
    NoDirectory = 7,
    /// The mountpoint is missing, not empty or taken, or nothing of ours is mounted there.
    Mountpoint = 8,
    /// The kernel or fusermount3 refuses the mount.
    Mount = 9,
    /// Another mount is using the same state directory.
    Locked = 10,
    /// Something is left that is not on the server, or the mount is busy.
    Incomplete = 11,
    /// Mail: wrong words (`EX_USAGE` of sysexits.h; so the others).
    MailUsage = 64,
    /// Mail: a malformed message or address (`EX_DATAERR`), or one a server refused.
    MailData = 65,
    /// Mail: a recipient nobody knows (`EX_NOUSER`).
    MailNoUser = 67,
    /// Mail: no mailbox to send from, or it is not to be sent at all (`EX_UNAVAILABLE`).
    MailUnavailable = 69,
    /// Mail: the local disk failed (`EX_IOERR`).
    MailDisk = 74,
    /// Mail: not now; try again (`EX_TEMPFAIL`).
    MailLater = 75,
    /// Mail: a login was refused (`EX_NOPERM`).
    MailDenied = 77,
    /// Mail: several mailboxes, or a mistake in the configuration (`EX_CONFIG`).
    MailConfig = 78,
}

impl Exit {
    /// Every code, for those who have only a number.
    pub const ALL: [Self; 19] = [
        Self::Failed,
        Self::Usage,
        Self::Secret,
        Self::Connect,
        Self::Login,
        Self::Tls,
        Self::NoDirectory,
        Self::Mountpoint,
        Self::Mount,
        Self::Locked,
        Self::Incomplete,
        Self::MailUsage,
        Self::MailData,
        Self::MailNoUser,
        Self::MailUnavailable,
        Self::MailDisk,
        Self::MailLater,
        Self::MailDenied,
        Self::MailConfig,
    ];

    /// The number the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code with this number; [`Exit::Failed`] for a stranger.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::ALL
            .into_iter()
            .find(|exit| exit.code() == code)
            .unwrap_or(Self::Failed)
    }
}

/// Why the command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: Exit,
    line: String,
}

impl Failure {
    /// `line` reads `thing: cause; remedy`, without the program's name and without a secret. It is
    /// kept to one line whatever a server or a file put into it.
    pub fn new(code: Exit, line: impl fmt::Display) -> Self {
        let line = line.to_string();
        let line = line
            .split(|c: char| c.is_control())
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        Self { code, line }
    }

    /// A failed system call on `thing`, with [`Exit::Failed`].
    pub(crate) fn system(thing: impl fmt::Display, err: &std::io::Error) -> Self {
        Self::new(Exit::Failed, format!("{thing}: {}", words(err)))
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn code(&self) -> Exit {
        self.code
    }

    /// The line for people.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// For `main`.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_was_quoted() {
        let failure = Failure::new(
            Exit::Login,
            "host: 530 no\r\n530-really\x1b[31m; try again\n",
        );
        assert_eq!(failure.line(), "host: 530 no 530-really [31m; try again");
    }

    #[test]
    fn codes_are_distinct_and_come_back() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), exit);
        }
        assert_eq!(Exit::from_code(0), Exit::Failed);
    }
}
