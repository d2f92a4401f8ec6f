//! What renames mean: flags in the inbox, sending in the outbox.

use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fs, io};

use super::local::{self, failed};
use super::outbox::Outbox;
use super::submitted::How;
use super::{MailBackend, base_name, missing};
use crate::mail::fetch::ServerDelete;
use crate::vfs::error::{ErrorKind, Result};
use crate::vfs::path::RemotePath;

impl MailBackend {
    /// What is about to go from the inbox goes from the server too where the user wants that; not
    /// so one name of two, with which programs that link and unlink move a message.
    pub(super) fn removed_from_inbox(&self, real: &Path) -> Result<()> {
        let base = base_name(real);
        if let Some(other) = self.other_name(real) {
            return Ok(self.store.renamed(base, base_name(&other))?);
        }
        if self.has_copy(real, base) {
            return Ok(());
        }
        let on_server = matches!(self.delete, ServerDelete::OnUnlink | ServerDelete::After(_));
        Ok(self.store.removed(base, on_server)?)
    }

    /// Another name that the message at `real` has in the inbox.
    fn other_name(&self, real: &Path) -> Option<PathBuf> {
        let about = fs::symlink_metadata(real).ok()?;
        if about.nlink() < 2 {
            return None;
        }
        let dirs = ["new", "cur", "tmp"].map(|dir| self.areas.maildir.join(dir));
        let mut entries = dirs
            .iter()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten();
        entries.find_map(|entry| {
            let entry = entry.ok()?;
            let path = entry.path();
            (entry.ino() == about.ino() && path != real).then_some(path)
        })
    }

    /// Whether the message at `real` is there a second time under its name, as `cp new/* cur/` leaves
    /// it: it stays in the inbox then.
    fn has_copy(&self, real: &Path, base: &str) -> bool {
        let places = [("new", ""), ("cur", ""), ("cur", ":2,"), ("cur", ":2,S")];
        places.into_iter().any(|(dir, flags)| {
            let other = self.areas.maildir.join(dir).join(format!("{base}{flags}"));
            other != *real && other.exists()
        })
    }

    /// A second name in the outbox: sending what is prepared, which stays where it is.
    pub(super) fn link_into_outbox(
        &self,
        from: &Path,
        to: &Path,
        place: &RemotePath,
    ) -> Result<()> {
        if to.exists() {
            return Err(ErrorKind::Exists.into());
        }
        let about = fs::symlink_metadata(from).map_err(|err| failed(from, &err))?;
        let spool = self.areas.root.join("spool");
        let linked = spool.join(format!("linked-{}", about.ino()));
        // Left by a crash, if it is there.
        let _ = fs::remove_file(&linked);
        fs::hard_link(from, &linked).map_err(|err| failed(from, &err))?;
        self.rename_into_outbox(&linked, to, place)
            .inspect_err(|_| drop(fs::remove_file(&linked)))
    }

    pub(super) fn rename_in_inbox(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, new) = (base_name(from), base_name(to));
        if old != new {
            if to.exists() {
                self.removed_from_inbox(to)?;
            }
            self.store.renamed(old, new)?;
        }
        fs::rename(from, to).map_err(|err| failed(from, &err))
    }

    /// Renames into the outbox: that is sending, and this the place to refuse it.
    pub(super) fn rename_into_outbox(
        &self,
        from: &Path,
        to: &Path,
        place: &RemotePath,
    ) -> Result<()> {
        let about = local::stat(from)?;
        let parent = place.parent().filter(|parent| !parent.is_root());
        // A directory in a recipient's is complete, dot or not.
        let complete = if about.is_dir() {
            parent.as_ref().is_some_and(Outbox::commits)
        } else {
            Outbox::commits(place)
        };
        self.make_parent(to, place)?;
        let inode = about.unique.as_deref().and_then(|of| of.try_into().ok());
        let inode = inode.map(u64::from_be_bytes);
        // Of this rename alone: others may be under way.
        let replaced = format!("replaced-{}", inode.unwrap_or_default());
        let replaced = self.areas.root.join("spool").join(replaced);
        let mut replaces = false;
        if to.exists() {
            // What was sent already, or will be, is not brought back.
            replaces = self.outbox.make_way(place)?;
            match fs::rename(to, &replaced) {
                // Cleared away meanwhile: its message has been sent.
                Err(err) if err.kind() == io::ErrorKind::NotFound => replaces = false,
                other => other.map_err(|err| failed(to, &err))?,
            }
        }
        fs::rename(from, to).map_err(|err| failed(from, &err))?;
        let open = inode.and_then(|inode| self.outbox.is_open(inode));
        if !complete {
            let _ = fs::remove_file(&replaced);
            return Ok(());
        }
        // Who has it open may be about to write more.
        let linger = if open.is_some() {
            self.outbox.linger
        } else {
            Duration::ZERO
        };
        if let Some(written) = &open {
            written.unjudged.store(false, Ordering::Release);
        }
        let how = match from.starts_with(self.areas.root.join("outbox")) {
            true => How::Written,
            false => How::MovedIn,
        };
        let outcome = self.outbox.renamed(place, linger, how);
        let Err(err) = outcome else {
            let _ = fs::remove_file(&replaced);
            return Ok(());
        };
        if self.outbox.is_submitted(place) {
            return Err(err);
        }
        if let Some(written) = &open {
            written.unjudged.store(true, Ordering::Release);
        }
        let back = fs::rename(to, from).and_then(|()| match replaces {
            true => fs::rename(&replaced, to),
            false => Ok(()),
        });
        match back {
            // It was sent, to some at least, and went with its message.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(back) => log::error!("{}: {back}", to.display()),
            Ok(()) => {}
        }
        self.outbox.tidy(place);
        Err(err)
    }

    pub(super) fn make_parent(&self, real: &Path, place: &RemotePath) -> Result<()> {
        let Some(parent) = real.parent().filter(|parent| !parent.exists()) else {
            return Ok(());
        };
        if place
            .parent()
            .is_none_or(|dir| !self.outbox.may_be_directory(&dir))
        {
            return Err(missing(place));
        }
        fs::create_dir_all(parent).map_err(|err| failed(parent, &err))
    }
}
