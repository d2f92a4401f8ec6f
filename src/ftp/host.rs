//! What is known of the server for the whole life of the mount, shared by all sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use super::features::Features;
use super::options::FtpOptions;
use crate::sync::Locked;

/// One server: the options it is reached with and what sessions learned about it.
#[derive(Debug)]
pub struct Host {
    options: FtpOptions,
    facts: Locked<Facts>,
}

/// What was learned. `None`: not yet known. Any session may write here; all others profit.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The address that worked, kept so that a name with many addresses stays one server.
    pub address: Option<SocketAddr>,
    /// EPSV works and reaches us.
    pub epsv: Option<bool>,
    /// EPRT is understood.
    pub eprt: Option<bool>,
    /// Several commands may be sent before the first is answered.
    pub pipelining: Option<bool>,
    /// TLS 1.3 sessions run out of tickets on this server; TLS 1.2 only.
    pub tls12_only: bool,
    /// Whether this server speaks TLS; once it did, clear text is never used again.
    pub tls: Option<bool>,
    /// FEAT, asked by the first session.
    pub features: Option<Arc<Features>>,
    /// Text of SYST.
    pub system: Option<String>,
    /// First line of the greeting.
    pub banner: Option<String>,
}

impl Host {
    /// Nothing learned yet.
    #[must_use]
    pub fn new(options: FtpOptions) -> Self {
        Self {
            options,
            facts: Locked::default(),
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
}
