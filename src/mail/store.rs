//! The local mailbox of one account, `<state_dir>/mail/<account>`: a Maildir that mail programs see
//! through the mount, and the ledger of what is on the server.
//!
//! A message becomes visible when its content is on disk, and is taken for fetched when its name is
//! on disk too. Power may fail anywhere: a message that is visible and unknown to the ledger is
//! recognised by its name and recorded instead of being fetched again.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use super::failure::{Class, Failure, Result};
use super::header::{self, Digest};
use super::ledger::{Done, Ledger, Record, State};
use super::step::{Step, Watch};
use crate::net::Deadline;
use crate::sync::Locked;

mod draft;
mod files;
mod name;

pub use draft::Draft;
use draft::Finished;
use name::Origin;
pub use name::without_flags;

/// Files synced at once. The filesystem makes one commit of them: eight at a time are ten times
/// faster than one by one, and unlike a sync of the whole filesystem they do not wait for what
/// others have written.
const LANES: usize = 8;

/// How long a lock that another has is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A message the store has complete, under a temporary name. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Letter {
    finished: Finished,
    name: String,
    /// What the ledger will say; `None` for a message written here.
    record: Option<Record>,
}

impl Letter {
    /// [`fingerprint`](super::header::fingerprint) of its header.
    #[must_use]
    pub const fn header(&self) -> &Digest {
        &self.finished.header
    }

    /// SHA-256 of it all.
    #[must_use]
    pub const fn sha256(&self) -> &Digest {
        &self.finished.sha256
    }

    /// Its identity on the server; `None` for a message written here.
    #[must_use]
    pub fn uidl(&self) -> Option<&[u8]> {
        self.record.as_ref().map(|record| &*record.uidl)
    }

    /// Its octets in the store.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.finished.size
    }
}

/// A message that is safe in `new`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Its file name in `new`.
    pub name: Box<str>,
    /// Its octets.
    pub size: u64,
}

/// Hears of messages that are safe in `new`.
type Announce = dyn Fn(&[Delivered]) + Send + Sync;

/// The store of one account. One process has it at a time.
pub struct Store {
    maildir: PathBuf,
    incoming: PathBuf,
    account: String,
    host: String,
    /// `new`, kept open: an error of writing back since is reported to it.
    new: File,
    ledger: Locked<Ledger>,
    drafts: AtomicU64,
    /// Who hears of what has become safe in `new`.
    announce: OnceLock<Box<Announce>>,
    /// Locked for as long as it lives.
    _lock: File,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("maildir", &self.maildir)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or makes the store of `account` (`user@host`) in `state_dir/mail`. Names of messages
    /// carry `host`.
    ///
    /// # Errors
    /// `Local`: another ferryfs has it, the disk, permissions, a ledger of another version.
    pub fn open(state_dir: &Path, account: &str, host: &str) -> Result<Self> {
        let root = directory(state_dir, account);
        let failed = |err: io::Error| Failure::local(root.display(), &err);
        let maildir = root.join("Maildir");
        let incoming = root.join("incoming");
        for dir in ["new", "cur", "tmp"].map(|d| maildir.join(d)) {
            make(&dir).map_err(failed)?;
        }
        make(&incoming).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join("lock"))
            .map_err(failed)?;
        hold(&lock).map_err(|_| {
            Failure::new(
                Class::Local,
                format!("{}: another ferryfs uses this mailbox", root.display()),
            )
        })?;
        for left in fs::read_dir(&incoming).map_err(failed)? {
            fs::remove_file(left.map_err(failed)?.path()).map_err(failed)?;
        }
        let ledger = Ledger::open(&root.join("ledger"))
            .map_err(|err| Failure::local(root.join("ledger").display(), &err))?;
        let new = File::open(maildir.join("new")).map_err(failed)?;
        // All the way down, or a message could be safe in a directory that is not.
        for dir in root.ancestors().take(3).chain([&*maildir]) {
            File::open(dir).and_then(|d| d.sync_all()).map_err(failed)?;
        }
        Ok(Self {
            maildir,
            incoming,
            account: account.to_owned(),
            host: host.to_owned(),
            new,
            ledger: Locked::new(ledger),
            drafts: AtomicU64::new(0),
            announce: OnceLock::new(),
            _lock: lock,
        })
    }

    /// The Maildir: `new`, `cur`, `tmp`. Whoever removes messages from it says so to
    /// [`removed`](Self::removed) first; renaming flags needs no word.
    #[must_use]
    pub fn maildir(&self) -> &Path {
        &self.maildir
    }

    /// Calls `hear`, with no lock held, whenever messages have become safe in `new`. Only the first
    /// call counts.
    pub fn announce_to(&self, hear: impl Fn(&[Delivered]) + Send + Sync + 'static) {
        let _ = self.announce.set(Box::new(hear));
    }

    /// Works on the ledger, whose file this may wait for.
    pub fn with_ledger<R>(&self, work: impl FnOnce(&mut Ledger) -> R) -> R {
        self.ledger.with(work)
    }

    /// Makes `records` durable in the ledger.
    ///
    /// # Errors
    /// `Local`.
    pub fn record(&self, records: &[Record]) -> Result<()> {
        self.ledger
            .with(|ledger| ledger.append(records))
            .map_err(|err| Failure::local("ledger", &err))
    }

    /// As [`record`](Self::record), of records that were made of what the ledger said a while ago:
    /// what the user did meanwhile stays done.
    ///
    /// # Errors
    /// `Local`.
    pub fn revise(&self, records: &[Record]) -> Result<()> {
        self.ledger
            .with(|ledger| ledger.revise(records))
            .map_err(|err| Failure::local("ledger", &err))
    }

    /// A new message to be written.
    ///
    /// # Errors
    /// `Local`.
    pub fn draft(&self) -> Result<Draft> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(number.to_string());
        Draft::create(path.clone()).map_err(|err| Failure::local(path.display(), &err))
    }

    /// Ends `draft`, the message `uidl`, of which the server says that it has `octets`. Without
    /// `uidl` its content is its identity.
    ///
    /// # Errors
    /// `Local`.
    pub fn finish(&self, draft: Draft, uidl: Option<&[u8]>, octets: u64) -> Result<Letter> {
        let now = SystemTime::now();
        let finished = draft
            .finish(now)
            .map_err(|err| Failure::local("incoming message", &err))?;
        let uidl = uidl.map_or_else(|| header::hex('S', &finished.sha256).into(), Box::from);
        let key = name::key(&self.account, Origin::Uidl(&uidl));
        let name = name::base(&key, &self.host, finished.arrival, finished.size);
        let seconds = unix(now);
        let record = Record {
            uidl,
            state: State::Fetched,
            gone: false,
            fetched: seconds,
            changed: seconds,
            size: finished.size,
            octets,
            sha256: finished.sha256,
            header: finished.header,
            name: name.as_str().into(),
        };
        Ok(Letter {
            finished,
            name,
            record: Some(record),
        })
    }

    /// Ends `draft`, a message written here (a failure report). `unique` makes its name.
    ///
    /// # Errors
    /// `Local`.
    pub fn finish_own(&self, draft: Draft, unique: &[u8]) -> Result<Letter> {
        let finished = draft
            .finish(SystemTime::now())
            .map_err(|err| Failure::local("message", &err))?;
        let key = name::key(&self.account, Origin::Local(unique));
        Ok(Letter {
            name: name::base(&key, &self.host, finished.arrival, finished.size),
            finished,
            record: None,
        })
    }

    /// Makes `letters` durable and visible, all at the price of one.
    ///
    /// # Errors
    /// `Local`, or the watcher's; some of the letters may be visible then, and are recognised by
    /// [`orphans`](Self::orphans).
    pub fn commit(&self, letters: Vec<Letter>, watch: &Watch<'_>) -> Result<Vec<Delivered>> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let new = self.maildir.join("new");
        let failed = |err: io::Error| Failure::local(new.display(), &err);
        sync(&letters).map_err(failed)?;
        watch(Step::Synced)?;
        if letters.iter().any(|letter| letter.record.is_some()) {
            self.with_ledger(Ledger::announce);
        }
        let mut delivered = Vec::with_capacity(letters.len());
        let mut records = Vec::with_capacity(letters.len());
        for mut letter in letters {
            letter
                .finished
                .file
                .rename(&new.join(&letter.name))
                .map_err(failed)?;
            watch(Step::Renamed)?;
            delivered.push(Delivered {
                name: letter.name.into(),
                size: letter.finished.size,
            });
            records.extend(letter.record);
        }
        self.new.sync_all().map_err(failed)?;
        watch(Step::DirectorySynced)?;
        self.ledger
            .with(|ledger| ledger.welcome(records))
            .map_err(|err| Failure::local("ledger", &err))?;
        if let Some(hear) = self.announce.get() {
            hear(&delivered);
        }
        watch(Step::Recorded(&delivered))?;
        Ok(delivered)
    }

    /// Notes durably that the user removes the message of this base name; called before its file is
    /// unlinked. With `on_server` it is to be deleted there too, else it stays there and is not
    /// fetched again. A name the ledger does not know needs no note.
    ///
    /// # Errors
    /// `Local`; the file is to be left then.
    pub fn removed(&self, base: &str, on_server: bool) -> Result<()> {
        let state = if on_server {
            State::DeleteWanted
        } else {
            State::Kept
        };
        self.note(base, Done::Removed(state, unix(SystemTime::now())))
    }

    /// Notes durably that a program gave a message another base name; called before the rename.
    ///
    /// # Errors
    /// `Local`.
    pub fn renamed(&self, base: &str, to: &str) -> Result<()> {
        self.note(base, Done::Renamed(to.into()))
    }

    fn note(&self, base: &str, done: Done) -> Result<()> {
        self.ledger
            .with(|ledger| ledger.note(base, done))
            .map_err(|err| Failure::local("ledger", &err))
    }
}

/// Locks, with some patience: a process just ended may leave the lock for a moment to a child that
/// it was starting.
fn hold(lock: &File) -> io::Result<()> {
    let patience = Deadline::after(LOCK_PATIENCE);
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(_) if patience.left().is_ok() => thread::sleep(LOCK_PATIENCE / 50),
            Err(err) => return Err(err.into()),
        }
    }
}

/// Has the contents of `letters` on disk.
fn sync(letters: &[Letter]) -> io::Result<()> {
    let sync_all = |lane: &[Letter]| {
        lane.iter()
            .try_for_each(|letter| File::open(letter.finished.file.path())?.sync_all())
    };
    let mut lanes = letters.chunks(letters.len().div_ceil(LANES).max(1));
    let first = lanes.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = lanes
            .map(|lane| scope.spawn(move || sync_all(lane)))
            .collect();
        let mut outcome = sync_all(first);
        for lane in others {
            let ended = lane
                .join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            outcome = outcome.and(ended);
        }
        outcome
    })
}

/// Makes `dir` and its parents, for nobody else to read.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The directory of `account` (`user@host`) in `state_dir`.
#[must_use]
pub fn directory(state_dir: &Path, account: &str) -> PathBuf {
    state_dir.join("mail").join(directory_name(account))
}

/// An account as one directory name.
fn directory_name(account: &str) -> String {
    let name = account.replace('%', "%25").replace('/', "%2F");
    match name.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => name,
    }
}
