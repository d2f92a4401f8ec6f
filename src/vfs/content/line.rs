//! The connection that a stream reads from, and how fast it is.

use std::time::{Duration, Instant};

use super::judge::rate;
use super::stream::MOST_CHUNK;
use crate::vfs::backend::Download;

/// What a reader may take from a connection while others wait for one.
const SHARE: u64 = 8 << 20;
const SHARE_TIME: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Line {
    pub(super) download: Option<Box<dyn Download>>,
    /// Bytes since it got its connection.
    served: u64,
    since: Option<Instant>,
    /// Time spent waiting for these.
    waited: Duration,
    /// The two when there was a quarter as much, or so, and when there was half.
    marks: [(u64, Duration); 2],
}

impl Line {
    /// One that just got its connection.
    pub(super) fn of(download: Box<dyn Download>) -> Self {
        Self {
            download: Some(download),
            since: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// What the connection gave, and how much of it in a second, of late: it begins slowly.
    pub(super) fn rate(&self) -> Option<(u64, u64)> {
        let [(bytes, time), _] = self.marks;
        let (bytes, time) = (self.served - bytes, self.waited.saturating_sub(time));
        self.since.map(|_| (self.served, rate(bytes, time)))
    }

    /// So much came of it.
    pub(super) fn counts(&mut self, bytes: u64, waited: Duration) {
        self.served += bytes;
        self.waited += waited;
        let [_, mark] = self.marks;
        if self.served >= 2 * mark.0.max(MOST_CHUNK) {
            self.marks = [mark, (self.served, self.waited)];
        }
    }

    /// Whether others who wait may have the connection now.
    pub(super) fn had_its_share(&self) -> bool {
        let long = |since: Instant| since.elapsed() >= SHARE_TIME;
        self.download.is_some() && (self.served >= SHARE || self.since.is_some_and(long))
    }
}
