//! Listings ahead where the server has MLSD: two batches for many directories, and no data
//! connection. `STAT -a dir` shows what names there are, and MLST says of each what MLSD would:
//! STAT has times to the minute only, and what two commands say of one file must not differ.
//!
//! It is tried on a directory that MLSD has just listed, and used if it says the same in less time.
//! What has links in it, or many names, is left to MLSD.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::list_command::Listed;
use super::listing;
use super::options::ListingMode;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::{More, Session};
use super::stat_listing::{BATCH_BYTES, TRIES, alike};
use crate::vfs::attr::{DirEntry, FileKind};
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// A directory with more names is left to MLSD: what may be unanswered at once is full of MLST then,
/// and a round trip lost for each hundred names.
const FEW: usize = 128;

/// The same where MLSD takes no longer than [`FAR`], or there may be many sessions for it: an MLST is
/// more work for the server than a line of MLSD.
const SMALL: usize = 32;
const FAR: Duration = Duration::from_millis(25);

/// Round trips of MLSD.
const TRIPS: u32 = 3;

/// A directory with as many names is entered for them: a name alone is a fifth of a path, and as many
/// more of them may be unanswered.
const WORTH: usize = 8;

/// Names in a batch of which the time tells what they cost the server.
const TELLING: usize = 100;

/// Directories that are left to MLSD after some that were mostly large.
const PAUSE: usize = 256;

/// How long a listing may be compared with another.
const FRESH: Duration = Duration::from_secs(1);

/// What MLSD said of a directory just now.
#[derive(Debug)]
pub(super) struct Sample {
    dir: RemotePath,
    at: Instant,
    took: Duration,
    entries: Vec<DirEntry>,
}

/// What many directories have in them, by their places.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) listed: Vec<(usize, Vec<DirEntry>)>,
    /// Directories of which STAT was understood.
    shown: usize,
    /// Names that were asked for.
    pub(super) names: usize,
    /// Directories with too many.
    pub(super) crowded: usize,
}

impl FtpServer {
    /// Whether directories are listed so; `None`: that is yet to be tried.
    pub(super) fn lists_by_names(&self) -> Option<bool> {
        let pipelined = self.pool.host().facts(|facts| facts.pipelining) == Some(true);
        let auto = self.options().listing == ListingMode::Auto;
        self.ways.with(|ways| {
            let mlsd = ways.listing == Some(ListingMode::Mlsd);
            match pipelined && auto && mlsd && ways.names_pause == 0 {
                true => ways.named_listing,
                false => Some(false),
            }
        })
    }

    /// Keeps what MLSD has just said of `dir`, which it took so long for, until that is compared.
    pub(super) fn keep_sample(&self, dir: &RemotePath, took: Duration, entries: &[DirEntry]) {
        if self.lists_by_names().is_none() && (1..=FEW).contains(&entries.len()) {
            let sample = Sample {
                dir: dir.clone(),
                at: Instant::now(),
                took,
                entries: entries.to_vec(),
            };
            self.sample.with(|kept| *kept = Some(sample));
        }
    }

    /// Learns from a directory that MLSD listed just now whether listing by names is as good. Whether
    /// there was one.
    pub(super) fn try_on_sample(&self, s: &mut Session) -> bool {
        let sample = self.sample.with(Option::take);
        let fresh = sample.filter(|sample| sample.at.elapsed() < FRESH);
        let Some(Sample {
            dir, took, entries, ..
        }) = fresh
        else {
            return false;
        };
        self.try_names(s, &dir, took, &entries);
        true
    }

    /// Lists `dir` by MLSD, then by names, and so learns whether that is as good.
    ///
    /// # Errors
    /// Those of MLSD.
    pub(super) fn try_named_listing(
        &self,
        s: &mut Session,
        dir: &RemotePath,
    ) -> Result<Vec<DirEntry>> {
        let began = Instant::now();
        let entries = s.in_a_row(|s| self.list_on(s, dir))?;
        self.try_names(s, dir, began.elapsed(), &entries);
        Ok(entries)
    }

    fn try_names(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        by_mlsd: Duration,
        entries: &[DirEntry],
    ) {
        // What it takes where the data connection is not made already.
        let by_mlsd = match self.pool.host().is_far() {
            true => by_mlsd.max(self.pool.host().round_trip() * TRIPS),
            false => by_mlsd,
        };
        // Nearby it is the server's work that counts, not the round trips; far away, all sessions
        // together, which one that is alone shows badly. MLSD on many costs the server less.
        let (most, slack) = match by_mlsd > FAR {
            true if self.options().extra_connections > 0 && self.pool.host().is_far() => (SMALL, 2),
            true => (FEW, 2),
            false => (SMALL, 1),
        };
        let fits = !entries.is_empty() && entries.len() <= most;
        let open = self.ways.with(|ways| {
            let mlsd = ways.listing == Some(ListingMode::Mlsd);
            let open = fits && mlsd && ways.named_listing.is_none() && ways.named_tries < TRIES;
            ways.named_tries += u8::from(open);
            ways.names_usual = entries.len();
            ways.mlsd_took = by_mlsd;
            open
        });
        if !open {
            return;
        }
        let one = std::slice::from_ref(dir);
        let mut began = Instant::now();
        let mut named = self.list_by_names(s, one, most);
        let unshown = |named: &Result<Named>| named.as_ref().is_ok_and(|named| named.shown == 0);
        if unshown(&named) && self.ways.with(|ways| ways.stat_bare.is_none()) {
            self.ways.with(|ways| ways.stat_bare = Some(true));
            began = Instant::now();
            named = self.list_by_names(s, one, most);
            let bare = !unshown(&named);
            self.ways.with(|ways| ways.stat_bare = Some(bare));
        }
        let quick = began.elapsed() < by_mlsd.max(Duration::from_millis(1)) * slack;
        let same = named.as_ref().is_ok_and(|named| {
            let listed = named.listed.first();
            listed.is_some_and(|(_, named)| alike(named, entries))
        });
        log::debug!(
            "{dir}: by names in {:?}, by MLSD in {by_mlsd:?}; the same: {same}",
            began.elapsed()
        );
        self.ways.with(|ways| {
            if same && quick {
                ways.named_listing = Some(true);
                ways.names_most = most;
            } else if named.is_err() || ways.named_listing.is_none() && ways.named_tries >= TRIES {
                ways.named_listing = Some(false);
            }
        });
    }

    /// These directories were listed by names on one session in that time. MLSD goes on where that
    /// is more than it takes: names cost some servers ten times the work (pyftpdlib).
    pub(super) fn weigh_names(&self, named: &Named, took: Duration) {
        // A batch of a few names takes its round trips, and on a new session those of the login.
        if named.names < TELLING {
            return;
        }
        let each = took / u32::try_from(named.listed.len().max(1)).unwrap_or(u32::MAX);
        self.ways.with(|ways| {
            if ways.mlsd_took > FAR && each > ways.mlsd_took {
                ways.names_pause = PAUSE;
            }
        });
    }

    /// MLSD of one directory took so long.
    pub(super) fn time_mlsd(&self, took: Duration) {
        self.ways.with(|ways| {
            if ways.listing == Some(ListingMode::Mlsd) {
                ways.mlsd_took = (ways.mlsd_took * 3 + took) / 4;
            }
        });
    }

    /// Asks for many directories. What is not listed is missing in the result, so what has more
    /// than `most` names.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn list_by_names(
        &self,
        s: &mut Session,
        dirs: &[RemotePath],
        most: usize,
    ) -> Result<Named> {
        let mut named = Named::default();
        let mut shown = Vec::with_capacity(dirs.len());
        let mut bytes = 0;
        self.status_of(s, dirs, &mut |place, size, listed| {
            bytes += size;
            named.shown += usize::from(listed.is_some());
            match listed {
                _ if bytes > BATCH_BYTES => return More::Enough,
                Some(listed) if listed.entries.len() > most => named.crowded += 1,
                Some(listed) if is_plain(&listed) => shown.push((place, listed.entries)),
                _ => {}
            }
            More::Wanted
        })?;
        let mut lines = Vec::new();
        let mut meaning = Vec::new();
        for (place, entries) in &shown {
            let Some(dir) = dirs.get(*place) else {
                continue;
            };
            let inside = entries.len() >= WORTH;
            if inside {
                lines.push(self.line("CWD", dir)?);
                meaning.push(Answer::Enter);
            }
            for entry in entries {
                let line = self.line("MLST", &dir.join(&entry.name))?;
                lines.push(if inside { from_inside(line) } else { line });
                meaning.push(Answer::Name { inside });
            }
            named.names += entries.len();
        }
        if meaning.contains(&Answer::Enter) {
            lines.push(self.way_back());
            meaning.push(Answer::Back);
        }
        let mut told = Vec::with_capacity(named.names);
        let mut asked = shown.iter().flat_map(|(_, entries)| entries);
        let mut outside = false;
        s.batch_each(&lines, 0, &mut |at, reply| {
            match meaning.get(at) {
                Some(Answer::Enter) => outside = !reply.is_ok(),
                Some(Answer::Name { inside }) => {
                    let entry = asked.next().filter(|_| !(outside && *inside));
                    told.push(entry.and_then(|entry| self.told(entry, &reply)));
                }
                Some(Answer::Back) | None => {}
            }
            More::Wanted
        })?;
        let mut told = told.into_iter();
        for (place, entries) in shown {
            let all: Vec<_> = told.by_ref().take(entries.len()).collect();
            let all: Option<Vec<DirEntry>> = all.into_iter().collect();
            if let (Some(dir), Some(entries)) = (dirs.get(place), all) {
                let listed = Listed {
                    entries,
                    ..Listed::default()
                };
                named.listed.push((place, self.visible(dir, listed)));
            }
        }
        let large = named.crowded * 2 > dirs.len();
        self.ways.with(|ways| {
            if large {
                ways.names_pause = PAUSE;
            }
            if !named.listed.is_empty() {
                ways.names_usual = named.names / named.listed.len();
            }
        });
        Ok(named)
    }

    /// What MLST says of `entry`, if that is what STAT has shown.
    fn told(&self, entry: &DirEntry, reply: &Reply) -> Option<DirEntry> {
        let line = reply.body().first().filter(|_| reply.is_ok())?;
        let (attr, name) = listing::parse_facts(line)?;
        let same = attr.kind == entry.attr.kind
            && (attr.is_dir() || attr.size == entry.attr.size)
            && (self.options().charset.is_some() || name.ends_with(entry.name.as_bytes()));
        same.then(|| DirEntry {
            name: entry.name.clone(),
            attr,
        })
    }
}

/// What a reply of a batch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The directory that the next names are in.
    Enter,
    /// One name, maybe as it is called in the directory that was entered.
    Name {
        inside: bool,
    },
    Back,
}

/// A command with a path, for a session that is in the directory: the last part is enough, unless it
/// looks like an option, a home directory or a part of something longer.
fn from_inside(line: Vec<u8>) -> Vec<u8> {
    let Some(slash) = line.iter().rposition(|b| *b == b'/') else {
        return line;
    };
    let name = line.get(slash + 1..).unwrap_or_default();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    match name.first().is_some_and(plain) {
        true => [b"MLST ", name].concat(),
        false => line,
    }
}

/// Whether a listing has nothing in it of which MLST might say something else than MLSD.
fn is_plain(listed: &Listed) -> bool {
    let mut names = HashSet::with_capacity(listed.entries.len());
    listed.skipped == 0
        && listed.entries.iter().all(|entry| {
            let simple = matches!(entry.attr.kind, FileKind::File | FileKind::Directory);
            simple && names.insert(&entry.name)
        })
}
