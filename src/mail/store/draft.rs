//! A message that is being received: a file nobody sees yet.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{Context, SHA256};

use crate::mail::header::{self, Digest};

/// What is written at once; most messages are smaller.
const CHUNK: usize = 64 * 1024;

/// Longest header that is looked at. TOP's answer is cut at the same place.
pub(super) const HEADER_KEPT: usize = 256 * 1024;

/// A message on its way into the store. Dropped, it leaves nothing behind.
pub struct Draft {
    file: Temporary,
    out: File,
    buffer: Vec<u8>,
    /// The beginning, until the header is complete.
    start: Vec<u8>,
    header_done: bool,
    hash: Context,
    size: u64,
}

/// What a finished draft is.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) file: Temporary,
    pub(super) size: u64,
    pub(super) sha256: Digest,
    pub(super) header: Digest,
    pub(super) arrival: SystemTime,
}

/// A file that goes away unless it is renamed.
#[derive(Debug)]
pub(super) struct Temporary(Option<PathBuf>);

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or_else(|| Path::new(""))
    }

    /// Gives it its name.
    pub(super) fn rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(self.path(), to)?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The next start clears the directory anyway.
            let _ = fs::remove_file(path);
        }
    }
}

impl Draft {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            file: Temporary(Some(path)),
            out,
            buffer: Vec::new(),
            start: Vec::new(),
            header_done: false,
            hash: Context::new(&SHA256),
            size: 0,
        })
    }

    /// Writes what is left and dates the file. Nothing is synced yet. `now` serves where the
    /// message does not say when it came.
    pub(super) fn finish(mut self, now: SystemTime) -> io::Result<Finished> {
        self.write_out()?;
        let head = header::header_of(&self.start);
        let arrival = header::arrival(head, now).unwrap_or(now).max(UNIX_EPOCH);
        // Whole seconds: what the name can say.
        let seconds = arrival.duration_since(UNIX_EPOCH).unwrap_or_default();
        let arrival = UNIX_EPOCH + Duration::from_secs(seconds.as_secs());
        self.out.set_modified(arrival)?;
        let mut sha256 = Digest::default();
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok(Finished {
            header: header::fingerprint(head),
            file: self.file,
            size: self.size,
            sha256,
            arrival,
        })
    }

    fn write_out(&mut self) -> io::Result<()> {
        if !self.header_done {
            let room = HEADER_KEPT.saturating_sub(self.start.len());
            // The empty line may lie on the seam.
            let from = self.start.len().saturating_sub(1);
            self.start
                .extend(self.buffer.get(..room).unwrap_or(&self.buffer));
            let fresh = self.start.get(from..).unwrap_or_default();
            self.header_done = self.start.len() == HEADER_KEPT
                || self.start.first() == Some(&b'\n')
                || memchr::memmem::find(fresh, b"\n\n").is_some();
        }
        self.hash.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({:?})", self.file)
    }
}

impl Write for Draft {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + buf.len() > CHUNK && !self.buffer.is_empty() {
            self.write_out()?;
        }
        self.buffer.extend(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}
