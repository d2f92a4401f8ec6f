//! SASL (RFC 4422) as a conversation without a wire: challenge in, response out, both in the
//! base64 in which POP3 (RFC 5034) and SMTP (RFC 4954) carry them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::secret::Secret;

mod scram;

use scram::Scram;

/// How a client shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// User and password in one response (RFC 4616).
    Plain,
    /// User and password, each asked for; never standardised, offered everywhere.
    Login,
    /// Salted challenge and response; the server proves itself too (RFC 7677).
    ScramSha256,
    /// OAuth 2 token as Google and Microsoft first took it.
    Xoauth2,
    /// OAuth 2 token (RFC 7628).
    OauthBearer,
}

impl Mechanism {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Xoauth2 => "XOAUTH2",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of a name, upper or lower case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::Plain,
            Self::Login,
            Self::ScramSha256,
            Self::Xoauth2,
            Self::OauthBearer,
        ]
        .into_iter()
        .find(|m| m.name().eq_ignore_ascii_case(name))
    }

    /// Whether the secret it sends is an OAuth token and not a password.
    #[must_use]
    pub const fn takes_token(self) -> bool {
        matches!(self, Self::Xoauth2 | Self::OauthBearer)
    }
}

/// Who logs in, and where.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// User name.
    pub user: &'a str,
    /// Password or token.
    pub secret: &'a Secret,
    /// The server, as the user named it (OAUTHBEARER sends it).
    pub host: &'a str,
    /// See `host`.
    pub port: u16,
}

/// Why an exchange cannot go on. The command is to be cancelled with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslError {
    /// The challenge makes no sense; says why.
    Challenge(&'static str),
    /// The server could not prove that it knows the password.
    Impostor,
    /// The server's own reason, sent as a challenge (SCRAM `e=`).
    Refused(String),
    /// User or password cannot be sent with this mechanism.
    Unfit(&'static str),
}

impl fmt::Display for SaslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Challenge(why) => write!(f, "a challenge that makes no sense: {why}"),
            Self::Impostor => f.write_str("the server does not know this password itself"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unfit(why) => f.write_str(why),
        }
    }
}

/// One authentication under way.
#[derive(Debug)]
pub struct Exchange {
    state: State,
}

#[derive(Debug)]
enum State {
    /// All in one response, not asked for yet.
    Single(Secret),
    /// LOGIN: what comes next, and after that.
    Login(Secret, Secret),
    LoginPassword(Secret),
    Scram(Box<Scram>),
    /// A token was sent: a challenge now is the reason of a refusal, to be answered with nothing
    /// (RFC 7628 section 3.2.3 wants `^A` there) before the refusal itself comes.
    Token(Mechanism, Secret),
    TokenSent(Mechanism),
    Done,
}

impl Exchange {
    /// Begins with `mechanism`.
    ///
    /// # Errors
    /// [`SaslError::Unfit`] for a NUL, or a `^A` in a user of OAuth.
    pub fn new(mechanism: Mechanism, who: &Identity<'_>) -> Result<Self, SaslError> {
        let (user, secret) = (who.user, who.secret.reveal());
        if user.contains('\0') || secret.contains('\0') {
            return Err(SaslError::Unfit("user or password has a NUL in it"));
        }
        let token = |text: String| {
            if user.contains('\x01') || secret.contains('\x01') {
                return Err(SaslError::Unfit("user or token has a control character"));
            }
            Ok(State::Token(mechanism, Secret::new(text)))
        };
        let state = match mechanism {
            Mechanism::Plain => State::Single(Secret::new(format!("\0{user}\0{secret}"))),
            Mechanism::Login => State::Login(Secret::new(user), Secret::new(secret)),
            Mechanism::ScramSha256 => State::Scram(Box::new(Scram::new(user, secret)?)),
            Mechanism::Xoauth2 => token(format!("user={user}\x01auth=Bearer {secret}\x01\x01"))?,
            Mechanism::OauthBearer => token(format!(
                "n,a={},\x01host={}\x01port={}\x01auth=Bearer {secret}\x01\x01",
                scram::escape(user),
                who.host,
                who.port
            ))?,
        };
        Ok(Self { state })
    }

    /// The first response where the mechanism lets the client begin, in base64. It is sent with the
    /// command if the line stays short enough, else after an empty challenge.
    pub fn initial(&mut self) -> Option<Secret> {
        let (next, first) = match std::mem::replace(&mut self.state, State::Done) {
            State::Single(response) => (State::Done, response),
            State::Token(mechanism, response) => (State::TokenSent(mechanism), response),
            State::Scram(scram) => {
                let first = scram.first();
                (State::Scram(scram), first)
            }
            other => {
                self.state = other;
                return None;
            }
        };
        self.state = next;
        Some(encode(first.reveal()))
    }

    /// The response to `challenge`, both in base64.
    ///
    /// # Errors
    /// See [`SaslError`].
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        let challenge = BASE64
            .decode(challenge.trim_ascii())
            .map_err(|_| SaslError::Challenge("not base64"))?;
        let (next, response) = match std::mem::replace(&mut self.state, State::Done) {
            // What LOGIN asks differs from server to server; the order does not.
            State::Login(user, password) => (State::LoginPassword(password), user),
            State::LoginPassword(password) => (State::Done, password),
            State::Scram(mut scram) => {
                let response = scram.respond(&challenge)?;
                (State::Scram(scram), response)
            }
            State::TokenSent(mechanism) => {
                let nothing = match mechanism {
                    Mechanism::OauthBearer => "\x01",
                    _ => "",
                };
                (State::Done, Secret::new(nothing))
            }
            _ => return Err(SaslError::Challenge("nothing is left to say")),
        };
        self.state = next;
        Ok(encode(response.reveal()))
    }

    /// The server says that it is satisfied: whether the client may be.
    ///
    /// # Errors
    /// [`SaslError::Impostor`] where the server had to prove something and did not.
    pub fn finish(self) -> Result<(), SaslError> {
        match self.state {
            State::Scram(scram) if !scram.is_verified() => Err(SaslError::Impostor),
            _ => Ok(()),
        }
    }
}

fn encode(response: &str) -> Secret {
    Secret::new(BASE64.encode(response))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn begin(mechanism: Mechanism) -> Exchange {
        let secret = Secret::new("pencil");
        let who = Identity {
            user: "user",
            secret: &secret,
            host: "mail.example.org",
            port: 995,
        };
        Exchange::new(mechanism, &who).unwrap()
    }

    fn decoded(response: &Secret) -> String {
        String::from_utf8(BASE64.decode(response.reveal()).unwrap()).unwrap()
    }

    #[test]
    fn plain_says_all_at_once() {
        let mut plain = begin(Mechanism::Plain);
        assert_eq!(decoded(&plain.initial().unwrap()), "\0user\0pencil");
        assert!(plain.respond(b"").is_err());
        assert!(plain.finish().is_ok());
    }

    #[test]
    fn login_answers_two_questions_whatever_they_are() {
        let mut login = begin(Mechanism::Login);
        assert!(login.initial().is_none());
        assert_eq!(decoded(&login.respond(b"VXNlcm5hbWU6").unwrap()), "user");
        assert_eq!(decoded(&login.respond(b"").unwrap()), "pencil");
        assert!(login.respond(b"").is_err());
    }

    #[test]
    fn a_refused_token_is_answered_with_nothing() {
        let mut old = begin(Mechanism::Xoauth2);
        assert_eq!(
            decoded(&old.initial().unwrap()),
            "user=user\x01auth=Bearer pencil\x01\x01"
        );
        assert_eq!(
            decoded(&old.respond(b"eyJzdGF0dXMiOiI0MDEifQ==").unwrap()),
            ""
        );

        let mut new = begin(Mechanism::OauthBearer);
        assert_eq!(
            decoded(&new.initial().unwrap()),
            "n,a=user,\x01host=mail.example.org\x01port=995\x01auth=Bearer pencil\x01\x01"
        );
        assert_eq!(decoded(&new.respond(b"e30=").unwrap()), "\x01");
    }

    #[test]
    fn a_scram_server_that_proves_nothing_is_not_believed() {
        let mut scram = begin(Mechanism::ScramSha256);
        assert!(scram.initial().is_some());
        assert_eq!(scram.finish(), Err(SaslError::Impostor));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_here() {
        let secret = Secret::new("a\0b");
        let who = Identity {
            user: "u",
            secret: &secret,
            host: "h",
            port: 1,
        };
        assert!(Exchange::new(Mechanism::Plain, &who).is_err());
        assert!(begin(Mechanism::Login).respond(b"!!").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        for mechanism in [
            Mechanism::Plain,
            Mechanism::Login,
            Mechanism::ScramSha256,
            Mechanism::Xoauth2,
            Mechanism::OauthBearer,
        ] {
            let mut exchange = begin(mechanism);
            assert!(!format!("{exchange:?}").contains("pencil"));
            let first = exchange.initial();
            assert!(!format!("{first:?}{exchange:?}").contains("cGVuY2ls"));
        }
    }
}
