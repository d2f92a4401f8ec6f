//! Checks of single option values. Errors are `cause; remedy`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use encoding_rs::Encoding;

use super::settings::Smtp;
use super::url::{self, Scheme, ServerUrl};
use crate::mail::address::Mailbox;
use crate::mail::fetch::ServerDelete;
use crate::net::bandwidth::Schedule;
use crate::net::proxy::Proxy;
use crate::net::trust::TlsVersion;

/// Any text without control characters. The error does not quote it: it may be a password.
pub(super) fn text(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("the value holds a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// The name of a user, and not `name:password`, as other programs have it. Gmail knows users by the
/// name of `recent:me`.
pub(super) fn user(text: &str) -> Result<String, String> {
    let name = self::text(text)?;
    if name.strip_prefix("recent:").unwrap_or(&name).contains(':') {
        return Err(
            "a password behind the colon is refused, everyone on this machine could see it; use \
             password_file= or password_command= (a colon of the name is %3A in the URL)"
                .to_owned(),
        );
    }
    Ok(name)
}

/// A path made absolute, since the daemon works in `/`. `~/` is the home directory: no shell has
/// seen the configuration file or a comma list.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(text),
    };
    std::path::absolute(&path).map_err(|err| format!("{text}: {err}"))
}

/// Where mail goes: through a server, or with `mx` to those of each domain.
pub(super) fn submission(text: &str) -> Result<Smtp, String> {
    if let Some(port) = text.strip_prefix("mx") {
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0),
            None => port.is_empty().then_some(25),
        };
        return port
            .map(Smtp::Mx)
            .ok_or_else(|| "write mx, or mx:PORT for servers on another port".to_owned());
    }
    let url = ServerUrl::parse(text)?;
    match url.scheme {
        Scheme::Smtp(_) if url.directory.is_empty() => Ok(Smtp::Relay(url)),
        Scheme::Smtp(_) => Err("a server has no directory; write smtps://user@host".to_owned()),
        Scheme::Ftp(_) | Scheme::Pop3(_) => {
            Err("not a server that takes mail; write smtps://user@host or smtp://user@host".into())
        }
    }
}

/// A name server, by its address.
pub(super) fn name_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse();
    let alone = || text.parse().map(|ip| SocketAddr::new(ip, 53));
    with_port
        .or_else(|_| alone())
        .map_err(|_| format!("{text}: write an address, 192.0.2.53 or 192.0.2.53:5353"))
}

/// What `tls_min=` and `tls_max=` take.
pub(super) const TLS_VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

/// The way to the server.
pub(super) fn proxy(text: &str) -> Result<Proxy, String> {
    url::proxy(text)
}

/// A sender: an address, with a name or without.
pub(super) fn mailbox(text: &str) -> Result<String, String> {
    Mailbox::parse(text).map_err(|err| format!("{err}; write from=me@example.org"))?;
    Ok(text.to_owned())
}

/// When mail is deleted on the server.
pub(super) fn server_delete(text: &str) -> Result<ServerDelete, String> {
    match text {
        "never" => Ok(ServerDelete::Never),
        "on-unlink" => Ok(ServerDelete::OnUnlink),
        "after-fetch" => Ok(ServerDelete::AfterFetch),
        days => match days.parse::<u32>() {
            Ok(days) if (1..=36_500).contains(&days) => Ok(ServerDelete::After(
                Duration::from_secs(u64::from(days) * 86_400),
            )),
            _ => Err(format!(
                "{text:?} is not one of never, on-unlink, after-fetch and a number of days"
            )),
        },
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(format!("{text:?} is not one of {}", words.join(", ")))
}

/// `30s`, `2m`, `500ms`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    parsed
        .filter(|duration| *duration <= Duration::from_secs(7 * 86_400))
        .ok_or_else(|| format!("{text:?} is not a duration of at most a week; write 30s or 2m"))
}

/// How old something may get: at most ten years.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|age| *age <= Duration::from_secs(3660 * 86_400))
        .ok_or_else(|| format!("{text:?} is not a duration of at most ten years; write 30d or 12h"))
}

/// `4G`, `500M`, `64K`: bytes, by powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], unit),
        _ => (text, 'B'),
    };
    let shift = match unit.to_ascii_uppercase() {
        'B' => Some(0),
        'K' => Some(10),
        'M' => Some(20),
        'G' => Some(30),
        'T' => Some(40),
        _ => None,
    };
    let number = number
        .parse::<u64>()
        .ok()
        .filter(|_| !number.starts_with('+'));
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is not a size; write 4G, 500M or 0"))
}

/// `10M`, `1M:off` for up and down, or `08:00=512k 18:00=off`.
pub(super) fn bandwidth(text: &str) -> Result<Schedule, String> {
    Schedule::parse(text, size)
}

/// A duration that a person would wait and a server can keep.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout < Duration::from_secs(1) || timeout > Duration::from_secs(3600) {
        return Err(format!("{text:?} is not between 1s and 1h"));
    }
    Ok(timeout)
}

/// A user or group number.
pub(super) fn id(text: &str) -> Result<u32, String> {
    // The last number is the kernel's "no such user".
    match text.parse() {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(format!("{text:?} is not a number; see id(1)")),
    }
}

/// `022`.
pub(super) fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777 && !text.starts_with('+'))
        .ok_or_else(|| format!("{text:?} is not octal; write 022"))
}

/// A WHATWG label whose encoding works in both directions.
pub(super) fn charset(label: &str) -> Result<&'static Encoding, String> {
    Encoding::for_label_no_replacement(label.as_bytes())
        .filter(|encoding| encoding.output_encoding() == *encoding)
        .ok_or_else(|| format!("{label:?} is not a charset for names; write iso-8859-15 or gbk"))
}

/// How many connections.
pub(super) fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err(format!("{text:?} is not a number from 1 to 64")),
    }
}

/// `50000-50100`.
pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let parsed = text
        .split_once('-')
        .and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    match parsed {
        Some((low, high)) if low > 0 && low <= high => Ok((low, high)),
        _ => Err(format!(
            "{text:?} is not a range of ports; write 50000-50100"
        )),
    }
}

/// A literal address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let literal = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    literal
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address"))
}

/// Seconds ahead of UTC: `+02:00`, `-5h`, `3600`.
pub(super) fn time_offset(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not an offset from UTC; write +02:00 or -5h");
    let (sign, size) = match (text.strip_prefix('-'), text.strip_prefix('+')) {
        (Some(size), _) => (-1, size),
        (None, Some(size)) => (1, size),
        (None, None) => (1, text),
    };
    let seconds = match size.split_once(':') {
        Some((hours, minutes)) => {
            let number = |text: &str| text.parse::<u8>().map(i64::from).map_err(|_| bad());
            let minutes = Some(number(minutes)?).filter(|m| *m < 60).ok_or_else(bad)?;
            number(hours)? * 3600 + minutes * 60
        }
        None => i64::try_from(duration(size).map_err(|_| bad())?.as_secs()).map_err(|_| bad())?,
    };
    // Real zones end at +14:00; a server's clock may be set to anything within a day.
    if seconds > 86_400 {
        return Err(bad());
    }
    Ok(sign * seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_bounded_and_bare_numbers_are_seconds() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "soon", "-1", "99y", "99999999999999999999s", "1e3"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(timeout("100ms").is_err() && timeout("2h").is_err());
    }

    #[test]
    fn offsets_of_time_zones() {
        assert_eq!(time_offset("+02:00"), Ok(7200));
        assert_eq!(time_offset("-05:30"), Ok(-19_800));
        assert_eq!(time_offset("3600"), Ok(3600));
        assert_eq!(time_offset("-5h"), Ok(-18_000));
        for bad in ["", "+", "--1", "+1:60", "+99:00", "x", "1:-1"] {
            assert!(time_offset(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn charsets_that_cannot_be_written_are_refused() {
        assert_eq!(charset("latin1").unwrap().name(), "windows-1252");
        assert_eq!(charset("gbk").unwrap().name(), "GBK");
        assert!(charset("utf-16").is_err() && charset("klingon").is_err());
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        assert_eq!(umask("027"), Ok(0o27));
        assert!(umask("8").is_err() && umask("7777").is_err() && umask("+7").is_err());
        assert_eq!(ports("1024-2048"), Ok((1024, 2048)));
        assert!(ports("2-1").is_err() && ports("0-5").is_err() && ports("70000-1").is_err());
        assert!(connections("0").is_err() && connections("65").is_err());
        assert!(id("4294967295").is_err() && id("root").is_err());
        assert_eq!(address("[::1]"), address("::1"));
    }
}
