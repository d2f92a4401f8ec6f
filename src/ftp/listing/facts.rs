//! MLSD and MLST: facts and a name (RFC 3659 section 7), and all that servers make of them.

use super::calendar::{moment, parse_time};
use super::words::{begins, number, octal, places, text, trim_start};
use crate::vfs::attr::{Attr, FileKind};

/// What an MLSx line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A name in the directory.
    Entry,
    /// The listed directory itself (`cdir`) or its parent (`pdir`).
    Frame,
}

/// One line, taken apart.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) role: Role,
    pub(super) attr: Attr,
    /// The name or the path, as it stands.
    pub(super) name: &'a [u8],
}

/// Reads one line without its end; `None` if it has no facts. Leading blanks are those of an MLST
/// reply.
pub(super) fn parse(line: &[u8]) -> Option<Facts<'_>> {
    let mut reader = Reader::default();
    let mut rest = trim_start(line);
    let mut any = false;
    let name = loop {
        // A blank ends the facts; whatever follows it, even more blanks, is the name.
        if let Some((b' ' | b'\t', name)) = rest.split_first()
            && any
        {
            break name;
        }
        let Some((key, value, after)) = fact(rest) else {
            // Some forget the blank: `type=file;name`.
            break rest;
        };
        if !reader.take(key, value) && any && after.is_empty() && !rest.ends_with(b";") {
            // `type=file;a=b.txt`: the last "fact" is a name with an `=` in it.
            break rest;
        }
        any = true;
        rest = after;
    };
    (any && !name.is_empty()).then(|| reader.finish(name))
}

/// Splits `key=value;rest`. The rest begins with the blank before the name where the facts end.
fn fact(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let is_key = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let equals = line.iter().position(|b| !is_key(b)).filter(|at| *at > 0)?;
    let (key, rest) = line.split_at_checked(equals)?;
    let rest = rest.strip_prefix(b"=")?;
    let stop = rest.iter().position(|b| matches!(b, b';' | b' ' | b'\t'));
    let mut end = stop.unwrap_or(rest.len());
    // No value may hold a space, but targets of links and names of Windows groups do.
    if rest.get(end) == Some(&b' ')
        && (begins(rest, b"os.unix=slink:") || is_people(key))
        && let Some(at) = rest.iter().position(|b| *b == b';')
        && rest
            .get(at + 1)
            .is_some_and(|b| *b == b' ' || b.is_ascii_alphabetic())
    {
        end = at;
    }
    let (value, rest) = rest.split_at_checked(end)?;
    Some((key, value, rest.strip_prefix(b";").unwrap_or(rest)))
}

fn is_people(key: &[u8]) -> bool {
    begins(key, b"unix.owner") || begins(key, b"unix.group")
}

/// The facts so far. Names of people win over their numbers.
#[derive(Debug, Default)]
struct Reader<'a> {
    kind: Option<FileKind>,
    frame: bool,
    target: Option<&'a [u8]>,
    size: Option<u64>,
    modify: Option<&'a [u8]>,
    mode: Option<u32>,
    owner: Option<(u8, &'a [u8])>,
    group: Option<(u8, &'a [u8])>,
    unique: Option<&'a [u8]>,
    perm: Option<&'a [u8]>,
}

/// Keeps the fact of the higher rank.
fn prefer<'a>(slot: &mut Option<(u8, &'a [u8])>, rank: u8, value: &'a [u8]) {
    if !value.is_empty() && slot.is_none_or(|(held, _)| held < rank) {
        *slot = Some((rank, value));
    }
}

impl<'a> Reader<'a> {
    /// Keeps a fact; false if it is none that we know.
    fn take(&mut self, key: &[u8], value: &'a [u8]) -> bool {
        let is = |name: &[u8]| key.eq_ignore_ascii_case(name);
        if is(b"type") {
            self.set_type(value);
        } else if is(b"size") || is(b"sizd") {
            self.size = number(value);
        } else if is(b"modify") {
            self.modify = Some(value);
        } else if is(b"unix.mode") {
            self.mode = octal(value).filter(|mode| *mode <= 0o177_777);
        } else if is(b"perm") {
            self.perm = Some(value);
        } else if is(b"unique") {
            self.unique = Some(value).filter(|value| !value.is_empty());
        } else if is(b"unix.ownername") {
            prefer(&mut self.owner, 3, value);
        } else if is(b"unix.owner") {
            prefer(&mut self.owner, 2, value);
        } else if is(b"unix.uid") {
            prefer(&mut self.owner, 1, value);
        } else if is(b"unix.groupname") {
            prefer(&mut self.group, 3, value);
        } else if is(b"unix.group") {
            prefer(&mut self.group, 2, value);
        } else if is(b"unix.gid") {
            prefer(&mut self.group, 1, value);
        } else {
            return false;
        }
        true
    }

    fn set_type(&mut self, value: &'a [u8]) {
        let is = |name: &[u8]| value.eq_ignore_ascii_case(name);
        self.frame = is(b"cdir") || is(b"pdir");
        let kind = if self.frame || is(b"dir") {
            FileKind::Directory
        } else if is_link_type(value) {
            // `OS.unix=slink:/target`; Pure-FTPd leaves the target empty, ProFTPD says `symlink`.
            let colon = value.iter().position(|b| *b == b':');
            self.target = colon.and_then(|at| value.get(at + 1..));
            FileKind::Symlink
        } else {
            FileKind::File
        };
        self.kind = Some(kind);
    }

    fn finish(self, name: &'a [u8]) -> Facts<'a> {
        let perm = self.perm.map(|perm| text(perm).to_ascii_lowercase());
        let kind = self
            .kind
            .or_else(|| kind_of_mode(self.mode?))
            .or_else(|| kind_of_perm(perm.as_deref()?))
            .unwrap_or(FileKind::File);
        let mut attr = Attr::new(kind);
        attr.size = self.size;
        attr.mtime = self.modify.and_then(parse_time);
        attr.mtime_exact = attr.mtime.is_some();
        attr.mode = self.mode.map(|mode| mode & 0o7777);
        attr.owner = self.owner.map(|(_, owner)| text(owner));
        attr.group = self.group.map(|(_, group)| text(group));
        attr.unique = self.unique.map(Into::into);
        attr.perm = perm.map(Into::into);
        attr.target = self.target.map(Into::into);
        Facts {
            role: if self.frame { Role::Frame } else { Role::Entry },
            attr,
            name,
        }
    }
}

fn is_link_type(value: &[u8]) -> bool {
    let kind = value.split(|b| *b == b':').next().unwrap_or_default();
    let kind = kind.rsplit(|b| *b == b'=').next().unwrap_or_default();
    [&b"slink"[..], b"symlink", b"link"]
        .iter()
        .any(|name| kind.eq_ignore_ascii_case(name))
}

/// What the type bits of a mode say, where a server prints all of `st_mode`.
pub(super) const fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & 0o170_000 {
        0 => None,
        0o040_000 => Some(FileKind::Directory),
        0o120_000 => Some(FileKind::Symlink),
        _ => Some(FileKind::File),
    }
}

/// A directory can be entered, listed or created in; a file read or written (RFC 3659 section
/// 7.5.5).
fn kind_of_perm(perm: &str) -> Option<FileKind> {
    if perm.contains(['e', 'l', 'c', 'm', 'p']) {
        return Some(FileKind::Directory);
    }
    perm.contains(['r', 'w', 'a']).then_some(FileKind::File)
}

/// Whether a LIST line is in truth an MLSD line: it has a fact that every server sends.
pub(super) fn looks_like(line: &[u8]) -> bool {
    [&b"type="[..], b"size=", b"modify=", b"perm="]
        .iter()
        .any(|fact| begins(line, fact))
}

/// A line of the Easily Parsed LIST Format: `+i8388621.48594,m825718503,r,s280,up755`, a tab, the
/// name. Its times are UTC.
pub(super) fn parse_eplf(line: &[u8]) -> Option<(Attr, &[u8])> {
    let line = line.strip_prefix(b"+")?;
    let tab = places(line, b"\t").next()?;
    let (facts, name) = (line.get(..tab)?, line.get(tab + 1..)?);
    let mut attr = Attr::new(FileKind::File);
    for fact in facts.split(|b| *b == b',') {
        match fact.split_first() {
            Some((b'/', [])) => attr.kind = FileKind::Directory,
            Some((b's', size)) => attr.size = number(size),
            Some((b'm', time)) => {
                attr.mtime = number(time).and_then(|secs| moment(i64::try_from(secs).ok()?, 0));
                attr.mtime_exact = attr.mtime.is_some();
            }
            Some((b'i', unique)) => attr.unique = Some(unique.into()),
            Some((b'u', rest)) => {
                let mode = rest.strip_prefix(b"p").and_then(octal);
                attr.mode = mode.map(|mode| mode & 0o7777);
            }
            _ => {}
        }
    }
    Some((attr, name))
}
