//! What `ferryfs status` and `ferryfs doctor` tell of a server.

use serde::Serialize;

use super::options::Protection;
use super::pool;
use super::server::FtpServer;
use crate::net::trust::Basis;

/// A server as it was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// First line of its greeting, where it gives its software.
    pub banner: Option<String>,
    /// Reply to SYST.
    pub system: Option<String>,
    /// Lines of FEAT.
    pub features: Vec<String>,
    /// Its connections.
    pub connections: pool::Report,
    /// Whether commands are sent ahead of replies; `None`: not tried.
    pub pipelining: Option<bool>,
    /// Whether the connections are encrypted.
    pub tls: Option<bool>,
    /// Its version.
    pub tls_version: Option<&'static str>,
    /// The server's certificate.
    pub certificate: Option<Certificate>,
    /// What is in clear text at the user's wish.
    pub in_clear: Option<&'static str>,
    /// The command that lists directories, as far as known.
    pub listing: Option<&'static str>,
    /// The command that sets modification times.
    pub set_time: Option<&'static str>,
    /// Seconds that LIST times are ahead of UTC: given, or measured.
    pub time_offset: Option<i64>,
    /// What is done to save round trips, and whether it works here.
    pub savings: Vec<Saving>,
    /// Whether contents and listings are packed on their way (MODE Z): `off`, `not offered`, `when
    /// slow`, `not over TLS`, `on`, `refused`.
    pub packing: &'static str,
    /// What is odd about it, in sentences for people.
    pub quirks: Vec<String>,
}

/// One way to save round trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Saving {
    /// What is done.
    pub name: &'static str,
    /// Whether this server is up to it; `None`: not tried. Given up at the first oddity.
    pub works: Option<bool>,
}

/// A server's certificate.
#[derive(Debug, Clone, Serialize)]
pub struct Certificate {
    /// Its SHA-256.
    pub fingerprint: String,
    /// Why it is trusted.
    pub trusted: &'static str,
}

impl FtpServer {
    fn in_clear(&self) -> Option<&'static str> {
        let options = self.options();
        match (options.protection, options.clear_control) {
            (Protection::Private, false) => None,
            (Protection::Clear, false) => Some("data connections"),
            (Protection::Private, true) => Some("control connection after the login"),
            (Protection::Clear, true) => Some("everything after the login"),
        }
    }

    /// What is done to save round trips, and whether it works here; nothing is asked.
    pub(super) fn savings(&self) -> Vec<Saving> {
        let (pipelining, at_once, read_behind, ahead) = self.pool.host().facts(|facts| {
            let ahead = facts.arranged_ahead.or(facts.gives_up_in_step);
            let at_once = facts.at_once.works();
            (facts.pipelining, at_once, facts.read_behind, ahead)
        });
        // Where there is MLSD, it is not tried: the times of MLSD are better.
        let stat_listing = self.ways.with(|ways| ways.stat_listing);
        let saving = |name, works| Saving { name, works };
        vec![
            saving("commands sent ahead of replies", pipelining),
            saving("logins sent at once", at_once),
            saving("data connections made ahead", ahead),
            saving("226 read behind the reader", read_behind),
            saving("directories listed by STAT", stat_listing),
        ]
    }

    /// What is known now; nothing is asked.
    pub(super) fn report(&self) -> Report {
        let facts = self.pool.host().facts(|facts| facts.clone());
        let ways = self.ways.with(|ways| ways.clone());
        let mut quirks = ways.quirks();
        if facts.no_pret == Some(false) {
            quirks.push("wants to be told what a data connection is for (PRET)".to_owned());
        }
        Report {
            banner: facts.banner,
            system: facts.system,
            features: facts
                .features
                .map(|f| f.lines().to_vec())
                .unwrap_or_default(),
            connections: self.pool.report(),
            pipelining: facts.pipelining,
            tls: facts.tls,
            tls_version: facts.tls_version,
            certificate: facts.certificate.map(|shown| Certificate {
                fingerprint: shown.fingerprint.to_string(),
                trusted: shown.basis.map_or("no", Basis::words),
            }),
            in_clear: facts.tls.filter(|tls| *tls).and_then(|_| self.in_clear()),
            listing: ways.listing.map(super::list_command::verb),
            set_time: ways.set_time.flatten().map(super::ways::TimeCommand::name),
            time_offset: self.options().time_offset.or(ways.time_offset),
            savings: self.savings(),
            packing: self.pool.host().packs_in_words(),
            quirks,
        }
    }
}
