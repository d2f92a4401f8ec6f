//! A set of byte ranges of a file.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch each other, by their start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// Adds `range`, joining what it overlaps or touches.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&s, &e)) = self.0.range(..=end).next_back()
            && e >= start
        {
            start = start.min(s);
            end = end.max(e);
            self.0.remove(&s);
        }
        self.0.insert(start, end);
    }

    /// Removes everything from `len` on.
    pub(crate) fn truncate(&mut self, len: u64) {
        self.0.split_off(&len);
        if let Some(mut last) = self.0.last_entry() {
            *last.get_mut() = len.min(*last.get());
        }
    }

    /// Where the range that holds `offset` ends.
    pub(crate) fn run_end(&self, offset: u64) -> Option<u64> {
        let (_, &end) = self.0.range(..=offset).next_back()?;
        (end > offset).then_some(end)
    }

    /// The first range of `window` of which no byte is in the set.
    pub(crate) fn first_gap(&self, window: Range<u64>) -> Option<Range<u64>> {
        let start = self.run_end(window.start).unwrap_or(window.start);
        if start >= window.end {
            return None;
        }
        let next = self.0.range(start..).next().map(|(&s, _)| s);
        Some(start..next.map_or(window.end, |s| s.min(window.end)))
    }

    /// The ranges, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// How many ranges there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Bytes in the set.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 40;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(usize, usize),
        Truncate(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..SIZE, 0..12_usize).prop_map(|(at, len)| Op::Insert(at, (at + len).min(SIZE))),
            1 => (0..SIZE).prop_map(Op::Truncate),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_bitmap(ops in proptest::collection::vec(op(), 0..20)) {
            let mut extents = Extents::default();
            let mut bitmap = [false; SIZE];
            for op in ops {
                match op {
                    Op::Insert(from, to) => {
                        extents.insert(from as u64..to as u64);
                        bitmap[from..to].fill(true);
                    }
                    Op::Truncate(len) => {
                        extents.truncate(len as u64);
                        bitmap[len..].fill(false);
                    }
                }
                prop_assert_eq!(extents.total(), bitmap.iter().filter(|b| **b).count() as u64);
                for at in 0..SIZE {
                    let run = bitmap[at..].iter().take_while(|b| **b).count();
                    let end = (run > 0).then_some((at + run) as u64);
                    prop_assert_eq!(extents.run_end(at as u64), end, "run at {}", at);
                    for to in at..SIZE {
                        let window = &bitmap[at..to];
                        let gap = window.iter().position(|b| !b).map(|start| {
                            let len = window[start..].iter().take_while(|b| !**b).count();
                            (at + start) as u64..(at + start + len) as u64
                        });
                        prop_assert_eq!(extents.first_gap(at as u64..to as u64), gap);
                    }
                }
                // Ranges that touch are one.
                for (end, start) in extents.0.values().zip(extents.0.keys().skip(1)) {
                    prop_assert!(end < start);
                }
            }
        }
    }
}
