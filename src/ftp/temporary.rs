//! Temporary names for contents on their way.

use super::options::UploadMode;
use super::refusal::classify;
use super::server::FtpServer;
use super::session::Session;
use super::ways::NewName;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{NAME_MAX, Name, RemotePath};

/// Most directories remembered for taking no temporary names.
const MOST_IN_PLACE: usize = 1_000;

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

impl FtpServer {
    /// The kinds of names to try, best first.
    pub(super) fn name_kinds(&self, s: &mut Session, path: &RemotePath) -> Result<Vec<NewName>> {
        let mut kinds = match self.options().upload {
            UploadMode::Direct => return Ok(vec![NewName::Direct]),
            UploadMode::Rename => vec![NewName::Dotted, NewName::Tilde],
            UploadMode::Auto => vec![NewName::Dotted, NewName::Tilde, NewName::Direct],
        };
        // What was learned of one directory does not bind the others, but goes first; only not
        // writing in place, which may cost an old version that was safe elsewhere.
        let in_place = path
            .parent()
            .is_some_and(|dir| self.in_place_only.with(|known| known.contains(&dir)));
        let known = match in_place {
            true => Some(NewName::Direct),
            false => self.ways.with(|ways| ways.new_name),
        };
        if let Some(known) = known.filter(|known| in_place || *known != NewName::Direct) {
            kinds.sort_by_key(|kind| *kind != known);
            return Ok(kinds);
        }
        if self.options().upload == UploadMode::Rename {
            return Ok(kinds);
        }
        // Whether renaming is allowed at all shows before a content is sent in vain: on a name that
        // is not there, since ProFTPD takes nothing but RNTO on a session where RNFR succeeded.
        let reply = self.ask(s, "RNFR", &tilde(path)?)?;
        let verdict = classify(&reply);
        let never = verdict.kind == ErrorKind::Unsupported
            || verdict.told && verdict.kind == ErrorKind::PermissionDenied;
        if never {
            kinds = vec![NewName::Direct];
        }
        Ok(kinds)
    }

    /// Whether a temporary name beside `path` is as good as certain to be taken: others were.
    pub(super) fn surely_takes_temporary(&self, path: &RemotePath) -> bool {
        let known = self.ways.with(|ways| ways.new_name);
        matches!(known, Some(NewName::Dotted | NewName::Tilde))
            && path
                .parent()
                .is_none_or(|dir| self.in_place_only.with(|known| !known.contains(&dir)))
    }

    /// A new file could be stored at `path` under a name of this kind, and of no better one.
    pub(super) fn learn_name_kind(&self, path: &RemotePath, kind: NewName) {
        if kind == NewName::Direct
            && let Some(dir) = path.parent()
        {
            self.in_place_only.with(|known| {
                if known.len() >= MOST_IN_PLACE {
                    known.clear();
                }
                known.insert(dir);
            });
        }
        self.ways.with(|ways| ways.new_name = Some(kind));
    }
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
