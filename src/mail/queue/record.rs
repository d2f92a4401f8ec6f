//! One line of the journal: a checksum, and an event in JSON.

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Id, Told};
use crate::vfs::sealed::{seal, unseal};

/// What happened to a message, or to the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Event {
    /// A process began with this journal, in this boot of the machine.
    Opened {
        /// What was written in the same boot is there, fsync or not.
        boot: String,
    },
    /// It is to be sent. Before this it was not ours.
    Queued {
        /// First attempt, in seconds since 1970.
        due: u64,
        /// The message, if it has no file: the envelope in the first line, an empty line, the rest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Box<str>>,
    },
    /// These recipients are about to be sent to; durable before any final dot.
    Armed(Vec<usize>),
    /// The final dot for these goes out now. Not made durable: it only tells apart, after a crash
    /// of the process alone, which of the armed ones were really sent.
    Dot(Vec<usize>),
    /// Nothing was sent to these after all.
    Disarmed(Vec<usize>),
    /// An attempt ended.
    Told {
        /// It counts for the schedule.
        counted: bool,
        /// What became of whom.
        told: Vec<Told>,
        /// What was said, unless all went well.
        said: Vec<String>,
    },
    /// The user wants it tried now.
    Retry,
    /// The user wants it kept, or no longer kept.
    Hold(bool),
    /// The user wants it not sent to anybody it was not sent to yet.
    Cancelled,
    /// A copy is in `.Sent`.
    Filed,
    /// The sender knows of these failures.
    Reported(Vec<usize>),
    /// The sender knows that it takes long.
    DelayReported,
    /// It is gone; its file is removed.
    Gone,
    /// All of it, in a journal written anew.
    Whole(Box<Entry>),
}

/// An event, when it was, and whose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Seconds since 1970.
    pub(super) at: u64,
    /// The message; `None` for the queue itself.
    pub(super) id: Option<Id>,
    pub(super) event: Event,
}

impl Record {
    /// As a line, its end included.
    pub(super) fn line(&self) -> serde_json::Result<String> {
        seal(self)
    }

    /// A line without its end.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        unseal(line)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_only_if_every_bit_is_right() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        let record = Record {
            at: 7,
            id: Id::parse("abc"),
            event: Event::Queued {
                due: 8,
                text: Some("{}\n\nSubject: \"\u{e9}\"\r\n".into()),
            },
        };
        let line = record.line().unwrap();
        let bare = line.strip_suffix('\n').unwrap().as_bytes();
        assert_eq!(Record::parse(bare), Some(record));
        for at in 0..bare.len() {
            let mut rotten = bare.to_vec();
            rotten[at] ^= 1;
            assert_eq!(Record::parse(&rotten), None, "bit in octet {at}");
            assert_eq!(Record::parse(&bare[..at]), None, "cut at {at}");
        }
    }
}
