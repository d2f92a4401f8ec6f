//! Data connections and what goes over them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::ZlibEncoder;
use flate2::write::ZlibDecoder;

use super::Live;
use super::listing;
use super::quirks::{Break, Completion, DashA, Dialect, Early, Quirks, RestStor, matches};
use super::session::{DataSource, Session, hung_up, is_closed};

/// A transfer after a fault.
enum Broken {
    Over(Outcome),
    GoesOn(Live),
}

const CHUNK: usize = 64 * 1024;

/// How a transfer went, for its last reply.
enum Outcome {
    Complete,
    Said(String),
    ClientGone,
}

impl Session {
    pub(super) fn transfer(&mut self, quirks: &Quirks, verb: &str, arg: &[u8]) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.begun_at = rest;
        match verb {
            "RETR" => self.retrieve(quirks, arg, if quirks.rest_ignored { 0 } else { rest }),
            "STOR" => self.store(quirks, arg, rest, false),
            "APPE" => self.store(quirks, arg, 0, true),
            _ => self.list(quirks, verb, arg),
        }
    }

    fn retrieve(&mut self, quirks: &Quirks, arg: &[u8], rest: u64) -> io::Result<()> {
        let path = self.real(arg);
        let opened = fs::metadata(&path).and_then(|meta| {
            if meta.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(rest))?;
            Ok(file)
        });
        let mut file = match opened {
            Ok(file) => file,
            Err(err) => return self.refuse(arg, &err),
        };
        if self.ascii {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let text = bytes
                .split(|b| *b == b'\n')
                .collect::<Vec<_>>()
                .join(&b"\r\n"[..]);
            return self.send(quirks, &text[..]);
        }
        self.send(quirks, file)
    }

    fn list(&mut self, quirks: &Quirks, verb: &str, arg: &[u8]) -> io::Result<()> {
        let (options, name) = split_options(if verb == "MLSD" { &[] } else { arg }, arg);
        if options.contains(&b'a') {
            match &quirks.dash_a {
                DashA::Option => {}
                DashA::Mask => return self.send(quirks, &[][..]),
                DashA::Refused(words) => return self.say(words),
            }
        }
        let (dir, path) = (self.absolute(name), self.real(name));
        let text = match quirks
            .canned
            .iter()
            .find(|(v, d, _)| *v == verb && d.as_bytes() == dir)
        {
            Some((_, _, text)) => text.clone(),
            None => match self.listing(quirks, verb, options.contains(&b'a'), &path) {
                Ok(text) => text,
                Err(_) if quirks.missing_is_empty => Vec::new(),
                Err(err) => return self.refuse(name, &err),
            },
        };
        if text.is_empty()
            && let Some(words) = &quirks.empty_listing
        {
            return self.say(words);
        }
        let asked = self.is_asked_more();
        self.shared
            .asked_early
            .fetch_add(usize::from(asked), SeqCst);
        if quirks.early == Early::Waits || !asked {
            return self.send(quirks, &text[..]);
        }
        let half = &text[..text.len() / 2];
        match quirks.early {
            Early::Waits => {}
            Early::Refused | Early::Dropped => {
                self.reader.read_until(b'\n', &mut Vec::new())?;
                if quirks.early == Early::Refused {
                    self.say("450 EPSV: data transfer in progress")?;
                }
            }
            Early::BreaksOff => {
                let silent = Quirks {
                    completion: Completion::Never,
                    ..quirks.clone()
                };
                return self.send(&silent, half);
            }
            Early::BreaksOffWell => return self.send(quirks, half),
            Early::HangsUp => return Err(hung_up()),
        }
        self.send(quirks, &text[..])
    }

    /// The text of a listing; also that of `STAT`, which has no data connection.
    pub(super) fn listing(
        &self,
        quirks: &Quirks,
        verb: &str,
        all: bool,
        path: &Path,
    ) -> io::Result<Vec<u8>> {
        let (mlsx, names_only) = (verb == "MLSD", verb == "NLST");
        let mut lines: Vec<Vec<u8>> = Vec::new();
        if !fs::metadata(path)
            .or_else(|_| fs::symlink_metadata(path))?
            .is_dir()
        {
            if mlsx {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            let name = listing::base_name(path);
            let line = listing::list_line(quirks, &name, path);
            lines.extend(if names_only { Some(name) } else { line });
        } else {
            if mlsx && quirks.mlsd_dots {
                lines.extend(listing::mlsx_line(quirks, Some("cdir"), b".", path));
                lines.extend(listing::mlsx_line(quirks, Some("pdir"), b"..", path));
            }
            if all && !names_only && quirks.dialect != Dialect::Dos {
                lines.extend(listing::list_line(quirks, b".", path));
                lines.extend(listing::list_line(quirks, b"..", path));
            }
            for entry in listing::entries(path)? {
                let hidden = quirks.hides_dot_files && entry.name.starts_with(b".");
                if mlsx {
                    lines.extend(listing::mlsx_line(quirks, None, &entry.name, &entry.path));
                    continue;
                }
                if hidden && !all {
                    continue;
                }
                if names_only {
                    lines.push(entry.name);
                } else {
                    lines.extend(listing::list_line(quirks, &entry.name, &entry.path));
                }
            }
            for ghost in &quirks.ghosts {
                lines.push(match names_only {
                    true => ghost.clone(),
                    false => listing::ghost_line(quirks, mlsx, ghost),
                });
            }
        }
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(&line);
            text.extend_from_slice(b"\r\n");
        }
        Ok(text)
    }

    fn send(&mut self, quirks: &Quirks, from: impl Read) -> io::Result<()> {
        let Some(mut data) = self.open_data(quirks)? else {
            return Ok(());
        };
        // One that takes MODE Z and does not do it.
        let packs = self.packed && !quirks.extras.contains(&"NO MODE Z");
        let mut from: Box<dyn Read> = match packs {
            true => Box::new(ZlibEncoder::new(from, flate2::Compression::default())),
            false => Box::new(from),
        };
        let mut pace = Pace::new(self, quirks);
        let mut chunk = vec![0; CHUNK];
        let outcome = loop {
            if pace.is_due() {
                match self.break_off(data, true)? {
                    Broken::Over(outcome) => return self.end(quirks, None, outcome),
                    Broken::GoesOn(back) => data = back,
                }
                pace.due = None;
            }
            let n = from.read(&mut chunk[..pace.room()])?;
            if n == 0 {
                break Outcome::Complete;
            }
            self.garble(quirks, &mut chunk);
            if data.stream.write_all(&chunk[..n]).is_err() {
                break Outcome::ClientGone;
            }
            self.shared.sent.fetch_add(n as u64, SeqCst);
            pace.moved(n);
        };
        self.end(quirks, Some(data), outcome)
    }

    fn store(&mut self, quirks: &Quirks, arg: &[u8], rest: u64, append: bool) -> io::Result<()> {
        let cut = rest == 0 && !append;
        let mut file = match OpenOptions::new()
            .write(true)
            .create(true)
            .append(append)
            .truncate(cut)
            .open(self.real(arg))
        {
            Ok(file) => file,
            Err(err) => return self.refuse(arg, &err),
        };
        if rest > 0 {
            match quirks.rest_stor {
                RestStor::InPlace => {}
                RestStor::Truncates => file.set_len(rest)?,
                RestStor::ZeroFills => file.set_len(0)?,
            }
            file.seek(SeekFrom::Start(rest))?;
        }
        let Some(mut data) = self.open_data(quirks)? else {
            return Ok(());
        };
        let takes = |extra: &&str| matches!(*extra, "NO MODE Z" | "NO MODE Z UP");
        let packs = self.packed && !quirks.extras.iter().any(takes);
        let mut file = match packs {
            true => Sink::Packed(ZlibDecoder::new(file)),
            false => Sink::Plain(file),
        };
        let mut pace = Pace::new(self, quirks);
        let mut chunk = vec![0; CHUNK];
        let outcome = loop {
            if pace.is_due() {
                match self.break_off(data, false)? {
                    Broken::Over(outcome) => return self.end(quirks, None, outcome),
                    Broken::GoesOn(back) => data = back,
                }
                pace.due = None;
            }
            let n = match data.stream.read(&mut chunk[..pace.room()]) {
                Ok(0) if file.is_whole() => break Outcome::Complete,
                Ok(0) => break Outcome::Said("451 The packed data end too soon.".to_owned()),
                Ok(n) => n,
                Err(_) => break Outcome::ClientGone,
            };
            self.garble(quirks, &mut chunk);
            let before = self.shared.received.fetch_add(n as u64, SeqCst);
            if let Some(disk) = &quirks.disk
                && before + n as u64 > disk.bytes
            {
                let fits = disk.bytes.saturating_sub(before);
                file.write_all(&chunk[..usize::try_from(fits).unwrap()])?;
                break Outcome::Said(disk.reply.clone());
            }
            if self.ascii {
                chunk.truncate(n);
                chunk.retain(|b| *b != b'\r');
                file.write_all(&chunk)?;
                chunk.resize(CHUNK, 0);
            } else {
                file.write_all(&chunk[..n])?;
            }
            pace.moved(n);
        };
        drop(file);
        self.end(quirks, Some(data), outcome)
    }

    fn garble(&self, quirks: &Quirks, piece: &mut [u8]) {
        if quirks
            .garbles
            .as_ref()
            .is_some_and(|p| matches(p, &self.line))
        {
            piece[0] ^= 1;
        }
    }

    /// Says that the data comes, and opens its connection.
    fn open_data(&mut self, quirks: &Quirks) -> io::Result<Option<Live>> {
        let source = std::mem::replace(&mut self.data, DataSource::None);
        if matches!(source, DataSource::None) {
            self.say("425 Use PASV or PORT first.")?;
            return Ok(None);
        }
        if !quirks.opening.is_empty() {
            self.say(&quirks.opening)?;
        }
        let stream = match source {
            DataSource::None => None,
            DataSource::Active(peer) => {
                TcpStream::connect_timeout(&peer, Duration::from_secs(5)).ok()
            }
            DataSource::Passive(listener) => {
                listener.set_nonblocking(true)?;
                let deadline = Instant::now() + Duration::from_secs(10);
                loop {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            stream.set_nonblocking(false)?;
                            break Some(stream);
                        }
                        Err(_) if Instant::now() > deadline => break None,
                        Err(_) if self.is_over() => return Err(hung_up()),
                        Err(_) => thread::sleep(Duration::from_micros(200)),
                    }
                }
            }
        };
        match stream {
            Some(stream) => match self.shielded(stream) {
                Ok(live) => Ok(Some(live)),
                Err(_) => {
                    self.say("425 No TLS.")?;
                    Ok(None)
                }
            },
            None => {
                self.say("425 No data connection.")?;
                Ok(None)
            }
        }
    }

    /// What a fault that is due does to the transfer.
    fn break_off(&self, data: Live, sending: bool) -> io::Result<Broken> {
        match self.shared.fire(&self.line) {
            None => Ok(Broken::GoesOn(data)),
            Some(Break::CloseData(words)) => Ok(Broken::Over(Outcome::Said(words))),
            Some(Break::ResetData(words)) => {
                data.reset();
                Ok(Broken::Over(Outcome::Said(words)))
            }
            Some(Break::HangUp) => {
                data.reset();
                let zero = Some(Duration::ZERO);
                let _ = socket2::SockRef::from(&self.control.stream).set_linger(zero);
                Err(hung_up())
            }
            Some(Break::Stall) => {
                let stands = || {
                    let quirks = self.shared.quirks();
                    quirks
                        .faults
                        .iter()
                        .any(|fault| matches!(fault.what, Break::Stall))
                };
                while stands() {
                    if self.is_over() {
                        return Err(hung_up());
                    }
                    if sending && is_closed(&data.stream) {
                        return Ok(Broken::Over(Outcome::ClientGone));
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(Broken::GoesOn(data))
            }
        }
    }

    fn end(&mut self, quirks: &Quirks, data: Option<Live>, outcome: Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Said(words) if words.is_empty() => return Ok(()),
            Outcome::Said(words) => {
                drop(data);
                return self.say(&words);
            }
            Outcome::ClientGone => {
                drop(data);
                return self.say("426 Connection closed; transfer aborted.");
            }
            Outcome::Complete => {}
        }
        const WORDS: &str = "226 Transfer complete.";
        match quirks.completion {
            Completion::Early(ahead) => {
                self.done(WORDS)?;
                thread::sleep(ahead);
                return Ok(());
            }
            Completion::Never => return Ok(()),
            Completion::Awaited => {
                if let Some(data) = data {
                    let closed = usize::from(is_closed(&data.stream));
                    self.shared.closed_early.fetch_add(closed, SeqCst);
                    data.await_close();
                }
            }
            Completion::Late(_) | Completion::Asked(_) | Completion::Normal | Completion::Twice => {
                drop(data)
            }
        }
        if let Completion::Asked(most) = quirks.completion {
            let deadline = Instant::now() + most;
            while !self.is_asked_more() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            let asked = usize::from(self.is_asked_more());
            self.shared.asked_early.fetch_add(asked, SeqCst);
        }
        if let Completion::Late(pause) = quirks.completion {
            thread::sleep(pause);
            let asked = usize::from(self.is_asked_more());
            self.shared.asked_early.fetch_add(asked, SeqCst);
        }
        self.done(WORDS)?;
        if matches!(quirks.completion, Completion::Twice) {
            self.done(WORDS)
        } else {
            Ok(())
        }
    }
}

/// A file that is being written.
enum Sink {
    Plain(File),
    Packed(ZlibDecoder<File>),
}

impl Sink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Packed(decoder) => decoder.write_all(bytes),
        }
    }

    /// Whether what came has an end.
    fn is_whole(&mut self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Packed(decoder) => decoder.try_finish().is_ok(),
        }
    }
}

/// `-la name` is options and a name; the name may begin with spaces.
fn split_options<'a>(options_of: &'a [u8], arg: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    if options_of.first() != Some(&b'-') {
        return (&[], arg);
    }
    match arg.iter().position(|b| *b == b' ') {
        Some(space) => (&arg[..space], &arg[space + 1..]),
        None => (arg, &[]),
    }
}

/// How far a transfer has come, and how fast it may go on.
struct Pace {
    /// Bytes until the fault that waits.
    due: Option<u64>,
    rate: Option<u64>,
    done: u64,
    since: Instant,
}

impl Pace {
    fn new(session: &Session, quirks: &Quirks) -> Self {
        Self {
            due: session.shared.fault(&session.line).map(|fault| fault.after),
            rate: match &quirks.rate_from {
                Some((from, rate)) if from.contains(&session.begun_at) => Some(*rate),
                _ => quirks.rate,
            },
            done: 0,
            since: Instant::now(),
        }
    }

    const fn is_due(&self) -> bool {
        matches!(self.due, Some(0))
    }

    fn room(&self) -> usize {
        let chunk = self
            .rate
            .map_or(CHUNK as u64, |rate| (rate / 20).clamp(1, CHUNK as u64));
        usize::try_from(self.due.unwrap_or(u64::MAX).min(chunk)).unwrap()
    }

    fn moved(&mut self, n: usize) {
        self.done += n as u64;
        self.due = self.due.map(|due| due - n as u64);
        if let Some(rate) = self.rate {
            let planned = Duration::from_micros(self.done.saturating_mul(1_000_000) / rate);
            thread::sleep(planned.saturating_sub(self.since.elapsed()));
        }
    }
}
