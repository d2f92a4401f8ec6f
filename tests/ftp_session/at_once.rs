//! Logins that are sent at once, and servers that cannot take them.

use std::io::BufRead;
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::pool::{Pool, Purpose};
use ferryfs::secret::Secret;
use ferryfs::vfs::error::ErrorKind;

use super::server::{Peer, Server, size};

/// What came before the greeting.
fn early(peer: &mut Peer) -> String {
    let limit = Some(Duration::from_millis(100));
    peer.lines.get_ref().set_read_timeout(limit).unwrap();
    let early = peer.lines.fill_buf().map(<[u8]>::to_vec);
    peer.lines.get_ref().set_read_timeout(None).unwrap();
    String::from_utf8(early.unwrap_or_default()).unwrap()
}

fn forget(peer: &mut Peer) {
    let pending = peer.lines.buffer().len();
    peer.lines.consume(pending);
}

#[test]
fn later_logins_are_sent_behind_the_connection() {
    let server = Server::start(|peer, line| {
        if line.is_empty() {
            let first = peer.number == 1;
            let sent = early(peer);
            let all =
                "USER user\r\nPASS hunter2\r\nOPTS UTF8 ON\r\nOPTS MLST type;size;\r\nTYPE I\r\n";
            assert_eq!(sent, if first { "" } else { all });
        }
        Some(false)
    });
    let pool = server.pool();
    let mut all: Vec<_> = (0..3)
        .map(|_| pool.lease(Purpose::Metadata, true).unwrap())
        .collect();
    for (number, lease) in (1..).zip(&mut all) {
        assert_eq!(size(lease).unwrap(), format!("213 {number}"));
        assert_eq!(lease.home(), b"/home");
    }
    assert_eq!((server.count("PASS"), server.count("FEAT")), (3, 1));
    assert_eq!(pool.host().facts(|facts| facts.sessions), 3);
}

/// A data connection is asked for with it, where EPSV is known to work.
#[test]
fn a_login_for_a_transfer_brings_its_data_connection() {
    let server = Server::start(|_, _| Some(false));
    let pool = server.pool();
    for _ in 0..2 {
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        super::transfers::retrieve(&mut lease);
        // The next one finds none that is idle.
        std::mem::forget(lease);
    }
    let heard = server.heard.lock().unwrap();
    let asked = heard.iter().filter(|line| *line == "EPSV").count();
    assert_eq!(asked, 2, "{heard:?}");
    let last: Vec<_> = heard.iter().rev().take(3).rev().collect();
    assert_eq!(last, ["TYPE I", "EPSV", "RETR a"]);
}

/// Of the second connection, a server does this with what it is sent at once.
type Odd = fn(&mut Peer, &str) -> Option<bool>;

#[test]
fn odd_servers_are_logged_in_to_step_by_step() {
    let cases: [(&str, Odd); 7] = [
        (
            "throws away what comes before its greeting",
            |peer, line| {
                if line.is_empty() && !early(peer).is_empty() {
                    forget(peer);
                }
                Some(false)
            },
        ),
        ("throws away what comes with a password", |peer, line| {
            if line.starts_with("PASS") {
                forget(peer);
            }
            Some(false)
        }),
        ("hangs up on who speaks first", |peer, line| {
            let hasty = line.is_empty() && !early(peer).is_empty();
            (!hasty).then_some(false)
        }),
        (
            "hangs up on who sends more with a password",
            |peer, line| {
                let hasty = line.starts_with("PASS") && !peer.lines.buffer().is_empty();
                (!hasty).then_some(false)
            },
        ),
        ("forgets the user", |peer, line| {
            let hasty = line.starts_with("PASS") && !peer.lines.buffer().is_empty();
            if hasty {
                peer.say("503 Login with USER first.");
            }
            Some(hasty)
        }),
        ("wants an account from now on", |peer, line| {
            if line.starts_with("PASS") {
                peer.say("332 and the account?");
            }
            Some(line.starts_with("PASS"))
        }),
        ("says one thing twice", |peer, line| {
            let hasty = line.starts_with("PASS") && !peer.lines.buffer().is_empty();
            if hasty {
                peer.say("230 welcome\r\n230 indeed");
            }
            Some(hasty)
        }),
    ];
    thread::scope(|scope| {
        for (what, odd) in cases {
            scope.spawn(move || {
                let server = Server::start(move |peer, line| match peer.number {
                    1 => Some(false),
                    _ => odd(peer, line),
                });
                let mut options = server.options();
                options.account = Some(Secret::new("acme"));
                let pool = Pool::new(options);
                let _first = pool.lease(Purpose::Metadata, true).unwrap();
                let before = Instant::now();
                let mut second = pool.lease(Purpose::Metadata, true).expect(what);
                assert!(before.elapsed() < Duration::from_secs(4), "{what}");
                assert_eq!(size(&mut second).unwrap(), "213 3", "{what}");
                // Known from now on.
                let before = Instant::now();
                let mut third = pool.lease(Purpose::Metadata, true).expect(what);
                assert!(before.elapsed() < Duration::from_secs(1), "{what}");
                assert_eq!(size(&mut third).unwrap(), "213 4", "{what}");
                assert!(server.count("PASS") <= 4, "{what}");
                assert_eq!(pool.report().limit, 4, "{what}");
            });
        }
    });
}

#[test]
fn one_session_tries_and_others_do_not_wait_for_it() {
    let server = Server::start(|peer, line| {
        if line.is_empty() && peer.number == 2 {
            thread::sleep(Duration::from_millis(700));
        }
        if line.is_empty() && peer.number == 3 {
            assert_eq!(early(peer), "");
        }
        Some(false)
    });
    let pool = server.pool();
    let _first = pool.lease(Purpose::Metadata, true).unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| pool.lease(Purpose::Metadata, true).map(drop));
        while pool.report().open < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(50));
        let before = Instant::now();
        assert!(pool.lease(Purpose::Metadata, true).is_ok());
        assert!(before.elapsed() < Duration::from_millis(500));
        assert!(second.join().unwrap().is_ok());
    });
    assert_eq!(server.count("USER"), 3);
}

#[test]
fn a_server_that_has_enough_says_so_at_any_step() {
    for (step, reply) in [
        ("", "421 Too many connections"),
        ("USER", "421 Too many connections"),
        ("USER", "530 Sorry, max users -- try again"),
        ("PASS", "421 Too many users"),
        ("PASS", "530 Login incorrect."),
    ] {
        let server = Server::start(move |peer, line| {
            if line.starts_with(step) && line.is_empty() == step.is_empty() && peer.number > 2 {
                peer.say(reply);
                return None;
            }
            Some(false)
        });
        let pool = server.pool();
        let first = pool.lease(Purpose::Metadata, true).unwrap();
        let second = pool.lease(Purpose::Metadata, true).unwrap();
        thread::scope(|scope| {
            let third = scope.spawn(|| pool.lease(Purpose::Metadata, true).map(drop));
            while pool.report().waiting == 0 {
                thread::sleep(Duration::from_millis(5));
            }
            drop(first);
            assert!(third.join().unwrap().is_ok(), "{step} {reply}");
        });
        assert_eq!((pool.report().limit, pool.report().open), (2, 2), "{reply}");
        assert!(server.count("PASS") <= 3, "{step} {reply}");
        drop(second);
    }
}

#[test]
fn a_password_that_is_wrong_by_now_is_sent_once() {
    let server = Server::start(|peer, line| {
        let wrong = line.starts_with("PASS") && peer.number > 1;
        if wrong {
            peer.say("530 Login incorrect.");
        }
        Some(wrong)
    });
    let pool = server.pool();
    drop(pool.lease(Purpose::Metadata, true).unwrap());
    pool.close();
    let pool = server.pool();
    let first = pool.lease(Purpose::Metadata, true);
    assert_eq!(first.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        server.count("PASS"),
        2,
        "never at once before one was accepted"
    );

    let server = Server::start(|peer, line| {
        match line {
            "SIZE a" => return None,
            _ if line.starts_with("PASS") && peer.number > 1 => {
                peer.say("530 Login incorrect.");
            }
            _ => return Some(false),
        }
        Some(true)
    });
    let pool = server.pool();
    let mut first = pool.lease(Purpose::Metadata, true).unwrap();
    assert!(size(&mut first).is_err());
    drop(first);
    for _ in 0..3 {
        let error = pool.lease(Purpose::Metadata, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(!error.detail().contains("hunter2"));
    }
    assert_eq!(server.count("PASS"), 2);
    assert_eq!(pool.report().open, 0);
}

/// A server that is away is not blamed for the haste.
#[test]
fn what_is_lost_with_the_server_is_not_given_up() {
    let server = Server::start(|peer, line| match peer.number {
        2 | 3 => None,
        4 if line.is_empty() => {
            assert!(
                early(peer).starts_with("USER user\r\nPASS"),
                "it is tried again"
            );
            Some(false)
        }
        _ => Some(false),
    });
    let pool = server.pool();
    let _first = pool.lease(Purpose::Metadata, true).unwrap();
    assert!(pool.lease(Purpose::Metadata, true).is_err());
    assert!(pool.lease(Purpose::Metadata, true).is_ok());
    assert_eq!(server.count("PASS"), 2);
}

/// A connection may be cut at any time.
#[test]
fn what_worked_before_is_given_up_when_it_is_lost_three_times_in_a_row() {
    // At once, lost, in steps, at once; lost and in steps three times; in steps.
    let server = Server::start(|peer, line| {
        let hasty = line.is_empty() && !early(peer).is_empty();
        match peer.number {
            1 | 2 | 5 => Some(false),
            _ => (!hasty).then_some(false),
        }
    });
    let mut options = server.options();
    options.connections = 9;
    let pool = Pool::new(options);
    let mut leases = Vec::new();
    for number in [1, 2, 4, 5, 7, 9, 11, 12] {
        let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
        assert_eq!(size(&mut lease).unwrap(), format!("213 {number}"));
        leases.push(lease);
    }
}
