//! A POP3 server for tests: a maildrop in memory, and every quirk and fault a real one has shown.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Of use for tests only.
const CERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ftp_session/cert.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ftp_session/key.pem");

pub const USER: &str = "alice";
pub const PASSWORD: &str = "secret";

/// One message, lines ended by LF.
#[derive(Debug, Clone)]
pub struct Mail {
    pub uidl: String,
    pub text: Vec<u8>,
}

/// What is odd about this server. The default is a good one.
#[derive(Debug, Clone)]
pub struct Quirks {
    pub greeting: String,
    pub capa: bool,
    pub uidl: bool,
    pub top: bool,
    /// Offered; without it, commands sent ahead are thrown away, as mpopd does.
    pub pipelining: bool,
    pub stls: bool,
    /// TLS from the first octet.
    pub tls: bool,
    pub sasl: String,
    /// More CAPA lines.
    pub extra: Vec<String>,
    /// LIST counts LF as one octet.
    pub lf_sizes: bool,
    /// Added to every size told.
    pub size_lie: i64,
    /// Instead of checking the password.
    pub login: Option<String>,
    /// Message numbers that RETR refuses.
    pub refused: HashSet<usize>,
    /// The connection ends after so many octets of answers.
    pub cut_after: Option<usize>,
    /// The connection ends in the middle of this message, by UIDL.
    pub cut_in: Option<String>,
    /// Between any two octets of an answer.
    pub drip: Option<Duration>,
    /// Answers to this command never end: `true` with lines, `false` in one line.
    pub endless: Option<(String, bool)>,
    /// Answers to this command are replaced, octet by octet.
    pub forged: HashMap<String, Vec<u8>>,
    /// Sent in the same packet as the answer to STLS.
    pub injected: Vec<u8>,
    /// Messages listed at once; what was retrieved is hidden after QUIT (Gmail).
    pub hides: Option<usize>,
    /// QUIT is refused and nothing is deleted.
    pub quit_fails: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            greeting: "+OK ready <1.2@test.example>".into(),
            capa: true,
            uidl: true,
            top: true,
            pipelining: true,
            stls: true,
            tls: false,
            sasl: "PLAIN XOAUTH2".into(),
            extra: Vec::new(),
            lf_sizes: false,
            size_lie: 0,
            login: None,
            refused: HashSet::new(),
            cut_after: None,
            cut_in: None,
            drip: None,
            endless: None,
            forged: HashMap::new(),
            injected: Vec::new(),
            hides: None,
            quit_fails: false,
        }
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub mails: Vec<Mail>,
    pub quirks: Quirks,
    /// Every command, secrets included.
    pub log: Vec<String>,
    hidden: HashSet<String>,
}

#[derive(Debug)]
pub struct Pop3d {
    pub port: u16,
    pub state: Arc<Mutex<State>>,
    /// Its certificate.
    pub ca_file: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Pop3d {
    pub fn start(mails: Vec<Mail>, quirks: Quirks) -> Self {
        let certificates: Vec<_> = CertificateDer::pem_file_iter(CERT)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            mails,
            quirks,
            ..State::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopping) = (Arc::clone(&state), Arc::clone(&stop));
        thread::spawn(move || {
            for tcp in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(tcp), state, tls) = (tcp, Arc::clone(&shared), Arc::clone(&tls)) else {
                    continue;
                };
                thread::spawn(move || {
                    // A client that hangs up is nothing to report.
                    let _ = Session::serve(tcp, &state, &tls);
                });
            }
        });
        Self {
            port,
            state,
            ca_file: CERT.into(),
            stop,
        }
    }

    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap())
    }

    /// The commands so far that begin with `verb`.
    pub fn count(&self, verb: &str) -> usize {
        self.with(|s| s.log.iter().filter(|l| l.starts_with(verb)).count())
    }

    pub fn uidls(&self) -> Vec<String> {
        self.with(|s| s.mails.iter().map(|m| m.uidl.clone()).collect())
    }
}

impl Drop for Pop3d {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Session<'a> {
    wire: BufReader<Box<dyn Stream>>,
    tcp: TcpStream,
    state: &'a Mutex<State>,
    quirks: Quirks,
    /// What this session sees, and the marks it set.
    mails: Vec<Mail>,
    deleted: BTreeSet<usize>,
    retrieved: HashSet<usize>,
    sent: usize,
    logged_in: bool,
    user: String,
}

impl<'a> Session<'a> {
    fn serve(tcp: TcpStream, state: &'a Mutex<State>, tls: &Arc<ServerConfig>) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let quirks = state.lock().unwrap().quirks.clone();
        let wire: Box<dyn Stream> = if quirks.tls {
            Box::new(StreamOwned::new(
                ServerConnection::new(Arc::clone(tls)).unwrap(),
                tcp.try_clone()?,
            ))
        } else {
            Box::new(tcp.try_clone()?)
        };
        let mut session = Session {
            wire: BufReader::new(wire),
            tcp,
            state,
            quirks,
            mails: Vec::new(),
            deleted: BTreeSet::new(),
            retrieved: HashSet::new(),
            sent: 0,
            logged_in: false,
            user: String::new(),
        };
        let greeting = session.quirks.greeting.clone();
        session.say(&greeting)?;
        let mut line = String::new();
        loop {
            line.clear();
            if session.wire.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            state.lock().unwrap().log.push(command.clone());
            if !session.quirks.pipelining {
                let ahead = session.wire.buffer().len();
                session.wire.consume(ahead);
            }
            let (verb, argument) = command.split_once(' ').unwrap_or((&command, ""));
            if verb == "STLS" && session.quirks.stls {
                let answer = [b"+OK begin\r\n", &session.quirks.injected[..]].concat();
                session.put(&answer)?;
                let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                let tcp = session.tcp.try_clone()?;
                session.wire = BufReader::new(Box::new(StreamOwned::new(connection, tcp)));
                continue;
            }
            if !session.answer(&verb.to_ascii_uppercase(), argument)? {
                return Ok(());
            }
        }
    }

    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        let mut octets = octets;
        let cut = self.quirks.cut_after;
        if let Some(limit) = cut {
            octets = &octets[..octets.len().min(limit.saturating_sub(self.sent))];
        }
        let out = self.wire.get_mut();
        if let Some(pause) = self.quirks.drip {
            for octet in octets {
                out.write_all(&[*octet])?;
                out.flush()?;
                thread::sleep(pause);
            }
        } else {
            out.write_all(octets)?;
            out.flush()?;
        }
        self.sent += octets.len();
        if cut.is_some_and(|limit| self.sent >= limit) {
            self.tcp.shutdown(Shutdown::Both)?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.put(format!("{line}\r\n").as_bytes())
    }

    fn lines(&mut self, first: &str, lines: &[String]) -> io::Result<()> {
        let mut text = format!("{first}\r\n");
        for line in lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str(".\r\n");
        self.put(text.as_bytes())
    }

    /// `false` ends the session.
    fn answer(&mut self, verb: &str, argument: &str) -> io::Result<bool> {
        if let Some((on, lines)) = self.quirks.endless.clone()
            && on == verb
        {
            self.put(b"+OK follows\r\n")?;
            let piece = if lines { &b"x y z\r\n"[..] } else { b"xyz" };
            loop {
                self.put(&piece.repeat(5000))?;
            }
        }
        if let Some(forged) = self.quirks.forged.get(verb).cloned() {
            self.put(&forged)?;
            return Ok(true);
        }
        match verb {
            "CAPA" if self.quirks.capa => self.capa()?,
            "QUIT" => {
                let quit = self.quit();
                self.say(if quit {
                    "+OK bye"
                } else {
                    "-ERR not all deleted"
                })?;
                return Ok(false);
            }
            "USER" => {
                argument.clone_into(&mut self.user);
                self.say("+OK")?;
            }
            "PASS" => {
                let good = self.user == USER && argument == PASSWORD;
                self.login(good)?;
            }
            "APOP" => {
                let stamp = self.quirks.greeting.split('<').nth(1).unwrap_or_default();
                let digest = md5::compute(format!("<{stamp}{PASSWORD}"));
                self.login(argument == format!("{USER} {digest:x}"))?;
            }
            "AUTH" => self.auth(argument)?,
            _ if !self.logged_in => self.say("-ERR not logged in")?,
            _ => self.transaction(verb, argument)?,
        }
        Ok(true)
    }

    fn capa(&mut self) -> io::Result<()> {
        let quirks = &self.quirks;
        let mut lines = quirks.extra.clone();
        let all = [
            (quirks.uidl, "UIDL"),
            (quirks.top, "TOP"),
            (quirks.pipelining, "PIPELINING"),
            (quirks.stls && !self.logged_in, "STLS"),
            (!self.logged_in, "USER"),
        ];
        lines.extend(all.iter().filter(|c| c.0).map(|c| c.1.to_owned()));
        if !self.logged_in {
            lines.push(format!("SASL {}", quirks.sasl));
        }
        self.lines("+OK", &lines)
    }

    fn login(&mut self, good: bool) -> io::Result<()> {
        if let Some(reply) = self.quirks.login.clone() {
            return self.say(&reply);
        }
        if !good {
            return self.say("-ERR [AUTH] Authentication failed.");
        }
        self.logged_in = true;
        {
            let state = self.state.lock().unwrap();
            let mails = state.mails.iter();
            self.mails = mails
                .filter(|m| !state.hidden.contains(&m.uidl))
                .take(self.quirks.hides.unwrap_or(usize::MAX))
                .cloned()
                .collect();
        }
        self.say("+OK logged in")
    }

    fn auth(&mut self, argument: &str) -> io::Result<()> {
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let mut response = initial.to_owned();
        if response.is_empty() {
            self.say("+ ")?;
            self.wire.read_line(&mut response)?;
        }
        let response = BASE64.decode(response.trim_end()).unwrap_or_default();
        let response = String::from_utf8_lossy(&response).into_owned();
        if mechanism == "PLAIN" {
            return self.login(response == format!("\0{USER}\0{PASSWORD}"));
        }
        let good = response == format!("user={USER}\x01auth=Bearer {PASSWORD}\x01\x01");
        if !good {
            self.say("+ eyJzdGF0dXMiOiI0MDEifQ==")?;
            let mut nothing = String::new();
            self.wire.read_line(&mut nothing)?;
            if nothing.trim_end() != "" {
                return self.say("-ERR expected nothing");
            }
        }
        self.login(good)
    }

    fn transaction(&mut self, verb: &str, argument: &str) -> io::Result<()> {
        let number: usize = argument
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or_default();
        let exists = (1..=self.mails.len()).contains(&number) && !self.deleted.contains(&number);
        let listed: Vec<_> = (1..=self.mails.len())
            .filter(|n| !self.deleted.contains(n))
            .collect();
        match verb {
            "STAT" => self.say(&format!("+OK {} 1000", listed.len())),
            "UIDL" if self.quirks.uidl => {
                let lines: Vec<_> = listed
                    .iter()
                    .map(|n| format!("{n} {}", self.mails[n - 1].uidl))
                    .collect();
                self.lines("+OK", &lines)
            }
            "LIST" => {
                let lines: Vec<_> = listed
                    .iter()
                    .map(|n| format!("{n} {}", self.size(*n)))
                    .collect();
                self.lines("+OK", &lines)
            }
            "RETR" if exists && !self.quirks.refused.contains(&number) => {
                self.retrieved.insert(number);
                self.message(number, false)
            }
            "TOP" if exists && self.quirks.top => self.message(number, true),
            "DELE" if exists => {
                self.deleted.insert(number);
                self.say("+OK marked")
            }
            "RSET" => {
                self.deleted.clear();
                self.say("+OK")
            }
            "NOOP" => self.say("+OK"),
            "RETR" | "TOP" | "DELE" => self.say("-ERR no such message"),
            _ => self.say(&format!("-ERR Unknown command: {verb}")),
        }
    }

    fn size(&self, number: usize) -> i64 {
        let text = &self.mails[number - 1].text;
        let lines = text.iter().filter(|b| **b == b'\n').count();
        let crlf = if self.quirks.lf_sizes { 0 } else { lines };
        (text.len() + crlf) as i64 + self.quirks.size_lie
    }

    fn message(&mut self, number: usize, header_only: bool) -> io::Result<()> {
        let mail = self.mails[number - 1].clone();
        let mut wire = b"+OK follows\r\n".to_vec();
        for line in mail.text.split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            wire.extend(line);
            wire.extend(b"\r\n");
            if header_only && line.is_empty() {
                break;
            }
        }
        wire.extend(b".\r\n");
        if !header_only && self.quirks.cut_in.as_ref() == Some(&mail.uidl) {
            self.put(&wire[..wire.len() / 2])?;
            self.tcp.shutdown(Shutdown::Both)?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.put(&wire)
    }

    /// The UPDATE state.
    fn quit(&self) -> bool {
        if self.quirks.quit_fails {
            return false;
        }
        let uidls = |numbers: &mut dyn Iterator<Item = usize>| -> HashSet<String> {
            numbers.map(|n| self.mails[n - 1].uidl.clone()).collect()
        };
        let gone = uidls(&mut self.deleted.iter().copied());
        let seen = uidls(&mut self.retrieved.iter().copied());
        let mut state = self.state.lock().unwrap();
        state.mails.retain(|m| !gone.contains(&m.uidl));
        if self.quirks.hides.is_some() {
            state.hidden.extend(seen);
        }
        true
    }
}
