//! `kill -9` of the mount at any instant while programs send.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::lab::{Lab, text};
use crate::support::smtpd::Quirks;

/// Files that were written or renamed without an error.
#[derive(Default)]
struct Sent {
    next: AtomicUsize,
    acknowledged: std::sync::Mutex<BTreeSet<usize>>,
}

impl Sent {
    /// Sends until the mount is gone.
    fn run(&self, root: &Path) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "To: bob@example.org\nSubject: n{number}\n\n{}",
                "line\n".repeat(50 + number % 300)
            );
            let name = format!("m{number}");
            let done = if number.is_multiple_of(2) {
                fs::write(root.join("outbox").join(&name), message)
            } else {
                let draft = root.join("drafts").join(&name);
                fs::write(&draft, message)
                    .and_then(|()| fs::rename(&draft, root.join("outbox").join(&name)))
            };
            match done {
                Ok(()) => self.acknowledged.lock().unwrap().insert(number),
                Err(_) => return,
            };
        }
    }
}

#[test]
fn kill_9_at_any_instant_loses_nothing_and_repeats_nothing() {
    let rounds: usize = std::env::var("FERRYFS_KILLS").map_or(4, |n| n.parse().unwrap());
    let Some(mut lab) = Lab::with(Vec::new(), Quirks::default(), &["linger=0"]) else {
        return;
    };
    let sent = Sent::default();
    for round in 0..rounds {
        let root = lab.mount.root();
        // Everywhere from the first write to a full queue.
        let pause = Duration::from_millis((round as u64 * 7919 + 13) % 400);
        let Lab {
            mount,
            pop3d,
            smtpd,
        } = lab;
        let mount = std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| sent.run(&root));
            }
            std::thread::sleep(pause);
            mount.kill().remount()
        });
        lab = Lab {
            mount,
            pop3d,
            smtpd,
        };
    }
    lab.mount.expect_log("may have been sent");
    lab.wait("not sent", || {
        let (_, queued) = lab.mount.try_sh("cat queue/* 2>/dev/null || true");
        queued.matches("\nState: ").count() == queued.matches("\nState: in doubt").count()
    });
    // What was closed and not queued before the end is there, whole, and goes when it is named anew.
    let acknowledged = sent.acknowledged.lock().unwrap().clone();
    let queued = lab.mount.sh("cat queue/* 2>/dev/null || true");
    for entry in fs::read_dir(lab.mount.path("outbox")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(number) = name.strip_prefix('m').and_then(|n| n.parse().ok()) else {
            continue;
        };
        let in_doubt = queued.contains(&format!("Subject: n{number}\n"))
            || queued.contains(&format!("Subject: m{number}\n"));
        if acknowledged.contains(&number) && !in_doubt {
            lab.mount
                .sh(&format!("mv outbox/{name} outbox/again-{name}"));
        }
    }
    lab.wait("not sent", || {
        let (_, queued) = lab.mount.try_sh("cat queue/* 2>/dev/null || true");
        queued.matches("\nState: ").count() == queued.matches("\nState: in doubt").count()
    });
    let mut received: BTreeMap<usize, usize> = BTreeMap::new();
    for message in lab.smtpd.kept() {
        let message = text(&message);
        let number = message.split("Subject: n").nth(1).unwrap();
        let number: usize = number.split('\n').next().unwrap().parse().unwrap();
        let lines = message.matches("\nline").count();
        assert_eq!(lines, 50 + number % 300, "n{number} is not whole");
        *received.entry(number).or_default() += 1;
    }
    let queued = lab.mount.sh("cat queue/* 2>/dev/null || true");
    for number in &acknowledged {
        let in_doubt = queued.contains(&format!("Subject: m{number}\n"));
        assert!(
            received.contains_key(number) || in_doubt,
            "n{number} is lost: {}",
            lab.mount.sh("ls outbox drafts failed")
        );
    }
    for (number, times) in &received {
        assert_eq!(*times, 1, "n{number} was sent {times} times");
    }
    assert!(!acknowledged.is_empty());
    lab.mount
        .sh("echo pause > ctl; rm -f queue/*; rm -f outbox/m* outbox/again*; true");
}
