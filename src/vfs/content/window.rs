//! Data of a stream in memory, counted against the budget of the mount.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::vfs::chunk::Chunk;

/// The memory that all windows of a mount may take together, in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new(total: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self { total, used }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.total);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a stream read last, as a run of chunks.
#[derive(Debug)]
pub(crate) struct Window {
    start: u64,
    end: u64,
    chunks: VecDeque<Chunk>,
    /// The most it may hold.
    limit: usize,
    /// Taken from the budget: what it holds, and what was reserved.
    counted: usize,
    budget: Arc<Budget>,
}

impl Window {
    /// An empty window at `offset` that may hold `limit` bytes.
    pub(crate) const fn new(offset: u64, limit: usize, budget: Arc<Budget>) -> Self {
        Self {
            start: offset,
            end: offset,
            chunks: VecDeque::new(),
            limit,
            counted: 0,
            budget,
        }
    }

    /// The bytes it has. The end is the position of the stream.
    pub(crate) const fn span(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Bytes of the budget that it has.
    pub(crate) const fn counted(&self) -> usize {
        self.counted
    }

    /// Bytes from `offset` on that are in one piece, at most `len`.
    pub(crate) fn get(&self, offset: u64, len: usize) -> Option<Chunk> {
        let mut from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        for chunk in &self.chunks {
            if from < chunk.len() {
                return Some(chunk.part(from, len));
            }
            from -= chunk.len();
        }
        None
    }

    /// Takes `bytes` of the budget for what is read next. What ends at `unread` or before may have
    /// to go for that.
    pub(crate) fn reserve(&mut self, bytes: usize, unread: u64) -> bool {
        loop {
            if self.counted + bytes <= self.limit && self.budget.take(bytes) {
                self.counted += bytes;
                return true;
            }
            let first = self
                .chunks
                .front()
                .map_or(u64::MAX, |c| self.start + c.len() as u64);
            if first > unread || !self.drop_first() {
                return false;
            }
        }
    }

    /// The stream read `chunk`, for which `reserved` bytes were taken. Without them the window is
    /// empty behind it.
    pub(crate) fn push(&mut self, chunk: Chunk, reserved: usize) {
        self.end += chunk.len() as u64;
        if reserved < chunk.len() {
            while self.drop_first() {}
            self.start = self.end;
            self.give_back(reserved);
            return;
        }
        self.give_back(reserved - chunk.len());
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// Gives back what was reserved and not needed.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.counted = self.counted.saturating_sub(bytes);
        self.budget.give(bytes);
    }

    /// Gives memory back, the oldest bytes first, until it has no more than `most`; only what ends
    /// at `unread` or before.
    pub(crate) fn shrink(&mut self, most: usize, unread: u64) {
        while self.counted > most {
            let first = self
                .chunks
                .front()
                .map_or(u64::MAX, |c| self.start + c.len() as u64);
            if first > unread || !self.drop_first() {
                return;
            }
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some(chunk) = self.chunks.pop_front() else {
            return false;
        };
        self.start += chunk.len() as u64;
        self.give_back(chunk.len());
        true
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.give(self.counted);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn it_has_the_last_bytes_whatever_the_sizes() {
        let file = content(1000);
        for limit in [0, 1, 7, 64, 100, 1000, 2000] {
            for step in [1, 3, 64, 65, 333] {
                let budget = Arc::new(Budget::new(4096));
                let mut window = Window::new(0, limit, Arc::clone(&budget));
                for (i, data) in file.chunks(step).enumerate() {
                    let reserved = window.reserve(data.len(), u64::MAX);
                    assert_eq!(reserved, data.len() <= limit);
                    let reserved = if reserved { data.len() } else { 0 };
                    window.push(Chunk::new(data.to_vec()), reserved);
                    let span = window.span();
                    assert_eq!(span.end, (i * step + data.len()) as u64);
                    assert!(span.end - span.start <= limit as u64);
                    assert!(reserved == 0 || span.end - span.start >= data.len() as u64);
                    for at in span.clone() {
                        let got = window.get(at, 10).unwrap();
                        let from = at as usize;
                        assert!(file[from..span.end as usize].starts_with(got.as_slice()));
                    }
                    assert!(window.get(span.end, 1).is_none());
                    assert_eq!(budget.used(), window.counted());
                }
                drop(window);
                assert_eq!(budget.used(), 0);
            }
        }
    }

    #[test]
    fn what_is_unread_stays_and_the_budget_is_kept() {
        let budget = Arc::new(Budget::new(256));
        let mut window = Window::new(0, 300, Arc::clone(&budget));
        for _ in 0..2 {
            assert!(window.reserve(100, 0));
            window.push(Chunk::new(content(100)), 100);
        }
        assert!(
            !window.reserve(100, 0),
            "over the budget, and nothing was read"
        );
        assert!(window.reserve(50, 0));
        window.give_back(50);
        assert!(window.reserve(100, 100));
        // Less came than was hoped for.
        window.push(Chunk::new(content(30)), 100);
        assert_eq!((window.span(), budget.used()), (100..230, 130));
        window.shrink(0, 150);
        assert_eq!(window.span(), 100..230);
        window.shrink(0, 200);
        assert_eq!((window.span(), budget.used()), (200..230, 30));
        // No memory for what comes next.
        window.push(Chunk::new(content(10)), 0);
        assert_eq!((window.span(), budget.used()), (240..240, 0));
    }
}
