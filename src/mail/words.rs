//! Encoded words: text beyond ASCII in a header (RFC 2047).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::decode::{Base64, Charset, nibble};
use super::fields::text_of;
use super::filter::Filter;

/// Longest line of a header that we write, without CRLF: RFC 2047 section 2 allows 76 where encoded
/// words are, RFC 5322 section 2.1.1 recommends 78.
pub(super) const LINE: usize = 76;

/// Characters between `=?utf-8?Q?` and `?=` that make an encoded word of 75.
const PAYLOAD: usize = 63;

/// A word longer than this is encoded, since a line cannot be folded inside it.
const WORD_MAX: usize = 200;

/// Longest encoded word that is read. RFC 2047 says 75; some programs do not fold at all.
const WORD_READ_MAX: usize = 8 * 1024;

/// Whether a word of unstructured text would not arrive as it is.
fn needs_encoding(word: &str) -> bool {
    word.len() > WORD_MAX
        || word.contains("=?")
        || !word.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// `text` as the value of an unstructured field, folded; `used` is the length of what stands
/// before it on its line.
#[must_use]
pub fn unstructured(text: &str, used: usize) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    // White space that parsers are free to drop or to collapse.
    let fragile = words.iter().any(|w| w.is_empty()) && !text.is_empty();
    let first = words.iter().position(|w| needs_encoding(w));
    let last = words.iter().rposition(|w| needs_encoding(w));
    let (first, last) = match (first, last) {
        _ if fragile => (0, words.len() - 1),
        (Some(first), Some(last)) => (first, last),
        _ => (words.len(), words.len()),
    };
    let mut line = Folded::new(used);
    for word in words.get(..first).unwrap_or_default() {
        line.push(word);
    }
    if let Some(span) = words.get(first..=last) {
        let room = if first == 0 {
            LINE.saturating_sub(used + 12)
        } else {
            PAYLOAD
        };
        for word in encoded(&span.join(" "), room) {
            line.push(&word);
        }
    }
    for word in words.get(last + 1..).unwrap_or_default() {
        line.push(word);
    }
    line.text
}

/// `text` as a phrase: the name in front of an address. ASCII is quoted where it must be.
#[must_use]
pub fn phrase(text: &str) -> String {
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~ ".contains(&b);
    if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        || text.contains("=?")
        || text.len() > WORD_MAX
    {
        // A line of its own: how much stands before it is not known here.
        return encoded(text, PAYLOAD / 2).join("\r\n ");
    }
    if text.bytes().all(atom) && text.trim() == text && !text.contains("  ") {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `text` as encoded words of at most 75 characters, each of whole characters; the payload of the
/// first has at most `room`.
fn encoded(text: &str, room: usize) -> Vec<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!*+-/".contains(&b) || b == b' ';
    let escapes = text.bytes().filter(|b| !plain(*b)).count();
    // Readable if it can be, short if it cannot.
    let quoted = 2 * escapes <= text.len();
    let cost = |c: char| match c {
        _ if !quoted => c.len_utf8(),
        c if c.is_ascii() && plain(c as u8) => 1,
        c => c.len_utf8() * 3,
    };
    // At least one character of any kind goes into a word.
    let mut room = room.clamp(16, PAYLOAD);
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let most = if quoted { room } else { room / 4 * 3 };
        room = PAYLOAD;
        let mut len = 0;
        let end = rest
            .char_indices()
            .find(|(_, c)| {
                len += cost(*c);
                len > most
            })
            .map_or(rest.len(), |(at, _)| at);
        let (head, tail) = rest.split_at(end);
        words.push(if quoted {
            let mut word = String::from("=?utf-8?Q?");
            for byte in head.bytes() {
                match byte {
                    b' ' => word.push('_'),
                    _ if plain(byte) => word.push(char::from(byte)),
                    _ => word.push_str(&format!("={byte:02X}")),
                }
            }
            word + "?="
        } else {
            format!("=?utf-8?B?{}?=", STANDARD.encode(head))
        });
        rest = tail;
    }
    words
}

/// Words joined by spaces, or by line breaks where a line would get too long.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) text: String,
    column: usize,
    empty: bool,
}

impl Folded {
    pub(super) const fn new(used: usize) -> Self {
        Self {
            text: String::new(),
            column: used,
            empty: true,
        }
    }

    /// Adds a word. One that has a fold in it counts by its last line.
    pub(super) fn push(&mut self, word: &str) {
        let head = word.find("\r\n").unwrap_or(word.len());
        if self.column + 1 + head > LINE && !self.empty {
            // The space that begins a folded line is the one between the words.
            self.text.push_str("\r\n ");
            self.column = 1;
        } else if !self.empty {
            self.text.push(' ');
            self.column += 1;
        }
        self.text.push_str(word);
        self.column = word.rfind("\r\n").map_or(self.column, |_| 0) + word.len()
            - word.rfind("\r\n").map_or(0, |at| at + 2);
        self.empty = false;
    }
}

/// Text of a header with its encoded words decoded. White space between two of them is dropped;
/// what is no encoded word stays; control characters become spaces.
#[must_use]
pub fn decode(value: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = value;
    // Octets of words that followed each other in one charset: characters may be cut in two.
    let mut pending: Option<(String, Vec<u8>)> = None;
    while !rest.is_empty() {
        let Some(at) = memchr::memmem::find(rest, b"=?") else {
            break;
        };
        let (before, word) = rest.split_at(at);
        let Some((charset, octets, len)) = word_of(word) else {
            flush(&mut pending, &mut text);
            text.push_str(&text_of(rest.get(..at + 2).unwrap_or_default()));
            rest = rest.get(at + 2..).unwrap_or_default();
            continue;
        };
        if pending.is_none() || !before.trim_ascii().is_empty() {
            flush(&mut pending, &mut text);
            text.push_str(&text_of(before));
        }
        match &mut pending {
            Some((same, so_far)) if same.eq_ignore_ascii_case(&charset) => {
                so_far.extend_from_slice(&octets);
            }
            _ => {
                flush(&mut pending, &mut text);
                pending = Some((charset, octets));
            }
        }
        rest = word.get(len..).unwrap_or_default();
    }
    flush(&mut pending, &mut text);
    text.push_str(&text_of(rest));
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn flush(pending: &mut Option<(String, Vec<u8>)>, text: &mut String) {
    if let Some((charset, octets)) = pending.take() {
        text.push_str(&to_text(Some(&charset), &octets));
    }
}

/// `octets` of a charset as text.
pub(super) fn to_text(charset: Option<&str>, octets: &[u8]) -> String {
    let mut decoder = Charset::new(charset);
    let mut out = Vec::new();
    decoder.feed(octets, &mut out);
    decoder.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Charset, octets and length of the encoded word that `text` begins with.
fn word_of(text: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let text = text.get(..text.len().min(WORD_READ_MAX))?;
    let mut pieces = text.get(2..)?.splitn(3, |b| *b == b'?');
    let (charset, encoding, rest) = (pieces.next()?, pieces.next()?, pieces.next()?);
    // First what is cheap: hostile headers are full of `=?`.
    if !matches!(encoding, b"B" | b"b" | b"Q" | b"q") {
        return None;
    }
    let end = memchr::memmem::find(rest, b"?=")?;
    let payload = rest.get(..end)?;
    if charset.is_empty() || !charset.iter().all(u8::is_ascii_graphic) || payload.contains(&b'\n') {
        return None;
    }
    // RFC 2231 section 5: the charset may be followed by `*` and a language.
    let charset = charset.split(|b| *b == b'*').next()?;
    let octets = match encoding {
        b"B" | b"b" => {
            let mut out = Vec::new();
            let mut base64 = Base64::default();
            base64.feed(payload, &mut out);
            base64.finish(&mut out);
            out
        }
        _ => unescape(payload, b'=', |b| if b == b'_' { b' ' } else { b }),
    };
    let len = 2 + charset_len(text)? + 1 + encoding.len() + 1 + end + 2;
    Some((std::str::from_utf8(charset).ok()?.to_owned(), octets, len))
}

fn charset_len(text: &[u8]) -> Option<usize> {
    memchr::memchr(b'?', text.get(2..)?)
}

/// `text` with `=41` or `%41` made `A`; the other bytes go through `other`.
pub(super) fn unescape(text: &[u8], escape: u8, other: fn(u8) -> u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match tail {
            [high, low, after @ ..]
                if *first == escape && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(nibble(*high) << 4 | nibble(*low));
                rest = after;
            }
            _ => out.push(other(*first)),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(unstructured("Weekly report", 9), "Weekly report");
        assert_eq!(phrase("Bob Smith"), "Bob Smith");
        assert_eq!(phrase("Smith, Bob \"x\""), "\"Smith, Bob \\\"x\\\"\"");
    }

    #[test]
    fn only_what_must_be_is_encoded() {
        assert_eq!(
            unstructured("Re: Gr\u{fc}\u{df}e from me", 9),
            "Re: =?utf-8?B?R3LDvMOfZQ==?= from me"
        );
        assert_eq!(
            unstructured("a caf\u{e9} and a th\u{e9} x", 9),
            "a =?utf-8?Q?caf=C3=A9_and_a_th=C3=A9?= x"
        );
        assert_eq!(unstructured("=?x", 9), "=?utf-8?B?PT94?=");
        assert_eq!(unstructured(" lead", 9), "=?utf-8?Q?_lead?=");
    }

    #[test]
    fn words_that_were_cut_in_a_character_are_joined() {
        assert_eq!(
            decode(b"=?utf-8?Q?caf=C3?=\r\n =?UTF-8?Q?=A9_?= x"),
            "caf\u{e9}  x"
        );
        assert_eq!(
            decode(b"=?iso-8859-1*en?q?=E9?= =?utf-8?b?w6k=?="),
            "\u{e9}\u{e9}"
        );
        assert_eq!(
            decode(b"=? =?x?y?z?= =?utf-8?Q?open"),
            "=? =?x?y?z?= =?utf-8?Q?open"
        );
        assert_eq!(decode(b"=?utf-8?Q?a=0Ab?="), "a b");
        assert_eq!(decode(b"raw \xe9"), "raw \u{e9}");
    }

    proptest! {
        #[test]
        fn text_comes_back(text in "[^\\p{Cc}]{0,300}", used in 2usize..30) {
            let value = unstructured(&text, used);
            for (n, line) in value.split("\r\n").enumerate() {
                let before = usize::from(n == 0) * used;
                prop_assert!(before + line.len() <= LINE + WORD_MAX);
                prop_assert!(line.is_ascii() && line.split(' ').filter(|w| w.starts_with("=?")).all(|w| w.len() <= 75));
            }
            prop_assert_eq!(decode(value.replace("\r\n", "").as_bytes()), text);
        }

        #[test]
        fn decoding_takes_anything(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[b"=?utf-8?Q?", &bytes[..]].concat());
        }
    }
}
