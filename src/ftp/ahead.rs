//! The next data connection, asked for with the last commands of an operation.
//!
//! A small file costs EPSV, a connection, STOR, its end, and the commands that dress and name it:
//! five round trips. When many are stored one after the other, EPSV goes with the commands of the
//! one before, and the connection is made while nobody waits: then it is three.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::options::DataMode;
use super::rendezvous::epsv_port;
use super::reply::Reply;
use super::session::Session;
use crate::net;
use crate::vfs::error::Result;

/// A file stored so soon after another is one of many.
const RUN: Duration = Duration::from_secs(3);

/// A connection unused for so long may have been forgotten by the server or a firewall.
const FRESH: Duration = Duration::from_secs(15);

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// A data connection that is made, or nearly, and since when.
    connection: Option<(TcpStream, Instant)>,
    /// When the last file was stored.
    stored: Option<Instant>,
}

impl Session {
    /// As [`batch`](Self::batch), for the last commands of a file that is stored; if it is one of
    /// many, the next data connection is arranged with them.
    pub(super) fn batch_at_end(&mut self, mut lines: Vec<Vec<u8>>) -> Result<Vec<Reply>> {
        let now = Instant::now();
        let before = self.ahead.stored.replace(now);
        let one_of_many = before.is_some_and(|before| now.duration_since(before) < RUN);
        if !one_of_many || !self.may_arrange_ahead() {
            return self.batch(&lines);
        }
        lines.push(b"EPSV".to_vec());
        let mut replies = self.batch(&lines)?;
        let port = replies.pop().as_ref().and_then(epsv_port);
        self.ahead.connection = port.and_then(|port| {
            let peer = self.control().ok()?.peer_ip().ok()?;
            let options = self.host().options();
            let (address, limit) = (SocketAddr::new(peer, port), options.timeout);
            let begun = net::begin_connect(address, options.bind, limit);
            begun.ok().map(|stream| (stream, now))
        });
        if self.ahead.connection.is_none() {
            self.arrange_no_more("EPSV ahead was refused");
        }
        Ok(replies)
    }

    /// The connection that was prepared, if it still stands.
    pub(super) fn take_ahead(&mut self) -> Option<TcpStream> {
        let (stream, since) = self.ahead.connection.take()?;
        if since.elapsed() > FRESH {
            return None;
        }
        let limit = self.host().options().timeout;
        match net::end_connect(&stream, limit) {
            Ok(()) if matches!(net::has_hung_up(&stream), Ok(false)) => Some(stream),
            ended => {
                log::debug!("a data connection made ahead: {ended:?}");
                self.arrange_no_more("a data connection made ahead did not stand");
                None
            }
        }
    }

    /// Whether the next transfer has its data connection.
    pub(super) const fn has_ahead(&self) -> bool {
        self.ahead.connection.is_some()
    }

    /// Data connections are made when they are needed from now on.
    pub(super) fn arrange_no_more(&self, why: &str) {
        let host = self.host();
        let before = host.facts(|facts| facts.arranged_ahead.replace(false));
        if before != Some(false) {
            log::info!("{}: {why}; not done any more", host.options().host);
        }
    }

    fn may_arrange_ahead(&self) -> bool {
        let options = self.host().options();
        matches!(options.data, DataMode::Passive)
            && options.proxy.is_none()
            && !self.features().has("PRET")
            && self.host().facts(|facts| {
                facts.pipelining == Some(true)
                    && facts.epsv == Some(true)
                    && facts.arranged_ahead != Some(false)
            })
    }
}
