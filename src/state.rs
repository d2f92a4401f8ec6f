//! The directory in which a mount keeps what must survive it: made, locked, found again.
//!
//! ```text
//! $XDG_STATE_HOME/ferryfs/
//!   host-0123456789abcdef/   one mount: URL, user and mountpoint; a link with state_dir=
//!     lock                   held while its process lives
//!     mount.json             what and where it is, for those who only look
//!     control                the socket of crate::control
//!     intents                what is under way on the server, see crate::ftp::intents
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::{Config, default_state_dir};
use crate::exit::{Exit, Failure, words};
use crate::ftp::intents::{INTENTS, has_intents};
use crate::vfs::{SPARE, clear_spares};

const LOCK: &str = "lock";
const RECORD: &str = "mount.json";
const SOCKET: &str = "control";

/// The name of the directory of one mount: readable by its host, distinct by all of it.
pub(crate) fn id(host: &str, url_shown: &str, mountpoint: &Path) -> String {
    let mut text = url_shown.as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(mountpoint.as_os_str().as_bytes());
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '_'
        }
    };
    let readable: String = host.chars().take(40).map(plain).collect();
    format!("{readable}-{:016x}", fnv1a(&text))
}

/// Stable across versions, unlike the standard library's hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Where a mount's control socket is.
pub(crate) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET)
}

/// What is known of a mount without asking it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) url: String,
    pub(crate) mountpoint: PathBuf,
    pub(crate) pid: u32,
    /// Seconds since 1970.
    pub(crate) since: u64,
}

/// The state directory of a mount, ours until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    dir: PathBuf,
    cache_dir: PathBuf,
    /// The entry in the default state directory where `state_dir=` leads elsewhere.
    link: Option<PathBuf>,
    _lock: File,
}

/// Makes the directories of `config` and locks them.
///
/// # Errors
/// [`Exit::Locked`] if another process has them.
pub(crate) fn claim(config: &Config) -> Result<Claim, Failure> {
    let dir = config.state_dir.clone();
    let lock = lock_dir_of_living(&dir).map_err(|err| match err.kind() {
        io::ErrorKind::WouldBlock => {
            let pid = record(&dir).map(|record| format!(" by process {}", record.pid));
            let line = format!(
                "{}: {} is in use there already{}; ferryfs umount it first",
                config.mountpoint.display(),
                config.url_shown,
                pid.unwrap_or_default()
            );
            Failure::new(Exit::Locked, line)
        }
        _ => Failure::system(dir.display(), &err),
    })?;
    make_private(&config.cache_dir)
        .map_err(|err| Failure::system(config.cache_dir.display(), &err))?;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let record = Record {
        url: config.url_shown.clone(),
        mountpoint: config.mountpoint.clone(),
        pid: std::process::id(),
        since: since.as_secs(),
    };
    write_record(&dir, &record).map_err(|err| Failure::system(dir.display(), &err))?;
    Ok(Claim {
        link: announce(&dir),
        dir,
        cache_dir: config.cache_dir.clone(),
        _lock: lock,
    })
}

impl Drop for Claim {
    /// Leaves nothing behind but what someone will need: directories go only if they are empty.
    fn drop(&mut self) {
        for name in [SOCKET, RECORD, LOCK] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        if !has_intents(&self.dir) {
            let _ = fs::remove_file(self.dir.join(INTENTS));
        }
        // Some thread may still hold an open file, and with it those.
        clear_spares(&self.dir.join(SPARE));
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let emptied = fs::remove_dir(&self.dir).is_ok();
        let _ = fs::remove_dir(&self.cache_dir);
        if let Some(link) = self.link.as_ref().filter(|_| emptied) {
            let _ = fs::remove_file(link);
        }
    }
}

/// A mount that was found in the default state directory.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// Whether its process holds the lock.
    pub(crate) alive: bool,
}

impl Found {
    /// Whether its process has ended, or was killed and has not ended yet.
    pub(crate) fn is_dying(&self) -> bool {
        !self.alive || is_killed(self.record.pid)
    }

    /// Whether the process that was found alive still is.
    pub(crate) fn still_alive(&self) -> bool {
        is_locked(&self.dir)
            && record(&self.dir).is_some_and(|record| record.pid == self.record.pid)
    }

    /// Whether a dead mount left something on the server that the next one will put right.
    pub(crate) fn has_intents(&self) -> bool {
        has_intents(&self.dir)
    }

    /// Whether a dead mount left something that the next one will need: journal, staging files.
    pub(crate) fn has_leftovers(&self) -> bool {
        let known = [LOCK, RECORD, SOCKET, SPARE, INTENTS];
        let empty = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut inside| inside.next().is_none());
        fs::read_dir(&self.dir)
            .map(|entries| {
                let mut entries = entries.flatten();
                entries.any(|entry| {
                    let name = entry.file_name();
                    !known.iter().any(|known| name == *known) && !empty(&entry.path())
                })
            })
            .unwrap_or(true)
    }

    /// Removes what a dead mount without leftovers left.
    pub(crate) fn clean(self) {
        // Whoever takes the lock now is alive, and it is not ours to clean.
        let Ok(lock) = lock_dir(&self.dir) else {
            return;
        };
        let link = announced(&self.dir);
        clear_spares(&self.dir.join(SPARE));
        drop(Claim {
            cache_dir: self.dir.clone(),
            link,
            dir: self.dir,
            _lock: lock,
        });
    }
}

/// Whether nothing keeps the process `pid` from ending any more.
fn is_killed(pid: u32) -> bool {
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    status.lines().any(|line| match line.split_once(':') {
        Some(("State", state)) => state.trim_start().starts_with(['Z', 'X']),
        Some(("SigPnd" | "ShdPnd", set)) => {
            u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & SIGKILL != 0)
        }
        _ => false,
    })
}

/// As [`lock_dir`]; a process that was killed and has it is waited for.
fn lock_dir_of_living(dir: &Path) -> io::Result<File> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let locked = lock_dir(dir);
        let taken = |err: &io::Error| err.kind() == io::ErrorKind::WouldBlock;
        let dying = || record(dir).is_some_and(|record| is_killed(record.pid));
        if !locked.as_ref().is_err_and(taken) || !dying() || Instant::now() > deadline {
            return locked;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Every mount that was recorded, dead ones included.
pub(crate) fn all() -> Result<Vec<Found>, Failure> {
    let base = default_state_dir()?;
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => {
            let line = format!("{}: {}", base.display(), words(&err));
            return Err(Failure::new(Exit::Failed, line));
        }
    };
    let mut found: Vec<Found> = entries
        .flatten()
        .filter_map(|entry| {
            // A link leads to a state_dir= elsewhere.
            let dir = entry.path().canonicalize().ok()?;
            let record = record(&dir)?;
            Some(Found {
                alive: is_locked(&dir),
                dir,
                record,
            })
        })
        .collect();
    found.sort_by(|a, b| a.record.mountpoint.cmp(&b.record.mountpoint));
    Ok(found)
}

fn record(dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()
}

fn write_record(dir: &Path, record: &Record) -> io::Result<()> {
    let whole = dir.join(format!("{RECORD}.new"));
    fs::write(&whole, serde_json::to_vec(record)?)?;
    fs::rename(&whole, dir.join(RECORD))
}

/// A mount whose state lies elsewhere is entered in the default directory all the same, for
/// `status`, `umount` and `flush` look there. Best effort: the mount does not need it.
fn announce(dir: &Path) -> Option<PathBuf> {
    let link = announced(dir)?;
    make_private(link.parent()?).ok()?;
    let _ = fs::remove_file(&link);
    match symlink(dir, &link) {
        Ok(()) => Some(link),
        Err(err) => {
            log::info!(
                "{}: {err}; ferryfs status will not see this mount",
                link.display()
            );
            None
        }
    }
}

fn announced(dir: &Path) -> Option<PathBuf> {
    let link = default_state_dir().ok()?.join(dir.file_name()?);
    let elsewhere = link != dir;
    elsewhere.then_some(link)
}

fn is_locked(dir: &Path) -> bool {
    File::open(dir.join(LOCK)).is_ok_and(|lock| {
        let taken = lock.try_lock_shared();
        matches!(taken, Err(TryLockError::WouldBlock))
    })
}

/// Makes `dir` and takes its lock.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if it is taken.
fn lock_dir(dir: &Path) -> io::Result<File> {
    let path = dir.join(LOCK);
    // Between opening and locking, the last owner may have removed the file: then it locks nothing
    // that others see.
    for _ in 0..8 {
        make_private(dir)?;
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = match opened {
            Ok(lock) => lock,
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(err) => return Err(err),
        };
        match lock.try_lock() {
            Ok(()) => {}
            // `is_locked` of a status under way holds it for a moment.
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Err(TryLockError::Error(err)) => return Err(err),
        }
        let ours = lock.metadata()?;
        if fs::metadata(&path)
            .is_ok_and(|seen| (seen.dev(), seen.ino()) == (ours.dev(), ours.ino()))
        {
            return Ok(lock);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Makes `dir` and its parents, for us alone.
fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_readable_and_distinct() {
        let a = id(
            "ftp.example.org",
            "ftp://ftp.example.org/",
            Path::new("/mnt/a"),
        );
        // Changing this orphans the state of every mount there is.
        assert_eq!(a, "ftp.example.org-361a688c891bd6c2");
        assert_ne!(
            a,
            id(
                "ftp.example.org",
                "ftp://ftp.example.org/",
                Path::new("/mnt/b")
            )
        );
        assert_ne!(
            a,
            id(
                "ftp.example.org",
                "ftp://x@ftp.example.org/",
                Path::new("/mnt/a")
            )
        );
        assert!(id("fe80::1%../x", "u", Path::new("/")).starts_with("fe80__1_.._x-"));
    }

    #[test]
    fn a_directory_is_locked_once_and_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        let first = lock_dir(&dir).unwrap();
        assert_eq!(
            lock_dir(&dir).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(is_locked(&dir));
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        drop(first);
        assert!(!is_locked(&dir));
        lock_dir(&dir).unwrap();
    }
}
