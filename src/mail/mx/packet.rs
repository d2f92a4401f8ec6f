//! A question to a name server and its answer (RFC 1035), read with distrust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More records than this are not read.
const MOST_RECORDS: usize = 256;

/// Longest name (RFC 1035 section 2.3.4), in text.
const LONGEST_NAME: usize = 253;

/// Largest answer over UDP that we ask for (the DNS flag day's number).
pub(super) const LARGEST_UDP: u16 = 1232;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    A = 1,
    Mx = 15,
    Aaaa = 28,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    /// Preference and host; an empty host is the root.
    Mx(u16, String),
}

/// An answer to our question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Perhaps none.
    Records(Vec<Data>),
    /// There is no such name.
    NoName,
    /// It did not fit; TCP has room.
    Truncated,
    /// The server failed, with this code.
    Failed(u8),
    /// It is one to our question, and cannot be read.
    Nonsense,
}

/// The packet that asks for `kind` of `name`; `None` for what is no name. `.` is the root.
pub(super) fn question(id: u16, whole: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(64);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question, one additional record.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let name = whole.strip_suffix('.').unwrap_or(whole);
    if name.len() > LONGEST_NAME {
        return None;
    }
    let is_root = |label: &&str| label.is_empty() && whole == ".";
    for label in name.split('.').filter(|label| !is_root(label)) {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|l| (1..=63).contains(l))?;
        packet.push(length);
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, kind as u8, 0, 1]);
    // EDNS (RFC 6891): root, OPT, our buffer, nothing more.
    packet.extend([0, 0, 41]);
    packet.extend(LARGEST_UDP.to_be_bytes());
    packet.extend([0; 6]);
    Some(packet)
}

/// The answer in `packet` to our question; `None` if it is none: another id, another question.
/// Whoever forges has to guess all of it.
pub(super) fn answer(packet: &[u8], id: u16, name: &str, kind: Kind) -> Option<Answer> {
    let mut reader = Reader { packet, at: 0 };
    if reader.u16()? != id {
        return None;
    }
    let flags = reader.u16()?;
    let (is_answer, opcode) = (flags & 0x8000 != 0, flags >> 11 & 15);
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.skip(4)?;
    if !is_answer || opcode != 0 || questions != 1 {
        return None;
    }
    let asked = reader.name()?;
    let wanted = name.strip_suffix('.').unwrap_or(name);
    if !asked.eq_ignore_ascii_case(wanted) || reader.u16()? != kind as u16 || reader.u16()? != 1 {
        return None;
    }
    match flags & 15 {
        0 => {}
        3 => return Some(Answer::NoName),
        code => return Some(Answer::Failed(u8::try_from(code).unwrap_or(15))),
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    let records = reader.records(answers, asked, kind);
    Some(records.map_or(Answer::Nonsense, Answer::Records))
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Those of `kind` that belong to `owner`, or to what it is an alias of.
    fn records(&mut self, answers: u16, mut owner: String, kind: Kind) -> Option<Vec<Data>> {
        let mut records = Vec::new();
        for _ in 0..usize::from(answers).min(MOST_RECORDS) {
            let name = self.name()?;
            let (kind_found, class) = (self.u16()?, self.u16()?);
            self.skip(4)?;
            let length = usize::from(self.u16()?);
            let end = self
                .at
                .checked_add(length)
                .filter(|end| *end <= self.packet.len())?;
            let ours = class == 1 && name.eq_ignore_ascii_case(&owner);
            // A recursive server lists the chain of aliases in order.
            if ours && kind_found == 5 {
                owner = self.name()?;
            } else if ours && kind_found == kind as u16 {
                records.push(self.data(kind, end)?);
            }
            self.at = end;
        }
        Some(records)
    }

    fn u8(&mut self) -> Option<u8> {
        let byte = self.packet.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn skip(&mut self, octets: usize) -> Option<()> {
        self.at = self
            .at
            .checked_add(octets)
            .filter(|at| *at <= self.packet.len())?;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.packet.get(self.at..)?.first_chunk().copied();
        self.at += N;
        bytes
    }

    fn data(&mut self, kind: Kind, end: usize) -> Option<Data> {
        let data = match kind {
            Kind::A => Data::Address(Ipv4Addr::from(self.array::<4>()?).into()),
            Kind::Aaaa => Data::Address(Ipv6Addr::from(self.array::<16>()?).into()),
            Kind::Mx => {
                let preference = self.u16()?;
                Data::Mx(preference, self.name()?)
            }
        };
        (self.at == end).then_some(data)
    }

    /// A name as text without the last dot. Pointers lead back, never on: so they end.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut behind = None;
        let mut at = self.at;
        let mut lowest = at;
        loop {
            let length = *self.packet.get(at)?;
            match length {
                0 => {
                    self.at = behind.unwrap_or(at + 1);
                    return Some(name);
                }
                1..=63 => {
                    let label = self.packet.get(at + 1..at + 1 + usize::from(length))?;
                    // A dot or a line end inside of a label is legal in the DNS and no host's: what
                    // is read for it is no host's either.
                    let shown = |b: &u8| match *b {
                        b if b.is_ascii_alphanumeric() || b"-_".contains(&b) => char::from(b),
                        _ => '?',
                    };
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(shown));
                    if name.len() > LONGEST_NAME {
                        return None;
                    }
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.packet.get(at + 1)?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    behind = behind.or(Some(at + 2));
                    if target >= lowest {
                        return None;
                    }
                    lowest = target;
                    at = target;
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Header and question of an answer to `example.org` MX.
    fn head(flags: [u8; 2], answers: u8) -> Vec<u8> {
        let mut packet = question(7, "example.org", Kind::Mx).unwrap();
        packet.truncate(packet.len() - 11);
        packet.splice(2..4, flags);
        packet.splice(6..8, [0, answers]);
        packet.splice(10..12, [0, 0]);
        packet
    }

    fn record(owner: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
        let mut record = owner.to_vec();
        record.extend([
            0,
            kind,
            0,
            1,
            0,
            0,
            0,
            60,
            0,
            u8::try_from(data.len()).unwrap(),
        ]);
        record.extend(data);
        record
    }

    const OWNER: &[u8] = &[0xc0, 12];

    fn read(packet: &[u8]) -> Option<Answer> {
        answer(packet, 7, "Example.org.", Kind::Mx)
    }

    #[test]
    fn mail_exchangers_with_compressed_names() {
        let mut packet = head([0x81, 0x80], 2);
        packet.extend(record(OWNER, 15, &[0, 10, 3, b'm', b'x', b'1', 0xc0, 12]));
        packet.extend(record(OWNER, 15, &[0, 20, 0]));
        let want = vec![
            Data::Mx(10, "mx1.example.org".into()),
            Data::Mx(20, String::new()),
        ];
        assert_eq!(read(&packet), Some(Answer::Records(want)));
        let question = head([0, 0], 0).len();
        for cut in 0..packet.len() {
            let want = (cut >= question).then_some(Answer::Nonsense);
            assert_eq!(read(&packet[..cut]), want, "{cut}");
        }
    }

    #[test]
    fn an_alias_is_followed_and_strangers_are_not() {
        let mut packet = head([0x81, 0x80], 3);
        packet.extend(record(OWNER, 5, &[1, b'a', 0xc0, 12]));
        packet.extend(record(OWNER, 15, &[0, 1, 1, b'x', 0]));
        packet.extend(record(&[1, b'a', 0xc0, 12], 15, &[0, 5, 1, b'm', 0]));
        let want = vec![Data::Mx(5, "m".into())];
        assert_eq!(read(&packet), Some(Answer::Records(want)));
    }

    #[test]
    fn no_name_failure_and_truncation() {
        assert_eq!(read(&head([0x81, 0x83], 0)), Some(Answer::NoName));
        assert_eq!(read(&head([0x81, 0x82], 0)), Some(Answer::Failed(2)));
        assert_eq!(read(&head([0x83, 0x80], 0)), Some(Answer::Truncated));
        assert_eq!(
            read(&head([0x81, 0x80], 0)),
            Some(Answer::Records(Vec::new()))
        );
    }

    #[test]
    fn what_is_no_answer_to_us_is_ignored() {
        let good = head([0x81, 0x80], 0);
        assert_eq!(answer(&good, 8, "example.org", Kind::Mx), None);
        assert_eq!(answer(&good, 7, "example.com", Kind::Mx), None);
        assert_eq!(answer(&good, 7, "example.org", Kind::A), None);
        assert_eq!(read(&head([0x01, 0x80], 0)), None, "a question");
        assert_eq!(read(&head([0x91, 0x80], 0)), None, "another opcode");
    }

    #[test]
    fn loops_lengths_and_odd_names_are_refused() {
        let at = u8::try_from(head([0, 0], 0).len()).unwrap();
        for owner in [
            // To itself, forwards, beyond the end, a reserved length.
            &[0xc0, at][..],
            &[0xc0, at + 2],
            &[0xff, 0xff],
            &[0x80, 0],
        ] {
            let mut packet = head([0x81, 0x80], 1);
            packet.extend(record(owner, 15, &[0, 1, 0]));
            assert_eq!(read(&packet), Some(Answer::Nonsense), "{owner:?}");
        }
        for data in [&[0, 1][..], &[0, 1, 0, 9], &[]] {
            let mut packet = head([0x81, 0x80], 1);
            packet.extend(record(OWNER, 15, data));
            assert_eq!(read(&packet), Some(Answer::Nonsense), "{data:?}");
        }
        for odd in [b'.', b'\n', 0, b'@'] {
            let mut packet = head([0x81, 0x80], 3);
            packet.extend(record(&[1, odd, 0], 15, &[0, 1, 1, b'x', 0]));
            packet.extend(record(OWNER, 15, &[0, 1, 1, odd, 0]));
            packet.extend(record(OWNER, 15, &[0, 2, 1, b'm', 0]));
            let want = vec![Data::Mx(1, "?".into()), Data::Mx(2, "m".into())];
            assert_eq!(read(&packet), Some(Answer::Records(want)), "{odd:?}");
        }
        let long = vec!["a".repeat(60); 5].join(".");
        assert_eq!(question(1, &long, Kind::A), None);
        for bad in ["", "a..b", &"a".repeat(64)] {
            assert_eq!(question(1, bad, Kind::A), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_packet_does_harm(
            mut bytes in proptest::collection::vec(0_u8.., 0..200),
            flags in 0x80_u8..0x82,
        ) {
            let _ = read(&bytes);
            let mut packet = head([flags, 0x80], 3);
            packet.append(&mut bytes);
            let _ = read(&packet);
        }
    }
}
