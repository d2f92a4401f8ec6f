//! A listing and EPSV for the next one in one packet, and the data connection closed on our side
//! before it is read: two round trips for each of many listings where there were three or four.
//!
//! A listing costs EPSV, the data connection, and the data. Servers that read their commands one by
//! one answer an EPSV that came with the listing behind its end: Pure-FTPd, and ProFTPD, which
//! refuses ("450 EPSV: data transfer in progress") only what it has not read with the command before.
//! pyftpdlib breaks the transfer off for it. ProFTPD also waits, before it tells the end, until we
//! have closed the data connection; so our side is closed at once, as nothing is sent on it.
//!
//! Neither is done before it was tried: a directory that was just listed is listed once more so, by
//! one session, for nobody. What it shows must be the same, and the replies be those to both commands
//! in their order. At the first that is odd the server is not spoken to so any more. Each later listing
//! counts only with the reply that it is complete, as ever.

use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::in_a_row::Sent;
use super::pool::Lease;
use super::server::FtpServer;
use super::session::Session;
use crate::vfs::attr::DirEntry;
use crate::vfs::path::RemotePath;

/// Bytes of both lines at most: one packet takes them.
const MOST: usize = 1024;

/// Entries of a listing that tells anything: pyftpdlib sends twenty before it reads on.
const TELLING: usize = 32;

/// Entries of one that does not take long.
const QUICK: usize = 1_000;

/// How long a listing may be compared with another.
const FRESH: Duration = Duration::from_secs(1);

/// Comparisons that may end without a result: what is listed changes.
const TRIES: u8 = 3;

/// Connections lost at it, one after the other.
const MOST_LOST: u8 = 3;

/// What is known of something that a server may not bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// So often it was tried without a result.
    Untried(u8),
    /// A session tries.
    Trying(u8),
    /// So many connections were lost at it since one was not.
    Works(u8),
    GivenUp,
}

impl Default for Proof {
    fn default() -> Self {
        Self::Untried(0)
    }
}

impl Proof {
    /// Whether the caller is to try it; nobody else will before it has ended.
    fn begin(&mut self) -> bool {
        let Self::Untried(tries) = *self else {
            return false;
        };
        *self = Self::Trying(tries);
        true
    }

    /// A try has ended: it is as good, or that is not known.
    fn end(&mut self, good: bool) {
        if let Self::Trying(tries) = *self {
            *self = match good {
                true => Self::Works(0),
                false if tries + 1 >= TRIES => Self::GivenUp,
                false => Self::Untried(tries + 1),
            };
        }
    }

    /// The connection was lost at it.
    pub(super) fn lose(&mut self) {
        *self = match *self {
            Self::Works(lost) if lost + 1 < MOST_LOST => Self::Works(lost + 1),
            Self::Works(_) => Self::GivenUp,
            Self::Trying(_) | Self::Untried(_) | Self::GivenUp => *self,
        };
    }

    const fn works(self) -> bool {
        matches!(self, Self::Works(_))
    }
}

/// A directory that was just listed.
#[derive(Debug)]
pub(super) struct JustListed {
    dir: RemotePath,
    at: Instant,
    entries: Vec<DirEntry>,
}

/// A comparison, as the session that makes it sees it.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Our side of the data connection is closed early as well.
    closes: bool,
    /// EPSV was answered with a port, behind the listing.
    pub(super) heard: bool,
    /// How long the end of the listing was waited for behind its data.
    pub(super) end_took: Duration,
}

impl Session {
    /// Whether EPSV goes out with this listing.
    pub(super) fn asks_together(&self, command: &[u8]) -> bool {
        command.len() + 8 <= MOST
            && self.may_ask_for_next()
            && (self.in_a_row.trial.is_some() || self.host.facts(|facts| facts.together.works()))
    }

    /// Closes our side of a listing's data connection, where that is of use.
    pub(super) fn close_our_side(&mut self, data: &TcpStream) {
        let plain = self.tls.is_none() && !self.packed;
        let closes = match &self.in_a_row.trial {
            Some(trial) => trial.closes,
            None => {
                self.in_a_row.asked == Some(Sent::Together)
                    && self.host.facts(|facts| facts.closes_early.works())
            }
        };
        self.in_a_row.closed = plain && closes && data.shutdown(Shutdown::Write).is_ok();
    }

    /// A listing has ended, well or not.
    pub(super) fn weigh_closing(&mut self, well: bool) {
        if std::mem::take(&mut self.in_a_row.closed) && !well {
            self.host.facts(|facts| facts.closes_early = Proof::GivenUp);
        }
    }

    /// EPSV that went out with a listing was answered as it should be.
    pub(super) fn heard_together(&mut self) {
        self.host.facts(|facts| {
            if facts.together.works() {
                facts.together = Proof::Works(0);
            }
        });
        if let Some(trial) = &mut self.in_a_row.trial {
            trial.heard = true;
        }
    }

    /// EPSV does not go out with a listing any more.
    pub(super) fn ask_together_no_more(&self) {
        let before = self
            .host
            .facts(|facts| std::mem::replace(&mut facts.together, Proof::GivenUp));
        if before != Proof::GivenUp {
            let host = &self.host.options().host;
            log::info!("{host}: EPSV together with a listing went wrong; not done any more");
        }
    }
}

impl FtpServer {
    /// Keeps what was just said of `dir`, until it is compared.
    pub(super) fn keep_for_trial(&self, dir: &RemotePath, entries: &[DirEntry]) {
        let host = self.pool.host();
        let open = host.facts(|facts| matches!(facts.together, Proof::Untried(_)));
        let far = host.is_far() && !self.lists_by_stat(dir);
        if open && far && (TELLING..=QUICK).contains(&entries.len()) {
            let listed = JustListed {
                dir: dir.clone(),
                at: Instant::now(),
                entries: entries.to_vec(),
            };
            self.just_listed.with(|kept| *kept = Some(listed));
        }
    }

    /// Learns from a directory that was just listed what this server bears, unless that is known.
    pub(super) fn try_together(&self, s: &mut Lease) {
        let host = self.pool.host();
        if !host.facts(|facts| matches!(facts.together, Proof::Untried(_)))
            || !s.may_arrange_ahead()
            || !host.facts(|facts| facts.unannounced == Some(false))
        {
            return;
        }
        let listed = self.just_listed.with(Option::take);
        let Some(listed) = listed.filter(|listed| listed.at.elapsed() < FRESH) else {
            return;
        };
        if !host.facts(|facts| facts.together.begin()) {
            return;
        }
        let (good, end_took) = self.shows_the_same(s, &listed, false);
        host.facts(|facts| facts.together.end(good));
        log::debug!("{}: EPSV together with a listing: {good}", listed.dir);
        // A server that waits for us takes a round trip for it.
        let quick = host.round_trip() / 2;
        if !good
            || end_took <= quick
            || s.tls.is_some()
            || !host.facts(|facts| facts.closes_early.begin())
        {
            return;
        }
        let (same, end_took) = self.shows_the_same(s, &listed, true);
        let good = same && end_took < quick;
        host.facts(|facts| facts.closes_early.end(good));
        log::debug!("{}: our side closed early: {good}", listed.dir);
    }

    /// Whether the directory, listed so, is what it was, and what its end took.
    fn shows_the_same(&self, s: &mut Lease, listed: &JustListed, closes: bool) -> (bool, Duration) {
        s.in_a_row.trial = Some(Trial {
            closes,
            ..Trial::default()
        });
        let again = s.in_a_row(|s| self.list_on(s, &listed.dir));
        let trial = s.in_a_row.trial.take().unwrap_or_default();
        let same = again.is_ok_and(|again| again == listed.entries);
        (trial.heard && same, trial.end_took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tries_and_three_times_without_a_result_are_enough() {
        let mut proof = Proof::default();
        for _ in 0..TRIES {
            assert!(proof.begin() && !proof.begin() && !proof.works());
            proof.end(false);
        }
        assert_eq!(proof, Proof::GivenUp);
        assert!(!proof.begin());
        proof = Proof::Trying(1);
        proof.end(true);
        assert!(proof.works());
        for _ in 1..MOST_LOST {
            proof.lose();
            assert!(proof.works());
        }
        proof.lose();
        assert_eq!(proof, Proof::GivenUp);
        proof.end(true);
        assert_eq!(proof, Proof::GivenUp, "what went wrong meanwhile stays so");
    }
}
