//! The intent log: what is under way on the server that a crash would leave half done.
//!
//! ```text
//! STATE/intents    one line for each name that was put to use, one for each that is done with
//! ```
//!
//! A temporary name is written down before the server hears of it, so that the next mount can see
//! to what a killed one left: see [`sweep`](super::sweep). Where a version that is nobody else's
//! copy is to be moved, the line is on the disk before the command goes out, and survives a power
//! cut; a line about a new content, of which nothing is lost, costs no more than a write. A line
//! that comes back after its end was lost does no harm: the server is looked at, and never the log
//! alone believed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::sync::Locked;
use crate::vfs::error::{Error, Result};
use crate::vfs::path::RemotePath;
use crate::vfs::sealed::{seal, unseal};

/// The log's name in a mount's state directory.
pub const INTENTS: &str = "intents";

/// From how many bytes on the log is emptied where nothing is under way.
const TIDY: u64 = 64 << 10;

/// From how many bytes on it is written anew with what is under way.
const LONGEST: u64 = 1 << 20;

/// Times this near to each other may be one: FAT keeps every other second.
const SLACK: Duration = Duration::from_secs(2);

/// What is to become of a name, whatever happens to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Intent {
    /// It goes: a new content on its way, or an old one that was replaced for certain.
    Remove,
    /// It is the old version of `home`, and goes when the new one has taken its place.
    Replace {
        #[serde(with = "spelled")]
        home: RemotePath,
        /// What takes the place, as far as it can be told from others'.
        by: Option<Successor>,
    },
    /// It is what had the name `home`, where mostly nothing is, and stays beside what has it then.
    Unseen {
        #[serde(with = "spelled")]
        home: RemotePath,
    },
    /// It is somebody else's version of `home`, and stays beside ours.
    Keep {
        #[serde(with = "spelled")]
        home: RemotePath,
    },
    /// A command that moves `home` there may come yet: see [`bar`](super::bar).
    Late {
        #[serde(with = "spelled")]
        home: RemotePath,
        /// Until when.
        until: SystemTime,
        /// A directory of ours has the name, and nothing can be moved there.
        barred: bool,
    },
}

impl Intent {
    /// Whether the name may stand for the only copy of something.
    pub(super) const fn is_precious(&self) -> bool {
        !matches!(self, Self::Remove | Self::Late { .. })
    }

    /// Where it came from.
    pub(super) fn into_home(mut self) -> Option<RemotePath> {
        self.home().cloned()
    }

    /// As [`into_home`](Self::into_home), to be changed.
    pub(super) const fn home(&mut self) -> Option<&mut RemotePath> {
        match self {
            Self::Remove => None,
            Self::Replace { home, .. }
            | Self::Unseen { home }
            | Self::Keep { home }
            | Self::Late { home, .. } => Some(home),
        }
    }
}

/// A version that is about to take another's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Successor {
    /// The name it leaves.
    #[serde(with = "spelled")]
    pub(super) from: RemotePath,
    /// That name is a temporary one of ours.
    pub(super) temporary: bool,
    /// Bytes.
    pub(super) size: u64,
    /// Last modification, where it was told exactly.
    pub(super) mtime: Option<SystemTime>,
}

impl Successor {
    /// Whether a file of this size and time can be it.
    pub(super) fn is(&self, size: Option<u64>, mtime: Option<SystemTime>) -> bool {
        let near = |(a, b): (SystemTime, SystemTime)| super::times::apart(a, b) <= SLACK;
        let same_time = match (self.mtime, mtime) {
            (Some(then), Some(now)) => near((then, now)),
            // A user's own file has no name that nobody else would give it.
            _ => self.temporary,
        };
        size == Some(self.size) && same_time
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Begun {
        #[serde(with = "spelled")]
        name: RemotePath,
        intent: Intent,
    },
    Ended {
        #[serde(with = "spelled")]
        name: RemotePath,
    },
}

/// The names in use, and their log where there is one.
#[derive(Debug, Default)]
pub struct Intents {
    /// `None`: they are forgotten with this process.
    path: Option<PathBuf>,
    state: Locked<State>,
}

#[derive(Debug, Default)]
struct State {
    live: HashMap<RemotePath, Intent>,
    /// Opened when the first line is written; again when one could not be written whole.
    log: Option<Log>,
    /// A failure was told.
    told: bool,
}

#[derive(Debug)]
struct Log {
    file: Arc<File>,
    /// Bytes.
    len: u64,
    /// The directory is on the disk with it.
    entered: bool,
}

impl Intents {
    /// The log at `path`, and what an earlier mount left in it.
    ///
    /// # Errors
    /// Those of the local disk.
    pub fn open(path: PathBuf) -> Result<Self> {
        let failed = |err: &io::Error| Error::local(path.display(), err);
        let (mut live, damaged) = read(&path).map_err(|err| failed(&err))?;
        if damaged > 0 {
            log::error!("{}: {damaged} damaged lines", path.display());
        }
        // Whether a temporary name is gone since it became another's, or since we removed it, is
        // known only as long as it was in use.
        let in_use: Vec<RemotePath> = live.keys().cloned().collect();
        for intent in live.values_mut() {
            if let Intent::Replace { by, .. } = intent {
                by.take_if(|by| by.temporary && !in_use.contains(&by.from));
            }
        }
        let state = Locked::new(State {
            live,
            ..State::default()
        });
        let path = Some(path);
        Ok(Self { path, state })
    }

    /// Writes down what is to become of `name`; `durable`: on the disk when this returns.
    ///
    /// # Errors
    /// Where it is durable, those of the local disk; then nothing may be done.
    pub(super) fn begin(&self, name: &RemotePath, intent: Intent, durable: bool) -> Result<()> {
        let line = Line::Begun {
            name: name.clone(),
            intent: intent.clone(),
        };
        let written = self.state.with(|state| {
            state.live.insert(name.clone(), intent);
            state.write(self.path.as_deref(), &line)
        });
        let synced = written.and_then(|log| match log {
            Some((file, entered)) if durable => self.sync(&file, entered),
            _ => Ok(()),
        });
        let Err(err) = synced else {
            return Ok(());
        };
        let path = self.path.as_deref().unwrap_or_else(|| Path::new(INTENTS));
        let err = Error::local(path.display(), &err);
        if durable {
            self.state.with(|state| {
                state.live.remove(name);
                state.log = None;
            });
            return Err(err);
        }
        self.complain(&err);
        Ok(())
    }

    fn sync(&self, file: &File, entered: bool) -> io::Result<()> {
        file.sync_data()?;
        if entered {
            return Ok(());
        }
        sync_dir(self.path.as_deref())?;
        self.state.with(|state| {
            if let Some(log) = &mut state.log {
                log.entered = true;
            }
        });
        Ok(())
    }

    fn complain(&self, err: &Error) {
        if !self
            .state
            .with(|state| std::mem::replace(&mut state.told, true))
        {
            log::warn!("{err}; what a crash leaves on the server will not be removed");
        }
    }

    /// `name` is done with. Where it stays on the server under that name, `kept`, this is on the
    /// disk when it returns: else a power cut would bring it back to a file that was removed since.
    pub(super) fn end(&self, name: &RemotePath, kept: bool) {
        let line = Line::Ended { name: name.clone() };
        let written = self.state.with(|state| {
            state.live.remove(name)?;
            Some(state.write(self.path.as_deref(), &line))
        });
        let synced = match written {
            Some(Ok(Some((file, entered)))) if kept => self.sync(&file, entered),
            Some(Err(err)) => Err(err),
            _ => Ok(()),
        };
        if let (Err(err), Some(path)) = (synced, &self.path) {
            self.complain(&Error::local(path.display(), &err));
        }
    }

    /// What is to become of `name`, if it is in use.
    pub(super) fn of(&self, name: &RemotePath) -> Option<Intent> {
        self.state.with(|state| state.live.get(name).cloned())
    }

    /// Every name in use.
    pub(super) fn names(&self) -> Vec<RemotePath> {
        self.state
            .with(|state| state.live.keys().cloned().collect())
    }

    /// We removed the temporary name `from`: that it is gone does not show any more that it became
    /// another's.
    pub(super) fn removed(&self, from: &RemotePath) {
        self.state.with(|state| {
            for intent in state.live.values_mut() {
                if let Intent::Replace { by, .. } = intent {
                    by.take_if(|by| by.from == *from);
                }
            }
        });
    }

    /// `from` and all below it is now at `to`: so are these names and their homes. What is not under
    /// way any more, `idle`, is written down anew.
    pub(super) fn moved(&self, from: &RemotePath, to: &RemotePath, idle: &[RemotePath]) {
        for name in idle {
            let (Some(mut intent), Some(now)) = (self.of(name), name.rebase(from, to)) else {
                continue;
            };
            if let Some(home) = intent.home()
                && let Some(moved) = home.rebase(from, to)
            {
                *home = moved;
            }
            if self.begin(&now, intent, false).is_ok() {
                self.end(name, false);
            }
        }
    }

    /// The mount is at its end: the log goes if nothing is left in it.
    pub(super) fn close(&self) {
        self.state.with(|state| {
            if let Some(path) = self.path.as_deref().filter(|_| state.live.is_empty()) {
                state.log = None;
                let _ = fs::remove_file(path);
            }
        });
    }
}

impl State {
    /// Adds `line`, which `live` has already. The file, and whether its directory is on the disk.
    fn write(&mut self, path: Option<&Path>, line: &Line) -> io::Result<Option<(Arc<File>, bool)>> {
        let Some(path) = path else {
            return Ok(None);
        };
        let log = match self.log.take() {
            Some(mut log) if self.live.is_empty() && log.len > TIDY => {
                log.file.set_len(0)?;
                log.len = 0;
                log
            }
            Some(mut log) if log.len < LONGEST => {
                let text = seal(line)?;
                (&*log.file).write_all(text.as_bytes())?;
                log.len += text.len() as u64;
                log
            }
            // A line that was not written whole would spoil the next.
            _ => Log::anew(path, &self.live)?,
        };
        let shown = (Arc::clone(&log.file), log.entered);
        self.log = Some(log);
        Ok(Some(shown))
    }
}

impl Log {
    /// Replaces what is at `path` by a log of what is `live`, in one step.
    fn anew(path: &Path, live: &HashMap<RemotePath, Intent>) -> io::Result<Self> {
        let new = path.with_extension("new");
        let mut text = String::new();
        for (name, intent) in live {
            text += &seal(&Line::Begun {
                name: name.clone(),
                intent: intent.clone(),
            })?;
        }
        let written = Self::create(&new, &text).and_then(|file| {
            // It takes the place of lines that are on the disk.
            let entered = live.values().any(Intent::is_precious);
            if entered {
                file.sync_data()?;
            }
            fs::rename(&new, path)?;
            if entered {
                sync_dir(Some(path))?;
            }
            Ok(Self {
                file: Arc::new(file),
                len: text.len() as u64,
                entered,
            })
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    fn create(path: &Path, text: &str) -> io::Result<File> {
        let _ = fs::remove_file(path);
        let mut options = File::options();
        let mut file = options
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    }
}

/// Whether the log in the state directory `dir` has something that the next mount will see to.
#[must_use]
pub fn has_intents(dir: &Path) -> bool {
    read(&dir.join(INTENTS)).map_or(true, |(live, _)| !live.is_empty())
}

/// What is under way by the log at `path`, and how many lines are damaged: not the torn end.
fn read(path: &Path) -> io::Result<(HashMap<RemotePath, Intent>, usize)> {
    let bytes = match fs::read(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    Ok(understood(&bytes))
}

/// What the lines of a log say, and how many are damaged.
fn understood(bytes: &[u8]) -> (HashMap<RemotePath, Intent>, usize) {
    let (mut live, mut damaged) = (HashMap::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(whole) = line.strip_suffix(b"\n") else {
            break;
        };
        match unseal(whole) {
            Some(Line::Begun { name, intent }) => {
                live.insert(name, intent);
            }
            Some(Line::Ended { name }) => {
                live.remove(&name);
            }
            None => damaged += 1,
        }
    }
    (live, damaged)
}

/// The directory of `path` to the disk.
fn sync_dir(path: Option<&Path>) -> io::Result<()> {
    match path.and_then(Path::parent) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// A path's bytes in base64.
mod spelled {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::vfs::path::RemotePath;

    pub(super) fn serialize<S: Serializer>(path: &RemotePath, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(path.as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RemotePath, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        RemotePath::parse(&bytes).map_err(D::Error::custom)
    }
}

/// A log as it is, and one whose lines are whole: what is believed of it can be written again, and a
/// name for it lies beside it.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::panic, clippy::unwrap_used, clippy::missing_panics_doc)]
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = understood(bytes);
    let sealed = bytes.split(|byte| *byte == b'\n').map(|line| {
        let sum = format!("{:08x} ", crc32fast::hash(line));
        [sum.as_bytes(), line, b"\n"].concat()
    });
    let (live, _) = understood(&sealed.collect::<Vec<_>>().concat());
    let again = live.iter().map(|(name, intent)| {
        let (name, intent) = (name.clone(), intent.clone());
        seal(&Line::Begun { name, intent }).unwrap()
    });
    assert_eq!(
        understood(again.collect::<String>().as_bytes()),
        (live.clone(), 0)
    );
    for (name, intent) in live {
        let home = intent.into_home().unwrap_or_else(|| name.clone());
        for path in [name, home] {
            let Ok(beside) = super::temporary::tilde(&path) else {
                continue;
            };
            assert_eq!(beside.parent(), path.parent());
        }
    }
}

#[cfg(test)]
mod tests;
