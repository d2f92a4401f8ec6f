//! TLS over one socket, made for FTP: the handshake happens when it is asked for, the end of data
//! is told from a cut connection, and closing reads on until the peer has closed too.
//!
//! The last is what keeps uploads alive under TLS 1.3. Tickets are single use there; servers send
//! new ones on each data connection; on an upload nobody would read them. vsftpd then refuses the
//! third upload with 522 and hangs up.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};

use crate::net::trust::TlsIdentity;
use crate::net::vigil::Vigil;
use crate::net::{self, Deadline};

/// What is read of a socket at once. rustls asks for 4 KiB at a time, five system calls a record.
const READ_AT_ONCE: usize = 128 << 10;

/// Reads of a connection before which what comes is to be acknowledged at once: those of a handshake
/// and of a small content. A stream in bulk is acknowledged anyway.
const EARLY_READS: u8 = 16;

/// Who reads no more than this into one buffer is served as things come.
const LITTLE: usize = 16 << 10;

/// What came of a socket and was not taken yet.
#[derive(Debug, Default)]
struct Incoming {
    /// Made when data comes in bulk.
    bytes: Vec<u8>,
    taken: usize,
    filled: usize,
}

impl Incoming {
    const fn is_empty(&self) -> bool {
        self.taken == self.filled
    }

    /// Reads from `tcp` what a later call may take.
    fn fill(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; READ_AT_ONCE];
        }
        (self.taken, self.filled) = (0, 0);
        self.filled = tcp.read(&mut self.bytes)?;
        Ok(())
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let there = self.bytes.get(self.taken..self.filled).unwrap_or_default();
        let count = there.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

/// A TLS connection, handshake done.
#[derive(Debug)]
pub(super) struct TlsStream {
    tcp: TcpStream,
    incoming: Incoming,
    tls: ClientConnection,
    clean_eof: bool,
    early_reads: u8,
    vigil: Vigil,
}

impl TlsStream {
    /// Makes the handshake within `limit`, which stays the time limit of each read and write.
    pub(super) fn connect(
        identity: &TlsIdentity,
        tcp: TcpStream,
        limit: Duration,
    ) -> io::Result<Self> {
        let tls = ClientConnection::new(Arc::clone(&identity.config), identity.name.clone())
            .map_err(io::Error::other)?;
        let mut stream = Self {
            vigil: Vigil::of(&tcp),
            tcp,
            incoming: Incoming::default(),
            tls,
            clean_eof: false,
            early_reads: EARLY_READS,
        };
        let deadline = Deadline::after(limit);
        let done = stream.shake_hands(deadline);
        stream.tcp.set_read_timeout(Some(limit))?;
        done.map(|()| stream)
    }

    fn shake_hands(&mut self, deadline: Deadline) -> io::Result<()> {
        loop {
            self.send()?;
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            self.tcp.set_read_timeout(Some(deadline.left()?))?;
            self.hasten();
            if self.tls.read_tls(&mut self.tcp)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.process()?;
        }
    }

    /// A server that sends tickets, a small content and close_notify one by one waits before each
    /// until the one before is acknowledged (Nagle): 40 ms, as our kernel has nothing to send.
    fn hasten(&mut self) {
        if self.early_reads > 0 {
            self.early_reads -= 1;
            net::acknowledge_at_once(&self.tcp);
        }
    }

    /// The socket, for its time limits and addresses.
    pub(super) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether the peer said close_notify before the end of data.
    pub(super) const fn clean_eof(&self) -> bool {
        self.clean_eof
    }

    /// Whether the server did not resume the session of the control connection: those that insist
    /// on it refuse the transfer.
    pub(super) fn is_full_handshake(&self) -> bool {
        self.tls.handshake_kind() != Some(HandshakeKind::Resumed)
    }

    pub(super) fn is_tls13(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether a read would give data or the end of it at once. Takes in what the socket has, so
    /// that mere tickets are not taken for data.
    pub(super) fn is_readable(&mut self) -> io::Result<bool> {
        while !self.incoming.is_empty() || net::is_readable(&self.tcp)? {
            let read = if self.incoming.is_empty() {
                self.tls.read_tls(&mut self.tcp)?
            } else {
                self.tls.read_tls(&mut self.incoming)?
            };
            let state = self.tls.process_new_packets().map_err(invalid)?;
            if read == 0 || state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All is sent: says so, and takes note of what the peer still has to say (its tickets) until
    /// it closes, or until `patience` is over.
    pub(super) fn close(&mut self, patience: Duration) -> io::Result<()> {
        self.tls.send_close_notify();
        self.send()?;
        self.tcp.shutdown(Shutdown::Write)?;
        let deadline = Deadline::after(patience);
        let mut rest = [0; 4096];
        while let Ok(left) = deadline.left() {
            self.tcp.set_read_timeout(Some(left))?;
            match self.read(&mut rest) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Ends TLS and goes on in clear text (RFC 4217 section 12.3): says so, and waits until the
    /// server has said so too.
    pub(super) fn into_clear(mut self, limit: Duration) -> io::Result<TcpStream> {
        self.tls.send_close_notify();
        self.send()?;
        let deadline = Deadline::after(limit);
        let mut rest = [0; 64];
        loop {
            self.tcp.set_read_timeout(Some(deadline.left()?))?;
            if self.read(&mut rest)? == 0 {
                break;
            }
        }
        if !self.clean_eof {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.tcp.set_read_timeout(Some(limit))?;
        Ok(self.tcp)
    }

    /// Hands rustls what comes next of the socket; `in_bulk`, more is read of it than that.
    fn take_in(&mut self, in_bulk: bool) -> io::Result<()> {
        if self.incoming.is_empty() {
            self.hasten();
            if !in_bulk {
                return self.tls.read_tls(&mut self.tcp).map(drop);
            }
            self.vigil.keep(&self.tcp);
            self.incoming.fill(&mut self.tcp)?;
        }
        self.tls.read_tls(&mut self.incoming).map(drop)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }

    fn process(&mut self) -> io::Result<()> {
        if let Err(err) = self.tls.process_new_packets() {
            // The alert that tells the peer why; it matters less than the reason itself.
            let _ = self.send();
            return Err(invalid(err));
        }
        Ok(())
    }
}

fn invalid(err: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Ok(0) if !buf.is_empty() => {
                    self.clean_eof = true;
                    return Ok(0);
                }
                // Without close_notify: many FTP servers never send it. The caller compares sizes.
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            match self.take_in(buf.len() > LITTLE) {
                Ok(()) => self.process()?,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(err),
            }
            // Answers to key updates.
            self.send()?;
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.tls.writer().write(buf)?;
        self.send()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
