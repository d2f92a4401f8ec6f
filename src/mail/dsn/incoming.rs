//! Reports of other machines about what we sent.

use std::ops::Range;

use super::super::decode::{Base64, Quoted};
use super::super::envelope::from_xtext;
use super::super::failure::words;
use super::super::fields::find;
use super::super::filter::Filter;
use super::super::structure::{self, Kind, Part};

/// More recipients than this in one report are not read.
const MOST_RECIPIENTS: usize = 1000;

/// What became of a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It will not be delivered.
    Failed,
    /// It was not delivered yet.
    Delayed,
    /// It was delivered.
    Delivered,
    /// It went to a machine that sends no reports.
    Relayed,
    /// It went to a list or an alias.
    Expanded,
}

/// One recipient of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingRecipient {
    /// Who, as the reporting machine knew it.
    pub address: String,
    /// Who, as we called it, if the machine remembers.
    pub original: Option<String>,
    /// What became of it.
    pub action: Action,
    /// `5.1.1` and the like.
    pub status: String,
    /// What a server said.
    pub diagnostic: String,
}

/// A report that came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The ENVID we gave: the message's name in our queue.
    pub envelope_id: Option<String>,
    /// The Message-ID of what was sent, brackets included.
    pub message_id: Option<String>,
    /// Who reports.
    pub reporter: Option<String>,
    /// About whom.
    pub recipients: Vec<IncomingRecipient>,
}

impl Incoming {
    /// The report in `message`, if it is one.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        // Parsers that make a tree of it end in their own depth: anybody may write a report.
        let parts = structure::read(&message).ok()?;
        if !parts.first()?.is("multipart/report") {
            return None;
        }
        let mut report = Self::default();
        for part in parts.iter().filter(|part| !is_inside(&parts, part)) {
            let is = |names: [&str; 2]| names.into_iter().any(|name| part.is(name));
            if is(["message/delivery-status", "message/global-delivery-status"]) {
                report.read(&content(message, part));
            } else if is(["text/rfc822-headers", "message/global-headers"])
                || is(["message/rfc822", "message/global"])
            {
                let id = || message_id(&content(message, part));
                report.message_id = report.message_id.or_else(id);
            }
        }
        (!report.recipients.is_empty()).then_some(report)
    }

    /// Whether it is about the message with this name in the queue, or this Message-ID.
    #[must_use]
    pub fn is_about(&self, id: &str, message_id: Option<&str>) -> bool {
        // The Message-ID may have been in anybody's mail; ENVID only we and the servers know.
        self.envelope_id.as_deref() == Some(id)
            || (message_id.is_some() && self.message_id.as_deref() == message_id)
    }

    /// Groups of fields: one about the message, then one for each recipient.
    fn read(&mut self, status: &[u8]) {
        for group in groups(status).into_iter().take(MOST_RECIPIENTS) {
            let get = |name: &str| {
                let found = group.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.as_str())
            };
            if let Some(id) = get("Original-Envelope-Id") {
                self.envelope_id = Some(from_xtext(id));
            }
            if let Some(mta) = get("Reporting-MTA") {
                self.reporter = Some(typed(mta).to_owned());
            }
            let action = get("Action").and_then(action);
            let address = get("Final-Recipient").or_else(|| get("Original-Recipient"));
            if let (Some(action), Some(address)) = (action, address) {
                self.recipients.push(IncomingRecipient {
                    address: from_xtext(typed(address)),
                    original: get("Original-Recipient").map(|o| from_xtext(typed(o))),
                    action,
                    status: get("Status").unwrap_or_default().to_owned(),
                    diagnostic: get("Diagnostic-Code")
                        .map(typed)
                        .unwrap_or_default()
                        .to_owned(),
                });
            }
        }
    }
}

/// Whether `part` is in a message that is brought back.
fn is_inside(parts: &[Part], part: &Part) -> bool {
    let mut outer = part.parent.and_then(|index| parts.get(index));
    while let Some(part) = outer {
        if part.kind == Kind::Message {
            return true;
        }
        outer = part.parent.and_then(|index| parts.get(index));
    }
    false
}

fn of<'a>(message: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    message
        .get(place(range.start)..place(range.end))
        .unwrap_or_default()
}

fn content(message: &[u8], part: &Part) -> Vec<u8> {
    let raw = of(message, &part.body);
    let mut filter: Box<dyn Filter> = match part.encoding.as_str() {
        "base64" => Box::<Base64>::default(),
        "quoted-printable" => Box::<Quoted>::default(),
        _ => return raw.to_vec(),
    };
    let mut decoded = Vec::new();
    filter.feed(raw, &mut decoded);
    filter.finish(&mut decoded);
    decoded
}

fn action(word: &str) -> Option<Action> {
    let known = [
        ("failed", Action::Failed),
        ("delayed", Action::Delayed),
        ("delivered", Action::Delivered),
        ("relayed", Action::Relayed),
        ("expanded", Action::Expanded),
    ];
    let found = known
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name));
    found.map(|(_, action)| *action)
}

/// `rfc822; bob@example.org` without its type.
fn typed(value: &str) -> &str {
    value.split_once(';').map_or(value, |(_, text)| text).trim()
}

/// Fields in groups divided by empty lines, unfolded, printable.
fn groups(text: &[u8]) -> Vec<Vec<(String, String)>> {
    let mut groups: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(group) = groups.last_mut() else {
            break;
        };
        if line.is_empty() {
            if !group.is_empty() {
                groups.push(Vec::new());
            }
        } else if line.starts_with(b" ") || line.starts_with(b"\t") {
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(&words(line));
            }
        } else if let Some(at) = memchr::memchr(b':', line) {
            let (name, value) = line.split_at(at);
            group.push((words(name), words(value.get(1..).unwrap_or_default())));
        }
    }
    groups
}

fn message_id(header: &[u8]) -> Option<String> {
    find(header, "Message-ID").map(|field| words(&field.unfolded()))
}
