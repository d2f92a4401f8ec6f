//! Recognises that the files of a directory are opened one after the other (`cp -r`, `tar`,
//! `rsync`, a backup), and which will be next. Plain data; the time is an argument.
//!
//! Programs go through a directory in the order in which it is listed or in that of the names. Two
//! files that follow each other make a copy; few are trusted to follow at first, more with each that
//! was foreseen and wanted, fewer when they were not. A copy that goes on into another directory
//! goes on there at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::listing::Listing;
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::path::{Name, RemotePath};

/// Larger files are for the streams.
const SMALL: u64 = 512 << 10;

/// Files ahead of the copier, at first, at least and at most; and their bytes.
const FIRST: usize = 8;
const LEAST: usize = 2;
const MOST: usize = 96;
const BYTES: u64 = 4 << 20;

/// A step later than that is none, and what was foreseen is forgotten.
const OVER: Duration = Duration::from_secs(5);

/// Directories in which files were opened lately.
const RECENT: usize = 16;

/// The order in which files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Listed,
    Named,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Copying {
    /// The file opened last in each directory.
    last: VecDeque<(RemotePath, Name, Instant)>,
    /// The order of the copy that is going on, and its last step.
    order: Option<(Order, Instant)>,
    /// Fetched or being fetched, and not opened yet.
    ahead: HashMap<RemotePath, (u64, Instant)>,
    bytes: u64,
    trust: usize,
}

impl Default for Copying {
    fn default() -> Self {
        Self {
            last: VecDeque::new(),
            order: None,
            ahead: HashMap::new(),
            bytes: 0,
            trust: FIRST,
        }
    }
}

impl Copying {
    /// `name` in `dir` was opened to be read. What to fetch now.
    pub(super) fn opened(
        &mut self,
        dir: &RemotePath,
        name: &Name,
        listing: &Listing,
        now: Instant,
    ) -> Vec<(RemotePath, Attr)> {
        self.let_go(now);
        let foreseen = self.forget(&dir.join(name));
        if foreseen {
            self.trust = (self.trust * 2).min(MOST);
        }
        let before = self.last.iter().position(|(at, _, _)| at == dir);
        let before = before.and_then(|at| self.last.remove(at));
        self.last.push_back((dir.clone(), name.clone(), now));
        if self.last.len() > RECENT {
            self.last.pop_front();
        }
        let going_on = self.order.filter(|_| foreseen).map(|(order, _)| order);
        let order = going_on.or_else(|| {
            let (_, last, when) = before?;
            let soon = now.saturating_duration_since(when) < OVER;
            soon.then(|| step(listing, &last, name)).flatten()
        });
        let Some(order) = order else {
            return Vec::new();
        };
        self.order = Some((order, now));
        self.next(dir, Some(name), listing, order, now)
    }

    /// Whether a copy is going on.
    pub(super) fn is_going_on(&self, now: Instant) -> bool {
        let soon = |when: Instant| now.saturating_duration_since(when) < OVER;
        self.order.is_some_and(|(_, when)| soon(when))
    }

    /// `dir` was opened to be read; a copy that is going on will go on there.
    pub(super) fn entered(
        &mut self,
        dir: &RemotePath,
        listing: &Listing,
        now: Instant,
    ) -> Vec<(RemotePath, Attr)> {
        self.let_go(now);
        match self.order {
            Some((order, _)) => self.next(dir, None, listing, order, now),
            None => Vec::new(),
        }
    }

    fn next(
        &mut self,
        dir: &RemotePath,
        after: Option<&Name>,
        listing: &Listing,
        order: Order,
        now: Instant,
    ) -> Vec<(RemotePath, Attr)> {
        // Not one by one: the connections are to be busy, not the books.
        let room = self.trust.saturating_sub(self.ahead.len());
        if room == 0 || room < self.trust / 4 {
            return Vec::new();
        }
        let mut files = Vec::new();
        for entry in following(listing, after, order) {
            let size = entry.attr.size.unwrap_or(u64::MAX);
            if entry.attr.kind != FileKind::File || size > SMALL {
                continue;
            }
            if files.len() >= room || self.bytes + size > BYTES {
                break;
            }
            let path = dir.join(&entry.name);
            if self.ahead.contains_key(&path) {
                continue;
            }
            self.bytes += size;
            self.ahead.insert(path.clone(), (size, now));
            files.push((path, entry.attr.clone()));
        }
        files
    }

    fn forget(&mut self, path: &RemotePath) -> bool {
        let gone = self.ahead.remove(path);
        self.bytes -= gone.map_or(0, |(size, _)| size);
        gone.is_some()
    }

    /// What nobody wanted in time is of no more use.
    fn let_go(&mut self, now: Instant) {
        let late = |when: Instant| now.saturating_duration_since(when) >= OVER;
        let gone: Vec<_> = self
            .ahead
            .extract_if(|_, (_, when)| late(*when))
            .map(|(_, (size, _))| size)
            .collect();
        self.bytes -= gone.iter().sum::<u64>();
        if !gone.is_empty() {
            self.trust = (self.trust / 2).max(LEAST);
        }
        if self.order.is_some_and(|(_, when)| late(when)) {
            self.order = None;
        }
    }
}

/// The order in which `name` is the next file after `last`.
fn step(listing: &Listing, last: &Name, name: &Name) -> Option<Order> {
    [Order::Listed, Order::Named].into_iter().find(|order| {
        let mut files = following(listing, Some(last), *order)
            .filter(|entry| entry.attr.kind == FileKind::File);
        files.next().is_some_and(|entry| entry.name == *name)
    })
}

/// The entries behind `after`, all if there is none, in this order.
fn following<'a>(
    listing: &'a Listing,
    after: Option<&Name>,
    order: Order,
) -> impl Iterator<Item = &'a DirEntry> {
    let place = after.map_or(Some(0), |after| {
        let place = match order {
            Order::Listed => listing.position(after),
            Order::Named => listing.rank(after),
        };
        place.map(|place| place + 1)
    });
    let begin = place.unwrap_or(listing.entries.len());
    (begin..listing.entries.len()).filter_map(move |place| match order {
        Order::Listed => listing.entries.get(place),
        Order::Named => listing.ranked(place),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn dir() -> RemotePath {
        RemotePath::parse(b"d").unwrap()
    }

    /// `names` in this order, a name with a slash a directory.
    fn listing(names: &[&str], size: u64, now: Instant) -> Listing {
        let entries: Vec<DirEntry> = names
            .iter()
            .map(|text| match text.strip_suffix('/') {
                Some(text) => DirEntry {
                    name: name(text),
                    attr: Attr::new(FileKind::Directory),
                },
                None => DirEntry {
                    name: name(text),
                    attr: Attr {
                        size: Some(size),
                        ..Attr::new(FileKind::File)
                    },
                },
            })
            .collect();
        Listing::new(entries.into(), now)
    }

    fn many() -> Vec<String> {
        (0..400).map(|n| format!("f{n:03}")).collect()
    }

    fn names_of(files: &[(RemotePath, Attr)]) -> Vec<String> {
        let last = |path: &RemotePath| path.split().unwrap().1.to_string();
        files.iter().map(|(path, _)| last(path)).collect()
    }

    #[test]
    fn two_files_in_the_order_of_the_listing_are_a_copy() {
        let (mut copying, now) = (Copying::default(), Instant::now());
        let listing = listing(&["z", "sub/", "b", "a", "y", "c"], 5, now);
        assert!(copying.opened(&dir(), &name("z"), &listing, now).is_empty());
        let files = copying.opened(&dir(), &name("b"), &listing, now);
        assert_eq!(names_of(&files), ["a", "y", "c"]);
    }

    #[test]
    fn two_files_in_the_order_of_the_names_are_a_copy() {
        let (mut copying, now) = (Copying::default(), Instant::now());
        let listing = listing(&["z", "sub/", "b", "a", "y", "c"], 5, now);
        assert!(copying.opened(&dir(), &name("b"), &listing, now).is_empty());
        let files = copying.opened(&dir(), &name("c"), &listing, now);
        assert_eq!(names_of(&files), ["y", "z"]);
    }

    #[test]
    fn jumping_about_is_none() {
        let (mut copying, now) = (Copying::default(), Instant::now());
        let names = many();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let listing = listing(&names, 5, now);
        for at in ["f007", "f003", "f100", "f050", "f052", "f051", "f051"] {
            let files = copying.opened(&dir(), &name(at), &listing, now);
            assert!(files.is_empty(), "{at}");
        }
        let late = now + OVER;
        assert!(
            copying
                .opened(&dir(), &name("f052"), &listing, late)
                .is_empty()
        );
    }

    #[test]
    fn trust_grows_and_bytes_are_bounded() {
        let (mut copying, now) = (Copying::default(), Instant::now());
        let names = many();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (size, most) in [(100, MOST), (SMALL, 8)] {
            let listing = listing(&names, size, now);
            copying = Copying::default();
            let mut asked = 0;
            for (n, at) in names.iter().take(200).enumerate() {
                asked += copying.opened(&dir(), &name(at), &listing, now).len();
                assert!(copying.ahead.len() <= most, "{}", copying.ahead.len());
                assert!(n < 2 || asked + 2 > n, "each is foreseen");
            }
            assert!(copying.bytes <= BYTES);
        }
        copying.let_go(now + OVER);
        assert_eq!((copying.ahead.len(), copying.bytes), (0, 0));
    }

    #[test]
    fn large_files_are_left_out_and_another_directory_begins_at_once() {
        let (mut copying, now) = (Copying::default(), Instant::now());
        let large = listing(&["a", "b", "c"], SMALL + 1, now);
        copying.opened(&dir(), &name("a"), &large, now);
        assert!(copying.opened(&dir(), &name("b"), &large, now).is_empty());
        let next = RemotePath::parse(b"e").unwrap();
        let small = listing(&["a", "b"], 5, now);
        assert_eq!(names_of(&copying.entered(&next, &small, now)), ["a", "b"]);
        let later = now + OVER;
        let another = RemotePath::parse(b"g").unwrap();
        assert!(copying.entered(&another, &small, later).is_empty());
    }
}
