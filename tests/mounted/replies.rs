//! Servers that say things in their own way.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{bytes, mounting, stage};
use crate::support::ftpd::{Completion, Ftpd, Quirks};
use crate::support::mount::TestMount;

/// What every server must be good for.
fn works(server: &Ftpd, mount: &TestMount) {
    let content = bytes(150_000);
    server.put("dir/there", &content);
    assert!(fs::read(mount.path("dir/there")).unwrap() == content);
    fs::write(mount.path("dir/new"), &content).unwrap();
    assert!(server.get("dir/new") == content);
    fs::write(mount.path("dir/new"), "shorter").unwrap();
    assert_eq!(server.get("dir/new"), b"shorter");
    fs::rename(mount.path("dir/new"), mount.path("dir/moved")).unwrap();
    fs::create_dir(mount.path("dir/sub")).unwrap();
    assert_eq!(mount.sh("ls -A dir"), "moved\nsub\nthere\n");
    assert_eq!(fs::metadata(mount.path("dir/moved")).unwrap().len(), 7);
    fs::remove_dir(mount.path("dir/sub")).unwrap();
    fs::remove_file(mount.path("dir/moved")).unwrap();
    assert!(fs::metadata(mount.path("dir/moved")).is_err());
    assert_eq!(mount.sh("ls -A dir"), "there\n");
}

fn works_with(kind: &str, quirks: Quirks) {
    let Some((server, mount)) = stage(quirks) else {
        return;
    };
    // Tells which of several kinds it was, where a test fails.
    println!("a server that {kind}");
    works(&server, &mount);
    mount.finish();
}

#[test]
fn kinds_of_servers() {
    works_with("is plain", Quirks::default());
    works_with("is like vsftpd", Quirks::like_vsftpd());
    works_with("is like IIS", Quirks::like_iis());
    works_with("knows little", Quirks::like_a_router());
}

#[test]
fn over_ipv6() {
    let server = Ftpd::on(Ipv6Addr::LOCALHOST.into(), Quirks::default());
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    works(&server, &mount);
    mount.finish();
}

#[test]
fn transfers_end_in_many_words() {
    let ends = [
        ("says 226 twice", Completion::Twice),
        (
            "says 226 late",
            Completion::Late(Duration::from_millis(100)),
        ),
        (
            "says 226 early",
            Completion::Early(Duration::from_millis(50)),
        ),
    ];
    for (kind, completion) in ends {
        works_with(
            kind,
            Quirks {
                completion,
                ..Quirks::default()
            },
        );
    }
    let quirks = Quirks {
        opening: "125 Already open.".into(),
        ..Quirks::default()
    };
    works_with("begins with 125", quirks);
    for verb in ["RETR", "STOR", "MLSD"] {
        let quirks = Quirks::default().reply_instead(verb, "250 Done.");
        works_with(&format!("ends {verb} with 250"), quirks);
    }
}

#[test]
fn a_missing_150_does_not_stop_readers() {
    let Some((server, mount)) = stage(Quirks {
        opening: String::new(),
        ..Quirks::default()
    }) else {
        return;
    };
    server.put("dir/file", bytes(150_000));
    assert!(fs::read(mount.path("dir/file")).unwrap() == bytes(150_000));
    assert_eq!(mount.sh("ls dir"), "file\n");
    mount.finish();
}

#[test]
fn a_226_that_never_comes_is_not_waited_for_long() {
    let server = Ftpd::with(Quirks {
        completion: Completion::Never,
        ..Quirks::default()
    });
    server.put("file", "content");
    let Some(mount) = mounting(&server).expect_log("").start() else {
        return;
    };
    mount.within(Duration::from_secs(20), || {
        // Errors are allowed, wrong contents and endless waits are not.
        if let Ok(content) = fs::read(mount.path("file")) {
            assert_eq!(content, b"content");
        }
    });
    server.change(|quirks| quirks.completion = Completion::Normal);
    mount.within(Duration::from_secs(10), || {
        assert_eq!(fs::read(mount.path("file")).unwrap(), b"content");
    });
    mount.finish();
}

#[test]
fn features_are_told_in_many_ways() {
    let lists = [
        "500 What?",
        "211 No features",
        "211-Extensions:\r\n211-mlst type*;size*;modify*;\r\n211-size\r\n211-mdtm\r\n211 end",
        "211-Features\r\nMLST size*;type*;modify*;\r\nEPSV\r\nUTF8\r\n211 End",
        "211-\r\n  SIZE\r\n  REST  STREAM\r\n\tMDTM\r\n211 ",
        "200 OK",
    ];
    for list in lists {
        let quirks = Quirks::default().reply_instead("FEAT", list);
        works_with(&format!("has the features {list:?}"), quirks);
    }
    let boast = "211-x\r\n MLST size*;\r\n MFMT\r\n EPSV\r\n REST STREAM\r\n211 End";
    let quirks = Quirks::default().reply_instead("FEAT", boast);
    let quirks = quirks.without(&["MLSD", "MLST", "MFMT", "EPSV", "REST"]);
    works_with("has less than it says", quirks);
}

#[test]
fn greetings_and_small_talk_do_not_matter() {
    for (verb, words) in [
        ("PWD", "257 /"),
        ("PWD", "500 No."),
        ("SYST", "502 No."),
        ("NOOP", "500 No."),
    ] {
        works_with(
            &format!("answers {verb} by {words}"),
            Quirks::default().answer(verb, words),
        );
    }
    let banner = "220-Hello,\r\n 220 is not the end\r\n220-\r\n220 now".into();
    works_with(
        "is talkative",
        Quirks {
            banner,
            ..Quirks::default()
        },
    );
}

#[test]
fn passive_addresses_are_the_servers_own() {
    let old = || Quirks::default().without(&["EPSV"]);
    works_with(
        "leaves out parentheses",
        Quirks {
            pasv_bare: true,
            ..old()
        },
    );
    for address in [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::UNSPECIFIED] {
        let quirks = Quirks {
            pasv_address: Some(address),
            ..old()
        };
        works_with(&format!("says it is {address}"), quirks);
    }
}

#[test]
fn the_server_may_open_the_data_connections() {
    let server = Ftpd::with(Quirks::default().without(&["EPSV", "PASV"]));
    let Some(mount) = mounting(&server).option("active").start() else {
        return;
    };
    works(&server, &mount);
    mount.finish();
}

#[test]
fn a_server_that_cannot_be_pipelined() {
    works_with(
        "forgets what comes too early",
        Quirks {
            drops_pipelined: true,
            ..Quirks::default()
        },
    );
}

#[test]
fn the_login_directory_is_not_the_root() {
    let server = Ftpd::with(Quirks {
        home: "/home/lab".into(),
        ..Quirks::default()
    });
    server.put("home/lab/mine", "mine");
    server.put("outside", "outside");
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    assert_eq!(mount.sh("ls && cat mine"), "mine\nmine");
    fs::write(mount.path("new"), "new").unwrap();
    assert_eq!(server.get("home/lab/new"), b"new");
    mount.finish();
}

#[test]
fn an_account_is_told_when_it_is_asked_for() {
    let server = Ftpd::with(Quirks {
        login: Some(("lab".into(), "secret".into())),
        account: Some("the account".into()),
        ..Quirks::default()
    });
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("account");
    fs::write(&file, "the account").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let option = format!("account_file={}", file.display());
    let Some(mount) = mounting(&server).password("secret").option(option).start() else {
        return;
    };
    works(&server, &mount);
    mount.finish();
}
