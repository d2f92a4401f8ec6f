//! Systems of one format each whose lines begin with a name: AS/400, z/VM, HP NonStop, and the
//! routers and Windows 3 servers that print size, date and time behind the name.

use std::borrow::Cow;

use super::dates::{Order, one_word, time_of_day};
use super::words::{Words, begins, number, text};
use super::{Context, Dialect, Found, Item};
use crate::vfs::attr::{Attr, FileKind};

/// `QSYS  77824 02/23/00 15:09:55 *DIR  name/`, and members of files, `QPGMR *MEM FILE/MEMBER.MBR`,
/// without size and date.
pub(super) fn parse_as400<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let is_type = |at: &usize| {
        let letters = words.get(*at).and_then(|word| word.strip_prefix(b"*"));
        letters.is_some_and(|l| (3..=8).contains(&l.len()) && l.iter().all(u8::is_ascii_uppercase))
    };
    let at = (0..6).find(is_type)?;
    let object = words.get(at)?;
    let name = words.rest(at)?;
    let (slash, name) = match name.strip_suffix(b"/") {
        Some(name) => (true, name),
        None => (false, name),
    };
    let kind = match object {
        _ if slash => FileKind::Directory,
        b"*DIR" | b"*DDIR" | b"*LIB" | b"*FLR" => FileKind::Directory,
        // A database file holds members, unless names are shown without their kind.
        b"*FILE" if begins_at_end(name, b".FILE") => FileKind::Directory,
        b"*SYMLNK" => FileKind::Symlink,
        _ => FileKind::File,
    };
    let mut attr = Attr::new(kind);
    // The owner's column may be empty; date and time come in a pair.
    let owner = words.get(0).filter(|word| at > 0 && number(word).is_none());
    attr.owner = owner.map(text);
    if let Some(time) = at
        .checked_sub(1)
        .and_then(|i| words.get(i))
        .and_then(time_of_day)
    {
        let date = one_word(
            words.get(at.checked_sub(2)?)?,
            &mut cx.orders,
            Order::MonthFirst,
        )?;
        cx.set_time(&mut attr, &date.at(Some(time)));
        let size = at
            .checked_sub(3)
            .and_then(|i| words.get(i))
            .and_then(number);
        // Of records only the stored bytes are told, not the bytes sent.
        attr.size = size.filter(|_| object == b"*STMF");
    } else if at > 1 {
        return None;
    }
    let mut item = Item::new(name, attr, Dialect::As400);
    if object == b"*MEM"
        && let Some(slash) = name.iter().rposition(|b| *b == b'/')
    {
        item.parent = name.get(..slash);
        item.name = Cow::Borrowed(name.get(slash + 1..)?);
    }
    Some(Found::Entry(item))
}

fn begins_at_end(name: &[u8], suffix: &[u8]) -> bool {
    let at = name.len().saturating_sub(suffix.len());
    name.get(at..).is_some_and(|end| begins(end, suffix))
}

/// `PROFILE  EXEC  V  65  107  2 2005-10-04 15:28:42 060191`: name, type, format, record length,
/// records, blocks; a file's name is made of the first two.
pub(super) fn parse_cms<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let (name, extension, format) = (words.get(0)?, words.get(1)?, words.get(2)?);
    let counts = |at: usize| {
        words
            .get(at)
            .is_some_and(|w| number(w).is_some() || w == b"-")
    };
    if name.len() > 8 || extension.len() > 8 || !(3..6).all(counts) {
        return None;
    }
    let kind = match format {
        b"F" | b"V" => FileKind::File,
        b"-" | b"DIR" => FileKind::Directory,
        _ => return None,
    };
    let date = one_word(words.get(6)?, &mut cx.orders, Order::MonthFirst)?;
    let mut attr = Attr::new(kind);
    cx.set_time(&mut attr, &date.at(Some(time_of_day(words.get(7)?)?)));
    let mut item = Item::new(name, attr, Dialect::Cms);
    if kind == FileKind::File {
        item.name = Cow::Owned([name, extension].join(&b'.'));
    }
    Some(Found::Entry(item))
}

/// `EVENTS  0  28672  6-Apr-07 14:21:18 255,255 "oooo"`: file, code, size.
pub(super) fn parse_nonstop<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let name = words.get(0)?;
    if name == b"File" && words.get(1) == Some(b"Code") {
        return Some(Found::Noise);
    }
    let code = words.get(1)?;
    // A file that is open has an O behind its code.
    number(code.strip_suffix(b"O").unwrap_or(code))?;
    let mut attr = Attr::new(FileKind::File);
    attr.size = Some(number(words.get(2)?)?);
    let date = one_word(words.get(3)?, &mut cx.orders, Order::DayFirst)?;
    cx.set_time(&mut attr, &date.at(Some(time_of_day(words.get(4)?)?)));
    let last = words.len().checked_sub(1)?;
    words.get(last)?.strip_suffix(b"\"")?;
    attr.owner = words.between(5, last).map(text);
    Some(Found::Entry(Item::new(name, attr, Dialect::NonStop)))
}

/// `image.exe  1014196  06/03/04  Thur.  10:20:03` of Nortel's routers, and
/// `CMT  <DIR>  11-21-94  10:17` of SuperTCP.
pub(super) fn parse_trailing<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let (name, size) = (words.get(0)?, words.get(1)?);
    let mut attr = Attr::new(if size.eq_ignore_ascii_case(b"<DIR>") {
        FileKind::Directory
    } else {
        FileKind::File
    });
    if !attr.is_dir() {
        attr.size = Some(number(size)?);
    }
    let date = one_word(words.get(2)?, &mut cx.orders, Order::MonthFirst)?;
    let last = words.len().checked_sub(1).filter(|last| *last <= 4)?;
    // Between date and time a day of the week, which says nothing new.
    if last == 4
        && !words
            .get(3)?
            .iter()
            .all(|b| b.is_ascii_alphabetic() || *b == b'.')
    {
        return None;
    }
    cx.set_time(&mut attr, &date.at(Some(time_of_day(words.get(last)?)?)));
    (last >= 3).then(|| Found::Entry(Item::new(name, attr, Dialect::Trailing)))
}
