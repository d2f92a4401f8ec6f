//! What becomes of the lines: names checked and each kept once, everything else counted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Dialect, Item, Parsed, Reason, Skipped};
use crate::vfs::attr::DirEntry;
use crate::vfs::path::Name;

/// Skipped lines that are kept for the log, and bytes of each: a server may send millions.
const KEPT_LINES: usize = 256;
const KEPT_BYTES: usize = 1024;

/// Longest target of a link, as Linux has it (`PATH_MAX` counts a NUL).
const LONGEST_TARGET: usize = 4095;

#[derive(Default)]
pub(super) struct Collector<'a> {
    entries: Vec<DirEntry>,
    /// Where each name is in `entries`, and its version.
    names: HashMap<Cow<'a, [u8]>, (usize, u32)>,
    skipped: Vec<Skipped>,
    skipped_count: usize,
    ignored: usize,
    inside: bool,
    elsewhere: bool,
}

impl<'a> Collector<'a> {
    /// A line names the directory of what follows. After the first such, or after an entry, it is
    /// another directory than the one asked for (`LIST -R`).
    pub(super) fn enter_directory(&mut self) {
        self.elsewhere = self.inside || !self.entries.is_empty();
        self.inside = true;
        self.ignored += 1;
    }

    pub(super) const fn ignore(&mut self) {
        self.ignored += 1;
    }

    pub(super) fn skip(&mut self, line: &[u8], why: Reason) {
        self.skipped_count += 1;
        if self.skipped.len() < KEPT_LINES {
            let line = line.get(..KEPT_BYTES).unwrap_or(line).to_vec();
            self.skipped.push(Skipped { line, why });
        }
    }

    pub(super) fn add(&mut self, line: &[u8], item: Item<'a>) {
        if self.elsewhere {
            return self.skip(line, Reason::OtherDirectory);
        }
        let in_this_listing = |parent| self.names.contains_key(parent);
        if matches!(&*item.name, b"." | b"..") || item.parent.is_some_and(in_this_listing) {
            return self.ignore();
        }
        let Ok(name) = Name::new(&item.name) else {
            return self.skip(line, Reason::Hostile);
        };
        let mut attr = item.attr;
        attr.target = attr.target.filter(|target| is_target(target));
        let entry = DirEntry { name, attr };
        match self.names.entry(item.name) {
            Entry::Vacant(slot) => {
                slot.insert((self.entries.len(), item.version));
                self.entries.push(entry);
            }
            Entry::Occupied(mut slot) if item.version > 0 => {
                let (at, version) = *slot.get();
                if item.version > version
                    && let Some(older) = self.entries.get_mut(at)
                {
                    *older = entry;
                    slot.insert((at, item.version));
                }
                self.ignored += 1;
            }
            Entry::Occupied(_) => self.skip(line, Reason::Duplicate),
        }
    }

    /// Adds a name that stands alone: in a listing of that dialect an entry of which nothing is
    /// known, in others no one knows what.
    pub(super) fn add_alone(&mut self, line: &[u8], item: Item<'a>, dialect: Dialect) {
        if item.dialect == dialect {
            self.add(line, item);
        } else {
            self.skip(line, Reason::Unrecognized);
        }
    }

    pub(super) fn finish(self, dialect: Dialect) -> Parsed {
        Parsed {
            entries: self.entries,
            skipped: self.skipped,
            skipped_count: self.skipped_count,
            ignored: self.ignored,
            dialect,
        }
    }
}

/// Whether `readlink` could return it.
fn is_target(target: &[u8]) -> bool {
    let forbidden = |b: &u8| matches!(b, 0 | b'\r' | b'\n');
    (1..=LONGEST_TARGET).contains(&target.len()) && !target.iter().any(forbidden)
}
