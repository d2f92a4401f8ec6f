//! AUTH (RFC 4954).

use std::time::Duration;

use super::dialogue::Dialogue;
use super::extensions::Extensions;
use super::session::expect;
use super::verdict::Stage;
use crate::mail::failure::{Class, Failure, Result};
use crate::mail::sasl::{Exchange, Identity, Mechanism, SaslError};
use crate::secret::Secret;

/// Longest command line, its end included (RFC 5321 section 4.5.3.1.4).
const LONGEST_COMMAND: usize = 512;

/// No mechanism needs more turns.
const MOST_TURNS: usize = 8;

/// Who logs in.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// User name.
    pub user: &'a str,
    /// Password, or OAuth token.
    pub secret: &'a Secret,
    /// `secret` is an OAuth token.
    pub is_token: bool,
    /// How; `None` for the best that is offered.
    pub mechanism: Option<Mechanism>,
}

fn choose(who: &Credentials<'_>, offered: &Extensions, encrypted: bool) -> Result<Mechanism> {
    if let Some(mechanism) = who.mechanism {
        return Ok(mechanism);
    }
    if !offered.auth {
        return Err(account(if encrypted {
            "the server takes no login; leave the user out (-o smtp=URL without user)"
        } else {
            "the server takes no login over an unencrypted connection: use tls"
        }));
    }
    // Encrypted, the plainest works with every password store; in clear text the password is kept
    // off the wire where that is possible.
    let order: &[Mechanism] = match (who.is_token, encrypted) {
        (true, _) => &[Mechanism::Xoauth2, Mechanism::OauthBearer],
        (false, true) => &[Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256],
        (false, false) => &[Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login],
    };
    let found = order.iter().find(|m| offered.mechanisms.contains(m));
    found.copied().ok_or_else(|| {
        account(if who.is_token {
            "the server takes no OAuth tokens, only passwords"
        } else {
            "the server takes no passwords (perhaps a token: token_command)"
        })
    })
}

/// Logs in; `host` is for OAUTHBEARER.
pub(super) fn login(
    dialogue: &mut Dialogue,
    who: &Credentials<'_>,
    offered: &Extensions,
    (host, port): (&str, u16),
    limit: Duration,
) -> Result<()> {
    let encrypted = dialogue.is_encrypted();
    let peer = dialogue.peer().to_owned();
    let mechanism = choose(who, offered, encrypted).map_err(|err| err.context(&peer))?;
    let name = format!("AUTH {}", mechanism.name());
    let unfit = |err: &SaslError| account(&format!("{peer}: {name}: {err}"));
    let identity = Identity {
        user: who.user,
        secret: who.secret,
        host,
        port,
    };
    let mut exchange = Exchange::new(mechanism, &identity).map_err(|err| unfit(&err))?;
    let mut initial = exchange.initial();
    let mut line = name.clone();
    // With the command only if the line stays within the limit (RFC 4954 section 4). Tokens never
    // do, and Microsoft wants them in two steps.
    if let Some(first) = &initial
        && !mechanism.takes_token()
        && line.len() + 1 + first.reveal().len() + 2 <= LONGEST_COMMAND
    {
        // An empty response is a single "=".
        let response = Some(first.reveal()).filter(|r| !r.is_empty());
        line = format!("{line} {}", response.unwrap_or("="));
        initial = None;
    }
    dialogue.put(&format!("{name} ****"), &line);
    dialogue.flush()?;
    for _ in 0..MOST_TURNS {
        let reply = dialogue.reply(&name, limit)?;
        if reply.code != 334 {
            expect(dialogue, Stage::Auth, &name, &reply)?;
            return exchange.finish().map_err(|err| unfit(&err));
        }
        let challenge = reply.lines.first().map(String::as_str).unwrap_or_default();
        let response = match initial.take() {
            Some(first) => Ok(first),
            None => exchange.respond(challenge.as_bytes()),
        };
        match response {
            Ok(response) => dialogue.put("****", response.reveal()),
            Err(err) => {
                dialogue.put("*", "*");
                dialogue.flush()?;
                dialogue.reply(&name, limit)?;
                dialogue.abandon();
                return Err(unfit(&err));
            }
        }
        dialogue.flush()?;
    }
    Err(dialogue.fail(Class::Protocol, &format!("{name}: challenges without end")))
}

fn account(detail: &str) -> Failure {
    Failure::new(Class::Account, detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chosen(offered: &[Mechanism], encrypted: bool, is_token: bool) -> Option<Mechanism> {
        let secret = Secret::new("x");
        let who = Credentials {
            user: "u",
            secret: &secret,
            is_token,
            mechanism: None,
        };
        let offered = Extensions {
            auth: !offered.is_empty(),
            mechanisms: offered.to_vec(),
            ..Extensions::default()
        };
        choose(&who, &offered, encrypted).ok()
    }

    #[test]
    fn a_password_stays_off_a_clear_wire() {
        use Mechanism::{Login, OauthBearer, Plain, ScramSha256, Xoauth2};
        let all = [Login, Plain, ScramSha256, OauthBearer, Xoauth2];
        assert_eq!(chosen(&all, true, false), Some(Plain));
        assert_eq!(chosen(&all, false, false), Some(ScramSha256));
        assert_eq!(chosen(&all, true, true), Some(Xoauth2));
        assert_eq!(chosen(&[OauthBearer], true, true), Some(OauthBearer));
        assert_eq!(chosen(&[Login], true, false), Some(Login));
        assert_eq!(chosen(&[Plain], true, true), None);
        assert_eq!(chosen(&[Xoauth2], true, false), None);
        assert_eq!(chosen(&[], true, false), None);
    }
}
