//! What a refusal means, found out by looking.
//!
//! 450, 550 and 553 say nothing by themselves: "550 Delete operation failed" is vsftpd's answer to
//! a missing file, a directory and a lack of rights. For each operation there is a list of questions;
//! the first that fits names the error. All are asked on the session that was refused, never on a
//! second one.

use super::refusal::{classify, refusal};
use super::reply::Reply;
use super::server::{FtpServer, exactly};
use super::session::Session;
use crate::vfs::attr::FileKind;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// How many directories up the cause is looked for.
const CLIMB_MAX: usize = 8;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Surely nothing.
    Missing,
    /// A file, or a link that is no directory.
    File,
    /// A directory, or a link to one.
    Directory,
    /// The server hides it, or will not say.
    Unclear,
}

/// Which path a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    Itself,
    Parent,
}
use Whom::{Itself, Parent};

/// "If this is what is there, the error is that."
#[derive(Debug, Clone, Copy)]
enum Question {
    Is(Whom, Seen, ErrorKind),
    /// The path is a directory with entries.
    Filled(ErrorKind),
}
use Question::{Filled, Is};

/// Questions about one kind of operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probes(&'static [Question]);

/// Something of an existing file or directory was to be changed or told.
pub(super) const TOUCH: Probes = Probes(&[Is(Itself, Seen::Missing, ErrorKind::NotFound)]);
/// RETR, APPE.
pub(super) const FILE: Probes = Probes(&[
    Is(Itself, Seen::Missing, ErrorKind::NotFound),
    Is(Itself, Seen::Directory, ErrorKind::IsADirectory),
]);
/// STOR, SITE SYMLINK, RNTO: a new name.
pub(super) const PLACE: Probes = Probes(&[
    Is(Itself, Seen::Directory, ErrorKind::IsADirectory),
    Is(Parent, Seen::Missing, ErrorKind::NotFound),
    Is(Parent, Seen::File, ErrorKind::NotADirectory),
]);
/// MLSD, LIST.
pub(super) const LIST: Probes = Probes(&[
    Is(Itself, Seen::Missing, ErrorKind::NotFound),
    Is(Itself, Seen::File, ErrorKind::NotADirectory),
]);
/// DELE.
pub(super) const REMOVE: Probes = FILE;
/// RMD.
pub(super) const REMOVE_DIRECTORY: Probes = Probes(&[
    Is(Itself, Seen::Missing, ErrorKind::NotFound),
    Is(Itself, Seen::File, ErrorKind::NotADirectory),
    Filled(ErrorKind::NotEmpty),
]);
/// MKD.
pub(super) const MAKE_DIRECTORY: Probes = Probes(&[
    Is(Itself, Seen::Directory, ErrorKind::Exists),
    Is(Itself, Seen::File, ErrorKind::Exists),
    Is(Parent, Seen::Missing, ErrorKind::NotFound),
    Is(Parent, Seen::File, ErrorKind::NotADirectory),
]);

impl FtpServer {
    /// The error that the refusal of `verb path` stands for. Where the server's text says it, that
    /// is believed; otherwise `probes` are asked.
    pub(super) fn explain(
        &self,
        s: &mut Session,
        probes: Probes,
        (verb, path): (&str, &RemotePath),
        reply: &Reply,
    ) -> Error {
        let plain = refusal(&format!("{verb} {path}"), reply);
        let verdict = classify(reply);
        // "Invalid argument" is what some systems say of unlink(2) on a directory.
        let vague = matches!(reply.code(), 450 | 451 | 501 | 521 | 550 | 553)
            && (!verdict.told || verdict.kind == ErrorKind::Invalid);
        if !vague {
            return self.noted(path, plain);
        }
        let kind = match self.first_fitting(s, probes, path) {
            Ok(Some(kind)) => kind,
            Ok(None) | Err(_) => plain.kind(),
        };
        self.noted(path, Error::new(kind, plain.detail()))
    }

    fn first_fitting(
        &self,
        s: &mut Session,
        probes: Probes,
        path: &RemotePath,
    ) -> Result<Option<ErrorKind>> {
        let (mut itself, mut parent) = (None, None);
        for question in probes.0 {
            let (fits, kind) = match *question {
                Is(whom, what, kind) => {
                    let known = if whom == Itself {
                        &mut itself
                    } else {
                        &mut parent
                    };
                    let seen = match *known {
                        Some(seen) => seen,
                        None => {
                            let above = path.parent().unwrap_or_else(RemotePath::root);
                            let target = if whom == Itself { path } else { &above };
                            *known.insert(self.look(s, target)?)
                        }
                    };
                    (seen == what, kind)
                }
                Filled(kind) => (
                    self.list_on(s, path)
                        .is_ok_and(|entries| !entries.is_empty()),
                    kind,
                ),
            };
            if fits {
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    /// What is at `path` now.
    pub(super) fn look(&self, s: &mut Session, path: &RemotePath) -> Result<Seen> {
        self.look_up(s, path, CLIMB_MAX)
    }

    fn look_up(&self, s: &mut Session, path: &RemotePath, climb: usize) -> Result<Seen> {
        let Some((parent, name)) = path.split() else {
            return Ok(Seen::Directory);
        };
        let told = if self.has_mlst(s) {
            self.mlst(s, path)?
        } else {
            None
        };
        match told {
            Some(Ok(attr)) => return Ok(seen_as(attr.kind)),
            Some(Err(_)) => {}
            None => {
                let lines = [
                    self.line("SIZE", path)?,
                    self.line("CWD", path)?,
                    self.way_back(),
                ];
                let [size, enter, _back] = exactly(s.batch(&lines)?)?;
                // Some servers tell the size of a directory too.
                if enter.is_ok() {
                    return Ok(Seen::Directory);
                }
                if size.is_ok() {
                    return Ok(Seen::File);
                }
            }
        }
        if !self.enter(s, &parent)?.is_ok() {
            if climb == 0 {
                return Ok(Seen::Unclear);
            }
            return Ok(match self.look_up(s, &parent, climb - 1)? {
                Seen::Missing | Seen::File => Seen::Missing,
                Seen::Directory | Seen::Unclear => Seen::Unclear,
            });
        }
        if told.is_some() && self.ways.with(|w| w.mlst_follows != Some(true)) {
            return Ok(Seen::Missing);
        }
        // What SIZE, CWD and some MLST cannot see, a listing shows: dangling links, devices.
        let entries = self.list_on(s, &parent)?;
        let entry = entries.iter().find(|entry| entry.name == name);
        Ok(entry.map_or(Seen::Missing, |entry| seen_as(entry.attr.kind)))
    }
}

fn seen_as(kind: FileKind) -> Seen {
    match kind {
        FileKind::Directory => Seen::Directory,
        FileKind::File | FileKind::Symlink => Seen::File,
    }
}
