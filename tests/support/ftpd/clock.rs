//! Times as FTP writes them, all in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Seconds since 1970, also before.
pub fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap(),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
    }
}

/// The inverse of [`seconds`].
pub fn time(seconds: i64) -> SystemTime {
    if seconds < 0 {
        UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs())
    } else {
        UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
    }
}

/// Year, month (1 to 12), day, hour, minute, second.
fn civil(seconds: i64) -> (i64, usize, i64, i64, i64, i64) {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's days-to-civil: years begin in March, eras have 400 of them.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let month = usize::try_from(month).unwrap();
    (
        year,
        month,
        day,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
    )
}

/// `YYYYMMDDhhmmss` (RFC 3659 section 2.3).
pub fn stamp(time: SystemTime) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds(time));
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The inverse of [`stamp`]; 12 digits lack the seconds.
pub fn parse_stamp(text: &str) -> Option<SystemTime> {
    if !(text.len() == 14 || text.len() == 12) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to).map_or(Some(0), |t| t.parse().ok());
    let (year, month, day): (i64, i64, i64) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let of_day = number(8, 10)? * 3600 + number(10, 12)? * 60 + number(12, 14)?;
    Some(self::time(days * 86_400 + of_day))
}

/// As `ls -l` writes it: without the year for the last half year, without the time before.
pub fn unix(time: SystemTime, offset: i64) -> String {
    let at = seconds(time) + offset;
    let now = seconds(SystemTime::now()) + offset;
    let (year, month, day, hour, minute, _) = civil(at);
    let month = MONTHS[month - 1];
    if at > now || now - at > 182 * 86_400 {
        format!("{month} {day:2}  {year}")
    } else {
        format!("{month} {day:2} {hour:02}:{minute:02}")
    }
}

/// As IIS writes it: `11-23-26  01:05PM`.
pub fn dos(time: SystemTime, offset: i64) -> String {
    let (year, month, day, hour, minute, _) = civil(seconds(time) + offset);
    let (year, half) = (year % 100, if hour < 12 { "AM" } else { "PM" });
    let hour = (hour + 11) % 12 + 1;
    format!("{month:02}-{day:02}-{year:02}  {hour:02}:{minute:02}{half}")
}
