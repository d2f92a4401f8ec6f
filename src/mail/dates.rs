//! Times as people write them into `X-Send-At` and `outbox/at/`, and as a header has them.

use std::time::SystemTime;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

use crate::vfs::error::{Error, ErrorKind, Result};

/// Nobody means a later time.
const FURTHEST: SignedDuration = SignedDuration::from_hours(24 * 366 * 10);

/// The time `text` means, seen from `now` and in its zone:
///
/// * `2026-12-01 09:00`, `2026-12-01T09:00:30`, `2026-12-01` (its first moment)
/// * `2026-12-01T09:00:00+01:00` and the rest of RFC 3339; `2026-12-01T09:00[Europe/Berlin]`
/// * `Tue, 1 Dec 2026 09:00:00 +0100` (RFC 5322)
/// * `+90s`, `+30m`, `+2h`, `+1d12h`, `+1w`; days have 24 hours
/// * `09:00`: the next time that the clock shows this
///
/// A time in the past is a time; what to do then is the caller's to decide.
///
/// # Errors
/// [`ErrorKind::BadMessage`] for everything else, and for more than ten years ahead.
pub fn parse(text: &str, now: &ZonedDateTime) -> Result<SystemTime> {
    let text = text.trim();
    let time = relative(text, now)
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| {
            jiff::fmt::rfc2822::parse(text)
                .ok()
                .map(|time| time.timestamp())
        })
        .or_else(|| {
            let zoned = text.parse::<ZonedDateTime>().ok();
            zoned.map(|time| time.timestamp())
        })
        // A zone that is not known, or has no date, would be passed over from here on.
        .or_else(|| local(text, now).filter(|_| !text.contains('[')));
    time.filter(|time| time.duration_since(now.timestamp()) <= FURTHEST)
        .and_then(|time| SystemTime::try_from(time).ok())
        .ok_or_else(|| {
            let shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
            let hint = "such as 2026-12-01 09:00, 09:00 or +2h";
            Error::new(
                ErrorKind::BadMessage,
                format!("\"{shown}\" is not a time {hint}"),
            )
        })
}

/// The time of a date, of a clock, or of both, in the zone of `now`.
fn local(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let zone = now.time_zone();
    text.parse::<DateTime>()
        .ok()
        .and_then(|local| at(local, zone))
        .or_else(|| {
            text.parse::<Date>()
                .ok()
                .and_then(|date| at(date.at(0, 0, 0, 0), zone))
        })
        .or_else(|| next(text, now).filter(|_| !text.contains(['+', '-'])))
}

/// In a gap of the clock the later time, in a fold the earlier: what everybody does.
fn at(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(local).ok()
}

fn relative(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let mut rest = text.strip_prefix('+')?;
    let mut seconds = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.bytes().next()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 7 * 86_400,
            _ => return None,
        };
        let more = number.parse::<i64>().ok()?.checked_mul(unit)?;
        seconds = seconds.checked_add(more)?;
        rest = tail.get(1..)?;
    }
    if text.len() < 3 {
        return None;
    }
    now.timestamp()
        .checked_add(SignedDuration::from_secs(seconds))
        .ok()
}

fn next(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let time: Time = text.parse().ok()?;
    let today = at(now.date().to_datetime(time), now.time_zone())?;
    if today > now.timestamp() {
        return Some(today);
    }
    at(
        now.date().tomorrow().ok()?.to_datetime(time),
        now.time_zone(),
    )
}

/// `now` for a `Date` field, with the offset of its zone (RFC 5322 section 3.3).
#[must_use]
pub fn header(now: &ZonedDateTime) -> String {
    // The year is within four digits, or it could not be a `now`.
    jiff::fmt::rfc2822::to_string(now).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn berlin(text: &str) -> ZonedDateTime {
        text.parse::<DateTime>()
            .unwrap()
            .to_zoned_datetime(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
            .unwrap()
    }

    fn parsed(text: &str) -> String {
        let now = berlin("2026-11-23T13:30");
        let time = parse(text, &now).unwrap();
        ZonedDateTime::try_from(time)
            .unwrap()
            .with_time_zone(TimeZone::UTC)
            .strftime("%F %T")
            .to_string()
    }

    #[test]
    fn times_as_people_write_them() {
        for (text, utc) in [
            ("2026-12-01 09:00", "2026-12-01 08:00:00"),
            (" 2026-12-01T09:00 ", "2026-12-01 08:00:00"),
            ("2026-12-01T09:00:30", "2026-12-01 08:00:30"),
            ("2026-12-01", "2026-11-30 23:00:00"),
            ("2026-07-01 09:00", "2026-07-01 07:00:00"),
            ("2026-12-01T09:00:00+05:30", "2026-12-01 03:30:00"),
            ("2026-12-01 09:00:00Z", "2026-12-01 09:00:00"),
            ("Tue, 1 Dec 2026 09:00:00 -0500", "2026-12-01 14:00:00"),
            ("1 Dec 2026 09:00:00 +0000", "2026-12-01 09:00:00"),
            ("2026-12-01T09:00[America/New_York]", "2026-12-01 14:00:00"),
            ("2026-12-01[America/New_York]", "2026-12-01 05:00:00"),
            ("+90s", "2026-11-23 12:31:30"),
            ("+2h", "2026-11-23 14:30:00"),
            ("+1d12h", "2026-11-25 00:30:00"),
            ("+1w", "2026-11-30 12:30:00"),
            ("14:00", "2026-11-23 13:00:00"),
            ("13:30", "2026-11-24 12:30:00"),
            ("09:00", "2026-11-24 08:00:00"),
            // The clock has no 02:30 that night.
            ("2027-03-28 02:30", "2027-03-28 01:30:00"),
        ] {
            assert_eq!(parsed(text), utc, "{text}");
        }
    }

    #[test]
    fn everything_else_is_no_time() {
        let now = berlin("2026-11-23T13:30");
        for bad in [
            "",
            "+",
            "+h",
            "+2",
            "+2x",
            "soon",
            "25:00",
            "2026-13-01 09:00",
            "2026-02-30",
            "+99999999999999999999h",
            "+9999999999999999h",
            "2099-01-01 00:00",
            "9999-12-31T23:59:59Z",
            "-2h",
            "+2h extra",
            // Not nine o'clock here.
            "09:00-05:00",
            "09:00+0100",
            "09:00[America/New_York]",
            "2026-12-01T09:00[Nowhere/Atall]",
        ] {
            assert_eq!(
                parse(bad, &now).unwrap_err().kind(),
                ErrorKind::BadMessage,
                "{bad}"
            );
        }
    }

    #[test]
    fn the_date_field_has_the_local_offset() {
        assert_eq!(
            header(&berlin("2026-11-23T13:30:05")),
            "Mon, 23 Nov 2026 13:30:05 +0100"
        );
        assert_eq!(
            header(&berlin("2026-07-03T13:30:05")),
            "Fri, 3 Jul 2026 13:30:05 +0200"
        );
    }
}
