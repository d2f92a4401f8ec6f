//! Temporary names for contents on their way.

use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{NAME_MAX, Name, RemotePath};

/// Beside `path`, for a new content: `.ferryfs-0123456789abcdef.part`.
///
/// # Errors
/// `IsADirectory` for the root; `Local` without random numbers.
pub(super) fn dotted(path: &RemotePath, suffix: &str) -> Result<RemotePath> {
    let (dir, _) = split(path)?;
    let name = format!(".ferryfs-{:016x}.{suffix}", random()?);
    Ok(dir.join(&Name::new(name)?))
}

/// The same where names may not begin with a dot: `NAME.ferryfs-0123~`, with NAME cut short if
/// need be.
///
/// # Errors
/// As for [`dotted`].
pub(super) fn tilde(path: &RemotePath) -> Result<RemotePath> {
    beside(path, &format!(".ferryfs-{:04x}~", random()? & 0xFFFF))
}

/// `path` with `suffix` at its end, the name before it cut short if need be.
///
/// # Errors
/// `IsADirectory` for the root.
pub(super) fn beside(path: &RemotePath, suffix: &str) -> Result<RemotePath> {
    let (dir, name) = split(path)?;
    let mut stem = name.as_bytes();
    while stem.len() + suffix.len() > NAME_MAX {
        // Not in the middle of a UTF-8 character: some servers refuse such a name.
        let cut = stem.iter().rposition(|b| b & 0xC0 != 0x80).unwrap_or(0);
        stem = stem.get(..cut).unwrap_or_default();
    }
    Ok(dir.join(&Name::new([stem, suffix.as_bytes()].concat())?))
}

fn split(path: &RemotePath) -> Result<(RemotePath, Name)> {
    path.split().ok_or_else(|| ErrorKind::IsADirectory.into())
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|err| Error::new(ErrorKind::Protocol, format!("random number: {err}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_beside_their_target_and_differ() {
        let path = RemotePath::parse(b"a/b.txt").unwrap();
        let one = dotted(&path, "part").unwrap();
        assert!(one.to_string().starts_with("/a/.ferryfs-"), "{one}");
        assert_ne!(one, dotted(&path, "part").unwrap());
        let two = tilde(&path).unwrap().to_string();
        assert!(
            two.starts_with("/a/b.txt.ferryfs-") && two.ends_with('~'),
            "{two}"
        );
        assert!(dotted(&RemotePath::root(), "part").is_err());
    }

    #[test]
    fn the_longest_names_still_have_a_neighbour() {
        for name in ["x".repeat(255), "\u{e9}".repeat(127)] {
            let path = RemotePath::parse(name.as_bytes()).unwrap();
            let temporary = tilde(&path).unwrap();
            assert!(std::str::from_utf8(temporary.as_bytes()).is_ok());
        }
    }
}
