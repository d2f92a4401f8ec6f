//! Buffers for reads, kept to be used again: a fresh megabyte costs as much as filling it.

use crate::sync::Locked;

/// Most buffers kept.
const KEPT: usize = 4;

/// A small store of read buffers.
#[derive(Default)]
pub(super) struct Buffers(Locked<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of `len` bytes with arbitrary content.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.with(Vec::pop).unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Keeps `buffer` for the next read.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        self.0.with(|kept| {
            if kept.len() < KEPT {
                kept.push(buffer);
            }
        });
    }
}
