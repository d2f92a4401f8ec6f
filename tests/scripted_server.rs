//! The scripted server is a server: what the other tests rely on, checked with a bare socket and
//! with curl, so that a failure elsewhere is the program's and not the lab's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::ftpd::{Break, Completion, DashA, Dialect, Disk, Ftpd, Limit, Quirks};
use crate::support::wire::{Snap, Wire};

/// The least of clients.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> (Self, String) {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self { stream, reader };
        let banner = client.reply();
        (client, banner)
    }

    fn login(server: &Ftpd) -> Self {
        let (mut client, banner) = Self::connect(server.address());
        assert!(banner.starts_with("220"), "{banner}");
        assert_eq!(client.code("USER anonymous"), 331);
        assert_eq!(client.code("PASS guest"), 230);
        assert_eq!(client.code("TYPE I"), 200);
        client
    }

    /// One reply, all its lines; empty at the end of the connection.
    fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = Vec::new();
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return text,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            text += &line;
            if line.get(3..4) == Some(" ") && line.get(..3) == text.get(..3) {
                return text;
            }
        }
    }

    fn send(&mut self, command: &[u8]) {
        self.stream.write_all(&[command, b"\r\n"].concat()).unwrap();
    }

    fn command(&mut self, command: &str) -> String {
        self.send(command.as_bytes());
        self.reply()
    }

    fn code(&mut self, command: &str) -> u16 {
        let reply = self.command(command);
        reply
            .get(..3)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    /// Passive mode, the command, its first reply.
    fn begin(&mut self, command: &str) -> (TcpStream, String) {
        let passive = self.command("EPSV");
        let port = passive.split('|').nth(3).unwrap().parse().unwrap();
        let peer = SocketAddr::new(self.stream.peer_addr().unwrap().ip(), port);
        let data = TcpStream::connect(peer).unwrap();
        data.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let first = self.command(command);
        (data, first)
    }

    fn fetch(&mut self, command: &str) -> (Vec<u8>, String) {
        let (mut data, first) = self.begin(command);
        if !first.starts_with('1') {
            return (Vec::new(), first);
        }
        let mut bytes = Vec::new();
        let _ = data.read_to_end(&mut bytes);
        drop(data);
        (bytes, self.reply())
    }

    fn store(&mut self, command: &str, bytes: &[u8]) -> String {
        let (mut data, first) = self.begin(command);
        if !first.starts_with('1') {
            return first;
        }
        let _ = data.write_all(bytes);
        drop(data);
        self.reply()
    }
}

#[test]
fn a_file_goes_there_and_back() {
    let server = Ftpd::start();
    let mut client = Client::login(&server);
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(client.store("STOR a", &bytes).starts_with("226"));
    assert_eq!(server.get("a"), bytes);
    assert_eq!(client.fetch("RETR a").0, bytes);
    assert_eq!(client.code("REST 1000000"), 350);
    assert_eq!(client.fetch("RETR a").0, bytes[1_000_000..]);
    assert!(client.store("APPE a", b"tail").starts_with("226"));
    assert_eq!(client.command("SIZE a"), "213 1200004\r\n");
    assert_eq!(client.code("REST 3"), 350);
    assert!(client.store("STOR a", b"xyz").starts_with("226"));
    assert_eq!(server.get("a")[..8], [0, 0, 0, b'x', b'y', b'z', 0, 0]);
    assert_eq!(server.get("a").len(), 1_200_004);
    assert_eq!(server.bytes_received(), 1_200_007);
}

#[test]
fn names_are_bytes_with_every_space() {
    let server = Ftpd::start();
    let mut client = Client::login(&server);
    let names: [&[u8]; 5] = [b" lead", b"trail ", b"a -> b", b"caf\xe9", b"ff\xff\xff!"];
    for name in names {
        let wire = name
            .iter()
            .flat_map(|b| vec![*b; if *b == 0xff { 2 } else { 1 }]);
        client.send(&[b"MKD ", &wire.collect::<Vec<_>>()[..]].concat());
        assert!(client.reply().starts_with("257"));
    }
    let listing = client.fetch("MLSD").0;
    let mut seen: Vec<_> = listing
        .split(|b| *b == b'\n')
        .filter(|line| line.starts_with(b"type=dir;"))
        .map(|line| {
            line.splitn(2, |b| *b == b' ')
                .nth(1)
                .unwrap()
                .strip_suffix(b"\r")
                .unwrap()
        })
        .collect();
    seen.sort_unstable();
    let mut expected = names;
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn listings_in_every_dialect() {
    let server = Ftpd::start();
    server.put("dir/file", "12345");
    server.put(".hidden", "");
    std::os::unix::fs::symlink("dir/file", server.path("link")).unwrap();
    let mut client = Client::login(&server);
    let mut list = |command: &str| String::from_utf8(client.fetch(command).0).unwrap();

    let plain = list("LIST");
    assert!(plain.starts_with("drwxr-xr-x ") && plain.ends_with(" link -> dir/file\r\n"));
    assert!(!plain.contains(".hidden") && list("LIST -a").contains(" .hidden\r\n"));
    assert!(list("LIST dir").starts_with("-rw-r--r--    1 "));
    assert_eq!(list("NLST dir"), "file\r\n");
    assert_eq!(list("MLSD nosuch"), "");
    let facts = list("MLSD");
    assert!(facts.contains("type=OS.unix=slink:dir/file;"), "{facts}");
    assert!(
        facts.contains("type=cdir;") && facts.contains(";UNIX.mode=0755;"),
        "{facts}"
    );

    server.change(|quirks| {
        quirks.dialect = Dialect::Dos;
        quirks.dash_a = DashA::Mask;
        quirks.ghosts = vec![b"../up".to_vec()];
    });
    assert!(list("LIST dir").ends_with(
        "M                    5 file\r\n01-02-26  03:04AM                    3 ../up\r\n"
    ));
    assert_eq!(list("LIST -a dir"), "");
    assert_eq!(
        client.fetch("LIST nosuch").1,
        "550 nosuch: No such file or directory\r\n"
    );
    server.change(|quirks| quirks.missing_is_empty = true);
    assert!(client.fetch("LIST nosuch").1.starts_with("226"));
    assert!(client.command("STAT dir").contains(" file\r\n"));
}

#[test]
fn times_modes_and_renames() {
    let server = Ftpd::with(Quirks::like_vsftpd());
    server.put("a b", "x");
    server.put("other", "y");
    let mut client = Client::login(&server);
    assert_eq!(client.code("MFMT 20200229123456 a b"), 500);
    assert_eq!(client.code("MDTM 20200229123456 a b"), 213);
    assert_eq!(client.command("MDTM a b"), "213 20200229123456\r\n");
    server.change(|quirks| *quirks = Quirks::default());
    assert_eq!(client.code("MFMT 19691231235959 a b"), 213);
    assert_eq!(client.command("MDTM a b"), "213 19691231235959\r\n");
    assert_eq!(client.code("SITE CHMOD 4711 a b"), 200);
    assert!(client.command("MLST a b").contains("UNIX.mode=04711;"));
    assert_eq!(client.code("RNFR a b"), 350);
    assert_eq!(client.code("RNTO other"), 250);
    assert_eq!(server.get("other"), b"x");
    server.change(|quirks| quirks.rnto_over_refused = Some("550 File exists.".into()));
    server.put("a b", "x");
    assert_eq!(client.code("RNFR a b"), 350);
    assert_eq!(client.code("RNTO other"), 550);
    assert_eq!(client.code("RMD other"), 550);
    assert_eq!(client.code("DELE other"), 250);
    assert_eq!(client.code("CWD other"), 550);
    assert_eq!(client.code("MKD d\"q"), 257);
    assert_eq!(client.code("CWD d\"q"), 250);
    assert!(client.command("PWD").starts_with("257 \"/d\"\"q\" "));
}

#[test]
fn commands_are_logged_and_rules_apply() {
    let quirks = Quirks::default()
        .answer_times("NOOP", 1, "421 Going down.")
        .answer("SITE CHMOD", "550 No.")
        .reply_instead("MKD", "250 done")
        .stall("STAT");
    let server = Ftpd::with(quirks);
    let mut client = Client::login(&server);
    assert_eq!(client.code("SITE CHMOD 644 x"), 550);
    assert_eq!(client.command("MKD d"), "250 done\r\n");
    assert!(server.path("d").is_dir());
    assert_eq!(client.code("NOOP"), 421);
    assert_eq!(client.reply(), "");
    assert_eq!(server.count("SITE"), 1);
    assert_eq!(server.count("USER anonymous"), 1);
    assert_eq!(server.count("USER anon"), 0);

    let mut client = Client::login(&server);
    assert_eq!(client.code("NOOP"), 200);
    client.send(b"STAT d");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.commands().last().unwrap(), "STAT d");
    server.change(|quirks| quirks.stalls.clear());
    assert!(client.reply().starts_with("213-"));
}

#[test]
fn transfers_break_where_they_are_told_to() {
    let quirks = Quirks::default()
        .fault("RETR a", 70_000, 1, Break::CloseData("426 Failure.".into()))
        .fault(
            "RETR a",
            100_000,
            1,
            Break::ResetData("226 All is well.".into()),
        )
        .fault("STOR b", 65_000, 1, Break::HangUp)
        .fault("RETR a", 10, 1, Break::Stall);
    let server = Ftpd::with(quirks);
    server.put("a", vec![7; 100_000]);
    let mut client = Client::login(&server);
    let (bytes, last) = client.fetch("RETR a");
    assert_eq!((bytes.len(), &last[..3]), (70_000, "426"));
    let (bytes, last) = client.fetch("RETR a");
    assert!(bytes.len() <= 100_000 && last.starts_with("226"));
    let (mut data, _) = client.begin("RETR a");
    data.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    data.read_exact(&mut [0; 10]).unwrap();
    assert!(data.read(&mut [0]).is_err());
    server.change(|quirks| {
        quirks
            .faults
            .retain(|fault| !matches!(fault.what, Break::Stall))
    });
    assert_eq!(data.read_to_end(&mut Vec::new()).unwrap(), 99_990);
    assert!(client.reply().starts_with("226"));
    assert_eq!(client.store("STOR b", &[1; 100_000]), "");
    assert_eq!(server.get("b").len(), 65_000);
}

#[test]
fn disks_fill_and_ends_are_told_in_many_ways() {
    let server = Ftpd::with(Quirks {
        disk: Some(Disk {
            bytes: 1000,
            reply: "552 Disk full.".into(),
        }),
        ..Quirks::default()
    });
    let mut client = Client::login(&server);
    assert!(client.store("STOR a", &[1; 900]).starts_with("226"));
    assert!(client.store("STOR b", &[1; 200]).starts_with("552"));
    assert_eq!(server.get("b").len(), 100);

    server.change(|quirks| quirks.completion = Completion::Twice);
    assert!(client.fetch("RETR a").1.starts_with("226"));
    assert!(client.reply().starts_with("226"));
    server.change(|quirks| quirks.completion = Completion::Late(Duration::from_millis(100)));
    let before = Instant::now();
    assert!(client.fetch("RETR a").1.starts_with("226"));
    assert!(before.elapsed() >= Duration::from_millis(100));
    server.change(|quirks| {
        quirks.completion = Completion::Normal;
        quirks.opening = String::new();
    });
    client.send(b"EPSV");
    let port = client.reply().split('|').nth(3).unwrap().parse().unwrap();
    let mut data = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.send(b"RETR a");
    assert_eq!(data.read_to_end(&mut Vec::new()).unwrap(), 900);
    assert!(client.reply().starts_with("226"));
}

#[test]
fn limits_hangups_and_outages() {
    let server = Ftpd::with(Quirks {
        limit: Some(Limit {
            sessions: 1,
            reply: "421 Too many connections.".into(),
        }),
        ..Quirks::default()
    });
    let mut first = Client::login(&server);
    assert_eq!(
        Client::connect(server.address()).1,
        "421 Too many connections.\r\n"
    );
    server.hang_up();
    assert_eq!(first.reply(), "");
    server.change(|quirks| quirks.limit.as_mut().unwrap().reply = "530 Too many users.".into());
    let _first = Client::login(&server);
    let (mut second, _) = Client::connect(server.address());
    assert_eq!(second.code("USER anonymous"), 331);
    assert_eq!(second.code("PASS guest"), 530);
    assert_eq!(server.sessions_peak(), 1);
    server.go_down();
    assert!(TcpStream::connect(server.address()).is_err());
    server.come_back();
    Client::login(&server);
}

#[test]
fn curl_agrees_on_both_families() {
    for server in [
        Ftpd::start(),
        Ftpd::on(Ipv6Addr::LOCALHOST.into(), Quirks::default()),
    ] {
        server.put("dir/file", "content");
        let local = server.put("local", "sent");
        let curl = |options: &[&str], name: &str| {
            let out = Command::new("curl")
                .args(["-sS", "-g", "--max-time", "10"])
                .args(options)
                .arg(server.url("dir/") + name)
                .output()
                .expect("curl is installed");
            let errors = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{errors}");
            String::from_utf8(out.stdout).unwrap()
        };
        assert_eq!(curl(&[], "file"), "content");
        assert_eq!(curl(&["--disable-epsv"], "file"), "content");
        assert_eq!(curl(&["--ftp-port", "-"], "file"), "content");
        assert!(curl(&[], "").trim_end().ends_with(" file"));
        curl(&["-T", local.to_str().unwrap()], "new%20name");
        assert_eq!(server.get("dir/new name"), b"sent");
    }
}

#[test]
fn a_wire_counts_delays_and_snaps() {
    let server = Ftpd::start();
    server.put("a", vec![1; 200_000]);
    let wire = Wire::to(server.address());
    server.change(|quirks| quirks.advertise = Some(wire.hook()));
    let fetch = || {
        let (mut client, banner) = Client::connect(wire.address());
        if banner.is_empty() {
            return 0;
        }
        client.command("USER anonymous");
        client.command("PASS guest");
        client.command("TYPE I");
        client.fetch("RETR a").0.len()
    };
    assert_eq!(fetch(), 200_000);
    assert!(wire.bytes_down() > 200_000 && wire.bytes_down() < 200_500);
    assert_eq!(wire.connections(), 2);

    wire.delay(Duration::from_millis(10));
    let before = Instant::now();
    assert_eq!(fetch(), 200_000);
    assert!(before.elapsed() >= Duration::from_millis(100));
    wire.delay(Duration::ZERO);

    wire.snap_at(wire.bytes() + 100_000, Snap::Close);
    let arrived = fetch();
    // 0 where the data overtook the 150 on the other connection, and cut it off.
    assert!(
        arrived == 0 || (99_000..100_000).contains(&arrived),
        "{arrived}"
    );
    assert!(wire.has_snapped());
    assert_eq!(fetch(), 200_000);
}
