//! Commands out, replies in, over one connection that is given up at the first fault.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use super::reply::{Gathering, Line, MOST_LINES, Reply};
use super::session::Timeouts;
use crate::mail::connect::{Connector, Cutter, Wire};
use crate::mail::failure::{Class, Failure, Result, words};
use crate::mail::line::{LineReader, ReadError};
use crate::net::{self, Deadline};

/// RFC 5321 section 4.5.3.1.5 allows a reply line 512 octets; some servers explain at length.
const LONGEST_LINE: usize = 8192;

/// Lines of a transcript that are kept.
const MOST_SAID: usize = 400;

/// Reads what is there without writing anything first.
fn read_below(
    tls: &mut StreamOwned<ClientConnection, TcpStream>,
    room: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.conn.reader().read(room) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        if tls.conn.read_tls(&mut tls.sock)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        tls.conn.process_new_packets().map_err(io::Error::other)?;
    }
}

#[derive(Debug)]
pub(super) struct Dialogue {
    lines: LineReader<Wire>,
    peer: String,
    /// Commands that were not sent yet.
    out: Vec<u8>,
    /// The time limit of the socket's reads, which are set for each wait.
    limit: Duration,
    /// What was said since the transcript was taken.
    said: Vec<String>,
    /// Something went wrong; what is read now may answer something else.
    broken: bool,
}

impl Dialogue {
    pub(super) fn new(wire: Wire, connector: &Connector) -> Self {
        let endpoint = connector.endpoint();
        Self {
            lines: LineReader::new(wire),
            peer: endpoint.host.clone(),
            out: Vec::new(),
            limit: endpoint.timeout,
            said: Vec::new(),
            broken: false,
        }
    }

    /// The same connection, encrypted from here on.
    pub(super) fn secure(mut self, connector: &Connector) -> Result<Self> {
        if self.lines.has_buffered() {
            // Sent in clear text, to be taken for the server's words behind the curtain
            // (CVE-2011-0411).
            return Err(self.fail(Class::Protocol, "it talks on after its answer to STARTTLS"));
        }
        let wire = connector.secure(self.lines.into_source())?;
        let mut secured = Self::new(wire, connector);
        secured.said = self.said;
        secured.limit = self.limit;
        Ok(secured)
    }

    /// Lets the server take its time: RFC 5321 section 4.5.3.2 is more patient than we are when we
    /// connect, and what the kernel gives up after the final dot is a message in doubt.
    pub(super) fn be_patient(&mut self, timeouts: &Timeouts) -> Result<()> {
        let longest = timeouts.end.max(timeouts.block).max(timeouts.command);
        let tcp = self.tcp();
        let set =
            net::tune(tcp, longest).and_then(|()| tcp.set_write_timeout(Some(timeouts.block)));
        self.limit = longest;
        set.map_err(|err| Failure::local(&self.peer, &err))
    }

    fn tcp(&mut self) -> &TcpStream {
        match self.lines.source_mut() {
            Wire::Plain(tcp) => tcp,
            Wire::Tls(tls) => &tls.sock,
        }
    }

    pub(super) fn is_encrypted(&mut self) -> bool {
        self.lines.source_mut().is_encrypted()
    }

    pub(super) fn cutter(&mut self) -> Result<Cutter> {
        let cutter = self.lines.source_mut().cutter();
        cutter.map_err(|err| Failure::local(&self.peer, &err))
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Nothing more is sent or read.
    pub(super) const fn abandon(&mut self) {
        self.broken = true;
    }

    /// What was said since the last time, `>` by us, `<` by the server.
    pub(super) fn take_transcript(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn note(&mut self, mark: char, text: &str) {
        log::debug!("{} {mark} {text}", self.peer);
        if self.said.len() < MOST_SAID {
            self.said.push(format!("{mark} {text}"));
        }
    }

    /// Makes `line` ready to be sent; `shown` is what transcripts call it.
    pub(super) fn put(&mut self, shown: &str, line: &str) {
        // Every text was checked where it came from; a line end here would be another command.
        let clean = line.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0));
        self.out.extend(clean);
        self.out.extend_from_slice(b"\r\n");
        self.note('>', shown);
    }

    /// Sends what is ready.
    pub(super) fn flush(&mut self) -> Result<()> {
        let out = std::mem::take(&mut self.out);
        self.write(&out)
    }

    /// Sends a command and reads the answer.
    pub(super) fn ask(&mut self, line: &str, limit: Duration) -> Result<Reply> {
        self.put(line, line);
        self.flush()?;
        self.reply(line, limit)
    }

    /// Sends `bytes` as they are.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let wire = self.lines.source_mut();
        match wire.write_all(bytes).and_then(|()| wire.flush()) {
            Ok(()) => Ok(()),
            Err(err) => {
                self.broken = true;
                Err(net::failure(&self.peer, &err).into())
            }
        }
    }

    /// The message's final dot stands at the end of these bytes, perhaps with commands behind it.
    /// From here on the message is in doubt until the server answers.
    pub(super) fn take_ready(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn set_limit(&mut self, limit: Duration) -> io::Result<()> {
        if self.limit != limit {
            self.tcp().set_read_timeout(Some(limit))?;
            self.limit = limit;
        }
        Ok(())
    }

    /// The answer to `what`, complete within `limit` or little more.
    pub(super) fn reply(&mut self, what: &str, limit: Duration) -> Result<Reply> {
        self.check()?;
        if let Err(err) = self.set_limit(limit) {
            return Err(self.failed(what, &ReadError::Source(err)));
        }
        let deadline = Deadline::after(limit);
        let mut gathering = Gathering::default();
        loop {
            let line = match self.lines.line(LONGEST_LINE, deadline) {
                Ok(line) => line,
                Err(err) => return Err(self.failed(what, &err)),
            };
            let Some(parsed) = Line::parse(line) else {
                let why = format!("{what}: not an SMTP reply: \"{}\"", words(line));
                return Err(self.fail(Class::Protocol, &why));
            };
            gathering.add(&parsed);
            let (code, more) = (parsed.code, parsed.more);
            if !more {
                let reply = gathering.finish(code);
                self.note('<', &reply.text());
                return Ok(reply);
            }
            if gathering.len() >= MOST_LINES {
                return Err(self.fail(Class::Protocol, &format!("{what}: a reply without end")));
            }
        }
    }

    /// Whether something came that was not asked for. On an encrypted connection that may also be
    /// a session ticket, which [`stray_reply`](Self::stray_reply) tells apart.
    fn has_news(&mut self) -> bool {
        // An error will be found by whoever reads.
        self.lines.has_buffered() || net::is_readable(self.tcp()).unwrap_or(true)
    }

    /// A reply that came before it was due; `patience` for the rest of it. An end of the connection
    /// is a failure.
    pub(super) fn stray_reply(&mut self, patience: Duration) -> Result<Option<Reply>> {
        if self.broken || !self.has_news() {
            return Ok(None);
        }
        if !self.lines.has_buffered() && self.is_encrypted() {
            return self.stray_record(patience);
        }
        self.reply("message", patience).map(Some)
    }

    /// Reads TLS records that wait; only if there was text in them there is a reply.
    fn stray_record(&mut self, patience: Duration) -> Result<Option<Reply>> {
        let Wire::Tls(tls) = self.lines.source_mut() else {
            return Ok(None);
        };
        let found = tls
            .sock
            .set_nonblocking(true)
            .and_then(|()| tls.conn.read_tls(&mut tls.sock))
            .and_then(|read| {
                let state = tls.conn.process_new_packets().map_err(io::Error::other)?;
                Ok(read == 0 || state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
            });
        let blocking = tls.sock.set_nonblocking(false);
        match found.and_then(|found| blocking.map(|()| found)) {
            Ok(true) => self.reply("message", patience).map(Some),
            Ok(false) => Ok(None),
            Err(err) if net::is_timeout(&err) => Ok(None),
            Err(err) => Err(self.failed("message", &ReadError::Source(err))),
        }
    }

    /// What the server said before it hung up on us, if anything. Writing failed already, and a TLS
    /// stream would insist on it before it reads, so what is there is taken from below.
    pub(super) fn last_words(&mut self) -> Option<Reply> {
        let mut said = [0; LONGEST_LINE];
        let mut length = 0;
        while length == 0 || !said.get(..length)?.ends_with(b"\n") {
            let room = said.get_mut(length..).filter(|room| !room.is_empty())?;
            let tcp = self.tcp();
            // It may not be a socket that still listens.
            let _ = tcp.set_read_timeout(Some(Timeouts::LAST_WORDS));
            let read = match self.lines.source_mut() {
                Wire::Plain(tcp) => tcp.read(room),
                Wire::Tls(tls) => read_below(tls, room),
            };
            length += read.ok().filter(|read| *read > 0)?;
        }
        let mut gathering = Gathering::default();
        for line in said.get(..length)?.split_inclusive(|b| *b == b'\n') {
            let line = Line::parse(line.trim_ascii_end())?;
            gathering.add(&line);
            if !line.more {
                let reply = gathering.finish(line.code);
                self.note('<', &reply.text());
                return Some(reply);
            }
        }
        None
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
        let failure = err.failure(format_args!("{}: {what}", self.peer));
        self.note('!', failure.detail());
        failure
    }

    pub(super) fn fail(&mut self, class: Class, why: &str) -> Failure {
        self.broken = true;
        let failure = Failure::new(class, format!("{}: {why}", self.peer));
        self.note('!', failure.detail());
        failure
    }
}
