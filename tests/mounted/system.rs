//! As the system starts it: mount(8), fstab, systemd, shells and scripts.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{Place, can_mount};

const BINARY: &str = env!("CARGO_BIN_EXE_ferryfs");

/// In a mount namespace where /usr/sbin has mount.ferryfs.
#[test]
fn mount_8_and_a_line_in_fstab() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    server.put("file", "content");
    let (helpers, fstab) = (place.path("sbin"), place.path("fstab"));
    fs::create_dir(&helpers).unwrap();
    std::os::unix::fs::symlink(BINARY, helpers.join("mount.ferryfs")).unwrap();
    std::os::unix::fs::symlink(BINARY, helpers.join("mount.fuse.ferryfs")).unwrap();
    let (url, dir) = (server.url(""), place.mountpoint());
    let line = format!(
        "{url} {} ferryfs noauto,_netdev,timeout=5s 0 0\n",
        dir.display()
    );
    fs::write(&fstab, line).unwrap();
    let script = "set -e
        ln -s \"$0\" \"$1/../umount.fuse.ferryfs\"
        printf '#!/bin/sh\\ntouch %s\\nexec %s \"$@\"\\n' \"$1/../asked\" \"$1/../umount.fuse.ferryfs\" \\
            >\"$1/umount.fuse.ferryfs\"
        chmod 755 \"$1/umount.fuse.ferryfs\"
        mount -t overlay over -o \"lowerdir=$1:$(realpath /sbin)\" \"$(realpath /sbin)\"
        for how in '-t ferryfs' '-t fuse.ferryfs'; do
            mount $how -o rw,_netdev,timeout=5s \"$2\" \"$3\"
            cat \"$3/file\"; umount -i \"$3\"
        done
        test ! -e \"$1/../asked\"
        mount -T \"$4\" \"$3\"
        cat \"$3/file\"; echo new >\"$3/new\"; umount \"$3\"";
    let output = place
        .command_of("timeout".as_ref())
        .args(["30", "unshare", "--mount", "sh", "-c", script, BINARY])
        .args([&helpers, &url.into(), &dir, &fstab])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"contentcontentcontent", "{said}");
    assert!(output.status.success(), "{said}");
    // The last umount(8) had its helper, which waits for the server.
    assert!(place.path("asked").exists());
    assert_eq!(server.get("new"), b"new\n");
}

/// The first address of a host is dead: refused at once, or silent. In a mount namespace with an
/// /etc/hosts of its own.
#[test]
fn a_host_with_a_dead_address_is_reached_at_the_next() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let quirks = Quirks {
        login: Some(("lab".into(), "secret".into())),
        ..Quirks::default()
    };
    // The resolver puts 127.0.0.1, our own address, in front of the others.
    let server = Ftpd::on(IpAddr::from([127, 0, 0, 2]), quirks);
    server.put("file", "content");
    let port = server.address().port();
    for silent in [false, true] {
        let place = Place::new();
        let _dead = silent.then(|| silent_listener(port));
        let (hosts, password) = (place.path("hosts"), place.path("password"));
        fs::write(&hosts, "127.0.0.1 twins.test\n127.0.0.2 twins.test\n").unwrap();
        fs::write(&password, "secret").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let script = "set -e
            umount -i --lazy --all --types fuse,fuse.ferryfs 2>/dev/null || :
            mount --bind \"$1\" /etc/hosts
            test \"$(getent ahostsv4 twins.test | head -n1 | cut -d' ' -f1)\" = 127.0.0.1
            \"$2\" \"$3\" \"$4\" -o \"timeout=4s,password_file=$5\"
            cat \"$4/file\"; echo new >\"$4/new\"; \"$2\" umount \"$4\"";
        let output = place
            .command_of("timeout".as_ref())
            .args(["30", "unshare", "--mount", "sh", "-c", script, "sh"])
            .arg(&hosts)
            .args([BINARY, &format!("ftp://lab@twins.test:{port}/")])
            .args([&place.mountpoint(), &password])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "silent {silent}: {said}");
        assert_eq!(output.stdout, b"content", "silent {silent}: {said}");
        assert_eq!(server.get("new"), b"new\n");
    }
}

/// Somebody at 127.0.0.1 who never takes a connection: the few that may wait are there already.
fn silent_listener(port: u16) -> (socket2::Socket, Vec<TcpStream>) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let waiting =
        (0..8).map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok());
    let waiting: Vec<_> = waiting.collect();
    assert!(waiting.len() < 8, "it takes all of them");
    (socket, waiting)
}

#[test]
fn systemd_is_told_when_the_mount_is_ready_and_when_it_ends() {
    if !can_mount() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut child = place
        .command()
        .args(["-f", &server.url("")])
        .arg(place.mountpoint())
        .env("NOTIFY_SOCKET", place.path("notify"))
        .spawn()
        .unwrap();
    let wait_for = |word: &str| {
        let mut buf = [0; 1000];
        loop {
            let len = socket.recv(&mut buf).unwrap();
            if String::from_utf8_lossy(&buf[..len]).contains(word) {
                return;
            }
        }
    };
    wait_for("READY=1");
    assert!(place.is_mounted());
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    wait_for("STOPPING=1");
    assert!(child.wait().unwrap().success());
    assert!(!place.is_mounted());
}

/// The unit that the manual shows: systemd takes it, and its commands do what it is for.
#[test]
fn the_unit_of_the_manual_works() {
    if !can_mount() {
        return;
    }
    let quirks = Quirks {
        login: Some(("anna".into(), "secret".into())),
        ..Quirks::default()
    };
    let (server, place) = (Ftpd::with(quirks), Place::new());
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/man/ferryfs.1");
    let manual = fs::read_to_string(manual).unwrap();
    let (_, unit) = manual.split_once(".Pa site.service :\n").unwrap();
    let (_, unit) = unit.split_once('\n').unwrap();
    let (unit, _) = unit.split_once(".Ed").unwrap();
    let here = place.mountpoint().display().to_string();
    let unit = unit
        .replace("/usr/local/bin/ferryfs", BINARY)
        .replace("ftp://anna@ftp.example.org/", &server.url(""))
        .replace("/mnt/site", &here);
    let path = place.path("site.service");
    fs::write(&path, &unit).unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    if let Ok(verified) = verified {
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let ours: Vec<_> = said
            .lines()
            .filter(|line| line.contains("site.service"))
            .collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{unit}"))
            .to_owned()
    };
    assert_eq!(value("Type="), "notify");
    let credentials = place.path("credentials");
    fs::create_dir(&credentials).unwrap();
    let credential = value("LoadCredential=");
    let credential = credentials.join(credential.split(':').next().unwrap());
    fs::write(&credential, "secret").unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let run = |line: &str| {
        let mut command = place.command_of("sh".as_ref());
        command.args(["-c", &format!("exec {line}")]);
        command.env("NOTIFY_SOCKET", place.path("notify"));
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        command.stdin(Stdio::null()).spawn().unwrap()
    };
    let mut service = run(&value("ExecStart="));
    let mut buf = [0; 1000];
    while !String::from_utf8_lossy(&buf).contains("READY=1") {
        socket.recv(&mut buf).unwrap();
    }
    fs::write(place.mountpoint().join("file"), "content").unwrap();
    assert!(run(&value("ExecStop=")).wait().unwrap().success());
    assert!(service.wait().unwrap().success());
    assert_eq!(server.get("file"), b"content");
    assert!(!place.is_mounted());
}

/// A pipe that a script reads to its end must not stay open in the mount.
#[test]
fn descriptors_of_the_caller_are_not_kept() {
    if !can_mount() {
        return;
    }
    let (server, place) = (Ftpd::start(), Place::new());
    let mut script = place.command_of("sh".as_ref());
    script
        .args(["-c", "\"$@\" 9>&1 >/dev/null 2>&1", "sh", BINARY])
        .arg(server.url(""))
        .arg(place.mountpoint())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(script.output().unwrap()));
    let output = told.recv_timeout(Duration::from_secs(20));
    let mounted = place.is_mounted();
    let umount = place
        .command()
        .arg("umount")
        .arg(place.mountpoint())
        .status();
    assert!(output.is_ok_and(|output| output.status.success()) && mounted);
    assert!(umount.unwrap().success());
}

#[test]
fn shells_load_the_completions() {
    let place = Place::new();
    for (shell, check) in [
        ("bash", ". \"$0\"; complete -p ferryfs >/dev/null"),
        ("zsh", "zsh -n \"$0\""),
        ("fish", "fish --no-execute \"$0\""),
    ] {
        let script = place.command().args(["completions", shell]).output();
        let path = place.path(shell);
        fs::write(&path, script.unwrap().stdout).unwrap();
        let installed = Command::new("sh")
            .args(["-c", &format!("command -v {shell}")])
            .output();
        if shell != "bash" && !installed.unwrap().status.success() {
            continue;
        }
        let checked = Command::new("bash").args(["-c", check]).arg(&path).output();
        let checked = checked.unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(
            checked.status.success() && said.is_empty(),
            "{shell}: {said}"
        );
    }
}

#[test]
fn exit_codes_of_a_certificate_and_of_content_that_is_left() {
    if !can_mount() {
        return;
    }
    let server = Ftpd::with(Quirks {
        tls: true,
        ..Quirks::default()
    });
    let place = Place::new();
    let mut mount = place.command();
    mount.arg(server.url("")).arg(place.mountpoint());
    let untrusted = mount.args(["-o", "tls=require"]).output().unwrap();
    let said = String::from_utf8_lossy(&untrusted.stderr);
    assert_eq!(untrusted.status.code(), Some(6), "{said}");
    assert!(!place.is_mounted());

    let server = Ftpd::start();
    let mut mount = place.command();
    mount.arg(server.url("")).arg(place.mountpoint());
    assert!(mount.args(["-o", "timeout=2s"]).status().unwrap().success());
    let file = fs::File::create(place.mountpoint().join("file")).unwrap();
    std::io::Write::write_all(&mut &file, b"content").unwrap();
    server.go_down();
    let flush = |how: &str| {
        let mut command = place.command();
        command.arg(how).arg(place.mountpoint()).output().unwrap()
    };
    for how in ["flush", "umount"] {
        let left = flush(how);
        let said = String::from_utf8_lossy(&left.stderr);
        assert_eq!(left.status.code(), Some(11), "{how}: {said}");
        assert!(said.contains("file"), "{how}: {said}");
    }
    assert!(place.is_mounted());
    server.come_back();
    drop(file);
    assert_eq!(flush("umount").status.code(), Some(0));
    assert_eq!(server.get("file"), b"content");
}
