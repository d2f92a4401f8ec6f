//! Commands about names: where they are, what they are, changing them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::quirks::{Quirks, SiteUtime};
use super::session::Session;
use super::{clock, listing};

impl Session {
    /// `arg` seen from the working directory, as `/a/b`; `..` stops at the root.
    pub(super) fn absolute(&self, arg: &[u8]) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let start: &[u8] = if arg.starts_with(b"/") {
            b""
        } else {
            &self.cwd
        };
        for part in start.split(|b| *b == b'/').chain(arg.split(|b| *b == b'/')) {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        [b"/", &parts.join(&b'/')[..]].concat()
    }

    /// Where `arg` is on this machine.
    pub(super) fn real(&self, arg: &[u8]) -> PathBuf {
        let path = self.absolute(arg);
        let root = &self.shared.root;
        if !self.shared.quirks().case_insensitive {
            return root.join(OsStr::from_bytes(&path[1..]));
        }
        let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
        parts.fold(root.clone(), |dir, part| dir.join(in_any_case(&dir, part)))
    }

    /// 550 with the system's reason, in the words that servers use.
    pub(super) fn refuse(&mut self, arg: &[u8], err: &io::Error) -> io::Result<()> {
        let words = err.to_string();
        let words = match err.kind() {
            io::ErrorKind::NotFound => "No such file or directory",
            io::ErrorKind::PermissionDenied => "Permission denied",
            io::ErrorKind::AlreadyExists => "File exists",
            io::ErrorKind::DirectoryNotEmpty => "Directory not empty",
            io::ErrorKind::IsADirectory => "Is a directory",
            io::ErrorKind::NotADirectory => "Not a directory",
            _ => &words,
        };
        self.say_bytes(&[b"550 ", arg, b": ", words.as_bytes()].concat())
    }

    fn outcome(&mut self, arg: &[u8], outcome: io::Result<()>, words: &str) -> io::Result<()> {
        match outcome {
            Ok(()) => self.done(words),
            Err(err) => self.refuse(arg, &err),
        }
    }

    pub(super) fn file_command(&mut self, q: &Quirks, verb: &str, arg: &[u8]) -> io::Result<()> {
        let path = self.real(arg);
        match verb {
            "PWD" | "XPWD" => self.tell_directory(b"is the current directory"),
            "CWD" | "XCWD" | "CDUP" | "XCUP" => {
                let arg = if verb.ends_with("UP") { b".." } else { arg };
                match fs::read_dir(self.real(arg)) {
                    Ok(_) => {
                        self.cwd = self.absolute(arg);
                        self.done("250 Directory changed.")
                    }
                    Err(err) => self.refuse(arg, &err),
                }
            }
            "MKD" | "XMKD" => match fs::create_dir(&path) {
                Ok(()) => {
                    let name = quoted(&self.absolute(arg));
                    let words = [b"257 ", &name[..], b" created."].concat();
                    self.done(&String::from_utf8_lossy(&words))
                }
                Err(err) => self.refuse(arg, &err),
            },
            "RMD" | "XRMD" => self.outcome(arg, fs::remove_dir(&path), "250 Removed."),
            "DELE" => self.outcome(arg, fs::remove_file(&path), "250 Deleted."),
            "RNFR" => {
                let found = fs::symlink_metadata(&path).map(drop);
                self.rename_from = found.is_ok().then_some(path);
                self.outcome(arg, found, "350 Ready for RNTO.")
            }
            "RNTO" => self.rename_to(q, arg, &path),
            "SIZE" if self.ascii => self.say("550 SIZE not allowed in ASCII mode."),
            "SIZE" => match regular(&path) {
                Ok(meta) => self.done(&format!("213 {}", meta.len())),
                Err(err) => self.refuse(arg, &err),
            },
            "MDTM" => self.modification_time(q, arg, &path),
            "MFMT" => {
                let (stamp, name) = first_word(arg);
                let done = set_time(&self.real(name), &stamp);
                self.outcome(name, done, &format!("213 Modify={stamp};"))
            }
            "MFF" if q.extras.contains(&"MFF") => self.set_facts(arg),
            "AVBL" if q.extras.contains(&"AVBL") => self.done("213 123456789"),
            "MLST" => match listing::mlsx_line(q, None, &self.absolute(arg), &path) {
                Some(line) => {
                    let reply = [b"250-Listing\r\n ", &line[..], b"\r\n250 End"].concat();
                    self.say_bytes(&reply)
                }
                None => self.refuse(arg, &io::ErrorKind::NotFound.into()),
            },
            "STAT" => self.status(q, arg),
            "SITE" => self.site(q, arg),
            _ => self.say("500 Unknown command."),
        }
    }

    fn tell_directory(&mut self, words: &[u8]) -> io::Result<()> {
        let reply = [b"257 ", &quoted(&self.cwd)[..], b" ", words].concat();
        let line = self.line.clone();
        match self.shared.rule(&line, |quirks| &mut quirks.instead) {
            Some(words) => self.say(&words),
            None => self.say_bytes(&reply),
        }
    }

    fn rename_to(&mut self, quirks: &Quirks, arg: &[u8], to: &Path) -> io::Result<()> {
        let Some(from) = self.rename_from.take() else {
            return self.say("503 RNFR first.");
        };
        if let Some(words) = &quirks.rnto_over_refused
            && fs::symlink_metadata(to).is_ok()
        {
            return self.say(words);
        }
        // What is renamed to itself gets the case of the new name.
        let absolute = self.absolute(arg);
        let name = absolute.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let renamed = match from == to {
            true => fs::rename(&from, to.with_file_name(OsStr::from_bytes(name))),
            false => fs::rename(from, to),
        };
        self.outcome(arg, renamed, "250 Renamed.")
    }

    fn modification_time(&mut self, quirks: &Quirks, arg: &[u8], path: &Path) -> io::Result<()> {
        let (stamp, name) = first_word(arg);
        if quirks.mdtm_sets && !name.is_empty() && clock::parse_stamp(&stamp).is_some() {
            let done = set_time(&self.real(name), &stamp);
            return self.outcome(name, done, "213 File modification time set.");
        }
        match regular(path).and_then(|meta| meta.modified()) {
            Ok(time) => self.done(&format!("213 {}", clock::stamp(time))),
            Err(err) => self.refuse(arg, &err),
        }
    }

    fn set_facts(&mut self, arg: &[u8]) -> io::Result<()> {
        let (facts, name) = first_word(arg);
        let path = self.real(name);
        let mut outcome = Ok(());
        for fact in facts.split(';').filter(|fact| !fact.is_empty()) {
            outcome = outcome.and(match fact.split_once('=') {
                Some((key, stamp)) if key.eq_ignore_ascii_case("modify") => set_time(&path, stamp),
                Some((key, mode)) if key.eq_ignore_ascii_case("unix.mode") => set_mode(&path, mode),
                _ => return self.say("504 Fact not known."),
            });
        }
        self.outcome(name, outcome, &format!("213 {facts}"))
    }

    fn status(&mut self, quirks: &Quirks, arg: &[u8]) -> io::Result<()> {
        if arg.is_empty() {
            return self.done("211 All is well.");
        }
        let all = arg
            .strip_prefix(b"-a ")
            .or_else(|| arg.strip_prefix(b"-la "));
        if quirks.stat_bare {
            return match self.listing(quirks, "LIST", false, &self.real(arg)) {
                Ok(text) => {
                    let head = [b"213-Status of \"", arg, b"\":\r\n"].concat();
                    self.say_bytes(&[&head[..], &text, b"213 End of status."].concat())
                }
                Err(err) => self.refuse(arg, &err),
            };
        }
        let name = all.unwrap_or(arg);
        match self.listing(quirks, "LIST", all.is_some(), &self.real(name)) {
            Ok(text) => {
                let reply = [b"213-Status follows:\r\n", &text[..], b"213 End of status"].concat();
                self.say_bytes(&reply)
            }
            Err(_) if quirks.missing_is_empty => {
                self.say("213-Status follows:\r\n213 End of status")
            }
            Err(err) => self.refuse(name, &err),
        }
    }

    fn site(&mut self, quirks: &Quirks, arg: &[u8]) -> io::Result<()> {
        let (word, rest) = first_word(arg);
        match word.to_ascii_uppercase().as_str() {
            "CHMOD" => {
                let (mode, name) = first_word(rest);
                let done = set_mode(&self.real(name), &mode);
                self.outcome(name, done, "200 Mode changed.")
            }
            "UTIME" if quirks.site_utime == SiteUtime::Two => {
                let (stamp, name) = first_word(rest);
                let done = set_time(&self.real(name), &stamp);
                self.outcome(name, done, "200 Times changed.")
            }
            "UTIME" if quirks.site_utime == SiteUtime::Five => {
                let text = String::from_utf8_lossy(rest).into_owned();
                let words: Vec<&str> = text.rsplitn(5, ' ').collect();
                let &["UTC", _, modified, _, name] = &words[..] else {
                    return self.say("501 SITE UTIME name atime mtime ctime UTC.");
                };
                let name = &rest[..name.len()];
                let done = set_time(&self.real(name), modified);
                self.outcome(name, done, "200 Times changed.")
            }
            "SYMLINK" if quirks.extras.contains(&"SITE SYMLINK") => {
                let (target, name) = first_word(rest);
                let done = std::os::unix::fs::symlink(target, self.real(name));
                self.outcome(name, done, "200 Linked.")
            }
            _ => self.say("500 Unknown SITE command."),
        }
    }
}

/// `name`, or the name in `dir` that differs from it by the case of letters.
fn in_any_case(dir: &Path, name: &[u8]) -> OsString {
    let wanted = OsStr::from_bytes(name);
    let exact = fs::symlink_metadata(dir.join(wanted)).is_ok();
    let mut names = fs::read_dir(dir).into_iter().flatten().flatten();
    let other = names.find(|entry| entry.file_name().eq_ignore_ascii_case(wanted));
    match other {
        Some(entry) if !exact => entry.file_name(),
        _ => wanted.to_owned(),
    }
}

/// What is not a regular file has neither size nor time (RFC 3659 sections 3 and 4).
fn regular(path: &Path) -> io::Result<fs::Metadata> {
    let meta = fs::metadata(path)?;
    if meta.is_file() {
        Ok(meta)
    } else {
        Err(io::Error::other("not a plain file"))
    }
}

fn set_time(path: &Path, stamp: &str) -> io::Result<()> {
    let time: SystemTime =
        clock::parse_stamp(stamp).ok_or_else(|| io::Error::other("not a time"))?;
    File::open(path)?.set_modified(time)
}

fn set_mode(path: &Path, octal: &str) -> io::Result<()> {
    let mode = u32::from_str_radix(octal, 8).map_err(|_| io::Error::other("not a mode"))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn first_word(arg: &[u8]) -> (String, &[u8]) {
    let space = arg.iter().position(|b| *b == b' ').unwrap_or(arg.len());
    let rest = arg.get(space + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&arg[..space]).into_owned(), rest)
}

/// In quotes, inner ones doubled (RFC 959 appendix II).
fn quoted(path: &[u8]) -> Vec<u8> {
    let doubled = path
        .split(|b| *b == b'"')
        .collect::<Vec<_>>()
        .join(&b"\"\""[..]);
    [b"\"", &doubled[..], b"\""].concat()
}
