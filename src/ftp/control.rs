//! The bare control connection: lines out, replies in, in step.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::reply::{Replies, Reply, Shown};
use super::tls::TlsStream;
use crate::net::awake::Awake;
use crate::net::{self, Deadline};
use crate::secret::Secret;
use crate::vfs::error::{Error, ErrorKind, Result};

/// The log target of the dialogue with the server.
const WIRE: &str = "ferryfs::wire";

/// Telnet's escape, which the control connection has from RFC 854; sent doubled.
const IAC: u8 = 0xFF;

/// Bytes of commands that may be in flight without a reply, and that are sent at once.
const UNANSWERED_MAX: usize = 4096;
const BURST_MAX: usize = 1024;

/// A control connection, in clear or over TLS. Any error here means that it is lost.
#[derive(Debug)]
pub(super) struct Control {
    channel: Channel,
    replies: Replies,
    /// Tells connections apart in the log.
    number: u64,
    /// Host name, for errors.
    host: Box<str>,
    /// What is still to be answered though nobody waits for it, in order.
    owed: VecDeque<Owed>,
    odd: bool,
    awake: Awake,
    /// What a server may repeat and the log may not.
    secrets: Vec<Secret>,
}

/// Whether who takes replies wants more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    Wanted,
    Enough,
}

/// What a reply that nobody waits for will answer. It is read in front of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// Something that the server may refuse.
    Wish,
    /// Something that every command after it relies on.
    Setting,
    /// The end of a download that came whole.
    Download,
}

/// What carries the control connection.
#[derive(Debug)]
pub(super) enum Channel {
    /// In clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream>),
}

impl Channel {
    /// Whether a read would not wait.
    fn has_come(&mut self) -> bool {
        let readable = match self {
            Self::Plain(tcp) => net::is_readable(tcp),
            Self::Tls(tls) => tls.is_readable(),
        };
        !matches!(readable, Ok(false))
    }
}

impl Control {
    pub(super) fn new(channel: Channel, number: u64, host: &str) -> Self {
        Self {
            channel,
            replies: Replies::default(),
            number,
            host: host.into(),
            owed: VecDeque::new(),
            odd: false,
            awake: Awake::default(),
            secrets: Vec::new(),
        }
    }

    /// Keeps `secret` out of the log from here on: some servers repeat what they refuse.
    pub(super) fn conceal(&mut self, secret: &Secret) {
        self.secrets.push(secret.clone());
    }

    /// A server's words without our secrets.
    pub(super) fn concealed(&self, text: String) -> String {
        let secrets = self.secrets.iter().map(Secret::reveal);
        secrets
            .filter(|secret| secret.len() > 2)
            .fold(text, |text, secret| text.replace(secret, "****"))
    }

    /// The next reply is read behind its caller's back.
    pub(super) fn owe(&mut self, what: Owed) {
        self.owed.push_back(what);
    }

    /// Whether replies are due that nobody waits for.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Reads what is due.
    ///
    /// # Errors
    /// Also if a reply cannot be the one that is due: the connection is out of step, and this server
    /// is not one to leave replies for later.
    pub(super) fn collect(&mut self, deadline: Deadline) -> Result<()> {
        while let Some(owed) = self.owed.pop_front() {
            let reply = self.final_reply(deadline)?;
            let plausible = match owed {
                Owed::Wish => !reply.is_farewell(),
                Owed::Setting => reply.is_ok(),
                Owed::Download => {
                    matches!(reply.code(), 225 | 226 | 250 | 422..=599) && !reply.is_farewell()
                }
            };
            if !plausible {
                self.odd = !reply.is_farewell();
                return Err(Error::new(
                    ErrorKind::Disconnected,
                    format!("{}: out of step: {}", self.host, reply.text()),
                ));
            }
        }
        Ok(())
    }

    /// As [`collect`](Self::collect), if something has come.
    pub(super) fn collect_what_came(&mut self, deadline: Deadline) -> Result<()> {
        if self.owes() && !self.is_at_rest() {
            self.collect(deadline)?;
        }
        Ok(())
    }

    /// Whether a reply came that was not the one that was due.
    pub(super) const fn is_odd(&self) -> bool {
        self.odd
    }

    /// Sends command lines as they are, each ended by CRLF.
    pub(super) fn send(&mut self, lines: &[&[u8]]) -> Result<()> {
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| wire_len(line)).sum());
        for line in lines {
            log::debug!(target: WIRE, "#{} > {}", self.number, Command(line));
            for byte in *line {
                bytes.push(*byte);
                if *byte == IAC {
                    bytes.push(IAC);
                }
            }
            bytes.extend_from_slice(b"\r\n");
        }
        let sent = match &mut self.channel {
            Channel::Plain(tcp) => tcp.write_all(&bytes),
            Channel::Tls(tls) => tls.write_all(&bytes),
        };
        sent.map_err(|err| self.lost(&err))
    }

    /// Reads the next reply, preliminary or final.
    pub(super) fn receive(&mut self, deadline: Deadline) -> Result<Reply> {
        let mut bytes = [0; 16 << 10];
        loop {
            match self.replies.next() {
                Ok(Some(reply)) => {
                    let more = reply.lines().len() - 1;
                    log::debug!(target: WIRE, "#{} < {}{}", self.number, self.concealed(reply.text()), Further(more));
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(err) => {
                    return Err(Error::new(
                        ErrorKind::Disconnected,
                        format!("{}: {}", self.host, err.0),
                    ));
                }
            }
            let got = self
                .read(&mut bytes, deadline)
                .map_err(|err| self.lost(&err))?;
            self.replies.push(bytes.get(..got).unwrap_or_default());
        }
    }

    /// Reads the next reply that is not preliminary. RFC 959 wants 1xx before data only, but some
    /// servers send one too many.
    pub(super) fn final_reply(&mut self, deadline: Deadline) -> Result<Reply> {
        self.last_reply(deadline).map(|(reply, _)| reply)
    }

    /// As [`final_reply`](Self::final_reply), and whether a preliminary one came before.
    pub(super) fn last_reply(&mut self, deadline: Deadline) -> Result<(Reply, bool)> {
        let mut late = false;
        loop {
            let reply = self.receive(deadline)?;
            if !reply.is_preliminary() {
                return Ok((reply, late));
            }
            late = true;
        }
    }

    /// Whether something comes within `patience`, or has come.
    pub(super) fn speaks_in(&mut self, patience: Duration) -> bool {
        self.is_at_rest() && net::wait_readable(self.tcp(), None, patience).is_err()
            || !self.is_at_rest()
    }

    /// Whether something comes within `patience`, or within `grace` after `data` became readable.
    pub(super) fn speaks_within(
        &mut self,
        patience: Duration,
        data: &TcpStream,
        grace: Duration,
    ) -> bool {
        let mut deadline = Deadline::after(patience);
        let mut data = Some(data);
        loop {
            if !self.is_at_rest() {
                return true;
            }
            let Ok(left) = deadline.left() else {
                return false;
            };
            match net::wait_readable(self.tcp(), data, left) {
                Ok(true) => {
                    data = None;
                    deadline = deadline.at_most(grace);
                }
                Ok(false) => {}
                // The read will tell what it is.
                Err(_) => return true,
            }
        }
    }

    /// Sends commands and reads a reply to each: many in flight if `pipelined`.
    pub(super) fn exchange(
        &mut self,
        lines: &[&[u8]],
        pipelined: bool,
        deadline: Deadline,
    ) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(lines.len());
        self.exchange_each(lines, 0, pipelined, deadline, &mut |_, reply| {
            replies.push(reply);
            Ok(More::Wanted)
        })?;
        Ok(replies)
    }

    /// As [`exchange`](Self::exchange), but gives `each` the replies as they come. When it has had
    /// enough, nothing more is sent, and what was asked is still heard. The first `sent` lines are on
    /// their way already.
    ///
    /// ProFTPD (1.3.8) takes two commands for one, the line break included in the first one's name,
    /// when a read ends between CR and LF. So a burst fits into one TCP segment, and all that is in
    /// flight into one read of 4 KiB. This also keeps both sides from waiting for each other with
    /// full buffers.
    pub(super) fn exchange_each(
        &mut self,
        lines: &[&[u8]],
        sent: usize,
        pipelined: bool,
        deadline: Deadline,
        each: &mut dyn FnMut(usize, Reply) -> Result<More>,
    ) -> Result<()> {
        let (sent, rest) = lines.split_at(sent.min(lines.len()));
        let mut rest = rest.iter();
        let mut in_flight: VecDeque<_> = sent.iter().map(|line| wire_len(line)).collect();
        let mut unanswered: usize = in_flight.iter().sum();
        let mut heard = 0;
        let mut enough = false;
        loop {
            // Not a packet for each line: wait until there is room for a whole burst.
            while !enough
                && (in_flight.is_empty() || (pipelined && unanswered + BURST_MAX <= UNANSWERED_MAX))
            {
                let mut burst = Vec::new();
                let mut size = 0;
                while let Some(line) = rest.as_slice().first() {
                    let len = wire_len(line);
                    if !burst.is_empty() && (!pipelined || size + len > BURST_MAX) {
                        break;
                    }
                    burst.push(*line);
                    in_flight.push_back(len);
                    size += len;
                    rest.next();
                }
                if burst.is_empty() {
                    break;
                }
                self.send(&burst)?;
                unanswered += size;
            }
            let Some(len) = in_flight.pop_front() else {
                return Ok(());
            };
            self.collect(deadline)?;
            let reply = self.final_reply(deadline)?;
            unanswered -= len;
            enough |= each(heard, reply)? == More::Enough;
            heard += 1;
        }
    }

    /// Lets replies have up to `limit` bytes.
    pub(super) const fn allow(&mut self, limit: usize) {
        self.replies.allow(limit);
    }

    /// The bare connection, in clear, to be encrypted, and its number.
    ///
    /// # Errors
    /// If anything has come already: in clear, and perhaps of somebody else.
    pub(super) fn into_tcp(mut self) -> Result<(TcpStream, u64)> {
        let at_rest = self.is_at_rest();
        match self.channel {
            Channel::Plain(tcp) if at_rest => Ok((tcp, self.number)),
            Channel::Plain(_) | Channel::Tls(_) => Err(Error::new(
                ErrorKind::Disconnected,
                format!("{}: out of step before TLS", self.host),
            )),
        }
    }

    /// Takes the encryption off (CCC, which the server has agreed to).
    pub(super) fn uncover(self, limit: Duration) -> Result<Self> {
        let Self {
            channel,
            replies,
            number,
            host,
            owed,
            odd,
            awake,
            secrets,
        } = self;
        let tcp = match channel {
            Channel::Plain(tcp) => Ok(tcp),
            Channel::Tls(tls) => tls.into_clear(limit),
        }
        .map_err(|err| net::failure(format_args!("{host}: CCC"), &err))?;
        Ok(Self {
            channel: Channel::Plain(tcp),
            replies,
            number,
            host,
            owed,
            odd,
            awake,
            secrets,
        })
    }

    fn read(&mut self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        self.tcp().set_read_timeout(Some(deadline.left()?))?;
        // A server's second reply waits until the first is acknowledged (Nagle), and our kernel
        // takes its time with that while we have nothing to send.
        net::acknowledge_at_once(self.tcp());
        let got = self.awake.read(
            &mut self.channel,
            Channel::has_come,
            |channel| match channel {
                Channel::Plain(tcp) => tcp.read(buf),
                Channel::Tls(tls) => tls.read(buf),
            },
        )?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(got)
    }

    /// Whether nothing came that was not asked for: no reply too many, no farewell, no hang-up.
    pub(super) fn is_at_rest(&mut self) -> bool {
        self.replies.is_empty() && !self.channel.has_come()
    }

    pub(super) const fn tcp(&self) -> &TcpStream {
        match &self.channel {
            Channel::Plain(tcp) => tcp,
            Channel::Tls(tls) => tls.tcp(),
        }
    }

    pub(super) fn is_tls13(&self) -> bool {
        matches!(&self.channel, Channel::Tls(tls) if tls.is_tls13())
    }

    /// For people; `None` in clear text.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        match &self.channel {
            Channel::Plain(_) => None,
            Channel::Tls(tls) if tls.is_tls13() => Some("TLS 1.3"),
            Channel::Tls(_) => Some("TLS 1.2"),
        }
    }

    /// Our end's address: what active mode announces.
    pub(super) fn local_ip(&self) -> Result<IpAddr> {
        self.tcp()
            .local_addr()
            .map(|address| canonical(&address))
            .map_err(|err| self.lost(&err))
    }

    /// The server's address: where data connections go and come from.
    pub(super) fn peer_ip(&self) -> Result<IpAddr> {
        self.tcp()
            .peer_addr()
            .map(|address| canonical(&address))
            .map_err(|err| self.lost(&err))
    }

    fn lost(&self, err: &io::Error) -> Error {
        if err.kind() == io::ErrorKind::UnexpectedEof {
            return Error::new(
                ErrorKind::Disconnected,
                format!("{}: the server closed the connection", self.host),
            );
        }
        if net::is_timeout(err) {
            // What the kernel has yet must not come to the server when somebody else did the work.
            net::take_back_unsent(self.tcp());
        }
        net::failure(&self.host, err)
    }
}

/// Bytes of a line as it is sent: CRLF, and IAC doubled.
fn wire_len(line: &[u8]) -> usize {
    line.len() + line.iter().filter(|b| **b == IAC).count() + 2
}

fn canonical(address: &SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// What is not shown follows these.
const SECRET: &[&str] = &["PASS ", "ACCT ", "ADAT ", "SITE PSWD ", "SITE CPWD "];

/// A command line for people, without what is secret.
pub(super) struct Command<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for secret in SECRET {
            let head = self.0.get(..secret.len()).unwrap_or_default();
            if head.eq_ignore_ascii_case(secret.as_bytes()) {
                return write!(f, "{secret}****");
            }
        }
        Shown(self.0).fmt(f)
    }
}

/// How many lines of a reply are not shown.
struct Further(usize);

impl std::fmt::Display for Further {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " (+{more} lines)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for line in [
            "PASS hunter2",
            "pass hunter2",
            "ACCT hunter2",
            "SITE PSWD old hunter2",
        ] {
            assert!(!Command(line.as_bytes()).to_string().contains("hunter2"));
        }
        assert_eq!(Command(b"RETR caf\xc3\xa9").to_string(), "RETR caf\u{e9}");
        assert_eq!(Command(b"PASV").to_string(), "PASV");
    }
}
