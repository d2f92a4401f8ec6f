//! Where messages go: standard error while someone is watching, syslog behind their back.

use std::fmt::Arguments;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::sync::Locked;

/// Where the conversation with a server is logged, secrets masked; shown with `-d` only.
pub const WIRE: &str = "ferryfs::wire";

/// The log file is begun anew at this size, with one old one kept.
const MAX_FILE: u64 = 1 << 20;

static LOGGER: Logger = Logger {
    sink: Locked::new(Sink::Terminal),
    choice: Locked::new(Choice::QUIET),
};

/// Starts logging to standard error. `verbosity` counts `-v`; `debug` adds the transcript and what
/// the crates below have to say.
pub(crate) fn start(verbosity: u8, debug: bool) {
    let ours = match (debug, verbosity) {
        (true, _) => LevelFilter::Debug,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Debug,
    };
    LOGGER
        .choice
        .with(|choice| *choice = Choice { ours, debug });
    // Fails if it was done before, which is what we want.
    let _ = log::set_logger(&LOGGER);
    // Never Trace: there suppaftp prints passwords.
    log::set_max_level(ours.max(LevelFilter::Info));
}

/// From here on nobody watches: syslog, or `ferryfs.log` in `dir` where there is none.
pub(crate) fn to_background(dir: &Path) {
    LOGGER
        .choice
        .with(|choice| choice.ours = choice.ours.max(LevelFilter::Info));
    let sink = match connect_syslog() {
        Ok(socket) => Sink::Syslog(socket),
        Err(_) => Sink::File(dir.join("ferryfs.log")),
    };
    LOGGER.sink.with(|current| *current = sink);
}

/// Whether nobody watches.
pub(crate) fn is_in_background() -> bool {
    LOGGER.sink.with(|sink| !matches!(sink, Sink::Terminal))
}

/// What is shown.
#[derive(Clone, Copy)]
struct Choice {
    ours: LevelFilter,
    debug: bool,
}

impl Choice {
    const QUIET: Self = Self {
        ours: LevelFilter::Warn,
        debug: false,
    };

    fn shows(self, target: &str, level: Level) -> bool {
        let limit = if target == WIRE {
            if self.debug {
                LevelFilter::Debug
            } else {
                LevelFilter::Off
            }
        } else if target == "ferryfs" || target.starts_with("ferryfs::") {
            self.ours
        } else if target == "fuser" || target.starts_with("fuser::") {
            // It complains of every reply that comes after its request was given up, and at Debug
            // it drowns the conversation with the server.
            if self.debug {
                LevelFilter::Warn
            } else {
                LevelFilter::Off
            }
        } else if self.debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Warn
        };
        level <= limit
    }
}

struct Logger {
    sink: Locked<Sink>,
    choice: Locked<Choice>,
}

enum Sink {
    Terminal,
    Syslog(UnixDatagram),
    File(PathBuf),
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let choice = self.choice.with(|choice| *choice);
        choice.shows(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let debug = self.choice.with(|choice| choice.debug);
        let line = line(record, debug);
        // A log that cannot be written is nothing a filesystem should fail for.
        self.sink.with(|sink| match sink {
            Sink::Terminal => {
                let _ = writeln!(io::stderr(), "{line}");
            }
            Sink::Syslog(socket) => {
                let packet = packet(record.level(), &line);
                // syslogd was restarted, most likely; one message is not worth more.
                if socket.send(&packet).is_err()
                    && let Ok(fresh) = connect_syslog()
                {
                    let _ = fresh.send(&packet);
                    *socket = fresh;
                }
            }
            Sink::File(path) => {
                let time = humantime::format_rfc3339_seconds(SystemTime::now());
                let _ = append(
                    path,
                    format_args!("{time} [{}] {line}\n", std::process::id()),
                );
            }
        });
    }

    fn flush(&self) {}
}

/// One line: a server's words may hold line ends and escape sequences.
fn line(record: &Record<'_>, debug: bool) -> String {
    let message = record.args().to_string();
    let message: String = message
        .chars()
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    if debug {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        return format!("{time} {} {}: {message}", record.level(), record.target());
    }
    match record.level() {
        Level::Error => format!("ferryfs: {message}"),
        Level::Warn => format!("ferryfs: warning: {message}"),
        Level::Info | Level::Debug | Level::Trace => format!("ferryfs: {message}"),
    }
}

fn connect_syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect("/dev/log")?;
    // A stuck syslogd shall not stop a filesystem.
    socket.set_write_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

/// What syslog(3) sends: the priority and the tag; the time is syslogd's.
fn packet(level: Level, line: &str) -> Vec<u8> {
    const DAEMON: u8 = 3 << 3;
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let message = line.strip_prefix("ferryfs: ").unwrap_or(line);
    format!(
        "<{}>ferryfs[{}]: {message}",
        DAEMON | severity,
        std::process::id()
    )
    .into_bytes()
}

fn append(path: &Path, text: Arguments<'_>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|about| about.len() > MAX_FILE) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let mut file: File = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.to_string().as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_transcript_and_the_crates_below_are_shown_only_when_asked_for() {
        let quiet = Choice {
            ours: LevelFilter::Debug,
            debug: false,
        };
        assert!(quiet.shows("ferryfs::vfs", Level::Debug));
        assert!(!quiet.shows(WIRE, Level::Debug));
        assert!(!quiet.shows("suppaftp::sync_ftp", Level::Info));
        assert!(!quiet.shows("fuser::reply", Level::Error));
        assert!(quiet.shows("rustls", Level::Warn));
        let debug = Choice {
            ours: LevelFilter::Debug,
            debug: true,
        };
        assert!(debug.shows(WIRE, Level::Debug));
        assert!(!debug.shows("fuser::request", Level::Debug));
        assert!(debug.shows("fuser", Level::Warn));
        assert!(!debug.shows("suppaftp", Level::Trace));
    }

    #[test]
    fn a_message_is_one_line() {
        let record = Record::builder()
            .level(Level::Warn)
            .target("ferryfs")
            .args(format_args!("a\r\nb\x1b[2J"))
            .build();
        assert_eq!(line(&record, false), "ferryfs: warning: a  b [2J");
    }

    #[test]
    fn a_syslog_packet_has_priority_and_tag() {
        let packet = String::from_utf8(packet(Level::Warn, "ferryfs: warning: full")).unwrap();
        assert_eq!(
            packet,
            format!("<28>ferryfs[{}]: warning: full", std::process::id())
        );
    }

    #[test]
    fn the_file_stays_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("ferryfs.log");
        fs::write(&path, vec![b'x'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
        append(&path, format_args!("new\n")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert!(temp.path().join("ferryfs.log.1").exists());
    }
}
