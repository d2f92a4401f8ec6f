//! `ferryfs doctor`: examines a server and says what it can do, what is odd about it, and which
//! options would help.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::{Examined, Source};
use crate::exit::{Exit, Failure};
use crate::finding::{Findings, Stop, Verdict};
use crate::ftp::FtpBackend;
use crate::mail;
use crate::mount;
use crate::vfs::error::Error;

mod mask;
mod report;

/// Examines the server of `examined`. Returns what to print, and the failure where that is not all:
/// a refused login leaves a report, too.
pub(crate) fn examine(examined: &Examined, json: bool) -> (String, Result<(), Failure>) {
    let stop = Stop::default();
    let mut findings = Findings::default();
    let outcome = watch(&stop).and_then(|()| run(examined, &stop, &mut findings));
    if let Err(failure) = &outcome {
        findings.add("end", "examination complete", Verdict::No, failure.line());
    }
    let outcome = outcome.and_then(|()| match stop.is_asked_for() {
        true => Err(Failure::new(
            Exit::Failed,
            "told to stop; what was found is above",
        )),
        false => Ok(()),
    });
    let text = if json {
        report::json(examined, &findings)
    } else {
        report::text(examined, &findings)
    };
    (text, outcome)
}

fn run(examined: &Examined, stop: &Stop, findings: &mut Findings) -> Result<(), Failure> {
    let examination = match &examined.source {
        Source::Ftp(options) => {
            FtpBackend::examine((**options).clone(), stop).map(|found| *findings = found)
        }
        Source::Mail(options) => {
            mail::examine::examine(options, stop, findings).map_err(Error::from)
        }
    };
    examination.map_err(|err| mount::refused(&examined.url_shown, &err))
}

/// The first signal ends the examination in order, with its directory removed; the second at once.
fn watch(stop: &Stop) -> Result<(), Failure> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&again))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&again)))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop.0)))
            .map_err(|err| Failure::system("signal handlers", &err))?;
    }
    Ok(())
}
