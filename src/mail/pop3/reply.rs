//! Status lines (RFC 1939 section 3) and their response codes (RFC 2449 section 8, RFC 3206).

use std::time::Duration;

use crate::mail::failure::{Class, Failure, words};

/// How long a locked maildrop is left alone at least: another session has it, and Dovecot lets each
/// attempt wait for seconds.
const IN_USE: Duration = Duration::from_secs(30);

/// How long a server that names no period wants between logins (Gmail's is 300 s).
const LOGIN_DELAY: Duration = Duration::from_secs(300);

/// `[CODE]` at the beginning of a reply's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// `IN-USE`: another session has the maildrop.
    InUse,
    /// `LOGIN-DELAY`: logged in too often.
    LoginDelay,
    /// `SYS/TEMP`: the server is ill and expects to get better.
    SystemTemporary,
    /// `SYS/PERM`: the server needs a person.
    SystemPermanent,
    /// `AUTH`: user or password are wrong.
    Auth,
    /// One we do not know.
    Other,
}

/// What the command was, where the answer's meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before and during login: a refusal concerns the account.
    Login,
    /// After login: a refusal concerns one message or one command.
    Transaction,
}

/// A status line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// `+OK`, and not `-ERR`.
    pub ok: bool,
    /// The response code, if any.
    pub code: Option<Code>,
    /// What follows, response code included, as the server sent it.
    pub text: Vec<u8>,
}

impl Reply {
    /// Parses a line without its end; `None` if it is neither `+OK` nor `-ERR`. mpopd sends these
    /// bare, some servers in lower case.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let end = line
            .iter()
            .position(|b| matches!(b, b' ' | b'\t'))
            .unwrap_or(line.len());
        let (status, rest) = line.split_at(end);
        let ok = match status.to_ascii_uppercase().as_slice() {
            b"+OK" => true,
            b"-ERR" => false,
            _ => return None,
        };
        let text = rest.trim_ascii();
        Some(Self {
            ok,
            code: code(text),
            text: text.to_vec(),
        })
    }

    /// The refusal of `command` as a failure.
    #[must_use]
    pub fn failure(&self, command: &str, stage: Stage) -> Failure {
        let text = words(&self.text);
        let detail = if text.is_empty() {
            format!("{command}: refused without a reason")
        } else {
            format!("{command}: {text}")
        };
        let class = match self.code {
            Some(Code::InUse) => {
                return Failure::new(Class::Transient, detail).after(IN_USE);
            }
            Some(Code::LoginDelay) => {
                return Failure::new(Class::Transient, detail).after(LOGIN_DELAY);
            }
            Some(Code::SystemTemporary) => Class::Transient,
            Some(Code::SystemPermanent) => Class::Permanent,
            Some(Code::Auth) => Class::Account,
            Some(Code::Other) | None => match stage {
                Stage::Transaction => Class::Permanent,
                Stage::Login if sounds_busy(&self.text) => {
                    return Failure::new(Class::Transient, detail).after(IN_USE);
                }
                Stage::Login => Class::Account,
            },
        };
        Failure::new(class, detail)
    }
}

fn code(text: &[u8]) -> Option<Code> {
    let inside = text.strip_prefix(b"[")?;
    let end = inside.iter().position(|b| *b == b']')?;
    let code = inside.get(..end)?.trim_ascii().to_ascii_uppercase();
    Some(match code.as_slice() {
        b"IN-USE" => Code::InUse,
        b"LOGIN-DELAY" => Code::LoginDelay,
        b"SYS/TEMP" => Code::SystemTemporary,
        b"SYS/PERM" => Code::SystemPermanent,
        b"AUTH" => Code::Auth,
        _ => Code::Other,
    })
}

/// Servers older than RFC 2449 say in prose that another session has the maildrop, and a wrong
/// password is not worth reporting for that.
fn sounds_busy(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "lock",
        "busy",
        "in use",
        "temporar",
        "try again",
        "too many",
    ]
    .iter()
    .any(|word| memchr::memmem::find(&text, word.as_bytes()).is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(line: &str, stage: Stage) -> Failure {
        let reply = Reply::parse(line.as_bytes()).unwrap();
        assert!(!reply.ok);
        reply.failure("X", stage)
    }

    #[test]
    fn status_lines_of_all_sorts() {
        assert!(Reply::parse(b"+OK").unwrap().ok);
        assert!(Reply::parse(b"+ok ready").unwrap().ok);
        assert_eq!(Reply::parse(b"+OK  2 320").unwrap().text, b"2 320");
        assert!(!Reply::parse(b"-ERR").unwrap().ok);
        for bad in [&b""[..], b"+", b"+OKAY", b"OK", b"220 smtp", b"\xff\xfe"] {
            assert_eq!(Reply::parse(bad), None);
        }
    }

    #[test]
    fn codes_decide_the_class() {
        let class = |line| refused(line, Stage::Login).class();
        assert_eq!(class("-ERR [AUTH] Authentication failed."), Class::Account);
        assert_eq!(class("-ERR [SYS/TEMP] Internal error"), Class::Transient);
        assert_eq!(class("-ERR [sys/perm] POP disabled"), Class::Permanent);
        let locked = refused("-ERR [IN-USE] Mailbox is locked", Stage::Login);
        assert_eq!(
            (locked.class(), locked.wait()),
            (Class::Transient, Some(IN_USE))
        );
        let early = refused("-ERR [LOGIN-DELAY] wait", Stage::Login);
        assert_eq!(early.wait(), Some(LOGIN_DELAY));
    }

    #[test]
    fn without_a_code_the_stage_decides() {
        let qpopper = "-ERR maildrop lock busy!  Is another session active?";
        assert_eq!(refused(qpopper, Stage::Login).class(), Class::Transient);
        assert_eq!(
            refused("-ERR bad login", Stage::Login).class(),
            Class::Account
        );
        assert_eq!(
            refused("-ERR Message 1 expunged.", Stage::Transaction).class(),
            Class::Permanent
        );
        assert_eq!(
            refused("-ERR", Stage::Login).detail(),
            "X: refused without a reason"
        );
    }
}
