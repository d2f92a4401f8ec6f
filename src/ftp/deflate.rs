//! What flows in MODE Z: one zlib stream (RFC 1950) for each content or listing
//! (draft-preston-ftpext-deflate-04 section 3).
//!
//! Neither side holds more than one buffer, whatever the other sends: what unpacks to gigabytes
//! comes piece by piece, as it is asked for.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bytes of packed data that are held.
const BUFFER: usize = 64 << 10;

/// Packed bytes that may come to nothing: a peer could send empty blocks for ever.
const IDLE_MAX: u64 = 1 << 20;

/// What zlib itself takes by default: a slow link waits for no processor.
const LEVEL: u32 = 6;

/// Unpacks what comes.
#[derive(Debug)]
pub(super) struct Inflater {
    state: Decompress,
    input: Box<[u8]>,
    from: usize,
    to: usize,
    /// The end of the zlib stream was read, and its checksum was right.
    ended: bool,
    /// The last buffer was filled: there may be more without more input.
    full: bool,
    /// Packed bytes since the last unpacked one.
    idle: u64,
    /// The last unpacked byte, which is given away when another follows, or when the checksum was
    /// right: who knows the size would not wait for it.
    held: Option<u8>,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            state: Decompress::new(true),
            input: vec![0; BUFFER].into_boxed_slice(),
            from: 0,
            to: 0,
            ended: false,
            full: false,
            idle: 0,
            held: None,
        }
    }

    /// Reads unpacked bytes; `raw` reads packed ones. The last one only with the end of a stream
    /// whose checksum is right. 0 only at the end of a whole stream, or where
    /// not one byte came: some servers send nothing for nothing.
    ///
    /// # Errors
    /// Those of `raw`; `UnexpectedEof` for a stream that was cut short, `InvalidData` for one that is
    /// none.
    pub(super) fn read(
        &mut self,
        mut raw: impl FnMut(&mut [u8]) -> io::Result<usize>,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.ended && (self.from < self.to || self.full) {
                let unpacked = self.unpack(buf)?;
                let given = self.hold_back(buf, unpacked);
                if given > 0 {
                    return Ok(given);
                }
                continue;
            }
            if self.from < self.to {
                return Err(invalid("there is more behind the end of the packed data"));
            }
            if let (true, Some(last)) = (self.ended, self.held)
                && let Some(first) = buf.first_mut()
            {
                *first = last;
                self.held = None;
                return Ok(1);
            }
            self.from = 0;
            self.to = 0;
            self.to = raw(&mut self.input)?;
            if self.to == 0 {
                return match self.ended || self.state.total_in() == 0 {
                    true => Ok(0),
                    false => Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the packed data end too soon",
                    )),
                };
            }
        }
    }

    /// Puts what was held before the `unpacked` bytes of `buf`, and holds the last of them. How many
    /// are left.
    fn hold_back(&mut self, buf: &mut [u8], unpacked: usize) -> usize {
        let Some(last) = unpacked.checked_sub(1) else {
            return 0;
        };
        let newest = buf.get(last).copied();
        let Some(before) = std::mem::replace(&mut self.held, newest) else {
            return last;
        };
        buf.copy_within(..last, 1);
        if let Some(first) = buf.first_mut() {
            *first = before;
        }
        unpacked
    }

    fn unpack(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
        let input = self.input.get(self.from..self.to).unwrap_or_default();
        let status = self
            .state
            .decompress(input, buf, FlushDecompress::None)
            .map_err(|err| invalid(&format!("the packed data are damaged: {err}")))?;
        let taken = self.state.total_in() - before_in;
        let unpacked = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
        self.from += usize::try_from(taken).unwrap_or(0);
        self.ended = status == Status::StreamEnd;
        self.full = unpacked == buf.len();
        self.idle = if unpacked > 0 { 0 } else { self.idle + taken };
        let stuck = taken == 0 && unpacked == 0 && self.from < self.to && !self.ended;
        if stuck || self.idle > IDLE_MAX {
            return Err(invalid("the packed data come to nothing"));
        }
        Ok(unpacked)
    }
}

/// Packs what goes.
#[derive(Debug)]
pub(super) struct Deflater {
    state: Compress,
    output: Box<[u8]>,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self {
            state: Compress::new(Compression::new(LEVEL), true),
            output: vec![0; BUFFER].into_boxed_slice(),
        }
    }

    /// Packs all of `data`; `raw` is given what is to be sent by now.
    ///
    /// # Errors
    /// Those of `raw`.
    pub(super) fn write(
        &mut self,
        raw: impl FnMut(&[u8]) -> io::Result<()>,
        data: &[u8],
    ) -> io::Result<()> {
        self.pack(raw, data, FlushCompress::None)
    }

    /// Gives `raw` the rest.
    ///
    /// # Errors
    /// Those of `raw`.
    pub(super) fn finish(&mut self, raw: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.pack(raw, &[], FlushCompress::Finish)
    }

    fn pack(
        &mut self,
        mut raw: impl FnMut(&[u8]) -> io::Result<()>,
        mut data: &[u8],
        flush: FlushCompress,
    ) -> io::Result<()> {
        let ends = matches!(flush, FlushCompress::Finish);
        while ends || !data.is_empty() {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .compress(data, &mut self.output, flush)
                .map_err(|err| invalid(&format!("packing: {err}")))?;
            let taken = usize::try_from(self.state.total_in() - before_in).unwrap_or(0);
            let packed = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
            data = data.get(taken..).unwrap_or_default();
            raw(self.output.get(..packed).unwrap_or_default())?;
            if status == Status::StreamEnd {
                return Ok(());
            }
            if taken == 0 && packed == 0 {
                return Err(invalid("packing does not go on"));
            }
        }
        Ok(())
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// See `fuzzing`: whatever comes, reading ends, and gives no more than a little for each packed byte.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_inflater(packed: &[u8]) {
    use std::io::Read as _;
    // Deflate packs no better than 1 : 1032.
    let most = packed.len() as u64 * 1_040 + 1_040;
    let mut rest = packed;
    let mut inflater = Inflater::new();
    let mut buf = [0; 5_000];
    let mut total = 0;
    while let Ok(count @ 1..) = inflater.read(|buf| rest.read(buf), &mut buf) {
        total += count as u64;
        assert!(total <= most, "{total} of {}", packed.len());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn packed(data: &[u8], piece: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut deflater = Deflater::new();
        let mut send = |bytes: &[u8]| {
            sent.extend_from_slice(bytes);
            Ok(())
        };
        for part in data.chunks(piece) {
            deflater.write(&mut send, part).unwrap();
        }
        deflater.finish(&mut send).unwrap();
        sent
    }

    /// Comes in pieces of up to `piece` bytes and is read in those of `buffer`.
    fn unpacked(mut packed: &[u8], piece: usize, buffer: usize) -> io::Result<Vec<u8>> {
        let mut inflater = Inflater::new();
        let mut all = Vec::new();
        let mut buf = vec![0; buffer];
        loop {
            let raw = |buf: &mut [u8]| {
                let most = buf.len().min(piece);
                packed.read(&mut buf[..most])
            };
            match inflater.read(raw, &mut buf)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&buf[..count]),
            }
        }
    }

    /// RFC 1950 section 8.2.
    fn adler(bytes: &[u8]) -> (u32, u32) {
        bytes.iter().fold((1, 0), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_was_packed_is_unpacked(
            data in prop::collection::vec(0..4_u8, 0..40_000),
            pieces in (1..5_000_usize, 1..5_000_usize, 1..5_000_usize),
        ) {
            let sent = packed(&data, pieces.0);
            prop_assert_eq!(unpacked(&sent, pieces.1, pieces.2).unwrap(), data);
        }

        /// A cut shows, wherever it is.
        #[test]
        fn what_was_cut_is_no_end(
            data in prop::collection::vec(any::<u8>(), 1..9_000),
            at in any::<prop::sample::Index>(),
        ) {
            let sent = packed(&data, 1_000);
            let cut = 1 + at.index(sent.len() - 1);
            let err = unpacked(&sent[..cut], 700, 900).unwrap_err();
            prop_assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
        }

        /// One byte that is another is an error, or, in the header, nothing: never a content with
        /// another checksum. (One with the same is rare, and cannot be told.)
        #[test]
        fn what_was_damaged_is_no_content(
            data in prop::collection::vec(0..9_u8, 1..9_000),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut sent = packed(&data, 1_000);
            let at = at.index(sent.len());
            sent[at] ^= flip;
            if let Ok(found) = unpacked(&sent, 700, 900) {
                prop_assert_eq!(adler(&found), adler(&data));
            }
        }

        /// Damage is never told behind the whole content, however it comes.
        #[test]
        fn the_last_byte_waits_for_the_checksum(
            data in prop::collection::vec(0..9_u8, 1..900),
            piece in 1..300_usize,
            buffer in 1..1000_usize,
        ) {
            let mut sent = packed(&data, 1_000);
            *sent.last_mut().unwrap() ^= 1;
            let mut packed = sent.as_slice();
            let mut raw = |buf: &mut [u8]| {
                let most = buf.len().min(piece);
                packed.read(&mut buf[..most])
            };
            let (mut inflater, mut buf, mut given) = (Inflater::new(), vec![0; buffer], 0);
            while let Ok(count) = inflater.read(&mut raw, &mut buf) {
                given += count;
                prop_assert!(count > 0 && given < data.len(), "{} of {}", given, data.len());
            }
        }

        #[test]
        fn garbage_ends(garbage in prop::collection::vec(any::<u8>(), 0..4_000)) {
            fuzz_inflater(&garbage);
            fuzz_inflater(&[&[0x78, 0x9c], garbage.as_slice()].concat());
        }
    }

    #[test]
    fn nothing_is_an_empty_content_and_more_than_the_end_is_an_error() {
        assert!(unpacked(&[], 9, 9).unwrap().is_empty());
        assert!(unpacked(&packed(&[], 9), 9, 9).unwrap().is_empty());
        let more = [packed(b"abc", 9), b"x".to_vec()].concat();
        let err = unpacked(&more, 100, 100).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
    }

    /// A hundred megabytes of zeros are a hundred kilobytes on the way, and one buffer here.
    #[test]
    fn a_bomb_comes_piece_by_piece() {
        let bomb = packed(&vec![0; 100 << 20], 1 << 20);
        assert!(bomb.len() < 200_000);
        let mut rest = bomb.as_slice();
        let mut inflater = Inflater::new();
        let mut buf = vec![0; 100_000];
        let mut total = 0;
        loop {
            let count = inflater.read(|buf| rest.read(buf), &mut buf).unwrap();
            total += count;
            if count == 0 {
                break;
            }
        }
        assert_eq!(total, 100 << 20);
    }

    #[test]
    fn empty_blocks_without_end_are_given_up() {
        let block = [0, 0, 0, 0xff, 0xff];
        let mut sent = 0;
        let endless = |buf: &mut [u8]| {
            if sent == 0 {
                sent = 2;
                buf[..2].copy_from_slice(&[0x78, 0x9c]);
                return Ok(2);
            }
            let whole = buf.len() / 5 * 5;
            for place in buf[..whole].chunks_mut(5) {
                place.copy_from_slice(&block);
            }
            sent += whole;
            Ok(whole)
        };
        let err = Inflater::new().read(endless, &mut [0; 100]).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
    }
}
