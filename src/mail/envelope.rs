//! The envelope of a message: who it is from and for, and what its bytes ask of a server. It is
//! fixed when the message is queued; what becomes of each recipient is kept by
//! [`queue`](super::queue).

use std::fmt;
use std::fmt::Write as _;

use lettre::Address;
use serde::{Deserialize, Serialize};

/// Longest path, brackets included (RFC 5321 section 4.5.3.1.3).
const LONGEST_PATH: usize = 256;

/// Everything a server is told about a message apart from the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where failures go; `None` is the empty path of a report, which must never be answered.
    #[serde(with = "optional_text")]
    pub sender: Option<Address>,
    /// Who gets it, at least one.
    pub recipients: Vec<Recipient>,
    /// The Message-ID, brackets included, by which reports and duplicates are known again.
    pub message_id: Option<String>,
    /// The subject as people read it, for listings.
    #[serde(default)]
    pub subject: String,
    /// What a report shall bring back; `None` leaves it to the server.
    #[serde(default)]
    pub bring_back: Option<BringBack>,
    /// What its sender calls it (ENVID), in place of its name in the queue.
    #[serde(default)]
    pub envelope_id: Option<String>,
    /// Not to be sent before, in seconds since 1970.
    #[serde(default)]
    pub send_at: Option<u64>,
    /// Not to be sent before the user says so.
    #[serde(default)]
    pub hold: bool,
    /// What the bytes need on the wire.
    pub needs: Needs,
    /// Fields that stand in the sender's own copy and in no other: `Bcc`. Lines, with their ends.
    #[serde(default)]
    pub kept: String,
    /// A word of the caller's, kept and given back with the message (the name in `outbox/`).
    #[serde(default)]
    pub note: String,
}

/// One recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where to.
    #[serde(with = "text")]
    pub address: Address,
    /// What it was before an alias made this address of it (RFC 3461 section 4.2).
    #[serde(default)]
    pub original: Option<String>,
    /// When a report is wanted; `None` leaves it to the server.
    #[serde(default)]
    pub notify: Option<Notify>,
}

impl Recipient {
    /// A recipient without wishes.
    #[must_use]
    pub const fn new(address: Address) -> Self {
        Self {
            address,
            original: None,
            notify: None,
        }
    }
}

/// When a report is wanted (RFC 3461 section 4.1). All `false` is `NEVER`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// When it is delivered.
    pub success: bool,
    /// When it cannot be.
    pub failure: bool,
    /// When it takes long.
    pub delay: bool,
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = [
            (self.success, "SUCCESS"),
            (self.failure, "FAILURE"),
            (self.delay, "DELAY"),
        ];
        let words: Vec<_> = wanted.iter().filter(|w| w.0).map(|w| w.1).collect();
        f.write_str(if words.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// What a report brings back (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BringBack {
    /// The whole message.
    Full,
    /// Its header.
    Headers,
}

impl BringBack {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// What the bytes of a message ask of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Octets on the wire, lines ended by CRLF, stuffed dots not counted (RFC 1870 section 3).
    pub octets: u64,
    /// Octets beyond ASCII in the body: 8BITMIME.
    pub eight_bit: bool,
    /// UTF-8 in the header: SMTPUTF8.
    pub utf8_header: bool,
    /// The longest line, its end not counted; over 998 no server need take it.
    pub longest_line: u64,
}

impl Envelope {
    /// An envelope without wishes. `needs` comes from [`queue::Queue::stage`](super::queue::Queue).
    #[must_use]
    pub fn new(sender: Option<Address>, recipients: Vec<Address>) -> Self {
        Self {
            sender,
            recipients: recipients.into_iter().map(Recipient::new).collect(),
            message_id: None,
            subject: String::new(),
            bring_back: None,
            envelope_id: None,
            send_at: None,
            hold: false,
            needs: Needs::default(),
            kept: String::new(),
            note: String::new(),
        }
    }
}

/// Why an address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAddress;

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a mail address")
    }
}

impl std::error::Error for BadAddress {}

/// Parses a bare address, as it stands in an envelope.
///
/// # Errors
/// [`BadAddress`], also for what is legal and cannot be said in a command.
pub fn address(text: &str) -> Result<Address, BadAddress> {
    let address: Address = text.trim().parse().map_err(|_| BadAddress)?;
    let whole: &str = address.as_ref();
    // A quoted local part may hold anything; a line end in it would begin another command.
    if whole.chars().any(char::is_control) || path(&address).len() > LONGEST_PATH {
        return Err(BadAddress);
    }
    Ok(address)
}

/// `<user@domain>` as it is sent, the domain in ASCII where it can be.
pub(super) fn path(address: &Address) -> String {
    let domain = address.domain();
    match idna::domain_to_ascii(domain) {
        Ok(ascii) if !domain.is_ascii() => format!("<{}@{ascii}>", address.user()),
        _ => format!("<{address}>"),
    }
}

/// The domain whose servers take mail for `address`, in lower-case ASCII.
#[must_use]
pub fn domain(address: &Address) -> String {
    let domain = address.domain();
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_ascii_lowercase())
}

/// `xtext` (RFC 3461 section 4), of ASCII.
pub(super) fn xtext(text: &str) -> String {
    let mut coded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b'!'..=b'~') && byte != b'+' && byte != b'=' {
            coded.push(char::from(byte));
        } else {
            let _ = write!(coded, "+{byte:02X}");
        }
    }
    coded
}

/// The opposite of [`xtext`]; a text that is not one is given back as it is.
pub(super) fn from_xtext(coded: &str) -> String {
    let mut bytes = Vec::with_capacity(coded.len());
    let mut rest = coded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'+');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| coded.to_owned())
}

mod text {
    use lettre::Address;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(address: &Address, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(address.as_ref())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
        let text = String::deserialize(from)?;
        super::address(&text).map_err(D::Error::custom)
    }
}

mod optional_text {
    use lettre::Address;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    // The signature is serde's.
    #[allow(clippy::ref_option)]
    pub(super) fn serialize<S: Serializer>(
        address: &Option<Address>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(address.as_ref().map_or("", AsRef::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Address>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        super::address(&text).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_said_are_refused() {
        for good in [
            "bob@example.org",
            " bob@example.org ",
            "o'neil+tag@a-b.example",
            "bob@localhost",
            "\"a b\"@example.org",
            "bob@[127.0.0.1]",
            "jürgen@example.org",
            "bob@exämple.org",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.org", "x".repeat(65));
        for bad in [
            "",
            "bob",
            "@example.org",
            "bob@",
            "a b@example.org",
            "bob@example.org\r\nDATA",
            "bob@exa mple.org",
            "bob@example.org>",
            "<bob@example.org>",
            "\"a\r\nb\"@example.org",
            &long,
        ] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_domain_travels_in_ascii() {
        let bob = address("bob@Exämple.org").unwrap();
        assert_eq!(path(&bob), "<bob@xn--exmple-cua.org>");
        assert_eq!(domain(&bob), "xn--exmple-cua.org");
        assert_eq!(
            path(&address("bob@[127.0.0.1]").unwrap()),
            "<bob@[127.0.0.1]>"
        );
    }

    #[test]
    fn xtext_there_and_back() {
        for text in ["plain", "a+b=c d", "é", "+", "+4"] {
            assert_eq!(from_xtext(&xtext(text)), text);
        }
        assert_eq!(xtext("a+b=c d"), "a+2Bb+3Dc+20d");
        assert_eq!(from_xtext("+zz"), "+zz");
    }

    #[test]
    fn an_envelope_is_written_and_read_back() {
        let mut envelope = Envelope::new(None, vec![address("bob@example.org").unwrap()]);
        let text = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), envelope);
        envelope.sender = Some(address("\"a b\"@example.org").unwrap());
        let text = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), envelope);
        let forged = text.replace("bob@example.org", "bob@example.org\\r\\nRCPT TO:<eve@x>");
        assert!(serde_json::from_str::<Envelope>(&forged).is_err());
    }

    #[test]
    fn notify_says_never_alone() {
        assert_eq!(Notify::default().to_string(), "NEVER");
        let some = Notify {
            success: true,
            failure: true,
            delay: false,
        };
        assert_eq!(some.to_string(), "SUCCESS,FAILURE");
    }
}
