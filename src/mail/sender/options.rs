//! What the command line says of sending, already checked.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::mail::connect::{Endpoint, Security};
use crate::mail::fetch::SecretSource;
use crate::mail::mx::Resolver;
use crate::mail::sasl::Mechanism;
use crate::mail::smtp::Terms;
use crate::net::trust::TlsOptions;

/// Where mail goes.
#[derive(Debug, Clone)]
pub enum Route {
    /// All of it to one server.
    Relay(Relay),
    /// To each domain's own servers.
    Mx(MxRoute),
}

/// A server that takes our mail for everybody.
#[derive(Clone)]
pub struct Relay {
    /// The server.
    pub endpoint: Endpoint,
    /// User and how to get the password; `None`: no login.
    pub login: Option<(String, SecretSource)>,
    /// The secret is an OAuth token.
    pub is_token: bool,
    /// How to log in; `None` for the best that is offered.
    pub mechanism: Option<Mechanism>,
}

impl Relay {
    /// Without a login.
    #[must_use]
    pub const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            login: None,
            is_token: false,
            mechanism: None,
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("endpoint", &self.endpoint)
            .field("user", &self.login.as_ref().map(|(user, _)| user))
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// How servers of domains are found and reached.
#[derive(Debug, Clone)]
pub struct MxRoute {
    /// Who knows them.
    pub resolver: Resolver,
    /// 25.
    pub port: u16,
    /// `Upgrade`: encrypted where the server can be verified, in clear text else, as between
    /// servers everywhere. `Off`: never.
    pub security: Security,
    /// Which certificates are trusted.
    pub trust: Box<TlsOptions>,
    /// Time limit of connecting.
    pub timeout: Duration,
    /// Local address to connect from.
    pub bind: Option<IpAddr>,
}

/// Everything mail is sent with.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// Where to.
    pub route: Route,
    /// Our name, time limits, pipelining.
    pub terms: Terms,
    /// Connections at once; the second one helps when a message keeps the first one busy.
    pub connections: usize,
    /// Messages made ready together, at the price of one fsync. After a power failure so many may
    /// be in doubt at most.
    pub batch: usize,
    /// Messages over one connection.
    pub per_connection: usize,
    /// An idle connection is kept so long.
    pub idle: Duration,
    /// First pause after trouble with the relay; doubled up to a quarter of an hour.
    pub pause: Duration,
    /// Pause after a refused password or certificate; servers lock accounts.
    pub account_pause: Duration,
}

impl SendOptions {
    /// The usual, with our `name` in EHLO.
    #[must_use]
    pub fn new(route: Route, name: impl Into<String>) -> Self {
        Self {
            route,
            terms: Terms::new(name),
            connections: 2,
            batch: 50,
            per_connection: 100,
            idle: Duration::from_secs(5),
            pause: Duration::from_secs(30),
            account_pause: Duration::from_secs(600),
        }
    }
}
