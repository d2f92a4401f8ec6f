//! Commands that may still arrive after their connection was given up.
//!
//! A renaming whose answer never came may be on its way yet: in a proxy, or in front of a server
//! whose disk hangs. Another connection does the work meanwhile, and then the late commands come and
//! move the *new* file to the name that was meant for the old one. So that name is taken away from
//! them before the work is begun anew: an empty directory has it, onto which no server renames a
//! file. MKD also says, in the same step, whether the commands have come already.
//!
//! The directory goes when nothing can come any more. Where none could be made, the name is looked
//! at until then, and what comes to it goes back.

use std::time::{Duration, SystemTime};

use super::intents::Intent;
use super::probes::Seen;
use super::server::FtpServer;
use super::session::Session;
use super::sweep::{Outcome, unclear};
use crate::vfs::error::{ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// How long commands that were never answered may still come. A link that was down delivers what
/// our kernel has within two minutes; the rest is for proxies and for the server itself.
const LATE: Duration = Duration::from_secs(600);

impl FtpServer {
    /// After a lost renaming of `home` to `aside`, of which `lost` says how: whether it has not
    /// happened. Then it does no harm any more, and another name must be taken.
    ///
    /// # Errors
    /// Those of the connection: then the same may be asked again.
    pub(super) fn bar(
        &self,
        s: &mut Session,
        (home, aside): (&RemotePath, &RemotePath),
        lost: ErrorKind,
    ) -> Result<bool> {
        let Some(before) = self.intents.of(aside) else {
            return Ok(false);
        };
        // Who hung up has taken his commands along.
        let late = match lost {
            ErrorKind::TimedOut => LATE,
            _ => Duration::ZERO,
        };
        let late = |barred| Intent::Late {
            home: home.clone(),
            until: SystemTime::now() + late,
            barred,
        };
        // An earlier attempt may have made the directory, and its answer was lost, too.
        let again = matches!(before, Intent::Late { .. });
        // A directory that is not written down would stay, under a name that nobody sees.
        let noted = self.note(aside, late(false));
        let made = noted && self.ask(s, "MKD", aside)?.is_ok();
        let barred = made
            || match self.look(s, aside)? {
                Seen::Missing => false,
                Seen::Directory if again => true,
                _ => {
                    self.note(aside, before);
                    return Ok(false);
                }
            };
        log::debug!("{home}: what was not answered may come yet; barred: {barred}");
        if barred {
            let _ = self.intents.begin(aside, late(true), false);
        }
        self.in_flight.with(|names| names.insert(aside.clone()));
        self.wait_for_sweep(aside.clone());
        self.sweep_soon();
        Ok(true)
    }

    /// Writes down, on the disk, what is to become of `name`; whether it is there. If not, what was
    /// there before holds for the next mount, and this for ours.
    fn note(&self, name: &RemotePath, intent: Intent) -> bool {
        let noted = self.intents.begin(name, intent.clone(), true);
        if let Err(err) = &noted {
            log::debug!("{name}: {err}");
            let _ = self.intents.begin(name, intent, false);
        }
        noted.is_ok()
    }

    /// Sees to a name that was taken away from commands which may come late.
    pub(super) fn watch(
        &self,
        s: &mut Session,
        name: &RemotePath,
        home: &RemotePath,
        over: bool,
    ) -> Result<Outcome> {
        match self.look(s, name)? {
            Seen::Missing | Seen::Directory if !over => return Ok(Outcome::NotYet),
            Seen::Missing => {
                self.reveal(name);
                return Ok(Outcome::Done);
            }
            Seen::Directory if self.ask(s, "RMD", name)?.is_ok() => {
                self.reveal(name);
                return Ok(Outcome::Done);
            }
            Seen::Unclear => return Ok(unclear(name)),
            Seen::File | Seen::Directory => {}
        }
        // Something did come.
        self.in_flight.with(|names| names.remove(name));
        match self.look(s, home)? {
            Seen::Missing => self.put_back(s, name, home),
            Seen::File | Seen::Directory => self.keep_beside(s, name, home),
            Seen::Unclear => Ok(unclear(home)),
        }
    }

    /// Whether the sweep has anything to do about `name` now.
    pub(super) fn is_due(&self, name: &RemotePath) -> bool {
        match self.intents.of(name) {
            Some(Intent::Late { until, barred, .. }) => !barred || SystemTime::now() >= until,
            _ => true,
        }
    }

    /// `dir` is to go, and with it all that is barred there: nothing is there to be moved any more.
    pub(super) fn lift_bars(&self, dir: &RemotePath) {
        for name in self.intents.names() {
            if name.is_within(dir)
                && let Some(Intent::Late { home, barred, .. }) = self.intents.of(&name)
            {
                let until = SystemTime::now();
                let over = Intent::Late {
                    home,
                    until,
                    barred,
                };
                let _ = self.intents.begin(&name, over, false);
            }
        }
    }
}
