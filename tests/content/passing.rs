//! Big files whose upload follows the writer: what is sent from memory while it goes to the disk.

use ferryfs::vfs::error::ErrorKind;

use super::*;
use crate::support::memory::Op;

const MB: usize = 1 << 20;

/// Long enough that the end goes around the page cache.
const LEN: usize = 42 * MB;

/// Each megabyte with its number in front.
fn big() -> Vec<u8> {
    let one = pattern(MB);
    let mut all = one.repeat(LEN / MB);
    for (number, piece) in all.chunks_mut(MB).enumerate() {
        piece[..8].copy_from_slice(&(number as u64).to_be_bytes());
    }
    all
}

fn write(file: &Handle, content: &[u8], from: usize, to: usize, step: usize) {
    for at in (from..to).step_by(step) {
        file.write(at as u64, &content[at..to.min(at + step)]);
    }
}

fn assert_is(mount: &Mount, content: &[u8]) {
    let there = mount.server.get("a").expect("stored");
    assert_eq!(there.len(), content.len());
    let differs = there.iter().zip(content).position(|(a, b)| a != b);
    assert_eq!(differs, None);
}

#[test]
fn writes_of_any_length_arrive() {
    for step in [MB, 256 << 10, 300_000] {
        let mount = Mount::new();
        let file = mount.open("a", CREATE);
        let content = big();
        write(&file, &content, 0, LEN, step);
        file.commit();
        assert_is(&mount, &content);
        assert_eq!(mount.server.traffic().received, LEN as u64, "sent once");
        let tail = LEN - 5 * MB - 1;
        assert!(file.read(tail as u64, 5 * MB + 1) == content[tail..]);
        file.close().unwrap();
        assert!(mount.state("staging").is_empty());
    }
}

#[test]
fn what_is_on_its_way_may_be_read_changed_and_cut() {
    let change: [fn(&Handle, &mut Vec<u8>); 5] = [
        |file, content| {
            file.write((LEN - 2 * MB - 3) as u64, b"changed");
            content[LEN - 2 * MB - 3..][..7].copy_from_slice(b"changed");
        },
        |file, content| {
            file.set_len((LEN - MB - 7) as u64);
            content.truncate(LEN - MB - 7);
        },
        |file, content| {
            file.set_len((LEN - 5 * MB) as u64);
            content.truncate(LEN - 5 * MB);
            file.write(LEN as u64, b"behind a hole");
            content.resize(LEN, 0);
            content.extend(b"behind a hole");
        },
        |file, content| {
            file.write(LEN as u64, b"short");
            content.extend(b"short");
            file.write(content.len() as u64, &pattern(MB));
            content.extend(pattern(MB));
        },
        |file, content| assert!(file.read(33 << 20, MB) == content[33 << 20..][..MB]),
    ];
    for change in change {
        let mount = Mount::new();
        // What is behind is not sent yet.
        mount.faulty.delay(Op::Write, Duration::from_millis(5));
        let file = mount.open("a", CREATE);
        let mut content = big();
        write(&file, &content, 0, LEN, MB);
        change(&file, &mut content);
        mount.faulty.heal();
        file.commit();
        assert_is(&mount, &content);
        assert!(file.read_all(MB) == content);
        file.close().unwrap();
    }
}

#[test]
fn a_broken_upload_is_made_again_from_the_disk() {
    for at in [10, 33, 40] {
        let mount = Mount::new();
        let broken = (at * MB + 5) as u64;
        mount.faulty.cut(Op::Write, broken, ErrorKind::Disconnected);
        let file = mount.open("a", CREATE);
        let content = big();
        write(&file, &content, 0, LEN, MB);
        file.commit();
        assert_is(&mount, &content);
        file.close().unwrap();
    }
}

#[test]
fn a_commit_on_the_way_is_no_end() {
    let mount = Mount::new();
    let file = mount.open("a", CREATE);
    let content = big();
    write(&file, &content, 0, LEN - 5 * MB, MB);
    file.commit();
    assert_is(&mount, &content[..LEN - 5 * MB]);
    write(&file, &content, LEN - 5 * MB, LEN, MB);
    file.commit();
    assert_is(&mount, &content);
    assert!(file.read_all(MB) == content);
}
