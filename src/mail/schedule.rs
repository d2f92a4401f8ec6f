//! When a message is tried: first, again, and never more.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

/// Attempts that are made however old a message is.
const FEWEST: u32 = 4;

/// The times between attempts. RFC 5321 section 4.5.4.1 asks for two tries in the first hour, then
/// one every two or three hours, for four to five days. The early ones are for greylisting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Waits after the first attempts; the last one is repeated.
    pub waits: Vec<Duration>,
    /// Age at which a message that still cannot be sent is given back.
    pub give_up: Duration,
    /// Age at which the sender is told that it takes long.
    pub delay_report: Duration,
    /// What is done about a message that may or may not have been accepted.
    pub in_doubt: InDoubtPolicy,
}

/// The server had all of a message, and its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InDoubtPolicy {
    /// Send the same bytes with the same Message-ID once more after this time; most receivers know
    /// a duplicate by its Message-ID.
    RetryOnce(Duration),
    /// The user decides.
    Hold,
}

impl Default for Schedule {
    fn default() -> Self {
        let minutes = [1, 5, 15, 30, 60, 120, 180, 240];
        Self {
            waits: minutes.map(|m| Duration::from_secs(m * MINUTE)).to_vec(),
            give_up: Duration::from_secs(5 * 24 * HOUR),
            delay_report: Duration::from_secs(4 * HOUR),
            in_doubt: InDoubtPolicy::RetryOnce(Duration::from_secs(30 * MINUTE)),
        }
    }
}

impl Schedule {
    /// The wait after the attempt number `attempt` (from 1), with up to a tenth more or less.
    #[must_use]
    pub fn wait(&self, attempt: u32) -> Duration {
        let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.waits.get(at).or_else(|| self.waits.last());
        jittered(wait.copied().unwrap_or(Duration::from_secs(HOUR)))
    }

    /// When to try again, in seconds since 1970; `None` to give up. The last attempt is made when
    /// the time is up, not before: a server that was away for a week-end gets its mail. Nor is one
    /// attempt, or a few, all: this machine may have been off, or its clock wrong, for days, and
    /// then the first server it meets puts strangers off (greylisting).
    #[must_use]
    pub fn next(&self, queued_at: u64, attempt: u32, now: u64) -> Option<u64> {
        let end = queued_at.saturating_add(self.give_up.as_secs());
        if now >= end && attempt >= FEWEST {
            return None;
        }
        let due = now.saturating_add(self.wait(attempt).as_secs().max(1));
        Some(if now < end { due.min(end) } else { due })
    }
}

/// A tenth more or less, so that a server that comes back is not met by all at once.
fn jittered(wait: Duration) -> Duration {
    let mut random = [128];
    // Without randomness there is no jitter.
    let _ = getrandom::fill(&mut random);
    let [part] = random;
    wait.mul_f64(0.9 + f64::from(part) / 1275.0)
}

/// The time that `X-Send-At:` or a name in `outbox/at/` means, in seconds since 1970:
/// `2026-12-01 09:00`, `2026-12-01T09:00:30`, `2026-12-01T09:00+01:00`, `2026-12-01`, `@1764579600`,
/// `+2h 30m`, `09:00` (the next time it is). Without an offset it is the time zone of the machine.
#[must_use]
pub fn parse_time(text: &str, now: u64) -> Option<u64> {
    let now = Timestamp::from_second(i64::try_from(now).ok()?).ok()?;
    parse_in(text.trim(), now, &TimeZone::system())
}

fn parse_in(text: &str, now: Timestamp, zone: &TimeZone) -> Option<u64> {
    let seconds = |time: Timestamp| u64::try_from(time.as_second()).ok();
    if let Some(epoch) = text.strip_prefix('@') {
        return epoch.parse().ok();
    }
    if let Some(later) = text.strip_prefix('+') {
        let later = humantime::parse_duration(later.trim()).ok()?;
        return seconds(now)?.checked_add(later.as_secs());
    }
    if let Ok(time) = text.replacen(' ', "T", 1).parse::<Timestamp>() {
        return seconds(time);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return seconds(zone.to_timestamp(local).ok()?);
    }
    let clock: jiff::civil::Time = text.parse().ok()?;
    let local = zone.to_datetime(now);
    let mut day = local.date();
    if clock <= local.time() {
        day = day.tomorrow().ok()?;
    }
    seconds(zone.to_timestamp(day.to_datetime(clock)).ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay() {
        let schedule = Schedule::default();
        for (attempt, minutes) in [(1, 1), (2, 5), (4, 30), (7, 180), (8, 240), (1000, 240)] {
            let wait = schedule.wait(attempt).as_secs_f64();
            let exact = f64::from(minutes) * 60.0;
            assert!((0.89..=1.11).contains(&(wait / exact)), "{attempt}: {wait}");
        }
        assert!((0.89..=1.11).contains(&(schedule.wait(0).as_secs_f64() / 60.0)));
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_the_five_days() {
        let schedule = Schedule::default();
        let end = 5 * 24 * HOUR;
        assert_eq!(schedule.next(0, 30, end - 10), Some(end));
        assert_eq!(schedule.next(0, 30, end), None);
        assert_eq!(schedule.next(0, 30, u64::MAX), None);
        // The machine was off all the time.
        for attempt in 1..FEWEST {
            assert!(
                schedule
                    .next(0, attempt, 2 * end)
                    .is_some_and(|due| due > 2 * end)
            );
        }
        assert_eq!(schedule.next(0, FEWEST, 2 * end), None);
        // A clock that went back does not make it give up.
        assert!(schedule.next(end, 1, 0).is_some());
    }

    fn at(text: &str) -> Option<String> {
        let zone = TimeZone::get("Europe/Zurich").unwrap();
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let seconds = parse_in(text, now, &zone)?;
        let time = Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
        Some(time.to_string())
    }

    #[test]
    fn times_are_local_unless_they_say_otherwise() {
        for (text, utc) in [
            ("2026-12-01 09:00", "2026-12-01T08:00:00Z"),
            ("2026-12-01T09:00", "2026-12-01T08:00:00Z"),
            ("2026-12-01T09:00:30", "2026-12-01T08:00:30Z"),
            ("2026-07-01 09:00", "2026-07-01T07:00:00Z"),
            ("2026-12-01T09:00Z", "2026-12-01T09:00:00Z"),
            ("2026-12-01 09:00+05:30", "2026-12-01T03:30:00Z"),
            ("2026-12-01", "2026-11-30T23:00:00Z"),
            ("@1764579600", "2025-12-01T09:00:00Z"),
            ("+2h 30m", "2026-11-23T14:30:00Z"),
            ("14:00", "2026-11-23T13:00:00Z"),
            ("09:00", "2026-11-24T08:00:00Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(utc), "{text}");
        }
        for bad in [
            "",
            "soon",
            "2026-13-01 09:00",
            "@",
            "@-5",
            "+",
            "+2parsecs",
            "25:00",
        ] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
