//! The bare control connection: lines out, replies in, in step.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::reply::{Replies, Reply};
use super::tls::TlsStream;
use crate::net::{self, Deadline};
use crate::vfs::error::{Error, ErrorKind, Result};

/// The log target of the dialogue with the server.
const WIRE: &str = "ferryfs::wire";

/// Bytes of commands that may be in flight without a reply.
const UNANSWERED_MAX: usize = 4096;

/// A control connection, in clear or over TLS. Any error here means that it is lost.
#[derive(Debug)]
pub(super) struct Control {
    channel: Channel,
    replies: Replies,
    /// Tells connections apart in the log.
    number: u64,
    /// Host name, for errors.
    host: Box<str>,
}

/// What carries the control connection.
#[derive(Debug)]
pub(super) enum Channel {
    /// In clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream>),
}

impl Control {
    pub(super) fn new(channel: Channel, number: u64, host: &str) -> Self {
        Self {
            channel,
            replies: Replies::default(),
            number,
            host: host.into(),
        }
    }

    /// Sends command lines as they are, each ended by CRLF.
    pub(super) fn send(&mut self, lines: &[&[u8]]) -> Result<()> {
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.len() + 2).sum());
        for line in lines {
            log::debug!(target: WIRE, "#{} > {}", self.number, Shown(line));
            for byte in *line {
                bytes.push(*byte);
                // Telnet's escape (RFC 959 section 3.1.1.5 has it from RFC 854).
                if *byte == 0xFF {
                    bytes.push(0xFF);
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
        let mut bytes = [0; 4096];
        loop {
            match self.replies.next() {
                Ok(Some(reply)) => {
                    let more = reply.lines().len() - 1;
                    log::debug!(target: WIRE, "#{} < {}{}", self.number, reply.text(), More(more));
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
        loop {
            let reply = self.receive(deadline)?;
            if !reply.is_preliminary() {
                return Ok(reply);
            }
        }
    }

    /// Sends commands and reads a reply to each: all in flight at once up to 4 KiB if `pipelined`,
    /// which any socket buffer holds, so that both sides cannot wait for each other.
    pub(super) fn exchange(
        &mut self,
        lines: &[&[u8]],
        pipelined: bool,
        deadline: Deadline,
    ) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(lines.len());
        let mut sent = 0;
        let mut unanswered = 0;
        for line in lines {
            // A burst whenever half of the allowance is free, not a packet for each line.
            if replies.len() == sent || (pipelined && unanswered <= UNANSWERED_MAX / 2) {
                let mut burst = Vec::new();
                while let Some(next) = lines.get(sent) {
                    let alone = replies.len() == sent;
                    let fits = pipelined && unanswered + next.len() <= UNANSWERED_MAX;
                    if !alone && !fits {
                        break;
                    }
                    burst.push(*next);
                    unanswered += next.len();
                    sent += 1;
                }
                self.send(&burst)?;
            }
            replies.push(self.final_reply(deadline)?);
            unanswered -= line.len();
        }
        Ok(replies)
    }

    fn read(&mut self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        self.tcp().set_read_timeout(Some(deadline.left()?))?;
        let got = match &mut self.channel {
            Channel::Plain(tcp) => tcp.read(buf)?,
            Channel::Tls(tls) => tls.read(buf)?,
        };
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(got)
    }

    /// Whether nothing came that was not asked for: no reply too many, no farewell, no hang-up.
    pub(super) fn is_at_rest(&mut self) -> bool {
        let readable = match &mut self.channel {
            Channel::Plain(tcp) => net::is_readable(tcp),
            Channel::Tls(tls) => tls.is_readable(),
        };
        self.replies.is_empty() && matches!(readable, Ok(false))
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
        net::failure(&self.host, err)
    }
}

fn canonical(address: &SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// A command line for people: printable, without what is secret.
pub(super) struct Shown<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for secret in ["PASS ", "ACCT "] {
            let head = self.0.get(..secret.len()).unwrap_or_default();
            if head.eq_ignore_ascii_case(secret.as_bytes()) {
                return write!(f, "{secret}****");
            }
        }
        write!(f, "{}", String::from_utf8_lossy(self.0).escape_debug())
    }
}

/// How many lines of a reply are not shown.
struct More(usize);

impl std::fmt::Display for More {
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
        for line in ["PASS hunter2", "pass hunter2", "ACCT hunter2"] {
            assert!(!Shown(line.as_bytes()).to_string().contains("hunter2"));
        }
        assert_eq!(Shown(b"RETR caf\xc3\xa9").to_string(), "RETR caf\u{e9}");
        assert_eq!(Shown(b"PASV").to_string(), "PASV");
    }
}
