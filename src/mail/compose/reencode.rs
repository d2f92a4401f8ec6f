//! A message made fit for a server: without 8-bit octets for one without 8BITMIME, and in any case
//! without NUL and without lines over 998 octets. Only what must change does; the rest is copied.
//!
//! A signature over a part that must change breaks; the alternative is not to send it.

use std::io::{self, Write};
use std::ops::Range;

use super::leaf::Encoding;
use crate::mail::content::{Content, range};
use crate::mail::encode::{Crlf, WholeLines};
use crate::mail::fields::fields;
use crate::mail::filter::{Chain, pass};
use crate::mail::scan::{LINE_MAX, Scan};
use crate::mail::structure::{self, Kind, Part};
use crate::vfs::error::{Error, ErrorKind, Result};

/// What is to change in a message.
#[derive(Debug)]
pub(super) struct Rewriting {
    changes: Vec<Change>,
    /// Whether 8-bit octets remain.
    pub(super) eight_bit: bool,
}

#[derive(Debug)]
struct Change {
    part: Part,
    /// What `Content-Transfer-Encoding` says from now on.
    label: &'static str,
    /// How the body is encoded, if it is.
    encoding: Option<Encoding>,
}

/// Writes `message` without any 8-bit octet in a body, for a server that has no 8BITMIME (RFC 6152
/// section 3). Line ends become CRLF. Returns the size.
///
/// # Errors
/// [`ErrorKind::BadMessage`] where it cannot be done: parts nested too deep, message/partial.
pub fn to_seven_bit(message: &dyn Content, out: &mut dyn Write) -> Result<u64> {
    let rewriting = Rewriting::new(message, false)?;
    rewriting
        .write(message, out)
        .map_err(|err| Error::local("message", &err))
}

impl Rewriting {
    /// Finds out what must change; nothing of it if `eight_bit` octets are allowed and all is well.
    pub(super) fn new(message: &dyn Content, eight_bit: bool) -> Result<Self> {
        let failed = |err: io::Error| Error::local("message", &err);
        let parts = structure::read(message).map_err(failed)?;
        let mut rewriting = Self {
            changes: Vec::new(),
            eight_bit: false,
        };
        for gap in between_leaves(&parts) {
            let mut text = range(message, gap.start, gap.end - gap.start).map_err(failed)?;
            let scan = Scan::of(&mut text, None).map_err(failed)?;
            let fits = scan.longest_line <= LINE_MAX && !scan.nul;
            if !fits || scan.high > 0 && !eight_bit {
                let why =
                    "a NUL, a long line or an 8-bit octet outside of its parts cannot be sent";
                return Err(Error::new(ErrorKind::BadMessage, why));
            }
            rewriting.eight_bit |= scan.high > 0;
        }
        for part in parts {
            let len = part.body.end - part.body.start;
            let declared = part.encoding.as_str();
            if part.kind != Kind::Leaf {
                let label = match declared {
                    "8bit" | "binary" if !eight_bit => "7bit",
                    "binary" => "8bit",
                    _ => continue,
                };
                rewriting.changes.push(Change {
                    part,
                    label,
                    encoding: None,
                });
                continue;
            }
            let mut body = range(message, part.body.start, len).map_err(failed)?;
            let scan = Scan::of(&mut body, None).map_err(failed)?;
            let fits = scan.longest_line <= LINE_MAX && !scan.nul;
            if fits && (scan.high == 0 || eight_bit) {
                rewriting.eight_bit |= scan.high > 0;
                let label = match declared {
                    "binary" | "" | "7bit" if scan.high > 0 => "8bit",
                    "8bit" | "binary" if !eight_bit => "7bit",
                    "binary" => "7bit",
                    _ => continue,
                };
                // Mail without any MIME field is left without.
                if part.labelled || !declared.is_empty() {
                    rewriting.changes.push(Change {
                        part,
                        label,
                        encoding: None,
                    });
                }
                continue;
            }
            let composite = part.content_type.value.starts_with("multipart/")
                || part.is("message/rfc822")
                || part.is("message/partial");
            if composite || !matches!(declared, "" | "7bit" | "8bit" | "binary") {
                let why = "cannot be made fit for SMTP: long lines or 8-bit octets in a part that must not be encoded";
                return Err(Error::new(
                    ErrorKind::BadMessage,
                    format!("{}: {why}", part.content_type.value),
                ));
            }
            let encoding = Encoding::for_wire(&scan);
            rewriting.changes.push(Change {
                part,
                label: encoding.name(),
                encoding: Some(encoding),
            });
        }
        Ok(rewriting)
    }

    /// Copies `message` with its changes.
    pub(super) fn write(&self, message: &dyn Content, out: &mut dyn Write) -> io::Result<u64> {
        let mut at = 0;
        let mut size = 0;
        for change in &self.changes {
            let part = &change.part;
            size += copy(message, at, part.header.start - at, out)?;
            let mut header = Vec::new();
            for line in header_without_encoding(message, part)? {
                header.extend_from_slice(&line);
            }
            header.extend_from_slice(
                format!("Content-Transfer-Encoding: {}\r\n", change.label).as_bytes(),
            );
            size += pass(&mut header.as_slice(), &mut Crlf::default(), out)?;
            at = part.header.end;
            if part.body.start == at {
                // Neither an empty line nor a body.
                out.write_all(b"\r\n")?;
                size += 2;
            }
            if let Some(encoding) = change.encoding {
                size += copy(message, at, part.body.start - at, out)?;
                let mut body = range(message, part.body.start, part.body.end - part.body.start)?;
                let lines = part.content_type.value.starts_with("text/");
                size += pass(&mut body, &mut encoding.filter(lines), out)?;
                at = part.body.end;
            }
        }
        let mut rest = range(message, at, u64::MAX)?;
        size += pass(
            &mut rest,
            &mut Chain::new(Crlf::default(), WholeLines::default()),
            out,
        )?;
        Ok(size)
    }
}

fn copy(message: &dyn Content, start: u64, len: u64, out: &mut dyn Write) -> io::Result<u64> {
    let mut source = range(message, start, len)?;
    pass(&mut source, &mut Crlf::default(), out)
}

fn header_without_encoding(message: &dyn Content, part: &Part) -> io::Result<Vec<Vec<u8>>> {
    let mut header = Vec::new();
    let len = part.header.end - part.header.start;
    io::Read::read_to_end(&mut range(message, part.header.start, len)?, &mut header)?;
    let kept = fields(&header).filter_map(|field| match field {
        Ok(field) if field.is("Content-Transfer-Encoding") => None,
        Ok(field) => Some(whole_line(field.raw)),
        Err(line) => Some(whole_line(line)),
    });
    Ok(kept.collect())
}

fn whole_line(raw: &[u8]) -> Vec<u8> {
    let mut line = raw.to_vec();
    if !line.ends_with(b"\n") {
        line.extend_from_slice(b"\r\n");
    }
    line
}

/// What of a message's body is in no leaf: the headers of parts, and text before, between and
/// behind parts, which nobody is shown and SMTP carries all the same.
fn between_leaves(parts: &[Part]) -> Vec<Range<u64>> {
    let Some(whole) = parts.first() else {
        return Vec::new();
    };
    let mut at = whole.body.start;
    let mut gaps = Vec::new();
    for leaf in parts.iter().filter(|part| part.kind == Kind::Leaf) {
        gaps.push(at..leaf.body.start.max(at));
        at = at.max(leaf.body.end);
    }
    gaps.push(at..whole.body.end.max(at));
    gaps.retain(|gap| !gap.is_empty());
    gaps
}
