//! Lines of a LIST that belong to no dialect: totals, headings, replies, messages.

use super::Reason;
use super::words::{Words, begins, grouped, split_digits};

/// What `ls` calls the sum of blocks, in the languages of its translations.
const TOTAL: [&str; 22] = [
    "total",
    "totale",
    "totalt",
    "totaal",
    "insgesamt",
    "gesamt",
    "summe",
    "razem",
    "celkem",
    "spolu",
    "yhteensä",
    "összesen",
    "toplam",
    "ukupno",
    "итого",
    "Итого",
    "всего",
    "合計",
    "总计",
    "总用量",
    "總計",
    "합계",
];

/// What a line is that no dialect understands.
pub(super) enum Odd {
    /// It never carries an entry.
    Noise,
    /// `./sub:` as `ls -R` prints it.
    Directory,
    /// An entry is lost, for this reason.
    Lost(Reason),
}

/// `alone` where a blank line, or none at all, goes before.
pub(super) fn classify(line: &[u8], alone: bool) -> Odd {
    if is_total(line) || is_reply(line) || is_rule(line) {
        Odd::Noise
    } else if is_message(line) {
        Odd::Lost(Reason::Message)
    } else if alone && line.ends_with(b":") {
        Odd::Directory
    } else {
        Odd::Lost(Reason::Unrecognized)
    }
}

/// `total 1234`, `insgesamt 12K`.
fn is_total(line: &[u8]) -> bool {
    let words = Words::of(line);
    let is_word = |word: &[u8]| {
        TOTAL
            .iter()
            .any(|t| word.eq_ignore_ascii_case(t.as_bytes()))
    };
    let is_sum = |word: &[u8]| {
        let (digits, unit) = split_digits(word);
        grouped(word).is_some() || (!digits.is_empty() && unit.len() < 5)
    };
    let first = words.get(0).unwrap_or_default();
    let first = first.strip_suffix(b":").unwrap_or(first);
    words.len() == 2 && is_word(first) && words.get(1).is_some_and(is_sum)
}

/// The first and the last line of a STAT reply, with or without its code: `213-Status of /:`,
/// `213-STAT`, `213 End of status`.
fn is_reply(line: &[u8]) -> bool {
    let (code, rest) = split_digits(line);
    match rest.split_first() {
        Some((b'-' | b' ', text)) if code.len() == 3 && code.starts_with(b"2") => {
            begins(text, b"stat") || begins(text, b"end")
        }
        _ => begins(line, b"status of ") || begins(line, b"end of status"),
    }
}

/// `--------` under a heading.
fn is_rule(line: &[u8]) -> bool {
    line.starts_with(b"--") && line.iter().all(|b| matches!(b, b'-' | b' '))
}

/// Programs complain on the data connection too.
fn is_message(line: &[u8]) -> bool {
    let speaker = [
        &b"ls: "[..],
        b"/bin/ls: ",
        b"dir: ",
        b"%RMS-",
        b"%SYSTEM-",
        b"-RMS-",
        b"-SYSTEM-",
    ];
    speaker.iter().any(|name| begins(line, name))
}
