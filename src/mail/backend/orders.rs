//! What can be written to `ctl`.

use super::MailBackend;
use crate::mail::queue::Id;
use crate::vfs::error::{Error, ErrorKind, Result};

impl MailBackend {
    /// Does what a line written to `ctl` says.
    pub(super) fn obey(&self, line: &str) -> Result<()> {
        let mut words = line.split_whitespace();
        let (order, argument) = (words.next().unwrap_or_default(), words.next());
        let id = || {
            let id = argument.and_then(Id::parse);
            id.ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("ctl: {order} wants an ID of queue/"),
                )
            })
        };
        match order {
            "poll" => self.fetcher().iter().for_each(|fetcher| fetcher.poll()),
            "confirm-delete" => self
                .fetcher()
                .iter()
                .for_each(|fetcher| fetcher.confirm_deletions()),
            "flush" => {
                self.queue.retry_all()?;
                self.sender().iter().for_each(|sender| sender.trigger());
            }
            "pause" | "resume" => {
                let pause = order == "pause";
                self.fetcher()
                    .iter()
                    .for_each(|fetcher| fetcher.pause(pause));
                self.sender().iter().for_each(|sender| sender.pause(pause));
            }
            "retry" => {
                self.queue.retry(&id()?)?;
                self.sender().iter().for_each(|sender| sender.trigger());
            }
            "hold" => self.queue.hold(&id()?, true)?,
            "release" => self.queue.hold(&id()?, false)?,
            "cancel" => self.queue.cancel(&id()?)?,
            _ => {
                let line = "ctl: not one of poll, flush, pause, resume, confirm-delete, retry ID, \
                            cancel ID, hold ID, release ID";
                return Err(Error::new(ErrorKind::Invalid, line));
            }
        }
        Ok(())
    }
}
