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
