//! What the user hears of his mail: copies in `.Sent`, refused messages in `failed/`, reports in
//! the inbox.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::local::failed;
use super::outbox::Outbox;
use super::submitted::place_of;
use crate::mail::address::{Item, parse_list};
use crate::mail::compose;
use crate::mail::envelope::Envelope;
use crate::mail::fields::{HEADER_MAX, find};
use crate::mail::queue::{self, Entry};
use crate::mail::sender::Receipts;
use crate::mail::store::Store;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Files made durable at the same time.
const LANES: usize = 8;

/// Larger messages are not made over for servers without 8BITMIME; they wait for another way.
const MADE_OVER: u64 = 64 << 20;

/// The user of one account.
pub(super) struct Post {
    pub(super) root: PathBuf,
    pub(super) host: String,
    pub(super) store: Arc<Store>,
    pub(super) outbox: Arc<Outbox>,
}

/// A copy for `.Sent` under its temporary name, and the name it will have.
type Copied = (File, PathBuf, PathBuf);

impl Post {
    /// Writes a copy, not yet durable.
    fn write_copy(&self, entry: &Entry, message: &mut dyn Read) -> Result<Copied> {
        let sent = self.root.join("Sent");
        let base = format!("{}.L{}.{}", entry.queued_at, entry.id, self.host);
        let temporary = sent.join("tmp").join(&base);
        let copied = write_lines(&entry.envelope.kept, message, &temporary);
        let (file, size) = copied.map_err(|err| failed(&temporary, &err))?;
        let name = sent.join("cur").join(format!("{base},S={size}:2,S"));
        Ok((file, temporary, name))
    }

    /// A report for the inbox; `unique` makes its name, so that it is there once.
    fn report(&self, unique: &str, report: &[u8]) -> Result<()> {
        let mut draft = self.store.draft()?;
        draft
            .write_all(report)
            .map_err(|err| Error::local("report", &err))?;
        let letter = self.store.finish_own(draft, unique.as_bytes())?;
        self.store.commit(vec![letter], &|_| Ok(()))?;
        Ok(())
    }
}

impl Receipts for Post {
    fn accepted(&self, entry: &Entry, message: &mut dyn Read) -> Result<()> {
        let (file, temporary, name) = self.write_copy(entry, message)?;
        file.sync_all()
            .and_then(|()| fs::rename(&temporary, &name))
            .and_then(|()| sync_parent(&name))
            .map_err(|err| failed(&name, &err))
    }

    fn all_accepted(&self, batch: &mut [(&Entry, Box<dyn Read>)]) -> Vec<Result<()>> {
        let each = batch.iter_mut();
        let written = each.map(|(entry, message)| self.write_copy(entry, &mut **message));
        let written: Vec<Result<_>> = written.collect();
        let synced = sync_all(&written);
        let named = written.into_iter().zip(synced).map(|(written, synced)| {
            let (_, temporary, name) = written?;
            synced
                .and_then(|()| fs::rename(&temporary, &name))
                .map(|()| name.clone())
                .map_err(|err| failed(&name, &err))
        });
        let named: Vec<Result<PathBuf>> = named.collect();
        // All of them are in one directory.
        let last = named.iter().flatten().last();
        let safe = last.map_or(Ok(()), |name| {
            sync_parent(name).map_err(|err| failed(name, &err))
        });
        let each = named.into_iter();
        each.map(|named| named.and_then(|_| safe.clone())).collect()
    }

    fn failed(
        &self,
        entry: &Entry,
        recipients: &[usize],
        message: &mut dyn Read,
        report: Option<&[u8]>,
    ) -> Result<()> {
        let dir = self.root.join("failed").join(entry.id.as_str());
        fs::create_dir_all(&dir).map_err(|err| failed(&dir, &err))?;
        let top = retry_header(&entry.envelope, recipients, &dir);
        copy(&top, message, &dir.join("message"))?;
        // It is about to be nowhere else.
        sync_parent(&dir).map_err(|err| failed(&dir, &err))?;
        let reason = dir.join("reason");
        fs::write(&reason, queue::text(entry)).map_err(|err| failed(&reason, &err))?;
        match report {
            Some(report) => {
                let dsn = dir.join("dsn");
                fs::write(&dsn, report).map_err(|err| failed(&dsn, &err))?;
                self.report(&format!("failed {} {recipients:?}", entry.id), report)
            }
            None => Ok(()),
        }
    }

    fn delayed(&self, entry: &Entry, report: &[u8]) -> Result<()> {
        self.report(&format!("delayed {}", entry.id), report)
    }

    fn limit(&self, octets: Option<u64>) {
        self.outbox.set_largest(octets);
    }

    fn settled(&self, entry: &Entry) {
        if let Some(place) = place_of(&entry.envelope.note) {
            self.outbox.settled(&entry.id, &place);
        }
    }

    fn tick(&self) {
        self.outbox.retry_stuck();
        self.outbox.forget_spent();
    }

    fn seven_bit(&self, _: &Entry, message: &mut dyn Read) -> Result<Option<Vec<u8>>> {
        let mut whole = Vec::new();
        message
            .take(MADE_OVER + 1)
            .read_to_end(&mut whole)
            .map_err(|err| Error::local("message", &err))?;
        if whole.len() as u64 > MADE_OVER {
            return Ok(None);
        }
        let mut made = Vec::new();
        match compose::to_seven_bit(&whole, &mut made) {
            Ok(_) => Ok(Some(made)),
            Err(err) if err.kind() == ErrorKind::BadMessage => Ok(None),
            Err(err) => Err(err),
        }
    }
}

/// What stands on top of a message in the directory `failed` of it, so that moving it to `outbox/`
/// tries those again who did not get it, and nobody else.
fn retry_header(envelope: &Envelope, recipients: &[usize], failed: &Path) -> String {
    let named = recipients
        .iter()
        .filter_map(|index| envelope.recipients.get(*index))
        .map(|recipient| recipient.address.to_string());
    send_to(failed, named) + &envelope.kept
}

/// The field that says who gets the message in the directory `failed` of it: `named`, and those for
/// whom it lies there already.
pub(super) fn send_to(failed: &Path, named: impl Iterator<Item = String>) -> String {
    let mut head = Vec::new();
    let read = File::open(failed.join("message"))
        .and_then(|file| file.take(HEADER_MAX as u64).read_to_end(&mut head));
    let field = read.ok().and_then(|_| find(&head, "X-Send-To"));
    let before = field.and_then(|field| parse_list(&field.text()).ok());
    let before = before.into_iter().flatten().filter_map(|item| match item {
        Item::Mailbox(mailbox) => Some(mailbox.address.to_string()),
        Item::Name(_) | Item::Group(..) => None,
    });
    let mut all: Vec<String> = Vec::new();
    for address in before.chain(named) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    format!("X-Send-To: {}\n", all.join(",\n "))
}

/// Copies a message to `path` behind the fields `top`, durably, with the line ends files have.
/// What was there is there until the new one is whole. Returns its size.
pub(super) fn copy(top: &str, message: &mut dyn Read, path: &Path) -> Result<u64> {
    let beside = path.with_extension("new");
    copy_lines(top, message, &beside)
        .and_then(|size| fs::rename(&beside, path).map(|()| size))
        .and_then(|size| sync_parent(path).map(|()| size))
        .map_err(|err| failed(path, &err))
}

/// Has the name of `path` on disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Has the files on disk; the disk writes those together that are asked for together.
fn sync_all(written: &[Result<Copied>]) -> Vec<io::Result<()>> {
    let lane = written.len().div_ceil(LANES).max(1);
    let sync = |file: &Result<Copied>| match file {
        Ok((file, ..)) => file.sync_all(),
        Err(_) => Ok(()),
    };
    if written.len() == 1 {
        return written.iter().map(sync).collect();
    }
    thread::scope(|scope| {
        let lanes: Vec<_> = written
            .chunks(lane)
            .map(|files| {
                (
                    files.len(),
                    scope.spawn(move || files.iter().map(sync).collect::<Vec<_>>()),
                )
            })
            .collect();
        let joined = lanes.into_iter().flat_map(|(many, lane)| {
            let lost = |_| {
                (0..many)
                    .map(|_| Err(io::ErrorKind::Other.into()))
                    .collect()
            };
            lane.join().unwrap_or_else(lost)
        });
        joined.collect()
    })
}

fn copy_lines(top: &str, message: &mut dyn Read, path: &Path) -> io::Result<u64> {
    let (file, size) = write_lines(top, message, path)?;
    file.sync_all()?;
    Ok(size)
}

fn write_lines(top: &str, message: &mut dyn Read, path: &Path) -> io::Result<(File, u64)> {
    let mut from = BufReader::new(message);
    let mut to = BufWriter::new(File::create(path)?);
    let mut line = Vec::new();
    let mut size = top.len() as u64;
    to.write_all(top.as_bytes())?;
    while from.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            line.push(b'\n');
        }
        to.write_all(&line)?;
        size += line.len() as u64;
        line.clear();
    }
    let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((file, size))
}
