//! Directories: a snapshot at `opendir`, read in pieces.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attr::{DirEntry, FileKind};
use super::error::{ErrorKind, Result};
use super::inodes::Place;
use super::kept::Keep;
use super::path::Name;
use super::{Entry, Ino, Vfs};
use crate::sync::Locked;

/// Places in a directory are numbers below this. Who goes over to another listing gets others, so
/// that the kernel does not add to one what it reads of another.
const PLACES: u64 = 1 << 27;

/// So many listings have places of their own; a program of 32 bits can have them all.
const OVERS: u64 = 16;

/// One item of `readdir`.
#[derive(Debug, Clone, Copy)]
pub struct DirItem<'a> {
    /// Its inode, or a number that no inode has while the kernel does not know it; never 0.
    pub ino: Ino,
    /// Where to go on after it.
    pub offset: u64,
    /// File, directory or link.
    pub kind: FileKind,
    /// Its name; `.` and `..` included.
    pub name: &'a OsStr,
}

/// One item of `readdirplus`.
#[derive(Debug, Clone, Copy)]
pub struct DirItemPlus<'a> {
    /// See [`DirItem`].
    pub item: DirItem<'a>,
    /// What a lookup would say; one lookup was counted. `None` for `.` and `..`.
    pub entry: Option<Entry>,
}

/// What a directory had when it was opened.
#[derive(Debug, Clone)]
struct Snapshot {
    listing: Arc<[DirEntry]>,
    /// Files that are only being written yet.
    written: Arc<[DirEntry]>,
    /// Number of the first entry, should the kernel not know it.
    first: Ino,
    /// Whether reading has begun.
    begun: bool,
    /// Added to its places.
    base: u64,
}

impl Snapshot {
    fn get(&self, position: usize) -> Option<&DirEntry> {
        let beyond = position.checked_sub(self.listing.len());
        beyond.map_or_else(
            || self.listing.get(position),
            |beyond| self.written.get(beyond),
        )
    }
}

/// One open directory.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    ino: Ino,
    keep: Keep,
    snapshot: Locked<Snapshot>,
}

impl Vfs {
    /// Opens a directory. What it has now is what reading it will show.
    ///
    /// # Errors
    /// `NotFound`; `NotADirectory`; the server's.
    pub fn opendir(&self, ino: Ino) -> Result<u64> {
        let written = self.written_in(ino);
        let listing = match self.directory(ino)? {
            Place::At(path) => self.backend.list(&path)?,
            Place::Orphan => Arc::from([]),
        };
        Ok(self.open_listing(ino, listing, written))
    }

    /// As [`opendir`](Self::opendir) from memory; `None`: only the server can tell.
    pub fn opendir_cached(&self, ino: Ino) -> Option<Result<u64>> {
        let written = self.written_in(ino);
        let listing = match self.directory(ino) {
            Ok(Place::At(path)) => self.backend.known_list(&path)?.0,
            Ok(Place::Orphan) => Arc::from([]),
            Err(err) => return Some(Err(err)),
        };
        Some(Ok(self.open_listing(ino, listing, written)))
    }

    /// Tells `each` the items from `offset` on, until it returns `false`: its buffer is full, and
    /// that item is the next.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn readdir(
        &self,
        fh: u64,
        offset: u64,
        each: &mut dyn FnMut(DirItem<'_>) -> bool,
    ) -> Result<()> {
        self.read_items(fh, offset, |item, _| Some(each(item)))
    }

    /// As [`readdir`](Self::readdir), with what is known of each item. Its lookup is counted if
    /// `each` takes it. Names that were removed since are left out, lest the kernel believe in
    /// them again.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn readdirplus(
        &self,
        fh: u64,
        offset: u64,
        each: &mut dyn FnMut(DirItemPlus<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.directories.get(fh)?.ino;
        let place = self.place(dir)?;
        self.read_items(fh, offset, |mut item, entry| {
            let Some(listed) = entry else {
                return Some(each(DirItemPlus { item, entry: None }));
            };
            let Place::At(path) = &place else {
                return None;
            };
            let path = path.join(&listed.name);
            let entry = match self.known_attr_of_child(dir, &listed.name, &path) {
                Some(Ok((attr, valid))) => self.entry(dir, &listed.name, &attr, valid).ok(),
                Some(Err(err)) if err.kind() == ErrorKind::NotFound => return None,
                // The listing has aged while it was read: what it said, to be asked again at once.
                Some(Err(_)) | None => self
                    .entry(dir, &listed.name, &listed.attr, Duration::ZERO)
                    .ok(),
            };
            if let Some(entry) = entry {
                item.ino = entry.stat.ino;
                item.kind = entry.stat.kind;
            }
            let taken = each(DirItemPlus { item, entry });
            if let Some(entry) = entry.filter(|_| !taken) {
                self.forget(entry.stat.ino, 1);
            }
            Some(taken)
        })
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) {
        if let Ok(dir) = self.directories.remove(fh) {
            if dir.keep != Keep::Nothing {
                self.kept.closes(dir.ino);
            }
            self.inodes.with(|inodes| inodes.unpin(dir.ino));
        }
    }

    /// What the kernel may do with the names in the open directory `fh`.
    #[must_use]
    pub fn keeps_names(&self, fh: u64) -> Keep {
        let dir = self.directories.get(fh);
        dir.map_or(Keep::Nothing, |dir| dir.keep)
    }

    fn directory(&self, ino: Ino) -> Result<Place> {
        match self.inodes.with(|inodes| inodes.kind(ino)) {
            Some(FileKind::Directory) | None => self.place(ino),
            Some(FileKind::File | FileKind::Symlink) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn open_listing(&self, ino: Ino, listing: Arc<[DirEntry]>, written: Vec<DirEntry>) -> u64 {
        self.inodes.with(|inodes| inodes.pin(ino));
        let mut snapshot = self.snapshot(ino, listing, written);
        let keep = self.keep(ino, &snapshot);
        // Of what the kernel has, it may have read something before it comes to us.
        snapshot.begun = keep == Keep::Old;
        self.directories.insert(OpenDirectory {
            ino,
            keep,
            snapshot: Locked::new(snapshot),
        })
    }

    fn keep(&self, ino: Ino, snapshot: &Snapshot) -> Keep {
        if !snapshot.written.is_empty() || !self.backend.relies_on_listings() {
            return Keep::Nothing;
        }
        let listing = &snapshot.listing;
        let known = self.inodes.with(|inodes| inodes.count_in(ino)) >= listing.len();
        let until = Instant::now() + self.view.validity;
        self.kept.opens(ino, listing, known, until)
    }

    /// What is being written in `dir`. To be asked before the server is, and again after it: what
    /// is stored in between is in one of the answers at least.
    fn written_in(&self, dir: Ino) -> Vec<DirEntry> {
        let children = self.inodes.with(|inodes| inodes.children(dir));
        let written = children.into_iter().filter_map(|(name, child)| {
            let attr = self.being_written(child)?;
            Some(DirEntry { name, attr })
        });
        written.collect()
    }

    fn snapshot(&self, ino: Ino, listing: Arc<[DirEntry]>, mut written: Vec<DirEntry>) -> Snapshot {
        for entry in self.written_in(ino) {
            if !written.iter().any(|known| known.name == entry.name) {
                written.push(entry);
            }
        }
        let listed = |name: &Name| listing.iter().any(|entry| entry.name == *name);
        written.retain(|entry| !listed(&entry.name));
        let written: Arc<[DirEntry]> = written.into();
        let count = (listing.len() + written.len()) as u64;
        Snapshot {
            listing,
            written,
            first: self.inodes.with(|inodes| inodes.reserve(count)),
            begun: false,
            base: 0,
        }
    }

    /// The snapshot to read at `offset`. Who goes back to the start wants to see what is new, and
    /// does if it is known.
    fn snapshot_at(&self, dir: &OpenDirectory, offset: u64) -> Snapshot {
        let rewound = dir.snapshot.with(|snapshot| {
            let rewound = snapshot.begun && offset == 0;
            snapshot.begun = true;
            rewound
        });
        if rewound
            && let Ok(Place::At(path)) = self.place(dir.ino)
            && let written = self.written_in(dir.ino)
            && let Some((listing, _)) = self.backend.known_list(&path)
        {
            let mut fresh = self.snapshot(dir.ino, listing, written);
            fresh.begun = true;
            let goes_over = dir.snapshot.with(|snapshot| {
                let same = Arc::ptr_eq(&snapshot.listing, &fresh.listing);
                let goes_over = dir.keep != Keep::Nothing
                    && !(same && snapshot.written.is_empty() && fresh.written.is_empty());
                fresh.base = (snapshot.base + u64::from(goes_over) * PLACES) % (OVERS * PLACES);
                *snapshot = fresh;
                goes_over
            });
            if goes_over {
                self.kept.goes_over(dir.ino);
            }
        }
        dir.snapshot.with(|snapshot| snapshot.clone())
    }

    /// Gives `each` the items from `offset` on; `Some(false)` ends it.
    fn read_items(
        &self,
        fh: u64,
        offset: u64,
        mut each: impl FnMut(DirItem<'_>, Option<&DirEntry>) -> Option<bool>,
    ) -> Result<()> {
        let dir = self.directories.get(fh)?;
        if dir.keep == Keep::New {
            self.kept.reads(dir.ino);
        }
        let snapshot = self.snapshot_at(&dir, offset);
        let parent = self.inodes.with(|inodes| inodes.parent(dir.ino));
        let mut next = offset % PLACES;
        loop {
            next += 1;
            let offset = snapshot.base + next;
            let dots = |ino, name: &'static str| DirItem {
                ino,
                offset,
                kind: FileKind::Directory,
                name: OsStr::new(name),
            };
            let taken = match next {
                1 => each(dots(dir.ino, "."), None),
                2 => each(dots(parent, ".."), None),
                _ => {
                    let position = next - 3;
                    let Some(entry) = usize::try_from(position)
                        .ok()
                        .and_then(|position| snapshot.get(position))
                    else {
                        return Ok(());
                    };
                    let known = self.inodes.with(|inodes| inodes.find(dir.ino, &entry.name));
                    let item = DirItem {
                        ino: known.unwrap_or(snapshot.first + position),
                        offset,
                        kind: entry.attr.kind,
                        name: entry.name.as_os_str(),
                    };
                    each(item, Some(entry))
                }
            };
            if taken == Some(false) {
                return Ok(());
            }
        }
    }
}
