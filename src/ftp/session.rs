//! A session: one control connection, logged in, in step.
//!
//! In step means: every command has had its reply, and nothing more has come. Whatever breaks that
//! (a lost connection, a reply too many, a farewell) closes the connection at once and for ever; a
//! session never recovers, it is replaced.

use std::sync::Arc;
use std::time::Duration;

use super::control::{Command, Control};
use super::data::{DataConnection, Stream};
use super::features::Features;
use super::host::Host;
use super::login;
use super::opening::{self, Failure};
use super::refusal::refusal;
use super::rendezvous::Rendezvous;
use super::reply::Reply;
use super::tls::TlsStream;
use super::trust::TlsIdentity;
use crate::net::Deadline;
use crate::vfs::error::{Error, ErrorKind, Result};

/// How long a transfer that is given up may take to be answered.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(2);

/// How long a server that said 226 at once is given to make the data connection after all.
const EMPTY_LIMIT: Duration = Duration::from_secs(1);

/// One logged-in control connection, in TYPE I, in the login directory unless a caller sent CWD.
#[derive(Debug)]
pub struct Session {
    host: Arc<Host>,
    /// `None` once it is broken.
    control: Option<Control>,
    tls: Option<Arc<TlsIdentity>>,
    features: Arc<Features>,
    home: Vec<u8>,
    /// A transfer command was sent and its final reply not yet read.
    transferring: bool,
    /// Not to be used for another operation, though it is in step.
    spent: bool,
    /// Replies read since [`start_count`](Self::start_count).
    answered: u64,
    logged_in: Option<LoggedIn>,
}

/// What became of a transfer command.
#[derive(Debug)]
pub enum Begun {
    /// The server said 1xx (or at once 2xx, see [`Session::begin_data`]): bytes may flow.
    Open(DataConnection),
    /// It refused the transfer command or REST; the session is in step.
    Refused(Reply),
}

impl Session {
    /// Resolves, connects, reads the greeting, secures, logs in and sets up, in at most twice the
    /// time limit of the options.
    ///
    /// # Errors
    /// `Disconnected` or `TimedOut` if the server cannot be reached or has enough connections,
    /// `PermissionDenied` for a refused login or an untrusted certificate.
    pub fn open(host: &Arc<Host>) -> Result<Self> {
        Self::connect(host).map_err(|failure| failure.error)
    }

    pub(super) fn connect(host: &Arc<Host>) -> std::result::Result<Self, Failure> {
        let probed = || host.facts(|facts| facts.pipelining.is_some());
        let before = probed();
        match Self::connect_once(host) {
            // The probe for pipelining was more than the server could take; it is not made again.
            Err(_) if !before && probed() => Self::connect_once(host),
            result => result,
        }
    }

    fn connect_once(host: &Arc<Host>) -> std::result::Result<Self, Failure> {
        host.may_log_in()?;
        let limit = host.options().timeout;
        let mut opened = opening::open(host, host.next_number(), Deadline::after(limit))?;
        let deadline = Deadline::after(limit);
        let control = &mut opened.control;
        login::log_in(control, host, deadline)?;
        let logged_in = LoggedIn::new(host);
        if opened.unprotected {
            login::protect(control, host, deadline)?;
        }
        host.facts(|facts| facts.banner = opened.greeting);
        let ready = login::set_up(control, host, deadline)?;
        Ok(Self {
            host: Arc::clone(host),
            control: Some(opened.control),
            tls: opened.tls,
            features: ready.features,
            home: ready.home,
            transferring: false,
            spent: false,
            answered: 0,
            logged_in: Some(logged_in),
        })
    }

    /// A session that is broken from the start: what is left where one was taken away.
    pub(super) fn gone(host: Arc<Host>) -> Self {
        Self {
            host,
            control: None,
            tls: None,
            features: Arc::default(),
            home: Vec::new(),
            transferring: false,
            spent: true,
            answered: 0,
            logged_in: None,
        }
    }

    /// Sends one command (no CRLF at its end; IAC is doubled here) and returns its final reply,
    /// whatever its code; preliminary 1xx replies are skipped.
    ///
    /// # Errors
    /// `Invalid` if `line` has CR, LF or NUL in it, nothing sent. Otherwise the connection is in
    /// trouble (421 included) and the session is broken.
    pub fn command(&mut self, line: &[u8]) -> Result<Reply> {
        let deadline = Deadline::after(self.host.options().timeout);
        self.exchange(&[line], false, deadline)?
            .pop()
            .ok_or_else(|| ErrorKind::Disconnected.into())
    }

    /// Sends many commands and returns as many replies in order: pipelined where the host was
    /// found to allow it, one by one elsewhere. Only for commands that need no data connection and
    /// do not depend on each other's success. Bounded by four times the time limit.
    ///
    /// # Errors
    /// As [`command`](Self::command); some of the commands may have been executed.
    pub fn batch(&mut self, lines: &[Vec<u8>]) -> Result<Vec<Reply>> {
        let pipelined = self.host.facts(|facts| facts.pipelining == Some(true));
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let deadline = Deadline::after(self.host.options().timeout * 4);
        let replies = self.exchange(&lines, pipelined, deadline);
        if replies.is_err() && pipelined && self.answered > 0 && self.is_broken() {
            // It may have been the pipelining; then the next time works.
            self.host.facts(|facts| facts.pipelining = Some(false));
        }
        replies
    }

    fn exchange(
        &mut self,
        lines: &[&[u8]],
        pipelined: bool,
        deadline: Deadline,
    ) -> Result<Vec<Reply>> {
        lines.iter().try_for_each(|line| check(line))?;
        self.settle()?;
        let host = Arc::clone(&self.host);
        let replies = self.talk(|control| {
            let replies = control.exchange(lines, pipelined, deadline)?;
            match replies.iter().find(|reply| reply.code() == 421) {
                Some(farewell) => Err(refusal(&host.options().host, farewell)),
                None => Ok(replies),
            }
        })?;
        self.answered += replies.len() as u64;
        Ok(replies)
    }

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
        check(command)?;
        let rendezvous = self.arrange()?;
        if offset > 0 {
            let reply = self.command(format!("REST {offset}").as_bytes())?;
            if !reply.wants_more() {
                return Ok(Begun::Refused(reply));
            }
        }
        self.settle()?;
        let deadline = Deadline::after(self.host.options().timeout);
        let reply = self.talk(|control| {
            control.send(&[command])?;
            control.receive(deadline)
        })?;
        self.answered += 1;
        let early = match reply.code() {
            421 => return Err(self.break_off(refusal(&Command(command).to_string(), &reply))),
            100..=199 => None,
            200..=299 => Some(reply),
            _ => {
                if offset > 0 {
                    // Some servers keep the offset for the next transfer.
                    self.command(b"REST 0")?;
                }
                return Ok(Begun::Refused(reply));
            }
        };
        self.transferring = true;
        let joined = match (rendezvous, &early) {
            (Rendezvous::Connected(tcp), _) => Ok(Some(tcp)),
            (Rendezvous::Expected(listener), None) => self.accept(&listener, deadline).map(Some),
            (Rendezvous::Expected(listener), Some(_)) => {
                Ok(self.accept(&listener, Deadline::after(EMPTY_LIMIT)).ok())
            }
        };
        let stream = joined.and_then(|tcp| match (tcp, &self.tls) {
            (None, _) => Ok(Stream::Empty),
            (Some(tcp), None) => Ok(Stream::Plain(tcp)),
            (Some(tcp), Some(tls)) => TlsStream::connect(tls, tcp, self.host.options().timeout)
                .map(|tls| Stream::Tls(Box::new(tls)))
                .map_err(|err| tls.failure(&err)),
        });
        match stream {
            Ok(stream) => Ok(Begun::Open(DataConnection::new(
                stream,
                early,
                &self.host.options().host,
            ))),
            Err(error) => self.not_joined(error, early),
        }
    }

    /// The server began a transfer whose data connection failed: it will say so.
    fn not_joined(&mut self, error: Error, early: Option<Reply>) -> Result<Begun> {
        let over_tls13 = self.tls.is_some() && self.control.as_ref().is_some_and(Control::is_tls13);
        let reply = match early {
            Some(reply) => Ok(reply),
            None => self.talk(|control| control.final_reply(Deadline::after(GIVE_UP_LIMIT))),
        };
        self.transferring = false;
        self.suspect(over_tls13, &reply);
        match reply {
            Ok(reply) if reply.code() == 421 => Err(self.break_off(error)),
            Ok(reply) if reply.code() >= 400 => Ok(Begun::Refused(reply)),
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
    /// noted, and the same transfer on a new session will work.
    pub fn end_data(&mut self, mut data: DataConnection) -> Result<Reply> {
        // Whatever goes wrong with the farewell, the server's reply says how it ended.
        let finished = data.finish();
        let early = data.take_early();
        let suspect = data.is_suspect();
        let reply = match early {
            Some(reply) => {
                drop(data);
                self.check_step();
                Ok(reply)
            }
            None => {
                let deadline = Deadline::after(self.host.options().timeout);
                let reply = self.talk(|control| control.final_reply(deadline));
                drop(data);
                reply
            }
        };
        self.transferring = false;
        self.answered += 1;
        self.suspect(suspect, &reply);
        let reply = reply?;
        if reply.code() == 421 {
            return Err(self.break_off(refusal(&self.host.options().host, &reply)));
        }
        if let Err(err) = finished {
            log::debug!("{}: end of data: {err}", self.host.options().host);
        }
        self.count_tickets();
        Ok(reply)
    }

    /// Gives a transfer up: closes the data connection and reads the one reply that is due,
    /// whatever it says. Bounded by two seconds; a session that is not in step then is broken.
    pub fn close_early(&mut self, mut data: DataConnection) {
        let early = data.take_early();
        drop(data);
        self.transferring = false;
        if early.is_none() {
            // Not ABOR: servers answer it with one reply or two, in either order, or not at all.
            let reply = self.talk(|control| control.receive(Deadline::after(GIVE_UP_LIMIT)));
            match reply {
                Ok(reply) if reply.code() == 421 => self.hang_up(),
                Ok(reply) if matches!(reply.code() / 100, 2 | 4) => return,
                Ok(_) | Err(_) => {}
            }
        }
        // Pure-FTPd ends with 150; on another server that would not be the last word.
        self.check_step();
    }

    /// Asks for a reply that cannot be taken for a late one.
    fn check_step(&mut self) {
        let deadline = Deadline::after(GIVE_UP_LIMIT.min(self.host.options().timeout));
        let checked = self.talk(|control| {
            control.send(&[b"NOOP"])?;
            let reply = control.receive(deadline)?;
            let late = matches!(
                reply.code(),
                100..=199 | 225 | 226 | 250 | 421 | 425 | 426 | 451
            );
            if late || !control.is_at_rest() {
                return Err(Error::new(ErrorKind::Disconnected, "out of step"));
            }
            Ok(())
        });
        if let Err(error) = checked {
            log::debug!("{}: {error}", self.host.options().host);
        }
    }

    /// What FEAT said.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The login directory (PWD at login) in the server's bytes, `/` if it would not tell.
    #[must_use]
    pub fn home(&self) -> &[u8] {
        &self.home
    }

    /// The host and what is known of it.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Whether the control connection is lost or out of step; every call fails from then on.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.control.is_none()
    }

    /// Whether it may serve another operation: not broken, no transfer left half done.
    pub(super) const fn is_reusable(&self) -> bool {
        self.control.is_some() && !self.transferring && !self.spent
    }

    /// Whether nothing came while it was idle: no farewell, no hang-up.
    pub(super) fn is_alive(&mut self) -> bool {
        self.control.as_mut().is_some_and(Control::is_at_rest)
    }

    /// Counts replies from here on.
    pub(super) const fn start_count(&mut self) {
        self.answered = 0;
    }

    /// Whether anything was answered since [`start_count`](Self::start_count).
    pub(super) const fn has_answered(&self) -> bool {
        self.answered > 0
    }

    /// Says QUIT, and does not wait for the answer.
    pub(super) fn quit(mut self) {
        if !self.transferring
            && let Some(control) = &mut self.control
        {
            let _ = control.send(&[b"QUIT"]);
        }
    }

    pub(super) fn control(&self) -> Result<&Control> {
        self.control.as_ref().ok_or_else(|| self.lost())
    }

    /// Talks to the server; any error is the end of the session.
    fn talk<T>(&mut self, work: impl FnOnce(&mut Control) -> Result<T>) -> Result<T> {
        let Some(control) = &mut self.control else {
            return Err(self.lost());
        };
        work(control).map_err(|error| self.break_off(error))
    }

    /// Makes sure that the next reply will be the next command's.
    fn settle(&mut self) -> Result<()> {
        if self.transferring {
            return Err(Error::new(
                ErrorKind::Protocol,
                "a transfer is under way on this session",
            ));
        }
        let host = Arc::clone(&self.host);
        self.talk(|control| {
            if control.is_at_rest() {
                return Ok(());
            }
            // Most often a farewell: "421 Timeout".
            let why = control.receive(Deadline::after(Duration::from_millis(1)))?;
            Err(Error::new(
                ErrorKind::Disconnected,
                format!("{}: {}", host.options().host, why.text()),
            ))
        })
    }

    fn break_off(&mut self, error: Error) -> Error {
        self.hang_up();
        error
    }

    fn hang_up(&mut self) {
        self.control = None;
        self.logged_in = None;
    }

    fn lost(&self) -> Error {
        Error::new(
            ErrorKind::Disconnected,
            format!("{}: the connection is lost", self.host.options().host),
        )
    }

    /// TLS 1.3 tickets are good for one connection, and some servers give too few.
    fn count_tickets(&mut self) {
        let tls13 = self.control.as_ref().is_some_and(Control::is_tls13);
        if tls13 && self.tls.as_ref().is_some_and(|tls| tls.is_out_of_tickets()) {
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
        let name = &self.host.options().host;
        if !self
            .host
            .facts(|facts| std::mem::replace(&mut facts.tls12_only, true))
        {
            log::info!("{name}: {why}; using TLS 1.2");
        }
        self.spent = true;
    }
}

/// CR, LF and NUL would end the command or cut it short.
fn check(line: &[u8]) -> Result<()> {
    if line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(Error::new(
            ErrorKind::Invalid,
            "line breaks and NUL cannot be sent to an FTP server",
        ));
    }
    Ok(())
}

/// Counts a session among those that are logged in, for as long as it lives.
#[derive(Debug)]
struct LoggedIn(Arc<Host>);

impl LoggedIn {
    fn new(host: &Arc<Host>) -> Self {
        host.facts(|facts| facts.sessions += 1);
        Self(Arc::clone(host))
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        self.0.facts(|facts| facts.sessions -= 1);
    }
}
