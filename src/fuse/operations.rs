//! What several requests have in common.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{INodeNo, ReplyEmpty, ReplyEntry};

use super::Filesystem;
use super::answers::{answer_entry, answer_lookup, from_memory, request};
use super::attr::ino;
use super::requests::{Class, Request};
use crate::vfs::error::{ErrorKind, Result};
use crate::vfs::{Entry, Vfs};

impl Filesystem {
    /// `entry`-like operations: what they counted is forgotten if nobody waits any more.
    pub(super) fn entry_op(
        &self,
        what: Request,
        reply: ReplyEntry,
        work: impl FnOnce(&Vfs) -> Result<Entry> + Send + 'static,
    ) {
        let (vfs, undoing) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        self.requests.hand_over(
            what,
            reply,
            move || work(&vfs),
            answer_entry,
            move |entry| undoing.forget(entry.stat.ino, 1),
        );
    }

    /// Operations without a result.
    pub(super) fn empty_op(
        &self,
        what: Request,
        reply: ReplyEmpty,
        work: impl FnOnce(&Vfs) -> Result<()> + Send + 'static,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.requests.hand_over(
            what,
            reply,
            move || work(&vfs),
            |reply, ()| reply.ok(),
            |()| {},
        );
    }

    /// Looks `name` up, from memory if that has it.
    pub(super) fn look_up(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (caller, at) = (req.pid(), ino(parent));
        self.vfs.looks_up(caller, at, name);
        if let Some(outcome) = from_memory(self.vfs.lookup_cached(at, name)) {
            self.vfs.finds(caller, &outcome);
            return answer_lookup(reply, "lookup", parent, outcome);
        }
        let (vfs, undoing) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        let name = name.to_os_string();
        self.requests.hand_over(
            request("lookup", Class::Metadata, req, parent),
            reply,
            // An absent name is an answer, too: it goes through the same door.
            move || {
                let outcome = vfs.lookup(at, &name);
                vfs.looks_up(caller, at, &name);
                vfs.finds(caller, &outcome);
                match outcome {
                    Err(err) if err.kind() == ErrorKind::NotFound => Ok(Err(err)),
                    Err(err) => Err(err),
                    Ok(entry) => Ok(Ok(entry)),
                }
            },
            move |reply, outcome| answer_lookup(reply, "lookup", parent, outcome),
            move |outcome| {
                if let Ok(entry) = outcome {
                    undoing.forget(entry.stat.ino, 1);
                }
            },
        );
    }
}
