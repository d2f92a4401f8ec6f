//! Content made fit for the wire: line ends, quoted-printable, base64 (RFC 2045 section 6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::filter::Filter;

/// Octets of a base64 line before encoding; 76 characters after it.
const BASE64_LINE: usize = 57;

/// Longest quoted-printable line, the `=` of a soft line break included.
const QUOTED_LINE: usize = 76;

const HEX: [u8; 16] = *b"0123456789ABCDEF";

/// Every line end becomes CRLF: LF, CRLF, and a CR alone, which must not go over SMTP at all
/// (RFC 5321 section 2.3.8; servers that take it for a line end made "SMTP smuggling" possible).
#[derive(Debug, Default)]
pub struct Crlf {
    after_cr: bool,
}

impl Filter for Crlf {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len() + input.len() / 16);
        for &byte in input {
            match byte {
                b'\n' if self.after_cr => {}
                b'\r' | b'\n' => out.extend_from_slice(b"\r\n"),
                _ => out.push(byte),
            }
            self.after_cr = byte == b'\r';
        }
    }

    fn finish(&mut self, _out: &mut Vec<u8>) {}
}

/// Adds a line end if the last line has none.
#[derive(Debug)]
pub struct WholeLines {
    last: u8,
}

impl Default for WholeLines {
    fn default() -> Self {
        Self { last: b'\n' }
    }
}

impl Filter for WholeLines {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.last = input.last().copied().unwrap_or(self.last);
        out.extend_from_slice(input);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.last != b'\n' {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Base64 in lines of 76 characters.
#[derive(Debug, Default)]
pub struct Base64 {
    line: Vec<u8>,
}

impl Base64 {
    fn flush(line: &[u8], out: &mut Vec<u8>) {
        let mut text = [0; BASE64_LINE / 3 * 4];
        // The slice always fits: lines are cut to BASE64_LINE.
        let len = STANDARD.encode_slice(line, &mut text).unwrap_or(0);
        out.extend_from_slice(text.get(..len).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
    }
}

impl Filter for Base64 {
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            let wanted = (BASE64_LINE - self.line.len()).min(input.len());
            let (head, tail) = input.split_at(wanted);
            self.line.extend_from_slice(head);
            input = tail;
            if self.line.len() < BASE64_LINE {
                return;
            }
            Self::flush(&self.line, out);
            self.line.clear();
        }
        let mut lines = input.chunks_exact(BASE64_LINE);
        for line in lines.by_ref() {
            Self::flush(line, out);
        }
        self.line.extend_from_slice(lines.remainder());
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            Self::flush(&self.line, out);
        }
    }
}

/// Quoted-printable of text: LF and CRLF are line ends, a CR alone is a character.
///
/// Also encoded is what some program on the way might change: white space at the end of a line,
/// `From ` at its start (mbox), a dot at its start (SMTP).
#[derive(Debug, Default)]
pub struct Quoted {
    line: Vec<u8>,
    /// A character that cannot be judged before the next one is known: white space, CR.
    held: Option<u8>,
}

impl Quoted {
    fn put(&mut self, byte: u8, escape: bool, out: &mut Vec<u8>) {
        let len = if escape { 3 } else { 1 };
        if self.line.len() + len > QUOTED_LINE - 1 {
            self.line.push(b'=');
            self.end_line(out);
        }
        let start = self.line.is_empty();
        if escape || (start && byte == b'.') {
            let [high, low] = [byte >> 4, byte & 15].map(|n| HEX.get(usize::from(n)).copied());
            self.line.push(b'=');
            self.line.extend(high);
            self.line.extend(low);
        } else {
            self.line.push(byte);
        }
        if self.line == b"From " {
            self.line.splice(..1, *b"=46");
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.line);
        out.extend_from_slice(b"\r\n");
    }

    fn release(&mut self, before_line_end: bool, out: &mut Vec<u8>) {
        match self.held.take() {
            Some(b'\r') if before_line_end => {}
            Some(byte) => self.put(byte, byte == b'\r' || before_line_end, out),
            None => {}
        }
    }
}

impl Filter for Quoted {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for &byte in input {
            match byte {
                b'\n' => {
                    self.release(true, out);
                    self.end_line(out);
                }
                b'\r' => {
                    // White space before a CR may stand at the end of a line.
                    let before = self.held;
                    self.release(before != Some(b'\r'), out);
                    self.held = Some(b'\r');
                }
                b' ' | b'\t' => {
                    self.release(false, out);
                    self.held = Some(byte);
                }
                _ => {
                    self.release(false, out);
                    self.put(byte, byte == b'=' || !byte.is_ascii_graphic(), out);
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(byte) = self.held.take() {
            self.put(byte, true, out);
        }
        out.append(&mut self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::run;
    use super::*;

    fn quoted(input: &[u8]) -> String {
        let whole = run(Quoted::default(), input, 0);
        for cut in 1..input.len().min(200) {
            assert_eq!(run(Quoted::default(), input, cut), whole, "cut at {cut}");
        }
        String::from_utf8_lossy(&whole).into_owned()
    }

    #[test]
    fn quoted_printable_protects_what_others_change() {
        assert_eq!(
            quoted(b"From me\nFromage\n.\n..x\n"),
            "=46rom me\r\nFromage\r\n=2E\r\n=2E.x\r\n"
        );
        assert_eq!(quoted(b"a \nb\t\r\nc  \n"), "a=20\r\nb=09\r\nc =20\r\n");
        assert_eq!(quoted(b"50%\r100%\r\r\n"), "50%=0D100%=0D\r\n");
        assert_eq!(quoted("\u{e9}=\0".as_bytes()), "=C3=A9=3D=00");
        assert_eq!(quoted(b"end \r"), "end=20=0D");
    }

    #[test]
    fn quoted_printable_lines_stay_below_77() {
        let long = "\u{e9}x ".repeat(400) + &".".repeat(300);
        let text = quoted(long.as_bytes());
        assert!(
            text.lines().all(|l| l.len() <= 76 && !l.starts_with('.')),
            "{text}"
        );
        assert_eq!(
            text.replace("=\r\n", "").replace("=2E", "."),
            long.replace('\u{e9}', "=C3=A9")
        );
    }

    #[test]
    fn base64_lines_do_not_depend_on_the_pieces() {
        let input: Vec<u8> = (0..=255).cycle().take(200).collect();
        let whole = run(Base64::default(), &input, 0);
        assert!(whole.split(|b| *b == b'\n').all(|line| line.len() <= 77));
        for cut in 1..input.len() {
            assert_eq!(run(Base64::default(), &input, cut), whole);
        }
        assert_eq!(run(Base64::default(), b"", 0), b"");
    }

    #[test]
    fn every_line_end_becomes_crlf() {
        for cut in 0..12 {
            assert_eq!(
                run(Crlf::default(), b"a\nb\r\nc\rd\r\r\n\n", cut),
                b"a\r\nb\r\nc\r\nd\r\n\r\n\r\n"
            );
        }
        assert_eq!(run(WholeLines::default(), b"a", 0), b"a\r\n");
        assert_eq!(run(WholeLines::default(), b"", 0), b"");
    }
}
