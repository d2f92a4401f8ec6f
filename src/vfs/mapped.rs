//! Lent files that programs may write to by mappings, which outlive every descriptor.
//!
//! The kernel has such a mapping on the local file, and tells nobody when it goes. But as long as
//! there is one, it remembers the inode. So the file stays open here, and somebody looks at it now and
//! then, until the kernel was told to forget its name and has forgotten the inode.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::open_files::Fate;
use super::{Ino, Vfs};
use crate::sync::Locked;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// How long content that could not be stored is left alone.
const RETRY: Duration = Duration::from_secs(10);

/// Has the kernel forget a name in a directory.
type Forget = Box<dyn Fn(Ino, &OsStr) + Send + Sync>;

/// The files that are followed.
pub(super) struct Mapped {
    vfs: Weak<Vfs>,
    forget: Forget,
    followed: Locked<Vec<Followed>>,
}

#[derive(Clone, Copy)]
struct Followed {
    ino: Ino,
    /// When it was tried to store it, in vain.
    failed: Option<Instant>,
}

impl Vfs {
    /// Follows mappings from now on. `forget` has the kernel forget a name in a directory.
    pub fn follow_mappings(self: &Arc<Self>, forget: impl Fn(Ino, &OsStr) + Send + Sync + 'static) {
        self.mapped.get_or_init(|| {
            Arc::new(Mapped {
                vfs: Arc::downgrade(self),
                forget: Box::new(forget),
                followed: Locked::default(),
            })
        });
    }

    /// Whether the caller's use of `ino` is taken over, until nobody has it mapped any more.
    pub(super) fn follow_mapping(&self, ino: Ino) -> bool {
        let Some(mapped) = self.mapped.get() else {
            return false;
        };
        let (new, first) = mapped.followed.with(|followed| {
            let new = followed.iter().all(|one| one.ino != ino);
            if new {
                followed.push(Followed { ino, failed: None });
            }
            (new, new && followed.len() == 1)
        });
        if first {
            let mapped = Arc::clone(mapped);
            let follow = thread::Builder::new().name("mapped".into());
            if let Err(err) = follow.spawn(move || mapped.follow()) {
                log::warn!("no thread to follow mappings on: {err}");
                self.mapped_end(ino);
                return false;
            }
        }
        new
    }

    fn mapped_end(&self, ino: Ino) {
        if let Some(mapped) = self.mapped.get() {
            let others = |one: &Followed| one.ino != ino;
            mapped.followed.with(|followed| followed.retain(others));
        }
    }

    /// Stores what came by mappings. Whether the file is to be followed on, or `None` if not.
    fn look_at_mapped(&self, one: Followed, forget: &Forget) -> Option<Followed> {
        let Followed { ino, mut failed } = one;
        // First: what is written before the last mapping goes is there to be seen.
        let over = self.inodes.with(|inodes| inodes.is_forgotten(ino));
        let (file, fate) = self.open_files.get(ino)?;
        file.look();
        // Who has it open stores it when he likes.
        let ours = fate == Fate::Named && (over || !self.open_files.has_writer(ino));
        let again = failed.is_none_or(|when| when.elapsed() > RETRY);
        if ours && file.is_dirty() && (again || over) {
            failed = None;
            if let Err(err) = self.store(ino, &*file) {
                log::warn!(
                    "inode {ino}: what was written by a mapping is not on the server: {err}"
                );
                failed = Some(Instant::now());
            }
        }
        if over {
            return None;
        }
        if !self.open_files.is_lent(ino)
            && let Some((dir, name)) = self.inodes.with(|inodes| inodes.entry(ino))
        {
            forget(dir, OsStr::from_bytes(name.as_bytes()));
        }
        Some(Followed { ino, failed })
    }
}

impl Mapped {
    /// Until there is nothing to be followed. The body of a thread.
    fn follow(&self) {
        loop {
            thread::sleep(PAUSE);
            let Some(vfs) = self.vfs.upgrade() else {
                return;
            };
            for one in self.followed.with(|followed| followed.clone()) {
                let next = vfs.look_at_mapped(one, &self.forget);
                let gone = self.followed.with(|followed| {
                    let at = followed.iter().position(|there| there.ino == one.ino)?;
                    match (next, followed.get_mut(at)) {
                        (Some(next), Some(place)) => *place = next,
                        _ => return Some(followed.swap_remove(at)),
                    }
                    None
                });
                if let Some(Followed { ino, .. }) = gone {
                    vfs.leave_quietly(ino);
                }
            }
            if self.followed.with(|followed| followed.is_empty()) {
                return;
            }
        }
    }
}
