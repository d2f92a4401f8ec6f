//! The real servers, started by `scripts/servers`.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::mount::{Mounting, skip};

/// A running server with a directory of its own. It is stopped when it is dropped.
pub struct RealServer {
    name: &'static str,
    root: TempDir,
    words: Vec<String>,
    facts: HashMap<String, String>,
}

/// Starts the server by its script, which tells the facts.
fn run(name: &str, root: &Path, words: &[String], port: Option<&str>) -> HashMap<String, String> {
    let mut command = Command::new(script(name));
    command.arg("start").arg(root).args(words);
    if let Some(port) = port {
        command.env("FERRYFS_LAB_PORT", port);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    let told = String::from_utf8(output.stdout).unwrap();
    told.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

impl RealServer {
    /// Starts `name` (`vsftpd`) for `mode` (`user`, `anon`) with further words for its script.
    /// `None`, loudly, where `FERRYFS_INTEROP` does not list it: real servers are fetched from
    /// package registries, which a quick test run should not need.
    pub fn start(name: &'static str, mode: &str, words: &[&str]) -> Option<Self> {
        let wanted = std::env::var("FERRYFS_INTEROP").unwrap_or_default();
        if !wanted.split([' ', ',']).any(|word| word == name) {
            skip(&format!("FERRYFS_INTEROP does not list {name}"));
            return None;
        }
        let root = tempfile::Builder::new()
            .prefix("served-")
            .tempdir()
            .unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let words = [&[mode][..], words].concat();
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let facts = run(name, root.path(), &words, None);
        Some(Self {
            name,
            root,
            words,
            facts,
        })
    }

    /// Stops it, and starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill_sessions();
        self.stop();
        let port = self.fact("port").to_owned();
        self.facts = run(self.name, self.root.path(), &self.words, Some(&port));
    }

    /// Kills every process that serves a session; how many there were.
    pub fn kill_sessions(&self) -> usize {
        let server: i32 = self.fact("pid").parse().unwrap();
        let parents: HashMap<i32, i32> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                // Behind the name in parentheses: state, parent.
                let (_, rest) = stat.rsplit_once(") ")?;
                let (state, rest) = rest.split_once(' ')?;
                let parent = rest.split(' ').next()?.parse().ok()?;
                (state != "Z").then_some((pid, parent))
            })
            .collect();
        let is_below = |mut pid: i32| {
            while let Some(parent) = parents.get(&pid) {
                if *parent == server {
                    return true;
                }
                pid = *parent;
            }
            false
        };
        let sessions = parents.keys().filter(|pid| is_below(**pid));
        sessions
            .filter(|pid| {
                let pid = rustix::process::Pid::from_raw(**pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
            })
            .count()
    }

    fn stop(&self) {
        let _ = Command::new(script(self.name))
            .args(["stop", self.fact("pid")])
            .output();
    }

    /// Its name, `vsftpd` and so on.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What the script printed, such as `port`.
    pub fn fact(&self, key: &str) -> &str {
        &self.facts[key]
    }

    /// A path below the directory it serves.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    /// Lets the server's user own everything in it, after a test put things there.
    pub fn give_all_to_the_user(&self) {
        let root = self.root.path();
        let mut chown = Command::new("chown");
        chown.arg("-Rh").arg("--reference").args([root, root]);
        assert!(chown.status().unwrap().success());
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let user = match self.fact("user") {
            "anonymous" => String::new(),
            user => format!("{user}@"),
        };
        let (host, port) = (self.fact("host"), self.fact("port"));
        format!("ftp://{user}{host}:{port}/")
    }

    /// Its certificate, where it speaks TLS.
    pub fn cafile(&self) -> Option<&str> {
        self.facts.get("cafile").map(String::as_str)
    }

    /// A mount of it.
    pub fn mounting(&self) -> Mounting {
        let mounting = Mounting::of(self.url());
        let mounting = match self.cafile() {
            Some(path) => mounting.option(format!("cafile={path}")),
            None => mounting,
        };
        if self.fact("user") == "anonymous" {
            mounting
        } else {
            mounting.password(self.fact("password"))
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/servers")
        .join(name)
}
