//! What the streams of a version do for each other, and for its helpers: nothing is to come twice,
//! and nobody helps where there is no room.

use super::stream::Stream;
use super::version::Version;

impl Version {
    /// See [`Stream::leave`]: all of them.
    pub(super) fn leave_streams(&self) {
        for stream in self.streams() {
            stream.leave();
        }
    }

    /// Whether the reader's own stream is about to bring what a helper would.
    pub(super) fn is_on_its_way(&self, offset: u64) -> bool {
        let comes = |stream: &Stream| stream.goes_on() && stream.distance(offset).is_some();
        self.behind().is_in_sequence() && self.streams().iter().any(|stream| comes(stream))
    }

    /// Whether the reader's own stream is before a helper who is at `next`, on the way to `end`.
    pub(super) fn is_before(&self, next: u64, end: u64) -> bool {
        let before = |stream: &Stream| stream.goes_on() && (next..end).contains(&stream.position());
        self.streams().iter().any(|stream| before(stream))
    }

    /// Whether another stream brings what `stream` would.
    pub(super) fn is_overtaken(&self, stream: &Stream) -> bool {
        let others = self.streams();
        others.iter().any(|other| stream.is_overtaken_by(other))
    }

    /// See [`Transfers::is_link_full`](crate::vfs::backend::Transfers::is_link_full).
    pub(super) fn is_link_full(&self) -> bool {
        self.transfers().is_link_full()
    }

    /// How far the streams are.
    pub(super) fn furthest(&self) -> u64 {
        let streams = self.streams();
        let positions = streams.iter().map(|stream| stream.position());
        positions.max().unwrap_or_default()
    }
}
