//! Names of messages in a Maildir.
//!
//! `1700000000.U0123456789abcdef0123456789abcdef.pop.example.org,S=1234` and, in `cur`, `:2,FLAGS`
//! behind it. All of it comes from the account and the message, nothing from the moment of fetching
//! or from this machine: what is fetched again, even by a store that was lost, has the same name, so
//! that indexes and backups find it unchanged.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest::{Context, SHA256};

/// Octets of a hash that are part of a name.
const HASH: usize = 16;

/// Longest host that is part of a name; with the rest it stays below 255 octets, flags included.
const LONGEST_HOST: usize = 100;

/// What a message's hash is made of beside the account.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// Fetched: its identity on the server.
    Uidl(&'a [u8]),
    /// Written here (a failure report): anything unique.
    Local(&'a [u8]),
}

/// The middle part of a name: `U` or `L` and a hash in hexadecimal.
pub(super) fn key(account: &str, origin: Origin<'_>) -> String {
    let (letter, unique) = match origin {
        Origin::Uidl(unique) => ('U', unique),
        Origin::Local(unique) => ('L', unique),
    };
    let mut hash = Context::new(&SHA256);
    hash.update(account.as_bytes());
    hash.update(b"\0");
    hash.update(unique);
    let mut key = String::from(letter);
    for byte in hash.finish().as_ref().iter().take(HASH) {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// A base name: no flags.
pub(super) fn base(key: &str, host: &str, arrival: SystemTime, size: u64) -> String {
    let seconds = arrival
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    format!("{seconds}.{key}.{},S={size}", host_part(host))
}

/// Maildir's own escapes for `/` and `:`; a comma would begin a field.
fn host_part(host: &str) -> String {
    let mut part = String::new();
    for c in host.chars() {
        match c {
            '/' => part.push_str("\\057"),
            ':' => part.push_str("\\072"),
            c if c.is_ascii_graphic() && c != ',' => part.push(c),
            _ => part.push('_'),
        }
    }
    part.truncate(LONGEST_HOST);
    part
}

/// A file name without its flags.
#[must_use]
pub fn without_flags(file: &str) -> &str {
    file.split_once(":2,").map_or(file, |(base, _)| base)
}

/// The key in a file name of ours.
pub(super) fn key_of(file: &str) -> Option<&str> {
    let key = without_flags(file).split('.').nth(1)?;
    let hex = key.strip_prefix(['U', 'L'])?;
    (hex.len() == 2 * HASH && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_name_comes_from_account_and_message_alone() {
        let key = key("u@pop.example.org", Origin::Uidl(b"1"));
        let arrival = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let name = base(&key, "pop.example.org", arrival, 12);
        assert_eq!(name, format!("1700000000.{key}.pop.example.org,S=12"));
        assert_eq!(key_of(&format!("{name}:2,RS")), Some(&*key));
        assert_eq!(without_flags(&format!("{name}:2,RS")), name);
        assert_ne!(key, super::key("v@pop.example.org", Origin::Uidl(b"1")));
        assert_ne!(key, super::key("u@pop.example.org", Origin::Local(b"1")));
    }

    #[test]
    fn no_host_breaks_a_name() {
        let name = base("U0", &"../a:b,c\u{e9}".repeat(50), UNIX_EPOCH, u64::MAX);
        assert!(name.len() < 200 && !name.contains(['/', ':']));
        assert_eq!(name.matches(',').count(), 1);
    }

    #[test]
    fn names_of_others_have_no_key() {
        for other in ["", "x", "1.M2P3Q4.host", "1.Uzz.host", "1.U.host:2,S"] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }
}
