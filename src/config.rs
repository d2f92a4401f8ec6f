//! What the command line and the configuration file mean: a [`Config`] in which nothing is
//! invalid any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::ftp::options::{
    ChmodPolicy, Compress, Conflict, DataMode, Family, FtpOptions, LinkPolicy, ListingMode,
    Protection, TlsMode, UploadMode, Verify,
};
use crate::mail::options::MailOptions;
use crate::net::ClientCert;
use crate::net::bandwidth::Bandwidth;
use crate::net::trust::TlsOptions;
use crate::secret::Secret;
use crate::secret::source::{Secrets, Sources};
use crate::state;

mod dirs;
mod file;
mod foreign;
mod mail;
mod mailbox;
mod mountpoint;
pub(crate) mod options;
mod order;
mod settings;
mod url;
mod value;

pub(crate) use dirs::state as default_state_dir;
pub(crate) use file::{dir_of, mailboxes};
pub(crate) use mailbox::{Mailbox, mailbox};
pub(crate) use options::split_list;
pub(crate) use order::Order;

pub(crate) use settings::Writeback;

/// See `fuzzing`: a URL of these bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = url::proxy(&text);
    if let Ok(parsed) = ServerUrl::parse(&text) {
        let shown = parsed.shown(None);
        assert!(
            !shown.contains(',') && !shown.chars().any(char::is_control),
            "{shown:?}"
        );
        let again = ServerUrl::parse(&shown).map(|url| url.shown(None));
        assert_eq!(again.as_deref(), Ok(&*shown), "from {text:?}");
    }
}

/// See `fuzzing`: a configuration file of these bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_configuration(bytes: &[u8]) {
    file::fuzz(&String::from_utf8_lossy(bytes));
}

use settings::{Settings, Tls};
use url::{Scheme, ServerUrl};

/// Most bytes that are kept of files read.
const CACHE_SIZE: u64 = 4 << 30;

/// Connections, and more for a moment, where nothing is said of them.
const CONNECTIONS: usize = 8;
const EXTRA_CONNECTIONS: usize = 24;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

/// How long what nobody reads is kept.
const CACHE_MAX_AGE: Duration = Duration::from_secs(30 * 86_400);

/// Most bytes that wait to be uploaded where nobody says otherwise.
const WRITEBACK_LIMIT: u64 = 10 << 30;

/// One mount, ready to be made.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What is behind the mount.
    pub(crate) source: Source,
    /// The URL in one spelling, without secrets.
    pub(crate) url_shown: String,
    /// Where to mount: absolute, without links, looked at before and never again.
    pub(crate) mountpoint: PathBuf,
    /// What the kernel is told of the mount.
    pub(crate) flags: MountFlags,
    /// First column of the mount table.
    pub(crate) fsname: String,
    /// Owner of every file.
    pub(crate) uid: u32,
    /// Group of every file.
    pub(crate) gid: u32,
    /// Permission bits to take away; `None`: show the server's.
    pub(crate) umask: Option<u32>,
    /// How long attributes and listings are believed (`dir_cache=`).
    pub(crate) validity: Duration,
    /// Wait for a server that is away (`hard`).
    pub(crate) hard: bool,
    /// Fetch ahead what will be wanted (`prefetch=`).
    pub(crate) prefetch: bool,
    /// The kernel may read files of the cache by itself (`passthrough=`).
    pub(crate) passthrough: bool,
    /// Large files are read around the kernel's pages, or are not; `None`: where that is best
    /// (`direct_io=`).
    pub(crate) direct_io: Option<bool>,
    /// This mount's own directory for what must survive; made by [`state::claim`].
    pub(crate) state_dir: PathBuf,
    /// This mount's own directory for what may be lost; made by [`state::claim`].
    pub(crate) cache_dir: PathBuf,
    /// How much of the files read is kept there (`cache_size=`), in bytes.
    pub(crate) cache_size: u64,
    /// What was not used for so long goes (`cache_max_age=`).
    pub(crate) cache_max_age: Duration,
    /// Where to write numbers for Prometheus.
    pub(crate) metrics: Option<PathBuf>,
    /// `writeback`: whether, and whether it survives a power cut.
    pub(crate) writeback: Option<Writeback>,
    /// Most bytes that may wait to be uploaded (`writeback_limit=`).
    pub(crate) writeback_limit: u64,
    /// Serve in this process instead of one in the background.
    pub(crate) foreground: bool,
}

/// What can be mounted.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An FTP server.
    Ftp(Box<FtpOptions>),
    /// A mailbox.
    Mail(Box<MailOptions>),
}

/// What the kernel is told of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountFlags {
    pub(crate) read_only: bool,
    pub(crate) exec: bool,
    pub(crate) suid: bool,
    pub(crate) dev: bool,
    pub(crate) atime: bool,
    pub(crate) allow_other: bool,
    pub(crate) allow_root: bool,
    pub(crate) default_permissions: bool,
    pub(crate) nonempty: bool,
}

/// A server that is to be examined and not mounted.
#[derive(Debug, Clone)]
pub(crate) struct Examined {
    /// What it is, secrets installed.
    pub(crate) source: Source,
    /// The URL in one spelling, without secrets.
    pub(crate) url_shown: String,
    /// The options given, `name=value`.
    pub(crate) options: Vec<String>,
}

impl Examined {
    /// As [`Config::resolve`], without a mountpoint.
    ///
    /// # Errors
    /// [`Exit::Usage`] for options that contradict each other, [`Exit::Secret`].
    pub(crate) fn resolve(order: &Order) -> Result<Self, Failure> {
        let (url, mut settings) = (order.url()?, order.settings()?);
        let user = user(&url, &settings);
        let url_shown = url.shown(user.as_deref());
        complete_trust(&mut settings)?;
        let mut source = source(url.clone(), settings.clone(), user)?;
        let secrets = Config::secrets(&url, &settings)?;
        install(&mut source, &secrets, &settings);
        Ok(Self {
            source,
            url_shown,
            options: order.options(),
        })
    }
}

impl Config {
    /// Fills in and compares, then finds the password where one is needed.
    ///
    /// # Errors
    /// [`Exit::Usage`] for options that contradict each other, [`Exit::Secret`].
    pub(crate) fn resolve(order: &Order) -> Result<(Self, Secrets), Failure> {
        let mut config = Self::without_secrets(order)?;
        let (url, settings) = (order.url()?, order.settings()?);
        let secrets = Self::secrets(&url, &settings)?;
        install(&mut config.source, &secrets, &settings);
        Ok((config, secrets))
    }

    fn secrets(url: &ServerUrl, settings: &Settings) -> Result<Secrets, Failure> {
        let mut secrets = if matches!(url.scheme, Scheme::Pop3(_)) {
            mail::secrets(url, settings)?
        } else {
            let user = user(url, settings);
            Sources {
                user: user.as_deref(),
                host: &url.host,
                command: settings.password_command.as_deref(),
                file: settings.password_file.as_deref(),
                stdin: settings.password_stdin,
                anonymous: settings.anonymous_password.as_deref(),
                account: settings.account_file.as_deref(),
            }
            .find()?
        };
        secrets.proxy = proxy_secret(settings)?;
        Ok(secrets)
    }

    /// As [`resolve`](Self::resolve) with the secrets found before: what the daemon does.
    pub(crate) fn with_secrets(order: &Order, secrets: &Secrets) -> Result<Self, Failure> {
        let mut config = Self::without_secrets(order)?;
        install(&mut config.source, secrets, &order.settings()?);
        Ok(config)
    }

    fn without_secrets(order: &Order) -> Result<Self, Failure> {
        let (url, mut settings) = (order.url()?, order.settings()?);
        let user = user(&url, &settings);
        let url_shown = url.shown(user.as_deref());
        let mountpoint = order.mountpoint();
        let id = state::id(&url.host, &url_shown, &mountpoint);
        let state_dir = settings
            .state_dir
            .clone()
            .map_or_else(dirs::state, Ok)?
            .join(&id);
        let cache_dir = settings
            .cache_dir
            .clone()
            .map_or_else(dirs::cache, Ok)?
            .join(&id);
        refuse_inside("state_dir", &state_dir, &mountpoint)?;
        refuse_inside("cache_dir", &cache_dir, &mountpoint)?;
        if let Some(file) = &settings.metrics {
            refuse_inside("metrics", file, &mountpoint)?;
        }
        let flags = flags(&settings)?;
        complete_trust(&mut settings)?;
        Ok(Self {
            fsname: settings.fsname.clone().unwrap_or_else(|| url_shown.clone()),
            uid: settings
                .uid
                .unwrap_or_else(|| rustix::process::getuid().as_raw()),
            gid: settings
                .gid
                .unwrap_or_else(|| rustix::process::getgid().as_raw()),
            umask: settings.umask,
            metrics: settings.metrics.clone(),
            cache_size: settings.cache_size.unwrap_or(CACHE_SIZE),
            cache_max_age: settings.cache_max_age.unwrap_or(CACHE_MAX_AGE),
            writeback: settings.writeback,
            writeback_limit: settings.writeback_limit.unwrap_or(WRITEBACK_LIMIT),
            validity: settings.dir_cache.unwrap_or(Duration::from_secs(5)),
            hard: settings.hard,
            prefetch: settings.prefetch.unwrap_or(true),
            passthrough: settings.passthrough.unwrap_or(true),
            direct_io: settings.direct_io,
            source: source(url, settings, user)?,
            url_shown,
            mountpoint,
            flags,
            state_dir,
            cache_dir,
            foreground: order.foreground,
        })
    }

    /// Longest wait for one answer of the server.
    pub(crate) fn timeout(&self) -> Duration {
        match &self.source {
            Source::Ftp(ftp) => ftp.timeout,
            Source::Mail(mail) => mail.fetch.endpoint.timeout,
        }
    }
}

/// Gives a server its passwords.
fn install(source: &mut Source, secrets: &Secrets, settings: &Settings) {
    match source {
        Source::Ftp(ftp) => {
            ftp.password = secrets.password.clone();
            ftp.account.clone_from(&secrets.account);
            if let (Some(proxy), Some(password)) = (&mut ftp.proxy, &secrets.proxy) {
                proxy.password = password.clone();
            }
        }
        Source::Mail(mail) => {
            mail::install(mail, secrets, settings.token_command.as_deref());
        }
    }
}

/// `None` means anonymous.
fn user(url: &ServerUrl, settings: &Settings) -> Option<String> {
    settings
        .user
        .clone()
        .or_else(|| url.user.clone())
        .filter(|user| !user.eq_ignore_ascii_case("anonymous"))
}

/// Puts together what several options say of TLS.
fn complete_trust(settings: &mut Settings) -> Result<(), Failure> {
    let usage = |line| Err(Failure::new(Exit::Usage, line));
    let trust = &mut settings.trust;
    if trust.max.is_some_and(|max| max < trust.min) {
        return usage("-o tls_min,tls_max: no version of TLS is left");
    }
    trust.client = match (&settings.cert, &settings.key) {
        (Some(cert), key) => Some(ClientCert {
            cert: cert.clone(),
            key: key.as_ref().unwrap_or(cert).clone(),
        }),
        (None, Some(_)) => return usage("-o key: whose? add cert=FILE"),
        (None, None) => None,
    };
    if let Err(err) = trust.check() {
        let line = format!("-o {}", err.detail());
        return Err(Failure::new(Exit::Usage, line));
    }
    if settings.first_use {
        let dir = settings.state_dir.clone().map_or_else(dirs::state, Ok)?;
        trust.first_use = Some(dir.join("known_hosts"));
    }
    let active =
        settings.active || settings.active_ports.is_some() || settings.active_address.is_some();
    if settings.proxy.is_some() && active {
        return usage("-o proxy: the server cannot connect through it; leave active out");
    }
    if settings.tls == Some(Tls::Off) && settings.clear_control {
        return usage("-o ccc: contradicts tls=off");
    }
    Ok(())
}

/// The password of the proxy's user: from the options, or where passwords lie ready.
fn proxy_secret(settings: &Settings) -> Result<Option<Secret>, Failure> {
    let (command, file) = (
        settings.proxy_password_command.as_deref(),
        settings.proxy_password_file.as_deref(),
    );
    let named = settings.proxy.as_ref();
    let Some((proxy, user)) = named.and_then(|proxy| Some((proxy, proxy.user.as_deref()?))) else {
        if command.is_some() || file.is_some() {
            let line = "-o proxy_password_file: whose? write proxy=socks5://USER@HOST";
            return Err(Failure::new(Exit::Usage, line));
        }
        return Ok(None);
    };
    let found = Sources {
        user: Some(user),
        host: &proxy.host,
        command,
        file,
        stdin: false,
        anonymous: None,
        account: None,
    }
    .find()?;
    Ok(Some(found.password))
}

/// A daemon that stores its files in its own mount waits for itself for ever.
fn refuse_inside(option: &str, dir: &Path, mountpoint: &Path) -> Result<(), Failure> {
    let existing = dir.ancestors().find_map(|dir| dir.canonicalize().ok());
    if dir.starts_with(mountpoint) || existing.is_some_and(|dir| dir.starts_with(mountpoint)) {
        let line = format!(
            "{}: lies inside the mountpoint; choose another -o {option}=",
            dir.display()
        );
        return Err(Failure::new(Exit::Usage, line));
    }
    Ok(())
}

fn flags(settings: &Settings) -> Result<MountFlags, Failure> {
    if settings.allow_other && settings.allow_root {
        let line = "-o allow_other,allow_root: only one of them; allow_other includes root";
        return Err(Failure::new(Exit::Usage, line));
    }
    if (settings.allow_other || settings.allow_root) && !rustix::process::getuid().is_root() {
        let allowed = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        if !allowed
            .lines()
            .any(|line| line.trim() == "user_allow_other")
        {
            let line = "-o allow_other: root does not let users do that; \
                        add the line user_allow_other to /etc/fuse.conf";
            return Err(Failure::new(Exit::Mount, line));
        }
    }
    Ok(MountFlags {
        read_only: settings.read_only,
        exec: settings.exec.unwrap_or(true),
        // A server is not trusted to bring setuid programs and devices unless told so.
        suid: settings.suid.unwrap_or(false),
        dev: settings.dev.unwrap_or(false),
        atime: settings.atime.unwrap_or(true),
        allow_other: settings.allow_other,
        allow_root: settings.allow_root,
        default_permissions: settings.default_permissions,
        nonempty: settings.nonempty,
    })
}

fn source(url: ServerUrl, settings: Settings, user: Option<String>) -> Result<Source, Failure> {
    let usage = |line| Err(Failure::new(Exit::Usage, line));
    match url.scheme {
        Scheme::Ftp(_) if settings.smtp.is_some() => {
            usage("-o smtp: is for mailboxes; write pop3s://user@host/")
        }
        Scheme::Pop3(_) if settings.writeback.is_some() => {
            usage("-o writeback: is for FTP servers; a mailbox is local, and its queue is on disk")
        }
        Scheme::Pop3(_) if settings.hard => {
            usage("-o hard: is for FTP servers; what is in a mailbox never waits for its server")
        }
        Scheme::Pop3(_)
            if settings.bwlimit.is_some()
                || settings.verify.is_some()
                || settings.compress.is_some() =>
        {
            usage("-o bwlimit,compress,verify: are for FTP servers")
        }
        Scheme::Ftp(tls) => {
            ftp_options(url, tls, settings, user).map(|ftp| Source::Ftp(Box::new(ftp)))
        }
        Scheme::Pop3(security) => {
            mail::options(&url, security, &settings).map(|mail| Source::Mail(Box::new(mail)))
        }
        Scheme::Smtp(_) => usage(
            "URL: a server that takes mail is no directory; write ferryfs pop3s://user@host/ DIR \
             -o smtp=URL",
        ),
    }
}

fn ftp_options(
    url: ServerUrl,
    tls: TlsMode,
    settings: Settings,
    user: Option<String>,
) -> Result<FtpOptions, Failure> {
    let tls = tls_mode(tls, settings.tls)?;
    let tls = match (tls, settings.tls) {
        // Who says what to trust does not want to be talked out of it by a server, or by somebody
        // on the way, who says that there is no TLS.
        (TlsMode::Auto, None) if settings.trust != TlsOptions::default() => TlsMode::Explicit,
        (tls, _) => tls,
    };
    let family = settings.family.unwrap_or(Family::Any);
    let bind_fits = match (family, settings.bind) {
        (Family::V4, Some(bind)) => bind.is_ipv4(),
        (Family::V6, Some(bind)) => bind.is_ipv6(),
        _ => true,
    };
    if !bind_fits {
        let line = "-o bind: the address is not of the family that ipv4 or ipv6 asks for";
        return Err(Failure::new(Exit::Usage, line));
    }
    let (ports, address) = (settings.active_ports, settings.active_address);
    let data = if settings.active || ports.is_some() || address.is_some() {
        DataMode::Active { ports, address }
    } else {
        DataMode::Passive
    };
    Ok(FtpOptions {
        host: url.host,
        port: url.port,
        user: user.unwrap_or_else(|| "anonymous".to_owned()),
        password: Secret::new(""),
        account: None,
        directory: url.directory,
        tls,
        trust: settings.trust,
        protection: settings.protection.unwrap_or(Protection::Private),
        clear_control: settings.clear_control,
        proxy: settings.proxy,
        timeout: settings.timeout.unwrap_or(Duration::from_secs(30)),
        connections: settings.connections.unwrap_or(CONNECTIONS),
        extra_connections: match settings.connections {
            None if settings.bwlimit.is_none() => EXTRA_CONNECTIONS,
            _ => 0,
        },
        idle: IDLE,
        data,
        family,
        bind: settings.bind,
        trust_pasv_address: settings.trust_pasv_address,
        charset: settings.charset,
        listing: settings.listing.unwrap_or(ListingMode::Auto),
        time_offset: settings.time_offset,
        exact_times: settings.exact_times,
        chmod: settings.chmod.unwrap_or(ChmodPolicy::Strict),
        links: settings.links.unwrap_or(LinkPolicy::Contain),
        upload: settings.upload.unwrap_or(UploadMode::Auto),
        conflict: settings.conflict.unwrap_or(Conflict::Keep),
        verify: settings.verify.unwrap_or(Verify::Off),
        compress: settings.compress.unwrap_or(Compress::Auto),
        bandwidth: settings.bwlimit.map(Bandwidth::new).map(Arc::new),
    })
}

/// What URL and option say together; an option never makes `ftps` or `ftpes` weaker.
fn tls_mode(url: TlsMode, option: Option<Tls>) -> Result<TlsMode, Failure> {
    match (url, option) {
        (TlsMode::Explicit | TlsMode::Implicit, Some(Tls::Off)) => Err(Failure::new(
            Exit::Usage,
            "-o tls=off: contradicts the URL, whose scheme means TLS; write ftp://",
        )),
        (TlsMode::Explicit | TlsMode::Implicit, _) | (_, None) => Ok(url),
        (_, Some(Tls::Auto)) => Ok(TlsMode::Auto),
        (_, Some(Tls::Require)) => Ok(TlsMode::Explicit),
        (_, Some(Tls::Off)) => Ok(TlsMode::Off),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::cli::MountWords;

    /// The order for `ferryfs SOURCE DIR -o OPTIONS`, as the daemon receives it.
    fn order(source: &str, dir: &Path, options: &str) -> Order {
        let order = Order::new(MountWords {
            source: source.to_owned(),
            dir: Some(dir.to_owned()),
            options: split_list(options),
            foreground: false,
            debug: false,
            verbosity: 0,
        });
        let handed_over = serde_json::to_vec(&order.unwrap()).unwrap();
        serde_json::from_slice(&handed_over).unwrap()
    }

    fn secrets() -> Secrets {
        Secrets {
            password: Secret::new("hunter2"),
            account: Some(Secret::new("hunter2")),
            submission: None,
            proxy: None,
        }
    }

    fn config(source: &str, options: &str) -> Config {
        let temp = tempfile::tempdir().unwrap();
        Config::with_secrets(&order(source, temp.path(), options), &secrets()).unwrap()
    }

    fn ftp(source: &str, options: &str) -> FtpOptions {
        let Source::Ftp(ftp) = config(source, options).source else {
            panic!("{source} is no FTP server");
        };
        *ftp
    }

    #[test]
    fn an_option_makes_tls_stricter_but_ftps_never_weaker() {
        for (url, options, expected) in [
            ("ftp://h/", "", TlsMode::Auto),
            ("ftp://h/", "tls=require", TlsMode::Explicit),
            ("ftp://h/", "tls=off", TlsMode::Off),
            ("ftpes://h/", "tls=auto", TlsMode::Explicit),
            ("ftps://h/", "tls=require", TlsMode::Implicit),
        ] {
            assert_eq!(ftp(url, options).tls, expected, "{url} {options}");
        }
    }

    #[test]
    fn the_later_option_wins_and_goes_over_the_url() {
        let ftp = ftp(
            "ftp://anna@h/a%20b",
            "user=bob,timeout=3,timeout=5s,active_ports=5000-5001",
        );
        assert_eq!(ftp.user, "bob");
        assert_eq!(ftp.timeout, Duration::from_secs(5));
        assert_eq!(ftp.directory, b"a b");
        let ports = Some((5000, 5001));
        assert_eq!(
            ftp.data,
            DataMode::Active {
                ports,
                address: None
            }
        );
        assert!(!config("ftp://h/", "ro,rw").flags.read_only);
        assert_eq!(config("ftp://h/", "user=anonymous").url_shown, "ftp://h/");
    }

    #[test]
    fn no_secret_is_shown_by_debug() {
        let config = config("ftp://anna@h/", "");
        assert_eq!(config.url_shown, "ftp://anna@h/");
        assert!(!format!("{config:?} {:?}", secrets()).contains("hunter2"));
    }

    #[test]
    fn a_server_brings_no_setuid_programs_unless_told() {
        let flags = config("ftp://h/", "").flags;
        assert!(!flags.suid && !flags.dev && flags.exec && flags.atime);
        assert!(config("ftp://h/", "rw,dev,suid").flags.suid);
    }
}
