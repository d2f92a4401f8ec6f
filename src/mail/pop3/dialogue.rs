//! Commands out, replies in, over one connection that is given up at the first fault.

use std::io::Write;
use std::time::Duration;

use super::reply::Reply;
use crate::mail::connect::{Connector, Cutter, Wire};
use crate::mail::failure::{Class, Failure, Result, words};
use crate::mail::line::{Counts, LineReader, ReadError};
use crate::net::{self, Deadline};

/// RFC 2449 section 4 allows a reply 512 octets; servers quote paths and names in theirs, and a
/// SCRAM or OAuth challenge is longer.
const LONGEST_REPLY: usize = 4096;

/// A line of UIDL or LIST: RFC 1939 allows an identity 70 octets, mpopd sends file names.
const LONGEST_ENTRY: usize = 1024;

/// Most octets of one listing that are kept: a million messages with identities of usual length.
const LARGEST_LISTING: usize = 64 << 20;

/// What a server says first in an authentication exchange.
#[derive(Debug)]
pub(super) enum Turn {
    /// It wants a response to this, base64.
    Challenge(Vec<u8>),
    /// It is done.
    Reply(Reply),
}

#[derive(Debug)]
pub(super) struct Dialogue {
    lines: LineReader<Wire>,
    peer: String,
    timeout: Duration,
    /// Something went wrong; what is read now may answer something else.
    broken: bool,
}

impl Dialogue {
    pub(super) fn new(wire: Wire, connector: &Connector) -> Self {
        let endpoint = connector.endpoint();
        Self {
            lines: LineReader::new(wire),
            peer: endpoint.host.clone(),
            timeout: endpoint.timeout,
            broken: false,
        }
    }

    /// The same connection, encrypted from here on. What was read ahead is dropped.
    pub(super) fn secure(self, connector: &Connector) -> Result<Self> {
        let wire = connector.secure(self.lines.into_source())?;
        Ok(Self::new(wire, connector))
    }

    /// Replies are outstanding that nobody will read: nothing can be asked any more.
    pub(super) const fn abandon(&mut self) {
        self.broken = true;
    }

    pub(super) fn is_encrypted(&mut self) -> bool {
        self.lines.source_mut().is_encrypted()
    }

    pub(super) fn cutter(&mut self) -> Result<Cutter> {
        let peer = &self.peer;
        self.lines
            .source_mut()
            .cutter()
            .map_err(|err| Failure::local(peer, &err))
    }

    /// Octets came that nobody asked for: whoever wrote them also counts the replies wrongly.
    pub(super) fn must_be_quiet(&mut self) -> Result<()> {
        if self.lines.has_buffered() {
            return Err(self.give_up(Class::Protocol, "it answers what was not asked"));
        }
        Ok(())
    }

    /// Sends `line`. `shown` is what log and errors call it.
    pub(super) fn send(&mut self, shown: &str, line: &str) -> Result<()> {
        if line.contains(['\r', '\n', '\0']) {
            return Err(Failure::new(
                Class::Account,
                format!("{shown}: a control character cannot be sent"),
            ));
        }
        log::debug!("{} > {shown}", self.peer);
        self.send_lines(&format!("{line}\r\n"))
    }

    /// Sends lines that are complete already, several in one go.
    pub(super) fn send_lines(&mut self, lines: &str) -> Result<()> {
        self.check()?;
        let wire = self.lines.source_mut();
        match wire.write_all(lines.as_bytes()).and_then(|()| wire.flush()) {
            Ok(()) => Ok(()),
            Err(err) => {
                self.broken = true;
                Err(net::failure(&self.peer, &err).into())
            }
        }
    }

    /// The answer to `what`.
    pub(super) fn reply(&mut self, what: &str) -> Result<Reply> {
        match self.turn(what)? {
            Turn::Reply(reply) => Ok(reply),
            Turn::Challenge(_) => Err(self.give_up(
                Class::Protocol,
                &format!("{what}: a challenge outside of authentication"),
            )),
        }
    }

    /// The answer to `what`, which may be a challenge.
    pub(super) fn turn(&mut self, what: &str) -> Result<Turn> {
        self.check()?;
        let deadline = Deadline::after(self.timeout);
        let line = match self.lines.line(LONGEST_REPLY, deadline) {
            Ok(line) => line,
            Err(err) => return Err(self.failed(what, &err)),
        };
        if let Some(reply) = Reply::parse(line) {
            log::debug!("{} < {}", self.peer, words(line));
            return Ok(Turn::Reply(reply));
        }
        if let Some(challenge) = line.strip_prefix(b"+")
            && challenge.first().is_none_or(|b| *b == b' ')
        {
            return Ok(Turn::Challenge(challenge.trim_ascii().to_vec()));
        }
        let said = words(line);
        Err(self.give_up(
            Class::Protocol,
            &format!("{what}: not a POP3 reply: \"{said}\""),
        ))
    }

    /// Sends a command and waits for its answer.
    pub(super) fn command(&mut self, line: &str) -> Result<Reply> {
        self.send(line, line)?;
        self.reply(line)
    }

    /// The lines of a listing, at most `most`.
    pub(super) fn listing(
        &mut self,
        what: &str,
        most: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        self.check()?;
        let mut octets = 0;
        for _ in 0..=most {
            let deadline = Deadline::after(self.timeout);
            match self.lines.line(LONGEST_ENTRY, deadline) {
                Ok(b".") => return Ok(()),
                Ok(line) => {
                    octets += line.len();
                    each(line);
                }
                Err(err) => return Err(self.failed(what, &err)),
            }
            if octets > LARGEST_LISTING {
                let line = format!("{what}: more than {LARGEST_LISTING} octets");
                return Err(self.give_up(Class::Protocol, &line));
            }
        }
        Err(self.give_up(Class::Protocol, &format!("{what}: more than {most} lines")))
    }

    /// A message, copied to `out`.
    pub(super) fn text(&mut self, what: &str, out: &mut dyn Write, limit: u64) -> Result<Counts> {
        self.check()?;
        match self.lines.text(out, limit, self.timeout) {
            Ok(counts) => Ok(counts),
            Err(err) => Err(self.failed(what, &err)),
        }
    }

    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Failure::new(
                Class::Transient,
                format!("{}: the session is over", self.peer),
            ));
        }
        Ok(())
    }

    fn failed(&mut self, what: &str, err: &ReadError) -> Failure {
        self.broken = true;
        err.failure(format_args!("{}: {what}", self.peer))
    }

    fn give_up(&mut self, class: Class, why: &str) -> Failure {
        self.broken = true;
        Failure::new(class, format!("{}: {why}", self.peer))
    }
}
