//! A few bytes from the middle of a file of which all is on its way to the cache.
//!
//! A stream would fetch what surrounds them as well, which somebody else is doing, and keep its
//! connection, which the next jump needs. So the download begins at the very byte, and is given up
//! as soon as the answer is there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::stream::may_resume;
use super::version::Version;
use crate::sync::Locked;
use crate::vfs::chunk::Chunk;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Who asks for more than this at once reads on, most probably.
const MOST: usize = 64 << 10;

/// Spots that are remembered, and how near behind one a read goes on from there.
const RECENT: usize = 32;
const BEHIND: u64 = 64 << 10;

/// The spots of one version.
#[derive(Debug, Default)]
pub(super) struct Spots {
    /// Where they ended.
    recent: Locked<VecDeque<u64>>,
    under_way: AtomicUsize,
}

impl Spots {
    /// Reads that wait for a connection, or have one.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether a read is no continuation of an earlier one.
    fn is_new(&self, offset: u64, len: usize) -> bool {
        let end = offset + len as u64;
        self.recent.with(|recent| {
            let near = |spot: &u64| offset.checked_sub(*spot).is_some_and(|d| d <= BEHIND);
            if len > MOST || recent.iter().any(near) {
                return false;
            }
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(end);
            true
        })
    }
}

/// Reads `len` bytes from `offset`, which the file has. `None`: a stream should.
pub(super) fn read(
    version: &Version,
    at: &RemotePath,
    offset: u64,
    len: usize,
) -> Result<Option<Chunk>> {
    let spots = version.behind().spots();
    if !spots.is_new(offset, len) {
        return Ok(None);
    }
    spots.under_way.fetch_add(1, Ordering::Relaxed);
    let begun = version.retrieve_spot(at, offset);
    spots.under_way.fetch_sub(1, Ordering::Relaxed);
    let mut download = match begun {
        Ok(Some(download)) => download,
        Ok(None) => return Ok(None),
        // A stream may try once more.
        Err(err) if may_resume(&err) => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut buffer = version.buffer(len);
    let space = buffer.as_mut_slice();
    let mut count = 0;
    while let Some(rest) = space.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match download.read(rest) {
            // The stream finds out what that means.
            Ok(0) | Err(_) => return Ok(None),
            Ok(more) => count += more,
        }
    }
    Ok(Some(buffer.filled(count)))
}
