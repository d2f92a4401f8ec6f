//! The bytes of one line: words, numbers, blanks. Nothing here allocates or looks at a byte twice.

/// Most words of a line that are looked at. A name comes last, so what lies beyond belongs to it.
const MOST: usize = 20;

/// The first words of a line, split at runs of blanks, each with its place.
pub(super) struct Words<'a> {
    line: &'a [u8],
    spans: [(usize, usize); MOST],
    len: usize,
}

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a [u8]) -> Self {
        let mut words = Self {
            line,
            spans: [(0, 0); MOST],
            len: 0,
        };
        let mut at = 0;
        for span in &mut words.spans {
            let rest = line.get(at..).unwrap_or_default();
            let Some(skip) = rest.iter().position(|b| !is_blank(*b)) else {
                break;
            };
            let start = at + skip;
            let word = rest.get(skip..).unwrap_or_default();
            let end = start + word.iter().position(|b| is_blank(*b)).unwrap_or(word.len());
            *span = (start, end);
            words.len += 1;
            at = end;
        }
        words
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where word `i` begins and ends.
    pub(super) fn span(&self, i: usize) -> Option<(usize, usize)> {
        if i < self.len {
            self.spans.get(i).copied()
        } else {
            None
        }
    }

    pub(super) fn get(&self, i: usize) -> Option<&'a [u8]> {
        let (start, end) = self.span(i)?;
        self.line.get(start..end)
    }

    /// From the first word in `from` to the last before `to`, blanks between them included.
    pub(super) fn between(&self, from: usize, to: usize) -> Option<&'a [u8]> {
        let (start, _) = self.span(from)?;
        let (_, end) = self.span(to.checked_sub(1)?)?;
        self.line.get(start..end)
    }

    /// All that follows word `i`, its leading blank included.
    pub(super) fn after(&self, i: usize) -> Option<&'a [u8]> {
        let (_, end) = self.span(i)?;
        self.line.get(end..)
    }

    /// All that follows word `i` without leading blanks; `None` where nothing does.
    pub(super) fn rest(&self, i: usize) -> Option<&'a [u8]> {
        Some(trim_start(self.after(i)?)).filter(|rest| !rest.is_empty())
    }
}

pub(super) const fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

pub(super) fn trim_start(line: &[u8]) -> &[u8] {
    let at = line.iter().position(|b| !is_blank(*b));
    at.and_then(|at| line.get(at..)).unwrap_or_default()
}

pub(super) fn trim_end(line: &[u8]) -> &[u8] {
    let at = line.iter().rposition(|b| !is_blank(*b));
    at.and_then(|at| line.get(..=at)).unwrap_or_default()
}

/// Lines without their ends. All trailing CRs go, since servers in text mode send `\r\r\n` and no
/// name can end in one.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').map(|line| {
        let end = line.iter().rposition(|b| *b != b'\r');
        end.and_then(|end| line.get(..=end)).unwrap_or_default()
    })
}

/// A decimal number of nothing but digits.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |sum, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// An octal number of nothing but digits.
pub(super) fn octal(word: &[u8]) -> Option<u32> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u32, |sum, b| {
        let digit = matches!(b, b'0'..=b'7').then(|| u32::from(b - b'0'))?;
        sum.checked_mul(8)?.checked_add(digit)
    })
}

/// A number that may be grouped in threes: `1234567`, `1,234,567`, `1.234.567`.
pub(super) fn grouped(word: &[u8]) -> Option<u64> {
    if let Some(plain) = number(word) {
        return Some(plain);
    }
    // A no-break space is 0xA0 in Latin-1 and 0xFF in the DOS code pages.
    let mark = |b: &u8| matches!(b, b',' | b'.' | b'\'' | 0xa0 | 0xff);
    let mut groups = word.split(mark);
    let mut sum = number(groups.next().filter(|first| first.len() <= 3)?)?;
    for group in groups {
        let group = number(group).filter(|_| group.len() == 3)?;
        sum = sum.checked_mul(1000)?.checked_add(group)?;
    }
    Some(sum)
}

/// Leading digits and what follows them.
pub(super) fn split_digits(word: &[u8]) -> (&[u8], &[u8]) {
    let at = word.iter().position(|b| !b.is_ascii_digit());
    word.split_at_checked(at.unwrap_or(word.len()))
        .unwrap_or_default()
}

/// Where `needle` lies in `hay`, all places, left to right.
pub(super) fn places<'a>(hay: &'a [u8], needle: &'static [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = hay.windows(needle.len().max(1)).enumerate();
    windows.filter_map(move |(at, window)| (window == needle).then_some(at))
}

/// Whether `line` begins with `prefix`, ASCII case aside.
pub(super) fn begins(line: &[u8], prefix: &[u8]) -> bool {
    line.get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// Text for people, for the few fields that are not names.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}
