//! The index of the block cache: a log of what lies where, of which a torn end is left out.
//!
//! A record is its length, a checksum, and a body. Data is written before the record that tells of
//! it, and the record has the checksum of each block: whatever a crash or a bad disk left, a block
//! that is not what was written is never taken for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::print::{PathKey, Print};

const MAGIC: &[u8; 8] = b"ferryfs\x01";
const NAME: &str = "index";

/// The longest body that is believed: a run of blocks is never longer.
const LONGEST: usize = 1 << 20;

/// Most checksums in one record.
const RUN: usize = 4096;

/// What the log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// There is a version, whose blocks are in the data file `id`.
    Version {
        id: u64,
        key: PathKey,
        print: Print,
        /// When its data began to be fetched, seconds since 1970.
        seen: i64,
        /// When it was last opened.
        used: i64,
        /// The directories it is in.
        above: Box<[u64]>,
    },
    /// Blocks from number `first` on, with their checksums.
    Blocks { id: u64, first: u64, sums: Vec<u32> },
    /// The version is no more.
    Gone { id: u64 },
}

/// The log, open to be added to.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    /// Bytes.
    pub(super) len: u64,
}

impl Index {
    /// Everything that the log in `dir` tells, up to where it makes no sense.
    pub(super) fn load(dir: &Path) -> io::Result<Vec<Record>> {
        let bytes = match std::fs::read(dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(err),
        };
        let mut records = Vec::new();
        let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
        while let Some((record, behind)) = decode(rest) {
            records.push(record);
            rest = behind;
        }
        Ok(records)
    }

    /// Replaces the log in `dir` by one with `records`, in one step.
    pub(super) fn write(dir: &Path, records: impl Iterator<Item = Record>) -> io::Result<Self> {
        let new = dir.join(format!("{NAME}.new"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        let mut bytes = MAGIC.to_vec();
        let mut len = 0;
        for record in records {
            encode(&record, &mut bytes);
            if bytes.len() >= LONGEST {
                file.write_all(&bytes)?;
                len += bytes.len() as u64;
                bytes.clear();
            }
        }
        file.write_all(&bytes)?;
        len += bytes.len() as u64;
        std::fs::rename(&new, dir.join(NAME))?;
        Ok(Self { file, len })
    }

    /// Adds `records`, all or, after a crash, the first of them.
    pub(super) fn add(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            encode(record, &mut bytes);
        }
        // A short write would hide everything that comes behind it.
        match self.file.write_all(&bytes) {
            Ok(()) => self.len += bytes.len() as u64,
            Err(err) => {
                self.file.set_len(self.len)?;
                io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.len))?;
                return Err(err);
            }
        }
        Ok(())
    }

    /// The names that do not belong to data.
    pub(super) fn files(dir: &Path) -> [PathBuf; 2] {
        [dir.join(NAME), dir.join(format!("{NAME}.new"))]
    }
}

/// `sums` of blocks from number `first` on, in records that are not too long.
pub(super) fn runs(id: u64, first: u64, sums: &[u32]) -> impl Iterator<Item = Record> + '_ {
    sums.chunks(RUN)
        .zip(0..)
        .map(move |(sums, nth)| Record::Blocks {
            id,
            first: first + nth * RUN as u64,
            sums: sums.to_vec(),
        })
}

fn encode(record: &Record, into: &mut Vec<u8>) {
    let mut body = Vec::new();
    match record {
        Record::Version {
            id,
            key,
            print,
            seen,
            used,
            above,
        } => {
            body.push(b'V');
            body.extend(id.to_le_bytes());
            body.extend(key);
            body.extend(print.size.to_le_bytes());
            body.extend(print.mtime.to_le_bytes());
            body.push(u8::from(print.exact));
            body.extend(print.unique.to_le_bytes());
            body.extend(seen.to_le_bytes());
            body.extend(used.to_le_bytes());
            body.extend(above.iter().flat_map(|dir| dir.to_le_bytes()));
        }
        Record::Blocks { id, first, sums } => {
            body.push(b'B');
            body.extend(id.to_le_bytes());
            body.extend(first.to_le_bytes());
            body.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
        }
        Record::Gone { id } => {
            body.push(b'G');
            body.extend(id.to_le_bytes());
        }
    }
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    into.extend(len.to_le_bytes());
    into.extend(crc32fast::hash(&body).to_le_bytes());
    into.extend(body);
}

fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (body, behind) = rest.split_at_checked(len.min(LONGEST))?;
    if body.len() != len || crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((parse(body)?, behind))
}

fn parse(body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let (id, rest) = number(rest)?;
    match kind {
        b'V' => {
            let (key, rest) = rest.split_first_chunk()?;
            let (size, rest) = number(rest)?;
            let (mtime, rest) = number(rest)?;
            let (exact, rest) = rest.split_first()?;
            let (unique, rest) = number(rest)?;
            let (seen, rest) = number(rest)?;
            let (used, rest) = number(rest)?;
            // An earlier ferryfs told of none.
            let (above, _) = rest.as_chunks();
            let above = above.iter().map(|dir| u64::from_le_bytes(*dir)).collect();
            Some(Record::Version {
                id,
                key: *key,
                print: Print {
                    size,
                    mtime: mtime.cast_signed(),
                    exact: *exact != 0,
                    unique,
                },
                seen: seen.cast_signed(),
                used: used.cast_signed(),
                above,
            })
        }
        b'B' => {
            let (first, rest) = number(rest)?;
            let (sums, _) = rest.as_chunks();
            let sums = sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
            Some(Record::Blocks { id, first, sums })
        }
        b'G' => Some(Record::Gone { id }),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let print = Print {
            size: 100_000,
            mtime: -5,
            exact: true,
            unique: 7,
        };
        let version = Record::Version {
            id: 3,
            key: [9; 16],
            print,
            seen: 1_700_000_000,
            used: 1_700_000_001,
            above: Box::new([5, 6]),
        };
        let blocks = Record::Blocks {
            id: 3,
            first: 1,
            sums: vec![1, u32::MAX],
        };
        vec![version, blocks, Record::Gone { id: 2 }]
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let all = records();
        let mut index = Index::write(temp.path(), all.clone().into_iter().take(1)).unwrap();
        index.add(&all[1..]).unwrap();
        assert_eq!(Index::load(temp.path()).unwrap(), all);
        let path = temp.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len() as u64, index.len);
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let read = Index::load(temp.path()).unwrap();
            assert!(read.len() < all.len() && all.starts_with(&read), "{len}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let read = Index::load(temp.path()).unwrap();
            assert!(read.len() < all.len() && all.starts_with(&read), "{at}");
        }
    }
}
