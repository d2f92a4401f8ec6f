//! Data connections: one content or one listing, in clear or over TLS.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deflate::{Deflater, Inflater};
use super::host::Host;
use super::mode::{HEAD, Passed, suffix_of};
use super::options::FtpOptions;
use super::reply::Reply;
use super::tls::TlsStream;
use crate::net;
use crate::net::bandwidth::Bandwidth;
use crate::traffic::{Counter, Direction, TRAFFIC, Transfer};
use crate::vfs::error::{Error, ErrorKind, Result};

/// How long the end of an upload waits for the server's close_notify and its TLS tickets.
const FAREWELL: Duration = Duration::from_secs(2);

/// Least bytes that must come while they are waited for twice the time limit: a peer that sends one
/// now and then keeps the limit of each read, and would hold the reader for ever.
const DRIP: u64 = 1024;

/// Bytes of a file given to the kernel at once. Each call has the socket's time limit.
const SENDFILE_MAX: usize = 1 << 20;

/// One open data connection. Ended by [`Session::end_data`](super::session::Session::end_data) or
/// [`Session::close_early`](super::session::Session::close_early); if it is only dropped, its
/// session is out of step and thrown away when it is given back.
#[derive(Debug)]
pub struct DataConnection {
    stream: Stream,
    /// The final reply, where it came instead of a preliminary one.
    early: Option<Reply>,
    /// The server said 1xx before.
    announced: bool,
    /// The end of data was read.
    ended: bool,
    /// Time limit of one read.
    limit: Duration,
    /// Waited for, and got, since [`DRIP`] bytes were together.
    waited: Duration,
    got: u64,
    host: Box<str>,
    /// For whoever watches; none for listings.
    transfer: Option<Arc<Transfer>>,
    /// How fast a content may go.
    pace: Option<(Arc<Bandwidth>, Direction)>,
    /// In MODE Z.
    packing: Option<Packing>,
    /// What of a file's name may tell of its content.
    suffix: Option<String>,
    passed: Passed,
}

/// What makes one zlib stream of the data, or data of one.
#[derive(Debug)]
enum Packing {
    In(Box<Inflater>, Arc<Host>),
    Out(Box<Deflater>),
}

/// What carries the data.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    /// The server said that all is done and made no connection: an empty listing, on some.
    Empty,
}

impl DataConnection {
    pub(super) fn new(
        stream: Stream,
        early: Option<Reply>,
        announced: bool,
        options: &FtpOptions,
    ) -> Self {
        Self {
            stream,
            early,
            announced,
            ended: false,
            limit: options.timeout,
            waited: Duration::ZERO,
            got: 0,
            host: options.host.as_str().into(),
            transfer: None,
            pace: None,
            packing: None,
            suffix: None,
            passed: Passed::default(),
        }
    }

    /// Is in MODE Z.
    pub(super) fn packed(mut self, direction: Option<Direction>, host: &Arc<Host>) -> Self {
        self.packing = Some(match direction {
            Some(Direction::Up) => Packing::Out(Box::new(Deflater::new())),
            Some(Direction::Down) | None => {
                Packing::In(Box::new(Inflater::new()), Arc::clone(host))
            }
        });
        self
    }

    /// The link was waited for elsewhere.
    pub(super) fn waited_for(&mut self, time: Duration) {
        self.passed.waited += time;
    }

    /// Bytes of all of the file, where the server announced them.
    pub(super) fn total(&self) -> Option<u64> {
        let transfer = self.transfer.as_ref();
        transfer.and_then(|transfer| transfer.progress().1)
    }

    /// What has passed so far.
    pub(super) const fn flow(&self) -> Passed {
        self.passed
    }

    /// The suffix of the file it is for.
    pub(super) fn suffix(&mut self) -> Option<String> {
        self.suffix.take()
    }

    /// Which way a content goes; `None` for listings.
    pub(super) fn direction(&self) -> Option<Direction> {
        self.transfer.as_ref().map(|transfer| transfer.direction)
    }

    /// Is a content's, for whoever watches, and goes no faster than `limit` allows.
    pub(super) fn watched(
        mut self,
        transfer: Arc<Transfer>,
        direction: Direction,
        limit: Option<Arc<Bandwidth>>,
    ) -> Self {
        self.transfer = Some(transfer);
        self.pace = limit.map(|limit| (limit, direction));
        self
    }

    /// How much of `most` bytes may be moved before [`moved`](Self::moved) is told.
    fn piece(&self, most: usize) -> usize {
        match &self.pace {
            Some((limit, direction)) => most.min(limit.piece(*direction)),
            None => most,
        }
    }

    /// Waits for as long as these bytes may take.
    fn moved(&self, bytes: usize) {
        if let Some((limit, direction)) = &self.pace {
            limit.wait(*direction, bytes);
        }
    }

    /// Is the content of this file: a command may name a temporary one.
    pub(super) fn is_for(&mut self, path: String) {
        self.suffix = suffix_of(&path);
        if let Some(transfer) = &self.transfer {
            transfer.rename(path);
        }
    }

    /// Bytes of the content.
    fn advance(&mut self, bytes: u64) {
        self.passed.content += bytes;
        if let Some(transfer) = &self.transfer {
            transfer.advance(bytes);
        }
    }

    /// Bytes on the way.
    fn carried(&mut self, counter: &Counter, bytes: usize, waited: Duration) {
        counter.add(bytes as u64);
        if self.passed.wire >= HEAD {
            self.passed.timed += bytes as u64;
            self.passed.waited += waited;
        }
        self.passed.wire += bytes as u64;
        self.moved(bytes);
    }

    /// Packed or not, what the connection has.
    fn read_raw(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.piece(buf.len());
        let buf = buf.get_mut(..most).unwrap_or_default();
        let before = Instant::now();
        let read = match &mut self.stream {
            Stream::Plain(tcp) => tcp.read(buf),
            Stream::Tls(tls) => tls.read(buf),
            Stream::Empty => Ok(0),
        };
        let waited = before.elapsed();
        self.ended |= !buf.is_empty() && matches!(read, Ok(0));
        let got = read.map_err(named)?;
        if got > 0 {
            self.waited += waited;
            self.got += got as u64;
            if self.got >= DRIP {
                self.waited = Duration::ZERO;
                self.got = 0;
            } else if self.waited > self.limit * 2 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        self.carried(&TRAFFIC.received, got, waited);
        Ok(got)
    }

    fn write_raw(&mut self, buf: &[u8]) -> io::Result<usize> {
        let most = self.piece(buf.len());
        let buf = buf.get(..most).unwrap_or_default();
        let before = Instant::now();
        let put = match &mut self.stream {
            Stream::Plain(tcp) => tcp.write(buf),
            Stream::Tls(tls) => tls.write(buf),
            Stream::Empty => Err(io::ErrorKind::NotConnected.into()),
        }
        .map_err(named)?;
        self.carried(&TRAFFIC.sent, put, before.elapsed());
        Ok(put)
    }

    fn write_raw_all(&mut self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let put = self.write_raw(buf)?;
            if put == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buf = buf.get(put..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends `len` bytes of `file` from `offset`: with `sendfile(2)` in clear, through a buffer
    /// over TLS. The file's own position is neither used nor moved.
    ///
    /// # Errors
    /// `TimedOut` or `Disconnected` of the connection; `Local` if the file cannot be read,
    /// `Invalid` if it is shorter than that.
    pub fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let short = || {
            Error::new(
                ErrorKind::Invalid,
                "the file to send is shorter than it was",
            )
        };
        let lost =
            |host: &str, err: &io::Error| net::failure(format_args!("{host}: sending a file"), err);
        let (mut at, end) = (offset, offset + len);
        while let Stream::Plain(tcp) = &self.stream
            && self.packing.is_none()
            && at < end
        {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX);
            let count = self.piece(count.min(SENDFILE_MAX));
            let before = Instant::now();
            match rustix::fs::sendfile(tcp, file, Some(&mut at), count) {
                Ok(0) => return Err(short()),
                Ok(sent) => {
                    self.advance(sent as u64);
                    self.carried(&TRAFFIC.sent, sent, before.elapsed());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(lost(&self.host, &err.into())),
            }
        }
        let mut buf = vec![0; if at < end { 64 * 1024 } else { 0 }];
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX);
            let count = self.piece(count.min(buf.len()));
            let part = buf.get_mut(..count).unwrap_or_default();
            let got = file
                .read_at(part, at)
                .map_err(|err| Error::local("the file to send", &err))?;
            if got == 0 {
                return Err(short());
            }
            self.write_all(part.get(..got).unwrap_or_default())
                .map_err(|err| lost(&self.host, &err))?;
            at += got as u64;
        }
        Ok(())
    }

    /// Whether the end of data that `read` told was certain: TLS with close_notify. In clear text,
    /// and without close_notify, a cut connection looks the same as the end: then only a 226 and
    /// the right size prove that all has come.
    #[must_use]
    pub const fn clean_eof(&self) -> bool {
        match &self.stream {
            Stream::Tls(tls) => tls.clean_eof(),
            Stream::Plain(_) | Stream::Empty => false,
        }
    }

    /// How a download over TLS ended: with close_notify, or without. `None`: no such end was read.
    pub(super) fn farewell(&self) -> Option<bool> {
        match &self.stream {
            Stream::Tls(tls) if self.ended => Some(tls.clean_eof()),
            _ => None,
        }
    }

    /// Whether the server may have refused the connection because its TLS session was not the
    /// control connection's.
    pub(super) fn is_suspect(&self) -> bool {
        matches!(&self.stream, Stream::Tls(tls) if tls.is_tls13() && tls.is_full_handshake())
    }

    /// Tells the peer that all was sent, and over TLS hears it out. Does not close: bytes that the
    /// peer never read would become a reset, which takes with it what is still on its way.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(Packing::Out(mut deflater)) = self.packing.take() {
            deflater.finish(|bytes| self.write_raw_all(bytes))?;
        }
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.shutdown(Shutdown::Write),
            Stream::Tls(tls) => tls.close(FAREWELL),
            Stream::Empty => Ok(()),
        }
    }

    pub(super) const fn is_announced(&self) -> bool {
        self.announced
    }

    pub(super) fn take_early(&mut self) -> Option<Reply> {
        self.early.take()
    }
}

/// Errors are those of the socket, time limits as [`io::ErrorKind::TimedOut`], and those of
/// [`Inflater::read`]; [`net::failure`](crate::net::failure) makes an `Error` of them.
impl Read for DataConnection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = match self.packing.take() {
            Some(Packing::In(mut inflater, host)) => {
                let read = inflater.read(|buf| self.read_raw(buf), buf);
                if let Err(err) = &read
                    && err.kind() == io::ErrorKind::InvalidData
                {
                    host.packs_no_more(&format!("MODE Z: {err}"));
                }
                self.packing = Some(Packing::In(inflater, host));
                read?
            }
            other => {
                self.packing = other;
                self.read_raw(buf)?
            }
        };
        self.advance(got as u64);
        Ok(got)
    }
}

impl Write for DataConnection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // rustls would wait for the peer.
        if buf.is_empty() {
            return Ok(0);
        }
        let put = match self.packing.take() {
            Some(Packing::Out(mut deflater)) => {
                let written = deflater.write(|bytes| self.write_raw_all(bytes), buf);
                self.packing = Some(Packing::Out(deflater));
                written.map(|()| buf.len())?
            }
            other => {
                self.packing = other;
                self.write_raw(buf)?
            }
        };
        self.advance(put as u64);
        Ok(put)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn named(err: io::Error) -> io::Error {
    if net::is_timeout(&err) {
        return io::ErrorKind::TimedOut.into();
    }
    err
}
