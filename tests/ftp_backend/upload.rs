//! Uploads: nothing is seen before it is whole, nothing is lost when it fails.

use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::options::UploadMode;
use ferryfs::vfs::backend::{Backend, Need, Publish, Replaces};
use ferryfs::vfs::error::ErrorKind;

use super::server::{Kind, Server};
use super::{get, moment, names, path, put};

const MODERN: Kind = Kind {
    modern: true,
    vague: false,
    dash_a_is_a_pattern: false,
    no_rename_over: false,
    hours_ahead: 0,
};

/// Waits for what a helper thread does.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(5), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_new_content_replaces_the_old_in_one_step_with_its_time_set() {
    for modern in [true, false] {
        let server = Server::start(Kind { modern, ..MODERN });
        server.file("/f", "old");
        let backend = server.mount();
        let mut upload = backend
            .transfers()
            .store(&path("f"), Replaces::Anything, true)
            .unwrap();
        upload.write(b"new content").unwrap();
        assert_eq!(server.content("/f").unwrap(), "old");
        assert_eq!(names(&backend, ""), ["f"], "the temporary name is hidden");
        let what = Publish {
            size: 11,
            mtime: Some(moment()),
            mode: None,
            new: false,
            replaces: Replaces::Anything,
        };
        let attr = upload.publish(&path("f"), &what).unwrap();
        assert_eq!((attr.size, attr.mtime), (Some(11), Some(moment())));
        assert_eq!(server.content("/f").unwrap(), "new content");
        assert_eq!(server.state().times["/f"], "20231114221327");
        assert_eq!(server.names(), ["/f"]);
    }
}

#[test]
fn a_file_renamed_while_it_was_written_gets_its_new_name() {
    let server = Server::start(MODERN);
    let backend = server.mount();
    let upload = backend
        .transfers()
        .store(&path("a"), Replaces::Anything, true)
        .unwrap();
    let what = Publish {
        size: 0,
        mtime: None,
        mode: None,
        new: false,
        replaces: Replaces::Anything,
    };
    upload.publish(&path("b"), &what).unwrap();
    assert_eq!(server.names(), ["/b"]);
}

#[test]
fn where_rnto_does_not_replace_the_old_file_goes_aside() {
    let server = Server::start(Kind {
        no_rename_over: true,
        ..MODERN
    });
    server.file("/f", "old");
    let backend = server.mount();
    for content in ["second", "third"] {
        put(&backend, "f", content).unwrap();
        assert_eq!(server.content("/f").unwrap(), content);
        assert_eq!(server.names(), ["/f"]);
    }
    put(&backend, "new", "new").unwrap();
    assert_eq!(server.names(), ["/f", "/new"]);
}

#[test]
fn the_old_file_comes_back_if_the_new_one_cannot_take_its_place() {
    let server = Server::start(Kind {
        no_rename_over: true,
        ..MODERN
    });
    server.file("/f", "old");
    server.state().refuse_after = Some((1, "RNTO /f".into(), "550 Rename failed.".into()));
    put(&server.mount(), "f", "new").unwrap_err();
    assert_eq!(server.content("/f").unwrap(), "old");
    assert_eq!(server.names(), ["/f"]);
}

#[test]
fn an_old_file_that_cannot_even_come_back_is_named_and_restored_later() {
    let server = Server::start(Kind {
        no_rename_over: true,
        ..MODERN
    });
    server
        .file("/f", "old")
        .refuse("RNTO /f", "550 Rename failed.");
    let backend = server.mount();
    let err = put(&backend, "f", "new").unwrap_err();
    assert!(
        err.to_string().contains("old version kept as /.ferryfs-"),
        "{err}"
    );
    let kept = server.names();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(server.content(&kept[0]).unwrap(), "old");
    assert_eq!(names(&backend, "").len(), 1, "everyone can see it");
    server.state().refuse.clear();
    put(&backend, "g", "other").unwrap();
    assert_eq!(server.content("/f").unwrap(), "old");
    assert_eq!(server.names(), ["/f", "/g"]);
}

#[test]
fn every_refusal_leaves_the_old_version_and_no_litter() {
    let refusals: [(&str, &str, ErrorKind); 4] = [
        ("STOR", "552 Disk full", ErrorKind::NoSpace),
        ("STOR", "552 Quota exceeded", ErrorKind::QuotaExceeded),
        (
            "STOR",
            "550 Permission denied.",
            ErrorKind::PermissionDenied,
        ),
        ("RNTO", "550 a: No space left on device", ErrorKind::NoSpace),
    ];
    for (command, reply, kind) in refusals {
        let server = Server::start(MODERN);
        server.file("/f", "old").refuse(command, reply);
        let err = put(&server.mount(), "f", "new").unwrap_err();
        assert_eq!(err.kind(), kind, "{command} {reply}: {err}");
        assert_eq!(server.content("/f").unwrap(), "old");
        assert_eq!(server.names(), ["/f"], "{command} {reply}");
    }
}

#[test]
fn a_full_disk_found_at_the_end_is_told() {
    let server = Server::start(MODERN);
    server.file("/f", "old");
    for reply in [
        "452 Insufficient storage space",
        "451 Failure writing to local file.",
    ] {
        server.state().store_reply = Some(reply.into());
        let err = put(&server.mount(), "f", "new").unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NoSpace, "{reply}");
    }
    assert_eq!(
        (server.names(), server.content("/f").unwrap()),
        (vec!["/f".into()], "old".into())
    );
}

#[test]
fn a_wrong_size_is_never_published() {
    let server = Server::start(MODERN);
    server.file("/f", "old content");
    server.state().stores_short_by = 1;
    let err = put(&server.mount(), "f", "new").unwrap_err();
    assert!(err.to_string().contains("2 of 3 bytes"), "{err}");
    assert_eq!(server.names(), ["/f"]);
    assert_eq!(server.content("/f").unwrap(), "old content");
}

#[test]
fn an_answer_lost_at_any_step_does_not_lose_the_file() {
    let steps = [
        "STOR",
        "SIZE /.ferryfs",
        "MFMT",
        "RNFR",
        "RNTO /f",
        "RNTO /.ferryfs",
        "DELE",
    ];
    for no_rename_over in [false, true] {
        for step in steps {
            let server = Server::start(Kind {
                no_rename_over,
                ..MODERN
            });
            server.file("/f", "old");
            let backend = server.mount();
            put(&backend, "f", "second").unwrap();
            server.state().hang_up_after = Some(step.into());
            put(&backend, "f", "third one").unwrap();
            assert_eq!(server.content("/f").unwrap(), "third one", "{step}");
            assert_eq!(server.state().times["/f"], "20231114221327", "{step}");
            // What is left over is removed when the connection is back.
            put(&backend, "g", "x").unwrap();
            assert_eq!(server.names(), ["/f", "/g"], "{step} {no_rename_over}");
        }
    }
}

#[test]
fn an_abandoned_upload_leaves_nothing() {
    let server = Server::start(MODERN);
    server.file("/f", "old");
    let backend = server.mount();
    let mut upload = backend
        .transfers()
        .store(&path("f"), Replaces::Anything, true)
        .unwrap();
    upload.write(b"half of it").unwrap();
    drop(upload);
    eventually("the temporary file is gone", || server.names() == ["/f"]);
    assert_eq!(server.content("/f").unwrap(), "old");
}

#[test]
fn an_abandoned_download_gives_its_session_back() {
    let server = Server::start(MODERN);
    server.file("/f", &"x".repeat(10_000_000));
    let backend = server.mount();
    let mut download = backend
        .transfers()
        .retrieve(&path("f"), 0, Need::Stream { wait: true })
        .unwrap();
    download.read(&mut [0; 10]).unwrap();
    let begin = Instant::now();
    drop(download);
    assert!(begin.elapsed() < Duration::from_millis(500));
    eventually("the session is back", || {
        backend.report().connections.transfers == 0
    });
    assert_eq!(backend.stat(&path("f")).unwrap().size, Some(10_000_000));
}

#[test]
fn where_dot_files_are_refused_temporary_names_end_in_a_tilde() {
    let server = Server::start(MODERN);
    server
        .file("/f", "old")
        .refuse("STOR /.", "553 Prohibited file name");
    let backend = server.mount();
    put(&backend, "f", "new").unwrap();
    assert_eq!(server.count("STOR /f.ferryfs-"), 1);
    put(&backend, "f", "newer").unwrap();
    assert_eq!(
        (server.count("STOR /."), server.content("/f").unwrap()),
        (1, "newer".into())
    );
}

#[test]
fn a_directory_without_temporary_names_does_not_cost_the_old_versions_of_others() {
    let server = Server::start(MODERN);
    server
        .dir("/drop")
        .file("/f", "old")
        .refuse("STOR /drop/.", "553 Prohibited file name")
        .refuse("STOR /drop/a.ferryfs-", "553 Prohibited file name")
        .refuse("STOR /drop/b.ferryfs-", "553 Prohibited file name");
    let backend = server.mount();
    put(&backend, "drop/a", "dropped").unwrap();
    assert_eq!(server.content("/drop/a").unwrap(), "dropped");
    put(&backend, "drop/b", "too").unwrap();
    let tried = server.count("STOR /drop/");
    assert_eq!(tried, 4, "what is known of that directory is used");
    let mut upload = backend
        .transfers()
        .store(&path("f"), Replaces::Anything, true)
        .unwrap();
    upload.write(b"half of it").unwrap();
    drop(upload);
    eventually("the upload is given up", || {
        backend.report().connections.transfers == 0
    });
    assert_eq!(server.content("/f").unwrap(), "old");
    put(&backend, "f", "new").unwrap();
    assert_eq!(server.count("STOR /f"), 0);
}

#[test]
fn where_nothing_may_be_renamed_files_are_stored_in_place() {
    let server = Server::start(MODERN);
    server
        .file("/f", "old")
        .refuse("RNFR", "550 Permission denied.");
    let backend = server.mount();
    put(&backend, "f", "new").unwrap();
    put(&backend, "g", "other").unwrap();
    assert_eq!(server.names(), ["/f", "/g"]);
    assert_eq!(server.count("STOR /."), 0);
}

#[test]
fn guests_store_new_names_directly_and_replace_old_ones_safely() {
    for modern in [true, false] {
        let server = Server::start(Kind { modern, ..MODERN });
        let mut options = server.options();
        options.user = "anonymous".into();
        let backend = server.mount_with(options);
        put(&backend, "f", "first").unwrap();
        assert_eq!((server.count("STOR /f"), server.count("LIST")), (1, 0));
        put(&backend, "f", "second").unwrap();
        assert_eq!(server.count("STOR /f"), 1);
        put(&backend, "g", "third").unwrap();
        assert_eq!(server.count("STOR /g"), 1);
        assert_eq!(server.names(), ["/f", "/g"]);
    }
}

#[test]
fn a_direct_upload_that_fails_removes_only_what_is_new() {
    let server = Server::start(MODERN);
    server.state().store_reply = Some("451 failed".into());
    let mut options = server.options();
    options.upload = UploadMode::Direct;
    let backend = server.mount_with(options);
    put(&backend, "new", "x").unwrap_err();
    assert_eq!(server.names(), Vec::<String>::new());
}

#[test]
fn the_tail_is_appended_only_to_the_file_it_belongs_to() {
    let server = Server::start(MODERN);
    server.file("/f", "head");
    let backend = server.mount();
    let append = |base| backend.transfers().append(&path("f"), base);
    let mut upload = append(4).unwrap();
    upload.write(b" and tail").unwrap();
    let what = Publish {
        size: 13,
        mtime: Some(moment()),
        mode: None,
        new: false,
        replaces: Replaces::Anything,
    };
    upload.publish(&path("f"), &what).unwrap();
    assert_eq!(get(&backend, "f", 0).unwrap(), "head and tail");
    assert_eq!(append(4).err().unwrap().kind(), ErrorKind::Stale);
    server.refuse("APPE", "550 /append: Permission denied");
    let err = append(13).err().unwrap();
    assert_eq!(err.kind(), ErrorKind::PermissionDenied);
    for words in [
        "502 no",
        "451 /f: Append/Restart not permitted, try again",
        "553 Overwrite permission denied",
    ] {
        server.state().refuse.clear();
        server.refuse("APPE", words);
        let backend = server.mount();
        let before = server.count("APPE");
        for _ in 0..2 {
            let refused = backend.transfers().append(&path("f"), 13);
            assert_eq!(refused.err().unwrap().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(server.count("APPE") - before, 1, "{words}");
    }
}

#[test]
fn a_missing_directory_is_told_when_the_upload_begins() {
    for modern in [true, false] {
        let server = Server::start(Kind { modern, ..MODERN });
        server.file("/f", "x");
        let store = |at| {
            server
                .mount()
                .transfers()
                .store(&path(at), Replaces::Anything, true)
                .err()
                .unwrap()
                .kind()
        };
        assert_eq!(store("missing/f"), ErrorKind::NotFound);
        assert_eq!(store("f/g"), ErrorKind::NotADirectory);
    }
}

#[test]
fn names_that_the_server_would_change_are_refused_before_harm_is_done() {
    let server = Server::start(MODERN);
    server
        .file("/f_", "someone's")
        .refuse("MKD", "257 \"/.ferryfs-1.try_\" created");
    let backend = server.mount();
    assert_eq!(
        put(&backend, "f ", "x").unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        backend.mkdir(&path("d "), None).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        (server.names(), server.count("MKD")),
        (vec!["/f_".to_owned()], 1)
    );
}
