//! The mailbox that programs send from, mounted or not.

use std::path::PathBuf;

use super::order::Order;
use super::url::Scheme;
use super::{dirs, mail};
use crate::exit::{Exit, Failure};
use crate::mail::options::MailOptions;

/// A mailbox of the configuration file. Its secrets are not there: nothing here speaks to a server.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Its URL as running mounts show it.
    pub(crate) url_shown: String,
    /// Where the state of all accounts is.
    pub(crate) state_dir: PathBuf,
    /// Account, sender, servers.
    pub(crate) options: MailOptions,
}

/// The mailbox `[mount.NAME]`.
///
/// # Errors
/// [`Exit::Usage`] with what is wrong with it, [`Exit::MailConfig`] if it is no mailbox.
pub(crate) fn mailbox(name: &str) -> Result<Mailbox, Failure> {
    let order = Order::of_file(name)?;
    let (url, settings) = (order.url()?, order.settings()?);
    let Scheme::Pop3(security) = url.scheme else {
        let line = format!("{name}: is no mailbox; its url wants pop3s://user@host/");
        return Err(Failure::new(Exit::MailConfig, line));
    };
    let user = settings.user.clone().or_else(|| url.user.clone());
    Ok(Mailbox {
        url_shown: url.shown(user.as_deref()),
        state_dir: settings.state_dir.clone().map_or_else(dirs::state, Ok)?,
        options: mail::options(&url, security, &settings)?,
    })
}
