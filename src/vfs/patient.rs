//! `-o hard`: what fails because the server is away is done again when it is back.
//!
//! A decorator between the server and the cache. It waits for as long as somebody wants the outcome
//! ([`caller`]): a process that is told to stop is answered at once, and what is done behind, for
//! nobody, is not waited for. While the server is away one of those who wait asks for it, every
//! second or two; the others wait for what he finds.
//!
//! Where the server answers and one thing breaks all the same, again and again, that is no outage:
//! after [`IN_VAIN`] times its error is told.

mod file;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::file::PatientFile;
use super::attr::{Attr, DirEntry, FileKind, SetAttr, Space};
use super::backend::{Backend, Listener, OpenFile, OpenHow, Replaces, Together};
use super::error::{Error, ErrorKind, Result};
use super::journal::Saved;
use super::path::RemotePath;
use crate::caller;

/// Failures of one operation on a server that answers, before it is given up.
const IN_VAIN: u32 = 10;

/// Between two questions whether the server is back.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How soon who waits sees that nobody wants the outcome any more.
const LOOK: Duration = Duration::from_millis(100);

/// How often the log is told that it still lasts.
const REMIND: Duration = Duration::from_secs(300);

/// Whether the server is away, and who asks for it.
pub struct Outage {
    /// What the log calls the server.
    server: String,
    probe: Arc<dyn Backend>,
    ended: AtomicBool,
    /// A leaf.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    asking: bool,
    ask_at: Option<Instant>,
    pause: Duration,
    reminded: Option<Instant>,
}

impl std::fmt::Debug for Outage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outage({}, {:?})", self.server, self.lasts())
    }
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// It was away, and is back.
    Back,
    /// It answers, and was not away.
    NotAway,
    /// Nobody wants the outcome, or the mount ends.
    GivenUp,
}

impl Outage {
    /// How long the server has been away, if it is.
    pub fn lasts(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// From now on nobody waits: the mount is at its end.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        !self.ended.load(Ordering::Relaxed) && caller::waits()
    }

    /// Does `work`, which may be done twice, until the server has answered.
    fn patiently<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut in_vain = 0;
        loop {
            let err = match work() {
                Err(err) if is_outage(err.kind()) => err,
                done => return done,
            };
            match self.wait(&err) {
                Waited::Back => in_vain = 0,
                Waited::NotAway if in_vain < IN_VAIN => {
                    in_vain += 1;
                    std::thread::sleep(LOOK * in_vain);
                }
                Waited::GivenUp if !caller::waits() => {
                    return Err(Error::new(ErrorKind::Interrupted, err.detail()));
                }
                Waited::NotAway | Waited::GivenUp => return Err(err),
            }
        }
    }

    /// Waits until the server answers.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn wait(&self, why: &Error) -> Waited {
        let mut away = false;
        while self.is_wanted() {
            let mut state = self.lock();
            let due = state.ask_at.is_none_or(|at| at <= Instant::now());
            if state.asking || !due {
                away |= state.since.is_some();
                let waited = self.changed.wait_timeout(state, LOOK);
                let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                if away && state.since.is_none() {
                    return Waited::Back;
                }
                continue;
            }
            state.asking = true;
            drop(state);
            let answered = self.ask(why);
            match (answered, away) {
                (true, true) => return Waited::Back,
                (true, false) => return Waited::NotAway,
                (false, _) => away = true,
            }
        }
        Waited::GivenUp
    }

    /// Asks whether the server is there.
    fn ask(&self, why: &Error) -> bool {
        let asking = Asking(self);
        let answer = self.probe.stat(&RemotePath::root());
        let gone = matches!(&answer, Err(err) if is_outage(err.kind()));
        let mut state = self.lock();
        let now = Instant::now();
        if gone {
            let first = state.since.is_none();
            let since = *state.since.get_or_insert(now);
            state.pause = match first {
                true => FIRST_PAUSE,
                false => (state.pause * 2).min(LONGEST_PAUSE),
            };
            state.ask_at = Some(now + state.pause);
            let silent = state.reminded.is_none_or(|told| told.elapsed() >= REMIND);
            if silent {
                state.reminded = Some(now);
            }
            drop(state);
            if first {
                log::warn!("{}: does not answer, waiting for it: {why}", self.server);
            } else if silent {
                let seconds = since.elapsed().as_secs();
                log::warn!("{}: has not answered for {seconds} s", self.server);
            }
        } else {
            let since = state.since.take();
            state.ask_at = None;
            state.reminded = None;
            drop(state);
            if let Some(since) = since {
                let seconds = since.elapsed().as_secs();
                log::warn!("{}: answers again, after {seconds} s", self.server);
            }
        }
        drop(asking);
        !gone
    }
}

/// Somebody asks; whatever becomes of him, another may then.
struct Asking<'a>(&'a Outage);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().asking = false;
        self.0.changed.notify_all();
    }
}

/// Whether an error says of the server that it is away, and nothing of what was asked.
const fn is_outage(kind: ErrorKind) -> bool {
    use ErrorKind::{Busy, Disconnected, TimedOut};
    matches!(kind, Busy | Disconnected | TimedOut)
}

/// See the module.
#[derive(Debug)]
pub struct Patient<B> {
    inner: Arc<B>,
    outage: Arc<Outage>,
}

impl<B: Backend + 'static> Patient<B> {
    /// Waits for `inner`, which the log calls `server`.
    pub fn new(inner: Arc<B>, server: impl Into<String>) -> Self {
        let outage = Outage {
            server: server.into(),
            probe: Arc::clone(&inner) as _,
            ended: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self {
            inner,
            outage: Arc::new(outage),
        }
    }

    /// The outage that may be.
    #[must_use]
    pub const fn outage(&self) -> &Arc<Outage> {
        &self.outage
    }

    /// Does what must not be done twice: if an earlier attempt, whose answer was lost, did it,
    /// `is_done` says so of the later one's error.
    fn once(
        &self,
        mut work: impl FnMut() -> Result<()>,
        is_done: impl Fn(ErrorKind) -> bool,
    ) -> Result<()> {
        let mut again = false;
        self.outage.patiently(|| {
            let done = work();
            match done {
                Err(err) if again && is_done(err.kind()) => Ok(()),
                done => {
                    again = true;
                    done
                }
            }
        })
    }

    fn file(&self, opened: Arc<dyn OpenFile>) -> Arc<dyn OpenFile> {
        Arc::new(PatientFile::new(opened, Arc::clone(&self.outage)))
    }

    fn is(&self, path: &RemotePath, kind: FileKind) -> bool {
        self.inner.stat(path).is_ok_and(|attr| attr.kind == kind)
    }
}

impl<B: Backend + 'static> Backend for Patient<B> {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        self.outage.patiently(|| self.inner.stat(path))
    }

    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        self.outage.patiently(|| self.inner.list(dir))
    }

    fn known(&self, path: &RemotePath) -> Option<(Result<Attr>, Duration)> {
        self.inner.known(path)
    }

    fn known_list(&self, dir: &RemotePath) -> Option<(Arc<[DirEntry]>, Duration)> {
        self.inner.known_list(dir)
    }

    fn relies_on_listings(&self) -> bool {
        self.inner.relies_on_listings()
    }

    fn lists_at_once(&self, dir: &RemotePath) -> bool {
        self.inner.lists_at_once(dir)
    }

    fn list_ahead(
        &self,
        dirs: &[RemotePath],
        each: &(dyn Fn(usize, Arc<[DirEntry]>) + Sync),
    ) -> bool {
        self.inner.list_ahead(dirs, each)
    }

    fn lists_together(&self, waiting: usize) -> Together {
        self.inner.lists_together(waiting)
    }

    fn fetch_ahead(&self, files: &[(RemotePath, Attr)]) {
        self.inner.fetch_ahead(files);
    }

    fn open(
        &self,
        path: &RemotePath,
        known: Option<&Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        let opened = self
            .outage
            .patiently(|| self.inner.open(path, known, how))?;
        Ok(self.file(opened))
    }

    fn restore(&self, saved: Saved) -> Result<Arc<dyn OpenFile>> {
        self.inner.restore(saved).map(|opened| self.file(opened))
    }

    fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()> {
        let made = |kind| kind == ErrorKind::Exists && self.is(path, FileKind::Directory);
        self.once(|| self.inner.mkdir(path, mode), made)
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        let gone = |kind| kind == ErrorKind::NotFound;
        self.once(|| self.inner.unlink(path), gone)
    }

    fn rmdir(&self, path: &RemotePath) -> Result<()> {
        let gone = |kind| kind == ErrorKind::NotFound;
        self.once(|| self.inner.rmdir(path), gone)
    }

    fn rename(&self, from: &RemotePath, to: &RemotePath, replaces: Replaces) -> Result<()> {
        let moved = |kind| kind == ErrorKind::NotFound && self.inner.stat(to).is_ok();
        self.once(|| self.inner.rename(from, to, replaces), moved)
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.outage.patiently(|| self.inner.set_attr(path, change))
    }

    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.outage.patiently(|| self.inner.read_link(path))
    }

    fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let made = |kind| kind == ErrorKind::Exists && self.is(path, FileKind::Symlink);
        self.once(|| self.inner.symlink(target, path), made)
    }

    fn space(&self) -> Result<Option<Space>> {
        self.outage.patiently(|| self.inner.space())
    }

    fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        self.outage.patiently(|| self.inner.xattrs(path))
    }

    fn xattr(&self, path: &RemotePath, name: &str) -> Result<Vec<u8>> {
        self.outage.patiently(|| self.inner.xattr(path, name))
    }

    fn link(&self, from: &RemotePath, to: &RemotePath) -> Result<()> {
        self.inner.link(from, to)
    }

    fn tell(&self, listener: Arc<dyn Listener>) {
        self.inner.tell(listener);
    }
}
