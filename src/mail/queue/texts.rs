//! Small messages. The journal keeps them, and so does memory: most are sent before a file of
//! their own would have been worth while, and one fdatasync is all that each waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::entry::Id;

/// What all of them may take together, in octets; more messages get files.
const MOST: usize = 8 << 20;

/// Messages by name: the envelope in the first line, an empty line, the message.
#[derive(Default)]
pub(super) struct Texts {
    all: BTreeMap<Id, Arc<str>>,
    octets: usize,
}

/// Without what is in them, which is somebody's mail.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Texts({}, {} octets)", self.all.len(), self.octets)
    }
}

impl Texts {
    pub(super) fn get(&self, id: &Id) -> Option<&Arc<str>> {
        self.all.get(id)
    }

    pub(super) fn insert(&mut self, id: Id, text: Arc<str>) {
        self.octets += text.len();
        if let Some(old) = self.all.insert(id, text) {
            self.octets -= old.len();
        }
    }

    pub(super) fn remove(&mut self, id: &Id) {
        if let Some(old) = self.all.remove(id) {
            self.octets -= old.len();
        }
    }

    /// What they take, in octets.
    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    /// Whether another one may come.
    pub(super) const fn has_room(&self) -> bool {
        self.octets < MOST
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_those_of_what_is_there() {
        let mut texts = Texts::default();
        let id = |name| Id::parse(name).unwrap();
        texts.insert(id("a"), "12345".into());
        texts.insert(id("a"), "123".into());
        texts.insert(id("b"), "1".into());
        assert_eq!(texts.octets(), 4);
        texts.remove(&id("a"));
        texts.remove(&id("a"));
        assert_eq!(texts.octets(), 1);
        assert!(texts.has_room());
        texts.insert(id("c"), "x".repeat(MOST).into());
        assert!(!texts.has_room());
        assert_eq!(format!("{texts:?}"), "Texts(2, 8388609 octets)");
    }
}
