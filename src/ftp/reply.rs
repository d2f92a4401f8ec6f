//! Replies of the control connection (RFC 959 section 4.2): reading them out of the bytes, and the
//! one place where a server's words become an [`Error`].

use crate::vfs::error::{Error, ErrorKind};

/// One complete reply. Texts are the server's bytes, Telnet's doubled IAC (RFC 959 section 3.1.1.5)
/// undone, line ends and the code cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    lines: Vec<Vec<u8>>,
}

impl Reply {
    /// The three-digit code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// 1xx: more is to come.
    #[must_use]
    pub const fn is_preliminary(&self) -> bool {
        self.code / 100 == 1
    }

    /// 2xx: done.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: another command is wanted (RNTO, PASS).
    #[must_use]
    pub const fn wants_more(&self) -> bool {
        self.code / 100 == 3
    }

    /// All lines, first and last included; never empty. Lines between the first and the last keep
    /// their leading space (MLST facts have one).
    #[must_use]
    pub fn lines(&self) -> &[Vec<u8>] {
        &self.lines
    }

    /// Text of the first line, after the code.
    #[must_use]
    pub fn first_line(&self) -> &[u8] {
        self.lines.first().map_or(&[], Vec::as_slice)
    }

    /// The lines between the first and the last: FEAT's features, MLST's facts, STAT's listing.
    #[must_use]
    pub fn body(&self) -> &[Vec<u8>] {
        match self.lines.as_slice() {
            [_, body @ .., _] => body,
            _ => &[],
        }
    }

    /// Code and text in one printable line, for errors and logs: `550 No such file`.
    #[must_use]
    pub fn text(&self) -> String {
        let first = String::from_utf8_lossy(self.first_line());
        format!("{} {}", self.code, first.escape_debug())
    }
}

/// Makes an error of a refusal. `what` names the command as the log shows it (`RETR /a`).
#[must_use]
pub fn refusal(what: &str, reply: &Reply) -> Error {
    Error::new(classify(reply).kind, format!("{what}: {}", reply.text()))
}

/// What a reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// In filesystem words.
    pub kind: ErrorKind,
    /// Whether the server's text said so, and not the bare code. A 550 without a helpful text is
    /// worth a probe (MLST, the parent's listing) before it is believed.
    pub told: bool,
}

/// Judges a reply that is not the success that was hoped for.
#[must_use]
pub fn classify(reply: &Reply) -> Verdict {
    let _ = reply;
    Verdict {
        kind: ErrorKind::Protocol,
        told: false,
    }
}
