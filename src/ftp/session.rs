//! A session: one control connection, logged in, in step.
//!
//! In step means: every command has had its reply, and nothing more has come. Whatever breaks that
//! (a lost connection, a reply too many, a farewell) closes the connection at once and for ever; a
//! session never recovers, it is replaced.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::at_once::{self, Trouble};
use super::behind::{self, Behind};
use super::control::Control;
pub(super) use super::control::More;
use super::features::Features;
use super::host::Host;
use super::in_a_row::InARow;
use super::login::{self, Ready};
use super::opening::{self, Failure};
use super::refusal::refusal;
use super::reply::Reply;
pub use super::transfer::Begun;
use crate::net::Deadline;
use crate::net::trust::TlsIdentity;
use crate::traffic::TRAFFIC;
use crate::vfs::error::{Error, ErrorKind, Result};

/// How long a reply that has begun to come may take to be complete.
const LATE_LIMIT: Duration = Duration::from_secs(2);

/// Bytes of a command, a little less than a path of Linux may have: vsftpd hangs up on more, and
/// ProFTPD falls silent.
const LONGEST_LINE: usize = 4_090;

/// One logged-in control connection, in TYPE I, in the login directory unless a caller sent CWD.
#[derive(Debug)]
pub struct Session {
    pub(super) host: Arc<Host>,
    /// `None` once it is broken.
    pub(super) control: Option<Control>,
    /// What encrypts the data connections.
    pub(super) tls: Option<Arc<TlsIdentity>>,
    /// The data connections resume a session of TLS 1.3.
    pub(super) tls13: bool,
    features: Arc<Features>,
    home: Vec<u8>,
    pub(super) ahead: Ahead,
    pub(super) in_a_row: InARow,
    /// Lines of the next batch, to be sent behind the data of the transfer under way, or sent already.
    pub(super) behind: Behind,
    /// A transfer command was sent and its final reply not yet read.
    pub(super) transferring: bool,
    /// It is in MODE Z.
    pub(super) packed: bool,
    /// Whether the next transfer is packed, where that is not for the options to say.
    pub(super) packs_next: Option<bool>,
    /// The file that the next transfer is of, where the command does not name it.
    pub(super) subject: Option<String>,
    /// Not to be used for another operation, though it is in step.
    pub(super) spent: bool,
    /// Replies read since [`start_count`](Self::start_count).
    pub(super) answered: u64,
    logged_in: Option<LoggedIn>,
}

impl Session {
    /// Resolves, connects, reads the greeting, secures, logs in and sets up, in at most three times
    /// the time limit of the options.
    ///
    /// # Errors
    /// `Disconnected` or `TimedOut` if the server cannot be reached or has enough connections,
    /// `PermissionDenied` for a refused login or an untrusted certificate.
    pub fn open(host: &Arc<Host>) -> Result<Self> {
        Self::connect(host, false).map_err(|failure| failure.error)
    }

    /// As [`open`](Self::open); with `arranges`, a data connection is asked for where that takes no
    /// longer.
    pub(super) fn connect(host: &Arc<Host>, arranges: bool) -> std::result::Result<Self, Failure> {
        host.may_log_in()?;
        let Some(mut attempt) = at_once::attempt(host, arranges) else {
            return Self::connect_in_turn(host, None);
        };
        match attempt.connect() {
            Ok(session) => {
                attempt.worked();
                Ok(session)
            }
            Err(Trouble::Failed(failure)) => Err(failure),
            Err(Trouble::Unproven(dialed)) => Self::connect_in_turn(host, Some(dialed)),
            Err(Trouble::Odd { why, certain }) => {
                log::debug!("{why}; logging in step by step");
                let session = Self::connect_in_turn(host, None);
                attempt.failed(&why, certain, session.as_ref().err());
                session
            }
        }
    }

    fn connect_in_turn(
        host: &Arc<Host>,
        dialed: Option<TcpStream>,
    ) -> std::result::Result<Self, Failure> {
        let probed = || host.facts(|facts| facts.pipelining.is_some());
        let before = probed();
        match Self::connect_once(host, dialed) {
            // The probe for pipelining was more than the server could take; it is not made again.
            Err(_) if !before && probed() => Self::connect_once(host, None),
            result => result,
        }
    }

    fn connect_once(
        host: &Arc<Host>,
        dialed: Option<TcpStream>,
    ) -> std::result::Result<Self, Failure> {
        host.may_log_in()?;
        let limit = host.options().timeout;
        let began = Instant::now();
        let mut opened = opening::open(host, host.next_number(), dialed, Deadline::after(limit))?;
        let deadline = Deadline::after(limit);
        let control = &mut opened.control;
        let usual = login::log_in(control, host, deadline)?;
        let logged_in = LoggedIn::new(host);
        if opened.unprotected && login::protects_data(host) {
            login::protect(control, host, deadline)?;
        }
        host.facts(|facts| {
            facts.banner = opened.greeting;
            facts.login_took = usual.then(|| began.elapsed());
        });
        let encrypted = opened.tls.is_some();
        if encrypted && !login::protects_data(host) {
            login::unprotect(control, host, deadline)?;
        }
        let mut control = opened.control;
        let secured = Secured::new(host, &control, opened.tls);
        if encrypted && host.options().clear_control {
            control = login::uncover(control, host, deadline)?;
        }
        let ready = login::set_up(&mut control, host, deadline)?;
        Ok(Self::new(host, control, secured, ready, logged_in))
    }

    /// One that is logged in and set up.
    pub(super) fn new(
        host: &Arc<Host>,
        control: Control,
        secured: Secured,
        ready: Ready,
        logged_in: LoggedIn,
    ) -> Self {
        let mut session = Self {
            control: Some(control),
            tls: secured.tls,
            tls13: secured.tls13,
            features: ready.features,
            home: ready.home,
            spent: false,
            logged_in: Some(logged_in),
            ..Self::gone(Arc::clone(host))
        };
        if let Some(asked) = ready.connection {
            session.has_asked(asked);
        }
        session
    }

    /// A session that is broken from the start: what is left where one was taken away.
    pub(super) fn gone(host: Arc<Host>) -> Self {
        Self {
            host,
            control: None,
            tls: None,
            tls13: false,
            features: Arc::default(),
            home: Vec::new(),
            ahead: Ahead::default(),
            in_a_row: InARow::default(),
            behind: Behind::default(),
            transferring: false,
            packed: false,
            packs_next: None,
            subject: None,
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
        self.batch_within(lines, self.host.options().timeout * 4)
    }

    /// As [`batch`](Self::batch), bounded by `limit`.
    pub(super) fn batch_within(
        &mut self,
        lines: &[Vec<u8>],
        limit: Duration,
    ) -> Result<Vec<Reply>> {
        let pipelined = self.host.facts(|facts| facts.pipelining == Some(true));
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let deadline = Deadline::after(limit);
        let replies = self.exchange(&lines, pipelined, deadline);
        if replies.is_err() && pipelined && self.answered > 0 && self.is_broken() {
            // It may have been the pipelining; then the next time works.
            self.host
                .facts(|facts| facts.doubt_pipelining(Instant::now()));
        }
        replies
    }

    /// As [`batch`](Self::batch), but gives `each` the replies as they come, which may have up to
    /// `limit` bytes; what is not sent yet when it has had enough is left out.
    pub(super) fn batch_each(
        &mut self,
        lines: &[Vec<u8>],
        limit: usize,
        each: &mut dyn FnMut(usize, Reply) -> More,
    ) -> Result<()> {
        let pipelined = self.is_pipelined();
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let deadline = Deadline::after(self.host.options().timeout * 4);
        self.talk(|control| {
            control.allow(limit);
            Ok(())
        })?;
        let asked = self.exchange_each(&lines, pipelined, deadline, each);
        if let Some(control) = &mut self.control {
            control.allow(0);
        }
        asked
    }

    fn exchange(
        &mut self,
        lines: &[&[u8]],
        pipelined: bool,
        deadline: Deadline,
    ) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(lines.len());
        self.exchange_each(lines, pipelined, deadline, &mut |_, reply| {
            replies.push(reply);
            More::Wanted
        })?;
        Ok(replies)
    }

    fn exchange_each(
        &mut self,
        lines: &[&[u8]],
        pipelined: bool,
        deadline: Deadline,
        each: &mut dyn FnMut(usize, Reply) -> More,
    ) -> Result<()> {
        lines.iter().try_for_each(|line| check(line))?;
        let sent = self.take_behind(lines);
        if sent == 0 {
            self.settle(self.is_pipelined())?;
        }
        let deadline = match sent {
            0 => deadline,
            _ => deadline.at_most(behind::PATIENCE),
        };
        let host = Arc::clone(&self.host);
        let mut answered = 0;
        let done = self.talk(|control| {
            control.exchange_each(lines, sent, pipelined, deadline, &mut |at, reply| {
                match reply.code() {
                    _ if reply.is_farewell() => return Err(refusal(&host.options().host, &reply)),
                    // What it did not read of the line it may answer once more.
                    _ if refuses_length(&reply) => {
                        answered += 1;
                        return Err(too_long(&host, &reply));
                    }
                    // The end of a transfer, which no command here began: some servers tell it twice.
                    225 | 226 | 426 => {
                        host.facts(|facts| facts.read_behind = Some(false));
                        return Err(Error::new(
                            ErrorKind::Disconnected,
                            format!("{}: out of step: {}", host.options().host, reply.text()),
                        ));
                    }
                    _ => {}
                }
                answered += 1;
                Ok(each(at, reply))
            })
        });
        self.answered += answered;
        match done {
            Err(err) if sent > 0 => Err(self.behind_failed(&err)),
            done => done,
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
        self.control.is_some()
            && !self.transferring
            && !self.spent
            && !self.behind.is_due()
            && self.in_a_row.asked.is_none()
    }

    /// Whether nothing came while it was idle: no farewell, no hang-up.
    pub(super) fn is_alive(&mut self) -> bool {
        let deadline = Deadline::after(LATE_LIMIT.min(self.host.options().timeout));
        let collected = self.talk(|control| control.collect_what_came(deadline));
        collected.is_ok()
            && self
                .control
                .as_mut()
                .is_some_and(|control| control.owes() || control.is_at_rest())
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
    pub(super) fn talk<T>(&mut self, work: impl FnOnce(&mut Control) -> Result<T>) -> Result<T> {
        let Some(control) = &mut self.control else {
            return Err(self.lost());
        };
        let result = work(control);
        let odd = control.is_odd();
        result.map_err(|error| {
            if odd {
                self.host.facts(|facts| facts.read_behind = Some(false));
            }
            self.break_off(error)
        })
    }

    /// Whether commands may be sent while earlier replies are due.
    pub(super) fn is_pipelined(&self) -> bool {
        self.host.facts(|facts| facts.pipelining == Some(true))
    }

    /// Makes sure that the next reply will be the next command's; if `ahead`, after those that are
    /// due.
    pub(super) fn settle(&mut self, ahead: bool) -> Result<()> {
        if self.transferring {
            return Err(Error::new(
                ErrorKind::Protocol,
                "a transfer is under way on this session",
            ));
        }
        self.leave_behind();
        let host = Arc::clone(&self.host);
        self.talk(|control| {
            if control.owes() {
                if ahead {
                    return Ok(());
                }
                control.collect(Deadline::after(host.options().timeout))?;
            }
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

    pub(super) fn break_off(&mut self, error: Error) -> Error {
        if self.control.is_some() {
            TRAFFIC.lost.count();
        }
        self.hang_up();
        error
    }

    pub(super) fn hang_up(&mut self) {
        self.lost_in_a_row();
        self.control = None;
        self.logged_in = None;
    }

    fn lost(&self) -> Error {
        Error::new(
            ErrorKind::Disconnected,
            format!("{}: the connection is lost", self.host.options().host),
        )
    }
}

/// "500 Command too long.", "500 Input line too long."
pub(super) fn refuses_length(reply: &Reply) -> bool {
    if reply.code() != 500 {
        return false;
    }
    let text = String::from_utf8_lossy(reply.first_line()).to_ascii_lowercase();
    text.contains("command too long") || text.contains("line too long")
}

/// The error of a line that the server has not read to its end.
pub(super) fn too_long(host: &Host, reply: &Reply) -> Error {
    let detail = format!("{}: {}", host.options().host, reply.text());
    Error::new(ErrorKind::NameTooLong, detail)
}

/// CR, LF and NUL would end the command or cut it short; what no server reads whole, some never
/// answer.
pub(super) fn check(line: &[u8]) -> Result<()> {
    if line.len() > LONGEST_LINE {
        let detail = "the path is too long for a command to an FTP server";
        return Err(Error::new(ErrorKind::NameTooLong, detail));
    }

    if line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(Error::new(
            ErrorKind::Invalid,
            "line breaks and NUL cannot be sent to an FTP server",
        ));
    }
    Ok(())
}

/// How a session's data connections are encrypted.
#[derive(Debug)]
pub(super) struct Secured {
    tls: Option<Arc<TlsIdentity>>,
    tls13: bool,
}

impl Secured {
    /// For a session whose `control` connection is encrypted by `tls`, or not. The host's facts tell
    /// of it from now on.
    pub(super) fn new(host: &Host, control: &Control, tls: Option<Arc<TlsIdentity>>) -> Self {
        if let Some(tls) = &tls {
            let version = control.tls_version();
            let shown = tls.shown();
            host.facts(|facts| {
                facts.tls_version = version;
                // A resumed session shows none.
                facts.certificate = shown.or(facts.certificate.take());
            });
        }
        Self {
            tls: tls.filter(|_| login::protects_data(host)),
            tls13: control.is_tls13(),
        }
    }
}

/// Counts a session among those that are logged in, for as long as it lives.
#[derive(Debug)]
pub(super) struct LoggedIn(Arc<Host>);

impl LoggedIn {
    pub(super) fn new(host: &Arc<Host>) -> Self {
        TRAFFIC.connections.count();
        host.facts(|facts| facts.sessions += 1);
        Self(Arc::clone(host))
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        self.0.facts(|facts| facts.sessions -= 1);
    }
}
