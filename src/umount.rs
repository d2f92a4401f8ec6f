//! `ferryfs umount` and `ferryfs flush`: ask the mount to bring everything to the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::UmountWords;
use crate::control::{self, Request};
use crate::exit::{Exit, Failure, words};
use crate::{config, mounts, state};

/// Time for the mount to end after it said that all is done.
const END: Duration = Duration::from_secs(10);

/// More than the mount takes for an answer after its own time limit.
const GRACE: Duration = Duration::from_secs(30);

/// Waits until everything dirty is on the server, and unmounts.
///
/// # Errors
/// [`Exit::Mountpoint`] if nothing of ours is mounted at `dir`; [`Exit::Incomplete`] with what is
/// left, or with who keeps the mount busy, and then it stays mounted.
pub(crate) fn umount(words: &UmountWords) -> Result<(), Failure> {
    let UmountWords { dir, lazy, timeout } = words;
    let target = Target::find(dir)?;
    let Some(mount) = target.alive() else {
        // A recorded one is dead. Of another nothing is known, and looking at it may hang: that is
        // taken away only if nobody is in there.
        return target.detach(*lazy || target.mount.is_some());
    };
    let request = Request::Umount {
        lazy: *lazy,
        timeout: *timeout,
    };
    match control::ask(
        &state::socket(&mount.dir),
        &request,
        timeout.saturating_add(GRACE),
    ) {
        Ok(answer) => {
            answer
                .into_result()
                .map_err(|failure| target.explain(failure))?;
        }
        // It ended while it was asked; whether it unmounted is seen below.
        Err(err) if is_nobody(&err) => {}
        Err(err) => return Err(target.silent(&err)),
    }
    target.wait_for_end()
}

/// Waits until everything written so far is on the server.
///
/// # Errors
/// As [`umount`].
pub(crate) fn flush(dir: &Path, timeout: Duration) -> Result<(), Failure> {
    let target = Target::find(dir)?;
    let Some(mount) = target.alive() else {
        let line = format!(
            "{}: no process serves it; ferryfs umount it",
            target.dir.display()
        );
        return Err(Failure::new(Exit::Mountpoint, line));
    };
    let request = Request::Flush { timeout };
    control::ask(
        &state::socket(&mount.dir),
        &request,
        timeout.saturating_add(GRACE),
    )
    .map_err(|err| target.silent(&err))?
    .into_result()?;
    Ok(())
}

fn is_nobody(err: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(
        err.kind(),
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof
    )
}

/// A mountpoint somebody named.
struct Target {
    dir: PathBuf,
    is_mounted: bool,
    mount: Option<state::Found>,
}

impl Target {
    fn find(dir: &Path) -> Result<Self, Failure> {
        let dir = &config::dir_of(dir);
        let refuse =
            |cause: String| Failure::new(Exit::Mountpoint, format!("{}: {cause}", dir.display()));
        let dir = mounts::resolve(dir).map_err(|err| refuse(words(&err)))?;
        let is_mounted = mounts::find(&dir)
            .map_err(|err| Failure::system("/proc/self/mountinfo", &err))?
            .is_some_and(|mount| mount.is_ours());
        let mut mounts: Vec<_> = state::all()?
            .into_iter()
            .filter(|found| found.record.mountpoint == dir)
            .collect();
        // A dead one may be remembered for the same place beside the one that lives.
        mounts.sort_by_key(|found| !found.alive);
        let mount = mounts.into_iter().next();
        if !is_mounted && !mount.as_ref().is_some_and(|mount| mount.alive) {
            return Err(refuse(
                "no ferryfs is mounted here; see ferryfs status".to_owned(),
            ));
        }
        Ok(Self {
            dir,
            is_mounted,
            mount,
        })
    }

    fn alive(&self) -> Option<&state::Found> {
        self.mount.as_ref().filter(|mount| mount.alive)
    }

    fn detach(&self, lazy: bool) -> Result<(), Failure> {
        mounts::detach(&self.dir, lazy).map_err(|err| {
            let failure = Failure::new(
                Exit::Incomplete,
                format!("{}: {}", self.dir.display(), words(&err)),
            );
            if err.kind() == io::ErrorKind::ResourceBusy {
                self.explain(failure)
            } else {
                failure
            }
        })
    }

    /// Adds who is in there to a refusal.
    fn explain(&self, failure: Failure) -> Failure {
        let users = users_of(&self.dir, std::process::id());
        if failure.code() != Exit::Incomplete || users.is_empty() {
            return failure;
        }
        let line = format!("{}; in use by {}", failure.line(), users.join(", "));
        Failure::new(Exit::Incomplete, line)
    }

    fn silent(&self, err: &io::Error) -> Failure {
        let line = format!(
            "{}: its process does not answer ({}); try again, or detach it with \
             ferryfs umount --lazy",
            self.dir.display(),
            words(err)
        );
        Failure::new(Exit::Incomplete, line)
    }

    /// The answer comes before the end: the mountpoint is free and the state unlocked after it.
    fn wait_for_end(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + END;
        loop {
            let mounted = self.is_mounted
                && mounts::find(&self.dir).is_ok_and(|m| m.is_some_and(|m| m.is_ours()));
            let running = self.mount.as_ref().is_some_and(state::Found::still_alive);
            match (mounted, running) {
                (false, false) => return Ok(()),
                // It died on the way and left the mount.
                (true, false) => return self.detach(true),
                _ if Instant::now() > deadline => {
                    let line = format!(
                        "{}: everything is on the server, but the process has not ended",
                        self.dir.display()
                    );
                    return Err(Failure::new(Exit::Incomplete, line));
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Processes that work in or have open what lies below `dir`, as far as we may look. Links in
/// `/proc` are read, never followed: nothing here waits for the mount. Not `ourselves`, who have the
/// directory and the descriptors of the shell that called us.
fn users_of(dir: &Path, ourselves: u32) -> Vec<String> {
    let inside = |link: &Path| fs::read_link(link).is_ok_and(|path| path.starts_with(dir));
    let mut users = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
            .filter(|pid| *pid != ourselves)
        else {
            continue;
        };
        let path = process.path();
        let open = fs::read_dir(path.join("fd"));
        if inside(&path.join("cwd"))
            || inside(&path.join("exe"))
            || open
                .into_iter()
                .flatten()
                .flatten()
                .any(|fd| inside(&fd.path()))
        {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            users.push(format!("{} ({pid})", name.trim()));
        }
    }
    users.truncate(5);
    users
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_a_directory_busy_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        assert_eq!(users_of(&dir, 0), Vec::<String>::new());
        let open = fs::File::create(dir.join("file")).unwrap();
        assert_eq!(users_of(&dir, std::process::id()), Vec::<String>::new());
        let users = users_of(&dir, 0);
        assert_eq!(users.len(), 1);
        assert!(
            users
                .first()
                .unwrap()
                .contains(&std::process::id().to_string())
        );
        drop(open);
    }

    #[test]
    fn a_directory_that_is_no_mount_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let failure = flush(temp.path(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure.code(), Exit::Mountpoint);
    }
}
