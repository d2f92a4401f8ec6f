//! Listing a directory: with the best command that this server knows, and never believing an
//! empty answer.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::encoding;
use super::listing::{self, Dialect, Parsed};
use super::listing_stream::{ENTRIES_MAX, read_blocks};
use super::options::{LinkPolicy, ListingMode};
use super::probes::{self, Seen};
use super::refusal::classify;
use super::reply::Reply;
use super::server::FtpServer;
use super::server_path::{is_awkward, last_name};
use super::session::Session;
use super::transfer::Begun;
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// Names asked about in one batch of SIZE and MDTM after NLST.
const BATCH: usize = 500;

/// Directories whose odd listing is remembered as mentioned.
const MENTIONED_MAX: usize = 1_000;

/// What came over the data connection.
#[derive(Debug, Default)]
struct Listed {
    entries: Vec<DirEntry>,
    /// It showed the directory itself (`.`, `cdir`), so that the directory surely exists.
    itself: bool,
    skipped: usize,
}

/// The answer to one listing command.
enum Answer {
    Listed(Listed),
    Refused(Reply),
}

impl FtpServer {
    /// The names in `dir`, each once, without our own temporary ones, links followed where that is
    /// the mount's policy.
    pub(super) fn list(&self, dir: &RemotePath) -> Result<Vec<DirEntry>> {
        let mut entries = self.on_session(|s| {
            let mut entries = self.list_on(s, dir)?;
            if self.options().links == LinkPolicy::Follow {
                self.follow_all(s, dir, &mut entries)?;
            }
            Ok(entries)
        })?;
        let now = SystemTime::now();
        self.times.with(|times| {
            for entry in &mut entries {
                times.refine(&dir.join(&entry.name), &mut entry.attr, now);
            }
        });
        self.links.with(|links| links.learn(dir, &entries));
        Ok(entries)
    }

    /// As [`list`](Self::list), links not followed, on a session that is at hand.
    ///
    /// # Errors
    /// `NotFound` and `NotADirectory`, even where the server answers with success.
    pub(super) fn list_on(&self, s: &mut Session, dir: &RemotePath) -> Result<Vec<DirEntry>> {
        let mut refused = None;
        for mode in self.modes(s) {
            match self.list_by(s, dir, mode)? {
                Answer::Listed(listed) => {
                    let listed = self.examine(s, dir, mode, listed)?;
                    return self.finish(s, dir, mode, listed);
                }
                Answer::Refused(reply) => {
                    if let Some(empty) = self.weigh(s, dir, mode, &reply)? {
                        return Ok(empty);
                    }
                    refused = Some((verb(mode), reply));
                }
            }
        }
        let Some((verb, reply)) = refused else {
            return Err(ErrorKind::Unsupported.into());
        };
        Err(self.explain(s, probes::LIST, (verb, dir), &reply))
    }

    /// The commands to try, best first.
    fn modes(&self, s: &Session) -> Vec<ListingMode> {
        let forced = self.options().listing;
        if forced != ListingMode::Auto {
            return vec![forced];
        }
        let ways = self.ways.with(|ways| ways.clone());
        let mut modes = Vec::with_capacity(4);
        if self.has_mlst(s) {
            modes.push(ListingMode::Mlsd);
        }
        if ways.list_all != Some(false) {
            modes.push(ListingMode::ListAll);
        }
        modes.extend([ListingMode::List, ListingMode::Nlst]);
        // What worked before comes first, and what was passed over for it is not tried again.
        if let Some(at) = modes.iter().position(|mode| Some(*mode) == ways.listing) {
            modes.drain(..at);
        }
        modes
    }

    /// A refused listing: `Some` if the directory is there and merely empty, `None` if another
    /// command may do better.
    fn weigh(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        mode: ListingMode,
        reply: &Reply,
    ) -> Result<Option<Vec<DirEntry>>> {
        if matches!(reply.code(), 500 | 502 | 504) {
            if mode == ListingMode::Mlsd {
                self.ways.with(|ways| ways.mlst = Some(false));
            }
            return Ok(None);
        }
        if !matches!(reply.code(), 450 | 501 | 550 | 553) {
            return Err(self.explain(s, probes::LIST, (verb(mode), dir), reply));
        }
        // Only now does it matter whether there is such a directory at all.
        if !self.enter(s, dir)?.is_ok() {
            let seen = self.look(s, dir)?;
            let kind = match seen {
                Seen::Missing => ErrorKind::NotFound,
                Seen::File => ErrorKind::NotADirectory,
                Seen::Directory | Seen::Unclear => ErrorKind::PermissionDenied,
            };
            let detail = format!("{} {dir}: {}", verb(mode), reply.text());
            return Err(self.noted(dir, Error::new(kind, detail)));
        }
        let verdict = classify(reply);
        let denied = verdict.told && verdict.kind == ErrorKind::PermissionDenied;
        match mode {
            // "450 No files found": the directory is there, its listing is empty.
            ListingMode::List | ListingMode::Nlst if !denied => Ok(Some(Vec::new())),
            // pyftpdlib takes `-a` for a name and answers 550 to it.
            ListingMode::ListAll if !denied => Ok(None),
            ListingMode::Mlsd if reply.code() == 501 => Ok(None),
            _ => Err(self.explain(s, probes::LIST, (verb(mode), dir), reply)),
        }
    }

    /// Doubts an answer that looks too good: nothing at all, or only a file of the directory's own
    /// name.
    fn examine(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        mode: ListingMode,
        listed: Listed,
    ) -> Result<Listed> {
        if listed.itself || listed.entries.len() > 1 {
            return Ok(listed);
        }
        let own_name = dir.split().map(|(_, name)| name);
        let foreign = listed
            .entries
            .first()
            .map(|entry| Some(&entry.name) != own_name.as_ref());
        if foreign == Some(true) {
            return Ok(listed);
        }
        // `LIST file` shows the file, and `LIST missing` nothing, both with 226.
        let reply = self.enter(s, dir)?;
        if !reply.is_ok() {
            let kind = match self.look(s, dir)? {
                Seen::Missing => ErrorKind::NotFound,
                Seen::File => ErrorKind::NotADirectory,
                Seen::Directory | Seen::Unclear => ErrorKind::PermissionDenied,
            };
            let detail = format!("CWD {dir}: {}", reply.text());
            return Err(self.noted(dir, Error::new(kind, detail)));
        }
        let untested = mode == ListingMode::ListAll
            && self.options().listing == ListingMode::Auto
            && self.ways.with(|ways| ways.list_all.is_none());
        if listed.entries.is_empty() && untested {
            // Where `-a` is taken for a pattern, `LIST -a` is empty and LIST is not.
            if let Answer::Listed(plain) = self.list_by(s, dir, ListingMode::List)?
                && (plain.itself || !plain.entries.is_empty())
            {
                self.ways.with(|ways| {
                    ways.list_all = Some(false);
                    ways.listing = Some(ListingMode::List);
                });
                return Ok(plain);
            }
        }
        Ok(listed)
    }

    /// Remembers what worked, adds what the command hides, and takes out what nobody should see.
    fn finish(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        mode: ListingMode,
        mut listed: Listed,
    ) -> Result<Vec<DirEntry>> {
        if listed.itself || !listed.entries.is_empty() {
            self.ways.with(|ways| {
                // Examination may have found a better one.
                if !(mode == ListingMode::ListAll && ways.list_all == Some(false)) {
                    ways.listing = Some(mode);
                }
                match mode {
                    ListingMode::Mlsd => ways.mlst = Some(true),
                    ListingMode::ListAll if ways.list_all.is_none() => ways.list_all = Some(true),
                    _ => {}
                }
            });
        }
        match mode {
            ListingMode::Mlsd => self.add_links(s, dir, &mut listed)?,
            ListingMode::ListAll | ListingMode::List => {
                self.measure_offset(s, dir, &mut listed.entries)?;
                if self.options().exact_times {
                    self.ask_times(s, dir, &mut listed.entries)?;
                }
            }
            ListingMode::Auto | ListingMode::Nlst => {}
        }
        let mut seen = HashSet::with_capacity(listed.entries.len());
        let mut kept = Vec::with_capacity(listed.entries.len());
        let hidden = self.in_flight.with(|names| names.clone());
        for entry in listed.entries {
            if !seen.insert(entry.name.clone()) {
                listed.skipped += 1;
            } else if hidden.is_empty() || !hidden.contains(&dir.join(&entry.name)) {
                kept.push(entry);
            }
        }
        self.mention(dir, listed.skipped);
        Ok(kept)
    }

    /// MLSD of ProFTPD and Pure-FTPd does not tell where links lead, and ProFTPD's leaves dangling
    /// ones out: a directory that shows a link is listed again with LIST.
    fn add_links(&self, s: &mut Session, dir: &RemotePath, listed: &mut Listed) -> Result<()> {
        let untold = |entry: &DirEntry| {
            entry.attr.kind == FileKind::Symlink
                && entry
                    .attr
                    .target
                    .as_ref()
                    .is_none_or(|target| target.is_empty())
        };
        if !listed.entries.iter().any(untold) {
            return Ok(());
        }
        let all = self.ways.with(|ways| ways.list_all) != Some(false);
        let mut answer = None;
        if all {
            answer = Some(self.list_by(s, dir, ListingMode::ListAll)?);
        }
        if !matches!(&answer, Some(Answer::Listed(by_list)) if !by_list.entries.is_empty()) {
            answer = Some(self.list_by(s, dir, ListingMode::List)?);
        }
        let Some(Answer::Listed(by_list)) = answer else {
            return Ok(());
        };
        let places: HashMap<Name, usize> = listed
            .entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.name.clone(), at))
            .collect();
        for link in by_list.entries {
            if link.attr.kind != FileKind::Symlink {
                continue;
            }
            match places
                .get(&link.name)
                .and_then(|at| listed.entries.get_mut(*at))
            {
                Some(entry) => {
                    entry.attr.kind = FileKind::Symlink;
                    // ProFTPD gives a link the identity of what it leads to.
                    entry.attr.unique = None;
                    entry.attr.size = link.attr.target.as_ref().map(|t| t.len() as u64);
                    entry.attr.target = link.attr.target;
                }
                None => listed.entries.push(link),
            }
        }
        Ok(())
    }

    fn follow_all(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        entries: &mut Vec<DirEntry>,
    ) -> Result<()> {
        let is_link = |entry: &DirEntry| entry.attr.kind == FileKind::Symlink;
        let links: Vec<_> = entries
            .iter()
            .filter(|entry| is_link(entry))
            .map(|entry| dir.join(&entry.name))
            .collect();
        if links.is_empty() {
            return Ok(());
        }
        let mut followed = self.follow(s, &links)?.into_iter();
        entries.retain_mut(|entry| {
            if !is_link(entry) {
                return true;
            }
            let found = followed.next().flatten();
            let leads_somewhere = found.is_some();
            if let Some(attr) = found {
                entry.attr = attr;
            }
            leads_somewhere
        });
        Ok(())
    }

    /// Sends one listing command and reads what comes.
    fn list_by(&self, s: &mut Session, dir: &RemotePath, mode: ListingMode) -> Result<Answer> {
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
        let answer = self.transfer_listing(s, mode, &command);
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

    fn transfer_listing(
        &self,
        s: &mut Session,
        mode: ListingMode,
        command: &[u8],
    ) -> Result<Answer> {
        let mut data = match s.begin_data(command, 0)? {
            Begun::Open(data) => data,
            Begun::Refused(reply) => return Ok(Answer::Refused(reply)),
        };
        let mut hints = self.hints();
        let mut listed = Listed::default();
        let read = read_blocks(&mut data, |block| {
            listed.itself |= shows_itself(block);
            let parsed = match mode {
                ListingMode::Mlsd => listing::parse_mlsx(block),
                ListingMode::Nlst => {
                    listed.entries.extend(names_only(block));
                    return limited(&listed);
                }
                _ => listing::parse_list(block, &hints),
            };
            if parsed.dialect != Dialect::Unknown && mode != ListingMode::Mlsd {
                hints.dialect = Some(parsed.dialect);
            }
            listed.skipped += parsed.skipped_count;
            self.take(parsed, &mut listed);
            limited(&listed)
        });
        self.ways.with(|ways| ways.dialect = hints.dialect);
        match read {
            Ok(dropped) => listed.skipped += dropped,
            Err(err) => {
                s.close_early(data);
                return Err(err);
            }
        }
        let reply = s.end_data(data)?;
        if reply.is_ok() {
            Ok(Answer::Listed(listed))
        } else {
            Ok(Answer::Refused(reply))
        }
    }

    /// Adds entries, their names in our charset.
    fn take(&self, parsed: Parsed, listed: &mut Listed) {
        let charset = self.options().charset;
        for mut entry in parsed.entries {
            if charset.is_some() {
                let decoded = encoding::from_server(charset, entry.name.as_bytes());
                match decoded.and_then(Name::new) {
                    Ok(name) => entry.name = name,
                    Err(_) => {
                        listed.skipped += 1;
                        continue;
                    }
                }
            }
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

    fn mention(&self, dir: &RemotePath, skipped: usize) {
        if skipped == 0 {
            return;
        }
        let first = self
            .mentioned
            .with(|seen| seen.len() < MENTIONED_MAX && seen.insert(dir.clone()));
        if first {
            log::warn!("{dir}: {skipped} lines of the listing are unusable and left out");
        }
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

/// Whether a line names the listed directory: `…  .` of `ls -a`, `type=cdir` of MLSD.
fn shows_itself(block: &[u8]) -> bool {
    let mut lines = block.split(|b| *b == b'\n');
    lines.any(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let head = line.get(..40).unwrap_or(line).to_ascii_lowercase();
        line.len() > 20 && line.ends_with(b" .") && (head.starts_with(b"d") || head.contains(&b'='))
            || line
                .windows(9)
                .any(|part| part.eq_ignore_ascii_case(b"type=cdir"))
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
