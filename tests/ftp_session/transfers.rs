//! Data connections of all kinds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::options::DataMode;
use ferryfs::ftp::pool::{Pool, Purpose};
use ferryfs::ftp::session::{Begun, Session};

use super::server::{Server, size};

pub(super) fn retrieve(session: &mut Session) -> Vec<u8> {
    match session.begin_data(b"RETR a", 0).unwrap() {
        Begun::Open(mut data) => {
            let mut content = Vec::new();
            data.read_to_end(&mut content).unwrap();
            assert!(session.end_data(data).unwrap().is_ok());
            content
        }
        Begun::Refused(reply) => panic!("refused: {}", reply.text()),
    }
}

#[test]
fn pasv_is_used_where_epsv_is_not_known_and_its_address_is_not_believed() {
    let server = Server::start(|peer, line| {
        match line {
            "EPSV" => peer.say("500 what?"),
            "PASV" => {
                let [high, low] = peer.listen().to_be_bytes();
                // A documentation address: leads nowhere.
                peer.say(&format!("227 Entering Passive Mode 192,0,2,1,{high},{low}"));
            }
            _ => return Some(false),
        }
        Some(true)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    assert_eq!(retrieve(&mut lease), b"content");
    assert_eq!(retrieve(&mut lease), b"content");
    assert_eq!((server.count("EPSV"), server.count("PASV")), (1, 2));
}

#[test]
fn a_transfer_without_150_is_none_the_less_one() {
    let server = Server::start(|peer, line| {
        match line.split(' ').next() {
            Some("RETR") => {
                let mut data = peer.accept();
                data.write_all(&vec![7; 3_000_000]).unwrap();
            }
            Some("STOR") => {
                let mut got = Vec::new();
                peer.accept().read_to_end(&mut got).unwrap();
                assert_eq!(got.len(), 3_000_000);
            }
            _ => return Some(false),
        }
        peer.say("226 done");
        Some(true)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    for round in 0..4 {
        let before = Instant::now();
        let Begun::Open(mut data) = lease.begin_data(b"STOR a", 0).unwrap() else {
            panic!("refused");
        };
        data.write_all(&vec![7; 3_000_000]).unwrap();
        assert!(lease.end_data(data).unwrap().is_ok());
        assert_eq!(retrieve(&mut lease).len(), 3_000_000);
        let took = before.elapsed();
        assert!(
            round == 0 || took < Duration::from_millis(800),
            "known by now, {took:?}"
        );
    }
}

#[test]
fn epsv_that_leads_nowhere_is_given_up_for_pasv() {
    let server = Server::start(|peer, line| {
        match line {
            "EPSV" => {
                let port = peer.listen();
                peer.data = None;
                peer.say(&format!("229 (|||{port}|)"));
            }
            "PASV" => {
                let [high, low] = peer.listen().to_be_bytes();
                peer.say(&format!("227 (127,0,0,1,{high},{low})"));
            }
            _ => return Some(false),
        }
        Some(true)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    assert_eq!(retrieve(&mut lease), b"content");
    assert_eq!(retrieve(&mut lease), b"content");
    assert_eq!(server.count("EPSV"), 1);
}

#[test]
fn a_session_whose_replies_are_one_behind_is_given_up() {
    let server = Server::start(|peer, line| {
        match line {
            "EPSV" => peer.say("200 once more"),
            "PASV" => {
                let port = peer.listen();
                peer.say(&format!("229 (|||{port}|)"));
            }
            _ => return Some(false),
        }
        Some(true)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    let Err(err) = lease.begin_data(b"RETR a", 0) else {
        panic!("arranged");
    };
    assert!(err.to_string().contains("out of step: 229"), "{err}");
    assert!(lease.is_broken());
    assert_eq!(server.count("RETR a"), 0);
}

#[test]
fn active_mode_takes_data_from_the_server_only() {
    let server = Server::start(|peer, line| {
        if let Some(eprt) = line.strip_prefix("EPRT ") {
            peer.say(if eprt.starts_with("|1|127.0.0.1|") {
                "522 PORT please"
            } else {
                "200 ok"
            });
            return Some(true);
        }
        if line != "RETR a" {
            return Some(false);
        }
        peer.say("150 coming");
        // The port was named last by PORT.
        Some(true)
    });
    // PORT and the connections are played here, since the script sees single lines only.
    let heard = Arc::clone(&server.heard);
    let intruder = thread::spawn(move || {
        let port = loop {
            let lines = heard.lock().unwrap().clone();
            let begun = lines.iter().any(|line| line == "RETR a");
            if let Some(line) = lines
                .iter()
                .find(|l| l.starts_with("PORT "))
                .filter(|_| begun)
            {
                let numbers: Vec<u16> = line["PORT ".len()..]
                    .split(',')
                    .map(|n| n.parse().unwrap())
                    .collect();
                break numbers[4] * 256 + numbers[5];
            }
            thread::sleep(Duration::from_millis(5));
        };
        for (from, content) in [("127.0.0.2:0", "forged"), ("127.0.0.1:0", "genuine")] {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket
                .bind(&from.parse::<SocketAddr>().unwrap().into())
                .unwrap();
            let to: SocketAddr = ([127, 0, 0, 1], port).into();
            socket.connect(&to.into()).unwrap();
            // The forger may be cut off already.
            let _ = TcpStream::from(socket).write_all(content.as_bytes());
            thread::sleep(Duration::from_millis(50));
        }
        port
    });
    let mut options = server.options();
    options.data = DataMode::Active {
        ports: Some((42_100, 42_199)),
        address: None,
    };
    let pool = Pool::new(options);
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    let Begun::Open(mut data) = lease.begin_data(b"RETR a", 0).unwrap() else {
        panic!("refused");
    };
    let mut content = String::new();
    data.read_to_string(&mut content).unwrap();
    assert_eq!(content, "genuine");
    assert!((42_100..=42_199).contains(&intruder.join().unwrap()));
}

#[test]
fn a_transfer_given_up_keeps_the_session_where_the_server_plays_along() {
    // vsftpd and ProFTPD say 426; Pure-FTPd says 150 a second time, or nothing.
    for (last_word, survives) in [
        ("426 aborted", true),
        ("150 0.001 seconds", true),
        ("", true),
    ] {
        let server = Server::start(move |peer, line| {
            if line != "RETR a" {
                return Some(false);
            }
            peer.say("150 here it is");
            let mut data = peer.accept();
            while data.write_all(&[0; 65536]).is_ok() {}
            if !last_word.is_empty() {
                peer.say(last_word);
            }
            Some(true)
        });
        let pool = server.pool();
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        let Begun::Open(mut data) = lease.begin_data(b"RETR a", 0).unwrap() else {
            panic!("refused");
        };
        data.read_exact(&mut [0; 1000]).unwrap();
        let before = Instant::now();
        lease.close_early(data);
        assert!(before.elapsed() < Duration::from_secs(4));
        assert_eq!(!lease.is_broken(), survives, "{last_word:?}");
        if survives {
            assert_eq!(size(&mut lease).unwrap(), "213 1");
        }
    }
}

#[test]
fn refused_transfers_leave_the_session_in_step() {
    let server = Server::start(|peer, line| {
        match line {
            "RETR a" => peer.say("550 No such file"),
            "REST 5" => peer.say("350 go on"),
            "REST 7" => peer.say("502 no"),
            // An empty directory, on some servers.
            "LIST" => peer.say("226 nothing there"),
            _ => return Some(false),
        }
        Some(true)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    for (offset, code) in [(0, 550), (5, 550), (7, 502)] {
        match lease.begin_data(b"RETR a", offset).unwrap() {
            Begun::Refused(reply) => assert_eq!(reply.code(), code),
            Begun::Open(_) => panic!("not refused"),
        }
    }
    // The offset that was accepted is taken back.
    assert_eq!(server.count("REST 0"), 1);
    let Begun::Open(data) = lease.begin_data(b"LIST", 0).unwrap() else {
        panic!("refused");
    };
    assert_eq!(lease.end_data(data).unwrap().code(), 226);
    assert_eq!(size(&mut lease).unwrap(), "213 1");
}

#[test]
fn who_gives_one_download_up_after_another_has_the_next_data_connection_made() {
    // What a server says of a transfer that was given up, and how often EPSV goes ahead of it.
    for (last_word, ahead) in [("426 aborted", true), ("426 aborted\r\n226 done", false)] {
        let server = Server::start(move |peer, line| {
            if !line.starts_with("RETR") {
                return Some(
                    line.starts_with("REST") && {
                        peer.say("350 go on");
                        true
                    },
                );
            }
            peer.say("150 here it is");
            let mut data = peer.accept();
            while data.write_all(&[7; 65536]).is_ok() {}
            peer.say(last_word);
            Some(true)
        });
        let pool = server.pool();
        let mut broken = 0;
        for round in 0..6 {
            let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
            let Ok(Begun::Open(mut data)) = lease.begin_data(b"RETR a", round) else {
                broken += 1;
                continue;
            };
            data.read_exact(&mut [0; 1000]).unwrap();
            lease.close_for_next(data);
        }
        let heard = server.heard.lock().unwrap().clone();
        let last = heard.iter().rev().take(2).collect::<Vec<_>>();
        if ahead {
            assert_eq!(broken, 0);
            assert_eq!(last, ["EPSV", "RETR a"], "the last EPSV is for the next");
            assert_eq!((server.count("EPSV"), server.count("RETR a")), (7, 6));
        } else {
            let facts = pool.host().facts(|facts| facts.gives_up_in_step);
            assert_eq!(facts, Some(false), "found out, and not done again");
        }
    }
}

/// A server that says nothing of a download that is given up, and this to NOOP.
fn silent(noop: &'static str) -> Server {
    let owes = AtomicBool::new(false);
    Server::start(move |peer, line| {
        match line.split(' ').next() {
            Some("RETR") => {
                peer.say("150 here it is");
                let mut data = peer.accept();
                while data.write_all(&[7; 65536]).is_ok() {}
                owes.store(true, Ordering::Relaxed);
            }
            Some("REST") => peer.say("350 go on"),
            Some("NOOP") if owes.swap(false, Ordering::Relaxed) => peer.say(noop),
            _ => return Some(false),
        }
        Some(true)
    })
}

#[test]
fn a_server_that_says_nothing_of_what_was_given_up_is_asked_and_then_known() {
    let server = silent("200 ok");
    let pool = server.pool();
    for round in 0..4 {
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        let Begun::Open(mut data) = lease.begin_data(b"RETR a", round).unwrap() else {
            panic!("refused");
        };
        data.read_exact(&mut [0; 1000]).unwrap();
        lease.close_for_next(data);
        assert!(!lease.is_broken());
        assert!(pool.host().facts(|facts| facts.gives_up_silently));
        // Only the first time; then the question is for the next data connection.
        let heard = server.heard.lock().unwrap().clone();
        let last = heard.last().map(String::as_str);
        assert_eq!(last, Some(if round == 0 { "NOOP" } else { "EPSV" }));
    }
    assert_eq!(server.count("RETR a"), 4);
}

#[test]
fn who_answers_while_the_last_word_is_yet_to_come_is_not_silent() {
    let server = silent("200 ok\r\n426 aborted");
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    let Begun::Open(mut data) = lease.begin_data(b"RETR a", 0).unwrap() else {
        panic!("refused");
    };
    data.read_exact(&mut [0; 1000]).unwrap();
    lease.close_for_next(data);
    assert!(lease.is_broken());
    assert!(!pool.host().facts(|facts| facts.gives_up_silently));
}

#[test]
fn a_refused_rest_takes_the_command_behind_it_back() {
    let server = Server::start(|peer, line| {
        if line.starts_with("REST") {
            peer.say("501 no");
            return Some(true);
        }
        Some(false)
    });
    let pool = server.pool();
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    assert_eq!(retrieve(&mut lease), b"content");
    let Begun::Refused(reply) = lease.begin_data(b"RETR a", 3).unwrap() else {
        panic!("begun, from where nobody wanted");
    };
    assert_eq!(reply.code(), 501);
    let heard = server.heard.lock().unwrap().join(" ");
    assert!(heard.contains("REST 3 RETR a"), "sent together: {heard}");
    assert_eq!(retrieve(&mut lease), b"content");
}
