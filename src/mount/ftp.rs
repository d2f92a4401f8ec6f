//! An FTP server behind a mount.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Behind, READ_BUDGET, STAGING, Sides, refused};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::ftp::FtpBackend;
use crate::ftp::options::FtpOptions;
use crate::vfs::cache::{Cached, DEFAULT_ENTRIES};
use crate::vfs::content::Contents;

/// How long the server is waited for when all is said and done.
const COURTESY: Duration = Duration::from_secs(2);

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
    let contents =
        Contents::new(&staging, READ_BUDGET).map_err(|err| Failure::new(Exit::Failed, err))?;
    let ftp = FtpBackend::connect(options.clone(), Arc::clone(&contents))
        .map_err(|err| refused(&config.url_shown, &err))?;
    let ftp = Arc::new(ftp);
    let cached = Cached::new(Arc::clone(&ftp) as _, config.validity, DEFAULT_ENTRIES);
    Ok((Arc::new(cached), Arc::new(Ftp { ftp, contents })))
}

impl Behind for Ftp {
    fn status(&self) -> Map<String, Value> {
        let (server, files) = (self.ftp.report(), self.contents.report());
        let connections = &server.connections;
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
