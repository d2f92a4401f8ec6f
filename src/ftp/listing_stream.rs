//! Reading a listing off its data connection: in blocks of whole lines, and never without bounds.

use std::io::{self, Read};

use crate::net;
use crate::vfs::error::{Error, ErrorKind, Result};

/// All of one listing, in bytes; a million entries have about half of it.
const LISTING_MAX: u64 = 256 << 20;

/// Entries of one directory.
pub(super) const ENTRIES_MAX: usize = 1_000_000;

/// One line. A path on Linux has 4 KiB at most, and a link's line has two.
const LINE_MAX: usize = 8 << 10;

/// What is parsed at a time, and so held twice. All but the largest directories are one block,
/// which matters to formats that the parser recognises by looking at several lines.
const BLOCK: usize = 4 << 20;

/// What there was to say of a listing's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines {
    /// Lines that were too long to be one and were left out.
    pub(super) dropped: usize,
    /// The last one had no end, as when a connection is cut in mid-line.
    pub(super) cut: bool,
}

/// Reads to the end and gives whole lines to `each`, many at a time, line ends included.
///
/// # Errors
/// Those of the connection; `Protocol` for a listing without end; what `each` says.
pub(super) fn read_blocks(
    data: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Lines> {
    let mut block = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    let mut total = 0;
    let mut line_start = 0;
    let mut dropped = 0;
    let mut dropping = false;
    loop {
        let count = match data.read(&mut chunk) {
            Ok(count) => count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(net::failure("listing", &err)),
        };
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > LISTING_MAX {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the listing has more than {LISTING_MAX} bytes"),
            ));
        }
        for piece in chunk
            .get(..count)
            .unwrap_or_default()
            .split_inclusive(|b| *b == b'\n')
        {
            let ends = piece.ends_with(b"\n");
            if dropping {
                dropping = !ends;
                continue;
            }
            block.extend_from_slice(piece);
            if block.len() - line_start > LINE_MAX {
                block.truncate(line_start);
                dropped += 1;
                dropping = !ends;
            } else if ends {
                line_start = block.len();
            }
        }
        if line_start >= BLOCK {
            each(block.get(..line_start).unwrap_or_default())?;
            block.drain(..line_start);
            line_start = 0;
        }
    }
    let cut = dropping || line_start < block.len();
    if !block.is_empty() {
        each(&block)?;
    }
    Ok(Lines { dropped, cut })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn blocks(bytes: &[u8]) -> (Vec<Vec<u8>>, Lines) {
        let mut got = Vec::new();
        let mut reader = bytes;
        let dropped = read_blocks(&mut reader, |block| {
            got.push(block.to_vec());
            Ok(())
        });
        (got, dropped.unwrap())
    }

    const fn lines(dropped: usize, cut: bool) -> Lines {
        Lines { dropped, cut }
    }

    #[test]
    fn lines_are_never_cut() {
        let line = [b"x".repeat(999).as_slice(), b"\n"].concat();
        let text = line.repeat(9_000);
        let (got, dropped) = blocks(&text);
        assert!(got.len() > 1 && dropped == lines(0, false));
        assert!(got.iter().all(|block| block.len() % 1_000 == 0));
        assert_eq!(got.concat(), text);
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        assert_eq!(
            blocks(b"a\r\nb"),
            (vec![b"a\r\nb".to_vec()], lines(0, true))
        );
        assert_eq!(blocks(b""), (vec![], lines(0, false)));
    }

    #[test]
    fn an_endless_line_costs_no_memory_and_no_neighbour() {
        let text = [
            b"a\n".as_slice(),
            &b"x".repeat(1 << 20),
            b"\nb\n",
            &b"y".repeat(9_000),
        ]
        .concat();
        assert_eq!(blocks(&text), (vec![b"a\nb\n".to_vec()], lines(2, true)));
    }

    #[test]
    fn an_endless_listing_ends() {
        let mut endless = io::repeat(b'\n');
        let err = read_blocks(&mut endless, |_| Ok(())).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Protocol);
    }
}
