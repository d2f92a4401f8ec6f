//! OpenVMS: `NAME.EXT;3  2/8  7-JAN-2000 10:30:13.64  [GROUP,OWNER]  (RWED,RWED,RE,)`.
//!
//! A long name stands alone, with the rest on the next line. Every version of a file is listed;
//! the newest is kept, under the name without its version, which is what other commands take.

use super::dates::{Order, one_word, time_of_day};
use super::words::{Words, begins, is_blank, number, text};
use super::{Context, Dialect, Found, Item};
use crate::vfs::attr::{Attr, FileKind};

pub(super) fn parse<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    if begins(line, b"directory ") && line.contains(&b'[') {
        return Some(Found::Directory);
    }
    if begins(line, b"total of ") || begins(line, b"grand total of ") {
        return Some(Found::Noise);
    }
    let end = line.iter().position(|b| is_blank(*b));
    let (word, rest) = line.split_at_checked(end.unwrap_or(line.len()))?;
    let mut item = item(word)?;
    let words = Words::of(rest);
    if words.len() == 0 {
        return Some(Found::Beginning(item));
    }
    // "%RMS-E-PRV, insufficient privilege": it is there, and nothing more is told.
    if words.get(0)?.starts_with(b"%") {
        return Some(Found::Entry(item));
    }
    item.attr = parse_rest(&words, item.attr, cx)?;
    Some(Found::Entry(item))
}

/// Reads the second line of an entry that [`Found::Beginning`] began; `None` where this line is
/// another matter.
pub(super) fn continued(line: &[u8], attr: &Attr, cx: &mut Context) -> Option<Attr> {
    if line.starts_with(b"%") {
        return Some(attr.clone());
    }
    parse_rest(&Words::of(line), attr.clone(), cx)
}

/// A name with its version.
fn item(word: &[u8]) -> Option<Item<'_>> {
    let semicolon = word.iter().rposition(|b| *b == b';').filter(|at| *at > 0)?;
    let version = number(word.get(semicolon + 1..)?)?;
    let name = word.get(..semicolon)?;
    let stem = name.len().saturating_sub(4);
    let (kind, name) = match name.split_at_checked(stem) {
        Some((dir, ext)) if ext.eq_ignore_ascii_case(b".DIR") => (FileKind::Directory, dir),
        _ => (FileKind::File, name),
    };
    let mut item = Item::new(name, Attr::new(kind), Dialect::Vms);
    item.version = u32::try_from(version).unwrap_or(u32::MAX);
    (!name.is_empty()).then_some(item)
}

/// The columns behind a name, in any order; a date there must be.
fn parse_rest(words: &Words<'_>, mut attr: Attr, cx: &mut Context) -> Option<Attr> {
    let mut date = None;
    let mut time = None;
    for word in (0..words.len()).filter_map(|at| words.get(at)) {
        if let Some(owner) = enclosed(word, b"[", b"]") {
            set_owner(owner, &mut attr);
        } else if let Some(rights) = enclosed(word, b"(", b")") {
            attr.mode = mode(rights);
        } else if let Some(found) = time_of_day(word) {
            time = Some(found);
        } else if let Some(found) = one_word(word, &mut cx.orders, Order::DayFirst) {
            date = Some(found);
        } else if let Some(blocks) = blocks(word) {
            // Blocks of 512 bytes, the last not full: only none of them is a size.
            attr.size = (blocks == 0 && !attr.is_dir()).then_some(0);
        } else if !is_column(word) {
            return None;
        }
    }
    cx.set_time(&mut attr, &date?.at(time));
    Some(attr)
}

fn enclosed<'a>(word: &'a [u8], open: &[u8], close: &[u8]) -> Option<&'a [u8]> {
    word.strip_prefix(open)?.strip_suffix(close)
}

/// `[GROUP,MEMBER]` or `[NAME]`.
fn set_owner(owner: &[u8], attr: &mut Attr) {
    let mut parts = owner.splitn(2, |b| *b == b',');
    match (parts.next(), parts.next()) {
        (Some(group), Some(member)) => {
            attr.group = Some(text(group));
            attr.owner = Some(text(member));
        }
        (owner, _) => attr.owner = owner.map(text),
    }
}

/// `system,owner,group,world`, each of R, W, E and D.
fn mode(rights: &[u8]) -> Option<u32> {
    let mut classes = rights.split(|b| *b == b',').skip(1);
    let mut mode = 0;
    for _ in 0..3 {
        let bits = classes.next()?.iter().try_fold(0, |bits, b| match b {
            b'R' => Some(bits | 4),
            b'W' => Some(bits | 2),
            b'E' => Some(bits | 1),
            b'D' => Some(bits),
            _ => None,
        })?;
        mode = mode << 3 | bits;
    }
    classes.next().is_none().then_some(mode)
}

/// `155`, `2/8` or `2KB`.
fn blocks(word: &[u8]) -> Option<u64> {
    let used = word.split(|b| *b == b'/').next()?;
    let used = used.strip_suffix(b"KB").unwrap_or(used);
    number(used)
}

/// A name of an owner without brackets.
fn is_column(word: &[u8]) -> bool {
    word.iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b',' | b'[' | b']'))
}
