//! What a mount tells of itself: transfers under way, totals, the metrics file, and never a secret.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{Place, TestMount};

fn status(mount: &TestMount) -> Value {
    let root = mount.root();
    let output = mount.ferryfs(&["status", root.to_str().unwrap(), "--json"]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all[0].clone()
}

/// The numbers of a metrics file, by name and labels without the mount.
pub(super) fn numbers(text: &str, root: &str) -> BTreeMap<String, u64> {
    let mount = format!("mount=\"{root}\"");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let number = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.contains(&mount), "{line}");
        let name = name
            .replace(&mount, "")
            .replace("{,", "{")
            .replace("{}", "");
        (name, value.parse().unwrap())
    };
    lines.map(number).collect()
}

#[test]
fn a_download_under_way_is_shown_with_its_progress() {
    let server = Ftpd::start();
    let big = bytes(30_000_000);
    server.put("big", &big);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let mut file = File::open(mount.path("big")).unwrap();
    let mut some = vec![0; 100_000];
    file.read_exact(&mut some).unwrap();
    let shown = status(&mount);
    let transfer = &shown["transfers"][0];
    assert_eq!(transfer["path"], "/big", "{shown:#}");
    assert_eq!(transfer["direction"], "down");
    let done = transfer["done_bytes"].as_u64().unwrap();
    assert!((100_000..30_000_000).contains(&done), "{done}");
    assert!(shown["totals"]["received_bytes"].as_u64().unwrap() >= done);
    assert_eq!(shown["totals"]["downloads"], 1);
    drop(file);
}

#[test]
fn an_upload_under_way_is_shown_by_the_name_it_will_have() {
    let server = Ftpd::start();
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    // Another process writes: one that has the file open and starts a third closes it there.
    let script = "import sys, time\n\
                  file = open(sys.argv[1], 'wb', buffering=0)\n\
                  for _ in range(40):\n    file.write(b'x' * 100000)\n    time.sleep(0.05)\n";
    let path = mount.path("new");
    let mut writer = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let shown = status(&mount);
        if shown["transfers"][0]["path"] == "/new" {
            assert_eq!(shown["transfers"][0]["direction"], "up");
            break;
        }
        assert!(Instant::now() < deadline, "{shown:#}");
    }
    assert!(writer.wait().unwrap().success());
    mount.finish();
    assert_eq!(server.get("new").len(), 4_000_000);
}

#[test]
fn the_metrics_file_has_the_numbers_of_the_end() {
    let server = Ftpd::start();
    server.put("dir/file", bytes(50_000));
    let place = Place::new();
    let file = place.path("ferryfs.prom");
    let mounting = mounting(&server).option(format!("metrics={}", file.display()));
    let Some(mount) = mounting.start() else {
        return;
    };
    let root = mount.root().display().to_string();
    // The mount is there a moment before its first numbers.
    mount.within(Duration::from_secs(10), || {
        while !file.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let before = numbers(&fs::read_to_string(&file).unwrap(), &root);
    assert_eq!(before["ferryfs_up"], 1);
    assert_eq!(before["ferryfs_uploads_total"], 0);
    assert_eq!(fs::read(mount.path("dir/file")).unwrap().len(), 50_000);
    fs::write(mount.path("new"), bytes(70_000)).unwrap();
    assert!(fs::remove_dir(mount.path("dir")).is_err());
    mount.finish();
    let after = numbers(&fs::read_to_string(&file).unwrap(), &root);
    assert!(after["ferryfs_sent_bytes_total"] >= 70_000, "{after:?}");
    assert!(after["ferryfs_received_bytes_total"] >= 50_000, "{after:?}");
    assert!(after["ferryfs_connections_total"] >= 1);
    assert_eq!(
        after["ferryfs_errors_total{errno=\"ENOTEMPTY\"}"], 1,
        "{after:?}"
    );
    assert!(after["ferryfs_operations_total{operation=\"rmdir\"}"] >= 1);
    assert_eq!(after["ferryfs_dirty_files"], 0);
    assert_eq!(after["ferryfs_up"], 0);
    // Nothing else is left beside it.
    let names = fs::read_dir(file.parent().unwrap()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().ends_with(".tmp"))
    );
}

#[test]
fn a_metrics_file_that_cannot_be_written_is_told_at_the_start() {
    let server = Ftpd::start();
    let place = Place::new();
    let output = place
        .command()
        .args(["-f", &server.url("")])
        .arg(place.mountpoint())
        .args(["-o", "metrics=/no/such/dir/x.prom"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(line.contains("-o metrics: /no/such/dir/x.prom"), "{line}");
    assert!(!place.is_mounted());
}

#[test]
fn the_live_view_ends_by_a_signal_and_by_q() {
    let server = Ftpd::start();
    server.put("big", bytes(20_000_000));
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let mut file = File::open(mount.path("big")).unwrap();
    file.read_exact(&mut [0; 1000]).unwrap();
    let root = mount.root().display().to_string();
    // Not on a terminal: block after block.
    let child = mount
        .command()
        .args(["status", "--watch", &root])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(700));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("down ") && text.contains("/big"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    // On one: drawn, until q.
    let ferryfs = env!("CARGO_BIN_EXE_ferryfs");
    let began = Instant::now();
    let printed = mount.sh(&format!(
        "export TERM=xterm; (sleep 1.5; printf q; sleep 5) |
         timeout 10 script -qec '{ferryfs} status --watch {root}' /dev/null"
    ));
    assert!(printed.contains("\x1b[?1049h") && printed.contains("\x1b[?1049l"));
    assert!(printed.contains("/big"), "{printed}");
    assert!(began.elapsed() < Duration::from_secs(9), "q did nothing");
    drop(file);
}

/// Runs `command` to its end and returns all it printed.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let all = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn no_secret_is_in_anything_that_is_printed() {
    const PASSWORD: &str = "correct-horse-9";
    const ACCOUNT: &str = "battery-staple-7";
    let place = Place::new();
    let secret = |name: &str, text: &str| {
        let path = place.path(name);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600);
        file = file.truncate(false);
        file.open(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        path.display().to_string()
    };
    let files = format!(
        "password_file={},account_file={}",
        secret("pw", PASSWORD),
        secret("acct", ACCOUNT)
    );
    // It wants an account, and repeats what it is told.
    let quirks = Quirks {
        login: Some(("anna".into(), PASSWORD.into())),
        ..Quirks::default()
    };
    let echoing = Ftpd::with(
        quirks
            .clone()
            .answer("PASS", &format!("332 {PASSWORD} is not enough"))
            .answer("ACCT", &format!("530 no {ACCOUNT} with {PASSWORD} here")),
    );
    let fine = Ftpd::with(quirks);
    let mut all = Vec::new();
    for server in [&echoing, &fine] {
        let url = server.url("");
        for options in [vec!["-d"], vec!["-vv", "--json"]] {
            let mut command = place.command();
            command.arg("doctor").args(options);
            command.args([&url, "-o", &format!("timeout=2s,{files}")]);
            all.push(said(&mut command));
        }
    }
    let mut command = place.command();
    command
        .args(["-d", &echoing.url("")])
        .arg(place.mountpoint());
    all.push(said(command.args(["-o", &format!("timeout=2s,{files}")])));
    assert!(
        all[0].contains("PASS ****") && all[0].contains("ACCT ****"),
        "{}",
        all[0]
    );
    assert!(all[0].contains("**** is not enough"), "{}", all[0]);
    for text in &all {
        for secret in [PASSWORD, ACCOUNT] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    // And what a mount leaves and shows.
    let Some(mount) = mounting(&fine).password(PASSWORD).start() else {
        return;
    };
    fs::write(mount.path("file"), "x").unwrap();
    let root = mount.root().display().to_string();
    let mut shown = String::new();
    for args in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["status", &root],
    ] {
        shown.push_str(&String::from_utf8_lossy(&mount.ferryfs(&args).stdout));
    }
    for of_process in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{}/{of_process}", mount.pid())).unwrap();
        shown.push_str(&String::from_utf8_lossy(&text));
    }
    shown.push_str(&mount.log());
    shown.push_str(&mount.sh(&format!(
        "grep -rl {PASSWORD} {} || true",
        mount.local("state").display()
    )));
    assert!(
        !shown.contains(PASSWORD) && shown.contains("anna"),
        "{shown}"
    );
}
