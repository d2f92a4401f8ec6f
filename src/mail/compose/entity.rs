//! A tree of contents: leaves and multiparts (RFC 2046 section 5.1).

use std::io::{self, Write};

use super::fields::Header;
use super::leaf::{Encoding, Leaf};

/// A leaf or a multipart.
pub(super) enum Entity<'a> {
    Leaf(Leaf<'a>),
    /// `multipart/SUBTYPE`.
    Multi(&'static str, Vec<Self>),
}

impl Entity<'_> {
    /// Whether there are 8-bit octets in it as they are.
    pub(super) fn eight_bit(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.encoding == Encoding::EightBit,
            Self::Multi(_, parts) => parts.iter().any(Self::eight_bit),
        }
    }

    /// Its `Content-` fields. Boundaries are `boundary` and the depth, so that none is the beginning
    /// of another.
    pub(super) fn header(&self, boundary: &str, depth: u8, header: &mut Header) {
        match self {
            Self::Leaf(leaf) => leaf.header(header),
            Self::Multi(subtype, _) => {
                header.ready(
                    "Content-Type",
                    &format!("multipart/{subtype};\r\n boundary=\"{boundary}-{depth}\""),
                );
                let encoding = if self.eight_bit() {
                    Encoding::EightBit
                } else {
                    Encoding::SevenBit
                };
                header.ready("Content-Transfer-Encoding", encoding.name());
            }
        }
    }

    /// Its body. At depth 0 its last line has an end.
    pub(super) fn write(&self, boundary: &str, depth: u8, out: &mut dyn Write) -> io::Result<()> {
        let parts = match self {
            Self::Leaf(leaf) => return leaf.write(depth == 0, out).map(drop),
            Self::Multi(_, parts) => parts,
        };
        for part in parts {
            let mut header = Header::default();
            part.header(boundary, depth + 1, &mut header);
            write!(out, "--{boundary}-{depth}\r\n")?;
            out.write_all(&header.0)?;
            out.write_all(b"\r\n")?;
            part.write(boundary, depth + 1, out)?;
            out.write_all(b"\r\n")?;
        }
        write!(out, "--{boundary}-{depth}--")?;
        if depth == 0 {
            out.write_all(b"\r\n")
        } else {
            Ok(())
        }
    }
}
