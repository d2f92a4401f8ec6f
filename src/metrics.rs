//! The metrics file (`-o metrics=FILE`): numbers in the text format of Prometheus, for the
//! `textfile` collector of its node exporter.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::traffic::TRAFFIC;

/// Writes `file` anew, `up` unless the mount is at its end: whoever reads it sees the old numbers or
/// the new ones.
///
/// # Errors
/// The system's.
pub(crate) fn write(
    file: &Path,
    mountpoint: &Path,
    status: &Map<String, Value>,
    up: bool,
) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    // The collector reads `*.prom` only.
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = file.with_file_name(name);
    let written = fs::write(&temporary, text(mountpoint, status, up))
        .and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// All of them, with the mountpoint as their label.
fn text(mountpoint: &Path, status: &Map<String, Value>, up: bool) -> String {
    let mount = escaped(&mountpoint.to_string_lossy());
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP ferryfs_{name} {help}");
        let _ = writeln!(text, "# TYPE ferryfs_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "ferryfs_{name}{{mount=\"{mount}\"{labels}}} {value}");
        }
    };
    let alone = |value: u64| vec![(String::new(), value)];
    metric("up", "gauge", "The mount is there.", &alone(up.into()));
    let labelled = |label: &str, values: std::collections::BTreeMap<&str, u64>| {
        let values = values.into_iter();
        let values = values.map(|(name, value)| (format!(",{label}=\"{name}\""), value));
        values.collect::<Vec<_>>()
    };
    metric(
        "operations_total",
        "counter",
        "Requests of the kernel that could not be answered from memory.",
        &labelled("operation", TRAFFIC.operations()),
    );
    metric(
        "errors_total",
        "counter",
        "Requests that failed, by errno.",
        &labelled("errno", TRAFFIC.errors()),
    );
    for (name, help, counter) in [
        (
            "memory_answers_total",
            "Requests for names and attributes answered from memory.",
            &TRAFFIC.from_memory,
        ),
        (
            "received_bytes_total",
            "Bytes from the server over data connections.",
            &TRAFFIC.received,
        ),
        (
            "sent_bytes_total",
            "Bytes to the server over data connections.",
            &TRAFFIC.sent,
        ),
        ("downloads_total", "Downloads begun.", &TRAFFIC.downloads),
        ("uploads_total", "Uploads begun.", &TRAFFIC.uploads),
        ("listings_total", "Listings begun.", &TRAFFIC.listings),
        (
            "connections_total",
            "Control connections that logged in.",
            &TRAFFIC.connections,
        ),
        (
            "connections_lost_total",
            "Control connections that were lost.",
            &TRAFFIC.lost,
        ),
        ("mail_fetched_total", "Messages fetched.", &TRAFFIC.fetched),
    ] {
        metric(name, "counter", help, &alone(counter.get()));
    }
    let dirty = status.get("dirty").and_then(Value::as_array);
    let dirty_bytes = dirty.into_iter().flatten();
    let dirty_bytes = dirty_bytes.filter_map(|file| file.get("bytes")?.as_u64());
    let numbers = [
        (
            "dirty_files",
            "Files that are not on the server yet.",
            dirty.map(|dirty| dirty.len() as u64),
        ),
        (
            "dirty_bytes",
            "Bytes of these.",
            dirty.map(|_| dirty_bytes.sum()),
        ),
        (
            "transfers",
            "Transfers under way.",
            Some(TRAFFIC.under_way().len() as u64),
        ),
        (
            "open_connections",
            "Control connections that are open.",
            number(status, "connections", "open"),
        ),
        (
            "connection_limit",
            "Most connections there may be.",
            number(status, "connections", "limit"),
        ),
        (
            "mail_queued",
            "Messages that wait to be sent.",
            number(status, "outbox", "queued"),
        ),
        (
            "mail_deferred",
            "Of these, tried before.",
            number(status, "outbox", "deferred"),
        ),
        (
            "cache_hits_total",
            "Reads answered from the cache on disk.",
            number(status, "cache", "hits"),
        ),
        (
            "cache_hit_bytes_total",
            "Bytes of these.",
            number(status, "cache", "hit_bytes"),
        ),
        (
            "mail_sent_total",
            "Recipients whose server has the message.",
            number(status, "outbox", "accepted"),
        ),
        (
            "mail_failed_total",
            "Recipients that were refused.",
            number(status, "outbox", "refused"),
        ),
    ];
    for (name, help, value) in numbers {
        // What only adds up is named so.
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        if let Some(value) = value {
            metric(name, kind, help, &alone(value));
        }
    }
    text
}

fn number(status: &Map<String, Value>, group: &str, name: &str) -> Option<u64> {
    status.get(group)?.get(name)?.as_u64()
}

/// As a label's value wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_file_is_what_prometheus_reads() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("ferryfs.prom");
        let Value::Object(status) = json!({
            "connections": {"open": 3, "limit": 8},
            "dirty": [{"path": "/a", "bytes": 5}, {"path": "/b", "bytes": 6}],
        }) else {
            return;
        };
        write(&file, Path::new("/mnt/a \"b\""), &status, true).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for line in [
            "ferryfs_open_connections{mount=\"/mnt/a \\\"b\\\"\"} 3",
            "ferryfs_dirty_files{mount=\"/mnt/a \\\"b\\\"\"} 2",
            "ferryfs_dirty_bytes{mount=\"/mnt/a \\\"b\\\"\"} 11",
            "# TYPE ferryfs_sent_bytes_total counter",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} not in {text}"
            );
        }
        assert!(!text.contains("mail_queued"), "{text}");
        // Every line is a comment or a name, labels and a number.
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(
                name.starts_with("ferryfs_") && name.ends_with('}'),
                "{line}"
            );
            value.parse::<u64>().unwrap();
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        assert!(write(&temp.path().join("no/such"), Path::new("/"), &status, true).is_err());
    }
}
