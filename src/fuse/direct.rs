//! Who reads in pieces so large that the kernel's pages are in his way. What that means, and for
//! which files, is in `vfs/around.rs`.
//!
//! When a file is opened nobody knows how it will be read. But each program reads large files always
//! in the same way: so some are known to copy in large pieces, others are believed to do so once they
//! were seen to, and nobody any more who was seen to read in small ones, or through a mapping. Most
//! programs read in small ones.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sync::Locked;
use crate::vfs::backend::Origin;

/// From this length on, or a little less at a file's end, a read around the pages costs less than one
/// through them: who computes on what he reads (`grep`, `sha256sum`) has the kernel read on meanwhile.
const LARGE: u64 = 100 << 10;

/// What the kernel asks for at the start of a file that is read in pieces of more than 64 KiB: it
/// takes twice the power of two.
const BEGINNING: u32 = 256 << 10;

/// Reads after which a program is judged, of either kind.
const READS: u64 = 32;
const THROUGH_PAGES: u64 = 8;

/// Programs that are remembered, those judged last.
const PROGRAMS: usize = 64;

/// Programs that read in large pieces.
const COPIERS: [&str; 6] = ["cat", "cp", "dd", "mv", "pv", "rsync"];

/// See the module.
#[derive(Debug)]
pub(crate) struct DirectReads {
    /// Always or never, whoever reads; `None`: as is best.
    forced: Option<bool>,
    /// Programs that were seen to read in large pieces, or in small ones.
    judged: Locked<VecDeque<(String, Pieces)>>,
    /// What is open so, or may show how it is read.
    handles: Locked<HashMap<u64, Reader>>,
    /// How many these are.
    open: AtomicUsize,
    opens: AtomicU64,
}

/// Who opens a file.
#[derive(Debug, Default)]
pub(super) struct Opener {
    /// Likely to read it in large pieces.
    pub(super) likely: bool,
    /// What it runs; empty where that is not known, or does not count.
    program: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    Large,
    /// Once seen, it is not looked at again.
    Small,
}

/// One handle.
#[derive(Debug)]
struct Reader {
    program: String,
    /// Or else through the pages, where the beginning shows how.
    around: bool,
    reads: u64,
    bytes: u64,
    through_pages: u64,
}

impl Reader {
    /// Counts one read. What it shows of the program, if anything.
    fn shows(&mut self, (offset, len): (u64, u32), for_pages: bool) -> Option<Pieces> {
        if !self.around {
            return (offset == 0 && len >= BEGINNING).then_some(Pieces::Large);
        }
        if for_pages {
            self.through_pages += 1;
        } else {
            self.reads += 1;
            self.bytes += u64::from(len);
        }
        let small = self.through_pages >= THROUGH_PAGES
            || self.reads >= READS && self.bytes < self.reads * LARGE;
        small.then_some(Pieces::Small)
    }
}

impl DirectReads {
    /// For a mount that wants it always or never; `None`: where it is best.
    pub(crate) fn new(forced: Option<bool>) -> Self {
        Self {
            forced,
            judged: Locked::default(),
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

    /// Who `thread` is as far as that counts, who opens what comes from there.
    pub(super) fn opener(&self, thread: u32, origin: Origin) -> Opener {
        match (self.forced, origin) {
            (Some(false), _) | (_, Origin::Local) | (None, Origin::Network) => Opener::default(),
            (Some(true), _) => Opener {
                likely: true,
                // Where it is for all nobody is judged.
                program: String::new(),
            },
            (None, Origin::SameMachine) => {
                let program = program(thread).unwrap_or_default();
                let copies = || COPIERS.contains(&program.as_str());
                let judgement = self.judgement(&program);
                let likely = judgement.map_or_else(copies, |pieces| pieces == Pieces::Large);
                Opener { likely, program }
            }
        }
    }

    fn judgement(&self, program: &str) -> Option<Pieces> {
        self.judged.with(|judged| {
            let known = judged.iter().find(|(name, _)| name == program);
            known.map(|(_, pieces)| *pieces)
        })
    }

    /// `opener` opened `fh`, which goes around the pages, or does not as that was not likely.
    pub(super) fn opened(&self, fh: u64, opener: Opener, around: bool) {
        let program = opener.program;
        if around {
            self.opens.fetch_add(1, Ordering::Relaxed);
        } else if program.is_empty() || self.judgement(&program).is_some() {
            return;
        }
        let reader = Reader {
            program,
            around,
            reads: 0,
            bytes: 0,
            through_pages: 0,
        };
        self.handles.with(|handles| handles.insert(fh, reader));
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A read of `len` bytes at `offset` comes, for the reader himself or for the kernel's pages.
    pub(super) fn note(&self, fh: u64, offset: u64, len: u32, for_pages: bool) {
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (shown, over) = self.handles.with(|handles| {
            let Some(reader) = handles.get_mut(&fh) else {
                return (None, false);
            };
            let pieces = reader.shows((offset, len), for_pages);
            let shown = pieces.map(|pieces| (std::mem::take(&mut reader.program), pieces));
            (shown, !reader.around)
        });
        if over {
            self.forget(fh);
        }
        let Some((program, pieces)) = shown.filter(|(program, _)| !program.is_empty()) else {
            return;
        };
        log::debug!("{program} reads in {pieces:?} pieces");
        self.judged.with(|judged| {
            let small = (program.clone(), Pieces::Small);
            if !judged.contains(&small) {
                judged.retain(|(other, _)| *other != program);
                judged.truncate(PROGRAMS - 1);
                judged.push_front((program, pieces));
            }
        });
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

    /// Opens around the pages, or not, and reads `count` times.
    fn read(direct: &DirectReads, len: u32, for_pages: bool, count: u64) -> bool {
        let opener = direct.opener(std::process::id(), LOCAL);
        let around = opener.likely;
        direct.opened(1, opener, around);
        for nth in 0..count {
            direct.note(1, nth * u64::from(len), len, for_pages || !around);
        }
        direct.forget(1);
        assert_eq!(direct.open.load(Ordering::Relaxed), 0);
        around
    }

    #[test]
    fn who_is_seen_to_read_in_large_pieces_does_so_around_the_pages_until_he_does_not() {
        for (len, for_pages, count) in [(96 << 10, false, READS), (1 << 20, true, THROUGH_PAGES)] {
            let direct = DirectReads::new(None);
            // The kernel begins with little for who reads little.
            assert!(!read(&direct, 128 << 10, true, 50));
            assert!(!read(&direct, 1 << 20, true, 1), "unknown");
            assert!(read(&direct, 128 << 10, false, 5000));
            // The last one is short.
            direct.opened(3, direct.opener(std::process::id(), LOCAL), true);
            for fine in 0..READS {
                direct.note(3, fine, 128 << 10, false);
                direct.note(4, fine, 100, false);
            }
            direct.note(3, READS, 1, false);
            direct.forget(3);
            assert!(read(&direct, len, for_pages, count - 1));
            assert!(read(&direct, len, for_pages, count));
            for _ in 0..3 {
                assert!(!read(&direct, 1 << 20, true, 1), "seen to read little");
            }
            assert_eq!(direct.shown(), "auto, 4 opens");
        }
    }

    #[test]
    fn who_does_not_begin_at_the_start_shows_nothing() {
        let (direct, us) = (DirectReads::new(None), std::process::id());
        direct.opened(1, direct.opener(us, LOCAL), false);
        direct.note(1, 1 << 20, 1 << 20, true);
        direct.note(1, 0, 1 << 20, true);
        assert!(!direct.opener(us, LOCAL).likely);
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
            read(&direct, 1 << 20, true, 1);
            assert_eq!(direct.opener(us, LOCAL).likely, here);
            assert_eq!(direct.opener(us, Origin::Network).likely, far);
            assert!(!direct.opener(us, Origin::Local).likely);
        }
        assert!(
            !DirectReads::new(None).opener(0, LOCAL).likely,
            "nobody we know"
        );
    }
}
