//! TLS on both connections, against rustls' own server with the habits of others.
//!
//! `cert.pem` and `key.pem` are of use for these tests only: self-signed, for 127.0.0.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ferryfs::ftp::options::TlsMode;
use ferryfs::ftp::pool::{Pool, Purpose};
use ferryfs::ftp::session::{Begun, Session};
use ferryfs::vfs::error::ErrorKind;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::server::Server;
use crate::support::ftpd::tls;

/// As `openssl x509 -fingerprint -sha256` prints it.
const FINGERPRINT: &str = "84:B7:82:57:A8:C3:3B:A9:9B:5A:F6:12:C8:93:76:63:5F:54:2F:FA:A2:8C:3B:45:53:8C:5B:03:DB:D8:4F:0D";

/// How the server treats its data connections.
#[derive(Clone, Copy)]
pub(super) struct Habits {
    /// TLS 1.3 tickets sent on each; ProFTPD sends none on uploads.
    pub(super) tickets: usize,
    /// Whether it says close_notify.
    pub(super) says_goodbye: bool,
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A server that demands, as vsftpd does, that data connections resume the session.
pub(super) struct TlsServer {
    pub(super) address: SocketAddr,
    /// Commands, and the TLS version of each control connection.
    heard: Arc<Mutex<Vec<String>>>,
}

impl TlsServer {
    pub(super) fn start(habits: Habits) -> Self {
        let config = ServerConfig::clone(&tls::config());
        Self::with("127.0.0.1:0", habits, config)
    }

    /// The same, at `address` and with another certificate.
    pub(super) fn with(address: &str, habits: Habits, mut control: ServerConfig) -> Self {
        control.send_tls13_tickets = 2;
        // Shares the memory of sessions with the control connections.
        let mut data = control.clone();
        data.send_tls13_tickets = habits.tickets;
        let (control, data) = (Arc::new(control), Arc::new(data));
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (control, data) = (Arc::clone(&control), Arc::clone(&data));
                let record = Arc::clone(&record);
                thread::spawn(move || serve(stream.unwrap(), control, &data, habits, &record));
            }
        });
        Self { address, heard }
    }

    /// TLS from the first byte, and then this greeting.
    fn implicit(greeting: &'static str) -> Self {
        let config = tls::config();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let habits = Habits {
            tickets: 2,
            says_goodbye: true,
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, record) = (Arc::clone(&config), Arc::clone(&record));
                thread::spawn(move || {
                    let mut control = accept_tls(stream.unwrap(), Arc::clone(&config))?;
                    control.write_all(greeting.as_bytes()).ok()?;
                    converse(control, &config, habits, &record)
                });
            }
        });
        Self { address, heard }
    }

    fn pool(&self, tls: TlsMode, ca_file: Option<&str>) -> Arc<Pool> {
        let mut options = Server::options_for(self.address);
        options.tls = tls;
        options.trust.ca_file = ca_file.map(|file| Path::new(file).to_path_buf());
        Pool::new(options)
    }

    pub(super) fn heard(&self, what: &str) -> usize {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|line| line.starts_with(what)).count()
    }
}

/// One control connection, from greeting to hang-up.
fn serve(
    mut tcp: TcpStream,
    control: Arc<ServerConfig>,
    data: &Arc<ServerConfig>,
    habits: Habits,
    record: &Mutex<Vec<String>>,
) -> Option<()> {
    tcp.set_nodelay(true).ok()?;
    tcp.write_all(b"220 ready\r\n").ok()?;
    let mut auth = [0; 10];
    tcp.read_exact(&mut auth).ok()?;
    tcp.write_all(b"234 go on\r\n").ok()?;
    converse(accept_tls(tcp, control)?, data, habits, record)
}

/// What follows in TLS.
fn converse(
    control: Tls,
    data: &Arc<ServerConfig>,
    habits: Habits,
    record: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut lines = BufReader::new(control);
    let version = lines.get_ref().conn.protocol_version()?;
    record.lock().unwrap().push(format!("{version:?}"));
    let mut listener = None;
    let mut clear = false;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        record.lock().unwrap().push(line.to_owned());
        let reply = match line.split(' ').next()? {
            "USER" => "331 password".to_owned(),
            "PASS" => "230 welcome".to_owned(),
            "EPSV" => {
                let announced = TcpListener::bind("127.0.0.1:0").ok()?;
                let port = announced.local_addr().ok()?.port();
                listener = Some(announced);
                format!("229 (|||{port}|)")
            }
            "PROT" => {
                clear = line.ends_with('C');
                "200 ok".to_owned()
            }
            verb @ ("STOR" | "RETR") => {
                lines.get_mut().write_all(b"150 go on\r\n").ok()?;
                let mut tcp = listener.take()?.accept().ok()?.0;
                if clear {
                    let mut content = Vec::new();
                    tcp.read_to_end(&mut content).ok()?;
                    let reply = format!("226 {} bytes in clear\r\n", content.len());
                    lines.get_mut().write_all(reply.as_bytes()).ok()?;
                    continue;
                }
                let mut stream = accept_tls(tcp, Arc::clone(data))?;
                if stream.conn.handshake_kind() != Some(HandshakeKind::Resumed) {
                    // As vsftpd: a word, and the control connection is gone.
                    lines
                        .get_mut()
                        .write_all(b"522 session reuse required\r\n")
                        .ok()?;
                    return None;
                }
                let mut content = b"content".to_vec();
                if verb == "STOR" {
                    content.clear();
                    stream.read_to_end(&mut content).ok()?;
                } else {
                    stream.write_all(&content).ok()?;
                }
                if habits.says_goodbye {
                    stream.conn.send_close_notify();
                }
                stream.flush().ok()?;
                format!("226 {} bytes", content.len())
            }
            _ => "200 ok".to_owned(),
        };
        lines
            .get_mut()
            .write_all(format!("{reply}\r\n").as_bytes())
            .ok()?;
    }
}

fn accept_tls(mut tcp: TcpStream, config: Arc<ServerConfig>) -> Option<Tls> {
    tcp.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut connection = ServerConnection::new(config).ok()?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).ok()?;
    }
    Some(StreamOwned::new(connection, tcp))
}

pub(super) fn store(session: &mut Session) -> String {
    match session.begin_data(b"STOR a", 0).unwrap() {
        Begun::Open(mut data) => {
            data.write_all(&[7; 50_000]).unwrap();
            session.end_data(data).unwrap().text()
        }
        Begun::Refused(reply) => reply.text(),
    }
}

#[test]
fn an_unknown_certificate_is_refused_with_all_that_is_needed_and_never_bypassed() {
    let server = TlsServer::start(Habits {
        tickets: 2,
        says_goodbye: true,
    });
    for mode in [TlsMode::Auto, TlsMode::Explicit] {
        let pool = server.pool(mode, None);
        let error = pool.lease(Purpose::Metadata, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        for part in [
            "127.0.0.1",
            FINGERPRINT,
            "-o fingerprint=SHA256:",
            "-o cafile=",
        ] {
            assert!(error.detail().contains(part), "{error}");
        }
    }
    assert_eq!(server.heard("USER"), 0);
}

#[test]
fn tls_from_the_first_byte_takes_greetings_in_all_their_forms() {
    for greeting in [
        "220 ready\r\n",
        "120 In a moment.\r\n220 ready\r\n",
        "220-Welcome\r\n100 users are here\r\n220-more\r\n\r\n 220 indented\r\n220 ready\r\n",
    ] {
        let server = TlsServer::implicit(greeting);
        let pool = server.pool(TlsMode::Implicit, Some(tls::CERTIFICATE));
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        assert_eq!(store(&mut lease), "226 50000 bytes", "{greeting:?}");
        assert_eq!((server.heard("AUTH"), server.heard("PROT P")), (0, 1));
    }
    let server = TlsServer::implicit("421 Too many users.\r\n");
    let pool = server.pool(TlsMode::Implicit, Some(tls::CERTIFICATE));
    let error = pool.lease(Purpose::Metadata, true).unwrap_err();
    assert!(error.detail().contains("Too many users"), "{error}");
    // A certificate that is not trusted, and what is no TLS.
    let pool = server.pool(TlsMode::Implicit, None);
    let error = pool.lease(Purpose::Metadata, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert!(error.detail().contains(FINGERPRINT), "{error}");
    assert_eq!(server.heard("USER"), 0);
}

#[test]
fn fifty_uploads_resume_the_session_under_tls_1_3() {
    let server = TlsServer::start(Habits {
        tickets: 1,
        says_goodbye: true,
    });
    let pool = server.pool(TlsMode::Auto, Some(tls::CERTIFICATE));
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    for _ in 0..50 {
        assert_eq!(store(&mut lease), "226 50000 bytes");
    }
    assert_eq!((server.heard("TLSv1_3"), server.heard("PROT P")), (1, 1));
}

#[test]
fn a_server_that_gives_too_few_tickets_is_talked_to_in_tls_1_2_before_it_refuses() {
    let server = TlsServer::start(Habits {
        tickets: 0,
        says_goodbye: true,
    });
    let pool = server.pool(TlsMode::Explicit, Some(tls::CERTIFICATE));
    for _ in 0..10 {
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        assert_eq!(store(&mut lease), "226 50000 bytes");
    }
    assert_eq!((server.heard("TLSv1_3"), server.heard("TLSv1_2")), (1, 1));
}

#[test]
fn an_end_without_close_notify_is_an_end_but_not_a_certain_one() {
    for says_goodbye in [true, false] {
        let server = TlsServer::start(Habits {
            tickets: 2,
            says_goodbye,
        });
        let pool = server.pool(TlsMode::Explicit, Some(tls::CERTIFICATE));
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        let Begun::Open(mut data) = lease.begin_data(b"RETR a", 0).unwrap() else {
            panic!("refused");
        };
        let mut content = Vec::new();
        data.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"content");
        assert_eq!(data.clean_eof(), says_goodbye);
        assert!(lease.end_data(data).unwrap().is_ok());
    }
}
