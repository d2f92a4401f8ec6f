//! The manual's SEMANTICS, sentence by sentence, with the tests that hold each: one that is added or
//! changed there without a test here fails, and so does a test that is gone.

use std::fs;
use std::path::{Path, PathBuf};

/// The beginnings of the sentences, in their order, each with tests that fail if it is false.
const HELD: &[(&str, &[&str])] = &[
    // Reading
    (
        "A file is never silently short: its end",
        &[
            "content::faults::a_retrieve_that_ends_early_is_never_the_end_of_the_file",
            "content::faults::an_end_the_server_does_not_confirm_is_asked_for_again",
            "content::reading::a_file_of_unknown_size_ends_where_the_server_says",
            "mounted::faults::data_that_stops_coming_is_no_end",
            "cuts::closed_at_every_byte",
        ],
    ),
    (
        "A file that another client changes while it is open",
        &[
            "content::reading::a_file_changed_by_another_is_stale_never_a_mix",
            "content::reading::a_file_written_to_in_place_during_a_long_read_is_stale_at_its_end",
            "mounted::promises::a_file_written_to_in_place_while_it_is_read_is_estale",
            "mounted::passthrough::who_opens_a_changed_file_reads_the_new_one_and_others_the_old_one",
        ],
    ),
    (
        "Reading on after a jump, and mmap",
        &[
            "content::reading::jumps_open_a_few_streams_at_most_and_are_right",
            "mounted::cache::a_file_that_is_jumped_about_in_is_read_right",
            "mounted::direct::every_byte_is_right_by_whatever_call",
            "interop::calls::mmap_read",
        ],
    ),
    (
        "Names are octets and stay unchanged",
        &[
            "interop::names::odd_names",
            "interop::names::listed_names",
            "interop::names::longest_name",
            "interop::names::blanks_at_the_end",
            "hostile::line_breaks_get_nowhere",
        ],
    ),
    // Writing
    (
        "If close returned 0",
        &[
            "interop::changes::close_means_stored",
            "interop::programs::tar_and_diff",
            "mounted::writing::a_full_disk_is_told_and_the_old_version_stays",
            "mounted::writing::an_upload_cut_short_is_never_taken_for_complete",
        ],
    ),
    (
        "If fsync returned 0",
        &["interop::changes::fsync_means_stored"],
    ),
    (
        "Other clients of the server see the old version or the new one",
        &[
            "interop::changes::others_see_whole_versions",
            "mounted::writing::a_program_that_starts_others_does_not_publish_half_of_its_file",
            "mounted::writing::an_append_sends_the_tail_only",
        ],
    ),
    (
        "After any failure the old version is byte-identical",
        &[
            "mounted::writing::a_publication_that_fails_halfway_leaves_one_whole_version",
            "mounted::faults::the_wire_may_break_anywhere",
            "ftp_backend::upload::every_refusal_leaves_the_old_version_and_no_litter",
            "mounted::promises::a_broken_append_leaves_the_old_version_and_is_mended",
        ],
    ),
    (
        "Neither is true with upload=direct",
        &[
            "ftp_backend::upload::where_nothing_may_be_renamed_files_are_stored_in_place",
            "ftp_backend::upload::guests_store_new_names_directly_and_replace_old_ones_safely",
            "mounted::promises::a_direct_upload_is_seen_to_grow",
        ],
    ),
    (
        "A full disk is ENOSPC , a full quota EDQUOT , a refusal EACCES",
        &[
            "mounted::writing::a_full_disk_is_told_and_the_old_version_stays",
            "mounted::writing::a_refused_upload_is_eacces_and_changes_nothing",
        ],
    ),
    (
        "Appending, writing in the middle, growing and shrinking",
        &[
            "interop::calls::append",
            "interop::calls::truncate_path",
            "interop::calls::truncate_open_file",
            "interop::calls::mmap_write",
            "interop::changes::overwritten_in_the_middle",
            "interop::programs::fsx",
        ],
    ),
    (
        "What one process has written, every other on the same mount",
        &[
            "interop::calls::two_handles",
            "interop::calls::two_appenders",
            "content::sharing::what_one_handle_wrote_another_reads_at_once",
            "mounted::passthrough::who_reads_sees_what_is_written",
            "mounted::passthrough::readers_see_every_write_at_once",
        ],
    ),
    // Names
    (
        "rename replaces an existing file",
        &[
            "interop::entries::rename_over",
            "interop::entries::rename_directory",
            "interop::calls::rename_open_file",
        ],
    ),
    (
        "Where the server refuses to rename over a file",
        &[
            "ftp_backend::upload::where_rnto_does_not_replace_the_old_file_goes_aside",
            "ftp_backend::upload::the_old_file_comes_back_if_the_new_one_cannot_take_its_place",
            "mounted::writing::a_server_that_renames_over_nothing_is_worked_around",
        ],
    ),
    (
        "If the mount is killed, or the link or the power fails",
        &[
            "mounted::half_done::an_upload_over_an_old_file",
            "mounted::half_done::a_rename_over_a_file",
            "mounted::half_done::a_version_that_took_the_place_meanwhile_is_not_touched",
            "mounted::half_done::a_link_that_comes_back_is_used_to_put_it_right_without_being_asked",
            "mounted::half_done::a_read_only_mount_leaves_it_to_the_next_and_says_so",
            "mounted::power::a_version_that_went_aside_just_before_a_power_cut_comes_back",
        ],
    ),
    (
        "RENAME_NOREPLACE is honoured",
        &["interop::entries::rename_noreplace"],
    ),
    (
        "A file that is removed while open stays readable",
        &["interop::calls::unlink_open_file"],
    ),
    (
        "mkdir of a name that exists",
        &["interop::entries::mkdir", "interop::entries::rmdir"],
    ),
    (
        "Symbolic links are shown as links where the server tells",
        &[
            "interop::entries::symlink",
            "mounted::listings::links_are_links_however_they_are_told",
            "ftp_backend::listing::links_that_leave_the_mount_are_refused_unless_raw",
            "ftp_backend::changes::links_are_made_only_where_the_server_offers_it",
        ],
    ),
    // Attributes
    (
        "Modification times are set to the second",
        &[
            "interop::calls::utimens",
            "mounted::writing::times_are_set_by_whatever_the_server_has",
        ],
    ),
    (
        "chmod works where the server has SITE CHMOD",
        &[
            "interop::calls::chmod",
            "ftp_backend::changes::chmod_is_strict_or_ignored",
        ],
    ),
    (
        "chown is EPERM unless",
        &["interop::calls::chown", "vfs::the_owner_can_only_stay"],
    ),
    (
        "Free space is what the server tells",
        &["mounted::promises::free_space_is_what_the_server_tells"],
    ),
    ("flock and fcntl locks", &["interop::calls::locks"]),
    (
        "Extended attributes can be read",
        &[
            "ftp_backend::changes::the_last_refusal_is_an_attribute",
            "mounted::listings::answers_from_memory_cost_nothing",
        ],
    ),
    // Writeback
    (
        "close returns when the content is in the journal",
        &[
            "writeback::what_is_closed_is_seen_at_once_and_on_the_server_soon",
            "writeback::the_next_mount_goes_on_after_a_kill",
            "kills::while_cp_copies",
            "mounted::power::what_was_closed_survives_a_power_cut",
        ],
    ),
    (
        "fsync , ferryfs flush and ferryfs umount wait",
        &[
            "writeback::fsync_and_flush_wait_for_the_server_and_say_what_it_says",
            "mounted::writeback::an_outage_is_waited_for_and_told_by_status_flush_and_umount",
        ],
    ),
    (
        "What waits is read, listed, renamed and removed",
        &[
            "writeback::what_waits_is_renamed_in_the_journal",
            "writeback::what_waits_can_be_removed_and_its_directory_after_it",
            "mounted::writeback::an_outage_is_waited_for_and_told_by_status_flush_and_umount",
        ],
    ),
    (
        "While the server cannot be reached, or its disk is full",
        &[
            "mounted::writeback::an_outage_is_waited_for_and_told_by_status_flush_and_umount",
            "writeback::a_refusal_is_told_to_who_uses_the_file_next",
        ],
    ),
    (
        "ferryfs status shows what waits",
        &["mounted::writeback::an_outage_is_waited_for_and_told_by_status_flush_and_umount"],
    ),
    (
        "After ferryfs was killed, or ended with something still waiting",
        &[
            "mounted::writeback::the_next_mount_goes_on_with_what_waited_in_an_outage",
            "writeback::the_next_mount_goes_on_after_a_kill",
        ],
    ),
    (
        "A refusal of a new name",
        &["writeback::a_refusal_is_told_to_who_uses_the_file_next"],
    ),
    // Changes by others
    (
        "A change that another client makes is seen when",
        &["interop::changes::changed_behind_our_back"],
    ),
    (
        "What is done on this mount is seen on it at once",
        &[
            "interop::entries::readdir_sees_changes",
            "interop::calls::open_write_close_stat",
        ],
    ),
    (
        "When a content is stored, the version that it replaces is compared",
        &[
            "mounted::conflicts::the_other_version_is_kept",
            "mounted::conflicts::the_upload_fails_where_it_is_told_to",
            "mounted::conflicts::the_last_one_wins_where_it_is_told_to",
            "interop::changes::changed_while_it_is_open_here",
        ],
    ),
    (
        "The same holds for a name that rename replaces",
        &[
            "mounted::conflicts::a_rename_keeps_the_version_that_nobody_here_has_seen",
            "mounted::conflicts::a_rename_fails_where_it_is_told_to_and_replaces_what_was_looked_at_since",
            "interop::changes::changed_while_it_is_open_here",
        ],
    ),
    (
        "With upload=direct , and for what an anonymous user stores",
        &[
            "mounted::conflicts::an_upload_in_place_minds_the_version_that_is_there",
            "mounted::conflicts::a_guest_replaces_no_version_that_he_has_not_seen",
        ],
    ),
    // Trouble
    (
        "Every operation ends within a time",
        &[
            "mounted::faults::a_silent_server_is_waited_for_as_long_as_said",
            "mounted::faults::the_wire_may_go_silent_anywhere",
        ],
    ),
    (
        "A lost connection is replaced by a new one",
        &[
            "mounted::faults::a_download_goes_on_where_it_broke",
            "mounted::faults::idle_connections_may_die_unnoticed",
            "ftp_backend::changes::reading_work_is_repeated_on_another_connection",
        ],
    ),
    (
        "A server that allows few connections",
        &[
            "mounted::limits::sixteen_readers_where_two_are_welcome_421",
            "mounted::limits::one_connection_is_enough",
        ],
    ),
    (
        "On a read-only mount, or for a user who may not write",
        &[
            "interop::anonymous::nothing_can_be_written",
            "mounted::writing::a_read_only_server_is_readable",
            "mounted::lifecycle::read_only_and_ownership_options",
        ],
    ),
];

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The items of SEMANTICS, mdoc's macros taken away.
fn sentences() -> Vec<String> {
    let manual = fs::read_to_string(source().join("man/ferryfs.1")).unwrap();
    let (_, after) = manual.split_once(".Sh SEMANTICS\n").unwrap();
    let (section, _) = after.split_once("\n.Sh ").unwrap();
    let mut sentences: Vec<String> = Vec::new();
    let mut within = false;
    for line in section.lines() {
        match line {
            ".It" => {
                within = true;
                sentences.push(String::new());
            }
            ".El" => within = false,
            _ if within => {
                let words: Vec<_> = line
                    .split(' ')
                    .filter(|word| {
                        let sections = word.parse::<u8>().is_ok() && line.starts_with(".Xr");
                        !sections && !word.starts_with('.') && !["Ns", "Cm", "Li"].contains(word)
                    })
                    .collect();
                let sentence = sentences.last_mut().unwrap();
                sentence.push_str(&words.join(" "));
                sentence.push(' ');
            }
            _ => {}
        }
    }
    sentences
        .iter()
        .map(|text| text.replace(" = ", "="))
        .collect()
}

/// The file that a test is in: `a::b::c` is in `tests/a/b.rs`, or in `tests/a.rs`.
fn file_of(test: &str) -> (PathBuf, &str) {
    let (module, name) = test.rsplit_once("::").unwrap();
    let path = source().join(format!("tests/{}.rs", module.replace("::", "/")));
    (path, name)
}

#[test]
fn every_sentence_has_its_tests() {
    let sentences = sentences();
    for (at, sentence) in sentences.iter().enumerate() {
        let held = HELD
            .get(at)
            .is_some_and(|(beginning, _)| sentence.starts_with(beginning));
        assert!(held, "no test is named for sentence {at}: {sentence}");
    }
    assert_eq!(sentences.len(), HELD.len());
    let runs = fs::read_to_string(source().join("tests/interop.rs")).unwrap();
    for test in HELD.iter().flat_map(|(_, tests)| *tests) {
        let (path, name) = file_of(test);
        let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("{test}: {err}"));
        let at = text.find(&format!("fn {name}("));
        let at = at.unwrap_or_else(|| panic!("{test} is gone"));
        let head = &text[at.saturating_sub(120)..at];
        assert!(!head.contains("#[ignore"), "{test} does not run");
        let runs = head.trim_end().ends_with("#[test]") || runs.contains(name);
        assert!(runs, "{test} is no test");
    }
}

/// Whether `name` is a test, or a module of tests, here or in the crate.
fn is_there(name: &str) -> bool {
    let parts: Vec<_> = name.split("::").collect();
    (1..=parts.len()).any(|count| {
        ["tests", "src"].iter().any(|top| {
            let path = source().join(format!("{top}/{}.rs", parts[..count].join("/")));
            let last = parts[parts.len() - 1];
            let known = [format!("fn {last}("), format!("mod {last}")];
            let named = |text: String| known.iter().any(|words| text.contains(words));
            fs::read_to_string(path).is_ok_and(|text| count == parts.len() || named(text))
        })
    })
}

#[test]
fn every_quirk_has_its_tests() {
    let text = fs::read_to_string(source().join("tests/hostile.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut count = 0;
    for row in rows.skip(2) {
        let named = row.split('`').skip(1).step_by(2);
        let tests: Vec<_> = named.filter(|word| !word.contains(['-', '/'])).collect();
        for test in &tests {
            let here = text.contains(&format!("fn {test}("));
            assert!(here || is_there(test), "{row}: {test} is gone");
        }
        count += 1;
    }
    assert!(count > 35, "{count} rows");
}
