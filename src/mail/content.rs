//! Bytes that can be read more than once: what is composed and taken apart is never whole in
//! memory, so it is read once to look and once to copy.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A readable, seekable stream.
pub trait Stream: Read + Seek {}

impl<T: Read + Seek> Stream for T {}

/// Something that can be opened again and again, with the same bytes each time.
pub trait Content {
    /// A stream at the first byte.
    ///
    /// # Errors
    /// Those of the file system.
    fn open(&self) -> io::Result<Box<dyn Stream + '_>>;
}

impl Content for Path {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        Ok(Box::new(File::open(self)?))
    }
}

impl Content for PathBuf {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        self.as_path().open()
    }
}

impl Content for [u8] {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        Ok(Box::new(Cursor::new(self)))
    }
}

impl Content for &[u8] {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        (**self).open()
    }
}

impl Content for Vec<u8> {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        self.as_slice().open()
    }
}

/// A stretch of a content, from `start` on, at most `len` bytes.
///
/// # Errors
/// Those of the content.
pub fn range(content: &dyn Content, start: u64, len: u64) -> io::Result<impl Read + '_> {
    let mut stream = content.open()?;
    stream.seek(SeekFrom::Start(start))?;
    Ok(stream.take(len))
}

/// Some bytes in memory, and behind them the rest of a content from `from` on.
pub struct Joined<'a> {
    /// What comes first.
    pub head: Vec<u8>,
    /// What comes behind it, from `from` on.
    pub tail: &'a dyn Content,
    /// Where in `tail` to begin.
    pub from: u64,
}

impl std::fmt::Debug for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Joined({} bytes, and from {} on)",
            self.head.len(),
            self.from
        )
    }
}

impl Content for Joined<'_> {
    fn open(&self) -> io::Result<Box<dyn Stream + '_>> {
        Ok(Box::new(JoinedStream {
            head: &self.head,
            tail: self.tail.open()?,
            from: self.from,
            at: 0,
            tail_at: None,
        }))
    }
}

struct JoinedStream<'a> {
    head: &'a [u8],
    tail: Box<dyn Stream + 'a>,
    from: u64,
    at: u64,
    tail_at: Option<u64>,
}

impl Read for JoinedStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(self.at).unwrap_or(usize::MAX);
        let n = match self.head.get(start..) {
            Some(mut rest @ [_, ..]) => rest.read(buf)?,
            _ => {
                let wanted = self.at - self.head.len() as u64 + self.from;
                if self.tail_at != Some(wanted) {
                    self.tail.seek(SeekFrom::Start(wanted))?;
                }
                let n = self.tail.read(buf)?;
                self.tail_at = Some(wanted + n as u64);
                n
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for JoinedStream<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let head = self.head.len() as u64;
        let base = match to {
            SeekFrom::Start(at) => {
                self.at = at;
                return Ok(at);
            }
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => {
                let end = self.tail.seek(SeekFrom::End(0))?;
                self.tail_at = None;
                (head + end.saturating_sub(self.from)).checked_add_signed(by)
            }
        };
        self.at = base.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn joined_bytes_read_as_one() {
        let tail = b"0123456789".to_vec();
        let joined = Joined {
            head: b"abc".to_vec(),
            tail: &tail,
            from: 4,
        };
        let mut all = String::new();
        joined.open().unwrap().read_to_string(&mut all).unwrap();
        assert_eq!(all, "abc456789");
        for at in 0..12 {
            let mut rest = String::new();
            range(&joined, at, 4)
                .unwrap()
                .read_to_string(&mut rest)
                .unwrap();
            let at = (at as usize).min(9);
            assert_eq!(rest, all[at..(at + 4).min(9)]);
        }
        assert_eq!(joined.open().unwrap().seek(SeekFrom::End(-1)).unwrap(), 8);
    }
}
