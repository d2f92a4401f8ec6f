//! A reply of an SMTP server: three digits, perhaps an enhanced code, lines of text.

use std::fmt;

use super::super::failure::words;

/// Most lines of one reply that are read. EHLO has a few dozen at most.
pub(super) const MOST_LINES: usize = 512;

/// `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// What it is about: 1 address, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy.
    pub subject: u16,
    /// What exactly.
    pub detail: u16,
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced code, where one is given that fits the code.
    pub enhanced: Option<Enhanced>,
    /// The text, line by line, printable.
    pub lines: Vec<String>,
}

impl Reply {
    /// One line of it for people: `550 5.1.1 No such user`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.code.to_string();
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            text.push(' ');
            text.push_str(line);
            if text.len() > 600 {
                text.truncate(text.floor_char_boundary(600));
                text.push_str("...");
                break;
            }
        }
        text
    }

    /// 2xx.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mail) struct Line<'a> {
    pub(in crate::mail) code: u16,
    /// More lines follow.
    pub(in crate::mail) more: bool,
    pub(in crate::mail) text: &'a [u8],
}

impl<'a> Line<'a> {
    /// `250-text`, `250 text`, and `250` alone, which RFC 5321 section 4.2 tells clients to take.
    pub(in crate::mail) fn parse(line: &'a [u8]) -> Option<Self> {
        let (digits, rest) = line.split_at_checked(3)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        if !(200..600).contains(&code) {
            return None;
        }
        let (more, text) = match rest {
            [b'-', text @ ..] => (true, text),
            [b' ' | b'\t', text @ ..] => (false, text),
            [] => (false, rest),
            _ => return None,
        };
        Some(Self { code, more, text })
    }
}

/// Puts lines together to a reply; the code of the last one counts.
#[derive(Debug, Default)]
pub(in crate::mail) struct Gathering {
    lines: Vec<String>,
    enhanced: Option<Enhanced>,
}

impl Gathering {
    pub(in crate::mail) fn add(&mut self, line: &Line<'_>) {
        if self.lines.len() < MOST_LINES {
            let text = words(line.text);
            self.enhanced = enhanced(&text, line.code).or(self.enhanced);
            self.lines.push(text);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(in crate::mail) fn finish(self, code: u16) -> Reply {
        let fits = |e: &Enhanced| u16::from(e.class) == code / 100;
        Reply {
            code,
            enhanced: self.enhanced.filter(fits),
            lines: self.lines,
        }
    }
}

/// The code at the beginning of `text`, if its class is that of `code`. A number that merely looks
/// like one ("4.3.2.1 is not welcome") has four parts.
fn enhanced(text: &str, code: u16) -> Option<Enhanced> {
    let word = text.split([' ', '\t']).next()?;
    let mut parts = word.split('.');
    let mut number = |longest: usize| {
        let part = parts.next()?;
        let plain = part.len() <= longest && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<u16>().ok()).flatten()
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    if parts.next().is_some() || class != code / 100 {
        return None;
    }
    Some(Enhanced {
        class: u8::try_from(class).ok()?,
        subject,
        detail,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::mail::smtp) fn reply(text: &str) -> Reply {
        let mut gathering = Gathering::default();
        let mut code = 0;
        for line in text.lines() {
            let line = Line::parse(line.as_bytes()).unwrap();
            code = line.code;
            gathering.add(&line);
        }
        gathering.finish(code)
    }

    #[test]
    fn lines() {
        let line = Line::parse(b"250-SIZE 10").unwrap();
        assert_eq!(
            (line.code, line.more, line.text),
            (250, true, &b"SIZE 10"[..])
        );
        assert!(!Line::parse(b"250").unwrap().more);
        assert!(!Line::parse(b"250 ").unwrap().more);
        for bad in [
            &b""[..],
            b"25",
            b"2x0 ok",
            b"150 ok",
            b"099",
            b"600 x",
            b"2500 ok",
            b"\xff\xff\xff",
        ] {
            assert_eq!(Line::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn enhanced_codes() {
        let code = |text| reply(text).enhanced.map(|e| e.to_string());
        assert_eq!(code("550 5.1.1 No such user").as_deref(), Some("5.1.1"));
        assert_eq!(
            code("550-5.7.26 a\n550 5.7.26 b").as_deref(),
            Some("5.7.26")
        );
        assert_eq!(code("550-5.7.1 a\n550 b").as_deref(), Some("5.7.1"));
        assert_eq!(code("250 2.0.0").as_deref(), Some("2.0.0"));
        for none in [
            "550 4.7.1 wrong class",
            "550 5.1.1.1 an address",
            "550 5.1",
            "550 5..1",
            "550 5.1.1234",
            "550",
            "550 5.1.1x",
        ] {
            assert_eq!(code(none), None, "{none}");
        }
    }

    #[test]
    fn the_text_is_one_printable_line_of_bounded_length() {
        assert_eq!(
            reply("550-5.1.1 no\n550 user \x1b[2J").text(),
            "550 5.1.1 no user ?[2J"
        );
        assert_eq!(reply("250").text(), "250");
        let long = (0..100).map(|_| format!("550-{}\n", "é".repeat(100)));
        let long: String = long.chain(["550 end".into()]).collect();
        assert!(reply(&long).text().len() < 700);
    }
}
