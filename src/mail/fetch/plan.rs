//! What is to be done about a listing: decided here, without a network.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::options::ServerDelete;
use crate::mail::ledger::{Ledger, Record, State};
use crate::mail::pop3::Entry;

/// Deletions that are never too many.
const FEW_DELETIONS: usize = 50;

/// Records of messages that are gone here and there are kept so long: some servers (Gmail's
/// "recent mode") show them again weeks later.
const FORGET_AFTER: Duration = Duration::from_secs(90 * 86_400);

/// A message on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) number: u32,
    /// `None` where only its content will tell.
    pub(super) uidl: Option<Box<[u8]>>,
    /// As the server counts, 0 where it does not.
    pub(super) octets: u64,
}

/// Gives the entries of a listing identities that are good for a ledger.
pub(super) fn identify(entries: Vec<Entry>) -> Vec<Message> {
    let mut sizes: HashMap<Box<[u8]>, Option<u64>> = HashMap::new();
    entries
        .into_iter()
        .map(|entry| {
            let mut uidl = entry.uidl;
            // Equal identities are allowed for equal messages only (RFC 1939 section 7); a server
            // that gives them to others must not make us overlook one.
            if let Some(id) = &mut uidl
                && let Some(first) = sizes.get(id)
                && *first != entry.size
            {
                let told = format!("#{}", entry.size.unwrap_or_default());
                *id = [id, told.as_bytes()].concat().into();
            }
            if let Some(id) = &uidl {
                sizes.entry(id.clone()).or_insert(entry.size);
            }
            Message {
                number: entry.number,
                uidl,
                octets: entry.size.unwrap_or_default(),
            }
        })
        .collect()
}

/// A listing compared with the ledger.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Messages the ledger does not know, newest first, each identity once.
    pub(super) unknown: Vec<Message>,
    /// Messages it knows under an identity that may have passed to another message: of another
    /// size, or deleted long ago.
    pub(super) doubtful: Vec<Message>,
    /// Records of messages that were there the last time.
    pub(super) vanished: Vec<Record>,
    /// Records that are to be written in any case: what came back, what is gone.
    pub(super) changed: Vec<Record>,
    /// So many vanished and so many appeared that the server may have renumbered.
    pub(super) renumbered: bool,
}

/// Compares. `now` in seconds since 1970.
pub(super) fn compare(messages: &[Message], ledger: &Ledger, now: u64) -> Comparison {
    let mut found = Comparison::default();
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(messages.len());
    // Higher numbers are newer on every server.
    for message in messages.iter().rev() {
        let record = match &message.uidl {
            Some(uidl) if !seen.insert(uidl) => continue,
            Some(uidl) => ledger.get(uidl),
            None => None,
        };
        match record {
            None => found.unknown.push(message.clone()),
            Some(record) if record.state == State::Deleted || record.octets != message.octets => {
                found.doubtful.push(message.clone());
            }
            Some(record) if record.gone => found.changed.push(Record {
                gone: false,
                ..record.clone()
            }),
            Some(_) => {}
        }
    }
    let mut expected = 0;
    for record in ledger.iter() {
        let listed = seen.contains(&*record.uidl);
        let was_there = !record.gone && record.state != State::Deleted;
        expected += usize::from(was_there);
        if listed {
            continue;
        }
        let forget = matches!(record.state, State::Kept | State::Deleted)
            && now.saturating_sub(record.changed) > FORGET_AFTER.as_secs();
        if was_there {
            found.vanished.push(record.clone());
        }
        if forget || !record.gone {
            found.changed.push(Record {
                gone: true,
                state: match record.state {
                    _ if forget => State::Forgotten,
                    State::DeleteWanted => State::Deleted,
                    other => other,
                },
                ..record.clone()
            });
        }
    }
    found.renumbered = found.vanished.len() * 2 > expected
        && found.unknown.len() * 2 >= found.vanished.len()
        && !found.unknown.is_empty();
    found
}

/// The numbers to delete under `policy`, with their records. `has` says whether the store has a
/// file of this base name: what is neither here nor was removed by the user is not deleted there.
/// Of several with one identity only the newest, which is the one that was received: the next
/// session sees whether another one has the same header, and fetches it if not.
pub(super) fn deletions(
    messages: &[Message],
    ledger: &Ledger,
    policy: ServerDelete,
    now: u64,
    has: impl Fn(&str) -> bool,
) -> Vec<(u32, Record)> {
    let due = |record: &Record| match (policy, record.state) {
        (ServerDelete::Never, _) | (_, State::Deleted | State::Forgotten) => false,
        (_, State::DeleteWanted) => true,
        (ServerDelete::OnUnlink, _) => false,
        (ServerDelete::AfterFetch, _) => true,
        (ServerDelete::After(age), _) => now.saturating_sub(record.fetched) >= age.as_secs(),
    };
    let mut seen = HashSet::with_capacity(messages.len());
    let newest_first = messages.iter().rev().filter_map(|message| {
        let uidl = message.uidl.as_deref()?;
        let record = ledger.get(uidl).filter(|_| seen.insert(uidl))?;
        let safe = record.state != State::Fetched || has(&record.name);
        (due(record) && safe && record.octets == message.octets)
            .then(|| (message.number, record.clone()))
    });
    let mut doomed: Vec<_> = newest_first.collect();
    doomed.reverse();
    doomed
}

/// Whether to ask before so many of so many known messages are deleted in one session. Deleting
/// what was just fetched is what `after-fetch` is for.
pub(super) fn too_many(deletions: usize, known: usize, policy: ServerDelete) -> bool {
    policy != ServerDelete::AfterFetch && deletions > FEW_DELETIONS.max(known / 5)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
