//! The floor of a walk through an FTP server where each directory is a listing of its own: a client
//! that knows what will be asked for, and does nothing but ask. It lists a directory and those in it,
//! with MLSD, on many sessions, and throws away what comes; nothing that mounts the server can be
//! faster. `scripts/bench` builds and runs it:
//!
//!     walk-floor HOST PORT USER PASSWORD_FILE DIR SESSIONS EVERY_MS [together] [close] [early]
//!
//! The clock runs from where one session is logged in and has its data connection, as that of a fresh
//! mount has, to the last listing's 226. Where the directories are it finds out by listing DIR. The
//! other sessions log in from then on, one each EVERY_MS, as nobody can know sooner that a tree is
//! walked; with `early` from the beginning. A login, its settings and EPSV are one packet. With
//! `together` EPSV for the next listing goes out with a listing, else as soon as its data came; with
//! `close` our side of the data connection is closed before it is read.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::net;

/// What is to be done, and how.
struct Plan {
    server: SocketAddr,
    login: String,
    dir: String,
    sessions: u32,
    every: Duration,
    together: bool,
    close: bool,
    early: bool,
}

impl Plan {
    fn parse(words: &[String]) -> Option<Self> {
        let [
            host,
            port,
            user,
            password,
            dir,
            sessions,
            every,
            tricks @ ..,
        ] = words
        else {
            return None;
        };
        let password = std::fs::read_to_string(password).ok()?;
        let has = |trick| tricks.iter().any(|word| word == trick);
        Some(Self {
            server: (host.parse::<IpAddr>().ok()?, port.parse().ok()?).into(),
            // The facts that ferryfs asks for, as far as the server has them.
            login: format!(
                "USER {user}\r\nPASS {}\r\nOPTS MLST type;size;modify;perm;unique;unix.mode;\
                 unix.uid;unix.gid;unix.ownername;unix.groupname;\r\nEPSV\r\n",
                password.trim_end()
            ),
            dir: dir.clone(),
            sessions: sessions.parse().ok()?,
            every: Duration::from_secs_f64(every.parse::<f64>().ok()? / 1e3),
            together: has("together"),
            close: has("close"),
            early: has("early"),
        })
    }
}

/// One that is logged in, and has the data connection of its next listing.
struct Session<'a> {
    plan: &'a Plan,
    control: BufReader<TcpStream>,
    data: TcpStream,
}

/// The last line of the next reply.
fn reply(control: &mut BufReader<TcpStream>) -> io::Result<String> {
    loop {
        if control.buffer().is_empty() {
            net::acknowledge_at_once(control.get_ref());
        }
        let mut line = String::new();
        if control.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (code, rest) = line.split_at_checked(3).unwrap_or_default();
        if rest.starts_with(' ') && code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(line);
        }
    }
}

impl<'a> Session<'a> {
    fn open(plan: &'a Plan) -> io::Result<Self> {
        let mut control = TcpStream::connect(plan.server)?;
        control.set_nodelay(true)?;
        control.write_all(plan.login.as_bytes())?;
        let mut control = BufReader::new(control);
        let data = loop {
            let reply = reply(&mut control)?;
            match reply.split(' ').next() {
                Some("229") => break plan.connect(&reply)?,
                // OPTS may be refused.
                Some("220" | "331" | "230" | "200" | "501" | "500") => {}
                _ => return Err(io::Error::other(reply)),
            }
        };
        Ok(Self {
            plan,
            control,
            data,
        })
    }

    /// What `dir` has, and when its 226 came; then the next data connection is there.
    fn list(&mut self, dir: &str) -> io::Result<(Vec<u8>, Instant)> {
        let together = self.plan.together;
        let next = if together { "EPSV\r\n" } else { "" };
        let command = format!("MLSD {dir}\r\n{next}");
        self.control.get_mut().write_all(command.as_bytes())?;
        if self.plan.close {
            let _ = self.data.shutdown(Shutdown::Write);
        }
        let mut listing = Vec::new();
        self.data.read_to_end(&mut listing)?;
        if !together {
            self.control.get_mut().write_all(b"EPSV\r\n")?;
        }
        let _ = self.data.shutdown(Shutdown::Both);
        let (mut ended, mut next) = (None, None);
        loop {
            if let (Some(ended), Some(data)) = (ended, next.take()) {
                self.data = data;
                return Ok((listing, ended));
            }
            let reply = reply(&mut self.control)?;
            match reply.split(' ').next() {
                Some("125" | "150") => {}
                Some("226") => ended = Some(Instant::now()),
                Some("229") => next = Some(self.plan.connect(&reply)?),
                // ProFTPD, to an EPSV that it read while it sent the listing.
                Some("450") => self.control.get_mut().write_all(b"EPSV\r\n")?,
                _ => return Err(io::Error::other(reply)),
            }
        }
    }
}

impl Plan {
    /// The data connection of a reply to EPSV.
    fn connect(&self, reply: &str) -> io::Result<TcpStream> {
        let port = reply.split('|').nth(3).and_then(|port| port.parse().ok());
        let port: u16 = port.ok_or_else(|| io::Error::other(reply.to_owned()))?;
        TcpStream::connect((self.server.ip(), port))
    }

    /// Seconds, and names that were listed.
    fn walk(&self) -> io::Result<(f64, usize)> {
        let (dirs, next) = (OnceLock::<Vec<String>>::new(), AtomicUsize::new(0));
        let mut first = Session::open(self)?;
        let began = Instant::now();
        let done = Mutex::new((began, 0));
        let count = |(listing, ended): (Vec<u8>, Instant)| {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            *done = (done.0.max(ended), done.1 + names(&listing).count());
        };
        let list_all = |session: &mut Session<'_>| -> io::Result<()> {
            let dirs = dirs.wait();
            while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                count(session.list(dir)?);
            }
            Ok(())
        };
        let list_with_another = &|number| {
            thread::sleep(self.every * number);
            list_all(&mut Session::open(self)?)
        };
        thread::scope(|scope| {
            let begin = || (1..self.sessions).map(|n| scope.spawn(move || list_with_another(n)));
            let early: Vec<_> = if self.early {
                begin().collect()
            } else {
                vec![]
            };
            let listed = first.list(&self.dir);
            let listing = listed.as_ref().map_or(&[][..], |(listing, _)| listing);
            let below = names(listing).filter(|(is_dir, _)| *is_dir);
            let _ = dirs.set(
                below
                    .map(|(_, name)| format!("{}/{name}", self.dir))
                    .collect(),
            );
            let late: Vec<_> = if self.early {
                vec![]
            } else {
                begin().collect()
            };
            count(listed?);
            list_all(&mut first)?;
            let mut others = early.into_iter().chain(late);
            others.try_for_each(|other| other.join().unwrap_or(Err(io::ErrorKind::Other.into())))
        })?;
        let (ended, names) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(((ended - began).as_secs_f64(), names))
    }
}

/// The names in a listing, and whether each is a directory.
fn names(listing: &[u8]) -> impl Iterator<Item = (bool, &str)> {
    let lines = listing.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        let (facts, name) = str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
        let facts = facts.to_ascii_lowercase();
        let itself = facts.contains("type=cdir") || facts.contains("type=pdir");
        (!itself).then(|| (facts.contains("type=dir"), name))
    })
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = Plan::parse(&words) else {
        return Err(io::Error::other(
            "usage: walk-floor HOST PORT USER PASSWORD_FILE DIR SESSIONS EVERY_MS [together] [close] [early]",
        ));
    };
    let (took, names) = plan.walk()?;
    println!("{took:.4} {names}");
    Ok(())
}
