//! The golden corpus: `tests/corpus/*.txt`, whose README explains its notation.

use std::fmt::Write as _;

use super::*;

const FILES: [(&str, &[u8]); 9] = [
    ("mlsd", include_bytes!("../../../../tests/corpus/mlsd.txt")),
    ("unix", include_bytes!("../../../../tests/corpus/unix.txt")),
    (
        "dates",
        include_bytes!("../../../../tests/corpus/dates.txt"),
    ),
    ("dos", include_bytes!("../../../../tests/corpus/dos.txt")),
    ("vms", include_bytes!("../../../../tests/corpus/vms.txt")),
    ("ibm", include_bytes!("../../../../tests/corpus/ibm.txt")),
    ("mac", include_bytes!("../../../../tests/corpus/mac.txt")),
    ("rare", include_bytes!("../../../../tests/corpus/rare.txt")),
    ("odd", include_bytes!("../../../../tests/corpus/odd.txt")),
];

/// `\xHH`, `\t` and `\\`; all else stands for itself.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        (bytes, rest) = match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let hex = [*high, *low];
                let hex = std::str::from_utf8(&hex).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                (bytes, tail)
            }
            (b'\\', [b't', tail @ ..]) => {
                bytes.push(b'\t');
                (bytes, tail)
            }
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                (bytes, tail)
            }
            (b'\\', _) => panic!("bad escape in {}", text.escape_ascii()),
            _ => {
                bytes.push(*first);
                (bytes, tail)
            }
        };
    }
    bytes
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => write!(text, "\\x{:02x}", u32::from(c)).unwrap(),
                c => text.push(c),
            }
        }
        for b in chunk.invalid() {
            write!(text, "\\x{b:02x}").unwrap();
        }
    }
    text
}

fn show_time(attr: &Attr) -> String {
    let Some(time) = attr.mtime else {
        return "-".into();
    };
    let t = format_time(time);
    let mut text = format!(
        "{}-{}-{}T{}:{}",
        &t[..4],
        &t[4..6],
        &t[6..8],
        &t[8..10],
        &t[10..12]
    );
    if attr.mtime_exact {
        write!(text, ":{}", &t[12..]).unwrap();
        let nanos = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => after.subsec_nanos(),
            Err(_) => 0,
        };
        if nanos > 0 {
            write!(text, ".{nanos:09}").unwrap();
        }
    } else {
        assert_eq!(&t[12..], "00");
    }
    text
}

fn show(entry: &DirEntry) -> String {
    let attr = &entry.attr;
    let kind = match attr.kind {
        FileKind::File => 'f',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
    };
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let mut text = format!(
        "{kind} {} {} {}",
        or_dash(attr.size.map(|size| size.to_string())),
        show_time(attr),
        or_dash(attr.mode.map(|mode| format!("{mode:04o}"))),
    );
    let mut field = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(text, " {key}={value}").unwrap();
        }
    };
    field("owner", attr.owner.as_deref().map(|o| o.replace(' ', "_")));
    field("group", attr.group.as_deref().map(|g| g.replace(' ', "_")));
    field("unique", attr.unique.as_deref().map(escape));
    field("perm", attr.perm.as_deref().map(Into::into));
    write!(text, " |{}|", escape(entry.name.as_bytes())).unwrap();
    if let Some(target) = &attr.target {
        write!(text, " -> |{}|", escape(target)).unwrap();
    }
    text
}

/// What a block is expected to print: entries, then skipped lines, then what is ignored.
fn print(parsed: &Parsed) -> Vec<String> {
    let mut lines: Vec<_> = parsed
        .entries
        .iter()
        .map(|e| format!("> {}", show(e)))
        .collect();
    lines.extend(parsed.skipped.iter().map(|s| format!("! {:?}", s.why)));
    if parsed.ignored > 0 {
        lines.push(format!("~ {}", parsed.ignored));
    }
    lines
}

fn parse(file: &str, lines: &[Vec<u8>], end: &[u8]) -> Parsed {
    let bytes: Vec<u8> = lines.iter().flat_map(|l| [&l[..], end].concat()).collect();
    if file == "mlsd" {
        parse_mlsx(&bytes)
    } else {
        parse_list(&bytes, &hints())
    }
}

#[test]
fn every_line_of_the_corpus_means_what_it_should() {
    let mut wrong = String::new();
    let mut count = 0;
    for (file, text) in FILES {
        let text = std::str::from_utf8(text).unwrap();
        for block in text.split("\n\n") {
            let (input, output): (Vec<_>, Vec<_>) = block
                .lines()
                .filter(|line| !line.starts_with('#'))
                .partition(|line| line.starts_with('<'));
            let input: Vec<_> = input
                .iter()
                .map(|line| unescape(line.get(2..).unwrap_or_default().as_bytes()))
                .collect();
            count += input.len();
            let parsed = parse(file, &input, b"\r\n");
            let mut printed = print(&parsed);
            if output.iter().any(|line| line.starts_with('=')) {
                printed.push(format!("= {:?}", parsed.dialect));
            }
            if printed != output {
                writeln!(wrong, "{file}: in\n{block}\ngot\n{}\n", printed.join("\n")).unwrap();
            }
            assert_eq!(parse(file, &input, b"\n"), parsed);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count >= 200, "only {count} lines");
}
