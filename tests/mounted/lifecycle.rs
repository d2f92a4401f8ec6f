//! From the command to the mount and back: in the background, by signal, as an ordinary user.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{Place, can_mount};

/// Output of `command`, which may not take longer than 20 seconds.
fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} did not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn words(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn succeeds(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        words(output)
    );
}

#[test]
fn the_command_returns_when_the_mount_answers() {
    if !can_mount() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    server.put("dir/file", "content");
    let mountpoint = place.mountpoint();
    succeeds(&run(place
        .command()
        .arg(server.url("dir"))
        .arg(&mountpoint)));
    assert!(place.is_mounted());
    assert_eq!(fs::read(mountpoint.join("file")).unwrap(), b"content");

    let status = run(place.command().args(["status", "--json"]).arg(&mountpoint));
    succeeds(&status);
    let status = String::from_utf8(status.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(
        json.to_string().contains(mountpoint.to_str().unwrap()),
        "{json}"
    );
    let status = run(place.command().arg("status"));
    succeeds(&status);
    assert!(
        words(&status).contains(mountpoint.to_str().unwrap()),
        "{}",
        words(&status)
    );

    fs::write(mountpoint.join("new"), "new").unwrap();
    succeeds(&run(place.command().arg("flush").arg(&mountpoint)));
    assert_eq!(server.get("dir/new"), b"new");

    // A second mount there would hide the first.
    let again = run(place.command().arg(server.url("dir")).arg(&mountpoint));
    assert!(!again.status.success(), "{}", words(&again));

    succeeds(&run(place.command().arg("umount").arg(&mountpoint)));
    assert!(!place.is_mounted());
    let again = run(place.command().arg("umount").arg(&mountpoint));
    assert_eq!(again.status.code(), Some(8), "{}", words(&again));
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.sessions_open() > 0 {
        assert!(Instant::now() < deadline, "connections are left");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_mount_that_cannot_be_made_says_why_and_leaves_nothing() {
    if !can_mount() {
        return;
    }
    let server = Ftpd::with(Quirks {
        login: Some(("lab".into(), "secret".into())),
        ..Quirks::default()
    });
    server.put("file", "");
    let place = Place::new();
    let password = place.path("password");
    for (text, directory, code) in [
        ("wrong-one", "", 5),
        ("secret", "missing", 7),
        ("secret", "file", 7),
    ] {
        fs::write(&password, text).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        for mode in [None, Some("-f")] {
            let options = format!("password_file={}", password.display());
            let output = run(place
                .command()
                .args(mode)
                .arg(server.url(directory))
                .arg(place.mountpoint())
                .args(["-o", &options]));
            let said = words(&output);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{mode:?} {directory}: {said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(
                !said.contains("wrong-one") && !said.contains("secret"),
                "{said}"
            );
            assert!(!place.is_mounted());
        }
    }
    assert!(server.count("PASS wrong-one") <= 4, "logins are hammered");
}

/// The kernel keeps a mount whose process is gone; status and umount know it, the next mount too.
#[test]
fn a_dead_mount_is_shown_and_taken_away() {
    let server = Ftpd::start();
    let place = Place::new();
    if !can_mount() {
        return;
    }
    let mount = || {
        let mut command = place.command();
        run(command.arg(server.url("")).arg(place.mountpoint()))
    };
    let status = |args: &[&str]| words(&run(place.command().arg("status").args(args)));
    let here = place.mountpoint().display().to_string();
    let kill_and_go_on = || {
        let json: serde_json::Value = serde_json::from_str(&status(&["--json", &here])).unwrap();
        let pid = json[0]["pid"].to_string();
        let killed = Command::new("kill").args(["-KILL", &pid]).status();
        assert!(killed.unwrap().success());
    };
    let kill = || {
        kill_and_go_on();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !status(&[&here]).contains("dead") {
            assert!(Instant::now() < deadline, "{}", status(&[&here]));
        }
    };
    succeeds(&mount());
    kill();
    // Asking does not change the answer.
    assert!(status(&[&here]).contains("dead"), "{}", status(&[&here]));
    assert!(status(&[]).contains("dead"), "{}", status(&[]));
    succeeds(&run(place.command().args(["umount", &here])));
    assert_eq!(status(&[]), "nothing is mounted\n");
    succeeds(&mount());
    kill();
    succeeds(&mount());
    assert!(!status(&[&here]).contains("dead"));
    // Its process may still be on its way out.
    kill_and_go_on();
    succeeds(&mount());
    succeeds(&run(place.command().args(["umount", &here])));
}

#[test]
fn sigterm_and_sigint_end_it_in_order() {
    for signal in ["-TERM", "-INT"] {
        let server = Ftpd::start();
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        fs::write(mount.path("file"), bytes(100_000)).unwrap();
        let pid = mount.pid().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let (status, still_mounted) = mount.wait_for_its_end();
        assert!(
            status.is_some_and(|status| status.success()),
            "{signal}: {status:?}"
        );
        assert!(!still_mounted, "{signal}");
        assert_eq!(server.get("file"), bytes(100_000));
    }
}

#[test]
fn read_only_and_ownership_options() {
    let server = Ftpd::start();
    server.put("file", "content");
    let wanted = mounting(&server).option("ro,uid=1234,gid=2345,umask=027");
    let Some(mount) = wanted.start() else {
        return;
    };
    assert_eq!(mount.sh("stat -c '%u %g %a' file"), "1234 2345 640\n");
    let (status, said) = mount.try_sh("echo x >file");
    assert!(
        !status.success() && said.contains("Read-only file system"),
        "{said}"
    );
    let (status, said) = mount.try_sh("mkdir new");
    assert!(
        !status.success() && said.contains("Read-only file system"),
        "{said}"
    );
    mount.finish();
}

#[test]
fn mount_calls_it_as_a_helper() {
    if !can_mount() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    server.put("file", "content");
    let helper = place.path("mount.ferryfs");
    symlink(env!("CARGO_BIN_EXE_ferryfs"), &helper).unwrap();
    let mut command = place.command_of(helper.as_os_str());
    // As mount(8) calls it: SOURCE TARGET [-sfnv] [-o OPTIONS].
    command.arg(server.url("")).arg(place.mountpoint());
    command.args(["-o", "rw,_netdev,x-systemd.automount,timeout=5s"]);
    succeeds(&run(&mut command));
    assert_eq!(
        fs::read(place.mountpoint().join("file")).unwrap(),
        b"content"
    );
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(table.contains("fuse.ferryfs"), "{table}");
    succeeds(&run(place.command().arg("umount").arg(place.mountpoint())));
}

/// In a mount namespace where everybody may open /dev/fuse, as on a desktop.
#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    server.put("file", "content");
    fs::copy(env!("CARGO_BIN_EXE_ferryfs"), place.path("ferryfs")).unwrap();
    // The namespace begins with the mounts of other tests, and would keep them alive.
    let script = "
        umount -i --lazy --all --types fuse,fuse.ferryfs 2>/dev/null || :
        mount -t tmpfs none /dev/shm
        mknod -m 666 /dev/shm/fuse c 10 229
        mount --bind /dev/shm/fuse /dev/fuse
        chown -R 65534:65534 \"$1\"
        exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -euc '
            cd \"$1\"
            ./ferryfs \"$2\" mnt
            test \"$(cat mnt/file)\" = content
            echo new >mnt/new
            test \"$(stat -c %u mnt/new)\" = 65534
            ./ferryfs status mnt
            ./ferryfs umount mnt
            ! mountpoint -q mnt' sh \"$1\" \"$2\"";
    let mut command = place.command_of("unshare".as_ref());
    command.args(["--mount", "sh", "-euc", script, "sh"]);
    let dir = place.mountpoint();
    command.arg(dir.parent().unwrap()).arg(server.url(""));
    succeeds(&run(&mut command));
    assert_eq!(server.get("new"), b"new\n");
}

/// Who holds the mount may take a while to end, with all that he has open.
#[test]
fn who_was_just_killed_is_in_nobodys_way() {
    if !can_mount() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    server.put("file", bytes(20 << 20));
    let mount = || run(place.command().arg(server.url("")).arg(place.mountpoint()));
    succeeds(&mount());
    for _ in 0..6 {
        fs::read(place.mountpoint().join("file")).unwrap();
        let status = run(place.command().args(["status", "--json"]));
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let pid = status[0]["pid"].as_u64().expect("a pid");
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        succeeds(&mount());
    }
    succeeds(&run(place.command().arg("umount").arg(place.mountpoint())));
}

/// Half a second is for who has just closed a file; who stays is named.
#[test]
fn umount_waits_a_moment_for_who_is_about_to_go() {
    let server = Ftpd::start();
    server.put("file", "content");
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let root = mount.root();
    let stays = File::open(mount.path("file")).unwrap();
    let began = Instant::now();
    let refused = mount.ferryfs(&["umount", root.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(11), "{}", words(&refused));
    assert!(words(&refused).contains("in use by"), "{}", words(&refused));
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(500), "{waited:?}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(250));
            drop(stays);
        });
        succeeds(&mount.ferryfs(&["umount", root.to_str().unwrap()]));
    });
    let (status, is_mounted) = mount.wait_for_its_end();
    assert!(status.unwrap().success() && !is_mounted);
}
