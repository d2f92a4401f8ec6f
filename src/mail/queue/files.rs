//! The files of the queue: one for each message that is not small, the envelope in its first line,
//! then an empty line, then the message as it was given. Small ones have the same form, and are in
//! the journal.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::Step;
use super::entry::Id;
use super::journal::Watch;
use crate::mail::envelope::{Envelope, Needs};
use crate::mail::smtp::Measure;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Longest envelope that is read back: thousands of recipients.
const LONGEST_ENVELOPE: u64 = 16 << 20;

/// Files made durable at the same time: the disk writes them together. syncfs(2) would wait for
/// everything that anybody has written.
const LANES: usize = 8;

/// A message that is not in the queue yet. Dropping it removes it.
pub struct Staged {
    pub(super) id: Id,
    pub(super) envelope: Envelope,
    /// All of it, if it is small.
    pub(super) text: Option<Arc<str>>,
    path: PathBuf,
    file: Option<File>,
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Staged {
    /// The name it will have.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.id
    }

    /// What it takes in the journal, in octets; JSON has more than the text.
    pub(super) fn octets(&self) -> u64 {
        self.text.as_ref().map_or(0, |text| 2 * text.len() as u64) + 512
    }

    /// Its envelope, with what was found out of its needs.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What stays is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[derive(Debug)]
pub(super) struct Files {
    tmp: PathBuf,
    messages: PathBuf,
    /// `messages`, to be synced.
    dir: File,
}

impl Files {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let (tmp, messages) = (dir.join("tmp"), dir.join("message"));
        let opened = || {
            for dir in [&tmp, &messages] {
                DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            }
            File::open(dir)?.sync_all()?;
            // What a crash left half-written was never promised.
            for entry in fs::read_dir(&tmp)? {
                fs::remove_file(entry?.path())?;
            }
            File::open(&messages)
        };
        let dir = opened().map_err(|err| Error::local(dir.display(), &err))?;
        Ok(Self { tmp, messages, dir })
    }

    pub(super) fn path(&self, id: &Id) -> PathBuf {
        self.messages.join(id.as_str())
    }

    /// The ids of all files.
    pub(super) fn ids(&self) -> Result<Vec<Id>> {
        let listed = || {
            let mut ids = Vec::new();
            for entry in fs::read_dir(&self.messages)? {
                ids.extend(entry?.file_name().to_str().and_then(Id::parse));
            }
            Ok(ids)
        };
        listed().map_err(|err: io::Error| Error::local(self.messages.display(), &err))
    }

    /// Takes `message` into memory if it has at most `small` octets and is UTF-8, else into a new
    /// file.
    pub(super) fn stage(
        &self,
        id: Id,
        envelope: Envelope,
        message: &mut dyn Read,
        largest: u64,
        small: u64,
    ) -> Result<Staged> {
        let mut head = Vec::new();
        (&mut *message)
            .take(small.saturating_add(1))
            .read_to_end(&mut head)
            .map_err(|err| Error::local("message", &err))?;
        let length = head.len() as u64;
        if length <= small.min(largest)
            && let Ok(text) = std::str::from_utf8(&head)
        {
            let mut envelope = envelope;
            let mut measure = Measure::default();
            measure.add(&head);
            envelope.needs = measure.finish();
            let first = line(&envelope, 0).map_err(|err| Error::local("envelope", &err))?;
            return Ok(Staged {
                text: Some([&first, text].concat().into()),
                id,
                envelope,
                path: PathBuf::new(),
                file: None,
            });
        }
        self.stage_in_file(id, envelope, &mut head.chain(message), largest)
    }

    /// Copies `message` behind its envelope into a new file.
    fn stage_in_file(
        &self,
        id: Id,
        envelope: Envelope,
        message: &mut dyn Read,
        largest: u64,
    ) -> Result<Staged> {
        let path = self.tmp.join(id.as_str());
        let failed = |err: io::Error| Error::local(path.display(), &err);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut staged = Staged {
            id,
            envelope,
            text: None,
            path: path.clone(),
            file: Some(file),
        };
        // What it needs is known only at its end; until then the largest numbers keep the place.
        staged.envelope.needs = Needs {
            octets: u64::MAX,
            eight_bit: false,
            utf8_header: false,
            longest_line: u64::MAX,
        };
        let room = line(&staged.envelope, 0).map_err(failed)?;
        let needs = copy(staged.file.as_ref(), &room, message, largest).map_err(|err| {
            if err.kind() == io::ErrorKind::FileTooLarge {
                Error::new(
                    ErrorKind::TooLarge,
                    format!("the message is larger than {largest} octets"),
                )
            } else {
                Error::local(path.display(), &err)
            }
        })?;
        staged.envelope.needs = needs;
        let first = line(&staged.envelope, room.len()).map_err(failed)?;
        if let Some(file) = &staged.file {
            file.write_all_at(first.as_bytes(), 0).map_err(failed)?;
        }
        Ok(staged)
    }

    /// Makes `staged` durable under their names, all or none.
    pub(super) fn publish(&self, staged: &mut [Staged], watch: &Watch) -> Result<()> {
        let published = self.rename(staged, watch);
        if published.is_err() {
            self.retract(staged);
        }
        published
    }

    /// Removes what was published and is not to be sent after all.
    pub(super) fn retract(&self, staged: &[Staged]) {
        let named = |one: &&Staged| one.file.is_none() && one.text.is_none();
        for one in staged.iter().filter(named) {
            // What stays is found at the next start, and is not sent.
            let _ = fs::remove_file(self.path(&one.id));
        }
    }

    fn rename(&self, staged: &mut [Staged], watch: &Watch) -> Result<()> {
        if staged.iter().all(|one| one.file.is_none()) {
            return Ok(());
        }
        let failed = |err: io::Error| Error::local(self.messages.display(), &err);
        sync(staged).map_err(failed)?;
        watch(Step::FilesSynced)?;
        for one in staged.iter_mut().filter(|one| one.file.is_some()) {
            let to = self.path(&one.id);
            // A link fails where a name is taken; a rename would replace another message.
            fs::hard_link(&one.path, &to).map_err(failed)?;
            one.file = None;
            fs::remove_file(&one.path).map_err(failed)?;
            watch(Step::Renamed)?;
        }
        self.dir.sync_all().map_err(failed)?;
        watch(Step::DirectorySynced)
    }

    /// The envelope of a message, and the message, to be read from its beginning.
    pub(super) fn read(&self, id: &Id) -> Result<(Envelope, File)> {
        let path = self.path(id);
        let read = || {
            let file = File::open(&path)?;
            let mut lines = BufReader::new(file.take(LONGEST_ENVELOPE));
            let mut line = Vec::new();
            lines.read_until(b'\n', &mut line)?;
            let envelope = serde_json::from_slice(&line)?;
            let mut file = lines.into_inner().into_inner();
            // The empty line comes next.
            file.seek(SeekFrom::Start(line.len() as u64 + 1))?;
            Ok((envelope, file))
        };
        read().map_err(|err: io::Error| Error::local(path.display(), &err))
    }

    /// Removes a message; one that is gone already is no error.
    pub(super) fn remove(&self, id: &Id) -> Result<()> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(Error::local(path.display(), &err))
            }
            _ => Ok(()),
        }
    }

    /// Makes removals durable.
    pub(super) fn sync_dir(&self) -> Result<()> {
        let synced = self.dir.sync_all();
        synced.map_err(|err| Error::local(self.messages.display(), &err))
    }
}

/// Has the contents of `staged` on disk.
fn sync(staged: &[Staged]) -> io::Result<()> {
    let sync_all = |lane: &[Staged]| {
        let mut files = lane.iter().filter_map(|one| one.file.as_ref());
        files.try_for_each(File::sync_all)
    };
    let mut lanes = staged.chunks(staged.len().div_ceil(LANES).max(1));
    let first = lanes.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = lanes
            .map(|lane| scope.spawn(move || sync_all(lane)))
            .collect();
        others.into_iter().fold(sync_all(first), |outcome, lane| {
            outcome.and(
                lane.join()
                    .unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
            )
        })
    })
}

/// The envelope of a small message, and the message.
pub(super) fn of_text(text: &str) -> io::Result<(Envelope, &str)> {
    let (first, message) = text.split_once("\n\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok((serde_json::from_str(first)?, message))
}

/// The envelope as a line of at least `room` octets, and an empty line.
fn line(envelope: &Envelope, room: usize) -> io::Result<String> {
    let mut text = serde_json::to_string(envelope)?;
    // JSON may end with spaces; "false" and "true" differ in length, and so do numbers.
    let width = if room == 0 { text.len() + 2 } else { room - 2 };
    while text.len() < width {
        text.push(' ');
    }
    text.push_str("\n\n");
    Ok(text)
}

fn copy(
    file: Option<&File>,
    first: &str,
    message: &mut dyn Read,
    largest: u64,
) -> io::Result<Needs> {
    let Some(mut file) = file else {
        return Err(io::ErrorKind::NotFound.into());
    };
    file.write_all(first.as_bytes())?;
    let mut measure = Measure::default();
    let mut block = vec![0; 64 * 1024];
    let mut copied = 0_u64;
    loop {
        let read = match message.read(&mut block) {
            Ok(0) => return Ok(measure.finish()),
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        let piece = block.get(..read).unwrap_or_default();
        copied += read as u64;
        if copied > largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        measure.add(piece);
        file.write_all(piece)?;
    }
}
