//! The real binary on the scripted server: what a mount does when a server is odd, full, busy,
//! hostile or gone. One screen for each behaviour.

use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{Mounting, TestMount};

mod bandwidth;
mod cache;
mod case_insensitive;
mod closing;
mod conflicts;
mod direct;
mod doctor;
mod extra;
mod far;
mod faults;
mod filling;
mod foresight;
mod half_done;
mod hard;
mod interrupts;
mod kept;
mod lifecycle;
mod limits;
mod listings;
mod memory;
mod numbers;
mod packed;
mod passthrough;
mod passthrough_writing;
mod power;
mod promises;
mod proxies;
mod ranges;
mod replaced;
mod replies;
mod small_files;
mod system;
mod two_mounts;
mod verify;
mod whole;
mod writeback;
mod writing;

/// A server with `quirks` and a mount of it; `None` where nothing can be mounted.
fn stage(quirks: Quirks) -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::with(quirks);
    let mount = mounting(&server).start()?;
    Some((server, mount))
}

/// A mount of `server` that waits 2 seconds at most, so that tests of failures end soon.
fn mounting(server: &Ftpd) -> Mounting {
    Mounting::of(server.url("")).option("timeout=2s")
}

/// Names in the server's root, sorted.
fn names_there(server: &Ftpd) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(server.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// `len` bytes that repeat late enough for a shifted or doubled block to show.
fn bytes(len: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}
