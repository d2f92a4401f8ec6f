//! What listings say.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::clock;
use super::quirks::{Dialect, MlsdLinks, Quirks};

/// A name and where it really is.
pub struct Entry {
    pub name: Vec<u8>,
    pub path: PathBuf,
}

/// The names in `dir`, sorted; `.` and `..` not among them.
pub fn entries(dir: &Path) -> std::io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        entries.push(Entry {
            name: entry.file_name().as_bytes().to_vec(),
            path: entry.path(),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The line of LIST for `name`, without the line end.
pub fn list_line(quirks: &Quirks, name: &[u8], path: &Path) -> Option<Vec<u8>> {
    let meta = fs::symlink_metadata(path).ok()?;
    let mut line = match quirks.dialect {
        Dialect::Unix | Dialect::UnixWithoutGroup => unix_columns(quirks, &meta),
        Dialect::Dos => dos_columns(quirks, &meta),
    }
    .into_bytes();
    line.extend_from_slice(name);
    if meta.is_symlink() && quirks.dialect != Dialect::Dos {
        line.extend_from_slice(b" -> ");
        line.extend_from_slice(fs::read_link(path).ok()?.as_os_str().as_bytes());
    }
    Some(line)
}

fn unix_columns(quirks: &Quirks, meta: &Metadata) -> String {
    let mode = meta.mode();
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        _ => '-',
    };
    let bits: String = (0..9)
        .map(|i| {
            if mode & (0o400 >> i) == 0 {
                '-'
            } else {
                char::from(b"rwx"[i % 3])
            }
        })
        .collect();
    let date = clock::unix(meta.modified().unwrap(), quirks.list_time_offset);
    let group = match quirks.dialect {
        Dialect::UnixWithoutGroup => String::new(),
        _ => format!(" {:<8}", meta.gid()),
    };
    let (links, owner, size) = (meta.nlink(), meta.uid(), meta.size());
    format!("{kind}{bits} {links:4} {owner:<8}{group} {size:12} {date} ")
}

fn dos_columns(quirks: &Quirks, meta: &Metadata) -> String {
    let date = clock::dos(meta.modified().unwrap(), quirks.list_time_offset);
    if meta.is_dir() {
        format!("{date}       <DIR>          ")
    } else {
        format!("{date} {:20} ", meta.size())
    }
}

/// The line of MLSx for `name`: facts, a space, the name (RFC 3659 section 7.2). `kind` is the
/// type where the entry's own is not meant (`cdir`, `pdir`).
pub fn mlsx_line(quirks: &Quirks, kind: Option<&str>, name: &[u8], path: &Path) -> Option<Vec<u8>> {
    let mut meta = fs::symlink_metadata(path).ok()?;
    let mut link = None;
    if meta.is_symlink() {
        match quirks.mlsd_links {
            MlsdLinks::Target => {
                let target = fs::read_link(path).ok()?;
                link = Some([b"OS.unix=slink:", target.as_os_str().as_bytes()].concat());
            }
            MlsdLinks::Bare => {
                fs::metadata(path).ok()?;
                link = Some(b"OS.unix=symlink".to_vec());
            }
            MlsdLinks::Followed => meta = fs::metadata(path).ok()?,
        }
    }
    let mut line = Vec::new();
    for fact in &quirks.facts {
        let value = match *fact {
            "type" => match (kind, &link, meta.is_dir()) {
                (Some(kind), ..) => kind.as_bytes().to_vec(),
                (None, Some(link), _) => link.clone(),
                (None, None, true) => b"dir".to_vec(),
                (None, None, false) => b"file".to_vec(),
            },
            "size" if meta.is_dir() => continue,
            "size" => meta.size().to_string().into_bytes(),
            "modify" => clock::stamp(meta.modified().ok()?).into_bytes(),
            "perm" => perm(quirks, &meta).as_bytes().to_vec(),
            "unique" => format!("{:x}U{:x}", meta.dev(), meta.ino()).into_bytes(),
            "UNIX.mode" => format!("0{:o}", meta.mode() & 0o7777).into_bytes(),
            "UNIX.owner" => meta.uid().to_string().into_bytes(),
            "UNIX.group" => meta.gid().to_string().into_bytes(),
            other => panic!("no such fact: {other}"),
        };
        line.extend_from_slice(fact.as_bytes());
        line.push(b'=');
        line.extend_from_slice(&value);
        line.push(b';');
    }
    line.push(b' ');
    line.extend_from_slice(name);
    Some(line)
}

/// RFC 3659 section 7.5.5.
fn perm(quirks: &Quirks, meta: &Metadata) -> &'static str {
    match (meta.is_dir(), quirks.read_only.is_some()) {
        (true, false) => "cdeflmp",
        (true, true) => "el",
        (false, false) => "adfrw",
        (false, true) => "r",
    }
}

/// The line for a name that is not there, as a file of 3 bytes.
pub fn ghost_line(quirks: &Quirks, mlsx: bool, name: &[u8]) -> Vec<u8> {
    let columns = match (mlsx, quirks.dialect) {
        (true, _) => "type=file;size=3;modify=20260102030405;UNIX.mode=0644; ",
        (false, Dialect::Dos) => "01-02-26  03:04AM                    3 ",
        (false, Dialect::Unix) => "-rw-r--r--    1 0        0                   3 Jan  2  2026 ",
        (false, Dialect::UnixWithoutGroup) => "-rw-r--r--    1 0                3 Jan  2  2026 ",
    };
    [columns.as_bytes(), name].concat()
}

/// The last component of a path, for the listing of a single file.
pub fn base_name(path: &Path) -> Vec<u8> {
    path.file_name()
        .map(OsStr::as_bytes)
        .unwrap_or_default()
        .to_vec()
}
