//! The report of an examination, for people and for programs.

use std::fmt::Write as _;

use serde_json::json;

use super::mask::{masked, without_hosts};
use crate::config::Examined;
use crate::finding::{Finding, Findings, Verdict};

/// Columns of the text: the verdict, and what was tried.
const NAME: usize = 30;

/// The finding that says whether the end was reached.
const COMPLETE: &str = "examination complete";

/// For people: what was found, the options that would help, and a block for bug reports.
pub(super) fn text(examined: &Examined, findings: &Findings) -> String {
    let mut text = format!("{}\n", examined.url_shown);
    text.push_str(&body(&findings.findings));
    text.push('\n');
    // What could not be looked at may need options, and would not be mounted.
    let complete = findings.verdict(COMPLETE) != Some(Verdict::No);
    if complete && findings.advice.is_empty() {
        text.push_str("No option is needed.\n\n");
    } else if !findings.advice.is_empty() {
        text.push_str("These options would help:\n");
        for advice in &findings.advice {
            let _ = writeln!(text, "  -o {:<27} {}", advice.option, advice.why);
        }
        text.push('\n');
    }
    if complete {
        let _ = writeln!(text, "To mount it:\n  {}\n", command(examined, findings));
    }
    text.push_str("For bug reports, without names and addresses; please read it once more:\n\n");
    text.push_str(&block(examined, findings));
    text
}

/// For programs: the same, and the block as one string.
pub(super) fn json(examined: &Examined, findings: &Findings) -> String {
    let report = json!({
        "url": examined.url_shown,
        "version": env!("CARGO_PKG_VERSION"),
        "findings": findings.findings,
        "advice": findings.advice,
        "command": command(examined, findings),
        "block": block(examined, findings),
    });
    format!("{report:#}\n")
}

fn body(findings: &[Finding]) -> String {
    let mut areas: Vec<&str> = Vec::new();
    for finding in findings {
        if !areas.contains(&finding.area) {
            areas.push(finding.area);
        }
    }
    let mut text = String::new();
    for area in areas {
        let _ = writeln!(text, "\n{area}");
        let here = findings.iter().filter(|finding| finding.area == area);
        text.extend(here.map(line));
    }
    text
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Yes => "yes",
        Verdict::No => "no",
        Verdict::Untried => "?",
        Verdict::Fact => "",
    };
    let works = finding.verdict == Verdict::Yes;
    let claim = match finding.claimed {
        Some(true) if !works => "claimed, but: ",
        Some(false) if works => "not claimed",
        _ => "",
    };
    let detail: String = finding
        .detail
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let line = format!("  {verdict:<4}{:<NAME$} {claim}{detail}", finding.name);
    format!("{}\n", line.trim_end())
}

/// The command that mounts it, with the options that would help and the ones that were given.
fn command(examined: &Examined, findings: &Findings) -> String {
    let mut options: Vec<String> = examined.options.clone();
    for advice in &findings.advice {
        let name = advice.option.split('=').next().unwrap_or_default();
        let given = |option: &String| option.split('=').next() == Some(name);
        if !options.iter().any(given) {
            options.push(advice.option.clone());
        }
    }
    let mut command = format!("ferryfs {} DIR", quoted(&examined.url_shown));
    if !options.is_empty() {
        let list: Vec<_> = options.iter().map(|option| escaped(option)).collect();
        let _ = write!(command, " -o {}", quoted(&list.join(",")));
    }
    command
}

/// As `-o` wants it.
fn escaped(option: &str) -> String {
    option.replace('\\', "\\\\").replace(',', "\\,")
}

/// As a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%_-+=:,./".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A finding as everyone may know it: what says whose server it is, is left out.
fn public(finding: &Finding) -> Option<Finding> {
    let mut public = finding.clone();
    match finding.name.as_str() {
        "fingerprint" | "certificate of" | "issued by" | "address" => return None,
        "greeting" | "software" => public.detail = without_hosts(&finding.detail),
        _ => {}
    }
    Some(public)
}

fn block(examined: &Examined, findings: &Findings) -> String {
    let system = rustix::system::uname();
    let names: Vec<_> = examined
        .options
        .iter()
        .map(|option| option.split('=').next().unwrap_or_default())
        .collect();
    let scheme = examined.url_shown.split(':').next().unwrap_or_default();
    let head = format!(
        "ferryfs {} on Linux {}\n{scheme}, options: {}\n",
        env!("CARGO_PKG_VERSION"),
        system.release().to_string_lossy(),
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        },
    );
    let told: Vec<_> = findings.findings.iter().filter_map(public).collect();
    format!("```\n{}```\n", masked(&(head + &body(&told)), examined))
}
