//! Uploads: a new content goes to a temporary name beside its file, and takes its place when it is
//! complete.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::data::DataConnection;
use super::doubt::Doubt;
use super::in_place::Claim;
use super::options::{Conflict, UploadMode};
use super::pool::{Lease, Purpose};
use super::probes;
use super::refusal::{classify, refusal};
use super::replace::Replacement;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::stat::size_of;
use super::sweep::Pending;
use super::temporary;
use super::transfer::Begun;
use super::ways::NewName;
use crate::net;
use crate::vfs::attr::Attr;
use crate::vfs::backend::{Publish, Replaces, Upload};
use crate::vfs::checksum::{Algorithm, Checksum, Running};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// What fits into the buffers of a new connection.
const SMALL: u64 = 32 << 10;

/// How long nothing is sent before the server's word, after a content that it did not take.
const CAREFUL: Duration = Duration::from_secs(30);

/// Bytes of a file that are read at once where they are to be looked at.
const PIECE: usize = 256 << 10;

/// What becomes of the file at the name that is written to, if the upload fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A temporary name, or a new one: it is removed.
    Own,
    /// The file itself, because the server leaves no other way: nothing can be done.
    Target,
    /// The file's tail is being written, what was there before is not touched.
    Tail,
}

/// A STOR or APPE under way, with the session it occupies.
#[derive(Debug)]
struct Storing {
    server: Arc<FtpServer>,
    /// `None` once it is published.
    open: Option<(Lease, DataConnection)>,
    /// The name that is written to.
    name: RemotePath,
    place: Place,
    /// Of what is written to under its own name.
    claim: Option<Claim>,
    /// The server has not said yet that it takes it.
    blind: bool,
    /// Bytes that were sent.
    sent: u64,
    /// The checksum of what was sent, where it is to be compared.
    sum: Option<Running>,
}

impl FtpServer {
    /// Begins to store; see [`Transfers::store`](crate::vfs::backend::Transfers::store). `len` is
    /// the length of what is there to be sent at once.
    pub(super) fn store(
        self: &Arc<Self>,
        path: &RemotePath,
        replaces: Replaces,
        len: Option<u64>,
        wait: bool,
    ) -> Result<Box<dyn Upload>> {
        let small = len.is_some_and(|len| len <= SMALL);
        let blind = small && !self.is_careful();
        // Nothing of the content was sent yet.
        let storing = self.repeating(|| self.begin_store(path, replaces, blind, wait))?;
        Ok(Box::new(storing))
    }

    /// Whether contents are sent only after the server's word.
    pub(super) fn is_careful(&self) -> bool {
        let until = self.careful.with(|until| *until);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn begin_store(
        self: &Arc<Self>,
        path: &RemotePath,
        replaces: Replaces,
        blind: bool,
        wait: bool,
    ) -> Result<Storing> {
        let patience = if wait {
            self.options().timeout
        } else {
            Duration::ZERO
        };
        self.in_place.settle(path, patience)?;
        let mut lease = self.pool.lease(Purpose::Transfer, wait)?;
        self.sweep(&mut lease);
        self.check_name(&mut lease, path)?;
        let mut refused = None;
        // Guests may often store new files, and neither rename nor remove them.
        let guest = self.options().upload == UploadMode::Auto && self.options().user == "anonymous";
        let new = guest && !self.is_there(&mut lease, path)?;
        let kinds = if new {
            vec![NewName::Direct]
        } else {
            self.name_kinds(&mut lease, path)?
        };
        for kind in kinds {
            let name = match kind {
                NewName::Dotted => temporary::dotted(path, "part")?,
                NewName::Tilde => temporary::tilde(path)?,
                NewName::Direct => path.clone(),
            };
            let temporary = kind != NewName::Direct;
            let claim = match temporary {
                true => None,
                false => Some(self.in_place.claim(path)?),
            };
            let mut away = None;
            let place = match kind {
                NewName::Direct if !new => {
                    let (again, there, pending) = self.clear_the_way(lease, path, replaces)?;
                    (lease, away) = (again, pending);
                    if there { Place::Target } else { Place::Own }
                }
                _ => Place::Own,
            };
            if temporary {
                self.conceal(&name);
            }
            let line = self.line("STOR", &name)?;
            if blind && temporary && self.ways.with(|ways| ways.new_name) == Some(kind) {
                let begun = lease.begin_blind(&line);
                if begun.is_err() {
                    self.leave(&name);
                }
                if let Some(mut data) = begun? {
                    data.is_for(path.to_string());
                    if lease.is_slow_ahead() {
                        self.second_session();
                    }
                    return Ok(Storing {
                        server: Arc::clone(self),
                        open: Some((lease, data)),
                        name,
                        place,
                        claim,
                        blind: true,
                        sent: 0,
                        sum: self.checks_by().map(Algorithm::begin),
                    });
                }
            }
            self.try_packing(&mut lease, path)?;
            lease.subject = Some(path.to_string());
            let begun = lease.begin_data(&line, 0);
            match &begun {
                Ok(Begun::Open(_)) => {}
                // It was refused before there was a file.
                Ok(Begun::Refused(reply)) if temporary && reply.code() >= 500 => {
                    self.reveal(&name);
                }
                // There may be an empty one.
                _ if temporary => self.leave(&name),
                _ => {}
            }
            match begun? {
                Begun::Open(mut data) => {
                    data.is_for(path.to_string());
                    away.into_iter().for_each(Pending::keep);
                    // A directory may refuse new names where the server as a whole does not.
                    if place == Place::Own && (temporary || refused.is_some()) {
                        self.learn_name_kind(path, kind);
                    }
                    let open = Some((lease, data));
                    return Ok(Storing {
                        server: Arc::clone(self),
                        open,
                        name,
                        place,
                        claim,
                        blind: false,
                        sent: 0,
                        sum: self.checks_by().map(Algorithm::begin),
                    });
                }
                Begun::Refused(reply) => {
                    // Only what may be the name's fault is worth another name: writing in place
                    // is dangerous, and no way out of a full disk.
                    let by_name = matches!(
                        classify(&reply).kind,
                        ErrorKind::PermissionDenied | ErrorKind::Invalid | ErrorKind::NameTooLong
                    );
                    refused = Some(reply);
                    if !by_name {
                        break;
                    }
                }
            }
        }
        let Some(reply) = refused else {
            return Err(ErrorKind::Unsupported.into());
        };
        Err(self.explain(&mut lease, probes::PLACE, ("STOR", path), &reply))
    }

    /// Begins to append; see [`Transfers::append`](crate::vfs::backend::Transfers::append).
    pub(super) fn append(
        self: &Arc<Self>,
        path: &RemotePath,
        base: u64,
    ) -> Result<Box<dyn Upload>> {
        self.repeating(|| self.begin_append(path, base))
    }

    fn begin_append(self: &Arc<Self>, path: &RemotePath, base: u64) -> Result<Box<dyn Upload>> {
        let unsupported = |why: &str| {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("APPE {path}: {why}"),
            ))
        };
        if self.ways.with(|ways| ways.append) == Some(false) {
            return unsupported("the server cannot");
        }
        if self.checks_by().is_some() {
            return unsupported("the checksum would be of the tail only");
        }
        let mut lease = self.pool.lease(Purpose::Transfer, true)?;
        match size_of(&self.ask(&mut lease, "SIZE", path)?) {
            Some(size) if size == base => {}
            Some(size) => {
                let detail = format!("{path}: has {size} bytes now, not {base}");
                return Err(Error::new(ErrorKind::Stale, detail));
            }
            None => return unsupported("the size cannot be verified"),
        }
        match lease.begin_data(&self.line("APPE", path)?, 0)? {
            Begun::Open(data) => Ok(Box::new(Storing {
                server: Arc::clone(self),
                open: Some((lease, data)),
                name: path.clone(),
                place: Place::Tail,
                claim: None,
                blind: false,
                sent: 0,
                sum: None,
            })),
            Begun::Refused(reply) if cannot_append(&reply) => {
                self.ways.with(|ways| ways.append = Some(false));
                unsupported(&reply.text())
            }
            Begun::Refused(reply) => {
                Err(self.explain(&mut lease, probes::FILE, ("APPE", path), &reply))
            }
        }
    }
}

impl Storing {
    fn data(&mut self) -> Result<&mut DataConnection> {
        match &mut self.open {
            Some((_, data)) => Ok(data),
            None => Err(ErrorKind::BadHandle.into()),
        }
    }

    /// A data connection that breaks is only half of the story: the other half, "552 Disk full",
    /// waits on the control connection.
    fn broken(&mut self, err: Error) -> Error {
        // After a stall it would be waited for in vain; the drop closes.
        if err.kind() != ErrorKind::Disconnected {
            return err;
        }
        let Some((mut lease, data)) = self.open.take() else {
            return err;
        };
        self.doubt_place();
        let packed = lease.is_packed();
        let told = lease.end_data(data);
        self.remove_own(&mut lease);
        match told {
            Ok(reply) if !reply.is_ok() && packed => {
                let detail = format!("STOR {}: {}", self.name, reply.text());
                lease.misunderstood(Error::new(ErrorKind::Protocol, detail))
            }
            Ok(reply) if !reply.is_ok() => self.cut_short(&reply),
            _ => err,
        }
    }

    /// The error of a content that the server did not take to its end. 451 is "local error": vsftpd
    /// ("Failure writing to local file"), ProFTPD ("Input/output error") and Pure-FTPd ("Error
    /// during write to file") say it of a full disk, and name the disk only by chance. A 451 that
    /// does not even speak of writing is worth another try.
    fn cut_short(&self, reply: &Reply) -> Error {
        if self.blind {
            // It may be the refusal of the name or of the directory. The next attempt goes step by
            // step, and is told properly.
            let until = Instant::now() + CAREFUL;
            self.server.careful.with(|careful| *careful = Some(until));
            let detail = format!("STOR {}: {}", self.name, reply.text());
            return Error::new(ErrorKind::Disconnected, detail);
        }
        let err = refusal(&format!("STOR {}", self.name), reply);
        let text = String::from_utf8_lossy(reply.first_line()).to_ascii_lowercase();
        let disk = reply.code() == 451
            && err.kind() == ErrorKind::Protocol
            && ["writ", "input/output"].iter().any(|w| text.contains(w));
        let err = if disk {
            Error::new(ErrorKind::NoSpace, err.detail())
        } else {
            err
        };
        self.server.noted(&self.name, err)
    }

    /// What is written in place is there already, or some of it.
    fn doubt_place(&self) {
        if self.place == Place::Target {
            self.server.doubt(Doubt {
                at: self.name.clone(),
                size: self.sent,
                partial: true,
                mtime: None,
            });
        }
    }

    fn remove_own(&self, s: &mut Session) {
        if self.place == Place::Own {
            self.server.discard(s, &self.name);
        }
    }

    /// Waits for the server's word that all has come. Where the word is lost, the content may be
    /// whole nevertheless.
    fn end(&self, lease: &mut Option<Lease>, data: DataConnection, size: u64) -> Result<()> {
        let server = &self.server;
        let mut data = Some(data);
        server.recovering(lease, |s, _| {
            let reply = match data.take() {
                Some(data) => s.end_data(data)?,
                // An old version in its place may have that size, too.
                None if self.place != Place::Target
                    && size_of(&server.ask(s, "SIZE", &self.name)?) == Some(size) =>
                {
                    return Ok(());
                }
                None => {
                    let detail = format!("STOR {}: the connection was lost", self.name);
                    return Err(Error::new(ErrorKind::Disconnected, detail));
                }
            };
            if reply.is_ok() {
                return Ok(());
            }
            if s.is_packed() {
                let detail = format!("STOR {}: {}", self.name, reply.text());
                return Err(s.misunderstood(Error::new(ErrorKind::Protocol, detail)));
            }
            if self.blind && matches!(reply.code(), 425 | 426) {
                s.arrange_no_more("a data connection made ahead was not used");
            }
            Err(self.cut_short(&reply))
        })
    }

    /// Compares what the server stored with what was sent, before it gets its name.
    fn check(&self, lease: &mut Option<Lease>, sum: Option<&Checksum>) -> Result<()> {
        let (Some(sum), server) = (sum, &self.server) else {
            return Ok(());
        };
        server.recovering(lease, |s, _| server.compare(s, "STOR", &self.name, sum))
    }

    /// As [`send_file`](Upload::send_file), past the checksum.
    fn read_and_write(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let mut buf = vec![0; PIECE];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let part = buf.get_mut(..most).unwrap_or_default();
            file.read_exact_at(part, at)
                .map_err(|err| Error::local("the file to send", &err))?;
            self.write(part)?;
            at += most as u64;
        }
        Ok(())
    }

    /// Verifies the size, sets times and mode, and takes the file's place.
    fn put(&self, lease: &mut Option<Lease>, at: &RemotePath, what: &Publish) -> Result<Attr> {
        let server = &*self.server;
        let job = Replacement::new(server, &self.name, at, Some(what.size))?;
        let temporary = self.name != *at;
        let minds = temporary && server.minds(what);
        let beside = match minds {
            true => server.aside_name(at)?,
            false => at.clone(),
        };
        let _pending = (server.pending(&job.aside()), server.pending(&beside));
        // What is in the way shall stay there: then it must be asked for first.
        let asks = minds && server.options().conflict == Conflict::Fail;
        let at_once = server.recovering(lease, |s, lost| {
            if !temporary || !what.new || asks {
                Ok(None)
            } else if let Some(lost) = lost {
                // The connection was lost in the middle: is it there already?
                let named = server.resume_past(s, &job, what, lost)?;
                Ok(named.then_some(None))
            } else {
                server.dress_and_name(s, &job, what)
            }
        })?;
        let mtime = match at_once {
            Some(mtime) => mtime,
            None => {
                let dressed =
                    server.recovering(lease, |s, _| server.dress(s, &self.name, at, what));
                let (mtime, found) = dressed?;
                if temporary {
                    let found = found.as_ref().map(|found| (found, &beside));
                    server.replace_minding(lease, &job, what, mtime, found)?;
                }
                mtime
            }
        };
        if temporary {
            server.reveal(&self.name);
            server.has_stored(at);
        }
        server.recovering(lease, |s, _| server.published(s, at, what, mtime))
    }
}

impl Upload for Storing {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if let Some(sum) = &mut self.sum {
            sum.add(data);
        }
        self.sent += data.len() as u64;
        let sent = self.data()?.write_all(data);
        sent.map_err(|err| self.broken(net::failure(format_args!("STOR {}", self.name), &err)))
    }

    fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        if self.sum.is_some() {
            return self.read_and_write(file, offset, len);
        }
        self.sent += len;
        let sent = self.data()?.send_file(file, offset, len);
        sent.map_err(|err| self.broken(err))
    }

    fn publish(mut self: Box<Self>, at: &RemotePath, what: &Publish) -> Result<Attr> {
        let Some((lease, data)) = self.open.take() else {
            return Err(ErrorKind::BadHandle.into());
        };
        let mut lease = Some(lease);
        let sum = self.sum.take().map(Running::end);
        self.doubt_place();
        let done = self
            .end(&mut lease, data, what.size)
            .and_then(|()| self.check(&mut lease, sum.as_ref()))
            .and_then(|()| self.put(&mut lease, at, what));
        if done.is_err() && self.name != *at {
            self.server.doubt(Doubt {
                at: at.clone(),
                size: what.size,
                partial: false,
                mtime: what.mtime,
            });
        }
        if done.is_err() && self.place == Place::Own {
            match &mut lease {
                Some(lease) => self.server.discard(lease, &self.name),
                None => self.server.leave(&self.name),
            }
        }
        done
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        let Some((mut lease, data)) = self.open.take() else {
            return;
        };
        self.doubt_place();
        let server = Arc::clone(&self.server);
        let (name, place, claim) = (self.name.clone(), self.place, self.claim.take());
        let work = move || {
            lease.close_early(data);
            if place == Place::Own {
                server.discard(&mut lease, &name);
            }
            drop(claim);
        };
        let abandoning = std::thread::Builder::new().name("ftp-abandon".into());
        if abandoning.spawn(work).is_err() && self.place == Place::Own {
            self.server.leave(&self.name);
        }
    }
}

/// Whether APPE is refused as such, and not for this file: ProFTPD's default is "451 Append/Restart
/// not permitted, try again".
fn cannot_append(reply: &Reply) -> bool {
    let text = String::from_utf8_lossy(reply.first_line()).to_ascii_lowercase();
    // Before the reason the name may stand.
    let text = text.rsplit_once(": ").map_or(&*text, |(_, reason)| reason);
    classify(reply).kind == ErrorKind::Unsupported
        || ["append", "restart", "overwrit"]
            .iter()
            .any(|w| text.contains(w))
}
