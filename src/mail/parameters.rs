//! A value with parameters, as `Content-Type` and `Content-Disposition` have (RFC 2045 section
//! 5.1, RFC 2231).

use super::fields::text_of;
use super::words::{self, LINE, unescape};

/// Most parameters, and pieces of parameters, of one field.
const MOST: usize = 200;

/// Longest value of a parameter that is kept, in bytes.
const VALUE_MAX: usize = 4096;

/// `text/plain; charset=utf-8`, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Valued {
    /// What stands in front, in lower case.
    pub value: String,
    /// Names in lower case, and decoded values, in their order.
    pub parameters: Vec<(String, String)>,
}

impl Valued {
    /// Reads a field's value, unfolded. There is always a result; what cannot be read is left out.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let mut pieces = split(value).into_iter();
        let first = pieces.next().unwrap_or_default();
        let mut plain = Vec::new();
        let mut parts = Vec::new();
        for piece in pieces.take(MOST) {
            let Some(equals) = piece.equals else {
                continue;
            };
            let name = text_of(piece.bytes.get(..equals).unwrap_or_default().trim_ascii());
            let value = unquote(
                piece
                    .bytes
                    .get(equals + 1..)
                    .unwrap_or_default()
                    .trim_ascii(),
            );
            match Part::of(&name.to_ascii_lowercase(), value) {
                Ok(part) => parts.push(part),
                Err((name, value)) => plain.push((name, words::decode(&value))),
            }
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in join(parts).into_iter().chain(plain) {
            // The encoded form is there for those who can read it, the plain one for the others.
            if parameters.iter().all(|(known, _)| *known != name) {
                parameters.push((name, value));
            }
        }
        Self {
            value: text_of(first.bytes.trim_ascii()).to_ascii_lowercase(),
            parameters,
        }
    }

    /// The value of the parameter `name` (in lower case).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What stands between two semicolons, without comments.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where the name ends and the value begins.
    equals: Option<usize>,
}

fn split(value: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut piece = Piece::default();
    let mut comments = 0_usize;
    let mut quoted = false;
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if quoted || comments > 0 => {
                if comments == 0 {
                    piece.bytes.push(byte);
                    piece.bytes.extend(bytes.next());
                } else {
                    bytes.next();
                }
                continue;
            }
            b'"' if comments == 0 => {
                quoted = !quoted;
            }
            // Only in front of the value: unquoted names with parentheses are common.
            b'(' if !quoted && (comments > 0 || piece.equals.is_none()) => comments += 1,
            b')' if !quoted && comments > 0 => {
                comments -= 1;
                continue;
            }
            b';' if !quoted && comments == 0 => {
                pieces.push(std::mem::take(&mut piece));
                if pieces.len() > MOST {
                    return pieces;
                }
                continue;
            }
            _ => {}
        }
        if comments == 0 {
            if byte == b'=' && !quoted && piece.equals.is_none() {
                piece.equals = Some(piece.bytes.len());
            }
            piece.bytes.push(byte);
        }
    }
    pieces.push(piece);
    pieces
}

fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        return value.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            // Windows programs write paths without doubling their backslashes.
            b'\\' => match bytes.next() {
                Some(next @ (b'"' | b'\\')) => out.push(next),
                Some(next) => out.extend_from_slice(&[byte, next]),
                None => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    out
}

/// One piece of a parameter in the form of RFC 2231: `name*`, `name*0`, `name*0*`.
struct Part {
    name: String,
    number: u32,
    encoded: bool,
    value: Vec<u8>,
}

impl Part {
    fn of(name: &str, value: Vec<u8>) -> Result<Self, (String, Vec<u8>)> {
        let Some((base, suffix)) = name.split_once('*') else {
            return Err((name.to_owned(), value));
        };
        let (number, encoded) = match suffix.strip_suffix('*') {
            Some(number) => (number, true),
            None => (suffix, suffix.is_empty()),
        };
        let number = if number.is_empty() {
            Ok(0)
        } else {
            number.parse()
        };
        match number {
            Ok(number) => Ok(Self {
                name: base.to_owned(),
                number,
                encoded,
                value,
            }),
            Err(_) => Err((name.to_owned(), value)),
        }
    }
}

fn join(mut parts: Vec<Part>) -> Vec<(String, String)> {
    parts.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
    let mut joined = Vec::new();
    for group in parts.chunk_by(|a, b| a.name == b.name) {
        let mut charset = None;
        let mut octets = Vec::new();
        let mut name = "";
        for (expected, part) in (0..).zip(group) {
            if part.number != expected {
                break;
            }
            name = &part.name;
            let mut value = part.value.as_slice();
            if part.encoded {
                let mut pieces = value.splitn(3, |b| *b == b'\'');
                if let (0, Some(label), Some(_), Some(rest)) =
                    (expected, pieces.next(), pieces.next(), pieces.next())
                {
                    charset = Some(text_of(label));
                    value = rest;
                }
                octets.extend(unescape(value, b'%', |b| b));
            } else {
                octets.extend_from_slice(value);
            }
            octets.truncate(VALUE_MAX);
        }
        if !name.is_empty() {
            let charset = charset.filter(|label| !label.is_empty());
            joined.push((name.to_owned(), words::to_text(charset.as_deref(), &octets)));
        }
    }
    joined
}

/// `; name=value`, as a token, a quoted string, or in the form of RFC 2231, in pieces on lines of
/// their own where it is long. A value that is not UTF-8 is labelled Latin-1.
#[must_use]
pub fn written(name: &str, value: &[u8]) -> String {
    let short = name.len() + value.len() + 6 <= LINE;
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$&+-.^_{}~".contains(b);
    if short && !value.is_empty() && value.iter().all(token) {
        return format!(";\r\n {name}={}", text_of(value));
    }
    let quotable = |b: &u8| b.is_ascii_graphic() && !b"\"\\".contains(b) || *b == b' ';
    // `=?` would be taken for an encoded word, `%` and `'` for RFC 2231, by one reader or other.
    if short && value.iter().all(quotable) && !value.windows(2).any(|w| w == b"=?") {
        return format!(";\r\n {name}=\"{}\"", text_of(value));
    }
    let utf8 = std::str::from_utf8(value);
    let charset = if utf8.is_ok() { "utf-8" } else { "iso-8859-1" };
    // A character is not cut in two: some readers decode each piece by itself.
    let characters: Vec<&[u8]> = match utf8 {
        Ok(text) => text.split_inclusive(|_| true).map(str::as_bytes).collect(),
        Err(_) => value.chunks(1).collect(),
    };
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    let mut pieces = vec![format!("{charset}''")];
    for character in characters {
        let written: String = match character {
            [byte] if plain(byte) => char::from(*byte).into(),
            bytes => bytes.iter().map(|byte| format!("%{byte:02X}")).collect(),
        };
        match pieces.last_mut() {
            Some(piece) if piece.len() + written.len() + name.len() + 8 <= LINE => {
                *piece += &written
            }
            _ => pieces.push(written),
        }
    }
    if let [only] = pieces.as_slice() {
        return format!(";\r\n {name}*={only}");
    }
    let numbered = pieces.iter().enumerate();
    numbered
        .map(|(n, piece)| format!(";\r\n {name}*{n}*={piece}"))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(value: &str, name: &str) -> String {
        Valued::parse(value.as_bytes())
            .get(name)
            .unwrap_or("(none)")
            .to_owned()
    }

    #[test]
    fn what_programs_write_is_read() {
        let parsed = Valued::parse(b"Text/Plain (old); charset=\"utf-8\" ; Format = flowed;;");
        assert_eq!(parsed.value, "text/plain");
        assert_eq!(parsed.get("charset"), Some("utf-8"));
        assert_eq!(parsed.get("format"), Some("flowed"));
        assert_eq!(get("a; name=a b (1).txt", "name"), "a b (1).txt");
        assert_eq!(
            get("a; name=\"a;\\\"b=c\\\\d\\e\"", "name"),
            "a;\"b=c\\d\\e"
        );
        assert_eq!(
            get("a; name=\"=?utf-8?Q?caf=C3=A9?=\"", "name"),
            "caf\u{e9}"
        );
        assert_eq!(get("a; name=\"unclosed", "name"), "unclosed");
        assert_eq!(
            get("a; name*=utf-8'en'caf%C3%A9; name=cafe", "name"),
            "caf\u{e9}"
        );
        assert_eq!(
            get("a; name=cafe; name*=iso-8859-1''caf%E9", "name"),
            "caf\u{e9}"
        );
        assert_eq!(get("a; f*1=c; f*0*=utf-8''%61%62; f*2*=%64", "f"), "abcd");
        assert_eq!(get("a; f*0=x; f*2=z", "f"), "x");
        assert_eq!(get("a; f*=%C3%A9", "f"), "\u{e9}");
        assert_eq!(get("a; f*x=1", "f"), "(none)");
    }

    #[test]
    fn values_are_written_as_simply_as_they_can() {
        assert_eq!(written("name", b"a.txt"), ";\r\n name=a.txt");
        assert_eq!(written("name", b"a b.txt"), ";\r\n name=\"a b.txt\"");
        assert_eq!(
            written("name", b"caf\xe9"),
            ";\r\n name*=iso-8859-1''caf%E9"
        );
        assert_eq!(written("name", b""), ";\r\n name=\"\"");
    }

    proptest! {
        #[test]
        fn values_come_back(value in "\\PC{0,255}") {
            let text = format!("attachment{}", written("filename", value.as_bytes()));
            prop_assert!(text.split("\r\n").all(|line| line.len() <= LINE));
            let parsed = Valued::parse(text.replace("\r\n", "").as_bytes());
            prop_assert_eq!(parsed.get("filename"), Some(value.as_str()));
        }

        #[test]
        fn parsing_takes_anything(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Valued::parse(&bytes);
        }
    }
}
