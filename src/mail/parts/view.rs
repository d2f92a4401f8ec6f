//! What a file of parts contains, made while it is read.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;

use crate::mail::decode::{Base64, Charset, Lf, Quoted};
use crate::mail::fields::{HEADER_MAX, fields, text_of, without_end};
use crate::mail::filter::{Chain, Filter, Filtered, Plain};
use crate::mail::words;

/// How a stretch of a message is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub(super) range: Range<u64>,
    pub(super) how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// The fields, a line each, encoded words decoded.
    Header,
    /// Text in UTF-8 with LF.
    Text {
        encoding: String,
        charset: Option<String>,
    },
    /// The octets.
    File { encoding: String },
    /// Text made from parameters, and the range behind it.
    Described(String),
}

impl View {
    /// The bytes of this view, out of the message `stream`.
    ///
    /// # Errors
    /// Those of `stream`.
    pub fn over<'a, R: Read + Seek + Send + 'a>(
        &self,
        mut stream: R,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        stream.seek(SeekFrom::Start(self.range.start))?;
        let mut range = stream.take(self.range.end - self.range.start);
        Ok(match &self.how {
            How::Header => {
                let mut header = Vec::new();
                range.take(HEADER_MAX as u64).read_to_end(&mut header)?;
                Box::new(Cursor::new(header_text(&header)))
            }
            How::Text { encoding, charset } => {
                let text = Chain::new(Charset::new(charset.as_deref()), Lf::default());
                Box::new(Filtered::new(range, Chain::new(decoder(encoding), text)))
            }
            How::File { encoding } => match decoder(encoding) {
                None => Box::new(range),
                decoder => Box::new(Filtered::new(range, decoder)),
            },
            How::Described(text) => {
                let mut rest = Vec::new();
                range
                    .by_ref()
                    .take(HEADER_MAX as u64)
                    .read_to_end(&mut rest)?;
                let mut text = text.clone().into_bytes();
                text.extend_from_slice(&header_text(&rest));
                Box::new(Cursor::new(text))
            }
        })
    }

    /// How many bytes there are: found by making them, since nothing else is exact.
    ///
    /// # Errors
    /// Those of `stream`.
    pub fn size<R: Read + Seek + Send>(&self, stream: R) -> io::Result<u64> {
        if let How::File { encoding } = &self.how
            && decoder(encoding).is_none()
        {
            return Ok(self.range.end - self.range.start);
        }
        io::copy(&mut self.over(stream)?, &mut io::sink())
    }
}

/// The decoder of a `Content-Transfer-Encoding`; of one that nobody knows, none.
fn decoder(encoding: &str) -> Option<Box<dyn Filter + Send>> {
    match encoding {
        "base64" => Some(Box::<Base64>::default()),
        "quoted-printable" => Some(Box::<Quoted>::default()),
        _ => None,
    }
}

impl Filter for Option<Box<dyn Filter + Send>> {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match self {
            Some(filter) => filter.feed(input, out),
            None => Plain.feed(input, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(filter) = self {
            filter.finish(out);
        }
    }
}

/// A header as people read it.
pub(super) fn header_text(header: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for field in fields(header) {
        match field {
            Ok(field) => {
                text.push_str(field.name);
                text.push_str(": ");
                text.push_str(&words::decode(&field.unfolded()));
            }
            Err(line) => text.push_str(&text_of(without_end(line))),
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// One open file of parts: bytes at any offset, decoded from the start again if an offset is behind
/// the last one.
pub struct Reader<R> {
    view: View,
    open: Box<dyn Fn() -> io::Result<R> + Send>,
    at: u64,
    stream: Option<Box<dyn Read + Send>>,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({:?} at {})", self.view, self.at)
    }
}

impl<R: Read + Seek + Send + 'static> Reader<R> {
    /// Reads `view` of the message that `open` opens.
    pub fn new(view: View, open: impl Fn() -> io::Result<R> + Send + 'static) -> Self {
        Self {
            view,
            open: Box::new(open),
            at: 0,
            stream: None,
        }
    }

    /// Fills `buf` from `offset` on; less only at the end.
    ///
    /// # Errors
    /// Those of opening and reading the message.
    pub fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.stream.is_none() || offset < self.at {
            self.stream = Some(self.view.over((self.open)()?)?);
            self.at = 0;
        }
        let Some(stream) = &mut self.stream else {
            return Ok(0);
        };
        self.at += io::copy(&mut stream.by_ref().take(offset - self.at), &mut io::sink())?;
        let mut filled = 0;
        while let Some(rest @ [_, ..]) = buf.get_mut(filled..) {
            match stream.read(rest)? {
                0 => break,
                n => filled += n,
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }
}
