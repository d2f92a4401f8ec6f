//! What is under way and what was done so far, for `ferryfs status` and the metrics file.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::Mount;
use crate::exit::{Failure, words};
use crate::metrics;
use crate::traffic::{Direction, TRAFFIC};

/// Between two writings of the metrics file.
const EVERY: Duration = Duration::from_secs(15);

/// The contents on their way.
pub(super) fn transfers() -> Value {
    let transfers = TRAFFIC.under_way();
    let shown = transfers.iter().map(|transfer| {
        let (done, total) = transfer.progress();
        let direction = match transfer.direction {
            Direction::Down => "down",
            Direction::Up => "up",
        };
        json!({
            "path": transfer.path(),
            "direction": direction,
            "done_bytes": done,
            "total_bytes": total,
            "since": transfer.since(),
        })
    });
    shown.collect()
}

/// What was done so far.
pub(super) fn totals() -> Value {
    let errors: u64 = TRAFFIC.errors().values().sum();
    let operations: u64 = TRAFFIC.operations().values().sum();
    json!({
        "operations": operations,
        "errors": errors,
        "downloads": TRAFFIC.downloads.get(),
        "uploads": TRAFFIC.uploads.get(),
        "listings": TRAFFIC.listings.get(),
        "received_bytes": TRAFFIC.received.get(),
        "sent_bytes": TRAFFIC.sent.get(),
        "connections": TRAFFIC.connections.get(),
        "connections_lost": TRAFFIC.lost.get(),
    })
}

/// Writes the metrics file now and then, and once more when this is dropped.
pub(super) struct Writing {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Begins to write `file`.
///
/// # Errors
/// The first writing failed: the option is wrong. Later failures are logged.
pub(super) fn write_metrics(file: &Path, mount: &Arc<Mount>) -> Result<Writing, Failure> {
    metrics::write(file, &mount.directory, &mount.status(), true)
        .map_err(|err| Failure::system(format!("-o metrics: {}", file.display()), &err))?;
    let (end, ended) = mpsc::channel::<()>();
    let (file, mount): (PathBuf, Weak<Mount>) = (file.to_owned(), Arc::downgrade(mount));
    let thread = thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            let mut complained = false;
            loop {
                let over = ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
                let Some(mount) = mount.upgrade() else {
                    return;
                };
                match metrics::write(&file, &mount.directory, &mount.status(), !over) {
                    Ok(()) => complained = false,
                    Err(err) if !complained => {
                        log::warn!("-o metrics: {}: {}", file.display(), words(&err));
                        complained = true;
                    }
                    Err(_) => {}
                }
                if over {
                    return;
                }
            }
        })
        .map_err(|err| Failure::system("metrics thread", &err))?;
    Ok(Writing {
        end: Some(end),
        thread: Some(thread),
    })
}
