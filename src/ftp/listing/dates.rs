//! Dates and times of day as listings print them, word by word.

use super::calendar::{Stamp, TimeOfDay, nanos};
use super::months;
use super::words::{number, split_digits};

/// Longest word that can be part of a date, in bytes.
pub(super) const LONGEST: usize = 32;

/// Which of two small numbers of a date is the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    MonthFirst,
    DayFirst,
}

/// What the numeric dates of a listing tell of their order.
///
/// `04/05/24` alone is a riddle; `27/04/24` further down solves it. So the order is assumed until
/// one is proven, and if they differ, the listing is read once more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    /// What an earlier reading of the listing proved.
    known: Option<Order>,
    proven: [bool; 2],
    assumed: [bool; 2],
}

impl Orders {
    pub(super) fn knowing(known: Option<Order>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// What a second reading should know: an order that contradicts what was assumed.
    pub(super) const fn contradiction(&self) -> Option<Order> {
        match (self.proven, self.assumed) {
            ([true, false], [_, true]) => Some(Order::MonthFirst),
            ([false, true], [true, _]) => Some(Order::DayFirst),
            _ => self.known,
        }
    }

    /// Month and day of the numbers `a` and `b`; `usual` where nothing tells.
    pub(super) fn month_and_day(&mut self, a: u32, b: u32, usual: Order) -> (u32, u32) {
        let [month_first, day_first] = &mut self.proven;
        if a > 12 {
            *day_first = true;
            return (b, a);
        }
        if b > 12 {
            *month_first = true;
            return (a, b);
        }
        let order = self.known.unwrap_or(usual);
        let [month_first, day_first] = &mut self.assumed;
        match order {
            Order::MonthFirst => {
                *month_first |= a != b;
                (a, b)
            }
            Order::DayFirst => {
                *day_first |= a != b;
                (b, a)
            }
        }
    }
}

/// A date without its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Date {
    pub(super) year: Option<i64>,
    pub(super) month: u32,
    pub(super) day: u32,
}

impl Date {
    pub(super) const fn at(self, time: Option<TimeOfDay>) -> Stamp {
        Stamp {
            year: self.year,
            month: self.month,
            day: self.day,
            time,
            zone: None,
        }
    }
}

/// A number of one or two digits.
pub(super) fn small(word: &[u8]) -> Option<u32> {
    let value = number(word).filter(|_| word.len() <= 2)?;
    u32::try_from(value).ok()
}

/// A day of the month, unmarked.
pub(super) fn day(word: &[u8]) -> Option<u32> {
    small(word).filter(|day| (1..=31).contains(day))
}

/// A year of two, three or four digits. Three are years since 1900, as servers print them that
/// were written before 2000.
pub(super) fn short_year(word: &[u8]) -> Option<i64> {
    let value = i64::try_from(number(word)?).ok()?;
    match word.len() {
        2 if value < 70 => Some(2000 + value),
        2 | 3 => Some(1900 + value),
        4 => Some(value),
        _ => None,
    }
}

/// A year of four digits.
pub(super) fn year(word: &[u8]) -> Option<i64> {
    let value = i64::try_from(number(word)?).ok()?;
    (word.len() == 4 && (1900..3000).contains(&value)).then_some(value)
}

/// A date in one word: `04-27-00`, `27.04.2000`, `2000/04/27`, `27-Apr-2000`, `Apr-27-2000`.
pub(super) fn one_word(word: &[u8], orders: &mut Orders, usual: Order) -> Option<Date> {
    if word.len() > LONGEST {
        return None;
    }
    let mark = *word.iter().find(|b| matches!(b, b'-' | b'/' | b'.'))?;
    let mut parts = word.split(|b| *b == mark);
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some_and(|rest| !rest.is_empty()) {
        return None;
    }
    let (year, (month, day)) = if let Some(year) = year(a) {
        let (month, day) = match (small(b), small(c)?) {
            (None, day) => (months::month(b)?, day),
            // Some print the year first and the day second.
            (Some(month), day) if month > 12 => (day, month),
            (Some(month), day) => (month, day),
        };
        (year, (month, day))
    } else if let (Some(a), Some(b)) = (small(a), small(b)) {
        // Dots are only ever put behind the day.
        let pair = if mark == b'.' {
            (b, a)
        } else {
            orders.month_and_day(a, b, usual)
        };
        (short_year(c)?, pair)
    } else if let Some(day) = small(a) {
        (short_year(c)?, (months::month(b)?, day))
    } else {
        (short_year(c)?, (months::month(a)?, small(b)?))
    };
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day);
    valid.then_some(Date {
        year: Some(year),
        month,
        day,
    })
}

/// A time of day: `9:05`, `09:05:59`, `09:05:59.123`, `09:05PM`, `09:05p`.
pub(super) fn time_of_day(word: &[u8]) -> Option<TimeOfDay> {
    if word.len() > LONGEST {
        return None;
    }
    let (word, afternoon) = match meridiem(word) {
        Some((rest, afternoon)) => (rest, Some(afternoon)),
        None => (word, None),
    };
    let mut parts = word.split(|b| *b == b':');
    let mut hour = small(parts.next()?)?;
    let minute_word = parts.next()?;
    let minute = small(minute_word).filter(|_| minute_word.len() == 2)?;
    let (second, fraction) = match parts.next() {
        None => (None, &[][..]),
        Some(word) => {
            let (whole, rest) = split_digits(word);
            let fraction = match rest.split_first() {
                None => &[][..],
                Some((b'.' | b',', digits)) => digits,
                Some(_) => return None,
            };
            (Some(small(whole)?), fraction)
        }
    };
    if parts.next().is_some() || minute > 59 || second.is_some_and(|s| s > 60) {
        return None;
    }
    match afternoon {
        Some(_) if !(1..=12).contains(&hour) => return None,
        Some(afternoon) => hour = hour % 12 + if afternoon { 12 } else { 0 },
        None if hour > 24 => return None,
        None => {}
    }
    Some(TimeOfDay {
        hour,
        minute,
        second,
        nanos: nanos(fraction)?,
    })
}

/// What stands before `am`, `a` (false) or `pm`, `p` (true).
fn meridiem(word: &[u8]) -> Option<(&[u8], bool)> {
    let word = match word.split_last() {
        Some((b'm' | b'M', rest)) => rest,
        _ => word,
    };
    match word.split_last()? {
        (b'a' | b'A', rest) => Some((rest, false)),
        (b'p' | b'P', rest) => Some((rest, true)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_one_word() {
        let read = |text: &str| {
            let mut orders = Orders::default();
            one_word(text.as_bytes(), &mut orders, Order::MonthFirst)
                .map(|d| (d.year.unwrap(), d.month, d.day))
        };
        for text in [
            "04-27-00",
            "27-04-2000",
            "4/27/2000",
            "27.4.00",
            "2000/04/27",
        ] {
            assert_eq!(read(text), Some((2000, 4, 27)), "{text}");
        }
        for text in [
            "27-Apr-00",
            "Apr-27-2000",
            "2000-27-04",
            "2000.04.27.",
            "04-27-100",
        ] {
            assert_eq!(read(text), Some((2000, 4, 27)), "{text}");
        }
        assert_eq!(read("07-14-99"), Some((1999, 7, 14)));
        assert_eq!(read("2-Jul-2003"), Some((2003, 7, 2)));
        for bad in [
            "", "4", "4-27", "13-32-00", "a-b-c", "1-2-3-4", "00-00-00", "1.2.3",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_of_day() {
        let read = |text: &str| {
            time_of_day(text.as_bytes()).map(|t| (t.hour, t.minute, t.second, t.nanos))
        };
        assert_eq!(read("9:05"), Some((9, 5, None, 0)));
        assert_eq!(read("24:00"), Some((24, 0, None, 0)));
        assert_eq!(read("12:09AM"), Some((0, 9, None, 0)));
        assert_eq!(read("12:09pm"), Some((12, 9, None, 0)));
        assert_eq!(read("03:47p"), Some((15, 47, None, 0)));
        assert_eq!(read("10:30:08.59"), Some((10, 30, Some(8), 590_000_000)));
        for bad in [
            "",
            ":",
            "9:5",
            "25:00",
            "9:60",
            "9:05:61",
            "13:00PM",
            "9:05x",
            "9:05:06:07",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_proven_order_wins_over_the_usual_one() {
        let mut orders = Orders::default();
        let ambiguous = one_word(b"04/05/2000", &mut orders, Order::MonthFirst).unwrap();
        assert_eq!((ambiguous.month, ambiguous.day), (4, 5));
        assert_eq!(orders.contradiction(), None);
        one_word(b"27/04/2000", &mut orders, Order::MonthFirst).unwrap();
        assert_eq!(orders.contradiction(), Some(Order::DayFirst));
        let mut orders = Orders::knowing(orders.contradiction());
        let solved = one_word(b"04/05/2000", &mut orders, Order::MonthFirst).unwrap();
        assert_eq!((solved.month, solved.day), (5, 4));
    }
}
