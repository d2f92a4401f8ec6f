//! Lines and multi-line texts from a mail server: every length and every wait is bounded.
//!
//! Replies end with CRLF, but a server that ends them with LF alone is understood too. A text that
//! ends with a line of one dot (RFC 1939 section 3) is copied straight to where it is kept, whatever
//! its size and whatever the length of its lines.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::failure::{Class, Failure};
use crate::net::{self, Deadline};

/// Size of the one buffer; the longest line that can be asked for.
const BUFFER: usize = 64 * 1024;

/// A text that arrives slower than this many octets a second, after the first wait, is given up:
/// a peer that sends a byte now and then would hold the session for ever.
const SLOWEST: u64 = 256;

/// Why a line or a text could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The connection ended.
    Closed,
    /// Nothing, or too little, came in time.
    Slow,
    /// More than this many octets before the end.
    TooLong(u64),
    /// The connection failed.
    Source(io::Error),
    /// What was read could not be kept.
    Output(io::Error),
}

impl ReadError {
    /// As a failure of `what`.
    #[must_use]
    pub fn failure(&self, what: impl std::fmt::Display) -> Failure {
        match self {
            Self::Closed => Failure::new(Class::Transient, format!("{what}: the server hung up")),
            Self::Slow => Failure::new(Class::Transient, format!("{what}: no answer in time")),
            Self::TooLong(limit) => Failure::new(
                Class::Protocol,
                format!("{what}: more than {limit} octets without an end"),
            ),
            Self::Source(err) => Failure::new(Class::Transient, format!("{what}: {err}")),
            Self::Output(err) => Failure::local(what, err),
        }
    }
}

/// How much a multi-line text was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Octets written, lines ended by LF.
    pub written: u64,
    /// Octets as the server counts them (RFC 1939 section 11): lines ended by CRLF, stuffed dots
    /// and the final line not counted.
    pub octets: u64,
}

/// Reads lines from `source`, whose single reads have a time limit of their own.
pub struct LineReader<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Without what was read, which is somebody's mail.
impl<R: fmt::Debug> fmt::Debug for LineReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader")
            .field("source", &self.source)
            .field("buffered", &(self.end - self.start))
            .finish_non_exhaustive()
    }
}

impl<R: Read> LineReader<R> {
    /// Nothing is read yet.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// The source, to write to.
    pub const fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The source, to secure it. Whatever was read ahead is dropped: what a server sent in clear
    /// text behind its answer to STLS was not sent by it (RFC 2595 section 4, CVE-2011-0411).
    pub fn into_source(self) -> R {
        self.source
    }

    /// Whether octets wait that nobody asked for.
    #[must_use]
    pub const fn has_buffered(&self) -> bool {
        self.start < self.end
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads more behind what waits.
    fn fill(&mut self) -> Result<(), ReadError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(0) => return Err(ReadError::Closed),
                Ok(read) => {
                    self.end += read;
                    return Ok(());
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ReadError::Closed);
                }
                Err(err) if net::is_timeout(&err) => return Err(ReadError::Slow),
                Err(err) => return Err(ReadError::Source(err)),
            }
        }
    }

    /// The next line without its end, at most `limit` octets, complete before `deadline` (or one
    /// time limit of the source later).
    ///
    /// # Errors
    /// All but `Output`. The connection is of no use afterwards.
    pub fn line(&mut self, limit: usize, deadline: Deadline) -> Result<&[u8], ReadError> {
        let limit = limit.min(BUFFER - 2);
        let mut searched = 0;
        let (from, length) = loop {
            let waiting = self.waiting();
            let rest = waiting.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                break (self.start, searched + at);
            }
            searched = waiting.len();
            if searched > limit + 1 {
                return Err(ReadError::TooLong(limit as u64));
            }
            deadline.left().map_err(|_| ReadError::Slow)?;
            self.fill()?;
        };
        self.start = from + length + 1;
        let line = self.buffer.get(from..from + length).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > limit {
            return Err(ReadError::TooLong(limit as u64));
        }
        Ok(line)
    }

    /// Copies a text up to its final dot to `out`: dots un-stuffed, lines ended by LF, nothing else
    /// changed. At most `limit` octets; `patience` for the first, then no slower than 256 octets a
    /// second, time spent in `out` not counted.
    ///
    /// Where the first line ends with CRLF, only CRLF ends a line as far as dots are concerned. A
    /// message may hold `LF . CRLF`, and on a server that passes it on untouched its author could
    /// otherwise end it there and write the replies that follow.
    ///
    /// # Errors
    /// The connection is of no use afterwards.
    pub fn text(
        &mut self,
        out: &mut dyn Write,
        limit: u64,
        patience: Duration,
    ) -> Result<Counts, ReadError> {
        let mut text = Text {
            out,
            counts: Counts::default(),
            ends: None,
            at_start: true,
            held_cr: false,
        };
        let mut waited = Duration::ZERO;
        loop {
            let used = text.take(self.waiting())?;
            self.start += used.octets;
            if used.finished {
                return Ok(text.counts);
            }
            if text.counts.written > limit {
                return Err(ReadError::TooLong(limit));
            }
            let before = Instant::now();
            self.fill()?;
            waited += before.elapsed();
            if waited > patience + Duration::from_secs(text.counts.octets / SLOWEST) {
                return Err(ReadError::Slow);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    CrLf,
    Lf,
}

struct Used {
    octets: usize,
    finished: bool,
}

/// A text on its way, fed in pieces cut anywhere.
struct Text<'a> {
    out: &'a mut dyn Write,
    counts: Counts,
    /// How the first line ended.
    ends: Option<Ends>,
    /// The next octet begins a line.
    at_start: bool,
    /// A CR came last and is not written: LF may follow.
    held_cr: bool,
}

impl Text<'_> {
    /// Takes what it can of `piece`; what is left is the beginning of a line that may be the last.
    fn take(&mut self, piece: &[u8]) -> Result<Used, ReadError> {
        let mut rest = piece;
        let used = |rest: &[u8], finished| Used {
            octets: piece.len() - rest.len(),
            finished,
        };
        while let Some(first) = rest.first() {
            if self.at_start && *first == b'.' {
                match rest {
                    [b'.', b'\r', b'\n', after @ ..] => return Ok(used(after, true)),
                    [b'.', b'\n', after @ ..] if self.ends != Some(Ends::CrLf) => {
                        return Ok(used(after, true));
                    }
                    [b'.'] | [b'.', b'\r'] => return Ok(used(rest, false)),
                    [_, after @ ..] => rest = after,
                    [] => {}
                }
            }
            self.at_start = false;
            match memchr::memchr(b'\n', rest) {
                Some(at) => {
                    let (line, after) = rest.split_at(at);
                    self.line(line)?;
                    rest = after.get(1..).unwrap_or_default();
                }
                None => {
                    self.part(rest)?;
                    rest = &[];
                }
            }
        }
        Ok(used(rest, false))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), ReadError> {
        let crlf = if line.is_empty() {
            std::mem::take(&mut self.held_cr)
        } else {
            line.ends_with(b"\r")
        };
        self.part(line)?;
        self.held_cr = false;
        self.put(b"\n")?;
        self.counts.octets += 1;
        let ends = if crlf { Ends::CrLf } else { Ends::Lf };
        let first = *self.ends.get_or_insert(ends);
        self.at_start = first == Ends::Lf || ends == Ends::CrLf;
        Ok(())
    }

    /// A piece of a line; a CR at its end is held back.
    fn part(&mut self, piece: &[u8]) -> Result<(), ReadError> {
        if piece.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.held_cr) {
            self.put(b"\r")?;
        }
        let text = piece.strip_suffix(b"\r").unwrap_or(piece);
        self.held_cr = text.len() < piece.len();
        self.put(text)
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), ReadError> {
        self.counts.written += octets.len() as u64;
        self.counts.octets += octets.len() as u64;
        self.out.write_all(octets).map_err(ReadError::Output)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
