//! `ls -l` and its relatives: NetWare, NetPresenz and MacWebStar, Connect:Enterprise.
//!
//! A line is read from its date outwards. Before it lie the mode and columns that servers leave
//! out, put together or fill with blanks of their own, the size last; behind it, after exactly
//! one blank, lies the name with all its other blanks.

use super::column::{self, Column};
use super::months;
use super::words::{Words, grouped, number, places, split_digits, text, trim_end, trim_start};
use super::{Context, Dialect, Found, Item};
use crate::vfs::attr::{Attr, FileKind};

/// The columns of `ls` are this wide, so a size is glued to a group only in a longer word.
const COLUMN: usize = 8;

pub(super) fn parse<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let kind = kind(*line.first()?)?;
    let words = Words::of(line);
    let mode = Mode::of(words.get(0)?)?;
    let mut attr = Attr::new(kind);
    attr.mode = mode.bits();
    entry(line, &words, 1, attr, Dialect::Unix, cx)
}

/// `d [R----F--] supervisor 512 Jan 16 18:53    login`, and without the first blank, as Hellsoft's
/// server prints it. Its rights are not those of Unix, so the mode is not told.
pub(super) fn parse_netware<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let (first, rest) = line.split_first()?;
    let kind = kind(*first)?;
    let rights = trim_start(rest).strip_prefix(b"[")?;
    let close = rights.iter().take(16).position(|b| *b == b']')?;
    let inside = rights.get(..close)?;
    if !inside
        .iter()
        .all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b' '))
    {
        return None;
    }
    let words = Words::of(rights.get(close + 1..)?);
    entry(line, &words, 0, Attr::new(kind), Dialect::NetWare, cx)
}

fn kind(first: u8) -> Option<FileKind> {
    match first {
        b'd' => Some(FileKind::Directory),
        b'l' => Some(FileKind::Symlink),
        // Devices, fifos, sockets, doors, HP-UX network files, contiguous and migrated files.
        b'-' | b'b' | b'c' | b'p' | b's' | b'D' | b'n' | b'C' | b'P' | b'm' | b'M' | b'w' => {
            Some(FileKind::File)
        }
        _ => None,
    }
}

/// The first column.
enum Mode {
    Bits(u32),
    /// Letters of another system: `-C--E-----FTP` of Connect:Enterprise.
    Foreign,
}

impl Mode {
    fn of(word: &[u8]) -> Option<Self> {
        let rights = word.get(1..10)?;
        if let Some(bits) = rights
            .iter()
            .enumerate()
            .try_fold(0, |bits, (at, b)| Some(bits | bit(at, *b)?))
        {
            return Some(Self::Bits(bits));
        }
        let dashes = word.iter().filter(|b| **b == b'-').count();
        let plain = word
            .iter()
            .all(|b| b.is_ascii_uppercase() || *b == b'-' || *b == b'd');
        (dashes > 3 && plain).then_some(Self::Foreign)
    }

    /// Nine dashes come from servers that know no rights (OS/2, old IIS), and hardly from a file
    /// that nobody may touch.
    const fn bits(&self) -> Option<u32> {
        match self {
            Self::Bits(0) | Self::Foreign => None,
            Self::Bits(bits) => Some(*bits),
        }
    }
}

/// The bits of the letter at place `at` of `rwxr-sr-t`.
fn bit(at: usize, letter: u8) -> Option<u32> {
    let own = 0o400 >> at;
    let special = match at {
        2 => 0o4000,
        5 => 0o2000,
        _ => 0o1000,
    };
    match (at % 3, letter) {
        (_, b'-') => Some(0),
        (0, b'r') | (1, b'w') | (2, b'x') => Some(own),
        (2, b's') if at < 8 => Some(own | special),
        (2, b't') if at == 8 => Some(own | special),
        // Solaris prints `l` for mandatory locking, which is setgid without execute.
        (2, b'S' | b'l' | b'L') if at < 8 => Some(special),
        (2, b'T') if at == 8 => Some(special),
        _ => None,
    }
}

/// The rest of a line whose columns begin with word `from`.
fn entry<'a>(
    line: &[u8],
    words: &Words<'a>,
    from: usize,
    mut attr: Attr,
    dialect: Dialect,
    cx: &mut Context,
) -> Option<Found<'a>> {
    let Some((at, column)) = find_date(words, from, cx) else {
        return dateless(words, from, attr, dialect);
    };
    set_columns(line, words, from, at, &mut attr, cx);
    cx.set_time(&mut attr, &column.stamp);

    let (_, name) = words.after(column.next - 1)?.split_first()?;
    let name = if column.padded || dialect == Dialect::NetWare {
        trim_start(name)
    } else {
        unpadded(name, attr.is_dir(), cx)
    };
    Some(Found::Entry(with_target(name, attr, dialect)?))
}

/// The date column and its first word: the leftmost date behind a size, since names may hold dates
/// too. A month in an unknown language is looked for last, so that it cannot hide a real one.
fn find_date(words: &Words<'_>, from: usize, cx: &mut Context) -> Option<(usize, Column)> {
    let is_size = |word: &[u8]| word.last().is_some_and(u8::is_ascii_digit) || is_rounded(word);
    [false, true].into_iter().find_map(|any_month| {
        (from + 1..words.len())
            .filter(|at| words.get(at - 1).is_some_and(is_size))
            .find_map(|at| Some((at, column::read(words, at, any_month, &mut cx.orders)?)))
    })
}

/// `drwxr-xr-x 3 owner group 512 name`, unless that is a line cut off within its date.
fn dateless<'a>(
    words: &Words<'a>,
    from: usize,
    mut attr: Attr,
    dialect: Dialect,
) -> Option<Found<'a>> {
    number(words.get(from)?)?;
    attr.size = Some(number(words.get(from + 3)?)?);
    if words.get(from + 4).and_then(months::month).is_some() {
        return None;
    }
    attr.owner = words.get(from + 1).map(text);
    attr.group = words.get(from + 2).map(text);
    let (_, name) = words.after(from + 3)?.split_first()?;
    Some(Found::Entry(with_target(name, attr, dialect)?))
}

/// Size, owner and group from the words between the mode and the date.
fn set_columns(
    line: &[u8],
    words: &Words<'_>,
    from: usize,
    date: usize,
    attr: &mut Attr,
    cx: &mut Context,
) {
    let Some(last) = words.get(date - 1) else {
        return;
    };
    if set_forks(words, from, date, attr, cx) {
        return;
    }
    // What is left of the last word once the size is taken off it.
    let mut end = date - 1;
    let mut glued = 0;
    let device = matches!(line.first(), Some(b'b' | b'c'));
    if device {
        // "8, 1" or "8,1": numbers of the device, no size.
        let split = end > from && words.get(end - 1).is_some_and(|word| word.ends_with(b","));
        end -= usize::from(split);
    } else if let Some(size) = grouped(last) {
        attr.size = Some(size);
    } else if !is_rounded(last) {
        let text = last.len() - last.iter().rev().take_while(|b| b.is_ascii_digit()).count();
        if last.len() > COLUMN
            && let Some(size) = last.get(text..).and_then(number)
        {
            attr.size = Some(size);
            glued = last.len() - text;
        }
        end += 1;
    }
    // The link count, where there is one.
    let links = words.get(from).and_then(number).is_some() && from < end;
    if let Some(people) = words.between(from + usize::from(links), end) {
        let people = people.get(..people.len().saturating_sub(glued));
        let (owner, group) = split_people(people.unwrap_or_default());
        attr.owner = owner.map(text);
        attr.group = group.map(text);
    }
}

/// NetPresenz and MacWebStar: `folder` and a count of items, or the sizes of the resource fork, of
/// the data fork, and of both. What they send depends on their settings, so that only a file
/// without a resource fork has a known size.
fn set_forks(
    words: &Words<'_>,
    from: usize,
    date: usize,
    attr: &mut Attr,
    cx: &mut Context,
) -> bool {
    if words.get(from) == Some(b"folder") && date == from + 2 && attr.is_dir() {
        cx.seen.forks = true;
        return true;
    }
    let size = |at: usize| words.get(from + at).and_then(number);
    if let (true, true, Some(resource), Some(data), Some(both)) = (
        cx.learned.forks,
        date == from + 3,
        size(0),
        size(1),
        size(2),
    ) && resource.checked_add(data) == Some(both)
    {
        attr.size = (resource == 0).then_some(data);
        return true;
    }
    false
}

/// A size, but not to the byte: `33.5k`, or more digits than can be.
fn is_rounded(word: &[u8]) -> bool {
    let (whole, rest) = split_digits(word);
    if rest.is_empty() {
        return true;
    }
    let unit = rest.strip_suffix(b"B").unwrap_or(rest);
    let Some((b'k' | b'K' | b'M' | b'G' | b'T', fraction)) = unit.split_last() else {
        return false;
    };
    let fraction = fraction.strip_prefix(b".").unwrap_or(fraction);
    !whole.is_empty() && fraction.iter().all(u8::is_ascii_digit)
}

/// Owner and group, either of which may hold blanks: `DOM\bob DOM\Domain Users`. A second
/// backslash tells where the group begins, else the one wide gap, else the first blank.
fn split_people(people: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let blank = |at: &usize| people.get(*at) == Some(&b' ');
    let cut = second_domain(people).or_else(|| {
        let mut gaps = places(people, b"  ").filter(|at| *at == 0 || !blank(&(at - 1)));
        gaps.next().filter(|_| gaps.next().is_none())
    });
    let cut = cut.or_else(|| people.iter().position(|b| *b == b' '));
    let (owner, group) = people
        .split_at_checked(cut.unwrap_or(people.len()))
        .unwrap_or_default();
    let told = |name: &&[u8]| !name.is_empty();
    (
        Some(trim_end(owner)).filter(told),
        Some(trim_start(group)).filter(told),
    )
}

/// Where the word begins that holds the second backslash.
fn second_domain(people: &[u8]) -> Option<usize> {
    let slash = places(people, b"\\").nth(1)?;
    people.get(..slash)?.iter().rposition(|b| *b == b' ')
}

/// The name without the blanks that this server puts before every name. They show in the lines
/// of `.` and `..`; without these, a blank belongs to the name.
fn unpadded<'a>(name: &'a [u8], is_dir: bool, cx: &mut Context) -> &'a [u8] {
    let bare = trim_start(name);
    let blanks = name.len() - bare.len();
    if is_dir && blanks > 0 && matches!(bare, b"." | b"..") {
        cx.seen.padding = blanks;
        return bare;
    }
    name.get(cx.learned.padding.min(blanks)..).unwrap_or(name)
}

/// Parts a link from its target, and a directory from the slash of `ls -F`.
fn with_target<'a>(name: &'a [u8], mut attr: Attr, dialect: Dialect) -> Option<Item<'a>> {
    let mut name = name;
    match attr.kind {
        FileKind::Symlink => {
            if let Some(at) = arrow(name, attr.size) {
                attr.target = name.get(at + 4..).map(Into::into);
                name = name.get(..at)?;
            }
        }
        FileKind::Directory => name = name.strip_suffix(b"/").unwrap_or(name),
        FileKind::File => {}
    }
    (!name.is_empty()).then(|| Item::new(name, attr, dialect))
}

/// Where ` -> ` parts name and target, both of which may contain it. The size of a link is the
/// length of its target, which tells; else it is the first.
fn arrow(name: &[u8], size: Option<u64>) -> Option<usize> {
    let arrows = || places(name, b" -> ").filter(|at| *at > 0);
    let fits = |at: &usize| u64::try_from(name.len() - at - 4).ok() == size;
    arrows().find(fits).or_else(|| arrows().next())
}
