//! `parts/`: each message of the inbox as a directory of its parts, with answers begun.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::local::{self, failed};
use super::text::Text;
use crate::mail::address::Address;
use crate::mail::fields::HEADER_MAX;
use crate::mail::header::header_of;
use crate::mail::parts::{Parts, ROOT, Reader, View};
use crate::mail::store::without_flags;
use crate::mail::templates::{self, Audience};
use crate::sync::Locked;
use crate::vfs::attr::{Attr, DirEntry, FileKind, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// Messages whose structure is remembered.
const REMEMBERED: usize = 128;

/// Names of messages that are remembered; where there are more, the others are searched for.
const NAMES: usize = 50_000;

/// Beginnings of answers, made when they are read.
const ANSWERS: [&str; 3] = ["reply", "reply-all", "forward"];

/// The messages of one inbox.
pub(super) struct Shelf {
    maildir: PathBuf,
    me: Vec<Address>,
    books: Locked<VecDeque<Arc<Book>>>,
    /// Names in `cur` as they were seen last, by those without flags.
    names: Locked<HashMap<Box<str>, Box<str>>>,
}

/// The structure of one message, which never changes.
struct Book {
    base: String,
    parts: Parts,
    sizes: Locked<HashMap<usize, u64>>,
}

/// What is at a path in `parts`.
enum Found {
    Shelf,
    Directory(Arc<Book>, usize),
    Part(Arc<Book>, usize, View),
    Answer(Arc<Book>, &'static str),
}

impl Shelf {
    /// The messages in `maildir`; `me` is who answers.
    pub(super) fn new(maildir: PathBuf, me: Vec<Address>) -> Self {
        Self {
            maildir,
            me,
            books: Locked::default(),
            names: Locked::default(),
        }
    }

    /// Where the message is now; its flags change its name.
    fn file(&self, base: &str) -> Result<PathBuf> {
        let fresh = self.maildir.join("new").join(base);
        if fresh.exists() {
            return Ok(fresh);
        }
        let cur = self.maildir.join("cur");
        let seen = self.names.with(|names| names.get(base).cloned());
        let seen = seen.map(|name| cur.join(&*name));
        if let Some(path) = seen.filter(|path| path.exists()) {
            return Ok(path);
        }
        let mut names = HashMap::new();
        let mut found = None;
        for entry in std::fs::read_dir(&cur).map_err(|err| failed(&cur, &err))? {
            let entry = entry.map_err(|err| failed(&cur, &err))?;
            if let Some(name) = entry.file_name().to_str() {
                let bare = without_flags(name);
                if bare == base {
                    found = Some(entry.path());
                }
                if names.len() < NAMES {
                    names.insert(Box::from(bare), Box::from(name));
                }
            }
        }
        self.names.with(|kept| *kept = names);
        if let Some(path) = found {
            return Ok(path);
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("parts/{base}: no such message"),
        ))
    }

    fn book(&self, base: &str) -> Result<Arc<Book>> {
        let known = self
            .books
            .with(|books| books.iter().find(|book| book.base == base).cloned());
        // A message that was removed has no parts either.
        let path = self.file(base)?;
        if let Some(book) = known {
            return Ok(book);
        }
        let parts = Parts::read(&path).map_err(|err| failed(&path, &err))?;
        let book = Arc::new(Book {
            base: base.to_owned(),
            parts,
            sizes: Locked::default(),
        });
        self.books.with(|books| {
            books.truncate(REMEMBERED - 1);
            books.push_front(Arc::clone(&book));
        });
        Ok(book)
    }

    fn find(&self, path: &RemotePath) -> Result<Found> {
        let missing = || Error::new(ErrorKind::NotFound, format!("parts{path}: no such part"));
        let mut names = path.components();
        let Some(base) = names.next() else {
            return Ok(Found::Shelf);
        };
        let base = std::str::from_utf8(base).map_err(|_| missing())?;
        let book = self.book(base)?;
        let mut found = Found::Directory(Arc::clone(&book), ROOT);
        for name in names {
            let Found::Directory(_, directory) = found else {
                return Err(ErrorKind::NotADirectory.into());
            };
            let answer = || ANSWERS.into_iter().find(|answer| answer.as_bytes() == name);
            found = match book.parts.lookup(directory, name) {
                Some((index, entry)) => match &entry.view {
                    Some(view) => Found::Part(Arc::clone(&book), index, view.clone()),
                    None => Found::Directory(Arc::clone(&book), index),
                },
                None if directory == ROOT => {
                    Found::Answer(Arc::clone(&book), answer().ok_or_else(missing)?)
                }
                None => return Err(missing()),
            };
        }
        Ok(found)
    }

    fn answer(&self, book: &Book, which: &str) -> Result<String> {
        let path = self.file(&book.base)?;
        let failed = |err: io::Error| failed(&path, &err);
        let mut start = Vec::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(HEADER_MAX as u64)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let header = header_of(&start);
        let text: Box<dyn Read + Send> = match book.parts.text() {
            Some(view) => view
                .over(File::open(&path).map_err(failed)?)
                .map_err(failed)?,
            None => Box::new(io::empty()),
        };
        match which {
            "forward" => templates::forward(header, text),
            "reply" => templates::reply(header, text, &self.me, Audience::Author),
            _ => templates::reply(header, text, &self.me, Audience::Everyone),
        }
        .map_err(failed)
    }

    fn attr_of(&self, found: &Found) -> Result<Attr> {
        let (book, size) = match found {
            Found::Shelf => return local::stat(&self.maildir.join("new")),
            Found::Directory(book, _) => (book, None),
            Found::Part(book, index, view) => (book, Some(self.size(book, *index, view)?)),
            Found::Answer(book, which) => (book, Some(self.answer(book, which)?.len() as u64)),
        };
        self.attr_at(&book.base, size)
    }

    /// Attributes of a directory, or of a file of `size`, of the message `base`.
    fn attr_at(&self, base: &str, size: Option<u64>) -> Result<Attr> {
        let about = local::stat(&self.file(base)?)?;
        let mut attr = Attr::new(if size.is_some() {
            FileKind::File
        } else {
            FileKind::Directory
        });
        attr.size = size;
        attr.mtime = about.mtime;
        attr.mtime_exact = true;
        attr.mode = Some(if size.is_some() { 0o400 } else { 0o500 });
        Ok(attr)
    }

    fn size(&self, book: &Book, index: usize, view: &View) -> Result<u64> {
        if let Some(size) = book.sizes.with(|sizes| sizes.get(&index).copied()) {
            return Ok(size);
        }
        let path = self.file(&book.base)?;
        let size = File::open(&path)
            .and_then(|file| view.size(file))
            .map_err(|err| failed(&path, &err))?;
        book.sizes.with(|sizes| sizes.insert(index, size));
        Ok(size)
    }

    /// Attributes of what is at `path` in `parts`.
    pub(super) fn stat(&self, path: &RemotePath) -> Result<Attr> {
        let mut names = path.components();
        if let (Some(base), None) = (names.next(), names.next()) {
            // Who lists all messages does not have all of them read.
            let base = std::str::from_utf8(base).map_err(|_| ErrorKind::NotFound)?;
            return self.attr_at(base, None);
        }
        self.attr_of(&self.find(path)?)
    }

    /// What is in the directory `path` in `parts`.
    pub(super) fn list(&self, path: &RemotePath) -> Result<Vec<DirEntry>> {
        match self.find(path)? {
            Found::Shelf => {
                let mut entries = Vec::new();
                for dir in ["new", "cur"] {
                    for mut entry in local::list(&self.maildir.join(dir))? {
                        let name = String::from_utf8_lossy(entry.name.as_bytes()).into_owned();
                        entry.name = Name::new(without_flags(&name))?;
                        entry.attr.kind = FileKind::Directory;
                        entry.attr.size = None;
                        entry.attr.mode = Some(0o500);
                        entry.attr.unique = None;
                        entries.push(entry);
                    }
                }
                entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                entries.dedup_by(|a, b| a.name == b.name);
                Ok(entries)
            }
            Found::Directory(book, directory) => {
                let parts = book
                    .parts
                    .children(directory)
                    .map(|(_, entry)| entry.name.as_str());
                let mut names: Vec<&str> = parts.collect();
                if directory == ROOT {
                    let fresh = ANSWERS.into_iter().filter(|name| !names.contains(name));
                    let fresh: Vec<_> = fresh.collect();
                    names.extend(fresh);
                }
                let entries = names.into_iter().map(|name| {
                    let name = Name::new(name)?;
                    let attr = self.stat(&path.join(&name))?;
                    Ok(DirEntry { name, attr })
                });
                entries.collect()
            }
            Found::Part(..) | Found::Answer(..) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// Opens the file at `path` in `parts`.
    pub(super) fn open(
        self: &Arc<Self>,
        path: &RemotePath,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        if how.write || how.truncate {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("parts{path}: is only read"),
            ));
        }
        let found = self.find(path)?;
        let attr = self.attr_of(&found)?;
        match found {
            Found::Shelf | Found::Directory(..) => Err(ErrorKind::IsADirectory.into()),
            Found::Answer(book, which) => Text::open(self.answer(&book, which)?, attr, how),
            Found::Part(book, _, view) => {
                let shelf = Arc::clone(self);
                let open = move || {
                    let path = shelf
                        .file(&book.base)
                        .map_err(|err| io::Error::other(err.to_string()))?;
                    File::open(path)
                };
                Ok(Arc::new(Part {
                    attr,
                    reader: Mutex::new(Reader::new(view, open)),
                }))
            }
        }
    }
}

/// One part, open.
struct Part {
    attr: Attr,
    reader: Mutex<Reader<File>>,
}

impl OpenFile for Part {
    fn attr(&self) -> Attr {
        self.attr.clone()
    }

    fn reopen(&self, at: &RemotePath, _: Option<&Attr>, how: OpenHow) -> Result<()> {
        if how.write || how.truncate {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("{at}: is only read"),
            ));
        }
        Ok(())
    }

    fn read_at(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let read = {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.read_at(offset, buf)
        };
        read.map_err(|err| Error::local(at, &err))
    }

    fn write_at(&self, at: &RemotePath, _: u64, _: &[u8]) -> Result<()> {
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("{at}: is only read"),
        ))
    }

    fn set_len(&self, at: &RemotePath, _: u64) -> Result<()> {
        self.write_at(at, 0, &[])
    }

    fn set_attr(&self, at: &RemotePath, _: &SetAttr) -> Result<()> {
        self.write_at(at, 0, &[])
    }

    fn commit(&self, _: &RemotePath) -> Result<()> {
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        false
    }

    fn detach(&self, _: &RemotePath) -> Result<bool> {
        Ok(true)
    }

    fn close(&self, _: Option<&RemotePath>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn thousands_of_messages_are_listed_without_being_read() {
        let dir = tempfile::tempdir().unwrap();
        for room in ["new", "cur"] {
            fs::create_dir(dir.path().join(room)).unwrap();
        }
        let at = |base: &str, flags: &str| dir.path().join("cur").join(format!("{base}:2,{flags}"));
        let bases: Vec<String> = (0..3000).map(|n| format!("{n}.x,S=1")).collect();
        for base in &bases {
            fs::write(at(base, "S"), "Subject: x\n\n").unwrap();
        }
        let shelf = Shelf::new(dir.path().to_owned(), Vec::new());
        let path = |base: &str| RemotePath::parse(base.as_bytes()).unwrap();
        let begun = std::time::Instant::now();
        for base in &bases {
            assert!(shelf.stat(&path(base)).unwrap().is_dir());
        }
        assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
        assert!(shelf.books.with(|books| books.is_empty()));
        // Flags change, messages come and go.
        fs::rename(at(&bases[1], "S"), at(&bases[1], "RS")).unwrap();
        assert!(shelf.list(&path(&bases[1])).unwrap().len() > 2);
        fs::remove_file(at(&bases[2], "S")).unwrap();
        assert!(shelf.stat(&path(&bases[2])).is_err());
        assert!(shelf.stat(&path("1.y,S=1")).is_err());
        fs::write(at("1.y,S=1", ""), "Subject: y\n\n").unwrap();
        assert!(shelf.stat(&path("1.y,S=1")).is_ok());
    }
}
