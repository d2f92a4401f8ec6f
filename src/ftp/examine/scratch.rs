//! The directory an examination works in.

use std::sync::Arc;

use crate::ftp::server::FtpServer;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// Deepest directory that is tidied away: ours are two deep.
const DEPTH: usize = 4;

/// A directory of our own. Removed, with all in it, at the latest when dropped.
pub(super) struct Scratch {
    server: Arc<FtpServer>,
    path: RemotePath,
    gone: bool,
}

impl Scratch {
    /// Makes it, hidden where the server takes such names.
    pub(super) fn make(server: &Arc<FtpServer>) -> Result<Self> {
        let number = getrandom::u32()
            .map_err(|err| Error::new(ErrorKind::Protocol, format!("random number: {err}")))?;
        let mut refused = None;
        for dot in [".", ""] {
            let name = Name::new(format!("{dot}ferryfs-doctor-{number:08x}"))?;
            let path = RemotePath::root().join(&name);
            match server.mkdir(&path, None) {
                Ok(()) => {
                    return Ok(Self {
                        server: Arc::clone(server),
                        path,
                        gone: false,
                    });
                }
                Err(err) => refused = Some(err),
            }
        }
        Err(refused.unwrap_or_else(|| ErrorKind::Protocol.into()))
    }

    pub(super) const fn path(&self) -> &RemotePath {
        &self.path
    }

    /// Removes it; the error names what is left.
    pub(super) fn remove(mut self) -> Result<()> {
        self.gone = true;
        self.tidy()
    }

    fn tidy(&self) -> Result<()> {
        empty(&self.server, &self.path, DEPTH);
        self.server
            .rmdir(&self.path)
            .map_err(|err| err.context(format_args!("{} is left on the server", self.path)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.gone
            && let Err(err) = self.tidy()
        {
            log::warn!("{err}");
        }
    }
}

/// Removes what is in `dir`, as far as possible: what stays makes the removal of `dir` fail.
fn empty(server: &Arc<FtpServer>, dir: &RemotePath, depth: usize) {
    for entry in server.list(dir).unwrap_or_default() {
        let path = dir.join(&entry.name);
        if entry.attr.is_dir() {
            if depth > 0 {
                empty(server, &path, depth - 1);
            }
            let _ = server.rmdir(&path);
        } else {
            let _ = server.unlink(&path);
        }
    }
}
