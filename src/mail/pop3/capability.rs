//! What a server says it can do (CAPA, RFC 2449).

use std::time::Duration;

use crate::mail::sasl::Mechanism;

/// Servers that want more time between logins than this are asked after it all the same.
const LONGEST_DELAY: Duration = Duration::from_secs(86_400);

/// The answer to CAPA. What cannot be parsed is left out, and takes nothing else with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// CAPA was answered at all.
    pub known: bool,
    /// `TOP`: headers alone can be had.
    pub top: bool,
    /// `UIDL`: messages have identities.
    pub uidl: bool,
    /// `USER`: USER and PASS log in.
    pub user: bool,
    /// `PIPELINING`: commands may be sent ahead of replies.
    pub pipelining: bool,
    /// `STLS`: the connection can be encrypted (RFC 2595).
    pub stls: bool,
    /// `SASL`: the mechanisms we know of those it has.
    pub sasl: Vec<Mechanism>,
    /// `LOGIN-DELAY`: the least time between two logins.
    pub login_delay: Option<Duration>,
    /// `EXPIRE 0`: what was retrieved may be gone after QUIT. Gmail hides it so.
    pub hides_retrieved: bool,
    /// `AUTH-RESP-CODE`: a refused login without `[AUTH]` is not about the password (RFC 3206).
    pub auth_resp_code: bool,
    /// `IMPLEMENTATION`, for people.
    pub implementation: Option<String>,
}

impl Capabilities {
    /// Takes one line of the answer.
    pub fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else {
            return;
        };
        match keyword.to_ascii_uppercase().as_str() {
            "TOP" => self.top = true,
            "UIDL" => self.uidl = true,
            "USER" => self.user = true,
            "PIPELINING" => self.pipelining = true,
            "STLS" => self.stls = true,
            "AUTH-RESP-CODE" => self.auth_resp_code = true,
            "SASL" => self.sasl = words.filter_map(Mechanism::named).collect(),
            "LOGIN-DELAY" => {
                self.login_delay = words
                    .next()
                    .and_then(|n| n.parse().ok())
                    .map(|seconds| Duration::from_secs(seconds).min(LONGEST_DELAY));
            }
            "EXPIRE" => self.hides_retrieved = words.next() == Some("0"),
            "IMPLEMENTATION" => {
                self.implementation = Some(words.collect::<Vec<_>>().join(" "));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &str) -> Capabilities {
        let mut capabilities = Capabilities::default();
        for line in lines.lines() {
            capabilities.add(line.as_bytes());
        }
        capabilities
    }

    #[test]
    fn gmail() {
        let gmail = parsed(
            "USER\nRESP-CODES\nEXPIRE 0\nLOGIN-DELAY 300\nTOP\nUIDL\nX-GOOGLE-RICO\n\
             SASL PLAIN XOAUTH2 OAUTHBEARER",
        );
        assert!(gmail.user && gmail.top && gmail.uidl && gmail.hides_retrieved);
        assert!(!gmail.pipelining && !gmail.stls);
        assert_eq!(gmail.login_delay, Some(Duration::from_secs(300)));
        assert_eq!(
            gmail.sasl,
            [Mechanism::Plain, Mechanism::Xoauth2, Mechanism::OauthBearer]
        );
    }

    #[test]
    fn what_is_unknown_hurts_nothing_else() {
        let odd = parsed(
            "\nUTF8 USER\nsasl X-NEW plain\nLOGIN-DELAY soon\nEXPIRE NEVER\nuidl\n\
             IMPLEMENTATION Odd POP3 v0",
        );
        assert!(odd.uidl && !odd.user && !odd.hides_retrieved);
        assert_eq!(odd.sasl, [Mechanism::Plain]);
        assert_eq!(odd.login_delay, None);
        assert_eq!(odd.implementation.as_deref(), Some("Odd POP3 v0"));
    }
}
