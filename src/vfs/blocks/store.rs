//! The table of versions: what is known of each, and who must go when room is needed.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::data_file::{DataFile, Writing};
use super::disk::{Disk, LOOK_AGAIN};
use super::entry::{Entry, OVERHEAD, block_count, cost};
use super::index::Record;
use super::print::{PathKey, Print, above, key_of, seconds, short_of};
use super::{BLOCK, CacheReport, FILES, Limits, VOLATILE};
use crate::sync::Locked;
use crate::vfs::attr::Attr;
use crate::vfs::chunk::Chunk;
use crate::vfs::path::RemotePath;

/// How long the disk is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Store {
    pub(super) limits: Limits,
    pub(super) disk: Option<Disk>,
    pub(super) table: Locked<Table>,
    trouble: Locked<Trouble>,
}

/// Why the disk is not used, and until when.
#[derive(Debug, Default)]
struct Trouble {
    line: Option<String>,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: HashMap<PathKey, Arc<Entry>>,
    /// Bytes on disk, what is being written included.
    pub(super) bytes: u64,
    pub(super) next: u64,
    pub(super) turn: u64,
    /// Whole contents in memory, the oldest first.
    whole: VecDeque<(PathKey, u64, usize)>,
    whole_bytes: usize,
}

impl Store {
    pub(super) fn off(limits: Limits, trouble: Option<String>) -> Self {
        Self {
            limits,
            disk: None,
            table: Locked::default(),
            trouble: Locked::new(Trouble {
                line: trouble,
                until: None,
            }),
        }
    }

    pub(super) const fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// See [`super::Blocks::version`].
    pub(super) fn version(&self, path: &RemotePath, attr: &Attr) -> Option<Arc<Entry>> {
        let print = Print::of(attr)?;
        let (key, now) = (key_of(path), seconds(SystemTime::now()));
        let (entry, old) = self.table.with(|table| {
            table.turn += 1;
            let turn = table.turn;
            let found = table.entries.get(&key).cloned();
            let (entry, old) = match found.filter(|entry| is_current(entry, &print)) {
                Some(entry) => (entry, None),
                None => {
                    let mut entry = Entry::new(table.next, key, print, now);
                    entry.above = above(path);
                    table.next += 1;
                    let settled = print.is_settled(now);
                    entry.volatile = (!settled).then(|| Instant::now() + VOLATILE);
                    let entry = Arc::new(entry);
                    (Arc::clone(&entry), table.entries.insert(key, entry))
                }
            };
            entry.turn.store(turn, Ordering::Relaxed);
            entry.used.store(now, Ordering::Relaxed);
            (entry, old)
        });
        if let Some(old) = old {
            self.left(&old);
        }
        self.limit_entries();
        Some(entry)
    }

    /// The version that `attr` describes, if anything is known of it.
    pub(super) fn find(&self, path: &RemotePath, attr: &Attr) -> Option<Arc<Entry>> {
        let (print, key) = (Print::of(attr)?, key_of(path));
        let found = self.table.with(|table| table.entries.get(&key).cloned());
        found.filter(|entry| is_current(entry, &print))
    }

    /// See [`super::Blocks::forget`].
    pub(super) fn forget(&self, path: &RemotePath) {
        let key = key_of(path);
        let gone = self.table.with(|table| table.entries.remove(&key));
        if let Some(entry) = gone {
            self.left(&entry);
        }
    }

    /// See [`super::Blocks::forget_below`].
    pub(super) fn forget_below(&self, dir: &RemotePath) {
        let dir = short_of(dir);
        let below = |entry: &&Arc<Entry>| entry.above.is_empty() || entry.above.contains(&dir);
        let below: Vec<_> = self
            .table
            .with(|table| table.entries.values().filter(below).cloned().collect());
        below.iter().for_each(|entry| self.evict(entry));
    }

    /// Keeps a whole content in memory, for which others make room.
    pub(super) fn remember(&self, entry: &Arc<Entry>, content: &Chunk) -> bool {
        let most = self.limits.memory;
        if content.len() > most {
            return false;
        }
        let forgotten = self.table.with(|table| {
            let mut forgotten = Vec::new();
            table.forget_whole(entry);
            table.whole_bytes += content.len();
            while table.whole_bytes > most
                && let Some((key, id, len)) = table.whole.pop_front()
            {
                table.whole_bytes -= len;
                let same = |there: &&Arc<Entry>| there.id == id;
                forgotten.extend(table.entries.get(&key).filter(same).cloned());
            }
            table.whole.push_back((entry.key, entry.id, content.len()));
            forgotten
        });
        forgotten.iter().for_each(|entry| entry.set_whole(None));
        entry.set_whole(Some(content.clone()));
        true
    }

    pub(super) fn has_memory(&self) -> bool {
        self.table.with(|table| !table.whole.is_empty())
    }

    /// Gives back the memory of whole contents that are on disk, or are not good any more.
    pub(super) fn leave_memory(&self) {
        let old = self.table.with(|table| {
            let whole = table.whole.iter();
            let entries = whole.filter_map(|(key, ..)| table.entries.get(key).cloned());
            entries.collect::<Vec<_>>()
        });
        for entry in old {
            let over = entry.volatile.is_some_and(|until| Instant::now() >= until);
            if over || entry.charged() > 0 {
                self.table.with(|table| table.forget_whole(&entry));
                entry.set_whole(None);
            }
        }
    }

    /// Writes the blocks of `chunk` that are not there yet. The writer's.
    pub(super) fn write(
        &self,
        entry: &Arc<Entry>,
        file: &Writing,
        offset: u64,
        chunk: &Chunk,
        around: bool,
    ) {
        let Some(disk) = &self.disk else { return };
        let size = entry.print.size;
        let end = offset + chunk.len() as u64;
        if !offset.is_multiple_of(BLOCK) || end > size {
            return;
        }
        let last = if end == size {
            block_count(size)
        } else {
            end / BLOCK
        };
        let mut next = offset / BLOCK;
        while next < last && !entry.is_gone() {
            let absent = entry.absent(next..last);
            if absent.is_empty() {
                return;
            }
            let begin = absent.start * BLOCK;
            let len = (absent.end * BLOCK).min(size) - begin;
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let part = chunk.part(place(begin - offset), place(len));
            if !self.reserve(disk, entry, &absent) {
                break;
            }
            if let Err(err) = disk.write(entry, file, absent.start, &part, around) {
                self.troubled(disk, &err);
                return;
            }
            next = absent.end;
        }
        // What went meanwhile left its file to us.
        if entry.is_gone() {
            let _ = fs::remove_file(disk.data(entry.id));
        }
        let len = disk
            .index
            .with(|index| index.as_ref().map_or(0, |index| index.len));
        if len > disk.longest_log.load(Ordering::Relaxed)
            && let Err(err) = self.rewrite(disk)
        {
            self.troubled(disk, &err);
        }
    }

    /// Makes room for `blocks` of `entry`, within the limit and the free space.
    fn reserve(&self, disk: &Disk, entry: &Entry, blocks: &Range<u64>) -> bool {
        let paused = |trouble: &mut Trouble| trouble.until.is_some_and(|t| Instant::now() < t);
        if self.trouble.with(paused) {
            return false;
        }
        let more = cost(blocks, entry.print.size) + OVERHEAD;
        if !disk.has_space(more) {
            // Others need the disk: ours is what must go.
            let used = self.table.with(|table| table.bytes);
            self.shrink(used.saturating_sub(LOOK_AGAIN));
            if !disk.has_space(more) {
                return false;
            }
        }
        self.charge(entry, blocks) || {
            // A little more than is needed, so that it is not done for each block.
            let limit = self.limits.bytes;
            self.shrink((limit - limit / 32).saturating_sub(more));
            self.charge(entry, blocks)
        }
    }

    fn charge(&self, entry: &Entry, blocks: &Range<u64>) -> bool {
        self.table.with(|table| {
            let first = if entry.charged() == 0 { OVERHEAD } else { 0 };
            let more = cost(blocks, entry.print.size) + first;
            let fits = table.bytes + more <= self.limits.bytes && !entry.is_gone();
            if fits {
                table.bytes += more;
                entry.charged.fetch_add(more, Ordering::Relaxed);
            }
            fits
        })
    }

    /// Evicts what was not used for longest, and is not open, until no more than `goal` bytes are
    /// taken.
    pub(super) fn shrink(&self, goal: u64) {
        let (bytes, mut entries) = self.table.with(|table| {
            let on_disk = table.entries.values().filter(|entry| entry.charged() > 0);
            (table.bytes, on_disk.cloned().collect::<Vec<_>>())
        });
        if bytes <= goal {
            return;
        }
        entries.sort_by_key(|entry| entry.turn.load(Ordering::Relaxed));
        for entry in entries {
            // The table and this list: nobody reads it.
            if Arc::strong_count(&entry) <= 2 {
                self.evict(&entry);
            }
            if self.table.with(|table| table.bytes) <= goal {
                return;
            }
        }
    }

    /// What nobody used for too long goes.
    pub(super) fn expire(&self) {
        let Some(age) = self.limits.age else { return };
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let oldest = seconds(SystemTime::now()).saturating_sub(age);
        let old = |entry: &&Arc<Entry>| entry.used.load(Ordering::Relaxed) < oldest;
        let old: Vec<_> = self
            .table
            .with(|table| table.entries.values().filter(old).cloned().collect());
        for entry in old {
            if Arc::strong_count(&entry) <= 2 {
                self.evict(&entry);
            }
        }
    }

    fn limit_entries(&self) {
        let surplus = self.table.with(|table| {
            if table.entries.len() <= FILES {
                return Vec::new();
            }
            let unused = |entry: &&Arc<Entry>| Arc::strong_count(entry) == 1;
            let mut unused: Vec<_> = table.entries.values().filter(unused).cloned().collect();
            unused.sort_by_key(|e| (e.charged() > 0, e.turn.load(Ordering::Relaxed)));
            unused.truncate(FILES / 8);
            unused
        });
        surplus.iter().for_each(|entry| self.evict(entry));
    }

    pub(super) fn evict(&self, entry: &Arc<Entry>) {
        self.table.with(|table| {
            let same = |there: &Arc<Entry>| Arc::ptr_eq(there, entry);
            if table.entries.get(&entry.key).is_some_and(same) {
                table.entries.remove(&entry.key);
            }
        });
        self.left(entry);
    }

    /// As [`evict`](Self::evict), but the data file becomes `to`, if it has a name and can.
    pub(super) fn give(&self, entry: &Arc<Entry>, to: &Path) {
        if let Some(disk) = self.disk.as_ref().filter(|_| !entry.is_gone())
            && let Err(err) = fs::rename(disk.data(entry.id), to)
        {
            log::debug!("{}: {err}", to.display());
        }
        entry.forget();
        self.evict(entry);
    }

    /// `entry` is not in the table any more.
    fn left(&self, entry: &Arc<Entry>) {
        entry.leave();
        entry.set_whole(None);
        let bytes = self.table.with(|table| {
            table.forget_whole(entry);
            let bytes = entry.charged.swap(0, Ordering::Relaxed);
            table.bytes = table.bytes.saturating_sub(bytes);
            bytes
        });
        if let Some(disk) = self.disk.as_ref().filter(|_| bytes > 0) {
            disk.log(&[Record::Gone { id: entry.id }]);
            let _ = fs::remove_file(disk.data(entry.id));
        }
    }

    /// The data file of a version, for who writes it.
    pub(super) fn open_write(&self, id: u64) -> Option<Writing> {
        let disk = self.disk.as_ref()?;
        let opened = disk.open_data(id, true);
        let file = opened.inspect_err(|err| self.troubled(disk, err)).ok()?;
        Some(Writing::new(file, disk.open_direct(id, true).ok()))
    }

    /// The data file of a version, for its readers.
    pub(super) fn open_read(&self, entry: &Entry) -> Option<DataFile> {
        let disk = self.disk.as_ref()?;
        let file = match disk.open_data(entry.id, false) {
            Ok(file) => file,
            // The file went with its version, which has another name by now, or somebody removed it:
            // the disk is as good as before.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                entry.forget();
                return None;
            }
            Err(err) => {
                self.troubled(disk, &err);
                return None;
            }
        };
        let around = || {
            Some((
                disk.open_direct(entry.id, false).ok()?,
                disk.open_data(entry.id, false).ok()?,
            ))
        };
        Some(DataFile::new(file, around()))
    }

    /// The disk is full or broken: a line in the report, and no more of it for a while.
    fn troubled(&self, disk: &Disk, err: &io::Error) {
        disk.allowance.store(0, Ordering::Relaxed);
        let line = format!("{}: {err}", disk.dir.display());
        let news = self.trouble.with(|trouble| {
            trouble.until = Some(Instant::now() + PAUSE);
            let news = trouble.line.as_deref() != Some(&line);
            trouble.line = Some(line.clone());
            news
        });
        if news {
            log::warn!("the cache: {line}");
        }
    }

    pub(super) fn report(&self) -> CacheReport {
        let (files, bytes) = self.table.with(|table| {
            let filled = table.entries.values().filter(|entry| entry.charged() > 0);
            (filled.count(), table.bytes)
        });
        CacheReport {
            dir: self.disk.as_ref().map(|disk| disk.dir.clone()),
            files,
            bytes,
            limit: self.limits.bytes,
            trouble: self.trouble.with(|trouble| trouble.line.clone()),
            ..CacheReport::default()
        }
    }
}

impl Table {
    /// Enters what the log told of, of each path the latest.
    pub(super) fn insert(&mut self, entry: Arc<Entry>, bytes: u64) {
        entry.charged.store(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(entry.key, entry) {
            self.bytes = self.bytes.saturating_sub(old.charged());
        }
    }

    fn forget_whole(&mut self, entry: &Entry) {
        let same = |(_, id, _): &(PathKey, u64, usize)| *id == entry.id;
        if let Some(at) = self.whole.iter().position(same) {
            let len = self.whole.remove(at).map_or(0, |(_, _, len)| len);
            self.whole_bytes = self.whole_bytes.saturating_sub(len);
        }
    }
}

fn is_current(entry: &Entry, now: &Print) -> bool {
    let fresh = entry.volatile.is_none_or(|until| Instant::now() < until);
    fresh && !entry.is_gone() && entry.print.is(now, entry.seen)
}
