//! What was asked for, merged from the configuration file and the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::url::{self, ServerUrl};
use super::{file, mountpoint, options};
use crate::cli::MountWords;
use crate::exit::{Exit, Failure};

/// One option and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// `-o`, or file and line.
    pub(super) origin: String,
    pub(super) name: String,
    pub(super) value: Option<String>,
}

impl Setting {
    pub(super) fn new(origin: impl ToString, name: &str, value: Option<String>) -> Self {
        Self {
            origin: origin.to_string(),
            name: name.to_owned(),
            value,
        }
    }

    /// Whether it could be applied; the error names the option.
    pub(super) fn check(&self) -> Result<(), String> {
        self.apply(&mut Settings::default())
    }

    fn apply(&self, settings: &mut Settings) -> Result<(), String> {
        options::apply(settings, &self.name, self.value.as_deref())
    }
}

/// A mount as it was asked for: everything in place, without any secret. The daemon is given this
/// and reads it in the same way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(super) url: String,
    pub(super) url_origin: Option<String>,
    /// Absolute and checked. An `OsString` because a path need not be UTF-8.
    mountpoint: OsString,
    options: Vec<Setting>,
    /// Serve in this process.
    pub(crate) foreground: bool,
    /// Show the conversation with the server.
    pub(crate) debug: bool,
    /// How often `-v` was given.
    pub(crate) verbosity: u8,
}

impl Order {
    /// Merges the command line over the configuration file and looks at the mountpoint.
    ///
    /// # Errors
    /// [`Exit::Usage`], or [`Exit::Mountpoint`].
    pub(crate) fn new(words: MountWords) -> Result<Self, Failure> {
        let (mut order, dir) = Self::without_mountpoint(words)?;
        let dir = dir.ok_or_else(|| {
            let line = "no mountpoint; write ferryfs ftp://host/directory MOUNTPOINT";
            Failure::new(Exit::Usage, line)
        })?;
        let nonempty = order.settings()?.nonempty;
        order.mountpoint = mountpoint::check(&dir, nonempty)?.into_os_string();
        Ok(order)
    }

    /// As [`new`](Self::new), and the mountpoint not yet looked at.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub(crate) fn without_mountpoint(
        words: MountWords,
    ) -> Result<(Self, Option<PathBuf>), Failure> {
        let MountWords {
            source,
            dir,
            options: typed,
            foreground,
            debug,
            verbosity,
        } = words;
        let mut order = Self {
            url: String::new(),
            url_origin: None,
            mountpoint: OsString::new(),
            options: Vec::new(),
            foreground: foreground || debug,
            debug,
            verbosity,
        };
        let mut default_dir = None;
        let second = dir.as_deref().and_then(Path::to_str);
        if second.is_some_and(url::looks_like_url) && !url::looks_like_url(&source) {
            let line = "the URL comes first, then the directory";
            return Err(Failure::new(Exit::Usage, line));
        }
        if url::looks_like_url(&source) {
            order.url = source;
        } else if file::is_name(&source) {
            let named = file::find(&source)?;
            order.url = named.url;
            order.url_origin = Some(named.url_origin);
            order.options = named.options;
            default_dir = named.dir;
        } else {
            // Not quoted: `user:password@host` is a common mistake.
            return Err(Failure::new(
                Exit::Usage,
                "what to mount is neither a URL nor a name; write ftp://user@host/directory",
            ));
        }
        order.options.extend(
            typed
                .into_iter()
                .map(|(name, value)| Setting::new("-o", &name, value)),
        );
        // A mistake in the options is told before one in the mountpoint.
        order.url()?;
        order.settings()?;
        Ok((order, dir.or(default_dir)))
    }

    /// What the configuration file says of the mount `name`, whose directory is not looked at.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub(super) fn of_file(name: &str) -> Result<Self, Failure> {
        let named = file::find(name)?;
        Ok(Self {
            url: named.url,
            url_origin: Some(named.url_origin),
            mountpoint: OsString::new(),
            options: named.options,
            foreground: false,
            debug: false,
            verbosity: 0,
        })
    }

    /// The options as they were given, `name=value`.
    pub(super) fn options(&self) -> Vec<String> {
        let shown = |setting: &Setting| match &setting.value {
            Some(value) => format!("{}={value}", setting.name),
            None => setting.name.clone(),
        };
        self.options.iter().map(shown).collect()
    }

    /// Where to mount, absolute.
    pub(crate) fn mountpoint(&self) -> PathBuf {
        PathBuf::from(&self.mountpoint)
    }

    pub(super) fn url(&self) -> Result<ServerUrl, Failure> {
        ServerUrl::parse(&self.url).map_err(|cause| {
            let line = match &self.url_origin {
                Some(origin) => format!("{origin}: url: {cause}"),
                None => format!("URL: {cause}"),
            };
            Failure::new(Exit::Usage, line)
        })
    }

    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = Settings::default();
        for setting in &self.options {
            setting.apply(&mut settings).map_err(|cause| {
                let place = if setting.origin == "-o" {
                    "-o "
                } else {
                    &format!("{}: ", setting.origin)
                };
                Failure::new(Exit::Usage, format!("{place}{cause}"))
            })?;
        }
        Ok(settings)
    }
}
