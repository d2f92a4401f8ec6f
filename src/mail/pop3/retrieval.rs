//! Many commands of one kind with a window: up to so many are on their way at once, which on a far
//! server makes one round trip out of a hundred.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write;

use super::dialogue::Dialogue;
use super::reply::Reply;
use crate::mail::failure::Result;
use crate::mail::line::Counts;

/// What is asked of each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Retr,
    Top,
    Dele,
}

impl Command {
    fn line(self, number: u32) -> String {
        match self {
            Self::Retr => format!("RETR {number}"),
            Self::Top => format!("TOP {number} 0"),
            Self::Dele => format!("DELE {number}"),
        }
    }
}

/// The status line for one message.
#[derive(Debug)]
pub struct Answer {
    /// The message's number.
    pub number: u32,
    /// `+OK`: the text follows and must be taken before the next answer. `-ERR`: this one cannot
    /// be had, others can.
    pub reply: Reply,
}

/// Answers as they come, in the order asked. Dropped before its end it leaves the session unfit
/// for anything but hanging up.
#[derive(Debug)]
pub struct Retrieval<'a> {
    dialogue: &'a mut Dialogue,
    command: Command,
    left: &'a [u32],
    asked: VecDeque<u32>,
    window: usize,
    current: u32,
    /// A text was announced and not taken.
    announced: bool,
}

impl<'a> Retrieval<'a> {
    pub(super) const fn new(
        dialogue: &'a mut Dialogue,
        command: Command,
        left: &'a [u32],
        window: usize,
    ) -> Self {
        Self {
            dialogue,
            command,
            left,
            asked: VecDeque::new(),
            window: if window == 0 { 1 } else { window },
            current: 0,
            announced: false,
        }
    }

    /// The next status line; `None` when all are answered.
    ///
    /// # Errors
    /// The connection's; the session is over.
    #[allow(clippy::should_implement_trait, reason = "it fails, and lends nothing")]
    pub fn next(&mut self) -> Result<Option<Answer>> {
        self.ask()?;
        let Some(number) = self.asked.pop_front() else {
            // A message that forged the replies of later ones leaves theirs over.
            self.dialogue.must_be_quiet()?;
            return Ok(None);
        };
        self.current = number;
        let reply = self.dialogue.reply(&self.command.line(number))?;
        self.announced = reply.ok && self.command != Command::Dele;
        Ok(Some(Answer { number, reply }))
    }

    /// Copies the text announced last to `out`, at most `limit` octets.
    ///
    /// # Errors
    /// The connection's, `Protocol` over the limit, `Local` if `out` fails; the session is over.
    pub fn text(&mut self, out: &mut dyn Write, limit: u64) -> Result<Counts> {
        let what = self.command.line(self.current);
        self.announced = false;
        self.dialogue.text(&what, out, limit)
    }

    /// Fills the window when half of it is used up, in one write.
    fn ask(&mut self) -> Result<()> {
        if self.left.is_empty() || self.asked.len() > self.window / 2 {
            return Ok(());
        }
        let count = (self.window - self.asked.len()).min(self.left.len());
        let (now, later) = self.left.split_at(count);
        let mut lines = String::new();
        for number in now {
            let _ = write!(lines, "{}\r\n", self.command.line(*number));
        }
        self.left = later;
        self.asked.extend(now);
        log::trace!("> {}", lines.trim_end());
        self.dialogue.send_lines(&lines)
    }
}

impl Drop for Retrieval<'_> {
    fn drop(&mut self) {
        if self.announced || !self.asked.is_empty() {
            self.dialogue.abandon();
        }
    }
}
