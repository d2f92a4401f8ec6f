//! Small files fetched before they are opened, each whole in one go, into the block cache.
//!
//! A few threads, started when there is something to fetch, take files from a queue, each on a
//! connection that nobody needs at the moment; when there is none they leave. Who opens a file that
//! is being fetched waits for it, but not for long; one that still waits in the queue he fetches
//! himself.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::{Contents, lock};
use crate::vfs::attr::Attr;
use crate::vfs::backend::{Need, Transfers};
use crate::vfs::checksum::Algorithm;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Files fetched at the same time at most.
const SIDE_BY_SIDE: usize = 7;

/// Files that wait at most; who foresees more foresees too much.
const QUEUE: usize = 256;

/// How long a thread without work stays: long enough for the next file of a copy.
const IDLE: Duration = Duration::from_millis(300);

/// The longest that a reader waits for somebody else's fetch.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub(super) struct Fetch {
    /// A leaf.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Wanted>,
    under_way: HashSet<RemotePath>,
    threads: usize,
    idle: usize,
}

struct Wanted {
    path: RemotePath,
    attr: Attr,
    transfers: Arc<dyn Transfers>,
}

impl Contents {
    /// Files that will probably be opened soon, the first first, as their listing has them.
    pub fn fetch_ahead(
        self: &Arc<Self>,
        transfers: &Arc<dyn Transfers>,
        files: &[(RemotePath, Attr)],
    ) {
        let mut wanted: Vec<Wanted> = files
            .iter()
            .filter(|(path, attr)| !self.blocks.is_complete(path, attr))
            .map(|(path, attr)| Wanted {
                path: path.clone(),
                attr: attr.clone(),
                transfers: Arc::clone(transfers),
            })
            .collect();
        let more = {
            let mut state = lock(&self.fetch.state);
            wanted.retain(|file| {
                !state.under_way.contains(&file.path)
                    && !state.queue.iter().any(|other| other.path == file.path)
            });
            state.queue.extend(wanted);
            while state.queue.len() > QUEUE {
                state.queue.pop_front();
            }
            let useful = state.queue.len().saturating_sub(state.idle);
            let more = useful.min(SIDE_BY_SIDE.saturating_sub(state.threads));
            state.threads += more;
            more
        };
        self.fetch.changed.notify_all();
        for _ in 0..more {
            let contents = Arc::downgrade(self);
            let started = std::thread::Builder::new()
                .name("fetch-ahead".into())
                .spawn(move || fetch_until_idle(&contents));
            if started.is_err() {
                lock(&self.fetch.state).threads -= 1;
            }
        }
    }

    /// Somebody wants `path` now: it is not fetched ahead any more, or, if that is under way, the
    /// end of it is waited for. Whether it was.
    pub(super) fn await_fetch(&self, path: &RemotePath) -> bool {
        let mut state = lock(&self.fetch.state);
        state.queue.retain(|file| file.path != *path);
        if !state.under_way.contains(path) {
            return false;
        }
        let going_on = |state: &mut State| state.under_way.contains(path);
        drop(
            self.fetch
                .changed
                .wait_timeout_while(state, PATIENCE, going_on),
        );
        true
    }

    /// Files that are being fetched ahead, or wait for it.
    #[must_use]
    pub fn fetches(&self) -> usize {
        let state = lock(&self.fetch.state);
        state.queue.len() + state.under_way.len()
    }

    fn fetch(&self, file: &Wanted) -> Result<()> {
        if self.turns.others_wait() {
            return Err(ErrorKind::Busy.into());
        }
        let size = file.attr.size.and_then(|size| usize::try_from(size).ok());
        let Some((size, slot)) = size.zip(self.blocks.version(&file.path, &file.attr)) else {
            return Ok(());
        };
        let mut download = file.transfers.retrieve(&file.path, 0, Need::Ahead)?;
        let mut content = vec![0; size];
        let mut filled = 0;
        while let Some(rest) = content.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match download.read(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        if filled < size || download.read(&mut [0])? > 0 {
            let detail = format!("{}: not the size that was listed", file.path);
            return Err(Error::new(ErrorKind::Stale, detail));
        }
        download.conclude()?;
        if let Some(mut sum) = file.transfers.checks_by().map(Algorithm::begin) {
            sum.add(&content);
            file.transfers.compare(&file.path, &sum.end())?;
        }
        slot.put_whole(content);
        Ok(())
    }
}

fn fetch_until_idle(contents: &Weak<Contents>) {
    let mut failed = false;
    while let Some(contents) = contents.upgrade() {
        let Some(file) = contents.fetch.next(failed) else {
            return;
        };
        let fetched = contents.fetch(&file);
        let path = file.path.clone();
        failed = false;
        let mut state = lock(&contents.fetch.state);
        state.under_way.remove(&path);
        if let Err(err) = fetched {
            log::debug!("{path}: fetching ahead: {err}");
            failed = err.kind() == ErrorKind::Busy;
            if failed {
                state.queue.push_front(file);
            }
        }
        drop(state);
        contents.fetch.changed.notify_all();
    }
}

impl Fetch {
    /// The next file; `None` if there was nothing to do for a while, or there is no connection.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn next(&self, leave: bool) -> Option<Wanted> {
        let mut state = lock(&self.state);
        if !leave {
            if state.queue.is_empty() {
                state.idle += 1;
                let waited = self
                    .changed
                    .wait_timeout_while(state, IDLE, |state| state.queue.is_empty());
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.idle -= 1;
            }
            if let Some(file) = state.queue.pop_front() {
                state.under_way.insert(file.path.clone());
                return Some(file);
            }
        }
        state.threads -= 1;
        None
    }
}
