//! The date column of `ls -l`, in all the forms that locales and time styles give it.

use super::calendar::{Stamp, TimeOfDay};
use super::dates::{Date, LONGEST, Order, Orders, day, one_word, small, time_of_day, year};
use super::months;
use super::words::{Words, number, split_digits};

/// The date column of a Unix listing, and where it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) stamp: Stamp,
    /// The first word behind it.
    pub(super) next: usize,
    /// Whether the column may be padded at its end, so that blanks before the name mean nothing.
    pub(super) padded: bool,
}

impl Column {
    const fn new(stamp: Stamp, next: usize) -> Self {
        Self {
            stamp,
            next,
            padded: false,
        }
    }
}

/// Reads the date column that begins with word `i` of `words`.
///
/// With `any_month` a word that is no month in any language we know is taken for one, and the
/// month of the stamp is 0: better a file without a time than no file.
pub(super) fn read(
    words: &Words<'_>,
    i: usize,
    any_month: bool,
    orders: &mut Orders,
) -> Option<Column> {
    let first = words.get(i).filter(|word| word.len() <= LONGEST)?;
    if !any_month {
        if let Some(date) = one_word(first, orders, Order::DayFirst) {
            return Some(with_time(words, i + 1, date));
        }
        if let Some(column) = two_numbers(words, i, orders) {
            return Some(column);
        }
        if let Some(column) = year_first(words, i) {
            return Some(column);
        }
    }
    with_month_name(words, i, any_month)
}

/// A complete date with the time, and perhaps the zone, behind it.
fn with_time(words: &Words<'_>, at: usize, date: Date) -> Column {
    let Some(time) = words.get(at).and_then(time_of_day) else {
        return Column {
            stamp: date.at(None),
            next: at,
            padded: true,
        };
    };
    let mut column = Column::new(date.at(Some(time)), at + 1);
    // `ls --full-time` prints the zone behind the seconds.
    if time.second.is_some()
        && let Some(zone) = words.get(at + 1).and_then(zone)
    {
        column.stamp.zone = Some(zone);
        column.next = at + 2;
    }
    column
}

/// `+0100` in seconds.
fn zone(word: &[u8]) -> Option<i64> {
    let (sign, digits) = word.split_first()?;
    let value = i64::try_from(number(digits).filter(|_| digits.len() == 4)?).ok()?;
    let secs = (value / 100 * 60 + value % 100) * 60;
    match sign {
        b'+' => Some(secs),
        b'-' => Some(-secs),
        _ => None,
    }
}

/// What follows day and month: a time, or a year.
enum Tail {
    Time(TimeOfDay),
    Year(i64),
}

fn tail(word: &[u8]) -> Option<Tail> {
    let (digits, rest) = split_digits(word);
    if rest.is_empty() || is_foreign(rest) {
        return year(digits).map(Tail::Year);
    }
    if let Some(time) = time_of_day(word) {
        return Some(Tail::Time(time));
    }
    // Finnish and some other locales: 12.30
    let (hour, minute) = (small(digits)?, rest.strip_prefix(b".")?);
    let minute = small(minute).filter(|m| minute.len() == 2 && *m < 60)?;
    (hour < 24).then_some(Tail::Time(TimeOfDay {
        hour,
        minute,
        ..TimeOfDay::default()
    }))
}

/// Whether a number is followed by the character for "year", "month" or "day" in some charset.
fn is_foreign(suffix: &[u8]) -> bool {
    suffix.first().is_some_and(|b| !b.is_ascii()) && suffix.len() <= 4
}

/// A day with `.`, `,` or a foreign character behind it.
fn marked_day(word: &[u8]) -> Option<u32> {
    let (digits, mark) = split_digits(word);
    let day = day(digits)?;
    (matches!(mark, b"" | b"." | b"," | b".,") || is_foreign(mark)).then_some(day)
}

/// A month as a number with a foreign character behind it.
fn marked_month(word: &[u8]) -> Option<u32> {
    let (digits, mark) = split_digits(word);
    small(digits).filter(|month| is_foreign(mark) && (1..=12).contains(month))
}

/// `Jan 31 12:00`, `31 Jan 2024`, `31. Jan., 12:00`, `Jan 31 12:00:59 2024`,
/// `Jan 31, 2024 12:00`, `1月 31 12:00`, `1 31 12:00`.
fn with_month_name(words: &Words<'_>, i: usize, any_month: bool) -> Option<Column> {
    let (a, b) = (words.get(i)?, words.get(i + 1)?);
    if b.len() > LONGEST {
        return None;
    }
    let tail = tail(words.get(i + 2)?)?;
    let numeric =
        |word: &[u8]| small(word).filter(|m| matches!(tail, Tail::Time(_)) && (1..=12).contains(m));
    let named = |word: &[u8]| {
        if any_month {
            let digits = word.iter().any(u8::is_ascii_digit);
            return (word.len() >= 2 && !digits).then_some(0);
        }
        months::month(word)
            .or_else(|| marked_month(word))
            .or_else(|| numeric(word))
    };
    let (month, day, day_word) = if let Some((day, month)) = marked_day(b).zip(named(a)) {
        (month, day, b)
    } else {
        (named(b)?, marked_day(a)?, a)
    };
    let mut date = Date {
        year: None,
        month,
        day,
    };
    let behind = words.get(i + 3);
    Some(match tail {
        Tail::Time(time) => {
            // BSD's `ls -T` prints seconds, then the year.
            let year = behind.filter(|_| time.second.is_some()).and_then(year);
            date.year = year;
            Column::new(date.at(Some(time)), i + 3 + usize::from(year.is_some()))
        }
        Tail::Year(year) => {
            date.year = Some(year);
            // VShell prints a comma behind the day, and both year and time.
            let time = behind.filter(|_| day_word.ends_with(b","));
            let time = time.and_then(time_of_day);
            Column::new(date.at(time), i + 3 + usize::from(time.is_some()))
        }
    })
}

/// `09-26 2000`, `09-26 13:45`, as `ls --time-style=iso` has it.
fn two_numbers(words: &Words<'_>, i: usize, orders: &mut Orders) -> Option<Column> {
    let (a, rest) = split_digits(words.get(i)?);
    let (mark, b) = rest.split_first()?;
    if !matches!(mark, b'-' | b'/') {
        return None;
    }
    let (a, b) = (day(a)?, day(b)?);
    let tail = tail(words.get(i + 1)?)?;
    let (month, day) = orders.month_and_day(a, b, Order::MonthFirst);
    if month > 12 {
        return None;
    }
    let date = |year| Date { year, month, day };
    let stamp = match tail {
        Tail::Time(time) => date(None).at(Some(time)),
        Tail::Year(year) => date(Some(year)).at(None),
    };
    Some(Column::new(stamp, i + 2))
}

/// `2003年 3月 20日`. A bare number before month, day and time is a size.
fn year_first(words: &Words<'_>, i: usize) -> Option<Column> {
    let (digits, mark) = split_digits(words.get(i)?);
    let year = year(digits).filter(|_| mark.is_empty() || is_foreign(mark))?;
    let month = marked_month(words.get(i + 1)?)?;
    let day = marked_day(words.get(i + 2)?)?;
    if mark.is_empty() && words.get(i + 3).and_then(tail).is_some() {
        return None;
    }
    let date = Date {
        year: Some(year),
        month,
        day,
    };
    Some(Column::new(date.at(None), i + 3))
}
