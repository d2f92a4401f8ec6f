//! `list`, `stat` and `read_link`.

use std::time::{Duration, UNIX_EPOCH};

use ferryfs::ftp::options::{LinkPolicy, ListingMode};
use ferryfs::vfs::attr::FileKind;
use ferryfs::vfs::backend::Backend;
use ferryfs::vfs::error::ErrorKind;
use ferryfs::vfs::path::RemotePath;

use super::server::{Kind, Server};
use super::{get, names, path, put};

const VSFTPD: Kind = Kind {
    modern: false,
    vague: true,
    dash_a_is_a_pattern: false,
    no_rename_over: false,
    hours_ahead: 0,
};
const MODERN: Kind = Kind {
    modern: true,
    ..VSFTPD
};

#[test]
fn a_missing_directory_and_a_file_are_told_from_an_empty_directory() {
    for kind in [
        VSFTPD,
        MODERN,
        Kind {
            vague: false,
            ..VSFTPD
        },
    ] {
        let server = Server::start(kind);
        server.dir("/d").file("/f", "x");
        let backend = server.mount();
        assert!(backend.list(&path("d")).unwrap().is_empty());
        let err = |at| backend.list(&path(at)).unwrap_err().kind();
        assert_eq!(err("missing"), ErrorKind::NotFound, "{kind:?}");
        assert_eq!(err("missing/deep/down"), ErrorKind::NotFound, "{kind:?}");
        assert_eq!(err("f"), ErrorKind::NotADirectory, "{kind:?}");
        let err = |at| backend.stat(&path(at)).unwrap_err().kind();
        assert_eq!(err("missing"), ErrorKind::NotFound, "{kind:?}");
        assert_eq!(err("d/missing"), ErrorKind::NotFound, "{kind:?}");
    }
}

#[test]
fn no_files_found_is_an_empty_directory_and_no_error() {
    for reply in ["450 No files found.", "550 No files found.", "450 Hm."] {
        for (kind, verb) in [(MODERN, "MLSD /d"), (VSFTPD, "LIST")] {
            let server = Server::start(kind);
            server.dir("/d").file("/f", "x").refuse(verb, reply);
            let backend = server.mount();
            assert!(backend.list(&path("d")).unwrap().is_empty(), "{reply}");
            let err = backend.list(&path("missing")).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::NotFound, "{reply}");
        }
    }
    let server = Server::start(MODERN);
    server
        .dir("/d")
        .refuse("MLSD /d", "450 The directory is locked");
    let err = server.mount().list(&path("d")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Busy);
}

#[test]
fn a_directory_that_cannot_be_read_is_not_empty() {
    for reply in [
        "550 Failed to open directory.",
        "450 Input/output error",
        "550 /d: Too many open files",
        "501 Syntax error in parameters.",
    ] {
        let server = Server::start(VSFTPD);
        server.dir("/d").refuse("LIST", reply);
        let listed = server.mount().list(&path("d"));
        assert!(listed.is_err(), "{reply}: {listed:?}");
    }
    let server = Server::start(MODERN);
    server.dir("/d").refuse("MLSD /d", "450 Input/output error");
    server.mount().list(&path("d")).unwrap_err();
    // In the middle of it.
    for kind in [VSFTPD, MODERN] {
        let server = Server::start(kind);
        server.dir("/d").file("/d/f", "x");
        server.state().list_reply = Some("450 Hm.".into());
        server.mount().list(&path("d")).unwrap_err();
    }
    // What vsftpd and Pure-FTPd say at the end.
    for (words, kind) in [
        (
            "226 Transfer done (but failed to open directory).",
            ErrorKind::PermissionDenied,
        ),
        (
            "226-Sorry, we were unable to read [.]\r\n226-Options: -a -l\r\n226 0 matches total",
            ErrorKind::PermissionDenied,
        ),
        ("226 Output truncated to 10000 matches", ErrorKind::Protocol),
    ] {
        for kind_of_server in [VSFTPD, MODERN] {
            let server = Server::start(kind_of_server);
            server.dir("/d").file("/d/f", "x");
            server.state().list_reply = Some(words.into());
            let listed = server.mount().list(&path("d"));
            assert_eq!(listed.unwrap_err().kind(), kind, "{words}");
        }
    }
}

#[test]
fn a_directory_that_does_not_even_show_itself_cannot_be_read() {
    let server = Server::start(VSFTPD);
    server.dir("/d");
    let own = "drwxr-x---    2 0        0            4096 Jan 02  2020 .\r\n";
    server.state().listing = Some(own.into());
    let backend = server.mount();
    assert!(backend.list(&path("")).unwrap().is_empty());
    // ProFTPD shows nothing of it, vsftpd the directory as if it were in itself.
    for shown in [
        "",
        "d-wx--x--x    2 0        0            4096 Jan 02  2020 d\r\n",
    ] {
        server.state().listing = Some(shown.into());
        let err = backend.list(&path("d")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::PermissionDenied, "{shown:?}");
    }
}

#[test]
fn a_name_that_ends_in_a_dot_is_not_the_directory_itself() {
    let server = Server::start(VSFTPD);
    server.dir("/d").dir("/x .");
    let backend = server.mount();
    assert_eq!(names(&backend, ""), ["d", "x ."]);
    // This server does not show `.`, and an empty directory is one.
    assert!(backend.list(&path("d")).unwrap().is_empty());
}

#[test]
fn a_missing_name_costs_a_question_or_two() {
    for (words, most) in [("550 x: No such file or directory", 1), ("550 No.", 3)] {
        let server = Server::start(MODERN);
        server.dir("/d").refuse("MLST /d/missing", words);
        let backend = server.mount();
        let before = server.state().heard.len();
        let err = backend.stat(&path("d/missing")).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound, "{words}");
        let asked = server.state().heard[before..].to_vec();
        assert!(asked.len() <= most, "{asked:?}");
    }
}

#[test]
fn the_root_has_the_time_that_its_own_line_tells() {
    let server = Server::start(VSFTPD);
    server.state().listing = Some(
        b"drwxr-x---    2 0        0            4096 Jan 02  2020 .\r\n\
          drwxr-xr-x    2 0        0            4096 Jan 02  2021 ..\r\n\
          -rw-r--r--    1 0        0               1 Jan 02  2022 f\r\n"
            .to_vec(),
    );
    let backend = server.mount();
    assert_eq!(backend.stat(&RemotePath::root()).unwrap().mtime, None);
    assert_eq!(names(&backend, ""), ["f"]);
    let root = backend.stat(&RemotePath::root()).unwrap();
    assert_eq!(
        root.mtime,
        ferryfs::ftp::listing::parse_time(b"20200102000000")
    );
    assert_eq!((root.mode, root.kind), (Some(0o750), FileKind::Directory));
}

#[test]
fn a_directory_with_only_a_file_of_its_own_name_is_one() {
    let server = Server::start(VSFTPD);
    server.dir("/d").file("/d/d", "x");
    assert_eq!(names(&server.mount(), "d"), ["d"]);
}

#[test]
fn dash_a_taken_for_a_pattern_is_noticed_and_remembered() {
    let server = Server::start(Kind {
        dash_a_is_a_pattern: true,
        ..VSFTPD
    });
    server.dir("/d").file("/d/f", "x");
    let backend = server.mount();
    assert_eq!(names(&backend, "d"), ["f"]);
    let tried = server.count("LIST -a");
    assert_eq!(names(&backend, "d"), ["f"]);
    assert_eq!(server.count("LIST -a"), tried);
}

#[test]
fn arguments_that_look_like_options_or_patterns_are_never_sent_with_list() {
    let server = Server::start(VSFTPD);
    for dir in ["/-rf", "/a b", "/x*", "/[y]"] {
        server.dir(dir).file(&format!("{dir}/f"), "x");
    }
    let backend = server.mount();
    for dir in ["-rf", "a b", "x*", "[y]"] {
        assert_eq!(names(&backend, dir), ["f"], "{dir}");
    }
    let odd = |line: &&String| line.starts_with("LIST") && line.contains(['*', '[', 'b', 'r']);
    assert_eq!(server.state().heard.iter().find(odd), None);
}

#[test]
fn a_listed_directory_costs_one_listing_and_no_command_for_a_file() {
    for kind in [VSFTPD, MODERN] {
        let server = Server::start(kind);
        server.dir("/d");
        for i in 0..200 {
            server.file(&format!("/d/{i}"), "x");
        }
        let backend = server.mount();
        assert_eq!(names(&backend, "").len(), 1);
        names(&backend, "d");
        let before = server.state().heard.len();
        assert_eq!(names(&backend, "d").len(), 200);
        assert_eq!(
            server.state().heard.len() - before,
            2,
            "EPSV and the listing"
        );
    }
}

#[test]
fn hostile_names_are_left_out() {
    let server = Server::start(MODERN);
    let mut listing = Vec::new();
    for name in ["../x", "/etc/passwd", "..", "a\0b", "", "good"] {
        listing.extend_from_slice(format!("type=file;size=1; {name}\r\n").as_bytes());
    }
    listing.extend_from_slice(format!("type=file;size=1; {}\r\n", "n".repeat(300)).as_bytes());
    listing.extend_from_slice(b"type=file;size=2; good\r\n");
    server.state().listing = Some(listing);
    assert_eq!(names(&server.mount(), ""), ["good"]);
}

#[test]
fn mlsd_that_hides_targets_is_completed_by_list() {
    let server = Server::start(Kind {
        vague: false,
        ..MODERN
    });
    server
        .dir("/d")
        .file("/d/f", "x")
        .link("/d/l", "f")
        .link("/d/out", "/../etc");
    server.link("/d/abs", "/d/f");
    let backend = server.mount();
    let entries = backend.list(&path("d")).unwrap();
    let link = entries
        .iter()
        .find(|entry| entry.name.as_bytes() == b"l")
        .unwrap();
    assert_eq!(link.attr.kind, FileKind::Symlink);
    assert_eq!(link.attr.target.as_deref(), Some(&b"f"[..]));
    let listings = server.count("LIST");
    assert_eq!(backend.read_link(&path("d/l")).unwrap(), b"f");
    assert_eq!(backend.read_link(&path("d/abs")).unwrap(), b"f");
    assert_eq!(
        server.count("LIST"),
        listings,
        "the listing told the targets"
    );
    assert_eq!(
        backend.read_link(&path("d/f")).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn links_that_leave_the_mount_are_refused_unless_raw() {
    let server = Server::start(VSFTPD);
    server
        .dir("/d")
        .link("/d/l", "/etc/passwd")
        .link("/d/up", "../../x");
    let mut options = server.options();
    options.directory = b"d".to_vec();
    let contained = server.mount_with(options.clone());
    for link in ["l", "up"] {
        let err = contained.read_link(&path(link)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotPermitted);
    }
    options.links = LinkPolicy::Raw;
    assert_eq!(
        server.mount_with(options).read_link(&path("l")).unwrap(),
        b"/etc/passwd"
    );
}

#[test]
fn links_are_shown_as_what_they_point_to_where_that_is_wanted() {
    for kind in [VSFTPD, MODERN] {
        let server = Server::start(kind);
        server
            .dir("/d")
            .file("/f", "four")
            .link("/lf", "f")
            .link("/ld", "/d")
            .link("/no", "gone");
        let mut options = server.options();
        options.links = LinkPolicy::Follow;
        let backend = server.mount_with(options);
        assert_eq!(names(&backend, ""), ["d", "f", "ld", "lf"], "{kind:?}");
        let lf = backend.stat(&path("lf")).unwrap();
        assert_eq!((lf.kind, lf.size), (FileKind::File, Some(4)));
        assert!(backend.stat(&path("ld")).unwrap().is_dir());
        assert_eq!(
            backend.stat(&path("no")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}

#[test]
fn names_are_bytes_unless_a_charset_is_given() {
    let server = Server::start(VSFTPD);
    // One character is one byte on that server.
    server.dir("/caf\u{e9}").file("/caf\u{e9}/x\u{fc}", "x");
    let backend = server.mount();
    let entries = backend
        .list(&RemotePath::parse(b"caf\xe9").unwrap())
        .unwrap();
    assert_eq!(entries[0].name.as_bytes(), b"x\xfc");
    let mut options = server.options();
    options.charset = Some(encoding_rs::WINDOWS_1252);
    let backend = server.mount_with(options);
    assert_eq!(names(&backend, "caf\u{e9}"), ["x\u{fc}"]);
    assert_eq!(get(&backend, "caf\u{e9}/x\u{fc}", 0).unwrap(), "x");
    put(&backend, "caf\u{e9}/\u{f6}", "y").unwrap();
    assert_eq!(server.content("/caf\u{e9}/\u{f6}").unwrap(), "y");
    assert_eq!(
        put(&backend, "\u{4e2d}", "z").unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn a_first_look_at_a_file_shows_the_right_time_already() {
    for hours_ahead in [-5, 2, 9] {
        let server = Server::start(Kind {
            hours_ahead,
            ..VSFTPD
        });
        let stamp = |days: u64| {
            let time = std::time::SystemTime::now() - Duration::from_secs(86_400 * days);
            format!("{}100000", &ferryfs::ftp::listing::format_time(time)[..8])
        };
        for (file, days) in [("/old", 400), ("/new", 2)] {
            server.file(file, "x");
            server.state().times.insert(file.into(), stamp(days));
        }
        for first in ["new", "old"] {
            let backend = server.mount();
            backend.stat(&path(first)).unwrap();
            let exact = ferryfs::ftp::listing::parse_time(stamp(2).as_bytes());
            assert_eq!(backend.stat(&path("new")).unwrap().mtime, exact, "{first}");
            assert_eq!(backend.report().time_offset, Some(hours_ahead * 3_600));
        }
    }
}

#[test]
fn list_times_are_corrected_by_the_offset_that_is_measured_once() {
    let server = Server::start(Kind {
        hours_ahead: 2,
        ..VSFTPD
    });
    server.dir("/d");
    let now = std::time::SystemTime::now() - Duration::from_secs(3600 * 40);
    let stamp = ferryfs::ftp::listing::format_time(now);
    // Noon, so that two hours more are the same day.
    let stamp = format!("{}120000", &stamp[..8]);
    for file in ["/d/a", "/d/b"] {
        server.file(file, "x");
        server.state().times.insert(file.into(), stamp.clone());
    }
    let backend = server.mount();
    let exact = ferryfs::ftp::listing::parse_time(stamp.as_bytes());
    for _ in 0..2 {
        let entries = backend.list(&path("d")).unwrap();
        assert!(
            entries.iter().all(|entry| entry.attr.mtime == exact),
            "{entries:?}"
        );
    }
    assert_eq!(server.count("MDTM"), 2);
    assert_eq!(backend.report().time_offset, Some(7_200));
}

#[test]
fn a_time_that_was_set_here_stays_exact_on_a_server_that_lists_minutes() {
    let server = Server::start(VSFTPD);
    let backend = server.mount();
    let set = put(&backend, "f", "content").unwrap();
    assert_eq!(
        set.mtime,
        Some(UNIX_EPOCH + Duration::from_secs(1_700_000_007))
    );
    let listed = backend.list(&path("")).unwrap();
    assert_eq!(
        (listed[0].attr.mtime, listed[0].attr.mtime_exact),
        (set.mtime, true)
    );
    assert_eq!(backend.stat(&path("f")).unwrap().mtime, set.mtime);
    server.file("/f", "another");
    let listed = backend.list(&path("")).unwrap();
    assert!(!listed[0].attr.mtime_exact, "somebody else wrote it");
}

#[test]
fn the_shown_time_is_the_same_in_stat_and_list() {
    let server = Server::start(VSFTPD);
    server.file("/f", "x");
    let backend = server.mount();
    let listed = backend.list(&path("")).unwrap()[0].attr.clone();
    let stated = backend.stat(&path("f")).unwrap();
    assert_eq!(listed.mtime, stated.mtime);
    server
        .state()
        .times
        .insert("/f".into(), "20240229123459".into());
    let changed = backend.stat(&path("f")).unwrap();
    assert_eq!(listed.mtime, changed.mtime);
    assert!(
        stated.differs_from(&changed),
        "three seconds later in the same minute"
    );
}

#[test]
fn exact_times_are_asked_where_the_user_wants_them() {
    let server = Server::start(VSFTPD);
    server.file("/f", "x").file("/g", "y");
    let mut options = server.options();
    options.exact_times = true;
    let listed = server.mount_with(options).list(&path("")).unwrap();
    let exact = ferryfs::ftp::listing::parse_time(b"20240229123456");
    assert!(
        listed
            .iter()
            .all(|entry| entry.attr.mtime == exact && entry.attr.mtime_exact)
    );
}

#[test]
fn a_forced_nlst_is_completed_by_size_and_mdtm() {
    let server = Server::start(VSFTPD);
    server.dir("/d").file("/f", "four");
    let mut options = server.options();
    options.listing = ListingMode::Nlst;
    let entries = server.mount_with(options).list(&path("")).unwrap();
    let kinds: Vec<_> = entries.iter().map(|e| (e.attr.kind, e.attr.size)).collect();
    assert_eq!(
        kinds,
        [(FileKind::Directory, None), (FileKind::File, Some(4))]
    );
}

#[test]
fn without_rest_a_read_begins_at_the_right_byte_all_the_same() {
    let server = Server::start(MODERN);
    server.file("/f", "0123456789").refuse("REST", "502 no");
    let backend = server.mount();
    assert_eq!(get(&backend, "f", 4).unwrap(), "456789");
    assert_eq!(get(&backend, "f", 9).unwrap(), "9");
    assert_eq!(server.count("REST"), 1);
}

#[test]
fn the_directory_of_the_url_must_be_one() {
    let server = Server::start(MODERN);
    server.dir("/d").file("/d/f", "x");
    let connect = |directory: &str| {
        let mut options = server.options();
        options.directory = directory.into();
        let staging = tempfile::tempdir().unwrap();
        let contents = ferryfs::vfs::content::Contents::new(staging.path(), 1 << 20).unwrap();
        ferryfs::ftp::FtpBackend::connect(options, contents)
    };
    assert!(connect("d").is_ok());
    let err = connect("d/f").unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotADirectory);
    let err = connect("nowhere").unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert!(err.to_string().starts_with("directory nowhere: "), "{err}");
}
