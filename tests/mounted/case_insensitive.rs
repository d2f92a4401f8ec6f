//! Servers on Windows and macOS, to which `Name` and `NAME` are one file.

use std::fs;

use super::{mounting, names_there};
use crate::support::ftpd::{Ftpd, Quirks};

/// One that renames over files, and one that refuses it even where the file is the same.
fn kinds() -> [Quirks; 2] {
    let mut kinds = [Quirks::default(), Quirks::default()];
    for quirks in &mut kinds {
        quirks.case_insensitive = true;
    }
    kinds[1].rnto_over_refused = Some("550 File already exists.".to_owned());
    kinds
}

#[test]
fn the_case_of_a_name_is_changed_and_nothing_is_lost() {
    for quirks in kinds() {
        let server = Ftpd::with(quirks);
        server.put("ReadMe.txt", "first");
        server.put("Other", "second");
        let Some(mount) = mounting(&server).start() else {
            return;
        };
        // The second time it is known whether the server renames over files.
        for (from, to) in [("ReadMe.txt", "README.TXT"), ("README.TXT", "readme.txt")] {
            fs::rename(mount.path(from), mount.path(to)).unwrap();
            assert_eq!(names_there(&server), ["Other", to]);
            assert_eq!(fs::read(mount.path(to)).unwrap(), b"first");
            // So that the refusing server is asked for a real replacement in between.
            fs::write(mount.path("Other"), "changed").unwrap();
            assert_eq!(server.get("Other"), b"changed");
        }
        fs::create_dir(mount.path("Dir")).unwrap();
        fs::write(mount.path("Dir/inside"), "third").unwrap();
        fs::rename(mount.path("Dir"), mount.path("DIR")).unwrap();
        assert_eq!(names_there(&server), ["DIR", "Other", "readme.txt"]);
        assert_eq!(fs::read(mount.path("DIR/inside")).unwrap(), b"third");
        mount.finish();
    }
}

/// mv(1) knows of the directory by its new name, too, and wants to move it in there; or it does not,
/// and renames it.
#[test]
fn a_directory_is_not_moved_into_itself_under_another_case() {
    for quirks in kinds() {
        let server = Ftpd::with(quirks);
        server.put("Dir/inside", "content");
        let Some(mount) = mounting(&server).option("dir_cache=1s").start() else {
            return;
        };
        let (status, said) = mount.try_sh("test -d DIR; mv Dir DIR");
        assert!(!status.success(), "{:?}", server.commands());
        assert!(said.contains("to a subdirectory of itself"), "{said}");
        assert_eq!(names_there(&server), ["Dir"]);
        mount.sh("sleep 1.5; ls; mv Dir DIR; cat DIR/inside");
        assert_eq!(names_there(&server), ["DIR"]);
        mount.finish();
    }
}

#[test]
fn a_name_that_is_taken_in_another_case_loses_no_content() {
    for quirks in kinds() {
        let server = Ftpd::with(quirks);
        server.put("DATA", "theirs");
        let mounting = mounting(&server).expect_log("kept as /data.conflict-");
        let Some(mount) = mounting.start() else {
            return;
        };
        mount.sh("ls");
        fs::write(mount.path("data"), "ours").unwrap();
        let names = names_there(&server);
        let contents: Vec<_> = names.iter().map(|name| server.get(name)).collect();
        assert!(contents.contains(&b"ours".to_vec()), "{names:?}");
        // It is the same file to the server, so that it is replaced or kept beside, as
        // `-o conflict=` says of a version that was not known here.
        assert!(contents.contains(&b"theirs".to_vec()), "{names:?}");
        assert_eq!(names.len(), 2, "{names:?}");
        mount.finish();
    }
}
