use super::*;

const LONG: Duration = Duration::from_secs(10);

fn soon() -> Deadline {
    Deadline::after(LONG)
}

/// Gives one octet for each read, so that every cut is tried.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (Some(first), Some(to)) = (self.0.first(), buf.first_mut()) else {
            return Ok(0);
        };
        *to = *first;
        self.0 = self.0.get(1..).unwrap_or_default();
        Ok(1)
    }
}

fn text(wire: &[u8]) -> (Vec<u8>, Counts) {
    let mut whole = Vec::new();
    let counts = LineReader::new(wire)
        .text(&mut whole, u64::MAX, LONG)
        .unwrap();
    let mut dripped = Vec::new();
    let again = LineReader::new(Drip(wire))
        .text(&mut dripped, u64::MAX, LONG)
        .unwrap();
    assert_eq!((&whole, counts), (&dripped, again));
    assert_eq!(counts.written, whole.len() as u64);
    (whole, counts)
}

#[test]
fn lines_end_with_crlf_or_lf() {
    let mut lines = LineReader::new(&b"+OK one\r\n+OK two\n\r\n"[..]);
    assert_eq!(lines.line(80, soon()).unwrap(), b"+OK one");
    assert_eq!(lines.line(80, soon()).unwrap(), b"+OK two");
    assert_eq!(lines.line(80, soon()).unwrap(), b"");
    assert!(matches!(lines.line(80, soon()), Err(ReadError::Closed)));
}

#[test]
fn a_line_without_end_is_given_up_at_its_limit() {
    let mut lines = LineReader::new(io::repeat(b'x'));
    assert!(matches!(
        lines.line(512, soon()),
        Err(ReadError::TooLong(512))
    ));
    let exact = [&[b'x'; 512][..], b"\r\n"].concat();
    assert_eq!(
        LineReader::new(&*exact).line(512, soon()).unwrap().len(),
        512
    );
    let over = [&[b'x'; 513][..], b"\r\n"].concat();
    assert!(LineReader::new(&*over).line(512, soon()).is_err());
}

#[test]
fn a_drip_runs_into_the_deadline() {
    struct Slow;
    impl Read for Slow {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(5));
            buf.fill(b'x');
            Ok(1)
        }
    }
    let deadline = Deadline::after(Duration::from_millis(50));
    assert!(matches!(
        LineReader::new(Slow).line(5000, deadline),
        Err(ReadError::Slow)
    ));
    let mut out = Vec::new();
    assert!(matches!(
        LineReader::new(Slow).text(&mut out, 5000, Duration::from_millis(50)),
        Err(ReadError::Slow)
    ));
}

#[test]
fn dots_are_unstuffed_and_lines_end_with_lf() {
    let (out, counts) = text(b"a\r\n..\r\n..b\r\n.c\r\n\r\n.\r\n");
    assert_eq!(out, b"a\n.\n.b\nc\n\n");
    assert_eq!(counts.octets, 3 + 3 + 4 + 3 + 2);
    assert_eq!(text(b".\r\n").0, b"");
}

#[test]
fn octets_are_kept_as_they_are() {
    let (out, _) = text(b"caf\xe9\0\r\nx\ry\r\r\nend\r\n.\r\n");
    assert_eq!(out, b"caf\xe9\0\nx\ry\r\nend\n");
}

#[test]
fn a_server_of_bare_lf_is_understood() {
    let (out, counts) = text(b"a\n..b\n.\n");
    assert_eq!(out, b"a\n.b\n");
    assert_eq!(counts.octets, 3 + 4);
    assert_eq!(text(b"a\n..b\n.\r\n").0, b"a\n.b\n");
}

#[test]
fn a_message_cannot_end_itself_with_a_bare_lf() {
    let (out, _) = text(b"Received: x\r\nevil\n.\r\n+OK forged\r\n.\r\n");
    assert_eq!(out, b"Received: x\nevil\n.\n+OK forged\n");
    let (out, _) = text(b"Received: x\r\nevil\n.\n..\r\n.\r\n");
    assert_eq!(out, b"Received: x\nevil\n.\n..\n");
}

#[test]
fn a_line_may_be_longer_than_any_buffer() {
    let line = vec![b'z'; 3 * BUFFER + 1];
    let wire = [&line[..], b"\r\n.\r\n"].concat();
    let mut out = Vec::new();
    LineReader::new(&*wire)
        .text(&mut out, u64::MAX, LONG)
        .unwrap();
    assert_eq!(out.len(), line.len() + 1);
}

#[test]
fn an_endless_text_stops_at_its_limit() {
    let mut out = io::sink();
    assert!(matches!(
        LineReader::new(io::repeat(b'x')).text(&mut out, 1_000_000, LONG),
        Err(ReadError::TooLong(_))
    ));
}

#[test]
fn an_end_anywhere_is_an_error() {
    let wire = b"a\r\n..b\r\n.\r\n";
    for cut in 0..wire.len() {
        let mut out = Vec::new();
        let read = LineReader::new(wire.get(..cut).unwrap()).text(&mut out, 100, LONG);
        assert!(matches!(read, Err(ReadError::Closed)), "{cut}");
    }
}

#[test]
fn text_that_follows_is_left() {
    let mut lines = LineReader::new(&b"a\r\n.\r\n+OK next\r\n"[..]);
    lines.text(&mut io::sink(), 100, LONG).unwrap();
    assert!(lines.has_buffered());
    assert_eq!(lines.line(80, soon()).unwrap(), b"+OK next");
}
