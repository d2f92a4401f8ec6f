//! The mail commands: sendmail(8) for programs, and a small user agent, over the files of a mailbox.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cli::MailWords;
use crate::config::{self, Mailbox};
use crate::control::{self, Request};
use crate::exit::{Exit, Failure, words};
use crate::mail::ask::Ask;
use crate::{mounts, state};

mod answering;
mod inbox;
mod mailq;
mod sendmail;
mod wait;

pub(crate) use sendmail::sendmail;

/// Longest wait for the mount itself; what waits for servers asks again and again.
const WAIT: Duration = Duration::from_secs(60);

/// A mailbox to work on.
enum Account {
    /// A process serves it.
    Mounted(state::Found),
    /// It has none at the moment.
    Unmounted(Box<Mailbox>),
}

/// Does what `ferryfs mail` is told.
///
/// # Errors
/// One line, with the exit codes of sysexits.h.
pub(crate) fn mail(words: &MailWords) -> Result<(), Failure> {
    match words {
        MailWords::List { account, count } => inbox::list(account.as_deref(), *count),
        MailWords::Read { account, message } => inbox::read(account.as_deref(), message),
        MailWords::Answer {
            account,
            message,
            how,
            to,
        } => answering::answer(account.as_deref(), message, how, to),
        MailWords::Wait {
            account,
            ids,
            timeout,
        } => wait::wait(&mounted(account.as_deref())?, ids, *timeout),
    }
}

impl Account {
    /// The mailbox that is meant: `named` by its name in the configuration file or its mountpoint;
    /// the one `[mail] account=` names; the only one that is mounted; the only one described.
    fn find(named: Option<&str>) -> Result<Self, Failure> {
        if let Some(named) = named {
            return Self::named(named);
        }
        let known = config::mailboxes()?;
        if let Some(account) = &known.account {
            return Self::named(account);
        }
        let mut mounted: Vec<_> = running()?;
        if mounted.len() > 1 {
            let places = mounted
                .iter()
                .map(|found| found.record.mountpoint.display().to_string());
            return Err(several("mounted", &places.collect::<Vec<_>>()));
        }
        if let Some(only) = mounted.pop() {
            return Ok(Self::Mounted(only));
        }
        match known.sending.as_slice() {
            [only] => Self::named(only),
            [] => {
                let line = "no mailbox is mounted; ferryfs pop3s://user@host/ DIR -o smtp=URL";
                Err(Failure::new(Exit::MailUnavailable, line))
            }
            names => Err(several("described in config.toml", names)),
        }
    }

    fn named(named: &str) -> Result<Self, Failure> {
        let mut mounted = running()?;
        if named.contains('/') || named.starts_with('.') {
            let dir = mounts::resolve(Path::new(named)).map_err(|err| {
                Failure::new(Exit::MailUnavailable, format!("{named}: {}", words(&err)))
            })?;
            let at = mounted
                .iter()
                .position(|found| found.record.mountpoint == dir);
            let at = at.ok_or_else(|| {
                Failure::new(
                    Exit::MailUnavailable,
                    format!("{named}: no mailbox is mounted here"),
                )
            })?;
            return Ok(Self::Mounted(mounted.swap_remove(at)));
        }
        let mailbox = config::mailbox(named)?;
        let at = mounted
            .iter()
            .position(|found| found.record.url == mailbox.url_shown);
        Ok(match at {
            Some(at) => Self::Mounted(mounted.swap_remove(at)),
            None => Self::Unmounted(Box::new(mailbox)),
        })
    }
}

/// The mailboxes of this user that a process serves.
fn running() -> Result<Vec<state::Found>, Failure> {
    let is_mailbox = |found: &state::Found| found.alive && found.record.url.starts_with("pop3");
    Ok(state::all()?.into_iter().filter(is_mailbox).collect())
}

fn several(how: &str, which: &[String]) -> Failure {
    let line = format!(
        "several mailboxes are {how}: {}; say --account NAME|DIR, or write [mail] account = \"NAME\" \
         in config.toml",
        which.join(", ")
    );
    Failure::new(Exit::MailConfig, line)
}

/// The mailbox that is meant, if a process serves it.
fn mounted(named: Option<&str>) -> Result<state::Found, Failure> {
    match Account::find(named)? {
        Account::Mounted(found) => Ok(found),
        Account::Unmounted(mailbox) => {
            let line = format!("{}: is not mounted", mailbox.url_shown);
            Err(Failure::new(Exit::MailUnavailable, line))
        }
    }
}

/// Asks the process of a mailbox.
fn ask(found: &state::Found, ask: Ask) -> Result<Value, Failure> {
    control::ask(&state::socket(&found.dir), &Request::Mail(ask), WAIT)
        .map_err(|err| {
            let place = found.record.mountpoint.display();
            Failure::new(
                Exit::MailLater,
                format!("{place}: does not answer: {}", words(&err)),
            )
        })?
        .into_result()
}

/// The texts in `value`.
fn strings(value: &Value) -> Vec<String> {
    let entries = value.as_array().into_iter().flatten();
    entries
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The text of a member, empty if it has none.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The members of an array.
fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}
