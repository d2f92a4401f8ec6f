//! One listing, and where in it a name is.

use std::sync::Arc;
use std::time::Instant;

use crate::vfs::attr::{Attr, DirEntry};
use crate::vfs::path::Name;

/// A complete listing in the server's order.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) entries: Arc<[DirEntry]>,
    /// Positions in `entries`, in the order of the names.
    by_name: Arc<[u32]>,
    /// From when on it is relied on for the time to live.
    pub(super) since: Instant,
}

impl Listing {
    /// Sorts out `entries`, relied on from `since` on.
    pub(super) fn new(entries: Arc<[DirEntry]>, since: Instant) -> Self {
        let mut by_name: Vec<u32> = (0..).zip(entries.iter()).map(|(i, _)| i).collect();
        by_name.sort_by_key(|i| entries.get(*i as usize).map(|entry| &entry.name));
        Self {
            entries,
            by_name: by_name.into(),
            since,
        }
    }

    /// What it says of `name`.
    pub(super) fn get(&self, name: &Name) -> Option<&Attr> {
        let entry = self.entries.get(self.position(name)?)?;
        Some(&entry.attr)
    }

    /// Where `name` is in the server's order.
    pub(super) fn position(&self, name: &Name) -> Option<usize> {
        let position = self.by_name.get(self.rank(name)?)?;
        Some(*position as usize)
    }

    /// Where `name` is in the order of the names.
    pub(super) fn rank(&self, name: &Name) -> Option<usize> {
        let entry = |i: &u32| self.entries.get(*i as usize);
        self.by_name
            .binary_search_by(|i| entry(i).map(|entry| &entry.name).cmp(&Some(name)))
            .ok()
    }

    /// The entry at a place in the order of the names.
    pub(super) fn ranked(&self, rank: usize) -> Option<&DirEntry> {
        self.entries.get(*self.by_name.get(rank)? as usize)
    }
}
