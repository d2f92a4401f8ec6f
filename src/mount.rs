//! One mount from beginning to end: builds the backend, the cache, the [`Vfs`] and the FUSE
//! session, answers `ferryfs status`, `flush` and `umount`, and sees to an orderly end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use fuser::Session;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, Source};
use crate::control::{Answer, Request, Server};
use crate::daemon::{self, Ready};
use crate::exit::{Exit, Failure, words};
use crate::fuse::Filesystem;
use crate::fuse::direct::DirectReads;
use crate::fuse::mounting::{self, MountView};
use crate::fuse::news::{News, forget_names};
use crate::fuse::passthrough::Passthrough;
use crate::mail::ask::Ask;
use crate::nudge::nudge;
use crate::sync::Locked;
use crate::vfs::backend::Backend;
use crate::vfs::error::{Error, ErrorKind};
use crate::vfs::path::RemotePath;
use crate::vfs::{Vfs, View};
use crate::{mounts, state};

mod ftp;
pub(crate) mod mail;
mod traffic;

/// Memory for the read windows of all open files together, in bytes.
const READ_BUDGET: usize = 16 * 1024 * 1024;

/// Who has just closed a file, or looks at new mail, is soon gone.
const BUSY_A_MOMENT: Duration = Duration::from_millis(500);

/// After an unmount the kernel releases the last handles; how long that may take before the
/// session is given up.
const SESSION_END: Duration = Duration::from_secs(5);

/// Descriptors that are enough for everything.
const DESCRIPTORS: u64 = 1 << 16;

/// Where contents are staged until the server has them, in the mount's state directory.
const STAGING: &str = "staging";

/// Permission bits shown where the server tells none.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// What the main thread waits for.
enum Event {
    /// The kernel ended the session: somebody unmounted.
    Ended(io::Result<()>),
    /// SIGINT or SIGTERM.
    Signal(i32),
}

/// Serves the mount of `config` until it is unmounted or told to end.
///
/// # Errors
/// The mount could not be made, or content is left that is not on the server.
pub(crate) fn serve(config: &Config, ready: Ready) -> Result<(), Failure> {
    allow_descriptors();
    let mount = Arc::new(Mount::connect(config)?);
    let (events, happened) = mpsc::channel();
    let session = mount.attach(config, events.clone())?;
    // Nobody would answer at the directory when we are gone.
    let (control, metrics) = serve_beside(&mount, config, session, events).inspect_err(|_| {
        let _ = mounts::detach(&mount.directory, true);
    })?;
    daemon::status(&config.url_shown);
    ready.report();
    log::info!(
        "{} mounted on {}",
        config.url_shown,
        mount.directory.display()
    );
    let outcome = mount.wait_for_end(&happened);
    daemon::stopping();
    // The answer to `ferryfs umount` is on its way: dropping the server waits for it.
    drop(control);
    // The last numbers are those of the end.
    drop(metrics);
    mount.take_leave();
    outcome
}

/// Answers the kernel, signals and other commands, and writes the metrics.
fn serve_beside(
    mount: &Arc<Mount>,
    config: &Config,
    session: Session<Filesystem>,
    events: Sender<Event>,
) -> Result<(Server, Option<traffic::Writing>), Failure> {
    run_session(session, events.clone())?;
    watch_signals(events.clone())?;
    let device = mounts::find(&mount.directory)
        .ok()
        .flatten()
        .map(|mounted| mounted.device);
    device
        .as_deref()
        .into_iter()
        .for_each(mounting::raise_read_ahead);
    let answering = Arc::clone(mount);
    let control = Server::start(
        &state::socket(&config.state_dir),
        Arc::new(move |request| {
            let ends = matches!(request, Request::Umount { .. });
            let answer = answering.answer(request);
            // The session goes on where another mount namespace has a copy of the mount; all is
            // stored, so that is no reason to stay.
            if ends && answer.is_done() {
                let _ = events.send(Event::Ended(Ok(())));
            }
            answer
        }),
    )
    .map_err(|err| Failure::system("control socket", &err))?;
    let metrics = config
        .metrics
        .as_deref()
        .map(|file| traffic::write_metrics(file, mount))
        .transpose()?;
    Ok((control, metrics))
}

/// Each file that is open takes some, and shells allow 1024 only, for the sake of programs that use
/// select(2).
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|now| now < most) {
        let more = Rlimit {
            current: Some(most),
            ..limit
        };
        if let Err(err) = setrlimit(Resource::Nofile, more) {
            log::debug!("no more descriptors than {:?}: {err}", limit.current);
        }
    }
}

/// What is behind a mount, beside its [`Backend`](crate::vfs::backend::Backend).
trait Behind: Send + Sync {
    /// The filesystem is about to be served.
    fn start(&self, _vfs: &Arc<Vfs>) {}

    /// What `ferryfs status` shows of it.
    fn status(&self) -> Map<String, Value>;

    /// Does what only a mailbox can do.
    fn mail(&self, _: &Ask) -> Result<Value, Failure> {
        let line = "not a mailbox; mount one with ferryfs pop3s://user@host/";
        Err(Failure::new(Exit::MailUnavailable, line))
    }

    /// Nothing is waited for any longer than it must be.
    fn hurry(&self) {}

    /// The mount is at its end.
    fn close(&self);

    /// How long `close` is waited for.
    fn courtesy(&self) -> Duration;
}

/// A tree, and what is known of it beside.
type Sides = (Arc<dyn Backend>, Arc<dyn Behind>);

/// The parts of a mount.
struct Mount {
    directory: PathBuf,
    behind: Arc<dyn Behind>,
    vfs: Arc<Vfs>,
    passthrough: Arc<Passthrough>,
    direct: Arc<DirectReads>,
    timeout: Duration,
    /// Requests about names take longer than `timeout`, if need be.
    hard: bool,
    ended: Locked<bool>,
}

impl Mount {
    fn connect(config: &Config) -> Result<Self, Failure> {
        let (backend, behind) = match &config.source {
            Source::Ftp(options) => ftp::connect(config, options)?,
            Source::Mail(options) => mail::open(config, options)?,
        };
        let view = View {
            uid: config.uid,
            gid: config.gid,
            umask: config.umask,
            file_mode: FILE_MODE,
            dir_mode: DIRECTORY_MODE,
            read_only: config.flags.read_only,
            validity: config.validity,
        };
        let vfs = Arc::new(Vfs::new(backend, view));
        behind.start(&vfs);
        Ok(Self {
            directory: config.mountpoint.clone(),
            behind,
            vfs,
            passthrough: Arc::new(Passthrough::new(config.passthrough)),
            direct: Arc::new(DirectReads::new(config.direct_io)),
            timeout: config.timeout(),
            hard: config.hard,
            ended: Locked::new(false),
        })
    }

    fn attach(
        &self,
        config: &Config,
        events: Sender<Event>,
    ) -> Result<Session<Filesystem>, Failure> {
        let flags = &config.flags;
        let view = MountView {
            source: config.fsname.clone(),
            read_only: flags.read_only,
            allow_other: flags.allow_other,
            allow_root: flags.allow_root,
            default_permissions: flags.default_permissions,
            exec: flags.exec,
            suid: flags.suid,
            dev: flags.dev,
            atime: flags.atime,
        };
        let failed = |err: io::Error| {
            let (directory, told) = (self.directory.display(), words(&err));
            let remedy = unmountable(&told);
            let line = format!("{directory}: cannot mount: {told}; {remedy}");
            Failure::new(Exit::Mount, line)
        };
        let limit = (!self.hard).then_some(self.timeout);
        let (passthrough, direct) = (Arc::clone(&self.passthrough), Arc::clone(&self.direct));
        let on_end = Box::new(move || {
            let _ = events.send(Event::Ended(Ok(())));
        });
        let vfs = Arc::clone(&self.vfs);
        let filesystem = Filesystem::new(vfs, &self.directory, limit, passthrough, direct, on_end);
        let filesystem = filesystem.map_err(failed)?;
        let session = mounting::mount(filesystem, &self.directory, &view).map_err(failed)?;
        let directory = self.directory.clone();
        let news = News::start(session.notifier(), &self.vfs, move |dir, names| {
            nudge(&directory, dir, names);
        });
        self.vfs.tell(Arc::new(news.map_err(failed)?));
        forget_names(&self.vfs, session.notifier());
        Ok(session)
    }

    fn wait_for_end(&self, happened: &Receiver<Event>) -> Result<(), Failure> {
        let event = happened.recv();
        self.behind.hurry();
        let ended = match event {
            Ok(Event::Ended(result)) => result,
            Ok(Event::Signal(signal)) => {
                log::info!("ending on signal {signal}");
                self.end_on_signal(happened)
            }
            Err(_) => Ok(()),
        };
        self.ended.with(|ended| *ended = true);
        if let Err(err) = ended {
            log::error!("the kernel ended the mount: {}", words(&err));
        }
        self.commit_rest()
    }

    /// What is dirty goes to the server first, while programs may still see the mount; then it is
    /// detached, and the session ends when the last open file is closed. A second signal cuts all
    /// waiting short.
    fn end_on_signal(&self, happened: &Receiver<Event>) -> io::Result<()> {
        let vfs = Arc::clone(&self.vfs);
        let (done, committed) = mpsc::channel();
        thread::Builder::new()
            .name("commit".into())
            .spawn(move || {
                let _ = vfs.commit_all();
                let _ = done.send(());
            })?;
        let again = || matches!(happened.try_recv(), Ok(Event::Signal(_)));
        while committed.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
            if again() {
                break;
            }
        }
        if mounts::detach(&self.directory, false).is_err() {
            mounts::detach(&self.directory, true)?;
        }
        match happened.recv_timeout(SESSION_END) {
            Ok(Event::Ended(result)) => result,
            Ok(Event::Signal(_)) | Err(_) => Ok(()),
        }
    }

    /// Temporary files away, QUIT: a server which does not answer gets little time for that.
    fn take_leave(&self) {
        let behind = Arc::clone(&self.behind);
        let courtesy = behind.courtesy();
        let (done, left) = mpsc::channel();
        let leaving = thread::Builder::new().name("quit".into()).spawn(move || {
            behind.close();
            let _ = done.send(());
        });
        if leaving.is_ok() {
            let _ = left.recv_timeout(courtesy);
        }
    }

    fn commit_rest(&self) -> Result<(), Failure> {
        self.vfs
            .commit_all()
            .map_err(|failures| left_over(&failures))
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::done(Value::Object(self.status())),
            Request::Flush { timeout } => match self.commit_within(timeout) {
                Ok(()) => Answer::done(Value::Null),
                Err(failure) => Answer::failed(&failure, self.dirty()),
            },
            Request::Umount { lazy, timeout } => match self.unmount(lazy, timeout) {
                Ok(()) => Answer::done(Value::Null),
                Err(failure) => Answer::failed(&failure, self.dirty()),
            },
            Request::Mail(ask) => match self.behind.mail(&ask) {
                Ok(body) => Answer::done(body),
                Err(failure) => Answer::failed(&failure, Value::Null),
            },
        }
    }

    /// Everything to the server, then off the directory, then what was written in between.
    fn unmount(&self, lazy: bool, timeout: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        if lazy {
            self.detach(true)?;
        }
        self.commit_within(timeout)?;
        if !lazy {
            self.detach(false)?;
        }
        // Until the session ends somebody may still write through a file that is open.
        let patience = Instant::now() + SESSION_END;
        while !self.ended.with(|ended| *ended) && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        self.commit_within(timeout.saturating_sub(began.elapsed()).max(self.timeout))
    }

    fn detach(&self, lazy: bool) -> Result<(), Failure> {
        let patience = Instant::now() + BUSY_A_MOMENT;
        let detached = loop {
            match mounts::detach(&self.directory, lazy) {
                Err(err)
                    if err.kind() == io::ErrorKind::ResourceBusy && Instant::now() < patience =>
                {
                    thread::sleep(Duration::from_millis(20));
                }
                detached => break detached,
            }
        };
        detached.map_err(|err| {
            let remedy = "close what is open there (fuser -vm shows it) or use umount --lazy";
            let line = format!("{}: {}; {remedy}", self.directory.display(), words(&err));
            Failure::new(Exit::Incomplete, line)
        })
    }

    fn commit_within(&self, timeout: Duration) -> Result<(), Failure> {
        let vfs = Arc::clone(&self.vfs);
        let (done, committed) = mpsc::channel();
        thread::Builder::new()
            .name("commit".into())
            .spawn(move || {
                let _ = done.send(vfs.commit_all());
            })
            .map_err(|err| Failure::system("commit", &err))?;
        match committed.recv_timeout(timeout) {
            Ok(outcome) => outcome.map_err(|failures| left_over(&failures)),
            Err(_) => {
                let left = self.vfs.dirty().len();
                let line = format!("{left} files are not on the server yet; try again later");
                Err(Failure::new(Exit::Incomplete, line))
            }
        }
    }

    fn dirty(&self) -> Value {
        let dirty = self.vfs.dirty().into_iter();
        dirty
            .map(|file| {
                let mut shown = json!({"path": file.path.to_string(), "bytes": file.bytes});
                if let (Some(error), Some(shown)) = (file.error, shown.as_object_mut()) {
                    shown.insert("error".to_owned(), error.into());
                }
                shown
            })
            .collect()
    }

    fn uploads(&self) -> Value {
        let Some(progress) = self.vfs.writeback_progress().filter(|p| p.waiting > 0) else {
            return Value::Null;
        };
        let next = progress.next_attempt.map(|time| time.as_secs());
        json!({
            "waiting": progress.waiting,
            "waiting_bytes": progress.waiting_bytes,
            "uploading": progress.uploading,
            "retrying": progress.retrying,
            "last_error": progress.last_error,
            "next_attempt_in": next,
        })
    }

    fn status(&self) -> Map<String, Value> {
        let mut status = self.behind.status();
        status.insert("passthrough".to_owned(), self.passthrough.shown().into());
        status.insert("direct_io".to_owned(), self.direct.shown().into());
        status.insert("dirty".to_owned(), self.dirty());
        status.insert("writeback".to_owned(), self.uploads());
        status.insert("transfers".to_owned(), traffic::transfers());
        status.insert("totals".to_owned(), traffic::totals());
        status
    }
}

fn run_session(session: Session<Filesystem>, events: Sender<Event>) -> Result<(), Failure> {
    thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            let _ = events.send(Event::Ended(session.run()));
        })
        .map(drop)
        .map_err(|err| Failure::system("session thread", &err))
}

fn watch_signals(events: Sender<Event>) -> Result<(), Failure> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|err| Failure::system("signal handlers", &err))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if events.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(|err| Failure::system("signal thread", &err))
}

/// What helps where the kernel or fusermount3 refuses.
fn unmountable(told: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().all(|word| told.contains(word));
    match () {
        () if has(&["/dev/fuse", "Permission denied"]) => "as root, chmod 666 /dev/fuse",
        () if has(&["package fuse3"]) => "install that package, or mount as root",
        () if has(&["no write access to mountpoint"]) => "choose a directory of your own",
        () if has(&["username"]) => "the user has no line in /etc/passwd",
        () if has(&["Operation not permitted"]) => {
            "a container needs --device /dev/fuse --cap-add SYS_ADMIN"
        }
        () => "/dev/fuse must exist (modprobe fuse), and users need fusermount3",
    }
}

/// Why the server could not be mounted or examined, with the exit code that scripts tell apart.
pub(crate) fn refused(url: &str, err: &Error) -> Failure {
    let code = match err.kind() {
        ErrorKind::PermissionDenied => Exit::Login,
        ErrorKind::Untrusted => Exit::Tls,
        ErrorKind::NotFound | ErrorKind::NotADirectory => Exit::NoDirectory,
        ErrorKind::Disconnected | ErrorKind::TimedOut | ErrorKind::Busy => Exit::Connect,
        _ => Exit::Failed,
    };
    let told = err.to_string();
    let remedy = match code {
        Exit::Login if told.contains("as anonymous") => "; name a user, as in ftp://USER@host/",
        Exit::Login => "; check the user and the password",
        Exit::NoDirectory => {
            "; the path begins in the login directory, one from the server's root with %2F"
        }
        Exit::Connect if told.contains("unknown host") => "; check the name in the URL",
        Exit::Connect if told.contains("cannot connect") => "; check the host and the port",
        Exit::Connect if told.contains("no answer in time") => {
            "; check the host and the port, where ftps:// may be wanted"
        }
        Exit::Failed if told.contains("not an FTP server") => "; check the port",
        Exit::Tls if told.contains("not speak TLS") && url.starts_with("pop3s:") => {
            "; pop3:// is for ports that begin in clear text and go on in TLS"
        }
        Exit::Tls if url.starts_with("pop3") => "",
        Exit::Tls if told.contains(": no TLS") || told.contains("not speak TLS") => {
            "; only ftp:// with -o tls=off goes without, in clear text; ftps:// has its own port"
        }
        _ => "",
    };
    // A server's last word often ends a sentence.
    let told = told.trim_end_matches('.');
    Failure::new(code, format!("{url}: {told}{remedy}"))
}

fn left_over(failures: &[(RemotePath, Error)]) -> Failure {
    let shown: Vec<String> = failures
        .iter()
        .take(3)
        .map(|(path, err)| format!("{path}: {err}"))
        .collect();
    let more = failures.len().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let line = format!("not on the server: {}{more}", shown.join("; "));
    Failure::new(Exit::Incomplete, line)
}
