//! New contents that are written as a whole: around the kernel's pages, and out of memory once they
//! are sent.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::{bytes, mounting, stage};
use crate::support::ftpd::{Ftpd, Quirks};

#[test]
fn a_small_file_just_written_is_read_without_the_server() {
    let server = Ftpd::with(Quirks::default());
    let Some(mount) = mounting(&server)
        .option("cache_size=0")
        .option("dir_cache=1s")
        .start()
    else {
        return;
    };
    for (name, len) in [("one", 1), ("page", 4096), ("more", 700_001)] {
        let content = bytes(len);
        fs::write(mount.path(name), &content).unwrap();
        server.clear_log();
        for _ in 0..2 {
            assert!(fs::read(mount.path(name)).unwrap() == content, "{name}");
        }
        assert_eq!(server.count("RETR"), 0, "{name}");
        // Somebody else's version is not mistaken for it.
        server.put(name, "other");
        mount.sh("sleep 1.2");
        assert_eq!(fs::read(mount.path(name)).unwrap(), b"other", "{name}");
    }
    mount.finish();
}

#[test]
fn a_reader_sees_at_once_what_is_written_around_the_pages() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    let path = mount.path("f");
    let mut writer = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let reader = |from| {
        let file = File::open(&path).unwrap();
        let mut got = vec![0; 20_000];
        let len = file.read_at(&mut got, from).unwrap();
        got.truncate(len);
        (file, got)
    };
    let content = bytes(9_000);
    writer.write_all(&content).unwrap();
    let (first, got) = reader(0);
    assert!(got == content);
    writer.write_all(&content).unwrap();
    writer.write_at(b"changed", 0).unwrap();
    // Who has it open already, and who comes now.
    let mut got = vec![0; 20_000];
    assert_eq!(first.read_at(&mut got, 0).unwrap(), 18_000);
    assert_eq!(&got[..7], b"changed");
    assert!(got[9_000..18_000] == content);
    assert_eq!(reader(8_999).1.len(), 9_001);
    writer.set_len(5).unwrap();
    assert_eq!(reader(0).1, b"chang");
    drop((writer, first));
    assert_eq!(server.get("f"), b"chang");
    assert_eq!(fs::read(&path).unwrap(), b"chang");
    mount.finish();
}

#[test]
fn what_left_memory_while_it_was_sent_is_still_there_to_be_sent_again() {
    let Some((server, mount)) = stage(Quirks::default()) else {
        return;
    };
    let mut content = bytes(80 << 20);
    let file = File::create(mount.path("big")).unwrap();
    file.write_all_at(&content, 0).unwrap();
    // Sent already, most probably: all goes again.
    content[..9].copy_from_slice(b"the start");
    file.write_all_at(b"the start", 0).unwrap();
    file.sync_all().unwrap();
    assert!(server.get("big") == content);
    drop(file);
    mount.finish();
}
