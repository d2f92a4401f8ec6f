//! A few bytes from the middle of a file of which all is on its way to the cache, or in which many
//! jump about at once.
//!
//! A stream would fetch what surrounds them as well, which somebody else is doing, and keep its
//! connection, which the next jump needs. So the download begins at the very byte, and is given up
//! as soon as the answer is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::behind;
use super::stream::{SMALL, may_resume};
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

/// How long those who fetch the file may keep all spots waiting, at least and at most.
const LEAST_WAIT: Duration = Duration::from_millis(200);
const MOST_WAIT: Duration = Duration::from_secs(1);

/// The spots of one version.
#[derive(Debug, Default)]
pub(super) struct Spots {
    /// Where they ended.
    recent: Locked<VecDeque<u64>>,
    under_way: AtomicUsize,
    /// Since when one or more are under way, and none had its turn.
    since: Locked<Option<Instant>>,
    /// How long the shortest took: one that waited for nobody, most probably.
    shortest: Locked<Option<Duration>>,
}

impl Spots {
    /// Whether they have waited too long for those who fetch the file, by how long one takes
    /// otherwise. One who is told so gives its connection up: the next is told later.
    pub(super) fn claim_turn(&self) -> bool {
        let jump = self.shortest.with(|shortest| shortest.unwrap_or_default());
        let patience = (4 * jump).clamp(LEAST_WAIT, MOST_WAIT);
        self.since.with(|since| {
            let long = since.is_some_and(|since| since.elapsed() >= patience);
            if long {
                *since = Some(Instant::now());
            }
            long
        })
    }

    fn begin(&self) {
        if self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since.with(|since| *since = Some(Instant::now()));
        }
    }

    fn end(&self) {
        let last = self.under_way.fetch_sub(1, Ordering::Relaxed) == 1;
        let others = (!last).then(Instant::now);
        self.since.with(|since| *since = others);
    }

    fn took(&self, time: Duration) {
        self.shortest
            .with(|shortest| *shortest = Some(shortest.map_or(time, |least| least.min(time))));
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

/// Whether a jump to `offset` should be a spot: all of the file is being fetched, or so many jump
/// about in a large one that none should keep a connection.
pub(super) fn is_due(version: &Version, offset: u64) -> bool {
    let behind = version.behind();
    behind.is_fetching_whole()
        || behind.is_crowded()
            && version.size().is_some_and(|size| size > SMALL)
            && version.transfers().resumes(offset)
}

/// Reads `len` bytes from `offset`, which the file has. `None`: a stream should.
pub(super) fn read(
    version: &Arc<Version>,
    at: &RemotePath,
    offset: u64,
    len: usize,
) -> Result<Option<Chunk>> {
    let spots = version.behind().spots();
    if !spots.is_new(offset, len) {
        return Ok(None);
    }
    let _jump = behind::jump(version);
    let began = Instant::now();
    spots.begin();
    let begun = version.retrieve_spot(at, offset);
    spots.end();
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
    spots.took(began.elapsed());
    Ok(Some(buffer.filled(count)))
}
