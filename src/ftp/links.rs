//! Targets of symbolic links: kept inside the mount, or as the user's policy wants them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::options::LinkPolicy;
use super::probes;
use super::server::FtpServer;
use super::server_path::ServerRoot;
use super::session::Session;
use crate::vfs::attr::{DirEntry, FileKind};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// How long a target that a listing told is believed: long enough for an `ls -l`, which reads the
/// links right after the listing.
const TARGETS_FRESH: Duration = Duration::from_secs(10);

/// Most targets remembered.
const TARGETS_MAX: usize = 10_000;

/// Targets that recent listings told, so that `ls -l` of many links is one listing.
#[derive(Debug, Default)]
pub(crate) struct LinkTargets(HashMap<RemotePath, (Box<[u8]>, Instant)>);

impl LinkTargets {
    /// Takes the targets out of a listing of `dir`.
    pub(crate) fn learn(&mut self, dir: &RemotePath, entries: &[DirEntry]) {
        let now = Instant::now();
        let told = entries.iter().filter_map(|entry| {
            let target = entry.attr.target.as_ref()?;
            (!target.is_empty()).then(|| (dir.join(&entry.name), (target.clone(), now)))
        });
        self.0.extend(told);
        if self.0.len() > TARGETS_MAX {
            self.0
                .retain(|_, (_, since)| since.elapsed() < TARGETS_FRESH);
        }
        if self.0.len() > TARGETS_MAX {
            self.0.clear();
        }
    }

    /// `path` was changed.
    pub(crate) fn forget(&mut self, path: &RemotePath) {
        self.0.remove(path);
    }

    fn fresh(&self, path: &RemotePath) -> Option<Vec<u8>> {
        let (target, since) = self.0.get(path)?;
        (since.elapsed() < TARGETS_FRESH).then(|| target.to_vec())
    }
}

impl FtpServer {
    /// The target of the link at `path`, as the mount's policy allows it.
    pub(super) fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        let raw = match self.links.with(|links| links.fresh(path)) {
            Some(target) => target,
            None => self.on_session(|s| self.target_now(s, path))?,
        };
        safe_target(self.options().links, &self.root, path, &raw)
    }

    fn target_now(&self, s: &mut Session, path: &RemotePath) -> Result<Vec<u8>> {
        let attr = self.stat_by_listing(s, path)?;
        let attr = attr.ok_or_else(|| Error::new(ErrorKind::NotFound, path.to_string()))?;
        if attr.kind != FileKind::Symlink {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{path}: not a link"),
            ));
        }
        Ok(attr.target.unwrap_or_default().into())
    }

    /// Makes a link, where the server has `SITE SYMLINK` (ProFTPD's mod_site_misc). It takes paths
    /// apart at spaces and wants the target to exist.
    pub(super) fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let cannot = |why: &str| {
            Err(Error::new(
                ErrorKind::NotPermitted,
                format!("{path}: {why}"),
            ))
        };
        let to = match target_to_create(self.options().links, path, target)? {
            Some(inside) => self.spell(&inside)?,
            None => target.to_vec(),
        };
        let at = self.spell(path)?;
        if to.contains(&b' ') || at.contains(&b' ') {
            return cannot("the server cannot make links with spaces in their names");
        }
        let line = [b"SITE SYMLINK ".as_slice(), &to, b" ", &at].concat();
        let act = |s: &mut Session| {
            if !s.features().has("SITE SYMLINK") {
                return cannot("the server cannot make symbolic links");
            }
            let reply = s.command(&line)?;
            if reply.is_ok() {
                return Ok(());
            }
            Err(self.explain(s, probes::PLACE, ("SITE SYMLINK", path), &reply))
        };
        let happened = |s: &mut Session| {
            let found = self.stat_by_listing(s, path)?;
            Ok(found
                .filter(|attr| attr.kind == FileKind::Symlink)
                .map(|_| ()))
        };
        self.settled(act, happened)?;
        self.links.with(|links| links.forget(path));
        Ok(())
    }
}

/// The target that the kernel is given for `link`, whose target on the server is `raw`.
///
/// Contained means: relative, with every `..` before the first name. Only then does the kernel,
/// which resolves `..` against real directories, stay inside: `a/../..` looks harmless until `a`
/// is itself a link to `.` (CVE-2026-47187 of sshfs was of this kind).
///
/// # Errors
/// `NotPermitted` where the link leaves the mount, `Invalid` if it is empty or has a NUL.
pub(crate) fn safe_target(
    policy: LinkPolicy,
    root: &ServerRoot,
    link: &RemotePath,
    raw: &[u8],
) -> Result<Vec<u8>> {
    if raw.is_empty() || raw.contains(&0) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{link}: the server tells no target"),
        ));
    }
    if policy == LinkPolicy::Raw {
        return Ok(raw.to_vec());
    }
    let from = link.parent().unwrap_or_else(RemotePath::root);
    let escapes = || {
        let shown = String::from_utf8_lossy(raw).escape_debug().to_string();
        Error::new(
            ErrorKind::NotPermitted,
            format!("{link}: the link to \"{shown}\" leaves the mount"),
        )
    };
    if !raw.starts_with(b"/") {
        return contained(&from, raw).ok_or_else(escapes);
    }
    let inside = match (root.within(raw), policy) {
        (Some(inside), _) => inside,
        // The server was asked to be taken at its word: its root is ours.
        (None, LinkPolicy::Transform) => resolve(&RemotePath::root(), raw).ok_or_else(escapes)?,
        (None, _) => return Err(escapes()),
    };
    Ok(relative(&from, &inside))
}

/// `raw`, unchanged if every `..` stands in front and none leaves the mount; otherwise the same
/// place by a path of that form.
fn contained(from: &RemotePath, raw: &[u8]) -> Option<Vec<u8>> {
    let to = resolve(from, raw)?;
    let mut parts = raw
        .split(|b| *b == b'/')
        .filter(|p| !matches!(*p, b"" | b"."));
    let ups_in_front = !parts
        .by_ref()
        .skip_while(|p| *p == b"..")
        .any(|p| p == b"..");
    if ups_in_front {
        return Some(raw.to_vec());
    }
    Some(relative(from, &to))
}

/// The path that `target` names when followed from `from` by its text alone; `None` if it climbs
/// over the root.
fn resolve(from: &RemotePath, target: &[u8]) -> Option<RemotePath> {
    let mut parts: Vec<&[u8]> = from.components().collect();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    RemotePath::parse(&parts.join(&b'/')).ok()
}

/// The way from directory `from` to `to`.
fn relative(from: &RemotePath, to: &RemotePath) -> Vec<u8> {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let ups = from.components().skip(shared).map(|_| b"..".as_slice());
    let path: Vec<&[u8]> = ups.chain(to.components().skip(shared)).collect();
    if path.is_empty() {
        return b".".to_vec();
    }
    path.join(&b'/')
}

/// The absolute path on the server that a new link at `link` to `target` means, for servers that
/// make links by two paths.
///
/// # Errors
/// `NotPermitted` for a target that is absolute, since it would name a file of this machine, or
/// that leaves the mount.
pub(crate) fn target_to_create(
    policy: LinkPolicy,
    link: &RemotePath,
    target: &[u8],
) -> Result<Option<RemotePath>> {
    if policy == LinkPolicy::Raw {
        return Ok(None);
    }
    let from = link.parent().unwrap_or_else(RemotePath::root);
    let inside = (!target.starts_with(b"/"))
        .then(|| resolve(&from, target))
        .flatten();
    inside.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::NotPermitted,
            format!("{link}: a link may only point to a place inside the mount"),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(policy: LinkPolicy, link: &str, raw: &str) -> Result<String> {
        let root = ServerRoot::new(b"/home/ann", b"").unwrap();
        let link = RemotePath::parse(link.as_bytes()).unwrap();
        safe_target(policy, &root, &link, raw.as_bytes()).map(|t| String::from_utf8(t).unwrap())
    }

    fn contain(link: &str, raw: &str) -> Option<String> {
        shown(LinkPolicy::Contain, link, raw).ok()
    }

    #[test]
    fn plain_relative_targets_stay_as_they_are() {
        assert_eq!(contain("a/b/l", "x").as_deref(), Some("x"));
        assert_eq!(
            contain("a/b/l", "../../x/y/").as_deref(),
            Some("../../x/y/")
        );
        assert_eq!(contain("l", "./x").as_deref(), Some("./x"));
        assert_eq!(contain("l", "a -> b").as_deref(), Some("a -> b"));
    }

    #[test]
    fn absolute_targets_inside_become_relative() {
        assert_eq!(contain("a/b/l", "/home/ann/a/c").as_deref(), Some("../c"));
        assert_eq!(contain("l", "/home/ann/x").as_deref(), Some("x"));
        assert_eq!(contain("a/l", "/home/ann/a").as_deref(), Some("."));
        assert_eq!(contain("a/l", "/home/ann").as_deref(), Some(".."));
    }

    #[test]
    fn targets_that_leave_are_refused() {
        for raw in [
            "/etc/passwd",
            "/home/anna/x",
            "../x",
            "a/../../x",
            "/home/ann/../bob",
            "..",
        ] {
            let err = shown(LinkPolicy::Contain, "l", raw).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::NotPermitted, "{raw}");
        }
        assert_eq!(contain("a/l", "../../x"), None);
    }

    #[test]
    fn a_climb_behind_a_name_is_taken_out() {
        // With `d -> .` the kernel would go from `d/..` to the parent of the mountpoint.
        assert_eq!(
            contain("l", "d/../etc/passwd").as_deref(),
            Some("etc/passwd")
        );
        assert_eq!(contain("a/l", "../d/../x").as_deref(), Some("../x"));
    }

    #[test]
    fn transform_takes_the_root_of_the_server_for_the_mount() {
        let transform = |raw| shown(LinkPolicy::Transform, "a/l", raw).unwrap();
        assert_eq!(transform("/etc/x"), "../etc/x");
        assert_eq!(transform("/home/ann/x"), "../x");
        assert_eq!(shown(LinkPolicy::Raw, "l", "/etc/x").unwrap(), "/etc/x");
        assert!(shown(LinkPolicy::Transform, "l", "/../x").is_err());
    }

    #[test]
    fn new_links_point_inside() {
        let to = |raw: &[u8]| {
            let link = RemotePath::parse(b"a/l").unwrap();
            target_to_create(LinkPolicy::Contain, &link, raw)
        };
        assert_eq!(to(b"../x").unwrap().unwrap().to_string(), "/x");
        assert!(to(b"../../x").is_err());
        assert!(to(b"/etc/passwd").is_err());
    }
}
