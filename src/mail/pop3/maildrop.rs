//! The maildrop once logged in: what is in it, and what becomes of it.

use std::collections::BTreeMap;
use std::io;

use super::capability::Capabilities;
use super::dialogue::Dialogue;
use super::login::{self, Credentials, Offer};
use super::reply::{Reply, Stage};
use super::retrieval::{Command, Retrieval};
use crate::mail::connect::{Connector, Cutter, Security};
use crate::mail::failure::{Class, Failure, Result};
use crate::vfs::error::ErrorKind;

/// No maildrop has more messages; a listing without end is cut here.
const MOST_MESSAGES: usize = 1_000_000;

/// CAPA lists a dozen.
const MOST_CAPABILITIES: usize = 200;

/// Longest header of which TOP's answer is kept; the rest is read and dropped.
pub(super) const HEADER_KEPT: usize = 256 * 1024;

/// One message of the maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in this session.
    pub number: u32,
    /// Its identity across sessions; `None` where the server has no UIDL.
    pub uidl: Option<Box<[u8]>>,
    /// Octets as the server counts them; servers lie.
    pub size: Option<u64>,
}

/// A session in the TRANSACTION state.
#[derive(Debug)]
pub struct Maildrop {
    pub(super) dialogue: Dialogue,
    capabilities: Capabilities,
}

impl Maildrop {
    /// Connects, secures and logs in. `watch` gets what ends the connection from another thread,
    /// as soon as there is one.
    ///
    /// # Errors
    /// `Account` for a refused password or certificate and for a server without the TLS that was
    /// asked for; `Transient`, with a wait, for a maildrop in use; `Protocol`.
    pub fn open(
        connector: &Connector,
        who: &Credentials<'_>,
        watch: &dyn Fn(Cutter),
    ) -> Result<Self> {
        let endpoint = connector.endpoint();
        let mut dialogue = Dialogue::new(connector.connect()?, connector);
        watch(dialogue.cutter()?);
        let greeting = dialogue.reply("greeting")?;
        refused(&greeting, "greeting", Stage::Login)?;
        let mut capabilities = capabilities(&mut dialogue)?;
        if endpoint.security == Security::Upgrade {
            if capabilities.known && !capabilities.stls {
                let said = format!(
                    "{}: offers no TLS (STLS); use pop3s://, or tls=off if you must",
                    endpoint.host
                );
                return Err(Failure::new(Class::Account, said).because(ErrorKind::Untrusted));
            }
            let reply = dialogue.command("STLS")?;
            refused(&reply, "STLS", Stage::Login)?;
            dialogue = dialogue.secure(connector)?;
            // What was said in clear text counts for nothing (RFC 2595 section 4).
            capabilities = self::capabilities(&mut dialogue)?;
        }
        let offer = Offer {
            capabilities: &capabilities,
            stamp: login::stamp(&greeting.text),
            encrypted: dialogue.is_encrypted(),
        };
        login::login(&mut dialogue, who, &offer, (&endpoint.host, endpoint.port))?;
        if capabilities.known {
            capabilities = self::capabilities(&mut dialogue)?;
        }
        Ok(Self {
            dialogue,
            capabilities,
        })
    }

    /// What the server can do, as it said after login.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// All messages by number, with identities and sizes where the server tells them (STAT, UIDL,
    /// LIST).
    ///
    /// # Errors
    /// The connection's; `Permanent` if the server refuses to list what it says it has.
    pub fn list(&mut self) -> Result<Vec<Entry>> {
        let commands = ["STAT", "UIDL", "LIST"];
        let ahead = self.capabilities.pipelining;
        if ahead {
            self.dialogue.send_lines("STAT\r\nUIDL\r\nLIST\r\n")?;
        }
        let mut found: BTreeMap<u32, Entry> = BTreeMap::new();
        let mut empty = false;
        for command in commands {
            if !ahead {
                self.dialogue.send(command, command)?;
            }
            let reply = self.dialogue.reply(command)?;
            if !reply.ok {
                // Some servers refuse UIDL and LIST of an empty maildrop; UIDL is optional.
                if empty || command == "UIDL" {
                    continue;
                }
                return Err(reply.failure(command, Stage::Transaction));
            }
            if command == "STAT" {
                empty = reply.text.split(|b| *b == b' ').next() == Some(b"0");
                continue;
            }
            self.dialogue.listing(command, MOST_MESSAGES, |line| {
                let Some((number, value)) = numbered(line) else {
                    return;
                };
                let entry = found.entry(number).or_insert(Entry {
                    number,
                    uidl: None,
                    size: None,
                });
                if command == "UIDL" {
                    entry.uidl = Some(value.into());
                } else {
                    entry.size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                }
            })?;
        }
        self.dialogue.must_be_quiet()?;
        Ok(found.into_values().collect())
    }

    /// Retrieves `numbers`, in this order, up to `window` commands ahead where the server allows
    /// it.
    pub fn retrieve<'a>(&'a mut self, numbers: &'a [u32], window: usize) -> Retrieval<'a> {
        let window = self.window(window);
        Retrieval::new(&mut self.dialogue, Command::Retr, numbers, window)
    }

    /// The header of each of `numbers` (TOP n 0), as far as it is sensible to keep, or the
    /// server's refusal.
    ///
    /// # Errors
    /// The connection's.
    pub fn headers(
        &mut self,
        numbers: &[u32],
        window: usize,
        mut each: impl FnMut(u32, std::result::Result<&[u8], Reply>),
    ) -> Result<()> {
        let window = self.window(window);
        let mut tops = Retrieval::new(&mut self.dialogue, Command::Top, numbers, window);
        let mut header = Prefix(Vec::new());
        while let Some(answer) = tops.next()? {
            if answer.reply.ok {
                header.0.clear();
                tops.text(&mut header, 64 * 1024 * 1024)?;
                each(answer.number, Ok(&header.0));
            } else {
                each(answer.number, Err(answer.reply));
            }
        }
        Ok(())
    }

    /// Marks `numbers` for deletion, which [`quit`](Self::quit) carries out. Returns the numbers
    /// that were accepted.
    ///
    /// # Errors
    /// The connection's.
    pub fn delete(&mut self, numbers: &[u32], window: usize) -> Result<Vec<u32>> {
        let window = self.window(window);
        let mut accepted = Vec::with_capacity(numbers.len());
        let mut deletions = Retrieval::new(&mut self.dialogue, Command::Dele, numbers, window);
        while let Some(answer) = deletions.next()? {
            if answer.reply.ok {
                accepted.push(answer.number);
            }
        }
        Ok(accepted)
    }

    /// Takes back every deletion of this session (RSET).
    ///
    /// # Errors
    /// The connection's; `Permanent` if refused.
    pub fn reset(&mut self) -> Result<()> {
        let reply = self.dialogue.command("RSET")?;
        refused(&reply, "RSET", Stage::Transaction)
    }

    /// Asks for nothing (NOOP).
    ///
    /// # Errors
    /// The connection's; `Permanent` if refused.
    pub fn noop(&mut self) -> Result<()> {
        let reply = self.dialogue.command("NOOP")?;
        refused(&reply, "NOOP", Stage::Transaction)
    }

    /// Ends the session; only now the server deletes.
    ///
    /// # Errors
    /// Where it is not certain that the deletions were carried out, and where the session had
    /// failed before: then nothing is sent, so that nothing is deleted.
    pub fn quit(mut self) -> Result<()> {
        self.dialogue.must_be_quiet()?;
        let reply = self.dialogue.command("QUIT")?;
        refused(&reply, "QUIT", Stage::Transaction)
    }

    const fn window(&self, window: usize) -> usize {
        if self.capabilities.pipelining {
            window
        } else {
            1
        }
    }
}

fn refused(reply: &Reply, command: &str, stage: Stage) -> Result<()> {
    if reply.ok {
        return Ok(());
    }
    Err(reply.failure(command, stage))
}

fn capabilities(dialogue: &mut Dialogue) -> Result<Capabilities> {
    let mut capabilities = Capabilities::default();
    if dialogue.command("CAPA")?.ok {
        capabilities.known = true;
        dialogue.listing("CAPA", MOST_CAPABILITIES, |line| capabilities.add(line))?;
    }
    Ok(capabilities)
}

/// `number value` of UIDL and LIST; what follows the value is for people.
pub(in crate::mail) fn numbered(line: &[u8]) -> Option<(u32, &[u8])> {
    let mut words = line
        .split(|b| matches!(b, b' ' | b'\t'))
        .filter(|w| !w.is_empty());
    let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let value = words.next()?;
    (number > 0).then_some((number, value))
}

/// Keeps the beginning of what is written to it.
struct Prefix(Vec<u8>);

impl io::Write for Prefix {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = HEADER_KEPT.saturating_sub(self.0.len());
        self.0.extend(buf.iter().take(room));
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_all_sorts() {
        assert_eq!(numbered(b"1 whqtswO00WBw"), Some((1, &b"whqtswO00WBw"[..])));
        assert_eq!(numbered(b"  2\t  120 extra"), Some((2, &b"120"[..])));
        for bad in [
            &b""[..],
            b"1",
            b"0 x",
            b"-1 x",
            b"x y",
            b"99999999999 x",
            b"\xff 1",
        ] {
            assert_eq!(numbered(bad), None);
        }
    }
}
