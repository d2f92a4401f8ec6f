//! What the server says of a file beyond attributes, as read-only extended attributes `user.ftp.*`.

use std::time::Duration;

use super::checksums::{told, way};
use super::reply::Reply;
use super::server::FtpServer;
use super::server_path::is_awkward;
use super::session::Session;
use crate::vfs::checksum::Algorithm;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// The line of MLST, else of STAT, as it came.
const FACTS: &str = "user.ftp.facts";
/// The last refusal of something that was asked of this path.
const REPLY: &str = "user.ftp.reply";

/// How much longer than any other answer a checksum may take.
const COMPUTING: Duration = Duration::from_secs(60);

/// Checksums the server computes.
pub(super) const CHECKSUMS: [(&str, Algorithm); 5] = [
    ("user.ftp.sha512", Algorithm::Sha512),
    ("user.ftp.sha256", Algorithm::Sha256),
    ("user.ftp.sha1", Algorithm::Sha1),
    ("user.ftp.md5", Algorithm::Md5),
    ("user.ftp.crc32", Algorithm::Crc32),
];

impl FtpServer {
    /// Those that are known without a question to the server: `ls -l` of today (by listxattr(2)),
    /// `cp -a` and every backup list the attributes of each file, and read the values of all that are
    /// named. The line of MLST and checksums are found out when asked for by name.
    pub(super) fn xattrs(&self, path: &RemotePath) -> Vec<(String, Vec<u8>)> {
        let refusal = self.last_refusal(path);
        let reply = refusal.map(|text| (REPLY.to_owned(), text.into_bytes()));
        reply.into_iter().collect()
    }

    /// One attribute.
    ///
    /// # Errors
    /// `NoData` if there is none of that name.
    pub(super) fn xattr(&self, path: &RemotePath, name: &str) -> Result<Vec<u8>> {
        let value = match name {
            FACTS => self.on_session(|s| self.facts_line(s, path))?,
            REPLY => self.last_refusal(path).map(String::into_bytes),
            name => match CHECKSUMS.iter().find(|(known, _)| *known == name) {
                Some((_, algorithm)) => self.on_session(|s| self.checksum(s, path, *algorithm))?,
                None => None,
            },
        };
        value.ok_or_else(|| Error::new(ErrorKind::NoData, format!("{path}: no {name}")))
    }

    fn facts_line(&self, s: &mut Session, path: &RemotePath) -> Result<Option<Vec<u8>>> {
        let line = |reply: &Reply| {
            let line = reply
                .body()
                .first()
                .filter(|_| reply.is_ok() && reply.body().len() == 1)?;
            Some(line.strip_prefix(b" ").unwrap_or(line).to_vec())
        };
        if self.has_mlst(s) {
            return Ok(line(&self.ask(s, "MLST", path)?));
        }
        // Of a directory, STAT would send the whole listing.
        let size = self.ask(s, "SIZE", path)?;
        if !size.is_ok() || is_awkward(&self.spell(path)?) {
            return Ok(None);
        }
        Ok(line(&self.ask(s, "STAT", path)?))
    }

    fn checksum(
        &self,
        s: &mut Session,
        path: &RemotePath,
        algorithm: Algorithm,
    ) -> Result<Option<Vec<u8>>> {
        let Some(way) = way(s.features(), algorithm) else {
            return Ok(None);
        };
        let reply = self.computed(s, path, way, algorithm, COMPUTING)?;
        let told = told(&reply, algorithm).filter(|_| reply.is_ok());
        Ok(told.map(|told| told.digits.into_bytes()))
    }
}
