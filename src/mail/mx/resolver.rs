//! Asking name servers.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::MxError;
use super::packet::{self, Answer, Data, Kind, LARGEST_UDP};
use crate::net::Deadline;

/// Times each server is asked.
const ROUNDS: usize = 2;

/// Asks the machine's name servers.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    timeout: Duration,
}

impl Resolver {
    /// Asks `servers` in this order, each with this time limit.
    #[must_use]
    pub const fn new(servers: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { servers, timeout }
    }

    /// Asks the servers in `/etc/resolv.conf`, or the one on this machine.
    #[must_use]
    pub fn system() -> Self {
        let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self::new(servers(&text), Duration::from_secs(5))
    }

    /// The records of `kind` of `name`.
    pub(super) fn ask(&self, name: &str, kind: Kind) -> Result<Vec<Data>, MxError> {
        let mut trouble = "no name server is known".to_owned();
        let mut answered = false;
        for server in self
            .servers
            .iter()
            .cycle()
            .take(self.servers.len() * ROUNDS)
        {
            match self.ask_one(*server, name, kind) {
                Ok(Some(Answer::Records(records))) => return Ok(records),
                Ok(Some(Answer::NoName)) => return Err(MxError::NoDomain),
                Ok(Some(Answer::Failed(code))) => {
                    answered = true;
                    trouble = format!("name server {server} fails for {name} (code {code})");
                }
                Ok(Some(Answer::Truncated)) => {
                    answered = true;
                    trouble = format!("name server {server}: truncated over TCP");
                }
                Ok(Some(Answer::Nonsense)) => {
                    answered = true;
                    trouble = format!("name server {server}: nonsense about {name}");
                }
                Ok(None) => return Err(MxError::NoDomain),
                Err(err) => trouble = format!("name server {server}: {err}"),
            }
        }
        // Many say nothing where those they ask say nothing: that is the fault of one domain.
        Err(if answered || self.is_reached() {
            MxError::Unknown(trouble)
        } else {
            MxError::NoServer(trouble)
        })
    }

    /// Whether any server says anything, asked for what all of them know.
    fn is_reached(&self) -> bool {
        let mut servers = self.servers.iter();
        servers.any(|server| self.ask_one(*server, ".", Kind::A).is_ok())
    }

    /// `None`: that is no name.
    fn ask_one(&self, server: SocketAddr, name: &str, kind: Kind) -> io::Result<Option<Answer>> {
        let id = random_id()?;
        let Some(question) = packet::question(id, name, kind) else {
            return Ok(None);
        };
        let deadline = Deadline::after(self.timeout);
        let read = |bytes: &[u8]| packet::answer(bytes, id, name, kind);
        match over_udp(server, &question, deadline, read)? {
            Answer::Truncated => over_tcp(server, &question, deadline)
                .and_then(|bytes| read(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into()))
                .map(Some),
            answer => Ok(Some(answer)),
        }
    }
}

/// A new socket for each question: its port is random too, and only `server` can answer.
fn over_udp(
    server: SocketAddr,
    question: &[u8],
    deadline: Deadline,
    read: impl Fn(&[u8]) -> Option<Answer>,
) -> io::Result<Answer> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = [0; LARGEST_UDP as usize];
    loop {
        socket.set_read_timeout(Some(deadline.left()?))?;
        let length = socket.recv(&mut buffer)?;
        // What is no answer to this question came from somebody else.
        if let Some(answer) = read(buffer.get(..length).unwrap_or_default()) {
            return Ok(answer);
        }
    }
}

fn over_tcp(server: SocketAddr, question: &[u8], deadline: Deadline) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, deadline.left()?)?;
    stream.set_write_timeout(Some(deadline.left()?))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    fill(&mut stream, &mut length, deadline)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    fill(&mut stream, &mut packet, deadline)?;
    Ok(packet)
}

fn fill(stream: &mut TcpStream, mut room: &mut [u8], deadline: Deadline) -> io::Result<()> {
    while !room.is_empty() {
        stream.set_read_timeout(Some(deadline.left()?))?;
        let read = stream.read(room)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        room = room.get_mut(read..).unwrap_or_default();
    }
    Ok(())
}

fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u16::from_ne_bytes(bytes))
}

/// The servers that a `resolv.conf` names (resolv.conf(5): at most three).
fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        // A scope (fe80::1%eth0) is more than we can say.
        words.next()?.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<_> = named.take(3).map(|ip| SocketAddr::new(ip, 53)).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
    }
    servers
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# nameserver 9.9.9.9\nsearch a.b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 #x\n\
                    nameserver fe80::1%eth0\nnameservers 192.0.2.9\n";
        let found: Vec<_> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(servers("")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn a_server_that_answers_nonsense_or_nothing_is_given_up() {
        let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = deaf.local_addr().unwrap();
        let liar = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..ROUNDS {
                let (length, from) = deaf.recv_from(&mut buffer).unwrap();
                deaf.send_to(&buffer[..length], from).unwrap();
                deaf.send_to(b"x", from).unwrap();
            }
        });
        let resolver = Resolver::new(vec![address], Duration::from_millis(50));
        assert!(
            resolver
                .ask("example.org", Kind::Mx)
                .unwrap_err()
                .is_temporary()
        );
        liar.join().unwrap();
        assert_eq!(resolver.ask("a..b", Kind::Mx), Err(MxError::NoDomain));
    }

    /// A name server that says `answer` to what it is asked about a domain, or nothing, and knows
    /// the root.
    fn server(answer: &'static [u8]) -> Resolver {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut packet = buffer[..length - 11].to_vec();
                packet[2..4].copy_from_slice(&[0x81, 0x80]);
                packet[10..12].copy_from_slice(&[0, 0]);
                let is_root = packet[12] == 0;
                packet[7] = u8::from(!is_root);
                packet.extend(answer);
                if is_root || !answer.is_empty() {
                    socket.send_to(&packet, from).unwrap();
                }
            }
        });
        Resolver::new(vec![address], Duration::from_millis(100))
    }

    #[test]
    fn what_is_wrong_with_one_domain_is_no_fault_of_the_name_server() {
        for answer in [&b""[..], b"\xc0\x0c\x00"] {
            let asked = server(answer).ask("example.org", Kind::Mx);
            assert!(matches!(asked, Err(MxError::Unknown(_))), "{asked:?}");
        }
        let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver = Resolver::new(vec![deaf.local_addr().unwrap()], Duration::from_millis(50));
        let asked = resolver.ask("example.org", Kind::Mx);
        assert!(matches!(asked, Err(MxError::NoServer(_))), "{asked:?}");
    }
}
