//! MODE Z is tried before contents are sent by it.
//!
//! ProFTPD's mod_deflate (1.3.8) unpacks what compresses well to more bytes than there were, or to
//! nothing, and says 226; with a pause of 0.4 seconds for every 16 KiB. Sizes show some of that, and
//! never all. So a content that nobody needs goes there and comes back first.

use std::io::{Read, Write};

use super::mode::suffix_of;
use super::server::FtpServer;
use super::session::Session;
use super::stat::size_of;
use super::temporary;
use super::transfer::Begun;
use crate::net;
use crate::traffic::Direction;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Bytes of the content that is tried; packed they are few.
const TRIED: usize = 512 << 10;

impl FtpServer {
    /// Before a content is stored at `path`: finds out whether it may be packed, if it is not known.
    /// What goes wrong is no error, but the end of it.
    ///
    /// # Errors
    /// Those of a broken session.
    pub(super) fn try_packing(&self, s: &mut Session, path: &RemotePath) -> Result<()> {
        let suffix = suffix_of(&path.to_string());
        let host = self.pool.host();
        let known = host.facts(|facts| facts.packing.works_up.is_some());
        if known || !s.would_pack(Some(Direction::Up), suffix.as_deref()) {
            return Ok(());
        }
        let name = temporary::dotted(path, "part")?;
        self.conceal(&name);
        let works = self.unpacks(s, &name);
        if s.is_broken() {
            self.leave(&name);
            host.packs_up_no_more("the connection was lost");
            return works.map(drop);
        }
        self.discard(s, &name);
        match works {
            Ok(Ok(())) => host.facts(|facts| facts.packing.works_up = Some(true)),
            Ok(Err(why)) => host.packs_up_no_more(&why),
            Err(err) => host.packs_up_no_more(&err.to_string()),
        }
        Ok(())
    }

    /// Whether the server takes packed contents for what they are: stores one at `name`, and reads
    /// it back. If not, why.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn unpacks(
        &self,
        s: &mut Session,
        name: &RemotePath,
    ) -> Result<std::result::Result<(), String>> {
        let content = tried();
        let mut data = match s.begin_as(&self.line("STOR", name)?, true)? {
            Begun::Open(data) => data,
            Begun::Refused(reply) => return Ok(Err(reply.text())),
        };
        let sent = data.write_all(&content);
        let reply = s.end_data(data)?;
        if !reply.is_ok() {
            return Ok(Err(reply.text()));
        }
        sent.map_err(|err| net::failure(format_args!("STOR {name}"), &err))?;
        if !s.is_packed() {
            return Ok(Err("MODE Z is refused".to_owned()));
        }
        match size_of(&self.ask(s, "SIZE", name)?) {
            Some(size) if size != content.len() as u64 => {
                return Ok(Err(format!("{size} bytes of {} are there", content.len())));
            }
            _ => {}
        }
        Ok(match self.read_packed(s, name, content.len())? {
            Ok(found) if found == content => Ok(()),
            Ok(found) => Err(format!("{} other bytes are there", found.len())),
            Err(why) => Err(why),
        })
    }

    /// Reads a file in MODE Z, or why that cannot be done; a little more than `most` bytes at most.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn read_packed(
        &self,
        s: &mut Session,
        name: &RemotePath,
        most: usize,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let mut data = match s.begin_as(&self.line("RETR", name)?, true)? {
            Begun::Open(data) => data,
            Begun::Refused(reply) => return Ok(Err(reply.text())),
        };
        if !s.is_packed() {
            s.close_early(data);
            return Ok(Err("MODE Z is refused".to_owned()));
        }
        let mut found = Vec::new();
        let read = (&mut data).take(most as u64 + 1).read_to_end(&mut found);
        if let Err(err) = read {
            s.close_early(data);
            return Ok(Err(err.to_string()));
        }
        if found.len() > most {
            s.close_early(data);
            return Ok(Ok(found));
        }
        let reply = s.end_data(data)?;
        Ok(match reply.is_ok() {
            true => Ok(found),
            false => Err(reply.text()),
        })
    }
}

/// Text of which the first half packs to nearly nothing, and the second as text does.
fn tried() -> Vec<u8> {
    let alike = b"what compresses well\n".iter().copied().cycle();
    let mut content: Vec<u8> = alike.take(TRIED / 2).collect();
    let lines =
        (0_u32..).flat_map(|n| format!("{n} {:x}\n", n.wrapping_mul(0x9e37_79b9)).into_bytes());
    content.extend(lines.take(TRIED / 2));
    content
}
