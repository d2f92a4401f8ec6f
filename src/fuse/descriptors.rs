//! Looking at a caller's other descriptors.
//!
//! FLUSH says that a descriptor is closed, not that it was the last. Shells open the target of a
//! redirection, duplicate the descriptor and close the first one before anything is written: to
//! bring the empty file to the server then would cost as much as the real content, and replace an
//! old version by nothing for a moment.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The longest that `/proc` is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether the process of thread `thread` still has `path` open for writing; then another FLUSH
/// will come, be it when it is killed. Looks at `/proc` only, never at the mount itself.
///
/// On a thread of its own, and not for long: a process in the middle of `execve` closes its
/// descriptors under a lock that readers of its `/proc/PID/fd` wait for. It would wait for our
/// answer to that very FLUSH, and we for it.
pub(super) fn has_open_for_writing(thread: u32, path: &Path) -> bool {
    if thread == 0 {
        return false;
    }
    let (tell, told) = mpsc::sync_channel(1);
    let path = path.to_owned();
    let look = thread::Builder::new().name("descriptors".into());
    let looking = look.spawn(move || tell.send(is_among_descriptors(thread, &path)));
    looking.is_ok() && told.recv_timeout(PATIENCE).unwrap_or(false)
}

fn is_among_descriptors(thread: u32, path: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{thread}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        let leads_there = fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str().as_bytes() == path.as_os_str().as_bytes());
        leads_there && is_writable(thread, &entry.file_name().to_string_lossy())
    })
}

fn is_writable(thread: u32, number: &str) -> bool {
    let Ok(about) = fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")) else {
        return false;
    };
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_descriptors_that_can_write_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        let us = std::process::id();
        let writing = File::create(&path).unwrap();
        assert!(has_open_for_writing(us, &path));
        assert!(!has_open_for_writing(us, &path.with_file_name("other")));
        assert!(!has_open_for_writing(0, &path));
        let reading = File::open(&path).unwrap();
        drop(writing);
        assert!(!has_open_for_writing(us, &path));
        drop(reading);
    }
}
