//! Header fields as they are written: folded, and in ASCII.

use crate::mail::address::{Item, Mailbox};
use crate::mail::words::{self, Folded};

/// A header under construction, with CRLF.
#[derive(Debug, Default)]
pub(super) struct Header(pub(super) Vec<u8>);

impl Header {
    /// A field whose value is ready: ASCII, folded where it must be.
    pub(super) fn ready(&mut self, name: &str, value: &str) {
        self.0
            .extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }

    /// A field of free text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.ready(name, &words::unstructured(text, name.len() + 2));
    }

    /// Another parameter for the last field.
    pub(super) fn parameter(&mut self, name: &str, value: &str) {
        let end = self.0.trim_ascii_end();
        let end = end.strip_suffix(b";").unwrap_or(end).len();
        self.0.truncate(end);
        self.0
            .extend_from_slice(format!(";\r\n {name}={value}\r\n").as_bytes());
    }

    /// A field of mailboxes.
    pub(super) fn mailboxes(&mut self, name: &str, mailboxes: &[Mailbox]) {
        let written = mailboxes.iter().map(ToString::to_string).collect();
        self.list(name, written);
    }

    /// A field of addresses and groups; `names` writes what an alias stands for.
    pub(super) fn items(
        &mut self,
        name: &str,
        items: &[Item],
        names: &dyn Fn(&str) -> Vec<String>,
    ) {
        let written = items.iter().flat_map(|item| written(item, names)).collect();
        self.list(name, written);
    }

    fn list(&mut self, name: &str, mut entries: Vec<String>) {
        let last = entries.len().saturating_sub(1);
        let mut line = Folded::new(name.len() + 2);
        for (n, entry) in entries.iter_mut().enumerate() {
            if n < last {
                entry.push(',');
            }
            line.push(entry);
        }
        self.ready(name, &line.text);
    }
}

fn written(item: &Item, names: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    match item {
        Item::Mailbox(mailbox) => vec![mailbox.to_string()],
        Item::Name(name) => names(name),
        Item::Group(name, members) => {
            let members: Vec<String> = members
                .iter()
                .flat_map(|item| written(item, names))
                .collect();
            vec![format!(
                "{}: {};",
                words::phrase(name),
                members.join(",\r\n ")
            )]
        }
    }
}
