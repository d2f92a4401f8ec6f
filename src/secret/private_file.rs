//! Files that hold a secret.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// A file with secrets is never larger.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The text of a file that must be ours or root's and closed to everybody else.
///
/// # Errors
/// The system's, and what is wrong with the file, with the remedy.
pub fn read_private(path: &Path) -> io::Result<String> {
    // Opened first and then looked at: it is this file that is read, whatever the name becomes.
    // A pipe that nobody writes to would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if about.mode() & 0o077 != 0 {
        let cause = format!("others may read it; chmod 600 {}", path.display());
        return Err(io::Error::other(cause));
    }
    let us = rustix::process::geteuid();
    if about.uid() != us.as_raw() && about.uid() != 0 {
        let cause = "it belongs to another user; make a copy of your own";
        return Err(io::Error::other(cause));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_no_file_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let err = read_private(&pipe).unwrap_err();
        assert_eq!(err.to_string(), "not a regular file");
    }
}
