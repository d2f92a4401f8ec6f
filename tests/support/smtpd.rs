//! An SMTP server for tests: it keeps every byte it gets, and does what real ones have done wrong.

use std::collections::{HashMap, VecDeque};
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

pub const USER: &str = "alice";
pub const PASSWORD: &str = "secret";

const CERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ftp_session/cert.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ftp_session/key.pem");

/// Where the connection ends without a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drop {
    /// When this command comes.
    At(&'static str),
    /// After so many octets of a message.
    InBody(usize),
    /// After the final dot, the message kept or not.
    AfterDot { kept: bool },
}

/// What is odd about this server. The default is a good one.
#[derive(Debug, Clone)]
pub struct Quirks {
    pub banner: String,
    /// Without it EHLO is unknown.
    pub esmtp: bool,
    /// Lines of the answer to EHLO.
    pub extensions: Vec<String>,
    /// TLS from the first octet.
    pub tls: bool,
    /// Sent in the same packet as the answer to STARTTLS.
    pub injected: Vec<u8>,
    /// Commands are refused until AUTH succeeded.
    pub needs_auth: bool,
    /// Answers to RCPT by address, one after the other, the last one for ever; `None` is a yes.
    pub recipients: HashMap<String, VecDeque<String>>,
    /// Answers to messages, one after the other; then a yes.
    pub finals: VecDeque<String>,
    /// Answers to these commands, whatever they are; raw if they end with a line end.
    pub forged: HashMap<String, String>,
    pub drop: Option<Drop>,
    /// So many times; then it is a good server.
    pub drops: usize,
    /// After so many octets of a message this is said and the connection ends.
    pub early: Option<(usize, String)>,
    /// The connection ends after so many octets of answers.
    pub cut_after: Option<usize>,
    /// Before the answer to a message.
    pub slow_end: Duration,
    /// Between any two octets of an answer.
    pub drip: Option<Duration>,
    /// Instead of answering MAIL the second time: 421 or nothing.
    pub one_message: Option<String>,
    /// DATA gets 354 even when nobody was accepted.
    pub always_354: bool,
    /// BDAT gets this when its octets are read.
    pub no_bdat: Option<String>,
    /// MAIL with HOLDFOR gets this.
    pub no_hold: Option<String>,
}

impl Default for Quirks {
    fn default() -> Self {
        let offered = [
            "PIPELINING",
            "SIZE 10485760",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "ENHANCEDSTATUSCODES",
        ];
        Self {
            banner: "220 test.example ESMTP".into(),
            esmtp: true,
            extensions: offered.map(String::from).to_vec(),
            tls: false,
            injected: Vec::new(),
            needs_auth: false,
            recipients: HashMap::new(),
            finals: VecDeque::new(),
            forged: HashMap::new(),
            drop: None,
            drops: usize::MAX,
            early: None,
            cut_after: None,
            slow_end: Duration::ZERO,
            drip: None,
            one_message: None,
            always_354: false,
            no_bdat: None,
            no_hold: None,
        }
    }
}

impl Quirks {
    pub fn without(mut self, keyword: &str) -> Self {
        self.extensions.retain(|line| !line.starts_with(keyword));
        self
    }

    pub fn with(mut self, line: &str) -> Self {
        self.extensions.push(line.into());
        self
    }

    pub fn recipient(mut self, address: &str, answers: &[&str]) -> Self {
        let answers = answers.iter().map(|a| (*a).to_owned()).collect();
        self.recipients.insert(address.into(), answers);
        self
    }
}

/// A message that got as far as the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub mail: String,
    pub rcpts: Vec<String>,
    /// As it was on the wire, dots stuffed, without the final dot.
    pub raw: Vec<u8>,
    /// The server took responsibility.
    pub kept: bool,
    /// It came with BDAT: no dots were stuffed.
    pub chunk: bool,
}

impl Received {
    /// The message, dots un-stuffed.
    pub fn text(&self) -> Vec<u8> {
        if self.chunk {
            return self.raw.clone();
        }
        let lines = self.raw.split_inclusive(|b| *b == b'\n');
        let unstuffed = lines.map(|line| line.strip_prefix(b".").unwrap_or(line));
        unstuffed.flatten().copied().collect()
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub quirks: Quirks,
    /// Every command, secrets included.
    pub log: Vec<String>,
    pub received: Vec<Received>,
    pub connections: usize,
    drops: usize,
}

#[derive(Debug)]
pub struct Smtpd {
    pub port: u16,
    pub state: Arc<Mutex<State>>,
    /// Its certificate.
    pub ca_file: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Smtpd {
    pub fn start(quirks: Quirks) -> Self {
        Self::start_at("127.0.0.1:0", quirks)
    }

    pub fn start_at(address: &str, quirks: Quirks) -> Self {
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
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
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
                let Ok(tcp) = tcp else { continue };
                let (state, tls) = (Arc::clone(&shared), Arc::clone(&tls));
                // A client that hangs up is nothing to report.
                thread::spawn(move || Session::serve(tcp, &state, &tls));
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

    pub fn received(&self) -> Vec<Received> {
        self.with(|s| s.received.clone())
    }

    pub fn kept(&self) -> Vec<Received> {
        self.with(|s| s.received.iter().filter(|r| r.kept).cloned().collect())
    }

    pub fn log(&self) -> Vec<String> {
        self.with(|s| s.log.clone())
    }

    pub fn connections(&self) -> usize {
        self.with(|s| s.connections)
    }
}

impl std::ops::Drop for Smtpd {
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
    sent: usize,
    logged_in: bool,
    mail: Option<String>,
    rcpts: Vec<String>,
    messages: usize,
}

fn gone<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

impl<'a> Session<'a> {
    fn serve(tcp: TcpStream, state: &'a Mutex<State>, tls: &Arc<ServerConfig>) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let quirks = {
            let mut state = state.lock().unwrap();
            state.connections += 1;
            state.quirks.clone()
        };
        let wire: Box<dyn Stream> = if quirks.tls {
            let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
            Box::new(StreamOwned::new(connection, tcp.try_clone()?))
        } else {
            Box::new(tcp.try_clone()?)
        };
        let mut session = Session {
            wire: BufReader::new(wire),
            tcp,
            state,
            quirks,
            sent: 0,
            logged_in: false,
            mail: None,
            rcpts: Vec::new(),
            messages: 0,
        };
        let done = session.converse(tls);
        let _ = session.tcp.shutdown(Shutdown::Both);
        done
    }

    fn converse(&mut self, tls: &Arc<ServerConfig>) -> io::Result<()> {
        self.drop_at("BANNER")?;
        let banner = self.quirks.banner.clone();
        self.say(&banner)?;
        loop {
            let Some(line) = self.line()? else {
                return Ok(());
            };
            let (verb, argument) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            let verb = verb.to_ascii_uppercase();
            self.drop_at(&verb)?;
            if let Some(forged) = self.quirks.forged.get(&verb).cloned() {
                if verb == "MAIL" {
                    self.mail = None;
                }
                self.say(&forged)?;
                continue;
            }
            match verb.as_str() {
                "STARTTLS" => {
                    let answer = [b"220 2.0.0 go\r\n", &self.quirks.injected[..]].concat();
                    self.put(&answer)?;
                    let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                    let stream = StreamOwned::new(connection, self.tcp.try_clone()?);
                    self.wire = BufReader::new(Box::new(stream));
                    self.quirks.extensions.retain(|l| l != "STARTTLS");
                }
                "QUIT" => {
                    self.say("221 2.0.0 bye")?;
                    return Ok(());
                }
                _ => self.answer(&verb, argument, &line)?,
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.wire.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        assert!(line.ends_with(b"\r\n"), "bare LF in a command: {line:?}");
        let line = String::from_utf8(line).unwrap().trim_end().to_owned();
        self.state.lock().unwrap().log.push(line.clone());
        Ok(Some(line))
    }

    fn may_drop(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.drops += 1;
        state.drops <= self.quirks.drops
    }

    fn drop_at(&self, verb: &str) -> io::Result<()> {
        match self.quirks.drop {
            Some(Drop::At(at)) if at == verb && self.may_drop() => gone(),
            _ => Ok(()),
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
            return gone();
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        if line.ends_with('\n') {
            return self.put(line.as_bytes());
        }
        self.put(format!("{line}\r\n").as_bytes())
    }

    fn answer(&mut self, verb: &str, argument: &str, line: &str) -> io::Result<()> {
        match verb {
            "EHLO" if self.quirks.esmtp => {
                let mut lines = vec!["test.example".to_owned()];
                lines.extend(self.quirks.extensions.clone());
                let last = lines.len() - 1;
                let mut text = String::new();
                for (i, line) in lines.iter().enumerate() {
                    let mark = if i == last { ' ' } else { '-' };
                    text.push_str(&format!("250{mark}{line}\r\n"));
                }
                self.say(&text)
            }
            "HELO" => self.say("250 test.example"),
            "AUTH" => self.auth(argument),
            "RSET" => {
                self.mail = None;
                self.rcpts.clear();
                self.say("250 2.0.0 Ok")
            }
            "NOOP" => self.say("250"),
            _ if self.quirks.needs_auth && !self.logged_in => {
                self.say("530 5.7.0 Authentication required")
            }
            "MAIL" => {
                if self.messages > 0
                    && let Some(end) = self.quirks.one_message.clone()
                {
                    if !end.is_empty() {
                        self.say(&end)?;
                    }
                    return gone();
                }
                if self.mail.is_some() {
                    return self.say("503 5.5.1 nested MAIL");
                }
                if line.contains(" HOLDFOR=")
                    && let Some(refusal) = self.quirks.no_hold.clone()
                {
                    return self.say(&refusal);
                }
                self.mail = Some(line.to_owned());
                self.rcpts.clear();
                self.say("250 2.1.0 Ok")
            }
            "RCPT" => self.rcpt(line),
            "DATA" => self.data(),
            "BDAT" => self.bdat(argument),
            _ => self.say("500 5.5.2 unknown"),
        }
    }

    fn rcpt(&mut self, line: &str) -> io::Result<()> {
        if self.mail.is_none() {
            return self.say("503 5.5.1 need MAIL");
        }
        let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let answer = {
            let mut state = self.state.lock().unwrap();
            state.quirks.recipients.get_mut(&address).map(|answers| {
                if answers.len() > 1 {
                    answers.pop_front().unwrap()
                } else {
                    answers[0].clone()
                }
            })
        };
        let answer = answer.unwrap_or_else(|| "250 2.1.5 Ok".into());
        if answer.starts_with('2') {
            self.rcpts.push(line.to_owned());
        }
        self.say(&answer)?;
        if answer.starts_with("421") {
            return gone();
        }
        Ok(())
    }

    fn data(&mut self) -> io::Result<()> {
        if (self.mail.is_none() || self.rcpts.is_empty()) && !self.quirks.always_354 {
            return self.say("554 5.5.1 no valid recipients");
        }
        self.say("354 go")?;
        let mut raw = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            if let Some((after, words)) = self.quirks.early.clone()
                && raw.len() >= after
            {
                return self.say(&words).and_then(|()| gone());
            }
            let here = self.quirks.drop == Some(Drop::InBody(raw.len().min(1 << 20)))
                || matches!(self.quirks.drop, Some(Drop::InBody(n)) if raw.len() >= n);
            if here && self.may_drop() {
                return gone();
            }
            if self.wire.read_until(b'\n', &mut line)? == 0 {
                return gone();
            }
            if line == b".\r\n" {
                break;
            }
            raw.extend_from_slice(&line);
        }
        self.end(raw, false)
    }

    /// One chunk, the last.
    fn bdat(&mut self, argument: &str) -> io::Result<()> {
        let (octets, last) = argument.split_once(' ').unwrap();
        assert_eq!(last, "LAST");
        let octets: usize = octets.parse().unwrap();
        let mut raw = vec![0; octets];
        if let Some(Drop::InBody(after)) = self.quirks.drop
            && after < octets
            && self.may_drop()
        {
            self.wire.read_exact(&mut raw[..after])?;
            return gone();
        }
        self.wire.read_exact(&mut raw)?;
        if let Some(answer) = self.quirks.no_bdat.clone() {
            return self.say(&answer);
        }
        if self.mail.is_none() || self.rcpts.is_empty() {
            return self.say("503 5.5.1 no valid recipients");
        }
        self.end(raw, true)
    }

    fn end(&mut self, raw: Vec<u8>, chunk: bool) -> io::Result<()> {
        let (mail, rcpts) = (self.mail.take(), std::mem::take(&mut self.rcpts));
        self.messages += 1;
        let answer = self.state.lock().unwrap().quirks.finals.pop_front();
        let mut answer = answer.unwrap_or_else(|| "250 2.0.0 Ok: queued".into());
        if rcpts.is_empty() {
            answer = "554 5.5.1 no valid recipients".into();
        }
        let drop = match self.quirks.drop {
            Some(Drop::AfterDot { kept }) if self.may_drop() => Some(kept),
            _ => None,
        };
        let kept = drop.unwrap_or_else(|| answer.starts_with('2'));
        self.state.lock().unwrap().received.push(Received {
            mail: mail.unwrap_or_default(),
            rcpts,
            raw,
            kept,
            chunk,
        });
        thread::sleep(self.quirks.slow_end);
        if drop.is_some() {
            return gone();
        }
        self.say(&answer)?;
        if answer.starts_with("421") {
            return gone();
        }
        Ok(())
    }

    fn auth(&mut self, argument: &str) -> io::Result<()> {
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let good = match mechanism {
            "PLAIN" => {
                let response = self.response(initial)?;
                response == format!("\0{USER}\0{PASSWORD}")
            }
            "LOGIN" => {
                self.say("334 VXNlcm5hbWU6")?;
                let user = self.reply()?;
                self.say("334 UGFzc3dvcmQ6")?;
                user == USER && self.reply()? == PASSWORD
            }
            "XOAUTH2" | "OAUTHBEARER" => {
                let response = self.response(initial)?;
                let good = response.contains(&format!("auth=Bearer {PASSWORD}\x01"));
                if !good {
                    self.say("334 eyJzdGF0dXMiOiI0MDEifQ==")?;
                    self.reply()?;
                }
                good
            }
            _ => return self.say("504 5.5.4 unknown mechanism"),
        };
        self.logged_in = good;
        self.say(if good {
            "235 2.7.0 welcome"
        } else {
            "535 5.7.8 bad credentials"
        })
    }

    fn response(&mut self, initial: &str) -> io::Result<String> {
        if initial.is_empty() {
            self.say("334 ")?;
            return self.reply();
        }
        Ok(decoded(initial))
    }

    fn reply(&mut self) -> io::Result<String> {
        match self.line()? {
            Some(line) => Ok(decoded(&line)),
            None => gone(),
        }
    }
}

fn decoded(text: &str) -> String {
    String::from_utf8(BASE64.decode(text).unwrap_or_default()).unwrap_or_default()
}
