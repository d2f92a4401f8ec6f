//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the size given as `mount(8)` takes it. It goes however a test ends.
pub struct SmallDisk {
    at: PathBuf,
    own: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// One in a directory of its own; `None` where nothing may be mounted.
    pub fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Self::over(dir.path(), size)?;
        disk.own = Some(dir);
        Some(disk)
    }

    /// One over the directory `at`; `None` where nothing may be mounted.
    pub fn over(at: &Path, size: &str) -> Option<Self> {
        let disk = Self {
            at: at.to_owned(),
            own: None,
        };
        let size = format!("size={size}");
        let mounted = disk.run(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs"]);
        mounted.then_some(disk)
    }

    /// One with a filesystem that keeps what it has, as disks have; `None` where there can be none.
    pub fn ext4(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&at).unwrap();
        let made = format!(
            "truncate -s {size} {0} && mkfs.ext4 -q {0} && mount -o loop {0} {1}",
            image.display(),
            at.display()
        );
        let made = Command::new("sh").args(["-c", &made]).output();
        let made = made.is_ok_and(|made| made.status.success());
        made.then_some(Self { at, own: Some(dir) })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Nobody may be using it any more.
    pub fn unmount(self) {
        assert!(self.run(&["umount"]));
    }

    fn run(&self, words: &[&str]) -> bool {
        let mut command = Command::new(words[0]);
        let status = command.args(&words[1..]).arg(&self.at).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["-q", "-l"])
            .arg(&self.at)
            .output();
    }
}
