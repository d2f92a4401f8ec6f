//! Round trips that are saved: replies read behind the reader, listings and files fetched ahead.

use std::fs;
use std::time::{Duration, Instant};

use super::{bytes, mounting, stage};
use crate::support::ftpd::{Completion, Ftpd, Limit, Quirks};

#[test]
fn a_reader_does_not_wait_for_the_last_word() {
    let server = Ftpd::start();
    let Some(mount) = mounting(&server).option("prefetch=off").start() else {
        return;
    };
    for name in ["a", "b", "c"] {
        server.put(
            format!("dir/{name}"),
            [name.as_bytes(), &bytes(5_000)].concat(),
        );
    }
    mount.sh("ls -l dir");
    server.change(|quirks| quirks.completion = Completion::Late(Duration::from_millis(600)));
    let began = Instant::now();
    assert_eq!(fs::read(mount.path("dir/a")).unwrap(), server.get("dir/a"));
    assert!(began.elapsed() < Duration::from_millis(500));
    // They share one connection: each waits for the end of the one before it.
    for name in ["b", "c"] {
        let path = format!("dir/{name}");
        assert_eq!(fs::read(mount.path(&path)).unwrap(), server.get(&path));
    }
    assert_eq!(server.sessions_opened(), 1);
    assert_eq!(server.count("RETR"), 3);
    mount.finish();
}

#[test]
fn a_server_that_ends_transfers_oddly_is_waited_for_from_then_on() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    for name in 0..6 {
        server.put(format!("dir/{name}"), bytes(5_000 + name));
    }
    mount.sh("ls -l dir");
    server.change(|quirks| quirks.completion = Completion::Twice);
    for name in 0..6 {
        let path = format!("dir/{name}");
        assert_eq!(fs::read(mount.path(&path)).unwrap(), server.get(&path));
    }
    server.change(|quirks| quirks.completion = Completion::Never);
    mount.sh("cat dir/0; ls dir >/dev/null");
    mount.finish();
}

/// A tree of `dirs` directories with a few files and a directory in each.
fn plant(server: &Ftpd, dirs: usize) {
    for dir in 0..dirs {
        for file in 0..3 {
            server.put(format!("d{dir:02}/file{file}"), "content");
        }
        server.put(format!("d{dir:02}/sub/.hidden"), "content");
    }
}

fn listings(server: &Ftpd) -> usize {
    let verbs = ["MLSD", "LIST", "STAT", "NLST"];
    verbs.iter().map(|verb| server.count(verb)).sum()
}

/// Commands that name a file, and so would be one for each file.
fn singles(server: &Ftpd) -> usize {
    let verbs = ["MLST", "SIZE", "MDTM", "RETR"];
    verbs.iter().map(|verb| server.count(verb)).sum()
}

#[test]
fn a_walk_is_fetched_ahead_and_costs_one_listing_for_each_directory() {
    // Where there is STAT beside MLSD, MLST is asked for each name, many at once.
    for (quirks, verb, names) in [
        (Quirks::like_vsftpd(), "STAT", 0),
        (Quirks::default().without(&["STAT"]), "MLSD", 0),
        (Quirks::default(), "MLSD", 2 * 300),
    ] {
        let server = Ftpd::with(quirks);
        plant(&server, 60);
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        // A connection that takes 20 ms for everything.
        server.change(|quirks| *quirks = quirks.clone().delay(verb, Duration::from_millis(20)));
        server.clear_log();
        let began = Instant::now();
        let found = mount.sh("find . -type f | wc -l; find . | sort | md5sum");
        let there = "find . -type f | wc -l; find . | sort | md5sum";
        let output = std::process::Command::new("sh")
            .args(["-c", there])
            .current_dir(server.root())
            .output()
            .unwrap();
        assert_eq!(found, String::from_utf8(output.stdout).unwrap());
        // Two walks of 121 directories; what is learned about the server first is a handful.
        assert!(
            listings(&server) <= 2 * 121 + 4,
            "{verb}: {}",
            listings(&server)
        );
        let asked = singles(&server);
        assert!(asked <= 10 + names, "{:?}", server.commands());
        if names > 0 {
            assert!(asked >= 200 && server.count("MLSD") < 60, "{asked}");
        }
        println!("{verb}, {names}: {:?}", began.elapsed());
        mount.finish();
    }
}

#[test]
fn what_mlst_says_otherwise_than_mlsd_is_not_believed() {
    let told = "250-Listing\r\n type=file;size=7;modify=20200101000000; .hidden\r\n250 End";
    let empty = "213-Status\r\ndrwxr-xr-x 2 u g 4096 Jan 01 2020 .\r\n213 End";
    for (pattern, reply) in [("MLST /d*", told), ("STAT -a /d*", empty)] {
        let slow = Quirks::default().delay("MLSD", Duration::from_millis(20));
        let server = Ftpd::with(slow.answer(pattern, reply));
        plant(&server, 40);
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        server.clear_log();
        let found = mount.sh("find . -type f -printf '%P %s %TY\\n' | sort");
        assert_eq!(found.lines().count(), 40 * 4, "{pattern}");
        let odd: Vec<_> = found.lines().filter(|l| l.ends_with(" 2020")).collect();
        assert!(odd.is_empty(), "{pattern}: {odd:?}");
        assert!(server.count("MLSD") >= 60, "{pattern}");
        mount.finish();
    }
}

#[test]
fn a_row_of_listings_asks_for_the_next_before_the_end_of_one_is_told() {
    let server = Ftpd::with(Quirks::like_vsftpd().without(&["STAT"]));
    plant(&server, 40);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    mount.sh("ls >/dev/null");
    server.change(|quirks| quirks.completion = Completion::Late(Duration::from_millis(20)));
    server.clear_log();
    assert_eq!(mount.sh("find . -type f | wc -l"), "160\n");
    assert!(server.asked_early() >= 60, "{}", server.asked_early());
    assert!(listings(&server) <= 81, "{}", listings(&server));
    assert!(server.count("EPSV") <= 81 + 8, "{}", server.count("EPSV"));
    // A server that takes it ill is asked later from then on, and nothing is missing.
    for refused in ["450 EPSV: data transfer in progress", "226 Once more."] {
        let early = server.asked_early();
        let answered = std::thread::scope(|scope| {
            let walk = scope.spawn(|| mount.sh("sleep 5.5; find . -type f | wc -l"));
            std::thread::sleep(Duration::from_millis(5_800));
            server.change(|quirks| *quirks = quirks.clone().answer_times("EPSV", 1, refused));
            walk.join().unwrap()
        });
        assert_eq!(answered, "160\n", "{refused}");
        assert!(server.asked_early() < early + 80, "{refused}");
    }
    mount.finish();
}

#[test]
fn stat_without_options_is_taken_where_it_shows_all() {
    for (bare, dirs) in [(true, 60), (false, 60)] {
        let mut quirks = Quirks::default().delay("MLSD", Duration::from_millis(30));
        quirks.stat_bare = bare;
        quirks.hides_dot_files = !bare;
        if !bare {
            // It may hide what begins with a dot.
            quirks = quirks.answer("STAT -a*", "550 No such file or directory.");
        }
        let server = Ftpd::with(quirks);
        plant(&server, dirs);
        fs::create_dir(server.path("d07/empty")).unwrap();
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        server.clear_log();
        let found = mount.sh("find . -type f -printf '%P %s\n' | sort; find . -type d | wc -l");
        assert_eq!(found.lines().count(), dirs * 4 + 1);
        assert!(found.ends_with(&format!("\n{}\n", 2 * dirs + 2)), "{found}");
        let listed = server.count("MLSD");
        assert_eq!(listed < dirs, bare, "{listed}");
        mount.finish();
    }
}

#[test]
fn many_names_are_asked_for_from_inside_their_directory() {
    let server = Ftpd::with(
        Quirks::default()
            .delay("MLSD", Duration::from_millis(30))
            .answer("CWD /d1*", "550 Not there."),
    );
    // The same names and sizes everywhere: only the times tell one directory from the other.
    for dir in 0..60 {
        for name in ["a", "b", "c", "d", "e", "f", "g", "-a", " h", "~i"] {
            server.put(format!("d{dir:02}/{name}"), "content");
        }
        let touch = format!(
            "touch -d @{} {}/d{dir:02}/*",
            1_700_000_000 + dir * 1_000,
            server.root().display()
        );
        assert!(
            std::process::Command::new("sh")
                .args(["-c", &touch])
                .status()
                .unwrap()
                .success()
        );
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    server.clear_log();
    let found = mount.sh("find . -type f -printf '%P %s %Ts\n' | sort");
    let there = std::process::Command::new("sh")
        .args(["-c", "find . -type f -printf '%P %s %Ts\n' | sort"])
        .current_dir(server.root())
        .output()
        .unwrap();
    assert_eq!(found, String::from_utf8(there.stdout).unwrap());
    assert!(server.count("MLST a") >= 20, "{}", server.count("MLST a"));
    assert_eq!(server.count("MLST ~i") + server.count("MLST -a"), 0);
    assert_eq!(mount.sh("ls d07 | wc -l"), "10\n");
    mount.finish();
}

#[test]
fn names_are_not_asked_for_where_that_costs_the_server_more() {
    let server = Ftpd::with(
        Quirks::default()
            .delay("MLST", Duration::from_millis(3))
            .delay("MLSD", Duration::from_millis(60)),
    );
    for dir in 0..200 {
        for file in 0..30 {
            server.put(format!("d{dir:03}/f{file:02}"), "content");
        }
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    server.clear_log();
    assert_eq!(mount.sh("find . -type f | wc -l"), "6000\n");
    let asked = server.count("MLST");
    assert!(asked < 4_500, "{asked}");
    mount.finish();
}

#[test]
fn without_foresight_nothing_is_fetched_ahead() {
    let server = Ftpd::start();
    plant(&server, 30);
    let Some(mount) = mounting(&server).option("prefetch=off").start() else {
        return;
    };
    server.clear_log();
    mount.sh("ls . d00 d01 >/dev/null");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(listings(&server), 3);
    mount.finish();
}

#[test]
fn who_lists_one_directory_pays_for_one() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    plant(&server, 30);
    mount.sh("stat d03/sub/.hidden >/dev/null; ls d05 >/dev/null; sleep 0.4; ls d05/sub");
    std::thread::sleep(Duration::from_millis(300));
    assert!(listings(&server) <= 5, "{:?}", server.commands());
    mount.finish();
}

#[test]
fn a_walk_with_one_connection_needs_no_second() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    plant(&server, 30);
    let Some(mount) = mounting(&server).option("connections=1").start() else {
        return;
    };
    assert_eq!(mount.sh("find . -type f | wc -l"), "120\n");
    assert_eq!(server.sessions_peak(), 1);
    mount.finish();
}

#[test]
fn stat_that_shows_less_than_list_is_not_used() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    plant(&server, 30);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    mount.sh("ls d00");
    server.change(|quirks| {
        *quirks = quirks
            .clone()
            .answer("STAT", "213-Status follows:\r\n213 End of status");
    });
    assert_eq!(mount.sh("find . -type f | wc -l"), "120\n");
    server.clear_log();
    mount.sh("sleep 5; ls d20 d21 d22 >/dev/null");
    assert_eq!(server.count("STAT"), 0);
    mount.finish();
}

#[test]
fn a_directory_too_large_for_one_reply_is_listed_all_the_same() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    plant(&server, 3);
    let name = "n".repeat(200);
    for n in 0..20_000 {
        let dir = server.path("large");
        if n == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::File::create(dir.join(format!("{name}{n:05}"))).unwrap();
    }
    let Some(mount) = mounting(&server).option("timeout=20s").start() else {
        return;
    };
    mount.sh("ls d00 d01 >/dev/null");
    assert_eq!(mount.sh("ls large | wc -l; ls d02 | wc -l"), "20000\n4\n");
    mount.finish();
}

#[test]
fn what_is_changed_here_while_it_is_fetched_ahead_stays_changed() {
    for (quirks, verb) in [(Quirks::like_vsftpd(), "STAT"), (Quirks::default(), "MLSD")] {
        let server = Ftpd::with(quirks);
        plant(&server, 12);
        let Some(mount) = mounting(&server).option("timeout=10s").start() else {
            return;
        };
        mount.sh("ls d00/sub >/dev/null");
        server.change(|quirks| {
            *quirks = quirks
                .clone()
                .delay(&format!("{verb} -a /d07"), Duration::from_millis(700))
                .delay(&format!("{verb} /d07"), Duration::from_millis(700));
        });
        // The walk looks ahead at d07 while its files come and go.
        let walk = std::thread::scope(|scope| {
            let walker = scope.spawn(|| mount.sh("find . -type f | wc -l"));
            std::thread::sleep(Duration::from_millis(200));
            fs::remove_file(mount.path("d07/file1")).unwrap();
            fs::write(mount.path("d07/new"), "new").unwrap();
            fs::create_dir(mount.path("d08/newdir")).unwrap();
            walker.join().unwrap()
        });
        assert!(["48\n", "47\n", "49\n"].contains(&walk.as_str()), "{walk}");
        assert_eq!(mount.sh("ls d07"), "file0\nfile2\nnew\nsub\n", "{verb}");
        assert_eq!(mount.sh("ls d08"), "file0\nfile1\nfile2\nnewdir\nsub\n");
        mount.finish();
    }
}

/// As many small files as a copy is long, each different.
fn plant_files(server: &Ftpd, files: usize) {
    for n in 0..files {
        server.put(
            format!("dir/f{n:03}"),
            [format!("{n} ").as_bytes(), &bytes(n * 37)].concat(),
        );
    }
}

#[test]
fn a_copy_is_fetched_ahead_each_file_once() {
    let server = Ftpd::with(Quirks::like_vsftpd().delay("RETR", Duration::from_millis(30)));
    plant_files(&server, 120);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().display();
    server.clear_log();
    mount.sh(&format!("cp -r dir {to}"));
    for n in 0..120 {
        let name = format!("dir/f{n:03}");
        assert_eq!(
            fs::read(copy.path().join(&name)).unwrap(),
            server.get(&name),
            "{name}"
        );
    }
    assert_eq!(server.count("RETR"), 120, "each once");
    // Side by side, however busy this machine is.
    let peak = server.sessions_peak();
    assert!((3..=8).contains(&peak), "{peak} connections");
    mount.finish();
}

#[test]
fn reading_here_and_there_fetches_nothing_ahead() {
    let server = Ftpd::start();
    plant_files(&server, 60);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    server.clear_log();
    mount.sh("cat dir/f007 dir/f003 dir/f050 dir/f021 dir/f030 >/dev/null; ls dir >/dev/null");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.count("RETR"), 5);
    mount.finish();
    let mount = mounting(&server).option("prefetch=off").start().unwrap();
    server.clear_log();
    mount.sh("cat dir/f00* >/dev/null");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.count("RETR"), 10);
    mount.finish();
}

#[test]
fn a_copy_on_a_server_with_two_connections_leaves_one() {
    let server = Ftpd::with(Quirks {
        limit: Some(Limit {
            sessions: 2,
            reply: "421 Too many connections.".into(),
        }),
        ..Quirks::default().delay("RETR", Duration::from_millis(5))
    });
    plant_files(&server, 60);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    mount.sh("cat dir/* | md5sum; stat dir/f000 >/dev/null");
    assert_eq!(server.count("RETR"), 60);
    assert!(server.sessions_peak() <= 2);
    mount.finish();
}

#[test]
fn what_is_written_here_while_it_is_fetched_ahead_stays_written() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    plant_files(&server, 40);
    let Some(mount) = mounting(&server).option("timeout=10s").start() else {
        return;
    };
    mount.sh("ls -l dir >/dev/null");
    server.change(|quirks| {
        *quirks = quirks
            .clone()
            .delay("RETR /dir/f00*", Duration::from_millis(400));
    });
    let (old, same_size) = (server.get("dir/f005"), bytes(5 * 37 + 2));
    assert_eq!(old.len(), same_size.len());
    mount.sh("head -c1 dir/f000 dir/f001 dir/f002 >/dev/null");
    fs::write(mount.path("dir/f005"), &same_size).unwrap();
    fs::remove_file(mount.path("dir/f006")).unwrap();
    assert_eq!(fs::read(mount.path("dir/f005")).unwrap(), same_size);
    assert!(fs::read(mount.path("dir/f006")).is_err());
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(fs::read(mount.path("dir/f005")).unwrap(), same_size);
    assert_eq!(server.get("dir/f005"), same_size);
    mount.finish();
}
