//! Turning one stream of bytes into another, a buffer at a time.

use std::io::{self, Read, Write};

const CHUNK: usize = 16 * 1024;

/// Something that encodes or decodes. How its input is cut into pieces changes nothing.
pub trait Filter {
    /// Takes `input` and appends what is now certain to `out`.
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>);

    /// Appends what was held back; nothing is fed after it.
    fn finish(&mut self, out: &mut Vec<u8>);
}

impl<F: Filter + ?Sized> Filter for Box<F> {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        (**self).feed(input, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        (**self).finish(out);
    }
}

/// Leaves everything as it is.
#[derive(Debug, Default)]
pub struct Plain;

impl Filter for Plain {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(input);
    }

    fn finish(&mut self, _out: &mut Vec<u8>) {}
}

/// One filter behind the other.
#[derive(Debug, Default)]
pub struct Chain<A, B> {
    first: A,
    second: B,
    between: Vec<u8>,
}

impl<A: Filter, B: Filter> Chain<A, B> {
    /// What leaves `first` enters `second`.
    pub const fn new(first: A, second: B) -> Self {
        Self {
            first,
            second,
            between: Vec::new(),
        }
    }
}

impl<A: Filter, B: Filter> Filter for Chain<A, B> {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.between.clear();
        self.first.feed(input, &mut self.between);
        self.second.feed(&self.between, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.between.clear();
        self.first.finish(&mut self.between);
        self.second.feed(&self.between, out);
        self.second.finish(out);
    }
}

/// Reads `source` through a filter.
#[derive(Debug)]
pub struct Filtered<R, F> {
    source: R,
    filter: F,
    chunk: Box<[u8]>,
    ready: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<R: Read, F: Filter> Filtered<R, F> {
    /// What `source` has left, through `filter`.
    pub fn new(source: R, filter: F) -> Self {
        Self {
            source,
            filter,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            ready: Vec::new(),
            taken: 0,
            ended: false,
        }
    }
}

impl<R: Read, F: Filter> Read for Filtered<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() && !self.ended {
            self.ready.clear();
            self.taken = 0;
            match self.source.read(&mut self.chunk)? {
                0 => {
                    self.ended = true;
                    self.filter.finish(&mut self.ready);
                }
                n => self
                    .filter
                    .feed(self.chunk.get(..n).unwrap_or_default(), &mut self.ready),
            }
        }
        let mut rest = self.ready.get(self.taken..).unwrap_or_default();
        let n = rest.read(buf)?;
        self.taken += n;
        Ok(n)
    }
}

/// Sends all of `source` through `filter` into `sink`; returns the bytes written.
///
/// # Errors
/// Those of `source` and `sink`.
pub fn pass(
    source: &mut dyn Read,
    filter: &mut dyn Filter,
    sink: &mut dyn Write,
) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut out = Vec::new();
    let mut written = 0;
    loop {
        out.clear();
        let n = source.read(&mut chunk)?;
        match n {
            0 => filter.finish(&mut out),
            _ => filter.feed(chunk.get(..n).unwrap_or_default(), &mut out),
        }
        sink.write_all(&out)?;
        written += out.len() as u64;
        if n == 0 {
            return Ok(written);
        }
    }
}

/// Runs `filter` over `input`, cut at `cut` into two pieces.
#[cfg(test)]
pub(super) fn run(mut filter: impl Filter, input: &[u8], cut: usize) -> Vec<u8> {
    let (head, tail) = input.split_at(cut.min(input.len()));
    let mut out = Vec::new();
    filter.feed(head, &mut out);
    filter.feed(tail, &mut out);
    filter.finish(&mut out);
    out
}
