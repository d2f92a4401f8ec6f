//! What a read got so far. What came in one piece is not copied.

use std::sync::Arc;

use crate::vfs::chunk::{Buffer, Chunk, Pool};

/// See the module.
pub(super) struct Gathered<'a> {
    pool: &'a Arc<Pool>,
    len: usize,
    one: Option<Chunk>,
    buffer: Option<Buffer>,
    /// Bytes.
    pub(super) done: usize,
}

impl<'a> Gathered<'a> {
    pub(super) const fn new(pool: &'a Arc<Pool>, len: usize) -> Self {
        Self {
            pool,
            len,
            one: None,
            buffer: None,
            done: 0,
        }
    }

    /// Space for the next `most` bytes.
    pub(super) fn space(&mut self, most: usize) -> &mut [u8] {
        let one = self.one.take();
        let buffer = self.buffer.get_or_insert_with(|| self.pool.take(self.len));
        if let Some(one) = one {
            one.copy_to(buffer.as_mut_slice());
        }
        let end = self.done.saturating_add(most).min(self.len);
        let space = buffer.as_mut_slice().get_mut(self.done..end);
        space.unwrap_or_default()
    }

    pub(super) fn add(&mut self, chunk: Chunk) {
        let len = chunk.len();
        if self.done == 0 && self.buffer.is_none() {
            self.one = Some(chunk);
        } else {
            chunk.copy_to(self.space(len));
        }
        self.done += len;
    }

    pub(super) fn end(self) -> Chunk {
        match (self.one, self.buffer) {
            (Some(one), _) => one,
            (None, Some(buffer)) => buffer.filled(self.done),
            (None, None) => Chunk::new(Vec::new()),
        }
    }
}
