//! The examination of a server, for `ferryfs doctor`: everything is really tried, with the commands
//! and the code that a mount uses, in a directory of its own that is removed again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::FtpBackend;
use super::intents::Intents;
use super::options::{FtpOptions, ListingMode, TlsMode};
use super::pool::Purpose;
use super::server::FtpServer;
use crate::finding::{Findings, Stop, Verdict};
use crate::net::certificate;
use crate::net::trust::Basis;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

mod commands;
mod files;
mod names;
mod scratch;
mod speed;

use scratch::Scratch;

/// Round trips that are measured.
const PINGS: usize = 5;

/// A certificate that ends sooner than this is worth a word.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Examines the server of `options`. What could not be tried is among the findings; so is why, where
/// the connection was lost on the way.
///
/// # Errors
/// The login's, and the directory's: then there is nothing to examine.
pub(super) fn examine(options: FtpOptions, stop: &Stop) -> Result<Findings> {
    let began = Instant::now();
    let server = FtpServer::connect(options, Intents::default())?;
    let mut examination = Examination {
        server: Arc::clone(&server),
        findings: Findings::default(),
        stop,
    };
    let login = began.elapsed();
    let outcome = examination.run(login);
    examination.sum_up();
    if let Err(err) = outcome {
        let why = if stop.is_asked_for() {
            "told to stop".to_owned()
        } else {
            err.to_string()
        };
        examination
            .findings
            .add("end", "examination complete", Verdict::No, why);
    }
    server.close();
    Ok(examination.findings)
}

/// One examination under way.
struct Examination<'a> {
    server: Arc<FtpServer>,
    findings: Findings,
    stop: &'a Stop,
}

impl Examination<'_> {
    fn run(&mut self, login: Duration) -> Result<()> {
        self.identity(login)?;
        self.tls();
        self.listings()?;
        // Removes itself, however this ends.
        let scratch = Scratch::make(&self.server);
        let (made, outcome) = match &scratch {
            Ok(scratch) => {
                let dir = scratch.path().clone();
                self.findings
                    .add("files", "make a directory", Verdict::Yes, "");
                (true, self.in_scratch(&dir))
            }
            Err(err) => {
                self.findings
                    .add("files", "make a directory", Verdict::No, err.to_string());
                (false, self.without_scratch())
            }
        };
        if let Ok(scratch) = scratch
            && let Err(err) = scratch.remove()
        {
            self.findings.add(
                "end",
                "scratch directory removed",
                Verdict::No,
                err.to_string(),
            );
        }
        outcome?;
        if made {
            self.data_tls();
        }
        self.connections()
    }

    /// Whether to go on.
    fn go_on(&self) -> Result<()> {
        if self.stop.is_asked_for() {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn in_scratch(&mut self, dir: &RemotePath) -> Result<()> {
        self.files(dir)?;
        self.commands(dir)?;
        self.names(dir)?;
        self.speed(dir)
    }

    /// A server that takes nothing can still be read.
    fn without_scratch(&mut self) -> Result<()> {
        for what in ["write a file", "replace a file by a rename", "set times"] {
            self.findings
                .add("files", what, Verdict::Untried, "it takes no files here");
        }
        self.findings
            .advise("ro", "nothing can be written to this directory");
        self.speed_of_what_is_there()
    }

    fn identity(&mut self, login: Duration) -> Result<()> {
        let report = self.server.report();
        let address = self.server.pool.host().facts(|facts| facts.address);
        let f = &mut self.findings;
        let text = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        f.fact("server", "greeting", text(report.banner));
        f.fact("server", "system", text(report.system));
        if let Some(address) = address {
            f.fact("server", "address", address);
        }
        f.fact("server", "features", report.features.join(", "));
        f.fact("server", "login takes", format!("{} ms", login.as_millis()));
        f.tried(
            "server",
            "several commands at once",
            match report.pipelining {
                Some(true) => Ok(String::new()),
                _ => Err("they are sent one by one"),
            },
        );
        let mut fastest = Duration::MAX;
        for _ in 0..PINGS {
            self.go_on()?;
            let sent = Instant::now();
            self.server.on_session(|s| s.command(b"NOOP").map(drop))?;
            fastest = fastest.min(sent.elapsed());
        }
        let shown = format!(
            "{}.{:03} ms",
            fastest.as_millis(),
            fastest.as_micros() % 1000
        );
        self.findings.fact("server", "round trip", shown);
        Ok(())
    }

    fn tls(&mut self) {
        let facts = self.server.pool.host().facts(|facts| facts.clone());
        let wanted = self.server.options().tls;
        let f = &mut self.findings;
        if facts.tls != Some(true) {
            let why = match wanted {
                TlsMode::Off => "not wanted (tls=off)",
                _ => "the server has none: passwords and files can be read on the way",
            };
            f.add("tls", "encrypted", Verdict::No, why);
            return;
        }
        f.add(
            "tls",
            "encrypted",
            Verdict::Yes,
            facts.tls_version.unwrap_or_default(),
        );
        if wanted == TlsMode::Auto {
            let why = "the server has TLS; nobody on the way may then talk it away";
            f.advise("tls=require", why);
        }
        let Some(shown) = facts.certificate else {
            return;
        };
        f.fact("tls", "fingerprint", shown.fingerprint);
        f.fact("tls", "trusted", shown.basis.map_or("no", Basis::words));
        if let Some(about) = certificate::describe(&shown.certificate) {
            f.fact("tls", "certificate of", about.subject);
            f.fact("tls", "issued by", about.issuer);
            let ends = humantime::format_rfc3339_seconds(about.not_after).to_string();
            let left = about.not_after.duration_since(SystemTime::now());
            match left {
                Ok(left) if left < SOON => {
                    let days = left.as_secs() / 86_400;
                    f.fact("tls", "expires", format!("{ends}, in {days} days"));
                }
                Ok(_) => f.fact("tls", "expires", ends),
                Err(_) => f.fact("tls", "expired", ends),
            }
        }
    }

    /// What the transfers showed.
    fn data_tls(&mut self) {
        let facts = self.server.pool.host().facts(|facts| facts.clone());
        if facts.tls != Some(true) {
            return;
        }
        match facts.data_resumed {
            Some(true) => self.findings.add(
                "tls",
                "data connections resume the session",
                Verdict::Yes,
                if facts.tls12_only {
                    "with TLS 1.2: too few tickets for 1.3"
                } else {
                    ""
                },
            ),
            Some(false) => self.findings.add(
                "tls",
                "data connections resume the session",
                Verdict::No,
                "a full handshake for each, which this server accepts",
            ),
            None => {}
        }
    }

    /// Each way of listing, and which one a mount will use.
    fn listings(&mut self) -> Result<()> {
        let root = RemotePath::root();
        let listed = self.server.list(&root)?;
        for mode in [
            ListingMode::Mlsd,
            ListingMode::ListAll,
            ListingMode::List,
            ListingMode::Nlst,
        ] {
            self.go_on()?;
            let outcome = self.server.on_session(|s| {
                Ok(match self.server.list_by(s, &root, mode)? {
                    super::list_command::Answer::Listed(listed) => {
                        let skipped = match listed.skipped {
                            0 => String::new(),
                            some => format!(", {some} lines not understood"),
                        };
                        Ok(format!("{} entries{skipped}", listed.entries.len()))
                    }
                    super::list_command::Answer::Refused(reply) => Err(reply.text()),
                })
            });
            let outcome = outcome.unwrap_or_else(|err| Err(err.to_string()));
            self.findings
                .tried("listing", super::list_command::verb(mode), outcome);
        }
        // The trials of the others are not the mount's way.
        let report = self.server.report();
        let used = report.listing.unwrap_or("unknown");
        self.findings.fact("listing", "used", used);
        if let Some(dialect) = self.server.ways.with(|ways| ways.dialect) {
            self.findings
                .fact("listing", "written in", format!("{dialect:?}"));
        }
        self.findings.fact("listing", "entries", listed.len());
        if used != "MLSD" && !self.server.options().exact_times {
            self.findings.advise(
                "exact_times",
                "listings show times to the minute; for rsync and other comparisons",
            );
        }
        Ok(())
    }

    /// How many sessions there may be, up to what a mount would use. Stops at the first refusal.
    fn connections(&mut self) -> Result<()> {
        let most = self.server.options().connections;
        let mut leases = Vec::new();
        let mut refused: Option<Error> = None;
        for number in 0..most {
            self.go_on()?;
            // The last one is kept for short questions.
            let purpose = if number + 1 < most {
                Purpose::Transfer
            } else {
                Purpose::Metadata
            };
            match self.server.pool.lease(purpose, false) {
                Ok(lease) => leases.push(lease),
                Err(err) => {
                    refused = Some(err);
                    break;
                }
            }
        }
        let open = leases.len();
        drop(leases);
        match refused {
            None => self.findings.fact(
                "server",
                "connections at once",
                format!("{open}, all that were tried"),
            ),
            Some(err) => {
                self.findings.fact(
                    "server",
                    "connections at once",
                    format!("{open}, then: {err}"),
                );
                self.findings.advise(
                    format!("connections={}", open.max(1)),
                    "the server allows no more; a mount finds out by itself, but asks each time",
                );
            }
        }
        Ok(())
    }

    fn sum_up(&mut self) {
        let report = self.server.report();
        let (epsv, unannounced, at_once) = self
            .server
            .pool
            .host()
            .facts(|facts| (facts.epsv, facts.unannounced, facts.at_once.works()));
        if let Some(works) = at_once {
            let outcome = match works {
                true => Ok(String::new()),
                false => Err("they are made step by step"),
            };
            self.findings
                .tried("server", "logins sent at once", outcome);
        }
        if let Some(epsv) = epsv {
            let way = if epsv { "EPSV" } else { "PASV" };
            self.findings.fact("server", "data connections by", way);
        }
        match report.time_offset {
            Some(seconds) => {
                let shown = format!("{seconds} s ahead of UTC");
                self.findings.fact("listing", "clock of LIST", shown);
            }
            None => self.findings.add(
                "listing",
                "clock of LIST",
                Verdict::Untried,
                "not needed, or no file to measure it by",
            ),
        }
        for quirk in report.quirks {
            self.findings.fact("quirks", "quirk", quirk);
        }
        if unannounced == Some(true) {
            self.findings
                .fact("quirks", "quirk", "transfers begin without a 1xx reply");
        }
    }
}

impl FtpBackend {
    /// See [`examine`].
    ///
    /// # Errors
    /// The login's.
    pub fn examine(options: FtpOptions, stop: &Stop) -> Result<Findings> {
        examine(options, stop)
    }
}
