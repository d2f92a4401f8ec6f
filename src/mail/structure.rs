//! Where the parts of a message begin and end (RFC 2046), found in one pass over its lines.
//!
//! Nothing is decoded and nothing but what the fields `Content-*` say is kept, so that a message of
//! any size costs as much memory as it has parts, and the number of parts, their depth and the
//! length of their headers are bounded. What lies beyond a bound belongs to the part it is in.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use super::content::Content;
use super::fields::{self, HEADER_MAX, fields, without_end};
use super::parameters::Valued;
use super::words;

/// Parts in parts. Deeper ones are shown as one piece.
pub const DEPTH_MAX: u32 = 32;

/// Most parts of one message.
pub const PARTS_MAX: usize = 1000;

/// Most bytes of all headers together that are looked at: what is kept of the parts comes from
/// them. One header has [`HEADER_MAX`] at most.
const HEADERS_MAX: usize = 1024 * 1024;

/// Longest boundary (RFC 2046 section 5.1.1 says 70; some programs write more).
const BOUNDARY_MAX: usize = 200;

/// The end of a body that has not ended yet.
const OPEN: u64 = u64::MAX;

/// What a part is for the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has content of its own.
    Leaf,
    /// `multipart/...`: has parts.
    Multipart,
    /// `message/rfc822`: has one part, the message.
    Message,
}

/// One part; the first is the message itself.
#[derive(Debug, Clone)]
pub struct Part {
    /// The part this is in, as an index.
    pub parent: Option<usize>,
    /// 0 for the message itself.
    pub depth: u32,
    /// What it is.
    pub kind: Kind,
    /// Its header, without the empty line.
    pub header: Range<u64>,
    /// Its body, without the line end that belongs to the boundary behind it.
    pub body: Range<u64>,
    /// `Content-Type`, or what holds in its absence.
    pub content_type: Valued,
    /// Whether the header has a `Content-Type`.
    pub labelled: bool,
    /// `Content-Disposition`.
    pub disposition: Valued,
    /// `Content-Transfer-Encoding`, in lower case.
    pub encoding: String,
    /// `Content-ID`, without brackets.
    pub id: Option<String>,
    /// `Content-Description`, decoded.
    pub description: Option<String>,
    /// `Subject`, decoded, where the part is a message.
    pub subject: Option<String>,
}

impl Part {
    /// Whether it is what `media` says (in lower case).
    #[must_use]
    pub fn is(&self, media: &str) -> bool {
        self.content_type.value == media
    }

    /// The name that its author gave it.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        let name = self
            .disposition
            .get("filename")
            .or_else(|| self.content_type.get("name"));
        name.filter(|name| !name.trim().is_empty())
    }
}

/// The parts of `message`, each behind the one it is in.
///
/// # Errors
/// Those of reading `message`.
pub fn read(message: &dyn Content) -> io::Result<Vec<Part>> {
    let mut lines = BufReader::with_capacity(64 * 1024, message.open()?);
    let mut reader = Reader {
        parts: Vec::new(),
        open: Vec::new(),
        header: Some(Vec::new()),
        budget: HEADERS_MAX,
    };
    reader.begin(None, 0);
    let mut at = 0;
    // Whether a line begins here, and how long the line end before it is.
    let mut line_start = true;
    let mut previous_end = 0;
    // Whether a long line was cut between CR and LF.
    let mut cut_in_end = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = lines.by_ref().take(4096).read_until(b'\n', &mut line)?;
        if n == 0 {
            break;
        }
        let ended = line.last() == Some(&b'\n');
        if line_start {
            reader.line(&line, at, previous_end);
        } else {
            reader.keep(&line);
        }
        at += n as u64;
        previous_end = match line.as_slice() {
            _ if !ended => 0,
            b"\n" if cut_in_end => 2,
            line => (line.len() - without_end(line).len()) as u64,
        };
        cut_in_end = line.last() == Some(&b'\r');
        line_start = ended;
    }
    reader.end(at);
    Ok(reader.parts)
}

struct Reader {
    parts: Vec<Part>,
    /// Multiparts that are open, with their boundaries, the innermost last.
    open: Vec<(usize, Vec<u8>)>,
    /// The header being read; it is the last part's.
    header: Option<Vec<u8>>,
    /// Bytes of headers that may still be kept.
    budget: usize,
}

impl Reader {
    fn begin(&mut self, parent: Option<usize>, at: u64) {
        let depth = parent
            .and_then(|p| self.parts.get(p))
            .map_or(0, |p| p.depth + 1);
        self.parts.push(Part {
            parent,
            depth,
            kind: Kind::Leaf,
            header: at..at,
            body: at..at,
            content_type: Valued::default(),
            labelled: false,
            disposition: Valued::default(),
            encoding: String::new(),
            id: None,
            description: None,
            subject: None,
        });
        self.header = Some(Vec::new());
    }

    fn line(&mut self, line: &[u8], at: u64, previous_end: u64) {
        if let Some((level, closing)) = self.boundary(line) {
            self.close(level, at, previous_end);
            let next = at + line.len() as u64;
            if closing {
                self.open.truncate(level);
            } else if let Some((parent, _)) = self.open.get(level) {
                self.begin(Some(*parent), next);
            }
            return;
        }
        if self.header.is_some() && without_end(line).is_empty() {
            self.header_ends(at, at + line.len() as u64);
        } else {
            self.keep(line);
        }
    }

    /// Keeps a line, or a piece of one, if it is of a header.
    fn keep(&mut self, line: &[u8]) {
        if let Some(header) = &mut self.header {
            let room = HEADER_MAX.saturating_sub(header.len()).min(self.budget);
            let kept = line.get(..room.min(line.len())).unwrap_or_default();
            self.budget -= kept.len();
            header.extend_from_slice(kept);
        }
    }

    /// Which open multipart's boundary this line is, and whether it is the closing one.
    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let rest = line.strip_prefix(b"--").filter(|_| !self.open.is_empty())?;
        let rest = rest.trim_ascii_end();
        let level = self.open.iter().rposition(|(_, boundary)| {
            rest.strip_prefix(boundary.as_slice())
                .is_some_and(|end| matches!(end, b"" | b"--"))
        })?;
        let closing = self
            .open
            .get(level)
            .is_some_and(|(_, b)| rest.len() > b.len());
        if !closing && self.parts.len() >= PARTS_MAX {
            return None;
        }
        Some((level, closing))
    }

    /// Ends everything inside the multipart at `level`.
    fn close(&mut self, level: usize, at: u64, previous_end: u64) {
        while self.header.is_some() {
            // A part whose header has no end has no body either; a message in it is empty.
            self.header_ends(at, at);
        }
        self.open.truncate(level + 1);
        let owner = self.open.get(level).map_or(0, |(part, _)| *part);
        // What is open is the last part and all it is in, up to the owner of the boundary.
        let mut chain = Vec::new();
        let mut inner = self.parts.len().checked_sub(1);
        while let Some(index) = inner.filter(|index| *index > owner) {
            let Some(part) = self.parts.get(index) else {
                return;
            };
            if part.body.end == OPEN {
                chain.push(index);
            }
            inner = part.parent;
        }
        let mut end = at - previous_end;
        for (n, index) in chain.into_iter().rev().enumerate() {
            if let Some(part) = self.parts.get_mut(index) {
                // Without a body, the line end is the header's.
                end = if n == 0 {
                    end.max(part.body.start)
                } else {
                    end
                };
                part.header = part.header.start.min(end)..part.header.end.min(end);
                part.body = part.body.start.min(end)..end;
            }
        }
    }

    /// Takes what the last part's header says.
    fn header_ends(&mut self, end: u64, body: u64) {
        let header = self.header.take().unwrap_or_default();
        let Some(index) = self.parts.len().checked_sub(1) else {
            return;
        };
        let parent = self
            .parts
            .get(index)
            .and_then(|p| p.parent)
            .and_then(|p| self.parts.get(p));
        let digest = parent.is_some_and(|parent| parent.is("multipart/digest"));
        let full = self.parts.len() >= PARTS_MAX;
        let Some(part) = self.parts.get_mut(index) else {
            return;
        };
        part.header.end = end;
        part.body = body..OPEN;
        describe(part, &header, digest);
        let depth = part.depth;
        let identity = matches!(part.encoding.as_str(), "" | "7bit" | "8bit" | "binary");
        let boundary = part
            .content_type
            .get("boundary")
            .map(|b| b.trim_ascii_end().as_bytes().to_vec());
        if depth >= DEPTH_MAX || !identity && !part.content_type.value.starts_with("multipart/") {
            return;
        }
        match boundary {
            Some(boundary)
                if part.content_type.value.starts_with("multipart/")
                    && (1..=BOUNDARY_MAX).contains(&boundary.len()) =>
            {
                part.kind = Kind::Multipart;
                self.open.push((index, boundary));
            }
            _ if !full && (part.is("message/rfc822") || part.is("message/global")) => {
                part.kind = Kind::Message;
                self.begin(Some(index), body);
            }
            _ => {}
        }
    }

    fn end(&mut self, at: u64) {
        // A message in a message may begin at the very end.
        while self.header.is_some() {
            self.header_ends(at, at);
        }
        for part in self.parts.iter_mut().filter(|part| part.body.end == OPEN) {
            part.body.end = at;
        }
    }
}

fn describe(part: &mut Part, header: &[u8], digest: bool) {
    let default = if digest {
        &b"message/rfc822"[..]
    } else {
        b"text/plain"
    };
    part.content_type = Valued::parse(default);
    for field in fields(header).flatten() {
        let name = field.name.to_ascii_lowercase();
        match name.as_str() {
            "content-type" if !part.labelled => {
                part.content_type = Valued::parse(&field.unfolded());
                part.labelled = true;
                if !part.content_type.value.contains('/') {
                    part.content_type.value = "text/plain".to_owned();
                }
            }
            "content-disposition" => part.disposition = Valued::parse(&field.unfolded()),
            "content-transfer-encoding" => {
                let value = Valued::parse(&field.unfolded()).value;
                part.encoding = value.split_whitespace().next().unwrap_or("").to_owned();
            }
            "content-id" => {
                let id = field.text();
                part.id = Some(id.trim_matches(['<', '>', ' ']).chars().take(500).collect());
            }
            "content-description" => part.description = Some(short(&field)),
            "subject" => part.subject = Some(short(&field)),
            _ => {}
        }
    }
}

fn short(field: &fields::Field<'_>) -> String {
    words::decode(&field.unfolded()).chars().take(500).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outline(message: &str) -> Vec<String> {
        let bytes = message.as_bytes().to_vec();
        let parts = read(&bytes).unwrap();
        parts
            .iter()
            .map(|part| {
                let body = &message[part.body.start as usize..part.body.end as usize];
                let body = if part.kind == Kind::Leaf { body } else { "..." };
                format!("{} {} {body:?}", part.depth, part.content_type.value)
            })
            .collect()
    }

    #[test]
    fn parts_end_before_the_line_end_of_their_boundary() {
        let message = "Content-Type: multipart/mixed; boundary=\"b 1\"\n\npreamble\n--b 1\n\none\n\n--b 1 \t\n\
            Content-Type: text/html\n\ntwo--b 1\n--b 1x\n--b 1--\nepilogue\n--b 1\nno\n";
        let want = [
            "0 multipart/mixed \"...\"",
            "1 text/plain \"one\\n\"",
            "1 text/html \"two--b 1\\n--b 1x\"",
        ];
        assert_eq!(outline(message), want);
        let crlf = outline(&message.replace('\n', "\r\n"));
        assert_eq!(crlf[1], "1 text/plain \"one\\r\\n\"");
        // A line end may lie across the edge of a buffer.
        for len in 4090..4100 {
            let long = "x".repeat(len);
            let message = format!(
                "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{long}\r\n--b--\r\n"
            );
            assert_eq!(outline(&message)[1], format!("1 text/plain {long:?}"));
        }
        assert_eq!(crlf[2], "1 text/html \"two--b 1\\r\\n--b 1x\"");
    }

    #[test]
    fn nested_parts_and_missing_ends() {
        let message = "Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: in\n\nbody\n--a\n\
            Content-Type: multipart/alternative; boundary=ab\n\n--ab\n\nx\n--a\nContent-Type: message/rfc822\n\n\
            Content-Type: multipart/mixed; boundary=c\n\n--c\n\nlast";
        assert_eq!(
            outline(message),
            [
                "0 multipart/digest \"...\"",
                "1 message/rfc822 \"...\"",
                "2 text/plain \"body\"",
                "1 multipart/alternative \"...\"",
                "2 text/plain \"x\"",
                "1 message/rfc822 \"...\"",
                "2 multipart/mixed \"...\"",
                "3 text/plain \"last\"",
            ]
        );
    }

    #[test]
    fn broken_ones_are_leaves() {
        assert_eq!(outline(""), ["0 text/plain \"\""]);
        assert_eq!(outline("Subject: x"), ["0 text/plain \"\""]);
        assert_eq!(outline("\nbody"), ["0 text/plain \"body\""]);
        assert_eq!(
            outline("Content-Type: multipart/mixed\n\n--x\n"),
            ["0 multipart/mixed \"--x\\n\""]
        );
        assert_eq!(
            outline("Content-Type: multipart/mixed; boundary=x\n\n--x"),
            ["0 multipart/mixed \"...\"", "1 text/plain \"\""]
        );
        assert_eq!(
            outline("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3Vi"),
            ["0 message/rfc822 \"U3Vi\""]
        );
        assert_eq!(
            outline("Content-Type: multipart/mixed; boundary=x\n\n--x\n\n--x--\nepilogue"),
            ["0 multipart/mixed \"...\"", "1 text/plain \"\""]
        );
        assert_eq!(
            outline("Content-Type: message/rfc822\n\n"),
            ["0 message/rfc822 \"...\"", "1 text/plain \"\""]
        );
    }

    #[test]
    fn hostile_messages_are_bounded() {
        let mut deep = String::new();
        for n in 0..2000 {
            deep += &format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n");
        }
        let parts = read(&deep.into_bytes()).unwrap();
        assert_eq!(parts.len(), DEPTH_MAX as usize + 1);
        let nested = read(&"Content-Type: message/rfc822\n\n".repeat(5000).into_bytes()).unwrap();
        assert_eq!(nested.len(), DEPTH_MAX as usize + 1);
        let many = format!(
            "Content-Type: multipart/mixed; boundary=b\n\n{}",
            "--b\n\nx\n".repeat(1_000_000)
        );
        let parts = read(&many.clone().into_bytes()).unwrap();
        assert_eq!(parts.len(), PARTS_MAX);
        assert_eq!(parts.last().unwrap().body.end, many.len() as u64);
        let endless = format!("Content-Type: text/html; x={}", "y".repeat(10_000_000));
        assert!(read(&endless.into_bytes()).unwrap()[0].is("text/html"));
    }

    proptest! {
        #[test]
        fn ranges_are_always_inside(pieces in prop::collection::vec(prop_oneof![
            Just("--a\n"), Just("--a--\n"), Just("--b\n"), Just("--b--\r\n"), Just("\n"), Just("x"), Just("x\r\n"),
            Just("Content-Type: multipart/mixed; boundary=a\n"), Just("Content-Type: multipart/digest; boundary=b\n"),
            Just("Content-Type: message/rfc822\n"), Just("Subject: y\n"),
        ], 0..40)) {
            let message = pieces.concat();
            let parts = read(&message.clone().into_bytes()).unwrap();
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
                prop_assert!(part.body.start <= part.body.end && part.body.end <= message.len() as u64);
                if let Some(parent) = part.parent {
                    prop_assert!(parent < index);
                    let outer = &parts[parent].body;
                    prop_assert!(outer.start <= part.header.start && part.body.end <= outer.end, "{:?}", parts);
                }
            }
        }
    }
}
