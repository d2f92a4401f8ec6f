//! The thread that moves a stream on ahead of its sequential reader.
//!
//! It reads from a download that is open, no more: when that ends, breaks, or goes to somebody who
//! waits for a connection, the next reader does the rest, under the name the file has by then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::behind;
use super::stream::{Flow, Stream};
use super::version::Version;

/// Pumps of a mount at most.
const PUMPS: usize = 8;

/// How long a pump waits for its reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a jump costs, more or less, and what is worth one in any case or always.
const JUMP_MILLIS: u64 = 20;
const LEAST_RUN: u64 = 1 << 20;
const MOST_RUN: u64 = 32 << 20;

/// Counts the pumps of a mount.
#[derive(Debug, Default)]
pub(crate) struct Pumps(AtomicUsize);

/// One of them.
struct Place(Arc<Pumps>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that has a pump, however that ends: those who wait for it must hear of it.
struct Pumped(Arc<Stream>);

impl Drop for Pumped {
    fn drop(&mut self) {
        let closed = {
            let mut flow = self.0.flow();
            self.0.set_pumped(&mut flow, false);
            flow.closed
        };
        self.0.moved.notify_all();
        if closed {
            self.0.hang_up_if_idle();
        }
    }
}

/// Starts a pump for `stream`, if it has none and there are not too many.
pub(super) fn start(pumps: &Arc<Pumps>, version: &Arc<Version>, stream: &Arc<Stream>) {
    let more = |count: usize| (count < PUMPS).then_some(count + 1);
    let (order, load) = (Ordering::Relaxed, Ordering::Relaxed);
    if pumps.0.fetch_update(order, load, more).is_err() {
        return;
    }
    let place = Place(Arc::clone(pumps));
    {
        let mut flow = stream.flow();
        if flow.pumped || flow.closed {
            return;
        }
        stream.set_pumped(&mut flow, true);
        drop(flow);
    }
    let (pumped, version) = (Arc::clone(stream), Arc::downgrade(version));
    let started = std::thread::Builder::new()
        .name("stream-pump".into())
        .spawn(move || {
            let _place = place;
            let pumped = Pumped(pumped);
            while step(&pumped.0, &version) {}
        });
    if let Err(err) = started {
        log::debug!("no thread to read ahead: {err}");
        stream.set_pumped(&mut stream.flow(), false);
        stream.moved.notify_all();
    }
}

/// Bytes that must be here already for a download to be given up, which another has to replace
/// behind them.
fn worth_a_jump(rate: u64) -> u64 {
    (rate / (1000 / JUMP_MILLIS)).clamp(LEAST_RUN, MOST_RUN)
}

/// Fetches a chunk when one is wanted. Whether to go on.
#[allow(
    clippy::significant_drop_tightening,
    reason = "a condition variable holds its lock"
)]
fn step(stream: &Stream, version: &Weak<Version>) -> bool {
    let idle = |flow: &mut Flow| flow.window.span().end >= flow.wanted && !flow.closed;
    let waited = stream
        .asked
        .wait_timeout_while(stream.flow(), PATIENCE, idle);
    let (flow, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
    let closed = flow.closed;
    drop(flow);
    let Some(version) = version.upgrade() else {
        return false;
    };
    if outcome.timed_out() || closed || version.is_stale() {
        return false;
    }
    let mut line = stream.line();
    if line.had_its_share() && version.others_wait() {
        stream.hang_up(&mut line);
    }
    if line.download.is_none() {
        return false;
    }
    let pos = stream.position();
    let rate = line.rate().map_or(0, |(_, rate)| rate);
    let comes = version.behind().is_served(pos) || version.is_overtaken(stream);
    if comes || version.has_run(pos, worth_a_jump(rate)) {
        // The reader finds it in the cache, or there.
        stream.hang_up(&mut line);
        return false;
    }
    let most = stream.step(pos, version.size());
    let reserved = {
        let mut flow = stream.flow();
        let unread = flow.unread();
        let reserved = flow.window.reserve(most, unread);
        stream.publish_span(&flow.window);
        drop(flow);
        reserved
    };
    if !reserved {
        version.relieve(most, false);
        let mut flow = stream.flow();
        let unread = flow.unread();
        let reserved = flow.window.reserve(most, unread);
        stream.publish_span(&flow.window);
        drop(flow);
        if !reserved {
            return false;
        }
    }
    match stream.read_on(&mut line, &version, pos, most) {
        Ok(chunk) => {
            stream.arrived(&version, pos, &chunk, most);
            if let Some((served, rate)) = line.rate() {
                behind::help(&version, stream.position(), served, rate);
            }
            !chunk.is_empty()
        }
        Err(err) => {
            log::debug!("reading ahead at {pos}: {err}");
            stream.hang_up(&mut line);
            stream.unreserve(most);
            false
        }
    }
}
