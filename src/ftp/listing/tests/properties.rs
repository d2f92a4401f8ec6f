//! What holds for any bytes.

use proptest::prelude::*;

use super::*;

/// Bytes that are often near to a listing: pieces of every dialect, shuffled.
fn listing_like() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&[u8]; 48] = [
        b"-rw-r--r--",
        b"drwxr-sr-t",
        b"lrwxrwxrwx",
        b"crw-rw-rw-",
        b" ",
        b"  ",
        b"1",
        b"root",
        b"8,",
        b"512",
        b"Jan 31 12:00",
        b"Feb 29",
        b"2024",
        b"31 Jan",
        b"2024-01-31",
        b"+0100",
        b"12:00:00.5",
        b" -> ",
        b"name",
        b"..",
        b"/",
        b"\0",
        b"\r\n",
        b"\n",
        b"\xff",
        b"04-27-00",
        b"12:09PM",
        b"<DIR>",
        b"<SYMLINKD>",
        b" [",
        b"]",
        b"+i1.2,m3,s4,/",
        b"\t",
        b"type=file;",
        b"modify=20240131120000;",
        b"size=",
        b";",
        b"A.TXT;1",
        b"2/8",
        b"7-JAN-2000",
        b"[A,B]",
        b"(RWED,RWED,RE,)",
        b"*MEM",
        b"d [R----F--]",
        b"folder",
        b"0100644",
        b"123456789",
        b"99999999999999999999",
    ];
    let piece = prop_oneof![
        8 => proptest::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn is_whole(bytes: &[u8], parsed: &Parsed) -> Result<(), TestCaseError> {
    let blank = |line: &&[u8]| line.iter().all(|b| matches!(b, b' ' | b'\t'));
    let lines = lines(bytes).filter(|line| !blank(line)).count();
    prop_assert_eq!(
        parsed.entries.len() + parsed.skipped_count + parsed.ignored,
        lines
    );
    let names: std::collections::HashSet<_> = parsed.entries.iter().map(|e| &e.name).collect();
    prop_assert_eq!(names.len(), parsed.entries.len());
    Ok(())
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => any::<u8>(), 1 => Just(b' '), 1 => Just(b';'), 1 => Just(b'=')];
    proptest::collection::vec(byte, 1..40).prop_filter("a name", |bytes| Name::new(bytes).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_no_line_is_lost(bytes in listing_like()) {
        is_whole(&bytes, &parse_list(&bytes, &hints()))?;
        is_whole(&bytes, &parse_mlsx(&bytes))?;
        let _ = (parse_nlst(&bytes), parse_facts(&bytes), parse_time(&bytes));
    }

    #[test]
    fn arbitrary_bytes_do_neither(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        is_whole(&bytes, &parse_list(&bytes, &hints()))?;
        is_whole(&bytes, &parse_mlsx(&bytes))?;
    }

    #[test]
    fn what_mlsd_prints_is_read(
        name in name(), size: u64, secs in 0_u64..253_402_300_799, mode in 0_u32..0o10000,
    ) {
        let time = UNIX_EPOCH + Duration::from_secs(secs);
        let facts = format!("type=file;size={size};modify={};UNIX.mode={mode:04o}; ", format_time(time));
        let line = [facts.as_bytes(), &name, b"\r\n"].concat();
        let parsed = parse_mlsx(&line);
        prop_assert_eq!(names(&parsed), [&name[..]]);
        let attr = &parsed.entries[0].attr;
        prop_assert_eq!(attr.size, Some(size));
        prop_assert_eq!(attr.mtime, Some(time));
        prop_assert_eq!(attr.mode, Some(mode));
    }

    #[test]
    fn what_ls_prints_is_read(name in name(), size: u64, mode in 1_u32..0o1000, day in 0_u64..25_000) {
        let time = UNIX_EPOCH + Duration::from_secs(day * 86_400);
        let t = format_time(time);
        let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            [t[4..6].parse::<usize>().unwrap() - 1];
        let letters: String = "rwxrwxrwx".chars().enumerate()
            .map(|(at, c)| if mode & (0o400 >> at) == 0 { '-' } else { c }).collect();
        let columns = format!("-{letters} 1 owner group {size:>12} {month} {:>2}  {} ", &t[6..8], &t[..4]);
        let line = [columns.as_bytes(), &name, b"\r\n"].concat();
        let parsed = parse_list(&line, &hints());
        prop_assert_eq!(names(&parsed), [&name[..]]);
        let attr = &parsed.entries[0].attr;
        prop_assert_eq!((attr.size, attr.mode, attr.mtime), (Some(size), Some(mode), Some(time)));
    }

    #[test]
    fn a_link_is_parted_at_the_right_arrow(
        name in "[a-z> -]{1,12}[a-z]", target in "[a-z][a-z> -]{0,12}",
    ) {
        let line = format!("lrwxrwxrwx 1 u g {} Jan  1  2020 {name} -> {target}\n", target.len());
        let parsed = list(&line);
        prop_assert_eq!(names(&parsed), [name.as_bytes()]);
        prop_assert_eq!(parsed.entries[0].attr.target.as_deref(), Some(target.as_bytes()));
    }
}
