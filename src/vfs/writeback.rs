//! Uploads behind their writers: with `-o writeback`, and after a mount that was killed.
//!
//! Acknowledged content is in the journal and its file stays open, as if its upload were one more
//! user of it. So everything that holds for a file being written holds for one that waits: what is
//! read is what was written, listings and attributes show it, an `unlink` takes it along, and a
//! rename moves it. The server learns of names in the order in which they were changed here:
//! directories are made and names removed at once, and nothing is renamed on the server before
//! its content is there.
//!
//! Files are uploaded side by side in the order in which they were acknowledged, a moment after
//! that. One that somebody has begun to write anew meanwhile waits for its next close: neither half
//! of a content is to be seen, nor the record of the last whole one to go for it. They leave two
//! connections alone when they are large, and half of them when somebody waits. While the server
//! cannot be reached, one file tries, after one second, then two, then four, up to five minutes. A
//! full disk there is waited for in the same way; a refusal that is about the file (no permission, no
//! such directory) is final at the sixth: then the content goes to `lost+found`, and the next
//! operation on the file fails once with what the server said.

mod queue;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use self::queue::{After, Next, Queue, SETTLE, Verdict};
use super::attr::FileKind;
use super::backend::OpenFile;
use super::error::{Error, ErrorKind, Result};
use super::inodes::ROOT;
use super::journal::Saved;
use super::open_files::Fate;
use super::path::{Name, RemotePath};
use super::{Ino, Vfs};
use crate::sync::Locked;
pub use queue::Progress;

/// How long an idle worker stays.
const IDLE: Duration = Duration::from_secs(10);

/// Lanes of [`Vfs::commit_many`].
const LANES: usize = 8;

/// How contents are uploaded behind their writers.
#[derive(Clone)]
pub struct Policy {
    /// Whether a `close` is acknowledged before the upload.
    pub enabled: bool,
    /// How long content is left alone before it is uploaded.
    pub settle: Duration,
    /// Uploads side by side.
    pub uploads: usize,
    /// Files that may wait; beyond that, `close` waits for the server.
    pub most_files: usize,
    /// Bytes that may wait.
    pub most_bytes: u64,
    /// Whether somebody waits for a connection.
    pub is_crowded: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Policy {
    /// What serves most: a moment in which content is renamed, written again or removed.
    pub const SETTLE: Duration = SETTLE;
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("enabled", &self.enabled)
            .field("uploads", &self.uploads)
            .finish_non_exhaustive()
    }
}

/// The line of a mount, and its workers.
#[derive(Debug)]
pub(super) struct Writeback {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vfs: Weak<Vfs>,
    policy: Policy,
    /// A leaf.
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Writeback {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue()
    }

    /// Whether one more file may wait.
    fn has_room(&self, ino: Ino, bytes: u64) -> bool {
        let policy = &self.shared.policy;
        let queue = self.queue();
        let room = queue.has(ino) || queue.len() < policy.most_files;
        room && queue.bytes().saturating_add(bytes) <= policy.most_bytes
    }

    /// `ino` was stored, or removed: its worker has nothing left but to let go.
    pub(super) fn hasten(&self, ino: Ino) {
        if self.queue().hasten(ino, Instant::now()) {
            self.shared.changed.notify_one();
        }
    }

    fn add(&self, ino: Ino, bytes: u64) -> bool {
        let new = self.queue().add(ino, bytes, Instant::now());
        self.shared.changed.notify_one();
        self.shared.start_workers();
        new
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.queue().ended = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As many as there is work for.
    fn start_workers(self: &Arc<Self>) {
        while self.queue().wants_worker(self.policy.uploads) {
            let shared = Arc::clone(self);
            let worker = thread::Builder::new().name("upload".into());
            if let Err(err) = worker.spawn(move || shared.work()) {
                log::warn!("no thread to upload on: {err}");
                self.queue().threads -= 1;
                return;
            }
        }
    }

    fn work(self: &Arc<Self>) {
        while let Some(ino) = self.next() {
            // One more, should this one take long.
            self.start_workers();
            let Some(vfs) = self.vfs.upgrade() else { break };
            let began = Instant::now();
            vfs.upload(ino);
            drop(vfs);
            self.queue().took(began.elapsed());
            self.start_workers();
            // Room for another, or the end of an outage.
            self.changed.notify_all();
        }
    }

    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn next(&self) -> Option<Ino> {
        let mut queue = self.queue();
        loop {
            if queue.ended {
                queue.threads -= 1;
                return None;
            }
            let most = match (self.policy.is_crowded)() {
                true => self.policy.uploads.div_ceil(2),
                false => self.policy.uploads,
            };
            let wait = match queue.next(most, Instant::now()) {
                Next::Take(ino) => return Some(ino),
                Next::Wait(wait) => wait,
            };
            // One that waits for room looks again by itself, since a crowd goes unannounced.
            let time = match wait {
                Some(time) => time.min(IDLE),
                None if queue.len() > 0 => Duration::from_millis(250),
                None => IDLE,
            };
            let waited = self.changed.wait_timeout(queue, time);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            if timeout.timed_out() && queue.len() == 0 {
                queue.threads -= 1;
                return None;
            }
        }
    }
}

impl Vfs {
    /// Uploads behind the writers as `policy` says from now on.
    pub fn start_writeback(self: &Arc<Self>, policy: Policy) {
        self.writeback.get_or_init(|| {
            let queue = Queue::new(policy.settle);
            Writeback {
                shared: Arc::new(Shared {
                    vfs: Arc::downgrade(self),
                    policy,
                    queue: Mutex::new(queue),
                    changed: Condvar::new(),
                }),
            }
        });
    }

    /// How the uploads behind the writers are doing.
    pub fn writeback_progress(&self) -> Option<Progress> {
        let writeback = self.writeback.get()?;
        Some(writeback.queue().progress(Instant::now()))
    }

    /// Goes on with what an earlier mount acknowledged and had not brought to the server. The
    /// server is not asked: what is wrong shows when it is uploaded.
    ///
    /// # Errors
    /// Those of the local disk; the content stays in the journal.
    pub fn restore(&self, saved: Saved) -> Result<()> {
        let path = saved.path().clone();
        let Some((ino, name)) = self.bind_path(&path) else {
            return Err(Error::new(ErrorKind::Invalid, format!("{path}: no file")));
        };
        let restored = self.backend.restore(saved).map(|file| {
            let bytes = file.attr().size.unwrap_or_default();
            drop(self.hold(ino));
            self.open_files.opened(ino, &file);
            self.inodes.with(|inodes| inodes.set_version(ino, None));
            self.enlist(ino, bytes);
            self.leave_quietly(ino);
        });
        self.inodes.with(|inodes| inodes.unpin(ino));
        restored.map_err(|err| err.context(name))
    }

    /// The inode of `path`, pinned, whatever the server has there.
    fn bind_path(&self, path: &RemotePath) -> Option<(Ino, String)> {
        let (dir, name) = path.split()?;
        self.inodes.with(|inodes| {
            let mut at = ROOT;
            let mut pinned = Vec::new();
            for part in dir.components() {
                let part = Name::new(part).ok()?;
                at = inodes.bind_pinned(at, &part, FileKind::Directory)?;
                pinned.push(at);
            }
            let ino = inodes.bind_pinned(at, &name, FileKind::File);
            pinned.into_iter().for_each(|dir| inodes.unpin(dir));
            Some((ino?, path.to_string()))
        })
    }

    /// A descriptor is closed: brings the content to the server, or acknowledges it and has it
    /// brought there.
    pub(super) fn store(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
        if file.is_dirty() && self.acknowledge(ino, file) {
            return Ok(());
        }
        self.commit(ino, file)
    }

    /// Whether the content survives from now on, and is in line.
    pub(super) fn acknowledge(&self, ino: Ino, file: &dyn OpenFile) -> bool {
        let Some(writeback) = self.writeback.get() else {
            return false;
        };
        let bytes = file.attr().size.unwrap_or_default();
        if !writeback.shared.policy.enabled || !writeback.has_room(ino, bytes) {
            return false;
        }
        let acknowledged = self.acknowledge_named(ino, file);
        if acknowledged {
            self.enlist(ino, bytes);
        }
        acknowledged
    }

    fn acknowledge_named(&self, ino: Ino, file: &dyn OpenFile) -> bool {
        let Some(gates) = self.open_files.gates(ino) else {
            return false;
        };
        let _named = gates.naming.read().unwrap_or_else(PoisonError::into_inner);
        let fate = self.open_files.get(ino).map(|(_, fate)| fate);
        let at = match (fate, self.path(ino)) {
            (Some(Fate::Named), Ok(at)) => at,
            _ => return false,
        };
        match file.acknowledge(&at) {
            Ok(()) => {
                self.note_version(ino, file, &Ok(()));
                true
            }
            Err(err) => {
                log::debug!("{at}: not in the journal, so it is uploaded at once: {err}");
                false
            }
        }
    }

    /// Puts `ino`, which somebody has open, in line; being there it has one user more.
    pub(super) fn enlist(&self, ino: Ino, bytes: u64) {
        let Some(writeback) = self.writeback.get() else {
            return;
        };
        // Before it is in line: a worker may be done with it at once.
        drop(self.hold(ino));
        if !writeback.add(ino, bytes) {
            self.leave_quietly(ino);
        }
    }

    /// What the server said against the file at `path`, if that is news.
    pub(super) fn failure_of(&self, path: &RemotePath) -> Result<()> {
        let failed = self.writeback.get().and_then(|writeback| {
            let mut queue = writeback.queue();
            if !queue.has_failures() {
                return None;
            }
            queue.take_failure(path)
        });
        failed.map_or(Ok(()), Err)
    }

    /// The same for an open file.
    pub(super) fn failure_of_ino(&self, ino: Ino) -> Result<()> {
        let writeback = self.writeback.get();
        match writeback.is_some_and(|writeback| writeback.queue().has_failures()) {
            true => self.path(ino).map_or(Ok(()), |path| self.failure_of(&path)),
            false => Ok(()),
        }
    }

    /// Why the last upload of `ino` failed.
    pub(super) fn delay_of(&self, ino: Ino) -> Option<String> {
        let queue = self.writeback.get()?.queue();
        queue.error_of(ino).map(ToString::to_string)
    }

    /// One attempt, on a worker.
    fn upload(&self, ino: Ino) {
        let Some(writeback) = self.writeback.get() else {
            return;
        };
        let file = self.open_files.get(ino).map(|(file, _)| file);
        let path = self.path(ino);
        let outcome = match &file {
            Some(file) => self.bring_acknowledged(ino, &**file),
            None => Ok(()),
        };
        if outcome.is_ok() && file.is_some_and(|file| file.awaits_writer()) {
            writeback.queue().put_off(ino, Instant::now());
            return;
        }
        let failed = outcome.err().map(|err| (err.clone(), self.verdict(&err)));
        if let (Some((err, _)), Ok(path)) = (&failed, &path) {
            log::warn!("{path}: not on the server yet: {err}");
        }
        let error = failed.as_ref().map(|(err, _)| err.clone());
        let after = writeback.queue().ended(ino, failed, Instant::now());
        if let (After::Refused, Some(err), Ok(path)) = (&after, error, path) {
            log::error!("{path}: given up: {err}");
            let told = match err.kind() {
                // An open that fails with ESTALE is tried again by the kernel, and nobody hears of it.
                ErrorKind::Stale => Error::new(ErrorKind::Protocol, err.detail()),
                _ => err,
            };
            writeback.queue().note_failure(path, told);
        }
        if after != After::Stays {
            // The last user of what was refused puts it into lost+found.
            self.leave_quietly(ino);
        }
    }

    /// What somebody is in the middle of writing, over what was acknowledged, is nobody's business
    /// yet. What nobody has open any more will not get any further.
    fn bring_acknowledged(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
        self.commit_acknowledged(ino, file)?;
        match file.awaits_writer() && self.open_files.is_alone(ino) {
            true => self.commit(ino, file),
            false => Ok(()),
        }
    }

    /// A login that is refused looks like a file that is: the server is asked for something that
    /// is surely there.
    fn verdict(&self, err: &Error) -> Verdict {
        match Verdict::of(err) {
            Verdict::Refused if err.kind() == ErrorKind::PermissionDenied => {
                // No cache answers this.
                match self.backend.xattrs(&RemotePath::root()) {
                    Ok(_) => Verdict::Refused,
                    Err(_) => Verdict::Unreachable,
                }
            }
            verdict => verdict,
        }
    }

    /// Brings several files to the server, side by side. `commit` is asked for each; after one that
    /// could not reach the server, the others are told the same.
    pub(super) fn commit_many(
        &self,
        files: Vec<Ino>,
        commit: impl Fn(Ino) -> Result<()> + Sync,
    ) -> Vec<(Ino, Error)> {
        let lanes = LANES.min(files.len());
        let files = Locked::new(files.into_iter());
        let failed = Locked::new(Vec::new());
        let down: Locked<Option<Error>> = Locked::new(None);
        let lane = || {
            while let Some(ino) = files.with(Iterator::next) {
                let known = down.with(|down| down.clone());
                if let Err(err) = known.map_or_else(|| commit(ino), Err) {
                    if Verdict::of(&err) == Verdict::Unreachable {
                        down.with(|down| *down = Some(err.clone()));
                    }
                    failed.with(|failed| failed.push((ino, err)));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..lanes {
                // Without threads it takes longer.
                let beside = thread::Builder::new().name("commit".into());
                drop(beside.spawn_scoped(scope, lane));
            }
            lane();
        });
        failed.with(std::mem::take)
    }
}
