//! Bytes of a file in memory, read once and shared by whoever answers or keeps them.

use std::ops::Range;
use std::sync::{Arc, Weak};

use memmap2::{Advice, MmapMut};

use crate::sync::Locked;

/// Bytes of spare buffers that are kept at most.
const SPARE: usize = 6 << 20;

/// From this length on a buffer is made of the kernel's pages.
const PAGES: usize = 64 << 10;

/// From this length on of huge ones, which a disk fills in one go: the length of such a page on
/// most machines.
const HUGE: usize = 2 << 20;

/// Buffers that were used and will be again: a fresh megabyte costs as much as filling it.
#[derive(Debug, Default)]
pub struct Pool(Locked<Spare>);

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Storage>,
    bytes: usize,
}

/// Memory of a buffer. Large ones are the kernel's own pages, which go back to it at once: what the
/// allocator of many threads keeps of them would be more than all that is in use.
#[derive(Debug)]
enum Storage {
    Heap(Vec<u8>),
    Pages(MmapMut),
    Huge {
        pages: MmapMut,
        /// Where in these the first huge page begins.
        skip: usize,
    },
}

impl Storage {
    fn new(len: usize) -> Self {
        if len >= HUGE
            && let Ok(pages) = MmapMut::map_anon(len + HUGE)
        {
            let skip = pages.as_ptr().addr().wrapping_neg() % HUGE;
            if let Err(err) = pages.advise(Advice::HugePage) {
                log::trace!("no huge pages: {err}");
            }
            return Self::Huge { pages, skip };
        }
        let pages = (len >= PAGES).then(|| MmapMut::map_anon(len));
        match pages {
            Some(Ok(pages)) => Self::Pages(pages),
            _ => Self::Heap(vec![0; len]),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Pages(pages) => pages,
            Self::Huge { pages, skip } => {
                let end = *skip + pages.len().saturating_sub(HUGE);
                pages.get(*skip..end).unwrap_or_default()
            }
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Pages(pages) => pages,
            Self::Huge { pages, skip } => {
                let end = *skip + pages.len().saturating_sub(HUGE);
                pages.get_mut(*skip..end).unwrap_or_default()
            }
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Pool {
    /// A buffer of `len` bytes with arbitrary content, which comes back when its last [`Chunk`]
    /// goes.
    #[must_use]
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let spare = self.0.with(|spare| {
            let fits = |buffer: &Storage| buffer.len() >= len && buffer.len() / 2 <= len;
            let at = spare.buffers.iter().rposition(fits)?;
            let buffer = spare.buffers.swap_remove(at);
            spare.bytes -= buffer.len();
            Some(buffer)
        });
        Buffer {
            bytes: spare.unwrap_or_else(|| Storage::new(len)),
            len,
            pool: Arc::downgrade(self),
        }
    }

    /// Gives the memory of spare buffers back.
    pub fn clear(&self) {
        let spare = self.0.with(std::mem::take);
        drop(spare);
    }

    fn give(&self, buffer: Storage) {
        let surplus = self.0.with(|spare| {
            if spare.bytes + buffer.len() > SPARE {
                return Some(buffer);
            }
            spare.bytes += buffer.len();
            spare.buffers.push(buffer);
            None
        });
        drop(surplus);
    }
}

/// A buffer to be filled.
#[derive(Debug)]
pub struct Buffer {
    bytes: Storage,
    /// What was asked for; a used buffer may be longer.
    len: usize,
    pool: Weak<Pool>,
}

impl Buffer {
    /// All of it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len;
        self.bytes.as_mut_slice().get_mut(..len).unwrap_or_default()
    }

    /// Its first `len` bytes, filled.
    #[must_use]
    pub fn filled(self, len: usize) -> Chunk {
        let range = 0..len.min(self.len);
        Chunk {
            bytes: Arc::new(self),
            range,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give(std::mem::take(&mut self.bytes));
        }
    }
}

/// A part of a buffer that nobody changes any more. Cheap to clone and to cut.
#[derive(Debug, Clone)]
pub struct Chunk {
    bytes: Arc<Buffer>,
    range: Range<usize>,
}

impl Chunk {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Buffer {
            bytes: Storage::Heap(bytes),
            len,
            pool: Weak::new(),
        }
        .filled(len)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        let all = self.bytes.bytes.as_slice();
        all.get(self.range.clone()).unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part from `from` on, at most `len` bytes of it.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> Self {
        let start = self.range.start.saturating_add(from).min(self.range.end);
        let end = start.saturating_add(len).min(self.range.end);
        Self {
            bytes: Arc::clone(&self.bytes),
            range: start..end,
        }
    }

    /// Copies what fits into `buf`, and says how much that is.
    pub fn copy_to(&self, buf: &mut [u8]) -> usize {
        let count = self.len().min(buf.len());
        let pair = (buf.get_mut(..count), self.as_slice().get(..count));
        if let (Some(to), Some(from)) = pair {
            to.copy_from_slice(from);
        }
        count
    }
}
