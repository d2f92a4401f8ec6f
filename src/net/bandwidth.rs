//! How fast contents may go: a limit for each direction, which may change with the time of day.
//!
//! All transfers of a mount share the limit of their direction. Each moves a small piece, takes a
//! place in the line for as long as such a piece takes at that rate, and waits for its end: so they
//! take turns, and no memory is needed. Commands and listings are not limited.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use socket2::SockRef;

use crate::sync::Locked;
use crate::traffic::Direction;

/// How often the clock is looked at for the next entry of the schedule.
const LOOK: Duration = Duration::from_secs(1);

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// What the kernel may hold for a limited connection: an eighth of a second's worth, at least so
/// much. With its usual megabytes the link would see bursts, whatever is read and written here.
const LEAST_BUFFER: u64 = 16 << 10;
const MOST_BUFFER: u64 = 1 << 20;

const MINUTES_OF_DAY: u32 = 24 * 60;
const MINUTES_OF_WEEK: u32 = 7 * MINUTES_OF_DAY;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Octets per second; `None`: as fast as they go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Limits {
    up: Option<u64>,
    down: Option<u64>,
}

impl Limits {
    const fn of(self, direction: Direction) -> Option<u64> {
        match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        }
    }
}

/// What holds when: minutes of the week, in local time, each until the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<(u32, Limits)>);

impl Schedule {
    /// Reads `RATE`, or entries `[DAY-]HH:MM,RATE` with spaces between them. A `RATE` is `off` or
    /// `UP[:DOWN]`, each `off` or a number of octets per second as `size` reads it; `=` may stand
    /// for the comma.
    ///
    /// # Errors
    /// One line: `cause; remedy`.
    pub fn parse(text: &str, size: impl Fn(&str) -> Result<u64, String>) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [rate] = words.as_slice()
            && !rate.contains([',', '='])
        {
            return Ok(Self(vec![(0, limits(rate, &size)?)]));
        }
        let mut entries = Vec::new();
        for word in words {
            let Some((when, rate)) = word.split_once([',', '=']) else {
                return Err(format!(
                    "{word:?} is no entry; write 10M, or 08:00=512k 18:00=off"
                ));
            };
            let limits = limits(rate, &size)?;
            let (day, time) = match when.split_once('-') {
                Some((day, time)) => (Some(day.to_ascii_lowercase()), time),
                None => (None, when),
            };
            let minute =
                minute(time).ok_or_else(|| format!("{time:?} is not a time; write 08:00"))?;
            for (at, name) in (0..).zip(DAYS) {
                if day.as_ref().is_none_or(|day| day == name) {
                    entries.push((at * MINUTES_OF_DAY + minute, limits));
                }
            }
            if let Some(day) = day.filter(|day| !DAYS.contains(&day.as_str())) {
                return Err(format!("{day:?} is not a day; write Mon to Sun"));
            }
        }
        if entries.is_empty() {
            return Err("no rate; write 10M, or 08:00=512k 18:00=off".to_owned());
        }
        // Of two for one minute the later in the text holds.
        entries.sort_by_key(|(minute, _)| *minute);
        Ok(Self(entries))
    }

    /// What holds at this minute of the week.
    fn at(&self, minute: u32) -> Limits {
        let minute = minute % MINUTES_OF_WEEK;
        let before = self.0.iter().rev().find(|(start, _)| *start <= minute);
        // Before the first entry of the week, the last of the week before.
        let entry = before.or(self.0.last());
        entry.map(|(_, limits)| *limits).unwrap_or_default()
    }
}

fn limits(rate: &str, size: &impl Fn(&str) -> Result<u64, String>) -> Result<Limits, String> {
    let one = |text: &str| match text {
        "off" => Ok(None),
        text => match size(text)? {
            rate if rate < 1024 => Err(format!(
                "{text:?} is less than 1k a second; write 1k or off"
            )),
            rate => Ok(Some(rate)),
        },
    };
    let (up, down) = rate.split_once(':').unwrap_or((rate, rate));
    Ok(Limits {
        up: one(up)?,
        down: one(down)?,
    })
}

fn minute(time: &str) -> Option<u32> {
    let (hour, minute) = time.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let (hour, minute) = Some((hour, minute)).filter(|(h, m)| digits(h) && digits(m))?;
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// The limit of a mount, shared by all its transfers.
#[derive(Debug)]
pub struct Bandwidth {
    schedule: Schedule,
    looked: Locked<Option<(Instant, Limits)>>,
    up: Locked<Option<Instant>>,
    down: Locked<Option<Instant>>,
}

impl Bandwidth {
    /// As `schedule` says.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            looked: Locked::default(),
            up: Locked::default(),
            down: Locked::default(),
        }
    }

    /// What holds now, for people: `UP:DOWN` in octets per second.
    #[must_use]
    pub fn shown(&self) -> String {
        let now = self.now(Instant::now());
        let one = |rate: Option<u64>| rate.map_or_else(|| "off".to_owned(), |r| r.to_string());
        format!("{}:{}", one(now.up), one(now.down))
    }

    /// Keeps the kernel from sending, or letting the peer send, far ahead of what is moved here.
    pub fn shape(&self, socket: &TcpStream, direction: Direction) {
        let Some(rate) = self.now(Instant::now()).of(direction) else {
            return;
        };
        if rate / 8 > MOST_BUFFER {
            return;
        }
        let bytes = usize::try_from((rate / 8).max(LEAST_BUFFER)).unwrap_or(usize::MAX);
        let socket = SockRef::from(socket);
        let set = match direction {
            Direction::Up => socket.set_send_buffer_size(bytes),
            Direction::Down => socket.set_recv_buffer_size(bytes),
        };
        if let Err(err) = set {
            log::debug!("bwlimit: socket buffer: {err}");
        }
    }

    /// The most to move before the next [`wait`](Self::wait), so that a slow link is slow evenly.
    #[must_use]
    pub fn piece(&self, direction: Direction) -> usize {
        match self.now(Instant::now()).of(direction) {
            None => usize::MAX,
            Some(rate) => usize::try_from(rate / 20)
                .unwrap_or(usize::MAX)
                .clamp(1024, 256 << 10),
        }
    }

    /// Sleeps until `bytes` more may have moved.
    pub fn wait(&self, direction: Direction, bytes: usize) {
        let pause = self.pause(direction, bytes, Instant::now());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    fn pause(&self, direction: Direction, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.now(now).of(direction) else {
            return Duration::ZERO;
        };
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        let taken = Duration::from_nanos(nanos);
        let line = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        line.with(|free| {
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let next = free.unwrap_or(earliest).max(earliest) + taken;
            *free = Some(next);
            next.saturating_duration_since(now)
        })
    }

    fn now(&self, now: Instant) -> Limits {
        let known = self.looked.with(|looked| *looked);
        match known {
            Some((when, limits)) if now.saturating_duration_since(when) < LOOK => limits,
            _ => {
                let limits = self.schedule.at(minute_of_week());
                self.looked.with(|looked| *looked = Some((now, limits)));
                limits
            }
        }
    }
}

fn minute_of_week() -> u32 {
    let now = TimeZone::system().to_datetime(Timestamp::now());
    let day = u32::try_from(now.weekday().to_monday_zero_offset()).unwrap_or_default();
    let (hour, minute) = (now.hour(), now.minute());
    let of_day = u32::try_from(i32::from(hour) * 60 + i32::from(minute)).unwrap_or_default();
    day * MINUTES_OF_DAY + of_day
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<u64, String> {
        let (number, unit) = match text.strip_suffix('k') {
            Some(number) => (number, 1024),
            None => (text, 1),
        };
        let number: u64 = number.parse().map_err(|_| "not a size".to_owned())?;
        Ok(number * unit)
    }

    fn parse(text: &str) -> Result<Schedule, String> {
        Schedule::parse(text, size)
    }

    fn both(rate: u64) -> Limits {
        Limits {
            up: Some(rate),
            down: Some(rate),
        }
    }

    #[test]
    fn a_rate_alone_always_holds_and_has_two_directions() {
        assert_eq!(parse("512k").unwrap().at(7000), both(512 << 10));
        let limits = parse("10k:off").unwrap().at(0);
        assert_eq!((limits.up, limits.down), (Some(10 << 10), None));
        assert_eq!(parse("off").unwrap().at(0), Limits::default());
    }

    #[test]
    fn an_entry_holds_until_the_next_and_over_midnight() {
        let day = parse("08:00,512k 12:00,10k 13:00=512k 23:00,off").unwrap();
        let at = |hour: u32, minute: u32| day.at(3 * MINUTES_OF_DAY + hour * 60 + minute);
        assert_eq!(at(7, 59), Limits::default());
        assert_eq!(at(8, 0), both(512 << 10));
        assert_eq!(at(12, 30), both(10 << 10));
        assert_eq!(at(22, 59), both(512 << 10));
        assert_eq!(at(23, 0), Limits::default());
        let week = parse("Mon-08:00,1k Sat-00:00,off").unwrap();
        assert_eq!(week.at(0), Limits::default(), "Sunday's still");
        assert_eq!(week.at(4 * MINUTES_OF_DAY), both(1024));
        assert_eq!(week.at(5 * MINUTES_OF_DAY), Limits::default());
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_remedy() {
        for (text, word) in [
            ("", "no rate"),
            ("fast", "not a size"),
            ("1", "less than 1k"),
            ("8:00,1k", "08:00"),
            ("24:00,1k", "08:00"),
            ("Someday-08:00,1k", "Mon to Sun"),
            ("08:00,1k 12:00", "no entry"),
            ("08:00,", "not a size"),
        ] {
            let cause = parse(text).unwrap_err();
            assert!(cause.contains(word), "{text}: {cause}");
        }
    }

    #[test]
    fn all_transfers_of_a_direction_share_its_rate() {
        let limit = Bandwidth::new(parse("100k:off").unwrap());
        let now = Instant::now();
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            last = limit.pause(Direction::Up, 50 << 10, now);
        }
        // Half a second each, but for the burst.
        assert!(last > Duration::from_millis(4_900) && last < Duration::from_millis(4_990));
        assert_eq!(limit.pause(Direction::Down, 1 << 30, now), Duration::ZERO);
        assert_eq!(limit.piece(Direction::Up), 5 << 10);
        // Who pauses saves nothing but the burst.
        let later = now + Duration::from_secs(60);
        let pause = limit.pause(Direction::Up, 100 << 10, later);
        assert!(pause >= Duration::from_millis(940), "{pause:?}");
    }
}
