//! Who wrote through which handle, to tell a writer's close from that of a bystander.
//!
//! A program that starts another one while it writes to a file gives it a copy of its descriptor,
//! which is closed when that one begins or ends. Nothing of what was written so far is anybody
//! else's business then: a version that is half written is not shown to the server's other clients.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::descriptors::has_open_for_writing;
use crate::sync::Locked;

/// Writers of one handle that are kept apart.
const MOST: usize = 16;

/// Stands for a writer nobody knows: the kernel for a mapping, or one too many.
const SOMEBODY: u32 = 0;

/// The threads that wrote, by handle.
#[derive(Debug, Default)]
pub(super) struct Writers(Locked<HashMap<u64, Vec<u32>>>);

impl Writers {
    /// `thread` writes through `fh`.
    pub(super) fn note(&self, fh: u64, thread: u32) {
        self.0.with(|all| {
            let writers = all.entry(fh).or_default();
            if writers.last() != Some(&thread) && !writers.contains(&thread) {
                let known = writers.len() < MOST;
                writers.push(if known { thread } else { SOMEBODY });
                writers.truncate(MOST + 1);
            }
        });
    }

    /// `fh` is no more.
    pub(super) fn forget(&self, fh: u64) {
        self.0.with(|all| all.remove(&fh));
    }

    /// Whether the FLUSH of `fh` by `thread` has nothing to store, and another one will come from a
    /// process that has `path` open for writing, be it when that is killed: its own, if nothing was
    /// written yet; or its parent, who did all the writing.
    pub(super) fn flush_again(&self, fh: u64, thread: u32, path: &Path, unwritten: bool) -> bool {
        // The parent first: a child in the middle of execve cannot be looked at.
        self.is_bystander(fh, thread, path, unwritten)
            || unwritten && has_open_for_writing(thread, path)
    }

    fn is_bystander(&self, fh: u64, thread: u32, path: &Path, unwritten: bool) -> bool {
        let writers = self.0.with(|all| all.get(&fh).cloned()).unwrap_or_default();
        if writers.contains(&SOMEBODY) || writers.contains(&thread) {
            return false;
        }
        let Some(closing) = Process::of(thread) else {
            return false;
        };
        let mut parent_wrote = unwritten && writers.is_empty();
        for writer in writers {
            match Process::of(writer) {
                Some(process) if process.id != closing.id => {
                    parent_wrote |= process.id == closing.parent;
                }
                _ => return false,
            }
        }
        parent_wrote && has_open_for_writing(closing.parent, path)
    }
}

/// A process, and the one that started it.
struct Process {
    id: u32,
    parent: u32,
}

impl Process {
    fn of(thread: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse().ok()
        };
        Some(Self {
            id: number("Tgid:")?,
            parent: number("PPid:")?,
        })
    }
}
