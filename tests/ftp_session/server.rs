//! A server of a few lines that does what a script says and else what is right.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ferryfs::ftp::options::{
    ChmodPolicy, Conflict, DataMode, Family, FtpOptions, LinkPolicy, ListingMode, Protection,
    TlsMode, UploadMode,
};
use ferryfs::ftp::pool::Pool;
use ferryfs::ftp::session::Session;
use ferryfs::net::trust::TlsOptions;
use ferryfs::secret::Secret;

/// One connection as the server sees it.
pub(crate) struct Peer {
    pub(crate) lines: BufReader<TcpStream>,
    /// Which connection this is, from 1.
    pub(super) number: usize,
    pub(super) data: Option<TcpListener>,
}

impl Peer {
    pub(crate) fn say(&mut self, reply: &str) {
        let _ = write!(self.lines.get_mut(), "{reply}\r\n");
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(n) if n > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// Accepts the data connection that EPSV or PASV announced.
    pub(crate) fn accept(&mut self) -> TcpStream {
        self.data.take().unwrap().accept().unwrap().0
    }

    /// Announces a data port.
    pub(super) fn listen(&mut self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        self.data = Some(listener);
        port
    }

    /// What a server without faults answers.
    fn well_behaved(&mut self, line: &str) {
        let verb = line.split(' ').next().unwrap_or_default();
        match verb {
            "USER" => self.say("331 password"),
            "PASS" => self.say("230 welcome"),
            "FEAT" => self.say("211-\r\n MLST type*;size;\r\n UTF8\r\n211 end"),
            "SYST" => self.say("215 UNIX"),
            "PWD" => self.say("257 \"/home\""),
            "EPSV" => {
                let port = self.listen();
                self.say(&format!("229 (|||{port}|)"));
            }
            "RETR" => {
                self.say("150 here it is");
                self.accept().write_all(b"content").unwrap();
                self.say("226 done");
            }
            "SIZE" => self.say(&format!("213 {}", self.number)),
            "AUTH" => self.say("502 no"),
            "STAT" => self.say(&format!("211 {line}")),
            _ => self.say("200 ok"),
        }
    }
}

/// What the server was told, by all connections.
pub(crate) type Heard = Arc<Mutex<Vec<String>>>;

pub(crate) struct Server {
    address: SocketAddr,
    pub(crate) heard: Heard,
}

impl Server {
    /// Starts a server. `fault` sees each line first, `""` for the greeting; it returns whether it
    /// dealt with it. Returning `None` hangs up.
    pub(crate) fn start(
        fault: impl Fn(&mut Peer, &str) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Heard::default();
        let record = Arc::clone(&heard);
        let fault = Arc::new(fault);
        thread::spawn(move || {
            for (stream, number) in listener.incoming().zip(1..) {
                let fault = Arc::clone(&fault);
                let record = Arc::clone(&record);
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let mut peer = Peer {
                        lines: BufReader::new(stream),
                        number,
                        data: None,
                    };
                    match fault(&mut peer, "") {
                        Some(true) => {}
                        Some(false) => peer.say("220 ready"),
                        None => return,
                    }
                    while let Some(line) = peer.line() {
                        record.lock().unwrap().push(line.clone());
                        match fault(&mut peer, &line) {
                            Some(true) => {}
                            Some(false) => peer.well_behaved(&line),
                            None => return,
                        }
                    }
                });
            }
        });
        Self { address, heard }
    }

    pub(crate) fn options(&self) -> FtpOptions {
        Self::options_for(self.address)
    }

    /// Plain FTP, four connections, two seconds.
    pub(crate) fn options_for(address: SocketAddr) -> FtpOptions {
        FtpOptions {
            host: address.ip().to_string(),
            port: address.port(),
            user: "user".into(),
            password: Secret::new("hunter2"),
            account: None,
            directory: Vec::new(),
            tls: TlsMode::Off,
            trust: TlsOptions::default(),
            protection: Protection::Private,
            clear_control: false,
            proxy: None,
            timeout: Duration::from_secs(2),
            connections: 4,
            extra_connections: 0,
            idle: Duration::from_secs(60),
            data: DataMode::Passive,
            family: Family::Any,
            bind: None,
            trust_pasv_address: false,
            charset: None,
            listing: ListingMode::Auto,
            time_offset: None,
            exact_times: false,
            chmod: ChmodPolicy::Strict,
            links: LinkPolicy::Contain,
            upload: UploadMode::Auto,
            conflict: Conflict::Keep,
            verify: ferryfs::ftp::options::Verify::Off,
            compress: ferryfs::ftp::options::Compress::Auto,
            bandwidth: None,
        }
    }

    pub(super) fn pool(&self) -> Arc<Pool> {
        Pool::new(self.options())
    }

    /// How often a line that begins so was heard.
    pub(super) fn count(&self, prefix: &str) -> usize {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|line| line.starts_with(prefix)).count()
    }
}

/// Asks something of which the answer tells the connection.
pub(super) fn size(session: &mut Session) -> ferryfs::vfs::error::Result<String> {
    session.command(b"SIZE a").map(|reply| reply.text())
}
