//! Programs people use, working in a mount.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Stage;
use crate::support::mount::skip;

pub(super) fn git(stage: &Stage) {
    stage
        .mount
        .sh("git config --global user.email lab@example.org
        git config --global user.name Lab
        git config --global safe.directory '*'
        git config --global init.defaultBranch main
        git init -q repo && cd repo
        for n in 1 2 3 4 5; do echo text $n > file$n; done
        mkdir dir && echo deep > dir/file
        git add . && git commit -qm one
        sed -i s/text/words/ file2 && git rm -q file3 && git mv file4 dir/
        git commit -qam two
        test -z \"$(git status --porcelain)\"
        git fsck --full --strict
        git gc -q && git fsck --full
        git checkout -q HEAD~1 && grep -q text file2 && git checkout -q main
        git clone -q . ../clone && diff -r --exclude=.git . ../clone");
    // On the server it is a repository, too.
    let there = stage.there("repo");
    let fsck = Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(&there)
        .args(["fsck", "--full"])
        .output()
        .unwrap();
    assert!(
        fsck.status.success(),
        "{}",
        String::from_utf8_lossy(&fsck.stderr)
    );
}

pub(super) fn sqlite(stage: &Stage) {
    let there = stage.there("db");
    let said = stage.mount.sh(&format!(
        "sqlite3 db 'PRAGMA journal_mode=DELETE;
            CREATE TABLE t (n INTEGER PRIMARY KEY, word TEXT);'
        for round in 1 2 3 4 5; do
            (echo 'BEGIN;'
            for n in $(seq 200); do echo \"INSERT INTO t (word) VALUES ('word $n');\"; done
            echo 'COMMIT;') | sqlite3 db
        done
        sqlite3 db \"BEGIN; DELETE FROM t; ROLLBACK;\"
        sqlite3 db \"UPDATE t SET word = upper(word) WHERE n % 2; VACUUM;\"
        sqlite3 db 'PRAGMA integrity_check; SELECT count(*), max(word) FROM t;'
        sqlite3 {there} 'PRAGMA integrity_check;'",
        there = there.display()
    ));
    assert_eq!(said, "delete\nok\n1000|word 98\nok\n");
    assert!(!stage.there("db-journal").exists());
}

pub(super) fn tar_and_diff(stage: &Stage) {
    let source = env!("CARGO_MANIFEST_DIR");
    let there = stage.there("tree");
    stage.mount.sh(&format!(
        "mkdir tree
        tar -C {source} -cf - src tests scripts Cargo.toml | tar -C tree -xf -
        for part in src tests scripts Cargo.toml; do
            diff -r {source}/$part tree/$part
            diff -r {source}/$part {there}/$part
        done
        tar -cf - tree | tar -tf - | wc -l
        rm -r tree",
        there = there.display()
    ));
    assert!(!there.exists());
}

pub(super) fn sed_append_dd(stage: &Stage) {
    stage.mount.sh("seq 1000 >file
        sed -i 's/^500$/five hundred/' file
        for n in 1 2 3; do echo line $n >>file; done
        printf XY | dd of=file bs=1 seek=2 conv=notrunc status=none
        dd if=/dev/zero of=sparse bs=1 count=1 seek=99999 status=none
        perl -pi -e 's/^777$/sevens/' file 2>/dev/null || sed -i 's/^777$/sevens/' file");
    let content = fs::read_to_string(stage.there("file")).unwrap();
    assert!(content.starts_with("1\nXY3\n4\n"), "{}", &content[..20]);
    assert!(content.contains("\nfive hundred\n") && content.contains("\nsevens\n"));
    assert!(content.ends_with("\n1000\nline 1\nline 2\nline 3\n"));
    assert_eq!(fs::read(stage.there("sparse")).unwrap(), vec![0; 100_000]);
    assert_eq!(fs::read_dir(stage.there("")).unwrap().count(), 2);
}

/// A tree with times, modes and an empty directory. No links: the one server that makes them
/// refuses those whose target is not there yet.
fn furnish(dir: &Path) {
    fs::create_dir_all(dir.join("sub/empty")).unwrap();
    let script = "
        for n in $(seq 40); do
            echo content $n >sub/file$n; touch -d @$((1700000000 + n)) sub/file$n
        done
        head -c 300000 /dev/urandom >big
        echo secret >'sub/a name' && chmod 600 'sub/a name'
        echo run >tool && chmod 755 tool && touch -d @1000000000 tool
        touch -d @1111111111 sub/empty sub";
    let status = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success());
}

pub(super) fn rsync_twice(stage: &Stage) {
    let source = stage.mount.local("source");
    furnish(&source);
    // vsftpd and pyftpdlib set times of files only.
    let flags = match stage.server.name() {
        "vsftpd" | "pyftpdlib" => "-aO",
        _ => "-a",
    };
    let source = source.display();
    let again = stage.mount.sh(&format!(
        "rsync {flags} {source}/ copy/
        rsync {flags}i {source}/ copy/"
    ));
    assert_eq!(again, "", "rsync {flags} itemized");
    let there = stage.there("copy");
    stage.mount.sh(&format!(
        "diff -r {source} copy && diff -r {source} {there}
        echo more >>{source}/sub/file7 && rm {source}/sub/file8
        rsync {flags} --delete {source}/ copy/ && diff -r {source} copy
        rsync {flags} copy/ back/ && diff -r {source} back",
        source = source,
        there = there.display()
    ));
}

pub(super) fn copies(stage: &Stage) {
    let source = stage.mount.local("source");
    furnish(&source);
    stage.mount.sh(&format!(
        "cp -r {source} one && diff -r {source} one
        cp -r one two && diff -r {source} two
        mv two three && diff -r {source} three
        cp -p one/tool kept && test $(stat -c %Y kept) = $(stat -c %Y one/tool)
        mv three {source}-back && diff -r {source} {source}-back
        find one -name 'file*' -delete && test $(find one -type f | wc -l) = 3
        rm -r one kept && test -z \"$(ls -A)\"",
        source = source.display()
    ));
}

/// 10,000 random reads, writes, truncations and mappings, each compared; another seed for each
/// server.
pub(super) fn fsx(stage: &Stage) {
    if Command::new("fsx").arg("--version").output().is_err() {
        return skip("fsx is not installed (scripts/servers/fetch fsx)");
    }
    let seed = stage.server.name().len() * 1000 + usize::from(stage.server.name().as_bytes()[1]);
    let local = stage.mount.local("");
    stage.mount.within(Duration::from_secs(300), || {
        stage.mount.sh(&format!(
            "fsx -N 10000 -S {seed} -P {} file",
            local.display()
        ));
    });
}
