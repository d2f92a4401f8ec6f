//! Numbers for what the kernel has open.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{ErrorKind, Result};
use crate::sync::Locked;

/// `fh` to what it stands for. Numbers are never used again.
#[derive(Debug)]
pub(crate) struct Handles<T>(Locked<Table<T>>);

#[derive(Debug)]
struct Table<T> {
    next: u64,
    open: HashMap<u64, Arc<T>>,
}

impl<T> Handles<T> {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self(Locked::new(Table {
            next: 1,
            open: HashMap::new(),
        }))
    }

    /// A number for `what`.
    pub(crate) fn insert(&self, what: T) -> u64 {
        self.0.with(|table| {
            let fh = table.next;
            table.next += 1;
            table.open.insert(fh, Arc::new(what));
            fh
        })
    }

    /// What `fh` stands for.
    ///
    /// # Errors
    /// `BadHandle` if it is not open.
    pub(crate) fn get(&self, fh: u64) -> Result<Arc<T>> {
        let found = self.0.with(|table| table.open.get(&fh).cloned());
        found.ok_or_else(|| ErrorKind::BadHandle.into())
    }

    /// Closes `fh`. A call under way may still hold what it stood for.
    ///
    /// # Errors
    /// `BadHandle` if it is not open.
    pub(crate) fn remove(&self, fh: u64) -> Result<Arc<T>> {
        let found = self.0.with(|table| table.open.remove(&fh));
        found.ok_or_else(|| ErrorKind::BadHandle.into())
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.0.with(|table| table.open.len())
    }
}
