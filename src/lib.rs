//! ferryfs makes old Internet services into directories. This comment is the map.
//!
//! A layer imports only what is below it:
//!
//! ```text
//! main                          a shell over run()
//!   cli                         what was typed: the only user of clap
//!   config  (config/)           what it means: URL, options, configuration file -> Config
//!   secret  (secret/)           passwords: never shown; where they come from
//!   log     daemon    exit      messages; the background start; exit codes and their lines
//!   state   mounts              a mount's own directory and its lock; the kernel's mount table
//!   doctor  (doctor/)           examines a server without mounting it
//!   control status    umount    the socket of a running mount, and the commands that ask it
//!   agent   (agent/)            sendmail, and the commands for mail: over the files of a mailbox
//!   nudge                       wakes who waits for changes with inotify
//!     metrics                   numbers for Prometheus
//!     mount                     builds and owns everything below, for one mount
//!       fuse  (fuse/)           requests of the kernel in, replies out: the only user of fuser
//!       ftp   (ftp/)            a server's tree as a Backend: the only user of suppaftp
//!       mail  (mail/)           a mailbox as a Backend: POP3 into a Maildir on disk, a queue out
//!                               by SMTP, each on a thread of its own
//!         vfs (vfs/)            what each operation means: inodes, handles, caches, staging, journal
//!         net (net/)            sockets with time limits; trust in certificates; proxies
//!           sync   finding      Locked, the one mutex; what an examination found
//!           caller              whether anybody still waits for what a thread does
//!           traffic             what was done so far, in numbers; transfers under way
//! ```
//!
//! From a command to the wire: [`run`] parses ([`cli`]), resolves ([`config::Config`]), starts a
//! second process that serves ([`daemon`]) and waits for its word. There `mount` joins a
//! [`vfs::backend::Backend`] to a FUSE session. `unlink(2)` arrives in `fuse`, gets its meaning in
//! `vfs`, its commands in `ftp`, and goes over the wire in `ftp/session`.
//!
//! Errors: below `mount` everything is a [`vfs::error::Error`], which one table turns into an
//! errno; above it everything is a [`Failure`], an exit code and one line. Locks are leaves
//! ([`sync::Locked`]).

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

mod agent;
mod caller;
mod cli;
mod config;
mod control;
mod daemon;
mod doctor;
mod exit;
pub mod finding;
pub mod ftp;
mod fuse;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod log;
pub mod mail;
mod metrics;
mod mount;
mod mounts;
pub mod net;
mod nudge;
pub mod secret;
mod state;
mod status;
pub mod sync;
pub mod traffic;
mod umount;
pub mod vfs;

pub use config::options::{OPTIONS, OptionSpec};
pub use exit::{Exit, Failure};
pub use log::WIRE;

use cli::{Command, MountWords};
use config::{Config, Examined, Order};
use daemon::Ready;

/// Time the background process has beyond the time limit of its first connection.
const START_GRACE: Duration = Duration::from_secs(15);

/// Does what the command line says; `args` begins with the name we were called by.
///
/// # Errors
/// The exit code and the line to print after `ferryfs: `.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    if daemon::is_child(&args) {
        return serve_in_background();
    }
    if nudge::is_child(&args) {
        nudge::run(&args);
        return Ok(());
    }
    match cli::parse(args)? {
        Command::Mount(words) => mount(words),
        Command::CheckMount(words) => Config::resolve(&order(words)?).map(drop),
        Command::Umount(words) => umount::umount(&words),
        Command::Flush { dir, timeout } => umount::flush(&dir, timeout),
        Command::Status {
            dir, watch: true, ..
        } => status::watch::watch(dir.as_deref()),
        Command::Status { dir, json, .. } => print(&status::show(dir.as_deref(), json)?),
        Command::Sendmail(words) => agent::sendmail(&words),
        Command::Mail(words) => agent::mail(&words),
        Command::Doctor { words, json } => examine(words, json),
        Command::Print(text) => print(&text),
    }
}

fn mount(words: MountWords) -> Result<(), Failure> {
    let order = order(words)?;
    let (config, secrets) = Config::resolve(&order)?;
    if config.foreground {
        return serve(&config, Ready::foreground());
    }
    daemon::start(
        &order,
        &secrets,
        &config.url_shown,
        config.timeout() + START_GRACE,
    )
}

fn examine(words: MountWords, json: bool) -> Result<(), Failure> {
    log::start(words.verbosity, words.debug);
    let (order, _) = Order::without_mountpoint(words)?;
    let (text, outcome) = doctor::examine(&Examined::resolve(&order)?, json);
    print(&text)?;
    outcome
}

fn order(words: MountWords) -> Result<Order, Failure> {
    log::start(words.verbosity, words.debug);
    Order::new(words)
}

/// What the process behind a background mount does. Its failure is printed by the one in front.
fn serve_in_background() -> Result<(), Failure> {
    daemon::close_inherited();
    let (order, secrets) = daemon::receive()?;
    log::start(order.verbosity, order.debug);
    let served = Config::with_secrets(&order, &secrets).and_then(|config| {
        let log_dir = config.state_dir.parent().unwrap_or(&config.state_dir);
        serve(&config, Ready::background(log_dir))
    });
    if let Err(failure) = served {
        daemon::report_failure(&failure);
        std::process::exit(i32::from(failure.code().code()));
    }
    Ok(())
}

fn serve(config: &Config, ready: Ready) -> Result<(), Failure> {
    let _claim = state::claim(config)?;
    mount::serve(config, ready)
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `ferryfs status | head -1` is no failure.
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::system("standard output", &err))
        }
        _ => Ok(()),
    }
}
