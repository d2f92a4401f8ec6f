//! What is known of the server for the whole life of the mount, shared by all sessions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::at_once::AtOnce;
use super::features::Features;
use super::mode::Packing;
use super::options::{DataMode, FtpOptions};
use super::reply::Reply;
use super::round_trip::RoundTrips;
use super::together::Proof;
use crate::net::trust::{Shown, TlsIdentity, Trust};
use crate::sync::{Bell, Locked};
use crate::vfs::error::{Error, Result};

/// How long a login that worked before is not tried again after a refusal.
const LOGIN_PAUSE: Duration = Duration::from_secs(60);

/// How long commands wait for each other after a connection broke among some that did not: twice as
/// long each time.
const IN_TURN: Duration = Duration::from_secs(60);

/// A round trip that takes so long.
const FAR: Duration = Duration::from_millis(5);

/// How often that time is doubled at most.
const DOUBLINGS: u32 = 5;

/// One server: the options it is reached with and what sessions learned about it.
#[derive(Debug)]
pub struct Host {
    options: FtpOptions,
    facts: Locked<Facts>,
    trips: Locked<RoundTrips>,
    /// Rings when a login at once is no trial any more.
    pub(super) at_once_tried: Bell,
    trust: OnceLock<Arc<Trust>>,
    opened: AtomicU64,
}

/// What was learned. `None`: not yet known. Any session may write here; all others profit.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The address that worked, kept so that a name with many addresses stays one server.
    pub address: Option<SocketAddr>,
    /// It is one of this machine's own.
    pub on_this_machine: bool,
    /// EPSV works and reaches us.
    pub epsv: Option<bool>,
    /// The next data connection may be asked for before it is needed; `Some(false)` since that went
    /// wrong.
    pub arranged_ahead: Option<bool>,
    /// EPSV may follow a listing before its end is told; `Some(false)` since that went wrong.
    pub(super) asked_behind: Option<bool>,
    /// EPSV may go out with a listing.
    pub(super) together: Proof,
    /// Our side of a listing's data connection may be closed before it is read, to some use.
    pub(super) closes_early: Proof,
    /// A transfer that is given up has one last word, at once; `Some(false)` since it had another.
    pub gives_up_in_step: Option<bool>,
    /// Nothing may be said of such a one: what is answered next is what is asked next (Pure-FTPd).
    pub gives_up_silently: bool,
    /// When a download was last given up.
    pub(super) given_up: Option<Instant>,
    /// EPSV is answered without a PRET before it, though the server has that (Pure-FTPd);
    /// `Some(false)`: it is not (drftpd).
    pub(super) no_pret: Option<bool>,
    /// EPRT is understood.
    pub eprt: Option<bool>,
    /// Transfers begin without the 1xx of RFC 959 section 5.4.
    pub unannounced: Option<bool>,
    /// Several commands may be sent before the first is answered.
    pub pipelining: Option<bool>,
    /// When a connection last broke among such commands, and how often one did.
    pipelining_broke: Option<(Instant, u32)>,
    /// TLS 1.3 sessions run out of tickets on this server; TLS 1.2 only.
    pub tls12_only: bool,
    /// Whether this server speaks TLS; once it did, clear text is never used again.
    pub tls: Option<bool>,
    /// The version of TLS and the cipher of the last control connection.
    pub tls_version: Option<&'static str>,
    /// Whether the last data connection resumed the session.
    pub data_resumed: Option<bool>,
    /// The server's certificate.
    pub certificate: Option<Shown>,
    /// Data connections over TLS end with close_notify; one that does not was cut.
    pub says_goodbye: bool,
    /// Sessions that are logged in now.
    pub sessions: usize,
    /// Whether a login ever worked.
    pub logged_in: bool,
    /// What the last login that was USER and PASS and no more took, from the connection on.
    pub(super) login_took: Option<Duration>,
    /// Whether later logins are sent at once.
    pub(super) at_once: AtOnce,
    /// When and how the login was last refused.
    login_refused: Option<(Instant, Error)>,
    /// The reply at the end of a download may be read later; `Some(false)` since that went wrong.
    pub read_behind: Option<bool>,
    /// Whether transfers are packed.
    pub(super) packing: Packing,
    /// The port active mode tries next.
    pub active_port: u16,
    /// FEAT, asked by the first session.
    pub features: Option<Arc<Features>>,
    /// The login directory in the server's bytes (PWD), asked by the first session.
    pub(super) home: Option<Vec<u8>>,
    /// What MLST said of the mount's directory at the first login, until that is asked for.
    pub(super) root_told: Option<(Instant, Reply)>,
    /// Text of SYST.
    pub system: Option<String>,
    /// First line of the greeting.
    pub banner: Option<String>,
}

impl Facts {
    /// A connection broke among commands that were sent before earlier ones were answered. It may
    /// have been that, or it would have broken anyway.
    pub(super) fn doubt_pipelining(&mut self, now: Instant) {
        let before = self.pipelining_broke.map_or(0, |(_, times)| times);
        self.pipelining_broke = Some((now, before + 1));
        self.pipelining = Some(false);
    }

    /// What was only doubted is tried again after a while.
    fn regain_pipelining(&mut self, now: Instant) {
        if let Some((at, times)) = self.pipelining_broke
            && self.pipelining == Some(false)
            && now.saturating_duration_since(at) > IN_TURN * (1 << (times - 1).min(DOUBLINGS))
        {
            self.pipelining = Some(true);
        }
    }
}

impl Host {
    /// Nothing learned yet.
    #[must_use]
    pub fn new(options: FtpOptions) -> Self {
        Self {
            options,
            facts: Locked::default(),
            trips: Locked::default(),
            at_once_tried: Bell::default(),
            trust: OnceLock::new(),
            opened: AtomicU64::new(0),
        }
    }

    /// How the server is reached.
    #[must_use]
    pub const fn options(&self) -> &FtpOptions {
        &self.options
    }

    /// Reads or changes what was learned. A leaf lock: no I/O, no other lock within.
    pub fn facts<R>(&self, work: impl FnOnce(&mut Facts) -> R) -> R {
        self.facts.with(work)
    }

    /// A connection to the server was begun at `began`, and is made.
    pub(super) fn connected(&self, began: Instant) {
        let took = began.elapsed();
        self.trips.with(|trips| trips.add(took, Instant::now()));
    }

    /// The shortest round trip to the server of late; none if that is not known.
    pub(super) fn round_trip(&self) -> Duration {
        self.trips
            .with(|trips| trips.shortest().unwrap_or_default())
    }

    /// Whether round trips to the server are what most things wait for.
    pub(super) fn is_far(&self) -> bool {
        self.round_trip() >= FAR
    }

    /// Whether the link to the server seems to have as much on it as it carries.
    pub(super) fn is_link_full(&self) -> bool {
        self.trips.with(|trips| trips.queue_up(Instant::now()))
    }

    /// Whether the next data connection may be asked for before it is needed.
    pub(super) fn may_arrange_ahead(&self, features: &Features) -> bool {
        self.may_try_ahead(features) && self.facts(|facts| facts.epsv == Some(true))
    }

    /// The same, where it is not known whether EPSV works at all.
    pub(super) fn may_try_ahead(&self, features: &Features) -> bool {
        self.asks_by_epsv()
            && !self.needs_pret(features)
            && self.facts(|facts| facts.pipelining == Some(true))
    }

    /// The same, where nothing is known of the server.
    pub(super) fn asks_by_epsv(&self) -> bool {
        matches!(self.options.data, DataMode::Passive)
            && self.options.proxy.is_none()
            && self.facts(|facts| facts.epsv != Some(false) && facts.arranged_ahead != Some(false))
    }

    /// Whether the server must be told what for before it names the address of data, as a
    /// distributed one must (drftpd).
    pub(super) fn needs_pret(&self, features: &Features) -> bool {
        features.has("PRET") && self.facts(|facts| facts.no_pret != Some(true))
    }

    /// A session is wanted: what was doubted long ago may be tried again.
    pub(super) fn try_again(&self) {
        self.facts(|facts| facts.regain_pipelining(Instant::now()));
    }

    /// The number of the next connection, for the log.
    pub(super) fn next_number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A TLS configuration for a new session.
    pub(super) fn tls_identity(&self) -> Result<Arc<TlsIdentity>> {
        let trust = match self.trust.get() {
            Some(trust) => trust,
            None => {
                let loaded = Arc::new(Trust::load(&self.options.trust)?);
                self.trust.get_or_init(|| loaded)
            }
        };
        let tls12_only = self.facts(|facts| facts.tls12_only);
        let FtpOptions { host, port, .. } = &self.options;
        trust.identity(host, *port, tls12_only).map(Arc::new)
    }

    /// Takes note of a refused login.
    pub(super) fn refuse_login(&self, error: Error) {
        self.facts(|facts| facts.login_refused = Some((Instant::now(), error)));
    }

    /// Why no login may be tried: a wrong password is not sent twice, since servers lock accounts
    /// and addresses for that.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn may_log_in(&self) -> Result<()> {
        self.facts(|facts| match &facts.login_refused {
            Some((at, error)) if !facts.logged_in || at.elapsed() < LOGIN_PAUSE => {
                Err(error.clone())
            }
            _ => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_broke_does_not_cost_pipelining_for_good() {
        let mut facts = Facts {
            pipelining: Some(true),
            ..Facts::default()
        };
        let begin = Instant::now();
        for (times, wait) in [(1, 60), (2, 120), (3, 240)] {
            facts.doubt_pipelining(begin);
            for (after, on) in [(wait - 1, false), (wait + 1, true)] {
                facts.regain_pipelining(begin + Duration::from_secs(after));
                assert_eq!(facts.pipelining, Some(on), "{times} times, {after} s");
            }
        }
        // What the login found out is no doubt.
        let mut facts = Facts {
            pipelining: Some(false),
            ..Facts::default()
        };
        facts.regain_pipelining(begin + Duration::from_secs(100_000));
        assert_eq!(facts.pipelining, Some(false));
    }
}
