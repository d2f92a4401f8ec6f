//! How fast bytes go either way.

use std::time::{Duration, Instant};

use super::Examination;
use super::files::{below, content};
use crate::finding::Verdict;
use crate::vfs::attr::FileKind;
use crate::vfs::backend::{Need, Publish, Replaces};
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Most that is sent, and how long.
const MOST: usize = 16 << 20;
const LONGEST: Duration = Duration::from_secs(5);

impl Examination<'_> {
    pub(super) fn speed(&mut self, dir: &RemotePath) -> Result<()> {
        let path = below(dir, b"speed")?;
        let piece = content(256 * 1024);
        let began = Instant::now();
        let mut upload = self.server.store(&path, Replaces::Anything, None, true)?;
        let mut sent = 0;
        while sent < MOST && began.elapsed() < LONGEST {
            self.go_on()?;
            upload.write(&piece)?;
            sent += piece.len();
        }
        let what = Publish {
            size: sent as u64,
            mtime: None,
            mode: None,
            new: false,
            replaces: Replaces::Anything,
        };
        upload.publish(&path, &what)?;
        self.findings
            .fact("speed", "up", rate(sent, began.elapsed()));
        self.down(&path)
    }

    /// Of a server that takes nothing: the largest file in its first directory.
    pub(super) fn speed_of_what_is_there(&mut self) -> Result<()> {
        let root = RemotePath::root();
        let listed = self.server.list(&root)?;
        let largest = listed
            .iter()
            .filter(|entry| entry.attr.kind == FileKind::File)
            .max_by_key(|entry| entry.attr.size);
        match largest {
            Some(entry) => self.down(&root.join(&entry.name)),
            None => {
                let why = "no file to read here";
                self.findings.add("speed", "down", Verdict::Untried, why);
                Ok(())
            }
        }
    }

    fn down(&mut self, path: &RemotePath) -> Result<()> {
        let began = Instant::now();
        let mut download = match self.server.retrieve(path, 0, Need::Stream { wait: true }) {
            Ok(download) => download,
            Err(err) => {
                self.findings
                    .add("speed", "down", Verdict::No, err.to_string());
                return Ok(());
            }
        };
        let mut buf = vec![0; 256 * 1024];
        let mut got = 0;
        while got < MOST && began.elapsed() < LONGEST {
            self.go_on()?;
            match download.read(&mut buf)? {
                0 => {
                    download.finish()?;
                    break;
                }
                some => got += some,
            }
        }
        self.findings
            .fact("speed", "down", rate(got, began.elapsed()));
        Ok(())
    }
}

/// Megabytes in a second, on one connection.
fn rate(bytes: usize, time: Duration) -> String {
    let micros = time.as_micros().max(1);
    // A byte in a microsecond is a megabyte in a second.
    let tenths = bytes as u128 * 10 / micros;
    format!(
        "{}.{} MB/s ({} KiB in {} ms)",
        tenths / 10,
        tenths % 10,
        bytes / 1024,
        time.as_millis()
    )
}
