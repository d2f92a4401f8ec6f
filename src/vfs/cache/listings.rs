//! What the cache remembers: listings, single names, and when they were true. Plain data; the
//! time is an argument, the network is elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::ahead::Arrival;
use super::changes::{Changes, Generation};
use super::listing::Listing;
use crate::vfs::attr::{Attr, DirEntry, SetAttr};
use crate::vfs::error::{ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// Names asked for one by one in a directory before it is listed instead.
const SINGLES: u32 = 2;

/// A directory more than so many times as large as all that is to be kept is not kept.
const LARGEST: usize = 2;

/// How to find out about a name.
#[derive(Debug)]
pub(super) enum Ask {
    /// It is known.
    Known(Result<Attr>),
    /// The name is to be asked for alone.
    Stat,
    /// The same, unless listing its directory takes no longer.
    Either,
    /// The whole directory is to be listed: more names of it will be wanted.
    List,
}

/// One listing on its way from the server, waited for by everyone who wants it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) since: Generation,
    pub(super) listing: OnceLock<Result<Arc<[DirEntry]>>>,
    /// Of a flight that nobody asked for: told when it is over, whatever it brought.
    pub(super) arrival: Option<Arrival>,
}

/// What is believed of one name. It overrides the listing, which is older.
#[derive(Debug, Clone)]
enum Belief {
    Here(Attr),
    Absent,
    /// A change ended in an error that leaves open whether it happened.
    Doubtful,
}

#[derive(Debug)]
struct Known {
    belief: Belief,
    since: Instant,
}

#[derive(Debug, Default)]
struct Dir {
    listing: Option<Listing>,
    names: HashMap<Name, Known>,
    /// Names asked for one by one, and since when.
    singles: Option<(u32, Instant)>,
    /// When listing was refused, or its result was too large to keep.
    unlistable: Option<Instant>,
    /// Place in the order of use.
    used: u64,
}

impl Dir {
    /// Entries of it.
    fn size(&self) -> usize {
        1 + self.names.len() + self.listing.as_ref().map_or(0, |l| l.entries.len())
    }

    /// How much of `limit` it takes. A large one must not drive out the one it is in, or be driven out
    /// by it: each name in it would cost another listing.
    fn weight(&self, limit: usize) -> usize {
        let all = self.size();
        match all <= limit.saturating_mul(LARGEST) + 1 {
            true => all.min(limit / 2),
            false => all,
        }
    }
}

/// Everything the cache remembers.
#[derive(Debug)]
pub(super) struct Listings {
    ttl: Duration,
    /// Most entries to keep, in all directories together.
    limit: usize,
    dirs: HashMap<RemotePath, Dir>,
    /// Directories by last use, the oldest first.
    by_use: BTreeMap<u64, RemotePath>,
    clock: u64,
    weight: usize,
    /// Entries there are, which weigh less in large directories.
    size: usize,
    /// The root's own attributes, which no listing gives.
    root: Option<(Attr, Instant)>,
    flights: HashMap<RemotePath, Arc<Flight>>,
    pub(super) changes: Changes,
}

impl Listings {
    /// An empty memory of at most `limit` entries, each relied on for `ttl`.
    pub(super) fn new(ttl: Duration, limit: usize) -> Self {
        Self {
            ttl,
            limit,
            dirs: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            weight: 0,
            size: 0,
            root: None,
            flights: HashMap::new(),
            changes: Changes::default(),
        }
    }

    /// What is left of the time that something true at `since` is relied on; `None` if nothing.
    fn left(&self, since: Instant, now: Instant) -> Option<Duration> {
        let left = self.ttl.checked_sub(now.saturating_duration_since(since))?;
        (!left.is_zero()).then_some(left)
    }

    /// What is known of `path`, and for how long; `None`: only the server can tell.
    pub(super) fn known(
        &self,
        path: &RemotePath,
        now: Instant,
    ) -> Option<(Result<Attr>, Duration)> {
        let Some((dir, name)) = path.split() else {
            let (attr, since) = self.root.as_ref()?;
            let left = self.left(*since, now);
            let left = left.or_else(|| self.listing_left(path, now))?;
            return Some((Ok(attr.clone()), left));
        };
        let dir = self.dirs.get(&dir)?;
        let mut old = None;
        if let Some(known) = dir.names.get(&name) {
            match (&known.belief, self.left(known.since, now)) {
                (Belief::Here(attr), Some(left)) => return Some((Ok(attr.clone()), left)),
                (Belief::Absent, Some(left)) => {
                    return Some((Err(ErrorKind::NotFound.into()), left));
                }
                (Belief::Here(attr), None) => old = Some(attr),
                (Belief::Absent, None) => {}
                (Belief::Doubtful, _) => return None,
            }
        } else if let Some(listing) = &dir.listing {
            let attr = listing.get(&name);
            if let Some(left) = self.left(listing.since, now) {
                let attr = attr.cloned().ok_or_else(|| ErrorKind::NotFound.into());
                return Some((attr, left));
            }
            old = attr;
        }
        // What was listed just now exists, even if what its parent said of it is old.
        let attr = old.filter(|attr| attr.is_dir())?;
        Some((Ok(attr.clone()), self.listing_left(path, now)?))
    }

    fn listing_left(&self, dir: &RemotePath, now: Instant) -> Option<Duration> {
        let listing = self.dirs.get(dir)?.listing.as_ref()?;
        self.left(listing.since, now)
    }

    /// What is known of `path`, or how to find out.
    pub(super) fn ask(&mut self, path: &RemotePath, now: Instant) -> Ask {
        if let Some((answer, _)) = self.known(path, now) {
            if let Some(dir) = path.parent() {
                self.touch(&dir);
            }
            return Ask::Known(answer);
        }
        let Some(dir) = path.parent().filter(|_| !self.ttl.is_zero()) else {
            return Ask::Stat;
        };
        let ttl = self.ttl;
        let fresh = |since: Instant| now.saturating_duration_since(since) < ttl;
        let listed = self.listing_left(&dir, now).is_some();
        self.edit_dir(&dir, |dir| {
            // A single doubtful name in a good listing, or a listing that cannot be had.
            if listed || dir.unlistable.is_some_and(fresh) {
                return Ask::Stat;
            }
            let (count, since) = match dir.singles {
                Some((count, since)) if fresh(since) => (count + 1, since),
                _ => (1, now),
            };
            dir.singles = Some((count, since));
            if count > SINGLES {
                Ask::List
            } else {
                Ask::Either
            }
        })
    }

    /// The listing of `dir` with this mount's changes since, and for how long; `None`: only the
    /// server can tell.
    pub(super) fn known_list(
        &mut self,
        dir: &RemotePath,
        now: Instant,
    ) -> Option<(Arc<[DirEntry]>, Duration)> {
        let left = self.listing_left(dir, now)?;
        self.touch(dir);
        let known = self.dirs.get(dir)?;
        let listing = known.listing.as_ref()?;
        if known.names.is_empty() {
            return Some((Arc::clone(&listing.entries), left));
        }
        let mut names: BTreeMap<&Name, &Attr> = BTreeMap::new();
        for (name, known) in &known.names {
            match &known.belief {
                Belief::Here(attr) => drop(names.insert(name, attr)),
                Belief::Absent => {}
                Belief::Doubtful => return None,
            }
        }
        let entry = |name: &Name, attr: &Attr| DirEntry {
            name: name.clone(),
            attr: attr.clone(),
        };
        let mut entries = Vec::with_capacity(listing.entries.len() + names.len());
        for old in &*listing.entries {
            match names.remove(&old.name) {
                Some(attr) => entries.push(entry(&old.name, attr)),
                None if known.names.contains_key(&old.name) => {}
                None => entries.push(old.clone()),
            }
        }
        entries.extend(names.into_iter().map(|(name, attr)| entry(name, attr)));
        let entries: Arc<[DirEntry]> = entries.into();
        let listing = Listing::new(Arc::clone(&entries), listing.since);
        self.edit_dir(dir, |dir| {
            dir.names.clear();
            dir.listing = Some(listing);
        });
        Some((entries, left))
    }

    /// The flight of a listing of `dir`: one under way, unless it may have missed a change.
    pub(super) fn board(&mut self, dir: &RemotePath) -> Arc<Flight> {
        if let Some(flight) = self.flights.get(dir)
            && !self.ttl.is_zero()
            && !self.changes.overtook_listing(flight.since, dir)
        {
            return Arc::clone(flight);
        }
        let flight = Arc::new(Flight {
            since: self.changes.generation(),
            listing: OnceLock::new(),
            arrival: None,
        });
        self.flights.insert(dir.clone(), Arc::clone(&flight));
        flight
    }

    /// As [`board`](Self::board), of a listing that may be wanted soon; `None` if it is known or on
    /// its way.
    pub(super) fn board_ahead(&mut self, dir: &RemotePath, now: Instant) -> Option<Arc<Flight>> {
        let wanted =
            !self.ttl.is_zero() && !self.flights.contains_key(dir) && !self.is_listed(dir, now);
        wanted.then(|| {
            let flight = Arc::new(Flight {
                since: self.changes.generation(),
                listing: OnceLock::new(),
                arrival: Some(Arrival::default()),
            });
            self.flights.insert(dir.clone(), Arc::clone(&flight));
            flight
        })
    }

    /// A flight that was begun ahead brought nothing, or is waited for no longer.
    pub(super) fn abandon(&mut self, dir: &RemotePath, flight: &Arc<Flight>) {
        let current = self.flights.get(dir);
        if current.is_some_and(|current| Arc::ptr_eq(current, flight)) {
            self.flights.remove(dir);
        }
    }

    /// The listing of `dir` as the server gave it.
    pub(super) fn listing(&self, dir: &RemotePath, now: Instant) -> Option<Listing> {
        self.listing_left(dir, now)?;
        self.dirs.get(dir)?.listing.clone()
    }

    /// Whether the listing of `dir` is known.
    pub(super) fn is_listed(&self, dir: &RemotePath, now: Instant) -> bool {
        self.listing_left(dir, now).is_some()
    }

    /// A flight is over: nobody boards it any more, and what it brought is kept if it is still
    /// good. `asked` is when it began. What took long to come is relied on for as long again: one
    /// who asks for each name in a directory would else list it for every few of them.
    pub(super) fn landed(
        &mut self,
        dir: &RemotePath,
        flight: &Arc<Flight>,
        asked: Instant,
        now: Instant,
    ) {
        let since = now + now.saturating_duration_since(asked);
        let current = self.flights.get(dir);
        if !current.is_some_and(|current| Arc::ptr_eq(current, flight)) {
            return;
        }
        self.flights.remove(dir);
        if self.ttl.is_zero() || self.changes.overtook_listing(flight.since, dir) {
            return;
        }
        match flight.listing.get() {
            Some(Ok(entries)) => self.keep(dir, entries, since),
            Some(Err(err)) => match err.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => self.doubt(dir, asked),
                kind if refuses_listing(kind) => {
                    self.edit_dir(dir, |dir| dir.unlistable = Some(since));
                }
                _ => {}
            },
            None => {}
        }
    }

    /// Remembers a complete listing, which is relied on from `since` on.
    fn keep(&mut self, dir: &RemotePath, entries: &Arc<[DirEntry]>, since: Instant) {
        let fits = entries.len() <= self.limit.saturating_mul(LARGEST);
        let listing = fits.then(|| Listing::new(Arc::clone(entries), since));
        self.edit_dir(dir, |dir| {
            dir.names.clear();
            dir.singles = None;
            dir.unlistable = listing.is_none().then_some(since);
            dir.listing = listing;
        });
    }

    /// The server's answer about one name, asked at `since`.
    pub(super) fn answered(&mut self, path: &RemotePath, answer: &Result<Attr>, since: Instant) {
        match answer {
            Ok(attr) => self.believe(path, Belief::Here(attr.clone()), since),
            Err(err) if err.kind() == ErrorKind::NotFound => {
                self.believe(path, Belief::Absent, since);
            }
            Err(_) => {}
        }
    }

    /// `path` is now as `attr` says.
    pub(super) fn put(&mut self, path: &RemotePath, attr: Attr, now: Instant) {
        self.believe(path, Belief::Here(attr), now);
    }

    /// `path` is a new directory, and empty.
    pub(super) fn put_dir(&mut self, path: &RemotePath, attr: Attr, now: Instant) {
        self.put(path, attr, now);
        if !self.ttl.is_zero() {
            self.keep(path, &Arc::from([]), now);
        }
    }

    /// `path` is removed.
    pub(super) fn remove(&mut self, path: &RemotePath, now: Instant) {
        self.drop_dir(path, now);
        self.believe(path, Belief::Absent, now);
    }

    /// `from` is now called `to`.
    pub(super) fn rename(&mut self, from: &RemotePath, to: &RemotePath, now: Instant) {
        let attr = self.known(from, now).and_then(|(attr, _)| attr.ok());
        self.drop_dir(from, now);
        self.drop_dir(to, now);
        self.believe(from, Belief::Absent, now);
        self.believe(to, attr.map_or(Belief::Doubtful, Belief::Here), now);
    }

    /// `change` was made to `path`.
    pub(super) fn set_attr(&mut self, path: &RemotePath, change: &SetAttr, now: Instant) {
        let Some((Ok(mut attr), _)) = self.known(path, now) else {
            return;
        };
        if change.mtime.is_some() {
            attr.mtime = change.mtime;
            attr.mtime_exact = true;
        }
        attr.mode = change.mode.or(attr.mode);
        self.put(path, attr, now);
    }

    /// Nobody knows what became of `path`.
    pub(super) fn doubt(&mut self, path: &RemotePath, now: Instant) {
        self.drop_dir(path, now);
        self.believe(path, Belief::Doubtful, now);
    }

    fn believe(&mut self, path: &RemotePath, belief: Belief, since: Instant) {
        if self.ttl.is_zero() {
            return;
        }
        let Some((dir, name)) = path.split() else {
            self.root = match belief {
                Belief::Here(attr) => Some((attr, since)),
                Belief::Absent | Belief::Doubtful => None,
            };
            return;
        };
        self.edit_dir(&dir, |dir| {
            dir.names.insert(name, Known { belief, since });
        });
    }

    /// Forgets the listings of `path` and of all directories below it, unless it is a file.
    fn drop_dir(&mut self, path: &RemotePath, now: Instant) {
        if let Some((Ok(attr), _)) = self.known(path, now)
            && !attr.is_dir()
        {
            return;
        }
        let limit = self.limit;
        let (weight, size, by_use) = (&mut self.weight, &mut self.size, &mut self.by_use);
        self.dirs.retain(|at, dir| {
            let keep = !at.is_within(path);
            if !keep {
                *weight -= dir.weight(limit);
                *size -= dir.size();
                by_use.remove(&dir.used);
            }
            keep
        });
    }

    fn touch(&mut self, path: &RemotePath) {
        if let Some(dir) = self.dirs.get_mut(path) {
            self.clock += 1;
            if let Some(path) = self.by_use.remove(&dir.used) {
                self.by_use.insert(self.clock, path);
            }
            dir.used = self.clock;
        }
    }

    /// Edits what is known of `path`, then makes room.
    fn edit_dir<R>(&mut self, path: &RemotePath, edit: impl FnOnce(&mut Dir) -> R) -> R {
        self.clock += 1;
        let limit = self.limit;
        let dir = self.dirs.entry(path.clone()).or_default();
        if dir.used == 0 {
            self.weight += dir.weight(limit);
            self.size += dir.size();
        } else {
            self.by_use.remove(&dir.used);
        }
        dir.used = self.clock;
        self.by_use.insert(self.clock, path.clone());
        let before = (dir.weight(limit), dir.size());
        let result = edit(dir);
        self.weight = self.weight + dir.weight(limit) - before.0;
        self.size = self.size + dir.size() - before.1;
        // Of two of the largest the memory is for one, beside small ones.
        let most = limit.saturating_mul(LARGEST) + limit / 2;
        while (self.weight > limit || self.size > most)
            && let Some((_, oldest)) = self.by_use.pop_first()
            && let Some(dir) = self.dirs.remove(&oldest)
        {
            self.weight -= dir.weight(limit);
            self.size -= dir.size();
        }
        result
    }
}

/// Whether a directory that answers so can be looked into name by name all the same.
pub(super) fn refuses_listing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::NotPermitted
            | ErrorKind::Unsupported
            | ErrorKind::Protocol
    )
}

#[cfg(test)]
mod tests;
