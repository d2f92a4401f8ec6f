//! The same tests on each real server, as it comes: what a mount is for.
//!
//! `scripts/interop` runs them. Each test has a server and a mount of its own, so that one may fail
//! without the others. Where a server cannot do something, the test says so and expects the
//! documented refusal.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::mount::TestMount;
use crate::support::real::RealServer;

mod anonymous;
mod calls;
mod changes;
mod doctor;
mod entries;
mod logins;
mod names;
mod packed;
mod programs;
mod suite;
mod tls_rounds;

/// A mount and, behind its back, the server's disk.
struct Stage {
    mount: TestMount,
    server: RealServer,
}

impl Stage {
    /// A path in the mount.
    fn path(&self, below: &str) -> PathBuf {
        self.mount.path(below)
    }

    /// The same on the server's disk.
    fn there(&self, below: &str) -> PathBuf {
        self.server.path(below)
    }

    /// Puts a file on the server's disk, as its user's.
    fn put(&self, below: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.there(below), content).unwrap();
        self.server.give_all_to_the_user();
    }

    /// Waits, in bounds, until the server's disk has just these names in its root: what happens at
    /// the last close is not waited for by who closes.
    fn comes_to_have(&self, names: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut found: Vec<_> = std::fs::read_dir(self.there(""))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            if found == names {
                return;
            }
            assert!(Instant::now() < deadline, "the server has {found:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Only ProFTPD, with the module that Debian ships for it, makes symbolic links.
    fn makes_links(&self) -> bool {
        self.server.name() == "proftpd"
    }
}

/// Plays `case` on a mount of `server`; `words` are the mode and what else its script is told.
fn play(server: &'static str, words: &str, case: fn(&Stage)) {
    let mut words = words.split(' ');
    let mode = words.next().unwrap();
    // Somebody else changes what is open here.
    let clash = mode == "clash";
    let mode = if clash { "user" } else { mode };
    let Some(server) = RealServer::start(server, mode, &words.collect::<Vec<_>>()) else {
        return;
    };
    // What an anonymous user finds there.
    if mode == "anon" {
        anonymous::furnish(&server);
    }
    let mut mounting = server.mounting();
    if mode == "anon" {
        // What was refused at the last close is told there, too.
        mounting = mounting.expect_log("not on the server");
    }
    if clash {
        mounting = mounting.expect_log("somebody else has changed it");
    }
    let Some(mount) = mounting.start() else {
        return;
    };
    let stage = Stage { mount, server };
    case(&stage);
    stage.mount.finish();
}

macro_rules! cases {
    ($server:literal, $words:literal, $area:ident: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                crate::interop::play($server, $words, crate::interop::$area::$case);
            }
        )*
    };
}

macro_rules! servers {
    ($($module:ident $server:literal)*) => {
        $(
            mod $module {
                cases!($server, "user", calls:
                    create create_exclusive open_missing read write append two_appenders seek
                    truncate_path truncate_open_file unlink_open_file create_with_mode chmod chown
                    utimens utimens_now mmap_read mmap_write rename_open_file
                    open_write_close_stat two_handles locks);
                cases!($server, "user", entries:
                    mkdir rmdir unlink symlink link readdir readdir_repeated readdir_sees_changes
                    rename rename_over rename_directory rename_noreplace special_files statvfs);
                cases!($server, "user", changes:
                    close_means_stored fsync_means_stored others_see_whole_versions big_file
                    overwritten_in_the_middle replaced_many_times changed_behind_our_back deep_tree
                    many_small_files);
                cases!($server, "clash", changes: changed_while_it_is_open_here);
                cases!($server, "user", suite: twenty_nine_functions);
                cases!($server, "user", names:
                    odd_names longest_name listed_names blanks_at_the_end);
                cases!($server, "user", programs:
                    git sqlite tar_and_diff sed_append_dd rsync_twice copies fsx);
                cases!($server, "anon", anonymous:
                    everything_can_be_read nothing_can_be_written);
                cases!($server, "user", logins: sent_at_once);
                cases!($server, "anon", doctor: reads_where_nothing_can_be_written);
                mod tls {
                    cases!($server, "user tls", calls: create write append);
                    cases!($server, "user tls", entries: rename_over readdir);
                    cases!($server, "user tls", changes: big_file many_small_files);
                    cases!($server, "user tls", programs: git rsync_twice);
                    cases!($server, "user tls", tls_rounds: rounds);
                    cases!($server, "user tls", logins: sent_at_once);
                    cases!($server, "user tls", doctor: tells_what_is_true);
                }
                mod v6 {
                    cases!($server, "user v6", calls: write);
                    cases!($server, "user v6", entries: readdir);
                }
            }
        )*
    };
}

servers! {
    vsftpd "vsftpd"
    proftpd "proftpd"
    pure_ftpd "pure-ftpd"
    pyftpdlib "pyftpdlib"
}
