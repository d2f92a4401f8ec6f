//! A connection from its banner to QUIT, and what holds for all its messages.

use std::time::Duration;

use super::dialogue::Dialogue;
use super::extensions::Extensions;
use super::login::{self, Credentials};
use super::reply::Reply;
use super::verdict::{Stage, Verdict, verdict};
use crate::mail::connect::{Connector, Cutter, Security};
use crate::mail::failure::{Class, Failure, Result};
use crate::vfs::error::ErrorKind;

/// How long each answer may take (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The banner, EHLO, AUTH, MAIL, RCPT.
    pub command: Duration,
    /// The answer to DATA.
    pub data: Duration,
    /// One block of the message, until the server takes it.
    pub block: Duration,
    /// The answer to the final dot. Giving up early makes duplicates (RFC 1047).
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        Self {
            command: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
        }
    }
}

impl Timeouts {
    /// For a reply that must be there already.
    pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

    /// QUIT is a courtesy.
    const QUIT: Duration = Duration::from_secs(5);

    /// All of them `limit`.
    #[must_use]
    pub const fn all(limit: Duration) -> Self {
        Self {
            command: limit,
            data: limit,
            block: limit,
            end: limit,
        }
    }
}

/// Whether STARTTLS is needed on a connection that begins in clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Without it there is no session: submission.
    Needed,
    /// If it is offered: between servers, where the alternative is no mail.
    IfOffered,
}

/// How a session is held.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Our name in EHLO.
    pub name: String,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Commands are sent ahead where the server allows it.
    pub pipelining: bool,
    /// What if STARTTLS is not offered; for [`Security::Upgrade`] only.
    pub encryption: Encryption,
}

impl Terms {
    /// The usual, with our `name` in EHLO.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            timeouts: Timeouts::default(),
            pipelining: true,
            encryption: Encryption::Needed,
        }
    }
}

/// An open session, ready for transactions. Dropping it hangs up; no message is harmed by that.
#[derive(Debug)]
pub struct Session {
    pub(super) dialogue: Dialogue,
    pub(super) extensions: Extensions,
    pub(super) timeouts: Timeouts,
    pub(super) pipelining: bool,
    /// A transaction was begun and not ended: RSET comes first.
    pub(super) unfinished: bool,
    /// The replies to MAIL, RCPT and DATA of the next transaction are on their way.
    pub(super) announced: bool,
    /// The last message was refused for being sent with BDAT.
    pub(super) chunk_refused: bool,
    /// See [`Outcome::hold_refused`](super::transaction::Outcome::hold_refused).
    pub(super) hold_refused: bool,
    carried: usize,
}

impl Session {
    /// Connects, reads the banner, greets, secures, logs in. `watch` gets something to end the
    /// connection with, as soon as there is one.
    ///
    /// # Errors
    /// `Account` if only the user can help (password, certificate, no TLS, no AUTH), `Transient`,
    /// `Protocol`.
    pub fn open(
        connector: &Connector,
        terms: &Terms,
        credentials: Option<&Credentials<'_>>,
        watch: &mut dyn FnMut(Cutter),
    ) -> Result<Self> {
        let endpoint = connector.endpoint();
        let limit = terms.timeouts.command;
        let mut dialogue = Dialogue::new(connector.connect()?, connector);
        watch(dialogue.cutter()?);
        dialogue.be_patient(&terms.timeouts)?;
        let banner = dialogue.reply("banner", limit)?;
        expect(&mut dialogue, Stage::Banner, "banner", &banner)?;
        let mut extensions = hello(&mut dialogue, &terms.name, limit)?;
        if endpoint.security == Security::Upgrade {
            if extensions.starttls {
                let reply = dialogue.ask("STARTTLS", limit)?;
                expect(&mut dialogue, Stage::Hello, "STARTTLS", &reply)?;
                dialogue = dialogue.secure(connector)?;
                // What was said in clear text counts no more (RFC 3207 section 4.2).
                extensions = hello(&mut dialogue, &terms.name, limit)?;
            } else if terms.encryption == Encryption::Needed {
                let said = format!(
                    "{}: offers no STARTTLS; use smtps://, or tls=off if you must",
                    endpoint.host
                );
                return Err(Failure::new(Class::Account, said).because(ErrorKind::Untrusted));
            }
        }
        if let Some(credentials) = credentials {
            let host = (endpoint.host.as_str(), endpoint.port);
            login::login(&mut dialogue, credentials, &extensions, host, limit)?;
        }
        Ok(Self {
            pipelining: terms.pipelining && extensions.pipelining,
            dialogue,
            extensions,
            timeouts: terms.timeouts,
            unfinished: false,
            announced: false,
            chunk_refused: false,
            hold_refused: false,
            carried: 0,
        })
    }

    /// Sends nothing with BDAT, whatever the server offers.
    pub const fn forgo_chunks(&mut self) {
        self.extensions.chunking = false;
    }

    /// What the server offers.
    #[must_use]
    pub const fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Something another thread can end this connection with.
    ///
    /// # Errors
    /// The system's.
    pub fn cutter(&mut self) -> Result<Cutter> {
        self.dialogue.cutter()
    }

    /// Whether another transaction may follow: nothing broke, and the server takes more.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let more = |most: usize| self.carried < most;
        !self.dialogue.is_broken() && self.extensions.max_messages.is_none_or(more)
    }

    /// Whether the session survived a pause: a NOOP, or nothing if it was short.
    pub fn is_alive(&mut self) -> bool {
        self.is_usable()
            && self
                .dialogue
                .ask("NOOP", self.timeouts.data.min(Duration::from_secs(10)))
                .is_ok_and(|reply| reply.is_positive())
    }

    /// Who it is with.
    #[must_use]
    pub fn peer(&self) -> &str {
        self.dialogue.peer()
    }

    /// Counts a transaction, for limits of the server's and ours.
    pub(super) const fn count(&mut self) {
        self.carried += 1;
    }

    /// Transactions so far.
    #[must_use]
    pub const fn carried(&self) -> usize {
        self.carried
    }

    /// Everything said that no outcome has told yet: the greeting and the login.
    pub fn take_transcript(&mut self) -> Vec<String> {
        self.dialogue.take_transcript()
    }

    /// Says good-bye. The answer does not matter.
    pub fn quit(mut self) {
        if !self.dialogue.is_broken() {
            let _ = self.dialogue.ask("QUIT", Timeouts::QUIT);
        }
    }
}

/// EHLO, or HELO where that is not understood (RFC 5321 section 3.2).
fn hello(dialogue: &mut Dialogue, name: &str, limit: Duration) -> Result<Extensions> {
    let reply = dialogue.ask(&format!("EHLO {name}"), limit)?;
    if reply.is_positive() {
        return Ok(Extensions::parse(&reply));
    }
    if reply.code != 421 && reply.code / 100 == 5 {
        let reply = dialogue.ask(&format!("HELO {name}"), limit)?;
        expect(dialogue, Stage::Hello, "HELO", &reply)?;
        return Ok(Extensions::default());
    }
    expect(dialogue, Stage::Hello, "EHLO", &reply)?;
    Ok(Extensions::default())
}

/// A refusal before the first message is about the account or the server.
pub(super) fn expect(
    dialogue: &mut Dialogue,
    stage: Stage,
    what: &str,
    reply: &Reply,
) -> Result<()> {
    let class = match verdict(stage, reply) {
        Verdict::Accepted => return Ok(()),
        Verdict::Account | Verdict::Refused => Class::Account,
        Verdict::Deferred | Verdict::TooMany | Verdict::InDoubt => Class::Transient,
    };
    Err(dialogue.fail(class, &format!("{what}: {}", reply.text())))
}
