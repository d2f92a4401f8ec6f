//! Options as they were set, before anything is filled in or compared.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::url::ServerUrl;
use crate::ftp::options::{
    ChmodPolicy, Compress, Conflict, Family, LinkPolicy, ListingMode, Protection, UploadMode,
    Verify,
};
use crate::mail::fetch::ServerDelete;
use crate::net::bandwidth::Schedule;
use crate::net::proxy::Proxy;
use crate::net::trust::TlsOptions;

/// What `tls=` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// If the server offers it.
    Auto,
    /// Or fail.
    Require,
    /// Never.
    Off,
}

/// What `smtp=` says.
#[derive(Debug, Clone)]
pub(crate) enum Smtp {
    /// All mail through this server.
    Relay(ServerUrl),
    /// To the servers of each domain, on this port.
    Mx(u16),
}

/// What `writeback` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writeback {
    /// What is closed survives the end of ferryfs.
    Local,
    /// And a power cut.
    Sync,
}

/// The value of every option, each checked by itself. The later of two settings wins: the
/// configuration file is applied first, the command line after it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) user: Option<String>,
    pub(crate) password_command: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) password_stdin: bool,
    pub(crate) anonymous_password: Option<String>,
    pub(crate) account_file: Option<PathBuf>,
    pub(crate) tls: Option<Tls>,
    pub(crate) trust: TlsOptions,
    /// `tls_trust=first-use`; the file is known when everything is.
    pub(crate) first_use: bool,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) protection: Option<Protection>,
    pub(crate) clear_control: bool,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) proxy_password_file: Option<PathBuf>,
    pub(crate) proxy_password_command: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) read_only: bool,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) umask: Option<u32>,
    pub(crate) allow_other: bool,
    pub(crate) allow_root: bool,
    pub(crate) default_permissions: bool,
    pub(crate) nonempty: bool,
    pub(crate) fsname: Option<String>,
    pub(crate) charset: Option<&'static encoding_rs::Encoding>,
    pub(crate) dir_cache: Option<Duration>,
    pub(crate) prefetch: Option<bool>,
    pub(crate) passthrough: Option<bool>,
    pub(crate) direct_io: Option<bool>,
    pub(crate) writeback: Option<Writeback>,
    pub(crate) writeback_limit: Option<u64>,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) cache_size: Option<u64>,
    pub(crate) cache_max_age: Option<Duration>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) connections: Option<usize>,
    pub(crate) active: bool,
    pub(crate) active_ports: Option<(u16, u16)>,
    pub(crate) active_address: Option<IpAddr>,
    pub(crate) family: Option<Family>,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) trust_pasv_address: bool,
    pub(crate) listing: Option<ListingMode>,
    pub(crate) time_offset: Option<i64>,
    pub(crate) exact_times: bool,
    pub(crate) chmod: Option<ChmodPolicy>,
    pub(crate) links: Option<LinkPolicy>,
    pub(crate) upload: Option<UploadMode>,
    pub(crate) conflict: Option<Conflict>,
    pub(crate) compress: Option<Compress>,
    pub(crate) verify: Option<Verify>,
    pub(crate) bwlimit: Option<Schedule>,
    pub(crate) hard: bool,
    pub(crate) smtp: Option<Smtp>,
    pub(crate) dns: Option<SocketAddr>,
    pub(crate) linger: Option<Duration>,
    pub(crate) from: Option<String>,
    pub(crate) poll: Option<Duration>,
    pub(crate) server_delete: Option<ServerDelete>,
    pub(crate) smtp_user: Option<String>,
    pub(crate) smtp_password_file: Option<PathBuf>,
    pub(crate) smtp_password_command: Option<String>,
    pub(crate) token_command: Option<String>,
    pub(crate) metrics: Option<PathBuf>,
    pub(crate) exec: Option<bool>,
    pub(crate) suid: Option<bool>,
    pub(crate) dev: Option<bool>,
    pub(crate) atime: Option<bool>,
}
