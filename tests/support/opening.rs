//! How files are opened, and how a mount shows them, where neither is what a test is about.

use std::time::Duration;

use ferryfs::vfs::View;
use ferryfs::vfs::backend::OpenHow;

/// Longer than any test.
pub const LONG: Duration = Duration::from_secs(3600);

/// Answers that are believed for as long as the test runs.
pub const VIEW: View = View {
    uid: 1000,
    gid: 100,
    umask: None,
    file_mode: 0o644,
    dir_mode: 0o755,
    read_only: false,
    validity: LONG,
};

/// To read what is there.
pub const READ: OpenHow = OpenHow {
    read: true,
    write: false,
    truncate: false,
    create: None,
};

/// To read and change what is there.
pub const WRITE: OpenHow = OpenHow {
    write: true,
    ..READ
};

/// To write it anew.
pub const TRUNCATE: OpenHow = OpenHow {
    truncate: true,
    ..WRITE
};
