//! Which number the kernel knows a name by.
//!
//! Identity is (parent, name); a path is computed by walking up, so that renaming a directory
//! moves everything below it at once. A number lives as long as the kernel counts lookups of it, a
//! handle pins it, or a child needs its path; it is never used again.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::attr::{Attr, FileKind};
use super::path::{Name, RemotePath};

/// An inode number.
pub type Ino = u64;

/// The number of the root, as FUSE wants it.
pub const ROOT: Ino = 1;

/// What tells two contents of one file apart, as far as the kernel's pages are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    size: u64,
    mtime: SystemTime,
    unique: Option<Box<[u8]>>,
}

impl Version {
    /// The version that `attr` describes; `None` where it does not say enough.
    pub(crate) fn of(attr: &Attr) -> Option<Self> {
        Some(Self {
            size: attr.size?,
            mtime: attr.mtime?,
            unique: attr.unique.clone(),
        })
    }

    /// Whether this and `other` are one version. An identity that only one of them tells is no
    /// difference: an upload does not learn it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let other_file = self
            .unique
            .as_ref()
            .zip(other.unique.as_ref())
            .is_some_and(|(a, b)| a != b);
        self.size == other.size && self.mtime == other.mtime && !other_file
    }

    /// Whether `attr` is, beyond doubt, of this version.
    pub(crate) fn describes(&self, attr: &Attr) -> bool {
        Self::of(attr).is_some_and(|other| self.is(&other))
    }

    /// As [`of`](Self::of), for a file others may be writing: `None` also while a second change
    /// could leave the time stamp as it is, because it is coarse and recent.
    pub(crate) fn settled(attr: &Attr, now: SystemTime) -> Option<Self> {
        let grain = Duration::from_secs(if attr.mtime_exact { 2 } else { 120 });
        let age = now.duration_since(attr.mtime?).ok()?;
        (age > grain).then(|| Self::of(attr)).flatten()
    }
}

#[derive(Debug)]
struct Node {
    /// Parent and name; `None` for the root and for an orphan.
    at: Option<(Ino, Name)>,
    /// Its other names, from link(2).
    also: Vec<(Ino, Name)>,
    kind: FileKind,
    lookups: u64,
    /// Handles and calls under way that need the node whatever the kernel forgets.
    pins: u32,
    children: HashMap<Name, Ino>,
    /// What the kernel's page cache was filled from.
    version: Option<Version>,
    /// The one version that it is as long as the kernel reads it by itself.
    frozen: Option<Box<Version>>,
    /// An orphan's last attributes.
    last: Option<Box<Attr>>,
    /// Where an orphan was.
    was: Option<Box<(Ino, Name)>>,
}

impl Node {
    fn new(at: Option<(Ino, Name)>, kind: FileKind) -> Self {
        Self {
            at,
            also: Vec::new(),
            kind,
            lookups: 0,
            pins: 0,
            children: HashMap::new(),
            version: None,
            frozen: None,
            last: None,
            was: None,
        }
    }
}

/// Where an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Reachable by this path.
    At(RemotePath),
    /// Its name, or that of a directory above, was removed.
    Orphan,
}

/// All inodes the kernel knows, and those that its knowledge rests on.
#[derive(Debug)]
pub(crate) struct Inodes {
    nodes: HashMap<Ino, Node>,
    next: Ino,
}

impl Inodes {
    /// A table with nothing but the root.
    pub(crate) fn new() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::new(None, FileKind::Directory))]),
            next: ROOT + 1,
        }
    }

    /// How many inodes there are, the root included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Takes `count` numbers that no inode will have, and returns the first.
    pub(crate) fn reserve(&mut self, count: u64) -> Ino {
        let first = self.next;
        self.next += count;
        first
    }

    /// What kind of file `ino` is; `None` if it is not known.
    pub(crate) fn kind(&self, ino: Ino) -> Option<FileKind> {
        self.nodes.get(&ino).map(|node| node.kind)
    }

    /// Where `ino` is; `None` if it is not known.
    pub(crate) fn place(&self, ino: Ino) -> Option<Place> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(&ino)?;
        let mut at = ino;
        while let Some((parent, name)) = &node.at {
            names.push(name);
            at = *parent;
            node = self.nodes.get(parent)?;
        }
        if at != ROOT {
            return Some(Place::Orphan);
        }
        Some(Place::At(RemotePath::from_names(names.into_iter().rev())))
    }

    /// The directory `ino` is in: itself for the root and for an orphan.
    pub(crate) fn parent(&self, ino: Ino) -> Ino {
        let at = self.nodes.get(&ino).and_then(|node| node.at.as_ref());
        at.map_or(ino, |(parent, _)| *parent)
    }

    /// The inode that `name` in `parent` has, if any.
    pub(crate) fn find(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// Names and inodes known in `dir`.
    pub(crate) fn children(&self, dir: Ino) -> Vec<(Name, Ino)> {
        let children = self.nodes.get(&dir).map(|node| node.children.iter());
        children
            .into_iter()
            .flatten()
            .map(|(name, ino)| (name.clone(), *ino))
            .collect()
    }

    /// How many names are known in `dir`.
    pub(crate) fn count_in(&self, dir: Ino) -> usize {
        self.nodes.get(&dir).map_or(0, |node| node.children.len())
    }

    /// The inode of `name`, made if there is none, with one lookup more. An inode of another kind
    /// is another file: the old one becomes an orphan. `None` if `parent` is not known.
    pub(crate) fn look_up(&mut self, parent: Ino, name: &Name, kind: FileKind) -> Option<Ino> {
        let ino = self.bind(parent, name, kind)?;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
        Some(ino)
    }

    /// `name` is to be looked up, and has these attributes: if its inode is frozen as another
    /// version, it gets another one.
    pub(crate) fn renew(&mut self, parent: Ino, name: &Name, attr: &Attr) {
        if let Some(ino) = self.find(parent, name)
            && self
                .frozen(ino)
                .is_some_and(|version| !version.describes(attr))
        {
            self.part(ino);
        }
    }

    /// As [`look_up`](Self::look_up), but pinned instead of counted.
    pub(crate) fn bind_pinned(&mut self, parent: Ino, name: &Name, kind: FileKind) -> Option<Ino> {
        let ino = self.bind(parent, name, kind)?;
        self.pin(ino);
        Some(ino)
    }

    fn bind(&mut self, parent: Ino, name: &Name, kind: FileKind) -> Option<Ino> {
        if let Some(ino) = self.find(parent, name) {
            if self.kind(ino) == Some(kind) {
                return Some(ino);
            }
            self.orphan(parent, name, None);
        }
        let ino = self.next;
        self.nodes
            .get_mut(&parent)?
            .children
            .insert(name.clone(), ino);
        self.next += 1;
        let node = Node::new(Some((parent, name.clone())), kind);
        self.nodes.insert(ino, node);
        Some(ino)
    }

    /// The kernel gives back `lookups` of `ino`.
    pub(crate) fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.drop_unused(ino);
    }

    /// Whether the kernel has given back every lookup of `ino`.
    pub(crate) fn is_forgotten(&self, ino: Ino) -> bool {
        self.nodes.get(&ino).is_none_or(|node| node.lookups == 0)
    }

    /// Directory and name of `ino`, if it has one.
    pub(crate) fn entry(&self, ino: Ino) -> Option<(Ino, Name)> {
        self.nodes.get(&ino).and_then(|node| node.at.clone())
    }

    /// Directory and name that `ino` has, or had last.
    pub(crate) fn last_entry(&self, ino: Ino) -> Option<(Ino, Name)> {
        let node = self.nodes.get(&ino)?;
        let was = || node.was.as_deref().cloned();
        node.at.clone().or_else(was)
    }

    /// Keeps `ino` until [`unpin`](Self::unpin).
    pub(crate) fn pin(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.pins += 1;
        }
    }

    /// Takes back one [`pin`](Self::pin).
    pub(crate) fn unpin(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.pins = node.pins.saturating_sub(1);
        }
        self.drop_unused(ino);
    }

    /// `name` is gone: whoever still has its inode keeps it without a path, and sees `last`. An
    /// inode that has another name keeps that.
    pub(crate) fn orphan(&mut self, parent: Ino, name: &Name, last: Option<Attr>) {
        let Some(ino) = self.find(parent, name) else {
            return;
        };
        self.unhook(ino, parent, name);
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.at.is_none()
        {
            node.last = last.map(Box::new);
        }
        self.drop_unused(ino);
        self.drop_unused(parent);
    }

    /// Takes all its names from `ino`, which is open.
    pub(crate) fn part(&mut self, ino: Ino) {
        while let Some((parent, name)) = self.nodes.get(&ino).and_then(|node| node.at.clone()) {
            self.orphan(parent, &name, None);
        }
    }

    /// Moves one node to another name, whose own inode becomes an orphan that shows `replaced`.
    pub(crate) fn rename(
        &mut self,
        (parent, name): (Ino, &Name),
        (new_parent, new_name): (Ino, &Name),
        replaced: Option<Attr>,
    ) {
        // The directory must outlive the loss of its child in between.
        self.pin(new_parent);
        self.orphan(new_parent, new_name, replaced);
        let source = self.find(parent, name);
        // A directory within itself would make a ring, which no walk up ever leaves.
        if let Some(ino) = source.filter(|ino| !self.is_within(new_parent, *ino)) {
            self.unhook(ino, parent, name);
            self.hook(ino, new_parent, new_name);
            self.drop_unused(parent);
        }
        self.unpin(new_parent);
    }

    /// Gives `ino` another name, which nothing has, and counts a lookup of it. `false` if `ino` or
    /// `parent` is not known.
    pub(crate) fn link(&mut self, ino: Ino, parent: Ino, name: &Name) -> bool {
        self.orphan(parent, name, None);
        if !self.nodes.contains_key(&parent) {
            return false;
        }
        let Some(node) = self.nodes.get_mut(&ino) else {
            return false;
        };
        node.lookups += 1;
        self.hook(ino, parent, name);
        true
    }

    /// How many names `ino` is known by.
    pub(crate) fn names(&self, ino: Ino) -> usize {
        let node = self.nodes.get(&ino);
        node.map_or(0, |node| usize::from(node.at.is_some()) + node.also.len())
    }

    fn hook(&mut self, ino: Ino, parent: Ino, name: &Name) {
        if let Some(dir) = self.nodes.get_mut(&parent) {
            dir.children.insert(name.clone(), ino);
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            let before = node.at.replace((parent, name.clone()));
            node.also.extend(before);
        }
    }

    fn is_within(&self, mut ino: Ino, dir: Ino) -> bool {
        while ino != dir {
            match self.nodes.get(&ino).and_then(|node| node.at.as_ref()) {
                Some((parent, _)) => ino = *parent,
                None => return false,
            }
        }
        true
    }

    /// Takes `name` away from `ino`.
    fn unhook(&mut self, ino: Ino, parent: Ino, name: &Name) {
        let gone = |at: &(Ino, Name)| at.0 == parent && at.1 == *name;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.also.retain(|at| !gone(at));
            if node.at.as_ref().is_some_and(gone) {
                let was = std::mem::replace(&mut node.at, node.also.pop());
                node.was = was.filter(|_| node.at.is_none()).map(Box::new);
            }
        }
        if let Some(dir) = self.nodes.get_mut(&parent) {
            dir.children.remove(name);
        }
    }

    /// An orphan's last attributes.
    pub(crate) fn last(&self, ino: Ino) -> Option<Attr> {
        let last = self.nodes.get(&ino).and_then(|node| node.last.as_deref());
        last.cloned()
    }

    /// The version that `ino` is frozen as.
    pub(crate) fn frozen(&self, ino: Ino) -> Option<&Version> {
        self.nodes.get(&ino).and_then(|node| node.frozen.as_deref())
    }

    /// See [`frozen`](Self::frozen).
    pub(crate) fn freeze(&mut self, ino: Ino, version: Option<Version>) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.frozen = version.map(Box::new);
        }
    }

    /// What the kernel's pages of `ino` were filled from.
    pub(crate) fn version(&self, ino: Ino) -> Option<&Version> {
        self.nodes.get(&ino).and_then(|node| node.version.as_ref())
    }

    /// See [`version`](Self::version).
    pub(crate) fn set_version(&mut self, ino: Ino, version: Option<Version>) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.version = version;
        }
    }

    /// Removes `ino` if nothing needs it, and then its parents likewise.
    fn drop_unused(&mut self, mut ino: Ino) {
        while let Some(node) = self.nodes.get(&ino)
            && ino != ROOT
            && node.lookups == 0
            && node.pins == 0
            && node.children.is_empty()
        {
            let Some(node) = self.nodes.remove(&ino) else {
                return;
            };
            let mut above = Vec::new();
            for (parent, name) in node.at.into_iter().chain(node.also) {
                if let Some(dir) = self.nodes.get_mut(&parent) {
                    dir.children.remove(&name);
                }
                above.push(parent);
            }
            // Linked files alone have several; their directories may go, too.
            let Some(parent) = above.pop() else { return };
            above.into_iter().for_each(|dir| self.drop_unused(dir));
            ino = parent;
        }
    }
}

#[cfg(test)]
mod tests;
