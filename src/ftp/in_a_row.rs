//! Listings one after the other on one session: EPSV for the next goes out when all of this one came,
//! and is answered behind its end. One round trip of four is saved where the end has one to itself:
//! on vsftpd, whose kernel keeps the 226 until the 150 is acknowledged, and on ProFTPD, which waits
//! for the end of the data connection.
//!
//! Sooner, together with the command, it goes out only where that was [tried](super::together).

use super::abandon::GIVE_UP_LIMIT;
use super::rendezvous::ENTERS_EXTENDED;
use super::reply::Reply;
use super::session::Session;
use super::together::Trial;
use crate::net::Deadline;
use crate::vfs::error::{Error, ErrorKind, Result};

/// When EPSV for the next listing goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// With the listing.
    Together,
    /// When all of it came.
    Behind,
}

/// What a session does for the listing after the one under way.
#[derive(Debug, Default)]
pub(super) struct InARow {
    /// There is most likely one.
    goes_on: bool,
    /// EPSV went out, and is to be answered.
    pub(super) asked: Option<Sent>,
    /// Our side of the data connection of the one under way is closed.
    pub(super) closed: bool,
    /// It is a comparison.
    pub(super) trial: Option<Trial>,
}

impl Session {
    /// Does `listing`, behind which another one is likely to come on this session.
    pub(super) fn in_a_row<T>(&mut self, listing: impl FnOnce(&mut Self) -> T) -> T {
        self.in_a_row.goes_on = true;
        let listed = listing(self);
        self.in_a_row.goes_on = false;
        listed
    }

    /// Whether the next data connection may be asked for before the end of a listing is answered.
    pub(super) fn may_ask_for_next(&self) -> bool {
        self.in_a_row.goes_on
            && !self.behind.is_due()
            && !self.has_ahead()
            && self.may_arrange_ahead()
            && self
                .host
                .facts(|facts| facts.unannounced == Some(false) && facts.read_behind != Some(false))
    }

    /// Whether EPSV is to be sent behind a listing of which all came.
    pub(super) fn asks_behind(&self) -> bool {
        self.in_a_row.asked.is_none()
            && self.may_ask_for_next()
            && self.host.facts(|facts| facts.asked_behind != Some(false))
    }

    /// The answer to EPSV, if that went out, and to the listing, of which `first` is the earlier one.
    /// Returns the listing's.
    ///
    /// # Errors
    /// Those of the connection, and `Disconnected` if it is out of step; the session is broken then.
    pub(super) fn hear_next(&mut self, first: Reply, deadline: Deadline) -> Result<Reply> {
        let Some(sent) = self.in_a_row.asked.filter(|_| !first.is_farewell()) else {
            return Ok(first);
        };
        let enters = |reply: &Reply| reply.code() == ENTERS_EXTENDED;
        // What is listed behind that goes over another connection.
        if sent == Sent::Together && enters(&first) {
            return Err(self.out_of_step(sent));
        }
        let limit = deadline.at_most(GIVE_UP_LIMIT);
        let second = match self.talk(|control| control.final_reply(limit)) {
            Ok(second) => second,
            Err(err) => {
                self.ask_no_more(sent);
                return Err(err);
            }
        };
        self.answered += 1;
        if enters(&first) && enters(&second) {
            return Err(self.out_of_step(sent));
        }
        self.in_a_row.asked = None;
        if enters(&second) {
            if sent == Sent::Together {
                self.heard_together();
            }
            self.connect_ahead(Some(second));
            return Ok(first);
        }
        self.ask_no_more(sent);
        // "450 EPSV: data transfer in progress" comes before the end of the data is told.
        let refused_first = !first.is_ok() && matches!(second.code(), 226 | 250);
        Ok(
            match enters(&first) || refused_first || second.is_farewell() {
                true => second,
                false => first,
            },
        )
    }

    /// The listing that EPSV went out with was refused by `reply`.
    ///
    /// # Errors
    /// As [`hear_next`](Self::hear_next).
    pub(super) fn hear_refusal(&mut self, reply: Reply, deadline: Deadline) -> Result<Reply> {
        let refused = reply.code();
        let heard = self.hear_next(reply, deadline)?;
        // It was EPSV that was refused, and the listing began.
        if heard.code() != refused || !self.has_ahead() {
            return Err(self.out_of_step(Sent::Together));
        }
        Ok(heard)
    }

    fn out_of_step(&mut self, sent: Sent) -> Error {
        self.ask_no_more(sent);
        let detail = format!("{}: out of step", self.host.options().host);
        self.break_off(Error::new(ErrorKind::Disconnected, detail))
    }

    /// EPSV does not go out then any more.
    fn ask_no_more(&mut self, sent: Sent) {
        self.in_a_row.asked = None;
        match sent {
            Sent::Together => self.ask_together_no_more(),
            Sent::Behind => self.ask_behind_no_more(),
        }
    }

    /// The session is lost, perhaps while that was to be answered.
    pub(super) fn lost_in_a_row(&mut self) {
        if self.in_a_row.asked.take() == Some(Sent::Together) {
            self.host.facts(|facts| facts.together.lose());
        }
    }

    /// Nothing is sent any more before the end of a listing is answered.
    pub(super) fn ask_behind_no_more(&self) {
        let before = self.host.facts(|facts| facts.asked_behind.replace(false));
        if before != Some(false) {
            let host = &self.host.options().host;
            log::info!("{host}: what was sent behind a listing went wrong; not done any more");
        }
    }
}
