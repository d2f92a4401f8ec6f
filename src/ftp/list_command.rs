//! One listing command: sent so that no server takes the path for something else, read within
//! bounds, and parsed.

use super::encoding;
use super::listing::{self, Dialect};
use super::listing_stream::{ENTRIES_MAX, read_blocks};
use super::options::ListingMode;
use super::refusal::refusal;
use super::reply::{Reply, Shown};
use super::server::FtpServer;
use super::server_path::{is_awkward, last_name};
use super::session::Session;
use super::time_offset::Questions;
use super::transfer::Begun;
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// Names asked about in one batch of SIZE and MDTM after NLST.
const BATCH: usize = 500;

/// What came over the data connection.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) entries: Vec<DirEntry>,
    /// It showed the directory itself (`.`, `cdir`), so that the directory surely exists.
    pub(super) itself: bool,
    /// What LIST says of the directory itself, in the line of `.`.
    pub(super) own: Option<Attr>,
    pub(super) skipped: usize,
    /// The server was asked for true times, to learn its zone.
    pub(super) timed: bool,
    /// The last line had no end.
    pub(super) cut: bool,
    /// What was asked for true times behind it, together with STAT.
    pub(super) asked: Option<Questions>,
}

/// The answer to one listing command.
pub(super) enum Answer {
    Listed(Listed),
    Refused(Reply),
}

impl FtpServer {
    /// Sends one listing command and reads what comes.
    pub(super) fn list_by(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        mode: ListingMode,
    ) -> Result<Answer> {
        let argument = self.spell(dir)?;
        let verb = verb(mode);
        // MLSD takes all that follows it for a path; LIST looks for options and patterns in it.
        let inside = mode != ListingMode::Mlsd && is_awkward(&argument);
        if inside {
            let reply = self.ask(s, "CWD", dir)?;
            if !reply.is_ok() {
                return Ok(Answer::Refused(reply));
            }
        }
        let command = if inside {
            verb.as_bytes().to_vec()
        } else {
            self.line(verb, dir)?
        };
        let compares = mode == ListingMode::ListAll && !inside;
        let answer = self.doubted_listing(s, mode, &command, compares.then_some(dir));
        if inside && !s.is_broken() {
            s.command(&self.way_back())?;
        }
        match answer? {
            Answer::Listed(listed) if mode == ListingMode::Nlst => {
                self.describe_names(s, dir, listed).map(Answer::Listed)
            }
            answer => Ok(answer),
        }
    }

    /// In clear text a connection that somebody between us and the server closes looks as the end
    /// of the listing does, and the server, which sent all, says 226. So what looks cut is asked
    /// for once more.
    fn doubted_listing(
        &self,
        s: &mut Session,
        mode: ListingMode,
        command: &[u8],
        compared: Option<&RemotePath>,
    ) -> Result<Answer> {
        let first = match self.transfer_listing(s, mode, command, compared)? {
            Answer::Listed(listed) if self.looks_cut(mode, &listed) => listed,
            answer => return Ok(answer),
        };
        let again = self.transfer_listing(s, mode, command, None)?;
        if let Answer::Listed(listed) = &again
            && self.looks_cut(mode, listed)
            && listed.entries.len() != first.entries.len()
        {
            let what = String::from_utf8_lossy(command);
            return Err(Error::new(
                ErrorKind::Disconnected,
                format!("{what}: the listing is cut off"),
            ));
        }
        Ok(again)
    }

    fn looks_cut(&self, mode: ListingMode, listed: &Listed) -> bool {
        let known = self.ways.with(|ways| {
            if listed.itself || ways.shows_itself.is_none() && !listed.entries.is_empty() {
                ways.shows_itself = Some((mode, listed.itself));
            }
            ways.shows_itself
        });
        let ought = match known {
            Some((of, shows)) => of == mode && shows,
            // Nothing at all, from a server that we know nothing of.
            None => true,
        };
        listed.cut || ought && !listed.itself
    }

    fn transfer_listing(
        &self,
        s: &mut Session,
        mode: ListingMode,
        command: &[u8],
        compared: Option<&RemotePath>,
    ) -> Result<Answer> {
        let mut data = match s.begin_data(command, 0)? {
            Begun::Open(data) => data,
            Begun::Refused(reply) => return Ok(Answer::Refused(reply)),
        };
        let mut hints = self.hints();
        let mut listed = Listed::default();
        let read = read_blocks(&mut data, |block| {
            let own_line = line_of_itself(block);
            let own = own_line.and_then(|line| own_attr(line, &hints));
            listed.itself |= own.is_some() || mode == ListingMode::Mlsd && own_line.is_some();
            if mode == ListingMode::ListAll && own.is_some() {
                listed.own = own;
            }
            let parsed = match mode {
                ListingMode::Mlsd => listing::parse_mlsx(block),
                ListingMode::Nlst => {
                    self.take(names_only(block), &mut listed);
                    return limited(&listed);
                }
                _ => listing::parse_list(block, &hints),
            };
            if parsed.dialect != Dialect::Unknown && mode != ListingMode::Mlsd {
                hints.dialect = Some(parsed.dialect);
            }
            listed.skipped += parsed.skipped_count;
            self.take(parsed.entries, &mut listed);
            limited(&listed)
        });
        self.ways.with(|ways| ways.dialect = hints.dialect);
        match read {
            Ok(lines) => {
                listed.skipped += lines.dropped;
                listed.cut = lines.cut;
            }
            Err(err) => {
                s.close_early(data);
                return Err(err);
            }
        }
        if let Some(dir) = compared {
            self.compare_behind(s, dir, &mut listed)?;
        }
        let reply = s.end_data(data)?;
        if !reply.is_ok() {
            // What broke off is neither empty nor missing.
            if listed.itself || !listed.entries.is_empty() {
                let error = refusal(&String::from_utf8_lossy(command), &reply);
                let kind = match error.kind() {
                    kind @ (ErrorKind::Disconnected | ErrorKind::Busy) => kind,
                    _ => ErrorKind::Protocol,
                };
                return Err(Error::new(kind, error.detail()));
            }
            return Ok(Answer::Refused(reply));
        }
        if let Some((kind, words)) = falls_short(&reply) {
            let command = String::from_utf8_lossy(command);
            return Err(Error::new(kind, format!("{command}: {words}")));
        }
        Ok(Answer::Listed(listed))
    }

    /// Adds entries, their names and targets in our charset.
    pub(super) fn take(&self, entries: impl IntoIterator<Item = DirEntry>, listed: &mut Listed) {
        let Some(charset) = self.options().charset else {
            listed.entries.extend(entries);
            return;
        };
        for mut entry in entries {
            let decoded = encoding::from_server(Some(charset), entry.name.as_bytes());
            let Ok(name) = decoded.and_then(Name::new) else {
                listed.skipped += 1;
                continue;
            };
            entry.name = name;
            let target = entry.attr.target.take();
            entry.attr.target = target.map(|raw| {
                let decoded = encoding::from_server(Some(charset), &raw).map(|t| t.to_vec());
                decoded.map_or(raw, Vec::into_boxed_slice)
            });
            listed.entries.push(entry);
        }
    }

    /// NLST gives bare names: SIZE and MDTM tell the files, what they refuse is a directory if it
    /// can be entered.
    fn describe_names(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        mut listed: Listed,
    ) -> Result<Listed> {
        for entries in listed.entries.chunks_mut(BATCH) {
            let paths: Vec<_> = entries.iter().map(|entry| dir.join(&entry.name)).collect();
            for (entry, attr) in entries.iter_mut().zip(self.follow(s, &paths)?) {
                // A name that answers to nothing (a device, a dangling link) is shown as a file.
                entry.attr = attr.unwrap_or_else(|| Attr::new(FileKind::File));
            }
        }
        Ok(listed)
    }
}

pub(super) const fn verb(mode: ListingMode) -> &'static str {
    match mode {
        ListingMode::Mlsd => "MLSD",
        ListingMode::Auto | ListingMode::ListAll => "LIST -a",
        ListingMode::List => "LIST",
        ListingMode::Nlst => "NLST",
    }
}

/// The line that names the listed directory: `…  .` of `ls -a`, `type=cdir` of MLSD.
pub(super) fn line_of_itself(block: &[u8]) -> Option<&[u8]> {
    let mut lines = block.split(|b| *b == b'\n');
    let line = lines.find(|line| {
        // ProFTPD indents what it says in a reply.
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        let head = line.get(..40).unwrap_or(line).to_ascii_lowercase();
        line.len() > 20 && line.ends_with(b" .") && (head.starts_with(b"d") || head.contains(&b'='))
            || line
                .windows(9)
                .any(|part| part.eq_ignore_ascii_case(b"type=cdir"))
    })?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Parses the line of `.`, which the parser leaves out by its name; `None` also for the line of a
/// directory whose name only ends so.
pub(super) fn own_attr(line: &[u8], hints: &listing::Hints) -> Option<Attr> {
    let named = [line.strip_suffix(b".")?, b"self\n"].concat();
    let parsed = listing::parse_list(&named, hints).entries;
    let entry = parsed.into_iter().next()?;
    let itself = entry.attr.is_dir() && entry.name.as_bytes().trim_ascii() == b"self";
    itself.then_some(entry.attr)
}

/// Some servers say 2xx of a directory that they could not read, or of a part of one. What they
/// showed is no listing then: what it lacks would be taken for removed.
fn falls_short(reply: &Reply) -> Option<(ErrorKind, String)> {
    reply.lines().iter().find_map(|line| {
        let words = String::from_utf8_lossy(line).to_ascii_lowercase();
        // Pure-FTPd, "226 Output truncated to 10000 matches".
        if words.contains("truncated") {
            let shown = Shown(line);
            let why = format!(
                "the server does not list all of it ({shown}); in Pure-FTPd raise LimitRecursion"
            );
            return Some((ErrorKind::Protocol, why));
        }
        // vsftpd, "226 Transfer done (but failed to open directory)."; Pure-FTPd, "226-Sorry, we
        // were unable to read [.]".
        let unread = words.contains("failed to open directory")
            || words.contains("we were unable to read [");
        unread.then(|| (ErrorKind::PermissionDenied, Shown(line).to_string()))
    })
}

fn limited(listed: &Listed) -> Result<()> {
    if listed.entries.len() > ENTRIES_MAX {
        return Err(Error::new(
            ErrorKind::Protocol,
            format!("the listing has more than {ENTRIES_MAX} entries"),
        ));
    }
    Ok(())
}

/// The names of NLST, which some servers give with the path before them.
fn names_only(block: &[u8]) -> impl Iterator<Item = DirEntry> {
    block.split(|b| *b == b'\n').filter_map(|line| {
        let name = last_name(line.strip_suffix(b"\r").unwrap_or(line))?;
        let attr = Attr::new(FileKind::File);
        Some(DirEntry { name, attr })
    })
}
