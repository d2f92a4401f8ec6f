//! Targets of symbolic links: kept inside the mount, or as the user's policy wants them.

use super::options::LinkPolicy;
use super::server_path::ServerRoot;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

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
