//! What is asked behind the data of a listing, before its end is answered.
//!
//! On vsftpd the 226 comes a round trip behind the data, because its kernel keeps it until the 150 is
//! acknowledged. The first listing of a server is followed by questions in any case: whether STAT
//! shows the same, and what time a file really has. They go out as soon as all data came, and are
//! answered behind the 226.
//!
//! A server that answers them before it, or refuses them while it ends the transfer, is not asked so
//! any more, and what it said then proves nothing.

use std::time::Duration;

use super::control::Owed;
use super::reply::Reply;
use super::session::{Session, check};
use crate::vfs::error::{Error, ErrorKind, Result};

/// Bytes of all the lines at most: one packet takes them.
const MOST: usize = 1024;

/// How long their replies may take: a server may have thrown them away.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Lines, and whether they were sent.
#[derive(Debug, Default)]
pub(super) struct Behind {
    lines: Vec<Vec<u8>>,
    sent: bool,
}

impl Behind {
    /// Whether lines were sent, or are to be.
    pub(super) const fn is_due(&self) -> bool {
        !self.lines.is_empty()
    }
}

impl Session {
    /// Whether a listing may be followed by questions before it has ended.
    pub(super) fn may_ask_behind(&self) -> bool {
        self.is_pipelined()
            && self.host.facts(|facts| {
                facts.asked_behind != Some(false)
                    && facts.unannounced == Some(false)
                    && facts.read_behind != Some(false)
            })
    }

    /// Has the first lines of the next batch sent behind the data of the transfer under way.
    ///
    /// # Errors
    /// `Invalid` for what is no line.
    pub(super) fn ask_behind(&mut self, lines: Vec<Vec<u8>>) -> Result<()> {
        lines.iter().try_for_each(|line| check(line))?;
        if lines.iter().map(|line| line.len() + 2).sum::<usize>() <= MOST {
            self.behind = Behind { lines, sent: false };
        }
        Ok(())
    }

    /// All data came.
    pub(super) fn send_behind(&mut self) -> Result<()> {
        let lines: Vec<_> = self.behind.lines.iter().map(Vec::as_slice).collect();
        let Some(control) = self.control.as_mut().filter(|_| !lines.is_empty()) else {
            return Ok(());
        };
        let sent = control.send(&lines);
        self.behind.sent = true;
        sent.map_err(|error| self.break_off(error))
    }

    /// The first reply behind the data, which must be that to the transfer.
    ///
    /// # Errors
    /// `Disconnected` if it cannot be; the session is broken then.
    pub(super) fn check_behind(&mut self, reply: &Reply) -> Result<()> {
        let ends = matches!(reply.code(), 200 | 225 | 226 | 250 | 421 | 425 | 426 | 451);
        if !self.behind.is_due() || ends {
            return Ok(());
        }
        let detail = format!(
            "{}: out of step: {}",
            self.host.options().host,
            reply.text()
        );
        let error = self.break_off(Error::new(ErrorKind::Disconnected, detail));
        Err(self.behind_failed(&error))
    }

    /// What was asked behind a listing was not answered as it should be: it is asked again, as ever.
    pub(super) fn behind_failed(&self, error: &Error) -> Error {
        self.ask_behind_no_more();
        Error::new(ErrorKind::Disconnected, error.detail())
    }

    /// How many of the first `lines` were sent behind a transfer; if it was others, their replies are
    /// for nobody.
    pub(super) fn take_behind(&mut self, lines: &[&[u8]]) -> usize {
        let sent = &self.behind.lines;
        let same = lines.len() >= sent.len() && sent.iter().zip(lines).all(|(a, b)| a == b);
        if !self.behind.sent || !same {
            self.leave_behind();
            return 0;
        }
        std::mem::take(&mut self.behind).lines.len()
    }

    /// Nobody wants to know any more.
    pub(super) fn leave_behind(&mut self) {
        let Behind { lines, sent } = std::mem::take(&mut self.behind);
        if let Some(control) = self.control.as_mut().filter(|_| sent) {
            lines.iter().for_each(|_| control.owe(Owed::Wish));
        }
    }
}
