//! Open files over `Transfers`, against the model in memory.

mod faults;
mod filling;
mod passing;
mod reading;
mod reference;
mod sharing;
mod writing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferryfs::vfs::backend::{Backend, OpenFile, OpenHow};
use ferryfs::vfs::content::Contents;
use ferryfs::vfs::error::{ErrorKind, Result};

use crate::support::memory::{Faulty, MemoryBackend, MemoryServer, path};
use crate::support::opening::{READ, TRUNCATE, WRITE};

const CREATE: OpenHow = OpenHow {
    create: Some(0o640),
    ..WRITE
};

/// A mount on the model, with faults on demand between them.
struct Mount {
    server: MemoryServer,
    faulty: Arc<Faulty<MemoryServer>>,
    contents: Arc<Contents>,
    backend: MemoryBackend,
    state: tempfile::TempDir,
}

impl Mount {
    fn new() -> Self {
        Self::on(MemoryServer::new(), 64 << 20)
    }

    fn on(server: MemoryServer, budget: usize) -> Self {
        let state = tempfile::tempdir().unwrap();
        let faulty = Arc::new(Faulty::new(Arc::new(server.clone())));
        let contents = Contents::new(&state.path().join("staging"), budget).unwrap();
        let backend = MemoryBackend::over(&server, Arc::clone(&faulty) as _, &contents);
        Self {
            server,
            faulty,
            contents,
            backend,
            state,
        }
    }

    fn try_open(&self, name: &str, how: OpenHow) -> Result<Handle> {
        let file = self.backend.open(&path(name), None, how)?;
        let name = name.to_owned();
        Ok(Handle { file, name })
    }

    fn open(&self, name: &str, how: OpenHow) -> Handle {
        self.try_open(name, how).unwrap()
    }

    /// Names of files in a directory of the mount's state.
    fn state(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.state.path().join(dir)) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".reason"))
            .collect()
    }

    /// Waits for what another thread will do.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.contents);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// An open file and its name.
#[derive(Clone)]
struct Handle {
    file: Arc<dyn OpenFile>,
    name: String,
}

impl Handle {
    fn try_read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0xee; len];
        let count = self.file.read_at(&path(&self.name), offset, &mut buf)?;
        buf.truncate(count);
        Ok(buf)
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.try_read(offset, len).unwrap()
    }

    /// The whole file in pieces of `step`.
    fn try_read_all(&self, step: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let piece = self.try_read(all.len() as u64, step)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
        }
    }

    fn read_all(&self, step: usize) -> Vec<u8> {
        self.try_read_all(step).unwrap()
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_at(&path(&self.name), offset, data)
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.try_write(offset, data).unwrap();
    }

    fn set_len(&self, len: u64) {
        self.file.set_len(&path(&self.name), len).unwrap();
    }

    fn try_commit(&self) -> Result<()> {
        self.file.commit(&path(&self.name))
    }

    fn commit(&self) {
        self.try_commit().unwrap();
        assert!(!self.file.is_dirty());
    }

    fn close(&self) -> Result<()> {
        self.file.close(Some(&path(&self.name)))
    }

    fn size(&self) -> Option<u64> {
        self.file.attr().size
    }
}

/// Bytes that do not repeat within what tests compare.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|err| err.kind())
}
