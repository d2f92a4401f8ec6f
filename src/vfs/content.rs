//! The content of open files, for servers whose files come and go whole.
//!
//! First stone: whole files in memory, so that others can build on the interface. Replaced next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attr::{Attr, FileKind, SetAttr};
use super::backend::{OpenFile, OpenHow, Publish, Transfers};
use super::error::{Error, ErrorKind, Result};
use super::path::RemotePath;
use crate::sync::Locked;

/// What the open files of a mount hold, for `ferryfs status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Open inodes.
    pub open_files: usize,
    /// Downloads that hold a connection.
    pub streams: usize,
    /// Uploads that hold a connection.
    pub uploads: usize,
    /// Bytes of memory in read windows.
    pub buffered: u64,
    /// Files with content that no commit has brought to the server.
    pub dirty_files: usize,
    /// Bytes of these that are staged here.
    pub dirty_bytes: u64,
}

/// Everything the open files of one mount share.
#[derive(Debug)]
pub struct Contents {
    _staging_dir: PathBuf,
}

impl Contents {
    /// `staging_dir` is made if need be; `buffer_budget` is the most memory, in bytes, that all
    /// read windows may take together.
    ///
    /// # Errors
    /// The staging directory cannot be made.
    pub fn new(staging_dir: &Path, _buffer_budget: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            _staging_dir: staging_dir.to_path_buf(),
        }))
    }

    /// Opens `path`. `known` is the server's version, just validated by the caller; it is `None`
    /// only with `how.create`.
    ///
    /// # Errors
    /// With `how.create` or `how.truncate`, the server's refusal to store.
    pub fn open(
        self: &Arc<Self>,
        transfers: Arc<dyn Transfers>,
        path: &RemotePath,
        known: Option<Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        let new = how.create.is_some() || how.truncate;
        if new {
            drop(transfers.store(path, true)?);
        }
        let data = if new {
            Vec::new()
        } else {
            let mut data = Vec::new();
            let mut buf = vec![0; 65536];
            let mut download = transfers.retrieve(path, 0, true)?;
            loop {
                let count = download.read(&mut buf)?;
                if count == 0 {
                    break;
                }
                data.extend_from_slice(buf.get(..count).unwrap_or_default());
            }
            download.finish()?;
            data
        };
        let mut attr = known.clone().unwrap_or_else(|| Attr::new(FileKind::File));
        attr.size = Some(data.len() as u64);
        if new {
            attr.mtime = Some(std::time::SystemTime::now());
            attr.mode = how.create.or(attr.mode);
        }
        Ok(Arc::new(Content {
            transfers,
            state: Locked::new(State {
                data,
                attr,
                dirty: new,
                exists: known.is_some(),
            }),
        }))
    }

    /// What is open now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::default()
    }
}

struct State {
    data: Vec<u8>,
    attr: Attr,
    dirty: bool,
    exists: bool,
}

struct Content {
    transfers: Arc<dyn Transfers>,
    state: Locked<State>,
}

impl State {
    fn touch(&mut self) {
        self.attr.size = Some(self.data.len() as u64);
        self.attr.mtime = Some(std::time::SystemTime::now());
        self.dirty = true;
    }
}

impl OpenFile for Content {
    fn attr(&self) -> Attr {
        self.state.with(|s| s.attr.clone())
    }

    fn reopen(&self, at: &RemotePath, _known: Option<&Attr>, how: OpenHow) -> Result<()> {
        if how.truncate {
            self.set_len(at, 0)?;
        }
        Ok(())
    }

    fn read_at(&self, _: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.state.with(|s| {
            let rest = s.data.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buf.len());
            for (to, from) in buf.iter_mut().zip(rest) {
                *to = *from;
            }
            Ok(count)
        })
    }

    fn write_at(&self, _: &RemotePath, offset: u64, data: &[u8]) -> Result<()> {
        self.state.with(|s| {
            let end = offset as usize + data.len();
            if s.data.len() < end {
                s.data.resize(end, 0);
            }
            if let Some(place) = s.data.get_mut(offset as usize..end) {
                place.copy_from_slice(data);
            }
            s.touch();
            Ok(())
        })
    }

    fn set_len(&self, _: &RemotePath, len: u64) -> Result<()> {
        self.state.with(|s| {
            s.data.resize(len as usize, 0);
            s.touch();
            Ok(())
        })
    }

    fn set_attr(&self, at: &RemotePath, change: &SetAttr) -> Result<()> {
        let dirty = self.state.with(|s| {
            s.attr.mtime = change.mtime.or(s.attr.mtime);
            s.attr.mode = change.mode.or(s.attr.mode);
            s.dirty
        });
        if dirty {
            return Ok(());
        }
        self.transfers.set_attr(at, change)
    }

    fn commit(&self, at: &RemotePath) -> Result<()> {
        let (data, attr, dirty) = self
            .state
            .with(|s| (s.data.clone(), s.attr.clone(), s.dirty));
        if !dirty {
            return Ok(());
        }
        let mut upload = self.transfers.store(at, true)?;
        upload.write(&data)?;
        let size = data.len() as u64;
        let (mtime, mode) = (attr.mtime, attr.mode);
        let attr = upload.publish(at, &Publish { size, mtime, mode })?;
        self.state.with(|s| {
            s.attr = attr;
            s.dirty = false;
            s.exists = true;
        });
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.state.with(|s| s.dirty)
    }

    fn detach(&self, _: &RemotePath) -> Result<bool> {
        Ok(self.state.with(|s| s.exists))
    }

    fn close(&self, at: Option<&RemotePath>) -> Result<()> {
        match at {
            Some(at) => self.commit(at),
            None => Err(Error::from(ErrorKind::Stale)).or(Ok(())),
        }
    }
}
