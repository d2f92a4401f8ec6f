//! What the model has found, with its shortest operations.

use super::harness::{Harness, Op, Pick};

/// The content grew to the offset, as no other filesystem's does.
#[test]
fn writing_nothing_beyond_the_end_changes_nothing() {
    let name = "a".to_owned();
    Harness::caching().run(&[
        Op::Create {
            dir: Pick(0),
            name,
            exclusive: false,
            truncate: false,
        },
        Op::Write {
            handle: Pick(0),
            offset: 1,
            len: 0,
        },
    ]);
}

/// The link was taken for another version of the file that replaces it.
#[test]
fn a_file_that_waits_to_be_uploaded_replaces_a_link() {
    let create = |name: &str| Op::Create {
        dir: Pick(0),
        name: name.to_owned(),
        exclusive: false,
        truncate: false,
    };
    for _ in 0..20 {
        Harness::writing_back().run(&[
            create("a"),
            Op::Symlink {
                dir: Pick(0),
                name: "b".to_owned(),
            },
            Op::Close { handle: Pick(0) },
            Op::RenameOver {
                from: Pick(0),
                to: Pick(1),
            },
        ]);
    }
}
