//! `ferryfs status --watch`: the same, drawn anew every second, with bars for what is under way.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{block, in_bytes, plain, reports};
use crate::exit::Failure;

/// Between two pictures on a terminal, and between two blocks elsewhere.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_IN_A_FILE: Duration = Duration::from_secs(5);

/// Home, and what is below the cursor away; the rest of a line away.
const HOME: &str = "\x1b[H";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_LINE: &str = "\x1b[K";
/// Another screen, without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Widest bar.
const BAR: usize = 30;

/// Shows the mount at `dir`, or all, until `q`, Ctrl-C or, where there was one, the mount's end.
///
/// # Errors
/// As [`show`](super::show).
pub(crate) fn watch(dir: Option<&Path>) -> Result<(), Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .map_err(|err| Failure::system("signal handlers", &err))?;
    }
    let mut rates = Rates::default();
    // The first is looked at before the screen is taken: its error is told as ever.
    let mut mounts = reports(dir)?;
    if io::stdout().is_terminal() {
        let _screen = Screen::enter().map_err(|err| Failure::system("terminal", &err))?;
        loop {
            let picture = picture(&mounts, &mut rates);
            if draw(&picture).is_err() || wait_for_q(EVERY, &ended) {
                break Ok(());
            }
            mounts = match reports(dir) {
                Ok(mounts) => mounts,
                Err(failure) => break Err(failure),
            };
        }
    } else {
        loop {
            let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
            let text = format!("{now}\n{}\n", picture(&mounts, &mut rates));
            let written = io::stdout().lock().write_all(text.as_bytes());
            if written.is_err() || wait(EVERY_IN_A_FILE, &ended) {
                break Ok(());
            }
            mounts = match reports(dir) {
                Ok(mounts) => mounts,
                Err(failure) => break Err(failure),
            };
        }
    }
}

fn draw(picture: &str) -> io::Result<()> {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let size = size.ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let (rows, columns) = (usize::from(rows).max(4), usize::from(columns).max(20));
    let mut screen = HOME.to_owned();
    for line in picture.lines().take(rows - 2) {
        let line: String = line.chars().take(columns - 1).collect();
        let _ = write!(screen, "{line}{CLEAR_LINE}\r\n");
    }
    let _ = write!(screen, "{CLEAR_BELOW}\r\nq ends");
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes())?;
    out.flush()
}

/// What is shown of all mounts.
fn picture(mounts: &[Value], rates: &mut Rates) -> String {
    if mounts.is_empty() {
        return "nothing is mounted\n".to_owned();
    }
    let mut text = String::new();
    for mount in mounts {
        let mut rest = mount.clone();
        let transfers = rest
            .as_object_mut()
            .and_then(|members| members.remove("transfers"));
        text.push_str(&block(&rest));
        for transfer in transfers.iter().filter_map(Value::as_array).flatten() {
            text.push_str(&bar(mount, transfer, rates));
        }
        text.push('\n');
    }
    rates.forget_the_others();
    text
}

/// `  up   /a  [####......]  40%  12.0 MiB of 30.0 MiB, 2.1 MiB/s`
fn bar(mount: &Value, transfer: &Value, rates: &mut Rates) -> String {
    let text = |key: &str| transfer.get(key).map(|v| plain(key, v)).unwrap_or_default();
    let number = |key: &str| transfer.get(key).and_then(Value::as_u64);
    let done = number("done_bytes").unwrap_or(0);
    let total = number("total_bytes").filter(|total| *total > 0);
    let key = format!(
        "{} {} {} {}",
        mount
            .get("mountpoint")
            .map(|v| plain("", v))
            .unwrap_or_default(),
        text("direction"),
        text("path"),
        number("since").unwrap_or(0)
    );
    let rate = match rates.of(key, done) {
        Some(rate) => format!(", {}/s", in_bytes(rate)),
        None => String::new(),
    };
    let progress = match total {
        Some(total) => {
            let done = done.min(total);
            let share =
                |of: u64| usize::try_from(u128::from(done) * u128::from(of) / u128::from(total));
            let full = share(BAR as u64).unwrap_or(0);
            let percent = share(100).unwrap_or(0);
            format!(
                "[{}{}] {percent:>3}%  {} of {}",
                "#".repeat(full),
                ".".repeat(BAR - full),
                in_bytes(done),
                in_bytes(total)
            )
        }
        None => in_bytes(done),
    };
    format!(
        "  {:<4} {progress}{rate}  {}\n",
        text("direction"),
        text("path")
    )
}

/// How fast transfers are, from one picture to the next.
#[derive(Default)]
struct Rates {
    before: HashMap<String, (Instant, u64)>,
    now: HashMap<String, (Instant, u64)>,
}

impl Rates {
    /// Bytes in a second since the last picture.
    fn of(&mut self, key: String, done: u64) -> Option<u64> {
        let now = Instant::now();
        let rate = self.before.get(&key).and_then(|(at, before)| {
            let millis = u64::try_from(now.duration_since(*at).as_millis()).ok()?;
            let bytes = done.saturating_sub(*before);
            bytes.saturating_mul(1000).checked_div(millis)
        });
        self.now.insert(key, (now, done));
        rate
    }

    fn forget_the_others(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// The terminal, drawn on and not scrolled, keys read one by one. Back to what it was when dropped.
struct Screen(Option<Termios>);

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = match rustix::termios::tcgetattr(io::stdin()) {
            Ok(before) => {
                let mut keys = before.clone();
                keys.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
                rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
                Some(before)
            }
            // Standard input is no terminal: Ctrl-C is left.
            Err(_) => None,
        };
        let screen = Self(before);
        io::stdout().lock().write_all(ENTER.as_bytes())?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(LEAVE.as_bytes());
        let _ = out.flush();
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Waits; whether to end.
fn wait(time: Duration, ended: &AtomicBool) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if ended.load(Ordering::Relaxed) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    ended.load(Ordering::Relaxed)
}

/// Waits for a key; whether to end.
fn wait_for_q(time: Duration, ended: &AtomicBool) -> bool {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return wait(time, ended);
    }
    let Ok(limit) = Timespec::try_from(time) else {
        return true;
    };
    let mut keys = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut keys, Some(&limit)) {
        Ok(0) | Err(_) => {}
        Ok(_) => {
            let mut key = [0; 16];
            // Not through the buffer of `Stdin`, which would hide keys from poll.
            let got = rustix::io::read(&stdin, &mut key).unwrap_or(0);
            let typed = key.get(..got).unwrap_or_default();
            // 0 is the end of a terminal that went away; 4 is Ctrl-D.
            if got == 0 || typed.iter().any(|key| matches!(key, b'q' | b'Q' | 4)) {
                return true;
            }
        }
    }
    ended.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_under_way_has_a_bar() {
        let mount = json!({
            "mountpoint": "/mnt/x", "url": "ftp://h/", "state": "mounted", "dirty": [],
            "transfers": [
                {"path": "/a", "direction": "up", "done_bytes": 512, "total_bytes": 1024},
                {"path": "/b", "direction": "down", "done_bytes": 2048},
                {"path": "/c", "direction": "down", "done_bytes": 9, "total_bytes": 3},
            ],
        });
        let text = picture(&[mount], &mut Rates::default());
        let half = format!(
            "up   [{}{}]  50%  512 B of 1.0 KiB  /a\n",
            "#".repeat(15),
            ".".repeat(15)
        );
        assert!(text.contains(&half), "{text}");
        assert!(text.contains("down 2.0 KiB  /b\n"), "{text}");
        assert!(text.contains("] 100%  3 B of 3 B  /c\n"), "{text}");
    }
}
