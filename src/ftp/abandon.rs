//! Transfers that are given up before their end, and the next one prepared in the same breath.
//!
//! Who jumps about in a file gives one download up for the next, each time. The reply to a closed
//! data connection takes a round trip, EPSV another, the connection a third. Where the server keeps
//! step, EPSV goes out behind the closed connection, and the next one is made while nobody waits:
//! a jump is one round trip then.

use std::time::{Duration, Instant};

use super::data::DataConnection;
use super::reply::Reply;
use super::session::Session;
use crate::net::Deadline;
use crate::vfs::error::{Error, ErrorKind, Result};

/// How long a transfer that is given up may take to be answered.
pub(super) const GIVE_UP_LIMIT: Duration = Duration::from_secs(2);

/// A server that says nothing of it for so long, or for so many round trips, is asked for something
/// else; and what comes within that time behind the answer is the word that it owed.
const SILENCE: Duration = Duration::from_millis(250);
const SILENT_TRIPS: u32 = 4;

/// A download given up so soon after another is one of many.
const RUN: Duration = Duration::from_secs(3);

impl Session {
    /// Gives a transfer up: closes the data connection and reads the one reply that is due,
    /// whatever it says. Bounded by some seconds; a session that is not in step then is broken.
    pub fn close_early(&mut self, data: DataConnection) {
        self.close_and_ask(data, false);
    }

    /// As [`close_early`](Self::close_early), for a download; if it is one of many, the next data
    /// connection is arranged.
    pub fn close_for_next(&mut self, data: DataConnection) {
        let now = Instant::now();
        let asks = self.host.facts(|facts| {
            let before = facts.given_up.replace(now);
            (facts.gives_up_in_step == Some(true) || facts.gives_up_silently)
                && before.is_some_and(|before| now.duration_since(before) < RUN)
        });
        self.close_and_ask(data, asks && self.may_arrange_ahead());
    }

    fn close_and_ask(&mut self, mut data: DataConnection, asks: bool) {
        let silent = self.host.facts(|facts| facts.gives_up_silently);
        let patience = self.silence();
        let early = data.take_early();
        self.learn_flow(&mut data);
        drop(data);
        self.transferring = false;
        self.weigh_closing(false);
        if self.in_a_row.asked.take().is_some() {
            // What breaks a listing off may have been that.
            self.ask_together_no_more();
            return self.hang_up();
        }
        if early.is_none() {
            // Not ABOR: servers answer it with one reply or two, in either order, or not at all.
            let reply = self.talk(|control| {
                if asks {
                    control.send(&[b"EPSV"])?;
                } else if silent || !control.speaks_in(patience) {
                    return Ok(None);
                }
                control.receive(Deadline::after(GIVE_UP_LIMIT)).map(Some)
            });
            let reply = match reply {
                Ok(None) => return self.ask_in_silence(silent),
                Ok(Some(reply)) => Ok(reply),
                Err(error) => Err(error),
            };
            match reply {
                Ok(reply) if reply.is_farewell() => return self.hang_up(),
                Ok(reply) if silent && asks && reply.code() == 229 => {
                    return self.connect_ahead(Some(reply));
                }
                Ok(reply) if silent && asks && reply.is_preliminary() => {
                    return self.await_ahead();
                }
                Ok(reply) if is_last_word(&reply) => {
                    self.host.facts(|facts| facts.gives_up_in_step = Some(true));
                    if asks {
                        self.await_ahead();
                    }
                    return;
                }
                Ok(_) if asks => {
                    self.host
                        .facts(|facts| facts.gives_up_in_step = Some(false));
                    return self.hang_up();
                }
                Ok(_) | Err(_) => {}
            }
        }
        // Pure-FTPd ends with 150; on another server that would not be the last word.
        self.check_step();
    }

    /// How long a server may take to say something.
    fn silence(&self) -> Duration {
        let trips = self.host.round_trip() * SILENT_TRIPS;
        trips.clamp(SILENCE, GIVE_UP_LIMIT)
    }

    /// The server has said nothing of a transfer that was given up. Pure-FTPd does not, where it sees
    /// the closed connection before it writes to it: what it answers next is the answer to what it is
    /// asked next. On a server that is not `known` for that the word that is due may come yet.
    fn ask_in_silence(&mut self, known: bool) {
        let patience = self.silence();
        let asked = self.talk(|control| {
            let deadline = Deadline::after(GIVE_UP_LIMIT);
            control.send(&[b"NOOP"])?;
            let first = control.receive(deadline)?;
            let was_late = is_late(&first);
            let answer = if was_late {
                control.receive(deadline)?
            } else {
                first
            };
            let more = !was_late && !known && control.speaks_in(patience);
            if is_late(&answer) || more || !control.is_at_rest() {
                return Err(Error::new(ErrorKind::Disconnected, "out of step"));
            }
            Ok(was_late)
        });
        match asked {
            Ok(false) => self.host.facts(|facts| facts.gives_up_silently = true),
            Ok(true) => {}
            Err(error) => log::debug!("{}: {error}", self.host.options().host),
        }
    }

    /// The answer to EPSV, behind that to the transfer; any other is one reply too many.
    fn await_ahead(&mut self) {
        let reply = self.talk(|control| control.receive(Deadline::after(GIVE_UP_LIMIT)));
        match reply {
            Ok(reply) if reply.code() == 229 => {
                self.connect_ahead(Some(reply));
            }
            Ok(_) => {
                self.host
                    .facts(|facts| facts.gives_up_in_step = Some(false));
                self.hang_up();
            }
            Err(_) => {}
        }
    }

    /// Gives up a transfer of which nothing has been answered, its data connection closed already.
    ///
    /// # Errors
    /// As [`command`](Session::command).
    pub(super) fn abandon(&mut self, deadline: Deadline) -> Result<()> {
        let begun = self.talk(|control| Ok(control.receive(deadline)?.is_preliminary()))?;
        if begun {
            let limit = deadline.at_most(GIVE_UP_LIMIT);
            let _ = self.talk(|control| control.receive(limit))?;
        }
        self.check_step();
        Ok(())
    }

    /// Asks for a reply that cannot be taken for a late one.
    pub(super) fn check_step(&mut self) {
        let deadline = Deadline::after(GIVE_UP_LIMIT.min(self.host.options().timeout));
        let checked = self.talk(|control| {
            control.send(&[b"NOOP"])?;
            let reply = control.receive(deadline)?;
            if is_late(&reply) || !control.is_at_rest() {
                return Err(Error::new(ErrorKind::Disconnected, "out of step"));
            }
            Ok(())
        });
        if let Err(error) = checked {
            log::debug!("{}: {error}", self.host.options().host);
        }
    }
}

/// Whether this belongs to a transfer rather than to NOOP.
fn is_late(reply: &Reply) -> bool {
    matches!(
        reply.code(),
        100..=199 | 225 | 226 | 250 | 421 | 425 | 426 | 451
    )
}

/// Whether nothing follows this reply to a transfer that was given up.
const fn is_last_word(reply: &Reply) -> bool {
    matches!(reply.code() / 100, 2 | 4)
}
