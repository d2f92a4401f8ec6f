//! Where state, cache and configuration live: the XDG directories, and for root the system's.

use std::path::PathBuf;

use crate::exit::{Exit, Failure};

/// `$XDG_STATE_HOME/ferryfs`: what must survive.
pub(crate) fn state() -> Result<PathBuf, Failure> {
    locate("XDG_STATE_HOME", ".local/state", "/var/lib")
}

/// `$XDG_CACHE_HOME/ferryfs`: what may be lost.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    locate("XDG_CACHE_HOME", ".cache", "/var/cache")
}

/// `$XDG_CONFIG_HOME/ferryfs`, the directory of `config.toml`.
pub(crate) fn config() -> Result<PathBuf, Failure> {
    locate("XDG_CONFIG_HOME", ".config", "/etc")
}

fn locate(variable: &str, below_home: &str, for_root: &str) -> Result<PathBuf, Failure> {
    // The specification wants a relative path to be ignored.
    let named = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = match named {
        Some(base) => base,
        None if rustix::process::geteuid().is_root() => PathBuf::from(for_root),
        None => std::env::home_dir()
            .filter(|home| home.is_absolute())
            .map(|home| home.join(below_home))
            .ok_or_else(|| {
                let line = format!("no home directory; set HOME or {variable}");
                Failure::new(Exit::Failed, line)
            })?,
    };
    Ok(base.join("ferryfs"))
}
