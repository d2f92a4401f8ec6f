//! How the commands talk to a running mount: one line of JSON each way over a Unix socket that
//! only its owner and root can open.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::mail::ask::Ask;

/// Longest line either side reads: a status with many dirty files is long.
const MAX_LINE: u64 = 16 << 20;

/// Time in which a client must have sent its question, or taken its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions answered at once; more wait, and are turned away when that takes too long.
const MAX_CLIENTS: usize = 16;

/// What a command asks of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// What is going on? The body is what `status.rs` shows.
    Status,
    /// Bring everything written so far to the server.
    Flush {
        /// Longest wait.
        timeout: Duration,
    },
    /// Bring everything to the server, then unmount and end.
    Umount {
        /// Take the mount out of sight first and go on behind it; never refuse because it is busy.
        lazy: bool,
        /// Longest wait for the server; then nothing is unmounted.
        timeout: Duration,
    },
    /// Of a mailbox.
    Mail(Ask),
}

/// What a mount answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Why it could not be done: exit code and line.
    failure: Option<(u8, String)>,
    /// Whatever else there is to tell.
    body: Value,
}

impl Answer {
    /// It is done.
    pub(crate) const fn done(body: Value) -> Self {
        Self {
            failure: None,
            body,
        }
    }

    /// It is not; `body` may say what is left.
    pub(crate) fn failed(failure: &Failure, body: Value) -> Self {
        Self {
            failure: Some((failure.code().code(), failure.line().to_owned())),
            body,
        }
    }

    /// Whether it says that it is done.
    pub(crate) const fn is_done(&self) -> bool {
        self.failure.is_none()
    }

    /// The body, or the failure.
    pub(crate) fn into_result(self) -> Result<Value, Failure> {
        match self.failure {
            None => Ok(self.body),
            Some((code, line)) => Err(Failure::new(Exit::from_code(code), line)),
        }
    }
}

/// Answers a request; may take as long as the request allows.
pub(crate) type Answerer = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// The listening side, in the mount's process.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ending: AtomicBool,
    clients: AtomicUsize,
}

impl Server {
    /// Listens at `path`; `answer` is called from a thread of its own for each question.
    pub(crate) fn start(path: &Path, answer: Answerer) -> io::Result<Self> {
        // The state directory is locked, so a socket that is there is a dead one's.
        if let Err(err) = fs::remove_file(path)
            && err.kind() != io::ErrorKind::NotFound
        {
            return Err(err);
        }
        let listener = through_directory(path, |short| UnixListener::bind(short))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || serve(&listener, &answer, &of_thread))?;
        Ok(Self {
            path: path.to_owned(),
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    /// Takes no more questions and lets the answers under way reach those who asked: the answer to
    /// `umount` is sent while the mount ends.
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if through_directory(&self.path, |short| UnixStream::connect(short)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let deadline = Instant::now() + PATIENCE;
        while self.shared.clients.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits until there is room for another client: who hands in mail, as a hundred jobs of cron do in
/// one second, does not come again.
fn has_room(shared: &Shared) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while shared.clients.load(Ordering::Acquire) >= MAX_CLIENTS {
        if Instant::now() >= deadline || shared.ending.load(Ordering::Acquire) {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

fn serve(listener: &UnixListener, answer: &Answerer, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ending.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: do not spin.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if !has_room(shared) {
            continue;
        }
        shared.clients.fetch_add(1, Ordering::AcqRel);
        let (answer, of_client) = (Arc::clone(answer), Arc::clone(shared));
        let spawned = thread::Builder::new()
            .name("control-answer".to_owned())
            .spawn(move || {
                let _leaves = Leaving(&of_client.clients);
                if let Err(err) = converse(stream, &answer) {
                    log::debug!("control socket: {err}");
                }
            });
        if spawned.is_err() {
            shared.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Counts down however the thread ends.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn converse(stream: UnixStream, answer: &Answerer) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request: Request = receive(&stream)?;
    send(&stream, &answer(request))
}

/// Asks the mount whose socket is at `path` and waits for the answer, at most for `wait`.
///
/// # Errors
/// Of the socket: `NotFound` and `ConnectionRefused` mean that nobody is there, `UnexpectedEof`
/// that the mount ended without an answer, `TimedOut`.
pub(crate) fn ask(path: &Path, request: &Request, wait: Duration) -> io::Result<Answer> {
    let stream = through_directory(path, |short| UnixStream::connect(short))?;
    stream.set_read_timeout(Some(wait.max(PATIENCE)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&stream, request)?;
    receive(&stream).map_err(|err| match err.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => err,
    })
}

fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// The address of a Unix socket holds 107 bytes, a state directory may have more: so its directory
/// is opened and the name is looked up in `/proc/self/fd`.
fn through_directory<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(parent)?;
    work(
        &Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(name),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answerer() -> Answerer {
        Arc::new(|request| match request {
            Request::Status => Answer::done(json!({"dirty": []})),
            Request::Flush { timeout } => {
                thread::sleep(timeout);
                Answer::done(Value::Null)
            }
            Request::Umount { .. } => Answer::failed(
                &Failure::new(Exit::Incomplete, "2 files are left"),
                json!(2),
            ),
            Request::Mail(_) => Answer::done(Value::Null),
        })
    }

    #[test]
    fn questions_are_answered_over_a_long_private_path() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("x".repeat(200));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("control");
        fs::write(&path, "a dead one's").unwrap();
        let server = Server::start(&path, answerer()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let wait = Duration::from_secs(5);
        let body = ask(&path, &Request::Status, wait).unwrap().into_result();
        assert_eq!(body, Ok(json!({"dirty": []})));
        let umount = Request::Umount {
            lazy: false,
            timeout: wait,
        };
        let failure = ask(&path, &umount, wait)
            .unwrap()
            .into_result()
            .unwrap_err();
        assert_eq!(
            (failure.code(), failure.line()),
            (Exit::Incomplete, "2 files are left")
        );

        drop(server);
        assert_eq!(
            ask(&path, &Request::Status, wait).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn an_answer_under_way_is_sent_before_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("control");
        let server = Server::start(&path, answerer()).unwrap();
        let asked = path.clone();
        let client = thread::spawn(move || {
            let flush = Request::Flush {
                timeout: Duration::from_millis(300),
            };
            ask(&asked, &flush, Duration::from_secs(5))
        });
        while server.shared.clients.load(Ordering::Acquire) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        drop(server);
        assert_eq!(
            client.join().unwrap().unwrap().into_result(),
            Ok(Value::Null)
        );
    }

    #[test]
    fn nonsense_and_silence_end_the_conversation_only() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("control");
        let server = Server::start(&path, answerer()).unwrap();
        for nonsense in [&b"{}\n"[..], b"\xff\xfe\n", b"[[[[[[", b"\n", b""] {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(nonsense).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"");
        }
        assert!(ask(&path, &Request::Status, PATIENCE).is_ok());
        drop(server);
    }
}
