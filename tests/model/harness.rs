//! The reference tree, and a kernel to drive the filesystem with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ferryfs::vfs::attr::FileKind;
use ferryfs::vfs::backend::{Backend, OpenHow};
use ferryfs::vfs::blocks::Blocks;
use ferryfs::vfs::cache::Cached;
use ferryfs::vfs::content::{Contents, Keeping};
use ferryfs::vfs::error::{ErrorKind, Result};
use ferryfs::vfs::{Change, Ino, NewTime, Policy, ROOT, RenameHow, Stat, Vfs, View};

use crate::support::memory::{MemoryBackend, MemoryServer};

const LONG: Duration = Duration::from_secs(3600);

/// Chooses one of what exists.
#[derive(Debug, Clone, Copy)]
pub struct Pick(pub usize);

impl Pick {
    fn index(self, of: usize) -> usize {
        self.0 % of
    }
}

/// One step. Targets are chosen by index modulo what exists.
#[derive(Debug, Clone)]
pub enum Op {
    Mkdir {
        dir: Pick,
        name: String,
    },
    Symlink {
        dir: Pick,
        name: String,
    },
    Create {
        dir: Pick,
        name: String,
        exclusive: bool,
        truncate: bool,
    },
    Open {
        file: Pick,
        write: bool,
        truncate: bool,
    },
    Write {
        handle: Pick,
        offset: u64,
        len: usize,
    },
    SetLen {
        handle: Pick,
        len: u64,
    },
    Truncate {
        file: Pick,
        len: u64,
    },
    Flush {
        handle: Pick,
    },
    Close {
        handle: Pick,
    },
    Unlink {
        target: Pick,
    },
    Rmdir {
        target: Pick,
    },
    Rename {
        from: Pick,
        dir: Pick,
        name: String,
        no_replace: bool,
    },
    RenameOver {
        from: Pick,
        to: Pick,
    },
    Chmod {
        target: Pick,
        mode: u32,
    },
    Utimens {
        target: Pick,
        time: u64,
    },
    Forget {
        inode: Pick,
    },
    OtherPut {
        dir: Pick,
        name: String,
        len: usize,
    },
    OtherMkdir {
        dir: Pick,
        name: String,
    },
    OtherRemove {
        target: Pick,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Dir,
    Link,
    /// Pick of its content, which outlives its name.
    File(usize),
}

/// What is expected of one name. `None`: not known to the reference.
#[derive(Debug, Clone, Copy)]
struct Expected {
    body: Body,
    mode: Option<u32>,
    mtime: Option<u64>,
}

impl Expected {
    fn new(body: Body) -> Self {
        Self {
            body,
            mode: None,
            mtime: None,
        }
    }

    fn kind(&self) -> FileKind {
        match self.body {
            Body::Dir => FileKind::Directory,
            Body::Link => FileKind::Symlink,
            Body::File(_) => FileKind::File,
        }
    }
}

struct Handle {
    fh: u64,
    content: usize,
    write: bool,
}

/// A filesystem, the server behind it, and what both should be.
pub struct Harness {
    vfs: Arc<Vfs>,
    /// Uploads run behind the operations.
    writeback: bool,
    server: MemoryServer,
    _staging: tempfile::TempDir,
    /// By path without a leading slash; the root is "".
    tree: BTreeMap<String, Expected>,
    contents: Vec<Vec<u8>>,
    handles: Vec<Handle>,
    /// The kernel's: lookups of each inode, and the inodes of names.
    lookups: BTreeMap<Ino, u64>,
    dentries: HashMap<(Ino, String), (Ino, FileKind)>,
    fill: u8,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

fn is_within(path: &str, dir: &str) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn kind_of<T>(result: &Result<T>) -> std::result::Result<(), ErrorKind> {
    match result {
        Ok(_) => Ok(()),
        Err(err) => Err(err.kind()),
    }
}

impl Harness {
    /// Behind a cache that never forgets: only our own changes may happen.
    pub fn caching() -> Self {
        Self::new(LONG)
    }

    /// Behind a cache that never believes: others may change the server.
    pub fn asking() -> Self {
        Self::new(Duration::ZERO)
    }

    /// The same, and what is closed is uploaded while the next operations run.
    pub fn writing_back() -> Self {
        Self::with(LONG, true)
    }

    fn new(ttl: Duration) -> Self {
        Self::with(ttl, false)
    }

    fn with(ttl: Duration, writeback: bool) -> Self {
        let staging = tempfile::tempdir().unwrap();
        let server = MemoryServer::new();
        let keeping = Keeping {
            writeback,
            ..Keeping::default()
        };
        let blocks = Blocks::in_memory(16 << 20);
        let dir = staging.path().join("staging");
        let contents = Contents::with_cache(&dir, 64 << 20, blocks, keeping).unwrap();
        let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&server, &contents));
        let view = View {
            uid: 1,
            gid: 2,
            umask: None,
            file_mode: 0o644,
            dir_mode: 0o755,
            read_only: false,
            validity: LONG,
        };
        let vfs = Arc::new(Vfs::new(Arc::new(Cached::new(inner, ttl, 10_000)), view));
        if writeback {
            vfs.start_writeback(Policy {
                enabled: true,
                settle: Duration::ZERO,
                uploads: 3,
                // Now and then a close has to wait.
                most_files: 4,
                most_bytes: u64::MAX,
                is_crowded: Arc::new(|| false),
            });
        }
        Self {
            vfs,
            writeback,
            server,
            _staging: staging,
            tree: BTreeMap::from([(String::new(), Expected::new(Body::Dir))]),
            contents: Vec::new(),
            handles: Vec::new(),
            lookups: BTreeMap::new(),
            dentries: HashMap::new(),
            fill: 0,
        }
    }

    /// Runs `ops`, compares after each, and gives everything back.
    pub fn run(mut self, ops: &[Op]) {
        for op in ops {
            self.step(op);
            self.compare();
        }
        self.finish();
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Mkdir { dir, name } => {
                let (dir, path) = self.new_name(dir, name);
                let expected = self.free(&path);
                let result = self.vfs.mkdir(dir, OsStr::new(name), 0o750);
                assert_eq!(kind_of(&result), expected, "mkdir {path}");
                if let Ok(entry) = result {
                    self.looked_up(dir, name, &entry.stat);
                    self.tree.insert(
                        path,
                        Expected {
                            mode: Some(0o750),
                            ..Expected::new(Body::Dir)
                        },
                    );
                }
            }
            Op::Symlink { dir, name } => {
                let (dir, path) = self.new_name(dir, name);
                let expected = self.free(&path);
                let result = self.vfs.symlink(dir, OsStr::new(name), b"target");
                assert_eq!(kind_of(&result), expected, "symlink {path}");
                if let Ok(entry) = result {
                    self.looked_up(dir, name, &entry.stat);
                    self.tree.insert(path, Expected::new(Body::Link));
                }
            }
            Op::Create {
                dir,
                name,
                exclusive,
                truncate,
            } => self.create(dir, name, *exclusive, *truncate),
            Op::Open {
                file,
                write,
                truncate,
            } => {
                let Some((path, content)) = self.pick_file(file) else {
                    return;
                };
                let how = OpenHow {
                    read: true,
                    write: *write,
                    truncate: *write && *truncate,
                    create: None,
                };
                let ino = self.walk(&path);
                let opened = self.vfs.open(ino, how).unwrap();
                if how.truncate {
                    self.contents[content].clear();
                    self.written(&path);
                }
                self.handles.push(Handle {
                    fh: opened.fh,
                    content,
                    write: *write,
                });
            }
            Op::Write {
                handle,
                offset,
                len,
            } => {
                let Some(at) = self.pick_handle(handle) else {
                    return;
                };
                self.fill = self.fill.wrapping_add(1);
                let data = vec![self.fill; *len];
                let Handle { fh, content, write } = self.handles[at];
                let result = self.vfs.write(fh, *offset, &data);
                if !write {
                    assert_eq!(kind_of(&result), Err(ErrorKind::BadHandle));
                    return;
                }
                assert_eq!(result.unwrap(), *len);
                if *len > 0 {
                    let start = *offset as usize;
                    let content = &mut self.contents[content];
                    content.resize(content.len().max(start + len), 0);
                    content[start..start + len].copy_from_slice(&data);
                }
                self.content_written(self.handles[at].content);
            }
            Op::SetLen { handle, len } => {
                let Some(at) = self.pick_handle(handle) else {
                    return;
                };
                let Handle { fh, content, write } = self.handles[at];
                let Some(path) = self.path_of(content) else {
                    return;
                };
                let ino = self.walk(&path);
                let change = Change {
                    size: Some(*len),
                    mtime: Some(NewTime::Now),
                    fh: Some(fh),
                    ..Change::default()
                };
                let result = self.vfs.setattr(ino, &change);
                if !write {
                    assert_eq!(kind_of(&result), Err(ErrorKind::BadHandle));
                    return;
                }
                assert_eq!(result.unwrap().0.size, *len);
                self.contents[content].resize(*len as usize, 0);
                self.written(&path);
            }
            Op::Truncate { file, len } => {
                let Some((path, content)) = self.pick_file(file) else {
                    return;
                };
                let ino = self.walk(&path);
                let change = Change {
                    size: Some(*len),
                    ..Change::default()
                };
                assert_eq!(self.vfs.setattr(ino, &change).unwrap().0.size, *len);
                self.contents[content].resize(*len as usize, 0);
                self.written(&path);
                self.check_stored(content, true);
            }
            Op::Flush { handle } => {
                let Some(at) = self.pick_handle(handle) else {
                    return;
                };
                let Handle { fh, content, write } = self.handles[at];
                self.vfs.flush(fh).unwrap();
                self.check_stored(content, write);
                if self.writeback && handle.0 % 2 == 0 {
                    self.vfs.fsync(fh).unwrap();
                    self.check_on_server(content, write);
                }
            }
            Op::Close { handle } => {
                let Some(at) = self.pick_handle(handle) else {
                    return;
                };
                let Handle { fh, content, write } = self.handles.swap_remove(at);
                self.close(fh, content, write);
            }
            Op::Unlink { target } => {
                let Some(path) = self.pick(target) else {
                    return;
                };
                let (parent, name) = self.walk_to(&path);
                let expected = match self.tree[&path].body {
                    Body::Dir => Err(ErrorKind::IsADirectory),
                    Body::Link | Body::File(_) => Ok(()),
                };
                let result = self.vfs.unlink(parent, OsStr::new(&name));
                assert_eq!(kind_of(&result), expected, "unlink {path}");
                if result.is_ok() {
                    self.tree.remove(&path);
                    self.dentries.remove(&(parent, name));
                }
            }
            Op::Rmdir { target } => {
                let Some(path) = self.pick(target) else {
                    return;
                };
                let (parent, name) = self.walk_to(&path);
                let expected = match self.tree[&path].body {
                    Body::Dir if self.is_empty(&path) => Ok(()),
                    Body::Dir => Err(ErrorKind::NotEmpty),
                    Body::Link | Body::File(_) => Err(ErrorKind::NotADirectory),
                };
                let result = self.vfs.rmdir(parent, OsStr::new(&name));
                assert_eq!(kind_of(&result), expected, "rmdir {path}");
                if result.is_ok() {
                    self.tree.remove(&path);
                    self.dentries.remove(&(parent, name));
                }
            }
            Op::Rename {
                from,
                dir,
                name,
                no_replace,
            } => {
                let Some(from) = self.pick(from) else { return };
                let dir = self.pick_dir(dir);
                self.rename(&from, &join(&dir, name), *no_replace);
            }
            Op::RenameOver { from, to } => {
                let (Some(from), Some(to)) = (self.pick(from), self.pick(to)) else {
                    return;
                };
                self.rename(&from, &to, false);
            }
            Op::Chmod { target, mode } => {
                let Some(path) = self.pick(target) else {
                    return;
                };
                let ino = self.walk(&path);
                let change = Change {
                    mode: Some(0o100_000 | mode),
                    ..Change::default()
                };
                let result = self.vfs.setattr(ino, &change);
                if self.tree[&path].body == Body::Link {
                    assert_eq!(kind_of(&result), Err(ErrorKind::Unsupported));
                    return;
                }
                assert_eq!(u32::from(result.unwrap().0.perm), *mode, "chmod {path}");
                self.tree.get_mut(&path).unwrap().mode = Some(*mode);
            }
            Op::Utimens { target, time } => {
                let Some(path) = self.pick(target) else {
                    return;
                };
                let ino = self.walk(&path);
                let at = SystemTime::UNIX_EPOCH + Duration::from_millis(time * 1000 + 999);
                let change = Change {
                    mtime: Some(NewTime::At(at)),
                    ..Change::default()
                };
                self.vfs.setattr(ino, &change).unwrap();
                if self.tree[&path].body != Body::Link {
                    self.tree.get_mut(&path).unwrap().mtime = Some(*time);
                }
            }
            Op::Forget { inode } => {
                let known: Vec<Ino> = self.lookups.keys().copied().collect();
                if !known.is_empty() {
                    self.forget(known[inode.index(known.len())]);
                }
            }
            Op::OtherPut { dir, name, len } => {
                let path = join(&self.pick_dir(dir), name);
                let is_file = |at: &Expected| matches!(at.body, Body::File(_));
                if self.is_open_within(&path) || !self.tree.get(&path).is_none_or(is_file) {
                    return;
                }
                self.fill = self.fill.wrapping_add(1);
                let content = vec![self.fill; *len];
                self.server.put(&path, content.clone());
                self.contents.push(content);
                let body = Body::File(self.contents.len() - 1);
                self.tree.insert(
                    path,
                    Expected {
                        mode: Some(0o644),
                        ..Expected::new(body)
                    },
                );
            }
            Op::OtherMkdir { dir, name } => {
                let path = join(&self.pick_dir(dir), name);
                if !self.tree.contains_key(&path) {
                    self.server.put_directory(&path);
                    self.tree.insert(path, Expected::new(Body::Dir));
                }
            }
            Op::OtherRemove { target } => {
                let Some(path) = self.pick(target) else {
                    return;
                };
                if !self.is_open_within(&path) {
                    self.server.remove(&path);
                    self.tree.retain(|at, _| !is_within(at, &path));
                }
            }
        }
    }

    fn create(&mut self, dir: &Pick, name: &str, exclusive: bool, truncate: bool) {
        let (dir, path) = self.new_name(dir, name);
        let expected = match self.tree.get(&path).map(|at| at.body) {
            Some(_) if exclusive => Err(ErrorKind::Exists),
            Some(Body::Dir) => Err(ErrorKind::IsADirectory),
            Some(Body::Link) => Err(ErrorKind::Stale),
            Some(Body::File(_)) | None => Ok(()),
        };
        let how = OpenHow {
            read: true,
            write: true,
            truncate,
            create: None,
        };
        let result = self
            .vfs
            .create(dir, OsStr::new(name), 0o640, how, exclusive);
        assert_eq!(kind_of(&result), expected, "create {path}");
        let Ok((entry, opened)) = result else { return };
        self.looked_up(dir, name, &entry.stat);
        let content = match self.tree.get(&path).map(|at| at.body) {
            Some(Body::File(content)) => content,
            _ => {
                self.contents.push(Vec::new());
                let content = self.contents.len() - 1;
                let body = Body::File(content);
                self.tree.insert(
                    path.clone(),
                    Expected {
                        mode: Some(0o640),
                        ..Expected::new(body)
                    },
                );
                content
            }
        };
        if truncate {
            self.contents[content].clear();
            self.written(&path);
        }
        self.handles.push(Handle {
            fh: opened.fh,
            content,
            write: true,
        });
    }

    fn rename(&mut self, from: &str, to: &str, no_replace: bool) {
        let (parent, name) = self.walk_to(from);
        let (new_parent, new_name) = self.walk_to(to);
        let is_dir = |path: &str| self.tree.get(path).map(|at| at.body == Body::Dir);
        let expected = match (is_dir(from).unwrap(), is_dir(to)) {
            (_, Some(_)) if no_replace => Err(ErrorKind::Exists),
            _ if from == to => Ok(()),
            _ if is_within(to, from) => Err(ErrorKind::Invalid),
            (false, Some(true)) => Err(ErrorKind::IsADirectory),
            (true, Some(false)) => Err(ErrorKind::NotADirectory),
            (true, Some(true)) if !self.is_empty(to) => Err(ErrorKind::NotEmpty),
            _ => Ok(()),
        };
        let how = RenameHow { no_replace };
        let result = self.vfs.rename(
            parent,
            OsStr::new(&name),
            new_parent,
            OsStr::new(&new_name),
            how,
        );
        assert_eq!(kind_of(&result), expected, "rename {from} to {to}");
        if result.is_err() || from == to {
            return;
        }
        self.tree.remove(to);
        let moved: Vec<String> = self
            .tree
            .keys()
            .filter(|at| is_within(at, from))
            .cloned()
            .collect();
        for old in moved {
            let node = self.tree.remove(&old).unwrap();
            self.tree
                .insert(format!("{to}{}", &old[from.len()..]), node);
        }
        self.dentries.remove(&(new_parent, new_name.clone()));
        if let Some(dentry) = self.dentries.remove(&(parent, name)) {
            self.dentries.insert((new_parent, new_name), dentry);
        }
    }

    fn close(&mut self, fh: u64, content: usize, write: bool) {
        self.vfs.flush(fh).unwrap();
        self.check_stored(content, write);
        self.vfs.release(fh).unwrap();
        assert_eq!(kind_of(&self.vfs.flush(fh)), Err(ErrorKind::BadHandle));
    }

    /// A flush by a writer succeeded: the server has the content, unless it was removed, or will
    /// have it.
    fn check_stored(&self, content: usize, write: bool) {
        if !self.writeback {
            self.check_on_server(content, write);
        }
    }

    fn check_on_server(&self, content: usize, write: bool) {
        if let Some(path) = self.path_of(content).filter(|_| write) {
            assert_eq!(
                self.server.get(&path).as_ref(),
                Some(&self.contents[content]),
                "flushed {path}"
            );
        }
    }

    // The kernel's part.

    fn looked_up(&mut self, parent: Ino, name: &str, stat: &Stat) {
        *self.lookups.entry(stat.ino).or_default() += 1;
        let dentry = (stat.ino, stat.kind);
        let before = self.dentries.insert((parent, name.to_owned()), dentry);
        if let Some(before) = before.filter(|(_, kind)| *kind == stat.kind) {
            assert_eq!(before, dentry, "{name} has another inode than before");
        }
    }

    fn forget(&mut self, ino: Ino) {
        let count = self.lookups.remove(&ino).unwrap();
        self.vfs.forget(ino, count);
        self.dentries.retain(|_, (known, _)| *known != ino);
        // A kernel forgets what is below first, or else looks it up again.
        self.dentries.retain(|(parent, _), _| *parent != ino);
    }

    fn look_up(&mut self, parent: Ino, name: &str) -> Result<Stat> {
        let fast = self.vfs.lookup_cached(parent, OsStr::new(name));
        let entry = fast.unwrap_or_else(|| self.vfs.lookup(parent, OsStr::new(name)))?;
        self.looked_up(parent, name, &entry.stat);
        Ok(entry.stat)
    }

    fn walk(&mut self, path: &str) -> Ino {
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = self.look_up(ino, name).unwrap().ino;
        }
        ino
    }

    fn walk_to(&mut self, path: &str) -> (Ino, String) {
        let (dir, name) = split(path);
        (self.walk(dir), name.to_owned())
    }

    fn new_name(&mut self, dir: &Pick, name: &str) -> (Ino, String) {
        let dir = self.pick_dir(dir);
        (self.walk(&dir), join(&dir, name))
    }

    // The reference's part.

    fn free(&self, path: &str) -> std::result::Result<(), ErrorKind> {
        if self.tree.contains_key(path) {
            Err(ErrorKind::Exists)
        } else {
            Ok(())
        }
    }

    fn is_empty(&self, dir: &str) -> bool {
        !self.tree.keys().any(|at| at != dir && is_within(at, dir))
    }

    fn path_of(&self, content: usize) -> Option<String> {
        let found = self
            .tree
            .iter()
            .find(|(_, at)| at.body == Body::File(content));
        found.map(|(path, _)| path.clone())
    }

    fn is_open_within(&self, dir: &str) -> bool {
        let open = |handle: &Handle| {
            self.path_of(handle.content)
                .is_some_and(|at| is_within(&at, dir))
        };
        self.handles.iter().any(open)
    }

    fn written(&mut self, path: &str) {
        self.tree.get_mut(path).unwrap().mtime = None;
    }

    fn content_written(&mut self, content: usize) {
        if let Some(path) = self.path_of(content) {
            self.written(&path);
        }
    }

    fn pick(&self, index: &Pick) -> Option<String> {
        let paths: Vec<&String> = self.tree.keys().filter(|at| !at.is_empty()).collect();
        (!paths.is_empty()).then(|| paths[index.index(paths.len())].clone())
    }

    fn pick_dir(&self, index: &Pick) -> String {
        let dirs: Vec<&String> = self
            .tree
            .iter()
            .filter(|(_, at)| at.body == Body::Dir)
            .map(|(path, _)| path)
            .collect();
        dirs[index.index(dirs.len())].clone()
    }

    fn pick_file(&self, index: &Pick) -> Option<(String, usize)> {
        let files: Vec<(&String, usize)> = self
            .tree
            .iter()
            .filter_map(|(path, at)| match at.body {
                Body::File(content) => Some((path, content)),
                Body::Dir | Body::Link => None,
            })
            .collect();
        let (path, content) = files.get(index.index(files.len().max(1)))?;
        Some(((*path).clone(), *content))
    }

    fn pick_handle(&self, index: &Pick) -> Option<usize> {
        (!self.handles.is_empty()).then(|| index.index(self.handles.len()))
    }

    // The comparison.

    fn compare(&mut self) {
        let mut inodes = BTreeSet::from([ROOT]);
        self.compare_dir(ROOT, "", &mut inodes);
        for at in 0..self.handles.len() {
            let Handle { fh, content, .. } = self.handles[at];
            assert_eq!(
                self.read_all(fh),
                self.contents[content],
                "read through a handle"
            );
        }
    }

    fn compare_dir(&mut self, dir: Ino, path: &str, inodes: &mut BTreeSet<Ino>) {
        let listed = self.read_dir(dir);
        let expected: BTreeSet<String> = self
            .tree
            .keys()
            .filter(|at| !at.is_empty() && split(at).0 == path)
            .map(|at| split(at).1.to_owned())
            .collect();
        assert_eq!(listed, expected, "names in /{path}");
        for name in ["a", "b", "-", "nowhere"] {
            let found = self.look_up(dir, name);
            assert_eq!(
                found.is_ok(),
                expected.contains(name),
                "lookup of {name} in /{path}: {found:?}"
            );
        }
        for name in expected {
            let path = join(path, &name);
            let stat = self.look_up(dir, &name).unwrap();
            let want = self.tree[&path];
            assert!(inodes.insert(stat.ino), "/{path} shares an inode");
            assert_eq!(stat.kind, want.kind(), "kind of /{path}");
            assert_eq!(
                self.vfs.getattr(stat.ino).unwrap().0,
                stat,
                "getattr of /{path}"
            );
            if let Some(mode) = want.mode {
                assert_eq!(u32::from(stat.perm), mode, "mode of /{path}");
            }
            if let Some(mtime) = want.mtime {
                let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime);
                assert_eq!(stat.mtime, mtime, "time of /{path}");
            }
            match want.body {
                Body::Dir => self.compare_dir(stat.ino, &path, inodes),
                Body::Link => assert_eq!(self.vfs.readlink(stat.ino).unwrap(), b"target"),
                Body::File(content) => {
                    assert_eq!(
                        stat.size,
                        self.contents[content].len() as u64,
                        "size of /{path}"
                    );
                    let how = OpenHow {
                        read: true,
                        ..OpenHow::default()
                    };
                    let fh = self.vfs.open(stat.ino, how).unwrap().fh;
                    assert_eq!(
                        self.read_all(fh),
                        self.contents[content],
                        "content of /{path}"
                    );
                    self.vfs.release(fh).unwrap();
                }
            }
        }
    }

    fn read_all(&self, fh: u64) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let mut buf = [0; 64];
            let count = self.vfs.read(fh, data.len() as u64, &mut buf).unwrap();
            data.extend_from_slice(&buf[..count]);
            if count < buf.len() {
                return data;
            }
        }
    }

    /// Reads a directory in small pieces, the way the kernel does, refusing every third item once.
    fn read_dir(&mut self, dir: Ino) -> BTreeSet<String> {
        let fh = self.vfs.opendir(dir).unwrap();
        let mut names = BTreeSet::new();
        let mut found = Vec::new();
        let mut offset = 0;
        loop {
            let mut room = 3;
            let start = offset;
            self.vfs
                .readdirplus(fh, offset, &mut |plus| {
                    if room == 0 {
                        return false;
                    }
                    room -= 1;
                    offset = plus.item.offset;
                    assert_ne!(plus.item.ino, 0);
                    let name = plus.item.name.to_str().unwrap().to_owned();
                    if name != "." && name != ".." {
                        assert!(names.insert(name.clone()), "{name} twice");
                        found.extend(plus.entry.map(|entry| (name, entry.stat)));
                    } else {
                        assert!(plus.entry.is_none());
                    }
                    true
                })
                .unwrap();
            if offset == start {
                break;
            }
        }
        let mut plain = BTreeSet::new();
        self.vfs
            .readdir(fh, 2, &mut |item| {
                plain.insert(item.name.to_str().unwrap().to_owned())
            })
            .unwrap();
        assert_eq!(plain, names, "readdir and readdirplus differ");
        self.vfs.releasedir(fh);
        for (name, stat) in found {
            self.looked_up(dir, &name, &stat);
        }
        names
    }

    fn finish(mut self) {
        while let Some(Handle { fh, content, write }) = self.handles.pop() {
            self.close(fh, content, write);
        }
        self.vfs.commit_all().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let waits = |vfs: &Vfs| vfs.writeback_progress().is_some_and(|p| p.waiting > 0);
        while waits(&self.vfs) || self.writeback && self.vfs.census().open_files > 0 {
            assert!(Instant::now() < deadline, "{:?}", self.vfs.dirty());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.vfs.dirty(), []);
        let on_server: BTreeSet<String> = self
            .server
            .paths()
            .iter()
            .map(|at| at.to_string()[1..].to_owned())
            .collect();
        let expected = self.tree.keys().filter(|at| !at.is_empty());
        let expected: BTreeSet<String> = expected.map(|at| at.escape_debug().to_string()).collect();
        assert_eq!(on_server, expected);
        for (path, at) in &self.tree {
            if let Body::File(content) = at.body {
                assert_eq!(
                    self.server.get(path).as_ref(),
                    Some(&self.contents[content]),
                    "/{path} on the server"
                );
            }
        }
        for (ino, count) in std::mem::take(&mut self.lookups) {
            self.vfs.forget(ino, count);
        }
        // The last upload lets go of its inode when it is closed already.
        while self.writeback && self.vfs.census().inodes > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let census = self.vfs.census();
        assert_eq!(census.inodes, 1, "inodes nobody knows");
        assert_eq!(
            (
                census.file_handles,
                census.directory_handles,
                census.open_files
            ),
            (0, 0, 0)
        );
        assert_eq!(self.server.in_use(), 0, "connections still in use");
    }
}
