//! The examination of a mailbox's servers, for `ferryfs doctor`. Nothing is sent, fetched or
//! deleted.

use std::time::Instant;

use super::connect::{Connector, Endpoint, Security};
use super::failure::{Class, Failure, Result};
use super::options::MailOptions;
use super::pop3::{self, Maildrop};
use super::sasl::Mechanism;
use super::sender::{Relay, Route};
use super::smtp;
use crate::finding::{Findings, Stop, Verdict};
use crate::net::certificate;

/// Examines the servers of `options`, the inbox first.
///
/// # Errors
/// The first that could not be spoken to; what was found before it is in the findings.
pub fn examine(options: &MailOptions, stop: &Stop, findings: &mut Findings) -> Result<()> {
    inbox(options, findings)?;
    if stop.is_asked_for() {
        return Err(Failure::new(Class::Local, "told to stop"));
    }
    match &options.submission {
        Some(Route::Relay(relay)) => sending(relay, findings),
        Some(Route::Mx(_)) => {
            let why = "mail goes to each domain's own servers: there is none to ask";
            findings.add("sending", "server", Verdict::Untried, why);
            Ok(())
        }
        None => {
            let why = "no -o smtp=: this mailbox is only read";
            findings.add("sending", "server", Verdict::Untried, why);
            Ok(())
        }
    }
}

fn inbox(options: &MailOptions, findings: &mut Findings) -> Result<()> {
    let fetch = &options.fetch;
    let connector = Connector::new(fetch.endpoint.clone())?;
    let secret = (fetch.secret)(false).map_err(|line| Failure::new(Class::Account, line))?;
    let who = pop3::Credentials {
        user: &fetch.user,
        secret: &secret,
        is_token: fetch.is_token,
        auth: fetch.auth,
    };
    let began = Instant::now();
    let mut maildrop = Maildrop::open(&connector, &who, &|_| {})?;
    let took = began.elapsed();
    findings.add(
        "inbox",
        "login",
        Verdict::Yes,
        format!("{} ms", took.as_millis()),
    );
    encryption("inbox", &fetch.endpoint, &connector, findings);
    let has = maildrop.capabilities().clone();
    let mut say = |name: &str, works: bool, detail: &str| {
        let verdict = if works { Verdict::Yes } else { Verdict::No };
        findings.add("inbox", name, verdict, detail);
    };
    say("CAPA", has.known, "");
    say("PIPELINING", has.pipelining, "");
    say("TOP", has.top, "");
    say("AUTH-RESP-CODE", has.auth_resp_code, "");
    let login = [has.user.then_some("USER")].into_iter().flatten();
    let login: Vec<_> = login.chain(mechanisms(&has.sasl)).collect();
    findings.fact("inbox", "login by", login.join(" "));
    if let Some(delay) = has.login_delay {
        findings.fact("inbox", "LOGIN-DELAY", format!("{} s", delay.as_secs()));
    }
    if let Some(implementation) = has.implementation {
        findings.fact("inbox", "software", implementation);
    }
    if has.hides_retrieved {
        findings.fact(
            "inbox",
            "quirk",
            "messages that were read are hidden (Gmail)",
        );
    }
    let entries = maildrop.list()?;
    let named = entries.iter().filter(|entry| entry.uidl.is_some()).count();
    let octets: u64 = entries.iter().filter_map(|entry| entry.size).sum();
    let (verdict, detail) = match named == entries.len() {
        true => (Verdict::Yes, String::new()),
        false => (Verdict::No, format!("{named} of {}", entries.len())),
    };
    findings.add("inbox", "UIDL", verdict, detail);
    let held = format!("{}, {octets} octets", entries.len());
    findings.fact("inbox", "messages", held);
    let began = Instant::now();
    maildrop.noop()?;
    let trip = format!("{} ms", began.elapsed().as_millis());
    findings.fact("inbox", "round trip", trip);
    maildrop.quit()
}

fn sending(relay: &Relay, findings: &mut Findings) -> Result<()> {
    let connector = Connector::new(relay.endpoint.clone())?;
    let terms = smtp::Terms::new("localhost");
    let began = Instant::now();
    let session = match &relay.login {
        None => smtp::Session::open(&connector, &terms, None, &mut |_| {})?,
        Some((user, secret)) => {
            let secret = secret(false).map_err(|line| Failure::new(Class::Account, line))?;
            let who = smtp::Credentials {
                user,
                secret: &secret,
                is_token: relay.is_token,
                mechanism: relay.mechanism,
            };
            smtp::Session::open(&connector, &terms, Some(&who), &mut |_| {})?
        }
    };
    let took = format!("{} ms", began.elapsed().as_millis());
    let name = if relay.login.is_some() {
        "login"
    } else {
        "greeting, no login"
    };
    findings.add("sending", name, Verdict::Yes, took);
    encryption("sending", &relay.endpoint, &connector, findings);
    let has = session.extensions().clone();
    for (name, offered) in [
        ("PIPELINING", has.pipelining),
        ("8BITMIME", has.eight_bit),
        ("SMTPUTF8", has.utf8),
        ("DSN", has.dsn),
        ("CHUNKING", has.chunking),
        ("FUTURERELEASE", has.max_hold.is_some()),
    ] {
        let verdict = if offered { Verdict::Yes } else { Verdict::No };
        findings.add("sending", name, verdict, "");
    }
    let login: Vec<_> = mechanisms(&has.mechanisms).collect();
    findings.fact("sending", "login by", login.join(" "));
    let size = match has.max_size {
        Some(octets) => format!("{octets} octets"),
        None => "not told".to_owned(),
    };
    findings.fact("sending", "largest message", size);
    if let Some(most) = has.max_recipients {
        findings.fact("sending", "most recipients", most);
    }
    session.quit();
    Ok(())
}

fn encryption(area: &'static str, endpoint: &Endpoint, connector: &Connector, f: &mut Findings) {
    if endpoint.security == Security::Off {
        let why = "tls=off: the password can be read on the way";
        f.add(area, "encrypted", Verdict::No, why);
        return;
    }
    f.add(area, "encrypted", Verdict::Yes, "");
    let Some(shown) = connector.shown() else {
        return;
    };
    f.fact(area, "fingerprint", shown.fingerprint);
    f.fact(
        area,
        "trusted",
        shown.basis.map_or("no", |basis| basis.words()),
    );
    if let Some(about) = certificate::describe(&shown.certificate) {
        f.fact(area, "certificate of", about.subject);
        f.fact(area, "issued by", about.issuer);
        let ends = humantime::format_rfc3339_seconds(about.not_after);
        f.fact(area, "expires", ends);
    }
}

fn mechanisms(known: &[Mechanism]) -> impl Iterator<Item = &'static str> {
    known.iter().map(|mechanism| mechanism.name())
}
