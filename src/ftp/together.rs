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

use super::abandon::GIVE_UP_LIMIT;
use super::in_a_row::ENTERS_EXTENDED;
use super::pool::Lease;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use crate::net::Deadline;
use crate::vfs::attr::DirEntry;
use crate::vfs::error::{Error, ErrorKind, Result};
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
    fn lose(&mut self) {
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

/// What a session does so.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// It tries EPSV with a listing, or closing its side early as well.
    tries: bool,
    tries_closing: bool,
    /// EPSV went out with the listing under way, and is to be answered.
    pub(super) asked: bool,
    /// It was answered with a port, behind the listing.
    heard: bool,
    /// Our side of the data connection of the listing under way is closed.
    closed: bool,
    /// How long the end of the last listing was waited for behind its data.
    pub(super) end_took: Duration,
}

/// A directory that was just listed.
#[derive(Debug)]
pub(super) struct JustListed {
    dir: RemotePath,
    at: Instant,
    entries: Vec<DirEntry>,
}

impl Session {
    /// Whether EPSV goes out with this listing.
    pub(super) fn asks_together(&self, command: &[u8]) -> bool {
        self.goes_on
            && !self.behind.is_due()
            && command.len() + 8 <= MOST
            && self.may_arrange_ahead()
            && (self.together.tries || self.host.facts(|facts| facts.together.works()))
            && self
                .host
                .facts(|facts| facts.unannounced == Some(false) && facts.read_behind != Some(false))
    }

    /// Closes our side of a listing's data connection, where that is of use.
    pub(super) fn close_our_side(&mut self, data: &TcpStream) {
        let plain = self.tls.is_none() && !self.packed;
        let closes = self.together.tries_closing
            || self.together.asked && self.host.facts(|facts| facts.closes_early.works());
        self.together.closed = plain && closes && data.shutdown(Shutdown::Write).is_ok();
    }

    /// A listing has ended, well or not.
    pub(super) fn weigh_closing(&mut self, well: bool) {
        if std::mem::take(&mut self.together.closed) && !well {
            self.host.facts(|facts| facts.closes_early = Proof::GivenUp);
        }
    }

    /// The answer to EPSV that went out with a listing, behind `first`, which must answer the
    /// listing. Returns the listing's.
    ///
    /// # Errors
    /// Those of the connection, and `Disconnected` if it is out of step; the session is broken then.
    pub(super) fn hear_together(&mut self, first: Reply, deadline: Deadline) -> Result<Reply> {
        if first.is_farewell() {
            return Ok(first);
        }
        if first.code() == ENTERS_EXTENDED {
            return Err(self.out_of_step());
        }
        let limit = deadline.at_most(GIVE_UP_LIMIT);
        let second = match self.talk(|control| control.final_reply(limit)) {
            Ok(second) => second,
            Err(err) => {
                self.ask_together_no_more();
                return Err(err);
            }
        };
        self.together.asked = false;
        self.answered += 1;
        if second.code() == ENTERS_EXTENDED {
            self.host.facts(|facts| {
                if facts.together.works() {
                    facts.together = Proof::Works(0);
                }
            });
            self.together.heard = true;
            self.connect_ahead(Some(second));
            return Ok(first);
        }
        self.ask_together_no_more();
        // "450 EPSV: data transfer in progress" comes before the end of the data is told.
        let refused_first = !first.is_ok() && matches!(second.code(), 226 | 250);
        Ok(match refused_first || second.is_farewell() {
            true => second,
            false => first,
        })
    }

    /// The listing that EPSV went out with was refused by `reply`.
    ///
    /// # Errors
    /// As [`hear_together`](Self::hear_together).
    pub(super) fn hear_refusal(&mut self, reply: Reply, deadline: Deadline) -> Result<Reply> {
        let refused = reply.code();
        let heard = self.hear_together(reply, deadline)?;
        // It was EPSV that was refused, and the listing began.
        if heard.code() != refused || !self.has_ahead() {
            return Err(self.out_of_step());
        }
        Ok(heard)
    }

    fn out_of_step(&mut self) -> Error {
        self.ask_together_no_more();
        let detail = format!("{}: out of step", self.host.options().host);
        self.break_off(Error::new(ErrorKind::Disconnected, detail))
    }

    /// EPSV does not go out with a listing any more.
    pub(super) fn ask_together_no_more(&mut self) {
        self.together.asked = false;
        let facts =
            |facts: &mut super::host::Facts| std::mem::replace(&mut facts.together, Proof::GivenUp);
        if self.host.facts(facts) != Proof::GivenUp {
            let host = &self.host.options().host;
            log::info!("{host}: EPSV together with a listing went wrong; not done any more");
        }
    }

    /// The session is lost while that was to be answered.
    pub(super) fn lost_together(&mut self) {
        if std::mem::take(&mut self.together.asked) {
            self.host.facts(|facts| facts.together.lose());
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
        s.together.tries = true;
        let good = self.shows_the_same(s, &listed);
        s.together.tries = false;
        host.facts(|facts| facts.together.end(good));
        log::debug!("{}: EPSV together with a listing: {good}", listed.dir);
        // A server that waits for us takes a round trip for it.
        let slow = s.together.end_took > host.round_trip() / 2;
        if !good || !slow || s.tls.is_some() || !host.facts(|facts| facts.closes_early.begin()) {
            return;
        }
        s.together.tries_closing = true;
        let good = self.shows_the_same(s, &listed) && s.together.end_took < host.round_trip() / 2;
        s.together.tries_closing = false;
        host.facts(|facts| facts.closes_early.end(good));
        log::debug!("{}: our side closed early: {good}", listed.dir);
    }

    fn shows_the_same(&self, s: &mut Lease, listed: &JustListed) -> bool {
        s.together.heard = false;
        let again = s.in_a_row(|s| self.list_on(s, &listed.dir));
        s.together.heard && again.is_ok_and(|again| again == listed.entries)
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
