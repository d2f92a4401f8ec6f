//! Time: the proleptic Gregorian calendar, the time-val of RFC 3659 section 2.3, and what a
//! listing's date means in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::words::number;

const DAY: i64 = 86_400;

/// Days from 1970-01-01 to a date (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    // The year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`]: year, month, day.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

const fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The moment `secs` and `nanos` after the epoch.
pub(super) fn moment(secs: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let base = if secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base?.checked_add(Duration::from_nanos(nanos.into()))
}

/// Whole seconds since the epoch, rounded down.
fn seconds(time: SystemTime) -> i64 {
    let signed = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => signed(after),
        Err(before) => {
            let before = before.duration();
            -signed(before) - i64::from(before.subsec_nanos() > 0)
        }
    }
}

/// The time of day as it is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TimeOfDay {
    pub(super) hour: u32,
    pub(super) minute: u32,
    /// `None` where only minutes are shown.
    pub(super) second: Option<u32>,
    pub(super) nanos: u32,
}

/// A date as it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// `None` where the year is not shown.
    pub(super) year: Option<i64>,
    /// 1 to 12, or 0 for a month in a language we do not know.
    pub(super) month: u32,
    pub(super) day: u32,
    pub(super) time: Option<TimeOfDay>,
    /// Seconds ahead of UTC, where the line tells.
    pub(super) zone: Option<i64>,
}

impl Stamp {
    /// Whether seconds are shown.
    pub(super) fn is_exact(&self) -> bool {
        self.time.is_some_and(|time| time.second.is_some())
    }

    /// Seconds since the epoch on the printing clock; `None` if there is no such date.
    fn in_year(&self, year: i64) -> Option<i64> {
        let time = self.time.unwrap_or_default();
        let second = time.second.unwrap_or(0);
        // Midnight is 24:00 of the day before on some servers; a leap second is 60.
        let of_day = time.hour * 3600 + time.minute * 60 + second;
        let valid = (1..=12).contains(&self.month)
            && (1..=days_in_month(year, self.month)).contains(&self.day)
            && time.minute < 60
            && second <= 60
            && i64::from(of_day) <= DAY;
        valid.then(|| days_from_civil(year, self.month, self.day) * DAY + i64::from(of_day))
    }
}

/// What turns a printed date into UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    now: i64,
    offset: i64,
}

impl Clock {
    /// `offset` is what the server's printed times are ahead of UTC, in seconds.
    pub(super) fn new(now: SystemTime, offset: i64) -> Self {
        // No zone is a day away from UTC; the bound keeps sums from overflowing.
        Self {
            now: seconds(now),
            offset: offset.clamp(-DAY, DAY),
        }
    }

    /// The moment of `stamp`; `None` if there is no such date.
    pub(super) fn utc(&self, stamp: &Stamp) -> Option<SystemTime> {
        let year = stamp.year.or_else(|| self.year_of(stamp))?;
        let local = stamp.in_year(year)?;
        let ahead = stamp.zone.unwrap_or(self.offset);
        moment(
            local.checked_sub(ahead)?,
            stamp.time.map_or(0, |time| time.nanos),
        )
    }

    /// The last year in which a date without one is not in the future. One day's grace is for a
    /// clock that is ahead of ours; the way back is long because a February 29 without a year may
    /// be from the other side of 1900 or 2100.
    fn year_of(&self, stamp: &Stamp) -> Option<i64> {
        let here = self.now.saturating_add(self.offset);
        let (this_year, _, _) = civil_from_days(here.div_euclid(DAY));
        (0..=9).map(|back| this_year + 1 - back).find(|year| {
            stamp
                .in_year(*year)
                .is_some_and(|then| then <= here.saturating_add(DAY))
        })
    }
}

/// Reads a time-val, `YYYYMMDDHHMMSS[.F+]`, always UTC (RFC 3659 section 2.3). Also without
/// seconds, without a time (8 digits), and `19103…` for 2003, which servers print that count
/// years from 1900.
#[must_use]
pub fn parse_time(text: &[u8]) -> Option<SystemTime> {
    let text = text.trim_ascii();
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &[][..]),
    };
    let (year, rest) = if whole.len() == 15 && whole.starts_with(b"19") {
        (1900 + number(whole.get(2..5)?)?, whole.get(5..)?)
    } else {
        (number(whole.get(..4)?)?, whole.get(4..)?)
    };
    let field = |at: usize| u32::try_from(number(rest.get(at..at + 2)?)?).ok();
    let time = match rest.len() {
        4 => None,
        8 | 10 => Some(TimeOfDay {
            hour: field(4).filter(|hour| *hour < 24)?,
            minute: field(6)?,
            second: Some(if rest.len() == 10 { field(8)? } else { 0 }),
            nanos: nanos(fraction)?,
        }),
        _ => return None,
    };
    let stamp = Stamp {
        year: i64::try_from(year).ok(),
        month: field(0)?,
        day: field(2)?,
        time,
        zone: Some(0),
    };
    Clock { now: 0, offset: 0 }.utc(&stamp)
}

/// Nanoseconds of the digits behind a decimal point, as many as there are.
pub(super) fn nanos(fraction: &[u8]) -> Option<u32> {
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().map(|b| u32::from(b - b'0'));
    let sum = digits.chain(std::iter::repeat(0)).take(9);
    Some(sum.fold(0, |sum, digit| sum * 10 + digit))
}

/// Prints a time-val for `MFMT`, `MDTM` and `SITE UTIME`: whole seconds, UTC, years 0 to 9999.
#[must_use]
pub fn format_time(time: SystemTime) -> String {
    let (first, last) = (
        days_from_civil(0, 1, 1) * DAY,
        days_from_civil(10_000, 1, 1) * DAY - 1,
    );
    let secs = seconds(time).clamp(first, last);
    let (year, month, day) = civil_from_days(secs.div_euclid(DAY));
    let of_day = secs.rem_euclid(DAY);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_agrees_with_itself_and_with_known_days() {
        for (year, month, day, days) in [
            (1970, 1, 1, 0),
            (1969, 12, 31, -1),
            (2000, 2, 29, 11_016),
            (2024, 3, 1, 19_783),
            (1600, 3, 1, -135_080),
        ] {
            assert_eq!(days_from_civil(year, month, day), days);
        }
        let mut expected = (1899, 12, 31);
        for days in -25_567..60_000 {
            let (year, month, day) = civil_from_days(days);
            let next_day = (expected.0, expected.1, expected.2 + 1);
            let next_month = (expected.0, expected.1 + 1, 1);
            let next_year = (expected.0 + 1, 1, 1);
            assert!([next_day, next_month, next_year].contains(&(year, month, day)));
            let (month, day) = (u32::try_from(month).unwrap(), u32::try_from(day).unwrap());
            assert!(day <= days_in_month(year, month));
            assert_eq!(days_from_civil(year, month, day), days);
            expected = civil_from_days(days);
        }
    }

    fn secs(text: &str) -> Option<i64> {
        parse_time(text.as_bytes()).map(seconds)
    }

    #[test]
    fn time_vals() {
        assert_eq!(secs("19700101000000"), Some(0));
        assert_eq!(secs("20240131120000"), Some(1_706_702_400));
        assert_eq!(secs(" 20240131120000\r\n"), Some(1_706_702_400));
        assert_eq!(secs("20240131"), Some(1_706_659_200));
        assert_eq!(secs("202401311200"), Some(1_706_702_400));
        assert_eq!(secs("191030131120000"), secs("20030131120000"));
        assert_eq!(secs("19681105165215"), Some(-36_400_065));
        assert_eq!(secs("20161231235960"), secs("20170101000000"));
        let half = parse_time(b"20240131120000.5").unwrap();
        assert_eq!(
            half.duration_since(UNIX_EPOCH).unwrap().subsec_millis(),
            500
        );
        assert_eq!(
            parse_time(b"20240131120000.1234567891"),
            moment(1_706_702_400, 123_456_789)
        );
        for bad in [
            "",
            "2024",
            "20241331120000",
            "20230229120000",
            "20240131240000",
            "20240131126000",
            "2024013112000x",
            "20240131120000.x",
            "-2024013112000",
            "99999999999999999999",
        ] {
            assert_eq!(secs(bad), None, "{bad}");
        }
    }

    #[test]
    fn format_is_the_inverse_of_parse() {
        for text in ["19700101000000", "20240229235959", "19001231000001"] {
            assert_eq!(format_time(parse_time(text.as_bytes()).unwrap()), text);
        }
        assert_eq!(
            format_time(UNIX_EPOCH - Duration::from_millis(1)),
            "19691231235959"
        );
        assert_eq!(
            format_time(moment(i64::MAX / 2, 0).unwrap()),
            "99991231235959"
        );
    }

    fn guess(now: &str, month: u32, day: u32, hour: u32) -> String {
        let clock = Clock::new(parse_time(now.as_bytes()).unwrap(), 0);
        let time = TimeOfDay {
            hour,
            ..TimeOfDay::default()
        };
        let stamp = Stamp {
            year: None,
            month,
            day,
            time: Some(time),
            zone: None,
        };
        format_time(clock.utc(&stamp).unwrap())
    }

    #[test]
    fn a_date_without_a_year_is_the_last_one_up_to_tomorrow() {
        assert_eq!(guess("20240615120000", 6, 15, 11), "20240615110000");
        assert_eq!(guess("20240615120000", 6, 16, 11), "20240616110000");
        assert_eq!(guess("20240615120000", 6, 16, 13), "20230616130000");
        assert_eq!(guess("20240615120000", 12, 31, 0), "20231231000000");
        assert_eq!(guess("20241231233000", 1, 1, 0), "20250101000000");
        assert_eq!(guess("20230115120000", 2, 29, 1), "20200229010000");
        assert_eq!(guess("19030101000000", 2, 29, 1), "18960229010000");
        assert_eq!(guess("20240615120000", 4, 4, 24), "20240405000000");
    }
}
