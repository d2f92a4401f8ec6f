//! A small FTP server with a tree in memory, whose faults are those of real servers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ferryfs::ftp::FtpBackend;
use ferryfs::ftp::options::FtpOptions;
use ferryfs::vfs::content::Contents;

use crate::ftp_session::server::Server as Plain;

/// What is at a path of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Dir,
    File(Vec<u8>),
    Link(String),
}

/// Everything a test looks at or changes.
#[derive(Debug, Default)]
pub struct State {
    pub tree: BTreeMap<String, Node>,
    pub times: BTreeMap<String, String>,
    /// Every command line, of all connections.
    pub heard: Vec<String>,
    /// Commands that are refused: the beginning of the line, the reply.
    pub refuse: Vec<(String, String)>,
    /// As `refuse`, but only the line that comes after so many others that begin so.
    pub refuse_after: Option<(usize, String, String)>,
    /// The line that begins so is carried out, and the connection closed in place of a reply; once.
    pub hang_up_after: Option<String>,
    /// Listings are sent as this, whatever is there.
    pub listing: Option<Vec<u8>>,
    /// Reply to a listing that was sent.
    pub list_reply: Option<String>,
    /// So many bytes of what is sent are not stored.
    pub stores_short_by: usize,
    /// Reply to a STOR that was received.
    pub store_reply: Option<String>,
}

/// What kind of server it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// MLST, MLSD, MFMT.
    pub modern: bool,
    /// `LIST missing` and `LIST file` answer 226.
    pub vague: bool,
    /// `-a` is taken for a pattern.
    pub dash_a_is_a_pattern: bool,
    /// RNTO over a file is a 550.
    pub no_rename_over: bool,
    /// LIST times are this many hours ahead of UTC.
    pub hours_ahead: i64,
}

pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    staging: tempfile::TempDir,
}

impl Server {
    pub fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        state.lock().unwrap().tree.insert("/".into(), Node::Dir);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let state = Arc::clone(&shared);
                thread::spawn(move || Peer::new(stream, state, kind).serve());
            }
        });
        let staging = tempfile::tempdir().unwrap();
        Self {
            address,
            state,
            staging,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn dir(&self, path: &str) -> &Self {
        self.state().tree.insert(path.into(), Node::Dir);
        self
    }

    pub fn file(&self, path: &str, content: &str) -> &Self {
        let mut state = self.state();
        state.tree.insert(path.into(), Node::File(content.into()));
        state.times.insert(path.into(), "20240229123456".into());
        drop(state);
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        self.state()
            .tree
            .insert(path.into(), Node::Link(target.into()));
        self
    }

    pub fn refuse(&self, command: &str, reply: &str) -> &Self {
        self.state().refuse.push((command.into(), reply.into()));
        self
    }

    pub fn content(&self, path: &str) -> Option<String> {
        match self.state().tree.get(path) {
            Some(Node::File(content)) => Some(String::from_utf8_lossy(content).into_owned()),
            _ => None,
        }
    }

    /// All names below the root.
    pub fn names(&self) -> Vec<String> {
        self.state()
            .tree
            .keys()
            .filter(|name| *name != "/")
            .cloned()
            .collect()
    }

    /// How often a line that begins so was heard.
    pub fn count(&self, prefix: &str) -> usize {
        self.state()
            .heard
            .iter()
            .filter(|line| line.starts_with(prefix))
            .count()
    }

    pub fn options(&self) -> FtpOptions {
        FtpOptions {
            timeout: Duration::from_secs(5),
            connections: 3,
            ..Plain::options_for(self.address)
        }
    }

    pub fn mount(&self) -> FtpBackend {
        self.mount_with(self.options())
    }

    pub fn mount_with(&self, options: FtpOptions) -> FtpBackend {
        let contents = Contents::new(self.staging.path(), 1 << 20).unwrap();
        FtpBackend::connect(options, contents).unwrap()
    }
}

struct Peer {
    control: BufReader<TcpStream>,
    state: Arc<Mutex<State>>,
    kind: Kind,
    cwd: String,
    rename: Option<String>,
    rest: usize,
    data: Option<TcpListener>,
}

impl Peer {
    fn new(stream: TcpStream, state: Arc<Mutex<State>>, kind: Kind) -> Self {
        Self {
            control: BufReader::new(stream),
            state,
            kind,
            cwd: "/".into(),
            rename: None,
            rest: 0,
            data: None,
        }
    }

    fn say(&mut self, reply: &str) {
        let _ = self
            .control
            .get_mut()
            .write_all(&bytes(&format!("{reply}\r\n")));
    }

    fn serve(mut self) {
        self.say("220 ready");
        let mut line = Vec::new();
        while self
            .control
            .read_until(b'\n', &mut line)
            .is_ok_and(|n| n > 0)
        {
            let text: String = line.iter().map(|b| char::from(*b)).collect();
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            let mut state = self.state.lock().unwrap();
            state.heard.push(text.clone());
            let refusal = state
                .refuse
                .iter()
                .find(|(start, _)| text.starts_with(start.as_str()));
            let mut refusal = refusal.map(|(_, reply)| reply.clone());
            if let Some((left, start, reply)) = &mut state.refuse_after
                && text.starts_with(start.as_str())
            {
                if *left == 0 {
                    refusal = Some(reply.clone());
                    state.refuse_after = None;
                } else {
                    *left -= 1;
                }
            }
            let hang_up = state
                .hang_up_after
                .as_ref()
                .is_some_and(|start| text.starts_with(start));
            if hang_up {
                state.hang_up_after = None;
            }
            drop(state);
            let reply = match refusal {
                Some(_) if text.starts_with("RNTO") => {
                    self.rename = None;
                    refusal.unwrap_or_default()
                }
                Some(refusal) => refusal,
                // As ProFTPD, which insists on it.
                None if self.rename.is_some() && !text.starts_with("RNTO") => {
                    "501 Bad sequence of commands".into()
                }
                None => self.obey(&text),
            };
            if hang_up {
                return;
            }
            self.say(&reply);
        }
    }

    fn path(&self, argument: &str) -> String {
        let whole = if argument.starts_with('/') {
            argument.to_owned()
        } else {
            format!("{}/{argument}", self.cwd)
        };
        let parts: Vec<_> = whole.split('/').filter(|part| !part.is_empty()).collect();
        format!("/{}", parts.join("/"))
    }

    fn node(&self, path: &str) -> Option<Node> {
        self.state.lock().unwrap().tree.get(path).cloned()
    }

    /// What is there, a link followed.
    fn target(&self, path: &str) -> Option<Node> {
        match self.node(path)? {
            Node::Link(to) if to.starts_with('/') => self.node(&to),
            Node::Link(to) => {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                self.node(&format!("{dir}/{to}"))
            }
            node => Some(node),
        }
    }

    fn parent_is_there(&self, path: &str) -> bool {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.node(if parent.is_empty() { "/" } else { parent }) == Some(Node::Dir)
    }

    fn obey(&mut self, line: &str) -> String {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let path = self.path(argument);
        let modern = self.kind.modern;
        match verb {
            "USER" => "331 password".into(),
            "PASS" => "230 welcome".into(),
            "SYST" => "215 UNIX".into(),
            "PWD" => format!("257 \"{}\"", self.cwd),
            "FEAT" if modern => "211-\r\n MLST type*;size*;modify*;\r\n MFMT\r\n REST STREAM\r\n SIZE\r\n MDTM\r\n211 end".into(),
            "FEAT" => "211-\r\n REST STREAM\r\n SIZE\r\n MDTM\r\n211 end".into(),
            "TYPE" | "OPTS" | "NOOP" => "200 ok".into(),
            "QUIT" => "221 bye".into(),
            "CWD" => match self.target(&path) {
                Some(Node::Dir) => {
                    self.cwd = path;
                    "250 ok".into()
                }
                _ => "550 Failed to change directory.".into(),
            },
            "EPSV" => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                self.data = Some(listener);
                format!("229 (|||{port}|)")
            }
            "SIZE" => match self.target(&path) {
                Some(Node::File(content)) => format!("213 {}", content.len()),
                _ => "550 Could not get file size.".into(),
            },
            "MDTM" if !modern && is_stamp(argument) => self.set_time(argument),
            "MDTM" => match self.target(&path) {
                Some(Node::File(_)) => format!("213 {}", self.time(&path)),
                _ => "550 Could not get file modification time.".into(),
            },
            "MFMT" if modern => self.set_time(argument),
            "MLST" if modern => match self.node(&path) {
                Some(node) => format!("250-\r\n {} {path}\r\n250 end", self.facts(&path, &node)),
                None => "550 nothing".into(),
            },
            "STAT" => match self.node(&path) {
                Some(node @ (Node::File(_) | Node::Link(_))) => {
                    let name = path.rsplit('/').next().unwrap_or_default();
                    format!("213-\r\n{}\r\n213 end", self.ls_line(&path, name, &node))
                }
                _ => "213-\r\n213 end".into(),
            },
            "MLSD" if modern => self.mlsd(&path),
            "LIST" => self.list(argument),
            "NLST" => {
                let names = self.children(&path).join("\r\n");
                self.send(&bytes(&names))
            }
            "MKD" => match self.node(&path) {
                Some(_) => "550 Create directory operation failed.".into(),
                None if !self.parent_is_there(&path) => "550 Create directory operation failed.".into(),
                None => {
                    self.state.lock().unwrap().tree.insert(path.clone(), Node::Dir);
                    format!("257 \"{path}\"")
                }
            },
            "RMD" => match self.node(&path) {
                Some(Node::Dir) if self.children(&path).is_empty() => {
                    self.state.lock().unwrap().tree.remove(&path);
                    "250 ok".into()
                }
                _ => "550 Remove directory operation failed.".into(),
            },
            "DELE" => match self.node(&path) {
                Some(Node::File(_) | Node::Link(_)) => {
                    self.state.lock().unwrap().tree.remove(&path);
                    "250 ok".into()
                }
                _ => "550 Delete operation failed.".into(),
            },
            "RNFR" => match self.node(&path) {
                Some(_) => {
                    self.rename = Some(path);
                    "350 go on".into()
                }
                None => "550 RNFR command failed.".into(),
            },
            "RNTO" => self.rename_to(&path),
            "REST" => {
                self.rest = argument.parse().unwrap();
                "350 ok".into()
            }
            "RETR" => match self.target(&path) {
                Some(Node::File(content)) => {
                    let from = std::mem::take(&mut self.rest).min(content.len());
                    self.send(&content[from..])
                }
                _ => "550 Failed to open file.".into(),
            },
            "STOR" | "APPE" => self.receive(verb, &path),
            _ => "500 Unknown command.".into(),
        }
    }

    fn rename_to(&mut self, to: &str) -> String {
        let Some(from) = self.rename.take() else {
            return "503 RNFR first".into();
        };
        let (over, moved) = (self.node(to), self.node(&from));
        let blocked = match over {
            None => !self.parent_is_there(to),
            Some(Node::Dir) => true,
            Some(_) => self.kind.no_rename_over || moved == Some(Node::Dir),
        };
        if blocked {
            return "550 Rename failed.".into();
        }
        let mut state = self.state.lock().unwrap();
        let below = format!("{from}/");
        let moved: Vec<_> = state
            .tree
            .keys()
            .filter(|path| **path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            let target = format!("{to}{}", &path[from.len()..]);
            let node = state.tree.remove(&path).unwrap();
            state.tree.insert(target.clone(), node);
            if let Some(time) = state.times.remove(&path) {
                state.times.insert(target, time);
            }
        }
        "250 ok".into()
    }

    fn set_time(&self, argument: &str) -> String {
        let (time, path) = argument.split_once(' ').unwrap();
        let path = self.path(path);
        match self.node(&path) {
            Some(Node::File(_)) => {
                self.state.lock().unwrap().times.insert(path, time.into());
                "213 set".into()
            }
            _ => "550 Could not set file modification time.".into(),
        }
    }

    fn time(&self, path: &str) -> String {
        let times = &self.state.lock().unwrap().times;
        times
            .get(path)
            .cloned()
            .unwrap_or_else(|| "20240101000000".into())
    }

    fn facts(&self, path: &str, node: &Node) -> String {
        match node {
            Node::Dir => "type=dir;".into(),
            Node::File(content) => {
                format!(
                    "type=file;size={};modify={};",
                    content.len(),
                    self.time(path)
                )
            }
            Node::Link(_) => "type=OS.unix=symlink;size=1;".into(),
        }
    }

    fn children(&self, dir: &str) -> Vec<String> {
        let prefix = if dir == "/" {
            "/".to_owned()
        } else {
            format!("{dir}/")
        };
        let state = self.state.lock().unwrap();
        let below = state
            .tree
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix));
        below
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    fn mlsd(&mut self, dir: &str) -> String {
        if self.node(dir) != Some(Node::Dir) {
            return "550 not a directory".into();
        }
        let lines = self.children(dir).into_iter().map(|name| {
            let path = self.path(&format!("{dir}/{name}"));
            let node = self.node(&path).unwrap();
            format!("{} {name}\r\n", self.facts(&path, &node))
        });
        let listing: String = lines.collect();
        self.send_listing(&bytes(&listing))
    }

    fn list(&mut self, argument: &str) -> String {
        let mut argument = argument;
        if let Some(rest) = argument.strip_prefix("-a") {
            if self.kind.dash_a_is_a_pattern {
                return self.send(b"");
            }
            argument = rest.trim_start();
        }
        let dir = self.path(argument);
        let hides_nothing = !self.kind.dash_a_is_a_pattern;
        let listing: String = match self.node(&dir) {
            Some(Node::Dir) => {
                let lines = self.children(&dir).into_iter().map(|name| {
                    let path = self.path(&format!("{dir}/{name}"));
                    let node = self.node(&path).unwrap();
                    self.ls_line(&path, &name, &node) + "\r\n"
                });
                let itself = "drwxr-xr-x 2 1 1 4096 Jan 01 2020 .\r\n";
                let itself = if hides_nothing && !self.kind.vague {
                    itself
                } else {
                    ""
                };
                lines.fold(itself.to_owned(), |all, line| all + &line)
            }
            Some(node) if self.kind.vague => {
                let name = dir.rsplit('/').next().unwrap_or_default();
                self.ls_line(&dir, name, &node) + "\r\n"
            }
            _ if self.kind.vague => String::new(),
            _ => return "450 No such file or directory".into(),
        };
        self.send_listing(&bytes(&listing))
    }

    /// The year is shown, so that dates do not depend on today.
    fn ls_line(&self, path: &str, name: &str, node: &Node) -> String {
        match node {
            Node::Dir => format!("drwxr-xr-x 2 1 1 4096 Jan 01 2020 {name}"),
            Node::Link(to) => format!("lrwxrwxrwx 1 1 1 {} Jan 01 2020 {name} -> {to}", to.len()),
            Node::File(content) => {
                let time = self.time(path);
                let hour: i64 = time[8..10].parse().unwrap();
                let (hour, minute) = (hour + self.kind.hours_ahead, &time[10..12]);
                let date = format!("{}-{}-{}", &time[..4], &time[4..6], &time[6..8]);
                format!(
                    "-rw-r--r-- 1 1 1 {} {date} {hour:02}:{minute} {name}",
                    content.len()
                )
            }
        }
    }

    fn send_listing(&mut self, bytes: &[u8]) -> String {
        let sent = self.send(bytes);
        let words = self.state.lock().unwrap().list_reply.clone();
        words.unwrap_or(sent)
    }

    /// Sends over the data connection, and returns the last reply.
    fn send(&mut self, bytes: &[u8]) -> String {
        let forced = self.state.lock().unwrap().listing.clone();
        self.say("150 here it comes");
        let Some(listener) = self.data.take() else {
            return "425 no data connection".into();
        };
        let (mut data, _) = listener.accept().unwrap();
        match data.write_all(forced.as_deref().unwrap_or(bytes)) {
            Ok(()) => "226 done".into(),
            Err(_) => "426 closed".into(),
        }
    }

    fn receive(&mut self, verb: &str, path: &str) -> String {
        if !self.parent_is_there(path) || self.node(path) == Some(Node::Dir) {
            return "553 Could not create file.".into();
        }
        self.say("150 go ahead");
        let (mut data, _) = self.data.take().unwrap().accept().unwrap();
        let mut content = match self.node(path) {
            Some(Node::File(old)) if verb == "APPE" => old,
            _ => Vec::new(),
        };
        let whole = data.read_to_end(&mut content).is_ok();
        let mut state = self.state.lock().unwrap();
        content.truncate(content.len() - state.stores_short_by);
        state.tree.insert(path.into(), Node::File(content));
        match &state.store_reply {
            Some(reply) => reply.clone(),
            None if whole => "226 done".into(),
            None => "426 failed".into(),
        }
    }
}

/// `YYYYMMDDhhmmss path`, and not a path.
fn is_stamp(argument: &str) -> bool {
    let stamp = argument.split_once(' ').map_or("", |(stamp, _)| stamp);
    stamp.len() == 14 && stamp.bytes().all(|b| b.is_ascii_digit())
}

/// Names are bytes: each is one character here.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}
