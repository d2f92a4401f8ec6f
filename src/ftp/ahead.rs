//! Many small files, one after the other, at the least round trips.
//!
//! One costs EPSV, a connection, STOR, its end, and the commands that dress and name it: five round
//! trips, and one more on servers that wait for the end of the data connection. When many are
//! stored,
//!
//! * EPSV goes with the last commands of the file before;
//! * two sessions take turns, so that the connection is made while the other one works;
//! * STOR is not waited for where others beside it were just taken: the content follows at once.
//!
//! Two round trips are left, or three.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use super::host::Host;
use super::options::DataMode;
use super::pool::{Pool, Purpose};
use super::rendezvous::epsv_port;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::ways::NewName;
use crate::net;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// A file stored so soon after another is one of many.
const RUN: Duration = Duration::from_secs(3);

/// How long a second session is not made ready again.
const READY: Duration = Duration::from_secs(10);

/// Who asks so long after the last one is the first of others, most probably.
const PAUSE: Duration = Duration::from_secs(60);

/// A connection unused for so long may have been forgotten by the server or a firewall.
const FRESH: Duration = Duration::from_secs(15);

/// A data connection that was asked for: it is being made since then, if it could be begun.
#[derive(Debug)]
pub(super) struct Asked(Option<(TcpStream, Instant)>);

impl Asked {
    /// Begins to make the connection that `reply` to EPSV on `control` offers.
    pub(super) fn for_reply(host: &Host, control: &Control, reply: &Reply) -> Self {
        let begin = || {
            let port = epsv_port(reply)?;
            let address = SocketAddr::new(control.peer_ip().ok()?, port);
            let options = host.options();
            let begun = net::begin_connect(address, options.bind, options.timeout);
            begun.ok().map(|stream| (stream, Instant::now()))
        };
        Self(begin())
    }
}

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// A data connection that is made, or nearly, and since when.
    connection: Option<(TcpStream, Instant)>,
    /// When the last file was stored.
    stored: Option<Instant>,
    /// The last one had to be waited for.
    slow: bool,
}

impl FtpServer {
    /// See [`Transfers::surely_stores`](crate::vfs::backend::Transfers::surely_stores).
    pub(super) fn surely_stores(&self, path: &RemotePath) -> bool {
        let dir = path.parent();
        let just_now = self.stored.with(|stored| {
            let stored = stored.as_ref();
            stored.is_some_and(|(known, at)| dir.as_ref() == Some(known) && at.elapsed() < RUN)
        });
        let named = matches!(
            self.ways.with(|ways| ways.new_name),
            Some(NewName::Dotted | NewName::Tilde)
        );
        just_now && named && !self.is_careful() && self.pool.host().may_store_blindly()
    }

    /// A new content took its name at `at`.
    pub(super) fn has_stored(&self, at: &RemotePath) {
        let dir = at.parent().map(|dir| (dir, Instant::now()));
        self.stored.with(|stored| *stored = dir);
    }

    /// Makes another session ready for the store after the next. Never blocks.
    pub(super) fn second_session(self: &Arc<Self>) {
        let now = Instant::now();
        let due = self.readied.with(|at| {
            let due = at.is_none_or(|at| now.duration_since(at) > READY);
            due.then(|| *at = Some(now)).is_some()
        });
        if !due {
            return;
        }
        self.pool.ready_another(Purpose::Foresight);
    }
}

impl Pool {
    /// A session is lent. To the first who asks after a pause others will follow soon, and a login
    /// takes as long as several of their questions: another is made ready.
    pub(super) fn foresee(self: &Arc<Self>) {
        let now = Instant::now();
        let due = self.state.with(|state| {
            let before = state.lent.replace(now);
            let paused = before.is_none_or(|before| now.duration_since(before) > PAUSE);
            paused && state.open() == 1
        });
        if due && self.host().is_far() {
            self.ready_another(Purpose::Scan);
        }
    }

    /// Makes another session ready for a transfer. Never blocks.
    fn ready_another(self: &Arc<Self>, purpose: Purpose) {
        let pool = Arc::clone(self);
        let readying = std::thread::Builder::new().name("ftp-ready".into());
        let started = readying.spawn(move || {
            let lease = pool.lease(purpose, false);
            if let Err(err) = lease.and_then(|mut lease| lease.arrange_ahead()) {
                log::debug!("no second session: {err}");
            }
        });
        if let Err(err) = started {
            log::debug!("no second session: {err}");
        }
    }
}

impl Host {
    /// Whether what is known of the server allows a STOR that is not waited for.
    fn may_store_blindly(&self) -> bool {
        let options = self.options();
        matches!(options.data, DataMode::Passive)
            && options.proxy.is_none()
            && self.facts(|facts| {
                facts.pipelining == Some(true)
                    && facts.epsv == Some(true)
                    && facts.unannounced == Some(false)
                    && facts.tls != Some(true)
            })
    }
}

impl Session {
    /// As [`batch`](Self::batch), for the last commands of a file that is stored; if it is one of
    /// many, the next data connection is arranged with them.
    pub(super) fn batch_at_end(&mut self, lines: Vec<Vec<u8>>) -> Result<Vec<Reply>> {
        let now = Instant::now();
        let before = self.ahead.stored.replace(now);
        let one_of_many = before.is_some_and(|before| now.duration_since(before) < RUN);
        match one_of_many {
            true => self.batch_and_arrange(lines),
            false => self.batch(&lines),
        }
    }

    /// As [`batch`](Self::batch), for commands before a transfer: its data connection is arranged
    /// with them, where that may be.
    pub(super) fn batch_and_arrange(&mut self, mut lines: Vec<Vec<u8>>) -> Result<Vec<Reply>> {
        if self.has_ahead() || !self.may_arrange_ahead() {
            return self.batch(&lines);
        }
        lines.push(b"EPSV".to_vec());
        let mut replies = self.batch(&lines)?;
        self.connect_ahead(replies.pop());
        Ok(replies)
    }

    /// Asks for the next data connection.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub(super) fn arrange_ahead(&mut self) -> Result<()> {
        if !self.may_arrange_ahead() {
            return Ok(());
        }
        // Who wants it made ready does so for many transfers; the login may have brought it.
        self.ahead.stored = Some(Instant::now());
        if self.has_ahead() {
            return Ok(());
        }
        let reply = self.command(b"EPSV")?;
        self.connect_ahead(Some(reply));
        Ok(())
    }

    /// Begins to make the connection that `reply` to EPSV offers.
    pub(super) fn connect_ahead(&mut self, reply: Option<Reply>) {
        let asked = match (&self.control, reply) {
            (Some(control), Some(reply)) => Asked::for_reply(&self.host, control, &reply),
            _ => Asked(None),
        };
        self.has_asked(asked);
    }

    /// Keeps what was asked for.
    pub(super) fn has_asked(&mut self, asked: Asked) {
        self.ahead.connection = asked.0;
        if self.ahead.connection.is_none() {
            self.arrange_no_more("EPSV ahead was refused");
        }
    }

    /// Whether the last connection that was made ahead had to be waited for.
    pub(super) const fn is_slow_ahead(&self) -> bool {
        self.ahead.slow
    }

    /// Since when the next data connection is under way.
    pub(super) fn ahead_since(&self) -> Option<Instant> {
        self.ahead.connection.as_ref().map(|(_, since)| *since)
    }

    /// The connection that was prepared, if it still stands.
    pub(super) fn take_ahead(&mut self) -> Option<TcpStream> {
        let (stream, since) = self.ahead.connection.take()?;
        if since.elapsed() > FRESH {
            return None;
        }
        let proven = self.host().facts(|facts| facts.epsv);
        let limit = self.host().connect_limit(proven);
        let at_once = net::end_connect(&stream, Duration::ZERO);
        self.ahead.slow = matches!(&at_once, Err(err) if err.kind() == io::ErrorKind::TimedOut);
        let connected = match self.ahead.slow {
            true => net::end_connect(&stream, limit),
            false => at_once,
        };
        match connected {
            Ok(()) if matches!(net::has_hung_up(&stream), Ok(false)) => {
                self.host().facts(|facts| facts.epsv = Some(true));
                Some(stream)
            }
            ended => {
                log::debug!("a data connection made ahead: {ended:?}");
                // A server that went away has taken it along.
                if self.control.as_mut().is_some_and(Control::is_at_rest) {
                    match proven {
                        Some(_) => {
                            self.arrange_no_more("a data connection made ahead did not stand")
                        }
                        // A NAT box that does not understand EPSV opens no way for it.
                        None => self.host().facts(|facts| facts.epsv = Some(false)),
                    }
                }
                None
            }
        }
    }

    /// Whether the next transfer has its data connection.
    pub(super) const fn has_ahead(&self) -> bool {
        self.ahead.connection.is_some()
    }

    /// Data connections are made when they are needed from now on.
    pub(super) fn arrange_no_more(&self, why: &str) {
        let host = self.host();
        let before = host.facts(|facts| facts.arranged_ahead.replace(false));
        if before != Some(false) {
            log::info!("{}: {why}; not done any more", host.options().host);
        }
    }

    pub(super) fn may_arrange_ahead(&self) -> bool {
        self.host().may_arrange_ahead(self.features())
    }
}
