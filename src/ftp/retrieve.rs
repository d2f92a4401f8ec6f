//! Downloads: RETR, kept open for as long as the reader reads.

use std::io::Read;
use std::sync::Arc;

use super::data::DataConnection;
use super::pool::{Lease, Purpose};
use super::probes;
use super::refusal::refusal;
use super::reply::Reply;
use super::rest::is_unknown;
use super::server::FtpServer;
use super::session::Session;
use super::stat::size_of;
use super::transfer::Begun;
use crate::net;
use crate::vfs::backend::{Download, Need};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// A RETR under way, with the session it occupies.
#[derive(Debug)]
struct Retrieval {
    server: Arc<FtpServer>,
    path: RemotePath,
    /// `None` once it is finished.
    open: Option<(Lease, DataConnection)>,
    /// Where in the file the next byte that is read lies.
    position: u64,
    /// Bytes that came before what was asked for, from a server without REST.
    to_discard: u64,
}

impl FtpServer {
    /// Begins a download; see [`Transfers::retrieve`](crate::vfs::backend::Transfers::retrieve).
    pub(super) fn retrieve(
        self: &Arc<Self>,
        path: &RemotePath,
        offset: u64,
        need: Need,
    ) -> Result<Box<dyn Download>> {
        let (purpose, wait) = match need {
            Need::Stream { wait } => (Purpose::Transfer, wait),
            Need::Spot { wait } => (Purpose::Spot, wait),
            Need::Beside { .. } => (Purpose::Help, false),
            Need::Ahead => (Purpose::Foresight, false),
        };
        let with_room = need == Need::Beside { with_room: true };
        let begin = || {
            let lease = self.pool.lease(purpose, wait)?;
            self.retrieve_on(lease, path, offset, with_room)
        };
        // Reading twice does no harm. What nobody asked for is not worth it.
        let retrieval = match need {
            Need::Ahead => begin(),
            _ => self.repeating(begin),
        };
        Ok(Box::new(retrieval?))
    }

    fn retrieve_on(
        self: &Arc<Self>,
        mut lease: Lease,
        path: &RemotePath,
        offset: u64,
        only_with_room: bool,
    ) -> Result<Retrieval> {
        let (begun, to_discard) = self.begin_at(&mut lease, path, offset, only_with_room)?;
        match begun {
            Begun::Open(mut data) => {
                data.is_for(path.to_string());
                Ok(Retrieval {
                    server: Arc::clone(self),
                    path: path.clone(),
                    open: Some((lease, data)),
                    position: offset - to_discard,
                    to_discard,
                })
            }
            Begun::Refused(reply) => {
                Err(self.explain(&mut lease, probes::FILE, ("RETR", path), &reply))
            }
        }
    }

    /// Sends RETR, for what is at `offset` and behind it, and tells how much comes before that.
    fn begin_at(
        &self,
        lease: &mut Lease,
        path: &RemotePath,
        offset: u64,
        only_with_room: bool,
    ) -> Result<(Begun, u64)> {
        let line = self.line("RETR", path)?;
        let rests = offset > 0 && self.rests(lease, path, offset, only_with_room)?;
        let start = if rests { offset } else { 0 };
        let mut begun = lease.begin_data_where(&line, start, only_with_room)?;
        let mut to_discard = if rests { 0 } else { offset };
        if rests && let Begun::Refused(reply) = &begun {
            // Either of REST and RETR may have been refused: only RETR alone tells.
            let first = reply.clone();
            begun = lease.begin_data_where(&line, 0, only_with_room)?;
            if let Begun::Open(_) = &begun {
                // An offset behind the end of the file is refused too, by servers that know REST.
                if is_unknown(&first) {
                    log::info!("no REST, reading from the start: {}", first.text());
                    self.ways.with(|ways| ways.rest.learn(offset, false));
                }
                to_discard = offset;
            }
        }
        Ok((begun, to_discard))
    }
}

impl Retrieval {
    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let Some((_, data)) = &mut self.open else {
            return Ok(0);
        };
        let count = loop {
            match data.read(buf) {
                Ok(count) => break count,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(net::failure(format_args!("RETR {}", self.path), &err)),
            }
        };
        self.position += count as u64;
        Ok(count)
    }

    /// The reply got lost, not the content: has all of it come?
    fn is_whole(&self) -> bool {
        let reply = self
            .server
            .on_session(|s| self.server.ask(s, "SIZE", &self.path));
        reply.is_ok_and(|reply| size_of(&reply) == Some(self.position))
    }
}

impl Download for Retrieval {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while self.to_discard > 0 && !buf.is_empty() {
            let most = usize::try_from(self.to_discard).unwrap_or(usize::MAX);
            let most = most.min(buf.len());
            let count = self.read_some(buf.get_mut(..most).unwrap_or_default())?;
            if count == 0 {
                return Ok(0);
            }
            self.to_discard -= count as u64;
        }
        self.read_some(buf)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.end(|session, data| session.end_data(data).map(Some))
    }

    fn conclude(mut self: Box<Self>) -> Result<()> {
        self.end(Session::end_data_behind)
    }
}

impl Retrieval {
    fn end(
        &mut self,
        end: impl FnOnce(&mut Session, DataConnection) -> Result<Option<Reply>>,
    ) -> Result<()> {
        let Some((mut lease, data)) = self.open.take() else {
            return Ok(());
        };
        let ended = end(&mut lease, data);
        drop(lease);
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(reply)) if reply.is_ok() => Ok(()),
            Ok(Some(reply)) => {
                let what = format!("RETR {}", self.path);
                // The server cut it short; what it says of its disk is not for the reader.
                let detail = refusal(&what, &reply).detail().to_owned();
                Err(self
                    .server
                    .noted(&self.path, Error::new(ErrorKind::Disconnected, detail)))
            }
            // Firewalls forget a control connection that was silent during a long transfer.
            Err(_) if self.is_whole() => Ok(()),
            Err(err) => Err(err),
        }
    }
}

impl Drop for Retrieval {
    fn drop(&mut self) {
        if let Some((mut lease, data)) = self.open.take() {
            // It takes a round trip until the server has noticed, two seconds at worst. Without a
            // thread to spare, the session is dropped out of step and thrown away.
            let closing = std::thread::Builder::new().name("ftp-close".into());
            let _ = closing.spawn(move || lease.close_for_next(data));
        }
    }
}
