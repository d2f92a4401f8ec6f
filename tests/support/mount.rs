//! The real binary, mounted for one test.
//!
//! A mount whose daemon hangs blocks whoever touches it, beyond the reach of any signal. So every
//! mount has a watchdog, which kills the daemon in time: what waits then gets an error, and the
//! test fails instead of hanging.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a mount may live, unless [`Mounting::patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(90);

/// A mount that is wanted.
pub struct Mounting {
    url: String,
    options: Vec<String>,
    password: Option<String>,
    patience: Duration,
    expected: Vec<String>,
    descriptors: Option<u64>,
}

impl Mounting {
    /// `ferryfs -f URL DIR`.
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            options: Vec::new(),
            password: None,
            patience: PATIENCE,
            expected: Vec::new(),
            descriptors: None,
        }
    }

    /// Started by somebody who may have so many files open (`ulimit -Sn`).
    pub fn descriptors(mut self, most: u64) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Adds `-o OPTION`.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// The password, which goes into a file of mode 0600.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// When the watchdog bites, counted from the start.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Lines with these words on standard error are no failure.
    pub fn expect_log(mut self, words: impl Into<String>) -> Self {
        self.expected.push(words.into());
        self
    }

    /// Mounts, and waits until the mount answers. `None` where there is no FUSE: the test is
    /// skipped, loudly, or fails if `FERRYFS_REQUIRE_FUSE=1`.
    pub fn start(self) -> Option<TestMount> {
        can_mount().then(|| self.mount(Arc::new(Place::new())))
    }

    fn mount(self, place: Arc<Place>) -> TestMount {
        let mut options = self.options.clone();
        if let Some(password) = &self.password {
            let path = place.path("password");
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            file.write_all(password.as_bytes()).unwrap();
            options.push(format!("password_file={}", path.display()));
        }
        let debug = std::env::var_os("FERRYFS_TEST_DEBUG").is_some();
        let log = place.path("stderr");
        let mut command = place.command();
        if let Some(most) = self.descriptors {
            let program = command.get_program().to_owned();
            command = place.command_of(OsStr::new("prlimit"));
            command.arg(format!("--nofile={most}:20000")).arg(program);
        }
        command.arg(if debug { "-d" } else { "-f" });
        command.args([OsStr::new(&self.url), place.mountpoint().as_os_str()]);
        if !options.is_empty() {
            command.args(["-o", &options.join(",")]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(place.path("stdout")).unwrap())
            .stderr(
                File::options()
                    .append(true)
                    .create(true)
                    .open(&log)
                    .unwrap(),
            )
            .spawn()
            .expect("ferryfs can be started");
        let watchdog = Watchdog::start(&child, self.patience);
        let mut mount = TestMount {
            child,
            place,
            watchdog,
            debug,
            mounting: self,
            ended: false,
        };
        mount.wait_until_it_answers();
        mount
    }
}

/// Whether FUSE filesystems can be mounted here.
pub fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    let why = if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else if !root
        && File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .is_err()
    {
        "/dev/fuse cannot be opened"
    } else {
        return true;
    };
    skip(why);
    false
}

/// Says that this test does not run and why; fails where everything must run.
pub fn skip(why: &str) {
    let required = std::env::var("FERRYFS_REQUIRE_FUSE").is_ok_and(|value| value == "1");
    assert!(!required, "cannot run: {why}");
    let test = thread::current().name().unwrap_or("?").to_owned();
    // Not by eprintln!, whose output the test runner keeps to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Where everything of one mount lies: mountpoint, state, cache, configuration, log.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// A fresh one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ferryfs-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the mount is to be.
    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// The binary, with nothing of the user's own in reach.
    pub fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_ferryfs").as_ref())
    }

    /// Another program in the same surroundings.
    pub fn command_of(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        command
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("CREDENTIALS_DIRECTORY");
    }

    /// Whether the kernel has a FUSE mount here; asks a table and not the mount.
    pub fn is_mounted(&self) -> bool {
        let here = format!(" {} ", self.mountpoint().display());
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table
            .lines()
            .any(|line| line.contains(&here) && line.contains(" - fuse"))
    }

    /// Whatever still is mounted goes away, so that nothing blocks who cleans up.
    fn detach(&self) {
        for _ in 0..10 {
            if !self.is_mounted() {
                return;
            }
            let _ = Command::new("fusermount3")
                .arg("-uz")
                .arg(self.mountpoint())
                .output();
            if self.is_mounted() {
                let _ = Command::new("umount")
                    .arg("-l")
                    .arg(self.mountpoint())
                    .output();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A mount. When it is dropped it is unmounted, and the test fails if the daemon did not end well
/// or had something to complain of.
pub struct TestMount {
    child: Child,
    place: Arc<Place>,
    watchdog: Watchdog,
    debug: bool,
    mounting: Mounting,
    ended: bool,
}

impl TestMount {
    /// The mountpoint.
    pub fn root(&self) -> PathBuf {
        self.place.mountpoint()
    }

    /// A path in the mount.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root().join(below)
    }

    /// A path in the mount whose bytes need not be UTF-8.
    pub fn raw_path(&self, below: &[u8]) -> PathBuf {
        self.path(OsStr::from_bytes(below))
    }

    /// A path beside the mount, on the local disk.
    pub fn local(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the daemon wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path("stderr")).unwrap()
    }

    /// Lines with these words on standard error are no failure from now on.
    pub fn expect_log(&mut self, words: &str) {
        self.mounting.expected.push(words.into());
    }

    /// `work` on the mount, which must end within `limit`.
    pub fn within<R>(&self, limit: Duration, work: impl FnOnce() -> R) -> R {
        let before = self.watchdog.set(Instant::now() + limit);
        let result = work();
        // The work may have taken longer than there was time for all the rest.
        self.watchdog.set(before.max(Instant::now() + PATIENCE / 3));
        assert!(!self.watchdog.has_bitten(), "took longer than {limit:?}");
        result
    }

    /// Runs a shell script in the root of the mount, which must succeed, and returns what it
    /// printed. It has a private HOME.
    pub fn sh(&self, script: &str) -> String {
        let (status, printed) = self.try_sh(script);
        assert!(
            status.success(),
            "{script}\n{status}\n{printed}\n{}",
            self.log()
        );
        printed
    }

    /// As [`sh`](Self::sh), and it may fail; standard error is among what it printed.
    pub fn try_sh(&self, script: &str) -> (ExitStatus, String) {
        let mut command = Command::new("timeout");
        self.place.environment(&mut command);
        let seconds = self.watchdog.left().as_secs().max(1).to_string();
        let output = command
            .args(["-k", "1", &seconds, "sh", "-euc"])
            .arg(format!("exec 2>&1\n{script}"))
            .current_dir(self.root())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status, printed)
    }

    /// The binary, with this mount's directories.
    pub fn command(&self) -> Command {
        self.place.command()
    }

    /// Runs `ferryfs ARGS` with this mount's directories, for `status`, `flush` and the like.
    pub fn ferryfs(&self, args: &[&str]) -> Output {
        self.place
            .command()
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Kills the daemon as `kill -9` does, and removes what is left of the mount.
    pub fn kill(mut self) -> Killed {
        self.ended = true;
        self.watchdog.stop();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.place.detach();
        Killed {
            place: Arc::clone(&self.place),
            url: self.mounting.url.clone(),
            options: self.mounting.options.clone(),
            password: self.mounting.password.clone(),
        }
    }

    /// Waits, in bounds, for a daemon that was told to end: how it did, and whether the mount is
    /// still there.
    pub fn wait_for_its_end(mut self) -> (Option<ExitStatus>, bool) {
        let status = wait_for(&mut self.child, Duration::from_secs(20));
        self.ended = status.is_some();
        self.watchdog.stop();
        (status, self.place.is_mounted())
    }

    /// Unmounts now, with all checks.
    pub fn finish(mut self) {
        self.end();
    }

    /// As [`finish`](Self::finish), for looking at what the mount left on the local disk.
    pub fn finish_leaving(mut self) -> Arc<Place> {
        self.end();
        Arc::clone(&self.place)
    }

    fn wait_until_it_answers(&mut self) {
        while !self.place.is_mounted() {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = true;
                self.watchdog.stop();
                panic!(
                    "ferryfs ended before the mount was there: {status}\n{}",
                    self.log()
                );
            }
            assert!(
                !self.watchdog.has_bitten(),
                "not mounted in time\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(2));
        }
        fs::metadata(self.root()).unwrap_or_else(|err| panic!("the root: {err}\n{}", self.log()));
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let limit = Duration::from_secs(30);
        self.watchdog.set(Instant::now() + limit + limit);
        let unmounted = self.unmount();
        let status = wait_for(&mut self.child, limit);
        let bitten = self.watchdog.stop();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let left = self.place.is_mounted();
        self.place.detach();
        let complaints: Vec<String> = self
            .log()
            .lines()
            .filter(|line| self.is_complaint(line))
            .map(str::to_owned)
            .collect();
        if thread::panicking() {
            eprintln!("ferryfs said:\n{}", tail(&self.log()));
            return;
        }
        let words = String::from_utf8_lossy(&unmounted.stderr).into_owned();
        assert!(
            !bitten,
            "the mount hung and was killed\n{}",
            tail(&self.log())
        );
        assert!(
            unmounted.status.success(),
            "umount: {words}\n{}",
            tail(&self.log())
        );
        assert!(!left, "still mounted after umount");
        match status {
            Some(status) => assert!(status.success(), "ferryfs: {status}\n{}", tail(&self.log())),
            None => panic!("ferryfs did not end after umount\n{}", tail(&self.log())),
        }
        assert!(
            complaints.is_empty(),
            "ferryfs complained:\n{}",
            complaints.join("\n")
        );
    }

    /// `ferryfs umount`. A program that another test starts at this moment has our open files until
    /// it runs, so a mount may be busy though nobody uses it any more.
    fn unmount(&self) -> Output {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut command = self.place.command();
            command.arg("umount").arg(self.root()).stdin(Stdio::null());
            let output = command.output().unwrap();
            let busy = String::from_utf8_lossy(&output.stderr).contains("busy");
            if !busy || Instant::now() > deadline {
                return output;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Without `-d` the daemon speaks only when something is wrong.
    fn is_complaint(&self, line: &str) -> bool {
        let wrong = [" WARN ", " ERROR ", "panicked"];
        (!self.debug || wrong.iter().any(|word| line.contains(word)))
            && !self
                .mounting
                .expected
                .iter()
                .any(|words| line.contains(words.as_str()))
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is left of a mount whose daemon was killed.
pub struct Killed {
    place: Arc<Place>,
    url: String,
    options: Vec<String>,
    password: Option<String>,
}

impl Killed {
    /// Adds `-o OPTION` for the next mount.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// A path beside the mount, on the local disk.
    pub fn local(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// Runs `ferryfs ARGS` with this mount's directories.
    pub fn ferryfs(&self, args: &[&str]) -> Output {
        let mut command = self.place.command();
        command.args(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Mounts again with the same state, cache and options.
    pub fn remount(self) -> TestMount {
        let mut mounting = Mounting::of(self.url);
        mounting.options = self.options;
        mounting.password = self.password;
        mounting.mount(self.place)
    }
}

fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}

/// Kills the daemon when it is time.
struct Watchdog {
    shared: Arc<(Mutex<Option<Instant>>, Condvar)>,
    bitten: Arc<AtomicBool>,
}

impl Watchdog {
    fn start(child: &Child, patience: Duration) -> Self {
        let deadline = Instant::now() + patience;
        let watchdog = Self {
            shared: Arc::new((Mutex::new(Some(deadline)), Condvar::new())),
            bitten: Arc::default(),
        };
        let pid = Pid::from_child(child);
        let (shared, bitten) = (Arc::clone(&watchdog.shared), Arc::clone(&watchdog.bitten));
        thread::spawn(move || {
            let (deadline, changed) = &*shared;
            let mut guard = deadline.lock().unwrap();
            while let Some(when) = *guard {
                let left = when.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    bitten.store(true, SeqCst);
                    let _ = kill_process(pid, Signal::KILL);
                    return;
                }
                guard = changed.wait_timeout(guard, left).unwrap().0;
            }
        });
        watchdog
    }

    /// Sets when it bites; returns when it would have.
    fn set(&self, when: Instant) -> Instant {
        let before = self.shared.0.lock().unwrap().replace(when);
        self.shared.1.notify_all();
        before.unwrap_or(when)
    }

    fn left(&self) -> Duration {
        let when = self.shared.0.lock().unwrap().unwrap_or_else(Instant::now);
        when.saturating_duration_since(Instant::now())
    }

    fn has_bitten(&self) -> bool {
        self.bitten.load(SeqCst)
    }

    /// From now on it does not bite, so that the process id may become another's. Whether it did.
    fn stop(&self) -> bool {
        *self.shared.0.lock().unwrap() = None;
        self.shared.1.notify_all();
        self.has_bitten()
    }
}
