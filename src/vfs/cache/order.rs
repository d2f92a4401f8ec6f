//! In which order a walker goes through the directories beside each other. `find`, `cp -r` and `tar`
//! take them as they are listed; `ls -lR`, `rsync` and a shell's patterns by name.

use crate::vfs::attr::DirEntry;
use crate::vfs::path::Name;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Listed,
    /// By their bytes, as in the C locale.
    Bytes,
    /// Small and capital letters alike, as in most others.
    Letters,
}

impl Order {
    /// What is to be thought after a directory of this name was entered: the one that would be
    /// entered first in another order, and not in this one, shows that it is the other.
    pub(super) fn seen(self, name: &Name, beside: &[DirEntry]) -> Self {
        let first = |order: Self| match order {
            Self::Listed => directories(beside).next(),
            Self::Bytes => directories(beside).min_by_key(|name| name.as_bytes()),
            Self::Letters => directories(beside).min_by_key(|name| letters(name)),
        };
        if first(self) == Some(name) {
            return self;
        }
        let others = [Self::Listed, Self::Bytes, Self::Letters];
        let found = others.into_iter().find(|order| first(*order) == Some(name));
        found.unwrap_or(self)
    }

    /// Puts names that are as they were listed into this order.
    pub(super) fn sort(self, names: &mut [&Name]) {
        match self {
            Self::Listed => {}
            Self::Bytes => names.sort_by_key(|name| name.as_bytes()),
            Self::Letters => names.sort_by_cached_key(|name| letters(name)),
        }
    }
}

/// The names of the directories among `entries`.
pub(super) fn directories(entries: &[DirEntry]) -> impl Iterator<Item = &Name> {
    let directories = entries.iter().filter(|entry| entry.attr.is_dir());
    directories.map(|entry| &entry.name)
}

fn letters(name: &Name) -> Vec<u8> {
    name.as_bytes().to_ascii_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vfs::attr::{Attr, FileKind};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_first_that_is_entered_shows_the_order() {
        let entry = |(text, kind): &(&str, FileKind)| DirEntry {
            name: name(text),
            attr: Attr::new(*kind),
        };
        let beside: Vec<DirEntry> = [
            ("d2", FileKind::Directory),
            ("Z", FileKind::Directory),
            ("a", FileKind::File),
            ("d1", FileKind::Directory),
        ]
        .iter()
        .map(entry)
        .collect();
        let order = Order::default();
        assert_eq!(order.seen(&name("d2"), &beside), Order::Listed);
        assert_eq!(order.seen(&name("Z"), &beside), Order::Bytes);
        assert_eq!(order.seen(&name("d1"), &beside), Order::Letters);
        let by_letters = Order::Letters;
        // One of several in between tells nothing.
        assert_eq!(by_letters.seen(&name("elsewhere"), &beside), by_letters);
        assert_eq!(by_letters.seen(&name("d2"), &beside), Order::Listed);
        let mut names: Vec<&Name> = directories(&beside).collect();
        by_letters.sort(&mut names);
        assert_eq!(names, [&name("d1"), &name("d2"), &name("Z")]);
    }
}
