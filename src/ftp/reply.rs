//! Replies of the control connection (RFC 959 section 4.2): how they are cut out of the bytes that
//! come, and what they say. What they mean is in [`refusal`](super::refusal).

use std::fmt::{self, Write};

/// Bytes of one reply, STAT listings included; a larger directory is listed by other means.
const REPLY_MAX: usize = 256 * 1024;

/// Bytes of a line that are shown to people.
const SHOWN_MAX: usize = 300;

/// One complete reply. Texts are the server's bytes, Telnet's doubled IAC (RFC 959 section 3.1.1.5)
/// undone, line ends and the code cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    lines: Vec<Vec<u8>>,
}

impl Reply {
    /// The three-digit code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// 1xx: more is to come.
    #[must_use]
    pub const fn is_preliminary(&self) -> bool {
        self.code / 100 == 1
    }

    /// 2xx: done.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: another command is wanted (RNTO, PASS).
    #[must_use]
    pub const fn wants_more(&self) -> bool {
        self.code / 100 == 3
    }

    /// The server will hang up: 421, or vsftpd's word for everything that ends it ("500 OOPS: child
    /// died").
    #[must_use]
    pub fn is_farewell(&self) -> bool {
        self.code == 421 || self.code == 500 && self.first_line().starts_with(b"OOPS:")
    }

    /// All lines, first and last included; never empty. Lines between the first and the last keep
    /// their leading space (MLST facts have one).
    #[must_use]
    pub fn lines(&self) -> &[Vec<u8>] {
        &self.lines
    }

    /// Text of the first line, after the code.
    #[must_use]
    pub fn first_line(&self) -> &[u8] {
        self.lines.first().map_or(&[], Vec::as_slice)
    }

    /// The lines between the first and the last: FEAT's features, MLST's facts, STAT's listing.
    #[must_use]
    pub fn body(&self) -> &[Vec<u8>] {
        match self.lines.as_slice() {
            [_, body @ .., _] => body,
            _ => &[],
        }
    }

    /// Bytes of all lines.
    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(Vec::len).sum()
    }

    /// Code and text in one printable line, for errors and logs: `550 No such file`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {}", self.code, Shown(self.first_line()))
    }
}

/// Bytes of the control connection on their way to become replies. Whatever comes, this takes
/// linear time and at most 256 KiB for a reply.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    /// How much of `bytes` is known to have no line end.
    searched: usize,
    /// How much of `bytes` is used up.
    used: usize,
    /// The reply of which some lines have come.
    partial: Option<Reply>,
    /// Bytes of `partial`.
    size: usize,
    /// Bytes beyond the usual limit that a reply may have.
    extra: usize,
}

/// What came is not a reply; the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotAReply(pub(super) String);

impl Replies {
    /// Takes what was read from the connection.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.searched -= self.used;
            self.used = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets replies have up to `limit` bytes, for an answer that is wanted; the least is 256 KiB.
    pub(super) const fn allow(&mut self, limit: usize) {
        self.extra = limit.saturating_sub(REPLY_MAX);
    }

    /// Whether nothing is left over: what a connection at rest must be.
    pub(super) fn is_empty(&self) -> bool {
        self.used == self.bytes.len() && self.partial.is_none()
    }

    /// The next complete reply, `None` if more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, NotAReply> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|b| *b == b'\n') else {
                self.searched = self.bytes.len();
                if self.size + self.searched - self.used > REPLY_MAX + self.extra {
                    return Err(self.too_large());
                }
                return Ok(None);
            };
            let end = self.searched + end;
            let line = self.bytes.get(self.used..end).unwrap_or_default();
            let line = undouble_iac(line.strip_suffix(b"\r").unwrap_or(line));
            self.size += end + 1 - self.used;
            self.used = end + 1;
            self.searched = self.used;
            if self.size > REPLY_MAX + self.extra {
                return Err(self.too_large());
            }
            if let Some(reply) = self.take_line(line)? {
                self.size = 0;
                return Ok(Some(reply));
            }
        }
    }

    fn too_large(&self) -> NotAReply {
        NotAReply(format!("reply over {} KiB", (REPLY_MAX + self.extra) >> 10))
    }

    /// Adds one line; returns the reply if it was the last one.
    fn take_line(&mut self, line: Vec<u8>) -> Result<Option<Reply>, NotAReply> {
        let Some(mut reply) = self.partial.take() else {
            // A stray empty line between replies says nothing.
            if line.is_empty() {
                return Ok(None);
            }
            let Some((code, more, text)) = split_code(&line) else {
                return Err(NotAReply(format!("not a reply: {}", Shown(&line))));
            };
            let reply = Reply {
                code,
                lines: vec![text.to_vec()],
            };
            if more {
                self.partial = Some(reply);
                return Ok(None);
            }
            return Ok(Some(reply));
        };
        // Only the code of the first line ends it: greetings and FEAT texts of some servers
        // (glFTPd) have lines in them that begin with other numbers.
        match split_code(&line) {
            Some((code, false, text)) if code == reply.code => {
                reply.lines.push(text.to_vec());
                Ok(Some(reply))
            }
            Some((code, true, text)) if code == reply.code => {
                reply.lines.push(text.to_vec());
                self.partial = Some(reply);
                Ok(None)
            }
            _ => {
                reply.lines.push(line);
                self.partial = Some(reply);
                Ok(None)
            }
        }
    }
}

/// See `fuzzing`: a control connection of these bytes, cut into pieces by the first of them, and all
/// that is read out of replies.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_replies(bytes: &[u8]) {
    let step = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
    let mut replies = Replies::default();
    for piece in bytes.chunks(step) {
        replies.push(piece);
        while let Ok(Some(reply)) = replies.next() {
            assert!(!reply.lines().is_empty());
            let shown = reply.text();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            super::fuzz_reply(&reply);
        }
    }
}

/// `211-Text` into 211, "more follows", `Text`. A code without any text is a reply too.
fn split_code(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = code.iter().try_fold(0, |code, digit| {
        digit
            .is_ascii_digit()
            .then(|| code * 10 + u16::from(digit - b'0'))
    })?;
    if !(100..700).contains(&code) {
        return None;
    }
    match rest {
        [] => Some((code, false, rest)),
        [b' ', text @ ..] => Some((code, false, text)),
        [b'-', text @ ..] => Some((code, true, text)),
        _ => None,
    }
}

/// What a server says, or is told, for people: printable, one line, not endless.
#[derive(Debug)]
pub(super) struct Shown<'a>(pub(super) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = self.0.get(..SHOWN_MAX).unwrap_or(self.0);
        for c in String::from_utf8_lossy(cut).trim_end().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        if cut.len() < self.0.len() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// Telnet doubles the byte 0xFF (RFC 854); in names it is one byte.
fn undouble_iac(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == 0xFF && bytes.peek() == Some(&0xFF) {
            bytes.next();
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first reply in `text`.
    pub(in crate::ftp) fn reply(text: &[u8]) -> Reply {
        let mut replies = Replies::default();
        replies.push(text);
        replies.next().unwrap().unwrap()
    }

    #[test]
    fn one_line() {
        let reply = reply(b"550 No such file\r\n");
        assert_eq!(
            (reply.code(), reply.first_line()),
            (550, &b"No such file"[..])
        );
        assert_eq!(reply.text(), "550 No such file");
        assert!(reply.body().is_empty());
    }

    #[test]
    fn only_its_own_code_and_a_space_end_a_reply() {
        let text =
            b"220-Welcome\r\n100 users\r\n220-more\r\n 220 indented\r\n220 ready\r\n200 next\r\n";
        let mut replies = Replies::default();
        replies.push(text);
        let reply = replies.next().unwrap().unwrap();
        assert_eq!(reply.body(), [&b"100 users"[..], b"more", b" 220 indented"]);
        assert_eq!(reply.lines().last().unwrap(), b"ready");
        assert!(!replies.is_empty());
        assert_eq!(replies.next().unwrap().unwrap().code(), 200);
        assert!(replies.is_empty());
    }

    #[test]
    fn bare_newlines_missing_text_and_stray_empty_lines_are_tolerated() {
        assert_eq!(reply(b"\r\n200\n").code(), 200);
        assert_eq!(reply(b"226-\n226\n").lines().len(), 2);
    }

    #[test]
    fn iac_is_undoubled() {
        assert_eq!(
            reply(b"257 \"a\xff\xff\xff\xffb\xff\"\r\n").first_line(),
            b"\"a\xff\xffb\xff\""
        );
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"2x0 hi\r\n",
            b"099 hi\r\n",
            b"2200 hi\r\n",
            b"\x16\x03\x01\n",
        ] {
            let mut replies = Replies::default();
            replies.push(bad);
            assert!(replies.next().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn endless_replies_are_refused() {
        let mut line = Replies::default();
        let mut lines = Replies::default();
        lines.push(b"211-\r\n");
        let (mut line_ended, mut lines_ended) = (false, false);
        for _ in 0..300 {
            line.push(&[b'2'; 1024]);
            lines.push(&b"211 x\r\n"[3..].repeat(256));
            line_ended |= line.next().is_err();
            lines_ended |= lines.next().is_err();
        }
        assert!(line_ended && lines_ended);
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let text = b"220-a\r\n1\r\n220 b\r\n331 c\r\n211-\r\n MLST x\r\n211 \r\n";
            let mut whole = Replies::default();
            whole.push(text);
            let mut pieces = Replies::default();
            let mut got = Vec::new();
            let mut rest = &text[..];
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                pieces.push(piece);
                while let Some(reply) = pieces.next().unwrap() {
                    got.push(reply);
                }
            }
            for reply in got {
                prop_assert_eq!(Some(reply), whole.next().unwrap());
            }
            prop_assert!(whole.is_empty());
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let mut replies = Replies::default();
            replies.push(&noise);
            while let Ok(Some(_)) = replies.next() {}
        }
    }
}
