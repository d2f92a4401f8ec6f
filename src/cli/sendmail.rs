//! The words of sendmail(8), as programs have used them for forty years: read with the rules of
//! getopt(3), for clap does not know `-oi`, `-odi` and `-FCronDaemon`.

use std::ffi::OsString;

use crate::exit::{Exit, Failure};
use crate::mail::envelope::{BringBack, Notify};

/// Options that have a value, in the same word or in the next one. All but a few are for servers, and
/// accepted.
const VALUED: &str = "ABCFLNORVXfhopr";

/// Options that may have a value in the same word.
const JOINED: &str = "bdeq";

/// Options without.
const BARE: &str = "GIUcimnstvx";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Queue the message on standard input.
    Send,
    /// Print the queue (`-bp`, `mailq`).
    Print,
    /// Try all that is queued now (`-q`).
    Flush,
    /// Print who is behind the names (`-bv`).
    Verify,
    /// Nothing (`-bi`, `newaliases`): the alias file is read when it is needed.
    Nothing,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SendmailWords {
    pub(crate) task: Task,
    /// `--account NAME|DIR`.
    pub(crate) account: Option<String>,
    /// `-t`.
    pub(crate) header_too: bool,
    /// Not `-i`: a line with a dot alone ends the message.
    pub(crate) dot_ends: bool,
    /// `-f`.
    pub(crate) sender: Option<String>,
    /// `-F`.
    pub(crate) name: Option<String>,
    /// `-N`.
    pub(crate) notify: Option<Notify>,
    /// `-R`.
    pub(crate) bring_back: Option<BringBack>,
    /// `-V`.
    pub(crate) envelope_id: Option<String>,
    /// `-v`: wait for the server and print what was said.
    pub(crate) verbose: bool,
    pub(crate) to: Vec<String>,
}

/// Parses the words behind the name of the program, which is `called`.
///
/// # Errors
/// [`Exit::MailUsage`].
pub(crate) fn parse(called: &str, words: Vec<OsString>) -> Result<SendmailWords, Failure> {
    let mut typed = SendmailWords {
        task: match called {
            "mailq" => Task::Print,
            "newaliases" => Task::Nothing,
            _ => Task::Send,
        },
        account: None,
        header_too: false,
        dot_ends: true,
        sender: None,
        name: None,
        notify: None,
        bring_back: None,
        envelope_id: None,
        verbose: false,
        to: Vec::new(),
    };
    let text = |word: OsString| {
        word.into_string()
            .map_err(|word| usage(format!("{}: not UTF-8", word.to_string_lossy())))
    };
    let mut words = words.into_iter().map(text);
    while let Some(word) = words.next().transpose()? {
        if word == "--" {
            typed
                .to
                .extend(words.by_ref().collect::<Result<Vec<_>, _>>()?);
        } else if let Some(long) = word.strip_prefix("--") {
            match long.split_once('=') {
                Some(("account", name)) => typed.account = Some(name.to_owned()),
                None if long == "account" => typed.account = Some(next(&mut words, "--account")?),
                None if long == "help" => return Err(usage("see man ferryfs-mail")),
                _ => return Err(usage(format!("{word}: not expected here"))),
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            typed.letters(letters, &mut words)?;
        } else {
            typed.to.push(word);
        }
    }
    if typed.task == Task::Send && typed.to.is_empty() && !typed.header_too {
        return Err(usage(
            "to whom? name recipients, or -t for those of the header",
        ));
    }
    Ok(typed)
}

fn usage(line: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::MailUsage, format!("sendmail: {line}"))
}

fn next(
    words: &mut impl Iterator<Item = Result<String, Failure>>,
    option: &str,
) -> Result<String, Failure> {
    let word = words.next().transpose()?;
    word.ok_or_else(|| usage(format!("{option}: a value is missing")))
}

impl SendmailWords {
    fn letters(
        &mut self,
        letters: &str,
        words: &mut impl Iterator<Item = Result<String, Failure>>,
    ) -> Result<(), Failure> {
        for (at, letter) in letters.char_indices() {
            let rest = letters.get(at + letter.len_utf8()..).unwrap_or_default();
            if BARE.contains(letter) {
                match letter {
                    'i' => self.dot_ends = false,
                    't' => self.header_too = true,
                    'v' => self.verbose = true,
                    _ => {}
                }
                continue;
            }
            if JOINED.contains(letter) {
                return self.joined(letter, rest);
            }
            if !VALUED.contains(letter) {
                return Err(usage(format!("-{letter}: not expected here")));
            }
            // `-Ac`, `-o7`: never in two words, though Postfix would take it.
            let value = if rest.is_empty() {
                next(words, &format!("-{letter}"))?
            } else {
                rest.to_owned()
            };
            return self.valued(letter, value);
        }
        Ok(())
    }

    fn joined(&mut self, letter: char, rest: &str) -> Result<(), Failure> {
        match (letter, rest) {
            ('b', "m") | ('d' | 'e', _) => {}
            ('b', "p") => self.task = Task::Print,
            ('b', "v") => self.task = Task::Verify,
            ('b', "i") => self.task = Task::Nothing,
            ('b', mode) => {
                let line = format!("-b{mode}: ferryfs is no server; it can -bm, -bp, -bv and -bi");
                return Err(usage(line));
            }
            // `-q15m` starts a daemon that tries so often; the mount does that by itself.
            ('q', _) => self.task = Task::Flush,
            _ => {}
        }
        Ok(())
    }

    fn valued(&mut self, letter: char, value: String) -> Result<(), Failure> {
        match letter {
            'f' | 'r' => self.sender = Some(value),
            'F' => self.name = Some(value),
            'o' if value == "i" => self.dot_ends = false,
            'N' => self.notify = Some(notify(&value)?),
            'R' => {
                self.bring_back = Some(match value.to_ascii_lowercase().as_str() {
                    "full" => BringBack::Full,
                    "hdrs" => BringBack::Headers,
                    _ => return Err(usage(format!("-R {value}: full or hdrs"))),
                });
            }
            'V' if (1..=100).contains(&value.len())
                && value.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                self.envelope_id = Some(value);
            }
            'V' => return Err(usage("-V: wants up to 100 printable characters")),
            _ => {}
        }
        Ok(())
    }
}

fn notify(value: &str) -> Result<Notify, Failure> {
    let mut notify = Notify::default();
    let words: Vec<String> = value
        .split(',')
        .map(|w| w.trim().to_ascii_lowercase())
        .collect();
    for word in &words {
        match word.as_str() {
            "success" => notify.success = true,
            "failure" => notify.failure = true,
            "delay" => notify.delay = true,
            "never" if words.len() == 1 => {}
            _ => {
                return Err(usage(format!(
                    "-N {value}: never, or success,failure,delay"
                )));
            }
        }
    }
    Ok(notify)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<SendmailWords, Failure> {
        parse("sendmail", line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn what_programs_write() {
        // Debian's cron, mutt, git send-email, mailx, PHP.
        let cron = typed("-i -FCronDaemon -B8BITMIME -oem anna").unwrap();
        assert_eq!(
            (cron.name.as_deref(), cron.dot_ends),
            (Some("CronDaemon"), false)
        );
        assert_eq!(cron.to, ["anna"]);
        let mutt = typed("-oem -oi -f a@x.org -- b@x.org c@x.org").unwrap();
        assert_eq!(
            (mutt.sender.as_deref(), mutt.to.len()),
            (Some("a@x.org"), 2)
        );
        let git = typed("-i b@x.org -fa@x.org").unwrap();
        assert_eq!((git.sender.as_deref(), git.to.len()), (Some("a@x.org"), 1));
        let php = typed("-t -i").unwrap();
        assert!(php.header_too && !php.dot_ends && php.to.is_empty());
        let many = typed("-odi -bm -vti -Ac -N success,delay -R hdrs -V x1 b@x.org").unwrap();
        assert!(many.verbose && many.header_too && many.notify.unwrap().success);
        assert_eq!(many.bring_back, Some(BringBack::Headers));
        assert_eq!(many.envelope_id.as_deref(), Some("x1"));
        assert_eq!(typed("-q").unwrap().task, Task::Flush);
        assert_eq!(typed("-q30m").unwrap().task, Task::Flush);
        assert_eq!(typed("-bp").unwrap().task, Task::Print);
        assert_eq!(parse("mailq", Vec::new()).unwrap().task, Task::Print);
        assert_eq!(
            typed("--account=work b").unwrap().account.as_deref(),
            Some("work")
        );
    }

    #[test]
    fn what_makes_no_sense_is_a_mistake_of_usage() {
        for bad in [
            "-i",
            "-f",
            "-bd",
            "-bs",
            "-R some b",
            "-N never,delay b",
            "-Z b",
            "--x b",
        ] {
            assert_eq!(typed(bad).unwrap_err().code(), Exit::MailUsage, "{bad}");
        }
    }
}
