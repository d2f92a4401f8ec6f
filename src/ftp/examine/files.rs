//! Files: writing, reading, replacing, times, modes, links, checksums.

use std::time::{Duration, SystemTime};

use super::Examination;
use crate::finding::Verdict;
use crate::ftp::options::Verify;
use crate::ftp::xattrs::CHECKSUMS;
use crate::vfs::attr::SetAttr;
use crate::vfs::backend::{Need, Publish, Replaces};
use crate::vfs::checksum::Algorithm;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// Longer than one packet, and every byte another than its neighbours.
pub(super) fn content(len: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(len).collect()
}

/// What is said of MODE Z.
const DOWN: &str = "packed downloads (MODE Z)";
const UP: &str = "packed uploads (MODE Z)";

/// A name below `dir`.
pub(super) fn below(dir: &RemotePath, name: &[u8]) -> Result<RemotePath> {
    Ok(dir.join(&Name::new(name)?))
}

/// A time that no clock shows by chance: a day ago, at an odd second.
fn some_time() -> SystemTime {
    let now = crate::vfs::attr::whole_seconds(SystemTime::now());
    now - Duration::from_secs(86_400 + 4_321)
}

impl Examination<'_> {
    /// Writes a file as a mount does.
    pub(super) fn write(&self, path: &RemotePath, data: &[u8]) -> Result<()> {
        let mut upload = self.server.store(path, Replaces::Anything, None, true)?;
        upload.write(data)?;
        let what = Publish {
            size: data.len() as u64,
            mtime: None,
            mode: None,
            new: false,
            replaces: Replaces::Anything,
        };
        upload.publish(path, &what).map(drop)
    }

    /// Reads a file as a mount does, at most `limit` bytes of it.
    pub(super) fn read(&self, path: &RemotePath, offset: u64, limit: usize) -> Result<Vec<u8>> {
        let mut download = self
            .server
            .retrieve(path, offset, Need::Stream { wait: true })?;
        let mut data = Vec::new();
        let mut buf = vec![0; 64 * 1024];
        while data.len() < limit {
            let got = download.read(&mut buf)?;
            if got == 0 {
                download.finish()?;
                return Ok(data);
            }
            data.extend_from_slice(buf.get(..got).unwrap_or_default());
        }
        Ok(data)
    }

    pub(super) fn files(&mut self, dir: &RemotePath) -> Result<()> {
        let file = below(dir, b"file")?;
        let data = content(10_000);
        let written = self.write(&file, &data).map(|()| String::new());
        if !self.findings.tried("files", "write a file", written) {
            return Ok(());
        }
        self.go_on()?;
        let same = |found: Vec<u8>, wanted: &[u8]| {
            if found == wanted {
                Ok(String::new())
            } else {
                Err(differs(found.len(), wanted.len()))
            }
        };
        let read = self.read(&file, 0, usize::MAX);
        let read = read.and_then(|found| same(found, &data));
        self.findings.tried("files", "read it back", read);
        let rest = self.read(&file, 4_000, usize::MAX);
        let tail = data.get(4_000..).unwrap_or_default();
        let rest = rest.and_then(|found| same(found, tail));
        self.findings
            .tried("files", "read from an offset (REST)", rest);
        self.go_on()?;
        // Once more: now there is something to replace.
        let replaced = self.write(&file, &content(5_000));
        let replaced = replaced.map(|()| String::new());
        self.findings.tried("files", "replace a file", replaced);
        let appended = self.append(&file);
        self.findings.tried("files", "append (APPE)", appended);
        self.go_on()?;
        let clock = self.clock(&file);
        match clock {
            Ok(Some(ahead)) => self.findings.fact(
                "files",
                "server's clock",
                format!("{ahead} s ahead of ours"),
            ),
            Ok(None) => {}
            Err(err) => self
                .findings
                .add("files", "server's clock", Verdict::No, err.to_string()),
        }
        self.attributes(dir, &file)?;
        let link = below(dir, b"link")?;
        let linked = self.server.symlink(b"file", &link).and_then(|()| {
            let target = self.server.read_link(&link)?;
            Ok(format!("shown as -> {}", target.escape_ascii()))
        });
        self.findings
            .tried("files", "symbolic links (SITE SYMLINK)", linked);
        self.checksums(&file)?;
        self.packed(dir)?;
        let space = self.server.space()?.map(|space| {
            let total = match space.total {
                Some(total) => format!(" of {total}"),
                None => String::new(),
            };
            format!("{}{total} bytes free", space.available)
        });
        let space = space.ok_or("the server does not tell; df shows 1 PiB");
        self.findings.tried("files", "free space", space);
        Ok(())
    }

    /// MODE Z: whether what is read is what is there, and what is sent what then is there.
    fn packed(&mut self, dir: &RemotePath) -> Result<()> {
        let host = self.server.pool.host();
        let offered = host.facts(|facts| {
            let known = facts.features.as_ref();
            known.is_some_and(|known| known.has("MODE Z"))
        });
        if !offered {
            self.findings.add("files", DOWN, Verdict::No, "not offered");
            return Ok(());
        }
        self.go_on()?;
        let (file, data) = (below(dir, b"packed")?, content(100_000));
        let server = &self.server;
        let down = self
            .write(&file, &data)
            .and_then(|()| server.on_session(|s| server.read_packed(s, &file, data.len())));
        let down = match down.map_err(|err| err.to_string()) {
            Ok(Ok(found)) if found == data => Ok(String::new()),
            Ok(Ok(found)) => Err(differs(found.len(), data.len()).to_string()),
            Ok(Err(why)) | Err(why) => Err(why),
        };
        if !self.findings.tried("files", DOWN, down) {
            return Ok(());
        }
        self.go_on()?;
        let server = &self.server;
        let up = server.on_session(|s| server.unpacks(s, &file));
        let up = match up.map_err(|err| err.to_string()) {
            Ok(Ok(())) => Ok(String::new()),
            Ok(Err(why)) | Err(why) => Err(why),
        };
        self.findings.tried("files", UP, up);
        Ok(())
    }

    fn append(&self, file: &RemotePath) -> Result<String> {
        let mut upload = self.server.append(file, 5_000)?;
        upload.write(b"more")?;
        let what = Publish {
            size: 5_004,
            mtime: None,
            mode: None,
            new: false,
            replaces: Replaces::Anything,
        };
        upload.publish(file, &what)?;
        let found = self.read(file, 0, usize::MAX)?;
        if found.len() == 5_004 && found.ends_with(b"more") {
            Ok(String::new())
        } else {
            Err(differs(found.len(), 5_004))
        }
    }

    /// Seconds that the server's clock is ahead, by the time of a file that was just written.
    fn clock(&self, file: &RemotePath) -> Result<Option<i64>> {
        let shown = self.server.stat(file)?;
        let Some(mtime) = shown.mtime.filter(|_| shown.mtime_exact) else {
            return Ok(None);
        };
        let now = SystemTime::now();
        let seconds = |gap: Duration| i64::try_from(gap.as_secs()).unwrap_or(i64::MAX);
        Ok(Some(match mtime.duration_since(now) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        }))
    }

    fn attributes(&mut self, dir: &RemotePath, file: &RemotePath) -> Result<()> {
        let at = some_time();
        let times = SetAttr {
            mtime: Some(at),
            ..SetAttr::default()
        };
        let set = self.server.set_attr(file, &times).and_then(|()| {
            let shown = self.server.stat(file)?.mtime;
            let way = self.server.report().set_time.unwrap_or("a command");
            if shown == Some(at) {
                Ok(format!("by {way}"))
            } else {
                let detail = format!("{way} works, but the time shown is another");
                Err(Error::new(ErrorKind::Protocol, detail))
            }
        });
        self.findings.tried("files", "set times", set);
        let of_dir = self.server.set_attr(dir, &times).and_then(|()| {
            if self.server.ways.with(|ways| ways.directory_times) == Some(false) {
                let detail = "kept by the mount only, while it lives";
                return Err(Error::new(ErrorKind::Unsupported, detail));
            }
            Ok(String::new())
        });
        self.findings
            .tried("files", "set times of directories", of_dir);
        self.go_on()?;
        let mode = SetAttr {
            mode: Some(0o640),
            ..SetAttr::default()
        };
        let changed = self.server.set_attr(file, &mode).and_then(|()| {
            let shown = self.server.stat(file)?.mode.map(|mode| mode & 0o777);
            match shown {
                Some(0o640) => Ok("shown as set".to_owned()),
                Some(other) => Err(Error::new(
                    ErrorKind::Protocol,
                    format!("said to be done, but the mode shown is {other:03o}"),
                )),
                None => Ok("modes are not shown".to_owned()),
            }
        });
        if !self
            .findings
            .tried("files", "set modes (SITE CHMOD)", changed)
        {
            self.findings
                .advise("chmod=ignore", "programs that insist on chmod work then");
        }
        Ok(())
    }

    /// Which checksums the server computes, and computes right.
    fn checksums(&mut self, file: &RemotePath) -> Result<()> {
        let content = self.read(file, 0, usize::MAX)?;
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for (name, algorithm) in &CHECKSUMS {
            self.go_on()?;
            let Ok(theirs) = self.server.xattr(file, name) else {
                continue;
            };
            let mut ours = algorithm.begin();
            ours.add(&content);
            match ours.end().digits.as_bytes() == theirs {
                true => right.push(*algorithm),
                false => wrong.push(*algorithm),
            }
        }
        let names = |all: &[Algorithm]| {
            let names: Vec<_> = all.iter().map(|algorithm| algorithm.name()).collect();
            names.join(", ")
        };
        let outcome = match (right.is_empty(), wrong.is_empty()) {
            (false, true) => Ok(names(&right)),
            (true, true) => Err("no HASH, XSHA, XMD5 or XCRC".to_owned()),
            (_, false) => Err(format!(
                "wrong: {}; right: {}",
                names(&wrong),
                names(&right)
            )),
        };
        self.findings
            .tried("files", "checksums by the server", outcome);
        let used = self.server.offered();
        if let Some(algorithm) = used.filter(|algorithm| right.contains(algorithm))
            && self.server.options().verify == Verify::Off
        {
            let name = algorithm.name();
            let why =
                format!("what was transferred is then compared by {name}, not by its size only");
            self.findings.advise("verify=auto", why);
        }
        Ok(())
    }
}

fn differs(found: usize, wanted: usize) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("it is not what was written: {found} bytes instead of {wanted}"),
    )
}
