//! Small files, one after the other, at the least round trips.

use std::fs;
use std::time::{Duration, Instant};

use super::{mounting, names_there};
use crate::support::ftpd::{Break, Ftpd, Quirks};
use crate::support::mount::TestMount;

/// A mount that knows what is in its root.
fn stage() -> Option<(Ftpd, TestMount)> {
    let server = Ftpd::with(Quirks::default());
    let mount = mounting(&server).option("upload=rename").start()?;
    mount.sh("ls");
    Some((server, mount))
}

/// Stores `name`, and how.
fn store(server: &Ftpd, mount: &TestMount, name: &str) -> Vec<String> {
    server.clear_log();
    fs::write(mount.path(name), name).unwrap();
    assert_eq!(server.get(name), name.as_bytes());
    verbs(server)
}

/// As [`store`], with what goes out ahead of the next one, which nobody waits for.
fn store_and_ask(server: &Ftpd, mount: &TestMount, name: &str) -> Vec<String> {
    let mut said = store(server, mount, name);
    let deadline = Instant::now() + Duration::from_secs(10);
    while said.last().is_none_or(|last| last != "EPSV") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
        said = verbs(server);
    }
    said
}

fn verbs(server: &Ftpd) -> Vec<String> {
    let verb = |line: String| line.split(' ').next().unwrap_or_default().to_owned();
    server.commands().into_iter().map(verb).collect()
}

#[test]
fn the_next_data_connection_is_asked_for_with_the_last_commands() {
    let Some((server, mount)) = stage() else {
        return;
    };
    let first = store(&server, &mount, "first");
    assert_eq!(first.first().map(String::as_str), Some("EPSV"), "{first:?}");
    // The first one found out how times are set.
    store(&server, &mount, "second");
    store_and_ask(&server, &mount, "third");
    for name in ["fourth", "fifth"] {
        let said = store_and_ask(&server, &mount, name);
        // Should somebody else have made that name meanwhile, the first two move theirs aside.
        let named = ["RNFR", "RNTO", "RNFR", "RNTO"];
        let expected = [&["STOR", "SIZE", "MFMT", "SITE"], &named[..], &["EPSV"]];
        assert_eq!(said, expected.concat());
    }
    // Whatever transfer comes next takes that connection.
    fs::create_dir(mount.path("dir")).unwrap();
    server.put("dir/listed", "x");
    server.clear_log();
    assert_eq!(mount.sh("sleep 6; ls dir").trim(), "listed");
    assert_eq!(server.count("EPSV"), 0, "{:?}", server.commands());
    mount.finish();
}

#[test]
fn a_server_that_forgets_the_connection_made_ahead() {
    for reply in ["425 Can't open data connection.", "426 Connection closed."] {
        let Some((server, mount)) = stage() else {
            return;
        };
        for name in ["first", "second", "third", "more"] {
            store(&server, &mount, name);
        }
        server.change(|quirks| *quirks = Quirks::default().answer_times("STOR", 1, reply));
        for name in ["fourth", "fifth", "sixth"] {
            store(&server, &mount, name);
        }
        let said = store(&server, &mount, "seventh");
        assert_eq!(said.first().map(String::as_str), Some("EPSV"), "{said:?}");
        mount.finish();
    }
}

#[test]
fn a_new_file_of_the_wrong_size_does_not_keep_its_name() {
    let Some((server, mut mount)) = stage() else {
        return;
    };
    store(&server, &mount, "first");
    mount.expect_log("");
    let cut = || Break::CloseData("226 Transfer complete.".into());
    server.change(|quirks| *quirks = Quirks::default().fault("STOR", 3, 100, cut()));
    let (status, said) = mount.try_sh("cp first second && echo fine");
    assert!(!status.success(), "{said}");
    // The last attempt is made when the file is released, which nobody waits for.
    let all_gone = || names_there(&server) == ["first"];
    let ended = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        mount.log().contains("release of") && all_gone()
    });
    assert!(ended, "{:?}", names_there(&server));
    server.change(|quirks| *quirks = Quirks::default());
    store(&server, &mount, "second");
    mount.finish();
}

#[test]
fn in_a_run_nothing_is_sent_before_the_content() {
    let Some((server, mount)) = stage() else {
        return;
    };
    for name in ["first", "second", "third"] {
        store(&server, &mount, name);
    }
    server.clear_log();
    let file = fs::File::create(mount.path("fourth")).unwrap();
    assert_eq!(server.commands(), [""; 0], "others were taken just now");
    drop(file);
    assert_eq!(server.get("fourth"), b"");
    // Of another directory nothing is known yet.
    fs::create_dir(mount.path("dir")).unwrap();
    let file = fs::File::create(mount.path("dir/first")).unwrap();
    assert_eq!(server.count("STOR /dir/*"), 1, "{:?}", server.commands());
    drop(file);
    mount.finish();
}

#[test]
fn in_a_run_a_refusal_is_told_by_close() {
    for (reply, told) in [
        ("553 Not today: permission denied.", "Permission denied"),
        ("552 Not today: disk full.", "No space left"),
    ] {
        let Some((server, mut mount)) = stage() else {
            return;
        };
        mount.expect_log("");
        store(&server, &mount, "first");
        store(&server, &mount, "more");
        server.change(|quirks| *quirks = Quirks::default().answer("STOR", reply));
        let (status, said) = mount.try_sh("cp first refused");
        assert!(!status.success() && said.contains(told), "{said}");
        server.change(|quirks| *quirks = Quirks::default());
        store(&server, &mount, "last");
        // The last attempt is made when the file is released, which may be now.
        let mut names = names_there(&server);
        names.retain(|name| name != "refused");
        assert_eq!(names, ["first", "last", "more"]);
        mount.finish();
    }
    // Refused once only: the second attempt hears every step out.
    let Some((server, mount)) = stage() else {
        return;
    };
    for name in ["one", "two"] {
        store(&server, &mount, name);
    }
    let once = Quirks::default().answer_times("STOR", 1, "451 Try again.");
    server.change(|quirks| *quirks = once);
    store(&server, &mount, "three");
    mount.finish();
}
