//! Content as its author had it: base64, quoted-printable, charsets, line ends. Whatever is wrong
//! in the input, something comes out, always the same.

use encoding_rs::{Decoder, Encoding, WINDOWS_1252};

use super::filter::Filter;

/// White space at the end of a line that is kept in mind; more is content.
const PADDING_MAX: usize = 1000;

/// Base64. Other characters are skipped (RFC 2045 section 6.8); padding ends a group, not the
/// content, since some programs join encoded pieces.
#[derive(Debug, Default)]
pub struct Base64 {
    bits: u32,
    count: u8,
}

impl Base64 {
    fn partial(&mut self, out: &mut Vec<u8>) {
        let [_, high, mid, _] =
            (self.bits << (6 * (4 - u32::from(self.count.min(4))))).to_be_bytes();
        match self.count {
            2 => out.push(high),
            3 => out.extend_from_slice(&[high, mid]),
            _ => {}
        }
        self.bits = 0;
        self.count = 0;
    }
}

impl Filter for Base64 {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len() / 4 * 3);
        for &byte in input {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.partial(out);
                    continue;
                }
                _ => continue,
            };
            self.bits = self.bits << 6 | u32::from(value);
            self.count += 1;
            if self.count == 4 {
                let [_, a, b, c] = self.bits.to_be_bytes();
                out.extend_from_slice(&[a, b, c]);
                self.bits = 0;
                self.count = 0;
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.partial(out);
    }
}

/// Quoted-printable. What is no code stays as it is.
#[derive(Debug, Default)]
pub struct Quoted {
    /// An unfinished code: `=` and what followed.
    code: Vec<u8>,
    /// White space that is dropped if the line ends here (RFC 2045 section 6.7 rule 3).
    padding: Vec<u8>,
}

impl Quoted {
    fn literal(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b' ' | b'\t' | b'\r' if self.padding.len() < PADDING_MAX => self.padding.push(byte),
            b'\n' => {
                if self.padding.last() == Some(&b'\r') {
                    out.push(b'\r');
                }
                self.padding.clear();
                out.push(b'\n');
            }
            _ => {
                out.append(&mut self.padding);
                out.push(byte);
            }
        }
    }

    fn give_up(&mut self, out: &mut Vec<u8>) {
        for byte in std::mem::take(&mut self.code) {
            self.literal(byte, out);
        }
    }

    fn code(&mut self, byte: u8, out: &mut Vec<u8>) {
        // All that follows a blank in a code is blank.
        let blank = self.code.get(1).is_none_or(u8::is_ascii_whitespace);
        match (self.code.as_slice(), byte) {
            // A soft line break, perhaps with white space that was added on the way.
            (_, b'\n') if blank => self.code.clear(),
            (code, b' ' | b'\t' | b'\r') if blank && code.len() < PADDING_MAX => {
                self.code.push(byte)
            }
            ([_], high) if high.is_ascii_hexdigit() => self.code.push(high),
            ([_, high], low) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let decoded = nibble(*high) << 4 | nibble(low);
                self.code.clear();
                out.append(&mut self.padding);
                out.push(decoded);
            }
            _ => {
                self.give_up(out);
                // The byte may begin a code of its own.
                if byte == b'=' {
                    self.code.push(byte);
                } else {
                    self.literal(byte, out);
                }
            }
        }
    }
}

pub(super) const fn nibble(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        b'A'..=b'F' => hex - b'A' + 10,
        _ => 0,
    }
}

impl Filter for Quoted {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for &byte in input {
            if byte == b'=' && self.code.is_empty() {
                self.code.push(byte);
            } else if self.code.is_empty() {
                self.literal(byte, out);
            } else {
                self.code(byte, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.code == b"=" {
            self.code.clear();
        }
        self.give_up(out);
        self.padding.clear();
    }
}

/// CRLF becomes LF; a CR alone stays.
#[derive(Debug, Default)]
pub struct Lf {
    cr: bool,
}

impl Filter for Lf {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len());
        for &byte in input {
            if self.cr && byte != b'\n' {
                out.push(b'\r');
            }
            self.cr = byte == b'\r';
            if !self.cr {
                out.push(byte);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.cr {
            out.push(b'\r');
        }
    }
}

/// A charset becomes UTF-8. Without a name, or with one that nobody knows, UTF-8 is taken where it
/// is valid (judged by the first bytes above 127) and Windows-1252 elsewhere.
pub struct Charset {
    decoder: Option<Decoder>,
    /// The first byte above 127 and the three after it, which tell UTF-8 from Windows-1252.
    sample: Vec<u8>,
}

impl std::fmt::Debug for Charset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.decoder.as_ref().map(|d| d.encoding().name());
        f.debug_tuple("Charset").field(&name).finish()
    }
}

impl Charset {
    /// The decoder of the charset `label`.
    #[must_use]
    pub fn new(label: Option<&str>) -> Self {
        Self {
            decoder: label
                .and_then(encoding_of)
                .map(|encoding| match encoding.name() {
                    // "utf-16" means either byte order; the mark tells.
                    "UTF-16LE" | "UTF-16BE" => encoding.new_decoder(),
                    _ => encoding.new_decoder_without_bom_handling(),
                }),
            sample: Vec::new(),
        }
    }

    fn decode(&mut self, mut input: &[u8], last: bool, out: &mut Vec<u8>) {
        let Some(decoder) = &mut self.decoder else {
            return;
        };
        let mut text = [0; 4096];
        loop {
            let (result, read, written, _) = decoder.decode_to_utf8(input, &mut text, last);
            out.extend_from_slice(text.get(..written).unwrap_or_default());
            input = input.get(read..).unwrap_or_default();
            if matches!(result, encoding_rs::CoderResult::InputEmpty) {
                return;
            }
        }
    }
}

/// The encoding that `label` means. US-ASCII is left to guessing: what says so and has other bytes
/// was labelled by a program that did not look.
pub(super) fn encoding_of(label: &str) -> Option<&'static Encoding> {
    let label = label.trim();
    if label.eq_ignore_ascii_case("us-ascii") || label.eq_ignore_ascii_case("ascii") {
        return None;
    }
    Encoding::for_label_no_replacement(label.as_bytes())
}

impl Charset {
    fn guess(&mut self, out: &mut Vec<u8>) {
        let sample = std::mem::take(&mut self.sample);
        let utf8 = std::str::from_utf8(&sample).map_or_else(|e| e.valid_up_to() > 0, |_| true);
        let encoding = if utf8 {
            encoding_rs::UTF_8
        } else {
            WINDOWS_1252
        };
        self.decoder = Some(encoding.new_decoder_without_bom_handling());
        self.decode(&sample, false, out);
    }
}

impl Filter for Charset {
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        if self.decoder.is_none() {
            if self.sample.is_empty() {
                let ascii = input
                    .iter()
                    .position(|b| !b.is_ascii())
                    .unwrap_or(input.len());
                let (head, tail) = input.split_at(ascii);
                out.extend_from_slice(head);
                input = tail;
            }
            let (head, tail) = input.split_at(input.len().min(4 - self.sample.len()));
            self.sample.extend_from_slice(head);
            if self.sample.len() < 4 {
                return;
            }
            input = tail;
            self.guess(out);
        }
        self.decode(input, false, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.decoder.is_none() && !self.sample.is_empty() {
            self.guess(out);
        }
        self.decode(&[], true, out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::run;
    use super::*;

    fn all_cuts(make: fn() -> Box<dyn Filter>, input: &[u8]) -> Vec<u8> {
        let whole = run(make(), input, 0);
        for cut in 1..input.len() {
            assert_eq!(run(make(), input, cut), whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn quoted_printable_takes_what_comes() {
        let decode = |text: &[u8]| all_cuts(|| Box::<Quoted>::default(), text);
        assert_eq!(decode(b"a=3Db=3db  \r\nc=\r\nd= \t\ne"), b"a=b=b\r\ncde");
        assert_eq!(decode(b"=XY = =4 ==41 =\xff"), b"=XY = =4 =A =\xff");
        assert_eq!(decode(b"a=20\nb=09 \nend="), b"a \nb\t\nend");
    }

    #[test]
    fn base64_takes_what_comes() {
        let decode = |text: &[u8]| all_cuts(|| Box::<Base64>::default(), text);
        assert_eq!(decode(b"aGVs\r\nbG8=\r\n"), b"hello");
        assert_eq!(decode(b"aGk=aGk="), b"hihi");
        assert_eq!(decode(b"a!G*V s"), b"hel");
        assert_eq!(decode(b"aGVsbG8"), b"hello");
        assert_eq!(decode(b"a"), b"");
    }

    #[test]
    fn charsets_become_utf8() {
        let run = |label: Option<&'static str>, text: &[u8]| {
            String::from_utf8(run(Charset::new(label), text, 1)).unwrap_or_default()
        };
        assert_eq!(run(Some("iso-8859-1"), b"caf\xe9"), "caf\u{e9}");
        assert_eq!(run(None, b"caf\xe9 au lait"), "caf\u{e9} au lait");
        assert_eq!(run(None, "caf\u{e9}".as_bytes()), "caf\u{e9}");
        assert_eq!(run(Some("us-ascii"), "caf\u{e9}".as_bytes()), "caf\u{e9}");
        assert_eq!(run(Some("no-such"), b"caf\xe9"), "caf\u{e9}");
        assert_eq!(run(Some("utf-8"), b"a\xff"), "a\u{fffd}");
        assert_eq!(run(Some("iso-2022-jp"), b"\x1b$B4A\x1b(B"), "\u{6f22}");
        assert_eq!(run(Some("utf-16le"), b"h\0i\0"), "hi");
    }

    #[test]
    fn crlf_becomes_lf() {
        let make = || -> Box<dyn Filter> { Box::<Lf>::default() };
        assert_eq!(all_cuts(make, b"a\r\nb\rc\r\r\n\n\r"), b"a\nb\rc\r\n\n\r");
    }
}
