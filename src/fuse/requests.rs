//! Handing requests, with their replies, to threads that may wait, unless that costs more than it
//! saves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuser::Errno;

use super::errno;
use super::in_place::{InPlace, OnEnd};
use super::watch::{Waiting, Watch};
use super::workers::{self, Workers};
use crate::caller;
use crate::traffic::TRAFFIC;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Most threads that wait for metadata.
const METADATA_THREADS: usize = 16;
/// Most threads that wait for file contents; each holds a buffer of up to 1 MiB while it does.
const CONTENT_THREADS: usize = 24;
/// Most threads that copy a file that is to be written to.
const WRITE_THREADS: usize = 4;

/// What a request is about, and so which threads it may occupy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Names and attributes: answered, or timed out, within the mount's time limit.
    Metadata,
    /// What a file's content may have to come to the server for, or from there: it takes as long as
    /// bytes flow; the sockets' own limits end a stall.
    Content,
    /// As `Content`, and several are under way for one reader.
    Read,
    /// Writes that take long: many may wait for one copy, and readers need not wait for them.
    Write,
    /// As `Content`, for nobody: the last close, after which nothing can be done any more.
    Release,
}

/// A reply that can be used up by an error.
pub(super) trait Reply: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! replies {
    ($($reply:ty),*) => { $(impl Reply for $reply {
        fn fail(self, errno: Errno) { self.error(errno); }
    })* };
}

replies!(
    fuser::ReplyEmpty,
    fuser::ReplyData,
    fuser::ReplyEntry,
    fuser::ReplyAttr,
    fuser::ReplyOpen,
    fuser::ReplyCreate,
    fuser::ReplyStatfs,
    fuser::ReplyWrite,
    fuser::ReplyXattr
);

/// The threads and their watchdog.
pub(super) struct Requests {
    metadata: Workers,
    content: Workers,
    write: Workers,
    in_place: InPlace,
    watch: Watch,
    limit: Option<Duration>,
}

impl Requests {
    /// `limit` is the longest a metadata request may take, if there is one; `on_end` is called when
    /// the session ends before its requests do.
    pub(super) fn new(limit: Option<Duration>, on_end: OnEnd) -> std::io::Result<Self> {
        Ok(Self {
            metadata: Workers::new("metadata", METADATA_THREADS),
            content: Workers::new("content", CONTENT_THREADS),
            write: Workers::new("write", WRITE_THREADS),
            in_place: InPlace::new(on_end),
            watch: Watch::start()?,
            limit,
        })
    }

    /// Runs `work` here, if it will be quick, or on a thread of its class, and gives its outcome to
    /// `answer`. If the caller has been answered meanwhile (it was interrupted, or the deadline
    /// passed), `undo` takes back what `work` did for the kernel: a lookup it counted, a handle it
    /// opened.
    pub(super) fn hand_over<R: Reply, T>(
        &self,
        what: Request,
        reply: R,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) {
        self.hand_over_with(what, reply, |_| work(), answer, undo);
    }

    /// The same, for `work` that asks the kernel something by way of the reply.
    pub(super) fn hand_over_with<R: Reply, T>(
        &self,
        what: Request,
        reply: R,
        work: impl FnOnce(&Slot<R>) -> Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) {
        TRAFFIC.operation(what.name);
        let slot = Arc::new(Slot(Mutex::new(Some(reply))));
        let (workers, limit) = match what.class {
            Class::Metadata => (&self.metadata, self.limit),
            Class::Content | Class::Read | Class::Release => (&self.content, None),
            Class::Write => (&self.write, None),
        };
        let waiting: Arc<dyn Waiting> = Arc::<Slot<R>>::clone(&slot);
        self.watch.add(Arc::downgrade(&waiting), what.caller, limit);
        drop(waiting);
        let work = {
            let asked = Arc::clone(&slot);
            let last = what.class == Class::Release;
            move |slot: &Slot<R>| {
                caller::on_behalf(move || !last && asked.is_answered(), || work(slot))
            }
        };
        let tell = move |slot: &Slot<R>, outcome| match (slot.take(), outcome) {
            (Some(reply), Ok(value)) => answer(reply, value),
            (Some(reply), Err(err)) => {
                report(what.name, what.ino, &err);
                reply.fail(errno::errno(err.kind()));
            }
            (None, Ok(value)) => undo(value),
            (None, Err(err)) => report(what.name, what.ino, &err),
        };
        // The rest may take as long as bytes flow, or as the server is away, and an event thread
        // with it.
        let by_turns = what.class == Class::Metadata && limit.is_some();
        let Some(turn) = by_turns.then(|| self.in_place.turn()).flatten() else {
            let in_place = self.in_place.clone();
            return workers.submit(move || {
                let began = Instant::now();
                let outcome = work(&slot);
                if by_turns {
                    in_place.took(began.elapsed());
                }
                tell(&slot, outcome);
            });
        };
        workers::run(move || {
            let outcome = work(&slot);
            // Who is answered asks the next at once.
            drop(turn);
            tell(&slot, outcome);
        });
    }
}

/// What is asked, by whom.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// The operation's name, for the log.
    pub(super) name: &'static str,
    /// The inode it is about, for the log.
    pub(super) ino: u64,
    /// Thread that waits for the answer; 0 where it is not visible from here.
    pub(super) caller: u32,
    /// Which threads may do it.
    pub(super) class: Class,
}

/// Logs a failure, once, as loudly as its kind deserves.
pub(super) fn report(name: &str, ino: u64, err: &Error) {
    // Told so, the kernel looks the name up again and opens what it has now.
    if name == "open" && err.kind() == ErrorKind::Stale {
        log::debug!("{name} of inode {ino}: {err}");
        return;
    }
    TRAFFIC.error(errno::name(err.kind()));
    log::log!(errno::level(err.kind()), "{name} of inode {ino}: {err}");
}

/// A reply that is used at most once, by whoever comes first.
pub(super) struct Slot<R>(Mutex<Option<R>>);

impl<R> Slot<R> {
    /// What `ask` makes of the reply; `None` if it was used up.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&R) -> T) -> Option<T> {
        let reply = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reply.as_ref().map(ask)
    }

    fn take(&self) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R: Reply> Waiting for Slot<R> {
    fn is_answered(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn give_up(&self, errno: Errno) {
        if let Some(reply) = self.take() {
            reply.fail(errno);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    struct Nobody;

    impl Reply for Nobody {
        fn fail(self, _: Errno) {}
    }

    /// Whether what comes in on this thread is done on it.
    fn stays(requests: &Requests, class: Class) -> bool {
        let what = Request {
            name: "close",
            ino: 1,
            caller: 0,
            class,
        };
        let (tell, told) = mpsc::channel();
        let work = move || {
            tell.send(thread::current().id()).unwrap();
            Ok(())
        };
        requests.hand_over(what, Nobody, work, |_, ()| (), |()| ());
        told.recv().unwrap() == thread::current().id()
    }

    #[test]
    fn an_event_thread_does_nothing_that_may_take_as_long_as_bytes_flow() {
        let requests = |limit| Requests::new(limit, Box::new(|| ())).unwrap();
        let unlimited = requests(None);
        let requests = requests(Some(Duration::from_secs(30)));
        let another = || {
            assert!(!stays(&requests, Class::Metadata), "the only one");
            stays(&unlimited, Class::Metadata);
        };
        thread::scope(|scope| scope.spawn(another).join().unwrap());
        // Unless the machine is busy, at the first.
        assert!((0..1000).any(|_| stays(&requests, Class::Metadata)));
        for class in [Class::Content, Class::Read, Class::Write, Class::Release] {
            assert!(!(0..20).any(|_| stays(&requests, class)));
        }
        // With `hard`, names and attributes wait for a server that is away.
        assert!(!(0..1000).any(|_| stays(&unlimited, Class::Metadata)));
    }
}
