//! Who gets a session, and what becomes of one that died.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::pool::{Pool, Purpose};
use ferryfs::vfs::error::ErrorKind;

use super::server::{Server, size};

/// Allows two connections and refuses more at the place that `refuse` names.
fn allows_two(refuse: &'static str, reply: &'static str) -> Server {
    let open = Arc::new(AtomicUsize::new(0));
    Server::start(move |peer, line| {
        if line.starts_with(refuse) && peer.number > 2 && open.load(Ordering::SeqCst) >= 2 {
            peer.say(reply);
            return None;
        }
        if line.is_empty() {
            open.fetch_add(1, Ordering::SeqCst);
        }
        Some(false)
    })
}

#[test]
fn the_servers_limit_is_learned_and_kept_to() {
    for server in [
        allows_two("", "421 Too many connections"),
        // Said of the password, meant is the number: two sessions with it are open.
        allows_two("PASS", "530 Login incorrect."),
    ] {
        let pool = server.pool();
        let first = pool.lease(Purpose::Metadata, true).unwrap();
        let _second = pool.lease(Purpose::Metadata, true).unwrap();
        let third = thread::scope(|scope| {
            let third = scope.spawn(|| pool.lease(Purpose::Metadata, true));
            while pool.report().waiting == 0 {
                thread::sleep(Duration::from_millis(5));
            }
            drop(first);
            third.join().unwrap()
        });
        assert!(third.is_ok(), "{third:?}");
        let report = pool.report();
        assert_eq!((report.limit, report.open, report.waiting), (2, 2, 0));
        // Not hammered: the next one does not even try.
        let busy = pool.lease(Purpose::Metadata, false).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy);
    }
}

#[test]
fn transfers_leave_one_connection_for_metadata() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.connections = 2;
    options.timeout = Duration::from_millis(300);
    let pool = Pool::new(options);
    let _transfer = pool.lease(Purpose::Transfer, true).unwrap();
    let before = Instant::now();
    let busy = pool.lease(Purpose::Transfer, false).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(before.elapsed() < Duration::from_millis(100));
    assert!(pool.lease(Purpose::Metadata, false).is_ok());
    let waited = pool.lease(Purpose::Transfer, true).unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::Busy);
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(5));
    assert_eq!(pool.report().waiting, 0);
}

/// A `stat` beside a large read must not open a session, which takes five round trips, because a
/// stream that helps the reader took the idle one.
#[test]
fn who_helps_a_reader_leaves_the_session_that_a_stat_needs() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.connections = 3;
    let pool = Pool::new(options);
    let reader = pool.lease(Purpose::Transfer, true).unwrap();
    drop(pool.lease(Purpose::Metadata, true).unwrap());
    assert_eq!((pool.report().open, pool.report().idle), (2, 1));
    let helper = pool.lease(Purpose::Help, false).unwrap();
    assert_eq!((pool.report().open, pool.report().idle), (3, 1));
    // A reader of his own takes it, for he is waited for.
    drop(helper);
    drop(pool.lease(Purpose::Metadata, true).unwrap());
    assert_eq!(pool.report().idle, 2);
    let helper = pool.lease(Purpose::Help, false).unwrap();
    let stat = pool.lease(Purpose::Metadata, false).unwrap();
    assert_eq!((pool.report().open, pool.report().idle), (3, 0));
    // Where no more may be opened the last idle one is left to metadata, too.
    drop(stat);
    assert!(pool.lease(Purpose::Help, false).is_err());
    drop((reader, helper));
}

#[test]
fn with_one_connection_transfers_may_use_it() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.connections = 1;
    let pool = Pool::new(options);
    drop(pool.lease(Purpose::Transfer, false).unwrap());
    assert!(pool.lease(Purpose::Metadata, false).is_ok());
    assert_eq!(server.count("USER"), 1);
}

#[test]
fn waiters_are_served_metadata_first_then_in_order() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.connections = 1;
    let pool = Pool::new(options);
    let held = pool.lease(Purpose::Metadata, true).unwrap();
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (name, purpose) in [
            ("transfer 1", Purpose::Transfer),
            ("transfer 2", Purpose::Transfer),
            ("metadata", Purpose::Metadata),
        ] {
            let waiting = pool.report().waiting;
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let _lease = pool.lease(purpose, true).unwrap();
                order.lock().unwrap().push(name);
            });
            while pool.report().waiting == waiting {
                thread::sleep(Duration::from_millis(5));
            }
        }
        drop(held);
    });
    assert_eq!(
        order.into_inner().unwrap(),
        ["metadata", "transfer 1", "transfer 2"]
    );
}

#[test]
fn an_idle_session_that_the_server_closed_is_replaced_unseen() {
    // The first connection says farewell after its first command; the second swallows the first
    // command of its second loan and hangs up.
    let server = Server::start(|peer, line| {
        if line == "SIZE a" && peer.number == 1 {
            peer.say("213 1");
            peer.say("421 Timeout");
            return None;
        }
        if line == "SIZE b" && peer.number == 2 {
            return None;
        }
        Some(false)
    });
    let pool = server.pool();
    let ask = |line: &'static [u8]| {
        pool.with_session(Purpose::Metadata, |session| {
            session.command(line).map(|reply| reply.text())
        })
    };
    assert_eq!(ask(b"SIZE a").unwrap(), "213 1");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(ask(b"SIZE a").unwrap(), "213 2");
    assert_eq!(ask(b"SIZE b").unwrap(), "213 3");
    assert_eq!(server.count("USER"), 3);
}

#[test]
fn what_nobody_uses_is_closed_though_nobody_comes() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.idle = Duration::from_millis(500);
    let pool = Pool::new(options);
    for _ in 0..2 {
        let leases = [0, 1].map(|_| pool.lease(Purpose::Metadata, true).unwrap());
        assert_eq!(pool.report().open, 2);
        drop(leases);
        assert_eq!((pool.report().open, pool.report().idle), (2, 2));
        let began = Instant::now();
        while pool.report().open > 0 {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() > Duration::from_millis(300));
    }
    let heard = || server.count("QUIT");
    let began = Instant::now();
    while heard() < 4 && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((heard(), server.count("USER")), (4, 4));
}

#[test]
fn a_fresh_session_that_dies_is_not_tried_again() {
    let server = Server::start(|_, line| (line != "SIZE a").then_some(false));
    let pool = server.pool();
    let error = pool.with_session(Purpose::Metadata, size).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert_eq!((server.count("SIZE"), pool.report().open), (1, 0));
}

#[test]
fn a_lease_dropped_in_mid_transfer_is_not_lent_again() {
    let server = Server::start(|_, _| Some(false));
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    let begun = lease.begin_data(b"RETR a", 0).unwrap();
    drop(lease);
    drop(begun);
    assert_eq!(pool.report().open, 0);
    assert_eq!(pool.with_session(Purpose::Metadata, size).unwrap(), "213 2");
}

#[test]
fn a_closed_pool_sends_everybody_away() {
    let server = Server::start(|_, _| Some(false));
    let mut options = server.options();
    options.connections = 1;
    let pool = Pool::new(options);
    let held = pool.lease(Purpose::Metadata, true).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.lease(Purpose::Metadata, true));
        while pool.report().waiting == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        pool.close();
        assert!(waiter.join().unwrap().is_err());
    });
    drop(held);
    assert!(pool.lease(Purpose::Metadata, true).is_err());
    assert_eq!(pool.report().open, 0);
}
