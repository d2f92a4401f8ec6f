//! Sessions that nobody uses, and who closes them when their time is over.
//!
//! Servers count the sessions of a user or an address, hang up on idle ones, and write down that they
//! did. So a thread stays as long as any is idle, and sleeps until the oldest has been so for too
//! long.

use std::sync::{Arc, Weak};
use std::thread;

use super::pool::Pool;

impl Pool {
    /// Has a thread close what nobody uses when it is time, unless there is one.
    pub(super) fn mind_idle(self: &Arc<Self>) {
        let start = self
            .state
            .with(|state| !state.idle.is_empty() && !std::mem::replace(&mut state.minded, true));
        if !start {
            return;
        }
        let pool = Arc::downgrade(self);
        let minding = thread::Builder::new().name("ftp-idle".into());
        if let Err(err) = minding.spawn(move || mind(&pool)) {
            log::debug!("idle sessions stay until somebody comes: {err}");
            self.state.with(|state| state.minded = false);
        }
    }
}

fn mind(pool: &Weak<Pool>) {
    while let Some(pool) = pool.upgrade() {
        let most = pool.host().options().idle;
        let (stale, next) = pool.state.with(|state| {
            let stale = state.take_stale(most);
            let next = state.oldest_idle().map(|age| most.saturating_sub(age));
            state.minded = next.is_some();
            (stale, next)
        });
        for idle in stale {
            idle.session.quit();
        }
        // The mount may end meanwhile.
        drop(pool);
        let Some(next) = next else {
            return;
        };
        thread::sleep(next);
    }
}
