//! Wakes who waits for a change with inotify(7).
//!
//! The kernel tells watchers what is done through the mount, and nothing of what a filesystem does
//! by itself. So a child of ours does something harmless through the mount: it opens each new file
//! for writing, writes nothing, and closes it, which is `IN_CLOSE_WRITE` with the file's name, and
//! it gives the directory the owner it has, which is `IN_ATTRIB`. It is another process because a
//! filesystem that waits for itself cannot be killed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::vfs::path::{Name, RemotePath};

/// First argument of the child.
const ARGUMENT: &str = "__nudge";

/// Where more have appeared at once, none is named: who waits looks at the whole directory.
const MOST: usize = 100;

/// A child that takes longer is ended: the mount is going down.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether this process was started by [`nudge`].
pub(crate) fn is_child(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|arg| arg == OsStr::new(ARGUMENT))
}

/// Wakes who watches `dir` of the mount at `mountpoint`, where `names` have appeared.
pub(crate) fn nudge(mountpoint: &Path, dir: &RemotePath, names: &[Name]) {
    let outcome = start(mountpoint, dir, names).and_then(wait_for);
    if let Err(err) = outcome {
        log::debug!("{dir}: watchers are not told: {err}");
    }
}

fn start(mountpoint: &Path, dir: &RemotePath, names: &[Name]) -> io::Result<Child> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("ferryfs")
        .arg(ARGUMENT)
        .arg(mountpoint.join(dir.to_os_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let mut list = Vec::new();
        for name in names.iter().filter(|_| names.len() <= MOST) {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        // It says how it went by ending.
        let _ = stdin.write_all(&list);
    }
    Ok(child)
}

fn wait_for(mut child: Child) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What the child does.
pub(crate) fn run(args: &[OsString]) {
    let Some(dir) = args.get(2).map(Path::new) else {
        return;
    };
    let mut names = Vec::new();
    // A file may have gone, the mount may be going: nobody needs to know.
    let _ = io::stdin().lock().read_to_end(&mut names);
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let _ = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(dir.join(OsStr::from_bytes(name)));
    }
    // The owner it has: of all changes the one that changes nothing and is an IN_ATTRIB.
    if let Ok(about) = fs::symlink_metadata(dir) {
        let _ = std::os::unix::fs::lchown(dir, Some(about.uid()), None);
    }
}
