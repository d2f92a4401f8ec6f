//! What was left on the server half done: removed, or put back.
//!
//! A connection, or the whole process, may be lost between two commands that belong together. What
//! the [intent log](super::intents) says of a name, and what is there now, tell what is to be done:
//! an old version goes back to its name if nothing has it; it is removed only where its successor
//! is there for certain; else it stays, under a name that says so.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Weak, mpsc};
use std::time::{Duration, SystemTime};

use super::in_place::Claim;
use super::intents::{Intent, Successor};
use super::pool::Purpose;
use super::probes::Seen;
use super::refusal::classify;
use super::server::FtpServer;
use super::session::Session;
use crate::vfs::attr::Attr;
use crate::vfs::error::{ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// How long a new mount waits for what an earlier one left to be put right. It goes on afterwards.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two attempts: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// At most between two looks at a name to which somebody's file may be moved any moment.
const WATCHED: Duration = Duration::from_secs(2);

/// A name that waits to be seen to.
#[derive(Debug)]
pub(super) struct Leftover {
    name: RemotePath,
    /// Why not yet, as was told.
    told: Option<String>,
}

/// What came of one attempt.
pub(super) enum Outcome {
    Done,
    /// Not now, and why: a refusal.
    Later(String),
    /// Its time has not come.
    NotYet,
}

pub(super) fn unclear(path: &RemotePath) -> Outcome {
    Outcome::Later(format!("the server does not tell whether {path} is there"))
}

/// One attempt at a leftover.
#[derive(Debug)]
struct Task {
    left: Leftover,
    intent: Intent,
    _claim: Option<Claim>,
}

/// Work on the server in which a name has a part. If it ends without having said what became of the
/// name, that is found out.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    server: &'a FtpServer,
    name: RemotePath,
}

impl Pending<'_> {
    /// What has the name stays there, and what was to have its place is there.
    pub(super) fn keep(self) {
        self.server.intents.end(&self.name, true);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.server.over_with(&self.name);
    }
}

impl FtpServer {
    /// A temporary name comes into use: no listing shows it, and whatever becomes of us, it goes.
    pub(super) fn conceal(&self, name: &RemotePath) {
        self.in_flight.with(|names| names.insert(name.clone()));
        // Where it cannot be written down, that was told.
        let _ = self.intents.begin(name, Intent::Remove, false);
    }

    /// A temporary name is not in use any more: nothing has it.
    pub(super) fn reveal(&self, name: &RemotePath) {
        self.in_flight.with(|names| names.remove(name));
        self.intents.end(name, false);
    }

    /// While this lives, `name` has a part in what is done.
    pub(super) fn pending(&self, name: &RemotePath) -> Pending<'_> {
        let name = name.clone();
        Pending { server: self, name }
    }

    /// The work that `name` had a part in ends: if it did not say what became of the name, that is
    /// found out.
    pub(super) fn over_with(&self, name: &RemotePath) {
        let intent = self.intents.of(name);
        if intent.is_some_and(|intent| intent.is_precious()) {
            self.hand_over(name);
        }
    }

    /// Removes one of our own temporary files; later, if it cannot be done now.
    pub(super) fn discard(&self, s: &mut Session, temporary: &RemotePath) {
        match self.removed(s, temporary) {
            Ok(None) => self.reveal(temporary),
            Ok(Some(why)) => {
                log::warn!("{temporary}: a temporary file could not be removed: {why}");
            }
            Err(_) => self.leave(temporary),
        }
    }

    /// Removes `temporary`. What the server said, if it is still there.
    fn removed(&self, s: &mut Session, temporary: &RemotePath) -> Result<Option<String>> {
        let reply = self.ask(s, "DELE", temporary)?;
        let gone = reply.is_ok()
            || classify(&reply).kind == ErrorKind::NotFound
            // "550 Delete operation failed." is all that vsftpd has to say.
            || self.look(s, temporary)? == Seen::Missing;
        if gone {
            self.intents.removed(temporary);
        }
        Ok((!gone).then(|| reply.text()))
    }

    /// A file of ours cannot be removed now. It stays hidden from our listings, and is tried again by
    /// the next upload, and by and by if there is none: others see it. Not if it has a name that may
    /// be another's by then.
    pub(super) fn leave(&self, name: &RemotePath) {
        if self.in_flight.with(|names| names.contains(name)) {
            self.wait_for_sweep(name.clone());
            self.sweep_soon();
        }
    }

    /// The work that `name` had a part in is over, and what became of it is not known: that is found
    /// out soon. What is still aside is somebody's file: everyone shall see it.
    pub(super) fn hand_over(&self, name: &RemotePath) {
        self.in_flight.with(|names| names.remove(name));
        self.wait_for_sweep(name.clone());
        self.sweep_soon();
    }

    pub(super) fn wait_for_sweep(&self, name: RemotePath) {
        self.leftovers.with(|all| {
            if all.iter().all(|known| known.name != name) {
                all.push(Leftover { name, told: None });
            }
        });
    }

    /// Removes what earlier uploads left when their connection died, and puts back what they had
    /// moved aside.
    pub(super) fn sweep(&self, s: &mut Session) {
        for mut task in self.take_leftovers() {
            let outcome = match s.is_broken() {
                true => Err(ErrorKind::Disconnected.into()),
                false => self.settle(s, &task.left.name, task.intent),
            };
            let why = match outcome {
                Ok(Outcome::Done) => continue,
                Ok(Outcome::Later(why)) => Some(why),
                Ok(Outcome::NotYet) | Err(_) => None,
            };
            if let Some(why) = why.filter(|why| task.left.told.as_ref() != Some(why)) {
                log::warn!("{}: left on the server for now: {why}", task.left.name);
                task.left.told = Some(why);
            }
            self.leftovers.with(|all| all.push(task.left));
        }
    }

    /// All leftovers, except those at whose home something is stored now.
    fn take_leftovers(&self) -> Vec<Task> {
        let all = self.leftovers.with(std::mem::take);
        let mut tasks = Vec::new();
        for left in all {
            let Some(mut intent) = self.intents.of(&left.name) else {
                continue;
            };
            if !self.is_due(&left.name) {
                self.leftovers.with(|all| all.push(left));
                continue;
            }
            // Nobody here stores at that name meanwhile.
            let claim = match intent.home().map(|home| self.in_place.claim(home)) {
                Some(Err(_)) => {
                    self.leftovers.with(|all| all.push(left));
                    continue;
                }
                claim => claim.and_then(Result::ok),
            };
            tasks.push(Task {
                left,
                intent,
                _claim: claim,
            });
        }
        // Whether a new content is still under its temporary name tells what became of the old one.
        tasks.sort_by_key(|task| !task.intent.is_precious());
        tasks
    }

    fn settle(&self, s: &mut Session, name: &RemotePath, intent: Intent) -> Result<Outcome> {
        let unseen = matches!(intent, Intent::Unseen { .. });
        let (home, by, keep) = match intent {
            Intent::Remove => {
                return Ok(match self.removed(s, name)? {
                    None => {
                        self.reveal(name);
                        Outcome::Done
                    }
                    Some(why) => Outcome::Later(why),
                });
            }
            Intent::Replace { home, by } => (home, by, false),
            Intent::Unseen { home } => (home, None, false),
            Intent::Keep { home } => (home, None, true),
            Intent::Late { home, until, .. } => {
                return self.watch(s, name, &home, SystemTime::now() >= until);
            }
        };
        match self.look(s, name)? {
            Seen::Missing => {
                if !unseen && self.look(s, &home)? == Seen::Missing {
                    log::warn!(
                        "{home}: neither it nor its old version {name} is there; if their directory \
                         has another name now, look there"
                    );
                }
                self.intents.end(name, false);
                return Ok(Outcome::Done);
            }
            Seen::Unclear => return Ok(unclear(name)),
            Seen::File | Seen::Directory => {}
        }
        match self.look(s, &home)? {
            Seen::Unclear => Ok(unclear(&home)),
            Seen::Missing => self.put_back(s, name, &home),
            Seen::File | Seen::Directory if keep => {
                log::warn!(
                    "{home}: somebody else has changed it, too; that version is kept as {name}"
                );
                self.intents.end(name, true);
                Ok(Outcome::Done)
            }
            Seen::File
                if by.is_some_and(|by| self.has_followed(s, &home, &by).unwrap_or(false)) =>
            {
                self.conceal(name);
                self.discard(s, name);
                Ok(Outcome::Done)
            }
            Seen::File | Seen::Directory => self.keep_beside(s, name, &home),
        }
    }

    pub(super) fn put_back(
        &self,
        s: &mut Session,
        name: &RemotePath,
        home: &RemotePath,
    ) -> Result<Outcome> {
        let [from, to] = self.rename_once(s, name, home)?;
        if !to.is_ok() {
            let (verb, refused) = match from.wants_more() {
                true => ("RNTO", to),
                false => ("RNFR", from),
            };
            let why = format!("{verb} {home}: {}", refused.text());
            return Ok(Outcome::Later(why));
        }
        log::info!("{home}: the old version is back in its place");
        self.times.with(|times| times.renamed(name, home));
        self.links.with(|links| links.forget(home));
        self.intents.end(name, true);
        Ok(Outcome::Done)
    }

    /// Whether the file at `home` is the successor, and no third one.
    fn has_followed(&self, s: &mut Session, home: &RemotePath, by: &Successor) -> Result<bool> {
        if self.look(s, &by.from)? != Seen::Missing {
            return Ok(false);
        }
        let exact = |found: &Attr| found.mtime.filter(|_| found.mtime_exact);
        let found = self.version_now(s, home)?;
        Ok(found.is_some_and(|found| by.is(found.size, exact(&found))))
    }

    /// Something else has the old version's name, and nobody can say whether it was to be replaced
    /// by that.
    pub(super) fn keep_beside(
        &self,
        s: &mut Session,
        name: &RemotePath,
        home: &RemotePath,
    ) -> Result<Outcome> {
        let beside = self.aside_name(home)?;
        let [_, to] = self.rename_once(s, name, &beside)?;
        if !to.is_ok() {
            let why = format!(
                "{home} is another file now, and this one cannot be named {beside}: {}",
                to.text()
            );
            return Ok(Outcome::Later(why));
        }
        self.kept(home, &beside);
        self.reveal(name);
        Ok(Outcome::Done)
    }

    /// Sweeps until nothing is left, by and by: perhaps nobody stores anything on this mount again.
    /// Never blocks.
    pub(super) fn sweep_soon(&self) {
        self.start_sweeping(PAUSES.0, None);
    }

    fn start_sweeping(&self, mut pause: Duration, first: Option<mpsc::Sender<()>>) {
        if self.sweeping.swap(true, SeqCst) {
            return;
        }
        let this = self.this.clone();
        let work = move || {
            let mut first = first;
            loop {
                std::thread::sleep(pause);
                let Some(server) = Weak::upgrade(&this) else {
                    return;
                };
                let over = server.sweep_now();
                drop(first.take());
                if over {
                    return;
                }
                let most = if server.watches() { WATCHED } else { PAUSES.1 };
                pause = (pause * 2).clamp(PAUSES.0, most);
            }
        };
        let spawned = std::thread::Builder::new()
            .name("ftp-sweep".into())
            .spawn(work);
        if spawned.is_err() {
            // The next upload does it.
            self.sweeping.store(false, SeqCst);
        }
    }

    /// One attempt of those that are made by and by: whether no other is needed.
    fn sweep_now(&self) -> bool {
        if self.has_due() {
            let swept = self.pool.with_session(Purpose::Metadata, |s| {
                self.sweep(s);
                Ok(())
            });
            if let Err(err) = &swept {
                log::debug!("nothing put right on the server yet: {err}");
            }
        }
        self.sweeping.store(false, SeqCst);
        let left = || self.leftovers.with(|all| !all.is_empty());
        self.pool.is_closed() || !left() || self.sweeping.swap(true, SeqCst)
    }

    /// Whether a leftover can be seen to now.
    pub(super) fn has_due(&self) -> bool {
        let names = self
            .leftovers
            .with(|all| all.iter().map(|left| left.name.clone()).collect::<Vec<_>>());
        names.iter().any(|name| self.is_due(name))
    }

    /// Whether a command may come that moves something away, and nothing is in its way.
    fn watches(&self) -> bool {
        let names = self.intents.names();
        names.iter().any(|name| {
            let intent = self.intents.of(name);
            matches!(intent, Some(Intent::Late { barred: false, .. }))
        })
    }

    /// Puts right what an earlier mount left: now, or later if the server is not there.
    pub(super) fn heal(&self) {
        let names = self.intents.names();
        if names.is_empty() {
            return;
        }
        log::info!("an earlier mount left {} names on the server", names.len());
        for name in names {
            if let Some(Intent::Remove | Intent::Late { .. }) = self.intents.of(&name) {
                self.in_flight.with(|names| names.insert(name.clone()));
            }
            self.wait_for_sweep(name);
        }
        let (sender, first) = mpsc::channel();
        self.start_sweeping(Duration::ZERO, Some(sender));
        // The sender only ever goes away.
        let _ = first.recv_timeout(PATIENCE);
    }

    /// As [`heal`](Self::heal), where nothing may be changed: nothing is.
    pub(super) fn leave_unhealed(&self) {
        for name in self.intents.names() {
            match self.intents.of(&name) {
                Some(Intent::Remove | Intent::Late { .. }) => {
                    self.in_flight.with(|names| names.insert(name));
                }
                Some(Intent::Unseen { .. }) => {}
                Some(Intent::Replace { home, .. } | Intent::Keep { home }) => log::warn!(
                    "{home}: its old version may be {name} since an earlier mount was killed; mount \
                     without ro to put it right"
                ),
                None => {}
            }
        }
    }

    /// `from` and all below it is now at `to`.
    pub(super) fn leftovers_moved(&self, from: &RemotePath, to: &RemotePath) {
        let mut moved = Vec::new();
        self.leftovers.with(|all| {
            for left in all.iter_mut().filter(|left| left.name.is_within(from)) {
                moved.push(left.name.clone());
                if let Some(now) = left.name.rebase(from, to) {
                    left.name = now;
                }
            }
        });
        self.intents.moved(from, to, &moved);
        self.part_moved(from, to, &moved);
        self.in_flight.with(|names| {
            for name in moved {
                if names.remove(&name)
                    && let Some(now) = name.rebase(from, to)
                {
                    names.insert(now);
                }
            }
        });
    }

    /// What is on its way to a temporary name in there, but for the `idle`, finds it gone and begins
    /// anew. What came of it has gone along, and is to be removed where it is now.
    fn part_moved(&self, from: &RemotePath, to: &RemotePath, idle: &[RemotePath]) {
        let goes = |name: &RemotePath| self.intents.of(name) == Some(Intent::Remove);
        let names = self.intents.names();
        let below = names.iter().filter(|name| name.is_within(from));
        for name in below.filter(|name| !idle.contains(name) && goes(name)) {
            if let Some(now) = name.rebase(from, to)
                && self.intents.begin(&now, Intent::Remove, false).is_ok()
            {
                self.in_flight.with(|names| names.insert(now.clone()));
                self.leave(&now);
            }
        }
    }
}
