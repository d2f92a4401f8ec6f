//! Which way to log in, and the conversation itself.

use std::fmt::Write;

use super::capability::Capabilities;
use super::dialogue::{Dialogue, Turn};
use super::reply::{Reply, Stage};
use crate::mail::failure::{Class, Failure, Result};
use crate::mail::sasl::{Exchange, Identity, Mechanism, SaslError};
use crate::secret::Secret;

/// Longest command line, its end included (RFC 2449 section 4).
const LONGEST_COMMAND: usize = 255;

/// No mechanism needs more turns.
const MOST_TURNS: usize = 8;

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// The best the server offers.
    Auto,
    /// USER and PASS.
    User,
    /// APOP (RFC 1939 section 7).
    Apop,
    /// AUTH with this mechanism.
    Sasl(Mechanism),
}

/// Who logs in.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// User name.
    pub user: &'a str,
    /// Password, or OAuth token.
    pub secret: &'a Secret,
    /// `secret` is an OAuth token.
    pub is_token: bool,
    /// How.
    pub auth: Auth,
}

/// What a greeting and CAPA said that matters for login.
#[derive(Debug)]
pub(super) struct Offer<'a> {
    pub(super) capabilities: &'a Capabilities,
    /// The time stamp of the greeting, brackets included.
    pub(super) stamp: Option<&'a str>,
    pub(super) encrypted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    User,
    Apop,
    Sasl(Mechanism),
}

/// The time stamp of a greeting, if it is a well-formed message identifier of ASCII: a malformed
/// one is how a man in the middle gets parts of the password out of APOP (CVE-2007-1558).
pub(super) fn stamp(greeting: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(greeting).ok()?;
    let start = text.find('<')?;
    let stamp = text.get(start..=start + text.get(start..)?.find('>')?)?;
    let inside = stamp.get(1..stamp.len() - 1)?;
    let (left, right) = inside.split_once('@')?;
    let is_atom = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"<>@\\\"".contains(&b))
    };
    (is_atom(left) && is_atom(right)).then_some(stamp)
}

fn choose(who: &Credentials<'_>, offer: &Offer<'_>) -> Result<Way> {
    let known = offer.capabilities.known;
    let has = |mechanism| offer.capabilities.sasl.contains(&mechanism);
    let way = |wanted: &[Way]| {
        wanted.iter().copied().find(|way| match way {
            Way::User => offer.capabilities.user || !known,
            Way::Apop => offer.stamp.is_some(),
            Way::Sasl(mechanism) => has(*mechanism),
        })
    };
    match who.auth {
        Auth::User => return Ok(Way::User),
        Auth::Apop => {
            return way(&[Way::Apop])
                .ok_or_else(|| account("the server's greeting has no time stamp for APOP"));
        }
        Auth::Sasl(mechanism) => return Ok(Way::Sasl(mechanism)),
        Auth::Auto => {}
    }
    if who.is_token {
        let token = [
            Way::Sasl(Mechanism::Xoauth2),
            Way::Sasl(Mechanism::OauthBearer),
        ];
        return way(&token)
            .ok_or_else(|| account("the server does not take OAuth tokens, only passwords"));
    }
    // Encrypted, the plainest way works with every password store; in clear text the password is
    // kept off the wire where that is possible.
    let order = if offer.encrypted {
        [
            Way::Sasl(Mechanism::Plain),
            Way::User,
            Way::Sasl(Mechanism::Login),
            Way::Sasl(Mechanism::ScramSha256),
            Way::Apop,
        ]
    } else {
        [
            Way::Sasl(Mechanism::ScramSha256),
            Way::Apop,
            Way::User,
            Way::Sasl(Mechanism::Plain),
            Way::Sasl(Mechanism::Login),
        ]
    };
    way(&order).ok_or_else(|| {
        account(if offer.encrypted {
            "the server offers no way to log in with a password (perhaps a token: token_command)"
        } else {
            "the server takes no password over an unencrypted connection: use tls"
        })
    })
}

/// Logs in; `host` and `port` are for OAUTHBEARER.
pub(super) fn login(
    dialogue: &mut Dialogue,
    who: &Credentials<'_>,
    offer: &Offer<'_>,
    (host, port): (&str, u16),
) -> Result<()> {
    match choose(who, offer)? {
        Way::User => user(dialogue, who, offer.capabilities),
        Way::Apop => {
            let stamp = offer.stamp.unwrap_or_default();
            let reply = apop(dialogue, who, stamp)?;
            outcome(&reply, "APOP", offer.capabilities)
        }
        Way::Sasl(mechanism) => {
            let identity = Identity {
                user: who.user,
                secret: who.secret,
                host,
                port,
            };
            sasl(dialogue, mechanism, &identity, offer.capabilities)
        }
    }
}

fn user(dialogue: &mut Dialogue, who: &Credentials<'_>, offered: &Capabilities) -> Result<()> {
    dialogue.send("USER ****", &format!("USER {}", who.user))?;
    let reply = dialogue.reply("USER")?;
    outcome(&reply, "USER", offered)?;
    dialogue.send("PASS ****", &format!("PASS {}", who.secret.reveal()))?;
    let reply = dialogue.reply("PASS")?;
    outcome(&reply, "PASS", offered)
}

fn apop(dialogue: &mut Dialogue, who: &Credentials<'_>, stamp: &str) -> Result<Reply> {
    let digest = md5::compute(format!("{stamp}{}", who.secret.reveal()));
    dialogue.send("APOP ****", &format!("APOP {} {digest:x}", who.user))?;
    dialogue.reply("APOP")
}

fn sasl(
    dialogue: &mut Dialogue,
    mechanism: Mechanism,
    identity: &Identity<'_>,
    offered: &Capabilities,
) -> Result<()> {
    let name = format!("AUTH {}", mechanism.name());
    let unfit = |err: &SaslError| account(&format!("{name}: {err}"));
    let mut exchange = Exchange::new(mechanism, identity).map_err(|err| unfit(&err))?;
    let mut initial = exchange.initial();
    let mut line = name.clone();
    // RFC 5034 section 4: with the command only if the line stays within the limit. Tokens never
    // do; Microsoft wants them in two steps in any case.
    if let Some(first) = &initial
        && !mechanism.takes_token()
        && line.len() + 1 + first.reveal().len() + 2 <= LONGEST_COMMAND
    {
        let _ = write!(line, " {}", first.reveal());
        initial = None;
    }
    dialogue.send(&format!("{name} ****"), &line)?;
    for _ in 0..MOST_TURNS {
        let challenge = match dialogue.turn(&name)? {
            Turn::Challenge(challenge) => challenge,
            Turn::Reply(reply) => {
                outcome(&reply, &name, offered)?;
                return exchange.finish().map_err(|err| unfit(&err));
            }
        };
        let response = match initial.take() {
            Some(first) => Ok(first),
            None => exchange.respond(&challenge),
        };
        match response {
            Ok(response) => dialogue.send("****", response.reveal())?,
            Err(err) => {
                dialogue.send("*", "*")?;
                dialogue.turn(&name)?;
                return Err(unfit(&err));
            }
        }
    }
    Err(Failure::new(
        Class::Protocol,
        format!("{name}: challenges without end"),
    ))
}

fn outcome(reply: &Reply, command: &str, offered: &Capabilities) -> Result<()> {
    if reply.ok {
        return Ok(());
    }
    let failure = reply.failure(command, Stage::Login);
    if offered.auth_resp_code && reply.code.is_none() && failure.class() == Class::Account {
        // RFC 3206 section 6: this server would have said [AUTH] if the password were the reason.
        return Err(Failure::new(Class::Transient, failure.detail()));
    }
    Err(failure)
}

fn account(detail: &str) -> Failure {
    Failure::new(Class::Account, detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_a_message_identifier() {
        assert_eq!(
            stamp(b"POP3 server ready <1896.697170952@dbc.mtview.ca.us>"),
            Some("<1896.697170952@dbc.mtview.ca.us>")
        );
        for bad in [
            &b"ready"[..],
            b"<>",
            b"<a@>",
            b"<@b>",
            b"<a@b",
            b"<a\x01@b>",
            b"<a@b@c>",
            b"<caf\xc3\xa9@b>",
            b"> <",
        ] {
            assert_eq!(stamp(bad), None, "{bad:?}");
        }
    }

    fn chosen(capabilities: &Capabilities, encrypted: bool, is_token: bool) -> Option<Way> {
        let secret = Secret::new("x");
        let who = Credentials {
            user: "u",
            secret: &secret,
            is_token,
            auth: Auth::Auto,
        };
        let offer = Offer {
            capabilities,
            stamp: Some("<a@b>"),
            encrypted,
        };
        choose(&who, &offer).ok()
    }

    #[test]
    fn a_password_stays_off_a_clear_wire() {
        let all = Capabilities {
            known: true,
            user: true,
            sasl: vec![Mechanism::Plain, Mechanism::ScramSha256, Mechanism::Xoauth2],
            ..Capabilities::default()
        };
        assert_eq!(chosen(&all, true, false), Some(Way::Sasl(Mechanism::Plain)));
        assert_eq!(
            chosen(&all, false, false),
            Some(Way::Sasl(Mechanism::ScramSha256))
        );
        assert_eq!(
            chosen(&all, true, true),
            Some(Way::Sasl(Mechanism::Xoauth2))
        );
        let old = Capabilities::default();
        assert_eq!(chosen(&old, true, false), Some(Way::User));
        assert_eq!(chosen(&old, false, false), Some(Way::Apop));
        assert_eq!(chosen(&old, true, true), None);
    }
}
