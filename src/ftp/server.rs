//! One FTP server as the mount sees it: the directory, the pool and what was learned on the way.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::doubt::Doubts;
use super::encoding;
use super::in_place::InPlace;
use super::intents::Intents;
use super::links::LinkTargets;
use super::named_listing::Sample;
use super::options::FtpOptions;
use super::pool::{Lease, Pool, Purpose};
use super::reply::Reply;
use super::rest::Trial;
use super::server_path::ServerRoot;
use super::session::Session;
use super::sweep::Leftover;
use super::times::ExactTimes;
use super::together::JustListed;
use super::ways::Ways;
use crate::sync::Locked;
use crate::vfs::attr::{Attr, Space};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// When work that lost its connection is done again.
const REPEAT_AFTER: [Duration; 2] = [Duration::ZERO, Duration::from_millis(100)];

/// Most paths whose last refusal is kept for `user.ftp.reply`.
const REPLIES_KEPT: usize = 256;

/// How long a directory that refused two new files is not asked again: one refusal may be for the
/// name. As with names that are not there, what others change meanwhile shows a little later.
const REFUSED: Duration = Duration::from_secs(5);

/// How long the first of two refusals counts.
const REFUSED_BEFORE: Duration = Duration::from_secs(60);

/// Most directories that are remembered for that.
const MOST_REFUSED: usize = 64;

/// Behind [`FtpBackend`](super::FtpBackend): every operation, by path. All fields behind a lock
/// are plain data; no lock is held across a command.
#[derive(Debug)]
pub(crate) struct FtpServer {
    pub(super) pool: Arc<Pool>,
    pub(super) root: ServerRoot,
    pub(super) ways: Locked<Ways>,
    pub(super) times: Locked<ExactTimes>,
    pub(super) links: Locked<LinkTargets>,
    /// What the last LIST of the root said of it: without MLST no command does.
    pub(super) root_attr: Locked<Option<Attr>>,
    /// Temporary names of uploads under way, which no listing shows.
    pub(super) in_flight: Locked<HashSet<RemotePath>>,
    /// Names that are written to without a temporary one.
    pub(super) in_place: Arc<InPlace>,
    /// Directories that take new files, and no temporary names.
    pub(super) in_place_only: Locked<HashSet<RemotePath>>,
    /// What would be left half done if this process ended now.
    pub(super) intents: Intents,
    /// Names of those that work is over with, and that are still there.
    pub(super) leftovers: Locked<Vec<Leftover>>,
    /// A thread sees to them.
    pub(super) sweeping: AtomicBool,
    /// For that thread, which does not keep the server.
    pub(super) this: Weak<Self>,
    /// Until when contents are sent only after the server's word.
    pub(super) careful: Locked<Option<Instant>>,
    /// The file of which a version was last kept under another name, and when.
    pub(super) set_aside: Locked<Option<(RemotePath, SystemTime)>>,
    /// Uploads that may have come through although they failed.
    pub(super) doubts: Locked<Doubts>,
    pub(super) space: Locked<Option<(Instant, Option<Space>)>>,
    /// Directories too large to be listed by STAT.
    pub(super) large: Locked<HashSet<RemotePath>>,
    /// Directories whose odd listing was mentioned in the log.
    pub(super) mentioned: Locked<HashSet<RemotePath>>,
    /// What listing by names is to be compared with.
    pub(super) sample: Locked<Option<Sample>>,
    /// What is listed again to learn what the server bears.
    pub(super) just_listed: Locked<Option<JustListed>>,
    /// Where a new file was stored last, under a temporary name first, and when.
    pub(super) stored: Locked<Option<(RemotePath, Instant)>>,
    /// Directories that refused new files.
    refused: Locked<VecDeque<Refused>>,
    /// When another session was last made ready for many stores.
    pub(super) readied: Locked<Option<Instant>>,
    refusals: Locked<VecDeque<(RemotePath, String)>>,
    pub(super) rest_trial: Trial,
}

/// A directory that refused a new file.
#[derive(Debug)]
struct Refused {
    dir: RemotePath,
    last: RemotePath,
    at: Instant,
    /// It refused others, too.
    again: bool,
    err: Error,
}

impl FtpServer {
    /// Logs in and makes sure that the directory of the URL is one. What is in `intents` is left
    /// alone.
    ///
    /// # Errors
    /// What the login says; `NotFound`, `NotADirectory` or `PermissionDenied` naming the directory.
    pub(crate) fn connect(options: FtpOptions, intents: Intents) -> Result<Arc<Self>> {
        let directory = options.directory.clone();
        let charset = options.charset;
        let pool = Pool::new(options);
        let home = || pool.with_session(Purpose::Metadata, |s| Ok(s.home().to_vec()));
        // One cut connection is no reason not to mount.
        let home = match home() {
            Err(err) if err.kind() == ErrorKind::Disconnected => home()?,
            home => home?,
        };
        let root = ServerRoot::new(&home, &encoding::to_server(charset, &directory)?)?;
        let server = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            pool,
            root,
            ways: Locked::default(),
            times: Locked::default(),
            links: Locked::default(),
            root_attr: Locked::default(),
            in_flight: Locked::default(),
            in_place: Arc::default(),
            in_place_only: Locked::default(),
            intents,
            leftovers: Locked::default(),
            sweeping: AtomicBool::new(false),
            careful: Locked::default(),
            set_aside: Locked::default(),
            doubts: Locked::default(),
            space: Locked::default(),
            large: Locked::default(),
            mentioned: Locked::default(),
            sample: Locked::default(),
            just_listed: Locked::default(),
            stored: Locked::default(),
            refused: Locked::default(),
            readied: Locked::default(),
            refusals: Locked::default(),
            rest_trial: Trial::default(),
        });
        if !directory.is_empty() {
            server.on_session(|s| server.check_root(s)).map_err(|err| {
                err.context(format_args!("directory {}", directory.escape_ascii()))
            })?;
        }
        server.can_verify()?;
        Ok(server)
    }

    /// What the command line says.
    pub(super) fn options(&self) -> &FtpOptions {
        self.pool.host().options()
    }

    /// Runs work that may be done twice, and does it again if the connection is lost on the way.
    pub(super) fn on_session<T>(
        &self,
        mut work: impl FnMut(&mut Session) -> Result<T>,
    ) -> Result<T> {
        self.repeating(|| self.pool.with_session(Purpose::Metadata, &mut work))
    }

    /// Does work again that lost its connection and leases another by itself. A server that is
    /// stopped or restarted takes all of them away, one after the other, and the one of the second
    /// attempt may be among them.
    pub(super) fn repeating<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        for pause in REPEAT_AFTER {
            match work() {
                Err(err) if err.kind() == ErrorKind::Disconnected => {
                    log::debug!("connection lost, once more: {err}");
                    self.pool.forget_idle();
                    std::thread::sleep(pause);
                }
                done => return done,
            }
        }
        work()
    }

    /// Removes what failed uploads left, and says goodbye.
    pub(super) fn close(&self) {
        if self.has_due() {
            let swept = self.pool.with_session(Purpose::Metadata, |s| {
                self.sweep(s);
                Ok(())
            });
            if let Err(err) = swept {
                log::warn!("temporary files are left on the server for the next mount: {err}");
            }
        }
        self.intents.close();
        self.pool.close();
    }

    /// Runs work that must not simply be done twice. If its connection is lost, it is called again
    /// on another, told so, and has to ask the server how far it had come. The broken session is
    /// given back first: nobody holds two.
    pub(super) fn recovering<T>(
        &self,
        lease: &mut Option<Lease>,
        mut work: impl FnMut(&mut Session, Option<ErrorKind>) -> Result<T>,
    ) -> Result<T> {
        let session = match lease {
            Some(lease) => lease,
            None => lease.insert(self.pool.lease(Purpose::Metadata, true)?),
        };
        match work(session, None) {
            Err(err) if session.is_broken() => {
                log::debug!("connection lost, asking what happened: {err}");
                *lease = None;
                let lost = Some(err.kind());
                self.repeating(|| {
                    let session = lease.insert(self.pool.lease(Purpose::Metadata, true)?);
                    let done = work(session, lost);
                    if session.is_broken() {
                        *lease = None;
                    }
                    done
                })
            }
            done => done,
        }
    }

    /// `path` as a command names it.
    pub(super) fn spell(&self, path: &RemotePath) -> Result<Vec<u8>> {
        let Some(charset) = self.options().charset else {
            return Ok(self.root.spell(path));
        };
        let below = encoding::to_server(Some(charset), path.as_bytes())?;
        Ok(self.root.spell_bytes(&below))
    }

    /// `VERB path`.
    pub(super) fn line(&self, verb: &str, path: &RemotePath) -> Result<Vec<u8>> {
        let mut line = verb.as_bytes().to_vec();
        line.push(b' ');
        line.extend_from_slice(&self.spell(path)?);
        Ok(line)
    }

    /// Sends `VERB path`.
    pub(super) fn ask(&self, s: &mut Session, verb: &str, path: &RemotePath) -> Result<Reply> {
        s.command(&self.line(verb, path)?)
    }

    /// Sends `VERB path` for each of `verbs`, at once where the server allows.
    pub(super) fn ask_all<const N: usize>(
        &self,
        s: &mut Session,
        questions: [(&str, &RemotePath); N],
    ) -> Result<[Reply; N]> {
        let lines = questions
            .iter()
            .map(|(verb, path)| self.line(verb, path))
            .collect::<Result<Vec<_>>>()?;
        exactly(s.batch(&lines)?)
    }

    /// Whether the session can change into `path`; it is back in its login directory afterwards,
    /// so that no directory is in use that someone may want to remove.
    pub(super) fn enter(&self, s: &mut Session, path: &RemotePath) -> Result<Reply> {
        let [reply, _back] = exactly(s.batch(&[self.line("CWD", path)?, self.way_back()])?)?;
        Ok(reply)
    }

    /// The command that brings a session back to its login directory.
    pub(super) fn way_back(&self) -> Vec<u8> {
        [b"CWD ", self.root.home()].concat()
    }

    /// Keeps the server's words about `path` for `user.ftp.reply`, and gives the error on.
    pub(super) fn noted(&self, path: &RemotePath, err: Error) -> Error {
        self.refusals.with(|refusals| {
            refusals.retain(|(known, _)| known != path);
            refusals.push_back((path.clone(), err.detail().to_owned()));
            if refusals.len() > REPLIES_KEPT {
                refusals.pop_front();
            }
        });
        err
    }

    /// A new file at `path` could not be created, for a reason that others beside it share.
    pub(super) fn note_refusal(&self, path: &RemotePath, err: &Error) {
        let shared = matches!(
            err.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnly
        );
        let Some(dir) = path.parent().filter(|_| shared) else {
            return;
        };
        self.refused.with(|refused| {
            let before = refused.iter().position(|known| known.dir == dir);
            let before = before.and_then(|at| refused.remove(at));
            let again = before.is_some_and(|before| {
                before.at.elapsed() < REFUSED_BEFORE && (before.again || before.last != *path)
            });
            refused.push_back(Refused {
                dir,
                last: path.clone(),
                at: Instant::now(),
                again,
                err: err.clone(),
            });
            if refused.len() > MOST_REFUSED {
                refused.pop_front();
            }
        });
    }

    /// Why no new file can be at `path`, if others beside it were just refused.
    pub(super) fn refused_just_now(&self, path: &RemotePath) -> Option<Error> {
        let dir = path.parent()?;
        self.refused.with(|refused| {
            let found = refused.iter().find(|known| known.dir == dir)?;
            let holds = found.again && found.at.elapsed() < REFUSED;
            holds.then(|| found.err.clone())
        })
    }

    /// Permissions, or the place of directories, were changed from here.
    pub(super) fn forget_refusals(&self) {
        self.refused.with(VecDeque::clear);
    }

    /// What the server last refused `path` with.
    pub(super) fn last_refusal(&self, path: &RemotePath) -> Option<String> {
        self.refusals.with(|refusals| {
            let found = refusals.iter().rev().find(|(known, _)| known == path);
            found.map(|(_, text)| text.clone())
        })
    }

    fn check_root(&self, s: &mut Session) -> Result<()> {
        let root = RemotePath::root();
        let reply = self.enter(s, &root)?;
        if reply.is_ok() {
            return Ok(());
        }
        let size = self.ask(s, "SIZE", &root)?;
        let refused = super::refusal::refusal("CWD", &reply);
        Err(match refused.kind() {
            _ if size.code() == 213 => Error::new(ErrorKind::NotADirectory, "it is a file"),
            // What cannot be entered and is no file is not there, unless the server says more.
            ErrorKind::PermissionDenied if !super::refusal::classify(&reply).told => {
                Error::new(ErrorKind::NotFound, refused.detail())
            }
            _ => refused,
        })
    }
}

/// The replies to as many commands.
pub(super) fn exactly<const N: usize>(replies: Vec<Reply>) -> Result<[Reply; N]> {
    replies.try_into().map_err(|replies: Vec<Reply>| {
        Error::new(
            ErrorKind::Protocol,
            format!("{} replies to {N} commands", replies.len()),
        )
    })
}
