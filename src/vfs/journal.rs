//! The journal: which staged files hold content that was acknowledged and is not on the server.
//!
//! ```text
//! STATE/staging/staged-7   the bytes
//! STATE/journal/staged-7   where they belong, which of them count, what they are to replace
//! STATE/lost+found/        what could not be brought to the server, each with its reason
//! ```
//!
//! A record is written whole beside its place and renamed into it, so that it survives `kill -9` at
//! any instant; with `sync` the bytes, the record and the directory are on the disk before it
//! counts, so that it survives a power cut too. A record goes when the server has the content, or
//! when its name was removed. What it names is never changed meanwhile: see
//! [`staging`](super::staging).

mod record;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::record::{Base, Expected, Record, seconds, spelled};
use super::attr::Attr;
use super::backend::Replaces;
use super::error::{Error, Result};
use super::path::RemotePath;
use super::staging::{Frozen, Named, Spare, Spares, StagingDir};

/// The records of a mount.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    account: String,
    sync: bool,
    next: AtomicU64,
    spares: Arc<Spares>,
}

/// A record. It stays when this is dropped: only [`remove`](Self::remove) takes it away.
#[derive(Debug)]
pub(crate) struct Entry {
    path: PathBuf,
    named: Arc<Named>,
    record: Box<Record>,
    sync: bool,
    spares: Arc<Spares>,
    /// The changes it has.
    pub(crate) generation: u64,
    /// Where the content belongs.
    pub(crate) at: RemotePath,
}

/// A record that has left its place, where there may be another by now.
#[derive(Debug)]
#[must_use]
pub(crate) struct Leaving {
    entry: Entry,
    moved: io::Result<Option<Spare>>,
}

impl Leaving {
    /// The staged file may go, too.
    pub(crate) fn finish(self) {
        let Self { entry, moved } = self;
        let removed = moved.and_then(|spare| {
            // Else a power cut brings back what was removed, or replaced by others, meanwhile.
            if entry.sync {
                sync_dir(entry.path.parent())?;
            }
            Ok(spare)
        });
        match removed {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                // Then its bytes must stay as well.
                log::error!("{}: {err}", entry.path.display());
            }
            Ok(Some(spare)) => {
                entry.spares.keep(spare);
                entry.named.release();
            }
            _ => entry.named.release(),
        }
    }
}

impl Entry {
    /// The content is on the server, or nobody wants it any more. A new record of the same staged
    /// file would have the same place: none is made before this has returned.
    pub(crate) fn leave(self) -> Leaving {
        let moved = self.spares.put(&self.path);
        Leaving { entry: self, moved }
    }

    /// All of that at once.
    pub(crate) fn remove(self) {
        self.leave().finish();
    }

    /// Another record took its place: under the same name, or under another.
    pub(crate) fn superseded(self, by: &Self) {
        if self.path == by.path {
            self.named.release();
        } else {
            self.remove();
        }
    }

    /// Whether it is about this staged file.
    pub(crate) fn is_of(&self, named: &Arc<Named>) -> bool {
        Arc::ptr_eq(&self.named, named)
    }

    /// The staged bytes are in `lost+found`: the record goes, they stay.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What an earlier mount recorded.
#[derive(Debug)]
pub struct Saved {
    pub(crate) entry: Entry,
    pub(crate) frozen: Frozen,
    /// The server's version that it was made from.
    pub(crate) base: Option<Attr>,
    pub(crate) replaces: Option<Replaces>,
}

impl Saved {
    /// Where it belongs.
    #[must_use]
    pub const fn path(&self) -> &RemotePath {
        &self.entry.at
    }
}

impl Journal {
    /// `dir` is made at the first record. Records of another `account` are not believed.
    /// `spares` are used for records.
    pub(crate) fn new(dir: PathBuf, account: &str, sync: bool, spares: &Arc<Spares>) -> Self {
        Self {
            dir,
            account: account.to_owned(),
            sync,
            next: AtomicU64::new(1),
            spares: Arc::clone(spares),
        }
    }

    /// Records that `frozen` belongs at `at`.
    pub(crate) fn record(
        &self,
        at: &RemotePath,
        frozen: &Frozen,
        base: Option<&Attr>,
        replaces: Option<Replaces>,
    ) -> Result<Entry> {
        let name = frozen.named.name();
        let record = Record {
            sequence: self.next.fetch_add(1, Ordering::Relaxed),
            account: self.account.clone(),
            shown: at.to_string(),
            path: spelled(at),
            staged: name.clone(),
            len: frozen.len,
            base_len: frozen.base_len,
            unchanged: frozen.unchanged,
            local: frozen.local.clone(),
            base: base.map(Base::of),
            replaces: replaces.map(Expected::of),
            mtime: frozen.attr.mtime.map(seconds),
            mode: frozen.attr.mode,
            sent: frozen.sent.map(|(size, time)| (size, seconds(time))),
        };
        let path = self.dir.join(&name);
        let written = self.write(&path, &record, &frozen.named);
        written.map_err(|err| Error::local(path.display(), &err))?;
        frozen.named.hold();
        Ok(Entry {
            path,
            named: Arc::clone(&frozen.named),
            record: Box::new(record),
            sync: self.sync,
            spares: Arc::clone(&self.spares),
            generation: frozen.generation,
            at: at.clone(),
        })
    }

    /// The server has got another version from here, which is what `entry` is to replace: below
    /// `unchanged` the two are the same.
    pub(crate) fn rebase(&self, entry: &mut Entry, base: &Attr, unchanged: u64) -> Result<()> {
        let record = &mut entry.record;
        record.base = Some(Base::of(base));
        record.replaces = None;
        record.sent = None;
        record.unchanged = unchanged;
        let written = self.write(&entry.path, record, &entry.named);
        written.map_err(|err| Error::local(entry.path.display(), &err))
    }

    fn write(&self, path: &Path, record: &Record, named: &Named) -> io::Result<()> {
        let text = record.encode()?;
        if self.sync {
            named.file().sync_data()?;
            sync_dir(named.path().parent())?;
        }
        let whole = path.with_extension("new");
        let spare = self.spares.take(&whole);
        let mut file = match spare.map_or_else(|| create(&whole), Ok) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700).create(&self.dir)?;
                if self.sync {
                    sync_dir(self.dir.parent())?;
                }
                create(&whole)?
            }
            other => other?,
        };
        let written = file.write_all(&text).and_then(|()| {
            if self.sync {
                file.sync_data()?;
            }
            fs::rename(&whole, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&whole);
        }
        written?;
        if self.sync {
            sync_dir(Some(&self.dir))?;
        }
        Ok(())
    }

    /// What an earlier mount acknowledged and had not brought to the server. What is damaged, or
    /// meant for another server, goes to `lost+found`, and so does what was never acknowledged.
    pub(crate) fn recover(&self, staging: &StagingDir) -> Result<Vec<Saved>> {
        let mut records = self.read_all()?;
        records.sort_by_key(|(_, record)| std::cmp::Reverse(record.sequence));
        let (mut saved, mut paths) = (Vec::<Saved>::new(), HashSet::new());
        let highest = records.first().map_or(0, |(_, record)| record.sequence);
        self.next.store(highest + 1, Ordering::Relaxed);
        for (path, record) in records {
            let (Ok(named), Some(at)) = (staging.find(&record.staged), record.path()) else {
                log::error!("{}: its content is gone", record.shown);
                let _ = fs::remove_file(&path);
                continue;
            };
            let named = Arc::new(named);
            let entry = Entry {
                path,
                named: Arc::clone(&named),
                record: Box::new(record.clone()),
                sync: self.sync,
                spares: Arc::clone(&self.spares),
                generation: 1,
                at: at.clone(),
            };
            if !paths.insert(at.clone()) {
                // Another took its place, and the mount was killed in between.
                entry.remove();
                continue;
            }
            let metadata = named.file().metadata();
            let whole = metadata.is_ok_and(|found| found.len() >= record.end());
            let why = if record.account != self.account {
                format!("it belongs to {}, not to {}", record.account, self.account)
            } else if !whole {
                "its bytes did not survive".to_owned()
            } else {
                saved.push(Saved {
                    frozen: frozen(&record, named),
                    base: record.base.map(Base::attr),
                    replaces: record.replaces.map(Expected::replaces),
                    entry,
                });
                continue;
            };
            let name = at.split().map(|(_, name)| PathBuf::from(name.as_os_str()));
            let what = at.to_string();
            let kept = staging.keep(&named, &name.unwrap_or_default(), &what, &why)?;
            log::error!(
                "{what}: not on the server: {why}; kept as {}",
                kept.display()
            );
            entry.forget();
        }
        let known: HashSet<PathBuf> = saved
            .iter()
            .map(|saved| saved.frozen.named.path().to_path_buf())
            .collect();
        staging.rescue(|path| known.contains(path))?;
        // In the order in which they were acknowledged.
        saved.reverse();
        Ok(saved)
    }

    fn read_all(&self) -> Result<Vec<(PathBuf, Record)>> {
        let failed = |err: &io::Error| Error::local(self.dir.display(), err);
        let entries = match fs::read_dir(&self.dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|err| failed(&err))?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|err| failed(&err))?.path();
            let text = fs::read(&path).map_err(|err| failed(&err))?;
            let unfinished = path.extension().is_some_and(|end| end == "new");
            match Record::decode(&text).filter(|_| !unfinished) {
                Some(record) => records.push((path, record)),
                None => {
                    if !unfinished {
                        log::error!("{}: a damaged record", path.display());
                    }
                    fs::remove_file(&path).map_err(|err| failed(&err))?;
                }
            }
        }
        Ok(records)
    }
}

fn frozen(record: &Record, named: Arc<Named>) -> Frozen {
    Frozen {
        named,
        generation: 1,
        len: record.len,
        base_len: record.base_len,
        unchanged: record.unchanged,
        local: record.local.clone(),
        attr: record.attr(),
        sent: record.sent(),
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn sync_dir(dir: Option<&Path>) -> io::Result<()> {
    match dir {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
