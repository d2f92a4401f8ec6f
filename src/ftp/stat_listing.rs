//! Listings through the control connection: `STAT -a dir` tells what `LIST -a dir` tells, in one
//! round trip instead of four, and many can be asked for at once.
//!
//! RFC 959 section 4.1.3 wants STAT with a path to do as LIST; not every server does. So it is
//! believed only where one directory was listed both ways with the same outcome, only where it shows
//! the directory itself (`.`), and only where there is no MLSD, whose times are exact. At the first
//! oddity it is given up for the host.

use super::list_command::{Listed, line_of_itself, own_attr};
use super::listing;
use super::options::ListingMode;
use super::reply::Reply;
use super::server::FtpServer;
use super::server_path::is_awkward;
use super::session::{More, Session};
use super::time_offset::Questions;
use crate::vfs::attr::DirEntry;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Bytes of a directory that is listed so, some 50,000 entries; the reply is held in memory.
pub(super) const STATUS_MAX: usize = 4 << 20;

/// Comparisons with LIST until one is decisive: a directory may change in between.
pub(super) const TRIES: u8 = 3;

/// Entries of a directory that is too large to be listed twice for a comparison.
const MANY: usize = 1_000;

/// Most directories remembered as too large.
const LARGE_MAX: usize = 1_000;

/// Servers with a limit for the lines of a listing have a round one.
const ROUND: usize = 1_000;

/// Bytes after which a batch sends no more.
pub(super) const BATCH_BYTES: usize = 8 << 20;

impl FtpServer {
    /// Whether `dir` is listed by STAT.
    pub(super) fn lists_by_stat(&self, dir: &RemotePath) -> bool {
        self.ways.with(|ways| {
            ways.stat_listing == Some(true) && ways.listing == Some(ListingMode::ListAll)
        }) && !self.large.with(|large| large.contains(dir))
    }

    /// Whether a name in `dir` is best looked for in its listing: that takes no longer than asking
    /// for the name, or it is the first listing, which a server without MLST is asked for in any
    /// case, to learn how it is to be read. The listing is kept, then.
    pub(super) fn lists_at_once(&self, dir: &RemotePath) -> bool {
        let features = self.pool.host().facts(|facts| facts.features.clone());
        let unnamed = features
            .is_some_and(|known| known.answered() && !known.has("MLST") && !known.has("MLSD"));
        let untried = self.ways.with(|ways| ways.listing.is_none());
        self.lists_by_stat(dir) || dir.is_root() && unnamed && untried
    }

    /// The directory as STAT shows it; `None` if that is nothing to rely on.
    pub(super) fn list_by_stat(&self, s: &mut Session, dir: &RemotePath) -> Result<Option<Listed>> {
        let mut listed = None;
        self.status_of(s, std::slice::from_ref(dir), &mut |_, _, found| {
            listed = found;
            More::Wanted
        })?;
        Ok(listed)
    }

    /// Asks for many directories at once, and gives `each` its place in `dirs`, the bytes of the
    /// reply, and what STAT shows of it as it comes. What was not asked for when `each` has had enough is left out.
    pub(super) fn status_of(
        &self,
        s: &mut Session,
        dirs: &[RemotePath],
        each: &mut dyn FnMut(usize, usize, Option<Listed>) -> More,
    ) -> Result<()> {
        self.status_and(s, dirs, Vec::new(), &mut Vec::new(), each)
    }

    /// As [`status_of`](Self::status_of), and sends other lines `behind` it in the same batch.
    fn status_and(
        &self,
        s: &mut Session,
        dirs: &[RemotePath],
        behind: Vec<Vec<u8>>,
        replies: &mut Vec<Reply>,
        each: &mut dyn FnMut(usize, usize, Option<Listed>) -> More,
    ) -> Result<()> {
        let bare = self.ways.with(|ways| ways.stat_bare == Some(true));
        let verb: &[u8] = if bare { b"STAT " } else { b"STAT -a " };
        let mut lines = Vec::with_capacity(dirs.len());
        let mut meaning = Vec::with_capacity(dirs.len());
        for (place, dir) in dirs.iter().enumerate() {
            let path = self.spell(dir)?;
            if is_awkward(&path) {
                let here = [verb, b"."].concat();
                lines.extend([self.line("CWD", dir)?, here, self.way_back()]);
                meaning.extend([Answer::Enter, Answer::Status(place), Answer::Back]);
            } else {
                lines.push([verb, &path].concat());
                meaning.push(Answer::Status(place));
            }
        }
        meaning.resize_with(lines.len() + behind.len(), || Answer::Other);
        lines.extend(behind);
        let mut outside = false;
        // That may go wrong for a reason of its own.
        let early = s.behind.is_due();
        let asked = s.batch_each(&lines, STATUS_MAX, &mut |at, reply| match meaning.get(at) {
            Some(Answer::Enter) => {
                outside = !reply.is_ok();
                More::Wanted
            }
            Some(Answer::Status(place)) => {
                let shown = if outside {
                    None
                } else {
                    self.read_status(&reply, bare)
                };
                each(*place, reply.len(), shown)
            }
            Some(Answer::Other) => {
                replies.push(reply);
                More::Wanted
            }
            Some(Answer::Back) | None => {
                outside = false;
                More::Wanted
            }
        });
        if asked.is_err()
            && !early
            && let [dir] = dirs
        {
            // A reply without end, perhaps: LIST has no such limit.
            self.large.with(|large| {
                if large.len() >= LARGE_MAX {
                    large.clear();
                }
                large.insert(dir.clone())
            });
        }
        asked
    }

    fn read_status(&self, reply: &Reply, bare: bool) -> Option<Listed> {
        if !reply.is_ok() {
            return None;
        }
        let hints = self.hints();
        let text = reply.body().join(&b'\n');
        let own = match line_of_itself(&text) {
            Some(line) => Some(own_attr(line, &hints)?),
            // No part of a listing shows itself and hides other names that begin with a dot.
            None if bare && shows_all(reply) => None,
            None => return None,
        };
        let mut listed = Listed {
            itself: true,
            own,
            ..Listed::default()
        };
        let parsed = listing::parse_list(&text, &hints);
        listed.skipped = parsed.skipped_count;
        self.take(parsed.entries, &mut listed);
        // Pure-FTPd cuts a listing off after so many lines, and only LIST says so.
        let lines = reply.body().len();
        (lines == 0 || !lines.is_multiple_of(ROUND)).then_some(listed)
    }

    /// Compares STAT with what `LIST -a` has just said of `dir`, until it is known whether the two
    /// agree on this server, and measures the zone of LIST if that is not known, too. One round trip.
    pub(super) fn try_stat_listing(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        listed: &mut Listed,
    ) -> Result<()> {
        let behind = listed.asked.take();
        let at_once = behind.is_some();
        if !at_once && !self.wants_comparison(s, listed) {
            return Ok(());
        }
        self.ways.with(|ways| ways.stat_tries += 1);
        let questions = match behind {
            Some(questions) => questions,
            None => self.offset_questions(dir, listed)?,
        };
        let behind = behind_status(s, &questions);
        let arranges = behind.len() > questions.len();
        let (mut shown, mut replies) = (None, Vec::with_capacity(behind.len()));
        let dirs = std::slice::from_ref(dir);
        self.status_and(s, dirs, behind, &mut replies, &mut |_, _, found| {
            shown = found;
            More::Wanted
        })?;
        if arranges {
            s.connect_ahead(replies.pop());
        }
        // Neither knows the zone yet.
        let same = shown
            .as_ref()
            .is_some_and(|shown| alike(&shown.entries, &listed.entries));
        self.ways.with(|ways| {
            // What is said before the end of a transfer may be said of that; the next one tells.
            ways.compares_later |= at_once && shown.is_none();
            if same || shown.is_none() && !at_once || ways.stat_tries >= TRIES {
                ways.stat_listing = Some(same);
            }
        });
        if !questions.is_empty() {
            self.judge_offset(&questions, &replies, listed);
        }
        Ok(())
    }

    fn wants_comparison(&self, s: &Session, listed: &Listed) -> bool {
        let open = self
            .ways
            .with(|ways| ways.stat_listing.is_none() && ways.stat_tries < TRIES);
        let fits = (1..=MANY).contains(&listed.entries.len());
        open && s.is_pipelined() && fits
    }

    /// All of `LIST -a dir` came: what [`try_stat_listing`](Self::try_stat_listing) is going to ask
    /// goes out behind it.
    pub(super) fn compare_behind(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        listed: &mut Listed,
    ) -> Result<()> {
        let later = self.ways.with(|ways| ways.compares_later);
        if later || !listed.itself || !s.may_ask_behind() || !self.wants_comparison(s, listed) {
            return Ok(());
        }
        let questions = self.offset_questions(dir, listed)?;
        let mut lines = vec![self.line("STAT -a", dir)?];
        lines.extend(behind_status(s, &questions));
        listed.asked = Some(questions);
        s.ask_behind(lines)
    }

    /// LIST showed of a directory what STAT did not.
    pub(super) fn give_up_stat_listing(&self, dir: &RemotePath) {
        log::info!("{dir}: STAT shows less than LIST; it is not used any more");
        self.ways.with(|ways| ways.stat_listing = Some(false));
    }
}

/// What is sent with the STAT of a comparison. It belongs to the first use of a server, and who goes on
/// to read a file needs a data connection, which a round trip is saved for where the server is far.
fn behind_status(s: &Session, questions: &Questions) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = questions.iter().map(|(_, line)| line.clone()).collect();
    if s.host().is_far() && !s.has_ahead() && s.may_arrange_ahead() {
        lines.push(b"EPSV".to_vec());
    }
    lines
}

/// Whether this is pyftpdlib's answer to STAT with a path, of which it takes no options: a directory
/// with all that is in it, without `.`; of a file, one line with its name.
fn shows_all(reply: &Reply) -> bool {
    let (first, last) = (reply.first_line(), reply.lines().last());
    first.starts_with(b"Status of \"")
        && first.ends_with(b"\":")
        && last.is_some_and(|line| line == b"End of status.")
}

/// What a reply of a batch is about.
enum Answer {
    Enter,
    Status(usize),
    Back,
    /// It is about something else.
    Other,
}

/// Whether two listings are the same but for their order.
pub(super) fn alike(one: &[DirEntry], other: &[DirEntry]) -> bool {
    let sorted = |entries: &[DirEntry]| {
        let mut entries = entries.to_vec();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    };
    one.len() == other.len() && sorted(one) == sorted(other)
}
