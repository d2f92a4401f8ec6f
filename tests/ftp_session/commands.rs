//! Commands and replies, in step or not at all.

use std::io::{BufRead, Write};
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::pool::{Pool, Purpose};
use ferryfs::vfs::error::ErrorKind;

use super::server::{Server, size};

#[test]
fn a_farewell_breaks_the_session() {
    let server = Server::start(|peer, line| {
        let size = line.starts_with("SIZE");
        if size {
            peer.say("421 Service not available");
        }
        Some(size)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
    let error = size(&mut lease).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.detail().contains("Service not available"));
    assert!(lease.is_broken());
    drop(lease);
    assert_eq!(pool.report().open, 0);
}

#[test]
fn the_end_of_a_transfer_is_no_answer_to_a_question() {
    let server = Server::start(|peer, line| {
        let late = line == "SIZE a";
        if late {
            peer.say("226 Transfer complete.");
        }
        Some(late)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
    assert!(lease.command(b"SIZE a").is_err());
    assert!(lease.is_broken());
}

#[test]
fn a_reply_too_many_is_never_taken_for_the_next_commands() {
    let server = Server::start(|peer, line| {
        let twice = line == "SIZE a";
        if twice {
            peer.say("213 1\r\n213 2");
        }
        Some(twice)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
    assert_eq!(size(&mut lease).unwrap(), "213 1");
    thread::sleep(Duration::from_millis(20));
    assert!(lease.command(b"NOOP").is_err());
    assert!(lease.is_broken());
}

#[test]
fn a_server_that_trickles_is_cut_off() {
    let server = Server::start(|peer, line| {
        if line != "SIZE a" {
            return Some(false);
        }
        for _ in 0..100 {
            if peer.lines.get_mut().write_all(b"2").is_err() {
                return None;
            }
            thread::sleep(Duration::from_millis(100));
        }
        None
    });
    let mut options = server.options();
    options.timeout = Duration::from_millis(500);
    let pool = Pool::new(options);
    let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
    let before = Instant::now();
    assert_eq!(size(&mut lease).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(before.elapsed() < Duration::from_secs(3));
    assert!(lease.is_broken());
}

#[test]
fn line_breaks_are_not_sent() {
    let server = Server::start(|_, _| Some(false));
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
    for bad in [&b"DELE a\r\nDELE b"[..], b"DELE a\n", b"DELE a\0"] {
        let error = lease.command(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(lease.begin_data(bad, 0).is_err());
    }
    assert_eq!(size(&mut lease).unwrap(), "213 1");
    assert_eq!(server.count("DELE"), 0);
}

#[test]
fn batches_are_answered_in_order_whether_pipelined_or_not() {
    let pipelines = Server::start(|_, _| Some(false));
    // Forgets what came with the line it reads, as some proxies do.
    let forgets = Server::start(|peer, line| {
        if !line.is_empty() {
            let rest = peer.lines.buffer().len();
            peer.lines.consume(rest);
        }
        Some(false)
    });
    let lines: Vec<Vec<u8>> = (0..600).map(|n| format!("STAT {n}").into_bytes()).collect();
    for (server, pipelining) in [(pipelines, true), (forgets, false)] {
        let pool = server.pool();
        let mut lease = pool.lease(Purpose::Metadata, true).unwrap();
        let known = pool.host().facts(|facts| facts.pipelining);
        assert_eq!(known, Some(pipelining));
        let replies = lease.batch(&lines).unwrap();
        for (n, reply) in replies.iter().enumerate() {
            assert_eq!(reply.text(), format!("211 STAT {n}"));
        }
        assert_eq!(replies.len(), lines.len());
    }
}
