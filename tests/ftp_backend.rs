//! The backend's behaviour on servers with the faults of real ones.

mod behind;
mod changes;
mod listing;
mod server;
mod upload;

use ferryfs::ftp::FtpBackend;
use ferryfs::vfs::attr::Attr;
use ferryfs::vfs::backend::{Backend, Need, Publish, Replaces};
use ferryfs::vfs::error::Result;
use ferryfs::vfs::path::RemotePath;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

/// 2023-11-14 22:13:27 UTC.
fn moment() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_007)
}

fn put(backend: &FtpBackend, at: &str, content: &str) -> Result<Attr> {
    let mut upload = backend
        .transfers()
        .store(&path(at), Replaces::Anything, true)?;
    upload.write(content.as_bytes())?;
    let what = Publish {
        size: content.len() as u64,
        mtime: Some(moment()),
        mode: None,
        new: false,
        replaces: Replaces::Anything,
    };
    upload.publish(&path(at), &what)
}

fn get(backend: &FtpBackend, at: &str, offset: u64) -> Result<String> {
    let mut download =
        backend
            .transfers()
            .retrieve(&path(at), offset, Need::Stream { wait: true })?;
    let mut content = Vec::new();
    let mut buf = [0; 7];
    loop {
        match download.read(&mut buf)? {
            0 => break,
            count => content.extend_from_slice(&buf[..count]),
        }
    }
    download.finish()?;
    Ok(String::from_utf8(content).unwrap())
}

fn names(backend: &FtpBackend, dir: &str) -> Vec<String> {
    let entries = backend.list(&path(dir)).unwrap();
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
    names.sort();
    names
}
