//! Where the mount lies on the server, and how a path below it is spelled in a command.

use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// The server's directory that the mount shows.
///
/// With a login directory in slashes (`/home/ann`, `C:/ftp`) every command names the whole path,
/// so that no command depends on where the session stands. Elsewhere (`SYS$USER:[ANN]`, `'ANN.'`)
/// paths are relative to the login directory, and a session always goes back there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerRoot {
    base: Vec<u8>,
    home: Vec<u8>,
}

impl ServerRoot {
    /// `home` is what PWD said at login, `directory` the URL's: relative to `home`, or absolute
    /// with a leading slash (RFC 1738 section 3.2.2).
    ///
    /// # Errors
    /// `Invalid` for a directory that no command can carry.
    pub(crate) fn new(home: &[u8], directory: &[u8]) -> Result<Self> {
        if directory.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
            let shown = directory.escape_ascii();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("\"{shown}\" cannot be sent to an FTP server"),
            ));
        }
        let mut base = Vec::new();
        if directory.starts_with(b"/") {
            base.extend_from_slice(drive(home).unwrap_or_default());
        } else if in_slashes(home) {
            base.extend_from_slice(home);
            base.push(b'/');
        }
        if drive(home).is_some() {
            // Servers that print `C:\ftp` understand slashes too.
            base.iter_mut()
                .filter(|b| **b == b'\\')
                .for_each(|b| *b = b'/');
        }
        base.extend_from_slice(directory);
        Ok(Self {
            base: normalise(&base),
            home: home.to_vec(),
        })
    }

    /// The whole path of `path` for a command; never empty, never with a slash at its end unless
    /// it is the server's root.
    pub(crate) fn spell(&self, path: &RemotePath) -> Vec<u8> {
        self.spell_bytes(path.as_bytes())
    }

    /// As [`spell`](Self::spell), for a path that is already in the server's charset.
    pub(crate) fn spell_bytes(&self, below: &[u8]) -> Vec<u8> {
        let mut whole = self.base.clone();
        if !below.is_empty() {
            if !whole.is_empty() && !whole.ends_with(b"/") {
                whole.push(b'/');
            }
            whole.extend_from_slice(below);
        }
        if whole.is_empty() {
            return self.home.clone();
        }
        // Without a leading slash the first name could be taken for an option.
        if whole.starts_with(b"-") {
            whole.splice(0..0, *b"./");
        }
        whole
    }

    /// The login directory, where a session is at rest.
    pub(crate) fn home(&self) -> &[u8] {
        &self.home
    }

    /// The part of an absolute path of the server that lies within the mount, as components with
    /// `.` and `..` resolved; `None` if it does not.
    pub(crate) fn within(&self, absolute: &[u8]) -> Option<RemotePath> {
        let whole = normalise(absolute);
        let rest = whole.strip_prefix(self.base.as_slice())?;
        let apart = rest.is_empty() || self.base.ends_with(b"/") || rest.starts_with(b"/");
        apart.then(|| RemotePath::parse(rest).ok()).flatten()
    }
}

/// Whether an argument of LIST or STAT might be taken for options or a pattern, or cut at a space.
pub(crate) fn is_awkward(argument: &[u8]) -> bool {
    argument.starts_with(b"-")
        || argument
            .windows(2)
            .any(|pair| matches!(pair, [b'/' | b' ', b'-']))
        || argument.iter().any(|b| {
            matches!(
                b,
                b' ' | b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'~' | b'\\'
            )
        })
}

/// The name a server means when it lists a file that was asked for as a directory: the last
/// component, whatever it put before it.
pub(crate) fn last_name(path: &[u8]) -> Option<Name> {
    let last = path.rsplit(|b| *b == b'/').find(|part| !part.is_empty())?;
    Name::new(last).ok()
}

fn in_slashes(path: &[u8]) -> bool {
    path.starts_with(b"/") || drive(path).is_some()
}

/// `C:` of `C:/ftp` or `C:\ftp`.
fn drive(path: &[u8]) -> Option<&[u8]> {
    match path {
        [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic() => path.get(..2),
        _ => None,
    }
}

/// Drops `//`, `.` and the slash at the end, and takes `..` back.
fn normalise(path: &[u8]) -> Vec<u8> {
    let start = match drive(path) {
        Some(drive) => drive.len() + 1,
        None => usize::from(path.starts_with(b"/")),
    };
    let (start, rest) = path.split_at(start);
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in rest.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if !start.is_empty() => {}
            _ => parts.push(part),
        }
    }
    let mut whole = start.to_vec();
    whole.extend_from_slice(&parts.join(&b'/'));
    whole
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spelled(home: &str, directory: &str, path: &str) -> String {
        let root = ServerRoot::new(home.as_bytes(), directory.as_bytes()).unwrap();
        let path = RemotePath::parse(path.as_bytes()).unwrap();
        String::from_utf8(root.spell(&path)).unwrap()
    }

    #[test]
    fn the_directory_of_the_url_is_relative_unless_it_begins_with_a_slash() {
        assert_eq!(spelled("/home/ann", "", ""), "/home/ann");
        assert_eq!(spelled("/home/ann", "pub", "a/b"), "/home/ann/pub/a/b");
        assert_eq!(spelled("/home/ann", "/etc", "a"), "/etc/a");
        assert_eq!(spelled("/", "", "a"), "/a");
        assert_eq!(spelled("/", "pub/", ""), "/pub");
        assert_eq!(spelled("/home/ann/", "../bob//./x/", ""), "/home/bob/x");
        assert_eq!(spelled("/", "../../x", ""), "/x");
    }

    #[test]
    fn homes_without_slashes_are_never_put_before_a_path() {
        assert_eq!(spelled("SYS$USER:[ANN]", "", "a/b"), "a/b");
        assert_eq!(spelled("SYS$USER:[ANN]", "", ""), "SYS$USER:[ANN]");
        assert_eq!(spelled("'ANN.'", "x", "-y"), "x/-y");
        assert_eq!(spelled("'ANN.'", "", "-y"), "./-y");
        assert_eq!(spelled("C:\\ftp", "pub", "a"), "C:/ftp/pub/a");
        assert_eq!(spelled("C:/ftp", "/pub", "a"), "C:/pub/a");
    }

    #[test]
    fn a_directory_cannot_inject_a_command() {
        assert!(ServerRoot::new(b"/", b"a\r\nDELE b").is_err());
    }

    #[test]
    fn within_compares_components() {
        let root = ServerRoot::new(b"/home", b"ann").unwrap();
        let inside = |p: &[u8]| root.within(p).map(|p| p.to_string());
        assert_eq!(inside(b"/home/ann/x/../y").as_deref(), Some("/y"));
        assert_eq!(inside(b"/home/ann").as_deref(), Some("/"));
        assert_eq!(inside(b"/home/anna"), None);
        assert_eq!(inside(b"/home/ann/../bob"), None);
        let whole = ServerRoot::new(b"/", b"").unwrap();
        assert_eq!(
            whole.within(b"/a/b").map(|p| p.to_string()).as_deref(),
            Some("/a/b")
        );
    }

    #[test]
    fn awkward_arguments() {
        for bad in [
            "/a b", "-a", "/x/-rf", "/x*", "/[1]", "~ann", "/a\\b", "/{a,b}",
        ] {
            assert!(is_awkward(bad.as_bytes()), "{bad}");
        }
        for good in ["/a/b", "/a-b", "/caf\u{e9}", "/a->b"] {
            assert!(!is_awkward(good.as_bytes()), "{good}");
        }
    }
}
