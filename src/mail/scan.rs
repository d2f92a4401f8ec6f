//! What a content is made of, found in one pass: it decides how the content travels.

use std::io::{self, Read};

/// Longest line that SMTP carries, without CRLF (RFC 5321 section 4.5.3.1.6).
pub const LINE_MAX: u64 = 998;

/// What was found. All of it is about octets; nothing is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Octets.
    pub size: u64,
    /// Octets above 127.
    pub high: u64,
    /// Octets that quoted-printable would write as three.
    pub escapes: u64,
    /// Octets of the longest line, without its end.
    pub longest_line: u64,
    /// A NUL.
    pub nul: bool,
    /// A control character that no text has.
    pub control: bool,
    /// A CR without LF.
    pub bare_cr: bool,
    /// A CRLF.
    pub crlf: bool,
    /// An LF without CR.
    pub bare_lf: bool,
    /// A line that begins with `From `: mbox files would get a `>` there.
    pub from_line: bool,
    /// A line that begins with a dot: badly made SMTP servers would take it away.
    pub dot_line: bool,
    /// A line that begins with `--` and the boundary that was asked for.
    pub boundary: bool,
    /// Valid UTF-8.
    pub utf8: bool,
    /// An octet from 128 to 159: a control character in Latin-1, a letter in Windows-1252.
    pub c1: bool,
    /// Whether the last line has an end (or there is no line).
    pub whole_lines: bool,
    /// A UTF-16 byte order mark.
    pub utf16: bool,
}

impl Scan {
    /// Reads all of `source`.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn of(source: &mut dyn Read, boundary: Option<&str>) -> io::Result<Self> {
        let delimiter = boundary.map(|b| format!("--{b}").into_bytes());
        let mut scanner = Scanner::new(delimiter.unwrap_or_default());
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match source.read(&mut chunk)? {
                0 => return Ok(scanner.done()),
                n => scanner.feed(chunk.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Whether it is text that people read, in whatever charset.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        self.utf16 || !self.nul && !self.control
    }

    /// The charset to label it with.
    #[must_use]
    pub const fn charset(&self) -> &'static str {
        if self.utf16 {
            "utf-16"
        } else if self.high == 0 {
            "us-ascii"
        } else if self.utf8 {
            "utf-8"
        } else if self.c1 {
            "windows-1252"
        } else {
            "iso-8859-1"
        }
    }

    /// Whether SMTP can carry it without an encoding, 8-bit octets aside.
    #[must_use]
    pub const fn fits_lines(&self) -> bool {
        !self.nul && !self.bare_cr && self.longest_line <= LINE_MAX
    }
}

struct Scanner {
    scan: Scan,
    delimiter: Vec<u8>,
    line: u64,
    /// The first octets of the line, as many as the delimiter or `From ` has.
    start: Vec<u8>,
    cr: bool,
    /// Octets of an unfinished UTF-8 character.
    partial: Vec<u8>,
}

impl Scanner {
    fn new(delimiter: Vec<u8>) -> Self {
        Self {
            scan: Scan {
                size: 0,
                high: 0,
                escapes: 0,
                longest_line: 0,
                nul: false,
                control: false,
                bare_cr: false,
                crlf: false,
                bare_lf: false,
                from_line: false,
                dot_line: false,
                boundary: false,
                utf8: true,
                c1: false,
                whole_lines: true,
                utf16: false,
            },
            delimiter,
            line: 0,
            start: Vec::new(),
            cr: false,
            partial: Vec::new(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.scan.size < 2 {
            let first: Vec<u8> = self.start.iter().chain(bytes).take(2).copied().collect();
            self.scan.utf16 = matches!(first.as_slice(), [0xff, 0xfe] | [0xfe, 0xff]);
        }
        self.scan.size += bytes.len() as u64;
        self.utf8(bytes);
        let kept = self.delimiter.len().max(5);
        for &byte in bytes {
            if self.cr && byte != b'\n' {
                self.scan.bare_cr = true;
                self.scan.escapes += 1;
                self.line += 1;
            }
            if byte == b'\n' {
                if self.cr {
                    self.scan.crlf = true;
                } else {
                    self.scan.bare_lf = true;
                }
                self.end_line();
                continue;
            }
            self.cr = byte == b'\r';
            if self.cr {
                continue;
            }
            self.line += 1;
            if self.start.len() < kept {
                self.start.push(byte);
            }
            match byte {
                0 => self.scan.nul = true,
                1..=7 | 11 | 14..=26 | 28..=31 | 127 => self.scan.control = true,
                0x80..=0x9f => self.scan.c1 = true,
                _ => {}
            }
            self.scan.high += u64::from(byte >= 0x80);
            self.scan.escapes += u64::from(!matches!(byte, b'\t' | b' '..=b'~') || byte == b'=');
        }
    }

    fn end_line(&mut self) {
        let scan = &mut self.scan;
        scan.longest_line = scan.longest_line.max(self.line);
        scan.from_line |= self.start.starts_with(b"From ");
        scan.dot_line |= self.start.first() == Some(&b'.');
        scan.boundary |= !self.delimiter.is_empty() && self.start.starts_with(&self.delimiter);
        self.line = 0;
        self.start.clear();
        self.cr = false;
    }

    fn utf8(&mut self, bytes: &[u8]) {
        if !self.scan.utf8 {
            return;
        }
        let mut rest = bytes;
        while !self.partial.is_empty() {
            let Some((byte, tail)) = rest.split_first() else {
                return;
            };
            self.partial.push(*byte);
            rest = tail;
            match std::str::from_utf8(&self.partial) {
                Ok(_) => self.partial.clear(),
                Err(e) if e.error_len().is_none() => {}
                Err(_) => {
                    self.scan.utf8 = false;
                    return;
                }
            }
        }
        if let Err(e) = std::str::from_utf8(rest) {
            self.scan.utf8 = e.error_len().is_none();
            self.partial = rest.get(e.valid_up_to()..).unwrap_or_default().to_vec();
        }
    }

    fn done(mut self) -> Scan {
        self.scan.whole_lines = self.line == 0 && !self.cr;
        if self.cr {
            self.scan.bare_cr = true;
            self.scan.escapes += 1;
        }
        self.end_line();
        self.scan.utf8 &= self.partial.is_empty();
        self.scan
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(1).min(buf.len());
            self.0.read(&mut buf[..n])
        }
    }

    fn scan(mut bytes: &[u8]) -> Scan {
        let drip = Scan::of(&mut Drip(bytes), Some("x")).unwrap();
        let whole = Scan::of(&mut bytes, Some("x")).unwrap();
        assert_eq!(drip, whole);
        whole
    }

    #[test]
    fn what_is_in_it() {
        assert_eq!(scan(b"hello\nworld").charset(), "us-ascii");
        assert!(
            !scan(b"hello\nworld").whole_lines
                && scan(b"hello\n").whole_lines
                && scan(b"").whole_lines
        );
        assert_eq!(scan("caf\u{e9}".as_bytes()).charset(), "utf-8");
        assert_eq!(scan(b"caf\xe9").charset(), "iso-8859-1");
        assert_eq!(scan(b"\x93caf\xe9\x94").charset(), "windows-1252");
        assert_eq!(scan(b"\xff\xfeh\0i\0").charset(), "utf-16");
        assert_eq!(
            scan("\u{20ac}".as_bytes().split_last().unwrap().1).charset(),
            "windows-1252"
        );
        assert!(scan(b"a\rb").bare_cr && scan(b"a\r").bare_cr && !scan(b"a\r\n").bare_cr);
        assert!(scan(b"x\nFrom me").from_line && !scan(b"xFrom me").from_line);
        assert!(scan(b".\n").dot_line && scan(b"a\n--xy\n").boundary && !scan(b"a--x").boundary);
        assert!(!scan(b"\0").is_text() && scan(b"\x1b[1m").is_text());
        assert_eq!(scan(&[b'x'; 999]).longest_line, 999);
        assert!(!scan(&[b'x'; 999]).fits_lines() && scan(&[b'x'; 998]).fits_lines());
    }

    proptest! {
        #[test]
        fn utf8_is_judged_as_std_does(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0xc0u8..=0xff, 0x80u8..=0xbf], 0..12)) {
            prop_assert_eq!(scan(&bytes).utf8, std::str::from_utf8(&bytes).is_ok());
        }
    }
}
