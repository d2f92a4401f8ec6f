//! The `aliases` file: names that stand for addresses, in the syntax of sendmail and Postfix.
//!
//! ```text
//! # a comment
//! team: alice@example.org, "Bob B." <bob@example.org>,
//!     carol
//! carol: carol@example.net
//! list: :include:/home/me/list.txt
//! ```
//!
//! Delivery to files and commands (`/var/mail/x`, `|program`) is not for a mail client and refused.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::vfs::error::{Error, ErrorKind, Result};

use super::address::{Item, Mailbox, parse_list};
use super::fields::text_of;

/// Most bytes read of the file, and of each file it includes.
pub const FILE_MAX: usize = 1024 * 1024;

/// Names in names.
const DEPTH: usize = 32;

/// Most addresses of one expansion.
const MOST: usize = 10_000;

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    names: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    /// Or why the line is not good.
    targets: std::result::Result<Vec<Target>, String>,
}

#[derive(Debug, Clone)]
enum Target {
    Item(Item),
    Include(PathBuf),
}

impl Aliases {
    /// Reads the file's text. A bad line spoils the names on it only: [`Self::problems`] tells, and
    /// using such a name fails.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut names: BTreeMap<String, Entry> = BTreeMap::new();
        let mut last = String::new();
        for (number, line) in logical_lines(text.get(..FILE_MAX).unwrap_or(text)) {
            let (name, rest) = name_of(&line);
            let targets = rest
                .ok_or_else(|| "no colon".to_owned())
                .and_then(targets)
                .map_err(|why| format!("aliases line {number}: {why}"));
            let entry = Entry {
                name: name.to_owned(),
                targets,
            };
            names.insert(key(name), entry);
            last = key(name);
        }
        // What stands at the cut may be half an address, or half a list.
        if let Some(entry) = names.get_mut(&last).filter(|_| text.len() > FILE_MAX) {
            entry.targets = Err("aliases: over 1 MiB, not read to the end".to_owned());
        }
        Self { names }
    }

    /// The names, as they are written, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(|entry| entry.name.as_str())
    }

    /// Whether `name` is an alias; case does not count.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(&key(name))
    }

    /// One line for each bad line of the file.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.names
            .values()
            .filter_map(|entry| entry.targets.as_ref().err().map(String::as_str))
    }

    /// The mailboxes `name` stands for, each address once, in their order.
    ///
    /// # Errors
    /// [`ErrorKind::BadMessage`]: no such alias, a loop (the chain is named), a file that cannot be
    /// included, a bad line, more than 10,000 addresses.
    pub fn expand(&self, name: &str) -> Result<Vec<Mailbox>> {
        self.resolve(&[Item::Name(name.to_owned())])
    }

    /// The mailboxes of a list in which names and groups may occur, each address once.
    ///
    /// # Errors
    /// As [`Self::expand`].
    pub fn resolve(&self, items: &[Item]) -> Result<Vec<Mailbox>> {
        let mut walk = Walk {
            aliases: self,
            found: Vec::new(),
            known: HashSet::new(),
            done: HashSet::new(),
            chain: Vec::new(),
        };
        walk.items(items)?;
        Ok(walk.found)
    }

    /// What `cat aliases/NAME` shows: a mailbox a line.
    ///
    /// # Errors
    /// As [`Self::expand`].
    pub fn text(&self, name: &str) -> Result<String> {
        let mailboxes = self.expand(name)?;
        Ok(mailboxes
            .iter()
            .map(|mailbox| mailbox.shown() + "\n")
            .collect())
    }
}

fn key(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Lines without comments, continuation lines joined, with the number of their first line.
fn logical_lines(text: &[u8]) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
        let line = text_of(line);
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, previous)) if line.starts_with([' ', '\t']) => {
                previous.push(' ');
                previous.push_str(line.trim());
            }
            _ => lines.push((number, line.trim().to_owned())),
        }
    }
    lines
}

/// The name in front of the colon, without quotation marks, and what follows.
fn name_of(line: &str) -> (&str, Option<&str>) {
    if let Some((name, rest)) = line.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        return (name, rest.trim_start().strip_prefix(':'));
    }
    line.split_once(':')
        .map_or((line, None), |(name, rest)| (name.trim(), Some(rest)))
}

fn targets(list: &str) -> std::result::Result<Vec<Target>, String> {
    let mut found = Vec::new();
    for entry in entries(list) {
        let bare = entry.trim().trim_matches('"').trim();
        if let Some(path) = bare.strip_prefix(":include:") {
            found.push(Target::Include(PathBuf::from(path.trim())));
        } else if bare.starts_with(['|', '/', ':']) {
            return Err(format!(
                "{bare}: only addresses, names and :include: are allowed"
            ));
        } else {
            // A backslash means "not an alias" to sendmail; here nothing else exists.
            let items = parse_list(entry.trim_start().trim_start_matches('\\'))
                .map_err(|err| err.detail().to_owned())?;
            found.extend(items.into_iter().map(Target::Item));
        }
    }
    if found.is_empty() {
        return Err("stands for nothing".to_owned());
    }
    Ok(found)
}

/// The entries between commas; commas in quotation marks and in groups do not count.
fn entries(list: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let (mut start, mut quoted, mut escaped, mut group) = (0, false, false, false);
    for (at, c) in list.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ':' if !quoted => {
                let so_far = list.get(start..at).unwrap_or("").trim();
                group |= !so_far.is_empty() && !so_far.starts_with([':', '|', '/']);
            }
            ';' if !quoted => group = false,
            ',' if !quoted && !group => {
                entries.push(list.get(start..at).unwrap_or(""));
                start = at + 1;
            }
            _ => {}
        }
    }
    entries.push(list.get(start..).unwrap_or(""));
    entries.retain(|entry| !entry.trim().is_empty());
    entries
}

/// One expansion under way.
struct Walk<'a> {
    aliases: &'a Aliases,
    found: Vec<Mailbox>,
    known: HashSet<String>,
    /// Names whose addresses are in `found`; without it `a: b,b` `b: c,c` ... would take for ever.
    done: HashSet<String>,
    chain: Vec<String>,
}

impl Walk<'_> {
    fn items(&mut self, items: &[Item]) -> Result<()> {
        items.iter().try_for_each(|item| match item {
            Item::Mailbox(mailbox) => self.mailbox(mailbox),
            Item::Group(_, members) => self.items(members),
            Item::Name(name) => self.name(name),
        })
    }

    fn mailbox(&mut self, mailbox: &Mailbox) -> Result<()> {
        if self.known.insert(mailbox.address.key()) {
            self.found.push(mailbox.clone());
        }
        if self.found.len() > MOST {
            return Err(self.bad("more than 10000 addresses"));
        }
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<()> {
        let key = key(name);
        if self.chain.contains(&key) {
            self.chain.push(key);
            return Err(self.bad("a loop"));
        }
        if self.done.contains(&key) {
            return Ok(());
        }
        let entry = self.aliases.names.get(&key);
        self.chain.push(key.clone());
        let Some(entry) = entry else {
            return Err(self.bad("neither an address nor an alias"));
        };
        if self.chain.len() > DEPTH {
            return Err(self.bad("aliases nested too deep"));
        }
        let targets = entry.targets.as_ref().map_err(|why| self.bad(why))?;
        for target in targets {
            match target {
                Target::Item(item) => self.items(std::slice::from_ref(item))?,
                Target::Include(path) => {
                    let items = include(path).map_err(|why| self.bad(&why))?;
                    self.items(&items)?;
                }
            }
        }
        self.chain.pop();
        self.done.insert(key);
        Ok(())
    }

    fn bad(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::BadMessage,
            format!("{}: {why}", self.chain.join(" -> ")),
        )
    }
}

/// The list in a file: entries on lines of their own or between commas, `#` begins a comment line.
fn include(path: &Path) -> std::result::Result<Vec<Item>, String> {
    let failed = |err: io::Error| format!(":include: {}: {err}", path.display());
    if !path.is_absolute() {
        return Err(format!(
            ":include: {}: not an absolute path",
            path.display()
        ));
    }
    // A FIFO would wait for its writer, for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!(":include: {}: not a file", path.display()));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX as u64 + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() > FILE_MAX {
        return Err(format!(":include: {}: over 1 MiB", path.display()));
    }
    let mut items = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let line = text_of(line);
        if !line.trim_start().starts_with('#') {
            items.extend(parse_list(&line).map_err(|err| err.detail().to_owned())?);
        }
        if items.len() > MOST {
            return Err("more than 10000 addresses".to_owned());
        }
    }
    Ok(items)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const FILE: &str = "# people\n\
        Carol: carol@example.net\n\
        team: alice@example.org, \"B, Bob\" <bob@example.org>,\n\
        \t# not the end\n\
        \tcarol\n\
        \"two words\": a@x.org\r\n\
        all: team, CAROL@EXAMPLE.NET, carol@EXAMPLE.net, dave@x.org\n\
        loop: lo2\nlo2: a@x.org, Loop\nself: self\n\
        bad: a@@x\npipe: \"|/bin/sh\"\nfile: /var/mail/x\nempty:\nnothing\n\
        group: Friends: a@x.org, b@y.org;, c@z.org\n";

    #[test]
    fn a_file_that_is_cut_names_nobody_by_half_an_address() {
        let rest = "\nfirst: a@x.org\nlast: bob@example.o";
        let comment = "#".repeat(FILE_MAX - rest.len());
        let file = format!("{comment}{rest}rg\n");
        let aliases = Aliases::parse(file.as_bytes());
        assert!(aliases.expand("first").is_ok());
        assert!(error(&aliases, "last").contains("over 1 MiB"));
    }

    fn error(aliases: &Aliases, name: &str) -> String {
        let err = aliases.expand(name).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::BadMessage);
        err.detail().to_owned()
    }

    #[test]
    fn names_expand_to_addresses_each_once() {
        let aliases = Aliases::parse(FILE.as_bytes());
        assert_eq!(
            aliases.text("TEAM").unwrap(),
            "alice@example.org\n\"B, Bob\" <bob@example.org>\ncarol@example.net\n"
        );
        assert_eq!(aliases.text("two words").unwrap(), "a@x.org\n");
        assert_eq!(aliases.text("all").unwrap().lines().count(), 5);
        assert_eq!(
            aliases.text("group").unwrap(),
            "a@x.org\nb@y.org\nc@z.org\n"
        );
        assert!(aliases.contains("carol") && aliases.names().any(|name| name == "Carol"));
    }

    #[test]
    fn loops_and_bad_lines_are_named() {
        let aliases = Aliases::parse(FILE.as_bytes());
        assert_eq!(error(&aliases, "loop"), "loop -> lo2 -> loop: a loop");
        assert_eq!(error(&aliases, "self"), "self -> self: a loop");
        assert_eq!(
            error(&aliases, "eve"),
            "eve: neither an address nor an alias"
        );
        assert!(error(&aliases, "bad").starts_with("bad: aliases line 11: address \"a@@x\""));
        for name in ["pipe", "file", "empty", "nothing"] {
            assert!(error(&aliases, name).contains("aliases line 1"), "{name}");
        }
        assert_eq!(aliases.problems().count(), 5);
    }

    #[test]
    fn includes_are_read_when_used() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        let aliases = Aliases::parse(
            format!(
                "l: :include:{}\nd: :include:{}\nr: :include:etc/x\n",
                list.display(),
                dir.path().display()
            )
            .as_bytes(),
        );
        assert!(error(&aliases, "l").contains("No such file"));
        std::fs::write(&list, "# ours\na@x.org\nBob <b@x.org>, c@x.org\n\n").unwrap();
        assert_eq!(
            aliases.text("l").unwrap(),
            "a@x.org\nBob <b@x.org>\nc@x.org\n"
        );
        std::fs::write(&list, "l\n").unwrap();
        assert_eq!(error(&aliases, "l"), "l -> l: a loop");
        assert!(error(&aliases, "d").contains("not a file"));
        assert!(error(&aliases, "r").contains("not an absolute path"));
    }

    #[test]
    fn a_hostile_file_ends_soon() {
        let mut text = String::new();
        for n in 0..5000 {
            writeln!(text, "a{n}: a{0}, a{0}, x{n}@x.org", n + 1).unwrap();
        }
        assert!(error(&Aliases::parse(text.as_bytes()), "a0").contains("too deep"));
        let wide: String = (0..30_000).fold("w:".into(), |list, n| list + &format!(" u{n}@x.org,"));
        assert!(error(&Aliases::parse(wide.as_bytes()), "w").contains("10000"));
        let _ = Aliases::parse(&[0xff; 5000]);
        let _ = Aliases::parse(": x\n:::\n\"\n \t\n".as_bytes());
    }
}
