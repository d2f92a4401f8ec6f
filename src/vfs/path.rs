//! Names and paths: bytes, checked once, at both doors (the kernel's and the server's).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::error::{Error, ErrorKind, Result};

/// Longest name in bytes, as `statfs` says (`f_namemax`).
pub const NAME_MAX: usize = 255;

/// Longest path below the mount in bytes; Linux' `PATH_MAX`.
const PATH_MAX: usize = 4096;

/// One component of a path: 1 to 255 bytes, not `.` or `..`, without `/`, NUL, CR and LF.
///
/// CR and LF would let a name inject a command into the control connection (RFC 959 section 5.3
/// ends a command with CRLF), so nothing past this constructor has to look for them again.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::NameTooLong`] over 255 bytes, [`ErrorKind::Invalid`] for everything else that
    /// is not a name.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        if bytes.len() > NAME_MAX {
            return Err(ErrorKind::NameTooLong.into());
        }
        let forbidden = |b: &u8| matches!(b, b'/' | 0 | b'\r' | b'\n');
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(forbidden) {
            let shown = String::from_utf8_lossy(bytes).escape_debug().to_string();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("not a file name: \"{shown}\""),
            ));
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes, as the server has them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes as the kernel wants them.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_os_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

/// A path below the root of the mount: zero or more [`Name`]s joined by `/`, without a leading or
/// trailing slash. The root is empty. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Arc<[u8]>);

impl RemotePath {
    /// The root of the mount.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from([]))
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        if self.is_root() {
            return Self(Arc::from(name.as_bytes()));
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.as_bytes().len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes.into())
    }

    /// The path of these names, the topmost first.
    pub(crate) fn from_names<'a>(names: impl Iterator<Item = &'a Name>) -> Self {
        let mut bytes = Vec::new();
        for name in names {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.as_bytes());
        }
        Self(bytes.into())
    }

    /// Parses `a/b/c` from bytes; empty components and `.` are dropped.
    ///
    /// # Errors
    /// As [`Name::new`], `..` included; [`ErrorKind::NameTooLong`] over 4096 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > PATH_MAX {
            return Err(ErrorKind::NameTooLong.into());
        }
        let mut path = Self::root();
        for part in bytes
            .split(|b| *b == b'/')
            .filter(|p| !p.is_empty() && *p != b".")
        {
            path = path.join(&Name::new(part)?);
        }
        Ok(path)
    }

    /// Directory and name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, Name)> {
        if self.is_root() {
            return None;
        }
        let (dir, name) = match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => {
                let (dir, rest) = self.0.split_at(at);
                (Self(Arc::from(dir)), rest.get(1..).unwrap_or_default())
            }
            None => (Self::root(), &*self.0),
        };
        Some((dir, Name(name.into())))
    }

    /// The directory this is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split().map(|(dir, _)| dir)
    }

    /// Whether this is `dir` or lies below it, compared component by component.
    #[must_use]
    pub fn is_within(&self, dir: &Self) -> bool {
        dir.is_root()
            || self
                .0
                .strip_prefix(&*dir.0)
                .is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
    }

    /// This path with its leading `from` replaced by `to`; `None` where it is not within `from`.
    #[must_use]
    pub fn rebase(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_within(from) {
            return None;
        }
        let rest = self.0.get(from.0.len()..).unwrap_or_default();
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let mut bytes = to.0.to_vec();
        if !rest.is_empty() && !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(rest);
        Some(Self(bytes.into()))
    }

    /// The bytes, `a/b/c`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the top down, unchecked since they were checked when they came in.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|p| !p.is_empty())
    }

    /// The same bytes as an `OsString`.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        OsString::from_vec(self.0.to_vec())
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", OsStr::from_bytes(&self.0))
    }
}

/// With a leading slash, as seen from the mountpoint: `/a/b`.
impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_that_could_escape_or_inject_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\0b", "a\rb", "a\nb"] {
            assert_eq!(
                Name::new(bad).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad:?}"
            );
        }
        assert_eq!(
            Name::new("x".repeat(256)).unwrap_err().kind(),
            ErrorKind::NameTooLong
        );
        for good in [" lead", "trail ", "a -> b", "caf\u{e9}", "...", "-rf"] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good.as_bytes());
        }
        assert_eq!(Name::new(b"caf\xe9").unwrap().as_bytes(), b"caf\xe9");
    }

    #[test]
    fn split_is_the_inverse_of_join() {
        let (dir, name) = path("a/b/c").split().unwrap();
        assert_eq!((dir.clone(), name.as_bytes()), (path("a/b"), &b"c"[..]));
        assert_eq!(dir.join(&name), path("a/b/c"));
        assert!(RemotePath::root().split().is_none());
        assert_eq!(path("a").parent(), Some(RemotePath::root()));
    }

    #[test]
    fn within_compares_components_not_bytes() {
        assert!(path("foo/bar").is_within(&path("foo")));
        assert!(path("foo").is_within(&path("foo")));
        assert!(!path("foobar").is_within(&path("foo")));
        assert!(path("foo").is_within(&RemotePath::root()));
    }

    #[test]
    fn rebase_moves_a_subtree() {
        assert_eq!(
            path("a/b/c").rebase(&path("a"), &path("x/y")),
            Some(path("x/y/b/c"))
        );
        assert_eq!(path("a").rebase(&path("a"), &path("x")), Some(path("x")));
        assert_eq!(
            path("a/b").rebase(&path("a"), &RemotePath::root()),
            Some(path("b"))
        );
        assert_eq!(path("ab").rebase(&path("a"), &path("x")), None);
    }
}
