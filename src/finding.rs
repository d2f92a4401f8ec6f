//! What an examination of a server found: the words of `ferryfs doctor`.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was tried and works.
    Yes,
    /// It was tried and does not.
    No,
    /// It could not be tried.
    Untried,
    /// Nothing to try: a fact.
    Fact,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `files`, `names`, `tls`.
    pub area: &'static str,
    /// What was tried.
    pub name: String,
    /// How that ended.
    pub verdict: Verdict,
    /// Whether the server names it among its features; `None` where none does.
    pub claimed: Option<bool>,
    /// More, for people; may quote the server.
    pub detail: String,
}

/// An option that would help, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// `connections=2`.
    pub option: String,
    /// One line.
    pub why: String,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// In the order they were found.
    pub findings: Vec<Finding>,
    /// Options that would help.
    pub advice: Vec<Advice>,
}

impl Findings {
    /// A fact.
    pub fn fact(&mut self, area: &'static str, name: impl Into<String>, detail: impl ToString) {
        self.add(area, name, Verdict::Fact, detail.to_string());
    }

    /// The end of a trial.
    pub fn add(
        &mut self,
        area: &'static str,
        name: impl Into<String>,
        verdict: Verdict,
        detail: impl Into<String>,
    ) {
        self.findings.push(Finding {
            area,
            name: name.into(),
            verdict,
            claimed: None,
            detail: detail.into(),
        });
    }

    /// What a trial came to: `detail` if it worked, the error if not.
    pub fn tried<E: ToString>(
        &mut self,
        area: &'static str,
        name: impl Into<String>,
        outcome: Result<String, E>,
    ) -> bool {
        match outcome {
            Ok(detail) => {
                self.add(area, name, Verdict::Yes, detail);
                true
            }
            Err(err) => {
                self.add(area, name, Verdict::No, err.to_string());
                false
            }
        }
    }

    /// Whether the server claims what was found last.
    pub fn claimed(&mut self, claimed: bool) {
        if let Some(last) = self.findings.last_mut() {
            last.claimed = Some(claimed);
        }
    }

    /// An option that would help.
    pub fn advise(&mut self, option: impl Into<String>, why: impl Into<String>) {
        self.advice.push(Advice {
            option: option.into(),
            why: why.into(),
        });
    }

    /// How `name` ended.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<Verdict> {
        let found = self.findings.iter().find(|found| found.name == name)?;
        Some(found.verdict)
    }
}

/// Told by a signal: end early and tidy up.
#[derive(Debug, Default)]
pub struct Stop(pub std::sync::Arc<AtomicBool>);

impl Stop {
    /// Whether to end.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
