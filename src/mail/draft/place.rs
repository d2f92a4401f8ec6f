//! What the place of a file below `outbox/` says: to whom, when, about what.

use std::time::SystemTime;

use jiff::ZonedDateTime;

use crate::mail::address::{Item, parse_list};
use crate::mail::fields::text_of;
use crate::mail::{dates, media};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// A path below `outbox/`, understood: `[now/|at/TIME/][RECIPIENTS/]NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// From `now/`: the verdict of the server is waited for.
    pub now: bool,
    /// From `at/TIME/`.
    pub at: Option<SystemTime>,
    /// From the directory's name: addresses and aliases between commas.
    pub to: Vec<Item>,
    /// The file's own name; empty for a directory of the outbox itself.
    pub name: Vec<u8>,
}

impl Place {
    /// The place of a file (or of a directory full of attachments) at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::BadMessage`] where a directory's name is neither a time nor recipients.
    pub fn of_file(path: &RemotePath, now: &ZonedDateTime) -> Result<Self> {
        let Some((directory, name)) = path.split() else {
            return Err(ErrorKind::Invalid.into());
        };
        let mut place = Self::of_directory(&directory, now)?;
        place.name = name.as_bytes().to_vec();
        Ok(place)
    }

    /// The place of a directory whose files are messages; also good to check the name given to
    /// `mkdir`. Whether its aliases exist is not looked at.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_directory(path: &RemotePath, now: &ZonedDateTime) -> Result<Self> {
        let mut place = Self::default();
        let mut names = path.components().peekable();
        let nested = || {
            Error::new(
                ErrorKind::BadMessage,
                format!("outbox{path}: too many directories"),
            )
        };
        match names.next_if(|name| matches!(*name, b"now" | b"at")) {
            Some(b"now") => place.now = true,
            Some(_) => {
                if let Some(time) = names.next() {
                    place.at = Some(dates::parse(&text_of(time), now)?);
                }
            }
            None => {}
        }
        if let Some(list) = names.next() {
            place.to = parse_list(&text_of(list))?;
            if place.to.is_empty() {
                return Err(Error::new(
                    ErrorKind::NoRecipient,
                    format!("outbox{path}: no recipient"),
                ));
            }
        }
        if names.next().is_some() {
            return Err(nested());
        }
        Ok(place)
    }

    /// The subject that the file's name gives: without the end that says it is text, and without
    /// the dot of a directory that was being filled.
    #[must_use]
    pub fn subject(&self) -> String {
        let name = text_of(&self.name);
        let name = name.strip_prefix('.').unwrap_or(&name);
        let is_text = matches!(media::by_name(&self.name), Some("text/plain" | "text/html"));
        let stem = name
            .rsplit_once('.')
            .filter(|_| is_text)
            .map_or(name, |(stem, _)| stem);
        stem.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

/// Whether a file of this name is still being written and is no message until it is renamed: the
/// names that editors, rsync, sed and browsers use meanwhile.
#[must_use]
pub fn is_unfinished(name: &[u8]) -> bool {
    let sed = name.strip_prefix(b"sed");
    matches!(name.first(), None | Some(b'.' | b'#'))
        || [&b"~"[..], b".swp", b".swpx", b".swx", b".tmp", b".part", b".partial", b".crdownload"]
            .iter()
            .any(|end| name.ends_with(end))
        // vi creates and removes this to see whether it may write to the directory.
        || name == b"4913"
        || sed.is_some_and(|rest| rest.len() == 6 && rest.iter().all(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use jiff::{Timestamp, tz::TimeZone};

    fn place(path: &str) -> Result<Place> {
        let now = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
        Place::of_file(&RemotePath::parse(path.as_bytes()).unwrap(), &now)
    }

    #[test]
    fn directories_say_to_whom_and_when() {
        let plain = place("m").unwrap();
        assert_eq!(
            (plain.now, plain.at, plain.to.len(), plain.name.as_slice()),
            (false, None, 0, &b"m"[..])
        );
        assert_eq!(place("bob@example.org/x").unwrap().to.len(), 1);
        assert_eq!(place("a@x.org,Bob <b@x.org>, team/x").unwrap().to.len(), 3);
        assert!(place("now/x").unwrap().now && place("now/team/x").unwrap().now);
        let at = place("at/1970-01-01T09:00/team/x").unwrap();
        assert_eq!(
            at.at,
            Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9 * 3600))
        );
        assert_eq!(at.to.len(), 1);
        for bad in ["a@@x/m", "at/soon/m", "a/b/m", "now/a/b/m", "now/at/+1h/m"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_become_subjects() {
        for (name, subject) in [
            ("Weekly report.txt", "Weekly report"),
            ("page.html", "page"),
            ("photo.jpg", "photo.jpg"),
            ("Meeting at 9.30", "Meeting at 9.30"),
            (".m", "m"),
            ("tab\there", "tab here"),
        ] {
            assert_eq!(
                place(&format!("a@x.org/{name}")).unwrap().subject(),
                subject
            );
        }
    }

    #[test]
    fn unfinished_names_never_commit() {
        for name in [
            ".x",
            "#x#",
            "x~",
            "x.swp",
            ".x.swpx",
            "x.tmp",
            "x.part",
            "4913",
            "sedA1b2C3",
            "",
            ".m.Xy12Zw",
        ] {
            assert!(is_unfinished(name.as_bytes()), "{name}");
        }
        for name in [
            "x",
            "sediment",
            "sed",
            "sedabc",
            "49134",
            "tmp",
            "x.swp.txt",
        ] {
            assert!(!is_unfinished(name.as_bytes()), "{name}");
        }
    }
}
