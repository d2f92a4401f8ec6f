//! One control connection: login, settings, and who does what a command asks.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::vfs::checksum::Algorithm;
use rustls::ServerConfig;

use super::quirks::{Quirks, SiteUtime, matches};
use super::{Command, Live, Shared, tls};

/// Where the next data connection comes from.
pub(super) enum DataSource {
    None,
    Passive(TcpListener),
    Active(SocketAddr),
}

/// One client. What ends the session is an `Err`, whatever it is.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) control: Live,
    pub(super) reader: BufReader<TcpStream>,
    number: usize,
    replied: usize,
    user: String,
    logged_in: bool,
    /// The working directory, `/a/b`.
    pub(super) cwd: Vec<u8>,
    pub(super) ascii: bool,
    /// MODE Z.
    pub(super) packed: bool,
    pub(super) data: DataSource,
    pub(super) rest: u64,
    /// The offset of the transfer that was begun last.
    pub(super) begun_at: u64,
    pub(super) rename_from: Option<PathBuf>,
    /// What HASH computes.
    pub(super) hash: Algorithm,
    /// What `AUTH TLS` began, and `PROT P` wants on data connections too.
    tls: Option<Arc<ServerConfig>>,
    protected: bool,
    /// The line that is being carried out.
    pub(super) line: String,
}

/// Serves one connection until it ends.
pub(super) fn serve(shared: &Arc<Shared>, stream: TcpStream) {
    let Ok(reader) = stream.try_clone().map(BufReader::new) else {
        return;
    };
    let Ok(control) = Live::new(shared, stream) else {
        return;
    };
    let number = shared.opened.fetch_add(1, SeqCst);
    let open = shared.open.fetch_add(1, SeqCst) + 1;
    let mut session = Session {
        shared: Arc::clone(shared),
        control,
        reader,
        number,
        replied: 0,
        user: String::new(),
        logged_in: false,
        cwd: b"/".to_vec(),
        ascii: true,
        packed: false,
        data: DataSource::None,
        rest: 0,
        begun_at: 0,
        rename_from: None,
        hash: Algorithm::Sha1,
        tls: None,
        protected: false,
        line: String::new(),
    };
    let _ = session.run(open);
    if session.logged_in {
        shared.logged_in.fetch_sub(1, SeqCst);
    }
    shared.open.fetch_sub(1, SeqCst);
}

pub(super) fn hung_up() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl Session {
    fn run(&mut self, open: usize) -> io::Result<()> {
        self.wait_while_stalled("")?;
        let quirks = self.shared.quirks();
        if let Some(limit) = &quirks.limit
            && open > limit.sessions
            && limit.reply.starts_with("421")
        {
            return self.say(&limit.reply);
        }
        self.say(&quirks.banner)?;
        let mut line = Vec::new();
        loop {
            line.clear();
            self.reader.read_until(b'\n', &mut line)?;
            // Half a command is none: a real server waits for its end.
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            while line.last().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
                line.pop();
            }
            self.command(&unescape(&line))?;
            if self.shared.quirks().drops_pipelined {
                let pending = self.reader.buffer().len();
                self.reader.consume(pending);
            }
        }
    }

    fn command(&mut self, line: &[u8]) -> io::Result<()> {
        self.line = String::from_utf8_lossy(line).into_owned();
        let before = {
            let mut log = self.shared.log.lock().unwrap();
            log.push(Command {
                session: self.number,
                at: Instant::now(),
                line: self.line.clone(),
            });
            log.len() - 1
        };
        let quirks = self.shared.quirks();
        for (pattern, pause) in &quirks.delays {
            if matches(pattern, &self.line) {
                thread::sleep(*pause);
            }
        }
        let text = self.line.clone();
        self.wait_while_stalled(&text)?;
        let allowed = |quirks: &Quirks| quirks.stall_after.is_none_or(|most| before < most);
        self.wait_until(|shared| allowed(&shared.quirks()))?;
        if let Some((pattern, count)) = &quirks.gathers
            && matches(pattern, &self.line)
        {
            self.gather(pattern, *count);
        }
        if let Some(reply) = self.shared.rule(&text, |quirks| &mut quirks.answers) {
            self.say(&reply)?;
            return if reply.starts_with("421") {
                Err(hung_up())
            } else {
                Ok(())
            };
        }
        let space = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        let verb = String::from_utf8_lossy(&line[..space]).to_ascii_uppercase();
        let arg = line.get(space + 1..).unwrap_or_default();
        if !self.logged_in && !BEFORE_LOGIN.contains(&verb.as_str()) {
            return self.say("530 Please login with USER and PASS.");
        }
        if let Some(words) = &quirks.read_only
            && CHANGES.iter().any(|change| matches(change, &text))
        {
            return self.say(words);
        }
        if quirks.rnfr_wants_rnto && self.rename_from.is_some() && verb != "RNTO" {
            return self.say("501 Bad sequence of commands.");
        }
        self.dispatch(&quirks, &verb, arg)
    }

    fn dispatch(&mut self, quirks: &Quirks, verb: &str, arg: &[u8]) -> io::Result<()> {
        match verb {
            "USER" => {
                self.user = String::from_utf8_lossy(arg).into_owned();
                self.done("331 Password please.")
            }
            "PASS" if quirks.account.is_some() && self.may_log_in(quirks, arg) => {
                self.done("332 Need account for login.")
            }
            "PASS" if self.may_log_in(quirks, arg) => self.log_in(quirks),
            "PASS" => self.say("530 Login incorrect."),
            "ACCT" if quirks.account.as_deref().map(str::as_bytes) == Some(arg) => {
                self.log_in(quirks)
            }
            "ACCT" => self.say("530 Login incorrect."),
            "AUTH" if quirks.tls => self.secure(),
            "PBSZ" | "PROT" if self.tls.is_some() => {
                self.protected = verb == "PROT" && arg == b"P";
                self.done("200 Noted.")
            }
            "QUIT" => {
                self.done("221 Goodbye.")?;
                Err(hung_up())
            }
            "NOOP" => self.done("200 Nothing done."),
            "SYST" => self.done("215 UNIX Type: L8"),
            "FEAT" => self.done(&features(quirks)),
            "HELP" => self.done("214 Help yourself."),
            "ALLO" => self.done("202 Not needed."),
            "CLNT" => self.done("200 Noted."),
            "OPTS" => self.options(arg),
            "TYPE" => {
                self.ascii = arg.first().is_some_and(|b| b.eq_ignore_ascii_case(&b'A'));
                self.done("200 Type set.")
            }
            "MODE" if arg == b"S" || arg == b"Z" && quirks.extras.contains(&"MODE Z") => {
                self.packed = arg == b"Z";
                self.done("200 Mode set.")
            }
            "STRU" if arg.eq_ignore_ascii_case(b"F") => self.done("200 Structure set."),
            "MODE" | "STRU" => self.say("504 Not implemented."),
            "ABOR" => self.done("226 Nothing to abort."),
            "REST" => match String::from_utf8_lossy(arg).parse() {
                Ok(offset) => {
                    self.rest = offset;
                    self.done("350 Restart position accepted.")
                }
                Err(_) => self.say("501 Not a number."),
            },
            "PASV" | "EPSV" | "PORT" | "EPRT" => self.data_connection(quirks, verb, arg),
            "RETR" | "STOR" | "APPE" | "LIST" | "NLST" | "MLSD" => self.transfer(quirks, verb, arg),
            _ if self.checksum(quirks, verb, arg)? => Ok(()),
            _ => self.file_command(quirks, verb, arg),
        }
    }

    /// From here on this session lives inside TLS.
    fn secure(&mut self) -> io::Result<()> {
        self.say("234 Go on.")?;
        let config = tls::config();
        let inner = tls::accept(self.control.stream.try_clone()?, &config)?;
        self.tls = Some(config);
        self.reader = BufReader::new(inner.try_clone()?);
        self.control.within(inner)
    }

    /// A data connection as the client wants it.
    pub(super) fn shielded(&self, stream: TcpStream) -> io::Result<Live> {
        let mut live = Live::new(&self.shared, stream)?;
        if let Some(config) = self.tls.as_ref().filter(|_| self.protected) {
            let inner = tls::accept(live.stream.try_clone()?, config)?;
            live.within(inner)?;
        }
        Ok(live)
    }

    fn may_log_in(&self, quirks: &Quirks, password: &[u8]) -> bool {
        let Some((user, expected)) = &quirks.login else {
            return true;
        };
        *user == self.user && expected.as_bytes() == password
    }

    fn log_in(&mut self, quirks: &Quirks) -> io::Result<()> {
        if let Some(limit) = &quirks.limit
            && self.shared.logged_in.load(SeqCst) >= limit.sessions
        {
            return self.say(&limit.reply);
        }
        if !self.logged_in {
            self.logged_in = true;
            let now = self.shared.logged_in.fetch_add(1, SeqCst) + 1;
            self.shared.peak.fetch_max(now, SeqCst);
        }
        self.cwd = quirks.home.as_bytes().to_vec();
        self.done("230 Logged in.")
    }

    fn options(&mut self, arg: &[u8]) -> io::Result<()> {
        let words = String::from_utf8_lossy(arg).to_ascii_uppercase();
        if words == "UTF8 ON" || words == "UTF-8 ON" {
            self.done("200 Always in UTF8 mode.")
        } else if let Some(facts) = words.strip_prefix("MLST ") {
            self.done(&format!("200 MLST OPTS {facts}"))
        } else if let Some(name) = words.strip_prefix("HASH ") {
            self.choose_hash(name)
        } else {
            self.say("501 Option not understood.")
        }
    }

    fn data_connection(&mut self, quirks: &Quirks, verb: &str, arg: &[u8]) -> io::Result<()> {
        let ours = self.control.stream.local_addr()?;
        let arg = String::from_utf8_lossy(arg);
        if verb == "PORT" || verb == "EPRT" {
            let parse = if verb == "PORT" {
                parse_port
            } else {
                parse_eprt
            };
            let Some(peer) = parse(&arg) else {
                return self.say("501 Not an address.");
            };
            self.data = DataSource::Active(peer);
            return self.done("200 Address noted.");
        }
        if verb == "EPSV" && arg.eq_ignore_ascii_case("ALL") {
            return self.done("200 EPSV only.");
        }
        let listener = TcpListener::bind((ours.ip(), 0))?;
        let address = listener.local_addr()?;
        let port = quirks
            .advertise
            .as_ref()
            .map_or(address.port(), |hook| hook(address));
        self.data = DataSource::Passive(listener);
        if verb == "EPSV" {
            return self.done(&format!("229 Extended passive mode (|||{port}|)."));
        }
        let IpAddr::V4(ip) = ours.ip() else {
            return self.say("425 Use EPSV.");
        };
        let [a, b, c, d] = quirks.pasv_address.unwrap_or(ip).octets();
        let numbers = format!("{a},{b},{c},{d},{},{}", port / 256, port % 256);
        if quirks.pasv_bare {
            self.done(&format!("227 Entering passive mode {numbers}"))
        } else {
            self.done(&format!("227 Entering passive mode ({numbers})."))
        }
    }

    /// The reply to a command that was carried out.
    pub(super) fn done(&mut self, reply: &str) -> io::Result<()> {
        let line = self.line.clone();
        match self.shared.rule(&line, |quirks| &mut quirks.instead) {
            Some(words) => self.say(&words),
            None => self.say(reply),
        }
    }

    /// Sends a reply, cut off where the quirks say.
    pub(super) fn say(&mut self, reply: &str) -> io::Result<()> {
        self.say_bytes(reply.as_bytes())
    }

    /// As [`say`](Self::say), for replies with names in them.
    pub(super) fn say_bytes(&mut self, reply: &[u8]) -> io::Result<()> {
        let mut bytes: Vec<u8> = Vec::with_capacity(reply.len() + 2);
        for byte in reply {
            // A 255 is doubled on the way (RFC 854).
            bytes.extend(std::iter::repeat_n(
                *byte,
                if *byte == 0xff { 2 } else { 1 },
            ));
        }
        bytes.extend_from_slice(b"\r\n");
        if let Some(most) = self.shared.quirks().control_cut_after
            && self.replied + bytes.len() > most
        {
            bytes.truncate(most.saturating_sub(self.replied));
            self.control.stream.write_all(&bytes)?;
            return Err(hung_up());
        }
        self.replied += bytes.len();
        self.control.stream.write_all(&bytes)
    }

    /// Waits as long as a stall rule stands for `line`.
    fn wait_while_stalled(&self, line: &str) -> io::Result<()> {
        self.wait_until(|shared| {
            let quirks = shared.quirks();
            let mut stalls = quirks.stalls.iter();
            !stalls.any(|pattern| matches(pattern, line))
        })
    }

    fn wait_until(&self, may_go_on: impl Fn(&Shared) -> bool) -> io::Result<()> {
        while !may_go_on(&self.shared) {
            if self.is_over() {
                return Err(hung_up());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether the next command is here already.
    pub(super) fn is_asked_more(&self) -> bool {
        let stream = &self.control.stream;
        let _ = stream.set_nonblocking(true);
        let peeked = stream.peek(&mut [0]);
        let _ = stream.set_nonblocking(false);
        !self.reader.buffer().is_empty() || peeked.is_ok_and(|n| n > 0)
    }

    /// Until `count` commands like `pattern` have come, five seconds at most.
    fn gather(&self, pattern: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let here = {
            let log = self.shared.log.lock().unwrap();
            log.iter().filter(|it| matches(pattern, &it.line)).count()
        };
        let mut waiting = vec![0; 1 << 16];
        while !self.is_over() && Instant::now() < deadline {
            let stream = &self.control.stream;
            let _ = stream.set_nonblocking(true);
            let peeked = stream.peek(&mut waiting).unwrap_or(0);
            let _ = stream.set_nonblocking(false);
            let waiting = [self.reader.buffer(), &waiting[..peeked]].concat();
            let lines = String::from_utf8_lossy(&waiting);
            let more = lines.lines().filter(|line| matches(pattern, line)).count();
            if here + more >= count {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the client or the server is gone.
    pub(super) fn is_over(&self) -> bool {
        self.shared.ended.load(SeqCst) || is_closed(&self.control.stream)
    }
}

/// Whether the peer has closed; what it sent before stays unread.
pub(super) fn is_closed(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let peeked = stream.peek(&mut [0]);
    let _ = stream.set_nonblocking(false);
    match peeked {
        Ok(n) => n == 0,
        Err(err) => err.kind() != io::ErrorKind::WouldBlock,
    }
}

const BEFORE_LOGIN: [&str; 13] = [
    "USER", "PASS", "ACCT", "QUIT", "FEAT", "SYST", "NOOP", "HELP", "OPTS", "CLNT", "AUTH", "PBSZ",
    "PROT",
];

const CHANGES: [&str; 12] = [
    "STOR", "APPE", "DELE", "MKD", "RMD", "RNFR", "RNTO", "MFMT", "MFF", "SITE", "XMKD", "XRMD",
];

/// Undoes the doubling of 255 (RFC 854); a lone one and what it commands are dropped.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.iter();
    while let Some(byte) = rest.next() {
        if *byte != 0xff || rest.next() == Some(&0xff) {
            bytes.push(*byte);
        }
    }
    bytes
}

fn features(quirks: &Quirks) -> String {
    let known = |command: &str| {
        !quirks
            .answers
            .iter()
            .any(|rule| rule.left.is_none() && matches(&rule.pattern, command))
    };
    let mut lines = vec!["211-Features:".to_owned()];
    if known("MLST") {
        let facts: String = quirks
            .facts
            .iter()
            .map(|fact| format!("{fact}*;"))
            .collect();
        lines.push(format!(" MLST {facts}"));
    }
    for (command, line) in [
        ("EPRT", " EPRT"),
        ("EPSV", " EPSV"),
        ("MDTM", " MDTM"),
        ("MFMT", " MFMT"),
        ("REST", " REST STREAM"),
        ("SIZE", " SIZE"),
        ("OPTS", " UTF8"),
    ] {
        if known(command) {
            lines.push(line.to_owned());
        }
    }
    lines.push(" TVFS".to_owned());
    lines.extend(quirks.extras.iter().map(|extra| format!(" {extra}")));
    if quirks.site_utime != SiteUtime::None {
        lines.push(" SITE UTIME".to_owned());
    }
    lines.push("211 End".to_owned());
    lines.join("\r\n")
}

fn parse_port(arg: &str) -> Option<SocketAddr> {
    let numbers: Vec<u8> = arg
        .split(',')
        .map(|n| n.parse().ok())
        .collect::<Option<_>>()?;
    let [a, b, c, d, high, low] = numbers[..] else {
        return None;
    };
    Some(SocketAddr::from((
        [a, b, c, d],
        u16::from(high) * 256 + u16::from(low),
    )))
}

fn parse_eprt(arg: &str) -> Option<SocketAddr> {
    let mut parts = arg.split('|');
    let (_, _, address, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}
