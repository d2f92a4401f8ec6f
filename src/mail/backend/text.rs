//! Files that are texts made when they are opened, and `ctl`, which is only written.

use std::sync::Arc;

use crate::sync::Locked;
use crate::vfs::attr::{Attr, FileKind, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Longest line of `ctl`.
const LONGEST: usize = 4096;

fn refused() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "this file is made by ferryfs and only read",
    )
}

/// A text as it was when it was opened.
pub(super) struct Text {
    attr: Attr,
    text: Vec<u8>,
}

impl Text {
    /// An open file of `text`.
    pub(super) fn open(text: String, attr: Attr, how: OpenHow) -> Result<Arc<dyn OpenFile>> {
        if how.write || how.truncate {
            return Err(refused());
        }
        Ok(Arc::new(Self {
            attr,
            text: text.into_bytes(),
        }))
    }
}

impl OpenFile for Text {
    fn attr(&self) -> Attr {
        self.attr.clone()
    }

    fn reopen(&self, _: &RemotePath, _: Option<&Attr>, how: OpenHow) -> Result<()> {
        if how.write || how.truncate {
            return Err(refused());
        }
        Ok(())
    }

    fn read_at(&self, _: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.text.get(start..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(from), Some(to)) = (rest.get(..len), buf.get_mut(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, _: &RemotePath, _: u64, _: &[u8]) -> Result<()> {
        Err(refused())
    }

    fn set_len(&self, _: &RemotePath, _: u64) -> Result<()> {
        Err(refused())
    }

    fn set_attr(&self, _: &RemotePath, _: &SetAttr) -> Result<()> {
        Err(refused())
    }

    fn commit(&self, _: &RemotePath) -> Result<()> {
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        false
    }

    fn detach(&self, _: &RemotePath) -> Result<bool> {
        Ok(true)
    }

    fn close(&self, _: Option<&RemotePath>) -> Result<()> {
        Ok(())
    }
}

/// Does what a line of `ctl` says.
pub(super) type Obey = dyn Fn(&str) -> Result<()> + Send + Sync;

/// `ctl`, open: each line written is obeyed at once, so that its error is that of the write.
pub(super) struct Orders {
    obey: Arc<Obey>,
    /// A line whose end was not written yet.
    begun: Locked<Vec<u8>>,
}

impl Orders {
    /// Orders go to `obey`.
    pub(super) fn open(obey: Arc<Obey>) -> Arc<dyn OpenFile> {
        Arc::new(Self {
            obey,
            begun: Locked::default(),
        })
    }

    fn obey(&self, line: &[u8]) -> Result<()> {
        let line = String::from_utf8_lossy(line);
        match line.trim() {
            "" => Ok(()),
            line => (self.obey)(line),
        }
    }
}

impl OpenFile for Orders {
    fn attr(&self) -> Attr {
        let mut attr = Attr::new(FileKind::File);
        attr.mode = Some(0o600);
        attr
    }

    fn reopen(&self, _: &RemotePath, _: Option<&Attr>, _: OpenHow) -> Result<()> {
        Ok(())
    }

    fn read_at(&self, _: &RemotePath, _: u64, _: &mut [u8]) -> Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: &RemotePath, _: u64, data: &[u8]) -> Result<()> {
        let mut lines = self.begun.with(|begun| {
            begun.extend_from_slice(data);
            std::mem::take(begun)
        });
        let end = lines
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let begun = lines.split_off(end);
        if begun.len() > LONGEST {
            return Err(Error::new(
                ErrorKind::Invalid,
                "ctl: a line that is too long",
            ));
        }
        self.begun.with(|kept| *kept = begun);
        lines
            .split(|b| *b == b'\n')
            .try_for_each(|line| self.obey(line))
    }

    fn set_len(&self, _: &RemotePath, _: u64) -> Result<()> {
        Ok(())
    }

    fn set_attr(&self, _: &RemotePath, _: &SetAttr) -> Result<()> {
        Ok(())
    }

    /// `printf poll > ctl` has no line end: what was written is a line when the file is closed.
    fn commit(&self, _: &RemotePath) -> Result<()> {
        let begun = self.begun.with(std::mem::take);
        self.obey(&begun)
    }

    fn is_dirty(&self) -> bool {
        self.begun.with(|begun| !begun.is_empty())
    }

    fn detach(&self, _: &RemotePath) -> Result<bool> {
        Ok(true)
    }

    fn close(&self, _: Option<&RemotePath>) -> Result<()> {
        let begun = self.begun.with(std::mem::take);
        self.obey(&begun)
    }
}
