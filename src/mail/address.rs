//! Addresses and lists of them, as headers, file names and alias files have them (RFC 5322
//! section 3.4, RFC 6531, RFC 5321 section 4.5.3.1).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::vfs::error::{Error, ErrorKind, Result};

use super::words;

mod list;

pub use list::{Item, parse_list};

const LOCAL_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
/// RFC 5321 section 4.5.3.1.3: 256 with the angle brackets.
const ADDRESS_MAX: usize = 254;

/// `local@domain`, checked and in the form for the wire: local part quoted where it must be, domain
/// in ASCII (IDNA). Free of white space outside quotes, of control characters, CR and LF.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: Box<str>,
    at: usize,
}

impl Address {
    /// Reads `local@domain` without brackets, name or comment.
    ///
    /// # Errors
    /// [`ErrorKind::BadMessage`] with the reason.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = |why: &str| malformed(text, why);
        let at = text.rfind('@').ok_or_else(|| bad("no @"))?;
        let (local, domain) = (
            text.get(..at).unwrap_or(""),
            text.get(at + 1..).unwrap_or(""),
        );
        let local = local_part(local).map_err(bad)?;
        let domain = domain_part(domain).map_err(bad)?;
        if local.len() + 1 + domain.len() > ADDRESS_MAX {
            return Err(bad("longer than 254"));
        }
        Ok(Self {
            at: local.len(),
            text: format!("{local}@{domain}").into(),
        })
    }

    /// `local@domain`.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        self.text.get(..self.at).unwrap_or("")
    }

    /// What stands after it.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or("")
    }

    /// Whether it goes only to servers with SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }

    /// The same for all spellings of one address: domains have no case.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}@{}", self.local(), self.domain().to_ascii_lowercase())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

/// An address and the name of who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Decoded, any text; `None` if there is none.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

impl Mailbox {
    /// Reads one `Bob <bob@example.org>` or `bob@example.org`.
    ///
    /// # Errors
    /// [`ErrorKind::BadMessage`] if there is not exactly one.
    pub fn parse(text: &str) -> Result<Self> {
        match parse_list(text)?.as_slice() {
            [Item::Mailbox(mailbox)] => Ok(mailbox.clone()),
            _ => Err(malformed(text, "not one address")),
        }
    }

    /// For people: the name as it is.
    #[must_use]
    pub fn shown(&self) -> String {
        self.name.as_ref().map_or_else(
            || self.address.to_string(),
            |name| {
                let plain = |c: char| c.is_alphanumeric() || " -'_".contains(c);
                if name.chars().all(plain) {
                    format!("{name} <{}>", self.address)
                } else {
                    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("\"{name}\" <{}>", self.address)
                }
            },
        )
    }
}

/// For a header: the name encoded.
impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) if !name.is_empty() => {
                write!(f, "{} <{}>", words::phrase(name), self.address)
            }
            _ => write!(f, "{}", self.address),
        }
    }
}

fn malformed(text: &str, why: &str) -> Error {
    let shown: String = text
        .chars()
        .take(100)
        .flat_map(char::escape_debug)
        .collect();
    Error::new(ErrorKind::BadMessage, format!("address \"{shown}\": {why}"))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || !c.is_ascii() && !c.is_control()
        || matches!(
            c,
            '!' | '#'
                | '$'
                | '%'
                | '&'
                | '\''
                | '*'
                | '+'
                | '-'
                | '/'
                | '='
                | '?'
                | '^'
                | '_'
                | '`'
                | '{'
                | '|'
                | '}'
                | '~'
        )
}

fn local_part(text: &str) -> std::result::Result<String, &'static str> {
    let inner = match text.strip_prefix('"') {
        Some(rest) => {
            let inner = rest.strip_suffix('"').ok_or("an open quotation mark")?;
            let mut plain = String::new();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => plain.push(chars.next().ok_or("a lone backslash")?),
                    '"' => return Err("a quotation mark inside"),
                    c => plain.push(c),
                }
            }
            plain
        }
        None if text
            .split('.')
            .all(|atom| !atom.is_empty() && atom.chars().all(is_atext)) =>
        {
            text.to_owned()
        }
        None if text.is_empty() => return Err("nothing before the @"),
        None => return Err("characters that an address does not have"),
    };
    if inner.chars().any(char::is_control) {
        return Err("control characters");
    }
    let dot_atom = inner
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext));
    let wire = if dot_atom {
        inner
    } else {
        format!("\"{}\"", inner.replace('\\', "\\\\").replace('"', "\\\""))
    };
    if wire.len() > LOCAL_MAX {
        return Err("longer than 64 before the @");
    }
    Ok(wire)
}

fn domain_part(text: &str) -> std::result::Result<String, &'static str> {
    if let Some(literal) = text.strip_prefix('[') {
        let inner = literal.strip_suffix(']').ok_or("an open bracket")?;
        let v6 = inner
            .get(..5)
            .filter(|tag| tag.eq_ignore_ascii_case("ipv6:"));
        let good = match v6 {
            Some(_) => inner.get(5..).unwrap_or("").parse::<Ipv6Addr>().is_ok(),
            None => inner.parse::<Ipv4Addr>().is_ok(),
        };
        return if good {
            Ok(text.to_owned())
        } else {
            Err("no network address in the brackets")
        };
    }
    let ascii = if text.is_ascii() {
        text.to_owned()
    } else {
        idna::domain_to_ascii(text).map_err(|_| "no domain after the @")?
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if ascii.is_empty() {
        return Err("nothing after the @");
    }
    if ascii.len() > DOMAIN_MAX || !ascii.split('.').all(label) {
        return Err("no domain after the @");
    }
    Ok(ascii)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_form_for_the_wire() {
        for (text, wire) in [
            ("bob@example.org", "bob@example.org"),
            (" bob+x=y@Example.ORG ", "bob+x=y@Example.ORG"),
            ("\"bob\"@example.org", "bob@example.org"),
            ("\"b o\\b\"@example.org", "\"b ob\"@example.org"),
            ("\"a@b\"@example.org", "\"a@b\"@example.org"),
            ("bob@b\u{fc}cher.example", "bob@xn--bcher-kva.example"),
            ("r\u{f6}b@example.org", "r\u{f6}b@example.org"),
            ("root@localhost", "root@localhost"),
            ("a@[127.0.0.1]", "a@[127.0.0.1]"),
            ("a@[IPv6:::1]", "a@[IPv6:::1]"),
        ] {
            assert_eq!(Address::parse(text).unwrap().as_str(), wire);
        }
        assert!(
            Address::parse("r\u{f6}b@example.org")
                .unwrap()
                .needs_smtputf8()
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "x".repeat(65));
        let deep = format!("x@{}org", "label.".repeat(50));
        for bad in [
            "",
            "bob",
            "@example.org",
            "bob@",
            "bo b@example.org",
            ".bob@x.org",
            "b..b@x.org",
            "bob@x..org",
            "bob@-x.org",
            "bob@x.org.",
            "bob@[300.1.1.1]",
            "\"bob@x.org",
            "bob\r\nRCPT TO:<x@y>@x.org",
            "bob@x.org\nDATA",
            "<bob@x.org>",
            "bob,@x.org",
            "\"a\r\n\"@x.org",
            "bob@x y",
            &long,
            &deep,
        ] {
            let err = Address::parse(bad).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::BadMessage, "{bad:?}");
            assert!(!err.detail().contains(['\r', '\n']));
        }
    }
}
