//! `kill -9` between any two commands of a replacement: the next mount puts right what was left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{mounting, names_there};
use crate::support::ftpd::{Break, Ftpd, Quirks};
use crate::support::mount::{Killed, TestMount, skip};
use crate::support::small_disk::SmallDisk;

/// Something that takes several commands.
struct Deed {
    quirks: Quirks,
    options: &'static str,
    /// Before any command is counted.
    prepare: fn(&Ftpd, &TestMount),
    work: fn(&Ftpd, &Path) -> io::Result<()>,
    /// After the next mount, whether the work was acknowledged or not: what is wrong, if anything.
    wrong: fn(&Ftpd, bool) -> Option<String>,
}

/// RNTO over a file is refused, as on Windows; names and times are told exactly.
fn stubborn() -> Quirks {
    Quirks {
        rnto_over_refused: Some("550 File exists.".into()),
        ..Quirks::default()
    }
}

/// The same, and names may not begin with a dot.
fn without_dots() -> Quirks {
    ["STOR /.", "RNTO /."]
        .into_iter()
        .fold(stubborn(), |quirks, pattern| {
            quirks.answer(&format!("{pattern}*"), "553 Prohibited file name.")
        })
}

/// What no user ever named.
fn temporary(server: &Ftpd) -> Vec<String> {
    let mut names = names_there(server);
    names.retain(|name| name.contains(".ferryfs-"));
    names
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Files named `intents` below the state directory.
fn logs(state: &Path) -> usize {
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => logs(&entry.path()),
        false => usize::from(entry.file_name() == "intents"),
    };
    entries.map(count).sum()
}

/// Unmounts: how many are left then.
fn logs_left(mount: TestMount) -> usize {
    logs(&mount.finish_leaving().path("state"))
}

impl Deed {
    fn start(&self) -> Option<(Ftpd, TestMount)> {
        let server = Ftpd::with(self.quirks.clone());
        let mount = mounting(&server)
            .option(format!("upload=rename{}", self.options))
            .expect_log("")
            .start()?;
        (self.prepare)(&server, &mount);
        flush(&mount);
        server.clear_log();
        Some((server, mount))
    }

    /// Does it, and kills the mount when so many commands were carried out. Whether the work was
    /// acknowledged, and whether there were that many.
    fn cut_after(&self, commands: usize) -> Option<(Ftpd, Killed, bool, bool)> {
        let (server, mount) = self.start()?;
        server.change(|quirks| quirks.stall_after = Some(commands));
        let (root, stalled) = (mount.root(), || server.log().len() > commands);
        let (killed, was_stalled, done) = thread::scope(|scope| {
            let working = scope.spawn(|| (self.work)(&server, &root));
            let idle = Instant::now() + Duration::from_secs(5);
            // With writeback it goes on after that.
            let over = || {
                working.is_finished() && (!self.options.contains("writeback") || is_clean(&mount))
            };
            while !stalled() && !over() {
                assert!(Instant::now() < idle, "neither done nor stalled");
                thread::sleep(Duration::from_millis(2));
            }
            let was_stalled = stalled();
            let killed = mount.kill();
            let done = working.join().unwrap();
            (killed, was_stalled, done.is_ok())
        });
        server.hang_up();
        until("the sessions end", || server.sessions_open() == 0);
        server.change(|quirks| quirks.stall_after = None);
        Some((server, killed, done, was_stalled))
    }

    /// Kills it everywhere.
    fn play(&self) {
        let left_aside = self.play_anywhere();
        assert!(left_aside != Some(0), "nothing was ever aside");
    }

    /// How often something was under a temporary name of an old version.
    fn play_anywhere(&self) -> Option<usize> {
        let (mut cuts, mut left_aside) = (0, 0);
        for commands in 0.. {
            let (server, killed, done, was_stalled) = self.cut_after(commands)?;
            let there = temporary(&server);
            left_aside += there.iter().filter(|name| !name.ends_with("part")).count();
            let mut mount = killed.remount();
            mount.expect_log("");
            mount.sh("ls");
            let context = format!(
                "cut after {commands} commands, done: {done}\nthere was {there:?}, there is {:?}\n{}",
                names_there(&server),
                mount.log()
            );
            assert_eq!(temporary(&server), [""; 0], "{context}");
            flush(&mount);
            let wrong = (self.wrong)(&server, done);
            assert_eq!(wrong, None, "{context}");
            assert_eq!(temporary(&server), [""; 0], "{context}");
            assert_eq!(logs_left(mount), 0, "{context}");
            if !was_stalled {
                break;
            }
            cuts += 1;
        }
        println!("killed at {cuts} places, {left_aside} times with something aside");
        Some(left_aside)
    }
}

fn flush(mount: &TestMount) {
    let flush = mount.ferryfs(&["flush", mount.root().to_str().unwrap()]);
    assert!(flush.status.success(), "{flush:?}");
}

fn is_clean(mount: &TestMount) -> bool {
    let status = mount.ferryfs(&["status", "--json", mount.root().to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    shown.contains(r#""dirty": []"#) || shown.contains(r#""dirty":[]"#)
}

/// Of one file: whether its content is as it must be.
fn one(server: &Ftpd, name: &str, may_be: &[&str]) -> Option<String> {
    let content =
        fs::read(server.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match content {
        Ok(content) if may_be.contains(&content.as_str()) => None,
        other => Some(format!("{name} is {other:?} and not one of {may_be:?}")),
    }
}

fn old_or_new(server: &Ftpd, name: &str, done: bool) -> Option<String> {
    one(server, name, if done { &["new"] } else { &["old", "new"] })
}

fn only(server: &Ftpd, names: &[&str]) -> Option<String> {
    let there = names_there(server);
    (there != names).then(|| format!("there is {there:?}"))
}

/// Writes `path`, and is told by close(2) what came of it: nothing in Rust is.
fn write(path: &Path, content: &str) -> io::Result<()> {
    let mut copy = Command::new("dd")
        .arg(format!("of={}", path.display()))
        .args(["status=none"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    copy.stdin.take().unwrap().write_all(content.as_bytes())?;
    match copy.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("dd")),
    }
}

/// Overwrites `f`, which both sides know.
fn upload(quirks: Quirks, options: &'static str) -> Deed {
    Deed {
        quirks,
        options,
        prepare: |server, mount| {
            server.put("f", "old");
            // By then it is known how the server likes its names.
            mount.sh("echo 1 >g; cat f");
        },
        work: |_, root| write(&root.join("f"), "new"),
        wrong: |server, done| old_or_new(server, "f", done).or_else(|| only(server, &["f", "g"])),
    }
}

#[test]
fn an_upload_over_an_old_file() {
    upload(stubborn(), "").play();
}

#[test]
fn an_upload_over_an_old_file_where_little_is_told() {
    upload(Quirks::like_iis(), "").play();
}

#[test]
fn an_upload_over_an_old_file_where_dot_files_are_refused() {
    upload(without_dots(), "").play();
}

#[test]
fn an_upload_behind_the_writer() {
    upload(stubborn(), ",writeback").play();
}

#[test]
fn a_rename_over_a_file() {
    for (quirks, options) in [
        (stubborn(), ""),
        (Quirks::like_iis(), ",conflict=overwrite"),
    ] {
        let deed = Deed {
            quirks,
            options,
            prepare: |server, mount| {
                server.put("f", "old");
                server.put("h", "new");
                mount.sh("cat f h");
            },
            work: |_, root| fs::rename(root.join("h"), root.join("f")),
            wrong: |server, done| {
                old_or_new(server, "f", done).or_else(|| {
                    let renamed = server.get("f") == b"new";
                    only(server, if renamed { &["f"] } else { &["f", "h"] })
                })
            },
        };
        deed.play();
    }
}

#[test]
fn a_directory_that_changes_the_case_of_its_name() {
    let deed = Deed {
        quirks: Quirks {
            case_insensitive: true,
            ..stubborn()
        },
        options: "",
        prepare: |server, mount| {
            server.put("Dir/inside", "old");
            mount.sh("ls; cat Dir/inside");
        },
        work: |_, root| fs::rename(root.join("Dir"), root.join("DIR")),
        wrong: |server, done| {
            let names = names_there(server);
            let right = names == ["DIR"] || !done && names == ["Dir"];
            let content = || one(server, &format!("{}/inside", names[0]), &["old"]);
            if right {
                content()
            } else {
                Some(format!("there is {names:?}"))
            }
        },
    };
    deed.play();
}

/// `name`, emptied, and changed by somebody else before it is closed.
fn clash(server: &Ftpd, root: &Path, name: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file: File = options.open(root.join(name))?;
    server.put(name, "theirs");
    file.write_all(b"new")?;
    file.sync_all()
}

/// Somebody else's version is there, whatever became of ours; and ours where that was acknowledged.
fn both(server: &Ftpd, name: &str, done: bool) -> Option<String> {
    let names = names_there(server);
    let contents: Vec<String> = names
        .iter()
        .filter(|there| there.starts_with(name))
        .map(|there| String::from_utf8(server.get(there)).unwrap())
        .collect();
    let has = |content: &str| contents.iter().any(|there| there == content);
    let right = has("theirs") && (has("new") || !done) && contents.len() <= 2;
    (!right || !server.path(name).exists()).then(|| format!("there is {names:?}: {contents:?}"))
}

#[test]
fn a_version_of_somebody_elses_where_another_was_known() {
    for quirks in [Quirks::default(), stubborn()] {
        let deed = Deed {
            quirks,
            options: "",
            prepare: |server, mount| {
                server.put("f", "something older");
                mount.sh("echo 1 >g; cat f");
            },
            work: |server, root| clash(server, root, "f"),
            wrong: |server, done| both(server, "f", done),
        };
        deed.play_anywhere();
    }
}

#[test]
fn a_version_of_somebody_elses_where_nothing_was() {
    for quirks in [Quirks::default(), stubborn()] {
        let deed = Deed {
            quirks,
            options: "",
            prepare: |_, mount| drop(mount.sh("echo 1 >g; ls")),
            work: |server, root| clash(server, root, "f"),
            wrong: |server, done| both(server, "f", done),
        };
        deed.play();
    }
}

#[test]
fn a_rename_to_a_name_that_somebody_else_has_taken() {
    let deed = Deed {
        quirks: Quirks::default(),
        options: ",dir_cache=1h",
        prepare: |server, mount| {
            mount.sh("echo 1 >g; printf new >h; ls");
            server.put("f", "theirs");
        },
        work: |_, root| fs::rename(root.join("h"), root.join("f")),
        wrong: |server, done| {
            let ours = one(server, "h", &["new"]).is_none() || !server.path("h").exists();
            both(server, "f", done).or_else(|| (!ours).then(|| "h is another".to_owned()))
        },
    };
    deed.play();
}

/// `h` is renamed over `f`, and the mount killed when the old version is aside and nothing has its
/// name.
fn killed_halfway(dir: &'static str) -> Option<(Ftpd, Killed)> {
    let deed = Deed {
        quirks: stubborn(),
        options: if dir.is_empty() { "" } else { ",dir_cache=1h" },
        prepare: match dir {
            "" => |server, mount| {
                server.put("f", "old");
                server.put("h", "new");
                mount.sh("cat f h");
            },
            _ => |server, mount| {
                server.put("d/f", "old");
                server.put("d/h", "new");
                mount.sh("cat d/f d/h");
            },
        },
        work: match dir {
            "" => |_, root| fs::rename(root.join("h"), root.join("f")),
            _ => |_, root| fs::rename(root.join("d/h"), root.join("d/f")),
        },
        wrong: |_, _| None,
    };
    for commands in 0.. {
        let (server, killed, ..) = deed.cut_after(commands)?;
        if !server.path(dir).join("f").exists() {
            return Some((server, killed));
        }
    }
    None
}

#[test]
fn a_version_that_took_the_place_meanwhile_is_not_touched() {
    let Some((server, killed)) = killed_halfway("") else {
        return;
    };
    server.put("f", "theirs");
    let mut mount = killed.remount();
    mount.expect_log("kept as /f.conflict-");
    let names = names_there(&server);
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!((&*names[0], &*names[2]), ("f", "h"), "{names:?}");
    assert!(names[1].starts_with("f.conflict-"), "{names:?}");
    let contents = mount.sh("cat f f.* h");
    assert_eq!(contents, "theirsoldnew");
    mount.finish();
}

#[test]
fn a_read_only_mount_leaves_it_to_the_next_and_says_so() {
    let Some((server, killed)) = killed_halfway("") else {
        return;
    };
    let state = killed.local("state");
    let mut mount = killed.option("ro").remount();
    mount.expect_log("/f: its old version may be /f.ferryfs-");
    assert!(mount.log().contains("mount without ro"), "{}", mount.log());
    assert_eq!(temporary(&server).len(), 1);
    assert_eq!(mount.sh("ls -A"), format!("{}\nh\n", temporary(&server)[0]));
    let root = mount.root();
    let killed = mount.kill();
    assert_eq!(logs(&state), 1);
    let status = killed.ferryfs(&["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains(root.to_str().unwrap()) && status.contains("put right by the next mount"),
        "{status}"
    );
    let mut mount = killed.option("rw").remount();
    mount.expect_log("/f: its old version may be /f.ferryfs-");
    assert_eq!(mount.sh("cat f h"), "oldnew");
    assert_eq!(names_there(&server), ["f", "h"]);
    assert_eq!(logs_left(mount), 0);
}

#[test]
fn a_server_that_does_not_answer_is_asked_again_and_not_waited_for() {
    let Some((server, killed)) = killed_halfway("") else {
        return;
    };
    server.change(|quirks| quirks.stalls = vec!["RNFR".into()]);
    let before = Instant::now();
    let mut mount = killed.option("timeout=5s").remount();
    mount.expect_log("");
    assert!(
        before.elapsed() < Duration::from_secs(4),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(temporary(&server).len(), 1);
    mount.sh("cat h");
    server.hang_up();
    server.change(|quirks| quirks.stalls.clear());
    until("it is put right", || temporary(&server).is_empty());
    assert_eq!(server.get("f"), b"old");
    assert_eq!(mount.sh("sleep 1; cat f"), "old");
    mount.finish();
}

#[test]
fn what_cannot_be_put_back_stays_and_is_told_once() {
    let Some((server, killed)) = killed_halfway("") else {
        return;
    };
    server.change(|quirks| quirks.read_only = Some("550 Permission denied.".into()));
    let mut mount = killed.remount();
    mount.expect_log("left on the server for now");
    thread::sleep(Duration::from_secs(2));
    let told = mount.log().matches("left on the server for now").count();
    assert_eq!(told, 1, "{}", mount.log());
    assert_eq!(mount.sh("cat f.ferryfs-*"), "old");
    assert_eq!((logs_left(mount), temporary(&server).len()), (1, 1));
}

#[test]
fn a_directory_that_was_renamed_meanwhile_is_pointed_at() {
    let Some((server, killed)) = killed_halfway("d") else {
        return;
    };
    fs::rename(server.path("d"), server.path("elsewhere")).unwrap();
    let mut mount = killed.remount();
    mount.expect_log("if their directory has another name now, look there");
    mount.sh("cat elsewhere/f.ferryfs-*");
    assert!(mount.log().contains("/d/f: neither it nor its old version"));
    assert_eq!(logs_left(mount), 0);
}

#[test]
fn a_link_that_comes_back_is_used_to_put_it_right_without_being_asked() {
    let server = Ftpd::with(stubborn());
    server.put("d/f", "old");
    let Some(mount) = mounting(&server).expect_log("").start() else {
        return;
    };
    mount.sh("echo 1 >d/g; cat d/f; printf new >d/h");
    server.change(|quirks| {
        let aside = "250 Renamed.".to_owned();
        *quirks = quirks
            .clone()
            .answer_times("RNTO /d/f", 1, "550 File exists.");
        *quirks = quirks
            .clone()
            .answer("RNTO /d/f", "421 Gone.")
            .reply_instead("RNTO", &aside);
    });
    let (status, said) = mount.try_sh("mv d/h d/f");
    assert!(!status.success(), "{said}");
    assert!(!server.path("d/f").exists());
    // It is found where its directory went, too.
    mount.sh("mv d e");
    server.change(|quirks| {
        quirks.answers.clear();
        quirks.instead.clear();
    });
    until("it is put right", || server.path("e/f").exists());
    assert_eq!(server.get("e/f"), b"old");
    assert_eq!(mount.sh("ls -A e; cat e/h"), "f\ng\nh\nnew");
    assert_eq!(logs_left(mount), 0);
}

#[test]
fn nothing_is_moved_aside_that_cannot_be_written_down() {
    let Some(small) = SmallDisk::mount("1m") else {
        return skip("no tmpfs can be mounted");
    };
    let server = Ftpd::with(stubborn());
    server.put("f", "old");
    server.put("h", "new");
    let options = format!("state_dir={}", small.path().display());
    let mounting = mounting(&server)
        .option(options)
        .expect_log("No space left");
    if let Some(mount) = mounting.start() {
        mount.sh("cat f h");
        let full = small.path().join("full");
        let filled = fs::write(&full, vec![1; 2 << 20]);
        assert!(filled.is_err());
        let (status, said) = mount.try_sh("mv h f");
        assert!(
            !status.success() && said.contains("No space left"),
            "{said}"
        );
        assert_eq!(names_there(&server), ["f", "h"]);
        assert_eq!(mount.sh("cat f h"), "oldnew");
        fs::remove_file(full).unwrap();
        mount.sh("mv h f; cat f");
        assert_eq!(server.get("f"), b"new");
        mount.finish();
    }
    small.unmount();
}

#[test]
fn what_an_outage_left_goes_without_another_upload() {
    let server = Ftpd::with(Quirks::default().fault("STOR", 1 << 20, 9, Break::Stall));
    let mounting = mounting(&server)
        .option("upload=rename")
        .option("timeout=2s");
    let Some(mount) = mounting.expect_log("").start() else {
        return;
    };
    let file = mount.path("file");
    let writer = thread::spawn(move || write(&file, &"content ".repeat(1 << 19)));
    until("nothing is stored", || !temporary(&server).is_empty());
    server.go_down();
    let written = writer.join().unwrap();
    assert!(written.is_err(), "{:?}\n{}", server.log(), mount.log());
    until("the content is not put away", || {
        mount.log().contains("kept as")
    });
    assert_eq!(temporary(&server).len(), 1);
    server.come_back();
    until("it is still there", || temporary(&server).is_empty());
    assert_eq!(server.count("STOR"), 1, "{:?}", server.commands());
    mount.finish();
}

#[test]
fn what_moved_with_the_directory_that_it_was_to_leave_goes() {
    let quirks = Quirks {
        rate: Some(2 << 20),
        ..Quirks::default()
    };
    let server = Ftpd::with(quirks);
    server.put("d/old", "old");
    let Some(mount) = mounting(&server)
        .option("writeback,upload=rename")
        .expect_log("")
        .start()
    else {
        return;
    };
    let there = |dir: &str| {
        let entries = fs::read_dir(server.path(dir)).into_iter().flatten();
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let content = "content ".repeat(1 << 18);
    write(&mount.path("d/file"), &content).unwrap();
    until("nothing is on its way", || there("d").len() == 2);
    mount.sh("mv d/file file; mv d e");
    assert_eq!(there("e").len(), 2, "it has gone along");
    flush(&mount);
    assert!(server.get("file") == content.as_bytes());
    until("what was on its way is still there", || {
        there("e") == ["old"]
    });
    mount.finish();
}
