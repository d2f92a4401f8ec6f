//! Certificates that were trusted when they were first seen: a file of lines `host:port SHA256:…`,
//! for all mounts of a user.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::Deadline;
use super::fingerprint::Fingerprint;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Larger than any file this code writes.
const MAX_BYTES: u64 = 1 << 20;

/// How long another process may hold the file.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// What is on record of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// This very certificate.
    Same,
    /// Another one, on this line (from 1).
    Other(Fingerprint, usize),
}

/// The file.
#[derive(Debug)]
pub(super) struct KnownHosts(PathBuf);

impl KnownHosts {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What is on record of `host` (`name:port`), where `shown` is its certificate now. A line that
    /// cannot be read counts as another certificate: nothing is trusted for being illegible.
    pub(super) fn look_up(&self, host: &str, shown: Fingerprint) -> Result<Known> {
        let text = match File::open(&self.0) {
            Ok(file) => read(file).map_err(|err| self.failure(&err))?,
            Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
            Err(err) => return Err(self.failure(&err)),
        };
        self.find(&text, host, shown)
    }

    fn find(&self, text: &str, host: &str, shown: Fingerprint) -> Result<Known> {
        let mut other = Known::Nothing;
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace();
            if words.next() != Some(host) {
                continue;
            }
            let Some(Ok(print)) = words.next().map(str::parse::<Fingerprint>) else {
                return Err(Error::new(
                    ErrorKind::Untrusted,
                    format!(
                        "{}:{number}: no fingerprint; remove the line",
                        self.0.display()
                    ),
                ));
            };
            if print == shown {
                return Ok(Known::Same);
            }
            if other == Known::Nothing {
                other = Known::Other(print, number);
            }
        }
        Ok(other)
    }

    /// Puts `host` on record unless it is; then what is on record counts.
    pub(super) fn record(&self, host: &str, shown: Fingerprint) -> Result<Known> {
        let failed = |err: io::Error| self.failure(&err);
        if let Some(dir) = self.0.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.0)
            .map_err(failed)?;
        lock(&file).map_err(failed)?;
        let text = read(&file).map_err(failed)?;
        let known = self.find(&text, host, shown)?;
        if known == Known::Nothing {
            let begin = if text.is_empty() || text.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            file.write_all(format!("{begin}{host} {shown}\n").as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
        }
        Ok(known)
    }

    fn failure(&self, err: &io::Error) -> Error {
        Error::new(ErrorKind::Untrusted, format!("{}: {err}", self.0.display()))
    }
}

fn read(file: impl Read) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
}

fn lock(file: &File) -> io::Result<()> {
    let deadline = Deadline::after(LOCK_LIMIT);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {
                deadline.left()?;
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::Error(err)) => return Err(err),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_recorded_once_and_a_change_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let hosts = KnownHosts::new(temp.path().join("a/b/known_hosts"));
        let (one, two) = (Fingerprint::of(b"1"), Fingerprint::of(b"2"));
        assert_eq!(hosts.look_up("h:21", one).unwrap(), Known::Nothing);
        assert_eq!(hosts.record("h:21", one).unwrap(), Known::Nothing);
        assert_eq!(hosts.record("h:21", one).unwrap(), Known::Same);
        assert_eq!(hosts.record("h:21", two).unwrap(), Known::Other(one, 1));
        assert_eq!(hosts.look_up("h:990", two).unwrap(), Known::Nothing);
        let text = fs::read_to_string(hosts.path()).unwrap();
        assert_eq!(text, format!("h:21 {one}\n"));
    }

    #[test]
    fn people_may_edit_the_file_but_nothing_is_trusted_for_being_illegible() {
        let temp = tempfile::tempdir().unwrap();
        let hosts = KnownHosts::new(temp.path().join("known_hosts"));
        let (one, two) = (Fingerprint::of(b"1"), Fingerprint::of(b"2"));
        fs::write(hosts.path(), format!("# mine\n\nh:21 {one}\nh:21 {two}")).unwrap();
        assert_eq!(hosts.look_up("h:21", two).unwrap(), Known::Same);
        assert_eq!(hosts.record("g:21", two).unwrap(), Known::Nothing);
        assert!(
            fs::read_to_string(hosts.path())
                .unwrap()
                .ends_with(&format!("{two}\ng:21 {two}\n"))
        );
        fs::write(hosts.path(), "h:21 nonsense\n").unwrap();
        let error = hosts.look_up("h:21", one).unwrap_err();
        assert!(
            error.detail().contains("known_hosts:1: no fingerprint"),
            "{error}"
        );
    }
}
