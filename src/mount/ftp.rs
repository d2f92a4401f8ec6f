//! An FTP server behind a mount.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Behind, READ_BUDGET, STAGING, Sides, refused};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::ftp::FtpBackend;
use crate::ftp::options::FtpOptions;
use crate::vfs::blocks::{Blocks, Limits};
use crate::vfs::cache::{Cached, DEFAULT_ENTRIES};
use crate::vfs::content::Contents;

/// How long the server is waited for when all is said and done.
const COURTESY: Duration = Duration::from_secs(2);

/// Where blocks of files are kept, in the mount's cache directory.
const BLOCKS: &str = "blocks";

/// Memory for whole small files, and as much for what is on its way to the disk, in bytes.
const CACHE_MEMORY: usize = 6 << 20;

/// The server, and the contents on their way from and to it.
struct Ftp {
    ftp: Arc<FtpBackend>,
    contents: Arc<Contents>,
}

/// Connects to the server of `config`.
///
/// # Errors
/// The server's, and those of the staging directory.
pub(super) fn connect(config: &Config, options: &FtpOptions) -> Result<Sides, Failure> {
    let staging = config.state_dir.join(STAGING);
    let limits = Limits {
        bytes: config.cache_size,
        age: Some(config.cache_max_age),
        memory: CACHE_MEMORY,
    };
    let blocks = Blocks::open(&config.cache_dir.join(BLOCKS), limits);
    let contents = Contents::with_cache(&staging, READ_BUDGET, blocks)
        .map_err(|err| Failure::new(Exit::Failed, err))?;
    let ftp = FtpBackend::connect(options.clone(), Arc::clone(&contents))
        .map_err(|err| refused(&config.url_shown, &err))?;
    let ftp = Arc::new(ftp);
    let mut cached = Cached::new(Arc::clone(&ftp) as _, config.validity, DEFAULT_ENTRIES);
    if config.prefetch {
        cached = cached.with_foresight();
    }
    Ok((Arc::new(cached), Arc::new(Ftp { ftp, contents })))
}

impl Behind for Ftp {
    fn status(&self) -> Map<String, Value> {
        let (server, files) = (self.ftp.report(), self.contents.report());
        let connections = &server.connections;
        let cache = self.contents.blocks().report();
        let status = json!({
            "server": server.banner,
            "system": server.system,
            "tls": server.tls,
            "tls_version": server.tls_version,
            "certificate": server.certificate,
            "in_clear": server.in_clear,
            "listing": server.listing,
            "set_time": server.set_time,
            "time_offset": server.time_offset,
            "pipelining": server.pipelining,
            "features": server.features.join(", "),
            "quirks": server.quirks,
            "connections": {
                "open": connections.open,
                "idle": connections.idle,
                "transfers": connections.transfers,
                "waiting": connections.waiting,
                "limit": connections.limit,
            },
            "last_error": connections.last_error,
            "files": {
                "open": files.open_files,
                "downloads": files.streams,
                "uploads": files.uploads,
                "buffered_bytes": files.buffered,
            },
            "cache": {
                "directory": cache.dir.map(|dir| dir.display().to_string()),
                "files": cache.files,
                "bytes": cache.bytes,
                "limit_bytes": cache.limit,
                "hits": cache.hits,
                "hit_bytes": cache.hit_bytes,
                "trouble": cache.trouble,
            },
        });
        match status {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    fn courtesy(&self) -> Duration {
        COURTESY
    }

    fn close(&self) {
        self.ftp.close();
    }
}
