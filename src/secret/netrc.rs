//! `~/.netrc`, as ftp(1) and curl(1) read it.

use super::Secret;

/// What an entry gives for a host and user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) password: Secret,
    /// For servers that ask for an account after the password.
    pub(super) account: Option<Secret>,
}

/// One `machine` or `default` entry.
#[derive(Default)]
struct Entry {
    /// `None` for `default`.
    machine: Option<String>,
    login: Option<String>,
    password: Option<String>,
    account: Option<String>,
}

/// The first entry of `text` for `user` on `host` that has a password. An entry without `login` is
/// for every user; `default` is for every host and ends the file.
pub(super) fn find(text: &str, host: &str, user: &str) -> Option<Login> {
    entries(text)
        .into_iter()
        .filter(|entry| {
            entry
                .machine
                .as_ref()
                .is_none_or(|machine| machine.eq_ignore_ascii_case(host))
        })
        .filter(|entry| entry.login.as_ref().is_none_or(|login| login == user))
        .find_map(|entry| {
            Some(Login {
                password: Secret::new(entry.password?),
                account: entry.account.map(Secret::new),
            })
        })
}

/// Every entry, in order. Words that mean nothing are passed over: other programs have their own.
fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut words = Words { rest: text };
    while let Some(word) = words.next() {
        // Only a bare word is a keyword: a password may be "machine".
        let Word::Bare(keyword) = word else { continue };
        match keyword.as_str() {
            "machine" => entries.push(Entry {
                machine: words.next().map(Word::text),
                ..Entry::default()
            }),
            "default" => entries.push(Entry::default()),
            "login" | "user" => put(&mut entries, words.next(), |entry| &mut entry.login),
            "password" | "passwd" => put(&mut entries, words.next(), |entry| &mut entry.password),
            "account" => put(&mut entries, words.next(), |entry| &mut entry.account),
            "macdef" => words.skip_macro(),
            comment if comment.starts_with('#') => words.skip_line(),
            _ => {}
        }
    }
    entries
}

fn put(
    entries: &mut [Entry],
    word: Option<Word>,
    field: impl Fn(&mut Entry) -> &mut Option<String>,
) {
    if let (Some(entry), Some(word)) = (entries.last_mut(), word) {
        *field(entry) = Some(word.text());
    }
}

enum Word {
    Bare(String),
    Quoted(String),
}

impl Word {
    fn text(self) -> String {
        match self {
            Self::Bare(text) | Self::Quoted(text) => text,
        }
    }
}

/// Words separated by blanks and line ends; a backslash takes the next character as it is, double
/// quotes keep blanks.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Option<Word> {
        self.rest = self.rest.trim_start();
        let quoted = self.rest.starts_with('"');
        let mut chars = self.rest.char_indices().skip(usize::from(quoted));
        let mut text = String::new();
        let mut end = self.rest.len();
        let mut any = quoted;
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                '"' if quoted => {
                    end = at + 1;
                    break;
                }
                c if c.is_whitespace() && !quoted => {
                    end = at;
                    break;
                }
                c => text.push(c),
            }
            any = true;
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        match (any, quoted) {
            (false, _) => None,
            (true, true) => Some(Word::Quoted(text)),
            (true, false) => Some(Word::Bare(text)),
        }
    }

    fn skip_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
    }

    /// A macro ends at an empty line, whatever is in it.
    fn skip_macro(&mut self) {
        loop {
            self.skip_line();
            let line = self.rest.lines().next();
            if line.is_none_or(|line| line.trim().is_empty()) {
                break;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn password(text: &str, host: &str, user: &str) -> Option<String> {
        find(text, host, user).map(|login| login.password.reveal().to_owned())
    }

    #[test]
    fn the_first_entry_for_host_and_user_counts() {
        let text = "machine a login anna password one\n\
                    machine a login bob password two account books\n\
                    machine A\n\tpassword any\n\
                    machine b login anna\n\
                    default login anna password last\n";
        assert_eq!(password(text, "a", "anna").as_deref(), Some("one"));
        assert_eq!(
            find(text, "A", "bob").unwrap().account,
            Some(Secret::new("books"))
        );
        assert_eq!(password(text, "a", "carl").as_deref(), Some("any"));
        assert_eq!(password(text, "b", "anna").as_deref(), Some("last"));
        assert_eq!(password(text, "c", "carl"), None);
    }

    #[test]
    fn quotes_backslashes_and_keywords_as_values() {
        let text = r#"machine h login "an na" password "a b\"c\\" machine i password login\ x
            machine j login machine password password machine k password "machine" login x"#;
        assert_eq!(password(text, "h", "an na").as_deref(), Some(r#"a b"c\"#));
        assert_eq!(password(text, "i", "x").as_deref(), Some("login x"));
        assert_eq!(password(text, "j", "machine").as_deref(), Some("password"));
        assert_eq!(password(text, "k", "x").as_deref(), Some("machine"));
    }

    #[test]
    fn comments_and_macros_hold_no_entries() {
        let text = "# machine h login u password comment\n\
                    machine g password p#1\n\
                    macdef init\nmachine h login u password macro\ncd /tmp\n\n\
                    machine h login u password right\n";
        assert_eq!(password(text, "h", "u").as_deref(), Some("right"));
        assert_eq!(password(text, "g", "u").as_deref(), Some("p#1"));
    }

    #[test]
    fn broken_files_give_nothing() {
        for text in [
            "",
            "machine",
            "password x",
            "machine h login",
            "machine h password",
            "macdef",
            "\"",
            "\\",
        ] {
            assert_eq!(find(text, "h", "u"), None, "{text}");
        }
        assert_eq!(
            password("machine h password \"open", "h", "u").as_deref(),
            Some("open")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_panics_or_hangs(text in "(machine|default|login|password|macdef|[ \\n\\t\"\\\\#h]|\\PC){0,40}") {
            let _ = find(&text, "h", "h");
        }

        #[test]
        fn a_quoted_password_comes_back(secret in "[ -~]{1,20}") {
            let quoted = secret.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("machine h login u password \"{quoted}\"\n");
            prop_assert_eq!(password(&text, "h", "u"), Some(secret));
        }
    }
}
