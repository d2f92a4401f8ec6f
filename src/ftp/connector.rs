//! The connector that suppaftp makes TLS with: our configuration, our stream, and a way to take the
//! stream out again when suppaftp is done.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use suppaftp::FtpError;

use super::tls::TlsStream;
use crate::net::trust::TlsIdentity;
use crate::vfs::error::Result;

/// What [`Connector`] leaves for us: the TLS connection that suppaftp uses, or why there is none.
#[derive(Debug, Default)]
pub(super) struct Handover(Mutex<Option<Result<Arc<Mutex<TlsStream>>>>>);

impl Handover {
    fn put(&self, made: Result<Arc<Mutex<TlsStream>>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    }

    /// The connection itself, if a handshake was tried. suppaftp must be done with it.
    pub(super) fn take(&self) -> Result<Option<TlsStream>> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(made
            .transpose()?
            .and_then(Arc::into_inner)
            .map(|stream| stream.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// suppaftp's way to TLS, with our configuration and our stream.
#[derive(Debug)]
pub(super) struct Connector {
    identity: Arc<TlsIdentity>,
    limit: Duration,
    pub(super) handover: Arc<Handover>,
}

impl Connector {
    pub(super) fn new(identity: Arc<TlsIdentity>, limit: Duration) -> Self {
        Self {
            identity,
            limit,
            handover: Arc::default(),
        }
    }
}

impl suppaftp::TlsConnector for Connector {
    type Stream = Borrowed;

    fn connect(&self, _domain: &str, tcp: TcpStream) -> suppaftp::FtpResult<Borrowed> {
        let made = tcp.try_clone().and_then(|clone| {
            let stream = TlsStream::connect(&self.identity, tcp, self.limit)?;
            Ok((clone, Arc::new(Mutex::new(stream))))
        });
        match made {
            Ok((tcp, stream)) => {
                if let Err(err) = self.identity.confirm() {
                    self.handover.put(Err(err));
                    let refused = io::Error::from(io::ErrorKind::PermissionDenied);
                    return Err(FtpError::ConnectionError(refused));
                }
                self.handover.put(Ok(Arc::clone(&stream)));
                Ok(Borrowed {
                    tcp,
                    shared: Shared(stream),
                })
            }
            Err(err) => {
                self.handover.put(Err(self.identity.failure(&err)));
                Err(FtpError::ConnectionError(err))
            }
        }
    }
}

/// The TLS connection as suppaftp holds it until it is taken out.
#[derive(Debug)]
pub(super) struct Borrowed {
    tcp: TcpStream,
    shared: Shared,
}

/// A handle on the TLS connection.
#[derive(Debug)]
pub(super) struct Shared(Arc<Mutex<TlsStream>>);

impl suppaftp::TlsStream for Borrowed {
    type InnerStream = Shared;

    fn tcp_stream(self) -> suppaftp::FtpResult<TcpStream> {
        Ok(self.tcp)
    }

    fn get_ref(&self) -> &TcpStream {
        &self.tcp
    }

    fn mut_ref(&mut self) -> &mut Shared {
        &mut self.shared
    }
}

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.read(buf)
    }
}

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.flush()
    }
}
