//! What was typed. The only user of clap.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::split_list;
use crate::exit::{Exit, Failure};

mod help;
mod mail;
mod sendmail;

pub(crate) use mail::MailWords;
pub(crate) use sendmail::{SendmailWords, Task};

/// What the command is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Mount.
    Mount(MountWords),
    /// Check the words of a mount and do nothing (`mount -f`).
    CheckMount(MountWords),
    /// Commit everything and unmount.
    Umount(UmountWords),
    /// Show one mount or all.
    Status {
        dir: Option<PathBuf>,
        /// For programs.
        json: bool,
        /// Again and again.
        watch: bool,
    },
    /// Commit everything.
    Flush {
        dir: PathBuf,
        /// Longest wait.
        timeout: Duration,
    },
    /// As sendmail(8).
    Sendmail(SendmailWords),
    /// What there is for mail besides.
    Mail(MailWords),
    /// Examine a server.
    Doctor {
        /// What a mount would be told.
        words: MountWords,
        /// For programs.
        json: bool,
    },
    /// Print this and be done.
    Print(String),
}

/// The words of a mount, options split but not looked at.
#[derive(Debug)]
pub(crate) struct MountWords {
    /// URL or name.
    pub(crate) source: String,
    /// Mountpoint; may be missing where the configuration file names it.
    pub(crate) dir: Option<PathBuf>,
    /// Names and values of `-o`.
    pub(crate) options: Vec<(String, Option<String>)>,
    pub(crate) foreground: bool,
    pub(crate) debug: bool,
    pub(crate) verbosity: u8,
}

/// The words of an unmount.
#[derive(Debug)]
pub(crate) struct UmountWords {
    pub(crate) dir: PathBuf,
    /// Do not wait for the server: detach now, commit behind it.
    pub(crate) lazy: bool,
    /// Longest wait.
    pub(crate) timeout: Duration,
}

/// Whether `name` is a command, and so cannot name a mount.
pub(crate) fn is_command(name: &str) -> bool {
    Typed::command().find_subcommand(name).is_some() || name == "help"
}

/// The words that [`is_command`] knows.
pub(crate) fn commands() -> Vec<String> {
    let all = Typed::command();
    let names = all.get_subcommands().map(|one| one.get_name().to_owned());
    names.collect()
}

/// Parses the command line; the name we were called by decides which one it is.
///
/// # Errors
/// [`Exit::Usage`] with one line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let parsed = match name.and_then(OsStr::to_str) {
        Some(called @ ("sendmail" | "mailq" | "newaliases")) => {
            let words = args.iter().skip(1).cloned().collect();
            return sendmail::parse(called, words).map(Command::Sendmail);
        }
        Some("mount.ferryfs" | "mount.fuse.ferryfs") => {
            MountHelper::try_parse_from(args).map(MountHelper::command)
        }
        Some("umount.ferryfs" | "umount.fuse.ferryfs") => {
            UmountHelper::try_parse_from(args).map(UmountHelper::command)
        }
        _ if args.len() == 2 && args.last().is_some_and(|word| word == "help") => {
            return Ok(Command::Print(help::text()));
        }
        _ => {
            let typed = Typed::try_parse_from(args);
            if let Ok(Typed {
                command: Some(Sub::Sendmail { words }),
                ..
            }) = typed
            {
                return sendmail::parse("sendmail", words).map(Command::Sendmail);
            }
            typed.and_then(Typed::command_words)
        }
    };
    parsed.or_else(|err| match err.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Command::Print(err.to_string())),
        _ => Err(Failure::new(Exit::Usage, one_line(&err))),
    })
}

#[derive(Parser)]
#[command(
    name = "ferryfs",
    version,
    about = "Mounts FTP servers and mailboxes as directories",
    override_help = help::text(),
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Typed {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    mount: MountArgs,
}

#[derive(Subcommand)]
enum Sub {
    /// Mount a server; the word may be left out
    #[command(override_help = help::text())]
    Mount(MountArgs),
    /// Wait until everything is on the server and unmount
    Umount {
        /// The mountpoint
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Detach at once, even if busy; uploads go on behind it
        #[arg(short, long)]
        lazy: bool,
        /// Longest wait, e.g. 30s or 10m
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        timeout: Duration,
    },
    /// Show what is mounted, dirty, under way and wrong
    Status {
        /// The mountpoint; all mounts without it
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: Option<PathBuf>,
        /// For programs
        #[arg(long)]
        json: bool,
        /// Every second, until q or Ctrl-C, with bars for what is under way
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Wait until everything written so far is on the server
    Flush {
        /// The mountpoint
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Longest wait, e.g. 30s or 10m
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        timeout: Duration,
    },
    /// Queue a message as sendmail(8) does
    #[command(disable_help_flag = true)]
    Sendmail {
        /// Options and recipients
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// List, read, answer and wait for mail
    Mail {
        /// What to do
        #[command(subcommand)]
        what: mail::MailSub,
    },
    /// Try everything a server can do and say what is odd about it
    Doctor {
        /// ftp://user@host/directory or pop3s://user@host/, or a name from the configuration file
        #[arg(value_name = "URL|NAME")]
        source: String,
        /// For programs
        #[arg(long)]
        json: bool,
        /// Show the conversation with the server
        #[arg(short)]
        debug: bool,
        /// Say more; twice for yet more
        #[arg(short, action = ArgAction::Count)]
        verbose: u8,
        /// Options, separated by commas
        #[arg(short, value_name = "OPTION,...")]
        options: Vec<String>,
    },
    /// Print a completion script
    Completions {
        /// For this shell
        shell: Shell,
    },
}

#[derive(Args)]
struct MountArgs {
    /// ftp://user@host/directory, or a name from the configuration file
    #[arg(value_name = "URL|NAME")]
    source: Option<String>,
    /// The mountpoint
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short)]
    foreground: bool,
    /// Show the conversation with the server, in the foreground
    #[arg(short)]
    debug: bool,
    /// Say more; twice for yet more
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Mount read-only
    #[arg(short)]
    read_only: bool,
    /// Options, separated by commas
    #[arg(short, value_name = "OPTION,...")]
    options: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// How mount(8) calls `/sbin/mount.ferryfs`.
#[derive(Parser)]
#[command(name = "mount.ferryfs", version)]
struct MountHelper {
    source: String,
    dir: PathBuf,
    /// Options, separated by commas
    #[arg(short, value_name = "OPTION,...")]
    options: Vec<String>,
    /// Check everything, mount nothing
    #[arg(short)]
    fake: bool,
    /// Tolerate sloppy options; accepted, ours are never sloppy
    #[arg(short)]
    sloppy: bool,
    /// Do not write /etc/mtab, which nobody does any more
    #[arg(short)]
    no_mtab: bool,
    /// Say more
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// The type in fstab
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
}

/// How umount(8) calls `/sbin/umount.fuse.ferryfs`.
#[derive(Parser)]
#[command(name = "umount.ferryfs", version)]
struct UmountHelper {
    dir: PathBuf,
    /// Detach at once
    #[arg(short)]
    lazy: bool,
    /// Accepted; there is nothing to force
    #[arg(short)]
    force: bool,
    /// Do not write /etc/mtab
    #[arg(short)]
    no_mtab: bool,
    /// Say more
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Accepted; a mount that is busy stays as it is
    #[arg(short)]
    read_only: bool,
    /// The type in the mount table
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
}

/// Longest wait of an unmount that gives no other.
const LONG: Duration = Duration::from_secs(3600);

impl Typed {
    fn command_words(self) -> Result<Command, clap::Error> {
        let mount = match self.command {
            None => self.mount,
            Some(Sub::Mount(mount)) => mount,
            Some(Sub::Umount { dir, lazy, timeout }) => {
                return Ok(Command::Umount(UmountWords { dir, lazy, timeout }));
            }
            Some(Sub::Status { dir, json, watch }) => {
                return Ok(Command::Status { dir, json, watch });
            }
            Some(Sub::Flush { dir, timeout }) => return Ok(Command::Flush { dir, timeout }),
            Some(Sub::Mail { what }) => return Ok(Command::Mail(what.words())),
            // It has a parser of its own.
            Some(Sub::Sendmail { .. }) => {
                return Err(clap::Error::raw(ErrorKind::InvalidSubcommand, "sendmail"));
            }
            Some(Sub::Doctor {
                source,
                json,
                debug,
                verbose,
                options,
            }) => {
                let words = MountWords {
                    source,
                    dir: None,
                    options: split_all(&options),
                    foreground: true,
                    debug,
                    verbosity: verbose,
                };
                return Ok(Command::Doctor { words, json });
            }
            Some(Sub::Completions { shell }) => return Ok(Command::Print(completions(shell))),
        };
        let missing = || clap::Error::raw(ErrorKind::MissingRequiredArgument, "nothing to mount");
        let mut options = split_all(&mount.options);
        if mount.read_only {
            options.push(("ro".to_owned(), None));
        }
        Ok(Command::Mount(MountWords {
            source: mount.source.ok_or_else(missing)?,
            dir: mount.dir,
            options,
            foreground: mount.foreground,
            debug: mount.debug,
            verbosity: mount.verbose,
        }))
    }
}

impl MountHelper {
    fn command(self) -> Command {
        let words = MountWords {
            // mount.fuse's way of naming program and source in one field.
            source: self.source.trim_start_matches("ferryfs#").to_owned(),
            dir: Some(self.dir),
            options: split_all(&self.options),
            foreground: false,
            debug: false,
            verbosity: self.verbose,
        };
        if self.fake {
            Command::CheckMount(words)
        } else {
            Command::Mount(words)
        }
    }
}

impl UmountHelper {
    fn command(self) -> Command {
        Command::Umount(UmountWords {
            dir: self.dir,
            lazy: self.lazy,
            timeout: LONG,
        })
    }
}

fn split_all(lists: &[String]) -> Vec<(String, Option<String>)> {
    lists.iter().flat_map(|list| split_list(list)).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| "write 30s or 10m".to_owned()),
    }
}

fn completions(shell: Shell) -> String {
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Typed::command(), "ferryfs", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// clap's message, usage and tips in one line, without a URL that was typed in the wrong place: it
/// may hold a password.
fn one_line(err: &clap::Error) -> String {
    let text = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(without_url(text)),
        Some(ContextValue::Strings(texts)) => Some(texts.join(" ")),
        _ => None,
    };
    // clap looks at a third word as a command that may not follow the two.
    let thing = text(ContextKind::InvalidArg).or_else(|| text(ContextKind::InvalidSubcommand));
    let thing = thing.unwrap_or_default();
    let cause = match err.kind() {
        ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict if !thing.is_empty() => {
            match text(ContextKind::SuggestedArg) {
                Some(near) => format!("{thing}: not expected here; did you mean {near}?"),
                None => format!("{thing}: not expected here"),
            }
        }
        ErrorKind::MissingRequiredArgument if !thing.is_empty() => format!("{thing} is missing"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            if value.is_empty() {
                format!("{thing}: a value is missing")
            } else {
                format!("{thing}: {value:?} is not a value for it")
            }
        }
        _ => {
            let message = err.to_string();
            let first = message.lines().next().unwrap_or_default();
            without_url(first.trim_start_matches("error: "))
        }
    };
    format!("{cause}; see ferryfs --help")
}

fn without_url(text: &str) -> String {
    match text.find("://") {
        Some(at) => format!("{}://...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
