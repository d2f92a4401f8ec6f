//! Who reads in pieces so large that the kernel's pages are in his way. What that means, and for
//! which files, is in `vfs/around.rs`.
//!
//! When a file is opened nobody knows how it will be read. Most programs read a large file in large
//! pieces, and each program always in the same way: so who opens one is believed to do so until the
//! program was seen to read in small ones, or through a mapping.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sync::Locked;
use crate::vfs::backend::Origin;

/// From this length on a read around the pages costs no more than one through them.
const LARGE: u64 = 32 << 10;

/// Reads after which a program is judged, of either kind.
const READS: u64 = 32;
const THROUGH_PAGES: u64 = 8;

/// Programs that are remembered, those judged last.
const PROGRAMS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct DirectReads {
    /// Always or never, whoever reads; `None`: as is best.
    forced: Option<bool>,
    /// Programs that read in small pieces.
    small: Locked<VecDeque<String>>,
    /// What is open so.
    handles: Locked<HashMap<u64, Reader>>,
    /// How many these are, and have been.
    open: AtomicUsize,
    opens: AtomicU64,
}

/// One handle.
#[derive(Debug)]
struct Reader {
    program: String,
    reads: u64,
    bytes: u64,
    through_pages: u64,
}

impl Reader {
    /// Whether the pages would have been better.
    const fn is_wrong(&self) -> bool {
        self.through_pages >= THROUGH_PAGES
            || self.reads >= READS && self.bytes < self.reads * LARGE
    }
}

impl DirectReads {
    /// For a mount that wants it always or never; `None`: where it is best.
    pub(crate) fn new(forced: Option<bool>) -> Self {
        Self {
            forced,
            small: Locked::default(),
            handles: Locked::default(),
            open: AtomicUsize::new(0),
            opens: AtomicU64::new(0),
        }
    }

    /// One line for `ferryfs status`.
    pub(crate) fn shown(&self) -> String {
        let how = match self.forced {
            Some(false) => return "off".to_owned(),
            Some(true) => "on",
            None => "auto",
        };
        format!("{how}, {} opens", self.opens.load(Ordering::Relaxed))
    }

    /// Whether `thread` is likely to read what comes from there in large pieces.
    pub(super) fn is_likely(&self, thread: u32, origin: Origin) -> bool {
        match (self.forced, origin) {
            (Some(false), _) | (_, Origin::Local) | (None, Origin::Network) => false,
            (Some(true), _) => true,
            (None, Origin::SameMachine) => program(thread)
                .is_some_and(|program| !self.small.with(|small| small.contains(&program))),
        }
    }

    /// `thread` opened `fh` so.
    pub(super) fn opened(&self, fh: u64, thread: u32) {
        // Where it is for all nobody is judged.
        let judged = self.forced.is_none().then(|| program(thread)).flatten();
        let reader = Reader {
            program: judged.unwrap_or_default(),
            reads: 0,
            bytes: 0,
            through_pages: 0,
        };
        self.handles.with(|handles| handles.insert(fh, reader));
        self.open.fetch_add(1, Ordering::Relaxed);
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// A read of `len` bytes comes, for the reader himself or for the kernel's pages.
    pub(super) fn note(&self, fh: u64, len: u32, for_pages: bool) {
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wrong = self.handles.with(|handles| {
            let reader = handles.get_mut(&fh)?;
            if for_pages {
                reader.through_pages += 1;
            } else {
                reader.reads += 1;
                reader.bytes += u64::from(len);
            }
            reader
                .is_wrong()
                .then(|| std::mem::take(&mut reader.program))
        });
        if let Some(program) = wrong.filter(|program| !program.is_empty()) {
            log::debug!("{program} reads in small pieces, from now on from the kernel's pages");
            self.small.with(|small| {
                small.retain(|other| *other != program);
                small.truncate(PROGRAMS - 1);
                small.push_front(program);
            });
        }
    }

    /// `fh` is no more.
    pub(super) fn forget(&self, fh: u64) {
        if self.open.load(Ordering::Relaxed) > 0
            && self.handles.with(|handles| handles.remove(&fh)).is_some()
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a thread runs; `None` of one that is gone, or that another system's namespace has.
fn program(thread: u32) -> Option<String> {
    let name = (thread != 0).then(|| fs::read(format!("/proc/{thread}/comm")))?;
    Some(String::from_utf8_lossy(&name.ok()?).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Origin = Origin::SameMachine;

    #[test]
    fn who_reads_in_small_pieces_does_not_do_so_again() {
        let us = std::process::id();
        for (len, for_pages, count) in [(4096, false, READS), (1 << 20, true, THROUGH_PAGES)] {
            let direct = DirectReads::new(None);
            assert!(direct.is_likely(us, LOCAL));
            direct.opened(1, us);
            for fine in 0..5000 {
                direct.note(1, 128 << 10, false);
                direct.note(2, 100, false);
                assert!(direct.is_likely(us, LOCAL), "{fine}");
            }
            direct.forget(1);
            direct.opened(3, us);
            for _ in 1..count {
                direct.note(3, len, for_pages);
            }
            assert!(direct.is_likely(us, LOCAL));
            direct.note(3, len, for_pages);
            assert!(!direct.is_likely(us, LOCAL));
            direct.forget(3);
            assert_eq!(direct.shown(), "auto, 2 opens");
            assert_eq!(direct.open.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn it_is_for_servers_here_unless_said_otherwise() {
        let us = std::process::id();
        for (forced, here, far) in [
            (None, true, false),
            (Some(true), true, true),
            (Some(false), false, false),
        ] {
            let direct = DirectReads::new(forced);
            assert_eq!(direct.is_likely(us, LOCAL), here);
            assert_eq!(direct.is_likely(us, Origin::Network), far);
            assert!(!direct.is_likely(us, Origin::Local));
        }
        assert!(
            !DirectReads::new(None).is_likely(0, LOCAL),
            "nobody we know"
        );
    }
}
