//! How the two ends of a data connection meet: EPSV or PASV, EPRT or PORT.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::host::Host;
use super::options::DataMode;
use super::refusal::refusal;
use super::reply::Reply;
use super::session::Session;
use crate::net::{self, Deadline};
use crate::vfs::error::{Error, ErrorKind, Result};

/// What EPSV alone is answered (RFC 2428 section 3).
pub(super) const ENTERS_EXTENDED: u16 = 229;

/// How long the first EPSV connection may take; a firewall that drops it takes for ever.
const UNPROVEN_LIMIT: Duration = Duration::from_secs(10);

/// A data connection that is made, or that the server is to make.
#[derive(Debug)]
pub(super) enum Rendezvous {
    /// Passive mode.
    Connected(TcpStream),
    /// Active mode: the server connects here once it has the transfer command.
    Expected(TcpListener),
}

/// See `fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz_rendezvous(reply: &Reply) -> (Option<u16>, Option<SocketAddrV4>) {
    (epsv_port(reply), pasv_address(reply))
}

impl Host {
    /// How long a data connection may take, in a way that is `proven` or not.
    pub(super) fn connect_limit(&self, proven: Option<bool>) -> Duration {
        let limit = self.options().timeout;
        match proven {
            Some(true) => limit,
            _ => limit.min(UNPROVEN_LIMIT),
        }
    }
}

impl Session {
    /// Arranges the next data connection.
    pub(super) fn arrange(&mut self) -> Result<Rendezvous> {
        match self.host().options().data.clone() {
            DataMode::Passive => self.passive().map(Rendezvous::Connected),
            DataMode::Active { ports, address } => {
                self.active(ports, address).map(Rendezvous::Expected)
            }
        }
    }

    /// EPSV (RFC 2428 section 3), else PASV, which only IPv4 has.
    fn passive(&mut self) -> Result<TcpStream> {
        if let Some(stream) = self.take_ahead() {
            return Ok(stream);
        }
        // The control connection of a proxy leads to the proxy: nothing is known of the server's
        // address, and its name is all that is needed.
        let proxied = self.host().options().proxy.is_some();
        let peer = if proxied {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            self.control()?.peer_ip()?
        };
        let known = self.host().facts(|facts| facts.epsv);
        let mut failed = None;
        if peer.is_ipv6() || known != Some(false) {
            let reply = self.command(b"EPSV")?;
            match epsv_port(&reply) {
                Some(port) => match self.connect_data(SocketAddr::new(peer, port), known) {
                    Ok(stream) => {
                        self.host().facts(|facts| facts.epsv = Some(true));
                        return Ok(stream);
                    }
                    // A NAT box that does not understand EPSV opens no way for it.
                    Err(err) if peer.is_ipv6() || known == Some(true) => return Err(err),
                    Err(err) => failed = Some(err),
                },
                None if peer.is_ipv6() => return Err(not_arranged("EPSV", &reply)),
                None => {}
            }
        }
        let reply = self.command(b"PASV")?;
        if reply.code() == ENTERS_EXTENDED {
            // That answers the EPSV before it: the replies are one behind, and would stay so.
            let host = &self.host().options().host;
            let detail = format!("{host}: out of step: {}", reply.text());
            return Err(self.break_off(Error::new(ErrorKind::Disconnected, detail)));
        }
        let Some(named) = pasv_address(&reply) else {
            return Err(failed.unwrap_or_else(|| not_arranged("PASV", &reply)));
        };
        // Servers behind NAT name an address that leads nowhere; hostile ones name somebody else.
        let trusted = self.host().options().trust_pasv_address && !named.ip().is_unspecified();
        let ip = if trusted {
            IpAddr::V4(*named.ip())
        } else {
            peer
        };
        let stream = self.connect_data(SocketAddr::new(ip, named.port()), Some(true))?;
        self.host().facts(|facts| facts.epsv = Some(false));
        Ok(stream)
    }

    /// A way of connecting that is not proven yet leaves time for another.
    fn connect_data(&self, address: SocketAddr, proven: Option<bool>) -> Result<TcpStream> {
        let options = self.host().options();
        let limit = self.host().connect_limit(proven);
        if let Some(proxy) = &options.proxy {
            let named = address.ip().to_string();
            let host = if address.ip().is_unspecified() {
                &options.host
            } else {
                &named
            };
            let (port, bind) = (address.port(), options.bind);
            let deadline = Deadline::after(limit);
            return proxy
                .connect(host, port, bind, deadline, options.timeout)
                .map_err(|err| err.context("data connection"));
        }
        let began = Instant::now();
        let connected = net::connect(address, options.bind, limit)
            .and_then(|stream| net::tune(&stream, options.timeout).map(|()| stream));
        if connected.is_ok() {
            self.host().connected(began);
        }
        connected.map_err(|err| {
            net::failure(
                format_args!("{} ({address}): data connection", options.host),
                &err,
            )
        })
    }

    /// EPRT (RFC 2428 section 2), else PORT, which only IPv4 has.
    fn active(
        &mut self,
        ports: Option<(u16, u16)>,
        address: Option<IpAddr>,
    ) -> Result<TcpListener> {
        let local = self.control()?.local_ip()?;
        let listener = self.listen(local, ports)?;
        let port = listener
            .local_addr()
            .map_err(|err| Error::local("data port", &err))?
            .port();
        let announced = address.unwrap_or(local);
        if announced.is_ipv6() || self.host().facts(|facts| facts.eprt) != Some(false) {
            let family = if announced.is_ipv4() { 1 } else { 2 };
            let reply = self.command(format!("EPRT |{family}|{announced}|{port}|").as_bytes())?;
            if reply.is_ok() {
                self.host().facts(|facts| facts.eprt = Some(true));
                return Ok(listener);
            }
            if announced.is_ipv6() {
                return Err(not_arranged("EPRT", &reply));
            }
        }
        let IpAddr::V4(v4) = announced else {
            return Err(ErrorKind::Unsupported.into());
        };
        let [a, b, c, d] = v4.octets();
        let [high, low] = port.to_be_bytes();
        let reply = self.command(format!("PORT {a},{b},{c},{d},{high},{low}").as_bytes())?;
        if !reply.is_ok() {
            return Err(not_arranged("PORT", &reply));
        }
        self.host().facts(|facts| facts.eprt = Some(false));
        Ok(listener)
    }

    /// Listens on the next port of the range: one that was just in use is still known to the
    /// server's kernel and to firewalls.
    fn listen(&self, local: IpAddr, ports: Option<(u16, u16)>) -> Result<TcpListener> {
        let (first, last) = ports.unwrap_or((0, 0));
        let mut busy = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in first..=last {
            let port = self.host().facts(|facts| {
                let port = facts.active_port.clamp(first, last);
                facts.active_port = if port == last { first } else { port + 1 };
                port
            });
            match TcpListener::bind((local, port)) {
                Ok(listener) => return Ok(listener),
                Err(err) => busy = err,
            }
        }
        Err(Error::local(format_args!("ports {first}-{last}"), &busy))
    }

    /// Waits for the server's data connection. One from another address than the control
    /// connection's is somebody else's and is not taken.
    pub(super) fn accept(&self, listener: &TcpListener, deadline: Deadline) -> Result<TcpStream> {
        let peer = self.control()?.peer_ip()?;
        let limit = self.host().options().timeout;
        let accepted = || -> io::Result<TcpStream> {
            loop {
                SockRef::from(listener).set_read_timeout(Some(deadline.left()?))?;
                let (stream, from) = listener.accept()?;
                if from.ip().to_canonical() == peer {
                    net::tune(&stream, limit)?;
                    return Ok(stream);
                }
                log::warn!("data connection from {from} instead of {peer}: refused");
            }
        };
        accepted().map_err(|err| {
            net::failure(
                format_args!("{}: data connection", self.host().options().host),
                &err,
            )
        })
    }
}

/// No data connection, though the session is well.
fn not_arranged(command: &str, reply: &Reply) -> Error {
    let error = refusal(command, reply);
    Error::new(ErrorKind::Protocol, error.detail())
}

/// The port in `229 Entering Extended Passive Mode (|||6446|)`; any character may be the bar.
pub(super) fn epsv_port(reply: &Reply) -> Option<u16> {
    if !reply.is_ok() {
        return None;
    }
    let text = reply.first_line();
    let start = text.iter().position(|b| *b == b'(')?;
    let (bar, rest) = text.get(start + 1..)?.split_first()?;
    let mut fields = rest.split(|b| b == bar);
    // Protocol and address are empty by the rule, and ignored where they are not.
    let port = fields.nth(2)?;
    fields.next()?;
    number::<u16>(port).filter(|port| *port != 0)
}

/// The six numbers of `227 Entering Passive Mode (h1,h2,h3,h4,p1,p2)`, wherever they stand: RFC 959
/// does not say, and some servers leave the parentheses out (RFC 1123 section 4.1.2.6).
fn pasv_address(reply: &Reply) -> Option<SocketAddrV4> {
    if !reply.is_ok() {
        return None;
    }
    let text = reply.first_line();
    let fields: Vec<&[u8]> = text.split(|b| *b == b',').collect();
    fields.windows(6).find_map(|six| {
        let [first, h2, h3, h4, p1, last] = six else {
            return None;
        };
        let begin = first.iter().rposition(|b| !b.is_ascii_digit());
        let first = first.get(begin.map_or(0, |at| at + 1)..)?;
        let end = last.trim_ascii_start().iter();
        let end = end.take_while(|b| b.is_ascii_digit()).count();
        let last = last.trim_ascii_start().get(..end)?;
        let [a, b, c, d, high, low] = [first, h2, h3, h4, p1, last].map(number::<u8>);
        let port = u16::from_be_bytes([high?, low?]);
        let ip = Ipv4Addr::new(a?, b?, c?, d?);
        (port != 0).then(|| SocketAddrV4::new(ip, port))
    })
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let digits = digits.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn epsv() {
        for (text, port) in [
            ("229 Entering Extended Passive Mode (|||6446|)", Some(6446)),
            ("229 ok (!!!21!)", Some(21)),
            ("229 ok (|1|10.0.0.1|65535|)", Some(65535)),
            ("229 ok (|||0|)", None),
            ("229 ok (|||65536|)", None),
            ("229 ok (|||12", None),
            ("229 ok (|||-1|)", None),
            ("229 ok", None),
            ("229 (", None),
            ("500 (|||12|)", None),
        ] {
            assert_eq!(
                epsv_port(&reply(format!("{text}\r\n").as_bytes())),
                port,
                "{text}"
            );
        }
    }

    #[test]
    fn pasv() {
        for (text, address) in [
            (
                "227 Entering Passive Mode (127,0,0,1,4,1).",
                Some("127.0.0.1:1025"),
            ),
            (
                "227 Entering Passive Mode 10,0,0,7,200,16",
                Some("10.0.0.7:51216"),
            ),
            ("227 =10, 0, 0, 7, 0, 21", Some("10.0.0.7:21")),
            ("227 Hello, (1,2,3,4,5,6)", Some("1.2.3.4:1286")),
            ("227 (0,0,0,0,1,1)", Some("0.0.0.0:257")),
            ("227 (1,2,3,4,0,0)", None),
            ("227 (1,2,3,256,1,1)", None),
            ("227 (1,2,3,4,5)", None),
            ("227 (1,2,3,4,,6)", None),
            ("227 nothing", None),
            ("425 (1,2,3,4,5,6)", None),
        ] {
            let found = pasv_address(&reply(format!("{text}\r\n").as_bytes()));
            assert_eq!(found, address.and_then(|a| a.parse().ok()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in "[0-9,(|) a]{0,60}") {
            let reply = reply(format!("227 {junk}\r\n").as_bytes());
            let _ = (epsv_port(&reply), pasv_address(&reply));
        }
    }
}
