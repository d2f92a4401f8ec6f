//! The one place where a server's words become an [`Error`].
//!
//! A reply's code says little: 550 is anything, 553 is a name, a directory or the disk. So the text
//! is asked first, then the code. A 4xx or 5xx whose text tells of a broken connection is one,
//! whatever its code.

use super::reply::Reply;
use crate::vfs::error::{Error, ErrorKind};

/// What a reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// In filesystem words.
    pub kind: ErrorKind,
    /// Whether the server's text said so, and not the bare code. A 550 without a helpful text is
    /// worth a probe (MLST, the parent's listing) before it is believed.
    pub told: bool,
}

/// Makes an error of a reply that is not the success that was hoped for. `what` names the command
/// as the log shows it (`RETR /a`).
#[must_use]
pub fn refusal(what: &str, reply: &Reply) -> Error {
    Error::new(classify(reply).kind, format!("{what}: {}", reply.text()))
}

/// Judges a reply by its text, else by its code.
#[must_use]
pub fn classify(reply: &Reply) -> Verdict {
    if reply.is_farewell() && reply.code() != 421 {
        return Verdict {
            kind: ErrorKind::Disconnected,
            told: true,
        };
    }
    if reply.code() >= 400
        && let Some(kind) = by_text(reply)
    {
        return Verdict { kind, told: true };
    }
    Verdict {
        kind: by_code(reply.code()),
        told: false,
    }
}

/// Whether the server refuses because it has enough connections, sessions or users: the login is
/// right, and will be accepted later.
#[must_use]
pub fn is_crowded(reply: &Reply) -> bool {
    reply.code() >= 400 && contains_any(&lower(reply), CROWDED)
}

/// Texts of many servers, lower case, in the order they are tried: what is nearer the cause comes
/// first ("no such file" before "failed", "does not exist" before "exists").
const TEXTS: &[(ErrorKind, &[&str])] = &[
    (ErrorKind::QuotaExceeded, &["quota"]),
    (
        ErrorKind::NoSpace,
        &[
            "no space",
            "disk full",
            "disk is full",
            "device full",
            "file system full",
            "filesystem full",
            "insufficient storage",
            "insufficient space",
            "insufficient disk",
            "not enough space",
            "not enough disk",
            "out of space",
        ],
    ),
    (ErrorKind::Busy, CROWDED),
    (
        ErrorKind::Disconnected,
        &[
            "broken pipe",
            "connection reset",
            "timed out",
            "timeout",
            "closed by the remote host",
            "session reuse",
            "try again later",
            "not logged in",
            "please login",
            "please log in",
            "login with user",
        ],
    ),
    (
        ErrorKind::ReadOnly,
        &[
            "read-only file system",
            "read only file system",
            "read-only filesystem",
            "read-only server",
            "read-only mode",
            "server is read-only",
        ],
    ),
    (
        ErrorKind::NotFound,
        &[
            "no such file",
            "no such dir",
            "not found",
            "does not exist",
            "doesn't exist",
            "not exist",
            "cannot find",
            "can't find",
            "could not find",
            "no such",
            "nonexistent",
        ],
    ),
    (
        ErrorKind::NotEmpty,
        &["not empty", "isn't empty", "non-empty"],
    ),
    (
        ErrorKind::NotADirectory,
        &["not a directory", "not a dir", "isn't a directory"],
    ),
    (
        ErrorKind::IsADirectory,
        &[
            "is a directory",
            "not a regular file",
            "not a plain file",
            "retrieve regular files",
        ],
    ),
    (
        ErrorKind::Exists,
        &["already exist", "file exists", "directory exists", "exists"],
    ),
    (
        ErrorKind::NameTooLong,
        &["name too long", "name is too long", "path too long"],
    ),
    (
        ErrorKind::TooLarge,
        &["file too large", "file is too large", "file too big"],
    ),
    (
        ErrorKind::Loop,
        &["too many levels", "too many symbolic links"],
    ),
    (
        ErrorKind::PermissionDenied,
        &[
            "permission",
            "access denied",
            "access is denied",
            "not permitted",
            "not allowed",
            "privilege",
            "forbidden",
            "prohibited",
            "unauthorized",
            "not authorized",
            "denied",
            "anonymous users may not",
        ],
    ),
    (
        ErrorKind::Invalid,
        &[
            "invalid name",
            "invalid file",
            "illegal name",
            "illegal file",
            "bad file name",
            "bad filename",
            "invalid character",
            "invalid argument",
            "name not allowed",
            "syntax is incorrect",
            "illegal seek",
        ],
    ),
    (
        ErrorKind::Busy,
        &["in use", "being used", "resource busy", "is busy", "locked"],
    ),
    (
        ErrorKind::Unsupported,
        &[
            "not understood",
            "not implemented",
            "not supported",
            "unsupported",
            "unknown command",
            "unrecognized command",
            "unknown site command",
        ],
    ),
];

/// Said of connections, sessions and users, in greetings and at login (compare lftp's
/// `net:retry-530` and `ftp:too-many-re`).
const CROWDED: &[&str] = &[
    "too many connection",
    "too many user",
    "too many session",
    "too many login",
    "too many client",
    "too many anonymous",
    "too many open",
    "too many simultaneous",
    "too many concurrent",
    "too many people",
    "too many other",
    "maximum number",
    "maximum login",
    "maximum connection",
    "maximum session",
    "maximum user",
    "max connection",
    "max number",
    "max users",
    "connection limit",
    "connections limit",
    "connection count",
    "user limit",
    "users limit",
    "session limit",
    "login limit",
    "limit reached",
    "limit exceeded",
    "limit of connections",
    "server is full",
    "no more connections",
    "connections from your",
    "connections from this",
];

/// A server repeats the name it was given, and a file may be called "disk full". So what stands in
/// quotes is left out, and what strerror said, after the last `: ` as ProFTPD, Pure-FTPd and their
/// kin write it, goes before what stands in front of it.
fn by_text(reply: &Reply) -> Option<ErrorKind> {
    let text = lower(reply);
    let find = |text: &str| {
        TEXTS
            .iter()
            .find(|(_, phrases)| contains_any(text, phrases))
            .map(|(kind, _)| *kind)
    };
    let reason = text.rsplit_once(": ").map(|(_, reason)| reason);
    reason.and_then(find).or_else(|| find(&text))
}

fn by_code(code: u16) -> ErrorKind {
    match code {
        // "Not implemented, superfluous at this site" is a 2xx, yet nothing was done.
        202 | 500 | 502 | 504 => ErrorKind::Unsupported,
        // 425 and 426: the data connection; 522 of vsftpd: its TLS session. All pass with a new one.
        421 | 425 | 426 | 522 => ErrorKind::Disconnected,
        450 => ErrorKind::Busy,
        452 | 552 => ErrorKind::NoSpace,
        501 => ErrorKind::Invalid,
        // 530 in mid-session and 532: this user may not. 550 and 553 without a word: most often so.
        530 | 532 | 534 | 550 | 553 => ErrorKind::PermissionDenied,
        _ => ErrorKind::Protocol,
    }
}

/// All lines in lower case, without what is in quotes.
fn lower(reply: &Reply) -> String {
    let mut text = String::new();
    for line in reply.lines() {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        let mut quoted = false;
        text.extend(line.chars().filter(|c| {
            quoted ^= *c == '"';
            !quoted
        }));
        text.push(' ');
    }
    text
}

fn contains_any(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| text.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;
    use ErrorKind::{
        Busy, Disconnected, Exists, Invalid, IsADirectory, Loop, NoSpace, NotADirectory, NotEmpty,
        NotFound, PermissionDenied, Protocol, QuotaExceeded, ReadOnly, Unsupported,
    };

    fn check(table: &[(&str, ErrorKind, bool)]) {
        for (text, kind, told) in table {
            let verdict = classify(&reply(format!("{text}\r\n").as_bytes()));
            assert_eq!((verdict.kind, verdict.told), (*kind, *told), "{text}");
        }
    }

    #[test]
    fn texts_of_real_servers() {
        check(&[
            ("550 Permission denied.", PermissionDenied, true),
            ("550 a.txt: No such file or directory", NotFound, true),
            (
                "550 Can't open a.txt: No such file or directory",
                NotFound,
                true,
            ),
            (
                "550 The system cannot find the file specified. ",
                NotFound,
                true,
            ),
            ("550 Access is denied. ", PermissionDenied, true),
            ("550 d: Directory not empty", NotEmpty, true),
            ("550 Can't create directory: File exists", Exists, true),
            ("521 \"/a/b\" directory already exists", Exists, true),
            ("550 a/b: Not a directory", NotADirectory, true),
            ("550 I can only retrieve regular files", IsADirectory, true),
            ("550 d: Not a regular file", IsADirectory, true),
            ("550 Not enough privileges.", PermissionDenied, true),
            ("550 l: Too many levels of symbolic links", Loop, true),
            ("550 a: Read-only file system", ReadOnly, true),
            ("552 Disk full - please upload later", NoSpace, true),
            (
                "552 Quota exceeded: [a.txt] won't be saved",
                QuotaExceeded,
                true,
            ),
            (
                "552 Transfer aborted. Disk quota exceeded",
                QuotaExceeded,
                true,
            ),
            ("451 a: No space left on device", NoSpace, true),
            ("553 Prohibited file name: ./a?b", PermissionDenied, true),
            ("500 'MFMT a': command not understood.", Unsupported, true),
            ("550 Broken pipe", Disconnected, true),
            ("500 OOPS: child died", Disconnected, true),
            ("426 Connection timed out", Disconnected, true),
            (
                "522 SSL connection failed: session reuse required",
                Disconnected,
                true,
            ),
            ("450 a: The file is in use", Busy, true),
            ("501 Invalid filename", Invalid, true),
            ("530 Please login with USER and PASS.", Disconnected, true),
        ]);
    }

    #[test]
    fn codes_where_the_text_says_nothing() {
        check(&[
            ("550 Failed to open file.", PermissionDenied, false),
            ("550 Delete operation failed.", PermissionDenied, false),
            ("553 Could not create file.", PermissionDenied, false),
            ("552", NoSpace, false),
            ("452 Oops", NoSpace, false),
            ("425 Can't open data connection.", Disconnected, false),
            ("202 Superfluous", Unsupported, false),
            ("502 What?", Unsupported, false),
            ("451 Local error", Protocol, false),
            ("200 Quota is fine", Protocol, false),
        ]);
    }

    #[test]
    fn names_do_not_speak_for_the_server() {
        check(&[
            ("550 disk full: Permission denied", PermissionDenied, true),
            ("550 \"no such file\" refused", PermissionDenied, false),
        ]);
    }

    #[test]
    fn crowded_is_told_from_wrong_password() {
        for text in [
            "421 There are too many connected users, please try later; too many users",
            "421 There are too many connections from your internet address.",
            "530 Sorry, the maximum number of clients (2) for this user are already connected.",
            "530 Sorry, max users -- try again",
            "421 5 users (the maximum) are already logged in, sorry: user limit",
            "530 Maximum login limit has been reached.",
            "421 Too many connections. Service temporarily unavailable.",
        ] {
            assert!(
                is_crowded(&reply(format!("{text}\r\n").as_bytes())),
                "{text}"
            );
        }
        for text in [
            "530 Login incorrect.",
            "530 Not logged in, user or password incorrect!",
            "220 too many users",
        ] {
            assert!(
                !is_crowded(&reply(format!("{text}\r\n").as_bytes())),
                "{text}"
            );
        }
    }
}
