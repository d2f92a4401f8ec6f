//! From a greeting to a session that is ready for work: login, features, settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::Asked;
use super::control::{Control, Owed};
use super::encoding;
use super::features::Features;
use super::host::Host;
use super::opening::Failure;
use super::options::{DataMode, FtpOptions, ListingMode, Protection};
use super::refusal::{is_crowded, refusal};
use super::reply::Reply;
use super::server_path::ServerRoot;
use crate::net::Deadline;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// The facts that listings use (RFC 3659 section 7.5 and the `UNIX.` facts of ProFTPD).
const FACTS: &[&str] = &[
    "type",
    "size",
    "modify",
    "perm",
    "unique",
    "unix.mode",
    "unix.owner",
    "unix.ownername",
    "unix.uid",
    "unix.group",
    "unix.groupname",
    "unix.gid",
    "unix.slink",
];

/// How long the pipelining probe waits: a server that swallows commands must not delay the mount
/// for the whole time limit.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What is known of a session once it is set up.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) features: Arc<Features>,
    pub(super) home: Vec<u8>,
    /// If a data connection was asked for.
    pub(super) connection: Option<Asked>,
}

/// Keeps the log from showing what is secret.
pub(super) fn conceal(control: &mut Control, options: &FtpOptions) {
    // What everybody may use as a password is a word of the language.
    if options.user != "anonymous" {
        control.conceal(&options.password);
        options
            .account
            .iter()
            .for_each(|account| control.conceal(account));
    }
}

/// `VERB word`.
pub(super) fn line(verb: &str, word: &str) -> Result<String> {
    if word.contains(['\r', '\n', '\0']) {
        // Not quoted: it may be the password.
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{verb}: a line break or NUL in it"),
        ));
    }
    Ok(format!("{verb} {word}"))
}

/// USER, PASS and ACCT (RFC 959 section 5.4 has the state diagram). Whether it was USER and PASS, and
/// no more.
pub(super) fn log_in(
    control: &mut Control,
    host: &Host,
    deadline: Deadline,
) -> std::result::Result<bool, Failure> {
    let options = host.options();
    conceal(control, options);
    let mut say = |verb: &str, word: &str| -> Result<Reply> {
        control.send(&[line(verb, word)?.as_bytes()])?;
        control.final_reply(deadline)
    };
    let mut reply = say("USER", &options.user)?;
    let mut usual = false;
    if reply.code() == 331 {
        reply = say("PASS", options.password.reveal())?;
        usual = reply.is_ok();
    }
    if reply.code() == 332 {
        let Some(account) = &options.account else {
            let error = Error::new(
                ErrorKind::PermissionDenied,
                format!("{}: the server wants an account", options.host),
            );
            host.refuse_login(error.clone());
            return Err(error.into());
        };
        reply = say("ACCT", account.reveal())?;
    }
    if reply.is_ok() {
        host.facts(|facts| facts.logged_in = true);
        return Ok(usual);
    }
    let words = control.concealed(reply.text());
    Err(refused(host, &reply, &words))
}

/// 530 is a wrong password or one session too many; only the text, or a session that uses the same
/// password at this moment, can tell.
pub(super) fn refused(host: &Host, reply: &Reply, words: &str) -> Failure {
    let options = host.options();
    // The process behind it died; that says nothing of the password, nor of how many there are.
    let died = reply.is_farewell() && reply.code() != 421;
    let many = reply.code() == 421 || host.facts(|facts| facts.sessions > 0);
    let crowded = is_crowded(reply) || many && !died;
    let temporary = reply.code() / 100 == 4 && reply.code() != 430 || reply.is_farewell();
    let kind = if crowded || temporary {
        ErrorKind::Disconnected
    } else {
        ErrorKind::PermissionDenied
    };
    let error = Error::new(
        kind,
        format!(
            "{}: login as {} refused: {}",
            options.host,
            options.user.escape_debug(),
            words
        ),
    );
    if kind == ErrorKind::PermissionDenied {
        host.refuse_login(error.clone());
    }
    Failure { error, crowded }
}

/// PBSZ and PROT (RFC 4217 section 9), where they could not be sent before the login.
pub(super) fn protect(control: &mut Control, host: &Host, deadline: Deadline) -> Result<()> {
    let mut reply = None;
    for line in ["PBSZ 0", "PROT P"] {
        control.send(&[line.as_bytes()])?;
        reply = Some(control.final_reply(deadline)?);
    }
    match reply {
        Some(reply) if !reply.is_ok() => Err(Error::new(
            ErrorKind::Untrusted,
            format!(
                "{}: the server will not encrypt data connections: {}",
                host.options().host,
                reply.text()
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether data connections are encrypted where the control connection is.
pub(super) fn protects_data(host: &Host) -> bool {
    host.options().protection == Protection::Private
}

/// Data connections in clear text, as asked for. suppaftp has said PROT P.
pub(super) fn unprotect(control: &mut Control, host: &Host, deadline: Deadline) -> Result<()> {
    let mut replies = control.exchange(&[b"PBSZ 0", b"PROT C"], false, deadline)?;
    match replies.pop() {
        Some(reply) if !reply.is_ok() => Err(Error::new(
            ErrorKind::Untrusted,
            format!(
                "{}: data connections in clear text (-o prot=C) refused: {}",
                host.options().host,
                reply.text()
            ),
        )),
        _ => Ok(()),
    }
}

/// The control connection in clear text from here on, as asked for.
pub(super) fn uncover(mut control: Control, host: &Host, deadline: Deadline) -> Result<Control> {
    control.send(&[b"CCC"])?;
    let reply = control.final_reply(deadline)?;
    if !reply.is_ok() {
        return Err(Error::new(
            ErrorKind::Untrusted,
            format!(
                "{}: a control connection in clear text (-o ccc) refused: {}",
                host.options().host,
                reply.text()
            ),
        ));
    }
    control.uncover(host.options().timeout)
}

/// What every session needs after the login. Most of the answers are the same for all of them and
/// asked for once. Once all were good, later sessions do not wait for those to the settings.
pub(super) fn set_up(control: &mut Control, host: &Host, deadline: Deadline) -> Result<Ready> {
    let known = host.facts(|facts| Some((facts.features.clone()?, facts.home.clone()?)));
    let proven = known.is_some();
    let ((features, mut home), mut connection) = match known {
        Some(known) => (known, None),
        None => match host.facts(|facts| facts.pipelining) {
            None => ask_at_once(control, host, deadline)?,
            Some(_) => (ask_in_turn(control, deadline)?, None),
        },
    };
    let lines = settings(host, &features);
    let mut lines: Vec<_> = lines.iter().map(String::as_bytes).collect();
    let pipelined = host.facts(|facts| facts.pipelining == Some(true));
    if proven && pipelined {
        control.send(&lines)?;
        lines.iter().skip(1).for_each(|_| control.owe(Owed::Wish));
        control.owe(Owed::Setting);
        return Ok(Ready {
            features,
            home,
            connection,
        });
    }
    // What must be told what for refuses EPSV without that.
    let tries = pipelined && features.has("PRET") && host.options().data == DataMode::Passive;
    // What the mount is asked first is what its own directory is.
    let root = root_question(host, &features, &home).filter(|_| pipelined && host.is_far());
    lines.extend(root.as_deref());
    if tries {
        lines.push(b"EPSV");
    }
    let mut replies = control.exchange(&lines, pipelined, deadline)?;
    let told = replies.pop_if(|_| tries);
    if root.is_some() {
        let told = replies.pop().map(|reply| (Instant::now(), reply));
        host.facts(|facts| facts.root_told = told);
    }
    if let Some(reply) = told {
        host.facts(|facts| facts.no_pret = Some(reply.is_ok()));
        if host.is_far() && host.may_try_ahead(&features) {
            connection = Some(Asked::for_reply(host, control, &reply));
        }
    }
    match replies.last() {
        Some(image) if image.is_ok() => {}
        Some(image) => return Err(refusal("TYPE I", image)),
        None => return Err(ErrorKind::Disconnected.into()),
    }
    if !home.is_ascii() {
        // It may be spelled otherwise since OPTS UTF8.
        let again = control.exchange(&[b"PWD"], false, deadline)?;
        home = again.first().and_then(quoted_path).unwrap_or(home);
    }
    host.facts(|facts| {
        facts.features = Some(Arc::clone(&features));
        facts.home = Some(home.clone());
    });
    Ok(Ready {
        features,
        home,
        connection,
    })
}

/// MLST of the mount's directory, where that is asked for by it.
fn root_question(host: &Host, features: &Features, home: &[u8]) -> Option<Vec<u8>> {
    let options = host.options();
    let by_facts = matches!(options.listing, ListingMode::Auto | ListingMode::Mlsd);
    // Otherwise it may be spelled otherwise since OPTS UTF8.
    if !by_facts || !features.has("MLST") || !home.is_ascii() {
        return None;
    }
    let directory = encoding::to_server(options.charset, &options.directory).ok()?;
    let root = ServerRoot::new(home, &directory).ok()?;
    Some([b"MLST ", root.spell(&RemotePath::root()).as_slice()].concat())
}

/// What a session is set to. All are wishes but the last: in ASCII every file would be damaged.
pub(super) fn settings(host: &Host, features: &Features) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let utf8 = host
        .options()
        .charset
        .is_none_or(|charset| charset == encoding_rs::UTF_8);
    if features.has("CLNT") {
        lines.push("CLNT ferryfs".into());
    }
    if utf8 && features.has("UTF8") {
        lines.push("OPTS UTF8 ON".into());
    }
    lines.extend(features.opts_mlst(FACTS));
    lines.push("TYPE I".into());
    lines
}

type Found = (Arc<Features>, Vec<u8>);

/// FEAT after the login and after AUTH TLS: many servers tell more then, some tell nothing before.
fn ask_in_turn(control: &mut Control, deadline: Deadline) -> Result<Found> {
    let replies = control.exchange(&[b"FEAT", b"PWD"], false, deadline)?;
    found(&replies)
}

/// The same, and whether commands may be sent before earlier ones are answered. RFC 959 does not
/// forbid it, but some servers and middleboxes read one line and throw the rest away.
///
/// Who asks for something of a server far away first mostly asks for a listing: its data connection
/// is asked for as well, and made while the settings are answered.
fn ask_at_once(
    control: &mut Control,
    host: &Host,
    deadline: Deadline,
) -> Result<(Found, Option<Asked>)> {
    host.facts(|facts| facts.pipelining = Some(false));
    let mut lines: Vec<&[u8]> = vec![b"FEAT", b"PWD", b"NOOP", b"NOOP", b"SYST"];
    if host.is_far() && host.asks_by_epsv() {
        lines.push(b"EPSV");
    }
    let replies = control.exchange(&lines, true, deadline.at_most(PROBE_LIMIT))?;
    let (found, mut connection) = (found(&replies)?, None);
    if let [_, _, first, second, system, asked @ ..] = replies.as_slice() {
        let good = first.code() == second.code() && control.is_at_rest();
        host.facts(|facts| {
            facts.pipelining = Some(good);
            if system.is_ok() {
                facts.system = Some(String::from_utf8_lossy(system.first_line()).into_owned());
            }
        });
        let asked = asked.first().filter(|_| host.may_try_ahead(&found.0));
        connection = asked.map(|reply| Asked::for_reply(host, control, reply));
    }
    Ok((found, connection))
}

fn found(replies: &[Reply]) -> Result<Found> {
    let [feat, pwd, ..] = replies else {
        return Err(ErrorKind::Disconnected.into());
    };
    if let Some(farewell) = replies.iter().find(|reply| reply.is_farewell()) {
        return Err(refusal("FEAT", farewell));
    }
    let home = quoted_path(pwd).unwrap_or_else(|| b"/".to_vec());
    Ok((Arc::new(Features::parse(feat)), home))
}

/// See `fuzzing`: a home directory may go into a command line.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz_login(reply: &Reply) {
    let path = quoted_path(reply).unwrap_or_default();
    assert!(
        !path.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)),
        "{path:?}"
    );
}

/// The path in a 257 reply (RFC 959 appendix II): in quotes, with quotes in it doubled. What
/// follows is a comment. Some servers forget the quotes.
fn quoted_path(reply: &Reply) -> Option<Vec<u8>> {
    if !reply.is_ok() {
        return None;
    }
    let text = reply.first_line();
    // What no command could name is no directory.
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return None;
    }
    let Some(start) = text.iter().position(|b| *b == b'"') else {
        let bare = text.split(|b| *b == b' ').next()?;
        return bare.starts_with(b"/").then(|| bare.to_vec());
    };
    let mut path = Vec::new();
    let mut rest = text.get(start + 1..)?.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b'"' && rest.next_if_eq(&b'"').is_none() {
            break;
        }
        path.push(byte);
    }
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    #[test]
    fn pwd_in_all_its_forms() {
        for (text, path) in [
            (
                &b"257 \"/home/a b\" is the current directory"[..],
                Some(&b"/home/a b"[..]),
            ),
            (b"257 \"/a\"\"b\" is \"it\"", Some(b"/a\"b")),
            (b"257 \"/caf\xe9\"", Some(b"/caf\xe9")),
            (b"257 \"/open", Some(b"/open")),
            (b"257 /bare is it", Some(b"/bare")),
            (b"257 \"C:\\dir\"", Some(b"C:\\dir")),
            (b"257 somewhere", None),
            (b"257 \"\"", None),
            (b"257 \"/a\rb\"", None),
            (b"257 /a\0b", None),
            (b"550 \"/x\"", None),
        ] {
            let found = quoted_path(&reply(&[text, b"\r\n"].concat()));
            assert_eq!(found.as_deref(), path, "{}", text.escape_ascii());
        }
    }
}
