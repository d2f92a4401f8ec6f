//! Data connections: opened by EPSV, PASV, EPRT or PORT, in clear or over TLS.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::vfs::error::{ErrorKind, Result};

/// One open data connection. Ended through [`Session::end_data`](super::session::Session::end_data)
/// or [`Session::close_early`](super::session::Session::close_early); if it is only dropped, its
/// session is out of step and thrown away when it is returned.
#[derive(Debug)]
pub struct DataConnection {
    clean_eof: bool,
}

impl DataConnection {
    /// Sends `len` bytes of `file` from `offset`: with `sendfile(2)` in clear, through a buffer
    /// over TLS. The file's own position is neither used nor moved.
    ///
    /// # Errors
    /// `TimedOut` or `Disconnected` of the connection; `Local` if the file cannot be read or is
    /// shorter than that.
    pub fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let _ = (file, offset, len);
        Err(ErrorKind::Unsupported.into())
    }

    /// Whether the end of data that `read` told was certain: TLS with close_notify. In clear text,
    /// and without close_notify, a cut connection looks the same as the end: then only a 226 and
    /// the right size prove that all has come.
    #[must_use]
    pub const fn clean_eof(&self) -> bool {
        self.clean_eof
    }
}

/// Errors are those of the socket, with time-outs as [`io::ErrorKind::TimedOut`];
/// [`net::failure`](crate::net::failure) makes an `Error` of them.
impl Read for DataConnection {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Write for DataConnection {
    fn write(&mut self, _buf: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
