//! A small FTP server for tests: faithful by default, odd or faulty as its [`Quirks`] say.
//!
//! It serves a temporary directory on loopback with one thread for each session, and keeps a log
//! of every command, so that a test can say what a mount may not do ("no per-file command").

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod checksums;
mod clock;
mod files;
mod listing;
pub mod quirks;
mod session;
pub mod tls;
mod transfer;

pub use quirks::{Break, Completion, DashA, Dialect, Disk, Early, Limit, MlsdLinks, RestStor};
pub use quirks::{Quirks, SiteUtime, matches};

/// A running server. It ends, with all its sessions, when it is dropped.
pub struct Ftpd {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    root: TempDir,
}

/// One command that was received.
#[derive(Clone, Debug)]
pub struct Command {
    /// Which session it came in, counted from 0 since the start.
    pub session: usize,
    /// When.
    pub at: Instant,
    /// The line without its end, bytes that are not UTF-8 replaced.
    pub line: String,
}

impl Ftpd {
    /// A faithful server on 127.0.0.1 with an empty directory.
    pub fn start() -> Self {
        Self::with(Quirks::default())
    }

    /// A server with these quirks on 127.0.0.1.
    pub fn with(quirks: Quirks) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), quirks)
    }

    /// A server with these quirks on this address.
    pub fn on(address: IpAddr, quirks: Quirks) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port on loopback");
        let address = listener.local_addr().unwrap();
        let root = tempfile::Builder::new().prefix("ftpd-").tempdir().unwrap();
        let shared = Arc::new(Shared {
            root: root.path().to_path_buf(),
            quirks: Mutex::new(Arc::new(quirks)),
            log: Mutex::default(),
            sockets: Mutex::default(),
            next_socket: AtomicU64::new(0),
            opened: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            logged_in: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            asked_early: AtomicUsize::new(0),
            closed_early: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let server = Self {
            shared,
            address,
            listener: Mutex::default(),
            root,
        };
        server.listen(listener);
        server
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        *self.listener.lock().unwrap() = listener.try_clone().ok();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.down.load(SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || session::serve(&shared, stream));
                }
            }
        });
    }

    /// The directory that is served, for looking behind the mount's back.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path below [`root`](Self::root).
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    /// Puts a file there, with the directories it needs.
    pub fn put(&self, below: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Content of a file there.
    pub fn get(&self, below: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(below);
        std::fs::read(&path).unwrap_or_else(|err| panic!("{} on the server: {err}", path.display()))
    }

    /// Address of the control connection.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `ftp://USER@HOST:PORT/DIRECTORY`, without a user where any may log in.
    pub fn url(&self, directory: &str) -> String {
        let user = match &self.shared.quirks().login {
            Some((user, _)) => format!("{user}@"),
            None => String::new(),
        };
        format!("ftp://{user}{}/{directory}", self.address)
    }

    /// Changes quirks while it runs; they hold from the next command on.
    pub fn change(&self, change: impl FnOnce(&mut Quirks)) {
        change(Arc::make_mut(&mut self.shared.quirks.lock().unwrap()));
    }

    /// Every command so far.
    pub fn log(&self) -> Vec<Command> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Every command line so far, logins and all.
    pub fn commands(&self) -> Vec<String> {
        self.log().into_iter().map(|command| command.line).collect()
    }

    /// How many commands so far match `pattern` (see [`Quirks`]).
    pub fn count(&self, pattern: &str) -> usize {
        self.commands()
            .iter()
            .filter(|line| matches(pattern, line))
            .count()
    }

    /// Forgets the log so far.
    pub fn clear_log(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Sessions ever opened.
    pub fn sessions_opened(&self) -> usize {
        self.shared.opened.load(SeqCst)
    }

    /// Sessions open now.
    pub fn sessions_open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// Most sessions that were logged in at the same time.
    pub fn sessions_peak(&self) -> usize {
        self.shared.peak.load(SeqCst)
    }

    /// Bytes sent over data connections, listings included.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.sent.load(SeqCst)
    }

    /// Bytes received over data connections.
    pub fn bytes_received(&self) -> u64 {
        self.shared.received.load(SeqCst)
    }

    /// Transfers with a late end ([`Completion::Late`]) that the next command did not wait for.
    pub fn asked_early(&self) -> usize {
        self.shared.asked_early.load(SeqCst)
    }

    /// How many transfers had their data connection closed by the client, on its side, when all was
    /// sent; with [`Completion::Awaited`].
    pub fn closed_early(&self) -> usize {
        self.shared.closed_early.load(SeqCst)
    }

    /// Closes every connection there is; new ones are welcome.
    pub fn hang_up(&self) {
        let closed = self.shared.hang_up();
        let deadline = Instant::now() + Duration::from_secs(1);
        let some_open = || {
            let sockets = self.shared.sockets.lock().unwrap();
            closed.iter().any(|key| sockets.contains_key(key))
        };
        while some_open() && Instant::now() < deadline {
            thread::yield_now();
        }
    }

    /// As [`hang_up`](Self::hang_up), and new connections are refused until
    /// [`come_back`](Self::come_back).
    pub fn go_down(&self) {
        self.listen_no_more();
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
        self.hang_up();
    }

    /// Undoes [`go_down`](Self::go_down), on the same port.
    pub fn come_back(&self) {
        self.shared.down.store(false, SeqCst);
        self.listen(TcpListener::bind(self.address).expect("the port we had"));
    }

    /// Wakes the listening thread, which closes the port: from here it may not be in reach.
    fn listen_no_more(&self) {
        self.shared.down.store(true, SeqCst);
        let listener = self.listener.lock().unwrap().take();
        if let Some(listener) = listener {
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }
}

impl Drop for Ftpd {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.listen_no_more();
        self.shared.hang_up();
    }
}

/// What the sessions of one server share.
struct Shared {
    root: PathBuf,
    quirks: Mutex<Arc<Quirks>>,
    log: Mutex<Vec<Command>>,
    sockets: Mutex<BTreeMap<u64, TcpStream>>,
    next_socket: AtomicU64,
    opened: AtomicUsize,
    open: AtomicUsize,
    logged_in: AtomicUsize,
    peak: AtomicUsize,
    sent: AtomicU64,
    received: AtomicU64,
    asked_early: AtomicUsize,
    /// Transfers whose data connection the client had closed on its side when all was sent.
    closed_early: AtomicUsize,
    down: AtomicBool,
    ended: AtomicBool,
}

impl Shared {
    fn quirks(&self) -> Arc<Quirks> {
        Arc::clone(&self.quirks.lock().unwrap())
    }

    fn hang_up(&self) -> Vec<u64> {
        let sockets = self.sockets.lock().unwrap();
        for socket in sockets.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        sockets.keys().copied().collect()
    }

    /// The words of the first rule for `line` among `rules` that still applies, used up by one.
    fn rule(
        &self,
        line: &str,
        rules: impl Fn(&mut Quirks) -> &mut Vec<quirks::Rule>,
    ) -> Option<String> {
        let mut quirks = self.quirks.lock().unwrap();
        let quirks = Arc::make_mut(&mut quirks);
        let rule = rules(quirks)
            .iter_mut()
            .find(|rule| rule.left != Some(0) && matches(&rule.pattern, line))?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.reply.clone())
    }

    /// The fault that waits for a transfer by `line`.
    fn fault(&self, line: &str) -> Option<quirks::Fault> {
        let quirks = self.quirks();
        let waits = |f: &&quirks::Fault| f.left != Some(0) && matches(&f.pattern, line);
        quirks.faults.iter().find(waits).cloned()
    }

    /// The same, used up by one.
    fn fire(&self, line: &str) -> Option<quirks::Break> {
        let mut quirks = self.quirks.lock().unwrap();
        let fault = Arc::make_mut(&mut quirks)
            .faults
            .iter_mut()
            .find(|fault| fault.left != Some(0) && matches(&fault.pattern, line))?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.what.clone())
    }
}

/// A socket that [`Ftpd::hang_up`] can reach.
struct Live {
    stream: TcpStream,
    key: u64,
    shared: Arc<Shared>,
}

impl Live {
    fn new(shared: &Arc<Shared>, stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let key = shared.next_socket.fetch_add(1, SeqCst);
        shared
            .sockets
            .lock()
            .unwrap()
            .insert(key, stream.try_clone()?);
        if shared.ended.load(SeqCst) {
            stream.shutdown(Shutdown::Both)?;
        }
        let shared = Arc::clone(shared);
        Ok(Self {
            stream,
            key,
            shared,
        })
    }

    /// What is said and heard from now on goes through `inner`; what [`Ftpd::hang_up`] closes stays
    /// the same.
    fn within(&mut self, inner: TcpStream) -> io::Result<()> {
        inner.set_nodelay(true)?;
        self.stream = inner;
        Ok(())
    }

    /// Waits until the peer has closed its side, having closed ours.
    fn await_close(mut self) {
        use std::io::Read;
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = self.stream.read(&mut [0]);
    }

    /// Closes it by a reset, so that the peer sees an error and no end of data.
    fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.sockets.lock().unwrap().remove(&self.key);
    }
}
