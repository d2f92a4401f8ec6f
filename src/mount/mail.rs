//! A mailbox behind a mount.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use serde_json::{Map, Value};

use super::{Behind, Sides, refused};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::mail::ask::Ask;
use crate::mail::backend::MailBackend;
use crate::mail::options::MailOptions;
use crate::vfs::error::{Error, ErrorKind};

/// What a call that waits for a server leaves of the mount's time limit.
const MARGIN: Duration = Duration::from_millis(500);

/// A message whose end is with the server is not left in doubt for less than this.
const COURTESY: Duration = Duration::from_secs(12);

/// How long the first mount of a mailbox waits for the answer to its login.
const FIRST_WORD: Duration = Duration::from_secs(5);

struct Mail(Arc<MailBackend>);

/// Opens the mailbox of `config`. It is one for all mounts of the account, one at a time: mail that
/// was fetched and queued is there again under another mountpoint.
///
/// # Errors
/// Another mount has it; the disk's. Not the servers': what is local is served without them. Only
/// where nothing is local yet, a refused password or certificate.
pub(super) fn open(config: &Config, options: &MailOptions) -> Result<Sides, Failure> {
    let state_dir = config.state_dir.parent().unwrap_or(&config.state_dir);
    let patience = config.timeout().saturating_sub(MARGIN);
    let mail = MailBackend::start(state_dir, options, patience)
        .map_err(|err| refused(&config.url_shown, &err))?;
    if let Err(err) = mail.first_login(patience.min(FIRST_WORD)) {
        mail.stop();
        return Err(refused(&config.url_shown, &err));
    }
    Ok((Arc::clone(&mail) as _, Arc::new(Mail(mail))))
}

/// An error of handing in mail, with the exit code of sysexits.h that callers of sendmail(8) know.
pub(crate) fn sysexit(err: &Error) -> Failure {
    let exit = match err.kind() {
        ErrorKind::NoRecipient => Exit::MailUsage,
        ErrorKind::BadMessage | ErrorKind::MessageTooLong | ErrorKind::TooLarge => Exit::MailData,
        ErrorKind::NotFound => Exit::MailNoUser,
        ErrorKind::NotPermitted | ErrorKind::Unsupported => Exit::MailUnavailable,
        ErrorKind::NoSpace | ErrorKind::QuotaExceeded | ErrorKind::Busy => Exit::MailLater,
        ErrorKind::Local(errno) if errno == Errno::NOSPC.raw_os_error() => Exit::MailLater,
        _ => Exit::MailDisk,
    };
    Failure::new(exit, err)
}

impl Behind for Mail {
    fn mail(&self, ask: &Ask) -> Result<Value, Failure> {
        self.0.answer(ask).map_err(|err| sysexit(&err))
    }

    fn status(&self) -> Map<String, Value> {
        self.0.report()
    }

    fn courtesy(&self) -> Duration {
        COURTESY
    }

    fn close(&self) {
        self.0.stop();
    }
}
