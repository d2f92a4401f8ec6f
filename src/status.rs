//! `ferryfs status`: what every mount is doing, for people and for programs.
//!
//! The body of a status answer is an object that `mount.rs` fills. Any key is shown; these have a
//! meaning of their own:
//!
//! * keys ending in `bytes`, and `size`: numbers of bytes, shown as `14.3 KiB`;
//! * keys ending in `at` or `since`: seconds since 1970, shown as a time;
//! * an array: its number of entries and one line for each; an object: its members in one line.
//!
//! ```json
//! {"server": "(vsFTPd 3.0.3)", "connections": {"open": 2, "busy": 1, "limit": 8},
//!  "dirty": [{"path": "/a", "bytes": 10240}],
//!  "transfers": [{"path": "/b", "direction": "up", "done_bytes": 1, "total_bytes": 2}],
//!  "quirks": ["NLST hides dot files"], "errors": [{"at": 1700000000, "line": "STOR /c: 553 no"}]}
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::control::{self, Request};
use crate::exit::{Exit, Failure, words};
use crate::{config, mounts, state};

pub(crate) mod watch;

/// Longest wait for one mount.
const WAIT: Duration = Duration::from_secs(10);

/// Shows the mount at `dir`, or all of them, and tidies away what dead ones left.
///
/// # Errors
/// [`Exit::Mountpoint`] if nothing of ours is mounted at `dir`.
pub(crate) fn show(dir: Option<&Path>, json: bool) -> Result<String, Failure> {
    let reports = reports(dir)?;
    if json {
        return Ok(format!("{:#}\n", Value::Array(reports)));
    }
    if reports.is_empty() {
        return Ok("nothing is mounted\n".to_owned());
    }
    Ok(reports.iter().map(block).collect::<Vec<_>>().join("\n"))
}

/// What there is to say of the mount at `dir`, or of all.
fn reports(dir: Option<&Path>) -> Result<Vec<Value>, Failure> {
    let dir = dir.map(config::dir_of);
    let wanted = match dir.as_deref() {
        Some(dir) => Some(mounts::resolve(dir).map_err(|err| {
            Failure::new(
                Exit::Mountpoint,
                format!("{}: {}", dir.display(), words(&err)),
            )
        })?),
        None => None,
    };
    let mut reports = Vec::new();
    for found in state::all()? {
        if wanted
            .as_ref()
            .is_none_or(|dir| *dir == found.record.mountpoint)
        {
            // A dead mount is shown for as long as the kernel has it, or something is left of it.
            let mounted = matches!(mounts::find(&found.record.mountpoint), Ok(Some(_)));
            if !found.alive && !mounted && !found.has_leftovers() && !found.has_intents() {
                found.clean();
                continue;
            }
            reports.push(report(&found));
        }
    }
    if let (true, Some(dir)) = (reports.is_empty(), &wanted)
        && let Ok(Some(mount)) = mounts::find(dir)
        && mount.is_ours()
    {
        // Another user's, or one whose record was lost.
        reports.push(json!({
            "mountpoint": dir.to_string_lossy(),
            "url": mount.source.to_string_lossy(),
            "state": "unknown: not mounted by this user, or its process is gone",
        }));
    }
    if let (true, Some(dir)) = (reports.is_empty(), dir) {
        let line = format!(
            "{}: no ferryfs is mounted here; see ferryfs status",
            dir.display()
        );
        return Err(Failure::new(Exit::Mountpoint, line));
    }
    Ok(reports)
}

/// One mount: what is on record, and its own answer beside it.
fn report(found: &state::Found) -> Value {
    let record = &found.record;
    let mut report = Map::new();
    report.insert(
        "mountpoint".to_owned(),
        json!(record.mountpoint.to_string_lossy()),
    );
    report.insert("url".to_owned(), json!(record.url));
    report.insert("pid".to_owned(), json!(record.pid));
    report.insert("since".to_owned(), json!(record.since));
    let state = if !found.alive {
        if found.has_leftovers() {
            let kept = format!("what was not sent is kept in {}", found.dir.display());
            report.insert("kept".to_owned(), json!(kept));
        } else if found.has_intents() {
            let kept = "what it left half done on the server will be put right by the next mount";
            report.insert("kept".to_owned(), json!(kept));
        }
        "dead"
    } else {
        match control::ask(&state::socket(&found.dir), &Request::Status, WAIT)
            .map_err(|err| words(&err))
            .and_then(|answer| answer.into_result().map_err(|failure| failure.to_string()))
        {
            Ok(Value::Object(body)) => {
                report.extend(body);
                "mounted"
            }
            Ok(_) => "mounted",
            Err(cause) => {
                report.insert("cause".to_owned(), json!(cause));
                "not answering"
            }
        }
    };
    report.insert("state".to_owned(), json!(state));
    Value::Object(report)
}

fn block(report: &Value) -> String {
    let text = |key: &str| {
        let value = report.get(key)?;
        Some(plain(key, value))
    };
    let mut block = format!(
        "{}  {}\n  {}",
        text("mountpoint").unwrap_or_default(),
        text("url").unwrap_or_default(),
        text("state").unwrap_or_default()
    );
    if let (Some(since), Some(pid)) = (text("since"), text("pid")) {
        let _ = write!(block, " since {since}, process {pid}");
    }
    block.push('\n');
    let head = ["mountpoint", "url", "state", "since", "pid"];
    for (key, value) in report.as_object().into_iter().flatten() {
        if head.contains(&key.as_str()) {
            continue;
        }
        let label = key.replace('_', " ");
        match value {
            // What is not known, or not there, is for programs.
            Value::Null => {}
            Value::Array(entries) if entries.is_empty() && key != "dirty" => {}
            Value::Array(entries) => {
                let _ = writeln!(block, "  {label:<12} {}", entries.len());
                for entry in entries {
                    let _ = writeln!(block, "    {}", plain("", entry));
                }
            }
            value => {
                let _ = writeln!(block, "  {label:<12} {}", plain(key, value));
            }
        }
    }
    block
}

/// A value in a line.
fn plain(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(bytes) if key.ends_with("bytes") || key == "size" => in_bytes(bytes),
            Some(seconds) if key == "at" || key.ends_with("_at") || key.ends_with("since") => {
                time(seconds)
            }
            _ => number.to_string(),
        },
        Value::String(text) => text.replace(|c: char| c.is_control(), " "),
        Value::Array(entries) => entries
            .iter()
            .map(|entry| plain("", entry))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| match (key.as_str(), value) {
                // What names itself needs no label.
                ("path" | "line" | "at" | "bytes" | "size", value) => plain(key, value),
                (key, value) => format!("{} {}", key.replace('_', " "), plain(key, value)),
            };
            let known = members.iter().filter(|(_, value)| !value.is_null());
            known.map(member).collect::<Vec<_>>().join(", ")
        }
    }
}

fn time(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // humantime writes years up to 9999.
        Some(time) if seconds < 253_402_300_800 && time >= SystemTime::UNIX_EPOCH => {
            humantime::format_rfc3339_seconds(time).to_string()
        }
        _ => seconds.to_string(),
    }
}

fn in_bytes(bytes: u64) -> String {
    let mut shown = bytes;
    let mut rest = 0;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if shown < 1024 {
            break;
        }
        rest = (shown % 1024) * 10 / 1024;
        shown /= 1024;
        unit = larger;
    }
    if unit == "B" {
        format!("{shown} B")
    } else {
        format!("{shown}.{rest} {unit}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_block_shows_every_key_readably() {
        let report = json!({
            "mountpoint": "/mnt/x", "url": "ftp://h/", "pid": 7, "since": 0, "state": "mounted",
            "server": "vsFTPd\u{1b}[2J 3.0.3",
            "connections": {"open": 2, "busy": 1},
            "dirty": [{"path": "/a", "bytes": 14_700}],
            "errors": [],
            "read_only": false,
        });
        let block = block(&report);
        assert!(
            block
                .starts_with("/mnt/x  ftp://h/\n  mounted since 1970-01-01T00:00:00Z, process 7\n")
        );
        assert!(block.contains("vsFTPd [2J 3.0.3"), "{block}");
        assert!(block.contains("busy 1, open 2"), "{block}");
        assert!(
            block.contains("  dirty        1\n    14.3 KiB, /a\n"),
            "{block}"
        );
        assert!(block.contains("  read only    no\n"), "{block}");
    }

    #[test]
    fn numbers_are_shown_without_panic() {
        assert_eq!(in_bytes(1023), "1023 B");
        assert_eq!(in_bytes(1536), "1.5 KiB");
        assert_eq!(in_bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
