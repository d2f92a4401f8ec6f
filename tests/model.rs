//! Random operations on the filesystem over the model in memory, against a reference tree.
//!
//! The harness plays the kernel: it counts its lookups, knows inodes by parent and name, and gives
//! everything back at the end. After every step the whole tree is compared.

mod harness;
mod regressions;

use proptest::prelude::*;

use self::harness::{Harness, Op, Pick};

/// Short, so that they collide, and a few that other programs trip over.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => "[ab-]{1,2}",
        1 => prop::sample::select(vec![
            " ", "a b ", "...", "-rf", "a -> b", "*?[x]", "caf\u{e9}", "%2e%2e", "\u{1f980}", "CON",
        ]).prop_map(str::to_owned),
        1 => Just("x".repeat(255)),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    (0..60_usize).prop_map(Pick)
}

fn own_op() -> impl Strategy<Value = Op> {
    let i = pick;
    prop_oneof![
        3 => (i(), name()).prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        1 => (i(), name()).prop_map(|(dir, name)| Op::Symlink { dir, name }),
        6 => (i(), name(), any::<bool>(), any::<bool>()).prop_map(
            |(dir, name, exclusive, truncate)| Op::Create { dir, name, exclusive, truncate }),
        3 => (i(), any::<bool>(), any::<bool>()).prop_map(
            |(file, write, truncate)| Op::Open { file, write, truncate }),
        6 => (i(), 0..200_u64, 0..100_usize).prop_map(
            |(handle, offset, len)| Op::Write { handle, offset, len }),
        1 => (i(), 0..200_u64).prop_map(|(handle, len)| Op::SetLen { handle, len }),
        1 => (i(), 0..200_u64).prop_map(|(file, len)| Op::Truncate { file, len }),
        2 => i().prop_map(|handle| Op::Flush { handle }),
        3 => i().prop_map(|handle| Op::Close { handle }),
        3 => i().prop_map(|target| Op::Unlink { target }),
        2 => i().prop_map(|target| Op::Rmdir { target }),
        5 => (i(), i(), name(), any::<bool>()).prop_map(
            |(from, dir, name, no_replace)| Op::Rename { from, dir, name, no_replace }),
        3 => (i(), i()).prop_map(|(from, to)| Op::RenameOver { from, to }),
        1 => (i(), 0..0o1000_u32).prop_map(|(target, mode)| Op::Chmod { target, mode }),
        1 => (i(), 0..2_000_000_000_u64).prop_map(|(target, time)| Op::Utimens { target, time }),
        2 => i().prop_map(|inode| Op::Forget { inode }),
    ]
}

/// What someone else does on the server.
fn others_op() -> impl Strategy<Value = Op> {
    let i = pick;
    prop_oneof![
        2 => (i(), name(), 0..100_usize).prop_map(
            |(dir, name, len)| Op::OtherPut { dir, name, len }),
        1 => (i(), name()).prop_map(|(dir, name)| Op::OtherMkdir { dir, name }),
        1 => i().prop_map(|target| Op::OtherRemove { target }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn own_changes_show_through_a_cache_that_never_expires(
        ops in prop::collection::vec(own_op(), 1..40),
    ) {
        Harness::caching().run(&ops);
    }

    #[test]
    fn own_changes_show_while_uploads_run_behind_them(
        ops in prop::collection::vec(own_op(), 1..40),
    ) {
        Harness::writing_back().run(&ops);
    }

    #[test]
    fn everybodys_changes_show_without_a_cache(
        ops in prop::collection::vec(prop_oneof![4 => own_op(), 1 => others_op()], 1..40),
    ) {
        Harness::asking().run(&ops);
    }
}
