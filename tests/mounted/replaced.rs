//! Names that one program moves while others open them.

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::mounting;
use crate::support::ftpd::Ftpd;

const REPLACED: usize = 300_001;

/// Who opens a name finds a file, whole, however often another file takes it.
#[test]
fn a_file_that_is_replaced_again_and_again_is_always_there() {
    let server = Ftpd::start();
    server.put("file", vec![b'0'; REPLACED]);
    let Some(mount) = mounting(&server).start() else {
        return;
    };
    let over = AtomicBool::new(false);
    let (path, new) = (mount.path("file"), mount.path("new"));
    let opened = thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut opened = 0;
                    while !over.load(Ordering::Relaxed) {
                        let mut file = File::open(&path).expect("opened");
                        let mut content = Vec::new();
                        file.read_to_end(&mut content).expect("read");
                        assert_eq!(content.len(), REPLACED);
                        assert!(content.iter().all(|byte| *byte == content[0]), "a mix");
                        opened += 1;
                    }
                    opened
                })
            })
            .collect();
        // One who only asks for its size.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(fs::metadata(&path).expect("stat").len(), REPLACED as u64);
            }
        });
        let until = Instant::now() + Duration::from_secs(4);
        let mut round = 0_u8;
        while Instant::now() < until {
            round = round.wrapping_add(1);
            fs::write(&new, vec![round; REPLACED]).expect("written");
            fs::rename(&new, &path).expect("renamed");
        }
        over.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .map(|r| r.join().unwrap())
            .sum::<usize>()
    });
    assert!(opened > 20, "{opened} opens");
    mount.finish();
}
