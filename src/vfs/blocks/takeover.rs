//! The cache across mounts: taking over what an earlier one left, and leaving it to the next.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Limits;
use super::disk::{Disk, LOCK, described};
use super::entry::{Entry, OVERHEAD, cost};
use super::index::{Index, Record, runs};
use super::store::{Store, Table};

/// Bytes by which the log may grow beyond what it needs.
const SPARE_LOG: u64 = 256 << 10;

impl Store {
    /// Takes over what is in `dir`.
    pub(super) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let mut store = Self::off(limits, None);
        store.disk = Some(Disk::claim(dir)?);
        store.load(Index::load(dir)?)?;
        Ok(store)
    }

    fn load(&self, records: Vec<Record>) -> io::Result<()> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        let mut entries: HashMap<u64, Arc<Entry>> = HashMap::new();
        for (turn, record) in (1..).zip(records) {
            match record {
                Record::Version {
                    id,
                    key,
                    print,
                    seen,
                    used,
                    above,
                } => {
                    let mut entry = Entry::new(id, key, print, seen);
                    entry.above = above;
                    entry.turn.store(turn, Ordering::Relaxed);
                    entry.used.store(used, Ordering::Relaxed);
                    entries.insert(id, Arc::new(entry));
                }
                Record::Blocks { id, first, sums } => {
                    if let Some(entry) = entries.get(&id) {
                        entry.note(first, &sums, false);
                    }
                }
                Record::Gone { id } => drop(entries.remove(&id)),
            }
        }
        let bytes = |entry: &Arc<Entry>| {
            let runs = entry.runs().into_iter();
            let costs = runs
                .map(|(first, sums)| cost(&(first..first + sums.len() as u64), entry.print.size));
            costs.sum::<u64>()
        };
        let on_disk: HashMap<u64, u64> = entries
            .values()
            .map(|entry| (entry.id, bytes(entry)))
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(id, bytes)| (id, bytes + OVERHEAD))
            .collect();
        self.table.with(|table| {
            table.next = entries.keys().max().map_or(0, |id| id + 1);
            let mut entries: Vec<_> = entries.into_values().collect();
            entries.sort_by_key(|entry| entry.turn.load(Ordering::Relaxed));
            for entry in entries {
                table.turn = entry.turn.load(Ordering::Relaxed);
                let bytes = on_disk.get(&entry.id).copied().unwrap_or_default();
                table.insert(entry, bytes);
            }
        });
        self.remove_strangers(disk)?;
        self.expire();
        self.shrink(self.limits.bytes);
        self.rewrite(disk)
    }

    /// Data files that nobody knows of go, and entries without their data file.
    fn remove_strangers(&self, disk: &Disk) -> io::Result<()> {
        // Of one without blocks, what the data file has is not known, nor counted.
        let known = |table: &mut Table| {
            let filled = table.entries.values().filter(|entry| entry.charged() > 0);
            filled.map(|entry| entry.id).collect()
        };
        let known: HashSet<u64> = self.table.with(known);
        let mut there = HashSet::new();
        let ours = Index::files(&disk.dir);
        for found in fs::read_dir(&disk.dir)?.flatten() {
            let (path, name) = (found.path(), found.file_name());
            let id = name
                .to_str()
                .and_then(|name| u64::from_str_radix(name, 16).ok());
            if let Some(id) = id.filter(|id| known.contains(id) && path == disk.data(*id)) {
                there.insert(id);
            } else if name != LOCK && !ours.contains(&path) {
                let _ = fs::remove_file(path);
            }
        }
        let missing = |entry: &&Arc<Entry>| entry.charged() == 0 || !there.contains(&entry.id);
        let without: Vec<_> = self
            .table
            .with(|table| table.entries.values().filter(missing).cloned().collect());
        without.iter().for_each(|entry| self.evict(entry));
        Ok(())
    }

    /// Writes the log anew, the least recently used first.
    pub(super) fn rewrite(&self, disk: &Disk) -> io::Result<()> {
        let mut entries: Vec<_> = self
            .table
            .with(|table| table.entries.values().cloned().collect());
        entries.retain(|entry| entry.volatile.is_none() && entry.charged() > 0);
        entries.sort_by_key(|entry| entry.turn.load(Ordering::Relaxed));
        let records = entries.iter().flat_map(|entry| {
            entry.log_first();
            let blocks = entry
                .runs()
                .into_iter()
                .flat_map(|(first, sums)| runs(entry.id, first, &sums).collect::<Vec<_>>());
            std::iter::once(described(entry)).chain(blocks)
        });
        let index = Index::write(&disk.dir, records)?;
        let longest = index.len * 2 + SPARE_LOG;
        disk.longest_log.store(longest, Ordering::Relaxed);
        disk.index.with(|place| *place = Some(index));
        Ok(())
    }

    /// The end: the log is written in order of use. Without a single block nothing is left behind.
    pub(super) fn close(&self) {
        let Some(disk) = &self.disk else { return };
        disk.index.with(|index| drop(index.take()));
        if self.table.with(|table| table.bytes) > 0 {
            if let Err(err) = self.rewrite(disk) {
                log::info!("{}: {err}", disk.dir.display());
            }
        } else {
            disk.remove();
        }
        let _ = disk.lock.unlock();
    }
}
