//! Bringing a staged content to the server.

use std::sync::Arc;

use super::file::Content;
use super::live::{Live, is_trouble, send};
use super::state::State;
use super::version::Version;
use crate::vfs::attr::Attr;
use crate::vfs::backend::{Publish, Replaces, Seen, Upload};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::journal::Leaving;
use crate::vfs::path::RemotePath;
use crate::vfs::staging::Snapshot;

/// One commit on its way.
struct Job {
    snapshot: Snapshot,
    publish: Publish,
    base: Option<Arc<Version>>,
    live: Option<Arc<Live>>,
    way: Way,
}

/// What has to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Times and mode: the content is what the server has.
    Attributes,
    /// What is behind the old content, of so many bytes.
    Tail(u64),
    Whole,
}

/// What of a content is to be brought to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What was written, whoever is still about it.
    All,
    /// What the journal has. Where more was written since, its record goes when that is stored, and
    /// a kill would leave neither.
    Acknowledged,
}

/// How an upload failed.
enum Failure {
    /// Final, or before anything was sent.
    Told(Error),
    /// In the middle, and not by the server's decision: worth one more try.
    Broken(Error),
}

impl Wanted {
    /// Whether it is all that was written.
    fn is_all_of(self, state: &State) -> bool {
        self == Self::All || state.recorded().is_some()
    }
}

impl Content {
    /// The caller holds the commit mutex.
    pub(super) fn commit_now(&self, at: &RemotePath, wanted: Wanted) -> Result<()> {
        if !self.state.with(|state| wanted.is_all_of(state)) {
            return Ok(());
        }
        if self.state.with(|state| state.unsure) {
            self.look_back(at, wanted)?;
        }
        self.state.with(|state| state.is_whole())?;
        let Some(mut job) = self.next_job(wanted) else {
            return Ok(());
        };
        match job.way {
            Way::Attributes => return self.commit_attributes(at, &job),
            Way::Tail(base) => {
                if let Some(attr) = self.append(at, &job, base)? {
                    self.published(at, &job, attr);
                    return Ok(());
                }
                // A part of the tail may be there now, which is no version of somebody else's.
                job.publish.replaces = self.state.with(|state| state.replaces());
            }
            Way::Whole => {}
        }
        for last in [false, true] {
            match self.store(at, &job) {
                Ok(attr) => {
                    self.published(at, &job, attr);
                    return Ok(());
                }
                Err(Failure::Broken(err)) if !last => {
                    log::debug!("{at}: the upload broke, once more: {err}");
                }
                Err(Failure::Told(err) | Failure::Broken(err)) => return Err(err),
            }
            // The writer may have gone on, or cut the file.
            let Some(next) = self.next_job(wanted) else {
                return Ok(());
            };
            job = next;
        }
        Ok(())
    }

    /// What an earlier mount recorded it may have stored before it was killed, or a part of it.
    fn look_back(&self, at: &RemotePath, wanted: Wanted) -> Result<()> {
        let now = match self.transfers.stat_now(at) {
            Ok(now) => now,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(err),
        };
        let earlier = self.state.with(|state| state.sent);
        let Some(job) = self.next_job(wanted) else {
            return Ok(());
        };
        let is = |size, time| now.size == Some(size) && now.mtime == time && now.mtime_exact;
        let earlier = earlier.is_some_and(|(size, time)| is(size, Some(time)));
        let same = |base: &Arc<Version>| !base.attr().differs_from(&now);
        if earlier || job.base.as_ref().is_some_and(same) {
            // Of two contents with one size and time that are ours it may be either.
            let version = Version::new(&self.contents, &self.transfers, at, now);
            let old = self.state.with(|state| {
                (state.unsure, state.replaces) = (false, None);
                state.base.replace(Arc::new(version))
            });
            drop(old);
            return Ok(());
        }
        if is(job.snapshot.len, job.publish.mtime) {
            self.published(at, &job, now);
            return Ok(());
        }
        let grown = |old| {
            now.size
                .is_some_and(|now| old < now && now <= job.snapshot.len)
        };
        self.state.with(|state| {
            state.unsure = false;
            if let Way::Tail(old) = job.way
                && grown(old)
            {
                state.torn = now.size;
                state.replaces = Some(Replaces::Version(Seen::of(&now)));
            }
        });
        Ok(())
    }

    /// What there is to do; `None` if the file is clean, or more was written than is `wanted`.
    fn next_job(&self, wanted: Wanted) -> Option<Job> {
        let (snapshot, live, base, torn, replaces) = self.state.with(|state| {
            let dirty = state.is_dirty() && wanted.is_all_of(state);
            let replaces = state.replaces();
            let staged = state.staged.as_mut().filter(|_| dirty)?;
            let snapshot = staged.snapshot();
            state.in_sequence = (snapshot.len == 0).then_some(0);
            state.sent = snapshot.attr.mtime.map(|time| (snapshot.len, time));
            let live = state.live.take();
            Some((
                snapshot,
                live,
                state.base.clone(),
                state.torn.is_some(),
                replaces,
            ))
        })?;
        let Snapshot {
            len,
            unchanged,
            attr,
            ..
        } = snapshot;
        let size = base.as_ref().and_then(|base| base.size());
        let way = match size {
            Some(size) if live.is_none() && !torn && unchanged == size => match size {
                _ if len == size => Way::Attributes,
                0 => Way::Whole,
                _ => Way::Tail(size),
            },
            _ => Way::Whole,
        };
        let old_mode = base.as_ref().and_then(|base| base.attr().mode);
        let publish = Publish {
            size: len,
            mtime: attr.mtime,
            // A new file takes the place of the old one and should not lose its mode.
            mode: attr.mode.or(old_mode),
            new: replaces == Replaces::Nothing,
            replaces,
        };
        Some(Job {
            snapshot,
            publish,
            base,
            live,
            way,
        })
    }

    fn commit_attributes(&self, at: &RemotePath, job: &Job) -> Result<()> {
        match self.transfers.set_attr(at, &job.snapshot.attr) {
            // As `publish`, which sets what the server can.
            Err(err) if err.kind() == ErrorKind::Unsupported => log::debug!("{at}: {err}"),
            other => {
                other?;
                if let Some(base) = &job.base {
                    base.adjust(&job.snapshot.attr);
                }
            }
        }
        let entry = self.state.with(|state| {
            if let Some(staged) = &mut state.staged {
                staged.published(&job.snapshot);
            }
            state.is_stored(&self.contents, job.snapshot.generation)
        });
        entry.into_iter().for_each(Leaving::finish);
        Ok(())
    }

    /// Sends the tail only; `None` if the whole file must be sent instead.
    fn append(&self, at: &RemotePath, job: &Job, base: u64) -> Result<Option<Attr>> {
        if let Some(base) = &job.base {
            base.hang_up();
        }
        let begin = |_| self.transfers.append(at, base);
        let mut upload = match self.contents.connection(begin) {
            Ok(upload) => upload,
            // Whether it may be replaced is found out where the whole file is published.
            Err(err)
                if matches!(
                    err.kind(),
                    ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Stale
                ) =>
            {
                log::debug!("{at}: the whole file is sent: {err}");
                return Ok(None);
            }
            Err(err) => return Err(err),
        };
        let Snapshot { source, len, .. } = &job.snapshot;
        let sent = send(&mut *upload, source, base, *len);
        match sent.and_then(|()| upload.publish(at, &job.publish)) {
            Ok(attr) => Ok(Some(attr)),
            Err(err) => {
                // The server may have none, some or all of the tail now.
                self.state
                    .with(|state| state.torn = state.torn.max(Some(*len)));
                if is_trouble(&err) {
                    log::debug!("{at}: an append broke, the whole file is sent: {err}");
                    return Ok(None);
                }
                Err(err)
            }
        }
    }

    /// Sends the whole file, the part that was sent behind the writer excepted.
    fn store(&self, at: &RemotePath, job: &Job) -> std::result::Result<Attr, Failure> {
        let Snapshot { source, len, .. } = &job.snapshot;
        if let Some(live) = &job.live
            && let Some(upload) = live.finish(source, *len).map_err(|e| failure(e, job))?
        {
            return self
                .publish(at, job, upload)
                .map_err(|failed| match failed {
                    // Its directory was renamed, perhaps, and what was sent with it.
                    Failure::Told(err) if err.kind() == ErrorKind::NotFound => Failure::Broken(err),
                    other => other,
                });
        }
        self.mend(at).map_err(Failure::Told)?;
        self.localize(at).map_err(Failure::Told)?;
        if let Some(base) = &job.base {
            base.hang_up();
        }
        let begin = |wait| {
            self.transfers
                .store_all(at, job.publish.replaces, *len, wait)
        };
        let upload = self.contents.connection(begin);
        let mut upload = upload.map_err(Failure::Told)?;
        send(&mut *upload, source, 0, *len).map_err(|err| failure(err, job))?;
        self.publish(at, job, upload)
    }

    fn publish(
        &self,
        at: &RemotePath,
        job: &Job,
        upload: Box<dyn Upload>,
    ) -> std::result::Result<Attr, Failure> {
        // What is read here later must be here.
        let Snapshot { source, len, .. } = &job.snapshot;
        source.passing.settle(*len).map_err(Failure::Told)?;
        if let Some(base) = &job.base {
            // Some servers cannot replace a file that is being read.
            base.hang_up();
        }
        let named = upload.publish(at, &job.publish);
        if let Err(err) = &named
            && is_trouble(err)
        {
            self.state.with(|state| state.named_perhaps = true);
        }
        named.map_err(|err| failure(err, job))
    }

    /// After a broken append: the server's file is ours, with a part of the tail perhaps. Its
    /// beginning is what it was, and missing ranges may be fetched from it. Whether there was
    /// anything to mend.
    pub(super) fn mend(&self, at: &RemotePath) -> Result<bool> {
        let torn = self.state.with(|state| {
            // However long it is here by now.
            let most = state.torn?;
            state.staged.as_ref()?.first_missing()?;
            Some((state.base.clone()?, most))
        });
        let Some((base, most)) = torn else {
            return Ok(false);
        };
        let now = self.transfers.stat_now(at)?;
        let old = base.size().unwrap_or(0);
        let grown = |size| (old..=most.max(old)).contains(&size);
        if !now.size.is_some_and(grown) {
            let other = format!("{at}: changed on the server after a broken append");
            return Err(Error::new(ErrorKind::Stale, other));
        }
        let mended = Arc::new(Version::new(&self.contents, &self.transfers, at, now));
        self.state.with(|state| {
            // Not if a commit succeeded meanwhile.
            if state.is_base(&base) {
                state.base = Some(mended);
            }
        });
        Ok(true)
    }

    /// The server has the snapshot, and says that this is what it has.
    fn published(&self, at: &RemotePath, job: &Job, mut attr: Attr) {
        attr.size = attr.size.or(Some(job.snapshot.len));
        // It may look like the old version: the same size, the same time set anew.
        self.contents.blocks.forget(at);
        let version = Version::new(&self.contents, &self.transfers, at, attr);
        let version = Some(Arc::new(version));
        let (old, entry) = self.state.with(|state| {
            state.torn = None;
            if let Some(staged) = &mut state.staged {
                staged.published(&job.snapshot);
            }
            let old = std::mem::replace(&mut state.base, version);
            let entry = state.is_stored(&self.contents, job.snapshot.generation);
            (old, entry)
        });
        entry.into_iter().for_each(Leaving::finish);
        // Its streams hang up, with nothing locked.
        drop(old);
    }
}

fn failure(err: Error, job: &Job) -> Failure {
    let Snapshot { source, len, .. } = &job.snapshot;
    let is_cut = || source.file.metadata().is_ok_and(|now| now.len() < *len);
    if is_trouble(&err) || err.kind() == ErrorKind::Corrupt || is_cut() {
        Failure::Broken(err)
    } else {
        Failure::Told(err)
    }
}
