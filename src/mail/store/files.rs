//! What is in the store, whether the ledger knows it or not.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::digest::{Context, SHA256};

use super::draft::HEADER_KEPT;
use super::name::{self, Origin};
use super::{Store, unix};
use crate::mail::failure::{Failure, Result};
use crate::mail::header::{self, Digest};
use crate::mail::ledger::{Record, State};

impl Store {
    /// What is in `new` and `cur`, base name to file.
    ///
    /// # Errors
    /// `Local`.
    pub fn files(&self) -> Result<HashMap<Box<str>, PathBuf>> {
        let mut files = HashMap::new();
        for dir in ["new", "cur"].map(|d| self.maildir.join(d)) {
            let failed = |err: io::Error| Failure::local(dir.display(), &err);
            for entry in fs::read_dir(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if let Some(file) = entry.file_name().to_str() {
                    files.insert(name::without_flags(file).into(), entry.path());
                }
            }
        }
        Ok(files)
    }

    /// Of `files`, those that were fetched and are not in the ledger, by the part of their name
    /// that [`key`](Self::key) makes.
    #[must_use]
    pub fn orphans(&self, files: &HashMap<Box<str>, PathBuf>) -> HashMap<Box<str>, PathBuf> {
        self.ledger.with(|ledger| {
            files
                .iter()
                .filter(|(base, _)| ledger.named(base).is_none())
                .filter_map(|(base, path)| {
                    let key = name::key_of(base)?;
                    key.starts_with('U').then(|| (key.into(), path.clone()))
                })
                .collect()
        })
    }

    /// What names of the message `uidl` have in common.
    #[must_use]
    pub fn key(&self, uidl: &[u8]) -> String {
        name::key(&self.account, Origin::Uidl(uidl))
    }

    /// The record of a message that is in the store already.
    ///
    /// # Errors
    /// `Local`.
    pub fn recognise(&self, uidl: &[u8], octets: u64, path: &Path) -> Result<Record> {
        let failed = |err: io::Error| Failure::local(path.display(), &err);
        let mut file = File::open(path).map_err(failed)?;
        let mut hash = Context::new(&SHA256);
        let mut start = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        let mut size = 0;
        loop {
            let read = file.read(&mut chunk).map_err(failed)?;
            let got = chunk.get(..read).unwrap_or_default();
            if got.is_empty() {
                break;
            }
            size += got.len() as u64;
            hash.update(got);
            if start.len() < HEADER_KEPT {
                start.extend(got);
            }
        }
        let mut sha256 = Digest::default();
        sha256.copy_from_slice(hash.finish().as_ref());
        let now = unix(SystemTime::now());
        let base = path
            .file_name()
            .and_then(|n| n.to_str())
            .map(name::without_flags)
            .unwrap_or_default();
        Ok(Record {
            uidl: uidl.into(),
            state: State::Fetched,
            gone: false,
            fetched: now,
            changed: now,
            size,
            octets,
            sha256,
            header: header::fingerprint(header::header_of(&start)),
            name: base.into(),
        })
    }
}
