//! A message as a directory: `headers`, `text`, `html`, attachments under their own names, and a
//! directory for each message inside.
//!
//! The tree is made of the message's structure alone; contents are decoded while they are read, so
//! a part costs no memory. The same message always gives the same tree and the same bytes. Names
//! are safe, whatever the sender wrote; a message/external-body is described, never fetched.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use super::content::Content;
use super::structure::{self, Kind, Part};

mod naming;
mod partial;
mod view;

pub use partial::{Piece, join, piece};
pub use view::{Reader, View};

use naming::Names;
use view::How;

/// The root of a tree.
pub const ROOT: usize = 0;

/// A file or a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// A safe name, unique in its directory; of the root, empty.
    pub name: String,
    /// Index of the directory it is in.
    pub parent: usize,
    /// What a file shows; `None` for a directory.
    pub view: Option<View>,
}

/// The files of one message.
#[derive(Debug, Clone)]
pub struct Parts {
    entries: Vec<Entry>,
}

impl Parts {
    /// Reads the structure of `message`.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn read(message: &dyn Content) -> io::Result<Self> {
        let parts = structure::read(message)?;
        let mut tree = Tree {
            parts: &parts,
            entries: Vec::new(),
            directories: HashMap::new(),
        };
        tree.directory(0, "", ROOT);
        for index in 0..parts.len() {
            tree.part(index);
        }
        Ok(Self {
            entries: tree.entries,
        })
    }

    /// All entries, directories before what is in them; the first is the root.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is in a directory, with its indices.
    pub fn children(&self, directory: usize) -> impl Iterator<Item = (usize, &Entry)> {
        let entries = self.entries.iter().enumerate().skip(1);
        entries.filter(move |(_, entry)| entry.parent == directory)
    }

    /// The entry `name` of a directory.
    #[must_use]
    pub fn lookup(&self, directory: usize, name: &[u8]) -> Option<(usize, &Entry)> {
        self.children(directory)
            .find(|(_, entry)| entry.name.as_bytes() == name)
    }

    /// The text of the message itself in `/text`, or its `/html`; what an answer quotes.
    #[must_use]
    pub fn text(&self) -> Option<&View> {
        let file = |name: &[u8]| {
            self.lookup(ROOT, name)
                .and_then(|(_, entry)| entry.view.as_ref())
        };
        file(b"text").or_else(|| file(b"html"))
    }
}

struct Tree<'a> {
    parts: &'a [Part],
    entries: Vec<Entry>,
    /// For each message, by the index of its part: its directory.
    directories: HashMap<usize, Directory>,
}

#[derive(Default)]
struct Directory {
    entry: usize,
    names: Names,
    text: bool,
    html: bool,
    count: usize,
}

impl Tree<'_> {
    /// Opens the directory of the message that is the part `index`.
    fn directory(&mut self, index: usize, name: &str, parent: usize) {
        let entry = self.entries.len();
        self.entries.push(Entry {
            name: name.to_owned(),
            parent,
            view: None,
        });
        if let Some(part) = self.parts.get(index) {
            self.file("headers", entry, part.header.clone(), How::Header);
        }
        let directory = Directory {
            entry,
            ..Directory::default()
        };
        self.directories.insert(index, directory);
    }

    fn file(&mut self, name: &str, parent: usize, range: Range<u64>, how: How) {
        self.entries.push(Entry {
            name: name.to_owned(),
            parent,
            view: Some(View { range, how }),
        });
    }

    fn part(&mut self, index: usize) {
        let Some(part) = self.parts.get(index) else {
            return;
        };
        let Some(directory) = self
            .owner(index)
            .and_then(|owner| self.directories.get_mut(&owner))
        else {
            return;
        };
        let parent = directory.entry;
        match part.kind {
            Kind::Multipart => {}
            Kind::Message => {
                let wanted = part
                    .file_name()
                    .map_or("message", |name| name.strip_suffix(".eml").unwrap_or(name));
                let name = directory.names.give(wanted);
                // The message itself is the next part.
                self.directory(index + 1, &name, parent);
            }
            Kind::Leaf => {
                directory.count += 1;
                let shown = part.file_name().is_none() && part.disposition.value != "attachment";
                let (name, text) = match part.content_type.value.as_str() {
                    "text/plain" if shown && !directory.text => {
                        directory.text = true;
                        ("text".to_owned(), true)
                    }
                    "text/html" if shown && !directory.html => {
                        directory.html = true;
                        ("html".to_owned(), true)
                    }
                    media => {
                        let name = directory.names.give(&naming::wanted(part, directory.count));
                        (name, shown && media.starts_with("text/"))
                    }
                };
                let how = how(part, text);
                self.file(&name, parent, part.body.clone(), how);
            }
        }
    }

    /// The message that the part is in: itself, if it is one.
    fn owner(&self, index: usize) -> Option<usize> {
        let mut at = index;
        while !self.directories.contains_key(&at) {
            at = self.parts.get(at)?.parent?;
        }
        Some(at)
    }
}

fn how(part: &Part, text: bool) -> How {
    let encoding = part.encoding.clone();
    if part.is("message/external-body") {
        let parameters = part.content_type.parameters.iter();
        return How::Described(
            parameters
                .map(|(name, value)| format!("{name}: {value}\n"))
                .collect(),
        );
    }
    if text {
        let charset = part.content_type.get("charset").map(str::to_owned);
        How::Text { encoding, charset }
    } else {
        How::File { encoding }
    }
}

#[cfg(test)]
mod tests;
