#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod corpus;
mod properties;

use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// 2024-06-15 12:00:00 UTC.
fn hints() -> Hints {
    Hints {
        now: UNIX_EPOCH + Duration::from_secs(1_718_452_800),
        offset_secs: 0,
        dialect: None,
    }
}

fn list(text: &str) -> Parsed {
    parse_list(text.as_bytes(), &hints())
}

fn names(parsed: &Parsed) -> Vec<&[u8]> {
    parsed.entries.iter().map(|e| e.name.as_bytes()).collect()
}

fn time_of(parsed: &Parsed, at: usize) -> String {
    format_time(parsed.entries[at].attr.mtime.unwrap())
}

#[test]
fn nothing_is_in_an_empty_listing() {
    for bytes in [&b""[..], b"\r\n", b"\n\n  \r\n", b"total 0\r\n"] {
        let parsed = parse_list(bytes, &hints());
        assert!(parsed.entries.is_empty() && parsed.skipped_count == 0);
        assert_eq!(parsed.dialect, Dialect::Unknown);
    }
    assert!(parse_mlsx(b"").entries.is_empty());
    assert_eq!(parse_nlst(b""), (vec![], vec![]));
}

#[test]
fn names_come_from_nlst_byte_for_byte() {
    let (names, skipped) =
        parse_nlst(b" lead\r\ntrail \r\n./here\r\n.\r\n..\r\ncaf\xe9\r\n\r\na/b\na\na\n");
    let bytes: Vec<_> = names.iter().map(Name::as_bytes).collect();
    assert_eq!(bytes, [&b" lead"[..], b"trail ", b"here", b"caf\xe9", b"a"]);
    let why: Vec<_> = skipped.iter().map(|s| (&s.line[..], s.why)).collect();
    assert_eq!(
        why,
        [(&b"a/b"[..], Reason::Hostile), (b"a", Reason::Duplicate)]
    );
}

#[test]
fn an_mlst_line_gives_its_path_unchecked() {
    let (attr, path) = parse_facts(b" type=file;size=4; /a dir/../b\r\n").unwrap();
    assert_eq!((attr.size, &path[..]), (Some(4), &b"/a dir/../b"[..]));
    let (attr, path) = parse_facts(b"Type=cdir;Perm=el; /pub").unwrap();
    assert!(attr.is_dir());
    assert_eq!(
        (attr.perm.as_deref(), &path[..]),
        (Some("el"), &b"/pub"[..])
    );
    for none in [
        &b""[..],
        b" /path",
        b"type=file;",
        b"250 End",
        b"no such file",
    ] {
        assert_eq!(parse_facts(none), None);
    }
}

#[test]
fn list_times_are_moved_to_utc_and_told_ones_are_not() {
    let ahead = Hints {
        offset_secs: 7200,
        ..hints()
    };
    let text = b"-rw-r--r-- 1 u g 1 Jan 31 12:00 a\n\
        -rw-r--r-- 1 u g 1 2024-01-31 12:00:00.000000000 +0100 b\n\
        -rw-r--r-- 1 u g 1 Jun 16 13:30 tomorrow there\n";
    let parsed = parse_list(text, &ahead);
    assert_eq!(time_of(&parsed, 0), "20240131100000");
    assert_eq!(time_of(&parsed, 1), "20240131110000");
    assert_eq!(time_of(&parsed, 2), "20240616113000");
    let extreme = Hints {
        offset_secs: i64::MIN,
        ..hints()
    };
    assert_eq!(parse_list(text, &extreme).entries.len(), 3);
}

#[test]
fn the_order_of_day_and_month_is_learned_from_the_whole_listing() {
    let riddle = "04/05/2000  10:00    12 a\r\n";
    assert_eq!(time_of(&list(riddle), 0), "20000405100000");
    let solved = format!("{riddle}27/04/2000  10:00    12 b\r\n");
    assert_eq!(time_of(&list(&solved), 0), "20000504100000");
    let both = format!("{solved}04/27/2000  10:00    12 c\r\n");
    assert_eq!(time_of(&list(&both), 0), "20000405100000");
}

#[test]
fn padding_before_names_is_learned_from_the_dots() {
    let dots = "drwxr-xr-x 2 u g 0 Jan  1  2020   .\ndrwxr-xr-x 2 u g 0 Jan  1  2020   ..\n";
    let file = "-rw-r--r-- 1 u g 0 Jan  1  2020   name\n";
    assert_eq!(names(&list(file)), [b"  name"]);
    assert_eq!(names(&list(&format!("{dots}{file}"))), [b"name"]);
    assert_eq!(names(&list(&format!("{file}{dots}"))), [b"name"]);
}

#[test]
fn only_the_first_directory_of_a_recursive_listing_is_read() {
    let parsed = list(
        ".:\ntotal 1\n-rw-r--r-- 1 u g 0 Jan  1  2020 a\n\n./sub:\ntotal 1\n\
         -rw-r--r-- 1 u g 0 Jan  1  2020 b\n",
    );
    assert_eq!(names(&parsed), [b"a"]);
    assert_eq!(parsed.skipped[0].why, Reason::OtherDirectory);
    let parsed = list("-rw-r--r-- 1 u g 0 Jan  1  2020 colon:\n");
    assert_eq!(names(&parsed), [b"colon:"]);
}

#[test]
fn a_stat_reply_is_a_listing() {
    let parsed = list(
        "213-Status of /:\r\n drwxr-xr-x   2 ftp  ftp   4096 Jan 31 12:00 .\r\n \
         -rw-r--r--   1 ftp  ftp   5 Jan 31 12:00  two blanks\r\n213 End of status\r\n",
    );
    assert_eq!(names(&parsed), [b" two blanks"]);
    assert_eq!((parsed.skipped_count, parsed.ignored), (0, 3));
}

#[test]
fn skipped_lines_are_counted_beyond_those_kept() {
    let text = format!("{}\n", "x".repeat(5000)).repeat(1000);
    let parsed = list(&text);
    assert_eq!((parsed.skipped_count, parsed.skipped.len()), (1000, 256));
    assert_eq!(parsed.skipped[0].line.len(), 1024);
}

#[test]
fn targets_that_readlink_cannot_return_are_not_told() {
    let long = "t".repeat(5000);
    let text = format!(
        "lrwxrwxrwx 1 u g 3 Jan  1  2020 a -> x\0y\nlrwxrwxrwx 1 u g 5000 Jan  1  2020 b -> {long}\n"
    );
    let parsed = list(&text);
    assert_eq!(names(&parsed), [b"a", b"b"]);
    assert!(parsed.entries.iter().all(|e| e.attr.target.is_none()));
}

#[test]
fn members_without_a_heading_need_a_hint() {
    let text = "ALPHA\nBETA\n";
    assert_eq!(list(text).skipped_count, 2);
    let hinted = Hints {
        dialect: Some(Dialect::MvsMembers),
        ..hints()
    };
    assert_eq!(parse_list(text.as_bytes(), &hinted).entries.len(), 2);
}

#[test]
fn a_hint_does_not_outweigh_what_a_line_says() {
    let text = "total 4\ndrwxr-xr-x 2 u g 0 Jan  1  2020 USS\n-rw-r--r-- 1 u g 0 Jan  1  2020 b\n";
    for (dialect, _) in PARSERS {
        let hinted = Hints {
            dialect: Some(dialect),
            ..hints()
        };
        let parsed = parse_list(text.as_bytes(), &hinted);
        assert_eq!(names(&parsed), [&b"USS"[..], b"b"], "{dialect:?}");
        assert_eq!((parsed.dialect, parsed.ignored), (Dialect::Unix, 1));
    }
}
