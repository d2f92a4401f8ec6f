//! One listing, and where in it a name is.

use std::sync::Arc;
use std::time::Instant;

use crate::vfs::attr::{Attr, DirEntry};
use crate::vfs::path::Name;

/// A complete listing in the server's order.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) entries: Arc<[DirEntry]>,
    /// Positions in `entries`, in the order of the names.
    by_name: Box<[u32]>,
    /// When the server was asked for it.
    pub(super) since: Instant,
}

impl Listing {
    /// Sorts out `entries`, true at `since`.
    pub(super) fn new(entries: Arc<[DirEntry]>, since: Instant) -> Self {
        let mut by_name: Box<[u32]> = (0..).zip(entries.iter()).map(|(i, _)| i).collect();
        by_name.sort_by_key(|i| entries.get(*i as usize).map(|entry| &entry.name));
        Self {
            entries,
            by_name,
            since,
        }
    }

    /// What it says of `name`.
    pub(super) fn get(&self, name: &Name) -> Option<&Attr> {
        let entry = |i: &u32| self.entries.get(*i as usize);
        let found = self
            .by_name
            .binary_search_by(|i| entry(i).map(|entry| &entry.name).cmp(&Some(name)));
        let position = self.by_name.get(found.ok()?)?;
        entry(position).map(|entry| &entry.attr)
    }
}
