//! Connections to mail servers: TLS from the first octet (RFC 8314), TLS on request (STLS,
//! STARTTLS), or clear text where the user insists.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use super::failure::{Class, Failure, Result};
use crate::net::proxy::Proxy;
use crate::net::trust::{Shown, TlsIdentity, TlsOptions, Trust, needs_the_user};
use crate::net::{self, Deadline};
use crate::vfs::error::ErrorKind;

/// Whether and when a connection is encrypted. There is no "if offered": who can cut the offer out
/// reads the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first octet: ports 995 and 465.
    Implicit,
    /// Clear text up to STLS or STARTTLS, which must succeed: ports 110 and 587.
    Upgrade,
    /// Clear text (`tls=off`).
    Off,
}

/// A server and how to reach it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Host name or address, as typed; the certificate must be for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is used.
    pub security: Security,
    /// Which certificates are trusted, and which TLS is spoken.
    pub trust: Box<TlsOptions>,
    /// The way to it.
    pub proxy: Option<Proxy>,
    /// Time limit of one wait for the server.
    pub timeout: Duration,
    /// Local address to connect from.
    pub bind: Option<IpAddr>,
}

/// Opens connections to one [`Endpoint`].
#[derive(Debug)]
pub struct Connector {
    endpoint: Endpoint,
    tls: Option<TlsIdentity>,
    /// Known already; else the host is looked up.
    addresses: Option<Vec<SocketAddr>>,
}

impl Connector {
    /// Loads what TLS needs; nothing is connected yet.
    ///
    /// # Errors
    /// `Account` for a host or a `cafile=` that TLS cannot use.
    pub fn new(endpoint: Endpoint) -> Result<Self> {
        let tls = if endpoint.security == Security::Off {
            None
        } else {
            let trust = Arc::new(Trust::load(&endpoint.trust)?);
            Some(trust.identity(&endpoint.host, endpoint.port, false)?)
        };
        Ok(Self {
            endpoint,
            tls,
            addresses: None,
        })
    }

    /// The same, to these addresses (RFC 5321 section 5.1: the DNS knows them, and no other source
    /// of names is to be asked).
    #[must_use]
    pub fn at(mut self, addresses: Vec<SocketAddr>) -> Self {
        self.addresses = Some(addresses);
        self
    }

    /// The server.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The certificate the server showed last.
    #[must_use]
    pub fn shown(&self) -> Option<Shown> {
        self.tls.as_ref()?.shown()
    }

    /// Connects to the first address that answers, handshake of implicit TLS included.
    ///
    /// # Errors
    /// `Transient` if nothing answers, `Account` if the certificate is refused.
    pub fn connect(&self) -> Result<Wire> {
        let Endpoint {
            host,
            port,
            timeout,
            bind,
            security,
            ..
        } = &self.endpoint;
        let wanted = |ip: &IpAddr| bind.is_none_or(|local| local.is_ipv4() == ip.is_ipv4());
        if let Some(proxy) = &self.endpoint.proxy {
            let deadline = Deadline::after(*timeout);
            let wire = Wire::Plain(proxy.connect(host, *port, *bind, deadline, *timeout)?);
            return match security {
                Security::Implicit => self.secure(wire),
                Security::Upgrade | Security::Off => Ok(wire),
            };
        }
        let mut failed = None;
        let addresses = match &self.addresses {
            Some(known) => known.clone(),
            None => net::resolve(host, *port, wanted, Deadline::after(*timeout))?,
        };
        for address in addresses {
            match net::connect(address, *bind, *timeout) {
                Ok(tcp) => {
                    let wire = Wire::Plain(tcp);
                    return match security {
                        Security::Implicit => self.secure(wire),
                        Security::Upgrade | Security::Off => Ok(wire),
                    };
                }
                Err(err) => failed = Some(net::failure(format_args!("{host} ({address})"), &err)),
            }
        }
        Err(failed.map_or_else(
            || Failure::new(Class::Transient, format!("{host}: no address")),
            Failure::from,
        ))
    }

    /// Makes the TLS handshake on a connection in clear text, within the time limit.
    ///
    /// # Errors
    /// `Account` if the certificate is refused; `Transient`, `Protocol`.
    pub fn secure(&self, wire: Wire) -> Result<Wire> {
        let (Some(tls), Wire::Plain(mut tcp)) = (&self.tls, wire) else {
            return Err(Failure::new(
                Class::Protocol,
                format!("{}: TLS was not asked for", self.endpoint.host),
            ));
        };
        let host = &self.endpoint.host;
        let mut session = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(|err| Failure::new(Class::Protocol, format!("{host}: TLS: {err}")))?;
        let cut = tcp.try_clone().map_err(|err| Failure::local(host, &err))?;
        net::within(&cut, Deadline::after(self.endpoint.timeout), || {
            while session.is_handshaking() {
                session.complete_io(&mut tcp)?;
            }
            Ok(())
        })
        .map_err(|err: io::Error| {
            let failure = tls.failure(&err);
            // What is no fault of the certificate, or of the port, may be better next time.
            if failure.kind() == ErrorKind::Untrusted && !needs_the_user(&err) {
                return Failure::new(Class::Protocol, failure.detail());
            }
            failure.into()
        })?;
        tls.confirm()?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(session, tcp))))
    }
}

/// A connection, clear or encrypted. Each read and write has the endpoint's time limit.
#[derive(Debug)]
pub enum Wire {
    /// Clear text.
    Plain(TcpStream),
    /// Encrypted, the server's name verified.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Whether what is sent cannot be read on the way.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    const fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// Something another thread can end this connection with.
    ///
    /// # Errors
    /// The system call's.
    pub fn cutter(&self) -> io::Result<Cutter> {
        self.tcp().try_clone().map(Cutter)
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(buf),
            Self::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// Ends a connection that another thread waits on.
#[derive(Debug)]
pub struct Cutter(TcpStream);

impl Cutter {
    /// Ends it: the other thread's read fails at once.
    pub fn cut(&self) {
        // It may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
