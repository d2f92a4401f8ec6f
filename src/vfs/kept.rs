//! What the kernel keeps of directories: the names that it read.
//!
//! It keeps them with the directory until somebody opens that without leave to go on keeping them
//! (`FOPEN_CACHE_DIR`, `FOPEN_KEEP_CACHE`), or changes it by way of this mount. Each opening is still
//! asked of us: so names are kept for as long as the listing that they are from is the one known, and
//! no longer.
//!
//! The kernel's memory is one for all who have the directory open. So that it never has a mixture,
//! only those fill it who read the same listing; who opens the directory with another one meanwhile
//! reads for himself. And leave to keep is given when somebody who had none has begun to read: what
//! was there before is gone then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Ino;
use super::attr::DirEntry;
use crate::sync::Locked;

/// Directories and names that are remembered to be kept, at most. A listing that is not known any
/// more is held here for no longer than it was good.
const DIRECTORIES: usize = 1024;
const NAMES: usize = 32 << 10;

/// What the kernel may do with the names in a directory that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It asks for them whenever they are read.
    Nothing,
    /// It keeps what it reads now, and forgets what it had.
    New,
    /// What it has is what it would read.
    Old,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept(Locked<HashMap<Ino, Directory>>);

#[derive(Debug)]
struct Directory {
    /// What it was opened with; `None` if one of the readers has gone over to another.
    listing: Option<Arc<[DirEntry]>>,
    /// Those who may fill the kernel's memory, or read it.
    readers: usize,
    /// The kernel has forgotten what was before.
    begun: bool,
    until: Instant,
}

impl Kept {
    /// `ino` is opened to be read as `listing`, which is good `until` then. `known`: the kernel knows
    /// attributes of all that is in it, which it would be told again with the names.
    pub(super) fn opens(
        &self,
        ino: Ino,
        listing: &Arc<[DirEntry]>,
        known: bool,
        until: Instant,
    ) -> Keep {
        let now = Instant::now();
        self.0.with(|kept| {
            if let Some(dir) = kept.get_mut(&ino) {
                let there = dir.listing.as_ref();
                if there.is_some_and(|there| Arc::ptr_eq(there, listing)) {
                    dir.readers += 1;
                    return if dir.begun && known {
                        Keep::Old
                    } else {
                        Keep::New
                    };
                }
                if dir.readers > 0 {
                    return Keep::Nothing;
                }
            }
            kept.retain(|other, dir| dir.readers > 0 || *other != ino && dir.until > now);
            let names = kept.values().filter_map(|dir| dir.listing.as_ref());
            let names: usize = names.map(|listing| listing.len()).sum();
            if kept.len() >= DIRECTORIES || names + listing.len() > NAMES {
                kept.retain(|_, dir| dir.readers > 0);
            }
            if now >= until || listing.len() > NAMES || kept.len() >= DIRECTORIES {
                return Keep::Nothing;
            }
            let dir = Directory {
                listing: Some(Arc::clone(listing)),
                readers: 1,
                begun: false,
                until,
            };
            kept.insert(ino, dir);
            Keep::New
        })
    }

    /// One who was to keep something has come to read.
    pub(super) fn reads(&self, ino: Ino) {
        self.change(ino, |dir| dir.begun = true);
    }

    /// One of those goes back to the start, and reads another listing from now on.
    pub(super) fn goes_over(&self, ino: Ino) {
        self.change(ino, |dir| dir.listing = None);
    }

    /// One of those has closed it.
    pub(super) fn closes(&self, ino: Ino) {
        self.change(ino, |dir| dir.readers = dir.readers.saturating_sub(1));
    }

    fn change(&self, ino: Ino, change: impl FnOnce(&mut Directory)) {
        self.0.with(|kept| {
            if let Some(dir) = kept.get_mut(&ino) {
                change(dir);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::attr::{Attr, FileKind};
    use super::super::path::Name;
    use super::*;

    fn listing(names: usize) -> Arc<[DirEntry]> {
        let entry = |n: usize| {
            let name = Name::new(format!("f{n}").as_bytes()).ok()?;
            let attr = Attr::new(FileKind::File);
            Some(DirEntry { name, attr })
        };
        (0..names).filter_map(entry).collect()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn it_keeps_what_it_has_read_for_as_long_as_that_is_the_listing() {
        let (kept, first, second) = (Kept::default(), listing(3), listing(3));
        let opens = |listing| kept.opens(7, listing, true, later());
        assert_eq!(opens(&first), Keep::New);
        assert_eq!(
            opens(&first),
            Keep::New,
            "nobody knows whether it has forgotten"
        );
        kept.reads(7);
        assert_eq!(opens(&first), Keep::Old);
        assert_eq!(kept.opens(7, &first, false, later()), Keep::New);
        assert_eq!(opens(&second), Keep::Nothing, "another is being read");
        for _ in 0..4 {
            assert_eq!(opens(&second), Keep::Nothing);
            kept.closes(7);
        }
        assert_eq!(opens(&second), Keep::New);
        assert_eq!(opens(&first), Keep::Nothing);
        kept.closes(7);
        assert_eq!(opens(&second), Keep::New, "nobody has read it yet");
    }

    #[test]
    fn a_reader_who_goes_over_to_another_listing_ends_it() {
        let (kept, names) = (Kept::default(), listing(3));
        let opens = || kept.opens(7, &names, true, later());
        assert_eq!(opens(), Keep::New);
        kept.reads(7);
        kept.goes_over(7);
        assert_eq!(opens(), Keep::Nothing);
        kept.closes(7);
        assert_eq!(opens(), Keep::New);
    }

    #[test]
    fn what_is_remembered_of_it_is_bounded() {
        let kept = Kept::default();
        let count = || kept.0.with(|kept| kept.len());
        for dir in 0..3 * DIRECTORIES as u64 {
            kept.opens(dir, &listing(1), true, later());
            kept.closes(dir);
            assert!(count() <= DIRECTORIES);
        }
        kept.opens(1, &listing(NAMES), true, later());
        assert_eq!(count(), 1);
        assert_eq!(
            kept.opens(2, &listing(NAMES + 1), true, later()),
            Keep::Nothing
        );
        kept.closes(1);
        // What is not good any more goes with the next.
        kept.opens(
            3,
            &listing(1),
            true,
            Instant::now() + Duration::from_millis(1),
        );
        kept.closes(3);
        std::thread::sleep(Duration::from_millis(2));
        kept.opens(4, &listing(1), true, later());
        assert_eq!(count(), 1);
        let over = Instant::now();
        assert_eq!(kept.opens(5, &listing(1), true, over), Keep::Nothing);
    }
}
