//! Names: make, remove, rename, link.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, PoisonError};

use super::attr::{Attr, FileKind};
use super::backend::{OpenFile, Replaces, Seen};
use super::error::{Error, ErrorKind, Result};
use super::open_files::{Fate, Gates};
use super::path::{Name, RemotePath};
use super::{Entry, Ino, Vfs};

/// The flags of `renameat2(2)` that a server can honour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenameHow {
    /// `RENAME_NOREPLACE`.
    pub no_replace: bool,
}

impl Vfs {
    /// Creates a directory with the permission bits `mode`.
    ///
    /// # Errors
    /// `Exists` if the name is taken.
    pub fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry> {
        let (name, path) = self.new_name(parent, name)?;
        self.backend.mkdir(&path, Some(mode & 0o7777))?;
        let (attr, valid) = self.attr(&path)?;
        self.entry(parent, &name, &attr, valid)
    }

    /// Creates a symbolic link to `target`.
    ///
    /// # Errors
    /// `Exists` if the name is taken; `Unsupported` where the server cannot.
    pub fn symlink(&self, parent: Ino, name: &OsStr, target: &[u8]) -> Result<Entry> {
        let (name, path) = self.new_name(parent, name)?;
        self.backend.symlink(target, &path)?;
        let (attr, valid) = self.attr(&path)?;
        self.entry(parent, &name, &attr, valid)
    }

    /// Gives the file `ino` a second name.
    ///
    /// # Errors
    /// `Exists` if the name is taken; `NotPermitted` where files have one name only.
    pub fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry> {
        let from = self.path(ino)?;
        let (name, to) = self.new_name(parent, name)?;
        self.backend.link(&from, &to)?;
        let (attr, valid) = self.attr(&to)?;
        if !self.inodes.with(|inodes| inodes.link(ino, parent, &name)) {
            return self.entry(parent, &name, &attr, valid);
        }
        Ok(Entry {
            stat: self.stat(ino, &attr),
            generation: 0,
            valid,
        })
    }

    /// Where a link points.
    ///
    /// # Errors
    /// `Invalid` if it is no link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let path = self.path(ino)?;
        if self.inodes.with(|inodes| inodes.kind(ino)) != Some(FileKind::Symlink) {
            return Err(ErrorKind::Invalid.into());
        }
        self.backend.read_link(&path)
    }

    /// Removes a file or a link. Handles of it keep their content.
    ///
    /// # Errors
    /// `IsADirectory`; `NotFound`; the server's.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let (name, path) = self.child(parent, name)?;
        let known = self.known_attr_of_child(parent, &name, &path);
        let known = known.transpose()?.map(|(attr, _)| attr);
        if known.as_ref().is_some_and(Attr::is_dir) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let open = self.join_child(parent, &name);
        bring(open.as_ref(), &path);
        let _on_its_way = self.moving.begin((parent, name.clone()));
        let open = open.or_else(|| self.join_child(parent, &name));
        let removed = match self.detach(open.as_ref(), &path) {
            Ok(true) => match self.backend.unlink(&path) {
                // It was only here, it turns out.
                Err(err) if err.kind() == ErrorKind::NotFound && written(open.as_ref()) => Ok(()),
                other => other,
            },
            Ok(false) => Ok(()),
            Err(err) => Err(err),
        };
        if self.settle(open, &removed) || removed.is_ok() {
            self.inodes
                .with(|inodes| inodes.orphan(parent, &name, known));
        }
        removed
    }

    /// Whether a file is open under that name, so that its content may have to come before the name
    /// goes.
    pub fn is_open(&self, parent: Ino, name: &OsStr) -> bool {
        let Ok(name) = Name::new(name.as_bytes()) else {
            return false;
        };
        let ino = self.inodes.with(|inodes| inodes.find(parent, &name));
        ino.is_some_and(|ino| self.open_files.get(ino).is_some())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty`, also for a file that is only being written yet; `NotADirectory`.
    pub fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let (name, path) = self.child(parent, name)?;
        let known = self.known_attr_of_child(parent, &name, &path);
        let known = known.transpose()?.map(|(attr, _)| attr);
        if known.as_ref().is_some_and(|attr| !attr.is_dir()) {
            return Err(ErrorKind::NotADirectory.into());
        }
        self.require_nothing_written_in(parent, &name)?;
        self.backend.rmdir(&path)?;
        self.inodes
            .with(|inodes| inodes.orphan(parent, &name, known));
        Ok(())
    }

    /// Renames a file or a directory, open or not, and replaces a file or an empty directory.
    ///
    /// # Errors
    /// `Exists` if the new name is taken and must not be replaced; `IsADirectory`,
    /// `NotADirectory`, `NotEmpty` for what cannot replace each other; the server's.
    pub fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        how: RenameHow,
    ) -> Result<()> {
        self.writable()?;
        let (name, from) = self.child(parent, name)?;
        let (new_name, to) = self.child(new_parent, new_name)?;
        let (attr, _) = self.attr_of_child(parent, &name, &from)?;
        let written = self.child_being_written(new_parent, &new_name);
        // A version is one of a file's.
        let unseen = written.is_some() || attr.is_dir();
        let replaces = unseen.then_some(Replaces::Anything);
        let found = written.map_or_else(|| self.attr(&to).map(|(attr, _)| attr), Ok);
        let target = match found {
            Ok(attr) => Some(attr),
            Err(err) if err.kind() == ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        let version = |attr: &Attr| match attr.kind {
            FileKind::File => Replaces::Version(Seen::of(attr)),
            FileKind::Symlink | FileKind::Directory => Replaces::Anything,
        };
        let replaces = replaces.or_else(|| target.as_ref().map(version));
        if how.no_replace && target.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        if from == to {
            return Ok(());
        }
        if to.is_within(&from) {
            return Err(ErrorKind::Invalid.into());
        }
        match target.as_ref().map(Attr::is_dir) {
            Some(true) if !attr.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            Some(false) if attr.is_dir() => return Err(ErrorKind::NotADirectory.into()),
            Some(true) => {
                self.require_nothing_written_in(new_parent, &new_name)?;
                // RNTO replaces files at best.
                self.backend.rmdir(&to)?;
            }
            Some(false) | None => {}
        }
        let result = self.rename_open(
            (parent, &name, &from),
            (new_parent, &new_name, &to),
            (target.clone(), replaces.unwrap_or(Replaces::Nothing)),
        );
        if result.is_err()
            && let Some(dir) = target.filter(Attr::is_dir)
            && let Err(err) = self.backend.mkdir(&to, dir.mode)
        {
            log::warn!("{to}: removed for a rename that failed, and not made again: {err}");
        }
        result
    }

    /// Renames, with the files open under both names.
    fn rename_open(
        &self,
        (parent, name, from): (Ino, &Name, &RemotePath),
        (new_parent, new_name, to): (Ino, &Name, &RemotePath),
        (replaced, replaces): (Option<Attr>, Replaces),
    ) -> Result<()> {
        let open = self.open_files.all().into_iter().map(|(ino, _)| ino);
        let below = |ino: &Ino| self.path(*ino).is_ok_and(|path| path.is_within(from));
        let mut moved: Vec<Ino> = open.filter(below).collect();
        // Also if it is not open yet: it might be, before the name has moved.
        moved.extend(self.inodes.with(|inodes| inodes.find(parent, name)));
        moved.sort_unstable();
        moved.dedup();
        let gates: Vec<Arc<Gates>> = moved.iter().map(|ino| self.hold(*ino)).collect();
        let mut target = self.join_child(new_parent, new_name);
        let on_its_way;
        let renamed = {
            // Until the name has moved, nothing is stored under the old one.
            let _naming: Vec<_> = gates
                .iter()
                .map(|gates| gates.naming.write().unwrap_or_else(PoisonError::into_inner))
                .collect();
            let source = self.inodes.with(|inodes| inodes.find(parent, name));
            let brought = self.bring_all(source, &moved, (target.as_ref(), to));
            on_its_way = self.moving.begin((new_parent, new_name.clone()));
            // Somebody may have opened it until then.
            target = target.or_else(|| self.join_child(new_parent, new_name));
            let renamed = brought
                .and_then(|()| self.rename_named(source, &moved, (from, to), &target, replaces));
            if renamed.is_ok() {
                let names = ((parent, name), (new_parent, new_name));
                self.inodes
                    .with(|inodes| inodes.rename(names.0, names.1, replaced.clone()));
            }
            renamed
        };
        if self.settle(target, &renamed) && renamed.is_err() {
            self.inodes
                .with(|inodes| inodes.orphan(new_parent, new_name, replaced));
        }
        drop(on_its_way);
        moved.into_iter().for_each(|ino| self.leave_quietly(ino));
        renamed
    }

    /// What takes long, before the name is on its way: uploads what was written to the files in
    /// `moved` that goes by the server, and fetches what those need who have the target open.
    fn bring_all(
        &self,
        source: Option<Ino>,
        moved: &[Ino],
        (target, to): (Option<&Joined>, &RemotePath),
    ) -> Result<()> {
        if self.acknowledged(source).is_none() {
            self.commit_written(moved)?;
        }
        bring(target, to);
        Ok(())
    }

    /// The file `source` if it is in the journal only.
    fn acknowledged(&self, source: Option<Ino>) -> Option<Arc<dyn OpenFile>> {
        match self.open_files.get(source?) {
            Some((file, Fate::Named)) => Some(file).filter(|file| file.is_acknowledged()),
            _ => None,
        }
    }

    /// The caller has `naming` of the files in `moved`.
    fn rename_named(
        &self,
        source: Option<Ino>,
        moved: &[Ino],
        (from, to): (&RemotePath, &RemotePath),
        target: &Option<Joined>,
        replaces: Replaces,
    ) -> Result<()> {
        let replaces = match target {
            // Nobody saw which version of it is on the server, if any.
            Some(joined) if joined.dirty => Replaces::Anything,
            // That one is what somebody here sees, and nothing newer.
            Some(joined) if matches!(replaces, Replaces::Version(_)) => {
                Replaces::Version(Seen::of(&joined.file.attr()))
            }
            _ => replaces,
        };
        // What is only in the journal yet is renamed there, and takes the place of the other when
        // it is uploaded.
        if let Some(file) = self.acknowledged(source) {
            self.detach(target.as_ref(), to)?;
            if file.moved(to, replaces)? {
                return Ok(());
            }
        }
        // Nothing is left to do, unless the file was only in the journal and somebody has written to
        // it since: then no server has it yet.
        self.commit_written(moved)?;
        self.detach(target.as_ref(), to)?;
        self.backend.rename(from, to, replaces)
    }

    fn commit_written(&self, files: &[Ino]) -> Result<()> {
        let written = files.iter().copied();
        let written = written.filter(|ino| self.being_written(*ino).is_some());
        let failed = self.commit_many(written.collect(), |ino| match self.open_files.get(ino) {
            Some((file, _)) => self.commit_named(ino, &*file),
            None => Ok(()),
        });
        failed
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, err)| Err(err))
    }

    /// Name and path for something new in `parent`.
    fn new_name(&self, parent: Ino, name: &OsStr) -> Result<(Name, RemotePath)> {
        self.writable()?;
        let (name, path) = self.child(parent, name)?;
        match self.known_attr_of_child(parent, &name, &path) {
            Some(Ok(_)) => Err(Error::new(ErrorKind::Exists, format!("{path}: exists"))),
            Some(Err(_)) | None => Ok((name, path)),
        }
    }

    /// A directory of which the server knows no entry may still have one that is being written.
    fn require_nothing_written_in(&self, parent: Ino, name: &Name) -> Result<()> {
        let dir = self.inodes.with(|inodes| inodes.find(parent, name));
        let Some(dir) = dir else { return Ok(()) };
        let children = self.inodes.with(|inodes| inodes.children(dir));
        if children
            .iter()
            .any(|(_, ino)| self.being_written(*ino).is_some())
        {
            return Err(ErrorKind::NotEmpty.into());
        }
        Ok(())
    }

    /// The file that is open under a name about to go, unless it has another, or is lent: then it
    /// keeps its content without that.
    fn join_child(&self, parent: Ino, name: &Name) -> Option<Joined> {
        let ino = self.inodes.with(|inodes| {
            let ino = inodes.find(parent, name)?;
            (inodes.names(ino) == 1 && inodes.frozen(ino).is_none()).then_some(ino)
        })?;
        let file = self.join(ino)?;
        let dirty = file.is_dirty();
        Some(Joined { ino, file, dirty })
    }

    /// Makes it independent of the server. Returns whether the server has a file of that name.
    fn detach(&self, open: Option<&Joined>, path: &RemotePath) -> Result<bool> {
        let Some(open) = open else { return Ok(true) };
        let on_server = open.file.detach(path)?;
        self.open_files.set_fate(open.ino, Fate::Detached);
        Ok(on_server)
    }

    /// Lets go of it once its name is gone, or is not. Returns whether it was detached: then it
    /// cannot have the name back.
    fn settle(&self, open: Option<Joined>, removed: &Result<()>) -> bool {
        let Some(Joined { ino, file, dirty }) = open else {
            return false;
        };
        let fate = self.open_files.get(ino).map(|(_, fate)| fate);
        let mut detached = fate == Some(Fate::Detached);
        if detached && removed.is_ok() {
            file.removed();
            self.hasten(ino, removed);
        }
        if detached && removed.is_err() && file.reattach() {
            self.open_files.set_fate(ino, Fate::Named);
            detached = false;
            // A worker may have let go of it meanwhile, as of what nobody wants.
            if file.has_record() {
                self.enlist(ino, file.attr().size.unwrap_or_default());
            }
        }
        if detached && dirty && removed.is_err() {
            log::error!("inode {ino}: what was written to it is lost, for its name was given up");
            self.open_files.set_fate(ino, Fate::Lost);
        }
        self.leave_quietly(ino);
        detached
    }
}

/// Whether the name was, or would have been, one of a file that is being written.
fn written(open: Option<&Joined>) -> bool {
    open.is_some_and(|open| open.dirty)
}

/// See [`OpenFile::bring`].
fn bring(open: Option<&Joined>, path: &RemotePath) {
    if let Some(open) = open {
        open.file.bring(path);
    }
}

/// A file that is open under a name about to go.
struct Joined {
    ino: Ino,
    file: Arc<dyn OpenFile>,
    dirty: bool,
}
