//! `ferryfs mail list` and `read`: the inbox for people without a mail program at hand.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::mounted;
use crate::exit::{Exit, Failure, words};
use crate::mail::fields::{HEADER_MAX, fields};
use crate::mail::store::without_flags;
use crate::mail::words::decode;

/// Messages listed where no number is given.
const SCREEN: usize = 20;

/// A message of the inbox.
pub(super) struct Message {
    /// Its file.
    path: PathBuf,
    /// Its name without flags: a directory in `parts/`.
    pub(super) base: String,
    changed: SystemTime,
}

/// The messages of the mailbox at `dir`, newest first: the first one has number 1.
pub(super) fn messages(dir: &Path) -> Result<Vec<Message>, Failure> {
    let mut messages = Vec::new();
    for room in ["new", "cur"] {
        let room = dir.join(room);
        let failed = |err: &io::Error| Failure::system(room.display(), err);
        for entry in fs::read_dir(&room).map_err(|err| failed(&err))? {
            let entry = entry.map_err(|err| failed(&err))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // It may be gone already.
            let Ok(about) = entry.metadata() else {
                continue;
            };
            if !name.starts_with('.') {
                messages.push(Message {
                    path: entry.path(),
                    base: without_flags(&name).to_owned(),
                    changed: about.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
    }
    messages.sort_by(|a, b| (b.changed, &b.base).cmp(&(a.changed, &a.base)));
    Ok(messages)
}

/// The message that is meant by a number or a file name.
pub(super) fn find(dir: &Path, meant: &str) -> Result<Message, Failure> {
    let mut messages = messages(dir)?;
    let name = Path::new(meant)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let base = name.as_deref().map(without_flags).unwrap_or_default();
    let at = match meant.parse::<usize>() {
        Ok(number) => number.checked_sub(1).filter(|at| *at < messages.len()),
        Err(_) => messages.iter().position(|message| message.base == base),
    };
    let at = at.ok_or_else(|| {
        let line = format!("{meant}: no such message; ferryfs mail list shows them");
        Failure::new(Exit::Failed, line)
    })?;
    Ok(messages.swap_remove(at))
}

impl Message {
    fn is_new(&self) -> bool {
        let flags = self.path.to_string_lossy();
        let flags = flags.rsplit_once(":2,").map_or("", |(_, flags)| flags);
        !flags.contains('S')
    }

    /// Number, date, sender and subject in one line.
    fn line(&self, number: usize) -> String {
        let mut head = Vec::new();
        let file = File::open(&self.path);
        let _ = file.and_then(|file| file.take(HEADER_MAX as u64).read_to_end(&mut head));
        let field = |name: &str| {
            let found = fields(&head).flatten().find(|field| field.is(name));
            found.map_or_else(String::new, |field| printable(&decode(&field.unfolded())))
        };
        let from = field("From");
        let from = from.split_once('<').map_or(from.as_str(), |(name, rest)| {
            let name = name.trim().trim_matches('"');
            if name.is_empty() {
                rest.trim_end_matches('>')
            } else {
                name
            }
        });
        let date = jiff::Timestamp::try_from(self.changed).map_or_else(
            |_| String::new(),
            |at| {
                let at = at.to_zoned_datetime(jiff::tz::TimeZone::system());
                at.strftime("%Y-%m-%d %H:%M").to_string()
            },
        );
        let new = if self.is_new() { 'N' } else { ' ' };
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let (from, subject) = (cut(from, 22), cut(&field("Subject"), 120));
        format!("{number:>5} {new} {date:<16}  {from:<22}  {subject}\n")
    }

    /// Says that it was read.
    fn seen(&self) -> io::Result<()> {
        if !self.is_new() {
            return Ok(());
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let flags = name.rsplit_once(":2,").map_or("", |(_, flags)| flags);
        let mut flags: Vec<char> = flags.chars().chain(['S']).collect();
        flags.sort_unstable();
        let flags: String = flags.into_iter().collect();
        let dir = self
            .path
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("."));
        fs::rename(
            &self.path,
            dir.join("cur").join(format!("{}:2,{flags}", self.base)),
        )
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Prints the newest `count` messages, the newest one last.
///
/// # Errors
/// No mailbox is mounted; reading it.
pub(super) fn list(account: Option<&str>, count: Option<usize>) -> Result<(), Failure> {
    let found = mounted(account)?;
    let messages = messages(&found.record.mountpoint)?;
    let count = match count.unwrap_or(SCREEN) {
        0 => messages.len(),
        count => count.min(messages.len()),
    };
    let shown = messages.iter().take(count).enumerate().rev();
    crate::print(
        &shown
            .map(|(at, message)| message.line(at + 1))
            .collect::<String>(),
    )
}

/// Prints a message as `parts/` shows it, and marks it as seen.
///
/// # Errors
/// As [`list`]; there is no such message.
pub(super) fn read(account: Option<&str>, meant: &str) -> Result<(), Failure> {
    let found = mounted(account)?;
    let dir = &found.record.mountpoint;
    let message = find(dir, meant)?;
    let parts = dir.join("parts").join(&message.base);
    let headers = fs::read(parts.join("headers"))
        .map_err(|err| Failure::system(parts.join("headers").display(), &err))?;
    let mut text = String::new();
    for field in fields(&headers).flatten() {
        if ["Date", "From", "To", "Cc", "Subject"]
            .iter()
            .any(|name| field.is(name))
        {
            text.push_str(&format!(
                "{}: {}\n",
                field.name,
                printable(&decode(&field.unfolded()))
            ));
        }
    }
    let mut others = Vec::new();
    for entry in fs::read_dir(&parts).map_err(|err| Failure::system(parts.display(), &err))? {
        let name = entry
            .map_err(|err| Failure::system(parts.display(), &err))?
            .file_name();
        others.push(name.to_string_lossy().into_owned());
    }
    let known = ["headers", "text", "html", "reply", "reply-all", "forward"];
    others.retain(|name| !known.contains(&name.as_str()));
    others.sort();
    for name in others {
        text.push_str(&format!("Attached: {}\n", parts.join(name).display()));
    }
    text.push('\n');
    let body = fs::read(parts.join("text")).or_else(|_| fs::read(parts.join("html")));
    let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    // A terminal would obey what is in a message.
    text.extend(
        body.chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t')),
    );
    crate::print(&text)?;
    message
        .seen()
        .map_err(|err| Failure::new(Exit::Failed, format!("{}: {}", message.base, words(&err))))
}
