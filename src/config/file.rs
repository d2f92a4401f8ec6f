//! The configuration file: mounts described once, `[mount.NAME]`, in TOML.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::dirs;
use super::options::nearest;
use super::order::Setting;
use crate::exit::{Exit, Failure, words};

/// Larger than any file a person writes.
const MAX_BYTES: u64 = 1 << 20;

/// A mount the configuration file describes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// `url=`, not yet parsed.
    pub(super) url: String,
    /// Where the URL stands, for its errors.
    pub(super) url_origin: String,
    /// `dir=`, the mountpoint where the command line names none.
    pub(super) dir: Option<PathBuf>,
    /// Everything else, in the file's order.
    pub(super) options: Vec<Setting>,
}

/// Whether `name` can be the name of a mount.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && !name.starts_with('-') && name.chars().all(plain)
}

/// Reads the mount `name` from the user's configuration file.
///
/// # Errors
/// [`Exit::Usage`] with file and line for whatever is wrong with it.
pub(super) fn find(name: &str) -> Result<Named, Failure> {
    let path = dirs::config()?.join("config.toml");
    let shown = path.display();
    let missing = |known: &[String]| {
        let commands = crate::cli::commands();
        let meant = nearest(name, known, String::as_str)
            .or_else(|| nearest(name, &commands, String::as_str));
        let remedy = match meant {
            Some(meant) => format!("did you mean ferryfs {meant}?"),
            None if name.contains('.') => format!("did you mean ftp://{name}/?"),
            None => format!("write ftp://host/directory or add [mount.{name}]"),
        };
        let line = format!("{name}: not a URL, and no mount of that name in {shown}; {remedy}");
        Failure::new(Exit::Usage, line)
    };
    let text = match read(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(missing(&[])),
        Err(err) => {
            return Err(Failure::new(
                Exit::Usage,
                format!("{shown}: {}", words(&err)),
            ));
        }
    };
    let mut parsed = parse(&text)
        .map_err(|(line, cause)| Failure::new(Exit::Usage, format!("{shown}:{line}: {cause}")))?;
    match parsed.mounts.remove(name) {
        Some(named) => Ok(named.at(&path)),
        None => Err(missing(&parsed.mounts.into_keys().collect::<Vec<_>>())),
    }
}

/// Where the mount `dir` of the configuration file is, if there is one of that name and no file;
/// else `dir` itself.
pub(crate) fn dir_of(dir: &Path) -> PathBuf {
    let name = dir.to_str().filter(|name| is_name(name));
    let name = name.filter(|_| fs::symlink_metadata(dir).is_err());
    let named = name.and_then(|name| find(name).ok());
    named
        .and_then(|named| named.dir)
        .unwrap_or_else(|| dir.to_owned())
}

/// The mailboxes of the configuration file.
///
/// # Errors
/// As [`find`]; no file is none.
pub(crate) fn mailboxes() -> Result<Mailboxes, Failure> {
    let path = dirs::config()?.join("config.toml");
    let shown = path.display();
    let text = match read(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Mailboxes::default()),
        Err(err) => {
            return Err(Failure::new(
                Exit::Usage,
                format!("{shown}: {}", words(&err)),
            ));
        }
    };
    let parsed = parse(&text)
        .map_err(|(line, cause)| Failure::new(Exit::Usage, format!("{shown}:{line}: {cause}")))?;
    let is_mailbox = |named: &Named| {
        named.url.starts_with("pop3") && named.options.iter().any(|option| option.name == "smtp")
    };
    let named = parsed.mounts.iter().filter(|(_, named)| is_mailbox(named));
    Ok(Mailboxes {
        sending: named.map(|(name, _)| name.clone()).collect(),
        account: parsed.account,
    })
}

/// What the file says of mailboxes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mailboxes {
    /// Names of those that can send.
    pub(crate) sending: Vec<String>,
    /// `[mail] account=`: the one that programs use.
    pub(crate) account: Option<String>,
}

/// The whole file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    mounts: BTreeMap<String, Named>,
    account: Option<String>,
}

/// See `fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(text: &str) {
    if let Err((line, cause)) = parse(text) {
        assert!(line > 0 && !cause.contains('\n'), "{line}: {cause:?}");
    }
}

fn read(path: &Path) -> io::Result<String> {
    let about = fs::metadata(path)?;
    // password_command= runs what the file says.
    if about.mode() & 0o002 != 0 {
        return Err(io::Error::other("everyone may write to it; chmod o-w it"));
    }
    if about.len() > MAX_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

impl Named {
    /// Line numbers become `file:line`.
    fn at(mut self, path: &Path) -> Self {
        let place = |line: &str| format!("{}:{line}", path.display());
        self.url_origin = place(&self.url_origin);
        for setting in &mut self.options {
            setting.origin = place(&setting.origin);
        }
        self
    }
}

type Wrong = (usize, String);

/// Checks the whole file, so that a mistake shows early. The origins are line numbers.
fn parse(text: &str) -> Result<Parsed, Wrong> {
    let line = |span: Range<usize>| {
        let before = text.get(..span.start).unwrap_or(text);
        before.matches('\n').count() + 1
    };
    let root = DeTable::parse(text).map_err(|err| {
        let cause = err
            .message()
            .lines()
            .next()
            .unwrap_or("not TOML")
            .to_owned();
        (line(err.span().unwrap_or_default()), cause)
    })?;
    let mut found = Parsed::default();
    for (key, value) in root.get_ref() {
        let mounts = match value.get_ref() {
            DeValue::Table(mounts) if key.get_ref() == "mount" => mounts,
            DeValue::Table(keys) if key.get_ref() == "mail" => {
                found.account = account(keys, &line)?;
                continue;
            }
            _ => {
                let cause = format!("{}: unknown; mounts are [mount.NAME]", key.get_ref());
                return Err((line(key.span()), cause));
            }
        };
        for (key, value) in mounts {
            let at = line(key.span());
            let DeValue::Table(keys) = value.get_ref() else {
                return Err((at, format!("mount.{}: not a table", key.get_ref())));
            };
            if !is_name(key.get_ref()) || crate::cli::is_command(key.get_ref()) {
                let cause = format!("mount.{}: cannot be the name of a mount", key.get_ref());
                return Err((at, cause));
            }
            let named = mount(keys, at, &line)?;
            found.mounts.insert(key.get_ref().to_string(), named);
        }
    }
    Ok(found)
}

/// `[mail]`.
fn account(
    keys: &DeTable<'_>,
    line: &impl Fn(Range<usize>) -> usize,
) -> Result<Option<String>, Wrong> {
    let mut account = None;
    for (key, value) in keys {
        match (&**key.get_ref(), value.get_ref()) {
            ("account", DeValue::String(name)) => account = Some(name.to_string()),
            ("account", _) => {
                let cause = "account: wants a string in quotes".to_owned();
                return Err((line(key.span()), cause));
            }
            (other, _) => {
                let cause = format!("{other}: unknown; [mail] has account = \"NAME\"");
                return Err((line(key.span()), cause));
            }
        }
    }
    Ok(account)
}

fn mount(
    keys: &DeTable<'_>,
    at: usize,
    line: &impl Fn(Range<usize>) -> usize,
) -> Result<Named, Wrong> {
    let (mut url, mut dir, mut settings) = (None, None, Vec::new());
    // The table is sorted by name; the file's order decides which of two options wins.
    let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = keys.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let at = line(key.span());
        let name: &str = key.get_ref();
        let value = value.get_ref();
        match (name, value) {
            ("url", DeValue::String(text)) => url = Some((text.to_string(), at.to_string())),
            ("dir", DeValue::String(text)) => {
                dir = Some(super::value::path(text).map_err(|err| (at, err))?)
            }
            ("url" | "dir", _) => return Err((at, format!("{name}: wants a string in quotes"))),
            // A word without a value is switched on by `true`; `false` leaves it off.
            (_, DeValue::Boolean(on)) => {
                let setting = Setting::new(at, name, None);
                setting.check().map_err(|cause| (at, cause))?;
                settings.extend(on.then_some(setting));
            }
            (_, value) => {
                let text = match value {
                    DeValue::String(text) => text.to_string(),
                    DeValue::Integer(number) if number.radix() == 10 => number.to_string(),
                    _ => return Err((at, format!("{name}: wants a string in quotes"))),
                };
                let setting = Setting::new(at, name, Some(text));
                setting.check().map_err(|cause| (at, cause))?;
                settings.push(setting);
            }
        }
    }
    let (url, url_origin) = url.ok_or_else(|| (at, "the mount has no url".to_owned()))?;
    Ok(Named {
        url,
        url_origin,
        dir,
        options: settings,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Wrong {
        parse(text).unwrap_err()
    }

    #[test]
    fn a_mount_is_read_with_its_lines() {
        let text = "# mine\n[mount.work]\nurl = \"ftp://anna@host/\"\ndir = \"/mnt/work\"\n\
                    timeout = \"10s\"\nconnections = 4\nro = true\nactive = false\n";
        let mut parsed = parse(text).unwrap();
        let named = parsed.mounts.remove("work").unwrap();
        assert_eq!(
            (named.url.as_str(), named.url_origin.as_str()),
            ("ftp://anna@host/", "3")
        );
        assert_eq!(named.dir, Some(PathBuf::from("/mnt/work")));
        let options: Vec<_> = named
            .options
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_deref()))
            .collect();
        assert_eq!(
            options,
            [
                ("timeout", Some("10s")),
                ("connections", Some("4")),
                ("ro", None)
            ]
        );
        assert!(parsed.mounts.is_empty());
    }

    #[test]
    fn mistakes_have_their_line() {
        let (line, cause) = wrong("[mount.work]\nurl = \"ftp://h/\"\ntimeuot = 3\n");
        assert_eq!(line, 3);
        assert!(cause.contains("did you mean timeout"), "{cause}");
        assert_eq!(
            wrong("[mount.work]\nurl = \"ftp://h/\"\nconnections = \"x\"\n").0,
            3
        );
        assert_eq!(
            wrong("\n[mount.work]\nro = true\n"),
            (2, "the mount has no url".to_owned())
        );
        assert_eq!(wrong("\n\nurl = \"ftp://h/\"\n").0, 3);
        assert_eq!(wrong("[mount.work]\nurl = ftp\n").0, 2);
        assert_eq!(wrong("[mail]\nacount = \"x\"\n").0, 2);
        let parsed = parse("[mail]\naccount = \"work\"\n").unwrap();
        assert_eq!(parsed.account.as_deref(), Some("work"));
        assert_eq!(wrong("[mount.status]\nurl = \"ftp://h/\"\n").0, 1);
        assert_eq!(
            wrong("[mount.other]\nurl = \"ftp://h/\"\numask = 0o22\n").0,
            3
        );
    }

    #[test]
    fn a_password_in_the_file_is_refused_unquoted() {
        let (line, cause) = wrong("[mount.work]\nurl = \"ftp://h/\"\npassword = \"hunter2\"\n");
        assert_eq!(line, 3);
        assert!(
            cause.contains("password_file") && !cause.contains("hunter2"),
            "{cause}"
        );
    }
}
