//! Connections through a proxy: SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110 section
//! 9.3.6). The proxy looks the server's name up.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Deadline;
use crate::secret::Secret;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Longest header of a CONNECT answer.
const MAX_HEADER: usize = 16 * 1024;

/// What the proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `socks5://`
    Socks5,
    /// `http://`
    Http,
}

/// A proxy and how to log in to it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in; `None`: nobody does.
    pub user: Option<String>,
    /// The user's password.
    pub password: Secret,
}

impl Proxy {
    /// A connection to `host:port` by way of the proxy, within `deadline`; each read and write of
    /// it has `limit` as its time limit.
    ///
    /// # Errors
    /// `Disconnected` or `TimedOut` if the proxy or, as it says, the server cannot be reached;
    /// `PermissionDenied` if it wants another login.
    pub fn connect(
        &self,
        host: &str,
        port: u16,
        bind: Option<IpAddr>,
        deadline: Deadline,
        limit: Duration,
    ) -> Result<TcpStream> {
        let family = |ip: &IpAddr| bind.is_none_or(|bind| bind.is_ipv4() == ip.is_ipv4());
        let named = |err: Error| err.context(format_args!("proxy {}:{}", self.host, self.port));
        let addresses = super::resolve(&self.host, self.port, family, deadline).map_err(named)?;
        let mut failed = None;
        for (tried, address) in addresses.iter().enumerate() {
            let share = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let left = deadline
                .left()
                .map_err(|err| named(super::failure("connecting", &err)))?;
            match super::connect(*address, bind, left / share.max(1)) {
                Ok(tcp) => {
                    // One watch over the whole conversation: a proxy may trickle.
                    let answer = super::within(&tcp, deadline, || self.ask(&tcp, host, port));
                    answer
                        .map_err(|err| match deadline.left() {
                            Ok(_) => err,
                            // The watch has cut it off.
                            Err(over) => super::failure("connecting", &over),
                        })
                        .map_err(named)?;
                    super::tune(&tcp, limit)
                        .map_err(|err| named(super::failure("connecting", &err)))?;
                    return Ok(tcp);
                }
                Err(err) => failed = Some(super::failure("cannot connect", &err)),
            }
        }
        Err(named(failed.unwrap_or_else(|| {
            Error::new(ErrorKind::Disconnected, "no address")
        })))
    }

    fn ask(&self, tcp: &TcpStream, host: &str, port: u16) -> Result<()> {
        match self.protocol {
            Protocol::Socks5 => self.socks(tcp, host, port),
            Protocol::Http => self.http(tcp, host, port),
        }
    }

    fn socks(&self, mut tcp: &TcpStream, host: &str, port: u16) -> Result<()> {
        let broken = |err: io::Error| super::failure("no SOCKS5 answer", &err);
        let methods: &[u8] = match self.user {
            Some(_) => &[5, 2, 0, 2],
            None => &[5, 1, 0],
        };
        tcp.write_all(methods).map_err(broken)?;
        let [version, method] = take(tcp).map_err(broken)?;
        if version != 5 {
            return Err(Error::new(ErrorKind::Disconnected, "not a SOCKS5 proxy"));
        }
        match (method, &self.user) {
            (0, _) => {}
            (2, Some(user)) => {
                let mut login = vec![1];
                for word in [user.as_str(), self.password.reveal()] {
                    let length = u8::try_from(word.len()).map_err(|_| {
                        Error::new(
                            ErrorKind::Invalid,
                            "SOCKS5 takes users and passwords of at most 255 bytes",
                        )
                    })?;
                    login.push(length);
                    login.extend_from_slice(word.as_bytes());
                }
                tcp.write_all(&login).map_err(broken)?;
                let [_, status] = take(tcp).map_err(broken)?;
                if status != 0 {
                    return Err(Error::new(
                        ErrorKind::PermissionDenied,
                        format!("login as {} refused", user.escape_debug()),
                    ));
                }
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::PermissionDenied,
                    "it wants a login that was not given; write -o proxy=socks5://USER@HOST",
                ));
            }
        }
        let mut request = vec![5, 1, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend_from_slice(&ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend_from_slice(&ip.octets());
            }
            Err(_) => {
                let length = u8::try_from(host.len())
                    .map_err(|_| Error::new(ErrorKind::Invalid, "host name too long"))?;
                request.extend_from_slice(&[3, length]);
                request.extend_from_slice(host.as_bytes());
            }
        }
        request.extend_from_slice(&port.to_be_bytes());
        tcp.write_all(&request).map_err(broken)?;
        let [_, reply, _, kind] = take(tcp).map_err(broken)?;
        if reply != 0 {
            return Err(Error::new(
                ErrorKind::Disconnected,
                format!("{host}:{port}: {}", socks_words(reply)),
            ));
        }
        let address = match kind {
            1 => 4,
            4 => 16,
            3 => usize::from(take::<1>(tcp).map_err(broken)?[0]),
            _ => return Err(Error::new(ErrorKind::Disconnected, "not a SOCKS5 proxy")),
        };
        // Its own end of the connection, which says nothing of the server's.
        let mut rest = vec![0; address + 2];
        tcp.read_exact(&mut rest).map_err(broken)
    }

    fn http(&self, mut tcp: &TcpStream, host: &str, port: u16) -> Result<()> {
        let broken = |err: io::Error| super::failure("no HTTP answer", &err);
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        if target.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(Error::new(ErrorKind::Invalid, "not a host name"));
        }
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(user) = &self.user {
            let login = BASE64_STANDARD.encode(format!("{user}:{}", self.password.reveal()));
            request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
        }
        request.push_str("\r\n");
        tcp.write_all(request.as_bytes()).map_err(broken)?;
        // Byte by byte: what follows the header is the server's greeting.
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") && !header.ends_with(b"\n\n") {
            if header.len() >= MAX_HEADER {
                return Err(Error::new(ErrorKind::Disconnected, "endless HTTP answer"));
            }
            header.extend_from_slice(&take::<1>(tcp).map_err(broken)?);
            if header.len() == 5 && header != b"HTTP/" {
                return Err(Error::new(ErrorKind::Disconnected, "not an HTTP proxy"));
            }
        }
        let first = header.split(|b| *b == b'\n').next().unwrap_or_default();
        let status = String::from_utf8_lossy(first).trim().to_owned();
        let mut words = status.splitn(3, ' ');
        let code = match (words.next(), words.next()) {
            (Some(version), Some(code)) if version.starts_with("HTTP/1.") => code,
            _ => return Err(Error::new(ErrorKind::Disconnected, "not an HTTP proxy")),
        };
        let said: String = status
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        match (code, code.starts_with('2')) {
            (_, true) => Ok(()),
            ("407", _) => Err(Error::new(
                ErrorKind::PermissionDenied,
                match &self.user {
                    Some(user) => format!("login as {} refused: {said}", user.escape_debug()),
                    None => {
                        format!("it wants a login ({said}); write -o proxy=http://USER@HOST:PORT")
                    }
                },
            )),
            _ => Err(Error::new(
                ErrorKind::Disconnected,
                format!("{target}: {said}"),
            )),
        }
    }
}

fn take<const N: usize>(mut tcp: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    tcp.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// RFC 1928 section 6.
const fn socks_words(reply: u8) -> &'static str {
    match reply {
        2 => "not allowed by the proxy's rules",
        3 => "network unreachable",
        4 => "host unreachable or unknown",
        5 => "connection refused",
        6 => "no answer in time",
        7 | 8 => "the proxy cannot do that",
        _ => "the proxy failed",
    }
}
