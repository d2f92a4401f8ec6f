//! mkdir, rmdir, unlink, rename, and setting attributes.

use ferryfs::ftp::options::ChmodPolicy;
use ferryfs::vfs::attr::SetAttr;
use ferryfs::vfs::backend::{Backend, Replaces};
use ferryfs::vfs::error::ErrorKind;

use super::server::{Kind, Server};
use super::{moment, path};

const MODERN: Kind = Kind {
    modern: true,
    vague: true,
    dash_a_is_a_pattern: false,
    no_rename_over: false,
    hours_ahead: 0,
};

fn time() -> SetAttr {
    SetAttr {
        mtime: Some(moment()),
        mode: None,
    }
}

fn mode() -> SetAttr {
    SetAttr {
        mtime: None,
        mode: Some(0o600),
    }
}

#[test]
fn a_bare_550_is_explained_by_what_is_there() {
    for modern in [true, false] {
        let server = Server::start(Kind { modern, ..MODERN });
        server.dir("/d").file("/d/f", "x").dir("/empty");
        let b = server.mount();
        let kind = |result: ferryfs::vfs::error::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(b.mkdir(&path("d"), None)), ErrorKind::Exists);
        assert_eq!(kind(b.mkdir(&path("d/f"), None)), ErrorKind::Exists);
        assert_eq!(kind(b.mkdir(&path("no/d"), None)), ErrorKind::NotFound);
        assert_eq!(
            kind(b.mkdir(&path("d/f/g"), None)),
            ErrorKind::NotADirectory
        );
        assert_eq!(kind(b.rmdir(&path("d"))), ErrorKind::NotEmpty);
        assert_eq!(kind(b.rmdir(&path("d/f"))), ErrorKind::NotADirectory);
        assert_eq!(kind(b.rmdir(&path("no"))), ErrorKind::NotFound);
        assert_eq!(kind(b.unlink(&path("d"))), ErrorKind::IsADirectory);
        assert_eq!(kind(b.unlink(&path("d/no"))), ErrorKind::NotFound);
        assert_eq!(
            kind(b.rename(&path("no"), &path("x"), Replaces::Anything)),
            ErrorKind::NotFound
        );
        assert_eq!(
            kind(b.rename(&path("d/f"), &path("no/x"), Replaces::Anything)),
            ErrorKind::NotFound
        );
        assert_eq!(
            kind(b.rename(&path("d"), &path("d/e"), Replaces::Anything)),
            ErrorKind::Invalid
        );
        assert_eq!(kind(b.set_attr(&path("no"), &time())), ErrorKind::NotFound);
        server
            .refuse("RMD", "550 No.")
            .refuse("DELE", "550 No.")
            .refuse("MKD", "550 No.");
        assert_eq!(kind(b.rmdir(&path("empty"))), ErrorKind::PermissionDenied);
        assert_eq!(kind(b.unlink(&path("d/f"))), ErrorKind::PermissionDenied);
        assert_eq!(kind(b.mkdir(&path("x"), None)), ErrorKind::PermissionDenied);
    }
}

#[test]
fn rename_replaces_files_and_empty_directories_only() {
    for no_rename_over in [false, true] {
        let server = Server::start(Kind {
            no_rename_over,
            ..MODERN
        });
        server
            .file("/a", "a")
            .file("/b", "b")
            .dir("/d")
            .dir("/e")
            .dir("/full")
            .file("/full/x", "x");
        let b = server.mount();
        b.rename(&path("a"), &path("b"), Replaces::Anything)
            .unwrap();
        assert_eq!(server.content("/b").unwrap(), "a");
        b.rename(&path("d"), &path("e"), Replaces::Anything)
            .unwrap();
        let kind = |from, to| {
            b.rename(&path(from), &path(to), Replaces::Anything)
                .unwrap_err()
                .kind()
        };
        assert_eq!(kind("e", "full"), ErrorKind::NotEmpty);
        assert_eq!(kind("e", "b"), ErrorKind::NotADirectory);
        assert_eq!(kind("b", "e"), ErrorKind::IsADirectory);
        assert_eq!(server.names(), ["/b", "/e", "/full", "/full/x"]);
    }
}

#[test]
fn a_lost_answer_is_looked_for_and_nothing_is_done_twice() {
    let server = Server::start(MODERN);
    server.dir("/d").file("/f", "x").file("/g", "y");
    let b = server.mount();
    let hang_up = |line: &str| server.state().hang_up_after = Some(line.into());
    hang_up("MKD");
    b.mkdir(&path("new"), Some(0o700)).unwrap();
    assert_eq!(server.count("SITE CHMOD 700 "), 1);
    hang_up("RMD");
    b.rmdir(&path("d")).unwrap();
    hang_up("DELE");
    b.unlink(&path("f")).unwrap();
    hang_up("RNTO");
    b.rename(&path("g"), &path("h"), Replaces::Anything)
        .unwrap();
    for verb in ["MKD", "RMD", "DELE", "RNTO"] {
        assert_eq!(server.count(verb), 1, "{verb}");
    }
    assert_eq!(server.names(), ["/h", "/new"]);
}

#[test]
fn reading_work_is_repeated_on_another_connection() {
    let server = Server::start(MODERN);
    server.dir("/d").file("/d/f", "x");
    let b = server.mount();
    for verb in ["MLSD", "MLST", "EPSV"] {
        server.state().hang_up_after = Some(verb.into());
        assert_eq!(b.list(&path("d")).unwrap().len(), 1, "{verb}");
        assert!(b.stat(&path("d/f")).is_ok(), "{verb}");
    }
}

#[test]
fn an_odd_reply_is_not_believed() {
    let server = Server::start(MODERN);
    server.refuse("MKD", "200 sure");
    let err = server.mount().mkdir(&path("d"), None).unwrap_err();
    assert!(err.to_string().contains("nothing happened"), "{err}");
}

#[test]
fn times_are_set_with_whatever_command_there_is_and_it_is_remembered() {
    for (modern, command) in [(true, "MFMT"), (false, "MDTM 2023")] {
        let server = Server::start(Kind { modern, ..MODERN });
        server.file("/f", "x");
        let b = server.mount();
        for _ in 0..2 {
            b.set_attr(&path("f"), &time()).unwrap();
        }
        assert_eq!(server.state().times["/f"], "20231114221327");
        assert_eq!(
            (server.count(command), server.count("SITE")),
            (2, if modern { 0 } else { 2 })
        );
        assert_eq!(b.stat(&path("f")).unwrap().mtime, Some(moment()));
    }
}

#[test]
fn a_refused_time_is_explained_by_the_command_that_is_known() {
    let server = Server::start(MODERN);
    server
        .file("/f", "x")
        .refuse("MFMT", "501 /f: Operation not permitted")
        .refuse("SITE", "500 no")
        .refuse(
            "MDTM 2023",
            "550 20231114221327 /f: No such file or directory",
        );
    let err = server.mount().set_attr(&path("f"), &time()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_server_that_sets_no_times_says_so_unless_the_time_is_right_anyway() {
    let server = Server::start(MODERN);
    server
        .file("/f", "x")
        .refuse("MFMT", "500 no")
        .refuse("MDTM 2023", "500 no");
    let b = server.mount();
    let err = b.set_attr(&path("f"), &time()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unsupported);
    server
        .state()
        .times
        .insert("/f".into(), "20231114221326".into());
    b.set_attr(&path("f"), &time()).unwrap();
    assert_eq!(server.count("MFMT"), 1);
}

#[test]
fn a_command_that_pretends_to_set_times_is_found_out() {
    let server = Server::start(MODERN);
    server
        .file("/f", "x")
        .refuse("MFMT", "213 Modify=20231114221327; /f");
    let b = server.mount();
    assert!(b.set_attr(&path("f"), &time()).is_err());
}

#[test]
fn a_directory_keeps_its_time_for_the_mount_where_the_server_sets_none() {
    let server = Server::start(Kind {
        modern: false,
        ..MODERN
    });
    server.dir("/d");
    let b = server.mount();
    b.set_attr(&path("d"), &time()).unwrap();
    let listed = b.list(&path("")).unwrap();
    assert_eq!(listed[0].attr.mtime, Some(moment()));
}

#[test]
fn chmod_is_strict_or_ignored() {
    let server = Server::start(MODERN);
    server.file("/f", "x");
    let strict = server.mount();
    for _ in 0..2 {
        let err = strict.set_attr(&path("f"), &mode()).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(server.count("SITE CHMOD 600 /f"), 1);
    let mut options = server.options();
    options.chmod = ChmodPolicy::Ignore;
    server
        .mount_with(options)
        .set_attr(&path("f"), &mode())
        .unwrap();
}

#[test]
fn links_are_made_only_where_the_server_offers_it() {
    let server = Server::start(MODERN);
    let err = server.mount().symlink(b"f", &path("l")).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotPermitted);
}

#[test]
fn the_last_refusal_is_an_attribute() {
    let server = Server::start(MODERN);
    server.file("/f", "x").refuse("DELE", "550 Not today.");
    let b = server.mount();
    b.unlink(&path("f")).unwrap_err();
    let asked = server.count("");
    let (name, value) = ("user.ftp.reply".to_owned(), b"DELE /f: 550 Not today.");
    let listed = b.xattrs(&path("f")).unwrap();
    assert_eq!(listed, [(name, value.to_vec())]);
    assert_eq!(server.count(""), asked);
    let facts = b.xattr(&path("f"), "user.ftp.facts").unwrap();
    assert!(facts.starts_with(b"type=file;size=1;"));
    assert_eq!(
        b.xattr(&path("f"), "user.ftp.sha256").unwrap_err().kind(),
        ErrorKind::NoData
    );
}
