//! Names are bytes, and come back as they went.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Stage;

/// Odd names that this server has no quarrel with.
fn odd(stage: &Stage) -> Vec<&'static [u8]> {
    let mut names: Vec<&[u8]> = vec![
        b" lead",
        b"a -> b",
        b"-rf",
        b"semi;colon",
        b"per%20cent",
        b"quo\"te",
        b"star*",
        b"[x]?",
        b"{a,b}",
        b"~tilde",
        b"#hash",
        b"dot.",
        b"..x",
        b"...",
        b".hidden",
        "caf\u{e9} \u{1f980}".as_bytes(),
        "e\u{301}".as_bytes(),
    ];
    // pyftpdlib takes names for UTF-8 and replaces what is not.
    if stage.server.name() != "pyftpdlib" {
        names.push(b"caf\xe9");
        names.push(b"\xa0\xfe\x80");
    }
    // Pure-FTPd stores under `trail_`, and calls `\` prohibited.
    if stage.server.name() != "pure-ftpd" {
        names.extend([b"trail ", b"  two  ", b"back\\slash"] as [&[u8]; 3]);
    }
    names
}

fn below(dir: impl AsRef<Path>, name: &[u8]) -> PathBuf {
    dir.as_ref().join(OsStr::from_bytes(name))
}

fn listed(dir: &Path) -> BTreeSet<Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_vec())
        .collect()
}

/// The result, or a failure that tells for which name.
fn of<T>(name: &[u8], result: io::Result<T>) -> T {
    result.unwrap_or_else(|err| panic!("{:?}: {err}", OsStr::from_bytes(name)))
}

pub(super) fn odd_names(stage: &Stage) {
    let (here, there) = (stage.path(""), stage.there(""));
    let names = odd(stage);
    for name in &names {
        let (path, other) = (below(&here, name), here.join("other"));
        of(name, fs::write(&path, name));
        assert_eq!(of(name, fs::read(below(&there, name))), *name);
        assert_eq!(of(name, fs::read(&path)), *name);
        of(name, fs::rename(&path, &other));
        of(name, fs::rename(&other, &path));
        assert_eq!(of(name, fs::metadata(&path)).len(), name.len() as u64);
    }
    let expected: BTreeSet<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    assert_eq!(listed(&there), expected);
    assert_eq!(listed(&here), expected);
    for name in &names {
        let dir = below(&here, name);
        of(name, fs::remove_file(&dir));
        // ProFTPD makes files of that name, but no directories.
        if stage.server.name() == "proftpd" && *name == b"star*" {
            continue;
        }
        of(name, fs::create_dir(&dir));
        of(name, fs::write(below(&dir, name), "in it"));
        assert_eq!(listed(&dir), BTreeSet::from([name.to_vec()]));
        of(name, fs::remove_file(below(&dir, name)));
        of(name, fs::remove_dir(&dir));
    }
    assert_eq!(listed(&there), BTreeSet::new());
}

/// The server made them, so they are known by its listing only.
pub(super) fn listed_names(stage: &Stage) {
    let names = odd(stage);
    fs::create_dir(stage.there("dir")).unwrap();
    for name in &names {
        fs::write(below(stage.there("dir"), name), name).unwrap();
    }
    stage.server.give_all_to_the_user();
    let expected: BTreeSet<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    assert_eq!(listed(&stage.path("dir")), expected);
    for name in &names {
        let path = below(stage.path("dir"), name);
        assert_eq!(of(name, fs::read(path)), *name);
    }
}

pub(super) fn longest_name(stage: &Stage) {
    for name in ["n".repeat(255), "\u{1f980}".repeat(63) + "abc"] {
        let (here, there) = (stage.path(&name), stage.there(&name));
        fs::write(&here, "first").unwrap();
        // Replacing goes by a temporary name, which may not be longer.
        fs::write(&here, "second").unwrap();
        assert_eq!(fs::read(&there).unwrap(), b"second");
        fs::rename(&here, stage.path("short")).unwrap();
        fs::rename(stage.path("short"), &here).unwrap();
        assert_eq!(fs::read(&here).unwrap(), b"second");
        fs::remove_file(&here).unwrap();
        assert!(!there.exists());
    }
    let err = fs::write(stage.path(&"n".repeat(256)), "").unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InvalidFilename);
}

/// What would become another name on the server is refused, and not stored under that.
pub(super) fn blanks_at_the_end(stage: &Stage) {
    let stored = fs::write(stage.path("trail "), "x");
    let found = listed(&stage.there(""));
    if stage.server.name() == "pure-ftpd" {
        assert_eq!(stored.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(found, BTreeSet::new());
    } else {
        stored.unwrap();
        assert_eq!(found, BTreeSet::from([b"trail ".to_vec()]));
    }
}
