//! Mixed work for a while: what the daemon uses at the end is what it used near the beginning.
//!
//! `scripts/soak MINUTES` lets it take longer than the test suite does.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::mount::TestMount;
use crate::support::real::RealServer;

/// How long it takes in the test suite.
const SHORT: Duration = Duration::from_secs(45);

/// Moments at which the daemon is looked at, the first third of them left out as warming up.
const LOOKS: u32 = 30;

/// What the daemon uses.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Resident memory that is its own, in KiB.
    memory: u64,
    descriptors: u64,
    threads: u64,
    connections: u64,
}

impl Use {
    fn of(pid: u32, port: &str) -> Self {
        let proc = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            memory: number("RssAnon:"),
            descriptors: fs::read_dir(proc.join("fd")).unwrap().count() as u64,
            threads: number("Threads:"),
            connections: established_to(port.parse().unwrap()),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            connections: self.connections.max(other.connections),
        }
    }
}

/// Control connections to the server: state 01 in the kernel's table, remote port.
fn established_to(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let of_it = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|to| to.ends_with(&remote)) && columns.next() == Some("01")
    };
    table.lines().filter(of_it).count() as u64
}

/// What one worker does over and over, in a directory of its own.
fn work(mount: &TestMount, who: usize, round: u64) {
    let dir = format!("work{who}");
    let script = match round % 6 {
        0 => format!("rm -rf {dir}; mkdir -p {dir}/a/b && cp -r /etc/apt /etc/ssl {dir}/a 2>/dev/null || :; ls -lR {dir} >/dev/null"),
        1 => format!("mkdir -p {dir}; for n in 1 2 3 4 5 6 7 8; do seq 500 >{dir}/f$n; done; cat {dir}/f* | wc -l | grep -qx 4000"),
        2 => format!("mkdir -p {dir}; head -c 3000000 /dev/zero >{dir}/big; cp {dir}/big {dir}/copy; cmp {dir}/big {dir}/copy; rm {dir}/big {dir}/copy"),
        3 => format!("mkdir -p {dir}; echo x >{dir}/log; for n in 1 2 3 4 5; do echo $n >>{dir}/log; done; mv {dir}/log {dir}/moved; test $(wc -l <{dir}/moved) = 6"),
        4 => "find there >/dev/null; head -c 70000 there/big | wc -c | grep -qx 70000; tail -c 10 there/big | wc -c | grep -qx 10".to_owned(),
        _ => format!("mkdir -p {dir}/t; tar -C /etc -cf {dir}/t.tar apt && tar -xf {dir}/t.tar -C {dir}/t; rm -rf {dir}/t; cat {dir}/nosuch 2>/dev/null || :"),
    };
    mount.sh(&script);
}

fn soak(name: &'static str, whole: Duration) {
    let Some(server) = RealServer::start(name, "user", &[]) else {
        return;
    };
    fs::create_dir(server.path("there")).unwrap();
    fs::write(server.path("there/big"), vec![7; 20_000_000]).unwrap();
    server.give_all_to_the_user();
    let mounting = server.mounting().option("cache_size=16M").expect_log("");
    let patience = whole + Duration::from_secs(120);
    let Some(mount) = mounting.patience(patience).start() else {
        return;
    };
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let looks = thread::scope(|scope| {
        for who in 0..3 {
            let (mount, over, done) = (&mount, &over, &done);
            scope.spawn(move || {
                let mut round = who as u64;
                while !over.load(SeqCst) {
                    work(mount, who, round);
                    round += 1;
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        // Now and then a session dies, as they do in an hour.
        scope.spawn(|| {
            let start = Instant::now();
            let mut next = whole / 12;
            while !over.load(SeqCst) {
                if start.elapsed() > next {
                    server.kill_sessions();
                    next += whole / 12;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let looks: Vec<Use> = (0..LOOKS)
            .map(|_| {
                thread::sleep(whole / LOOKS);
                Use::of(mount.pid(), server.fact("port"))
            })
            .collect();
        over.store(true, SeqCst);
        looks
    });
    let most = |looks: &[Use]| looks.iter().copied().fold(Use::default(), Use::most);
    let third = looks.len() / 3;
    let (early, late) = (most(&looks[third..2 * third]), most(&looks[2 * third..]));
    println!(
        "{name}: {} rounds of work in {whole:?}; most in the second third {early:?}, in the last {late:?}",
        done.into_inner()
    );
    assert!(
        late.memory < early.memory + early.memory / 4 + 4_000,
        "memory grows: {looks:?}"
    );
    assert!(
        late.descriptors <= early.descriptors + 16,
        "descriptors grow: {looks:?}"
    );
    assert!(late.threads <= early.threads + 8, "threads grow: {looks:?}");
    assert!(
        late.connections <= early.connections.max(8),
        "connections grow: {looks:?}"
    );
    mount.finish();
}

#[test]
fn what_is_used_does_not_grow() {
    let minutes = std::env::var("FERRYFS_SOAK_MINUTES").ok();
    let whole = minutes.map_or(SHORT, |text| {
        Duration::from_secs_f64(text.parse::<f64>().unwrap() * 60.0)
    });
    soak("vsftpd", whole);
}
