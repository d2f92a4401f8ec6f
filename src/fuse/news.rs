//! Tells the kernel of changes that nobody asked for through this mount, so that whoever looks again
//! sees them, whatever the kernel remembers.
//!
//! The kernel takes a notification only when nothing else is being done to its directory, which may
//! be waiting for our answer: so they are sent from a thread of their own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::vfs::Vfs;
use crate::vfs::backend::Listener;
use crate::vfs::path::{Name, RemotePath};

/// Batches that may wait. What is not told then is seen when the kernel's memory is too old.
const WAITING: usize = 64;

type Appeared = (RemotePath, Vec<Name>);

/// What the backend tells.
pub(crate) struct News(SyncSender<Appeared>);

impl News {
    /// Starts the thread. `afterwards` is called on it for each change the kernel knows of. It ends
    /// when this is dropped.
    pub(crate) fn start(
        notifier: Notifier,
        vfs: &Arc<Vfs>,
        afterwards: impl Fn(&RemotePath, &[Name]) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, news) = mpsc::sync_channel(WAITING);
        // The backend keeps the sender, and the tree the backend.
        let vfs = Arc::downgrade(vfs);
        thread::Builder::new().name("news".into()).spawn(move || {
            let of = |dir: &RemotePath| vfs.upgrade().and_then(|vfs| vfs.known_ino(dir));
            pass_on(&news, &notifier, of, afterwards);
        })?;
        Ok(Self(sender))
    }
}

impl Listener for News {
    fn appeared(&self, dir: &RemotePath, names: Vec<Name>) {
        // With too many waiting there is a thread that will look at the directory anyway.
        let _ = self.0.try_send((dir.clone(), names));
    }
}

/// The kernel forgets names that [`Vfs::follow_mappings`] wants to be forgotten.
pub(crate) fn forget_names(vfs: &Arc<Vfs>, notifier: Notifier) {
    vfs.follow_mappings(move |dir, name| {
        // It may have forgotten already.
        let _ = notifier.inval_entry(INodeNo(dir), name);
    });
}

fn pass_on(
    news: &Receiver<Appeared>,
    notifier: &Notifier,
    known: impl Fn(&RemotePath) -> Option<u64>,
    afterwards: impl Fn(&RemotePath, &[Name]),
) {
    for (dir, mut names) in news {
        // What has come in together is told together.
        let rest: Vec<_> = news.try_iter().collect();
        let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(of, _)| *of == dir);
        names.extend(same.into_iter().flat_map(|(_, names)| names));
        for (dir, names) in [(dir, names)].into_iter().chain(others) {
            tell(notifier, &known, &dir, &names);
            afterwards(&dir, &names);
        }
    }
}

fn tell(
    notifier: &Notifier,
    known: &impl Fn(&RemotePath) -> Option<u64>,
    dir: &RemotePath,
    names: &[Name],
) {
    // What the kernel has never looked up it does not remember wrongly.
    let Some(ino) = known(dir).map(INodeNo) else {
        return;
    };
    for name in names {
        // It may have forgotten since.
        let _ = notifier.inval_entry(ino, OsStr::from_bytes(name.as_bytes()));
    }
    let _ = notifier.inval_inode(ino, 0, 0);
}
