//! `-o writeback=sync` and a power cut.
//!
//! The state directory is on a filesystem of its own in a file. A copy of that file has what the
//! disk was given so far, and nothing of what the kernel still holds back: what a power cut leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{TestMount, can_mount, skip};

/// A disk that forgets, and holds back what it may for five minutes.
struct Disk {
    dir: TempDir,
    mounted: bool,
}

fn run(program: &str, args: &[&str]) -> bool {
    let ran = Command::new(program).args(args).output();
    ran.is_ok_and(|output| output.status.success())
}

impl Disk {
    /// `None` where there are no loop devices.
    fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let mut disk = Self {
            dir: tempfile::tempdir().unwrap(),
            mounted: false,
        };
        let image = disk.image("disk");
        let file = fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        fs::create_dir(disk.path()).unwrap();
        if run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]) && disk.insert("disk") {
            return Some(disk);
        }
        skip("no disk in a file can be mounted");
        None
    }

    fn image(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn insert(&mut self, name: &str) -> bool {
        let (image, at) = (self.image(name), self.path());
        let options = ["-o", "loop,commit=300"];
        let places = [image.to_str().unwrap(), at.to_str().unwrap()];
        self.mounted = run("mount", &[&options[..], &places[..]].concat());
        self.mounted
    }

    fn eject(&mut self) {
        if std::mem::take(&mut self.mounted) {
            let at = self.path();
            assert!(run("umount", &[at.to_str().unwrap()]));
        }
    }

    /// What a power cut would leave now.
    fn cut(&self, name: &str) {
        let (from, to) = (self.image("disk"), self.image(name));
        let args = [
            "--sparse=always",
            from.to_str().unwrap(),
            to.to_str().unwrap(),
        ];
        assert!(run("cp", &args));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = self.path();
        if self.mounted {
            run("umount", &["-l", at.to_str().unwrap()]);
        }
    }
}

/// A mount on `server` whose state is on `disk`.
fn mount(server: &Ftpd, disk: &Disk, writeback: &str) -> TestMount {
    let state = disk.path().join("state");
    let options = format!("{writeback},dir_cache=1h,state_dir={}", state.display());
    mounting(server)
        .option(options)
        .expect_log("not on the server")
        .expect_log("cannot connect")
        .expect_log("Connection")
        .start()
        .unwrap()
}

/// The first directory of this name below `dir`.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let found = path.is_dir() && path.file_name()? == name;
        found.then(|| path.clone()).or_else(|| find(&path, name))
    })
}

#[test]
fn what_was_closed_survives_a_power_cut() {
    let Some(mut disk) = Disk::new() else { return };
    let server = Ftpd::start();
    let put_old = |time: SystemTime| {
        let old = server.put("old", "0123456789");
        let file = fs::File::options().write(true).open(old).unwrap();
        file.set_modified(time).unwrap();
    };
    // What each cut is put back to is the version that was opened.
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    put_old(long_ago);
    let large = bytes(2_000_000);
    let mount = mount(&server, &disk, "writeback=sync");
    fs::write(mount.local("large"), &large).unwrap();
    mount.sh("ls; cat old; mkdir d");
    server.go_down();
    mount.sh("cp ../large d/large; echo small >d/small; mv d/small d/renamed; echo gone >gone");
    disk.cut("first");
    mount.sh("printf xxx | dd of=old bs=1 seek=3 conv=notrunc 2>/dev/null; rm gone");
    mount.sh("echo changed >d/renamed; rm d/large; echo behind >>old");
    disk.cut("second");
    mount.sh("(echo never closed; exec sleep 5) >open 2>/dev/null & sleep 0.3");
    disk.cut("third");
    let mut killed = mount.kill();
    for cut in ["first", "second", "third"] {
        disk.eject();
        assert!(disk.insert(cut));
        put_old(long_ago);
        for left in ["d/large", "d/renamed", "gone"] {
            let _ = fs::remove_file(server.path(left));
        }
        server.come_back();
        let mut mount = killed.remount();
        expect_outage(&mut mount);
        let flushed = mount.ferryfs(&["flush", mount.root().to_str().unwrap()]);
        assert!(flushed.status.success(), "{cut}: {flushed:?}");
        if cut == "first" {
            assert_eq!(server.get("d/large"), large);
            assert_eq!(server.get("d/renamed"), b"small\n");
            assert_eq!(server.get("gone"), b"gone\n");
            assert_eq!(server.get("old"), b"0123456789");
        } else {
            assert!(!server.path("d/large").exists(), "{cut}: removed before");
            assert!(!server.path("gone").exists(), "{cut}: removed before");
            assert_eq!(server.get("d/renamed"), b"changed\n");
            assert_eq!(server.get("old"), b"012xxx6789behind\n");
        }
        assert!(!server.path("d/small").exists());
        server.go_down();
        killed = mount.kill();
    }
    server.come_back();
    let mut mount = killed.remount();
    expect_outage(&mut mount);
    mount.finish();
    disk.eject();
}

/// That the cut cuts: without `sync` nothing makes it to the disk at once.
#[test]
fn without_sync_a_power_cut_takes_it_along() {
    let Some(mut disk) = Disk::new() else { return };
    let server = Ftpd::start();
    let mount = mount(&server, &disk, "writeback");
    mount.sh("ls");
    server.go_down();
    // Somebody may tell the kernel to write everything, now and then.
    let lost = (0..5).any(|n| {
        let name = format!("cut-{n}");
        mount.sh(&format!("echo content >{name}"));
        disk.cut(&name);
        let (at, image) = (disk.dir.path().join(format!("at-{n}")), disk.image(&name));
        fs::create_dir(&at).unwrap();
        let places = [image.to_str().unwrap(), at.to_str().unwrap()];
        assert!(run("mount", &["-o", "loop", places[0], places[1]]));
        let records = find(&at, "journal").and_then(|dir| fs::read_dir(dir).ok());
        let survived = records.is_some_and(|records| records.count() > n);
        assert!(run("umount", &[places[1]]));
        std::thread::sleep(Duration::from_millis(50));
        !survived
    });
    assert!(lost, "this disk forgets nothing");
    server.come_back();
    mount.finish();
    disk.eject();
}

/// The intent survives, so that the old version comes back even if the rename was the last thing
/// that reached the server.
#[test]
fn a_version_that_went_aside_just_before_a_power_cut_comes_back() {
    let Some(mut disk) = Disk::new() else { return };
    let server = Ftpd::with(Quirks {
        rnto_over_refused: Some("550 File exists.".into()),
        ..Quirks::default()
    });
    server.put("f", "old");
    server.put("h", "new");
    let mount = mount(&server, &disk, "writeback");
    mount.sh("cat f h");
    server.change(|quirks| quirks.stalls = vec!["RNTO /f.ferryfs-*".into()]);
    let root = mount.root();
    let mut killed = None;
    std::thread::scope(|scope| {
        let renaming = scope.spawn(move || fs::rename(root.join("h"), root.join("f")));
        let deadline = Instant::now() + Duration::from_secs(5);
        while server.count("RNTO /f.ferryfs-*") == 0 {
            assert!(Instant::now() < deadline, "nothing went aside");
            std::thread::sleep(Duration::from_millis(5));
        }
        disk.cut("cut");
        killed = Some(mount.kill());
        assert!(renaming.join().unwrap().is_err());
    });
    server.hang_up();
    server.change(|quirks| quirks.stalls.clear());
    let lines = server.commands();
    let aside = lines
        .iter()
        .find_map(|line| line.strip_prefix("RNTO /f.ferryfs-"));
    let aside = format!("f.ferryfs-{}", aside.unwrap());
    fs::rename(server.path("f"), server.path(&aside)).unwrap();
    disk.eject();
    assert!(disk.insert("cut"));
    let mount = killed.unwrap().remount();
    assert_eq!(mount.sh("ls -A; cat f h"), "f\nh\noldnew");
    mount.finish();
    disk.eject();
}

/// What the log says of a server that is away, and of files that were not closed.
fn expect_outage(mount: &mut TestMount) {
    for words in [
        "kept as",
        "not on the server",
        "cannot connect",
        "Connection",
    ] {
        mount.expect_log(words);
    }
}
