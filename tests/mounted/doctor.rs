//! `ferryfs doctor` on odd servers: it tells what is odd, and removes what it made even if it is
//! told to stop in the middle.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::names_there;
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::Place;

fn doctor(place: &Place, server: &Ftpd, options: &str) -> Command {
    let mut command = place.command();
    command
        .args(["doctor", &server.url(""), "--json", "-o"])
        .arg(format!("timeout=2s{options}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn examine(server: &Ftpd, options: &str) -> Value {
    let place = Place::new();
    let output = doctor(&place, server, options).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(names_there(server), ["dir", "file"], "something is left");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("nothing about {name} in {report:#}"))
}

fn server(quirks: Quirks) -> Ftpd {
    let server = Ftpd::with(quirks);
    server.put("dir/deep", "x");
    server.put("file", "content");
    server
}

#[test]
fn an_old_server_is_seen_through() {
    let quirks = Quirks::default()
        .without(&["MLSD", "MLST", "MFMT", "APPE"])
        .answer("SITE*", "500 no SITE")
        .answer("MDTM 2*", "550 no");
    let report = examine(&server(quirks), "");
    for (name, verdict) in [
        ("MLSD", "no"),
        ("LIST -a", "yes"),
        ("write a file", "yes"),
        ("append (APPE)", "no"),
        ("set times", "no"),
        ("set modes (SITE CHMOD)", "no"),
        ("encrypted", "no"),
    ] {
        assert_eq!(
            finding(&report, name)["verdict"],
            verdict,
            "{name}: {report:#}"
        );
    }
    let command = report["command"].as_str().unwrap();
    for option in ["chmod=ignore", "exact_times", "timeout=2s"] {
        assert!(command.contains(option), "{command}");
    }
}

#[test]
fn what_is_claimed_and_false_is_told() {
    let quirks = Quirks::default().answer("MFMT *", "502 not really");
    let report = examine(&server(quirks), "");
    let mfmt = finding(&report, "MFMT");
    assert_eq!(
        (&mfmt["verdict"], &mfmt["claimed"]),
        (&"no".into(), &true.into())
    );
}

#[test]
fn a_refused_login_leaves_a_report_and_a_code() {
    let server = server(Quirks::default().answer("PASS*", "530 Login incorrect."));
    let place = Place::new();
    let output = doctor(&place, &server, "").output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(finding(&report, "examination complete")["verdict"], "no");
    assert_eq!(server.count("PASS*"), 1, "hammered");
    // Nobody is told how to mount what cannot be mounted.
    let mut for_people = place.command();
    let said = for_people.args(["doctor", &server.url("")]).output();
    let text = String::from_utf8(said.unwrap().stdout).unwrap();
    assert!(text.contains("530 Login incorrect"), "{text}");
    assert!(
        !text.contains("No option") && !text.contains("To mount"),
        "{text}"
    );
}

#[test]
fn a_connection_that_is_lost_on_the_way_ends_it_tidily() {
    let server = server(Quirks::default().answer_times("RNFR*", 1, "421 bye"));
    let report = examine(&server, "");
    assert!(report["findings"].as_array().unwrap().len() > 10);
}

#[test]
fn told_to_stop_it_tidies_up() {
    let server = server(Quirks::default().delay("SIZE*", Duration::from_millis(150)));
    let place = Place::new();
    let child = doctor(&place, &server, "").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while names_there(&server).len() < 3 {
        assert!(Instant::now() < deadline, "no directory was made");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names_there(&server), ["dir", "file"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let end = finding(&report, "examination complete");
    assert_eq!(end["detail"], "told to stop", "{report:#}");
}

#[test]
fn checksums_are_suggested_only_if_they_are_right() {
    let wrong = "250 d41d8cd98f00b204e9800998ecf8427e";
    for (quirks, verdict, suggested) in [
        (Quirks::default(), "no", false),
        (with_extras(&["HASH SHA-256*;MD5"]), "yes", true),
        (with_extras(&["XCRC"]), "yes", true),
        (with_extras(&["XMD5"]).answer("XMD5", wrong), "no", false),
        // Claimed, and not known after all.
        (
            with_extras(&["XMD5"]).answer("XMD5", "500 What?"),
            "no",
            false,
        ),
    ] {
        let report = examine(&server(quirks), "");
        let found = finding(&report, "checksums by the server");
        assert_eq!(found["verdict"], verdict, "{found}");
        let mut advice = report["advice"].as_array().unwrap().iter();
        let advised = advice.any(|advice| advice["option"] == "verify=auto");
        assert_eq!(advised, suggested, "{report:#}");
        let command = report["command"].as_str().unwrap();
        assert_eq!(command.contains("verify=auto"), suggested, "{command}");
    }
}

#[test]
fn packed_transfers_are_tried() {
    let packing = || with_extras(&["MODE Z"]);
    for (quirks, down, up) in [
        (Quirks::default(), "no", None),
        (packing(), "yes", Some("yes")),
        (packing().answer("MODE Z", "504 Not now."), "no", None),
        (with_extras(&["MODE Z", "NO MODE Z"]), "no", None),
        (with_extras(&["MODE Z", "NO MODE Z UP"]), "yes", Some("no")),
    ] {
        let report = examine(&server(quirks), "");
        let found = finding(&report, "packed downloads (MODE Z)");
        assert_eq!(found["verdict"], down, "{found}");
        if let Some(up) = up {
            let found = finding(&report, "packed uploads (MODE Z)");
            assert_eq!(found["verdict"], up, "{found}");
        }
        assert_eq!(finding(&report, "up")["verdict"], "fact", "{report:#}");
    }
}

fn with_extras(extras: &[&'static str]) -> Quirks {
    Quirks {
        extras: extras.to_vec(),
        ..Quirks::default()
    }
}
