//! Transfers of a session: a data connection, a command, and the reply at the end.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::abandon::GIVE_UP_LIMIT;
use super::control::{Command, Owed};
use super::data::{DataConnection, Stream};
use super::in_a_row::Sent;
use super::mode::suffix_of;
use super::options::{DataMode, FtpOptions};
use super::refusal::refusal;
use super::rendezvous::Rendezvous;
use super::reply::Reply;
use super::session::{Session, check, refuses_length, too_long};
use super::tls::TlsStream;
use crate::net::bandwidth::Bandwidth;
use crate::net::trust::TlsVersion;
use crate::net::{self, Deadline};
use crate::traffic::{Direction, TRAFFIC};
use crate::vfs::error::{Error, ErrorKind, Result};

/// How long the first transfer waits for its 1xx; later ones as long as the server is known to take.
const ANNOUNCEMENT_LIMIT: Duration = Duration::from_secs(3);

/// How long a 1xx is waited for on a server that never sent one, and after the first data. What is
/// refused is refused by then.
const UNANNOUNCED_LIMIT: Duration = Duration::from_millis(50);

/// How long a server that said 226 at once is given to make the data connection after all.
const EMPTY_LIMIT: Duration = Duration::from_secs(1);

/// What became of a transfer command.
#[derive(Debug)]
pub enum Begun {
    /// The server said 1xx (or at once 2xx, see [`Session::begin_data`]): bytes may flow.
    Open(DataConnection),
    /// It refused the transfer command or REST; the session is in step.
    Refused(Reply),
}

impl Session {
    /// Opens a data connection and sends `command` (RETR, STOR, APPE, MLSD, LIST, NLST…), after
    /// `REST offset` if that is not 0.
    ///
    /// A server that answers 2xx without 1xx (an empty listing on some) counts as begun: reading
    /// gives what there is, `end_data` returns that reply.
    ///
    /// # Errors
    /// As [`command`](Self::command). If no data connection can be made, `Protocol`, `TimedOut` or
    /// `Disconnected`, and the session is still good (see [`is_broken`](Self::is_broken)).
    pub fn begin_data(&mut self, command: &[u8], offset: u64) -> Result<Begun> {
        self.begin_data_where(command, offset, false)
    }

    /// As [`begin_data`](Self::begin_data); `only_with_room`: not on a link that is full, which is
    /// `Busy`.
    pub(super) fn begin_data_where(
        &mut self,
        command: &[u8],
        offset: u64,
        only_with_room: bool,
    ) -> Result<Begun> {
        check(command)?;
        if self.host.needs_pret(self.features()) {
            self.command(&[b"PRET ", command].concat())?;
        }
        let ahead = self.has_ahead();
        match self.begin_data_once(command, offset, only_with_room) {
            Ok(Begun::Refused(reply)) if ahead && matches!(reply.code(), 425 | 426) => {
                self.arrange_no_more("a data connection made ahead was not used");
                self.begin_data_once(command, offset, only_with_room)
            }
            begun => begun,
        }
    }

    /// Begins to store what is so small that it may be sent before the server has said that it
    /// takes it, which saves a round trip; a refusal is the answer to
    /// [`end_data`](Self::end_data). `None`, with nothing sent, where the server's 1xx must be
    /// waited for: the TLS of a data connection begins behind it.
    ///
    /// # Errors
    /// As [`begin_data`](Self::begin_data).
    pub(super) fn begin_blind(&mut self, command: &[u8]) -> Result<Option<DataConnection>> {
        let announces = self.host.facts(|facts| facts.unannounced == Some(false));
        let passive = matches!(self.host.options().data, DataMode::Passive);
        let secured = self.tls.is_some() || self.packed;
        if !announces || !passive || secured || self.host.needs_pret(self.features()) {
            return Ok(None);
        }
        check(command)?;
        let Rendezvous::Connected(tcp) = self.arrange()? else {
            return Ok(None);
        };
        self.settle(false)?;
        self.talk(|control| control.send(&[command]))?;
        self.transferring = true;
        let data = DataConnection::new(Stream::Plain(tcp), None, false, self.host.options());
        let limit = self.host.options().bandwidth.clone();
        Ok(Some(watch(data, command, 0, None, limit)))
    }

    fn begin_data_once(
        &mut self,
        command: &[u8],
        offset: u64,
        only_with_room: bool,
    ) -> Result<Begun> {
        let way = direction(command);
        let named = || suffix_of(&path_of(command)).filter(|_| way.is_some());
        let suffix = self
            .subject
            .take()
            .map_or_else(named, |path| suffix_of(&path));
        let packs = self.packs_next;
        let packs = packs.unwrap_or_else(|| self.packs(way, suffix.as_deref()));
        self.set_mode(packs)?;
        let rendezvous = self.arrange()?;
        if only_with_room && self.host.is_link_full() {
            return Err(Error::new(ErrorKind::Busy, "no room on the link"));
        }
        let rest = (offset > 0).then(|| format!("REST {offset}").into_bytes());
        let together = self
            .host
            .facts(|facts| facts.pipelining == Some(true) && facts.unannounced == Some(false));
        if let Some(rest) = rest.as_ref().filter(|_| !together) {
            let reply = self.command(rest)?;
            if !reply.wants_more() {
                return Ok(Begun::Refused(reply));
            }
        }
        self.settle(false)?;
        let deadline = Deadline::after(self.host.options().timeout);
        let rest = rest.as_deref().filter(|_| together);
        let asks = way.is_none() && rest.is_none() && self.asks_together(command);
        self.in_a_row.asked = asks.then_some(Sent::Together);
        if let Some(refused) = self.send_opening(rest, command, deadline)? {
            // The command went out with it, and begins where nobody wants to read.
            drop(rendezvous);
            self.abandon(deadline)?;
            return Ok(Begun::Refused(refused));
        }
        if let (None, Rendezvous::Connected(data)) = (way, &rendezvous) {
            self.close_our_side(data);
        }
        let reply = self.opening(&rendezvous, deadline)?;
        let announced = reply.as_ref().is_some_and(Reply::is_preliminary);
        let total = reply.as_ref().and_then(told_size);
        let early = match reply {
            Some(reply) if reply.is_farewell() => {
                return Err(self.break_off(refusal(&Command(command).to_string(), &reply)));
            }
            Some(reply) if refuses_length(&reply) => {
                return Err(self.break_off(too_long(&self.host, &reply)));
            }
            Some(reply) if reply.is_ok() => Some(reply),
            Some(reply) if !reply.is_preliminary() && asks => {
                return self.hear_refusal(reply, deadline).map(Begun::Refused);
            }
            Some(reply) if !reply.is_preliminary() => {
                if offset > 0 {
                    // Some servers keep the offset for the next transfer.
                    self.command(b"REST 0")?;
                }
                return Ok(Begun::Refused(reply));
            }
            Some(_) | None => None,
        };
        self.transferring = true;
        let joined = match (rendezvous, &early) {
            (Rendezvous::Connected(tcp), _) => Ok(Some(tcp)),
            (Rendezvous::Expected(listener), None) => self.accept(&listener, deadline).map(Some),
            (Rendezvous::Expected(listener), Some(_)) => {
                Ok(self.accept(&listener, Deadline::after(EMPTY_LIMIT)).ok())
            }
        };
        // After "226 No files" some servers leave the data connection as it is.
        let over = early.is_some() && !is_upload(command);
        let most = if over { EMPTY_LIMIT } else { Duration::MAX };
        let limit = self.host.options().timeout.min(most);
        if let Ok(Some(tcp)) = &joined
            && is_upload(command)
        {
            net::tune_upload(tcp);
        }
        if let (Ok(Some(tcp)), Some(limit)) = (&joined, &self.host.options().bandwidth)
            && let Some(direction) = direction(command)
        {
            limit.shape(tcp, direction);
        }
        let stream = joined.and_then(|tcp| match (tcp, &self.tls) {
            (None, _) => Ok(Stream::Empty),
            (Some(tcp), None) if over && !is_served(&tcp, limit) => Ok(Stream::Empty),
            (Some(tcp), None) => Ok(Stream::Plain(tcp)),
            (Some(tcp), Some(tls)) => match TlsStream::connect(tls, tcp, limit) {
                Ok(tls) => {
                    let resumed = !tls.is_full_handshake();
                    self.host.facts(|facts| facts.data_resumed = Some(resumed));
                    Ok(Stream::Tls(Box::new(tls)))
                }
                Err(err) if over && net::is_timeout(&err) => Ok(Stream::Empty),
                Err(err) => Err(tls.failure(&err)),
            },
        });
        match stream {
            Ok(stream) => {
                let options = self.host.options();
                let mut data = DataConnection::new(stream, early, announced, options);
                if self.packed {
                    data = data.packed(way, &self.host);
                }
                let limit = options.bandwidth.clone();
                Ok(Begun::Open(watch(data, command, offset, total, limit)))
            }
            Err(error) => self.not_joined(error, early),
        }
    }

    /// Sends a transfer command, together with `rest` if given; what that was refused by.
    fn send_opening(
        &mut self,
        rest: Option<&[u8]>,
        command: &[u8],
        deadline: Deadline,
    ) -> Result<Option<Reply>> {
        let together = self.in_a_row.asked.is_some();
        let reply = self.talk(|control| {
            let Some(rest) = rest else {
                let lines: [&[u8]; 2] = [command, b"EPSV"];
                let lines = if together { &lines[..] } else { &lines[..1] };
                return control.send(lines).map(|()| None);
            };
            control.send(&[rest, command])?;
            control.final_reply(deadline).map(Some)
        })?;
        self.answered += u64::from(reply.is_some());
        match reply {
            Some(reply) if reply.is_farewell() => {
                Err(self.break_off(refusal(&Command(command).to_string(), &reply)))
            }
            reply => Ok(reply.filter(|reply| !reply.wants_more())),
        }
    }

    /// Reads the first reply to a transfer command. `None` if none comes though the
    /// transfer begins: some servers leave the 1xx out, and the reply that would be waited for
    /// comes at the end.
    fn opening(&mut self, rendezvous: &Rendezvous, deadline: Deadline) -> Result<Option<Reply>> {
        let patience = match self.host.facts(|facts| facts.unannounced) {
            Some(false) => None,
            Some(true) => Some(UNANNOUNCED_LIMIT),
            None => Some(ANNOUNCEMENT_LIMIT.min(self.host.options().timeout / 2)),
        };
        let reply = self.talk(|control| {
            if let (Some(patience), Rendezvous::Connected(data)) = (patience, rendezvous)
                && !control.speaks_within(patience, data, UNANNOUNCED_LIMIT)
            {
                return Ok(None);
            }
            control.receive(deadline).map(Some)
        })?;
        if let Some(reply) = &reply {
            self.answered += 1;
            if reply.is_preliminary() {
                self.host.facts(|facts| facts.unannounced = Some(false));
            }
        }
        Ok(reply)
    }

    /// The server began a transfer whose data connection failed: it will say so.
    fn not_joined(&mut self, error: Error, early: Option<Reply>) -> Result<Begun> {
        let over_tls13 = self.tls.is_some() && self.tls13;
        let reply = match early {
            Some(reply) => Ok(reply),
            None => self.talk(|control| control.final_reply(Deadline::after(GIVE_UP_LIMIT))),
        };
        self.transferring = false;
        self.suspect(over_tls13, &reply);
        if self.in_a_row.asked.is_some() {
            return Err(self.break_off(error));
        }
        match reply {
            Ok(reply) if reply.is_farewell() => Err(self.break_off(error)),
            // What the server says of our refusal of its certificate explains nothing.
            Ok(reply) if reply.code() >= 400 && error.kind() != ErrorKind::Untrusted => {
                Ok(Begun::Refused(reply))
            }
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Ends a transfer in good order: tells the server that all was sent (uploads) or takes note
    /// that all was read (downloads, read to the end before), and returns the final reply: 2xx or
    /// an error reply.
    ///
    /// # Errors
    /// As [`command`](Self::command). `Disconnected` here, or a 425 or 522, may mean that the
    /// server wanted the TLS session of the control connection and rustls had none left; that is
    /// noted, and the same transfer on a new session will work. Also `Disconnected`, with the
    /// session still good, if a download ended without the close_notify that this server sends.
    pub fn end_data(&mut self, mut data: DataConnection) -> Result<Reply> {
        let farewell = data.farewell();
        // Whatever goes wrong with the farewell, the server's reply says how it ended.
        let finished = data.finish();
        let early = data.take_early();
        let suspect = data.is_suspect();
        let reply = match early {
            Some(reply) if self.in_a_row.asked.is_some() => {
                drop(data);
                let deadline = Deadline::after(self.host.options().timeout);
                self.hear_next(reply, deadline)
            }
            Some(reply) => {
                drop(data);
                self.check_step();
                Ok(reply)
            }
            None => {
                let deadline = Deadline::after(self.host.options().timeout);
                let before = Instant::now();
                let asks = data.direction().is_none() && self.asks_behind();
                if asks {
                    self.in_a_row.asked = Some(Sent::Behind);
                }
                self.send_behind()?;
                let reply = self.talk(|control| {
                    if asks {
                        control.send(&[b"EPSV"])?;
                    }
                    control.last_reply(deadline)
                });
                if let Some(trial) = &mut self.in_a_row.trial {
                    trial.end_took = before.elapsed();
                }
                let reply =
                    reply.and_then(|(reply, late)| Ok((self.hear_next(reply, deadline)?, late)));
                let announced = data.is_announced();
                // What the kernel took at once is on its way until then.
                if data.direction() == Some(Direction::Up) {
                    data.waited_for(before.elapsed());
                }
                self.learn_flow(&mut data);
                drop(data);
                reply.map(|(reply, late)| {
                    // A transfer that was refused outright shows nothing.
                    if announced || late || reply.is_ok() {
                        let unannounced = !announced && !late;
                        self.host
                            .facts(|facts| facts.unannounced = Some(unannounced));
                    }
                    reply
                })
            }
        };
        self.transferring = false;
        self.answered += 1;
        self.suspect(suspect, &reply);
        self.weigh_closing(reply.as_ref().is_ok_and(Reply::is_ok));
        let reply = reply?;
        if reply.is_farewell() {
            return Err(self.break_off(refusal(&self.host.options().host, &reply)));
        }
        self.check_behind(&reply)?;
        if let Err(err) = finished {
            log::debug!("{}: end of data: {err}", self.host.options().host);
        }
        self.count_tickets();
        if farewell == Some(true) {
            self.host.facts(|facts| facts.says_goodbye = true);
        }
        let cut = farewell == Some(false) && self.host.facts(|facts| facts.says_goodbye);
        if cut && reply.is_ok() {
            return Err(Error::new(
                ErrorKind::Disconnected,
                format!(
                    "{}: the data connection was cut: no close_notify",
                    self.host.options().host
                ),
            ));
        }
        Ok(reply)
    }

    /// Ends a download of which all bytes came, and the end of data after them: the final reply is
    /// read in front of the next command's, which saves its round trip. Where the server is not
    /// known to keep step, the reply is waited for and returned.
    ///
    /// # Errors
    /// As [`end_data`](Self::end_data).
    pub fn end_data_behind(&mut self, mut data: DataConnection) -> Result<Option<Reply>> {
        let certain = self.host.facts(|facts| {
            facts.pipelining == Some(true)
                && facts.unannounced == Some(false)
                && facts.read_behind != Some(false)
        });
        if !certain || !data.is_announced() || data.is_suspect() {
            return self.end_data(data).map(Some);
        }
        if let Err(err) = data.finish() {
            log::debug!("{}: end of data: {err}", self.host.options().host);
        }
        self.learn_flow(&mut data);
        drop(data);
        self.transferring = false;
        self.host.facts(|facts| facts.read_behind = Some(true));
        self.talk(|control| {
            control.owe(Owed::Download);
            Ok(())
        })?;
        self.count_tickets();
        Ok(None)
    }

    /// TLS 1.3 tickets are good for one connection, and some servers give too few.
    fn count_tickets(&mut self) {
        if self.tls13 && self.tls.as_ref().is_some_and(|tls| tls.is_out_of_tickets()) {
            self.leave_tls13("the server gives too few session tickets");
        }
    }

    /// Notes a refusal that may be for want of a resumed session.
    fn suspect(&mut self, suspect: bool, reply: &Result<Reply>) {
        let refused = match reply {
            Ok(reply) => matches!(reply.code(), 425 | 522),
            Err(error) => error.kind() == ErrorKind::Disconnected,
        };
        if suspect && refused {
            self.leave_tls13("a data connection without a resumed session was refused");
        }
    }

    /// A TLS 1.2 session may be resumed without end: the sessions to come use that.
    fn leave_tls13(&mut self, why: &str) {
        let FtpOptions {
            host: name, trust, ..
        } = self.host.options();
        if trust.min == TlsVersion::V13 {
            // A new session has new tickets.
            self.spent = true;
            return;
        }
        if !self
            .host
            .facts(|facts| std::mem::replace(&mut facts.tls12_only, true))
        {
            log::info!("{name}: {why}; using TLS 1.2");
        }
        self.spent = true;
    }
}

/// Counts a transfer, and shows a content's to whoever watches.
fn watch(
    data: DataConnection,
    command: &[u8],
    offset: u64,
    total: Option<u64>,
    limit: Option<Arc<Bandwidth>>,
) -> DataConnection {
    let Some(direction) = direction(command) else {
        TRAFFIC.listings.count();
        return data;
    };
    let transfer = TRAFFIC.begin(direction, path_of(command), offset);
    if let (Direction::Down, Some(total)) = (direction, total) {
        transfer.expect(total);
    }
    data.watched(transfer, direction, limit)
}

/// What a command with four letters names.
fn path_of(command: &[u8]) -> String {
    let path = command.get(5..).unwrap_or_default();
    String::from_utf8_lossy(path).into_owned()
}

/// Which way a content goes by this command; `None` for listings.
fn direction(command: &[u8]) -> Option<Direction> {
    if is_upload(command) {
        return Some(Direction::Up);
    }
    command.starts_with(b"RETR ").then_some(Direction::Down)
}

/// `150 Opening BINARY mode data connection for a (1234 bytes).`
fn told_size(reply: &Reply) -> Option<u64> {
    let text = String::from_utf8_lossy(reply.first_line());
    let (_, behind) = text.rsplit_once('(')?;
    let (number, _) = behind.split_once(" bytes")?;
    number.parse().ok()
}

fn is_upload(command: &[u8]) -> bool {
    command.starts_with(b"STOR ") || command.starts_with(b"APPE ")
}

/// Whether data or their end come within `limit`.
fn is_served(data: &TcpStream, limit: Duration) -> bool {
    net::wait_readable(data, None, limit).is_ok() && matches!(net::is_readable(data), Ok(true))
}
