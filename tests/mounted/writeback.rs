//! `-o writeback` on a real mount: outages, exit codes, what is left to the next mount.

use std::fs;
use std::time::{Duration, Instant};

use super::{bytes, mounting};
use crate::support::ftpd::Ftpd;
use crate::support::mount::TestMount;

/// Exit code of `ferryfs COMMAND` on the mount.
fn code(mount: &TestMount, command: &[&str]) -> i32 {
    let mut args = command.to_vec();
    let root = mount.root();
    args.push(root.to_str().unwrap());
    mount.ferryfs(&args).status.code().unwrap()
}

fn status(mount: &TestMount) -> String {
    let root = mount.root();
    let status = mount.ferryfs(&["status", root.to_str().unwrap()]);
    String::from_utf8(status.stdout).unwrap()
}

fn until(limit: Duration, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_outage_is_waited_for_and_told_by_status_flush_and_umount() {
    let server = Ftpd::start();
    server.put("old", "old");
    let started = mounting(&server)
        .option("writeback,dir_cache=1h")
        .expect_log("not on the server")
        .expect_log("cannot connect")
        .expect_log("Connection")
        .start();
    let Some(mount) = started else { return };
    mount.sh("ls >/dev/null; cat old");
    server.go_down();
    mount.sh("echo new >new; echo changed >old; mv new renamed");
    assert_eq!(
        mount.sh("cat renamed old; ls"),
        "new\nchanged\nold\nrenamed\n"
    );
    until(Duration::from_secs(10), "the failure is shown", || {
        let status = status(&mount);
        status.contains("dirty        2")
            && status.contains("waiting 2")
            && status.contains("refused")
    });
    assert_eq!(code(&mount, &["flush"]), 11);
    assert_eq!(code(&mount, &["umount"]), 11);
    assert_eq!(mount.sh("cat renamed"), "new\n", "still mounted");
    server.come_back();
    // By itself, within the pause that the failures so far make.
    until(Duration::from_secs(20), "uploaded", || {
        server.path("renamed").exists() && server.get("old") == b"changed\n"
    });
    assert_eq!(code(&mount, &["flush"]), 0);
    assert!(!server.path("new").exists());
    mount.finish();
}

#[test]
fn the_next_mount_goes_on_with_what_waited_in_an_outage() {
    let server = Ftpd::start();
    let big = bytes(3_000_000);
    let started = mounting(&server).option("writeback,dir_cache=1h").start();
    let Some(mount) = started else { return };
    mount.sh("ls >/dev/null; mkdir d");
    fs::write(mount.local("big"), &big).unwrap();
    server.go_down();
    mount.sh("cp ../big d/big; echo small >d/small");
    let killed = mount.kill();
    server.come_back();
    let mut mount = killed.remount();
    mount.expect_log("not on the server");
    mount.expect_log("cannot connect");
    // At once, whether or not it is there yet.
    assert_eq!(fs::read(mount.path("d/big")).unwrap(), big);
    assert_eq!(code(&mount, &["flush"]), 0);
    assert_eq!(server.get("d/big"), big);
    assert_eq!(server.get("d/small"), b"small\n");
    mount.finish();
}

#[test]
fn a_full_staging_disk_is_told_by_the_write() {
    let server = Ftpd::start();
    let small = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(small.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        crate::support::mount::skip("no tmpfs can be mounted");
        return;
    }
    let options = format!("writeback,state_dir={}", small.path().display());
    if let Some(mount) = mounting(&server)
        .option(options)
        .expect_log("No space left")
        .start()
    {
        let (status, said) = mount.try_sh("head -c 4000000 /dev/zero >f");
        assert!(
            !status.success() && said.contains("No space left"),
            "{said}"
        );
        mount.sh("rm -f f; echo fits >g");
        assert_eq!(code(&mount, &["flush"]), 0);
        assert_eq!(server.get("g"), b"fits\n");
        mount.finish();
    }
    let unmounted = std::process::Command::new("umount")
        .arg(small.path())
        .status();
    assert!(unmounted.unwrap().success());
}
