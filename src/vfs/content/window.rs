//! Recent data of a stream in memory, counted against the budget of the mount.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// The last bytes that a stream read, as a ring: the byte at file offset `o` is at `o` modulo the
/// capacity.
#[derive(Debug)]
pub(crate) struct Window {
    start: u64,
    end: u64,
    ring: Vec<u8>,
    budget: Arc<Budget>,
}

impl Window {
    /// An empty window at `offset` that holds nothing.
    pub(crate) const fn new(offset: u64, budget: Arc<Budget>) -> Self {
        Self {
            start: offset,
            end: offset,
            ring: Vec::new(),
            budget,
        }
    }

    /// The bytes it has. The end is the position of the stream.
    pub(crate) const fn span(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(crate) fn capacity(&self) -> usize {
        self.ring.len()
    }

    /// Copies bytes from `offset` on; 0 if that is not in the window.
    pub(crate) fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        if !self.span().contains(&offset) {
            return 0;
        }
        let most = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        let len = buf.len().min(most);
        let (first, second) = self.slices(offset, len);
        let (to_first, rest) = buf.split_at_mut(first.len());
        to_first.copy_from_slice(first);
        if let Some(to_second) = rest.get_mut(..second.len()) {
            to_second.copy_from_slice(second);
        }
        len
    }

    /// The stream read `data`; what no longer fits falls out at the other end.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.end += data.len() as u64;
        let capacity = self.ring.len();
        let kept = data.split_at(data.len().saturating_sub(capacity)).1;
        self.start = self.start.max(self.end.saturating_sub(capacity as u64));
        let at = self.index(self.end - kept.len() as u64);
        let (first, second) = kept.split_at(kept.len().min(capacity - at));
        for (to, from) in [(at, first), (0, second)] {
            if let Some(to) = self.ring.get_mut(to..to + from.len()) {
                to.copy_from_slice(from);
            }
        }
    }

    /// Grows to `capacity` if the budget has it.
    pub(crate) fn grow(&mut self, capacity: usize) -> bool {
        let more = capacity.saturating_sub(self.ring.len());
        more == 0 || (self.budget.take(more) && self.rebuild(capacity))
    }

    /// Gives memory back, the oldest bytes first.
    pub(crate) fn shrink(&mut self, capacity: usize) {
        let less = self.ring.len().saturating_sub(capacity);
        if less > 0 {
            self.rebuild(capacity);
            self.budget.give(less);
        }
    }

    fn rebuild(&mut self, capacity: usize) -> bool {
        let held = usize::try_from(self.end - self.start).unwrap_or(usize::MAX);
        let start = self.end - held.min(capacity) as u64;
        let mut kept = vec![0; held.min(capacity)];
        self.copy(start, &mut kept);
        self.ring = vec![0; capacity];
        (self.start, self.end) = (start, start);
        self.push(&kept);
        true
    }

    fn index(&self, offset: u64) -> usize {
        let index = offset.checked_rem(self.ring.len() as u64).unwrap_or(0);
        usize::try_from(index).unwrap_or(0)
    }

    fn slices(&self, offset: u64, len: usize) -> (&[u8], &[u8]) {
        let at = self.index(offset);
        let (before, from) = self.ring.split_at(at);
        let first = from.get(..len.min(from.len())).unwrap_or_default();
        let second = before.get(..len - first.len()).unwrap_or_default();
        (first, second)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.give(self.ring.len());
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
        for capacity in [0, 1, 7, 64, 100, 1000, 2000] {
            for step in [1, 3, 64, 65, 333] {
                let budget = Arc::new(Budget::new(4096));
                let mut window = Window::new(0, Arc::clone(&budget));
                assert!(window.grow(capacity));
                for (i, data) in file.chunks(step).enumerate() {
                    window.push(data);
                    let end = i * step + data.len();
                    let start = end.saturating_sub(capacity);
                    assert_eq!(window.span(), start as u64..end as u64);
                    let mut buf = vec![0; capacity + 10];
                    let count = window.copy(start as u64, &mut buf);
                    assert_eq!(&buf[..count], &file[start..end], "{capacity} by {step}");
                }
                drop(window);
                assert_eq!(budget.used(), 0);
            }
        }
    }

    #[test]
    fn growing_and_shrinking_keep_the_latest() {
        let file = content(500);
        let budget = Arc::new(Budget::new(256));
        let mut window = Window::new(0, Arc::clone(&budget));
        assert!(window.grow(100));
        window.push(&file[..150]);
        assert!(window.grow(200));
        assert!(!window.grow(257), "over the budget");
        window.push(&file[150..250]);
        assert_eq!(window.span(), 50..250);
        window.shrink(30);
        assert_eq!((window.span(), budget.used()), (220..250, 30));
        let mut buf = [0; 30];
        assert_eq!(window.copy(220, &mut buf), 30);
        assert_eq!(&buf, &file[220..250]);
        window.shrink(0);
        assert_eq!((window.span(), budget.used()), (250..250, 0));
    }
}
