//! The model: a server in memory, a backend on it, and a wrapper that makes either fail.
//!
//! [`MemoryServer`] keeps a tree, counts what is asked of it, and has as many connections as it is
//! given. Its inherent methods are "someone else": they change the tree without the mount's
//! knowledge. Its clock advances by a second with every change, so that versions differ.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ferryfs::vfs::Saved;
use ferryfs::vfs::attr::{Attr, DirEntry, FileKind, SetAttr, Space};
use ferryfs::vfs::backend::{
    Backend, Download, Need, OpenFile, OpenHow, Publish, Replaces, Transfers, Upload,
};
use ferryfs::vfs::content::Contents;
use ferryfs::vfs::error::{Error, ErrorKind, Result};
use ferryfs::vfs::path::RemotePath;

/// How long a caller who would wait waits for a connection of the model.
const POOL_WAIT: Duration = Duration::from_secs(5);

/// Shorthand for tests.
pub fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

/// What a server was asked and how many bytes of content went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub stats: u64,
    pub lists: u64,
    pub retrieves: u64,
    pub stores: u64,
    pub appends: u64,
    pub publishes: u64,
    pub set_attrs: u64,
    /// Bytes of content sent to the mount.
    pub sent: u64,
    /// Bytes of content received from the mount.
    pub received: u64,
}

#[derive(Debug, Clone)]
enum Body {
    Directory,
    /// Shared with the downloads that began on it: replaced files live on for their readers, files
    /// changed in place do not.
    File(Arc<Mutex<Vec<u8>>>),
    Symlink(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Node {
    body: Body,
    mtime: SystemTime,
    mode: u32,
    unique: u64,
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<RemotePath, Node>,
    now: u64,
    uniques: u64,
    traffic: Traffic,
    connections: usize,
    in_use: usize,
    peak: usize,
    appends: bool,
    sizes: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

/// A server's tree in memory. Clones are the same server.
#[derive(Debug, Clone)]
pub struct MemoryServer(Arc<Shared>);

impl Default for MemoryServer {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryServer {
    /// An empty root, plenty of connections, a server that appends.
    pub fn new() -> Self {
        let state = State {
            nodes: BTreeMap::new(),
            now: 1_700_000_000,
            uniques: 1,
            traffic: Traffic::default(),
            connections: 64,
            in_use: 0,
            peak: 0,
            appends: true,
            sizes: true,
        };
        let server = Self(Arc::new(Shared {
            state: Mutex::new(state),
            released: Condvar::new(),
        }));
        server
            .lock()
            .place(&RemotePath::root(), Body::Directory, 0o755);
        server
    }

    /// The same with a limit of `connections` for transfers.
    pub fn with_connections(connections: usize) -> Self {
        let server = Self::new();
        server.lock().connections = connections;
        server
    }

    /// Whether `append` works from now on (otherwise it is `Unsupported`).
    pub fn allow_append(&self, yes: bool) {
        self.lock().appends = yes;
    }

    /// Whether sizes are told from now on.
    pub fn tell_sizes(&self, yes: bool) {
        self.lock().sizes = yes;
    }

    /// Someone puts a new file at `at`, replacing what was there; directories above are made.
    pub fn put(&self, at: &str, content: impl Into<Vec<u8>>) {
        let at = path(at);
        self.lock().make_parents(&at);
        let body = Body::File(Arc::new(Mutex::new(content.into())));
        self.lock().place(&at, body, 0o644);
    }

    /// Someone rewrites the file at `at` in place: whoever is reading it sees a mix.
    pub fn put_in_place(&self, at: &str, content: impl Into<Vec<u8>>) {
        let mut state = self.lock();
        let now = state.tick();
        let node = state.nodes.get_mut(&path(at)).unwrap();
        node.mtime = now;
        match &node.body {
            Body::File(body) => *body.lock().unwrap() = content.into(),
            _ => panic!("{at} is not a file"),
        }
    }

    /// Someone sets the mode of what is at `at`.
    pub fn chmod(&self, at: &str, mode: u32) {
        self.lock().nodes.get_mut(&path(at)).unwrap().mode = mode;
    }

    /// Someone makes a directory, and those above.
    pub fn put_directory(&self, at: &str) {
        let at = path(at);
        let mut state = self.lock();
        state.make_parents(&at);
        state.place(&at, Body::Directory, 0o755);
    }

    /// Someone makes a link.
    pub fn put_symlink(&self, at: &str, target: &[u8]) {
        let at = path(at);
        let mut state = self.lock();
        state.make_parents(&at);
        state.place(&at, Body::Symlink(target.to_vec()), 0o777);
    }

    /// Someone removes `at` with everything below.
    pub fn remove(&self, at: &str) {
        let at = path(at);
        let mut state = self.lock();
        state.nodes.retain(|p, _| !p.is_within(&at));
        state.tick();
    }

    /// Content of the file at `at`.
    pub fn get(&self, at: &str) -> Option<Vec<u8>> {
        match &self.lock().nodes.get(&path(at))?.body {
            Body::File(body) => Some(body.lock().unwrap().clone()),
            _ => None,
        }
    }

    /// Attributes of what is at `at`, uncounted.
    pub fn peek(&self, at: &str) -> Option<Attr> {
        let state = self.lock();
        state.nodes.get(&path(at)).map(|node| state.attr(node))
    }

    /// Every path but the root, sorted.
    pub fn paths(&self) -> Vec<RemotePath> {
        let state = self.lock();
        state
            .nodes
            .keys()
            .filter(|p| !p.is_root())
            .cloned()
            .collect()
    }

    /// What was asked so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    /// Connections that hold a transfer now.
    pub fn in_use(&self) -> usize {
        self.lock().in_use
    }

    /// The most connections that were ever in use at once.
    pub fn peak(&self) -> usize {
        self.lock().peak
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, wait: bool) -> Result<Connection> {
        let mut state = self.lock();
        if wait {
            let full = |s: &mut State| s.in_use >= s.connections;
            state = self
                .0
                .released
                .wait_timeout_while(state, POOL_WAIT, full)
                .unwrap()
                .0;
        }
        if state.in_use >= state.connections {
            return Err(Error::new(ErrorKind::Busy, "no connection is free"));
        }
        state.in_use += 1;
        state.peak = state.peak.max(state.in_use);
        Ok(Connection(self.clone()))
    }

    fn begin_upload(&self, at: &RemotePath, base: Option<u64>, wait: bool) -> Result<MemoryUpload> {
        let connection = self.connect(wait)?;
        let mut state = self.lock();
        state.require_parent(at)?;
        let target = match state.nodes.get(at).map(|n| n.body.clone()) {
            Some(Body::Directory) => return Err(named(ErrorKind::IsADirectory, at)),
            Some(Body::File(body)) => Some(body),
            Some(Body::Symlink(_)) | None => None,
        };
        let body = match base {
            None => Arc::default(),
            Some(base) => {
                let body = target.ok_or_else(|| named(ErrorKind::NotFound, at))?;
                let size = body.lock().unwrap().len() as u64;
                if size != base {
                    return Err(named(ErrorKind::Stale, at));
                }
                body
            }
        };
        match base {
            None => state.traffic.stores += 1,
            Some(_) => state.traffic.appends += 1,
        }
        Ok(MemoryUpload {
            connection,
            body,
            in_place: base.is_some(),
        })
    }
}

fn named(kind: ErrorKind, at: &RemotePath) -> Error {
    Error::new(kind, format!("{at}: {kind:?}"))
}

impl State {
    fn tick(&mut self) -> SystemTime {
        self.now += 1;
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.now)
    }

    fn place(&mut self, at: &RemotePath, body: Body, mode: u32) {
        self.uniques += 1;
        let node = Node {
            body,
            mtime: self.tick(),
            mode,
            unique: self.uniques,
        };
        self.nodes.insert(at.clone(), node);
    }

    fn make_parents(&mut self, at: &RemotePath) {
        if let Some(dir) = at.parent()
            && !self.nodes.contains_key(&dir)
        {
            self.make_parents(&dir);
            self.place(&dir, Body::Directory, 0o755);
        }
    }

    fn node(&self, at: &RemotePath) -> Result<&Node> {
        let node = self.nodes.get(at);
        node.ok_or_else(|| named(ErrorKind::NotFound, at))
    }

    fn node_mut(&mut self, at: &RemotePath) -> Result<&mut Node> {
        let node = self.nodes.get_mut(at);
        node.ok_or_else(|| named(ErrorKind::NotFound, at))
    }

    fn require_parent(&self, at: &RemotePath) -> Result<()> {
        let dir = at.parent().ok_or_else(|| named(ErrorKind::Exists, at))?;
        match self.node(&dir)?.body {
            Body::Directory => Ok(()),
            _ => Err(named(ErrorKind::NotADirectory, &dir)),
        }
    }

    /// What is not what an upload may replace stays under another name.
    fn keep_conflicting(&mut self, at: &RemotePath, what: &Publish) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        let now = self.attr(node);
        let ours = now.size == Some(what.size) && now.mtime == what.mtime;
        let other = match what.replaces {
            Replaces::Anything => false,
            Replaces::Nothing => true,
            Replaces::Version(seen) => seen.differs_from(&now),
        };
        if other && !ours {
            let aside = path(&format!("{}.conflict-{}", at, self.nodes.len()));
            let node = self.nodes[at].clone();
            self.nodes.insert(aside, node);
        }
    }

    fn is_empty(&self, dir: &RemotePath) -> bool {
        !self.nodes.keys().any(|p| p != dir && p.is_within(dir))
    }

    fn attr(&self, node: &Node) -> Attr {
        let (kind, size) = match &node.body {
            Body::Directory => (FileKind::Directory, None),
            Body::File(body) => (FileKind::File, Some(body.lock().unwrap().len() as u64)),
            Body::Symlink(target) => (FileKind::Symlink, Some(target.len() as u64)),
        };
        let mut attr = Attr::new(kind);
        attr.size = size.filter(|_| self.sizes);
        attr.mtime = Some(node.mtime);
        attr.mtime_exact = true;
        attr.mode = Some(node.mode);
        attr.unique = Some(node.unique.to_be_bytes().into());
        if let Body::Symlink(target) = &node.body {
            attr.target = Some(target.as_slice().into());
        }
        attr
    }
}

impl Transfers for MemoryServer {
    fn moved(&self) -> u64 {
        let traffic = self.traffic();
        traffic.sent + traffic.received
    }

    fn stat_now(&self, path: &RemotePath) -> Result<Attr> {
        let mut state = self.lock();
        state.traffic.stats += 1;
        Ok(state.attr(state.node(path)?))
    }

    fn retrieve(&self, path: &RemotePath, offset: u64, need: Need) -> Result<Box<dyn Download>> {
        let wait = match need {
            Need::Stream { wait } | Need::Spot { wait } => wait,
            Need::Beside { .. } => false,
            Need::Ahead => return Err(ErrorKind::Busy.into()),
        };
        let connection = self.connect(wait)?;
        let mut state = self.lock();
        state.traffic.retrieves += 1;
        let body = match &state.node(path)?.body {
            Body::File(body) => Arc::clone(body),
            Body::Directory => return Err(named(ErrorKind::IsADirectory, path)),
            Body::Symlink(_) => return Err(named(ErrorKind::Loop, path)),
        };
        Ok(Box::new(MemoryDownload {
            connection,
            body,
            at: offset,
        }))
    }

    fn store(&self, path: &RemotePath, _: Replaces, wait: bool) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.begin_upload(path, None, wait)?))
    }

    fn append(&self, path: &RemotePath, base: u64) -> Result<Box<dyn Upload>> {
        if !self.lock().appends {
            return Err(named(ErrorKind::Unsupported, path));
        }
        Ok(Box::new(self.begin_upload(path, Some(base), true)?))
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        let mut state = self.lock();
        state.traffic.set_attrs += 1;
        let node = state.node_mut(path)?;
        node.mtime = change.mtime.unwrap_or(node.mtime);
        node.mode = change.mode.unwrap_or(node.mode);
        Ok(())
    }
}

/// One of the server's connections, given back when dropped.
#[derive(Debug)]
struct Connection(MemoryServer);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.0.released.notify_all();
    }
}

struct MemoryDownload {
    connection: Connection,
    body: Arc<Mutex<Vec<u8>>>,
    at: u64,
}

impl Download for MemoryDownload {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let count = {
            let body = self.body.lock().unwrap();
            let rest = body.get(self.at as usize..).unwrap_or_default();
            let count = rest.len().min(buf.len());
            buf[..count].copy_from_slice(&rest[..count]);
            count
        };
        self.at += count as u64;
        self.connection.0.lock().traffic.sent += count as u64;
        Ok(count)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct MemoryUpload {
    connection: Connection,
    /// A file out of sight, or for an append the file itself.
    body: Arc<Mutex<Vec<u8>>>,
    in_place: bool,
}

impl Upload for MemoryUpload {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.body.lock().unwrap().extend_from_slice(data);
        self.connection.0.lock().traffic.received += data.len() as u64;
        Ok(())
    }

    fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let mut data = vec![0; len as usize];
        file.read_exact_at(&mut data, offset)
            .map_err(|_| Error::new(ErrorKind::Invalid, "shorter than it was"))?;
        self.write(&data)
    }

    fn publish(self: Box<Self>, at: &RemotePath, what: &Publish) -> Result<Attr> {
        let size = self.body.lock().unwrap().len() as u64;
        if size != what.size {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("{at}: the server has {size} bytes, not {}", what.size),
            ));
        }
        let mut state = self.connection.0.lock();
        state.require_parent(at)?;
        state.traffic.publishes += 1;
        if !self.in_place {
            state.keep_conflicting(at, what);
            let body = Body::File(Arc::clone(&self.body));
            state.place(at, body, 0o644);
        }
        let now = state.tick();
        let node = state.node_mut(at)?;
        node.mtime = what.mtime.unwrap_or(now);
        node.mode = what.mode.unwrap_or(node.mode);
        let node = node.clone();
        Ok(state.attr(&node))
    }
}

/// A backend on a [`MemoryServer`], its open files by [`Contents`].
pub struct MemoryBackend {
    server: MemoryServer,
    transfers: Arc<dyn Transfers>,
    contents: Arc<Contents>,
}

impl MemoryBackend {
    pub fn new(server: &MemoryServer, contents: &Arc<Contents>) -> Self {
        Self::over(server, Arc::new(server.clone()), contents)
    }

    /// The same with transfers that go another way, through a [`Faulty`] for example.
    pub fn over(
        server: &MemoryServer,
        transfers: Arc<dyn Transfers>,
        contents: &Arc<Contents>,
    ) -> Self {
        Self {
            server: server.clone(),
            transfers,
            contents: Arc::clone(contents),
        }
    }
}

impl Backend for MemoryBackend {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        self.server.stat_now(path)
    }

    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        let mut state = self.server.lock();
        state.traffic.lists += 1;
        if !matches!(state.node(dir)?.body, Body::Directory) {
            return Err(named(ErrorKind::NotADirectory, dir));
        }
        let entries = state.nodes.iter().filter_map(|(path, node)| {
            let (parent, name) = path.split()?;
            let attr = state.attr(node);
            (parent == *dir).then_some(DirEntry { name, attr })
        });
        Ok(entries.collect())
    }

    fn open(
        &self,
        path: &RemotePath,
        known: Option<&Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        let known = match (known, how.create) {
            (Some(known), _) => Some(known.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(self.server.stat_now(path)?),
        };
        if known.as_ref().is_some_and(Attr::is_dir) {
            return Err(named(ErrorKind::IsADirectory, path));
        }
        self.contents
            .open(Arc::clone(&self.transfers), path, known, how)
    }

    fn restore(&self, saved: Saved) -> Result<Arc<dyn OpenFile>> {
        self.contents.restore(Arc::clone(&self.transfers), saved)
    }

    fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()> {
        let mut state = self.server.lock();
        if state.nodes.contains_key(path) {
            return Err(named(ErrorKind::Exists, path));
        }
        state.require_parent(path)?;
        state.place(path, Body::Directory, mode.unwrap_or(0o755));
        Ok(())
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        let mut state = self.server.lock();
        if matches!(state.node(path)?.body, Body::Directory) {
            return Err(named(ErrorKind::IsADirectory, path));
        }
        state.nodes.remove(path);
        state.tick();
        Ok(())
    }

    fn rmdir(&self, path: &RemotePath) -> Result<()> {
        let mut state = self.server.lock();
        if !matches!(state.node(path)?.body, Body::Directory) {
            return Err(named(ErrorKind::NotADirectory, path));
        }
        if path.is_root() || !state.is_empty(path) {
            return Err(named(ErrorKind::NotEmpty, path));
        }
        state.nodes.remove(path);
        state.tick();
        Ok(())
    }

    fn rename(&self, from: &RemotePath, to: &RemotePath, _: Replaces) -> Result<()> {
        let mut state = self.server.lock();
        let moved = matches!(state.node(from)?.body, Body::Directory);
        state.require_parent(to)?;
        if from == to {
            return Ok(());
        }
        if to.is_within(from) {
            return Err(named(ErrorKind::Invalid, to));
        }
        match state.nodes.get(to).map(|n| &n.body) {
            Some(Body::Directory) if !moved => return Err(named(ErrorKind::IsADirectory, to)),
            Some(Body::Directory) if !state.is_empty(to) => {
                return Err(named(ErrorKind::NotEmpty, to));
            }
            Some(Body::File(_) | Body::Symlink(_)) if moved => {
                return Err(named(ErrorKind::NotADirectory, to));
            }
            _ => {}
        }
        state.nodes = std::mem::take(&mut state.nodes)
            .into_iter()
            .filter(|(path, _)| path != to)
            .map(|(path, node)| (path.rebase(from, to).unwrap_or(path), node))
            .collect();
        state.tick();
        Ok(())
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        Transfers::set_attr(&self.server, path, change)
    }

    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        match &self.server.lock().node(path)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(named(ErrorKind::Invalid, path)),
        }
    }

    fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let mut state = self.server.lock();
        if state.nodes.contains_key(path) {
            return Err(named(ErrorKind::Exists, path));
        }
        state.require_parent(path)?;
        state.place(path, Body::Symlink(target.to_vec()), 0o777);
        Ok(())
    }

    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    fn xattrs(&self, _: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

/// What a [`Faulty`] can be told to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Stat,
    List,
    Open,
    Mkdir,
    Unlink,
    Rmdir,
    Rename,
    SetAttr,
    ReadLink,
    Symlink,
    Space,
    Xattrs,
    StatNow,
    Retrieve,
    /// `Download::read`.
    Read,
    /// `Download::finish`.
    Finish,
    Store,
    Append,
    /// `Upload::write` and `Upload::send_file`.
    Write,
    /// `Upload::publish`, before it has any effect.
    Publish,
    /// The answer to `Upload::publish`: it took effect.
    PublishAnswer,
}

#[derive(Debug)]
enum Fault {
    /// The next call fails.
    Once(Op, ErrorKind),
    /// Every call fails until `heal`.
    Always(Op, ErrorKind),
    /// The next transfer to reach `at` bytes since it began breaks there.
    Cut { op: Op, at: u64, kind: ErrorKind },
    /// The next download ends after `at` bytes; `finish` agrees if `agrees`.
    End { at: u64, agrees: bool },
}

#[derive(Debug, Default)]
struct Plan {
    faults: VecDeque<Fault>,
    short: Option<usize>,
    delay: Option<(Op, Duration)>,
    struck: usize,
}

/// Makes the [`Backend`] or [`Transfers`] inside fail on demand.
pub struct Faulty<T: ?Sized> {
    inner: Arc<T>,
    plan: Arc<Mutex<Plan>>,
}

impl<T: ?Sized> Faulty<T> {
    pub fn new(inner: Arc<T>) -> Self {
        let plan = Arc::default();
        Self { inner, plan }
    }

    /// The next `op` fails with `kind`; several calls queue several failures.
    pub fn fail(&self, op: Op, kind: ErrorKind) {
        self.add(Fault::Once(op, kind));
    }

    /// Every `op` fails with `kind` until [`heal`](Self::heal).
    pub fn fail_always(&self, op: Op, kind: ErrorKind) {
        self.add(Fault::Always(op, kind));
    }

    /// One transfer (`Op::Read` or `Op::Write`) breaks when it has moved `at` bytes.
    pub fn cut(&self, op: Op, at: u64, kind: ErrorKind) {
        self.add(Fault::Cut { op, at, kind });
    }

    /// One download ends after `at` bytes as if that were all; `finish` then says Ok if `agrees`,
    /// `Disconnected` otherwise.
    pub fn end(&self, at: u64, agrees: bool) {
        self.add(Fault::End { at, agrees });
    }

    /// Every `Download::read` gives at most `most` bytes.
    pub fn short_reads(&self, most: usize) {
        self.plan().short = Some(most);
    }

    /// Every `op` takes this much longer.
    pub fn delay(&self, op: Op, time: Duration) {
        self.plan().delay = Some((op, time));
    }

    /// Forgets all faults, those still to come included.
    pub fn heal(&self) {
        let struck = self.struck();
        *self.plan() = Plan {
            struck,
            ..Plan::default()
        };
    }

    /// How many faults have struck.
    pub fn struck(&self) -> usize {
        self.plan().struck
    }

    fn add(&self, fault: Fault) {
        self.plan().faults.push_back(fault);
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }

    fn check(&self, op: Op) -> Result<()> {
        strike(&self.plan, op)
    }
}

fn strike(plan: &Mutex<Plan>, op: Op) -> Result<()> {
    let delay = plan.lock().unwrap().delay;
    if let Some((_, time)) = delay.filter(|(o, _)| *o == op) {
        std::thread::sleep(time);
    }
    let mut plan = plan.lock().unwrap();
    let found = plan
        .faults
        .iter()
        .position(|fault| matches!(fault, Fault::Once(o, _) | Fault::Always(o, _) if *o == op));
    let Some(found) = found else { return Ok(()) };
    plan.struck += 1;
    let kind = match plan.faults[found] {
        Fault::Once(_, kind) => {
            plan.faults.remove(found);
            kind
        }
        Fault::Always(_, kind) => kind,
        _ => unreachable!(),
    };
    Err(Error::new(kind, format!("injected: {op:?} {kind:?}")))
}

/// How far a transfer may still go before the planned break, and the break.
fn room(plan: &Mutex<Plan>, op: Op, moved: u64, want: usize) -> Result<usize> {
    let mut plan = plan.lock().unwrap();
    let want = plan
        .short
        .filter(|_| op == Op::Read)
        .map_or(want, |s| want.min(s));
    let found = plan
        .faults
        .iter()
        .position(|fault| matches!(fault, Fault::Cut { op: o, .. } if *o == op));
    let Some(found) = found else { return Ok(want) };
    let Fault::Cut { at, kind, .. } = plan.faults[found] else {
        return Ok(want);
    };
    if moved < at {
        return Ok(want.min((at - moved) as usize));
    }
    plan.faults.remove(found);
    plan.struck += 1;
    Err(Error::new(kind, format!("injected: cut after {at} bytes")))
}

impl<T: Backend + ?Sized> Backend for Faulty<T> {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        self.check(Op::Stat)?;
        self.inner.stat(path)
    }

    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        self.check(Op::List)?;
        self.inner.list(dir)
    }

    fn open(
        &self,
        path: &RemotePath,
        known: Option<&Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        self.check(Op::Open)?;
        self.inner.open(path, known, how)
    }

    fn restore(&self, saved: Saved) -> Result<Arc<dyn OpenFile>> {
        self.inner.restore(saved)
    }

    fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()> {
        self.check(Op::Mkdir)?;
        self.inner.mkdir(path, mode)
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        self.check(Op::Unlink)?;
        self.inner.unlink(path)
    }

    fn rmdir(&self, path: &RemotePath) -> Result<()> {
        self.check(Op::Rmdir)?;
        self.inner.rmdir(path)
    }

    fn rename(&self, from: &RemotePath, to: &RemotePath, replaces: Replaces) -> Result<()> {
        self.check(Op::Rename)?;
        self.inner.rename(from, to, replaces)
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.check(Op::SetAttr)?;
        self.inner.set_attr(path, change)
    }

    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.check(Op::ReadLink)?;
        self.inner.read_link(path)
    }

    fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        self.check(Op::Symlink)?;
        self.inner.symlink(target, path)
    }

    fn space(&self) -> Result<Option<Space>> {
        self.check(Op::Space)?;
        self.inner.space()
    }

    fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        self.check(Op::Xattrs)?;
        self.inner.xattrs(path)
    }
}

impl<T: Transfers + ?Sized> Transfers for Faulty<T> {
    fn moved(&self) -> u64 {
        self.inner.moved()
    }

    fn stat_now(&self, path: &RemotePath) -> Result<Attr> {
        self.check(Op::StatNow)?;
        self.inner.stat_now(path)
    }

    fn retrieve(&self, path: &RemotePath, offset: u64, need: Need) -> Result<Box<dyn Download>> {
        if need == Need::Ahead {
            return self.inner.retrieve(path, offset, need);
        }
        self.check(Op::Retrieve)?;
        let mut plan = self.plan();
        let end = plan
            .faults
            .iter()
            .position(|f| matches!(f, Fault::End { .. }));
        let end = match end.and_then(|found| plan.faults.remove(found)) {
            Some(Fault::End { at, agrees }) => {
                plan.struck += 1;
                Some((at, agrees))
            }
            _ => None,
        };
        drop(plan);
        Ok(Box::new(FaultyDownload {
            inner: self.inner.retrieve(path, offset, need)?,
            plan: Arc::clone(&self.plan),
            moved: 0,
            end,
        }))
    }

    fn store(&self, path: &RemotePath, replaces: Replaces, wait: bool) -> Result<Box<dyn Upload>> {
        self.check(Op::Store)?;
        Ok(Box::new(FaultyUpload {
            inner: self.inner.store(path, replaces, wait)?,
            plan: Arc::clone(&self.plan),
            moved: 0,
        }))
    }

    fn append(&self, path: &RemotePath, base: u64) -> Result<Box<dyn Upload>> {
        self.check(Op::Append)?;
        Ok(Box::new(FaultyUpload {
            inner: self.inner.append(path, base)?,
            plan: Arc::clone(&self.plan),
            moved: 0,
        }))
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.check(Op::SetAttr)?;
        self.inner.set_attr(path, change)
    }
}

struct FaultyDownload {
    inner: Box<dyn Download>,
    plan: Arc<Mutex<Plan>>,
    moved: u64,
    end: Option<(u64, bool)>,
}

impl Download for FaultyDownload {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        strike(&self.plan, Op::Read)?;
        let mut room = room(&self.plan, Op::Read, self.moved, buf.len())?;
        if let Some((at, _)) = self.end {
            room = room.min((at - self.moved) as usize);
        }
        if room == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buf[..room])?;
        self.moved += count as u64;
        Ok(count)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        strike(&self.plan, Op::Finish)?;
        match self.end {
            Some((_, false)) => Err(Error::new(ErrorKind::Disconnected, "injected: early end")),
            Some((_, true)) => Ok(()),
            None => self.inner.finish(),
        }
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    plan: Arc<Mutex<Plan>>,
    moved: u64,
}

impl Upload for FaultyUpload {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        strike(&self.plan, Op::Write)?;
        let mut data = data;
        while !data.is_empty() {
            let room = room(&self.plan, Op::Write, self.moved, data.len())?;
            let (now, rest) = data.split_at(room);
            self.inner.write(now)?;
            self.moved += room as u64;
            data = rest;
        }
        Ok(())
    }

    fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let mut data = vec![0; len as usize];
        file.read_exact_at(&mut data, offset)
            .map_err(|_| Error::new(ErrorKind::Invalid, "shorter than it was"))?;
        self.write(&data)
    }

    fn publish(self: Box<Self>, at: &RemotePath, what: &Publish) -> Result<Attr> {
        strike(&self.plan, Op::Publish)?;
        let attr = self.inner.publish(at, what)?;
        strike(&self.plan, Op::PublishAnswer)?;
        Ok(attr)
    }
}
