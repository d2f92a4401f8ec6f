//! sendmail(8): takes a message from standard input and has it queued, durably.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Account, ask, mailq, strings, wait};
use crate::cli::{SendmailWords, Task};
use crate::exit::{Exit, Failure, words};
use crate::mail::ask::{Ask, Pickup};
use crate::mail::backend;
use crate::mount::mail::sysexit;
use crate::vfs::error::ErrorKind;

/// Larger messages are refused, in octets.
const LARGEST: u64 = 256 << 20;

/// Without a mount, how long the queue is waited for: another sendmail has it for a moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long `-v` waits for the server.
const WATCHED: Duration = Duration::from_secs(60);

/// Does what sendmail is told.
///
/// # Errors
/// One line, with the exit codes of sysexits.h.
pub(crate) fn sendmail(typed: &SendmailWords) -> Result<(), Failure> {
    let account = || Account::find(typed.account.as_deref());
    match typed.task {
        Task::Nothing => Ok(()),
        Task::Send => send(&account()?, typed),
        Task::Print => mailq::print(&account()?),
        Task::Flush => match account()? {
            Account::Mounted(found) => ask(&found, Ask::Retry).map(drop),
            Account::Unmounted(mailbox) => {
                let line = format!("{}: is not mounted, so nothing is sent", mailbox.url_shown);
                Err(Failure::new(Exit::MailUnavailable, line))
            }
        },
        Task::Verify => {
            let Account::Mounted(found) = account()? else {
                let line = "-bv: wants a mailbox that is mounted";
                return Err(Failure::new(Exit::MailUnavailable, line));
            };
            let behind = ask(&found, Ask::Expand(typed.to.clone()))?;
            crate::print(
                &strings(&behind)
                    .iter()
                    .map(|to| format!("{to}\n"))
                    .collect::<String>(),
            )
        }
    }
}

fn send(account: &Account, typed: &SendmailWords) -> Result<(), Failure> {
    let dir = match account {
        Account::Mounted(found) => found.dir.clone(),
        Account::Unmounted(mailbox) => mailbox.state_dir.clone(),
    };
    let message = Letter::take(&dir, typed.dot_ends)?;
    let handed = Pickup {
        message: message.0.clone(),
        to: typed.to.clone(),
        header_too: typed.header_too,
        sender: typed.sender.clone(),
        name: typed.name.clone(),
        notify: typed.notify,
        bring_back: typed.bring_back,
        envelope_id: typed.envelope_id.clone(),
    };
    match account {
        Account::Mounted(found) => {
            let queued = ask(found, Ask::Submit(handed))?;
            drop(message);
            if typed.verbose {
                wait::watch(found, &strings(&queued), WATCHED)?;
            }
            Ok(())
        }
        Account::Unmounted(mailbox) => {
            let deadline = Instant::now() + PATIENCE;
            let ids = loop {
                match backend::hand_in(&mailbox.state_dir, &mailbox.options, &handed) {
                    Err(err) if err.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                        thread::sleep(Duration::from_millis(20));
                    }
                    handed => break handed.map_err(|err| sysexit(&err))?,
                }
            };
            if typed.verbose {
                for id in ids {
                    let shown = &mailbox.url_shown;
                    crate::print(&format!("{id}: queued; sent when {shown} is mounted\n"))?;
                }
            }
            Ok(())
        }
    }
}

/// The message from standard input in a file of its own, gone with this.
struct Letter(PathBuf);

impl Letter {
    fn take(dir: &Path, dot_ends: bool) -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|err| Failure::new(Exit::MailDisk, format!("randomness: {err}")))?;
        let path = dir.join(format!("sendmail-{:016x}", u64::from_ne_bytes(random)));
        let failed = |err: &io::Error| {
            let full = matches!(
                err.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            let exit = if full {
                Exit::MailLater
            } else {
                Exit::MailDisk
            };
            Failure::new(exit, format!("{}: {}", path.display(), words(err)))
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|err| failed(&err))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|err| failed(&err))?;
        let letter = Self(path.clone());
        let copied =
            copy(&mut io::stdin().lock(), &mut file, dot_ends).map_err(|err| failed(&err))?;
        if copied > LARGEST {
            let line = format!("the message is larger than {LARGEST} octets");
            return Err(Failure::new(Exit::MailData, line));
        }
        Ok(letter)
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        // What a crash leaves here was never acknowledged.
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies up to one octet more than is allowed. `dot_ends`: up to a line that is a dot.
fn copy(from: &mut dyn BufRead, to: &mut File, dot_ends: bool) -> io::Result<u64> {
    if !dot_ends {
        return io::copy(&mut from.take(LARGEST + 1), to);
    }
    let mut to = io::BufWriter::new(to);
    let mut from = from.take(LARGEST + 1);
    let (mut line, mut copied) = (Vec::new(), 0);
    while from.read_until(b'\n', &mut line)? > 0 {
        if matches!(line.as_slice(), b".\n" | b".\r\n" | b".") {
            break;
        }
        to.write_all(&line)?;
        copied += line.len() as u64;
        line.clear();
    }
    to.flush()?;
    Ok(copied)
}
