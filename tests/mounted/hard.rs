//! `-o hard`: a server that is away is waited for, and nobody is held who does not want to wait.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{bytes, mounting};
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::TestMount;

/// Longer than the time limit of 2 seconds, twice over.
const AWAY: Duration = Duration::from_secs(5);

fn stage() -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::with(Quirks {
        login: Some(("user".into(), "secret".into())),
        ..Quirks::default()
    });
    let mount = mounting(&server)
        .password("secret")
        .option("hard")
        .option("dir_cache=0")
        .expect_log("");
    let mount = mount.patience(Duration::from_secs(40)).start()?;
    Some((server, mount))
}

fn start(mount: &TestMount, script: &str) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(mount.root());
    shell.stderr(Stdio::inherit()).spawn().unwrap()
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn all_work_goes_on_when_the_server_is_back() {
    for silent in [false, true] {
        let Some((server, mount)) = stage() else {
            return;
        };
        let content = bytes(6_000_000);
        server.put("there/file", &content);
        server.put("there/gone", "x");
        server.put("there/old", "y");
        fs::write(mount.local("source"), &content).unwrap();
        let source = mount.local("source");
        // Slow enough to be caught in the middle.
        server.change(|quirks| quirks.rate = Some(4_000_000));
        let source = source.display();
        let scripts = [
            format!("cp {source} new"),
            format!("cat there/file >/dev/null && cmp there/file {source}"),
            "sleep 1; ls there >/dev/null".to_owned(),
            "sleep 1; mkdir made && rmdir made && mkdir kept".to_owned(),
            "sleep 1; rm there/gone".to_owned(),
            "sleep 1; mv there/old there/moved".to_owned(),
            "sleep 1; echo text >there/text".to_owned(),
        ];
        let mut children: Vec<Child> = scripts.iter().map(|s| start(&mount, s)).collect();
        thread::sleep(Duration::from_millis(600));
        match silent {
            true => server.change(|quirks| *quirks = quirks.clone().stall("*")),
            false => server.go_down(),
        }
        thread::sleep(AWAY);
        for (child, script) in children.iter_mut().zip(&scripts) {
            assert!(
                child.try_wait().unwrap().is_none(),
                "{silent}: {script} did not wait"
            );
        }
        match silent {
            true => server.change(|quirks| quirks.stalls.clear()),
            false => server.come_back(),
        }
        server.change(|quirks| quirks.rate = None);
        for (child, script) in children.into_iter().zip(&scripts) {
            let output = child.wait_with_output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{silent}: {script}: {words}\n{}",
                mount.log()
            );
        }
        assert!(server.get("new") == content);
        assert_eq!(server.get("there/moved"), b"y");
        assert_eq!(server.get("there/text"), b"text\n");
        assert!(server.path("kept").is_dir() && !server.path("made").exists());
        assert!(!server.path("there/gone").exists() && !server.path("there/old").exists());
        let log = mount.log();
        // Whoever asked in silence may have been answered before he was sure of it.
        assert!(
            silent || log.contains("waiting for it") && log.contains("answers again"),
            "{log}"
        );
        mount.finish();
    }
}

#[test]
fn who_is_told_to_stop_stops_at_once_and_what_he_wrote_comes_later() {
    let Some((server, mount)) = stage() else {
        return;
    };
    server.put("there/file", bytes(100_000));
    fs::write(mount.local("source"), bytes(300_000)).unwrap();
    let source = mount.local("source").display().to_string();
    let go = mount.local("go");
    let until = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    // One in close(2), and one that never closes: the kernel does it for him when he ends.
    let writers = ["late", "unclosed"].map(|name| {
        let after = match name {
            "late" => "exec 3>&-",
            _ => "exec sleep 60",
        };
        // By the shell itself: another program would look at the file first, and wait then.
        let script = format!("exec 3>{name}; {until}; printf '%300000s' x >&3; {after}");
        let writer = start(&mount, &script);
        while !mount.path(name).exists() {
            thread::sleep(Duration::from_millis(20));
        }
        // The first `sleep` ends, and closes its copy.
        thread::sleep(Duration::from_millis(300));
        (name, writer)
    });
    server.go_down();
    fs::write(go, "").unwrap();
    for (script, signal) in [
        ("exec cat there/file".to_owned(), Signal::TERM),
        ("exec cat there/file".to_owned(), Signal::KILL),
        (format!("exec cp {source} new"), Signal::TERM),
        ("exec ls there".to_owned(), Signal::INT),
    ] {
        let mut child = start(&mount, &script);
        assert!(
            !ends_within(&mut child, Duration::from_secs(2)),
            "{script} did not wait"
        );
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(
            ends_within(&mut child, Duration::from_secs(2)),
            "{script} cannot be stopped"
        );
    }
    for (name, mut writer) in writers {
        assert!(writer.try_wait().unwrap().is_none(), "{name} did not wait");
        kill_process(Pid::from_child(&writer), Signal::KILL).unwrap();
        let ended = ends_within(&mut writer, Duration::from_secs(2));
        assert!(ended, "the end of {name} waits for the server");
    }
    server.come_back();
    let content = [" ".repeat(299_999).as_bytes(), b"x"].concat();
    let is_there = |name| fs::read(server.path(name)).is_ok_and(|there| there == content);
    let (begin, patience) = (Instant::now(), Duration::from_secs(15));
    mount.within(2 * patience, || {
        for name in ["late", "unclosed"] {
            while !is_there(name) && begin.elapsed() < patience {
                thread::sleep(Duration::from_millis(50));
            }
            assert!(is_there(name), "{name}\n{}", mount.log());
        }
    });
    mount.finish();
}

#[test]
fn the_mount_ends_in_bounded_time() {
    let Some((server, mount)) = stage() else {
        return;
    };
    fs::write(mount.local("source"), bytes(300_000)).unwrap();
    let source = mount.local("source").display().to_string();
    server.go_down();
    let mut child = start(&mount, &format!("exec cp {source} new"));
    assert!(!ends_within(&mut child, Duration::from_secs(3)));
    let begin = Instant::now();
    let output = mount.ferryfs(&["umount", mount.root().to_str().unwrap(), "--timeout", "2s"]);
    assert!(
        !output.status.success(),
        "what was written is not on the server"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    let pid = Pid::from_raw(mount.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let begin = Instant::now();
    let log = mount.local("");
    let (_, mounted) = mount.wait_for_its_end();
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    assert!(!mounted, "{}", log.display());
    assert!(ends_within(&mut child, Duration::from_secs(2)));
}
