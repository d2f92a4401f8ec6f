//! The blocks of one version of a file.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use super::BLOCK;
use super::data_file::DataFile;
use super::print::{PathKey, Print};
use crate::sync::Locked;
use crate::vfs::chunk::Chunk;

/// Blocks in a page.
const PAGE: usize = 16;

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Block {
    #[default]
    Absent,
    /// An earlier mount wrote it; nobody has looked whether it is still what was written.
    Told(u32),
    /// It is what was written.
    Good(u32),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) key: PathKey,
    pub(super) print: Print,
    /// The directories it is in, see [`above`](super::print::above); none if that is not known.
    pub(super) above: Box<[u64]>,
    /// When its data began to be fetched, seconds since 1970.
    pub(super) seen: i64,
    /// Until when it is good although a change may not show in its time stamp. It is never written.
    pub(super) volatile: Option<Instant>,
    /// Order of use, and seconds since 1970.
    pub(super) turn: AtomicU64,
    pub(super) used: AtomicI64,
    /// Bytes on disk that are counted for it; changed with the table's lock held.
    pub(super) charged: AtomicU64,
    /// Evicted, or another version took its place: nothing is added any more.
    gone: AtomicBool,
    held: Locked<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// By number of page; a page is a run of blocks, so that a byte at the end of a huge file does
    /// not cost memory for all before it.
    pages: BTreeMap<u64, [Block; PAGE]>,
    present: u64,
    good: u64,
    /// Whether the log has its first record.
    logged: bool,
    /// In memory, on its way to the disk.
    coming: Vec<(u64, Chunk)>,
    /// The whole content in memory.
    whole: Option<Chunk>,
    left_out: LeftOut,
}

/// What was read from the server, and for which there was no room.
#[derive(Debug, Default)]
struct LeftOut {
    /// All of it lies in there.
    span: Option<Range<u64>>,
    bytes: u64,
    /// Some of it came as fast as from a disk.
    fast: bool,
}

impl Entry {
    pub(super) fn new(id: u64, key: PathKey, print: Print, seen: i64) -> Self {
        Self {
            id,
            key,
            print,
            above: Box::default(),
            seen,
            volatile: None,
            turn: AtomicU64::new(0),
            used: AtomicI64::new(seen),
            charged: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            held: Locked::default(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Bytes on disk that are counted for it.
    pub(super) fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// Whether all of it is here, on disk or in memory.
    pub(super) fn is_complete(&self) -> bool {
        let all = block_count(self.print.size);
        self.held
            .with(|held| held.whole.is_some() || held.present == all)
    }

    /// Whether all of it is on disk and known to be good.
    pub(super) fn is_good(&self) -> bool {
        let all = block_count(self.print.size);
        all > 0 && self.held.with(|held| held.good == all)
    }

    /// Bytes on disk that an earlier mount wrote, and nobody has looked at.
    pub(super) fn told(&self) -> u64 {
        let blocks = self.held.with(|held| held.present - held.good);
        (blocks * BLOCK).min(self.print.size)
    }

    /// Whether the byte at `offset` is here.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.held.with(|held| {
            held.whole.is_some()
                || held.in_memory(offset).is_some()
                || held.block(offset / BLOCK) != Block::Absent
        })
    }

    /// Whether the byte at `offset` is on disk, and so there is a file to read it from.
    pub(super) fn is_on_disk(&self, offset: u64) -> bool {
        self.held
            .with(|held| held.block(offset / BLOCK) != Block::Absent)
    }

    /// How many of the `most` bytes from `offset` on are here in one piece.
    pub(super) fn run(&self, offset: u64, most: u64) -> u64 {
        let end = offset.saturating_add(most).min(self.print.size);
        self.held.with(|held| {
            if held.whole.is_some() {
                return end.saturating_sub(offset);
            }
            let here =
                |n: &u64| held.block(*n) != Block::Absent || held.in_memory(n * BLOCK).is_some();
            let mut numbers = offset / BLOCK..end.div_ceil(BLOCK);
            let until = numbers.find(|n| !here(n)).map_or(end, |n| n * BLOCK);
            until.min(end).saturating_sub(offset)
        })
    }

    /// The bytes from `offset` on that are in memory in one piece; never waits for the disk.
    pub(super) fn memory(&self, offset: u64) -> Option<Chunk> {
        self.held.with(|held| match &held.whole {
            Some(whole) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = whole.part(from, usize::MAX);
                (!part.is_empty()).then_some(part)
            }
            None => held.in_memory(offset),
        })
    }

    pub(super) fn set_whole(&self, whole: Option<Chunk>) {
        self.held.with(|held| held.whole = whole);
    }

    /// There was no room for what lies at `place`, which came `fast` or not.
    pub(super) fn leave_out(&self, place: Range<u64>, fast: bool) {
        self.held.with(|held| {
            let left_out = &mut held.left_out;
            left_out.fast |= fast;
            left_out.bytes += place.end - place.start;
            let span = left_out.span.get_or_insert_with(|| place.clone());
            *span = span.start.min(place.start)..span.end.max(place.end);
        });
    }

    /// Where that lies and how much it is, if it came fast.
    pub(super) fn left_out(&self) -> Option<(Range<u64>, u64)> {
        self.held.with(|held| {
            let left_out = &held.left_out;
            let span = left_out.span.clone().filter(|_| left_out.fast)?;
            Some((span, left_out.bytes))
        })
    }

    /// How many bytes of `place`, whole blocks, are not here.
    pub(super) fn missing(&self, place: &Range<u64>) -> u64 {
        let end = place.end.min(self.print.size);
        self.held.with(|held| {
            let absent = (place.start / BLOCK..end.div_ceil(BLOCK))
                .filter(|n| held.block(*n) == Block::Absent && held.in_memory(n * BLOCK).is_none());
            absent.map(|n| end.min((n + 1) * BLOCK) - n * BLOCK).sum()
        })
    }

    /// `chunk` is on its way to the disk.
    pub(super) fn comes(&self, offset: u64, chunk: Chunk) {
        self.held.with(|held| held.coming.push((offset, chunk)));
    }

    /// It is there, or will never be.
    pub(super) fn came(&self, offset: u64) {
        self.held.with(|held| {
            if let Some(at) = held.coming.iter().position(|(o, _)| *o == offset) {
                held.coming.swap_remove(at);
            }
        });
    }

    /// The first run of blocks of `blocks` that are not on disk.
    pub(super) fn absent(&self, blocks: Range<u64>) -> Range<u64> {
        self.held.with(|held| {
            let absent = |n: &u64| held.block(*n) == Block::Absent;
            let end = blocks.end;
            let first = blocks.clone().find(absent).unwrap_or(end);
            let until = (first..end).find(|n| !absent(n)).unwrap_or(end);
            first..until
        })
    }

    /// Notes blocks that were written, or that the log tells of (`good` is false).
    pub(super) fn note(&self, first: u64, sums: &[u32], good: bool) {
        let all = block_count(self.print.size);
        self.held.with(|held| {
            for (number, sum) in (first..all).zip(sums) {
                held.set(
                    number,
                    if good {
                        Block::Good(*sum)
                    } else {
                        Block::Told(*sum)
                    },
                );
            }
        });
    }

    /// Whether the log must still be told of this version; it is from now on.
    pub(super) fn log_first(&self) -> bool {
        self.held
            .with(|held| !std::mem::replace(&mut held.logged, true))
    }

    /// Blocks on disk, as runs of checksums.
    pub(super) fn runs(&self) -> Vec<(u64, Vec<u32>)> {
        let mut runs: Vec<(u64, Vec<u32>)> = Vec::new();
        self.held.with(|held| {
            let numbered = held
                .pages
                .iter()
                .flat_map(|(page, blocks)| (page * PAGE as u64..).zip(blocks));
            for (number, block) in numbered {
                let (Block::Told(sum) | Block::Good(sum)) = block else {
                    continue;
                };
                match runs.last_mut() {
                    Some((first, sums)) if *first + sums.len() as u64 == number => sums.push(*sum),
                    _ => runs.push((number, vec![*sum])),
                }
            }
        });
        runs
    }

    /// Forgets every block, as the data file is not what it should be.
    pub(super) fn forget(&self) {
        self.held.with(|held| {
            held.pages.clear();
            (held.present, held.good) = (0, 0);
        });
    }

    /// Reads from `offset` what is on disk in one piece, with `read`; 0 if nothing. `file` has the
    /// data.
    pub(super) fn read_disk(
        &self,
        file: &DataFile,
        offset: u64,
        buf: &mut [u8],
        read: impl FnOnce(&DataFile, u64, &mut [u8]) -> io::Result<()>,
    ) -> usize {
        let size = self.print.size;
        let len = buf.len() as u64;
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return 0;
        }
        let (until, good) = self.held.with(|held| {
            let last = end.div_ceil(BLOCK);
            let mut numbers = offset / BLOCK..last;
            let until = numbers.find(|n| held.block(*n) == Block::Absent);
            let until = until.unwrap_or(last);
            let good = (offset / BLOCK..until).all(|n| matches!(held.block(n), Block::Good(_)));
            (until, good)
        });
        let end = end.min(until * BLOCK);
        if end <= offset {
            return 0;
        }
        let count = usize::try_from(end - offset).unwrap_or(0);
        let wanted = buf.get_mut(..count).unwrap_or_default();
        let aligned = offset.is_multiple_of(BLOCK) && (end.is_multiple_of(BLOCK) || end == size);
        if good || aligned {
            if read(file, offset, wanted).is_err() {
                self.forget();
                return 0;
            }
            return if good {
                count
            } else {
                self.verify(offset, wanted)
            };
        }
        self.read_block(file, offset, wanted)
    }

    /// A part of one block that must be looked at as a whole.
    fn read_block(&self, file: &DataFile, offset: u64, wanted: &mut [u8]) -> usize {
        let begin = offset - offset % BLOCK;
        let end = (begin + BLOCK).min(self.print.size);
        let mut block = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        if file.read(begin, &mut block).is_err() {
            self.forget();
            return 0;
        }
        if self.verify(begin, &block) == 0 {
            return 0;
        }
        let from = usize::try_from(offset - begin).unwrap_or(usize::MAX);
        let part = block.get(from..).unwrap_or_default();
        let count = part.len().min(wanted.len());
        let pairs = (wanted.get_mut(..count), part.get(..count));
        if let (Some(to), Some(from)) = pairs {
            to.copy_from_slice(from);
        }
        count
    }

    /// How many of these bytes, whole blocks from `offset` on, are what was written.
    fn verify(&self, offset: u64, bytes: &[u8]) -> usize {
        let first = offset / BLOCK;
        let step = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        let mut good = 0;
        for (number, block) in (first..).zip(bytes.chunks(step)) {
            let told = self.held.with(|held| held.block(number));
            // Even of a good one: it may have been written anew since these bytes were read.
            let intact = match told {
                Block::Good(sum) | Block::Told(sum) => crc32fast::hash(block) == sum,
                Block::Absent => false,
            };
            self.held.with(|held| match told {
                Block::Told(sum) if intact => held.set(number, Block::Good(sum)),
                Block::Told(_) => held.set(number, Block::Absent),
                _ => {}
            });
            if !intact {
                log::warn!("a block in the cache is damaged; it is fetched again");
                break;
            }
            good += block.len();
        }
        good
    }
}

impl Held {
    fn block(&self, number: u64) -> Block {
        let (page, at) = place(number);
        let found = self.pages.get(&page).and_then(|blocks| blocks.get(at));
        found.copied().unwrap_or_default()
    }

    fn set(&mut self, number: u64, block: Block) {
        let (page, at) = place(number);
        let blocks = self.pages.entry(page).or_default();
        let Some(place) = blocks.get_mut(at) else {
            return;
        };
        let before = std::mem::replace(place, block);
        let count = |block: Block| {
            let good = matches!(block, Block::Good(_));
            (u64::from(block != Block::Absent), u64::from(good))
        };
        let ((was, was_good), (is, is_good)) = (count(before), count(block));
        self.present = self.present + is - was;
        self.good = self.good + is_good - was_good;
    }

    fn in_memory(&self, offset: u64) -> Option<Chunk> {
        self.coming.iter().find_map(|(begin, chunk)| {
            let from = usize::try_from(offset.checked_sub(*begin)?).ok()?;
            (from < chunk.len()).then(|| chunk.part(from, usize::MAX))
        })
    }
}

/// How many blocks a file of `size` bytes has.
pub(super) const fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// The page of a block, and its place there.
const fn place(number: u64) -> (u64, usize) {
    (number / PAGE as u64, (number % PAGE as u64) as usize)
}

/// What these blocks of a file of `size` bytes cost on disk at most, their place in the index
/// included.
pub(super) fn cost(blocks: &Range<u64>, size: u64) -> u64 {
    let data = (blocks.end * BLOCK)
        .min(size)
        .saturating_sub(blocks.start * BLOCK);
    data.next_multiple_of(4096) + (blocks.end - blocks.start) * 32
}

/// What a version costs beside its blocks: an inode, and its record in the index.
pub(super) const OVERHEAD: u64 = 4096;
