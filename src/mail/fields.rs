//! The fields of a header, read tolerantly: LF or CRLF, folded or not, in any encoding.

/// Longest header that is looked at. Longer ones are somebody's mistake or attack.
pub const HEADER_MAX: usize = 256 * 1024;

/// One field of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without colon: printable ASCII.
    pub name: &'a str,
    /// All its lines, name and line ends included.
    pub raw: &'a [u8],
    /// What follows the colon, folds included.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether this is the field `name`, whatever its case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value on one line, without the white space around it (RFC 5322 section 2.2.3).
    #[must_use]
    pub fn unfolded(&self) -> Vec<u8> {
        let mut line: Vec<u8> = self.value.to_vec();
        line.retain(|b| !matches!(b, b'\r' | b'\n'));
        line.trim_ascii().to_vec()
    }

    /// The value on one line as text; encoded words stay as they are.
    #[must_use]
    pub fn text(&self) -> String {
        text_of(&self.unfolded())
    }
}

/// Bytes as text: UTF-8, else Windows-1252, which has a character for nearly every byte.
#[must_use]
pub fn text_of(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(
        |_| {
            encoding_rs::WINDOWS_1252
                .decode_without_bom_handling(bytes)
                .0
                .into_owned()
        },
        str::to_owned,
    )
}

/// Fields one after the other; `Err` holds a line that is none.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

/// The fields of `header`, up to its first empty line or its end.
#[must_use]
pub const fn fields(header: &[u8]) -> Fields<'_> {
    Fields(header)
}

/// The first field `name`.
#[must_use]
pub fn find<'a>(header: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(header).flatten().find(|field| field.is(name))
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, &'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = line_len(self.0);
        let line = self.0.get(..first).unwrap_or_default();
        if without_end(line).is_empty() {
            self.0 = &[];
            return None;
        }
        let mut end = first;
        while let Some(rest @ [b' ' | b'\t', ..]) = self.0.get(end..) {
            end += line_len(rest);
        }
        let (raw, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(name_of(line).map_or(Err(line), |(name, colon)| {
            Ok(Field {
                name,
                raw,
                value: without_end(raw.get(colon + 1..).unwrap_or_default()),
            })
        }))
    }
}

/// The name that a line begins with, and where its colon is. White space before the colon is the
/// obsolete syntax of RFC 5322 section 4.5, which old programs still write.
fn name_of(line: &[u8]) -> Option<(&str, usize)> {
    let colon = memchr::memchr(b':', line)?;
    let name = line.get(..colon)?.trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?, colon))
}

/// Length of the first line, its end included.
pub(super) fn line_len(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

/// A line without its LF or CRLF.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where the header ends and where the body begins: around the first empty line. `None` if there
/// is no empty line yet.
#[must_use]
pub fn end_of_header(message: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        let rest = message.get(at..)?;
        let len = line_len(rest);
        match rest.get(..len)? {
            [b'\n'] | [b'\r', b'\n'] => return Some((at, at + len)),
            [.., b'\n'] => at += len,
            _ => return None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn folded_fields_come_whole() {
        let header = b"Subject: one\r\n\ttwo\r\nTo:a@b\nnot a field\nX: \xe9\n\nbody: no\n";
        let all: Vec<_> = fields(header).collect();
        assert_eq!(all.len(), 4);
        let subject = all[0].unwrap();
        assert_eq!(
            (subject.name, subject.text().as_str()),
            ("Subject", "one\ttwo")
        );
        assert_eq!(subject.raw, b"Subject: one\r\n\ttwo\r\n");
        assert_eq!(all[1].unwrap().value, b"a@b");
        assert_eq!(all[2], Err(&b"not a field\n"[..]));
        assert_eq!(all[3].unwrap().text(), "\u{e9}");
    }

    #[test]
    fn the_end_of_a_header_is_its_first_empty_line() {
        assert_eq!(end_of_header(b"A: b\r\n\r\nbody\n\n"), Some((6, 8)));
        assert_eq!(end_of_header(b"\nbody"), Some((0, 1)));
        assert_eq!(end_of_header(b"A: b\n"), None);
        assert_eq!(end_of_header(b"A: b\n\r"), None);
        assert_eq!(end_of_header(b""), None);
    }
}
