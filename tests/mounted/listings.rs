//! What listings cost, and what becomes of odd ones.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::{mounting, stage};
use crate::support::ftpd::{DashA, Dialect, Ftpd, Quirks};
use crate::support::mount::TestMount;

/// Commands that list a directory, and those that ask for a single name.
fn asked(server: &Ftpd) -> (usize, usize) {
    let count = |verbs: &[&str]| verbs.iter().map(|verb| server.count(verb)).sum();
    (
        count(&["MLSD", "LIST", "STAT", "NLST"]),
        count(&["MLST", "SIZE", "MDTM", "CWD", "RETR"]),
    )
}

/// At most so many listings, and commands about single names.
fn walk(quirks: Quirks, most: (usize, usize)) {
    let server = Ftpd::with(quirks);
    for dir in 0..100 {
        for file in 0..100 {
            server.put(format!("dir{dir:02}/file{file:02}"), "content");
        }
    }
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    server.clear_log();
    let lines = mount.sh("ls -lR | grep -c ' file'");
    assert_eq!(lines, "10000\n");
    let (listings, single) = asked(&server);
    assert!(listings <= most.0, "{listings} listings");
    assert!(single <= most.1, "{single} commands about single names");
    server.clear_log();
    mount.sh("find . -name nosuch -size +1 && test -f dir50/file50 && ! test -e dir50/file500");
    assert!(
        asked(&server).0 <= 101 && asked(&server).1 == 0,
        "{:?}",
        server.commands()
    );
    mount.finish();
}

#[test]
fn a_walk_costs_one_listing_for_each_directory() {
    // What is learned about the server first is a handful.
    walk(Quirks::default().without(&["STAT"]), (105, 10));
}

/// Each directory by STAT, and each name once by MLST, in batches of which each takes a round trip.
#[test]
fn a_walk_costs_one_listing_for_each_directory_and_each_name_once_where_that_is_quicker() {
    walk(Quirks::default(), (110, 10_110));
}

#[test]
fn a_walk_costs_one_listing_for_each_directory_without_mlsd() {
    walk(Quirks::like_vsftpd(), (105, 10));
}

/// How often a directory was listed that has 10,000 entries.
fn large(quirks: Quirks) -> usize {
    let server = Ftpd::with(quirks);
    for file in 0..10_000 {
        server.put(format!("flat/file{file:04}"), "content");
    }
    let Some(mount) = mounting(&server).start() else {
        return 1;
    };
    server.clear_log();
    assert_eq!(mount.sh("ls -l flat | grep -c ' file'"), "10000\n");
    let listings = || {
        let verbs = ["MLSD", "LIST", "STAT", "NLST"];
        let mut commands = server.commands();
        commands
            .retain(|line| verbs.iter().any(|v| line.starts_with(v)) && line.ends_with("/flat"));
        commands.len()
    };
    let cold = listings();
    server.clear_log();
    let again = "ls -l flat | wc -l; stat -c %s flat/file5000; test ! -e flat/file; find flat -size 1c \
                 | wc -l; sh -c ': <flat/file0777'; sh -c ': <flat/file9999'";
    assert_eq!(mount.sh(again), "10001\n7\n0\n");
    assert_eq!(listings(), 0, "{:?}", server.commands());
    mount.finish();
    cold
}

#[test]
fn a_large_directory_is_listed_once() {
    assert_eq!(large(Quirks::default()), 1);
    assert_eq!(large(Quirks::like_vsftpd()), 1);
}

/// How many listings and single questions it takes to look at each of 300 names in `dir`, of many.
fn questions(server: &Ftpd, mount: &TestMount, dir: &str) -> (usize, usize) {
    server.clear_log();
    let look = format!(
        "import os\nnames = os.listdir('{dir}')\n\
         for name in names[::len(names) // 300]: os.stat('{dir}/' + name)"
    );
    mount.sh(&format!("python3 -c \"{look}\""));
    (server.count("MLSD"), server.count("MLST"))
}

#[test]
fn a_listing_that_takes_longer_than_it_is_believed_serves_all_the_same() {
    let server = Ftpd::with(Quirks::default().delay("MLSD", Duration::from_millis(700)));
    for number in 0..300 {
        server.put(format!("dir/file{number}"), "");
    }
    let Some(mount) = mounting(&server).option("dir_cache=300ms").start() else {
        return;
    };
    let (listings, singles) = questions(&server, &mount, "dir");
    assert!(listings <= 4, "{listings} listings");
    assert!(singles <= 12, "{singles} names asked for");
    mount.finish();
}

#[test]
fn a_directory_of_very_many_names_is_remembered() {
    let mut text = Vec::new();
    for n in 0..100_001 {
        writeln!(
            text,
            "type=file;size=1;modify=20240101000000; file-{n:06}\r"
        )
        .unwrap();
    }
    let mut quirks = Quirks::default();
    quirks.canned.push(("MLSD", "/huge".into(), text));
    let server = Ftpd::with(quirks);
    fs::create_dir(server.path("huge")).unwrap();
    let Some(mount) = mounting(&server).option("timeout=20s").start() else {
        return;
    };
    let (listings, singles) = questions(&server, &mount, "huge");
    assert!(listings <= 2, "{listings} listings");
    assert!(singles <= 4, "{singles} names asked for");
    mount.finish();
}

#[test]
fn programs_need_not_ask_every_file_for_what_no_server_has() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    server.put("file", "content");
    for name in ["security.selinux", "system.posix_acl_access"] {
        let ask = format!(
            "import errno, os\ntry: os.getxattr('file', '{name}')\n\
             except OSError as e: print(errno.errorcode[e.errno])"
        );
        assert_eq!(mount.sh(&format!("python3 -c \"{ask}\"")), "ENOTSUP\n");
    }
    mount.finish();
}

#[test]
fn answers_from_memory_cost_nothing() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    server.put("dir/file", "content");
    mount.sh("ls -l dir");
    server.clear_log();
    mount.sh("ls -l dir; stat dir/file; stat dir; test ! -e dir/missing");
    // As `ls -l` of coreutils 9.6 does, and every backup.
    let listed = "import os, sys\nfor name in sys.argv[1:]: print(os.listxattr(name))";
    let (dir, file) = (mount.path("dir"), mount.path("dir/file"));
    let ask = format!(
        "cd / && python3 -c \"{listed}\" {} {}",
        dir.display(),
        file.display()
    );
    assert_eq!(mount.sh(&ask), "[]\n[]\n");
    assert_eq!(server.commands(), Vec::<String>::new());
    mount.finish();
}

#[test]
fn hostile_names_neither_panic_nor_escape() {
    for mlsd in [true, false] {
        let quirks = if mlsd {
            Quirks::default()
        } else {
            Quirks::like_vsftpd()
        };
        let server = Ftpd::with(Quirks {
            ghosts: vec![
                b"../up".to_vec(),
                b"/etc/passwd".to_vec(),
                b"dir/file".to_vec(),
                b"nul\0byte".to_vec(),
                b"line\nfeed".to_vec(),
                b"carriage\rreturn".to_vec(),
                vec![b'n'; 300],
                b".".to_vec(),
                b"..".to_vec(),
                b"".to_vec(),
                b"\xff\xfe\x80".to_vec(),
                b"fine".to_vec(),
            ],
            ..quirks
        });
        server.put("dir/real", "content");
        // It may say that names were dropped.
        let Some(mount) = mounting(&server).expect_log("").start() else {
            return;
        };
        let dir = mount.path("dir");
        let seen: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        for name in &seen {
            let bytes = name.as_encoded_bytes();
            assert!(bytes.len() <= 255 && !bytes.is_empty(), "{name:?}");
            assert!(!bytes.iter().any(|b| b"/\0\n\r".contains(b)), "{name:?}");
        }
        assert!(
            seen.contains(&"real".into()) && seen.contains(&"fine".into()),
            "{seen:?}"
        );
        assert!(
            !seen.contains(&"..".into()) && !seen.contains(&"passwd".into()),
            "{seen:?}"
        );
        assert_eq!(fs::read(dir.join("real")).unwrap(), b"content");
        mount.sh("ls -laR >/dev/null || true; test ! -e dir/../up");
        mount.finish();
    }
}

#[test]
fn rubbish_is_no_listing_and_no_end() {
    let server = Ftpd::start();
    server.put("fine/file", "x");
    fs::create_dir(server.path("rubbish")).unwrap();
    let rubbish: Vec<u8> = super::bytes(1_000_000);
    let line = [vec![b'x'; 3_000_000], b"\r\n".to_vec()].concat();
    server.change(|quirks| {
        quirks
            .canned
            .push(("MLSD", "/rubbish".into(), rubbish.clone()));
        quirks.canned.push(("LIST", "/rubbish".into(), line));
    });
    let Some(mount) = mounting(&server).expect_log("").start() else {
        return;
    };
    // Whatever it is: an error or names, but soon.
    mount.within(Duration::from_secs(10), || {
        fs::read_dir(mount.path("rubbish"))
            .map(Iterator::count)
            .ok()
    });
    assert_eq!(fs::read(mount.path("fine/file")).unwrap(), b"x");
    mount.finish();
}

#[test]
fn other_dialects_say_the_same() {
    for dialect in [Dialect::Unix, Dialect::UnixWithoutGroup, Dialect::Dos] {
        let server = Ftpd::with(Quirks {
            dialect,
            ..Quirks::like_vsftpd()
        });
        let file = server.put("dir/a file", "12345");
        server.put("dir/sub/x", "");
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        let about = mount.path("dir/a file").metadata().unwrap();
        assert_eq!((about.len(), about.is_file()), (5, true));
        let apart = about.mtime() - file.metadata().unwrap().mtime();
        assert!(apart.abs() < 60, "{apart} seconds");
        assert!(mount.path("dir/sub").is_dir());
        assert_eq!(mount.sh("ls dir"), "a file\nsub\n");
        mount.finish();
    }
}

#[test]
fn dash_a_may_be_a_mask_or_an_error() {
    let refused = DashA::Refused("550 No such file or directory.".into());
    for dash_a in [DashA::Option, DashA::Mask, refused] {
        let hides = matches!(dash_a, DashA::Option);
        let server = Ftpd::with(Quirks {
            dash_a,
            hides_dot_files: hides,
            ..Quirks::like_vsftpd()
        });
        server.put("dir/file", "");
        server.put("dir/.hidden", "");
        fs::create_dir(server.path("empty")).unwrap();
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        assert_eq!(
            mount.sh("ls -A dir empty"),
            "dir:\n.hidden\nfile\n\nempty:\n"
        );
        mount.finish();
    }
}

#[test]
fn missing_and_empty_directories_are_told_apart() {
    for empty in [
        None,
        Some("450 No files found."),
        Some("550 No files found."),
        Some("226 Nothing."),
    ] {
        for base in [Quirks::default(), Quirks::like_vsftpd()] {
            let server = Ftpd::with(Quirks {
                missing_is_empty: empty.is_none(),
                empty_listing: empty.map(str::to_owned),
                mlsd_dots: false,
                ..base
            });
            fs::create_dir(server.path("empty")).unwrap();
            let Some(mount) = mounting(&server).start() else {
                return;
            };
            let listed = fs::read_dir(mount.path("empty"));
            let listed = listed.unwrap_or_else(|err| panic!("{empty:?}: {err}"));
            assert_eq!(listed.count(), 0, "{empty:?}");
            for missing in ["missing", "empty/missing", "missing/below"] {
                let err = fs::metadata(mount.path(missing)).unwrap_err();
                assert_eq!(err.kind(), ErrorKind::NotFound, "{empty:?} {missing}");
            }
            mount.finish();
        }
    }
}

#[test]
fn local_times_in_listings_become_utc() {
    for hours in [-5, 2, 9] {
        let server = Ftpd::with(Quirks {
            list_time_offset: hours * 3600,
            ..Quirks::like_vsftpd()
        });
        let now = SystemTime::now();
        for (name, age) in [("new", 600), ("older", 86_400 * 3)] {
            let path = server.put(name, "x");
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        for name in ["new", "older"] {
            let there = server.path(name).metadata().unwrap().mtime();
            let apart = mount.path(name).metadata().unwrap().mtime() - there;
            assert!(
                apart.abs() <= 60,
                "{name} is {apart} seconds off at {hours} hours"
            );
        }
        mount.finish();
    }
}

#[test]
fn links_are_links_however_they_are_told() {
    use crate::support::ftpd::MlsdLinks;
    for links in [Some(MlsdLinks::Target), Some(MlsdLinks::Bare), None] {
        let server = Ftpd::with(match links {
            Some(mlsd_links) => Quirks {
                mlsd_links,
                ..Quirks::default()
            },
            None => Quirks::like_vsftpd(),
        });
        server.put("dir/file", "content");
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, server.path(name)).unwrap();
        };
        link("file", "dir/link");
        link("nowhere", "dir/dangling");
        link("/etc/passwd", "dir/out");
        link("../../../../../../etc/passwd", "dir/far");
        let Some(mount) = mounting(&server).expect_log("").start() else {
            return;
        };
        assert!(
            mount
                .path("dir/link")
                .symlink_metadata()
                .unwrap()
                .is_symlink()
        );
        assert_eq!(fs::read(mount.path("dir/link")).unwrap(), b"content");
        assert_eq!(
            fs::read_link(mount.path("dir/link")).unwrap().as_os_str(),
            "file"
        );
        assert_eq!(
            fs::read_link(mount.path("dir/dangling"))
                .unwrap()
                .as_os_str(),
            "nowhere"
        );
        // They do not lead out of the mount.
        for name in ["dir/out", "dir/far"] {
            assert!(fs::read(mount.path(name)).is_err(), "{name} was followed");
        }
        mount.finish();
    }
}

#[test]
fn the_first_look_at_a_name_is_the_listing_that_a_server_without_mlst_is_asked_for_anyway() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    server.put("one/f", "content");
    server.put("two/f", "content");
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    server.clear_log();
    assert!(fs::metadata(mount.path("one")).unwrap().is_dir());
    let (listings, single) = asked(&server);
    // Once by LIST, once by STAT, to compare them.
    assert!(listings <= 2 && single == 0, "{:?}", server.commands());
    server.clear_log();
    assert!(fs::metadata(mount.path("two")).unwrap().is_dir());
    let absent = fs::metadata(mount.path("three")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert_eq!(asked(&server), (0, 0), "{:?}", server.commands());
    mount.finish();
}
