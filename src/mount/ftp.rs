//! An FTP server behind a mount.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use super::{Behind, READ_BUDGET, STAGING, Sides, refused};
use crate::config::{Config, Writeback};
use crate::exit::{Exit, Failure};
use crate::ftp::FtpBackend;
use crate::ftp::intents::{INTENTS, Intents};
use crate::ftp::options::FtpOptions;
use crate::net::bandwidth::Bandwidth;
use crate::vfs::backend::Backend;
use crate::vfs::blocks::{Blocks, Limits};
use crate::vfs::cache::{Cached, DEFAULT_ENTRIES};
use crate::vfs::content::{Contents, Keeping};
use crate::vfs::patient::{Outage, Patient};
use crate::vfs::{Policy, Vfs};

/// How long the server is waited for when all is said and done.
const COURTESY: Duration = Duration::from_secs(2);

/// Where blocks of files are kept, in the mount's cache directory.
const BLOCKS: &str = "blocks";

/// Memory for whole small files, and as much for what is on its way to the disk, in bytes.
const CACHE_MEMORY: usize = 6 << 20;

/// What comes faster than this, in bytes a second, comes from the server as fast as from most disks.
const AS_FROM_A_DISK: u64 = 500_000_000;

/// Most files that wait to be uploaded.
const MOST_FILES: usize = 20_000;

/// The server, and the contents on their way from and to it.
struct Ftp {
    ftp: Arc<FtpBackend>,
    contents: Arc<Contents>,
    policy: Policy,
    /// The wait for the server, with `hard`.
    outage: Option<Arc<Outage>>,
    bandwidth: Option<Arc<Bandwidth>>,
}

/// Of a server's connections one is always left to metadata, and one to readers.
fn policy(config: &Config, options: &FtpOptions, contents: &Arc<Contents>) -> Policy {
    let contents = Arc::clone(contents);
    let limit = getrlimit(Resource::Nofile).current;
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok());
    Policy {
        enabled: config.writeback.is_some(),
        settle: Policy::SETTLE,
        uploads: options.connections.saturating_sub(1).max(1),
        // Each has a descriptor, and more than that are needed.
        most_files: descriptors.map_or(MOST_FILES, |all| MOST_FILES.min(all / 2)),
        most_bytes: config.writeback_limit,
        is_crowded: Arc::new(move || contents.is_crowded()),
    }
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
        fast: AS_FROM_A_DISK,
    };
    let blocks = Blocks::open(&config.cache_dir.join(BLOCKS), limits);
    let keeping = Keeping {
        account: config.url_shown.clone(),
        writeback: config.writeback.is_some(),
        sync: config.writeback == Some(Writeback::Sync),
        read_only: config.flags.read_only,
    };
    let contents = Contents::with_cache(&staging, READ_BUDGET, blocks, keeping)
        .map_err(|err| Failure::new(Exit::Failed, err))?;
    let intents = Intents::open(config.state_dir.join(INTENTS))
        .map_err(|err| Failure::new(Exit::Failed, err))?;
    let ftp = FtpBackend::with_intents(options.clone(), Arc::clone(&contents), intents)
        .map_err(|err| refused(&config.url_shown, &err))?;
    // Before what an earlier mount acknowledged is brought to the places of old versions.
    ftp.heal(config.flags.read_only);
    let (ftp, watched) = (Arc::new(ftp), Arc::clone(&contents));
    let patient = config
        .hard
        .then(|| Patient::new(Arc::clone(&ftp), options.host.as_str()));
    let outage = patient.as_ref().map(|patient| Arc::clone(patient.outage()));
    let server: Arc<dyn Backend> = match patient {
        Some(patient) => Arc::new(patient),
        None => Arc::clone(&ftp) as _,
    };
    let mut cached = Cached::new(server, config.validity, DEFAULT_ENTRIES);
    if config.prefetch {
        cached = cached.with_foresight();
    } else {
        contents.fetch_nothing_ahead();
    }
    let behind = Ftp {
        ftp,
        contents,
        policy: policy(config, options, &watched),
        outage,
        bandwidth: options.bandwidth.clone(),
    };
    Ok((Arc::new(cached), Arc::new(behind)))
}

impl Behind for Ftp {
    fn status(&self) -> Map<String, Value> {
        let (server, files) = (self.ftp.report(), self.contents.report());
        let connections = &server.connections;
        let cache = self.contents.blocks().report();
        let savings: Vec<String> = server
            .savings
            .iter()
            .map(|saving| {
                let state = saving
                    .works
                    .map_or("not tried", |works| if works { "yes" } else { "no" });
                format!("{}: {state}", saving.name)
            })
            .collect();
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
            "savings": savings,
            "packing": server.packing,
            "quirks": server.quirks,
            "connections": {
                "open": connections.open,
                "idle": connections.idle,
                "transfers": connections.transfers,
                "waiting": connections.waiting,
                "limit": connections.limit,
            },
            "last_error": connections.last_error,
            "away_for": self.outage.as_ref().and_then(|outage| outage.lasts()).map(|time| time.as_secs()),
            "bandwidth": self.bandwidth.as_ref().map(|limit| limit.shown()),
            "files": {
                "open": files.open_files,
                "downloads": files.streams,
                "uploads": files.uploads,
                "buffered_bytes": files.buffered,
                "fetched_ahead": self.contents.fetches(),
                "fetched_whole": files.whole_files,
                "fetched_whole_bytes": files.whole_bytes,
                "filled_behind": files.filled_files,
                "filled_behind_bytes": files.filled_bytes,
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

    fn start(&self, vfs: &Arc<Vfs>) {
        vfs.start_writeback(self.policy.clone());
        let saved = self.contents.take_saved();
        if !saved.is_empty() {
            log::info!(
                "{} files of an earlier mount are still to be uploaded",
                saved.len()
            );
        }
        for saved in saved {
            let path = saved.path().clone();
            if let Err(err) = vfs.restore(saved) {
                log::error!("{path}: not on the server, and stays in the journal: {err}");
            }
        }
    }

    fn hurry(&self) {
        if let Some(outage) = &self.outage {
            outage.end();
        }
    }

    fn courtesy(&self) -> Duration {
        COURTESY
    }

    fn close(&self) {
        self.contents.fill_nothing();
        self.ftp.close();
    }
}
