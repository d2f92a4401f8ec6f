//! Single commands: which of them the server takes, whatever FEAT claims.

use std::time::{Duration, SystemTime};

use super::Examination;
use super::files::{below, content};
use crate::ftp::reply::Reply;
use crate::ftp::set_attr::done;
use crate::ftp::stat::size_of;
use crate::ftp::ways::TimeCommand;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

impl Examination<'_> {
    pub(super) fn commands(&mut self, dir: &RemotePath) -> Result<()> {
        let file = below(dir, b"plain")?;
        if self.write(&file, &content(1_234)).is_err() {
            return Ok(());
        }
        type Judge = fn(&Reply) -> bool;
        let questions: [(&str, Judge); 4] = [
            ("SIZE", |reply| size_of(reply) == Some(1_234)),
            ("MDTM", |reply| reply.code() == 213),
            ("MLST", |reply| {
                reply.is_ok() && reply.body().iter().any(|line| line.contains(&b'='))
            }),
            ("STAT", |reply| reply.is_ok() && !reply.body().is_empty()),
        ];
        for (verb, judge) in questions {
            self.go_on()?;
            let server = &self.server;
            let reply = server.on_session(|s| server.ask(s, verb, &file))?;
            let outcome = if judge(&reply) {
                Ok(String::new())
            } else {
                Err(reply.text())
            };
            self.findings.tried("commands", verb, outcome);
            // Nobody announces STAT.
            if verb != "STAT" {
                self.claim(verb);
            }
        }
        self.rename_over(dir)?;
        let at = SystemTime::now() - Duration::from_secs(200_000);
        for command in TimeCommand::ALL {
            self.go_on()?;
            let server = &self.server;
            let outcome = server.on_session(|s| {
                let reply = s.command(&server.time_line(command, &file, at)?)?;
                if !done(&reply) {
                    return Ok(Err(reply.text()));
                }
                Ok(match server.shows_time(s, &file, at)? {
                    Some(false) => Err(format!("{}, but the time is another", reply.text())),
                    Some(true) | None => Ok(String::new()),
                })
            })?;
            self.findings.tried("commands", command.name(), outcome);
            if command == TimeCommand::Mfmt {
                self.claim("MFMT");
            }
        }
        Ok(())
    }

    fn claim(&mut self, verb: &str) {
        let features = self
            .server
            .pool
            .host()
            .facts(|facts| facts.features.clone());
        if let Some(features) = features.filter(|features| features.answered()) {
            self.findings.claimed(features.has(verb));
        }
    }

    /// RNTO over a file, without the detour that a mount makes where it is refused.
    fn rename_over(&mut self, dir: &RemotePath) -> Result<()> {
        let (from, to) = (below(dir, b"from")?, below(dir, b"to")?);
        self.write(&from, b"new")?;
        self.write(&to, b"old version")?;
        let server = &self.server;
        let reply = server.on_session(|s| {
            let reply = server.ask(s, "RNFR", &from)?;
            if !reply.wants_more() {
                return Ok(reply);
            }
            server.ask(s, "RNTO", &to)
        })?;
        let outcome = if reply.is_ok() {
            match self.read(&to, 0, 100)?.as_slice() {
                b"new" => Ok(String::new()),
                other => Err(format!("said to be done, but it has {} bytes", other.len())),
            }
        } else {
            let words = reply.text();
            Err(format!("{words}; a mount moves the old one aside first"))
        };
        self.findings.tried("commands", "RNTO over a file", outcome);
        Ok(())
    }
}
