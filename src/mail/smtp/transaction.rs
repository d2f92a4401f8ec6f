//! One message over a session: MAIL, RCPT, DATA, the message, the final dot.
//!
//! BDAT in place of DATA and the dot (RFC 3030) where it is of use: one round trip less with a server
//! that takes no commands ahead; no second look at every line of a large message; lines that are too
//! long for DATA. A chunk is never sent before the recipients are answered, as it could: a connection
//! that ended then would leave every message in doubt.

use std::fmt::Write as _;
use std::io::Read;
use std::time::{Duration, Instant};

use super::body::DotStuffing;
use super::extensions::Extensions;
use super::reply::Reply;
use super::session::Session;
use super::verdict::{Stage, Verdict, verdict};
use crate::mail::envelope::{self, Envelope};
use crate::mail::failure::{Class, Failure, Result};

/// Most recipients of one transaction: every server takes 100 (RFC 5321 section 4.5.3.1.8).
const MOST_RECIPIENTS: usize = 100;

/// Piece of a message read and sent at once. A smaller message goes out in one write, dot included.
const BLOCK: usize = 64 * 1024;

/// From this size on, in octets, a message is a chunk.
const LARGE: u64 = 1 << 20;

/// Longest line that DATA carries, its end not counted (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 998;

/// A server that takes a message more slowly than so many octets a second is given up.
const SLOWEST: u64 = 256;

/// Why a server cannot be given a message as it is; found out before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Larger than this (5.3.4).
    TooLarge(u64),
    /// It must be encoded in ASCII first: no 8BITMIME (5.6.3).
    NeedsSevenBit,
    /// It cannot be said without SMTPUTF8 (5.6.7).
    NeedsUtf8,
}

/// What is said for one message and some of its recipients, to one server.
#[derive(Debug, Clone)]
pub struct Transaction {
    mail: String,
    /// Index in the envelope, and command.
    rcpts: Vec<(usize, String)>,
    octets: u64,
    /// It is sent with BDAT.
    chunk: bool,
    /// The server is to hold it.
    held: bool,
}

impl Transaction {
    /// As many of `recipients` (indices in the envelope) as one transaction takes. `id` comes back
    /// in reports (ENVID).
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn new(
        offered: &Extensions,
        envelope: &Envelope,
        recipients: &[usize],
        id: &str,
    ) -> std::result::Result<Self, Unfit> {
        let needs = &envelope.needs;
        if let Some(limit) = offered.max_size.filter(|limit| needs.octets > *limit) {
            return Err(Unfit::TooLarge(limit));
        }
        let most = offered.max_recipients.unwrap_or(MOST_RECIPIENTS);
        let chosen: Vec<_> = recipients
            .iter()
            .take(most.min(MOST_RECIPIENTS))
            .filter_map(|index| Some((*index, envelope.recipients.get(*index)?)))
            .collect();
        let sender = envelope.sender.as_ref();
        let local_parts = chosen.iter().map(|(_, r)| &r.address).chain(sender);
        let utf8 = needs.utf8_header || !local_parts.into_iter().all(|a| a.user().is_ascii());
        if utf8 && !offered.utf8 {
            return Err(Unfit::NeedsUtf8);
        }
        let binary = offered.chunking && offered.binary && needs.longest_line > LONGEST_LINE;
        if needs.eight_bit && !offered.eight_bit && !binary {
            return Err(Unfit::NeedsSevenBit);
        }

        let path = sender.map_or_else(|| "<>".to_owned(), envelope::path);
        let mut mail = format!("MAIL FROM:{path}");
        if offered.size {
            let _ = write!(mail, " SIZE={}", needs.octets);
        }
        if binary {
            mail.push_str(" BODY=BINARYMIME");
        } else if offered.eight_bit && needs.eight_bit {
            mail.push_str(" BODY=8BITMIME");
        }
        if utf8 {
            mail.push_str(" SMTPUTF8");
        }
        if offered.dsn {
            if let Some(bring_back) = envelope.bring_back {
                let _ = write!(mail, " RET={}", bring_back.word());
            }
            let name = envelope.envelope_id.as_deref().unwrap_or(id);
            let _ = write!(mail, " ENVID={}", envelope::xtext(name));
        }
        let rcpts = chosen
            .into_iter()
            .map(|(index, recipient)| {
                let mut rcpt = format!("RCPT TO:{}", envelope::path(&recipient.address));
                if offered.dsn {
                    if let Some(notify) = recipient.notify {
                        let _ = write!(rcpt, " NOTIFY={notify}");
                    }
                    if let Some(original) = recipient.original.as_ref().filter(|o| o.is_ascii()) {
                        let _ = write!(rcpt, " ORCPT=rfc822;{}", envelope::xtext(original));
                    }
                }
                (index, rcpt)
            })
            .collect();
        Ok(Self {
            mail,
            rcpts,
            octets: needs.octets,
            chunk: offered.chunking && (binary || !offered.pipelining || needs.octets >= LARGE),
            held: false,
        })
    }

    /// The same, to be held by the server for so many seconds (RFC 4865).
    #[must_use]
    pub fn held_for(mut self, seconds: u64) -> Self {
        let _ = write!(self.mail, " HOLDFOR={seconds}");
        self.held = true;
        self
    }

    /// Indices in the envelope.
    pub fn recipients(&self) -> impl Iterator<Item = usize> {
        self.rcpts.iter().map(|(index, _)| *index)
    }
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Index in the envelope.
    pub recipient: usize,
    /// What is to be done.
    pub verdict: Verdict,
    /// The server's reply, or what went wrong, in one line.
    pub text: String,
}

/// What became of a transaction.
#[derive(Debug)]
pub struct Outcome {
    /// One for each recipient, in order.
    pub answers: Vec<Answer>,
    /// Why the session is over, if it is.
    pub failure: Option<Failure>,
    /// What was said.
    pub transcript: Vec<String>,
    /// The final dot was sent, or may have been.
    pub dot_sent: bool,
    /// The server offers BDAT and does not know it: nothing can be said of the message.
    pub chunk_refused: bool,
    /// MAIL was refused, perhaps only since the server was to hold the message: nothing can be said
    /// of it before its time.
    pub hold_refused: bool,
}

/// What a server said to the beginning of a transaction.
enum Introduced {
    /// Nobody is to get the message, and all have their answers.
    Nobody,
    /// To DATA.
    Data(Reply),
    /// It takes a chunk for somebody.
    Chunk,
}

/// How the sending of a message ended.
enum Body {
    /// The dot was sent, or may have been.
    Ended,
    /// The server did not wait for it.
    Answered(Reply),
}

/// Whether a reply is of a server that does not know a command, or not here.
const fn is_unknown(reply: &Reply) -> bool {
    matches!(reply.code, 500..=504)
}

impl Session {
    /// Carries `transaction` with the message in `body`. `before_dot` is called when everything
    /// but the last piece is sent; only if it succeeds the server gets the end of the message.
    /// `next` is announced together with it, where the server allows that: then it must be what is
    /// carried next, or the session is to be dropped.
    pub fn carry(
        &mut self,
        transaction: &Transaction,
        body: &mut dyn Read,
        before_dot: &mut dyn FnMut() -> Result<()>,
        next: Option<&Transaction>,
    ) -> Outcome {
        self.count();
        let mut answers: Vec<_> = transaction
            .recipients()
            .map(|recipient| Answer {
                recipient,
                verdict: Verdict::Deferred,
                text: String::new(),
            })
            .collect();
        let mut dot_sent = false;
        let carried = self.exchange(
            transaction,
            &mut answers,
            body,
            before_dot,
            next,
            &mut dot_sent,
        );
        let failure = carried.err();
        if let Some(failure) = &failure {
            self.dialogue.abandon();
            for answer in answers.iter_mut().filter(|a| a.is_open()) {
                answer.text = failure.detail().to_owned();
                answer.verdict = if dot_sent {
                    Verdict::InDoubt
                } else {
                    Verdict::Deferred
                };
            }
        }
        Outcome {
            answers,
            failure,
            transcript: self.dialogue.take_transcript(),
            dot_sent,
            chunk_refused: std::mem::take(&mut self.chunk_refused),
            hold_refused: std::mem::take(&mut self.hold_refused),
        }
    }

    fn exchange(
        &mut self,
        transaction: &Transaction,
        answers: &mut [Answer],
        body: &mut dyn Read,
        before_dot: &mut dyn FnMut() -> Result<()>,
        next: Option<&Transaction>,
        dot_sent: &mut bool,
    ) -> Result<()> {
        match self.introduce(transaction, answers)? {
            Introduced::Nobody => return Ok(()),
            Introduced::Chunk => {}
            Introduced::Data(data) if !self.may_begin(answers, &data)? => return Ok(()),
            Introduced::Data(_) => {}
        }
        let reply = match self.send_body(transaction, body, before_dot, next, dot_sent)? {
            Body::Ended => self.final_reply()?,
            Body::Answered(reply) => {
                self.dialogue.abandon();
                // Before the dot a yes is nonsense; behind it, it is the answer of a server that
                // went away while we wrote more.
                if reply.code / 100 < 4 && !*dot_sent {
                    let said = format!("message: {} before its end", reply.text());
                    return Err(self.dialogue.fail(Class::Protocol, &said));
                }
                reply
            }
        };
        if transaction.chunk && is_unknown(&reply) {
            (*dot_sent, self.chunk_refused) = (false, true);
            let said = format!("BDAT: {}, though it offers CHUNKING", reply.text());
            return Err(self.dialogue.fail(Class::Protocol, &said));
        }
        decide(answers, Stage::Final, &reply);
        // Whatever the answer was, it was one.
        *dot_sent = false;
        self.still_there(&reply)
    }

    /// Whether the server waits for the message after it said `data` to DATA.
    fn may_begin(&mut self, answers: &mut [Answer], data: &Reply) -> Result<bool> {
        if data.is_positive() {
            let said = format!("DATA: {}, and there is no message yet", data.text());
            return Err(self.dialogue.fail(Class::Protocol, &said));
        }
        if data.code != 354 {
            // Nobody was accepted, and DATA was refused with them: they have their answers.
            decide(answers, Stage::Data, data);
            self.unfinished = true;
            return self.still_there(data).map(|()| false);
        }
        if !answers.iter().any(Answer::is_open) {
            return self.lone_dot().map(|()| false);
        }
        Ok(true)
    }

    /// MAIL, RCPT and, if it is no chunk, DATA.
    fn introduce(
        &mut self,
        transaction: &Transaction,
        answers: &mut [Answer],
    ) -> Result<Introduced> {
        if self.pipelining {
            if !std::mem::take(&mut self.announced) {
                self.reset()?;
                self.announce(transaction);
                self.dialogue.flush()?;
            }
            return self.read_introduction(transaction, answers);
        }
        self.reset()?;
        let limit = self.timeouts.command;
        let reply = self.dialogue.ask(&transaction.mail, limit)?;
        if !reply.is_positive() {
            self.hold_refused = transaction.held && reply.code / 100 == 5;
            decide(answers, Stage::Mail, &reply);
            return self.still_there(&reply).map(|()| Introduced::Nobody);
        }
        self.unfinished = true;
        for ((_, rcpt), answer) in transaction.rcpts.iter().zip(answers.iter_mut()) {
            let reply = self.dialogue.ask(rcpt, limit)?;
            answer.take(Stage::Rcpt, &reply);
            self.still_there(&reply)?;
        }
        if !answers.iter().any(Answer::is_open) {
            return Ok(Introduced::Nobody);
        }
        if transaction.chunk {
            return Ok(Introduced::Chunk);
        }
        let reply = self.dialogue.ask("DATA", self.timeouts.data)?;
        Ok(Introduced::Data(reply))
    }

    /// Makes the commands of `transaction` ready to be sent in one piece.
    fn announce(&mut self, transaction: &Transaction) {
        self.dialogue.put(&transaction.mail, &transaction.mail);
        for (_, rcpt) in &transaction.rcpts {
            self.dialogue.put(rcpt, rcpt);
        }
        if !transaction.chunk {
            self.dialogue.put("DATA", "DATA");
        }
    }

    fn read_introduction(
        &mut self,
        transaction: &Transaction,
        answers: &mut [Answer],
    ) -> Result<Introduced> {
        let limit = self.timeouts.command;
        let mail = self.dialogue.reply("MAIL", limit)?;
        if !mail.is_positive() {
            self.hold_refused = transaction.held && mail.code / 100 == 5;
            decide(answers, Stage::Mail, &mail);
        }
        self.still_there(&mail)?;
        for ((_, rcpt), answer) in transaction.rcpts.iter().zip(answers.iter_mut()) {
            let reply = self.dialogue.reply(rcpt, limit)?;
            // After a refused MAIL, "503 bad sequence" is nothing new.
            if mail.is_positive() {
                answer.take(Stage::Rcpt, &reply);
            }
            self.still_there(&reply)?;
        }
        if !transaction.chunk {
            let reply = self.dialogue.reply("DATA", self.timeouts.data)?;
            return Ok(Introduced::Data(reply));
        }
        if answers.iter().any(Answer::is_open) {
            return Ok(Introduced::Chunk);
        }
        self.unfinished = mail.is_positive();
        Ok(Introduced::Nobody)
    }

    /// All recipients were refused and the server waits for a message all the same: it gets an
    /// empty one for nobody, and refuses it (RFC 2920 section 3.1).
    fn lone_dot(&mut self) -> Result<()> {
        let reply = self.dialogue.ask(".", self.timeouts.end)?;
        self.unfinished = true;
        self.still_there(&reply)
    }

    /// Ends a transaction that was begun and not ended.
    fn reset(&mut self) -> Result<()> {
        if std::mem::take(&mut self.unfinished) {
            let reply = self.dialogue.ask("RSET", self.timeouts.command)?;
            self.still_there(&reply)?;
        }
        Ok(())
    }

    /// 421: it said that it goes. 3xx: it and we no longer talk of the same command.
    fn still_there(&mut self, reply: &Reply) -> Result<()> {
        match reply.code {
            421 => Err(self.dialogue.fail(Class::Transient, &reply.text())),
            300..400 => {
                let said = format!("{}, which nobody asked for", reply.text());
                Err(self.dialogue.fail(Class::Protocol, &said))
            }
            _ => Ok(()),
        }
    }

    fn send_body(
        &mut self,
        transaction: &Transaction,
        body: &mut dyn Read,
        before_dot: &mut dyn FnMut() -> Result<()>,
        next: Option<&Transaction>,
        dot_sent: &mut bool,
    ) -> Result<Body> {
        let octets = transaction.octets;
        let patience = self.timeouts.block + Duration::from_secs(octets / SLOWEST);
        let begun = Instant::now();
        let mut block = vec![0; BLOCK];
        let mut out = Vec::with_capacity(BLOCK + BLOCK / 16);
        let mut stuffing = DotStuffing::default();
        if transaction.chunk {
            stuffing = DotStuffing::without_dots();
            let command = format!("BDAT {octets} LAST");
            self.dialogue.put(&command, &command);
            out = self.dialogue.take_ready();
        }
        let command = out.len() as u64;
        let (mut made, mut first) = (0, true);
        loop {
            let read = read_some(body, &mut block)
                .map_err(|err| Failure::local("message in the queue", &err))?;
            let piece = block.get(..read).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            // What was encoded before is sent only now, so that the last of it goes with the dot.
            if !std::mem::take(&mut first) {
                made += out.len() as u64;
                if let Some(reply) = self.send_piece(&out)? {
                    return Ok(Body::Answered(reply));
                }
                out.clear();
            }
            stuffing.add(piece, &mut out);
            if begun.elapsed() > patience {
                return Err(self
                    .dialogue
                    .fail(Class::Transient, "takes the message too slowly"));
            }
        }
        stuffing.finish(&mut out);
        if transaction.chunk && made + out.len() as u64 != command + octets {
            // The server would take what comes next for the rest of it.
            let why = "the message in the queue is not as long as it was";
            return Err(self.dialogue.fail(Class::Local, why));
        }
        before_dot()?;
        if let Some(next) = next.filter(|_| self.pipelining) {
            self.announce(next);
            self.announced = true;
            out.append(&mut self.dialogue.take_ready());
        }
        *dot_sent = true;
        match self.dialogue.write(&out) {
            Ok(()) => Ok(Body::Ended),
            Err(err) => self.dialogue.last_words().map(Body::Answered).ok_or(err),
        }
    }

    /// Sends a piece that is not the last; the reply of a server that does not want the rest.
    fn send_piece(&mut self, piece: &[u8]) -> Result<Option<Reply>> {
        match self.dialogue.write(piece) {
            Ok(()) => self.dialogue.stray_reply(self.timeouts.data),
            Err(err) => self.dialogue.last_words().map(Some).ok_or(err),
        }
    }

    fn final_reply(&mut self) -> Result<Reply> {
        let reply = self.dialogue.reply("message", self.timeouts.end)?;
        if reply.code / 100 == 3 {
            let said = format!("message: {}, which is no answer", reply.text());
            return Err(self.dialogue.fail(Class::Protocol, &said));
        }
        Ok(reply)
    }
}

impl Answer {
    /// The server took this recipient, or said nothing yet.
    fn is_open(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes what the server said of this recipient; a yes leaves it open until the final dot.
    fn take(&mut self, stage: Stage, reply: &Reply) {
        self.verdict = verdict(stage, reply);
        if self.verdict != Verdict::Accepted {
            self.text = reply.text();
        }
    }
}

/// `reply` is for all that are open.
fn decide(answers: &mut [Answer], stage: Stage, reply: &Reply) {
    for answer in answers.iter_mut().filter(|answer| answer.is_open()) {
        answer.verdict = verdict(stage, reply);
        answer.text = reply.text();
    }
}

/// Fills as much of `block` as there is, so that a small message is one piece.
fn read_some(body: &mut dyn Read, block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
        match body.read(room) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::mail::envelope::{BringBack, Needs, Notify, address};

    fn all() -> Extensions {
        Extensions {
            size: true,
            max_size: Some(1000),
            eight_bit: true,
            utf8: true,
            dsn: true,
            ..Extensions::default()
        }
    }

    fn envelope() -> Envelope {
        let mut envelope = Envelope::new(
            Some(address("alice@example.org").unwrap()),
            vec![address("bob@example.org").unwrap()],
        );
        envelope.needs = Needs {
            octets: 500,
            ..Needs::default()
        };
        envelope
    }

    fn said(offered: &Extensions, envelope: &Envelope) -> std::result::Result<Vec<String>, Unfit> {
        let all: Vec<_> = (0..envelope.recipients.len()).collect();
        let transaction = Transaction::new(offered, envelope, &all, "id+1")?;
        let mut lines = vec![transaction.mail];
        lines.extend(transaction.rcpts.into_iter().map(|(_, rcpt)| rcpt));
        Ok(lines)
    }

    #[test]
    fn only_what_is_offered_is_said() {
        assert_eq!(
            said(&Extensions::default(), &envelope()).unwrap(),
            ["MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.org>"]
        );
        let mut wishes = envelope();
        wishes.bring_back = Some(BringBack::Headers);
        if let Some(bob) = wishes.recipients.first_mut() {
            bob.notify = Some(Notify::default());
            bob.original = Some("team".into());
        }
        wishes.needs.eight_bit = true;
        assert_eq!(
            said(&all(), &wishes).unwrap(),
            [
                "MAIL FROM:<alice@example.org> SIZE=500 BODY=8BITMIME RET=HDRS ENVID=id+2B1",
                "RCPT TO:<bob@example.org> NOTIFY=NEVER ORCPT=rfc822;team"
            ]
        );
        wishes.sender = None;
        assert!(said(&all(), &wishes).unwrap()[0].starts_with("MAIL FROM:<> "));
    }

    #[test]
    fn what_a_server_cannot_take_is_known_before_it_is_asked() {
        let mut large = envelope();
        large.needs.octets = 1001;
        assert_eq!(said(&all(), &large), Err(Unfit::TooLarge(1000)));
        let mut eight = envelope();
        eight.needs.eight_bit = true;
        let old = Extensions::default();
        assert_eq!(said(&old, &eight), Err(Unfit::NeedsSevenBit));
        let mut utf8 = envelope();
        utf8.needs.utf8_header = true;
        assert_eq!(said(&old, &utf8), Err(Unfit::NeedsUtf8));
        let mut name = envelope();
        name.recipients =
            Envelope::new(None, vec![address("jürgen@example.org").unwrap()]).recipients;
        assert_eq!(said(&old, &name), Err(Unfit::NeedsUtf8));
        assert!(said(&all(), &name).unwrap()[0].ends_with(" SMTPUTF8 ENVID=id+2B1"));
        // A domain alone needs nothing.
        let mut domain = envelope();
        domain.recipients =
            Envelope::new(None, vec![address("bob@exämple.org").unwrap()]).recipients;
        assert_eq!(
            said(&old, &domain).unwrap()[1],
            "RCPT TO:<bob@xn--exmple-cua.org>"
        );
    }

    #[test]
    fn a_chunk_is_sent_where_it_is_of_use() {
        let chunk = |offered: &Extensions, envelope: &Envelope| {
            let transaction = Transaction::new(offered, envelope, &[0], "1").unwrap();
            (
                transaction.chunk,
                transaction.mail.contains("BODY=BINARYMIME"),
            )
        };
        let slow = Extensions {
            chunking: true,
            ..Extensions::default()
        };
        let quick = Extensions {
            pipelining: true,
            ..slow.clone()
        };
        assert_eq!(chunk(&Extensions::default(), &envelope()), (false, false));
        assert_eq!(chunk(&slow, &envelope()), (true, false));
        assert_eq!(chunk(&quick, &envelope()), (false, false));
        let mut large = envelope();
        large.needs.octets = LARGE;
        assert_eq!(chunk(&quick, &large), (true, false));
        let mut long = envelope();
        (long.needs.longest_line, long.needs.eight_bit) = (999, true);
        let eight_bit = Extensions {
            eight_bit: true,
            ..quick.clone()
        };
        assert_eq!(chunk(&eight_bit, &long), (false, false));
        let binary = Extensions {
            binary: true,
            ..quick
        };
        assert_eq!(chunk(&binary, &long), (true, true));
        assert_eq!(chunk(&binary, &envelope()), (false, false));
    }

    #[test]
    fn a_hundred_recipients_are_one_transaction() {
        let mut many = envelope();
        let names = (0..250).map(|i| address(&format!("u{i}@example.org")).unwrap());
        many.recipients = Envelope::new(None, names.collect()).recipients;
        assert_eq!(said(&all(), &many).unwrap().len(), 101);
        let few = Extensions {
            max_recipients: Some(7),
            ..all()
        };
        assert_eq!(said(&few, &many).unwrap().len(), 8);
    }
}
