//! One open file for each inode, whoever has it open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use super::backend::OpenFile;
use super::inodes::Ino;
use super::lending::Loan;
use crate::sync::Locked;

/// What has become of an open file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has one, and content goes there.
    Named,
    /// It was removed here: the content is for the handles only.
    Detached,
    /// It was detached with content that no server has, and then its removal failed.
    Lost,
}

/// Locks of one open file, held across its own I/O. Whoever holds one may use the leaves (inodes,
/// handles, this table); nothing waits for one while holding a leaf.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// Opening and closing, one at a time, so that the file is opened once and not opened before
    /// its last content is stored. May be followed by `naming`, never the reverse.
    pub(crate) opening: Mutex<()>,
    /// Shared by what tells the server something under the file's name, taken alone by what moves
    /// the name. Only a rename takes several, in the order of inode numbers.
    pub(crate) naming: RwLock<()>,
}

/// What the kernel has a file by.
struct Lent {
    loan: Loan,
    /// How many handles that is for, and how many of these may write.
    handles: u32,
    writers: u32,
}

struct Open {
    gates: Arc<Gates>,
    /// `None` while it is being opened.
    file: Option<Arc<dyn OpenFile>>,
    /// Handles, and calls that opened it for themselves or wait to open it.
    users: u32,
    /// Writers among these whose bytes do not go through the kernel's pages.
    direct: u32,
    lent: Option<Lent>,
    fate: Fate,
}

/// The files that are open. A leaf.
pub(crate) struct OpenFiles(Locked<HashMap<Ino, Open>>);

impl OpenFiles {
    /// Nothing is open.
    pub(crate) fn new() -> Self {
        Self(Locked::new(HashMap::new()))
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.0.with(|open| open.len())
    }

    /// One user more of `ino`, who takes `opening` next and looks whether it is open already.
    pub(crate) fn enter(&self, ino: Ino) -> Arc<Gates> {
        self.0.with(|open| {
            let open = open.entry(ino).or_insert_with(|| Open {
                gates: Arc::default(),
                file: None,
                users: 0,
                direct: 0,
                lent: None,
                fate: Fate::Named,
            });
            open.users += 1;
            Arc::clone(&open.gates)
        })
    }

    /// `ino` is open from now on. The caller has `opening`.
    pub(crate) fn opened(&self, ino: Ino, file: &Arc<dyn OpenFile>) {
        self.0.with(|open| {
            if let Some(open) = open.get_mut(&ino) {
                open.file = Some(Arc::clone(file));
                open.fate = Fate::Named;
            }
        });
    }

    /// The open file of `ino`.
    pub(crate) fn get(&self, ino: Ino) -> Option<(Arc<dyn OpenFile>, Fate)> {
        self.0.with(|open| {
            let open = open.get(&ino)?;
            Some((Arc::clone(open.file.as_ref()?), open.fate))
        })
    }

    /// The locks of `ino`, as long as it has a user.
    pub(crate) fn gates(&self, ino: Ino) -> Option<Arc<Gates>> {
        self.0
            .with(|open| open.get(&ino).map(|open| Arc::clone(&open.gates)))
    }

    /// Every open file.
    pub(crate) fn all(&self) -> Vec<(Ino, Arc<dyn OpenFile>)> {
        self.0.with(|open| {
            open.iter()
                .filter_map(|(ino, open)| Some((*ino, Arc::clone(open.file.as_ref()?))))
                .collect()
        })
    }

    /// What has become of the name of `ino`.
    pub(crate) fn set_fate(&self, ino: Ino, fate: Fate) {
        self.0.with(|open| {
            if let Some(open) = open.get_mut(&ino) {
                open.fate = fate;
            }
        });
    }

    /// The open file of `ino` if it has one user only, who is leaving and has to close it.
    pub(crate) fn last(&self, ino: Ino) -> Option<Arc<dyn OpenFile>> {
        self.0.with(|open| {
            let open = open.get(&ino).filter(|open| open.users == 1)?;
            open.file.clone()
        })
    }

    /// Whether the one who just entered `ino` shall go around the kernel's pages: a writer of a
    /// whole new content does if nobody else has the file open, and then everybody who comes while
    /// it is there, since pages filled meanwhile might be old.
    pub(crate) fn go_direct(&self, ino: Ino, writer: bool) -> bool {
        self.0.with(|open| {
            let Some(open) = open.get_mut(&ino) else {
                return false;
            };
            let direct = open.direct > 0 || writer && open.users == 1;
            open.direct += u32::from(direct && writer);
            direct
        })
    }

    /// A writer for whom [`go_direct`](Self::go_direct) said yes leaves.
    pub(crate) fn end_direct(&self, ino: Ino) {
        self.0.with(|open| {
            if let Some(open) = open.get_mut(&ino) {
                open.direct = open.direct.saturating_sub(1);
            }
        });
    }

    /// The loan of `ino`, if there is one, for one handle more, which may write if it `writes`.
    pub(crate) fn share_loan(&self, ino: Ino, writes: bool) -> Option<Loan> {
        self.0.with(|open| {
            let lent = open.get_mut(&ino)?.lent.as_mut()?;
            lent.handles += 1;
            lent.writers += u32::from(writes);
            Some(Loan::clone(&lent.loan))
        })
    }

    /// The kernel has the file of `ino` from now on, for one handle.
    pub(crate) fn lend(&self, ino: Ino, loan: &Loan, writes: bool) {
        self.0.with(|open| {
            if let Some(open) = open.get_mut(&ino) {
                open.lent = Some(Lent {
                    loan: Loan::clone(loan),
                    handles: 1,
                    writers: u32::from(writes),
                });
            }
        });
    }

    /// Whether the kernel has the file of `ino`.
    pub(crate) fn is_lent(&self, ino: Ino) -> bool {
        self.0
            .with(|open| open.get(&ino).is_some_and(|open| open.lent.is_some()))
    }

    /// Whether a handle that has the loan of `ino` may write.
    pub(crate) fn has_writer(&self, ino: Ino) -> bool {
        self.0.with(|open| {
            let lent = open.get(&ino).and_then(|open| open.lent.as_ref());
            lent.is_some_and(|lent| lent.writers > 0)
        })
    }

    /// One handle less has the loan of `ino`. Whether it was the last.
    pub(crate) fn end_loan(&self, ino: Ino, writes: bool) -> bool {
        let ended = self.0.with(|open| {
            let place = &mut open.get_mut(&ino)?.lent;
            let lent = place.as_mut()?;
            lent.handles -= 1;
            lent.writers -= u32::from(writes);
            if lent.handles == 0 {
                place.take()
            } else {
                None
            }
        });
        ended.is_some()
    }

    /// Whether `ino` has one user and no more.
    pub(crate) fn is_alone(&self, ino: Ino) -> bool {
        self.0
            .with(|open| open.get(&ino).is_some_and(|open| open.users == 1))
    }

    /// One user less of `ino`. The caller has `opening`.
    pub(crate) fn leave(&self, ino: Ino, closed: bool) {
        self.0.with(|open| {
            let Some(left) = open.get_mut(&ino) else {
                return;
            };
            left.users = left.users.saturating_sub(1);
            if closed {
                left.file = None;
                left.fate = Fate::Named;
            }
            if left.users == 0 {
                open.remove(&ino);
            }
        });
    }
}
