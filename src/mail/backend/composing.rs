//! From what lies in `outbox/` to a message and its envelopes.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::local::{self, failed};
use crate::mail::compose::{self, Account, Composed, Enclosure, Stamp};
use crate::mail::draft::{self, Place, Rules};
use crate::mail::envelope::{self, Envelope, Notify};
use crate::vfs::attr::FileKind;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Larger messages are composed on disk.
const IN_MEMORY: u64 = 1 << 20;

/// Composes the message of the file or the directory at `real`.
pub(super) fn compose_any(
    place: &Place,
    real: &Path,
    account: &Account,
    stamp: &Stamp,
    rules: &Rules<'_>,
    out: &mut dyn Write,
) -> Result<Composed> {
    if local::stat(real)?.kind != FileKind::Directory {
        let content = real.to_path_buf();
        let plan = draft::examine(place, &content, rules)?;
        return compose::compose(&plan, &content, account, stamp, rules, out);
    }
    let mut files = Vec::new();
    for entry in local::list(real)? {
        if entry.attr.is_dir() {
            let line = format!("{}: a directory in a message", entry.name);
            return Err(Error::new(ErrorKind::BadMessage, line));
        }
        let path = real.join(entry.name.as_os_str());
        files.push((entry.name, path));
    }
    let enclosures = files.iter().map(|(name, path)| Enclosure {
        name: name.as_bytes(),
        content: path,
    });
    let enclosures: Vec<_> = enclosures.collect();
    compose::compose_directory(place, &enclosures, account, stamp, rules, out)
}

/// One envelope for all recipients, or one each.
pub(super) fn envelopes(composed: &Composed) -> Result<Vec<Envelope>> {
    let address = |text: &str| {
        envelope::address(text)
            .map_err(|err| Error::new(ErrorKind::BadMessage, format!("{text}: {err}")))
    };
    let sender = address(composed.from.as_str())?;
    let to = composed.to.iter().map(|to| address(to.as_str()));
    let to: Vec<_> = to.collect::<Result<_>>()?;
    let groups: Vec<Vec<_>> = if composed.wishes.separate {
        to.into_iter().map(|to| vec![to]).collect()
    } else {
        vec![to]
    };
    let wishes = &composed.wishes;
    let notify = wishes.notify.as_deref().map(|words| Notify {
        success: words.contains("SUCCESS"),
        failure: words.contains("FAILURE"),
        delay: words.contains("DELAY"),
    });
    let send_at = wishes
        .send_at
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let made = groups.into_iter().map(|to| {
        let mut envelope = Envelope::new(Some(sender.clone()), to);
        envelope.message_id = Some(composed.message_id.clone());
        envelope.subject.clone_from(&composed.subject);
        envelope.send_at = send_at.map(|at| at.as_secs());
        envelope.bring_back = wishes.bring_back;
        envelope.kept = String::from_utf8_lossy(&composed.bcc).replace("\r\n", "\n");
        for recipient in &mut envelope.recipients {
            recipient.notify = notify;
        }
        envelope
    });
    Ok(made.collect())
}

/// A message being composed.
pub(super) enum Scratch {
    Memory(Cursor<Vec<u8>>),
    Disk(File),
}

impl Scratch {
    /// Room for a message made of `size` bytes: in memory, or in a file of `dir` without a name.
    pub(super) fn new(dir: &Path, size: u64) -> Result<Self> {
        if size < IN_MEMORY {
            return Ok(Self::Memory(Cursor::new(Vec::new())));
        }
        rustix::fs::open(
            dir,
            rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .map(|fd| Self::Disk(File::from(fd)))
        .map_err(|err| failed(dir, &err.into()))
    }
}

impl Read for Scratch {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(memory) => memory.read(buf),
            Self::Disk(file) => file.read(buf),
        }
    }
}

impl Write for Scratch {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(memory) => memory.write(buf),
            Self::Disk(file) => file.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Scratch {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        match self {
            Self::Memory(memory) => memory.seek(to),
            Self::Disk(file) => file.seek(to),
        }
    }
}
