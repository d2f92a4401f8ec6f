//! Sockets with a time limit from birth, and what their errors mean; which certificates are trusted
//! ([`trust`]), proxies ([`proxy`]), and how a server on this machine is read ([`vigil`], [`awake`]).

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::vfs::error::{Error, ErrorKind, Result, words};

pub mod awake;
pub mod bandwidth;
pub mod certificate;
mod client_cert;
pub mod fingerprint;
mod known_hosts;
pub mod proxy;
mod tickets;
pub mod trust;
pub mod vigil;

pub use client_cert::ClientCert;

/// Idle time before the kernel asks whether the peer is still there: below the idle limits of the
/// usual NAT boxes, which forget a control connection while its data connection is busy.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// What the kernel takes of an upload to this machine ahead of its reader, in bytes; it counts double.
const LOCAL_AHEAD: usize = 128 << 10;

/// How fast such an upload is sent: at once.
const LOCAL_CONTROL: &str = "cubic";

/// The one place where a socket's error becomes an [`Error`]: `TimedOut` or `Disconnected`.
/// `what` names the peer or what was being done.
#[must_use]
pub fn failure(what: impl std::fmt::Display, err: &io::Error) -> Error {
    if is_timeout(err) {
        Error::new(ErrorKind::TimedOut, format!("{what}: no answer in time"))
    } else if let Some(refusal) = trust::refused_ours(err) {
        Error::new(ErrorKind::Untrusted, format!("{what}: {refusal}"))
    } else {
        Error::new(ErrorKind::Disconnected, format!("{what}: {}", words(err)))
    }
}

/// Whether `err` is a socket's time limit. That is EAGAIN on Linux, which must never reach a
/// program: it would try again for ever.
#[must_use]
pub fn is_timeout(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The end of a wait that may take several system calls.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// In `limit` from now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// The earlier of this one and `limit` from now.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self(self.0.min(Instant::now() + limit))
    }

    /// What is left, never zero.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when nothing is.
    pub fn left(self) -> io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // A socket takes zero for "no limit", and rounds down to microseconds.
        Ok(left.max(Duration::from_millis(1)))
    }
}

/// All addresses of `host` that `wanted` lets pass, in the resolver's order. The resolver cannot be
/// interrupted, so a slow one is left behind on a thread of its own.
///
/// # Errors
/// `Disconnected` if there is no such host or no such address, `TimedOut`.
pub fn resolve(
    host: &str,
    port: u16,
    wanted: impl Fn(&IpAddr) -> bool,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>> {
    let all = if let Ok(address) = host.parse::<IpAddr>() {
        vec![SocketAddr::new(address, port)]
    } else {
        let (answer, answered) = mpsc::channel();
        let name = host.to_owned();
        thread::Builder::new()
            .name("resolver".into())
            .spawn(move || {
                let found = (name.as_str(), port).to_socket_addrs();
                // Nobody listens any more after the time limit.
                let _ = answer.send(found.map(Iterator::collect::<Vec<_>>));
            })
            .map_err(|err| Error::local("resolver thread", &err))?;
        let limit = deadline.left().map_err(|err| failure(host, &err))?;
        match answered.recv_timeout(limit) {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(err)) => {
                return Err(Error::new(
                    ErrorKind::Disconnected,
                    format!("{host}: unknown host: {}", words(&err)),
                ));
            }
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("{host}: no answer from the name server in time"),
                ));
            }
        }
    };
    let addresses: Vec<_> = all.into_iter().filter(|a| wanted(&a.ip())).collect();
    if addresses.is_empty() {
        return Err(Error::new(
            ErrorKind::Disconnected,
            format!("{host}: no address of the wanted family"),
        ));
    }
    Ok(addresses)
}

fn socket_for(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(local) = bind {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    Ok(socket)
}

/// Connects to `address` within `limit`, which then is the time limit of each read and write.
///
/// # Errors
/// The socket's.
pub fn connect(
    address: SocketAddr,
    bind: Option<IpAddr>,
    limit: Duration,
) -> io::Result<TcpStream> {
    let socket = socket_for(address, bind)?;
    socket.connect_timeout(&address.into(), limit)?;
    let stream = socket.into();
    tune(&stream, limit)?;
    Ok(stream)
}

/// Begins to connect to `address`, without waiting; [`end_connect`] does.
///
/// # Errors
/// The socket's.
pub fn begin_connect(
    address: SocketAddr,
    bind: Option<IpAddr>,
    limit: Duration,
) -> io::Result<TcpStream> {
    let socket = socket_for(address, bind)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(err) if err.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(err);
        }
        _ => {}
    }
    let stream = socket.into();
    tune(&stream, limit)?;
    Ok(stream)
}

/// Waits until the connection is made, at most for `limit`.
///
/// # Errors
/// The socket's.
pub fn end_connect(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut socket = [PollFd::new(stream, PollFlags::OUT)];
    if poll(&mut socket, Some(&limit))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Some(err) = stream.take_error()? {
        return Err(err);
    }
    stream.set_nonblocking(false)
}

/// What comes next is acknowledged without delay. Linux forgets this again, so it is to be said
/// before each read that matters; where it is not known, things are only slower.
pub fn acknowledge_at_once(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

/// When it is closed, `stream` is reset, and what was not sent or not acknowledged goes with it: it
/// does not come to the peer minutes later.
pub fn take_back_unsent(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sets what every socket here has: no Nagle delay, keep-alive, and `limit` on reads, on writes
/// and on data that the peer does not acknowledge.
///
/// # Errors
/// The socket's.
pub fn tune(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(limit))
}

/// Whether the peer is on this machine.
#[must_use]
pub fn is_local(stream: &TcpStream) -> bool {
    let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
    let ours = stream.local_addr().map(|ours| ours.ip().to_canonical());
    peer.is_ok_and(|peer| peer.is_loopback() || ours.is_ok_and(|ours| ours == peer))
}

/// Prepares `stream` for a large content that is sent over it. On the way to a server on this
/// machine nothing can be under way: what the kernel takes beyond what is read at once gets cold,
/// and is passed on in the reader's time, who is the slowest of all. A link's pace (BBR) is not
/// kept either. Where that cannot be set, things are only slower.
pub fn tune_upload(stream: &TcpStream) {
    if is_local(stream) {
        let _ = SockRef::from(stream).set_send_buffer_size(LOCAL_AHEAD);
        let _ = rustix::net::sockopt::set_tcp_congestion(stream, LOCAL_CONTROL);
    }
}

/// Whether a read would not block: bytes wait, or the peer is gone.
///
/// # Errors
/// The socket's.
pub fn is_readable(stream: &TcpStream) -> io::Result<bool> {
    use rustix::net::{RecvFlags, recv};
    let mut byte = [0; 1];
    match recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// Whether the peer has closed or reset the connection, whatever it sent before.
///
/// # Errors
/// Of poll(2).
pub fn has_hung_up(stream: &TcpStream) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut socket = [PollFd::new(stream, PollFlags::RDHUP)];
    match poll(&mut socket, Some(&Timespec::default())) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!socket[0].revents().is_empty()),
        Err(err) => Err(err.into()),
    }
}

/// Waits until one of two sockets is readable, at most for `limit`; whether the second one is.
///
/// # Errors
/// Of poll(2).
pub fn wait_readable(
    first: &TcpStream,
    second: Option<&TcpStream>,
    limit: Duration,
) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut sockets = vec![PollFd::new(first, PollFlags::IN)];
    sockets.extend(second.map(|second| PollFd::new(second, PollFlags::IN)));
    match poll(&mut sockets, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(err) => return Err(err.into()),
    }
    Ok(sockets.get(1).is_some_and(|s| !s.revents().is_empty()))
}

/// Runs `work`, which uses `stream` with time limits for single reads only, and cuts the
/// connection at `deadline`: a peer that sends a byte now and then would hold it
/// for ever.
pub fn within<R>(stream: &TcpStream, deadline: Deadline, work: impl FnOnce() -> R) -> R {
    thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        let watch = move || {
            let limit = deadline.left().unwrap_or_default();
            if waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        };
        // Without a thread to spare the limits of the single reads must do.
        let _ = thread::Builder::new()
            .name("watch".into())
            .spawn_scoped(scope, watch);
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn a_socket_that_is_silent_times_out_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limit = Duration::from_millis(50);
        let mut stream = connect(listener.local_addr().unwrap(), None, limit).unwrap();
        assert!(!is_readable(&stream).unwrap());
        let err = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(failure("x", &err).kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn little_is_sent_ahead_to_this_machine() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = Duration::from_secs(1);
        let mut stream = connect(listener.local_addr().unwrap(), None, second).unwrap();
        tune_upload(&stream);
        let _peer = listener.accept().unwrap();
        assert_eq!(
            SockRef::from(&stream).send_buffer_size().unwrap(),
            2 * LOCAL_AHEAD
        );
        // Nobody reads: the rest of this has no place.
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(put) = io::Write::write(&mut stream, &[0; 64 << 10]) {
            sent += put;
        }
        assert!(sent < 4 << 20, "{sent}");
    }

    #[test]
    fn a_slow_peer_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = connect(
            listener.local_addr().unwrap(),
            None,
            Duration::from_secs(20),
        )
        .unwrap();
        let cut = stream.try_clone().unwrap();
        let before = Instant::now();
        let read = within(&cut, Deadline::after(Duration::from_millis(50)), || {
            stream.read(&mut [0; 1])
        });
        assert_eq!(read.unwrap(), 0);
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn addresses_are_filtered_by_family() {
        let second = Deadline::after(Duration::from_secs(1));
        let found = resolve("127.0.0.1", 21, IpAddr::is_ipv4, second);
        assert_eq!(found.unwrap(), ["127.0.0.1:21".parse().unwrap()]);
        let none = resolve("127.0.0.1", 21, IpAddr::is_ipv6, second);
        assert_eq!(none.unwrap_err().kind(), ErrorKind::Disconnected);
    }
}
