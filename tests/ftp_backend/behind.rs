//! What is asked behind the first listing before that has ended, and REST tried by a listed size, on
//! servers that can take it and on others.

use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::ftp::FtpBackend;
use ferryfs::vfs::content::Contents;

use super::{get, names};
use crate::ftp_session::server::{Peer, Server};

const LINE: &str = "-rw-r--r--    1 0        0         2097152 Jan 02  2020 f\r\n";
const SELF: &str = "drwxr-xr-x    2 0        0            4096 Jan 02  2020 .\r\n";

/// A server without MLSD, whose home has one file; `odd` is asked first.
fn start(odd: impl Fn(&mut Peer, &str) -> bool + Send + Sync + 'static) -> Server {
    Server::start(move |peer, line| {
        if odd(peer, line) {
            return Some(true);
        }
        match line.split(' ').next().unwrap_or_default() {
            "FEAT" => peer.say("211-\r\n SIZE\r\n MDTM\r\n211 end"),
            "LIST" => {
                list(peer);
                peer.say("226 done");
            }
            "STAT" => peer.say(&format!("213-Status\r\n{SELF}{LINE}213 end")),
            "MDTM" => peer.say("213 20200102030400"),
            _ => return Some(false),
        }
        Some(true)
    })
}

/// All of a listing, but for its end.
fn list(peer: &mut Peer) {
    peer.say("150 here it is");
    write!(peer.accept(), "{SELF}{LINE}").unwrap();
}

fn mount(server: &Server) -> (FtpBackend, tempfile::TempDir) {
    let staging = tempfile::tempdir().unwrap();
    let contents = Contents::new(staging.path(), 1 << 20).unwrap();
    let backend = FtpBackend::connect(server.options(), contents).unwrap();
    (backend, staging)
}

/// What came within a moment.
fn early(peer: &mut Peer) -> String {
    let limit = Some(Duration::from_millis(300));
    peer.lines.get_ref().set_read_timeout(limit).unwrap();
    let early = peer.lines.fill_buf().map(<[u8]>::to_vec);
    peer.lines.get_ref().set_read_timeout(None).unwrap();
    String::from_utf8(early.unwrap_or_default()).unwrap()
}

/// Takes one line of what came, if it is STAT.
fn swallow(peer: &mut Peer) -> bool {
    let came = early(peer).starts_with("STAT");
    if came {
        let mut line = String::new();
        peer.lines.read_line(&mut line).unwrap();
    }
    came
}

#[test]
fn the_first_listing_is_compared_before_it_has_ended() {
    let server = start(|peer, line| {
        if !line.starts_with("LIST") {
            return false;
        }
        list(peer);
        let asked = early(peer);
        let good = asked.starts_with("STAT -a /home\r\n");
        peer.say(if good { "226 done" } else { "451 too late" });
        true
    });
    let (backend, _staging) = mount(&server);
    assert_eq!(names(&backend, ""), ["f"]);
    // By STAT from now on, and on the same session.
    assert_eq!(names(&backend, ""), ["f"]);
    let heard = server.heard.lock().unwrap();
    let count = |verb: &str| heard.iter().filter(|line| line.starts_with(verb)).count();
    assert_eq!(
        (count("LIST"), count("STAT -a"), count("USER")),
        (1, 2, 1),
        "{heard:?}"
    );
}

#[test]
fn servers_that_cannot_be_asked_behind_a_listing_are_asked_after_it() {
    type Ends = fn(&mut Peer);
    let cases: [(&str, Ends); 4] = [
        ("tells of the transfer", |peer| {
            if swallow(peer) {
                peer.say("213-Status\r\n sending\r\n213 end");
            }
        }),
        ("refuses", |peer| {
            if swallow(peer) {
                peer.say("450 data transfer in progress");
            }
        }),
        ("throws it away", |peer| {
            early(peer);
            let pending = peer.lines.buffer().len();
            peer.lines.consume(pending);
        }),
        ("says 226 twice", |peer| {
            if early(peer).starts_with("STAT") {
                peer.say("226 done");
            }
        }),
    ];
    thread::scope(|scope| {
        for (what, ends) in cases {
            scope.spawn(move || {
                let server = start(move |peer, line| {
                    let lists = line.starts_with("LIST");
                    if lists {
                        list(peer);
                        ends(peer);
                        peer.say("226 done");
                    }
                    lists
                });
                let (backend, _staging) = mount(&server);
                let before = Instant::now();
                assert_eq!(names(&backend, ""), ["f"], "{what}");
                assert!(before.elapsed() < Duration::from_secs(7), "{what}");
                assert_eq!(names(&backend, ""), ["f"], "{what}");
                let heard = server.heard.lock().unwrap();
                let count = |verb: &str| heard.iter().filter(|l| l.starts_with(verb)).count();
                // Once in vain, if at all, and STAT is found to be good all the same.
                assert_eq!(count("LIST"), 2, "{what}: {heard:?}");
                assert_eq!(
                    heard.last().map(String::as_str),
                    Some("STAT -a /home"),
                    "{what}"
                );
            });
        }
    });
}

/// Reads the end of a file that was listed with two mebibytes, where 150 tells `total`, SIZE says
/// `size`, and so many bytes come behind an offset. What came, and what was asked for that.
fn reads(
    total: &'static str,
    size: &'static str,
    comes: fn(usize) -> usize,
) -> (String, Vec<String>) {
    let rest = Mutex::new(0);
    let server = start(move |peer, line| {
        match line.split(' ').next().unwrap_or_default() {
            "SIZE" => peer.say(size),
            "REST" => {
                *rest.lock().unwrap() = line[5..].parse().unwrap();
                peer.say("350 go on");
            }
            "RETR" => {
                let at = std::mem::take(&mut *rest.lock().unwrap());
                peer.say(&format!("150 here it is {total}"));
                let content: Vec<u8> = (0..comes(at)).map(|n| b'a' + (n % 26) as u8).collect();
                let _ = peer.accept().write_all(&content);
                peer.say("226 done");
            }
            _ => return false,
        }
        true
    });
    let (backend, _staging) = mount(&server);
    assert_eq!(names(&backend, ""), ["f"]);
    let got = get(&backend, "f", (2 << 20) - 5).unwrap();
    let heard = server.heard.lock().unwrap();
    let asked = heard
        .iter()
        .filter(|l| l.starts_with("SIZE") || l.starts_with("REST"));
    (got, asked.cloned().collect())
}

#[test]
fn rest_is_tried_by_the_listed_size() {
    let last = (2 << 20) - 1;
    let obeys = |at| (2_usize << 20).saturating_sub(at);
    // Told with 150: nothing else is asked.
    let (got, asked) = reads("(2097152 bytes)", "213 2097152", obeys);
    assert_eq!(got, "abcde");
    assert_eq!(
        asked,
        [format!("REST {last}"), format!("REST {}", last - 4)]
    );
    // Not told: the size is asked for behind it.
    let (got, asked) = reads("", "213 2097152", obeys);
    assert_eq!(got, "abcde");
    assert_eq!(asked.len(), 3, "{asked:?}");
    // Another file by now, of one byte, on a server that knows no REST: nothing is believed.
    let (_, asked) = reads("", "213 1", |_| 1);
    assert_eq!(
        asked.iter().filter(|l| l.starts_with("REST")).count(),
        1,
        "{asked:?}"
    );
    // It does not obey.
    let (_, asked) = reads("(2097152 bytes)", "213 2097152", |_| 2 << 20);
    assert_eq!(
        asked.iter().filter(|l| l.starts_with("REST")).count(),
        2,
        "{asked:?}"
    );
}
