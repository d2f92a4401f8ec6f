//! What the daemon takes while nothing happens, and at most.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{bytes, mounting};
use crate::support::ftpd::Ftpd;
use crate::support::mount::TestMount;

/// A number of /proc/PID/status, in KiB.
fn kib(mount: &TestMount, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.unwrap().trim_start_matches(':').trim();
    number.trim_end_matches(" kB").parse().unwrap()
}

/// The release binary is at 12 MiB when idle (`scripts/bench --only idle`); this one has no
/// optimisation and carries all checks.
#[test]
fn an_idle_mount_is_small_and_a_busy_one_bounded() {
    let server = Ftpd::start();
    server.put("big", bytes(40_000_000));
    for n in 0..400 {
        server.put(format!("dir{}/file{n}", n % 20), bytes(5000));
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    mount.sh(
        "cat big >/dev/null; ls -lR >/dev/null; cp -r dir1 dir2 big ../; cp ../big new; rm new",
    );
    let peak = kib(&mount, "VmHWM");
    // Streams give up their windows when they are closed; threads go when nothing was asked for a
    // while.
    thread::sleep(Duration::from_secs(3));
    let idle = kib(&mount, "VmRSS");
    println!("idle {idle} KiB, peak {peak} KiB");
    assert!(peak < 64 << 10, "peak {peak} KiB");
    assert!(idle < 28 << 10, "idle {idle} KiB");
    mount.finish();
}
