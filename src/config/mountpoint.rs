//! Looks at the mountpoint before anything else is done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::exit::{Exit, Failure, words};
use crate::{mounts, state};

/// How long a process that was just killed may still hold its mount: where that is known, and where
/// it cannot be seen.
const DYING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(300));

/// Checks `dir` and returns it absolute and without links. Nothing looks at it again: once mounted
/// it leads to ourselves. What a ferryfs that died left there is taken away first.
pub(crate) fn check(dir: &Path, nonempty: bool) -> Result<PathBuf, Failure> {
    let refuse =
        |cause: String| Failure::new(Exit::Mountpoint, format!("{}: {cause}", dir.display()));
    let resolved = match mounts::resolve(dir) {
        Ok(resolved) => resolved,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(refuse(format!(
                "no such directory; mkdir {}",
                dir.display()
            )));
        }
        Err(err) => return Err(refuse(words(&err))),
    };
    if let Ok(Some(mount)) = mounts::find(&resolved) {
        let patience = match mount.is_ours() {
            true if is_dying(&resolved) => DYING.0,
            true => DYING.1,
            false => Duration::ZERO,
        };
        let dead = is_dead(&resolved, patience);
        let source = mount.source.display();
        match (mount.is_ours(), dead) {
            (true, true) => {
                log::warn!(
                    "{}: taking away the dead mount of {source}",
                    resolved.display()
                );
                mounts::detach(&resolved, true)
                    .map_err(|err| refuse(format!("a dead mount is there: {}", words(&err))))?;
                return check(dir, nonempty);
            }
            (true, false) => {
                return Err(refuse(format!(
                    "{source} is mounted here already; ferryfs umount {} first",
                    dir.display()
                )));
            }
            (false, true) => {
                let kind = mount.fs_type.display();
                return Err(refuse(format!(
                    "a dead {kind} mount is there; umount it first"
                )));
            }
            (false, false) => {}
        }
    }
    let mut entries = match fs::read_dir(&resolved) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotADirectory => {
            return Err(refuse("not a directory".to_owned()));
        }
        Err(err) => return Err(refuse(words(&err))),
    };
    if !nonempty && entries.next().is_some() {
        return Err(refuse(
            "not empty; choose an empty directory or hide its files with -o nonempty".to_owned(),
        ));
    }
    Ok(resolved)
}

/// Whether the ferryfs that has mounted something at `dir` is at its end, or was killed.
fn is_dying(dir: &Path) -> bool {
    let all = state::all().unwrap_or_default();
    let here = all.iter().filter(|found| found.record.mountpoint == dir);
    let here: Vec<_> = here.map(state::Found::is_dying).collect();
    !here.is_empty() && here.into_iter().all(|dying| dying)
}

/// Whether nobody serves the mount at `dir`, or will in a moment.
fn is_dead(dir: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if fs::metadata(dir).is_err_and(|err| is_disconnected(&err)) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What everything on a FUSE mount answers when its process is gone.
fn is_disconnected(err: &io::Error) -> bool {
    Errno::from_io_error(err) == Some(Errno::NOTCONN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mountpoint_is_an_empty_directory() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let refused = |path: &Path| check(path, false).unwrap_err();

        assert!(refused(&base.join("missing")).line().contains("mkdir"));
        fs::write(base.join("file"), "").unwrap();
        assert!(
            refused(&base.join("file"))
                .line()
                .contains("not a directory")
        );
        assert!(refused(&base).line().contains("nonempty"));
        assert_eq!(check(&base, true), Ok(base.clone()));

        fs::create_dir(base.join("dir")).unwrap();
        std::os::unix::fs::symlink("dir", base.join("link")).unwrap();
        assert_eq!(
            check(&base.join("link/../link"), false),
            Ok(base.join("dir"))
        );
    }
}
