//! What makes one message different from every other: its time, and its random names.

use jiff::ZonedDateTime;
use ring::digest::{SHA256, digest};

use crate::mail::dates;

/// The time and the randomness of a message. Composing again with the same stamp gives the same
/// bytes, so that a crash between composing and queueing cannot make two messages of one.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// When the message was committed, in the user's zone.
    pub now: ZonedDateTime,
    /// Random bytes, used once.
    pub seed: [u8; 16],
}

impl Stamp {
    /// A stamp for a message committed now.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn new() -> std::io::Result<Self> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        Ok(Self {
            now: ZonedDateTime::now(),
            seed,
        })
    }

    /// The `Date` field's value.
    pub(super) fn date(&self) -> String {
        dates::header(&self.now)
    }

    /// An identifier in angle brackets, the host name kept out of it; `number` tells several apart.
    pub(super) fn message_id(&self, number: u32, domain: &str) -> String {
        let left = if number == 0 {
            base32(&self.seed)
        } else {
            self.derived(number)
        };
        format!("<{left}@{domain}>")
    }

    /// A boundary. `=_` occurs neither in base64 nor in quoted-printable.
    pub(super) fn boundary(&self, number: u32) -> String {
        format!("=_{}", self.derived(number + 1000))
    }

    fn derived(&self, number: u32) -> String {
        let input = [&self.seed[..], &number.to_be_bytes()].concat();
        base32(
            digest(&SHA256, &input)
                .as_ref()
                .get(..16)
                .unwrap_or_default(),
        )
    }
}

/// RFC 4648 section 6, in lower case and without padding: 26 characters for 16 bytes.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::new();
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.extend(
                ALPHABET
                    .get((bits >> count & 31) as usize)
                    .map(|b| char::from(*b)),
            );
        }
    }
    if count > 0 {
        text.extend(
            ALPHABET
                .get((bits << (5 - count) & 31) as usize)
                .map(|b| char::from(*b)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(base32(b"foob"), "mzxw6yq");
        assert_eq!(base32(&[0xff; 16]).len(), 26);
    }
}
