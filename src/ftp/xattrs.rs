//! What the server says of a file beyond attributes, as read-only extended attributes `user.ftp.*`.

use super::reply::Reply;
use super::server::FtpServer;
use super::server_path::is_awkward;
use super::session::Session;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// The line of MLST, else of STAT, as it came.
const FACTS: &str = "user.ftp.facts";
/// The last refusal of something that was asked of this path.
const REPLY: &str = "user.ftp.reply";

/// Checksums the server computes, and the commands for it; HASH (draft-bryan-ftpext-hash) by the
/// name of its algorithm.
const CHECKSUMS: [(&str, &[&str], &str); 5] = [
    ("user.ftp.sha512", &["XSHA512"], "SHA-512"),
    ("user.ftp.sha256", &["XSHA256"], "SHA-256"),
    ("user.ftp.sha1", &["XSHA1", "XSHA"], "SHA-1"),
    ("user.ftp.md5", &["XMD5"], "MD5"),
    ("user.ftp.crc32", &["XCRC"], "CRC32"),
];

impl FtpServer {
    /// What costs a round trip at most. Checksums are not among it, lest every `cp -a` and
    /// `getfattr -d` have the server read all its files: they are computed when asked for by name.
    pub(super) fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        if let Some(facts) = self.on_session(|s| self.facts_line(s, path))? {
            found.push((FACTS.to_owned(), facts));
        }
        if let Some(text) = self.last_refusal(path) {
            found.push((REPLY.to_owned(), text.into_bytes()));
        }
        Ok(found)
    }

    /// One attribute.
    ///
    /// # Errors
    /// `NoData` if there is none of that name.
    pub(super) fn xattr(&self, path: &RemotePath, name: &str) -> Result<Vec<u8>> {
        let value = match name {
            FACTS => self.on_session(|s| self.facts_line(s, path))?,
            REPLY => self.last_refusal(path).map(String::into_bytes),
            name => match CHECKSUMS.iter().find(|(known, _, _)| *known == name) {
                Some((_, commands, algorithm)) => {
                    self.on_session(|s| self.checksum(s, path, commands, algorithm))?
                }
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
        commands: &[&str],
        algorithm: &str,
    ) -> Result<Option<Vec<u8>>> {
        if let Some(command) = commands.iter().find(|command| s.features().has(command)) {
            let reply = self.ask(s, command, path)?;
            return Ok(reply.is_ok().then(|| digest(&reply)).flatten());
        }
        let offered = s.features().parameters("HASH").is_some_and(|list| {
            let mut names = list
                .split(';')
                .map(|name| name.trim().trim_end_matches('*'));
            names.any(|name| name.eq_ignore_ascii_case(algorithm))
        });
        if !offered
            || !s
                .command(format!("OPTS HASH {algorithm}").as_bytes())?
                .is_ok()
        {
            return Ok(None);
        }
        let reply = self.ask(s, "HASH", path)?;
        Ok(reply.is_ok().then(|| digest(&reply)).flatten())
    }
}

/// The checksum in a reply: the first word of eight hexadecimal digits or more. HASH puts the
/// algorithm and the range before it, X-commands nothing or a name.
fn digest(reply: &Reply) -> Option<Vec<u8>> {
    let words = reply
        .lines()
        .iter()
        .flat_map(|line| line.split(|b| *b == b' '))
        .filter(|word| word.len() >= 8 && word.len() % 2 == 0);
    let mut digests = words.filter(|word| word.iter().all(u8::is_ascii_hexdigit));
    digests.next().map(<[u8]>::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    #[test]
    fn checksums_are_found_in_all_their_replies() {
        for text in [
            "250 D41D8CD98F00B204E9800998ECF8427E",
            "213 MD5 0-49 d41d8cd98f00b204e9800998ecf8427e filename.ext",
            "250-Computing MD5 checksum\r\n250 D41D8CD98F00B204E9800998ECF8427E",
            "251 \"file\" d41d8cd98f00b204e9800998ecf8427e",
        ] {
            let found = digest(&reply(format!("{text}\r\n").as_bytes()));
            assert_eq!(
                found.as_deref(),
                Some(&b"d41d8cd98f00b204e9800998ecf8427e"[..]),
                "{text}"
            );
        }
        assert_eq!(digest(&reply(b"250 all done\r\n")), None);
    }
}
