//! Listing a directory: with the best command that this server knows, and never believing an
//! empty answer.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use super::list_command::{Answer, Listed, verb};
use super::options::{LinkPolicy, ListingMode};
use super::probes::{self, Seen};
use super::refusal::classify;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use crate::vfs::attr::DirEntry;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Directories whose odd listing is remembered as mentioned.
const MENTIONED_MAX: usize = 1_000;

impl FtpServer {
    /// The names in `dir`, each once, without our own temporary ones, links followed where that is
    /// the mount's policy.
    pub(super) fn list(&self, dir: &RemotePath) -> Result<Vec<DirEntry>> {
        self.on_session(|s| {
            let began = Instant::now();
            let entries = self.list_on(s, dir)?;
            self.keep_sample(dir, began.elapsed(), &entries);
            self.keep_for_trial(dir, &entries);
            self.complete(s, dir, entries)
        })
    }

    /// What [`list_on`](Self::list_on) found, with links followed and times made exact.
    pub(super) fn complete(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        mut entries: Vec<DirEntry>,
    ) -> Result<Vec<DirEntry>> {
        if self.options().links == LinkPolicy::Follow {
            self.follow_all(s, dir, &mut entries)?;
        }
        let now = SystemTime::now();
        self.confirm_times(s, dir, &entries, now)?;
        self.times.with(|times| {
            for entry in &mut entries {
                times.refine(&dir.join(&entry.name), &mut entry.attr, now);
            }
        });
        self.links.with(|links| links.learn(dir, &entries));
        self.keep_sizes(dir, &entries);
        Ok(entries)
    }

    /// As [`list`](Self::list), links not followed, on a session that is at hand.
    ///
    /// # Errors
    /// `NotFound` and `NotADirectory`, even where the server answers with success.
    pub(super) fn list_on(&self, s: &mut Session, dir: &RemotePath) -> Result<Vec<DirEntry>> {
        let by_stat = self.lists_by_stat(dir);
        if by_stat && let Some(listed) = self.list_by_stat(s, dir)? {
            return self.finish(s, dir, ListingMode::ListAll, listed);
        }
        let mut refused = None;
        for mode in self.modes(s) {
            match self.list_by(s, dir, mode)? {
                Answer::Listed(listed) => {
                    let mut listed = self.examine(s, dir, mode, listed)?;
                    if by_stat && (listed.itself || listed.entries.len() > 1) {
                        self.give_up_stat_listing(dir);
                    } else if mode == ListingMode::ListAll {
                        self.try_stat_listing(s, dir, &mut listed)?;
                    }
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
    pub(super) fn modes(&self, s: &Session) -> Vec<ListingMode> {
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
            return Err(self.no_directory(s, dir, verb(mode), reply)?);
        }
        let verdict = classify(reply);
        let denied = verdict.told && verdict.kind == ErrorKind::PermissionDenied;
        match mode {
            // "450 No files found": the directory is there, its listing is empty.
            ListingMode::List | ListingMode::Nlst if !denied && !tells_of_failure(reply) => {
                Ok(Some(Vec::new()))
            }
            ListingMode::Mlsd
                if is_empty(reply) || reply.code() == 450 && !tells_of_failure(reply) =>
            {
                Ok(Some(Vec::new()))
            }
            ListingMode::ListAll
                if is_empty(reply) && self.ways.with(|ways| ways.list_all) == Some(true) =>
            {
                Ok(Some(Vec::new()))
            }
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
            return Err(self.no_directory(s, dir, "CWD", &reply)?);
        }
        // What can be read shows itself at least, where that is the server's way.
        if self.ways.with(|ways| ways.shows_itself) == Some((mode, true)) {
            let detail = format!(
                "{} {dir}: nothing is shown, not even the directory",
                verb(mode)
            );
            return Err(self.noted(dir, Error::new(ErrorKind::PermissionDenied, detail)));
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

    /// Why `dir` cannot be entered.
    fn no_directory(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        verb: &str,
        reply: &Reply,
    ) -> Result<Error> {
        let kind = match self.look(s, dir)? {
            Seen::Missing => ErrorKind::NotFound,
            Seen::File => ErrorKind::NotADirectory,
            Seen::Directory | Seen::Unclear => ErrorKind::PermissionDenied,
        };
        let detail = format!("{verb} {dir}: {}", reply.text());
        Ok(self.noted(dir, Error::new(kind, detail)))
    }

    /// Remembers what worked, adds what the command hides, and takes out what nobody should see.
    pub(super) fn finish(
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
                self.measure_offset(s, dir, &mut listed)?;
                if dir.is_root()
                    && let Some(own) = listed.own.take()
                {
                    self.root_attr.with(|attr| *attr = Some(own));
                }
                if self.options().exact_times {
                    self.ask_times(s, dir, &mut listed.entries)?;
                }
            }
            ListingMode::Auto | ListingMode::Nlst => {}
        }
        Ok(self.visible(dir, listed))
    }

    /// What of `dir` is for everybody to see: each name once, and none that is only being written.
    pub(super) fn visible(&self, dir: &RemotePath, mut listed: Listed) -> Vec<DirEntry> {
        let mut seen = HashSet::with_capacity(listed.entries.len());
        let mut kept = Vec::with_capacity(listed.entries.len());
        let hidden: HashSet<_> = self.in_flight.with(|names| {
            let here = names.iter().filter(|name| name.is_within(dir));
            here.cloned().collect()
        });
        for entry in listed.entries {
            if !seen.insert(entry.name.clone()) {
                listed.skipped += 1;
            } else if hidden.is_empty() || !hidden.contains(&dir.join(&entry.name)) {
                kept.push(entry);
            }
        }
        self.mention(dir, listed.skipped);
        kept
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

/// "No files found": a listing without lines, told as a refusal.
fn is_empty(reply: &Reply) -> bool {
    let text = String::from_utf8_lossy(reply.first_line()).to_ascii_lowercase();
    [
        "no files",
        "no entries",
        "directory is empty",
        "directory empty",
        "empty directory",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Whether a refused listing is more than one of nothing: the directory could not be read, and is
/// not to be taken for empty.
fn tells_of_failure(reply: &Reply) -> bool {
    let verdict = classify(reply);
    if is_empty(reply) || verdict.told && verdict.kind == ErrorKind::NotFound {
        return false;
    }
    let text = String::from_utf8_lossy(reply.first_line()).to_ascii_lowercase();
    let failed = [
        "error",
        "failed",
        "failure",
        "cannot",
        "can't",
        "could not",
        "couldn't",
        "unable",
        "aborted",
    ];
    verdict.told || failed.iter().any(|words| text.contains(words))
}
