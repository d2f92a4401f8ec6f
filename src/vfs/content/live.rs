//! An upload that runs while the file is still being written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::drop_behind::DropBehind;
use super::lock;
use crate::vfs::backend::Upload;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::staging::{NextBytes, Source};

/// The least worth sending before the commit: a small file goes in one piece then.
const PIECE: u64 = 256 << 10;

/// The most sent in one call, so that a commit or an end need not wait long.
const MOST: u64 = 1 << 20;

/// What the writer has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    Go,
    /// Start a thread on [`Live::pump`].
    StartPump,
    /// Give the upload up: it ended, or sent what has now changed.
    GiveUp,
}

/// Opens an upload; may wait for the network.
pub(crate) type Begin = Box<dyn FnOnce() -> Result<Box<dyn Upload>> + Send>;

#[derive(Default)]
struct Line {
    /// What the pump does first, where the upload was not opened with the file.
    begin: Option<Begin>,
    upload: Option<Box<dyn Upload>>,
    sent: u64,
}

#[derive(Default)]
struct Progress {
    /// Length of the prefix that was written in sequence.
    settled: u64,
    /// How much of it is sent, or being sent.
    claimed: u64,
    pumping: bool,
    /// No more sending by the pump.
    ended: bool,
    /// Whoever holds the upload drops it.
    given_up: bool,
    /// What the server said against this file for good.
    refusal: Option<Error>,
}

impl Progress {
    /// Whether there is too little for the pump.
    const fn is_starved(&self) -> bool {
        !self.ended && self.settled - self.claimed < PIECE
    }

    fn claim(&mut self, sent: u64) -> Option<u64> {
        let to = self.settled.min(sent + MOST);
        if self.ended || to <= sent {
            return None;
        }
        self.claimed = to;
        Some(to)
    }
}

/// See the module. Bytes are sent in order behind the writer; what was sent cannot be taken back,
/// so a change of it gives the upload up, and the commit sends the staged file as a whole.
pub(crate) struct Live {
    /// Held across the network, by the pump or by the commit.
    line: Mutex<Line>,
    /// A leaf.
    progress: Mutex<Progress>,
    ready: Condvar,
    /// Milliseconds on the clock of the mount.
    used: AtomicU64,
}

impl Live {
    pub(crate) fn new(upload: Box<dyn Upload>, now: u64) -> Self {
        let upload = Some(upload);
        let line = Line {
            upload,
            ..Line::default()
        };
        Self::of(line, Progress::default(), now)
    }

    /// One that [`pump`](Self::pump), which the caller starts, begins: `settled` bytes are staged,
    /// all of them.
    pub(crate) fn late(begin: Begin, settled: u64, now: u64) -> Self {
        let line = Line {
            begin: Some(begin),
            ..Line::default()
        };
        let progress = Progress {
            settled,
            pumping: true,
            ..Progress::default()
        };
        Self::of(line, progress, now)
    }

    fn of(line: Line, progress: Progress, now: u64) -> Self {
        Self {
            line: Mutex::new(line),
            progress: Mutex::new(progress),
            ready: Condvar::new(),
            used: AtomicU64::new(now),
        }
    }

    /// When the writer last wrote, on the clock of the mount.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether it still sends behind the writer.
    pub(crate) fn is_running(&self) -> bool {
        !lock(&self.progress).ended
    }

    /// What the server said against this file, if it did.
    pub(crate) fn refusal(&self) -> Option<Error> {
        lock(&self.progress).refusal.clone()
    }

    /// `len` bytes were staged at `offset`. Called after they are in the file: whatever the pump
    /// claims later, it reads them.
    pub(crate) fn wrote(&self, offset: u64, len: u64, now: u64) -> Next {
        self.used.store(now, Ordering::Relaxed);
        let mut progress = lock(&self.progress);
        if progress.ended || offset < progress.claimed {
            return Next::GiveUp;
        }
        if offset <= progress.settled {
            progress.settled = progress.settled.max(offset + len);
        }
        if progress.settled - progress.claimed < PIECE {
            return Next::Go;
        }
        let start = !std::mem::replace(&mut progress.pumping, true);
        drop(progress);
        if start {
            return Next::StartPump;
        }
        self.ready.notify_one();
        Next::Go
    }

    /// The file was cut to `len`, or grew to it.
    pub(crate) fn resized(&self, len: u64) -> Next {
        let mut progress = lock(&self.progress);
        if progress.ended || len < progress.claimed {
            return Next::GiveUp;
        }
        progress.settled = progress.settled.min(len);
        Next::Go
    }

    /// Sends what is settled until the upload ends. The body of the pump's thread.
    pub(crate) fn pump(&self, source: &Source) {
        self.begin();
        let mut pages = DropBehind::new(Arc::clone(&source.file));
        while self.wait_for_piece() {
            let mut line = lock(&self.line);
            let Some((from, to)) = self.claim(line.sent) else {
                continue;
            };
            let Line { upload, sent, .. } = &mut *line;
            let Some(upload) = upload else { break };
            match send_some(&mut **upload, source, &mut pages, from, to) {
                Ok(to) => *sent = to,
                Err(err) => {
                    log::debug!("an upload behind its writer failed: {err}");
                    let lost = line.upload.take();
                    drop(line);
                    self.end(Some(err).filter(|err| !is_trouble(err)));
                    source.passing.unwatched();
                    drop(lost);
                    return;
                }
            }
        }
        if self.drop_if_given_up() {
            source.passing.unwatched();
        }
    }

    /// For the commit: sends the rest of `len` bytes and hands the upload out, for `publish`.
    /// `None` if it failed for reasons that are not the file's.
    ///
    /// # Errors
    /// The server's refusal.
    pub(crate) fn finish(&self, source: &Source, len: u64) -> Result<Option<Box<dyn Upload>>> {
        self.end(None);
        let mut line = lock(&self.line);
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let sent = line.sent;
        let Some(mut upload) = line.upload.take() else {
            return Ok(None);
        };
        drop(line);
        // Cut below what was sent after the commit began: nothing to publish any more.
        if len < sent {
            return Ok(None);
        }
        match send(&mut *upload, source, sent, len) {
            Ok(()) => Ok(Some(upload)),
            Err(err) if is_trouble(&err) => {
                log::debug!("an upload broke, its content is sent again: {err}");
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// Gives the upload up. Blocks for as long as dropping an upload takes, unless the pump is
    /// sending: then the pump drops it.
    pub(crate) fn give_up(&self) {
        lock(&self.progress).given_up = true;
        self.end(None);
        self.drop_if_given_up();
    }

    /// Whether it could be given up without waiting for the network, and how much was sent.
    pub(crate) fn idle(&self) -> Option<u64> {
        let line = self.line.try_lock().ok()?;
        line.upload.as_ref()?;
        let sent = line.sent;
        drop(line);
        lock(&self.progress).is_starved().then_some(sent)
    }

    fn begin(&self) {
        let mut line = lock(&self.line);
        let Some(begin) = line.begin.take() else {
            return;
        };
        match begin() {
            Ok(upload) => line.upload = Some(upload),
            Err(err) => {
                drop(line);
                log::debug!("no upload behind the writer: {err}");
                self.end(Some(err).filter(|err| !is_trouble(err)));
            }
        }
    }

    fn wait_for_piece(&self) -> bool {
        let starved = self
            .ready
            .wait_while(lock(&self.progress), |progress| progress.is_starved());
        !starved.unwrap_or_else(PoisonError::into_inner).ended
    }

    fn claim(&self, sent: u64) -> Option<(u64, u64)> {
        lock(&self.progress).claim(sent).map(|to| (sent, to))
    }

    fn end(&self, refusal: Option<Error>) {
        let mut progress = lock(&self.progress);
        progress.ended = true;
        progress.refusal = refusal.or(progress.refusal.take());
        drop(progress);
        self.ready.notify_all();
    }

    fn drop_if_given_up(&self) -> bool {
        if !lock(&self.progress).given_up {
            return false;
        }
        let given_up = self
            .line
            .try_lock()
            .ok()
            .and_then(|mut line| line.upload.take());
        drop(given_up);
        true
    }
}

/// Sends what is between two offsets of a staged file.
///
/// # Errors
/// As [`Upload::send_file`].
pub(crate) fn send(upload: &mut dyn Upload, source: &Source, from: u64, to: u64) -> Result<()> {
    let mut pages = DropBehind::new(Arc::clone(&source.file));
    let mut at = from;
    while at < to {
        at = send_some(upload, source, &mut pages, at, to.min(at + MOST))?;
    }
    Ok(())
}

/// Sends what is in one place, and says up to where.
fn send_some(
    upload: &mut dyn Upload,
    source: &Source,
    pages: &mut DropBehind,
    from: u64,
    to: u64,
) -> Result<u64> {
    let sent = match source.passing.next(from, to) {
        NextBytes::Memory(chunk) => {
            upload.write(chunk.as_slice())?;
            from + chunk.len() as u64
        }
        NextBytes::File(to) => {
            upload.send_file(&source.file, from, to - from)?;
            pages.sent(to);
            to
        }
    };
    source.passing.sent(sent);
    Ok(sent)
}

/// Whether an error says nothing about the file: another connection may do better.
pub(crate) fn is_trouble(err: &Error) -> bool {
    use ErrorKind::{Busy, Disconnected, Interrupted, Protocol, TimedOut};
    matches!(
        err.kind(),
        Busy | Disconnected | Interrupted | Protocol | TimedOut
    )
}
