//! Ctrl-C and `kill -9` reach whoever waits for a silent server, whatever it waits for.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::bytes;
use crate::support::ftpd::Ftpd;
use crate::support::mount::Mounting;

/// Who waits for a silent server in `command` ends when it is told to.
fn can_be_killed(stalled: &str, command: &str) {
    let server = Ftpd::start();
    server.put("dir/file", bytes(100));
    server.put("dir/second", bytes(200_000));
    server.put("other/file", "");
    fs::create_dir(server.path("empty")).unwrap();
    let mounting = Mounting::of(server.url("")).option("timeout=20s");
    // What was interrupted goes on without its caller, and is told of when it fails.
    let Some(mount) = mounting.expect_log("").start() else {
        return;
    };
    fs::metadata(mount.path("dir/file")).unwrap();
    fs::metadata(mount.path("empty")).unwrap();
    server.change(|quirks| *quirks = quirks.clone().stall(stalled));
    for signal in [Signal::INT, Signal::KILL] {
        let mut waiting = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .current_dir(mount.root())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(500));
        assert!(
            waiting.try_wait().unwrap().is_none(),
            "{command} did not wait"
        );
        // Not with kill(1): starting a program can take seconds here, while others are tested.
        let before = Instant::now();
        kill_process(Pid::from_child(&waiting), signal).unwrap();
        waiting.wait().unwrap();
        let took = before.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "{command}: kill with {signal:?} took {took:?}"
        );
    }
    server.change(|quirks| quirks.stalls.clear());
    mount.finish();
}

/// Work for a caller who was killed does not keep the mount from its end, on whatever thread it is
/// done: at once after a server was quick it is done by one that the session's end waits for.
#[test]
fn an_unmount_waits_for_no_work_of_those_who_were_killed() {
    let server = Ftpd::start();
    let mounting = Mounting::of(server.url("")).option("timeout=60s");
    let Some(mount) = mounting.expect_log("").start() else {
        return;
    };
    for _ in 0..20 {
        fs::create_dir(mount.path("quick")).unwrap();
        fs::remove_dir(mount.path("quick")).unwrap();
    }
    server.change(|quirks| *quirks = quirks.clone().stall("MKD"));
    let mut waiting = Command::new("mkdir")
        .arg(mount.path("new"))
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&waiting), Signal::KILL).unwrap();
    waiting.wait().unwrap();
    let before = Instant::now();
    let unmounted = Command::new("umount").arg(mount.root()).status().unwrap();
    assert!(unmounted.success());
    mount.wait_for_its_end();
    let took = before.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// What an open would have cut is not cut when nobody gets the file.
#[test]
fn an_open_that_was_interrupted_leaves_the_old_version() {
    let server = Ftpd::start();
    server.put("file", "old");
    let mounting = Mounting::of(server.url("")).expect_log("");
    let Some(mount) = mounting.start() else {
        return;
    };
    fs::metadata(mount.path("file")).unwrap();
    let slow = Duration::from_secs(2);
    server.change(|quirks| *quirks = quirks.clone().delay("STOR", slow));
    for (name, read) in [("file", false), ("new", false), ("file", true)] {
        // Who has it open already must not be left with an empty file either.
        let reader = read.then(|| fs::File::open(mount.path(name)).unwrap());
        let mut waiting = Command::new("sh")
            .args(["-c", &format!("exec >{name}; sleep 9")])
            .current_dir(mount.root())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(500));
        kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
        waiting.wait().unwrap();
        thread::sleep(slow);
        mount.ferryfs(&["flush", mount.root().to_str().unwrap()]);
        assert_eq!(super::names_there(&server), ["file"]);
        assert_eq!(server.get("file"), b"old", "{name}");
        drop(reader);
        assert_eq!(fs::read(mount.path("file")).unwrap(), b"old", "{name}");
    }
    mount.finish();
}

macro_rules! cases {
    ($($name:ident $stalled:literal $command:literal)*) => {
        $(
            #[test]
            fn $name() {
                can_be_killed($stalled, $command);
            }
        )*
    };
}

cases! {
    who_waits_for_a_read "RETR" "cat dir/second"
    who_waits_for_a_listing "MLSD" "ls other"
    who_waits_for_mkdir "MKD" "mkdir new"
    who_waits_for_rmdir "RMD" "rmdir empty"
    who_waits_for_a_removal "DELE" "rm dir/file"
    who_waits_for_a_rename "RNTO" "mv dir/file dir/moved"
    who_waits_for_a_mode "SITE" "chmod 600 dir/file"
    who_waits_for_a_time "MFMT" "touch -d 2020-01-01 dir/file"
    who_waits_for_a_close "STOR" "cp /etc/passwd new"
    who_waits_for_fsync "STOR" "dd if=/dev/zero of=new bs=1k count=1 conv=fsync"
    who_waits_for_the_end_of_an_upload "RNFR" "cp /etc/passwd dir/file"
}
