//! Reading and making symbolic links.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::containment::{safe_target, target_to_create};
use super::list_command::{Answer, Listed};
use super::options::ListingMode;
use super::probes;
use super::server::FtpServer;
use super::session::Session;
use super::stat::{size_of, time_of};
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// How long a target that a listing told is believed: long enough for an `ls -l`, which reads the
/// links right after the listing.
const TARGETS_FRESH: Duration = Duration::from_secs(10);

/// Names asked about in one batch, which has a time limit: with a round trip for each of the three
/// commands, too.
const AT_ONCE: usize = 64;

/// Most targets remembered.
const TARGETS_MAX: usize = 10_000;

/// Targets that recent listings told, so that `ls -l` of many links is one listing.
#[derive(Debug, Default)]
pub(crate) struct LinkTargets(HashMap<RemotePath, (Box<[u8]>, Instant)>);

impl LinkTargets {
    /// Takes the targets out of a listing of `dir`.
    pub(crate) fn learn(&mut self, dir: &RemotePath, entries: &[DirEntry]) {
        let now = Instant::now();
        let told = entries.iter().filter_map(|entry| {
            let target = entry.attr.target.as_ref()?;
            (!target.is_empty()).then(|| (dir.join(&entry.name), (target.clone(), now)))
        });
        self.0.extend(told);
        if self.0.len() > TARGETS_MAX {
            self.0
                .retain(|_, (_, since)| since.elapsed() < TARGETS_FRESH);
        }
        if self.0.len() > TARGETS_MAX {
            self.0.clear();
        }
    }

    /// `path` was changed.
    pub(crate) fn forget(&mut self, path: &RemotePath) {
        self.0.remove(path);
    }

    fn fresh(&self, path: &RemotePath) -> Option<Vec<u8>> {
        let (target, since) = self.0.get(path)?;
        (since.elapsed() < TARGETS_FRESH).then(|| target.to_vec())
    }
}

impl FtpServer {
    /// The target of the link at `path`, as the mount's policy allows it.
    pub(super) fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        let raw = match self.links.with(|links| links.fresh(path)) {
            Some(target) => target,
            None => self.on_session(|s| self.target_now(s, path))?,
        };
        safe_target(self.options().links, &self.root, path, &raw)
    }

    fn target_now(&self, s: &mut Session, path: &RemotePath) -> Result<Vec<u8>> {
        let attr = self.stat_by_listing(s, path)?;
        let attr = attr.ok_or_else(|| Error::new(ErrorKind::NotFound, path.to_string()))?;
        if attr.kind != FileKind::Symlink {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{path}: not a link"),
            ));
        }
        Ok(attr.target.unwrap_or_default().into())
    }

    /// MLSD of ProFTPD and Pure-FTPd does not tell where links lead, and ProFTPD's leaves dangling
    /// ones out: a directory that shows a link is listed again with LIST.
    pub(super) fn add_links(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        listed: &mut Listed,
    ) -> Result<()> {
        let untold = |entry: &DirEntry| {
            entry.attr.kind == FileKind::Symlink
                && entry
                    .attr
                    .target
                    .as_ref()
                    .is_none_or(|target| target.is_empty())
        };
        if !listed.entries.iter().any(untold) {
            return Ok(());
        }
        let all = self.ways.with(|ways| ways.list_all) != Some(false);
        let mut answer = None;
        if all {
            answer = Some(self.list_by(s, dir, ListingMode::ListAll)?);
        }
        if !matches!(&answer, Some(Answer::Listed(by_list)) if !by_list.entries.is_empty()) {
            answer = Some(self.list_by(s, dir, ListingMode::List)?);
        }
        let Some(Answer::Listed(by_list)) = answer else {
            return Ok(());
        };
        let places: HashMap<Name, usize> = listed
            .entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.name.clone(), at))
            .collect();
        for link in by_list.entries {
            if link.attr.kind != FileKind::Symlink {
                continue;
            }
            match places
                .get(&link.name)
                .and_then(|at| listed.entries.get_mut(*at))
            {
                Some(entry) => {
                    entry.attr.kind = FileKind::Symlink;
                    // ProFTPD gives a link the identity of what it leads to.
                    entry.attr.unique = None;
                    entry.attr.size = link.attr.target.as_ref().map(|t| t.len() as u64);
                    entry.attr.target = link.attr.target;
                }
                None => listed.entries.push(link),
            }
        }
        Ok(())
    }

    /// Puts what links lead to in their place, and leaves out those that lead nowhere.
    pub(super) fn follow_all(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        entries: &mut Vec<DirEntry>,
    ) -> Result<()> {
        let is_link = |entry: &DirEntry| entry.attr.kind == FileKind::Symlink;
        let links: Vec<_> = entries
            .iter()
            .filter(|entry| is_link(entry))
            .map(|entry| dir.join(&entry.name))
            .collect();
        if links.is_empty() {
            return Ok(());
        }
        let mut followed = self.follow(s, &links)?.into_iter();
        entries.retain_mut(|entry| {
            if !is_link(entry) {
                return true;
            }
            let found = followed.next().flatten();
            let leads_somewhere = found.is_some();
            if let Some(attr) = found {
                entry.attr = attr;
            }
            leads_somewhere
        });
        Ok(())
    }

    /// What the names, which are links, lead to: `None` for those that lead nowhere.
    pub(super) fn follow(
        &self,
        s: &mut Session,
        links: &[RemotePath],
    ) -> Result<Vec<Option<Attr>>> {
        let mut found = Vec::with_capacity(links.len());
        for links in links.chunks(AT_ONCE) {
            self.follow_some(s, links, &mut found)?;
        }
        Ok(found)
    }

    fn follow_some(
        &self,
        s: &mut Session,
        links: &[RemotePath],
        found: &mut Vec<Option<Attr>>,
    ) -> Result<()> {
        let mut lines = Vec::with_capacity(links.len() * 3 + 1);
        for link in links {
            for verb in ["SIZE", "MDTM", "CWD"] {
                lines.push(self.line(verb, link)?);
            }
        }
        lines.push(self.way_back());
        let replies = s.batch(&lines)?;
        let answers = replies.chunks_exact(3).map(|answers| match answers {
            [_, _, enter] if enter.is_ok() => Some(Attr::new(FileKind::Directory)),
            [size, mdtm, _] if size.is_ok() => {
                let mtime = time_of(mdtm);
                Some(Attr {
                    size: size_of(size),
                    mtime,
                    mtime_exact: mtime.is_some(),
                    ..Attr::new(FileKind::File)
                })
            }
            _ => None,
        });
        found.extend(answers);
        Ok(())
    }

    /// Makes a link, where the server has `SITE SYMLINK` (ProFTPD's mod_site_misc). It takes paths
    /// apart at spaces and wants the target to exist.
    pub(super) fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let cannot = |why: &str| {
            Err(Error::new(
                ErrorKind::NotPermitted,
                format!("{path}: {why}"),
            ))
        };
        let to = match target_to_create(self.options().links, path, target)? {
            Some(inside) => self.spell(&inside)?,
            None => target.to_vec(),
        };
        let at = self.spell(path)?;
        if to.contains(&b' ') || at.contains(&b' ') {
            return cannot("the server cannot make links with spaces in their names");
        }
        let line = [b"SITE SYMLINK ".as_slice(), &to, b" ", &at].concat();
        let act = |s: &mut Session| {
            if !s.features().has("SITE SYMLINK") {
                return cannot("the server cannot make symbolic links");
            }
            let reply = s.command(&line)?;
            if reply.is_ok() {
                return Ok(());
            }
            Err(self.explain(s, probes::PLACE, ("SITE SYMLINK", path), &reply))
        };
        let happened = |s: &mut Session| {
            let found = self.stat_by_listing(s, path)?;
            Ok(found
                .filter(|attr| attr.kind == FileKind::Symlink)
                .map(|_| ()))
        };
        self.settled(act, happened)?;
        self.links.with(|links| links.forget(path));
        Ok(())
    }
}
