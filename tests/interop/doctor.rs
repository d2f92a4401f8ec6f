//! `ferryfs doctor` on the real servers: what it says is what they are known to do, and it leaves
//! nothing behind.

use serde_json::Value;

use super::Stage;

/// The report, and what was printed in all.
fn examine(stage: &Stage) -> (Value, String) {
    let url = stage.server.url();
    let mut options = vec!["timeout=10s".to_owned()];
    if stage.server.fact("user") != "anonymous" {
        // The mount's own.
        let file = stage.mount.local("password");
        options.push(format!("password_file={}", file.display()));
    }
    if let Some(ca) = stage.server.cafile() {
        options.push(format!("cafile={ca}"));
    }
    let output = stage
        .mount
        .ferryfs(&["doctor", &url, "--json", "-o", &options.join(",")]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(&text).unwrap(), text)
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name);
    let found = found.unwrap_or_else(|| panic!("nothing about {name} in {report:#}"));
    found["verdict"].as_str().unwrap()
}

pub(super) fn tells_what_is_true(stage: &Stage) {
    let before = std::fs::read_dir(stage.there("")).unwrap().count();
    let (report, text) = examine(stage);
    assert_eq!(std::fs::read_dir(stage.there("")).unwrap().count(), before);
    for works in [
        "write a file",
        "read it back",
        "read from an offset (REST)",
        "replace a file",
        "set times",
        "set modes (SITE CHMOD)",
        "SIZE",
        "MDTM",
        "RNTO over a file",
        "with a space",
        "in UTF-8",
        "of 255 bytes",
        "several commands at once",
        "logins sent at once",
    ] {
        assert_eq!(verdict(&report, works), "yes", "{works}: {report:#}");
    }
    let name = stage.server.name();
    let yes = |truth: bool| if truth { "yes" } else { "no" };
    // It allows that only where its configuration says so.
    assert_eq!(verdict(&report, "append (APPE)"), yes(name != "proftpd"));
    assert_eq!(verdict(&report, "MLSD"), yes(name != "vsftpd"));
    assert_eq!(verdict(&report, "MFMT"), yes(name != "vsftpd"));
    assert_eq!(verdict(&report, "MDTM with a time"), yes(name == "vsftpd"));
    let links = verdict(&report, "symbolic links (SITE SYMLINK)");
    assert_eq!(links, yes(stage.makes_links()));
    if stage.server.cafile().is_some() {
        assert_eq!(verdict(&report, "encrypted"), "yes");
        let resumed = verdict(&report, "data connections resume the session");
        assert_eq!(resumed, yes(name != "pure-ftpd"));
    }
    // What is pasted tells nobody where this is.
    let block = report["block"].as_str().unwrap();
    for secret in [
        stage.server.fact("user"),
        stage.server.fact("host"),
        stage.server.fact("password"),
    ] {
        assert!(!block.contains(secret), "{secret} in {block}");
    }
    assert!(!text.contains(stage.server.fact("password")));
}

pub(super) fn reads_where_nothing_can_be_written(stage: &Stage) {
    let (report, _) = examine(stage);
    assert_eq!(verdict(&report, "make a directory"), "no", "{report:#}");
    assert_eq!(verdict(&report, "write a file"), "untried");
    assert_eq!(verdict(&report, "down"), "fact");
    let command = report["command"].as_str().unwrap();
    assert!(
        command.ends_with(",ro") || command.contains(",ro,"),
        "{command}"
    );
}
