//! The one table of `-o` options: parsing, `--help`, the configuration file and the test that
//! compares the manual all come from it.

use super::foreign;
use super::settings::{Settings, Tls, Writeback};
use super::value;
use crate::ftp::options::{
    ChmodPolicy, Compress, Conflict, LinkPolicy, ListingMode, Protection, UploadMode, Verify,
};

/// One option that `-o` and the configuration file take.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// The value's syntax as the manual writes it; `None` for a word without a value.
    pub value: Option<&'static str>,
    /// Whether the value may be left out.
    pub bare: bool,
    /// One line for `--help`; `None` where `--help` only lists the name.
    pub help: Option<&'static str>,
    /// Checks the value and puts it where it belongs; the error is `cause; remedy`.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl OptionSpec {
    /// `name`, `name=SYNTAX` or `name[=SYNTAX]`.
    #[must_use]
    pub fn syntax(&self) -> String {
        match self.value {
            Some(value) if self.bare => format!("{}[={value}]", self.name),
            Some(value) => format!("{}={value}", self.name),
            None => self.name.to_owned(),
        }
    }
}

type Set = fn(&mut Settings, &str) -> Result<(), String>;

const fn with(name: &'static str, value: &'static str, set: Set) -> OptionSpec {
    OptionSpec {
        name,
        value: Some(value),
        bare: false,
        help: None,
        set,
    }
}

const fn word(name: &'static str, set: Set) -> OptionSpec {
    OptionSpec {
        name,
        value: None,
        bare: false,
        help: None,
        set,
    }
}

impl OptionSpec {
    const fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    const fn help(mut self, line: &'static str) -> Self {
        self.help = Some(line);
        self
    }
}

/// Puts a checked value into its place.
macro_rules! put {
    ($field:ident, $value:expr) => {
        |settings: &mut Settings, _: &str| {
            settings.$field = $value;
            Ok(())
        }
    };
    ($field:ident <- $check:expr) => {
        |settings: &mut Settings, text: &str| {
            settings.$field = Some($check(text)?);
            Ok(())
        }
    };
}

/// Every option, in the order the manual has them.
pub const OPTIONS: &[OptionSpec] = &[
    with("user", "NAME", put!(user <- value::user)).help("log in as NAME"),
    with(
        "password_command",
        "COMMAND",
        put!(password_command <- value::text),
    )
    .help("take the password from what COMMAND prints"),
    with("password_file", "FILE", put!(password_file <- value::path))
        .help("take the password from FILE (mode 0600)"),
    word("password_stdin", put!(password_stdin, true))
        .help("take the password from standard input"),
    with(
        "anonymous_password",
        "TEXT",
        put!(anonymous_password <- value::text),
    ),
    with("account_file", "FILE", put!(account_file <- value::path)),
    with(
        "tls",
        "auto|require|off",
        put!(tls <- |text| value::choice(text, &[
            ("auto", Tls::Auto),
            ("require", Tls::Require),
            ("off", Tls::Off),
        ])),
    )
    .help("TLS if the server has it, or else fail, or never"),
    with("cafile", "FILE", |settings, text| {
        settings.trust.ca_file = Some(value::path(text)?);
        Ok(())
    })
    .help("trust the certificates in FILE too"),
    with("fingerprint", "SHA256:DIGITS", |settings, text| {
        settings.trust.fingerprints.push(text.parse()?);
        Ok(())
    }),
    with("tls_trust", "system|first-use", |settings, text| {
        settings.first_use = value::choice(text, &[("system", false), ("first-use", true)])?;
        Ok(())
    }),
    with("tls_min", "1.2|1.3", |settings, text| {
        settings.trust.min = value::choice(text, value::TLS_VERSIONS)?;
        Ok(())
    }),
    with("tls_max", "1.2|1.3", |settings, text| {
        settings.trust.max = Some(value::choice(text, value::TLS_VERSIONS)?);
        Ok(())
    }),
    with("cert", "FILE", put!(cert <- value::path)),
    with("key", "FILE", put!(key <- value::path)),
    with(
        "prot",
        "P|C",
        put!(protection <- |text| value::choice(text, &[
            ("P", Protection::Private),
            ("C", Protection::Clear),
        ])),
    ),
    word("ccc", put!(clear_control, true)),
    with("proxy", "URL", put!(proxy <- value::proxy)),
    with(
        "proxy_password_file",
        "FILE",
        put!(proxy_password_file <- value::path),
    ),
    with(
        "proxy_password_command",
        "COMMAND",
        put!(proxy_password_command <- value::text),
    ),
    with("timeout", "DURATION", put!(timeout <- value::timeout))
        .help("longest wait for the server (30s)"),
    word("hard", put!(hard, true)).help("wait for a server that is away, however long"),
    word("soft", put!(hard, false)),
    word("ro", put!(read_only, true)),
    word("rw", put!(read_only, false)),
    with("uid", "NUMBER", put!(uid <- value::id)).help("owner of all files"),
    with("gid", "NUMBER", put!(gid <- value::id)),
    with("umask", "OCTAL", put!(umask <- value::umask)),
    word("allow_other", put!(allow_other, true)).help("let other users in"),
    word("allow_root", put!(allow_root, true)),
    word("default_permissions", put!(default_permissions, true))
        .help("let the kernel check permissions"),
    word("nonempty", put!(nonempty, true)),
    with("fsname", "TEXT", put!(fsname <- value::text)),
    with("charset", "LABEL", put!(charset <- value::charset))
        .help("names on the server are in this charset"),
    with("dir_cache", "DURATION", put!(dir_cache <- value::duration)),
    with(
        "prefetch",
        "on|off",
        put!(prefetch <- |text| value::choice(text, &[("on", true), ("off", false)])),
    ),
    with(
        "passthrough",
        "auto|on|off",
        put!(passthrough <- |text| value::choice(text, &[
            ("auto", true),
            ("on", true),
            ("off", false),
        ])),
    ),
    with("direct_io", "auto|on|off", |settings, text| {
        let choices = [("auto", None), ("on", Some(true)), ("off", Some(false))];
        settings.direct_io = value::choice(text, &choices)?;
        Ok(())
    }),
    with(
        "writeback",
        "sync",
        put!(writeback <- |text| match text {
            "" => Ok(Writeback::Local),
            text => value::choice(text, &[("sync", Writeback::Sync)]),
        }),
    )
    .bare()
    .help("close does not wait for the server"),
    with(
        "writeback_limit",
        "SIZE",
        put!(writeback_limit <- value::size),
    ),
    with("cache_dir", "DIR", put!(cache_dir <- value::path)),
    with("cache_size", "SIZE", put!(cache_size <- value::size))
        .help("most that is kept of files read, 0: nothing (4G)"),
    with(
        "cache_max_age",
        "DURATION",
        put!(cache_max_age <- value::age),
    ),
    with("state_dir", "DIR", put!(state_dir <- value::path)),
    with(
        "connections",
        "NUMBER",
        put!(connections <- value::connections),
    )
    .help("most connections at once (8, 32 for a moment)"),
    word("active", put!(active, true)),
    with(
        "active_ports",
        "LOW-HIGH",
        put!(active_ports <- value::ports),
    ),
    with(
        "active_address",
        "ADDRESS",
        put!(active_address <- value::address),
    ),
    word("ipv4", put!(family, Some(crate::ftp::options::Family::V4))),
    word("ipv6", put!(family, Some(crate::ftp::options::Family::V6))),
    with("bind", "ADDRESS", put!(bind <- value::address)),
    word("trust_pasv_address", put!(trust_pasv_address, true)),
    with(
        "listing",
        "auto|mlsd|list-a|list|nlst",
        put!(listing <- |text| value::choice(text, &[
            ("auto", ListingMode::Auto),
            ("mlsd", ListingMode::Mlsd),
            ("list-a", ListingMode::ListAll),
            ("list", ListingMode::List),
            ("nlst", ListingMode::Nlst),
        ])),
    ),
    with(
        "time_offset",
        "OFFSET",
        put!(time_offset <- value::time_offset),
    ),
    word("exact_times", put!(exact_times, true)),
    with(
        "chmod",
        "strict|ignore",
        put!(chmod <- |text| value::choice(text, &[
            ("strict", ChmodPolicy::Strict),
            ("ignore", ChmodPolicy::Ignore),
        ])),
    ),
    word(
        "transform_symlinks",
        put!(links, Some(LinkPolicy::Transform)),
    ),
    word("follow_symlinks", put!(links, Some(LinkPolicy::Follow))),
    word("no_contain_symlinks", put!(links, Some(LinkPolicy::Raw))),
    with(
        "upload",
        "auto|rename|direct",
        put!(upload <- |text| value::choice(text, &[
            ("auto", UploadMode::Auto),
            ("rename", UploadMode::Rename),
            ("direct", UploadMode::Direct),
        ])),
    ),
    with(
        "conflict",
        "fail|keep|overwrite",
        put!(conflict <- |text| value::choice(text, &[
            ("fail", Conflict::Fail),
            ("keep", Conflict::Keep),
            ("overwrite", Conflict::Overwrite),
        ])),
    ),
    with(
        "bwlimit",
        "RATE|SCHEDULE",
        put!(bwlimit <- value::bandwidth),
    ),
    with(
        "verify",
        "off|auto|require",
        put!(verify <- |text| value::choice(text, &[
            ("off", Verify::Off),
            ("auto", Verify::Auto),
            ("require", Verify::Require),
        ])),
    ),
    with(
        "compress",
        "auto|on|off",
        put!(compress <- |text| value::choice(text, &[
            ("auto", Compress::Auto),
            ("on", Compress::On),
            ("off", Compress::Off),
        ])),
    ),
    with("smtp", "URL|mx", put!(smtp <- value::submission)).help("mail: send through this server"),
    with("dns", "ADDRESS", put!(dns <- value::name_server)),
    with("from", "ADDRESS", put!(from <- value::mailbox)),
    with("linger", "DURATION", put!(linger <- value::duration)),
    with("poll", "DURATION", put!(poll <- value::duration)),
    with(
        "server_delete",
        "never|on-unlink|after-fetch|DAYS",
        put!(server_delete <- value::server_delete),
    ),
    with("smtp_user", "NAME", put!(smtp_user <- value::user)),
    with(
        "smtp_password_file",
        "FILE",
        put!(smtp_password_file <- value::path),
    ),
    with(
        "smtp_password_command",
        "COMMAND",
        put!(smtp_password_command <- value::text),
    ),
    with(
        "token_command",
        "COMMAND",
        put!(token_command <- value::text),
    ),
    with("metrics", "FILE", put!(metrics <- value::path)),
    word("noexec", put!(exec, Some(false))),
    word("exec", put!(exec, Some(true))),
    word("nosuid", put!(suid, Some(false))),
    word("suid", put!(suid, Some(true))),
    word("nodev", put!(dev, Some(false))),
    word("dev", put!(dev, Some(true))),
    word("noatime", put!(atime, Some(false))),
    word("atime", put!(atime, Some(true))),
];

/// Words of fstab that are meant for mount(8), systemd and other programs, not for us.
pub(crate) fn is_for_others(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "defaults",
        "user",
        "users",
        "nouser",
        "owner",
        "group",
        "auto",
        "noauto",
        "_netdev",
        "nofail",
        "async",
        "relatime",
        "norelatime",
        "comment",
    ];
    WORDS.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// Words that would put a secret where everyone can read it.
pub(crate) fn is_secret(name: &str) -> bool {
    matches!(name, "password" | "passwd" | "pass" | "account" | "acct")
}

/// What `name` asks for, applied to `settings`.
///
/// # Errors
/// One line that begins with the option's name. It quotes the value only where the check did.
pub(super) fn apply(
    settings: &mut Settings,
    name: &str,
    value: Option<&str>,
) -> Result<(), String> {
    // fstab's bare `user` is mount(8)'s; `user=NAME` is ours.
    if is_for_others(name) && (name != "user" || value.is_none()) {
        return Ok(());
    }
    if is_secret(name) {
        return Err(format!(
            "{name}: a secret is refused here, everyone on this machine could see it; use \
             password_file=, password_command= or account_file="
        ));
    }
    let Some(spec) = OPTIONS.iter().find(|spec| spec.name == name) else {
        return Err(unknown(name));
    };
    match (spec.value, value) {
        (Some(syntax), None) if !spec.bare => {
            Err(format!("{name}: wants a value; write {name}={syntax}"))
        }
        (None, Some(_)) => Err(format!("{name}: takes no value; write {name} alone")),
        (Some(_), Some("")) => Err(format!(
            "{name}: the value is empty; write {}",
            spec.syntax()
        )),
        (_, value) => (spec.set)(settings, value.unwrap_or_default())
            .map_err(|cause| format!("{name}: {cause}")),
    }
}

fn unknown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
        return "an option is not a name; a comma inside a value is written \\,".to_owned();
    }
    if let Some(instead) = foreign::instead(name) {
        return format!("{name}: no such option; {instead}");
    }
    match nearest(name, OPTIONS, |spec| spec.name) {
        Some(spec) => format!("{name}: no such option; did you mean {}?", spec.syntax()),
        None => format!("{name}: no such option; see man ferryfs"),
    }
}

/// The one of `all` that `typed` may have been meant for.
pub(super) fn nearest<'a, T>(
    typed: &str,
    all: &'a [T],
    name: impl Fn(&T) -> &str,
) -> Option<&'a T> {
    // Half of a short word may be wrong, such as two letters that changed places in three.
    let most = (typed.len() / 2 + 1)
        .min(2 + typed.len() / 8)
        .min(typed.len().saturating_sub(1));
    all.iter()
        .map(|one| (distance(typed, name(one)), one))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= most)
        .map(|(_, one)| one)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Splits what follows `-o`: names and values at commas, where `\,` and `\\` stand for themselves.
pub(crate) fn split_list(list: &str) -> Vec<(String, Option<String>)> {
    let mut words = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = match (c, chars.peek()) {
            (',', _) => {
                words.push(String::new());
                continue;
            }
            ('\\', Some(',' | '\\')) => chars.next(),
            _ => Some(c),
        };
        if let Some(word) = words.last_mut() {
            word.extend(literal);
        }
    }
    words
        .into_iter()
        .filter(|word| !word.is_empty())
        .map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn error(name: &str, value: Option<&str>) -> String {
        apply(&mut Settings::default(), name, value).unwrap_err()
    }

    #[test]
    fn names_are_unique_and_plain() {
        for (at, spec) in OPTIONS.iter().enumerate() {
            assert!(!is_secret(spec.name));
            assert!(
                OPTIONS
                    .iter()
                    .skip(at + 1)
                    .all(|other| other.name != spec.name)
            );
        }
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        assert_eq!(
            error("passwordfile", None),
            "passwordfile: no such option; did you mean password_file=FILE?"
        );
        assert!(error("tsl", Some("x")).contains("did you mean tls="));
        assert!(error("notwithstanding", None).contains("see man"));
        assert!(error("blah", None).contains("see man"));
        assert!(error("reconnect", None).contains("leave it out"));
        assert!(error("ftp://a:hunter2@b", None).contains("not a name"));
        assert!(!error("password", Some("hunter2")).contains("hunter2"));
    }

    #[test]
    fn a_value_is_wanted_where_it_belongs() {
        assert!(error("tls", None).contains("tls=auto|require|off"));
        assert!(error("ro", Some("1")).contains("no value"));
        assert!(error("cafile", Some("")).contains("empty"));
        assert!(error("tls", Some("maybe")).contains("require"));
    }

    #[test]
    fn a_value_that_may_be_left_out_may_be_given() {
        let mut settings = Settings::default();
        apply(&mut settings, "writeback", None).unwrap();
        assert_eq!(settings.writeback, Some(Writeback::Local));
        apply(&mut settings, "writeback", Some("sync")).unwrap();
        assert_eq!(settings.writeback, Some(Writeback::Sync));
        assert!(error("writeback", Some("asnyc")).contains("not one of sync"));
        assert!(error("writeback", Some("")).contains("writeback[=sync]"));
        assert!(error("writeback_limit", Some("some")).contains("size"));
    }

    #[test]
    fn words_of_fstab_are_left_to_others_and_user_is_ours_with_a_value() {
        let mut settings = Settings::default();
        for name in ["user", "_netdev", "nofail", "x-systemd.automount", "noauto"] {
            apply(&mut settings, name, None).unwrap();
        }
        apply(&mut settings, "comment", Some("by hand")).unwrap();
        assert_eq!(settings.user, None);
        apply(&mut settings, "user", Some("anna")).unwrap();
        assert_eq!(settings.user.as_deref(), Some("anna"));
    }

    #[test]
    fn commas_in_values_are_escaped() {
        assert_eq!(
            split_list(r"ro,,password_command=cut -d\, -f1 \\x \n,a=b=c"),
            [
                ("ro".to_owned(), None),
                (
                    "password_command".to_owned(),
                    Some(r"cut -d, -f1 \x \n".to_owned())
                ),
                ("a".to_owned(), Some("b=c".to_owned())),
            ]
        );
    }

    #[test]
    fn distance_is_levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
