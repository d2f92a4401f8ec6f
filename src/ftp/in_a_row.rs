//! Listings one after the other on one session: EPSV for the next goes out when all of this one came,
//! and is answered behind its end. One round trip of four is saved where the end has one to itself:
//! on vsftpd, whose kernel keeps the 226 until the 150 is acknowledged, and on ProFTPD, which waits
//! for the end of the data connection.
//!
//! Sooner, together with the command, it goes out only where that was [tried](super::together).

use super::abandon::GIVE_UP_LIMIT;
use super::reply::Reply;
use super::session::Session;
use crate::net::Deadline;
use crate::vfs::error::{Error, ErrorKind, Result};

/// What EPSV is answered, and nothing else (RFC 2428 section 3).
pub(super) const ENTERS_EXTENDED: u16 = 229;

impl Session {
    /// Does `listing`, behind which another one is likely to come on this session.
    pub(super) fn in_a_row<T>(&mut self, listing: impl FnOnce(&mut Self) -> T) -> T {
        self.goes_on = true;
        let listed = listing(self);
        self.goes_on = false;
        listed
    }

    /// Whether EPSV is to be sent behind a listing of which all came.
    pub(super) fn asks_for_next(&self) -> bool {
        self.goes_on
            && !self.behind.is_due()
            && !self.has_ahead()
            && self.may_arrange_ahead()
            && self.host.facts(|facts| {
                facts.asked_behind != Some(false)
                    && facts.unannounced == Some(false)
                    && facts.read_behind != Some(false)
            })
    }

    /// The answer to EPSV, behind `first`, which answers the listing unless it is that answer
    /// itself. Returns the listing's.
    ///
    /// # Errors
    /// Those of the connection; the session is broken then.
    pub(super) fn hear_next(&mut self, first: Reply, deadline: Deadline) -> Result<Reply> {
        if first.is_farewell() {
            return Ok(first);
        }
        let limit = deadline.at_most(GIVE_UP_LIMIT);
        let second = match self.talk(|control| control.final_reply(limit)) {
            Ok(reply) => reply,
            Err(err) => {
                self.ask_behind_no_more();
                return Err(err);
            }
        };
        self.answered += 1;
        let enters = |reply: &Reply| reply.code() == ENTERS_EXTENDED;
        match (enters(&first), enters(&second)) {
            (false, true) => {
                self.connect_ahead(Some(second));
                Ok(first)
            }
            (true, false) => {
                self.ask_behind_no_more();
                Ok(second)
            }
            (true, true) => {
                self.ask_behind_no_more();
                let detail = format!("{}: out of step", self.host.options().host);
                Err(self.break_off(Error::new(ErrorKind::Disconnected, detail)))
            }
            (false, false) => {
                self.ask_behind_no_more();
                Ok(if second.is_farewell() { second } else { first })
            }
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
