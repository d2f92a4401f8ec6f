//! Servers that are odd or mean, and what the user gets: the rows of the research's table of
//! quirks ("Quirks and what the client must do") that no other test has, and the limits.
//!
//! | row | test |
//! | --- | --- |
//! | banner in many lines, 120, 421/530 at connect | `ftp_session::login::greetings_and_logins_in_all_their_forms` |
//! | FEAT rejected, odd, false | `mounted::replies::features_are_told_in_many_ways` |
//! | UTF8, CLNT, OPTS refused | `settings_may_be_refused` |
//! | replies of many lines with other codes inside | `ftp::reply::tests::only_its_own_code_and_a_space_end_a_reply` |
//! | 200 for everything, spurious 150 | `two_hundred_for_everything`, `a_preliminary_reply_too_many` |
//! | 226 twice, late, early, never; no 150 | `mounted::replies::transfers_end_in_many_words` and the two behind it |
//! | 421 at any command | `a_farewell_at_any_command_is_healed` |
//! | 530 for a wrong password or for too many | `ftp_session::login::a_wrong_password_is_sent_once`, `mounted::limits` |
//! | 5xx that are transient | `a_refusal_for_a_broken_connection_is_tried_again` |
//! | 426, 451 in mid-transfer | `mounted::faults::a_download_goes_on_where_it_broke`, `cuts` |
//! | 452, 552, quota | `mounted::writing::a_full_disk_is_told_and_the_old_version_stays` |
//! | 550, 553 mean anything | `ftp_backend::changes::a_bare_550_is_explained_by_what_is_there` |
//! | MKD's replies | `mounted::writing::directories_are_made_and_removed_whatever_the_reply` |
//! | PWD's replies | `ftp::login::tests::pwd_in_all_its_forms` |
//! | ABOR | never sent: `ftp_session::transfers::a_transfer_given_up_keeps_the_session_where_the_server_plays_along` |
//! | IAC, CR, LF, NUL in names | `ftp::reply::tests::iac_is_undoubled`, `line_breaks_get_nowhere` |
//! | NOOP unknown | `mounted::replies::greetings_and_small_talk_do_not_matter` |
//! | several addresses of a host | `mounted::system::a_host_with_a_dead_address_is_reached_at_the_next` |
//! | idle timeout | `mounted::faults::idle_connections_may_die_unnoticed` |
//! | PRET | `pret_goes_before_the_data_port_is_asked_for` `pret_is_left_out_where_it_is_not_needed` |
//! | PASV and EPSV that lie, lack parentheses or lead nowhere | `mounted::replies::passive_addresses_are_the_servers_own`, `ftp_session::transfers`, `nobody_else_is_connected_to` |
//! | a foreign peer on the data connection | `ftp_session::transfers::active_mode_takes_data_from_the_server_only` |
//! | TLS: session reuse, PROT, close_notify | `ftp_session::tls`, `ftp_session::trust`, `cuts` |
//! | data that stops short | `cuts`, `mounted::writing::an_upload_cut_short_is_never_taken_for_complete` |
//! | REST refused; ignored | `ftp_backend::listing::without_rest_a_read_begins_at_the_right_byte_all_the_same`; `rest_that_is_ignored_shows_no_wrong_byte` |
//! | REST and STOR differ | never sent together: `mounted::writing::tails_are_appended_right_on_every_kind_of_server` |
//! | STOR into a missing directory | `ftp_backend::upload::a_missing_directory_is_told_when_the_upload_begins` |
//! | ASCII is the default | the scripted server begins in it |
//! | SIZE is wrong, or not a number | `a_size_that_lies_is_not_the_end_of_the_file` |
//! | listings: order, facts, `-a`, awkward arguments, empty, missing, dialects, months, years | `ftp_backend::listing`, `mounted::listings`, `ftp::listing::tests` with `tests/corpus` |
//! | times: zone, MFMT and its like, late | `ftp_backend::listing`, `mounted::writing::times_are_set_by_whatever_the_server_has` |
//! | RNTO over a file refused; CWD in the way | `ftp_backend::upload::where_rnto_does_not_replace_the_old_file_goes_aside`, `ftp_backend::changes` |
//! | names whose case does not matter | `mounted::case_insensitive` |
//! | SITE CHMOD unknown | `ftp_backend::changes::chmod_is_strict_or_ignored` |
//! | read-only servers | `mounted::writing::a_read_only_server_is_readable` |
//! | quotas | `ftp::space::tests` |
//! | endless replies, lines, listings; drips | `what_has_no_end_is_cut_off`, `ftp_session::login::a_trickling_or_endless_greeting_is_cut_off` |
//! | links that lead out | `ftp_backend::listing::links_that_leave_the_mount_are_refused_unless_raw`, `ftp::containment` |

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::FtpBackend;
use ferryfs::ftp::options::{ListingMode, TlsMode};
use ferryfs::vfs::backend::{Backend, Need, OpenHow, Replaces};
use ferryfs::vfs::content::Contents;
use ferryfs::vfs::error::{ErrorKind, Result};
use ferryfs::vfs::path::RemotePath;

use crate::ftp_session::server::Server;
use crate::support::ftpd::{Break, Ftpd, Quirks, tls};
use crate::support::mount::{Mounting, TestMount};

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

/// A backend on a scripted server.
struct Stage {
    server: Ftpd,
    staging: tempfile::TempDir,
}

impl Stage {
    fn new(quirks: Quirks) -> Self {
        let server = Ftpd::with(quirks);
        let staging = tempfile::tempdir().unwrap();
        server.put("dir/there", content(3000));
        Self { server, staging }
    }

    fn connect(&self) -> Result<FtpBackend> {
        let mut options = Server::options_for(self.server.address());
        options.timeout = Duration::from_secs(2);
        let contents = Contents::new(&self.staging.path().join("staging"), 4 << 20)?;
        FtpBackend::connect(options, contents)
    }

    /// Everything a server must be good for, and what it has afterwards.
    fn works(&self, backend: &FtpBackend) {
        assert_eq!(names(backend, "dir"), ["there"]);
        assert!(read(backend, "dir/there").unwrap() == content(3000));
        write(backend, "dir/new", &content(500)).unwrap();
        assert!(self.server.get("dir/new") == content(500));
        write(backend, "dir/new", b"shorter").unwrap();
        assert_eq!(self.server.get("dir/new"), b"shorter");
        backend
            .rename(&path("dir/new"), &path("dir/moved"), Replaces::Anything)
            .unwrap();
        assert_eq!(self.server.get("dir/moved"), b"shorter");
        backend.mkdir(&path("dir/sub"), None).unwrap();
        assert!(self.server.path("dir/sub").is_dir());
        backend.rmdir(&path("dir/sub")).unwrap();
        backend.unlink(&path("dir/moved")).unwrap();
        assert_eq!(names(backend, "dir"), ["there"]);
        let missing = backend.stat(&path("dir/moved")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}

fn works_with(quirks: Quirks) {
    let stage = Stage::new(quirks);
    let backend = stage.connect().unwrap();
    stage.works(&backend);
    backend.close();
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

fn names(backend: &FtpBackend, dir: &str) -> Vec<String> {
    let entries = backend.list(&path(dir)).unwrap();
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
    names.sort();
    names
}

fn read_at(backend: &FtpBackend, name: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
    let how = OpenHow {
        read: true,
        ..OpenHow::default()
    };
    let file = backend.open(&path(name), None, how)?;
    let mut bytes = vec![0; len];
    let count = file.read_at(&path(name), offset, &mut bytes);
    let closed = file.close(Some(&path(name)));
    bytes.truncate(count?);
    closed.map(|()| bytes)
}

fn read(backend: &FtpBackend, name: &str) -> Result<Vec<u8>> {
    read_at(backend, name, 0, 1 << 16)
}

fn write(backend: &FtpBackend, name: &str, bytes: &[u8]) -> Result<()> {
    let known = backend.stat(&path(name)).ok();
    let how = OpenHow {
        read: true,
        write: true,
        truncate: true,
        create: known.is_none().then_some(0o644),
    };
    let file = backend.open(&path(name), known.as_ref(), how)?;
    let written = file
        .write_at(&path(name), 0, bytes)
        .and_then(|()| file.commit(&path(name)));
    written.and(file.close(Some(&path(name))))
}

#[test]
fn a_farewell_at_any_command_is_healed() {
    let plain = Stage::new(Quirks::default());
    let backend = plain.connect().unwrap();
    plain.works(&backend);
    backend.close();
    let mut verbs: Vec<String> = plain
        .server
        .commands()
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .filter(|verb| verb != "QUIT")
        .collect();
    verbs.sort();
    verbs.dedup();
    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in &verbs {
        for words in ["421 Timeout.", "421 Service shutting down, goodbye."] {
            println!("{verb}: {words}");
            works_with(Quirks::default().answer_times(verb, 1, words));
        }
    }
    println!("a farewell in place of {} commands: {verbs:?}", verbs.len());
}

#[test]
fn settings_may_be_refused() {
    for words in [
        "202 Superfluous.",
        "500 What?",
        "501 No such option.",
        "200 Fine.",
    ] {
        let mut quirks = Quirks::default()
            .answer("OPTS", words)
            .answer("CLNT", words);
        quirks.extras = vec!["CLNT"];
        works_with(quirks);
    }
}

#[test]
fn two_hundred_for_everything() {
    let mut quirks = Quirks::default();
    for verb in [
        "CWD", "MKD", "RMD", "DELE", "RNTO", "RETR", "STOR", "MLSD", "MFMT", "SITE",
    ] {
        quirks = quirks.reply_instead(verb, "200 OK");
    }
    works_with(quirks);
}

#[test]
fn a_preliminary_reply_too_many() {
    let mut quirks = Quirks::default();
    for verb in ["MKD", "DELE", "SIZE", "TYPE"] {
        quirks = quirks.reply_instead(verb, "150 One moment.\r\n250 Done.");
    }
    // SIZE must say a number to be of use; without one the listing tells.
    works_with(quirks);
}

#[test]
fn a_refusal_for_a_broken_connection_is_tried_again() {
    for verb in ["RETR", "STOR", "MLSD"] {
        for words in [
            "550 Broken pipe",
            "451 Connection timed out.",
            "550 Connection reset by peer",
        ] {
            println!("{verb}: {words}");
            works_with(Quirks::default().answer_times(verb, 1, words));
        }
    }
}

#[test]
fn pret_goes_before_the_data_port_is_asked_for() {
    let mut quirks = Quirks::default();
    quirks.extras.push("PRET");
    quirks = quirks.answer("PRET", "200 Noted.").answer_times(
        "EPSV",
        1,
        "500 You need to use a client supporting PRET.",
    );
    let stage = Stage::new(quirks);
    let backend = stage.connect().unwrap();
    stage.works(&backend);
    let commands = stage.server.commands();
    let transfers = commands.iter().enumerate().filter(|(_, line)| {
        ["RETR ", "STOR ", "MLSD "]
            .iter()
            .any(|verb| line.starts_with(verb))
    });
    let mut count = 0;
    for (at, line) in transfers {
        let before = commands[..at].iter().rev().take(3);
        assert!(
            before.clone().any(|l| *l == format!("PRET {line}")),
            "{line}: {commands:#?}"
        );
        count += 1;
    }
    assert!(count > 3);
    backend.close();
}

#[test]
fn pret_is_left_out_where_it_is_not_needed() {
    let mut quirks = Quirks::default();
    quirks.extras.push("PRET");
    let stage = Stage::new(quirks.answer("PRET", "200 Ready to proceed"));
    let backend = stage.connect().unwrap();
    stage.works(&backend);
    assert_eq!(stage.server.count("PRET"), 0);
    assert!(stage.server.count("STOR") > 0);
    backend.close();
}

#[test]
fn nobody_else_is_connected_to() {
    // A stranger who listens on the port that PASV names, at the address it names.
    let stranger = TcpListener::bind("127.0.0.2:0").unwrap();
    let mut quirks = Quirks::default().without(&["EPSV"]);
    quirks.pasv_address = Some(Ipv4Addr::new(127, 0, 0, 2));
    let stage = Stage::new(quirks);
    let backend = stage.connect().unwrap();
    stage.works(&backend);
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.accept().is_err(), "the stranger was connected to");
    backend.close();
}

#[test]
fn rest_that_is_ignored_shows_no_wrong_byte() {
    for feat in ["", " REST STREAM\r\n"] {
        let feat =
            format!("211-x\r\n MLST type*;size*;modify*;\r\n SIZE\r\n EPSV\r\n{feat}211 End");
        let mut quirks = Quirks::default().reply_instead("FEAT", &feat);
        quirks.rest_ignored = true;
        let stage = Stage::new(quirks);
        let whole = content(3 << 20);
        stage.server.put("big", &whole);
        let backend = stage.connect().unwrap();
        for offset in [2 << 20, 0, (3 << 20) - 10] {
            let bytes = read_at(&backend, "big", offset, 1000).unwrap();
            let at = usize::try_from(offset).unwrap();
            let expected = &whole[at..(at + 1000).min(whole.len())];
            assert!(bytes == expected, "wrong bytes at {offset}");
        }
        // It was tried once.
        assert_eq!(stage.server.count("REST"), 1);
        backend.close();
    }
}

/// A file that somebody writes to when REST is tried says nothing about REST.
#[test]
fn rest_is_not_given_up_for_a_file_that_grows() {
    let quirks = Quirks::default().delay("RETR", Duration::from_millis(300));
    let stage = Stage::new(quirks);
    let whole = content(3 << 20);
    let path = stage.server.put("growing", &whole);
    stage.server.put("big", &whole);
    let backend = stage.connect().unwrap();
    let reader = thread::scope(|scope| {
        let reader = scope.spawn(|| read_at(&backend, "growing", 2 << 20, 1000));
        while stage.server.count("RETR") == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let mut file = fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"more").unwrap();
        reader.join().unwrap()
    });
    // It has changed, which may be told.
    assert!(reader.is_err() || reader.unwrap() == whole[2 << 20..][..1000]);
    let before = stage.server.count("REST");
    let bytes = read_at(&backend, "big", 2 << 20, 1000).unwrap();
    assert!(bytes == whole[2 << 20..][..1000]);
    assert!(stage.server.count("REST") > before);
    assert!(!format!("{:?}", backend.report()).contains("no REST"));
    backend.close();
}

#[test]
fn a_size_that_lies_is_not_the_end_of_the_file() {
    for words in [
        "213 0",
        "213 -1",
        "200 Fine.",
        "213-Size\r\n213 3000",
        "213 99999999999999999999",
        "500 No.",
    ] {
        let stage = Stage::new(Quirks::default().answer("SIZE", words));
        let backend = stage.connect().unwrap();
        let read = read(&backend, "dir/there");
        assert!(
            read.is_err() || read.as_ref().unwrap() == &content(3000),
            "{words}: {read:?}"
        );
        // What is stored is there, or the caller is told that it is not certain.
        let stored = write(&backend, "dir/new", &content(500));
        println!("{words}: {stored:?}");
        match stored {
            Ok(()) => assert!(stage.server.get("dir/new") == content(500), "{words}"),
            Err(_) => assert!(!stage.server.path("dir/new").exists(), "{words}"),
        }
        backend.close();
    }
}

#[test]
fn line_breaks_get_nowhere() {
    let server = Ftpd::start();
    server.put("file", "x");
    let Some(mount) = Mounting::of(server.url("")).start() else {
        return;
    };
    for name in ["a\nDELE file", "a\r\nDELE file", "a\rb"] {
        for err in [
            fs::write(mount.path(name), "x").unwrap_err(),
            fs::create_dir(mount.path(name)).unwrap_err(),
            fs::rename(mount.path("file"), mount.path(name)).unwrap_err(),
            std::os::unix::fs::symlink("x", mount.path(name)).unwrap_err(),
        ] {
            assert_eq!(
                err.raw_os_error(),
                Some(rustix::io::Errno::INVAL.raw_os_error()),
                "{name:?}"
            );
        }
        let looked = fs::metadata(mount.path(name)).unwrap_err();
        let kinds = [
            std::io::ErrorKind::NotFound,
            std::io::ErrorKind::InvalidInput,
        ];
        assert!(kinds.contains(&looked.kind()), "{name:?}: {looked}");
    }
    for target in ["x\r\nDELE file", "\n"] {
        assert!(std::os::unix::fs::symlink(target, mount.path("link")).is_err());
    }
    assert_eq!(server.count("DELE"), 0);
    assert_eq!(server.get("file"), b"x");
    mount.finish();
    // In the URL and in options.
    let place = crate::support::mount::Place::new();
    for words in [
        ["ftp://127.0.0.1/a%0d%0aDELE%20x", ""],
        ["ftp://us%0aer@127.0.0.1/", ""],
        ["ftp://127.0.0.1/", "-ouser=a\nDELE x"],
        ["ftp://127.0.0.1/", "-oanonymous_password=a\r\nDELE x"],
    ] {
        let mut command = place.command();
        command.arg("-f").arg(words[0]).arg(place.mountpoint());
        if !words[1].is_empty() {
            command.arg(words[1]);
        }
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("line") || said.contains("control"),
            "{words:?}: {said}"
        );
    }
}

/// Memory of the daemon that is its own, in MiB.
fn memory(mount: &TestMount) -> u64 {
    let status = Path::new("/proc")
        .join(mount.pid().to_string())
        .join("status");
    let status = fs::read_to_string(status).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

/// What a server sends without end in answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    /// A reply of more and more lines.
    Lines,
    /// A line of a reply.
    Line,
    /// Preliminary replies.
    Preliminary,
    /// Entries of a listing.
    Entries,
    /// One line of a listing.
    Entry,
    /// A byte of a listing or of a file now and then.
    Drip,
}

/// Floods in answer to a command that begins with `verb`.
fn flood(verb: &'static str, flood: Flood) -> Server {
    Server::start(move |peer, line| {
        let data = match line.split(' ').next().unwrap() {
            "FEAT" => {
                peer.say("211-\r\n MLST type*;size*;modify*;\r\n211 end");
                return Some(true);
            }
            "MLST" if verb != "MLST" || !line.ends_with("unknown") => {
                let what = if !line.ends_with("file") {
                    "type=dir;"
                } else {
                    "type=file;size=90000;"
                };
                peer.say(&format!(
                    "250-\r\n {what}modify=20240101000000; {}\r\n250 end",
                    &line[5..]
                ));
                return Some(true);
            }
            "MLSD" | "LIST" if verb != "MLSD" => {
                peer.say("150 here");
                let _ = peer
                    .accept()
                    .write_all(b"type=cdir; .\r\ntype=dir; dir\r\ntype=file;size=90000; file\r\n");
                peer.say("226 done");
                return Some(true);
            }
            _ if !line.starts_with(verb) => return Some(false),
            "MLSD" | "RETR" => true,
            _ => false,
        };
        let mut to = match data {
            true => {
                peer.say("150 here");
                peer.accept()
            }
            false => peer.lines.get_ref().try_clone().unwrap(),
        };
        let (first, piece): (&[u8], Vec<u8>) = match flood {
            Flood::Lines => (b"250-\r\n", b" type=file;size=1; x\r\n".repeat(1000)),
            Flood::Line => (b"250 ", vec![b'x'; 20_000]),
            Flood::Preliminary => (b"", b"150 wait\r\n".repeat(1000)),
            Flood::Entry => (b"type=file;size=1; ", vec![b'x'; 20_000]),
            Flood::Drip => (b"", b"t".to_vec()),
            Flood::Entries => (b"", Vec::new()),
        };
        let mut sent = to.write_all(first);
        let mut number = 0_u64;
        while sent.is_ok() {
            sent = match flood {
                Flood::Drip => {
                    thread::sleep(Duration::from_millis(100));
                    to.write_all(&piece)
                }
                Flood::Entries => {
                    number += 1;
                    to.write_all(format!("type=file;size=1; {number:032}\r\n").as_bytes())
                }
                _ => to.write_all(&piece),
            };
        }
        None
    })
}

#[test]
fn what_has_no_end_is_cut_off() {
    for (verb, kind) in [
        ("MLST", Flood::Lines),
        ("MLST", Flood::Line),
        ("MLST", Flood::Preliminary),
        ("MLST", Flood::Drip),
        ("MLSD", Flood::Entry),
        ("MLSD", Flood::Drip),
        ("RETR", Flood::Drip),
        ("MLSD", Flood::Entries),
    ] {
        let server = flood(verb, kind);
        let url = format!("ftp://127.0.0.1:{}/", server.options().port);
        let mounting = Mounting::of(url).option("timeout=1s").expect_log("");
        let Some(mount) = mounting.start() else {
            return;
        };
        let before = Instant::now();
        // A debug build reads the million entries that are allowed in half a minute.
        let failed = mount.within(Duration::from_secs(80), || match verb {
            "MLST" => fs::metadata(mount.path("unknown")).is_err(),
            "RETR" => fs::read(mount.path("file")).is_err(),
            _ => fs::read_dir(mount.path("dir")).is_err(),
        });
        let (took, used) = (before.elapsed(), memory(&mount));
        println!("{verb}, {kind:?}: ended after {took:.1?}, {used} MiB");
        assert!(failed || kind == Flood::Entry, "{verb}, {kind:?}");
        let most = match (kind, verb) {
            (Flood::Entries, _) => 60,
            // Taken up again a few times, each of which takes twice the limit.
            (_, "RETR") => 25,
            _ => 8,
        };
        assert!(
            took < Duration::from_secs(most),
            "{verb}, {kind:?}: {took:?}"
        );
        assert!(used < 400, "{verb}, {kind:?}: {used} MiB");
        mount.finish();
    }
}

#[test]
fn huge_directories_do_not_eat_the_memory() {
    let mut text = Vec::new();
    for n in 0..100_000 {
        writeln!(
            text,
            "type=file;size=1;modify=20240101000000; file-{n:020}\r"
        )
        .unwrap();
    }
    let mut quirks = Quirks::default();
    for n in 0..8 {
        quirks
            .canned
            .push(("MLSD", format!("/huge{n}"), text.clone()));
    }
    let server = Ftpd::with(quirks);
    for n in 0..8 {
        fs::create_dir(server.path(format!("huge{n}"))).unwrap();
    }
    let Some(mount) = Mounting::of(server.url("")).option("timeout=30s").start() else {
        return;
    };
    let mut most = 0;
    for n in 0..8 {
        let count = fs::read_dir(mount.path(format!("huge{n}")))
            .unwrap()
            .count();
        assert_eq!(count, 100_000);
        most = most.max(memory(&mount));
    }
    println!("8 directories of 100000 files: {most} MiB at most");
    assert!(most < 300, "{most} MiB");
    mount.finish();
}

#[test]
fn with_few_descriptors_it_goes_on() {
    let server = Ftpd::start();
    for n in 0..40 {
        server.put(format!("file{n}"), content(20_000));
    }
    let Some(mut mount) = Mounting::of(server.url("")).option("timeout=5s").start() else {
        return;
    };
    mount.expect_log("");
    let limit = rustix::process::Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(mount.pid()).unwrap());
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let failures = AtomicUsize::new(0);
    mount.within(Duration::from_secs(60), || {
        thread::scope(|scope| {
            for n in 0..40 {
                let (mount, failures) = (&mount, &failures);
                scope.spawn(move || {
                    let read = fs::read(mount.path(format!("file{n}")));
                    let wrote = fs::write(mount.path(format!("new{n}")), content(20_000));
                    // Refused for want of descriptors, or done right.
                    match read {
                        Ok(bytes) => assert!(bytes == content(20_000)),
                        Err(_) => drop(failures.fetch_add(1, SeqCst)),
                    }
                    if wrote.is_err() {
                        failures.fetch_add(1, SeqCst);
                    }
                });
            }
        });
    });
    println!(
        "{} of 80 were refused with 64 descriptors",
        failures.into_inner()
    );
    // And then it is as good as new.
    for n in 0..40 {
        let name = format!("new{n}");
        fs::write(mount.path(&name), content(100)).unwrap();
        assert!(fs::read(mount.path(&name)).unwrap() == content(100));
        assert!(server.get(&name) == content(100));
    }
    mount.finish();
}

#[test]
fn names_without_attributes_are_asked_for_on_slow_servers_too() {
    let pause = Duration::from_millis(5);
    let mut quirks = Quirks::default()
        .delay("SIZE", pause)
        .delay("MDTM", pause)
        .delay("CWD", pause);
    quirks.drops_pipelined = true;
    let stage = Stage::new(quirks);
    for n in 0..200 {
        stage.server.put(format!("many/{n:03}"), "four");
    }
    let mut options = Server::options_for(stage.server.address());
    // All the questions together take three seconds, and a batch may take two.
    options.timeout = Duration::from_millis(500);
    options.listing = ListingMode::Nlst;
    let contents = Contents::new(&stage.staging.path().join("staging"), 4 << 20).unwrap();
    let backend = FtpBackend::connect(options, contents).unwrap();
    let entries = backend.list(&path("many")).unwrap();
    assert_eq!(entries.len(), 200);
    assert!(entries.iter().all(|entry| entry.attr.size == Some(4)));
}

#[test]
fn listings_ahead_of_huge_directories_are_not_all_held_in_memory() {
    let line = "-rw-r--r-- 1 u g 4 Jan 01 2020 some-file-with-a-name-that-is-as-long-as-others\r\n";
    let lines: String = (0..12_345)
        .map(|n| line.replace("others", &n.to_string()))
        .collect();
    let own = "drwxr-xr-x 2 u g 4096 Jan 01 2020 .\r\n";
    let status = format!("213-Status follows:\r\n{own}{lines}213 End of status");
    let stage = Stage::new(Quirks::like_vsftpd().answer("STAT -a /huge*", &status));
    for n in 0..40 {
        stage.server.put(format!("huge{n:02}/file"), "");
    }
    let backend = stage.connect().unwrap();
    // STAT is believed from here on.
    names(&backend, "dir");
    // All that are sent without waiting are heard: many more than are kept.
    stage
        .server
        .change(|quirks| quirks.gathers = Some(("STAT -a /huge*".into(), 24)));
    let dirs: Vec<_> = (0..24).map(|n| path(&format!("huge{n:02}"))).collect();
    let shown = AtomicUsize::new(0);
    backend.list_ahead(&dirs, &|_, entries| {
        shown.fetch_add(entries.len(), SeqCst);
    });
    assert_eq!(stage.server.count("STAT -a /huge*"), 24);
    let (shown, one) = (shown.into_inner(), 12_345);
    assert!(shown >= one && shown <= 10 * one, "{shown} entries at once");
}

#[test]
fn a_server_that_dies_at_auth_tls_is_not_spoken_to_in_clear_text() {
    let mut quirks = Quirks::default().answer_times("AUTH", 1, "500 OOPS: child died");
    quirks.tls = true;
    let stage = Stage::new(quirks);
    let mut options = Server::options_for(stage.server.address());
    options.tls = TlsMode::Auto;
    options.trust.ca_file = Some(tls::CERTIFICATE.into());
    let contents = Contents::new(&stage.staging.path().join("staging"), 4 << 20).unwrap();
    let backend = FtpBackend::connect(options, contents).unwrap();
    assert_eq!(names(&backend, "dir"), ["there"]);
    let said = stage.server.commands();
    assert_eq!(&said[..2], ["AUTH TLS", "AUTH TLS"], "{said:?}");
    assert!(said.iter().any(|line| line == "PROT P"), "{said:?}");
}

#[test]
fn a_transfer_that_breaks_off_does_not_show_that_rest_is_ignored() {
    let broken = Break::CloseData("451 Local error.".into());
    let stage = Stage::new(Quirks::default().fault("RETR", 0, 1, broken));
    stage.server.put("long", content(50_000));
    let backend = stage.connect().unwrap();
    let reads = |backend: &FtpBackend| {
        let mut download = backend
            .transfers()
            .retrieve(&path("long"), 40_000, Need::Stream { wait: true })
            .unwrap();
        let mut bytes = [0; 100];
        assert!(download.read(&mut bytes).unwrap() > 0);
        assert_eq!(bytes[0], content(50_000)[40_000]);
    };
    reads(&backend);
    let before = stage.server.count("REST");
    reads(&backend);
    reads(&backend);
    assert!(stage.server.count("REST") >= before + 2);
}

#[test]
fn a_path_that_is_too_long_for_the_server_costs_that_path_only() {
    // As pyftpdlib, which answers what it did not read once more.
    let words = "500 Command too long.\r\n500 Command \"\" not understood.";
    let mut quirks = Quirks::default();
    for verb in ["MLST", "MLSD", "SIZE", "MDTM", "CWD", "STOR", "MKD"] {
        quirks = quirks.answer(&format!("{verb} /dir/dddd*"), words);
    }
    let stage = Stage::new(quirks);
    let backend = stage.connect().unwrap();
    for (parts, last) in [(25, 1), (40, 45)] {
        let parts = vec!["d".repeat(100); parts].join("/");
        let long = path(&format!("dir/{parts}/{}", "e".repeat(last)));
        let before = stage.server.sessions_opened();
        let kinds = [
            backend.stat(&long).unwrap_err().kind(),
            backend.list(&long).map(drop).unwrap_err().kind(),
            backend.mkdir(&long, None).unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::NameTooLong; 3], "{last}");
        assert!(stage.server.sessions_opened() - before <= 4);
        stage.works(&backend);
    }
    assert_eq!(stage.server.count("LIST"), 0, "MLSD is still believed in");
    let sent = stage.server.commands();
    assert!(sent.iter().all(|line| line.len() < 4096));
}
