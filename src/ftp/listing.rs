//! Directory listings as servers print them: our own parsers, byte by byte, without I/O.
//!
//! `MLSD` and `MLST` have a format (RFC 3659 section 7); `LIST` has as many as there are servers.
//! What a line does not say is left unsaid in the [`Attr`]: a size in blocks or in records, say,
//! is no size. No line vanishes: it becomes an entry, is counted as skipped with a reason, or is
//! known to carry no entry at all.
//!
//! | room | what it reads |
//! |---|---|
//! | `facts` | MLSD, MLST, EPLF |
//! | `unix` | `ls -l`, NetWare, NetPresenz, MacWebStar, Connect:Enterprise |
//! | `dos` | IIS and other `dir` |
//! | `sized` | lines that begin with a number: OS/2, VShell, VxWorks, octal modes, OS-9 |
//! | `vms`, `mvs`, `rare` | OpenVMS; z/OS; AS/400, z/VM, HP NonStop, routers |
//! | `noise` | lines of no dialect: totals, headings, messages |
//! | `collect` | names checked, each once |
//! | `dates`, `column`, `months`, `calendar` | what is printed as a date, and what it means in UTC |

mod calendar;
mod collect;
mod column;
mod dates;
mod dos;
mod facts;
mod months;
mod mvs;
mod noise;
mod rare;
mod sized;
#[cfg(test)]
mod tests;
mod unix;
mod vms;
mod words;

use std::borrow::Cow;
use std::time::SystemTime;

use self::calendar::{Clock, Stamp};
pub use self::calendar::{format_time, parse_time};
use self::collect::Collector;
use self::dates::Orders;
use self::facts::Role;
use self::noise::Odd;
use self::words::{lines, trim_start};
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::path::Name;

/// What is known beside the bytes of a LIST.
#[derive(Debug, Clone, Copy)]
pub struct Hints {
    /// The time here, for dates without a year.
    pub now: SystemTime,
    /// Seconds the server's LIST times are ahead of UTC.
    pub offset_secs: i64,
    /// What this server's last listing was written in; matters only where a format has a heading
    /// that the server leaves out.
    pub dialect: Option<Dialect>,
}

/// Who writes a listing like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// No line was understood, or there was none.
    Unknown,
    /// MLSD (RFC 3659 section 7).
    Mlsd,
    /// `ls -l`.
    Unix,
    /// Novell NetWare and Hellsoft: rights in brackets.
    NetWare,
    /// DOS, Windows.
    Dos,
    /// D. J. Bernstein's Easily Parsed LIST Format.
    Eplf,
    /// OS/2.
    Os2,
    /// VShell's own format.
    VShell,
    /// VxWorks.
    VxWorks,
    /// `st_mode` in octal.
    Octal,
    /// Microware OS-9.
    Os9,
    /// OpenVMS.
    Vms,
    /// z/OS datasets.
    MvsDatasets,
    /// z/OS members of a partitioned dataset.
    MvsMembers,
    /// z/OS jobs.
    MvsJobs,
    /// OS/400, i5/OS.
    As400,
    /// z/VM.
    Cms,
    /// HP NonStop (Tandem).
    NonStop,
    /// Name, size, date, time: Nortel routers, SuperTCP.
    Trailing,
}

/// A listing, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The entries in the server's order, each name once, without `.` and `..`.
    pub entries: Vec<DirEntry>,
    /// The first lines (256 at most, 1024 bytes of each) that gave no entry and should have.
    pub skipped: Vec<Skipped>,
    /// How many such lines there were.
    pub skipped_count: usize,
    /// How many lines carry no entry of their own and never should: headings, totals, `.` and
    /// `..`, second lines, older versions. With entries and skipped lines these are all lines that
    /// are not blank.
    pub ignored: usize,
    /// What the last entry or heading was written in.
    pub dialect: Dialect,
}

/// A line that gave no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// As the server sent it, perhaps cut short.
    pub line: Vec<u8>,
    /// Why.
    pub why: Reason,
}

/// Why a line gave no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// In no format we know.
    Unrecognized,
    /// A name that is none: a path, with control bytes, too long.
    Hostile,
    /// A name that was there before.
    Duplicate,
    /// An error message in place of an entry: `ls: x: Permission denied`.
    Message,
    /// Below a heading that says that the rest is in another directory.
    OtherDirectory,
}

/// Reads all of an MLSD data connection.
#[must_use]
pub fn parse_mlsx(bytes: &[u8]) -> Parsed {
    let mut out = Collector::default();
    for line in lines(bytes).filter(|line| !trim_start(line).is_empty()) {
        match facts::parse(line) {
            Some(facts) if facts.role == Role::Frame => out.ignore(),
            Some(facts) => out.add(line, Item::new(facts.name, facts.attr, Dialect::Mlsd)),
            None => out.skip(line, Reason::Unrecognized),
        }
    }
    out.finish(Dialect::Mlsd)
}

/// Reads one line of facts, as MLST replies with: attributes and the name or path as the server
/// has it, unchecked. `None` if it has no facts or no name.
#[must_use]
pub fn parse_facts(line: &[u8]) -> Option<(Attr, Vec<u8>)> {
    let line = lines(line).next()?;
    let facts = facts::parse(line)?;
    Some((facts.attr, facts.name.to_vec()))
}

/// Reads all of an NLST data connection: the names, each once, and what was no name. A `./` before
/// a name is taken off.
#[must_use]
pub fn parse_nlst(bytes: &[u8]) -> (Vec<Name>, Vec<Skipped>) {
    let mut out = Collector::default();
    for line in lines(bytes).filter(|line| !line.is_empty()) {
        let name = line.strip_prefix(b"./").unwrap_or(line);
        let attr = Attr::new(FileKind::File);
        out.add(line, Item::new(name, attr, Dialect::Unknown));
    }
    let parsed = out.finish(Dialect::Unknown);
    let names = parsed.entries.into_iter().map(|entry| entry.name);
    (names.collect(), parsed.skipped)
}

/// Reads all of a LIST data connection in any dialect, or the lines between the first and the last
/// of a STAT reply.
#[must_use]
pub fn parse_list(bytes: &[u8], hints: &Hints) -> Parsed {
    let mut cx = Context::new(hints, Learned::default());
    let parsed = read(bytes, &mut cx);
    let learned = Learned {
        order: cx.orders.contradiction(),
        ..cx.seen
    };
    if learned == Learned::default() {
        return parsed;
    }
    // A later line told how the earlier ones should have been read.
    read(bytes, &mut Context::new(hints, learned))
}

/// What only the whole listing tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Learned {
    order: Option<dates::Order>,
    /// Blanks before every name.
    padding: usize,
    /// Three sizes, as on a Macintosh.
    forks: bool,
}

/// What the lines so far tell of the next one.
struct Context {
    clock: Clock,
    orders: Orders,
    dialect: Dialect,
    learned: Learned,
    seen: Learned,
}

impl Context {
    fn new(hints: &Hints, learned: Learned) -> Self {
        Self {
            clock: Clock::new(hints.now, hints.offset_secs),
            orders: Orders::knowing(learned.order),
            dialect: hints.dialect.unwrap_or(Dialect::Unknown),
            learned,
            seen: Learned::default(),
        }
    }

    fn set_time(&self, attr: &mut Attr, stamp: &Stamp) {
        attr.mtime = self.clock.utc(stamp);
        attr.mtime_exact = attr.mtime.is_some() && stamp.is_exact();
    }
}

/// An entry before its name is checked.
#[derive(Debug, Clone)]
struct Item<'a> {
    name: Cow<'a, [u8]>,
    attr: Attr,
    dialect: Dialect,
    /// The newest of several with one name is kept; 0 where there are no versions.
    version: u32,
    /// The name of the file that has this as a member, which may be in the same listing.
    parent: Option<&'a [u8]>,
}

impl<'a> Item<'a> {
    const fn new(name: &'a [u8], attr: Attr, dialect: Dialect) -> Self {
        Self {
            name: Cow::Borrowed(name),
            attr,
            dialect,
            version: 0,
            parent: None,
        }
    }
}

/// What a dialect makes of a line.
enum Found<'a> {
    Entry(Item<'a>),
    /// The first line of an entry that may go on in the next.
    Beginning(Item<'a>),
    /// What follows is in this dialect.
    Heading(Dialect),
    /// What follows is in the directory of this name.
    Directory,
    /// Known to carry no entry.
    Noise,
}

type Parser = for<'a> fn(&'a [u8], &mut Context) -> Option<Found<'a>>;

/// All dialects of LIST, the ones most seen first; each accepts only lines it is sure of.
const PARSERS: [(Dialect, Parser); 18] = [
    (Dialect::Unix, unix::parse),
    (Dialect::Dos, dos::parse),
    (Dialect::Mlsd, parse_mlsd_line),
    (Dialect::Eplf, parse_eplf_line),
    (Dialect::NetWare, unix::parse_netware),
    (Dialect::Vms, vms::parse),
    (Dialect::As400, rare::parse_as400),
    (Dialect::MvsDatasets, mvs::parse_dataset),
    (Dialect::MvsMembers, mvs::parse_member),
    (Dialect::MvsJobs, mvs::parse_job),
    (Dialect::Os2, sized::parse_os2),
    (Dialect::VShell, sized::parse_vshell),
    (Dialect::VxWorks, sized::parse_vxworks),
    (Dialect::Octal, sized::parse_octal),
    (Dialect::Os9, sized::parse_os9),
    (Dialect::Cms, rare::parse_cms),
    (Dialect::NonStop, rare::parse_nonstop),
    (Dialect::Trailing, rare::parse_trailing),
];

/// The dialect of the lines before is asked first, then all others.
fn recognize<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let usual = cx.dialect;
    let (first, others) = (
        PARSERS.iter().filter(|(dialect, _)| *dialect == usual),
        PARSERS.iter().filter(|(dialect, _)| *dialect != usual),
    );
    let mut parsers = first.chain(others);
    parsers.find_map(|(_, parse)| parse(line, cx))
}

fn parse_mlsd_line<'a>(line: &'a [u8], _: &mut Context) -> Option<Found<'a>> {
    if !facts::looks_like(line) {
        return None;
    }
    let facts = facts::parse(line)?;
    Some(match facts.role {
        Role::Frame => Found::Noise,
        Role::Entry => Found::Entry(Item::new(facts.name, facts.attr, Dialect::Mlsd)),
    })
}

fn parse_eplf_line<'a>(line: &'a [u8], _: &mut Context) -> Option<Found<'a>> {
    let (attr, name) = facts::parse_eplf(line)?;
    Some(Found::Entry(Item::new(name, attr, Dialect::Eplf)))
}

fn read(bytes: &[u8], cx: &mut Context) -> Parsed {
    let mut out = Collector::default();
    let mut pending: Option<(&[u8], Item<'_>)> = None;
    let mut gap = true;
    for whole in lines(bytes) {
        // STAT replies and several systems indent. Where the name stands first, it has no blanks.
        let line = trim_start(whole);
        let after_gap = std::mem::replace(&mut gap, line.is_empty());
        if line.is_empty() {
            continue;
        }
        if let Some((first, mut item)) = pending.take() {
            if let Some(attr) = vms::continued(line, &item.attr, cx) {
                item.attr = attr;
                cx.dialect = Dialect::Vms;
                out.add(first, item);
                out.ignore();
                continue;
            }
            out.add_alone(first, item, cx.dialect);
        }
        match recognize(line, cx) {
            Some(Found::Entry(item)) => {
                cx.dialect = item.dialect;
                out.add(whole, item);
            }
            Some(Found::Beginning(item)) => pending = Some((whole, item)),
            Some(Found::Heading(dialect)) => {
                cx.dialect = dialect;
                out.ignore();
            }
            Some(Found::Noise) => out.ignore(),
            Some(Found::Directory) => out.enter_directory(),
            None => match noise::classify(line, after_gap) {
                Odd::Noise => out.ignore(),
                Odd::Directory => out.enter_directory(),
                Odd::Lost(why) => out.skip(whole, why),
            },
        }
    }
    if let Some((first, item)) = pending {
        out.add_alone(first, item, cx.dialect);
    }
    out.finish(cx.dialect)
}
