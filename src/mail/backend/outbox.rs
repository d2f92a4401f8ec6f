//! What happens to a file in `outbox/`: judged while it is written, queued when its last handle is
//! closed or when it is renamed into place, gone when a server has it.
//!
//! The file stays where it is as long as its message is queued: the envelope says which file that
//! is, and the file goes before the message leaves the queue. So after a crash a file that no
//! message in the queue names was never queued, and stays. Where another message was begun under
//! the same name, an entry in `detached/` keeps the first one from taking that file along.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use jiff::ZonedDateTime;
use rustix::io::Errno;

use super::composing::{Scratch, compose_any, envelopes};
use super::local::{Written, failed};
use super::submitted::{How, Queued, Submitted, note_of, place_of};
use crate::mail::address::Mailbox;
use crate::mail::aliases::Aliases;
use crate::mail::compose::{Account, Stamp};
use crate::mail::draft::{Draft, Place, Rules, is_unfinished};
use crate::mail::queue::{Id, Queue, Recovered, State};
use crate::mail::sender::{Sender, Word};
use crate::sync::Locked;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Space that is left to the rest of the mailbox, in octets.
const ROOM: u64 = 256 * 1024;

/// Of a file's beginning, what a resumed draft is shown.
const HEAD: usize = 256 * 1024;

/// How long things take at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// [`MailOptions::linger`](crate::mail::options::MailOptions::linger).
    pub(super) linger: Duration,
    /// A rename into `now/`, waiting for the server's word.
    pub(super) patience: Duration,
}

/// The outbox of one account.
pub(super) struct Outbox {
    root: PathBuf,
    pub(super) from: Option<Mailbox>,
    pub(super) queue: Arc<Queue>,
    /// SIZE of the server; 0 if it has none.
    largest: AtomicU64,
    /// Set once sending has begun.
    sender: OnceLock<Weak<Sender>>,
    /// Time for second thoughts after the last close.
    pub(super) linger: Duration,
    /// How long a rename into `now/` waits for the server's word.
    patience: Duration,
    /// Paths in the outbox, and the messages that were made of them.
    submitted: Locked<HashMap<RemotePath, Submitted>>,
    /// Files that could not be queued, and why.
    stuck: Locked<HashMap<RemotePath, String>>,
    /// Files that are open, by inode number on disk.
    open: Locked<HashMap<u64, Arc<Written>>>,
    /// Messages in `detached/` that are done.
    spent: Locked<Vec<Id>>,
}

impl Outbox {
    /// The outbox in `root`, with what a crash left put right.
    pub(super) fn open(
        root: &Path,
        queue: Arc<Queue>,
        recovered: &Recovered,
        from: Option<Mailbox>,
        times: Times,
    ) -> Result<Self> {
        for dir in ["outbox/now", "outbox/at", "detached", "spool", "failed"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|err| failed(&dir, &err))?;
        }
        // A server that says another one next time is believed then.
        let largest = fs::read_to_string(root.join("largest"));
        let largest = largest.map_or(0, |text| text.trim().parse().unwrap_or(0));
        let outbox = Self {
            root: root.to_owned(),
            from,
            queue,
            largest: AtomicU64::new(largest),
            sender: OnceLock::new(),
            linger: times.linger,
            patience: times.patience,
            submitted: Locked::default(),
            stuck: Locked::default(),
            open: Locked::default(),
            spent: Locked::default(),
        };
        outbox.recover(recovered)?;
        Ok(outbox)
    }

    /// From now on the words of servers can be waited for.
    pub(super) fn sends_with(&self, sender: &Arc<Sender>) {
        let _ = self.sender.set(Arc::downgrade(sender));
    }

    /// Refuses what would have to be sent where there is no server that takes mail.
    pub(super) fn may_send(&self) -> Result<()> {
        if self.from.is_none() {
            let line = "this mount cannot send; mount with -o smtp=URL";
            return Err(Error::new(ErrorKind::NotPermitted, line));
        }
        Ok(())
    }

    /// Whether the message of the file at `place` is queued.
    pub(super) fn is_submitted(&self, place: &RemotePath) -> bool {
        self.submitted.with(|all| all.contains_key(place))
    }

    /// Whether that file was moved in, complete.
    pub(super) fn was_moved_in(&self, place: &RemotePath) -> bool {
        self.submitted
            .with(|all| all.get(place).is_some_and(|submitted| submitted.moved_in))
    }

    /// Whether a file at `place` is a message once it is complete.
    pub(super) fn commits(place: &RemotePath) -> bool {
        !place.is_root() && !place.components().any(is_unfinished)
    }

    fn recover(&self, recovered: &Recovered) -> Result<()> {
        for id in &recovered.unqueued {
            // Its file is still in the outbox, and its writer was told nothing.
            self.queue.discard_unqueued(id)?;
        }
        let queued = self.queue.list();
        let dir = self.root.join("detached");
        for entry in fs::read_dir(&dir).map_err(|err| failed(&dir, &err))? {
            let entry = entry.map_err(|err| failed(&dir, &err))?;
            let id = entry.file_name().to_str().and_then(Id::parse);
            if !queued.iter().any(|of| Some(&of.id) == id.as_ref()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for entry in queued {
            // What was taken back is the user's again.
            let cancelled = entry.state() == State::Cancelled;
            let Some(place) = place_of(&entry.envelope.note).filter(|_| !cancelled) else {
                continue;
            };
            if !self.marker(&entry.id).exists() {
                self.submitted
                    .with(|all| all.entry(place).or_default().ids.push(entry.id));
            }
        }
        Ok(())
    }

    fn real(&self, place: &RemotePath) -> PathBuf {
        self.root.join("outbox").join(place.to_os_string())
    }

    /// Where messages are made.
    pub(super) fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    fn marker(&self, id: &Id) -> PathBuf {
        self.root.join("detached").join(id.as_str())
    }

    /// A file was opened; a rename of it may find it by `inode`.
    pub(super) fn opened(&self, inode: u64, written: &Arc<Written>) {
        self.open
            .with(|open| open.insert(inode, Arc::clone(written)));
    }

    /// Its last handle is closed.
    pub(super) fn closed(&self, inode: u64) {
        self.open.with(|open| open.remove(&inode));
    }

    /// What is known of the file with this inode number if somebody has it open.
    pub(super) fn is_open(&self, inode: u64) -> Option<Arc<Written>> {
        self.open.with(|open| open.get(&inode).cloned())
    }

    /// What names stand for, read when it is needed: the file is small.
    pub(super) fn aliases(&self) -> Aliases {
        fs::read(self.root.join("aliases"))
            .map_or_else(|_| Aliases::default(), |text| Aliases::parse(&text))
    }

    pub(super) fn with_rules<R>(&self, work: impl FnOnce(&Rules<'_>) -> R) -> R {
        work(&Rules {
            aliases: &self.aliases(),
            max_size: self.largest(),
            now: &ZonedDateTime::now(),
        })
    }

    /// The largest message that the server takes, in octets, as far as it said.
    pub(super) fn largest(&self) -> Option<u64> {
        let octets = self.largest.load(Ordering::Relaxed);
        (octets > 0).then_some(octets)
    }

    /// The server said how much it takes; remembered for the next mount.
    pub(super) fn set_largest(&self, octets: Option<u64>) {
        let octets = octets.unwrap_or(0);
        if self.largest.swap(octets, Ordering::Relaxed) != octets {
            let path = self.root.join("largest");
            if let Err(err) = fs::write(&path, format!("{octets}\n")) {
                log::warn!("{}: {err}", path.display());
            }
        }
    }

    /// The draft of a file of which something may have been written before.
    pub(super) fn resume(&self, place: &RemotePath, file: &File) -> Result<Draft> {
        let mut draft = Draft::new(Place::of_file(place, &ZonedDateTime::now())?);
        let mut head = vec![0; HEAD];
        let read = file
            .read_at(&mut head, 0)
            .map_err(|err| Error::local("outbox", &err))?;
        if let Some(head) = head.get(..read).filter(|head| !head.is_empty()) {
            self.judge(&mut draft, 0, head)?;
        }
        Ok(draft)
    }

    /// Shows `draft` a write before it is done.
    pub(super) fn judge(&self, draft: &mut Draft, offset: u64, data: &[u8]) -> Result<()> {
        self.with_rules(|rules| draft.write(offset, data, rules))
    }

    /// Whether a recipient (or a time) could be meant by a directory `place` that does not exist.
    pub(super) fn may_be_directory(&self, place: &RemotePath) -> bool {
        let Ok(parsed) = Place::of_directory(place, &ZonedDateTime::now()) else {
            return false;
        };
        let named = place.split().map(|(_, name)| name);
        let addressed = !parsed.to.is_empty() && self.aliases().resolve(&parsed.to).is_ok();
        let timed = parsed.to.is_empty() && parsed.at.is_some();
        (addressed || timed) && named.is_some_and(|name| !is_unfinished(name.as_bytes()))
    }

    /// Somebody wrote to the file at `place` and nobody has it open any more. Nobody hears of an
    /// error here: what cannot be sent goes to `failed/`.
    pub(super) fn written(&self, place: &RemotePath, refused: Option<&Error>) -> Result<()> {
        let real = self.real(place);
        let size = fs::metadata(&real)
            .map_err(|err| failed(&real, &err))?
            .len();
        if size == 0 {
            // The writer was told; what is left of it is litter.
            return match refused {
                Some(_) => fs::remove_file(&real).map_err(|err| failed(&real, &err)),
                None => Ok(()),
            };
        }
        let outcome = match refused {
            Some(err) => Err(err.clone()),
            None => self.submit(place, self.linger, How::Written).map(drop),
        };
        match outcome {
            // The disk may be full: it stays there, and is tried again.
            Err(err) if is_ours(&err) && refused.is_none() => {
                self.stuck
                    .with(|stuck| stuck.insert(place.clone(), err.to_string()));
                Err(err)
            }
            Err(err) => {
                log::warn!("outbox{place}: {err}");
                self.give_up(place, &err)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tries once more what could not be queued for reasons of this machine.
    pub(super) fn retry_stuck(&self) {
        for (place, _) in self.stuck.with(std::mem::take) {
            let about = fs::metadata(self.real(&place));
            // Who writes it anew may have come half way; it is a message when he closes it.
            let writing = |of: &fs::Metadata| {
                let open = self.is_open(of.ino());
                open.is_some_and(|written| written.unjudged.load(Ordering::Acquire))
            };
            if about.is_ok_and(|of| !writing(&of)) && !self.is_submitted(&place) {
                // It is remembered again if it fails again.
                let _ = self.written(&place, None);
            }
        }
    }

    /// What could not be queued, and why.
    pub(super) fn stuck(&self) -> Vec<(String, String)> {
        self.stuck.with(|stuck| {
            let all = stuck.iter();
            all.map(|(place, why)| (format!("outbox{place}"), why.clone()))
                .collect()
        })
    }

    /// Refuses to write what could not be queued for lack of space: the queue has a copy of its own.
    pub(super) fn has_room(&self, octets: u64) -> Result<()> {
        let space = rustix::fs::statvfs(&self.root);
        let space = space.map_err(|err| failed(&self.root, &err.into()))?;
        if space.f_bavail.saturating_mul(space.f_frsize) < octets.saturating_add(ROOM) {
            let line = format!("{}: no space for another message", self.root.display());
            return Err(Error::new(ErrorKind::NoSpace, line));
        }
        Ok(())
    }

    /// A file or a directory was renamed to `place`, and is a message.
    ///
    /// # Errors
    /// It is none, or, in `now/`, the server's word.
    pub(super) fn renamed(&self, place: &RemotePath, linger: Duration, how: How) -> Result<()> {
        let now = place.components().next() == Some(b"now");
        let sender = self.sender.get().and_then(Weak::upgrade).filter(|_| now);
        let Some(sender) = sender else {
            return self.submit(place, linger, how).map(drop);
        };
        // Until there is a verdict the file does not go with its message, nor that to failed/.
        let (ids, _awaited) = self.submit(place, linger, How::Held)?;
        for id in &ids {
            let word = sender.word(id, self.patience);
            if word != Word::Accepted {
                return self.not_accepted(place, &ids, id, word);
            }
        }
        self.clear_away(place);
        Ok(())
    }

    /// The rename fails: nothing may be left that is sent all the same, or else it is said that
    /// there is.
    fn not_accepted(&self, place: &RemotePath, ids: &[Id], id: &Id, word: Word) -> Result<()> {
        let has_it = |state| matches!(state, State::Accepted | State::InDoubt);
        let sent = ids.iter().any(|id| {
            let entry = self.queue.get(id);
            entry.is_none_or(|entry| entry.recipients.iter().any(|to| has_it(to.state)))
        });
        if !sent && self.queue.cancel_all(ids).is_ok() {
            return verdict(id, word);
        }
        self.submitted
            .with(|all| all.insert(place.clone(), Submitted::of(ids, true)));
        for id in ids {
            if self.queue.get(id).is_none_or(|entry| entry.is_settled()) {
                self.settled(id, place);
            }
        }
        let line = format!("{id}: {word:?}; see queue/{id}");
        Err(Error::new(
            ErrorKind::Local(Errno::INPROGRESS.raw_os_error()),
            line,
        ))
    }

    /// Makes a message of what is at `place` and queues it, durably. Unless it is held, the file
    /// goes when the message does.
    fn submit(&self, place: &RemotePath, linger: Duration, how: How) -> Result<Queued<'_>> {
        self.may_send()?;
        let Some(from) = self.from.clone() else {
            return Err(ErrorKind::NotPermitted.into());
        };
        let account = Account { from };
        let stamp = Stamp::new().map_err(|err| Error::local("randomness", &err))?;
        let real = self.real(place);
        let size = fs::metadata(&real)
            .map_err(|err| failed(&real, &err))?
            .len();
        let now = ZonedDateTime::now();
        let parsed = Place::of_file(place, &now)?;
        let mut message = Scratch::new(&self.spool(), size)?;
        let composed = self.with_rules(|rules| {
            let mut out = io::BufWriter::new(&mut message);
            let composed = compose_any(&parsed, &real, &account, &stamp, rules, &mut out)?;
            out.flush().map_err(|err| Error::local("spool", &err))?;
            Ok::<_, Error>(composed)
        })?;
        let mut staged = Vec::new();
        for mut envelope in envelopes(&composed)? {
            envelope.note = note_of(place);
            message
                .rewind()
                .map_err(|err| Error::local("spool", &err))?;
            staged.push(self.queue.stage(envelope, &mut message)?);
        }
        let ids: Vec<Id> = staged.iter().map(|one| one.id().clone()).collect();
        // Before it is queued: it may be sent and settled before this returns.
        let awaited = (how == How::Held).then(|| self.queue.await_verdict(&ids));
        if how != How::Held {
            let moved_in = how == How::MovedIn;
            self.submitted
                .with(|all| all.insert(place.clone(), Submitted::of(&ids, moved_in)));
        }
        let queued = self.queue.commit(staged, linger).inspect_err(|_| {
            self.submitted.with(|all| all.remove(place));
        })?;
        Ok((queued, awaited))
    }

    /// The file at `place` is about to be emptied or replaced. Within the linger that takes its
    /// message back; later it is another message's beginning, and the first one, which somebody was
    /// told is queued, stays queued; so does at any time what was moved in. Whether it is taken back.
    ///
    /// # Errors
    /// `Local`.
    pub(super) fn make_way(&self, place: &RemotePath) -> Result<bool> {
        let submitted = self.submitted.with(|all| all.get(place).cloned());
        let Some(Submitted { ids, .. }) = submitted else {
            return Ok(true);
        };
        if self.reconsider(place) {
            return Ok(true);
        }
        // Not to be cleared away with the message, now or after a crash.
        for id in &ids {
            let marker = self.marker(id);
            File::create(&marker).map_err(|err| failed(&marker, &err))?;
        }
        self.submitted.with(|all| all.remove(place));
        Ok(false)
    }

    /// Whether somebody writes to a file that is a message once it is closed.
    pub(super) fn is_written(&self) -> bool {
        self.open.with(|open| {
            let mut open = open.values();
            open.any(|written| written.unjudged.load(Ordering::Acquire))
        })
    }

    /// Takes back the message made of the file at `place`, which is about to be changed.
    ///
    /// # Errors
    /// `Busy` while it is being sent; `PermissionDenied` if it was.
    pub(super) fn withdraw(&self, place: &RemotePath) -> Result<()> {
        // Not to be cleared away with the message.
        let ids = self.submitted.with(|all| {
            let submitted = all.get_mut(place)?;
            submitted.withdrawals += 1;
            Some(submitted.ids.clone())
        });
        let Some(ids) = ids else { return Ok(()) };
        let settled = |id: &&Id| self.queue.get(id).is_none_or(|entry| entry.is_settled());
        let withdrawn = match ids.iter().find(settled) {
            Some(id) => {
                let line = format!("outbox{place}: {id} was sent already");
                Err(Error::new(ErrorKind::PermissionDenied, line))
            }
            None => self.queue.cancel_all(&ids),
        };
        self.submitted.with(|all| {
            if withdrawn.is_ok() {
                all.remove(place);
            } else if let Some(submitted) = all.get_mut(place) {
                submitted.withdrawals -= 1;
                self.clear_if_done(all, place);
            }
        });
        withdrawn
    }

    /// Takes back the message made of the file at `place` if it waits for second thoughts; whether
    /// it did.
    pub(super) fn reconsider(&self, place: &RemotePath) -> bool {
        let submitted = self.submitted.with(|all| all.get(place).cloned());
        let Some(Submitted { ids, moved_in, .. }) = submitted else {
            return false;
        };
        let lingers = ids.iter().all(|id| self.queue.lingers(id));
        !moved_in && lingers && self.withdraw(place).is_ok()
    }

    /// Nothing more will happen to message `id`, made of the file at `place`.
    pub(super) fn settled(&self, id: &Id, place: &RemotePath) {
        self.submitted.with(|all| {
            if let Some(submitted) = all.get_mut(place) {
                submitted.ids.retain(|other| other != id);
                self.clear_if_done(all, place);
            }
        });
        if self.marker(id).exists() {
            self.spent.with(|spent| spent.push(id.clone()));
        }
    }

    /// Takes away what is in `detached/` of messages of which the queue's journal says for ever that
    /// they left: a message that comes back would take the file of another one along.
    pub(super) fn forget_spent(&self) {
        let spent = self.spent.with(std::mem::take);
        let (left, mut kept): (Vec<Id>, Vec<Id>) =
            spent.into_iter().partition(|id| !self.queue.is_queued(id));
        if !left.is_empty() && self.queue.sync().is_ok() {
            left.iter()
                .for_each(|id| drop(fs::remove_file(self.marker(id))));
        } else {
            kept.extend(left);
        }
        self.spent.with(|spent| spent.append(&mut kept));
    }

    /// Clears the file away if all its messages are done, and nobody is taking them back.
    fn clear_if_done(&self, all: &mut HashMap<RemotePath, Submitted>, place: &RemotePath) {
        let done = |of: &Submitted| of.ids.is_empty() && of.withdrawals == 0;
        if all.get(place).is_some_and(done) {
            all.remove(place);
            // Before anybody can put another file there, which `make_way` comes before.
            self.clear_away(place);
        }
    }

    /// Removes the file, and the directory that was made for it.
    fn clear_away(&self, place: &RemotePath) {
        let real = self.real(place);
        let _ = fs::remove_file(&real).or_else(|_| fs::remove_dir_all(&real));
        self.tidy(place);
    }

    /// Removes the empty directories above `place` that no one need see.
    pub(super) fn tidy(&self, place: &RemotePath) {
        let mut dir = place.parent();
        while let Some(path) = dir.filter(|path| !path.is_root()) {
            let fixed = matches!(path.as_bytes(), b"now" | b"at");
            if fixed || fs::remove_dir(self.real(&path)).is_err() {
                return;
            }
            dir = path.parent();
        }
    }

    /// The file at `place` will not be sent: it goes to `failed/`, with the reason.
    fn give_up(&self, place: &RemotePath, why: &Error) -> Result<()> {
        let stamp = ZonedDateTime::now().strftime("%Y%m%d-%H%M%S").to_string();
        let name = place.split().map(|(_, name)| name.to_string());
        let name = name.unwrap_or_default().replace('/', "_");
        let dir = self.failed_dir(&format!("{stamp}-{name}"))?;
        let (real, message) = (self.real(place), dir.join("message"));
        let reason = format!("outbox{place} was not sent: {why}\n");
        fs::write(dir.join("reason"), reason).map_err(|err| failed(&dir, &err))?;
        fs::rename(&real, &message).map_err(|err| failed(&real, &err))?;
        self.tidy(place);
        Ok(())
    }

    /// A new directory in `failed/`.
    fn failed_dir(&self, name: &str) -> Result<PathBuf> {
        for number in 1..1000 {
            let name = match number {
                1 => name.to_owned(),
                number => format!("{name}-{number}"),
            };
            let dir = self.root.join("failed").join(name);
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(dir),
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(failed(&dir, &err)),
            }
        }
        Err(ErrorKind::Exists.into())
    }
}

/// Whether it is this machine's fault: then the file is no worse than before.
fn is_ours(err: &Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::Local(_) | ErrorKind::NoSpace | ErrorKind::NotPermitted
    )
}

/// What a server said, as the error of a rename.
fn verdict(id: &Id, word: Word) -> Result<()> {
    let (errno, why) = match word {
        Word::Accepted => return Ok(()),
        Word::Refused(text) => (Errno::REMOTEIO, text),
        Word::Deferred(text) => (Errno::AGAIN, text),
        Word::InDoubt(text) => (Errno::INPROGRESS, text),
        Word::Trouble(failure) => (Errno::AGAIN, failure.to_string()),
        Word::Cancelled => (Errno::CANCELED, "cancelled".to_owned()),
        Word::Pending | Word::Unknown => (
            Errno::AGAIN,
            "no answer in time; it is not queued".to_owned(),
        ),
    };
    let line = format!("{id}: {why}");
    Err(Error::new(ErrorKind::Local(errno.raw_os_error()), line))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
