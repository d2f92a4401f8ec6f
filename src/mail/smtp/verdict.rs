//! What a reply means for a recipient, for the message, for the account. Class decides; the
//! exceptions are listed here and nowhere else.

use super::reply::{Enhanced, Reply};

/// Where in a session a reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The banner.
    Banner,
    /// EHLO, HELO, STARTTLS.
    Hello,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA.
    Data,
    /// After the final dot, or instead of waiting for it.
    Final,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The server took responsibility.
    Accepted,
    /// Not now: try again later.
    Deferred,
    /// Not in this transaction: the next one may take it, at once.
    TooMany,
    /// Never: tell the sender.
    Refused,
    /// The account is the trouble, not the message: pause, and give nothing back.
    Account,
    /// The server has the message, and its answer was lost.
    InDoubt,
}

/// What `reply` at `stage` means.
#[must_use]
pub fn verdict(stage: Stage, reply: &Reply) -> Verdict {
    let enhanced = reply.enhanced.map(|e| (e.class, e.subject, e.detail));
    match reply.code {
        // 251 "will forward" and 252 "cannot verify" accept the recipient (RFC 5321 section 3.4).
        // To MAIL, RCPT or the message any 2xx is a yes.
        200..300 => Verdict::Accepted,
        // A server that goes down says so wherever it is asked (RFC 5321 section 3.8).
        421 => Verdict::Deferred,
        _ if is_account(stage, reply) => Verdict::Account,
        // RFC 5321 section 4.5.3.1.10: too many recipients; 552 is what RFC 821 had for it, but
        // with an enhanced code it is about size or quota.
        452 if stage == Stage::Rcpt && matches!(enhanced, None | Some((4, 5, 3))) => {
            Verdict::TooMany
        }
        552 if stage == Stage::Rcpt && matches!(enhanced, None | Some((5, 5, 3))) => {
            Verdict::TooMany
        }
        400..500 => Verdict::Deferred,
        500..600 => match stage {
            // What a relay says before it knows the message is about us or about itself.
            Stage::Banner | Stage::Hello | Stage::Auth => Verdict::Account,
            Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Final => Verdict::Refused,
        },
        // 3xx where none belongs: server and client no longer talk of the same command.
        _ => Verdict::Deferred,
    }
}

/// Whether a refusal is of who we are and not of what we send. Bouncing all mail because a
/// password expired is the commonest complaint about relays' clients.
fn is_account(stage: Stage, reply: &Reply) -> bool {
    let by_code = match reply.code {
        // RFC 4954 section 6: authentication required, too weak, refused, needs encryption,
        // password transition needed, temporary failure.
        530 | 534 | 535 | 538 | 432 => true,
        454 => matches!(stage, Stage::Auth | Stage::Hello),
        // RFC 4954 section 6: exchange line too long; RFC 5248.
        500 | 501 | 504 => stage == Stage::Auth,
        525 => true,
        _ => false,
    };
    let by_enhanced = matches!(
        reply.enhanced,
        Some(
            Enhanced {
                class: 5,
                subject: 7,
                // Credentials invalid, mechanism too weak, encryption needed, account disabled;
                // Microsoft: no basic authentication.
                detail: 8 | 9 | 10 | 11 | 13 | 30,
            } | Enhanced {
                class: 5,
                subject: 4,
                // Gmail: "550 5.4.5 Daily user sending limit exceeded".
                detail: 5,
            }
        )
    );
    by_code || by_enhanced
}

/// The meaning of a code in the words of its RFC, for people who read `queue/ID`.
#[must_use]
pub const fn meaning(code: u16) -> &'static str {
    match code {
        211 => "system status",
        214 => "help",
        220 => "ready",
        221 => "closing",
        235 => "authenticated",
        250 => "done",
        251 => "not local, will forward",
        252 => "cannot verify, will try",
        334 => "continue the authentication",
        354 => "send the message",
        421 => "service not available, closing",
        432 => "a new password is needed",
        450 => "mailbox unavailable now",
        451 => "local error",
        452 => "insufficient storage or too many recipients",
        454 => "authentication or TLS not possible now",
        455 => "parameters not possible now",
        500 => "command not recognised",
        501 => "error in parameters",
        502 => "command not implemented",
        503 => "bad sequence of commands",
        504 => "parameter not implemented",
        521 => "server takes no mail",
        523 => "message too large for the list",
        525 => "account disabled",
        530 => "authentication required",
        534 => "mechanism too weak",
        535 => "user or password refused",
        538 => "encryption required",
        550 => "mailbox unavailable",
        551 => "not local, try elsewhere",
        552 => "exceeded storage",
        553 => "mailbox name not allowed",
        554 => "transaction failed",
        555 => "parameters not recognised",
        556 => "domain takes no mail",
        _ => match code / 100 {
            2 => "success",
            3 => "go on",
            4 => "failed for now",
            5 => "failed for good",
            _ => "unknown",
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    #[test]
    fn every_code_of_the_table_has_its_action() {
        use Stage::{Auth, Banner, Data, Final, Hello, Mail, Rcpt};
        use Verdict::{Accepted, Account, Deferred, Refused, TooMany};
        for (stage, text, want) in [
            (Banner, "220 ready", Accepted),
            (Banner, "421 busy", Deferred),
            (Banner, "554 no SMTP here", Account),
            (Banner, "450 later", Deferred),
            (Hello, "550 who are you", Account),
            (Hello, "454 4.7.0 TLS not available", Account),
            (Auth, "235 2.7.0 ok", Accepted),
            (Auth, "535 5.7.8 bad", Account),
            (Auth, "454 4.7.0 try later", Account),
            (Auth, "432 4.7.12 transition", Account),
            (Auth, "504 5.5.4 unknown mechanism", Account),
            (Auth, "500 5.5.6 line too long", Account),
            (Mail, "250", Accepted),
            (Mail, "451 4.3.0", Deferred),
            (Mail, "530 5.7.0 Authentication required", Account),
            (
                Mail,
                "550 5.7.30 Basic authentication is not supported",
                Account,
            ),
            (Mail, "550 5.4.5 Daily user sending limit exceeded", Account),
            (Mail, "552 5.3.4 too big", Refused),
            (Mail, "553 5.7.1 not your address", Refused),
            (Mail, "555 what is SIZE", Refused),
            (Mail, "354 what", Deferred),
            (Rcpt, "250 2.1.5", Accepted),
            (Rcpt, "251 forwarding", Accepted),
            (Rcpt, "252 perhaps", Accepted),
            (Rcpt, "421 4.3.2 down", Deferred),
            (Rcpt, "450 4.7.1 Greylisted", Deferred),
            (Rcpt, "451 greylisted", Deferred),
            (Rcpt, "452 4.5.3 too many", TooMany),
            (Rcpt, "452 too many", TooMany),
            (Rcpt, "452 4.2.2 mailbox full", Deferred),
            (Rcpt, "452 4.3.1 disk full", Deferred),
            (Rcpt, "552 too many", TooMany),
            (Rcpt, "552 5.2.2 mailbox full", Refused),
            (Rcpt, "550 5.1.1 none", Refused),
            (Rcpt, "551 try there", Refused),
            (Rcpt, "553 no", Refused),
            (Rcpt, "554 5.7.1 relay denied", Refused),
            (Rcpt, "556 5.1.10 null MX", Refused),
            (Rcpt, "503 bad sequence", Refused),
            (Data, "451 no", Deferred),
            (Data, "554 no valid recipients", Refused),
            (Final, "250 2.0.0 queued", Accepted),
            (Final, "421 bye", Deferred),
            (Final, "452 4.3.1 disk full", Deferred),
            (Final, "452 disk full", Deferred),
            (Final, "451 4.7.1", Deferred),
            (Final, "552 too big", Refused),
            (Final, "554 5.7.1 spam", Refused),
            (Final, "550 no", Refused),
        ] {
            assert_eq!(verdict(stage, &reply(text)), want, "{stage:?} {text}");
        }
    }

    #[test]
    fn every_code_has_words() {
        for code in 211..=556 {
            assert!(!meaning(code).is_empty());
        }
        assert_eq!(meaning(550), "mailbox unavailable");
    }
}
