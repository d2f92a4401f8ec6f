//! Files that the kernel reads by itself (FUSE passthrough, Linux 6.9): what it takes to lend it one.
//! Which are lent, and what follows from that, is in `vfs/lending.rs`.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{InitFlags, KernelConfig, ReplyOpen};
use rustix::io::Errno;

use crate::sync::Locked;
use crate::vfs::Loan;

/// Whether the kernel takes files, and how often one was opened so.
#[derive(Debug)]
pub(crate) struct Passthrough {
    /// Why not; `None` if it does.
    refused: Locked<Option<String>>,
    taken: AtomicU64,
}

impl Passthrough {
    /// For a mount that `wants` it.
    pub(crate) fn new(wants: bool) -> Self {
        let off = (!wants).then(|| "off".to_owned());
        Self {
            refused: Locked::new(off),
            taken: AtomicU64::new(0),
        }
    }

    /// One line for `ferryfs status`.
    pub(crate) fn shown(&self) -> String {
        let taken = self.taken.load(Ordering::Relaxed);
        let refused = self.refused.with(|refused| refused.clone());
        refused.unwrap_or_else(|| format!("on, {taken} opens"))
    }

    /// Asks the kernel for it when the session begins.
    pub(super) fn ask(&self, config: &mut KernelConfig) {
        if self.is_on() {
            let has = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
            if !has || config.set_max_stack_depth(1).is_err() {
                self.refuse("off, the kernel has no FUSE passthrough".to_owned());
            }
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.refused.with(|refused| refused.is_none())
    }

    /// Lends `file`. Who is refused once does not try again.
    pub(super) fn lend(&self, reply: &ReplyOpen, file: &File) -> Option<Loan> {
        if !self.is_on() {
            return None;
        }
        match reply.open_backing(file) {
            Ok(id) => Some(Arc::new(id)),
            Err(err) => {
                self.refuse(reason(&err));
                None
            }
        }
    }

    /// A file was opened, which the kernel reads by itself if there is a loan.
    pub(super) fn opened(&self, loan: Option<&Loan>) {
        let lent = u64::from(loan.is_some());
        self.taken.fetch_add(lent, Ordering::Relaxed);
    }

    fn refuse(&self, why: String) {
        log::info!("passthrough: {why}");
        self.refused.with(|refused| *refused = Some(why));
    }
}

fn reason(err: &io::Error) -> String {
    let told = err.raw_os_error().map(Errno::from_raw_os_error);
    match told {
        Some(Errno::PERM) => "off, it needs CAP_SYS_ADMIN".to_owned(),
        Some(Errno::LOOP) => "off, the cache is on a stacked filesystem".to_owned(),
        _ => format!("off, the kernel refuses: {err}"),
    }
}
