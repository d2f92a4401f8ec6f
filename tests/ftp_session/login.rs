//! How a session begins.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::options::TlsMode;
use ferryfs::ftp::pool::{Pool, Purpose};
use ferryfs::secret::Secret;
use ferryfs::vfs::error::ErrorKind;

use super::server::{Server, size};

#[test]
fn greetings_and_logins_in_all_their_forms() {
    let server = Server::start(|peer, line| {
        match line {
            "" => {
                peer.say("120 in a minute");
                peer.say("220-Welcome\r\n150 files\r\n220-\r\n220 ready");
            }
            "USER user" => peer.say("331-\r\n230 is not the end\r\n331 go on"),
            "PASS hunter2" => peer.say("332 and the account?"),
            "ACCT acme" => peer.say("202 superfluous"),
            _ => return Some(false),
        }
        Some(true)
    });
    let mut options = server.options();
    options.account = Some(Secret::new("acme"));
    let pool = Pool::new(options);
    let mut lease = pool.lease(Purpose::Metadata, false).unwrap();
    assert_eq!(lease.home(), b"/home");
    assert!(lease.features().has("UTF8"));
    assert_eq!(server.count("OPTS MLST type;size;"), 1);
    assert_eq!(size(&mut lease).unwrap(), "213 1");
    assert_eq!(
        pool.host().facts(|f| (f.banner.clone(), f.system.clone())),
        (Some("Welcome".into()), Some("UNIX".into()))
    );
}

#[test]
fn no_password_is_needed_where_user_is_enough() {
    let server = Server::start(|peer, line| {
        let user = line.starts_with("USER");
        if user {
            peer.say("230 come in");
        }
        Some(user)
    });
    assert!(server.pool().lease(Purpose::Metadata, false).is_ok());
    assert_eq!(server.count("PASS"), 0);
}

#[test]
fn a_wrong_password_is_sent_once() {
    let server = Server::start(|peer, line| {
        let pass = line.starts_with("PASS");
        if pass {
            peer.say("530 Login incorrect.");
        }
        Some(pass)
    });
    let pool = server.pool();
    for _ in 0..3 {
        let error = pool.lease(Purpose::Metadata, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.detail().contains("Login incorrect"));
        assert!(!error.detail().contains("hunter2"));
    }
    assert_eq!(server.count("PASS"), 1);
    assert_eq!(pool.report().open, 0);
}

#[test]
fn a_trickling_or_endless_greeting_is_cut_off() {
    for piece in [&b"2"[..], &[b'x'; 4096], b"220-\r\n"] {
        let server = Server::start(move |peer, _| {
            while peer.lines.get_mut().write_all(piece).is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
            None
        });
        let mut options = server.options();
        options.timeout = Duration::from_millis(500);
        let before = Instant::now();
        assert!(Pool::new(options).lease(Purpose::Metadata, true).is_err());
        assert!(before.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn auto_goes_on_in_clear_where_there_is_no_tls_and_asks_once() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.tls = TlsMode::Auto;
    let pool = Pool::new(options);
    let _first = pool.lease(Purpose::Metadata, true).unwrap();
    let _second = pool.lease(Purpose::Metadata, true).unwrap();
    assert_eq!((server.count("AUTH"), server.count("USER")), (1, 2));
    let mut options = server.options();
    options.tls = TlsMode::Explicit;
    let error = Pool::new(options)
        .lease(Purpose::Metadata, true)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
}
