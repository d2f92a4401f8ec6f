//! Where a password comes from: what the options name, then what lies ready, then a person.

use std::env;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::private_file::{MAX_BYTES, read_private};
use super::{Secret, netrc};
use crate::exit::{Exit, Failure, words};

/// Time a `password_command` has; it may ask a person for the key of a password store.
const COMMAND_TIME: Duration = Duration::from_secs(120);

/// What the user said of passwords.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// `None` for anonymous.
    pub(crate) user: Option<&'a str>,
    pub(crate) host: &'a str,
    pub(crate) command: Option<&'a str>,
    pub(crate) file: Option<&'a Path>,
    pub(crate) stdin: bool,
    pub(crate) anonymous: Option<&'a str>,
    pub(crate) account: Option<&'a Path>,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    pub(crate) password: Secret,
    /// Answer to `332 Need account for login`.
    pub(crate) account: Option<Secret>,
    /// Of the server that mail is sent through, where it has one of its own.
    pub(crate) submission: Option<Secret>,
    /// Of the proxy's user.
    pub(crate) proxy: Option<Secret>,
}

impl Sources<'_> {
    /// Asks one source after the other.
    ///
    /// # Errors
    /// [`Exit::Secret`]: a source that was named does not give a password, or there is none.
    pub(crate) fn find(&self) -> Result<Secrets, Failure> {
        let account = self.account.map(from_file).transpose().map_err(refuse)?;
        let (password, netrc_account) = self.password().map_err(refuse)?;
        if password.reveal().contains(['\r', '\n', '\0']) {
            // It would end the PASS command early and begin another one.
            return Err(refuse("the password holds a line end or a NUL".to_owned()));
        }
        Ok(Secrets {
            password,
            account: account.or(netrc_account),
            submission: None,
            proxy: None,
        })
    }

    fn password(&self) -> Result<(Secret, Option<Secret>), String> {
        let Some(user) = self.user else {
            if self.command.is_some() || self.file.is_some() || self.stdin {
                return Err(
                    "a password, but no user; write ftp://USER@HOST/ or -o user=NAME".to_owned(),
                );
            }
            return Ok((Secret::new(self.anonymous.unwrap_or("guest")), None));
        };
        if let Some(command) = self.command {
            return Ok((from_command("password_command", command)?, None));
        }
        if let Some(file) = self.file {
            return Ok((from_file(file)?, None));
        }
        // Asked for by name, so it goes before what merely lies ready.
        if self.stdin && !io::stdin().is_terminal() {
            return Ok((from_stdin()?, None));
        }
        if let Some(login) = from_netrc(self.host, user)? {
            return Ok((login.password, login.account));
        }
        if let Some(password) = from_credential(self.host)? {
            return Ok((password, None));
        }
        if io::stdin().is_terminal() {
            return Ok((from_terminal(user, self.host)?, None));
        }
        Err(format!(
            "no password for {user} on {}; put it into ~/.netrc, or use -o password_file=FILE, \
             -o password_command=COMMAND, -o password_stdin, or a terminal",
            self.host
        ))
    }
}

fn refuse(line: String) -> Failure {
    Failure::new(Exit::Secret, line)
}

/// The first line of `file`, which must be ours or root's and closed to everybody else.
fn from_file(file: &Path) -> Result<Secret, String> {
    let text = read_private(file).map_err(|err| format!("{}: {}", file.display(), words(&err)))?;
    first_line(&text).ok_or_else(|| format!("{}: the first line is empty", file.display()))
}

fn first_line(text: &str) -> Option<Secret> {
    text.lines()
        .next()
        .filter(|line| !line.is_empty())
        .map(Secret::new)
}

/// The first line that `command` prints. What it says on standard error is shown.
/// What `command`, which the option `option` names, prints first.
pub(crate) fn from_command(option: &str, command: &str) -> Result<Secret, String> {
    let failed = |cause: &str| format!("{option}: {cause}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|err| failed(&words(&err)))?;
    let (sender, receiver) = mpsc::channel();
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map_or(Ok(0), |out| out.take(MAX_BYTES).read_to_string(&mut text));
        let _ = sender.send(read.map(|_| text));
    });
    let deadline = Instant::now() + COMMAND_TIME;
    let text = match receiver.recv_timeout(COMMAND_TIME) {
        Ok(text) => text.map_err(|err| failed(&words(&err)))?,
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed("printed no end within two minutes"));
        }
    };
    // It closed its output; give it the rest of the time to exit.
    let status = loop {
        match child.try_wait().map_err(|err| failed(&words(&err)))? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            None => {
                let _ = child.kill();
                break child.wait().map_err(|err| failed(&words(&err)))?;
            }
        }
    };
    if !status.success() {
        return Err(failed(&format!("failed ({status})")));
    }
    first_line(&text).ok_or_else(|| failed("printed no password in its first line"))
}

fn from_stdin() -> Result<Secret, String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(MAX_BYTES)
        .read_line(&mut line)
        .map_err(|err| format!("standard input: {}", words(&err)))?;
    first_line(&line).ok_or_else(|| "standard input: no password in its first line".to_owned())
}

fn from_netrc(host: &str, user: &str) -> Result<Option<netrc::Login>, String> {
    let path = match env::var_os("NETRC") {
        Some(path) => PathBuf::from(path),
        None => match env::home_dir() {
            Some(home) => home.join(".netrc"),
            None => return Ok(None),
        },
    };
    match read_private(&path) {
        Ok(text) => Ok(netrc::find(&text, host, user)),
        // Missing, or not for us to read: then nothing was meant for us.
        Err(err) if err.raw_os_error().is_some() => Ok(None),
        Err(err) => Err(format!("{}: {}", path.display(), words(&err))),
    }
}

/// systemd's `LoadCredential=ferryfs.password:…` (systemd.exec(5)). systemd keeps others out, with
/// modes of its own.
fn from_credential(host: &str) -> Result<Option<Secret>, String> {
    let Some(dir) = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else {
        return Ok(None);
    };
    let names = [
        format!("ferryfs.password.{host}"),
        "ferryfs.password".to_owned(),
    ];
    for path in names.map(|name| dir.join(name)) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                return first_line(&text)
                    .map(Some)
                    .ok_or_else(|| format!("{}: the first line is empty", path.display()));
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(format!("{}: {}", path.display(), words(&err))),
        }
    }
    Ok(None)
}

fn from_terminal(user: &str, host: &str) -> Result<Secret, String> {
    rpassword::prompt_password(format!("Password for {user} on {host}: "))
        .map(Secret::new)
        .map_err(|err| format!("terminal: {}", words(&err)))
}
