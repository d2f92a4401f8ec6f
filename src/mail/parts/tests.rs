#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::io::{Cursor, Read};

use super::*;

/// Every file with its path and content; the exact size is checked on the way.
fn shown(message: &[u8]) -> Vec<(String, String)> {
    let message = message.to_vec();
    let parts = Parts::read(&message).unwrap();
    let mut files = Vec::new();
    for entry in parts.entries() {
        let Some(view) = &entry.view else { continue };
        let mut bytes = Vec::new();
        view.over(Cursor::new(&message))
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(
            view.size(Cursor::new(&message)).unwrap(),
            bytes.len() as u64
        );
        let mut path = entry.name.clone();
        let mut at = entry.parent;
        while at != ROOT {
            path = format!("{}/{path}", parts.entries()[at].name);
            at = parts.entries()[at].parent;
        }
        files.push((path, String::from_utf8_lossy(&bytes).into_owned()));
    }
    files
}

fn paths(message: &[u8]) -> Vec<String> {
    shown(message)
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| !path.ends_with("headers"))
        .collect()
}

#[test]
fn a_plain_message() {
    let files = shown(b"Subject: =?utf-8?Q?caf=C3=A9?=\r\nX: a\r\n b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nth=E9 =\r\nvert\r\n");
    assert_eq!(
        files,
        [
            (
                "headers".into(),
                "Subject: caf\u{e9}\nX: a b\nContent-Type: text/plain; charset=iso-8859-1\n\
                Content-Transfer-Encoding: quoted-printable\n"
                    .into()
            ),
            ("text".to_owned(), "th\u{e9} vert\n".to_owned()),
        ]
    );
    assert_eq!(shown(b"")[1], ("text".into(), String::new()));
}

const LARGE: &str = "Content-Type: multipart/mixed; boundary=A\n\n--A\n\
    Content-Type: multipart/alternative; boundary=B\n\n--B\n\nplain\n--B\n\
    Content-Type: multipart/related; boundary=C\n\n--C\nContent-Type: text/html\n\n<p>\n--C\n\
    Content-Type: image/png\nContent-ID: <i@x>\nContent-Transfer-Encoding: base64\n\niVBORw==\n--C--\n--B--\n--A\n\
    Content-Type: text/plain\n\nfooter\n--A\n\
    Content-Type: text/plain; charset=iso-8859-1; name=\"../../x\"\nContent-Disposition: attachment\n\ncaf\u{e9}\n--A\n\
    Content-Type: application/pdf; name=\"text\"\n\npdf\n--A\n\
    Content-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/digest; boundary=D\n\n--D\n\nSubject: d1\n\none\n--D\n\n\
    Subject: d2\n\ntwo\n--D--\n--A\n\
    Content-Type: message/rfc822; name=\"Old letter.eml\"\n\nSubject: old\n\nold\n--A\n\
    Content-Type: message/external-body; access-type=anon-ftp; site=ftp.example.org; name=rfc.txt\n\n\
    Content-Type: text/plain\nContent-ID: <e@x>\n\n--A\n\
    Content-Type: multipart/parallel; boundary=E\n\n--E\nContent-Type: audio/basic\n\nx\n--E--\n--A--\n";

#[test]
fn all_kinds_of_parts_have_their_place() {
    assert_eq!(
        paths(LARGE.as_bytes()),
        [
            "text",
            "html",
            "part-3.png",
            "text.txt",
            "_._.._x",
            "text-2",
            "message/message/text",
            "message/message-2/text",
            "Old letter/text",
            "rfc.txt",
            "part-8.bin",
        ]
    );
    let files = shown(LARGE.as_bytes());
    let content = |path: &str| files.iter().find(|(p, _)| p == path).unwrap().1.clone();
    assert_eq!(content("text"), "plain");
    assert_eq!(content("part-3.png"), "\u{fffd}PNG");
    assert_eq!(content("text.txt"), "footer");
    assert_eq!(content("message/message-2/headers"), "Subject: d2\n");
    assert_eq!(content("message/message-2/text"), "two");
    assert_eq!(
        content("rfc.txt"),
        "access-type: anon-ftp\nsite: ftp.example.org\nname: rfc.txt\nContent-Type: text/plain\nContent-ID: <e@x>\n"
    );
    // Attached bytes are the author's.
    assert_eq!(content("_._.._x"), "caf\u{e9}");
}

#[test]
fn hostile_messages_give_a_small_tree() {
    let mut deep = String::new();
    for n in 0..1000 {
        write!(
            deep,
            "Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"
        )
        .unwrap();
    }
    assert_eq!(paths(deep.as_bytes()).len(), 1);
    let nested = "Content-Type: message/rfc822\n\n".repeat(1000);
    assert!(paths(nested.as_bytes()).len() <= 40);
    let many = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n{}",
        "--b\nContent-Type: x/y; name=same\n\nx\n".repeat(100_000)
    );
    let files = paths(many.as_bytes());
    assert_eq!(files.len(), structure::PARTS_MAX - 1);
    assert_eq!(files[998], "same-999");
}

#[test]
fn a_file_is_read_at_any_offset() {
    let message = b"Content-Type: application/x; name=a\nContent-Transfer-Encoding: base64\n\nMDEyMzQ1Njc4OQ==\n".to_vec();
    let parts = Parts::read(&message).unwrap();
    let view = parts.lookup(ROOT, b"a").unwrap().1.view.clone().unwrap();
    let mut reader = Reader::new(view, move || Ok(Cursor::new(message.clone())));
    let mut read = |offset: u64, len: usize| {
        let mut buf = vec![0; len];
        let n = reader.read_at(offset, &mut buf).unwrap();
        String::from_utf8_lossy(&buf[..n]).into_owned()
    };
    assert_eq!(read(0, 3), "012");
    assert_eq!(read(3, 3), "345");
    assert_eq!(read(8, 9), "89");
    assert_eq!(read(1, 2), "12");
    assert_eq!(read(20, 2), "");
}
