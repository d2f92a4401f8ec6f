//! A close waits for its upload, and nobody else waits for the close.

use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::ftpd::Ftpd;
use crate::support::mount::Mounting;

/// More than there are threads that take requests from the kernel.
const CLOSES: usize = 6;

/// How long the server takes for each.
const SLOW: Duration = Duration::from_secs(3);

#[test]
fn nobody_waits_for_the_closes_of_others() {
    let server = Ftpd::start();
    server.put("known/file", "content");
    server.put("other/file", "content");
    let mounting = Mounting::of(server.url("")).option("connections=12");
    let Some(mount) = mounting.start() else {
        return;
    };
    fs::metadata(mount.path("known/file")).unwrap();
    // What a quick server is asked next may be done on a thread that takes requests.
    for _ in 0..20 {
        fs::create_dir(mount.path("quick")).unwrap();
        fs::remove_dir(mount.path("quick")).unwrap();
    }
    server.change(|quirks| *quirks = quirks.clone().delay("SIZE", SLOW));
    let files: Vec<File> = (0..CLOSES)
        .map(|n| File::create_new(mount.path(format!("new-{n}"))).unwrap())
        .collect();
    thread::scope(|scope| {
        let closes: Vec<_> = files
            .into_iter()
            .map(|mut file| {
                scope.spawn(move || {
                    file.write_all(b"new").unwrap();
                    let began = Instant::now();
                    drop(file);
                    began.elapsed()
                })
            })
            .collect();
        thread::sleep(SLOW / 6);
        let mut longest = Duration::ZERO;
        let mut others = 0;
        while !closes.iter().any(|close| close.is_finished()) {
            let began = Instant::now();
            assert_eq!(fs::metadata(mount.path("known/file")).unwrap().len(), 7);
            assert_eq!(fs::read_dir(mount.path("other")).unwrap().count(), 1);
            assert_eq!(fs::read(mount.path("other/file")).unwrap(), b"content");
            fs::create_dir(mount.path("quick")).unwrap();
            fs::remove_dir(mount.path("quick")).unwrap();
            longest = longest.max(began.elapsed());
            others += 1;
        }
        assert!(longest < SLOW / 2, "a round of others took {longest:?}");
        assert!(others > 3, "{others} rounds");
        for close in closes {
            let took = close.join().unwrap();
            assert!(took > SLOW / 2, "a close waited {took:?} for its upload");
        }
    });
    for n in 0..CLOSES {
        assert_eq!(server.get(format!("new-{n}")), b"new");
    }
    mount.finish();
}
