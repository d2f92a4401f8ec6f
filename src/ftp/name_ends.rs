//! Names that end in a space, which Pure-FTPd stores with `_` in its place, over whatever has that
//! name, and Windows without it.

use super::probes::Seen;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::temporary;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

impl FtpServer {
    /// Refuses a new name that the server would change into another one. That is tried out with an
    /// empty directory of ours, the first time such a name is wanted.
    ///
    /// # Errors
    /// `Invalid` if the server cannot hold the name.
    pub(super) fn check_name(&self, s: &mut Session, path: &RemotePath) -> Result<()> {
        if !path.as_bytes().ends_with(b" ") {
            return Ok(());
        }
        let holds = match self.ways.with(|ways| ways.final_spaces) {
            Some(holds) => holds,
            None => match self.try_final_space(s, path)? {
                Some(holds) => {
                    self.ways.with(|ways| ways.final_spaces = Some(holds));
                    holds
                }
                // No directory can be made here; nor, most likely, can what is wanted.
                None => true,
            },
        };
        if holds {
            return Ok(());
        }
        let detail = format!("{path}: the server changes names that end in a space");
        Err(Error::new(ErrorKind::Invalid, detail))
    }

    fn try_final_space(&self, s: &mut Session, path: &RemotePath) -> Result<Option<bool>> {
        let tried = temporary::dotted(path, "try ")?;
        let made = self.ask(s, "MKD", &tried)?;
        if !made.is_ok() {
            return Ok(None);
        }
        if self.look(s, &tried)? == Seen::Directory {
            self.ask(s, "RMD", &tried)?;
            return Ok(Some(true));
        }
        if let Some(other) = name_made(&made)
            && let Some((dir, _)) = tried.split()
        {
            self.ask(s, "RMD", &dir.join(&other))?;
        }
        Ok(Some(false))
    }
}

/// The last name of the path in quotes that 257 has (RFC 959 appendix II).
fn name_made(reply: &Reply) -> Option<Name> {
    let mut parts = reply.first_line().split(|b| *b == b'"');
    let path = parts.nth(1)?;
    let name = path.rsplit(|b| *b == b'/').next()?;
    // Only ever one of our own.
    name.starts_with(b".ferryfs-")
        .then(|| Name::new(name).ok())
        .flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    #[test]
    fn only_our_own_directory_is_ever_removed() {
        let made = |text: &str| name_made(&reply(format!("257 {text}\r\n").as_bytes()));
        let ours = made("\"a/.ferryfs-12.try_\" : The directory was successfully created");
        assert_eq!(ours.unwrap().as_bytes(), b".ferryfs-12.try_");
        assert_eq!(made("\"/home\" created"), None);
        assert_eq!(made("created"), None);
    }
}
