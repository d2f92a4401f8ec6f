//! Bytes of a file in memory, read once and shared by whoever answers or keeps them.

use std::ops::Range;
use std::sync::Arc;

/// A part of a buffer that nobody changes any more. Cheap to clone and to cut.
#[derive(Debug, Clone)]
pub struct Chunk {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Chunk {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        let bytes = Arc::new(bytes);
        Self { bytes, range }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
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

    /// The whole buffer, if nobody else has a part of it.
    #[must_use]
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        Arc::try_unwrap(self.bytes).ok()
    }
}
