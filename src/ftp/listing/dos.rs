//! `dir` of DOS and Windows, as IIS and its imitators print it: date, time, size or `<DIR>`, name.

use super::dates::{Order, one_word, time_of_day};
use super::words::{Words, begins, grouped, trim_start};
use super::{Context, Dialect, Found, Item};
use crate::vfs::attr::{Attr, FileKind};

/// Width of the column of `<DIR>`, so that blanks behind it are not taken for the name's.
const MARK: usize = 15;

pub(super) fn parse<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    if !line.first()?.is_ascii_digit() {
        return is_frame(line).then_some(Found::Noise);
    }
    let words = Words::of(line);
    let Some(date) = one_word(words.get(0)?, &mut cx.orders, Order::MonthFirst) else {
        return is_frame(line).then_some(Found::Noise);
    };
    let mut at = 2;
    let mut time = words.get(1).and_then(time_of_day)?;
    // "12:09 PM": the hour was read as one of 24.
    let half = words
        .get(2)
        .filter(|w| begins(w, b"am") || begins(w, b"pm"));
    if let Some(half) = half.filter(|half| half.len() == 2 && (1..=12).contains(&time.hour)) {
        time.hour = time.hour % 12 + if begins(half, b"p") { 12 } else { 0 };
        at = 3;
    }
    let stamp = date.at(Some(time));
    let (kind, size) = kind_and_size(words.get(at)?)?;

    let mut attr = Attr::new(kind);
    attr.size = size;
    cx.set_time(&mut attr, &stamp);
    let mut name = if size.is_some() {
        words.after(at)?.split_first()?.1
    } else {
        behind_mark(&words, at)?
    };
    if kind == FileKind::Symlink
        && let Some((link, target)) = split_target(name)
    {
        attr.target = Some(target.into());
        name = link;
    }
    (!name.is_empty()).then(|| Found::Entry(Item::new(name, attr, Dialect::Dos)))
}

/// A junction is a link to a directory, made by other means.
fn kind_and_size(word: &[u8]) -> Option<(FileKind, Option<u64>)> {
    let is = |mark: &[u8]| word.eq_ignore_ascii_case(mark);
    if is(b"<DIR>") {
        Some((FileKind::Directory, None))
    } else if is(b"<JUNCTION>") || is(b"<SYMLINK>") || is(b"<SYMLINKD>") {
        Some((FileKind::Symlink, None))
    } else {
        Some((FileKind::File, Some(grouped(word)?)))
    }
}

fn behind_mark<'a>(words: &Words<'a>, at: usize) -> Option<&'a [u8]> {
    let (start, end) = words.span(at)?;
    let rest = words.after(at)?;
    let blanks = MARK.saturating_sub(end - start);
    match rest.split_at_checked(blanks) {
        Some((gap, name)) if gap.iter().all(|b| *b == b' ') => Some(name),
        _ => Some(trim_start(rest)),
    }
}

/// `link [C:\target]`.
fn split_target(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = name.strip_suffix(b"]")?;
    let open = inner.windows(2).position(|pair| pair == b" [")?;
    Some((inner.get(..open)?, inner.get(open + 2..)?))
}

/// What `dir` prints around the files.
fn is_frame(line: &[u8]) -> bool {
    let heading = [
        &b"volume in drive"[..],
        b"volume serial number",
        b"directory of ",
    ];
    if heading.iter().any(|text| begins(line, text)) {
        return true;
    }
    let words = Words::of(line);
    let counts = |word: &[u8]| begins(word, b"file(s)") || begins(word, b"dir(s)");
    words.get(0).and_then(grouped).is_some() && words.get(1).is_some_and(counts)
}
