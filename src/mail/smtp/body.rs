//! A message on its way to the wire: every line ended by CRLF, none by CR or LF alone (a server
//! that takes those for line ends could be told where the message ends: SMTP smuggling), dots at
//! the beginning of a line doubled, the final dot; with BDAT neither.

use crate::mail::envelope::Needs;

/// Turns a message with any line ends into what DATA carries, in pieces cut anywhere.
#[derive(Debug)]
pub struct DotStuffing {
    at_start: bool,
    after_cr: bool,
    dots: bool,
}

impl Default for DotStuffing {
    fn default() -> Self {
        Self {
            at_start: true,
            after_cr: false,
            dots: true,
        }
    }
}

impl DotStuffing {
    /// For what BDAT carries, whose end is known by its length.
    #[must_use]
    pub fn without_dots() -> Self {
        Self {
            dots: false,
            ..Self::default()
        }
    }

    /// Appends `piece` to `out`.
    pub fn add(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while let Some(first) = piece.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            if self.dots && self.at_start && *first == b'.' {
                out.push(b'.');
            }
            self.at_start = false;
            let end = memchr::memchr2(b'\r', b'\n', piece);
            let (line, rest) = piece.split_at(end.unwrap_or(piece.len()));
            out.extend_from_slice(line);
            piece = rest;
            if let Some((end, after)) = rest.split_first() {
                out.extend_from_slice(b"\r\n");
                self.at_start = true;
                self.after_cr = *end == b'\r';
                piece = after;
            }
        }
    }

    /// Appends the end of the last line, if it has none, and the final dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if !self.at_start {
            out.extend_from_slice(b"\r\n");
        }
        if self.dots {
            out.extend_from_slice(b".\r\n");
        }
    }
}

/// Finds out what a message needs, in pieces cut anywhere.
#[derive(Debug)]
pub struct Measure {
    needs: Needs,
    line: u64,
    after_cr: bool,
    in_header: bool,
    /// The header, for the question whether it is UTF-8; bounded.
    header: Vec<u8>,
}

/// More header than this is not looked at.
const LONGEST_HEADER: usize = 256 * 1024;

impl Default for Measure {
    fn default() -> Self {
        Self {
            needs: Needs::default(),
            line: 0,
            after_cr: false,
            in_header: true,
            header: Vec::new(),
        }
    }
}

impl Measure {
    /// Looks at `piece`.
    pub fn add(&mut self, mut piece: &[u8]) {
        while let Some(first) = piece.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\r', b'\n', piece);
            let (line, rest) = piece.split_at(end.unwrap_or(piece.len()));
            self.part(line);
            piece = rest;
            if let Some((end, after)) = rest.split_first() {
                self.end_of_line();
                self.after_cr = *end == b'\r';
                piece = after;
            }
        }
    }

    fn part(&mut self, part: &[u8]) {
        self.line += part.len() as u64;
        self.needs.octets += part.len() as u64;
        if part.is_ascii() {
            return;
        }
        if self.in_header {
            let room = LONGEST_HEADER.saturating_sub(self.header.len());
            self.header.extend(part.iter().take(room));
        } else {
            self.needs.eight_bit = true;
        }
    }

    fn end_of_line(&mut self) {
        self.needs.octets += 2;
        self.needs.longest_line = self.needs.longest_line.max(self.line);
        if self.line == 0 {
            self.in_header = false;
        }
        self.line = 0;
    }

    /// What it needs.
    #[must_use]
    pub fn finish(mut self) -> Needs {
        if self.line > 0 {
            self.end_of_line();
        }
        if !self.header.is_empty() {
            // Raw Latin-1 in a header is wrong and common; SMTPUTF8 would not make it right.
            let utf8 = std::str::from_utf8(&self.header).is_ok();
            self.needs.utf8_header = utf8;
            self.needs.eight_bit = true;
        }
        self.needs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(text: &[u8], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut stuffing = DotStuffing::default();
        for piece in text.chunks(cut) {
            stuffing.add(piece, &mut out);
        }
        stuffing.finish(&mut out);
        out
    }

    #[test]
    fn whatever_the_line_ends_and_wherever_it_is_cut() {
        for (text, want) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a", b"a\r\n.\r\n"),
            (b"a\n", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a\r", b"a\r\n.\r\n"),
            (b"a\r\r\n", b"a\r\n\r\n.\r\n"),
            (b"a\n\r\n", b"a\r\n\r\n.\r\n"),
            (b"a\n\nb", b"a\r\n\r\nb\r\n.\r\n"),
            (b".\n", b"..\r\n.\r\n"),
            (b"..a\n.b", b"...a\r\n..b\r\n.\r\n"),
            (b"a\n.\nb\n", b"a\r\n..\r\nb\r\n.\r\n"),
            // What smuggling looks like: it stays inside.
            (b"a\r\n.\rMAIL", b"a\r\n..\r\nMAIL\r\n.\r\n"),
            (b"a\n.\r\nMAIL", b"a\r\n..\r\nMAIL\r\n.\r\n"),
            (b"a\r.\rMAIL", b"a\r\n..\r\nMAIL\r\n.\r\n"),
            (b"caf\xe9\n", b"caf\xe9\r\n.\r\n"),
        ] {
            for cut in 1..=text.len().max(1) {
                assert_eq!(stuffed(text, cut), want, "{text:?} cut at {cut}");
            }
        }
    }

    fn needs(text: &[u8], cut: usize) -> Needs {
        let mut measure = Measure::default();
        for piece in text.chunks(cut) {
            measure.add(piece);
        }
        measure.finish()
    }

    #[test]
    fn what_a_message_needs() {
        let plain = needs(b"Subject: a\n\nhi.\n.\n", 3);
        assert_eq!(
            plain,
            Needs {
                octets: 12 + 2 + 5 + 3,
                longest_line: 10,
                ..Needs::default()
            }
        );
        assert_eq!(needs(b"Subject: a\r\n\r\nhi.\r\n.\r\n", 1), plain);
        let eight = needs(b"Subject: a\n\ncaf\xe9", 5);
        assert!(eight.eight_bit && !eight.utf8_header);
        let utf8 = needs("Subject: é\n\nhi\n".as_bytes(), 10);
        assert!(utf8.utf8_header);
        let latin1 = needs(b"Subject: \xe9\n\nhi\n", 4);
        assert!(latin1.eight_bit && !latin1.utf8_header);
        assert_eq!(needs(&[b'x'; 2000], 7).longest_line, 2000);
    }

    #[test]
    fn the_size_is_what_is_sent_less_the_dots() {
        for text in [&b"a\n.b\n"[..], b"", b"x", b"\n\n", b"a\rb\nc\r\n"] {
            let mut unstuffed = stuffed(text, 2);
            unstuffed.truncate(unstuffed.len() - 3);
            let mut chunk = Vec::new();
            let mut plain = DotStuffing::without_dots();
            plain.add(text, &mut chunk);
            plain.finish(&mut chunk);
            assert_eq!(needs(text, 2).octets, chunk.len() as u64, "{text:?}");
            let dots = text.split(|b| *b == b'\n' || *b == b'\r');
            let dots = dots.filter(|line| line.starts_with(b".")).count();
            assert_eq!(
                needs(text, 2).octets,
                (unstuffed.len() - dots) as u64,
                "{text:?}"
            );
        }
    }
}
