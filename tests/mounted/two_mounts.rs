//! Two mounts with one state directory.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{mounting, names_there};
use crate::support::ftpd::Ftpd;
use crate::support::mount::{Mounting, TestMount};

fn flush(mount: &TestMount) {
    let flushed = mount.ferryfs(&["flush", mount.root().to_str().unwrap()]);
    assert!(flushed.status.success(), "{flushed:?}\n{}", mount.log());
}

#[test]
fn two_mounts_with_one_state_directory_share_nothing() {
    let server = Ftpd::start();
    let state = tempfile::tempdir().unwrap();
    let wanted = || -> Mounting {
        let options = format!(
            "writeback,dir_cache=1h,upload=rename,state_dir={}",
            state.path().display()
        );
        mounting(&server)
            .option(options)
            .expect_log("not on the server")
            .expect_log("cannot connect")
            .expect_log("Connection")
            .expect_log("somebody else has changed it")
    };
    let Some(one) = wanted().start() else { return };
    let Some(two) = wanted().start() else { return };
    for mount in [&one, &two] {
        mount.sh("ls");
    }
    server.go_down();
    one.sh("echo one >one; echo from one >both");
    two.sh("echo two >two; echo from two, later >both");
    let dirs: Vec<_> = fs::read_dir(state.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(dirs.len(), 2, "{dirs:?}");
    for dir in &dirs {
        assert_eq!(fs::read_dir(dir.join("journal")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(dir.join("staging")).unwrap().count(), 2);
    }
    // One is killed and goes on, the other never stops.
    let one = one.kill();
    server.come_back();
    // One after the other: FTP cannot look and rename in one step, so of two who do that in the same
    // moment one may not see what the other has just brought.
    flush(&two);
    let mut one = one.remount();
    for words in [
        "not on the server",
        "cannot connect",
        "Connection",
        "somebody else",
    ] {
        one.expect_log(words);
    }
    flush(&one);
    assert_eq!(server.get("one"), b"one\n");
    assert_eq!(server.get("two"), b"two\n");
    let both: BTreeSet<Vec<u8>> = names_there(&server)
        .iter()
        .filter(|name| name.starts_with("both"))
        .map(|name| server.get(name))
        .collect();
    let expected = ["from one\n", "from two, later\n"];
    assert_eq!(both, expected.map(|text| text.as_bytes().to_vec()).into());
    assert!(dirs.iter().all(|dir| !dir.join("lost+found").exists()));
    one.finish();
    two.finish();
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

#[test]
fn a_second_mount_of_the_same_state_is_refused_while_the_first_is_still_uploading() {
    let server = Ftpd::start();
    let wanted = mounting(&server)
        .option("writeback,dir_cache=1h")
        .expect_log("not on the server")
        .expect_log("cannot connect")
        .expect_log("Connection");
    let Some(mount) = wanted.start() else { return };
    server.put("held", "held");
    let held = fs::File::open(mount.path("held")).unwrap();
    mount.sh("ls");
    server.go_down();
    mount.sh("echo content >waits");
    let root = mount.root();
    // It goes from sight, and stays as long as somebody has a file of it open.
    assert!(
        Command::new("umount")
            .arg("-l")
            .arg(&root)
            .status()
            .unwrap()
            .success()
    );
    let second = mount
        .command()
        .arg("-f")
        .arg(server.url(""))
        .arg(&root)
        .args(["-o", "writeback"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(10), "{said}");
    assert!(
        said.contains("is in use there already by process"),
        "{said}"
    );
    server.come_back();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.path("waits").exists() {
        assert!(Instant::now() < deadline, "{}", mount.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.get("waits"), b"content\n");
    drop(held);
    let (status, _) = mount.wait_for_its_end();
    assert!(status.is_some_and(|status| status.success()));
}
