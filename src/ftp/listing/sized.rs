//! Lines that begin with a number: OS/2, VShell, VxWorks, modes in octal, and OS-9.

use super::calendar::{TimeOfDay, moment};
use super::column;
use super::dates::{Date, Order, one_word, short_year, small, time_of_day};
use super::facts::kind_of_mode;
use super::months::month;
use super::words::{Words, begins, number, octal, text, trim_end};
use super::{Context, Dialect, Found, Item};
use crate::vfs::attr::{Attr, FileKind};

/// `36611 A 04-23-103 10:57 name`, `0 DIR 02-11-103 16:15 name`.
pub(super) fn parse_os2<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let size = number(words.get(0)?)?;
    // Attributes are letters; the date follows them.
    let is_flag = |word: &[u8]| word.len() <= 6 && word.iter().all(u8::is_ascii_alphabetic);
    let at = (1..5).find(|at| !words.get(*at).is_some_and(is_flag))?;
    let date = one_word(words.get(at)?, &mut cx.orders, Order::MonthFirst)?;
    // VxWorks prints months by name.
    if words.get(at)?.first()?.is_ascii_alphabetic() {
        return None;
    }
    let stamp = date.at(Some(time_of_day(words.get(at + 1)?)?));
    let dir = (1..at).any(|i| words.get(i).is_some_and(|w| w.eq_ignore_ascii_case(b"dir")));
    let mut attr = Attr::new(if dir {
        FileKind::Directory
    } else {
        FileKind::File
    });
    attr.size = (!dir).then_some(size);
    cx.set_time(&mut attr, &stamp);
    Some(Found::Entry(Item::new(
        words.rest(at + 1)?,
        attr,
        Dialect::Os2,
    )))
}

/// `206876  Apr 04, 2000 21:06 name`, a directory with a slash behind it.
pub(super) fn parse_vshell<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let size = number(words.get(0)?)?;
    month(words.get(1)?)?;
    let column = column::read(&words, 1, false, &mut cx.orders)?;
    let (_, name) = words.after(column.next - 1)?.split_first()?;
    let (kind, name) = match name.strip_suffix(b"/") {
        Some(name) => (FileKind::Directory, name),
        None => (FileKind::File, name),
    };
    let mut attr = Attr::new(kind);
    attr.size = (kind == FileKind::File).then_some(size);
    cx.set_time(&mut attr, &column.stamp);
    (!name.is_empty()).then(|| Found::Entry(Item::new(name, attr, Dialect::VShell)))
}

/// `2048    Feb-28-1998  05:23:30   name <DIR>`.
pub(super) fn parse_vxworks<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    if is_heading(line, &[b"size", b"date", b"time", b"name"]) {
        return Some(Found::Noise);
    }
    let words = Words::of(line);
    let size = number(words.get(0)?)?;
    let date_word = words.get(1)?;
    let date = one_word(date_word, &mut cx.orders, Order::MonthFirst)?;
    if !date_word.first()?.is_ascii_alphabetic() {
        return None;
    }
    let stamp = date.at(Some(time_of_day(words.get(2)?)?));
    let name = words.rest(2)?;
    let (kind, name) = match name.strip_suffix(b"<DIR>") {
        Some(name) => (FileKind::Directory, trim_end(name)),
        None => (FileKind::File, name),
    };
    let mut attr = Attr::new(kind);
    attr.size = (kind == FileKind::File).then_some(size);
    cx.set_time(&mut attr, &stamp);
    (!name.is_empty()).then(|| Found::Entry(Item::new(name, attr, Dialect::VxWorks)))
}

/// `0100644 500 101 12345 123456789 name`: `st_mode`, owner, group, size, seconds since 1970 in UTC.
pub(super) fn parse_octal<'a>(line: &'a [u8], _: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let mode = words.get(0).filter(|word| (5..=7).contains(&word.len()))?;
    let mode = octal(mode)?;
    let mut attr = Attr::new(kind_of_mode(mode)?);
    let (owner, group) = (words.get(1)?, words.get(2)?);
    number(owner).and(number(group))?;
    attr.mode = Some(mode & 0o7777);
    attr.owner = Some(text(owner));
    attr.group = Some(text(group));
    attr.size = Some(number(words.get(3)?)?);
    let secs = i64::try_from(number(words.get(4)?)?).ok()?;
    attr.mtime = moment(secs, 0);
    attr.mtime_exact = attr.mtime.is_some();
    Some(Found::Entry(Item::new(
        words.rest(4)?,
        attr,
        Dialect::Octal,
    )))
}

/// `20.20 07/03/29 1026 d-ewrewr 2650 85920 name`: owner, year/month/day, time, rights, sector, size.
pub(super) fn parse_os9<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    if is_heading(line, &[b"owner", b"last", b"modified", b"attributes"]) {
        return Some(Found::Noise);
    }
    let words = Words::of(line);
    let owner = words.get(0)?;
    let dot = owner.iter().position(|b| *b == b'.')?;
    number(owner.get(..dot)?).and(number(owner.get(dot + 1..)?))?;
    let mut date = words.get(1)?.split(|b| *b == b'/');
    let date = Date {
        year: Some(short_year(date.next()?)?),
        month: small(date.next()?)?,
        day: small(date.next()?)?,
    };
    let time = words.get(2).filter(|word| word.len() == 4)?;
    let time = TimeOfDay {
        hour: small(time.get(..2)?)?,
        minute: small(time.get(2..)?)?,
        ..TimeOfDay::default()
    };
    let rights = words.get(3).filter(|word| word.len() == 8)?;
    let mut attr = Attr::new(match rights.first()? {
        b'd' => FileKind::Directory,
        b'-' => FileKind::File,
        _ => return None,
    });
    number(words.get(5)?)?;
    attr.size = words.get(5).and_then(number).filter(|_| !attr.is_dir());
    attr.owner = Some(text(owner));
    cx.set_time(&mut attr, &date.at(Some(time)));
    Some(Found::Entry(Item::new(words.rest(5)?, attr, Dialect::Os9)))
}

/// Whether these are the first words of the line.
fn is_heading(line: &[u8], names: &[&[u8]]) -> bool {
    let words = Words::of(line);
    names
        .iter()
        .enumerate()
        .all(|(at, name)| words.get(at).is_some_and(|word| begins(word, name)))
}
