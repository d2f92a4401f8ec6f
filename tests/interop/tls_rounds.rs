//! Transfers over TLS without end: servers that insist on a resumed session refuse the third one of
//! a client that runs out of tickets.

use std::fs;
use std::time::Duration;

use super::Stage;
use crate::support::mount::Mounting;
use crate::support::real::RealServer;

/// Uploads, downloads and listings in one mount: 60 of each, or `FERRYFS_TLS_ROUNDS`.
pub(super) fn rounds(stage: &Stage) {
    let rounds: usize = match std::env::var("FERRYFS_TLS_ROUNDS") {
        Ok(number) => number.parse().expect("FERRYFS_TLS_ROUNDS is a number"),
        Err(_) => 60,
    };
    let content = |what: &str, round: usize| format!("{what} {round}\n").repeat(1 + round % 40);
    fs::create_dir(stage.there("here")).unwrap();
    for round in 0..rounds {
        let dir = stage.there(&format!("there/{round}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), content("down", round)).unwrap();
    }
    stage.server.give_all_to_the_user();
    let limit = Duration::from_secs(30 + rounds as u64);
    stage.mount.within(limit, || {
        for round in 0..rounds {
            let up = content("up", round);
            let here = format!("here/{round}");
            fs::write(stage.path(&here), &up).unwrap_or_else(|err| panic!("upload {round}: {err}"));
            assert_eq!(fs::read_to_string(stage.there(&here)).unwrap(), up);
            // A directory nobody has looked at, and a file nobody has read: listed and fetched now.
            let dir = stage.path(&format!("there/{round}"));
            let names: Vec<_> = fs::read_dir(&dir)
                .unwrap_or_else(|err| panic!("listing {round}: {err}"))
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(names, ["file"]);
            let down = fs::read_to_string(dir.join("file"))
                .unwrap_or_else(|err| panic!("download {round}: {err}"));
            assert_eq!(down, content("down", round));
        }
    });
    let root = stage.mount.root();
    let status = stage
        .mount
        .ferryfs(&["status", root.to_str().unwrap(), "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let status = &status[0];
    assert_eq!(status["tls"], true, "{status:#}");
    // ProFTPD gives no tickets on uploads, which 1.2 can do without.
    let version = match stage.server.name() {
        "proftpd" => "TLS 1.2",
        _ => "TLS 1.3",
    };
    assert_eq!(status["tls_version"], version, "{status:#}");
    assert_eq!(status["in_clear"], serde_json::Value::Null);
    assert_eq!(status["certificate"]["trusted"], "given in cafile");
}

/// On request, and then `status` says so: Pure-FTPd is the one of the four that allows it.
#[test]
fn clear_text_on_request_works_and_is_shown() {
    let Some(server) = RealServer::start("pure-ftpd", "user", &["tls"]) else {
        return;
    };
    for (options, shown) in [
        ("ccc", "control connection after the login"),
        ("prot=C", "data connections"),
        ("prot=C,ccc", "everything after the login"),
    ] {
        let mounting = server.mounting();
        let Some(mount) = options.split(',').fold(mounting, Mounting::option).start() else {
            return;
        };
        let content = options.repeat(10_000);
        fs::write(mount.path(options), &content).unwrap();
        assert_eq!(fs::read_to_string(mount.path(options)).unwrap(), content);
        assert_eq!(fs::read_to_string(server.path(options)).unwrap(), content);
        let root = mount.root();
        let status = mount.ferryfs(&["status", root.to_str().unwrap(), "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status[0]["in_clear"], shown, "{status:#}");
        assert_eq!(status[0]["tls"], true);
        mount.finish();
    }
}
