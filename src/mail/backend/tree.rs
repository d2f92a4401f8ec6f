//! The tree of a mail mount: which path is what.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mail::queue::Id;
use crate::vfs::path::RemotePath;

/// The directories at the top, as they are listed.
pub(super) const DIRECTORIES: [&str; 10] = [
    "new", "cur", "tmp", ".Sent", "outbox", "drafts", "failed", "queue", "parts", "aliases",
];

/// The files at the top.
pub(super) const FILES: [&str; 2] = ["status", "ctl"];

/// Where the user's alias file is in `aliases/`; no alias begins with a dot.
pub(super) const ALIAS_FILE: &str = ".aliases";

/// A part of the tree whose files are files on this machine's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    /// `new`, `cur`, `tmp`.
    Inbox,
    /// `.Sent`.
    Sent,
    /// Where messages are prepared.
    Drafts,
    /// What is dropped here is sent.
    Outbox,
    /// What was not sent, and why.
    Failed,
    /// The alias file.
    Aliases,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// The mount itself.
    Root,
    /// A file or a directory on disk.
    Real(Area, PathBuf),
    /// `queue`.
    Queue,
    /// `queue/ID`.
    Queued(Id),
    /// A path below `parts`.
    Parts(RemotePath),
    /// `aliases`.
    Aliases,
    /// `aliases/NAME`.
    Alias(String),
    /// `status`.
    Status,
    /// `ctl`.
    Ctl,
}

/// Where the areas are on disk.
#[derive(Debug)]
pub(super) struct Areas {
    /// The directory of the account.
    pub(super) root: PathBuf,
    /// The inbox.
    pub(super) maildir: PathBuf,
}

impl Areas {
    /// What `path` is; `None` if it cannot be anything.
    pub(super) fn node(&self, path: &RemotePath) -> Option<Node> {
        let mut names = path.components();
        let Some(first) = names.next() else {
            return Some(Node::Root);
        };
        let rest: Vec<&[u8]> = names.collect();
        let below = |base: &Path| {
            let names = rest.iter().map(|name| OsStr::from_bytes(name));
            base.join(names.collect::<PathBuf>())
        };
        let root = |name: &str| below(&self.root.join(name));
        Some(match (first, rest.as_slice()) {
            (b"new" | b"cur" | b"tmp", _) => {
                let dir = self.maildir.join(OsStr::from_bytes(first));
                Node::Real(Area::Inbox, below(&dir))
            }
            (b".Sent", _) => Node::Real(Area::Sent, root("Sent")),
            (b"outbox", _) => Node::Real(Area::Outbox, root("outbox")),
            (b"drafts", _) => Node::Real(Area::Drafts, root("drafts")),
            (b"failed", _) => Node::Real(Area::Failed, root("failed")),
            (b"queue", []) => Node::Queue,
            (b"queue", [id]) => Node::Queued(Id::parse(std::str::from_utf8(id).ok()?)?),
            (b"aliases", []) => Node::Aliases,
            (b"aliases", [name]) if *name == ALIAS_FILE.as_bytes() => {
                Node::Real(Area::Aliases, self.root.join("aliases"))
            }
            (b"aliases", [name]) => Node::Alias(std::str::from_utf8(name).ok()?.to_owned()),
            (b"parts", _) => {
                let below = path.as_bytes().get(b"parts/".len()..).unwrap_or_default();
                Node::Parts(RemotePath::parse(below).ok()?)
            }
            (b"status", []) => Node::Status,
            (b"ctl", []) => Node::Ctl,
            _ => return None,
        })
    }

    /// Whether `path` is one of the directories that are always there.
    pub(super) fn is_fixed(path: &RemotePath) -> bool {
        let fixed: [&[u8]; 5] = [
            b".Sent/new",
            b".Sent/cur",
            b".Sent/tmp",
            b"outbox/now",
            b"outbox/at",
        ];
        path.components().count() <= 1 || fixed.contains(&path.as_bytes())
    }
}

/// A path in `outbox`, without that.
pub(super) fn in_outbox(path: &RemotePath) -> Option<RemotePath> {
    RemotePath::parse(path.as_bytes().strip_prefix(b"outbox/")?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_their_areas() {
        let areas = Areas {
            root: "/r".into(),
            maildir: "/r/Maildir".into(),
        };
        let node = |path: &str| areas.node(&RemotePath::parse(path.as_bytes()).unwrap());
        assert_eq!(node(""), Some(Node::Root));
        assert_eq!(
            node("new/a:2,S"),
            Some(Node::Real(Area::Inbox, "/r/Maildir/new/a:2,S".into()))
        );
        assert_eq!(
            node(".Sent/cur"),
            Some(Node::Real(Area::Sent, "/r/Sent/cur".into()))
        );
        assert_eq!(
            node("outbox/a@b.c/x"),
            Some(Node::Real(Area::Outbox, "/r/outbox/a@b.c/x".into()))
        );
        assert_eq!(node("lock"), None);
        assert_eq!(node("status"), Some(Node::Status));
    }
}
