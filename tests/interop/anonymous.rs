//! What an anonymous user may do: read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::SystemTime;

use rustix::io::Errno;

use super::Stage;
use crate::support::real::RealServer;

/// Puts on the server what [`everything_can_be_read`] finds there.
pub(super) fn furnish(server: &RealServer) {
    fs::create_dir_all(server.path("dir/sub/empty")).unwrap();
    fs::write(server.path("readme"), "Read me.\n").unwrap();
    fs::write(server.path("dir/big"), "0123456789".repeat(100_000)).unwrap();
    fs::write(server.path("dir/sub/file"), "deep").unwrap();
}

pub(super) fn everything_can_be_read(stage: &Stage) {
    assert_eq!(fs::read(stage.path("readme")).unwrap(), b"Read me.\n");
    let there = stage.there("");
    stage
        .mount
        .sh(&format!("diff -r . {} && ls -lR && df .", there.display()));
    let copy = stage.mount.local("copy");
    stage.mount.sh(&format!(
        "cp -r . {copy} && diff -r . {copy}",
        copy = copy.display()
    ));
    stage
        .mount
        .sh(&format!("rsync -a ./ {copy}/", copy = copy.display()));
    assert_eq!(
        stage.mount.sh(&format!("rsync -ai ./ {}/", copy.display())),
        ""
    );
    assert_eq!(
        fs::metadata(stage.path("missing")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

pub(super) fn nothing_can_be_written(stage: &Stage) {
    let mode = |path: &str| fs::set_permissions(stage.path(path), Permissions::from_mode(0o700));
    let touched = |path: &str| {
        let file = File::open(stage.path(path))?;
        file.set_modified(SystemTime::UNIX_EPOCH)
    };
    let written = |how: &mut OpenOptions, path: &str| {
        use std::io::Write;
        let mut file = how.open(stage.path(path))?;
        file.write_all(b"x")?;
        // Where open and write cannot know yet, this must tell.
        file.sync_all()
    };
    let new = || OpenOptions::new().write(true).create_new(true).clone();
    let attempts: Vec<(&str, io::Result<()>)> = vec![
        ("create", written(&mut new(), "new")),
        ("create below", written(&mut new(), "dir/sub/new")),
        (
            "overwrite",
            written(OpenOptions::new().write(true), "readme"),
        ),
        (
            "truncate",
            written(OpenOptions::new().write(true).truncate(true), "readme"),
        ),
        ("append", written(OpenOptions::new().append(true), "readme")),
        ("mkdir", fs::create_dir(stage.path("new"))),
        ("rmdir", fs::remove_dir(stage.path("dir/sub/empty"))),
        ("unlink", fs::remove_file(stage.path("readme"))),
        (
            "rename",
            fs::rename(stage.path("readme"), stage.path("other")),
        ),
        (
            "rename over",
            fs::rename(stage.path("readme"), stage.path("dir/big")),
        ),
        (
            "rename directory",
            fs::rename(stage.path("dir"), stage.path("other")),
        ),
        ("chmod", mode("readme")),
        ("chmod directory", mode("dir")),
        ("utimens", touched("readme")),
    ];
    let refused = [Errno::ROFS, Errno::ACCESS].map(Errno::raw_os_error);
    let wrong: Vec<_> = attempts
        .iter()
        .filter(|(_, outcome)| match outcome {
            Ok(()) => true,
            Err(err) => !refused.contains(&err.raw_os_error().unwrap_or(0)),
        })
        .collect();
    assert!(wrong.is_empty(), "neither EROFS nor EACCES: {wrong:#?}");
    // Most servers have no command for it, which is no lie either.
    let err = symlink("readme", stage.path("link")).unwrap_err();
    let unable = [Errno::PERM, Errno::OPNOTSUPP, Errno::ROFS, Errno::ACCESS];
    assert!(
        unable.contains(&Errno::from_io_error(&err).unwrap()),
        "{err}"
    );
    // Nothing happened, and nothing broke.
    let mut left: Vec<_> = fs::read_dir(stage.there(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["dir", "readme"]);
    everything_can_be_read(stage);
}
