//! z/OS: datasets, members of a library, jobs.
//!
//! Their columns make sense only under their headings, so a heading decides how the lines below
//! it are read. Sizes are told in tracks and records, never in bytes.

use super::dates::{Order, one_word, time_of_day};
use super::words::{Words, begins, number, text};
use super::{Context, Dialect, Found, Item};
use crate::vfs::attr::{Attr, FileKind};

/// `Volume Unit    Referred Ext Used Recfm Lrecl BlkSz Dsorg Dsname` and the lines below it. The
/// date is that of the last use, which is no modification.
pub(super) fn parse_dataset<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let first = words.get(0)?;
    if first == b"Volume" && words.get(1) == Some(b"Unit") {
        return Some(Found::Heading(Dialect::MvsDatasets));
    }
    let name = words.get(words.len().checked_sub(1)?)?;
    let organization = words.get(words.len().checked_sub(2)?)?;
    // A volume, or the first word of "Migrated", "Pseudo Directory", "User catalog connector".
    let is_start = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    if !first.first().is_some_and(is_start) || !is_name(name, b"@#$-{}.'_") {
        return None;
    }
    let kind = match organization {
        b"PO" | b"PO-E" | b"POU" => FileKind::Directory,
        _ if begins(line, b"Pseudo Directory") => FileKind::Directory,
        _ => FileKind::File,
    };
    let headed = cx.dialect == Dialect::MvsDatasets;
    (headed || is_dataset(&words, organization))
        .then(|| Found::Entry(Item::new(name, Attr::new(kind), Dialect::MvsDatasets)))
}

/// Whether a line is one of datasets even without a heading.
fn is_dataset(words: &Words<'_>, organization: &[u8]) -> bool {
    let organized = matches!(
        organization,
        b"PS" | b"PSU" | b"PO" | b"PO-E" | b"POU" | b"DA" | b"VS" | b"VSAM" | b"IS" | b"HFS"
    );
    let unit = words.get(1).unwrap_or_default();
    match words.len() {
        2 => words.get(0) == Some(b"Migrated"),
        3 => unit == b"Tape" || (organization == b"VSAM" && number(unit).is_some()),
        8..=10 => organized && words.get(2).is_some_and(is_reference),
        _ => false,
    }
}

fn is_reference(word: &[u8]) -> bool {
    let date = word.len() == 10 && word.iter().filter(|b| **b == b'/').count() == 2;
    date || word == b"**NONE**"
}

/// Capitals, digits and `others`.
fn is_name(word: &[u8], others: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || others.contains(b);
    word.iter().all(plain)
}

/// ` Name     VV.MM   Created       Changed      Size  Init   Mod   Id` and the lines below it;
/// those of programs and of members without statistics too.
pub(super) fn parse_member<'a>(line: &'a [u8], cx: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let name = words.get(0)?;
    let second = words.get(1);
    if name == b"Name" && second.is_some_and(|word| word == b"VV.MM" || word == b"Size") {
        return Some(Found::Heading(Dialect::MvsMembers));
    }
    if !is_name(name, b"@#$") {
        return None;
    }
    let mut attr = Attr::new(FileKind::File);
    let is_version = |word: &[u8]| matches!(word, [a, b, b'.', c, d] if [a, b, c, d].iter().all(|x| x.is_ascii_digit()));
    if second.is_some_and(is_version) {
        let date = one_word(words.get(3)?, &mut cx.orders, Order::MonthFirst)?;
        let time = words.get(4).and_then(time_of_day);
        cx.set_time(&mut attr, &date.at(time));
        attr.owner = words.get(if time.is_some() { 8 } else { 7 }).map(text);
    } else if cx.dialect != Dialect::MvsMembers || name.len() > 8 {
        return None;
    }
    Some(Found::Entry(Item::new(name, attr, Dialect::MvsMembers)))
}

/// `JOBNAME JOBID OWNER STATUS CLASS`: a job is fetched by its id. The older form has no owner and
/// no heading.
pub(super) fn parse_job<'a>(line: &'a [u8], _: &mut Context) -> Option<Found<'a>> {
    let words = Words::of(line);
    let id = words.get(1)?;
    if words.get(0) == Some(b"JOBNAME") && id == b"JOBID" {
        return Some(Found::Heading(Dialect::MvsJobs));
    }
    let digits = id.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let is_id = matches!(id.first(), Some(b'J' | b'T' | b'S')) && digits >= 4 && id.len() <= 8;
    let is_status = |word: &[u8]| {
        matches!(
            word,
            b"INPUT" | b"ACTIVE" | b"OUTPUT" | b"HELD" | b"-INPUT-" | b"-OUTPUT-"
        )
    };
    if !is_id {
        return None;
    }
    let mut attr = Attr::new(FileKind::File);
    if !words.get(2).is_some_and(is_status) {
        words.get(3).filter(|word| is_status(word))?;
        attr.owner = words.get(2).map(text);
    }
    Some(Found::Entry(Item::new(id, attr, Dialect::MvsJobs)))
}
