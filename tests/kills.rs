//! `kill -9` of ferryfs at random instants while programs write, with `-o writeback` and without:
//! after the next mount and a flush nothing acknowledged is lost, and no name shows half a content.
//!
//! `FERRYFS_KILLS` is how often it is killed (24), `FERRYFS_SEED` where the random numbers begin.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::mount::TestMount;
use crate::support::real::RealServer;

/// xorshift64*: good enough to choose instants.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A program that writes: a shell script that begins with `$mnt`, `$src` and `$ack`, and adds a line
/// to `$ack` for each thing that it was told is done. It ends at the first failure.
struct Program {
    name: &'static str,
    script: &'static str,
    /// Looks at a mount that has what the killed one left, flushed; with the lines acknowledged.
    check: fn(&TestMount, &Path, &[String]),
    /// Looks at the server's disk.
    there: fn(&Path, &Path, &[String]),
}

fn nothing(_: &TestMount, _: &Path, _: &[String]) {}

/// Kills a mount under `program` for its share of the kills.
fn play(program: &Program) {
    let kills = number("FERRYFS_KILLS", 24).div_ceil(4);
    let seed = number("FERRYFS_SEED", 20_261_127);
    let mut random = Random(seed ^ program.name.len() as u64 ^ 0x9e37_79b9_7f4a_7c15);
    let (mut done, mut restored, mut began) = (0, 0, Instant::now());
    for round in 0..kills {
        let Some(server) = RealServer::start("vsftpd", "user", &[]) else {
            return;
        };
        let writeback = round % 2 == 0;
        let mut mounting = server.mounting().option("timeout=10s");
        if writeback {
            mounting = mounting.option("writeback");
        }
        let Some(mount) = mounting.start() else {
            return;
        };
        let after = Duration::from_millis(30 + random.below(1_200));
        let label = format!(
            "{} {round} (seed {seed}), writeback {writeback}, {after:?}",
            program.name
        );
        let (src, ack) = (mount.local("src"), mount.local("ack"));
        furnish(&src, &mut random);
        fs::write(&ack, "").unwrap();
        let mut child = Command::new("timeout")
            .args(["-k", "1", "60", "sh", "-uc", program.script])
            .env("mnt", mount.root())
            .env("src", &src)
            .env("ack", &ack)
            .env("HOME", mount.local("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(after);
        let pid = Pid::from_raw(i32::try_from(mount.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        // Before the dead mount is taken away: what lies under it is no server.
        child.wait().unwrap();
        let ack: Vec<String> = fs::read_to_string(&ack)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        let mut mount = mount.kill().remount();
        mount.expect_log("kept as");
        let status = String::from_utf8(mount.ferryfs(&["status"]).stdout).unwrap();
        restored += u64::from(status.contains("writeback"));
        let flushed = mount.ferryfs(&["flush", mount.root().to_str().unwrap()]);
        assert!(
            flushed.status.success(),
            "{label}: {flushed:?}\n{}",
            mount.log()
        );
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (program.check)(&mount, &src, &ack);
            (program.there)(&server.path(""), &src, &ack);
        }));
        if shown.is_err() {
            panic!("{label}: {} acknowledged\n{}", ack.len(), mount.log());
        }
        let conflicts = fs::read_dir(server.path("")).unwrap().flatten();
        let conflicts =
            conflicts.filter(|e| e.file_name().to_string_lossy().contains(".conflict-"));
        assert_eq!(conflicts.count(), 0, "{label}: nobody else wrote");
        mount.finish();
        done += 1;
        if began.elapsed() > Duration::from_secs(20) {
            began = Instant::now();
            eprintln!("{}: {done} of {kills} kills", program.name);
        }
    }
    eprintln!(
        "{}: {done} kills, {restored} left something to go on with",
        program.name
    );
}

/// 40 directories of three files each.
fn furnish(src: &Path, random: &mut Random) {
    for dir in 0..40 {
        let dir = src.join(format!("d{dir:02}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..3 {
            let len = match random.below(12) {
                0 => 0,
                1 => 1_500_000 + random.below(500_000),
                2..6 => random.below(120_000),
                _ => random.below(5_000),
            };
            let content: Vec<u8> = (0..len.div_ceil(8))
                .flat_map(|_| (random.below(u64::MAX) << 20 ^ random.0).to_le_bytes())
                .take(usize::try_from(len).unwrap())
                .collect();
            fs::write(dir.join(format!("f{file}")), content).unwrap();
        }
    }
}

/// Every file under its final name is whole, and what was acknowledged is there.
fn whole_trees(there: &Path, src: &Path, ack: &[String]) {
    let mut seen = BTreeSet::new();
    for dir in fs::read_dir(there).unwrap().flatten() {
        let name = dir.file_name().into_string().unwrap();
        if name.starts_with('.') || !dir.file_type().unwrap().is_dir() {
            continue;
        }
        let mut files = 0;
        for file in fs::read_dir(dir.path()).unwrap().flatten() {
            let of = file.file_name().into_string().unwrap();
            // Temporary names: ours, and those of rsync.
            if of.starts_with('.') {
                continue;
            }
            let expected = fs::read(src.join(&name).join(&of)).unwrap();
            let found = fs::read(file.path()).unwrap();
            let (have, want) = (found.len(), expected.len());
            assert!(
                found == expected,
                "{name}/{of}: {have} bytes, and should have {want}"
            );
            files += 1;
        }
        if files == 3 {
            seen.insert(name);
        }
    }
    for name in ack {
        assert!(seen.contains(name), "{name} was acknowledged");
    }
}

#[test]
fn while_cp_copies() {
    play(&Program {
        name: "cp -r",
        script: r#"for d in "$src"/*; do cp -r "$d" "$mnt/" || exit 1; echo "${d##*/}" >>"$ack"; done"#,
        check: nothing,
        there: whole_trees,
    });
}

#[test]
fn while_rsync_copies() {
    play(&Program {
        name: "rsync -a",
        script: r#"for d in "$src"/*; do rsync -a "$d" "$mnt/" || exit 1
            echo "${d##*/}" >>"$ack"; done"#,
        check: nothing,
        there: whole_trees,
    });
}

#[test]
fn while_git_commits() {
    play(&Program {
        name: "git commit",
        script: r#"cd "$mnt" && git init -q repo && cd repo || exit 1
            git config user.name t && git config user.email t@t && git config gc.auto 0 || exit 1
            for d in "$src"/*; do cp -r "$d" . && git add . && git commit -qm "${d##*/}" || exit 1
            echo "${d##*/}" >>"$ack"; done"#,
        check: |mount, _, ack| {
            if ack.is_empty() {
                return;
            }
            let log = mount.sh(
                "cd repo; git fsck --strict --no-dangling >fsck.out 2>&1 || { cat fsck.out; exit 1; }
                 git log --format=%s",
            );
            for name in ack {
                assert!(log.lines().any(|line| line == name), "{name}: {log}");
            }
        },
        there: |_, _, _| {},
    });
}

#[test]
fn while_sqlite_writes() {
    play(&Program {
        name: "sqlite3",
        script: r#"db="$mnt/db"
            sqlite3 "$db" 'create table t(n integer, b blob)' || exit 1
            for n in $(seq 1 400); do
            sqlite3 "$db" "insert into t values($n, randomblob(20000))" || exit 1
            echo "$n" >>"$ack"; done"#,
        check: |mount, _, ack| {
            if ack.is_empty() {
                return;
            }
            let found = mount.sh("sqlite3 db 'pragma integrity_check; select n from t'");
            assert!(found.starts_with("ok\n"), "{found}");
            for n in ack {
                assert!(found.lines().any(|line| line == n), "row {n}: {found}");
            }
        },
        there: |_, _, _| {},
    });
}
