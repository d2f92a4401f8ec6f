//! A server far away: two network namespaces with a delay between them, and a rate if it is to be.
//!
//! A [`Wire`](super::wire::Wire) delays bytes, but a connection to it is made at once, and no bytes
//! queue up in it. Here all packets take their time, so that what is learned from round trips shows.
//! The link is that of `scripts/bench`.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use super::ftpd::{Ftpd, Quirks};
use super::mount::skip;

/// Where the server is; every link has this network to itself.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// A link. It is removed when it is dropped.
pub struct Far {
    name: String,
    dir: TempDir,
}

impl Far {
    /// One with this round trip in milliseconds, which carries so many megabits a second (0: what it
    /// can). `None`, loudly, where none can be made.
    pub fn link(round_trip: u32, rate: u32) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let missing = [
            (
                !rustix::process::geteuid().is_root(),
                "only root makes network namespaces",
            ),
            (
                !Path::new("/dev/net/tun").exists(),
                "there is no /dev/net/tun",
            ),
            (
                Command::new("ip").arg("-V").output().is_err(),
                "there is no ip (iproute2)",
            ),
            (
                Command::new("cc").arg("--version").output().is_err(),
                "there is no C compiler",
            ),
        ];
        if let Some((_, why)) = missing.iter().find(|(missing, _)| *missing) {
            skip(why);
            return None;
        }
        let count = COUNT.fetch_add(1, Relaxed);
        let far = Self {
            name: format!("ft{}n{count}", std::process::id()),
            dir: tempfile::tempdir().unwrap(),
        };
        let mut up = Command::new(script());
        up.args(["up", &far.name, &round_trip.to_string(), &rate.to_string()]);
        let made = up.arg(far.dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "no link: {said}");
        Some(far)
    }

    /// A server with these quirks at its far end.
    pub fn server(&self, quirks: Quirks) -> Ftpd {
        self.within("s", || Ftpd::on(SERVER, quirks))
    }

    /// Does `work` at this end: what it starts reaches the server.
    pub fn at_client<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.within("c", work)
    }

    /// On a thread of its own, since that is what a namespace belongs to, and what inherits it.
    fn within<R: Send>(&self, side: &str, work: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/run/netns/{}-{side}", self.name)).unwrap();
        let enter = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| {
            let done = scope.spawn(enter).join();
            done.unwrap_or_else(|why| std::panic::resume_unwind(why))
        })
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let mut down = Command::new(script());
        let _ = down
            .args(["down", &self.name])
            .arg(self.dir.path())
            .output();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench.d/link")
}
