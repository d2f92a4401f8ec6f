//! What a server offers in its answer to EHLO.

use super::reply::Reply;
use crate::mail::sasl::Mechanism;

/// The extensions we use. Keywords come in upper and lower case (RFC 5321 section 2.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
// Each is a keyword of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct Extensions {
    /// Commands may be sent ahead (RFC 2920).
    pub pipelining: bool,
    /// SIZE was offered (RFC 1870).
    pub size: bool,
    /// Largest message, if the server has a limit.
    pub max_size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    /// Reports on wish (RFC 3461).
    pub dsn: bool,
    /// BDAT (RFC 3030).
    pub chunking: bool,
    /// Lines of any length, with BDAT (RFC 3030).
    pub binary: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// Longest time the server holds a message for us, in seconds (RFC 4865).
    pub max_hold: Option<u64>,
    /// Most recipients of a transaction (RFC 9422).
    pub max_recipients: Option<usize>,
    /// Most transactions of a connection (RFC 9422).
    pub max_messages: Option<usize>,
    /// AUTH was offered, whatever the mechanisms (RFC 4954).
    pub auth: bool,
    /// The mechanisms we know, in the server's order.
    pub mechanisms: Vec<Mechanism>,
}

impl Extensions {
    /// Of the answer to EHLO, whose first line is a greeting.
    #[must_use]
    pub fn parse(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            offered.add(line);
        }
        offered
    }

    fn add(&mut self, line: &str) {
        // `AUTH=LOGIN`: a misprint in an old draft that servers still send for old clients.
        let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => {
                self.size = true;
                let limit = words.next().and_then(|word| word.parse().ok());
                self.max_size = limit.filter(|octets| *octets > 0);
            }
            "8BITMIME" => self.eight_bit = true,
            "SMTPUTF8" => self.utf8 = true,
            "DSN" => self.dsn = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary = true,
            "STARTTLS" => self.starttls = true,
            "FUTURERELEASE" => self.max_hold = words.next().and_then(|word| word.parse().ok()),
            "LIMITS" => self.limits(line),
            "AUTH" => {
                self.auth = true;
                for mechanism in words.filter_map(Mechanism::named) {
                    if !self.mechanisms.contains(&mechanism) {
                        self.mechanisms.push(mechanism);
                    }
                }
            }
            _ => {}
        }
    }

    fn limits(&mut self, line: &str) {
        for (name, value) in line
            .split([' ', '\t'])
            .filter_map(|word| word.split_once('='))
        {
            let value = value.parse().ok().filter(|most: &usize| *most > 0);
            match name.to_ascii_uppercase().as_str() {
                "RCPTMAX" => self.max_recipients = value,
                "MAILMAX" => self.max_messages = value,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    #[test]
    fn keywords_in_any_case_and_any_disorder() {
        let offered = Extensions::parse(&reply(
            "250-mx.example PIPELINING\n250-size 1000\n250-8BitMime\n250-auth=LOGIN PLAIN\n\
             250-AUTH PLAIN  xoauth2 NTLM\n250-\n250-LIMITS RCPTMAX=20 MAILMAX=0 X=y\n\
             250-FUTURERELEASE 86400 2027-01-01T00:00:00Z\n250 DSN",
        ));
        assert!(offered.size && offered.eight_bit && offered.dsn && offered.auth);
        assert!(!offered.pipelining, "that was the greeting");
        assert_eq!(offered.max_size, Some(1000));
        assert_eq!(offered.max_recipients, Some(20));
        assert_eq!(offered.max_messages, None);
        assert_eq!(offered.max_hold, Some(86400));
        assert_eq!(
            offered.mechanisms,
            [Mechanism::Login, Mechanism::Plain, Mechanism::Xoauth2]
        );
    }

    #[test]
    fn nonsense_offers_nothing() {
        let offered = Extensions::parse(&reply("250-x\n250-SIZE many\n250-SIZE 0\n250 LIMITS"));
        assert!(offered.size);
        assert_eq!(offered.max_size, None);
        assert_eq!(Extensions::parse(&reply("250")), Extensions::default());
    }
}
