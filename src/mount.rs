//! One mount from beginning to end: builds the backend, the cache, the [`Vfs`] and the FUSE
//! session, answers `ferryfs status`, `flush` and `umount`, and sees to an orderly end.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fuser::Session;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, Source};
use crate::control::{Answer, Request, Server};
use crate::daemon::Ready;
use crate::exit::{Exit, Failure};
use crate::ftp::FtpBackend;
use crate::ftp::options::FtpOptions;
use crate::fuse::Filesystem;
use crate::fuse::mounting::{self, MountView};
use crate::vfs::cache::Cached;
use crate::vfs::content::Contents;
use crate::vfs::error::Error;
use crate::vfs::path::RemotePath;
use crate::vfs::{Vfs, View};

/// Memory for the read windows of all open files together.
const READ_BUDGET: usize = 24 * 1024 * 1024;

/// After an unmount the last handles are released by the kernel; how long that may take before
/// the session is given up.
const SESSION_END: Duration = Duration::from_secs(10);
