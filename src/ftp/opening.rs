//! Opening a control connection: address, greeting, TLS. This is where suppaftp works, for as long as
//! nothing is known of the server ([`at_once`](super::at_once)).
//!
//! suppaftp reads the greeting and does the AUTH TLS exchange, but not where TLS comes first; then
//! the bare connection is taken out of it. Past that point it would be in the way: its reader ends a
//! reply at any three digits, its limits are per read, its transfers read replies behind one's back
//! in `Drop` and hang after ABOR, its FEAT loses lines, and nothing of it can be pipelined. So
//! commands, replies and data connections are our own ([`control`](super::control),
//! [`data`](super::data)).

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use suppaftp::{FtpError, ImplFtpStream};

use super::connector::{Borrowed, Connector};
use super::control::{Channel, Control};
use super::host::Host;
use super::options::{Family, TlsMode};
use super::refusal::is_crowded;
use super::reply::{Replies, Reply};
use super::tls::TlsStream;
use crate::net::trust::TlsIdentity;
use crate::net::{self, Deadline};
use crate::vfs::error::{Error, ErrorKind, Result};

/// Why there is no session.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The server has enough connections; with fewer it would work.
    pub(super) crowded: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            crowded: false,
        }
    }
}

impl Failure {
    /// The server's refusal before there is a session.
    pub(super) fn refused(host: &str, kind: ErrorKind, reply: &Reply) -> Self {
        Self {
            error: Error::new(kind, format!("{host}: {}", reply.text())),
            crowded: is_crowded(reply),
        }
    }
}

/// A control connection before login.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) control: Control,
    pub(super) tls: Option<Arc<TlsIdentity>>,
    /// PBSZ and PROT were refused and may be asked for again after login.
    pub(super) unprotected: bool,
    pub(super) greeting: Option<String>,
}

/// Connects, unless that was `dialed` already, and secures the connection as the options and what is
/// known of the host demand.
pub(super) fn open(
    host: &Host,
    number: u64,
    dialed: Option<TcpStream>,
    deadline: Deadline,
) -> std::result::Result<Opened, Failure> {
    let secured = host.facts(|facts| facts.tls);
    match (host.options().tls, secured) {
        (TlsMode::Implicit, _) => implicit(host, number, dialed, deadline),
        (TlsMode::Off, _) | (TlsMode::Auto, Some(false)) => plain(host, number, dialed, deadline),
        (TlsMode::Explicit, _) | (TlsMode::Auto, Some(true)) => {
            match explicit(host, number, dialed, deadline)? {
                Explicit::Secured(opened) => Ok(*opened),
                Explicit::Declined(reply, _) => {
                    let host = format!("{}: no TLS", host.options().host);
                    Err(Failure::refused(&host, ErrorKind::Untrusted, &reply))
                }
            }
        }
        (TlsMode::Auto, None) => match explicit(host, number, dialed, deadline)? {
            Explicit::Secured(opened) => Ok(*opened),
            // The same connection goes on: a server with room for one has none for the next before
            // it has noticed that this one is gone.
            Explicit::Declined(reply, opened) => {
                let name = &host.options().host;
                // Another session may have got it meanwhile.
                let secured = host.facts(|facts| *facts.tls.get_or_insert(false));
                if secured {
                    let host = format!("{name}: no TLS");
                    return Err(Failure::refused(&host, ErrorKind::Untrusted, &reply));
                }
                log::info!("{name}: no TLS ({}), going on in clear text", reply.text());
                Ok(*opened)
            }
        },
    }
}

fn plain(
    host: &Host,
    number: u64,
    dialed: Option<TcpStream>,
    deadline: Deadline,
) -> std::result::Result<Opened, Failure> {
    let (client, greeting) = greeted(host, dialed, deadline)?;
    let tcp = client
        .get_ref()
        .try_clone()
        .map_err(|err| net::failure(&host.options().host, &err))?;
    Ok(on_plain(host, number, tcp, greeting))
}

fn on_plain(host: &Host, number: u64, tcp: TcpStream, greeting: Option<String>) -> Opened {
    Opened {
        control: Control::new(Channel::Plain(tcp), number, &host.options().host),
        tls: None,
        unprotected: false,
        greeting,
    }
}

/// What became of AUTH TLS.
enum Explicit {
    Secured(Box<Opened>),
    /// The server's words, and the connection as it was.
    Declined(Reply, Box<Opened>),
}

fn explicit(
    host: &Host,
    number: u64,
    dialed: Option<TcpStream>,
    deadline: Deadline,
) -> std::result::Result<Explicit, Failure> {
    let options = host.options();
    let identity = host.tls_identity()?;
    let (client, greeting) = greeted(host, dialed, deadline)?;
    let watched = client
        .get_ref()
        .try_clone()
        .map_err(|err| net::failure(&options.host, &err))?;
    let connector = Connector::new(Arc::clone(&identity), options.timeout);
    let handover = Arc::clone(&connector.handover);
    let secured = net::within(&watched, deadline, || {
        client.into_secure(connector, &options.host).map(drop)
    });
    let Some(stream) = handover.take()? else {
        return match secured {
            Err(FtpError::UnexpectedResponse(response)) => {
                let reply = parse(&response.body);
                match reply {
                    Some(reply) if reply.code() >= 500 && !reply.is_farewell() => {
                        let opened = on_plain(host, number, watched, greeting);
                        Ok(Explicit::Declined(reply, Box::new(opened)))
                    }
                    Some(reply) => Err(Failure::refused(
                        &options.host,
                        ErrorKind::Disconnected,
                        &reply,
                    )),
                    None => Err(incomprehensible(&options.host).into()),
                }
            }
            Err(err) => Err(broken(&options.host, err).into()),
            Ok(()) => Err(incomprehensible(&options.host).into()),
        };
    };
    let unprotected = match secured {
        Ok(()) => false,
        // Some servers want the login first.
        Err(FtpError::UnexpectedResponse(_)) => true,
        Err(err) => return Err(broken(&options.host, err).into()),
    };
    Ok(Explicit::Secured(Box::new(secure(
        host,
        number,
        stream,
        identity,
        unprotected,
        greeting,
    ))))
}

/// suppaftp's way would end a greeting at any line that begins with a number, and takes no 120.
fn implicit(
    host: &Host,
    number: u64,
    dialed: Option<TcpStream>,
    deadline: Deadline,
) -> std::result::Result<Opened, Failure> {
    let options = host.options();
    let identity = host.tls_identity()?;
    let tcp = dialed.map_or_else(|| dial(host, deadline), Ok)?;
    let limit = deadline
        .left()
        .map_err(|err| net::failure(&options.host, &err))?;
    let stream = TlsStream::connect(&identity, tcp, limit.min(options.timeout))
        .map_err(|err| identity.failure(&err))?;
    identity.confirm()?;
    // PBSZ and PROT are left to us here.
    let mut opened = secure(host, number, stream, identity, true, None);
    let greeting = opened.control.final_reply(deadline)?;
    if greeting.code() != 220 {
        let kind = ErrorKind::Disconnected;
        return Err(Failure::refused(&options.host, kind, &greeting));
    }
    opened.greeting = headline(&greeting);
    Ok(opened)
}

fn secure(
    host: &Host,
    number: u64,
    stream: TlsStream,
    identity: Arc<TlsIdentity>,
    unprotected: bool,
    greeting: Option<String>,
) -> Opened {
    host.facts(|facts| facts.tls = Some(true));
    Opened {
        control: Control::new(Channel::Tls(Box::new(stream)), number, &host.options().host),
        tls: Some(identity),
        unprotected,
        greeting,
    }
}

/// A connected client that has read a greeting of 220, and that greeting.
fn greeted(
    host: &Host,
    dialed: Option<TcpStream>,
    deadline: Deadline,
) -> std::result::Result<(ImplFtpStream<Borrowed>, Option<String>), Failure> {
    let options = host.options();
    let tcp = dialed.map_or_else(|| dial(host, deadline), Ok)?;
    let reply = await_greeting(&tcp, deadline).map_err(|err| match err.kind() {
        io::ErrorKind::InvalidData => Error::new(
            ErrorKind::Protocol,
            format!("{}: not an FTP server: {err}", options.host),
        ),
        io::ErrorKind::UnexpectedEof => Error::new(
            ErrorKind::Disconnected,
            format!("{}: hung up without a greeting", options.host),
        ),
        _ => net::failure(&options.host, &err),
    })?;
    if reply.code() != 220 {
        return Err(Failure::refused(
            &options.host,
            ErrorKind::Disconnected,
            &reply,
        ));
    }
    let client =
        ImplFtpStream::connect_with_stream(tcp).map_err(|err| broken(&options.host, err))?;
    let first = String::from_utf8_lossy(reply.first_line())
        .trim()
        .to_owned();
    Ok((client, (!first.is_empty()).then_some(first)))
}

/// Connects to the address that worked before, or to the first that works.
pub(super) fn dial(host: &Host, deadline: Deadline) -> Result<TcpStream> {
    let options = host.options();
    let family = |ip: &std::net::IpAddr| match options.family {
        Family::Any => options
            .bind
            .is_none_or(|bind| bind.is_ipv4() == ip.is_ipv4()),
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
    };
    if let Some(proxy) = &options.proxy {
        let (host, port, bind) = (&options.host, options.port, options.bind);
        return proxy.connect(host, port, bind, deadline, options.timeout);
    }
    let mut failed = None;
    if let Some(pinned) = host.facts(|facts| facts.address) {
        match connect(pinned, host, deadline, 2) {
            Ok(tcp) => return Ok(tcp),
            Err(err) => failed = Some((pinned, err)),
        }
    }
    let addresses = net::resolve(&options.host, options.port, family, deadline)?;
    for (tried, address) in addresses.iter().enumerate() {
        if failed.as_ref().is_some_and(|(failed, _)| failed == address) {
            continue;
        }
        // A dead first address must not use up the time of the others.
        match connect(*address, host, deadline, addresses.len() - tried) {
            Ok(tcp) => {
                host.facts(|facts| facts.address = Some(*address));
                return Ok(tcp);
            }
            Err(err) => failed = Some((*address, err)),
        }
    }
    Err(match failed {
        Some((address, err)) => net::failure(
            format_args!("{} ({address}): cannot connect", options.host),
            &err,
        ),
        None => incomprehensible(&options.host),
    })
}

fn connect(
    address: std::net::SocketAddr,
    host: &Host,
    deadline: Deadline,
    share: usize,
) -> io::Result<TcpStream> {
    let options = host.options();
    let share = u32::try_from(share).unwrap_or(u32::MAX).max(1);
    let began = Instant::now();
    let tcp = net::connect(address, options.bind, deadline.left()? / share)?;
    host.connected(began);
    let here = options.proxy.is_none() && net::is_local(&tcp);
    host.facts(|facts| facts.on_this_machine = here);
    net::tune(&tcp, options.timeout)?;
    Ok(tcp)
}

/// Waits for the greeting and leaves nothing but its last line in the socket, for suppaftp, which
/// takes neither `120 in a minute` nor lines that begin with other numbers. A refusal is left whole.
fn await_greeting(tcp: &TcpStream, deadline: Deadline) -> io::Result<Reply> {
    let mut replies = Replies::default();
    let mut seen = vec![0; 8192];
    loop {
        tcp.set_read_timeout(Some(deadline.left()?))?;
        let got = tcp.peek(&mut seen)?;
        let peeked = seen.get(..got).unwrap_or_default();
        let Some(end) = peeked.iter().position(|b| *b == b'\n') else {
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if got == seen.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "endless line"));
            }
            if net::has_hung_up(tcp)? && tcp.peek(&mut seen)? == got {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Half a line: a peek returns it at once, again and again.
            std::thread::sleep(deadline.left()?.min(Duration::from_millis(10)));
            continue;
        };
        let line = peeked.get(..=end).unwrap_or_default();
        replies.push(line);
        let reply = replies
            .next()
            .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err.0))?;
        match reply {
            Some(reply) if !reply.is_preliminary() => {
                tcp.set_read_timeout(Some(deadline.left()?))?;
                return Ok(reply);
            }
            _ => {
                let mut tcp = tcp;
                tcp.read_exact(seen.get_mut(..=end).unwrap_or_default())?;
            }
        }
    }
}

pub(super) fn headline(greeting: &Reply) -> Option<String> {
    let first = String::from_utf8_lossy(greeting.first_line());
    let first = first.trim();
    (!first.is_empty()).then(|| first.to_owned())
}

/// A reply that suppaftp read, which may have lost its line end.
fn parse(text: &[u8]) -> Option<Reply> {
    let mut replies = Replies::default();
    replies.push(text);
    replies.push(b"\r\n");
    replies.next().ok().flatten()
}

fn broken(host: &str, err: FtpError) -> Error {
    match err {
        FtpError::ConnectionError(err) => net::failure(host, &err),
        err => Error::new(ErrorKind::Disconnected, format!("{host}: {err}")),
    }
}

fn incomprehensible(host: &str) -> Error {
    Error::new(
        ErrorKind::Disconnected,
        format!("{host}: connection failed"),
    )
}
