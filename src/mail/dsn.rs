//! Reports of delivery (RFC 3464): those we write about our own failures and delays, which go
//! straight into the inbox, and those that come in, matched to what was sent.

mod incoming;

use std::fmt::Write as _;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use incoming::{Action, Incoming, IncomingRecipient};

use super::envelope::{self, BringBack, Notify, Recipient};
use super::queue::{Entry, Progress, now};

/// A larger message is not brought back whole.
const LARGEST_BROUGHT_BACK: usize = 1 << 20;

/// More header than this is not brought back.
const LONGEST_HEADER: usize = 256 * 1024;

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It will never be delivered.
    Failed,
    /// It was not delivered yet, and is still tried until this time, in seconds since 1970.
    Delayed {
        /// The end of trying.
        until: u64,
    },
}

/// A report about `recipients` of `entry`, with lines ended by LF, from `host`; `None` if nobody
/// wants one: a message with an empty sender never gets an answer, or two machines would answer
/// each other for ever.
///
/// # Errors
/// Of reading `message`.
pub fn report(
    occasion: Occasion,
    entry: &Entry,
    recipients: &[usize],
    host: &str,
    message: &mut dyn Read,
) -> io::Result<Option<Vec<u8>>> {
    let wanted: Vec<_> = recipients
        .iter()
        .filter_map(|i| {
            Some((
                entry.envelope.recipients.get(*i)?,
                entry.recipients.get(*i)?,
            ))
        })
        .filter(|(recipient, _)| {
            recipient
                .notify
                .is_none_or(|notify| wants(occasion, notify))
        })
        .collect();
    let Some(sender) = entry
        .envelope
        .sender
        .as_ref()
        .filter(|_| !wanted.is_empty())
    else {
        return Ok(None);
    };
    let (back, whole) = brought_back(entry, message)?;
    let boundary = boundary(entry, &back);
    let eight_bit = !back.is_ascii();

    let mut text = String::new();
    let (title, kind) = match occasion {
        Occasion::Failed => ("Undelivered mail", "failed"),
        Occasion::Delayed { .. } => ("Delayed mail", "delayed"),
    };
    let first = recipients.first().copied().unwrap_or_default();
    let _ = write!(
        text,
        "Return-Path: <>\n\
         Date: {}\n\
         From: Mail Delivery System <MAILER-DAEMON@{host}>\n\
         To: {sender}\n\
         Subject: {}\n\
         Message-ID: <{}.{first}.{kind}@{host}>\n",
        date(now()),
        encoded(&format!("{title}: {}", entry.envelope.subject)),
        entry.id,
    );
    if let Some(id) = &entry.envelope.message_id {
        let _ = write!(text, "In-Reply-To: {id}\nReferences: {id}\n");
    }
    let _ = write!(
        text,
        "Auto-Submitted: auto-replied\n\
         MIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status;\n\
         \x20boundary=\"{boundary}\"\n"
    );
    if eight_bit {
        text.push_str("Content-Transfer-Encoding: 8bit\n");
    }
    let _ = write!(
        text,
        "\n--{boundary}\n\
         Content-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 8bit\n\
         Content-Description: Notification\n\n"
    );
    explain(&mut text, occasion, entry, &wanted);
    let _ = write!(
        text,
        "\n--{boundary}\n\
         Content-Type: message/delivery-status\n\
         Content-Description: Delivery report\n\n"
    );
    machine_part(&mut text, occasion, entry, &wanted, host);
    let (kind, description) = if whole {
        ("message/rfc822", "The message")
    } else {
        ("text/rfc822-headers", "The header of the message")
    };
    let _ = write!(
        text,
        "\n--{boundary}\nContent-Type: {kind}\nContent-Description: {description}\n"
    );
    if eight_bit {
        text.push_str("Content-Transfer-Encoding: 8bit\n");
    }
    text.push('\n');
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&back);
    bytes.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
    Ok(Some(bytes))
}

const fn wants(occasion: Occasion, notify: Notify) -> bool {
    match occasion {
        Occasion::Failed => notify.failure,
        Occasion::Delayed { .. } => notify.delay,
    }
}

/// What people read.
fn explain(
    text: &mut String,
    occasion: Occasion,
    entry: &Entry,
    about: &[(&Recipient, &Progress)],
) {
    let subject = line(&entry.envelope.subject);
    match occasion {
        Occasion::Failed => {
            let _ = writeln!(
                text,
                "Your message \"{subject}\" of {} could not be delivered to:\n",
                date(entry.queued_at)
            );
        }
        Occasion::Delayed { until } => {
            let _ = writeln!(
                text,
                "Your message \"{subject}\" of {} was not delivered yet. You need do nothing: it \
                 is\ntried until {}. So far it did not reach:\n",
                date(entry.queued_at),
                date(until)
            );
        }
    }
    for (recipient, progress) in about {
        let _ = writeln!(
            text,
            "  {}\n    {}",
            recipient.address,
            line(&progress.text)
        );
    }
    if occasion == Occasion::Failed {
        let _ = writeln!(
            text,
            "\nIt is kept in failed/{}, from where it can be sent again.",
            entry.id
        );
    }
}

/// What programs read (RFC 3464 section 2).
fn machine_part(
    text: &mut String,
    occasion: Occasion,
    entry: &Entry,
    about: &[(&Recipient, &Progress)],
    host: &str,
) {
    let _ = writeln!(
        text,
        "Original-Envelope-Id: {}\nReporting-MTA: dns; {host}\nArrival-Date: {}",
        entry.id,
        date(entry.queued_at)
    );
    for (recipient, progress) in about {
        text.push('\n');
        if let Some(original) = recipient.original.as_ref().filter(|o| o.is_ascii()) {
            let _ = writeln!(
                text,
                "Original-Recipient: rfc822;{}",
                envelope::xtext(original)
            );
        }
        let path = envelope::path(&recipient.address);
        let kind = if path.is_ascii() { "rfc822" } else { "utf-8" };
        let action = match occasion {
            Occasion::Failed => "failed",
            Occasion::Delayed { .. } => "delayed",
        };
        let _ = write!(
            text,
            "Final-Recipient: {kind};{}\nAction: {action}\nStatus: {}\n",
            path.trim_matches(['<', '>']),
            status(occasion, &progress.text)
        );
        let diagnostic: String = line(&progress.text)
            .chars()
            .map(|c| if c.is_ascii() { c } else { '?' })
            .collect();
        if reply_code(&progress.text).is_some() {
            let _ = writeln!(text, "Diagnostic-Code: smtp; {diagnostic}");
        } else {
            let _ = writeln!(text, "Diagnostic-Code: x-ferryfs; {diagnostic}");
        }
        let _ = writeln!(text, "Last-Attempt-Date: {}", date(progress.at));
        if let Occasion::Delayed { until } = occasion {
            let _ = writeln!(text, "Will-Retry-Until: {}", date(until));
        }
    }
}

fn reply_code(text: &str) -> Option<u16> {
    let (code, rest) = text.split_at_checked(3)?;
    let alone = rest.is_empty() || rest.starts_with(' ');
    code.parse()
        .ok()
        .filter(|code| alone && (200..600).contains(code))
}

/// The status code of a recipient: the server's, or what its reply code says, or that time is up.
fn status(occasion: Occasion, text: &str) -> String {
    let class = match occasion {
        Occasion::Failed => '5',
        Occasion::Delayed { .. } => '4',
    };
    let words = reply_code(text).and_then(|_| text.split(' ').nth(1));
    let plain = |word: &&str| {
        let numbers = word.split('.').filter(|part| part.parse::<u16>().is_ok());
        word.starts_with(class) && numbers.count() == 3 && word.split('.').count() == 3
    };
    match words.filter(plain) {
        Some(enhanced) => enhanced.to_owned(),
        None if reply_code(text).is_none() && class == '5' => "5.4.7".to_owned(),
        None => format!("{class}.0.0"),
    }
}

/// The message or its header, with lines ended by LF, and which of the two.
fn brought_back(entry: &Entry, message: &mut dyn Read) -> io::Result<(Vec<u8>, bool)> {
    let small = entry.envelope.needs.octets <= LARGEST_BROUGHT_BACK as u64;
    let whole = small && entry.envelope.bring_back != Some(BringBack::Headers);
    let most = if whole {
        LARGEST_BROUGHT_BACK
    } else {
        LONGEST_HEADER
    };
    let mut bytes = Vec::new();
    message.take(most as u64).read_to_end(&mut bytes)?;
    let mut lf = Vec::with_capacity(bytes.len());
    for piece in bytes.split_inclusive(|b| *b == b'\n') {
        match piece.strip_suffix(b"\r\n") {
            Some(line) => lf.extend_from_slice(&[line, b"\n"].concat()),
            None => lf.extend_from_slice(piece),
        }
    }
    if !whole {
        let end = lf.windows(2).position(|pair| pair == b"\n\n");
        lf.truncate(end.map_or(lf.len(), |at| at + 1));
    }
    Ok((lf, whole))
}

/// One that stands in no line of the message.
fn boundary(entry: &Entry, back: &[u8]) -> String {
    let mut boundary = format!("=_{}", entry.id);
    while memchr::memmem::find(back, boundary.as_bytes()).is_some() {
        boundary.push('_');
    }
    boundary
}

fn date(seconds: u64) -> String {
    // The year 9999 is as far as dates go.
    let seconds = i64::try_from(seconds.min(253_402_300_799)).unwrap_or_default();
    mail_parser::DateTime::from_timestamp(seconds).to_rfc822()
}

fn line(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.collect()
}

/// Header text, as encoded words if it is not ASCII (RFC 2047), folded.
fn encoded(text: &str) -> String {
    let text = line(text);
    if text.is_ascii() && text.len() < 900 {
        return text;
    }
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() && words.len() < 40 {
        let (word, after) = rest.split_at(rest.floor_char_boundary(42));
        words.push(format!("=?utf-8?B?{}?=", BASE64.encode(word)));
        rest = after;
    }
    words.join("\n ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
