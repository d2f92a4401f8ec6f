//! The login of all sessions but the first: what that one was asked in turn, in one write.
//!
//! A session costs seven round trips to its first byte: connection, greeting, USER, PASS, settings,
//! EPSV, data connection. Once one was logged in, and the server found to take commands ahead of its
//! replies, nothing of what a later one says depends on an answer. So all of it goes out right behind
//! the connection, over TLS right behind the handshake, and four round trips are left.
//!
//! RFC 959 section 5.4 has the greeting come first, and a server may throw away what came before it,
//! or what came with a password. So one session tries, and the others wait a little for the outcome,
//! or log in as ever until it is known. Every reply is checked in its order. At the first that is odd
//! the host is not spoken to so any more, and the session is made anew.
//!
//! The password goes to a server only that has taken it before, and is not sent again when it is
//! refused.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::ahead::Asked;
use super::control::{Channel, Control};
use super::features::Features;
use super::host::Host;
use super::login::{self, Ready};
use super::opening::{self, Failure};
use super::options::TlsMode;
use super::reply::Reply;
use super::session::{LoggedIn, Secured, Session};
use super::tls::TlsStream;
use crate::net::trust::TlsIdentity;
use crate::net::{self, Deadline};
use crate::vfs::error::{Error, ErrorKind};

const CONNECTION: &str = "EPSV";

/// Longest write: it fits into one packet, so that no line comes in two.
const MOST: usize = 1024;

/// How long the first that tries is waited for, at least; else twice as long as the first login took.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// How long the others wait until it has ended, at most, their connections made: to log in in turn takes
/// longer than what is left of it.
const AWAITED: Duration = Duration::from_millis(500);

/// So many connections lost one after the other are taken for the haste's fault.
const MOST_LOST: u8 = 3;

/// What is known of a host that is logged in to at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum AtOnce {
    #[default]
    Untried,
    /// A session tries.
    Trying,
    Works {
        /// Connections lost at it since one was not.
        lost: u8,
    },
    GivenUp,
}

impl AtOnce {
    /// For people.
    pub(super) const fn works(self) -> Option<bool> {
        match self {
            Self::Untried | Self::Trying => None,
            Self::Works { .. } => Some(true),
            Self::GivenUp => Some(false),
        }
    }
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Trouble {
    /// As there would be none otherwise.
    Failed(Failure),
    /// The haste may be to blame; if `certain`, the server's words show it.
    Odd { why: Error, certain: bool },
    /// The session that tries has not ended in time, or has failed. The connection is as it was made.
    Unproven(TcpStream),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

/// What a reply must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    User,
    Pass,
    /// The server may refuse it.
    Wish,
    Setting,
    Connection,
}

/// One login, until this is dropped.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    host: &'a Arc<Host>,
    lines: Vec<(Asks, String)>,
    features: Arc<Features>,
    home: Vec<u8>,
    arranges: bool,
    /// It is the one that tries.
    tries: bool,
    /// Until when it waits for the one that does.
    waits: Option<Deadline>,
    patience: Duration,
}

/// A login that may be sent at once; with `arranges`, a data connection is asked for with it, where
/// that may be.
pub(super) fn attempt(host: &Arc<Host>, arranges: bool) -> Option<Attempt<'_>> {
    let options = host.options();
    let (features, home, took) = host.facts(|facts| {
        let known = facts.pipelining == Some(true) && facts.logged_in;
        let known = known.then_some((facts.features.clone()?, facts.home.clone()?));
        let (features, home) = known?;
        Some((features, home, facts.login_took?))
    })?;
    if options.clear_control {
        return None;
    }
    let mut lines = vec![
        (Asks::User, login::line("USER", &options.user).ok()?),
        (
            Asks::Pass,
            login::line("PASS", options.password.reveal()).ok()?,
        ),
    ];
    if host.facts(|facts| facts.tls) == Some(true) {
        let level = if login::protects_data(host) {
            "PROT P"
        } else {
            "PROT C"
        };
        lines.push((Asks::Setting, "PBSZ 0".into()));
        lines.push((Asks::Setting, level.into()));
    }
    let mut settings = login::settings(host, &features);
    let last = settings.pop();
    lines.extend(settings.into_iter().map(|line| (Asks::Wish, line)));
    lines.extend(last.map(|line| (Asks::Setting, line)));
    let len: usize = lines.iter().map(|(_, line)| line.len() + 2).sum();
    if len + CONNECTION.len() + 2 > MOST {
        return None;
    }
    let (tries, waits) = host.facts(|facts| match facts.at_once {
        AtOnce::Works { .. } => Some((false, false)),
        AtOnce::Untried => {
            facts.at_once = AtOnce::Trying;
            Some((true, false))
        }
        AtOnce::Trying => Some((false, true)),
        AtOnce::GivenUp => None,
    })?;
    Some(Attempt {
        host,
        lines,
        features,
        home,
        arranges,
        tries,
        waits: waits.then(|| Deadline::after(took.min(AWAITED))),
        patience: if tries {
            (2 * took).max(LEAST_PATIENCE)
        } else {
            options.timeout
        },
    })
}

impl Attempt<'_> {
    /// Connects and logs in.
    pub(super) fn connect(&mut self) -> std::result::Result<Session, Trouble> {
        let options = self.host.options();
        let deadline = Deadline::after(options.timeout);
        let tcp = opening::dial(self.host, deadline)?;
        if !self.is_proven() {
            return Err(Trouble::Unproven(tcp));
        }
        let deadline = deadline.at_most(self.patience);
        let mut control = Control::new(Channel::Plain(tcp), self.host.next_number(), &options.host);
        let secured = self.host.facts(|facts| facts.tls) == Some(true);
        let mut tls = None;
        let greeting = match options.tls {
            TlsMode::Implicit => {
                (control, tls) = self.secure(control, deadline)?;
                self.send(&mut control)?;
                self.greeting(&mut control, deadline)?
            }
            TlsMode::Explicit | TlsMode::Auto if secured => {
                control.send(&[b"AUTH TLS"]).map_err(lost)?;
                let greeting = self.greeting(&mut control, deadline)?;
                let reply = control.final_reply(deadline).map_err(lost)?;
                if reply.code() != 234 {
                    return Err(self.odd("AUTH", &reply));
                }
                (control, tls) = self.secure(control, deadline)?;
                self.send(&mut control)?;
                greeting
            }
            TlsMode::Explicit => return Err(Error::from(ErrorKind::Untrusted).into()),
            TlsMode::Auto | TlsMode::Off => {
                self.send(&mut control)?;
                self.greeting(&mut control, deadline)?
            }
        };
        let connection = self.hear(&mut control, deadline)?;
        self.host.facts(|facts| facts.banner = greeting);
        let logged_in = LoggedIn::new(self.host);
        let secured = Secured::new(self.host, &control, tls);
        let connection = connection.map(|reply| Asked::for_reply(self.host, &control, &reply));
        let ready = Ready {
            features: Arc::clone(&self.features),
            home: self.home.clone(),
            connection,
        };
        Ok(Session::new(self.host, control, secured, ready, logged_in))
    }

    /// Waits for the one that tries, if there is one. The connection is made meanwhile.
    fn is_proven(&self) -> bool {
        let Some(until) = self.waits else {
            return true;
        };
        let state = || self.host.facts(|facts| facts.at_once);
        let left = until.left().unwrap_or_default();
        let tried = || state() != AtOnce::Trying;
        self.host.at_once_tried.wait_until(left, tried);
        state().works() == Some(true)
    }

    fn send(&mut self, control: &mut Control) -> std::result::Result<(), Trouble> {
        // Whether EPSV works may have shown while this connection was made.
        if self.arranges && self.host.may_arrange_ahead(&self.features) {
            self.lines.push((Asks::Connection, CONNECTION.into()));
        }
        login::conceal(control, self.host.options());
        let lines: Vec<_> = self.lines.iter().map(|(_, line)| line.as_bytes()).collect();
        control.send(&lines).map_err(lost)
    }

    fn secure(
        &self,
        control: Control,
        deadline: Deadline,
    ) -> std::result::Result<(Control, Option<Arc<TlsIdentity>>), Trouble> {
        let options = self.host.options();
        let identity = self.host.tls_identity()?;
        let limit = deadline
            .left()
            .map_err(|err| net::failure(&options.host, &err));
        let limit = limit.map_err(lost)?.min(options.timeout);
        // Whatever was said in clear text behind the reply would count as said over TLS.
        let (tcp, number) = control.into_tcp().map_err(lost)?;
        let stream = TlsStream::connect(&identity, tcp, limit).map_err(|err| {
            let error = identity.failure(&err);
            match error.kind() {
                ErrorKind::Disconnected | ErrorKind::TimedOut => lost(error),
                _ => error.into(),
            }
        })?;
        identity.confirm()?;
        let control = Control::new(Channel::Tls(Box::new(stream)), number, &options.host);
        Ok((control, Some(identity)))
    }

    fn greeting(
        &self,
        control: &mut Control,
        deadline: Deadline,
    ) -> std::result::Result<Option<String>, Trouble> {
        let greeting = control.final_reply(deadline).map_err(lost)?;
        if greeting.code() != 220 {
            let kind = ErrorKind::Disconnected;
            return Err(Failure::refused(&self.host.options().host, kind, &greeting).into());
        }
        Ok(opening::headline(&greeting))
    }

    /// The replies to all lines; that about the data connection, if one was asked for.
    fn hear(
        &self,
        control: &mut Control,
        deadline: Deadline,
    ) -> std::result::Result<Option<Reply>, Trouble> {
        let mut connection = None;
        for (asks, line) in &self.lines {
            let reply = control.final_reply(deadline).map_err(lost)?;
            let good = match asks {
                Asks::User => reply.code() == 331,
                Asks::Pass | Asks::Setting => reply.is_ok(),
                Asks::Wish | Asks::Connection => !reply.is_farewell(),
            };
            // 50x: the server has not understood, or not heard, what came before.
            let refused = matches!(reply.code(), 400..=499 | 505..);
            match asks {
                Asks::User | Asks::Pass if !good && refused => {
                    let words = control.concealed(reply.text());
                    return Err(login::refused(self.host, &reply, &words).into());
                }
                Asks::Connection if good => connection = Some(reply),
                _ if good => {}
                _ => {
                    let verb = line.split(' ').next().unwrap_or_default();
                    return Err(self.odd(verb, &reply));
                }
            }
        }
        if self.tries && !control.is_at_rest() {
            let reply = control.receive(deadline).map_err(lost)?;
            return Err(self.odd("nothing", &reply));
        }
        Ok(connection)
    }

    fn odd(&self, verb: &str, reply: &Reply) -> Trouble {
        let host = &self.host.options().host;
        Trouble::Odd {
            why: Error::new(
                ErrorKind::Disconnected,
                format!("{host}: {verb} was answered with {}", reply.code()),
            ),
            certain: !reply.is_farewell(),
        }
    }

    /// There is a session.
    pub(super) fn worked(&self) {
        let first = self.host.facts(|facts| {
            let before = std::mem::replace(&mut facts.at_once, AtOnce::Works { lost: 0 });
            !matches!(before, AtOnce::Works { .. })
        });
        if first {
            log::debug!("{}: logins are sent at once", self.host.options().host);
        }
    }

    /// There is none, for this reason: the haste, if that is `certain`. Step by step there is one, or
    /// `not`.
    pub(super) fn failed(&self, why: &Error, certain: bool, not: Option<&Failure>) {
        // Where that fails as well it was not the haste, but a server with room for one more would
        // fail so each time.
        let blame = certain || not.is_none_or(|failure| failure.crowded);
        let given_up = self.host.facts(|facts| {
            let before = facts.at_once;
            facts.at_once = match before {
                AtOnce::Works { lost } if !certain && lost + u8::from(blame) < MOST_LOST => {
                    AtOnce::Works {
                        lost: lost + u8::from(blame),
                    }
                }
                AtOnce::Trying if self.tries && !blame => AtOnce::Untried,
                _ => AtOnce::GivenUp,
            };
            before != facts.at_once && facts.at_once == AtOnce::GivenUp
        });
        if given_up {
            log::info!("{why}; logins are not sent at once any more");
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.tries {
            return;
        }
        self.host.facts(|facts| {
            if facts.at_once == AtOnce::Trying {
                facts.at_once = AtOnce::Untried;
            }
        });
        self.host.at_once_tried.ring();
    }
}

/// The connection is lost, or silent.
const fn lost(why: Error) -> Trouble {
    Trouble::Odd {
        why,
        certain: false,
    }
}
