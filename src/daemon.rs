//! The background start: we run ourselves again, and stay until the mount answers.
//!
//! The child is told what to do, secrets included, on its standard input, never by its arguments
//! or environment, which others can read. It says `ready` or why not on its standard output, and
//! then leaves the terminal. There is no fork in a process with threads and no descriptor to pass.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};

use crate::config::Order;
use crate::exit::{Exit, Failure, words};
use crate::secret::Secret;
use crate::secret::source::Secrets;
use crate::{log as logging, mounts};

/// First argument of the child. What follows it is for people who read `ps`.
const ARGUMENT: &str = "__serve";

/// Whatever an order is, it is smaller.
const MAX_ORDER: u64 = 4 << 20;

/// What the child is told. Not `Debug`: it holds the secrets in the clear.
#[derive(Serialize, Deserialize)]
struct Handover {
    order: Order,
    password: String,
    account: Option<String>,
    submission: Option<String>,
    proxy: Option<String>,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ready,
    Failed { code: u8, line: String },
}

/// Whether this process was started by [`start`].
pub(crate) fn is_child(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|arg| arg == OsStr::new(ARGUMENT))
}

/// Starts the process that serves `order` and returns when its mount answers.
///
/// # Errors
/// Whatever the child reports; [`Exit::Failed`] if it says nothing within `wait`, and then it and
/// its mount are gone.
pub(crate) fn start(
    order: &Order,
    secrets: &Secrets,
    url_shown: &str,
    wait: Duration,
) -> Result<(), Failure> {
    let handover = Handover {
        order: order.clone(),
        password: secrets.password.reveal().to_owned(),
        account: secrets
            .account
            .as_ref()
            .map(|account| account.reveal().to_owned()),
        submission: secrets
            .submission
            .as_ref()
            .map(|submission| submission.reveal().to_owned()),
        proxy: secrets
            .proxy
            .as_ref()
            .map(|proxy| proxy.reveal().to_owned()),
    };
    let handover = serde_json::to_vec(&handover)
        .map_err(|err| Failure::new(Exit::Failed, format!("the order: {err}")))?;
    // The name the running program has, even if the file was replaced since.
    let mut child = Command::new("/proc/self/exe")
        .arg0("ferryfs")
        .args([ARGUMENT, url_shown])
        .arg(order.mountpoint())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|err| Failure::system("starting the background process", &err))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it died, its report or its exit status says more than a broken pipe.
        let _ = stdin.write_all(&handover);
    }
    match report_of(&mut child, wait) {
        Some(Report::Ready) => Ok(()),
        Some(Report::Failed { code, line }) => {
            let _ = child.wait();
            Err(Failure::new(Exit::from_code(code), line))
        }
        None => Err(give_up(child, &order.mountpoint(), wait)),
    }
}

fn report_of(child: &mut Child, wait: Duration) -> Option<Report> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        let read = BufReader::new(stdout)
            .take(MAX_ORDER)
            .read_until(b'\n', &mut line);
        let _ = sender.send(read.ok().and_then(|_| serde_json::from_slice(&line).ok()));
    });
    receiver.recv_timeout(wait).ok().flatten()
}

/// The child died without a word, or is silent: ends it and what it mounted.
fn give_up(mut child: Child, mountpoint: &Path, wait: Duration) -> Failure {
    // Closing its output comes a moment before its end.
    thread::sleep(Duration::from_millis(50));
    let died = child.try_wait().ok().flatten();
    let _ = child.kill();
    let _ = child.wait();
    if let Ok(Some(mount)) = mounts::find(mountpoint)
        && mount.is_ours()
        && let Err(err) = mounts::detach(mountpoint, true)
    {
        log::warn!("{}: {}", mountpoint.display(), words(&err));
    }
    let cause = match died {
        Some(status) => format!(
            "the background process ended, {}; see it with -f",
            how(status)
        ),
        None => format!("no mount within {} s; see why with -d", wait.as_secs()),
    };
    Failure::new(Exit::Failed, format!("{}: {cause}", mountpoint.display()))
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// In the child, before anything is opened: what the caller had open beyond the standard streams
/// would stay open for as long as the mount lives, and whoever reads a pipe to its end wait for it.
pub(crate) fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The one that listed them is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// In the child: reads what to do.
pub(crate) fn receive() -> Result<(Order, Secrets), Failure> {
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_ORDER)
        .read_to_end(&mut text)
        .map_err(|err| Failure::system("the order", &err))?;
    // The error would quote the text.
    let handover: Handover = serde_json::from_slice(&text)
        .map_err(|_| Failure::new(Exit::Usage, format!("{ARGUMENT} is not for people")))?;
    let secrets = Secrets {
        password: Secret::new(handover.password),
        account: handover.account.map(Secret::new),
        submission: handover.submission.map(Secret::new),
        proxy: handover.proxy.map(Secret::new),
    };
    Ok((handover.order, secrets))
}

/// In the child: tells why there is no mount, or logs it where the mount was ready before.
pub(crate) fn report_failure(failure: &Failure) {
    if logging::is_in_background() {
        log::error!("{failure}");
        return;
    }
    say(&Report::Failed {
        code: failure.code().code(),
        line: failure.line().to_owned(),
    });
}

fn say(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut stdout = io::stdout();
        if stdout
            .write_all(&line)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            log::debug!("nobody waits for the start any more");
        }
    }
}

/// Tells whoever started us that the mount answers. Dropping it unused tells nothing.
#[derive(Debug)]
#[must_use = "the command waits until report() is called"]
pub(crate) struct Ready {
    /// Where to log from then on; `None` in the foreground.
    background: Option<PathBuf>,
}

impl Ready {
    /// In the foreground only systemd wants to know.
    pub(crate) const fn foreground() -> Self {
        Self { background: None }
    }

    /// In the background: without syslog, messages go to a file in `log_dir`.
    pub(crate) fn background(log_dir: &Path) -> Self {
        Self {
            background: Some(log_dir.to_owned()),
        }
    }

    /// The mount answers: the parent exits with 0, and we leave its terminal, session and
    /// directory.
    pub(crate) fn report(self) {
        if let Some(log_dir) = self.background {
            say(&Report::Ready);
            logging::to_background(&log_dir);
            if let Err(err) = detach() {
                log::warn!("leaving the terminal: {}", words(&err));
            }
        }
        tell_systemd(&[NotifyState::Ready]);
    }
}

fn detach() -> io::Result<()> {
    env::set_current_dir("/")?;
    rustix::process::setsid()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// The mount is about to end; systemd shall not take it for a crash.
pub(crate) fn stopping() {
    tell_systemd(&[NotifyState::Stopping]);
}

/// A line for `systemctl status`.
pub(crate) fn status(line: &str) {
    tell_systemd(&[NotifyState::Status(line)]);
}

fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(state) {
        log::debug!("sd_notify: {err}");
    }
}
