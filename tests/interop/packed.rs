//! MODE Z of ProFTPD, whose module Debian ships beside it.

use std::fs;
use std::os::unix::fs::FileExt;

use super::Stage;
use crate::support::real::RealServer;

const MODULE: [&str; 2] = ["LoadModule mod_deflate.c", "DeflateEngine on"];

fn stage(words: &[&str], option: &str) -> Option<Stage> {
    let server = RealServer::start("proftpd", "user", &[words, &MODULE].concat())?;
    let mounting = server.mounting().option(option);
    let mount = mounting.option("cache_size=0,dir_cache=0").start()?;
    Some(Stage { mount, server })
}

fn text(len: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|n| format!("line {n} of a text for packing\n").into_bytes());
    lines.take(len).collect()
}

fn packing(stage: &Stage) -> String {
    let status = stage.mount.ferryfs(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    status[0]["packing"].as_str().unwrap().to_owned()
}

#[test]
fn contents_and_listings_go_packed() {
    for words in [&[][..], &["tls"]] {
        let Some(stage) = stage(words, "compress=on") else {
            return;
        };
        let content = text(8_000_000);
        fs::write(stage.path("new"), &content).unwrap();
        assert!(fs::read(stage.there("new")).unwrap() == content);
        assert!(fs::read(stage.path("new")).unwrap() == content);
        let file = fs::File::open(stage.path("new")).unwrap();
        let mut part = vec![0; 5_000];
        for at in [6_000_000, 17, 3_000_003] {
            file.read_exact_at(&mut part, at).unwrap();
            let at = usize::try_from(at).unwrap();
            assert!(part == content[at..at + 5_000], "at {at}");
        }
        drop(file);
        fs::create_dir(stage.path("dir")).unwrap();
        for n in 0..300 {
            stage.put(&format!("dir/file {n}"), "x");
        }
        assert_eq!(fs::read_dir(stage.path("dir")).unwrap().count(), 300);
        stage.server.give_all_to_the_user();
        let script = "echo more >>new; : >empty; cat empty; cp new dir/copy; cmp new dir/copy";
        stage.mount.sh(script);
        assert_eq!(fs::metadata(stage.there("new")).unwrap().len(), 8_000_005);
        stage
            .mount
            .sh("for n in 1 2 3 4 5 6 7 8 9; do echo $n >dir/small$n; done; cat dir/small*");
        // Its module does not unpack right what compresses well, and is found out.
        assert_eq!(packing(&stage), "on, not for uploads");
        stage.mount.finish();
    }
}

#[test]
fn nothing_is_packed_over_tls_unless_it_is_asked_for() {
    let Some(stage) = stage(&["tls"], "compress=auto") else {
        return;
    };
    assert_eq!(packing(&stage), "not over TLS");
    stage.mount.finish();
}
