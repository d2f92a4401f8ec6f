//! Fetching: what comes in, what is deleted, and what survives a death at any instant.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ferryfs::mail::connect::{Connector, Endpoint, Security};
use ferryfs::mail::failure::{Class, Failure, Result};
use ferryfs::mail::fetch::{
    Activity, FetchOptions, Fetcher, Memory, Report, ServerDelete, synchronise,
};
use ferryfs::mail::ledger::State;
use ferryfs::mail::step::{Step, Watch};
use ferryfs::mail::store::Store;
use ferryfs::secret::Secret;

use crate::support::pop3d::{Mail, PASSWORD, Pop3d, Quirks, USER};
use crate::support::small_disk::SmallDisk;

fn text(n: usize) -> Vec<u8> {
    format!(
        "Received: by mx; Sat, {} Jun 2024 12:00:00 +0000\nSubject: {n}\nX: {}\n\n.line {n}\n",
        1 + n % 28,
        "y".repeat(n % 100)
    )
    .into_bytes()
}

fn mails(range: std::ops::Range<usize>) -> Vec<Mail> {
    range
        .map(|n| Mail {
            uidl: format!("id-{n}"),
            text: text(n),
        })
        .collect()
}

fn options(port: u16) -> FetchOptions {
    let endpoint = Endpoint {
        host: "localhost".into(),
        port,
        security: Security::Off,
        trust: Box::default(),
        proxy: None,
        timeout: Duration::from_secs(10),
        bind: None,
    };
    let mut options = FetchOptions::new(endpoint, USER, Arc::new(|_| Ok(Secret::new(PASSWORD))));
    options.window = 8;
    options
}

/// A server, a store, and the account between them.
struct Account {
    server: Pop3d,
    options: FetchOptions,
    dir: tempfile::TempDir,
    memory: Memory,
}

impl Account {
    fn new(mails: Vec<Mail>, quirks: Quirks) -> Self {
        let server = Pop3d::start(mails, quirks);
        Self {
            options: options(server.port),
            server,
            dir: tempfile::tempdir().unwrap(),
            memory: Memory::default(),
        }
    }

    fn deleting(mails: Vec<Mail>, delete: ServerDelete) -> Self {
        let mut account = Self::new(mails, Quirks::default());
        account.options.delete = delete;
        account
    }

    fn store(&self) -> Store {
        Store::open(self.dir.path(), &self.options.account(), "localhost").unwrap()
    }

    fn watched(&mut self, watch: &Watch<'_>) -> Result<Report> {
        let store = self.store();
        let connector = Connector::new(self.options.endpoint.clone())?;
        synchronise(
            &store,
            &self.options,
            &connector,
            &mut self.memory,
            &|_| (),
            watch,
        )
    }

    fn sync(&mut self) -> Result<Report> {
        self.watched(&|_| Ok(()))
    }

    fn inbox(&self) -> PathBuf {
        self.store().maildir().to_owned()
    }

    /// Base names and contents of all that is visible.
    fn visible(&self) -> BTreeMap<String, Vec<u8>> {
        visible(&self.inbox())
    }

    /// Removes one message as the mount would.
    fn unlink(&self, base: &str, on_server: bool) {
        let store = self.store();
        store.removed(base, on_server).unwrap();
        fs::remove_file(&store.files().unwrap()[base]).unwrap();
    }

    fn states(&self) -> Vec<(String, State)> {
        let store = self.store();
        let mut states: Vec<_> = store.with_ledger(|ledger| {
            ledger
                .iter()
                .map(|r| (String::from_utf8_lossy(&r.uidl).into_owned(), r.state))
                .collect()
        });
        states.sort_by(|a, b| a.0.cmp(&b.0));
        states
    }
}

fn visible(maildir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in ["new", "cur"] {
        for entry in fs::read_dir(maildir.join(dir)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let base = name.split(":2,").next().unwrap().to_owned();
            let text = fs::read(entry.path()).unwrap();
            assert!(
                base.ends_with(&format!(",S={}", text.len())),
                "{name}: {}",
                text.len()
            );
            assert!(found.insert(base, text).is_none(), "{name} is there twice");
        }
    }
    found
}

fn texts(found: &BTreeMap<String, Vec<u8>>) -> Vec<Vec<u8>> {
    let mut texts: Vec<_> = found.values().cloned().collect();
    texts.sort();
    texts
}

fn expected(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let mut texts: Vec<_> = range.map(text).collect();
    texts.sort();
    texts
}

#[test]
fn what_is_new_comes_in_once() {
    let mut account = Account::new(mails(0..20), Quirks::default());
    assert_eq!(account.sync().unwrap().fetched, 20);
    assert_eq!(texts(&account.visible()), expected(0..20));
    let again = account.sync().unwrap();
    assert_eq!((again.fetched, again.on_server), (0, 20));
    account.server.with(|s| s.mails.extend(mails(20..25)));
    assert_eq!(account.sync().unwrap().fetched, 5);
    assert_eq!(texts(&account.visible()), expected(0..25));
    assert_eq!(account.server.count("RETR"), 25);
    assert_eq!(account.server.count("DELE"), 0);
    assert_eq!(account.server.count("QUIT"), 3);
}

#[test]
fn names_and_times_come_from_the_message() {
    let mut one = Account::new(mails(0..3), Quirks::default());
    one.sync().unwrap();
    let mut other = Account::new(mails(0..3), Quirks::default());
    other.sync().unwrap();
    assert_eq!(one.visible(), other.visible());
    for file in one.store().files().unwrap().values() {
        let mtime = fs::metadata(file).unwrap().mtime();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(&format!("{mtime}.U")), "{name}");
        assert!((1_717_200_000..1_720_000_000).contains(&mtime), "{name}");
    }
}

#[test]
fn newest_first() {
    let mut account = Account::new(mails(0..9), Quirks::default());
    account.sync().unwrap();
    let log = account.server.with(|s| s.log.clone());
    let asked: Vec<_> = log.iter().filter_map(|l| l.strip_prefix("RETR ")).collect();
    assert_eq!(asked, ["9", "8", "7", "6", "5", "4", "3", "2", "1"]);
}

#[test]
fn a_lost_ledger_costs_nothing() {
    let mut account = Account::new(mails(0..20), Quirks::default());
    account.sync().unwrap();
    let before = account.visible();
    // One was read in between.
    let cur = account.inbox();
    let (base, _) = before.first_key_value().unwrap();
    fs::rename(
        cur.join("new").join(base),
        cur.join("cur").join(format!("{base}:2,S")),
    )
    .unwrap();
    fs::remove_file(cur.join("../ledger")).unwrap();
    assert_eq!(account.sync().unwrap().fetched, 0);
    assert_eq!(account.visible(), before);
    assert_eq!(account.server.count("RETR"), 20);
    assert_eq!(account.states().len(), 20);
}

#[test]
fn a_damaged_ledger_costs_nothing() {
    let mut account = Account::new(mails(0..20), Quirks::default());
    account.sync().unwrap();
    let ledger = account.inbox().join("../ledger");
    let mut bytes = fs::read(&ledger).unwrap();
    for at in (40..bytes.len()).step_by(700) {
        bytes[at] ^= 0x10;
    }
    fs::write(&ledger, bytes).unwrap();
    assert_eq!(account.sync().unwrap().fetched, 0);
    assert_eq!(account.states().len(), 20);
}

#[test]
fn what_was_removed_here_stays_away() {
    let mut account = Account::new(mails(0..3), Quirks::default());
    account.sync().unwrap();
    let base = account.visible().keys().next().unwrap().clone();
    account.unlink(&base, false);
    assert_eq!(account.sync().unwrap().fetched, 0);
    assert_eq!(account.visible().len(), 2);
    assert_eq!(account.server.uidls().len(), 3);
}

#[test]
fn on_unlink_deletes_what_was_removed_and_nothing_else() {
    let mut account = Account::deleting(mails(0..3), ServerDelete::OnUnlink);
    account.sync().unwrap();
    assert_eq!(account.sync().unwrap().deleted, 0);
    let name = account.store().key(b"id-1");
    let visible = account.visible();
    let base = visible.keys().find(|b| b.contains(&name)).unwrap();
    account.unlink(base, true);
    assert_eq!(account.sync().unwrap().deleted, 1);
    assert_eq!(account.server.uidls(), ["id-0", "id-2"]);
    assert_eq!(account.states()[1], ("id-1".into(), State::Deleted));
    account.sync().unwrap();
    assert_eq!(account.server.count("DELE"), 1);
}

#[test]
fn a_message_under_another_name_is_still_the_same() {
    let mut account = Account::deleting(mails(0..2), ServerDelete::OnUnlink);
    account.sync().unwrap();
    let base = account.visible().into_keys().next().unwrap();
    let store = account.store();
    store.renamed(&base, "1.other.host").unwrap();
    let inbox = store.maildir();
    fs::rename(
        inbox.join("new").join(&base),
        inbox.join("cur/1.other.host:2,"),
    )
    .unwrap();
    assert!(store.with_ledger(|l| l.named(&base).is_none()));
    drop(store);
    assert_eq!(account.sync().unwrap().fetched, 0);
    account.unlink("1.other.host", true);
    assert_eq!(account.sync().unwrap().deleted, 1);
    assert_eq!(account.server.uidls().len(), 1);
}

#[test]
fn a_message_of_our_own_is_nobody_elses() {
    let mut account = Account::deleting(mails(0..2), ServerDelete::AfterFetch);
    let store = account.store();
    let mut draft = store.draft().unwrap();
    std::io::Write::write_all(&mut draft, &text(9)).unwrap();
    let letter = store.finish_own(draft, b"report 1").unwrap();
    store.commit(vec![letter], &|_| Ok(())).unwrap();
    drop(store);
    assert_eq!(texts(&account.visible()), expected(9..10));
    assert_eq!(account.sync().unwrap().fetched, 2);
    assert_eq!(account.states().len(), 2);
    assert_eq!(account.visible().len(), 3);
}

#[test]
fn after_fetch_empties_the_maildrop() {
    let mut account = Account::deleting(mails(0..200), ServerDelete::AfterFetch);
    let report = account.sync().unwrap();
    assert_eq!((report.fetched, report.deleted), (200, 200));
    assert!(account.server.uidls().is_empty());
    assert_eq!(texts(&account.visible()), expected(0..200));
    account.server.with(|s| s.mails = mails(200..201));
    account.sync().unwrap();
    assert_eq!(texts(&account.visible()), expected(0..201));
}

#[test]
fn after_days_waits() {
    let day = Duration::from_secs(86_400);
    let mut account = Account::deleting(mails(0..3), ServerDelete::After(day));
    assert_eq!(account.sync().unwrap().deleted, 0);
    account.options.delete = ServerDelete::After(Duration::ZERO);
    assert_eq!(account.sync().unwrap().deleted, 3);
}

#[test]
fn a_file_that_is_lost_here_is_not_deleted_there() {
    let mut account = Account::deleting(mails(0..3), ServerDelete::Never);
    account.sync().unwrap();
    fs::remove_dir_all(account.inbox()).unwrap();
    account.options.delete = ServerDelete::AfterFetch;
    assert_eq!(account.sync().unwrap().deleted, 0);
    assert_eq!(account.server.uidls().len(), 3);
}

#[test]
fn a_mass_deletion_wants_a_word() {
    let mut account = Account::deleting(mails(0..60), ServerDelete::OnUnlink);
    account.sync().unwrap();
    for base in account.visible().into_keys() {
        account.unlink(&base, true);
    }
    let held = account.sync().unwrap();
    assert_eq!((held.held, held.deleted), (Some(60), 0));
    assert_eq!(account.server.uidls().len(), 60);
    account.memory.confirm_deletions();
    assert_eq!(account.sync().unwrap().deleted, 60);
    assert!(account.server.uidls().is_empty());
}

#[test]
fn a_refused_quit_is_not_taken_for_a_deletion() {
    let mut account = Account::deleting(mails(0..3), ServerDelete::AfterFetch);
    account.server.with(|s| s.quirks.quit_fails = true);
    assert!(account.sync().is_err());
    assert!(account.states().iter().all(|s| s.1 == State::Fetched));
    account.server.with(|s| s.quirks.quit_fails = false);
    let again = account.sync().unwrap();
    assert_eq!((again.fetched, again.deleted), (0, 3));
}

#[test]
fn a_server_that_renumbers_is_seen_through() {
    for (top, retrieved) in [(true, 12), (false, 24)] {
        let mut account = Account::deleting(mails(0..12), ServerDelete::OnUnlink);
        account.server.with(|s| s.quirks.top = top);
        account.sync().unwrap();
        let before = account.visible();
        account.server.with(|s| {
            for mail in &mut s.mails {
                mail.uidl = format!("new-{}", mail.uidl);
            }
        });
        let report = account.sync().unwrap();
        assert_eq!((report.fetched, report.renumbered), (0, 12), "{top}");
        assert_eq!(account.visible(), before);
        assert_eq!(account.server.count("RETR"), retrieved);
        assert_eq!(account.sync().unwrap().renumbered, 0);
        // The new identity is what an unlink deletes.
        account.unlink(before.keys().next().unwrap(), true);
        assert_eq!(account.sync().unwrap().deleted, 1);
    }
}

#[test]
fn what_the_user_does_during_a_session_stays_done() {
    let mut account = Account::deleting(mails(0..3), ServerDelete::OnUnlink);
    account.sync().unwrap();
    let bases: Vec<_> = account.visible().into_keys().collect();
    account.server.with(|s| {
        for mail in &mut s.mails {
            mail.uidl = format!("new-{}", mail.uidl);
        }
        s.quirks.drip = Some(Duration::from_millis(2));
    });
    let (store, asked) = (account.store(), account.server.count("TOP"));
    let connector = Connector::new(account.options.endpoint.clone()).unwrap();
    let (options, memory) = (&account.options, &mut account.memory);
    let report = std::thread::scope(|scope| {
        let session =
            scope.spawn(|| synchronise(&store, options, &connector, memory, &|_| (), &|_| Ok(())));
        // The session has looked at the ledger, and waits for the headers.
        until("TOP", || account.server.count("TOP") > asked);
        store.removed(&bases[0], true).unwrap();
        store.renamed(&bases[1], "1.other.host").unwrap();
        session.join().unwrap().unwrap()
    });
    fs::remove_file(&store.files().unwrap()[&*bases[0]]).unwrap();
    let inbox = store.maildir();
    let moved = inbox.join("cur/1.other.host:2,");
    fs::rename(inbox.join("new").join(&bases[1]), moved).unwrap();
    assert_eq!(report.renumbered, 3);
    assert!(store.with_ledger(|ledger| ledger.named("1.other.host").is_some()));
    drop(store);
    account.server.with(|s| s.quirks.drip = None);
    let deleted = report.deleted + account.sync().unwrap().deleted;
    assert_eq!(deleted, 1);
    account.unlink("1.other.host", true);
    assert_eq!(account.sync().unwrap().deleted, 1);
    assert_eq!(account.server.uidls().len(), 1);
}

#[test]
fn what_the_user_does_to_a_message_in_its_first_moment_stays_done() {
    let mut account = Account::deleting(mails(0..3), ServerDelete::OnUnlink);
    let store = account.store();
    let connector = Connector::new(account.options.endpoint.clone()).unwrap();
    let watch = |step: Step<'_>| {
        if matches!(step, Step::DirectorySynced) {
            // They can be seen, and nothing is known of them yet.
            let files = store.files().unwrap();
            let mut bases: Vec<_> = files.keys().collect();
            bases.sort();
            store.removed(bases[0], true).unwrap();
            fs::remove_file(&files[bases[0]]).unwrap();
            store.renamed(bases[1], "1.first.host").unwrap();
            store.removed("1.first.host", true).unwrap();
            fs::remove_file(&files[bases[1]]).unwrap();
        }
        Ok(())
    };
    let (options, memory) = (&account.options, &mut account.memory);
    let report = synchronise(&store, options, &connector, memory, &|_| (), &watch).unwrap();
    assert_eq!(report.fetched, 3);
    drop(store);
    let deleted = report.deleted + account.sync().unwrap().deleted;
    assert_eq!((deleted, account.server.uidls().len()), (2, 1));
    assert_eq!(account.visible().len(), 1);
}

#[test]
fn an_identity_that_passes_to_another_message_hides_it_from_nobody() {
    let mut account = Account::deleting(mails(0..2), ServerDelete::AfterFetch);
    account.sync().unwrap();
    // Numbers as identities, begun anew: another message, known name.
    let other = Mail {
        uidl: "id-0".into(),
        text: text(77),
    };
    account.server.with(|s| s.mails = vec![other]);
    let report = account.sync().unwrap();
    assert_eq!((report.fetched, report.deleted), (1, 1));
    let mut all = expected(0..2);
    all.push(text(77));
    all.sort();
    assert_eq!(texts(&account.visible()), all);
}

#[test]
fn servers_that_count_or_lie_about_sizes() {
    for (lf_sizes, size_lie) in [(true, 0), (false, 100_000), (false, -20)] {
        let mut account = Account::new(
            mails(0..5),
            Quirks {
                lf_sizes,
                size_lie,
                ..Quirks::default()
            },
        );
        account.sync().unwrap();
        assert_eq!(texts(&account.visible()), expected(0..5));
        account.sync().unwrap();
        assert_eq!(account.server.count("RETR"), 5);
    }
}

#[test]
fn without_uidl_headers_are_identities() {
    let mut account = Account::new(
        mails(0..5),
        Quirks {
            uidl: false,
            ..Quirks::default()
        },
    );
    account.sync().unwrap();
    assert_eq!(account.sync().unwrap().fetched, 0);
    assert_eq!(texts(&account.visible()), expected(0..5));
    assert_eq!(account.server.count("RETR"), 5);
    // One header, two things said.
    account.options.delete = ServerDelete::AfterFetch;
    let report = |body: &str| Mail {
        uidl: body.into(),
        text: format!("Subject: report\n\n{body}\n").into_bytes(),
    };
    account
        .server
        .with(|s| s.mails = vec![report("all is well"), report("fire")]);
    account.sync().unwrap();
    account.sync().unwrap();
    assert_eq!(account.server.uidls(), [""; 0]);
    assert_eq!(account.visible().len(), 7);
}

#[test]
fn without_uidl_and_top_only_after_fetch_makes_sense() {
    let mut account = Account::new(
        mails(0..5),
        Quirks {
            uidl: false,
            top: false,
            ..Quirks::default()
        },
    );
    let err = account.sync().unwrap_err();
    assert_eq!(err.class(), Class::Permanent);
    assert!(err.detail().contains("after-fetch"), "{err}");
    account.options.delete = ServerDelete::AfterFetch;
    account.server.with(|s| s.quirks.quit_fails = true);
    assert!(account.sync().is_err());
    account.server.with(|s| s.quirks.quit_fails = false);
    let report = account.sync().unwrap();
    assert_eq!((report.fetched, report.deleted), (0, 5));
    assert_eq!(texts(&account.visible()), expected(0..5));
    // The same once more is deleted once more.
    account.server.with(|s| s.mails = mails(2..3));
    let report = account.sync().unwrap();
    assert_eq!((report.fetched, report.deleted), (0, 1));
}

#[test]
fn gmail_shows_some_at_a_time() {
    let mut account = Account::new(
        mails(0..25),
        Quirks {
            hides: Some(10),
            pipelining: false,
            extra: vec!["EXPIRE 0".into(), "LOGIN-DELAY 300".into()],
            ..Quirks::default()
        },
    );
    let mut sessions = 0;
    loop {
        let report = account.sync().unwrap();
        assert_eq!(report.login_delay, Some(Duration::from_secs(300)));
        sessions += 1;
        if !report.more {
            break;
        }
    }
    assert_eq!(sessions, 4);
    assert_eq!(texts(&account.visible()), expected(0..25));
    assert_eq!(account.server.count("TOP"), 0);
}

#[test]
fn a_message_that_cannot_be_had_keeps_no_other_away() {
    let mut account = Account::new(mails(0..10), Quirks::default());
    account.server.with(|s| {
        s.quirks.refused.insert(10);
        s.quirks.cut_in = Some("id-8".into());
    });
    assert_eq!(account.sync().unwrap_err().class(), Class::Transient);
    // The one that broke the session comes last now.
    assert!(account.sync().is_err());
    assert_eq!(account.visible().len(), 8);
    account.server.with(|s| s.quirks.cut_in = None);
    let report = account.sync().unwrap();
    assert_eq!((report.fetched, report.refused), (1, 1));
    assert_eq!(report.reason.as_deref(), Some("no such message"));
}

#[test]
fn what_is_too_large_stays_there() {
    let mut account = Account::deleting(mails(0..10), ServerDelete::AfterFetch);
    account.server.with(|s| s.mails[4].text = vec![b'\n'; 5000]);
    account.options.largest = 1000;
    let report = account.sync().unwrap();
    assert_eq!((report.fetched, report.too_large), (9, 1));
    assert_eq!(account.server.uidls(), ["id-4"]);
}

#[test]
fn on_a_full_disk_messages_can_be_removed() {
    let mut account = Account::deleting(mails(0..12), ServerDelete::OnUnlink);
    let mount = account.dir.path().to_owned();
    let Some(small) = SmallDisk::over(&mount, "512k") else {
        eprintln!("SKIPPED: a small filesystem cannot be mounted here");
        return;
    };
    account.sync().unwrap();
    let store = account.store();
    let fill = |name: &str| {
        let mut file = fs::File::create(mount.join(name)).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };
    fill("full");
    let files = store.files().unwrap();
    let mut bases: Vec<_> = files.keys().cloned().collect();
    bases.sort();
    let noted: Vec<_> = bases[..10]
        .iter()
        .map(|base| store.removed(base, true))
        .collect();
    // A session that finds no room leaves it as it was.
    account.server.with(|s| s.mails.extend(mails(12..90)));
    drop(store);
    let failed = account.sync();
    let store = account.store();
    fill("fuller");
    let last = store.removed(&bases[10], true);
    drop(store);
    small.unmount();
    assert!(failed.is_err(), "{failed:?}");
    assert!(
        noted.iter().chain([&last]).all(|noted| noted.is_ok()),
        "{noted:?} {last:?}"
    );
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let mut account = Account::deleting(mails(0..0), ServerDelete::AfterFetch);
    let mount = account.dir.path().to_owned();
    let Some(small) = SmallDisk::over(&mount, "256k") else {
        eprintln!("SKIPPED: a small filesystem cannot be mounted here");
        return;
    };
    account.server.with(|s| {
        s.mails = (0..40)
            .map(|n| Mail {
                uidl: format!("id-{n}"),
                text: [b"Subject: x\n\n", &vec![b'\n'; 10_000 + n][..]].concat(),
            })
            .collect();
    });
    let err = account.sync().unwrap_err();
    let on_server = account.server.uidls().len();
    let quits = account.server.count("QUIT");
    let seen = account.visible().len();
    let left = fs::read_dir(account.inbox().join("../incoming"))
        .unwrap()
        .count();
    small.unmount();
    assert_eq!(err.class(), Class::Local, "{err}");
    assert_eq!((on_server, quits, left), (40, 0, 0));
    assert!(seen < 40);
}

#[test]
fn two_at_once_are_refused() {
    let account = Account::new(Vec::new(), Quirks::default());
    let store = account.store();
    let second = Store::open(account.dir.path(), &account.options.account(), "localhost");
    assert_eq!(second.unwrap_err().class(), Class::Local);
    drop(store);
    account.store();
}

// Death between any two steps. The child is this very program, told by its environment to fetch
// and to abort at a step; what it leaves behind is what a kill leaves.

const DIE_AT: &str = "FERRYFS_TEST_DIE_AT";
const PORT: &str = "FERRYFS_TEST_PORT";
const STATE: &str = "FERRYFS_TEST_STATE";

#[test]
#[ignore = "runs as the child of the tests below"]
fn child_that_dies() {
    let Ok(die_at) = std::env::var(DIE_AT) else {
        return;
    };
    let die_at: usize = die_at.parse().unwrap();
    let port = std::env::var(PORT).unwrap().parse().unwrap();
    let mut options = options(port);
    options.delete = ServerDelete::AfterFetch;
    let state = PathBuf::from(std::env::var(STATE).unwrap());
    let store = Store::open(&state, &options.account(), "localhost").unwrap();
    let connector = Connector::new(options.endpoint.clone()).unwrap();
    let step = AtomicUsize::new(0);
    let watch = |_: Step<'_>| -> Result<()> {
        if step.fetch_add(1, Ordering::SeqCst) == die_at {
            std::process::abort();
        }
        Ok(())
    };
    let outcome = synchronise(
        &store,
        &options,
        &connector,
        &mut Memory::default(),
        &|_| (),
        &watch,
    );
    std::process::exit(if outcome.is_ok() { 0 } else { 1 });
}

fn child(account: &Account, die_at: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "mail_fetch::child_that_dies", "--ignored"])
        .env(DIE_AT, die_at.to_string())
        .env(PORT, account.server.port.to_string())
        .env(STATE, account.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What must hold at every instant: whatever the server no longer has is here, whole, once.
fn nothing_is_lost(account: &Account, all: usize, when: &str) {
    let here = texts(&account.visible());
    let there = account.server.with(|s| s.mails.clone());
    for n in 0..all {
        let text = text(n);
        let copies = here.iter().filter(|t| **t == text).count();
        assert!(copies <= 1, "{when}: {n} is here {copies} times");
        assert!(
            copies == 1 || there.iter().any(|m| m.text == text),
            "{when}: {n} is lost"
        );
    }
    assert!(here.iter().all(|t| expected(0..all).contains(t)));
}

#[test]
fn death_between_any_two_steps_loses_and_doubles_nothing() {
    const ALL: usize = 6;
    let mut died = 0;
    loop {
        let mut account = Account::deleting(mails(0..ALL), ServerDelete::AfterFetch);
        let status = child(&account, died).status().unwrap();
        if status.code() == Some(0) {
            break;
        }
        assert_eq!(
            status.code(),
            None,
            "step {died}: the child failed by itself"
        );
        let when = format!("after step {died}");
        nothing_is_lost(&account, ALL, &when);
        let known = account.visible().len();
        let retrieved = account.server.count("RETR");
        let report = account.sync().unwrap();
        nothing_is_lost(&account, ALL, &when);
        assert_eq!(texts(&account.visible()), expected(0..ALL), "{when}");
        assert!(account.server.uidls().is_empty(), "{when}");
        // What was visible was not fetched again.
        assert_eq!(report.fetched, ALL - known, "{when}");
        assert_eq!(
            account.server.count("RETR") - retrieved,
            ALL - known,
            "{when}"
        );
        died += 1;
    }
    // Login, list, 6 x receive, sync, 6 x name, directory, ledger, mark, quit, ledger.
    assert_eq!(died, 2 + ALL + 1 + ALL + 1 + 1 + 3);
}

#[test]
fn death_at_random_instants_loses_and_doubles_nothing() {
    const ALL: usize = 300;
    let mut account = Account::deleting(mails(0..ALL), ServerDelete::AfterFetch);
    let mut kills = 0;
    for round in 0_u64..110 {
        let mut running = child(&account, usize::MAX).spawn().unwrap();
        // Spread over the whole of a session, with no pattern in it.
        let instant = Duration::from_micros(5_000 + round * 7919 % 90_000);
        std::thread::sleep(instant);
        running.kill().unwrap();
        let status = running.wait().unwrap();
        kills += usize::from(status.code().is_none());
        nothing_is_lost(&account, ALL, &format!("kill {round}"));
        if account.server.uidls().is_empty() {
            // All done before the kill: once more from the start.
            assert_eq!(texts(&account.visible()), expected(0..ALL));
            account = Account::deleting(mails(0..ALL), ServerDelete::AfterFetch);
        }
    }
    assert!(kills > 50, "only {kills} died");
    account.sync().unwrap();
    assert_eq!(texts(&account.visible()), expected(0..ALL));
}

#[test]
fn an_error_from_the_watcher_ends_it_like_a_broken_connection() {
    let mut account = Account::deleting(mails(0..6), ServerDelete::AfterFetch);
    let stop = |step: Step<'_>| match step {
        Step::Marked(_) => Err(Failure::new(Class::Transient, "stopped")),
        _ => Ok(()),
    };
    assert!(account.watched(&stop).is_err());
    assert_eq!(account.server.count("QUIT"), 0);
    assert_eq!(account.server.uidls().len(), 6);
}

// The thread.

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_thread_fetches_at_once_and_when_asked() {
    let account = Account::new(mails(0..5), Quirks::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&told);
    let store = Arc::new(account.store());
    let fetcher = Fetcher::start(Arc::clone(&store), account.options.clone(), move |new| {
        ear.lock().unwrap().extend(new.to_vec());
    })
    .unwrap();
    until("first session", || fetcher.status().succeeded.is_some());
    assert_eq!(told.lock().unwrap().len(), 5);
    for new in told.lock().unwrap().iter() {
        assert!(store.maildir().join("new").join(&*new.name).exists());
    }
    account.server.with(|s| s.mails.extend(mails(5..7)));
    fetcher.poll();
    until("second session", || told.lock().unwrap().len() == 7);
    until("idle", || fetcher.status().activity == Activity::Idle);
    let status = fetcher.status();
    assert_eq!((status.report.fetched, status.report.on_server), (2, 7));
    assert!(status.failed.is_none());
    let wait = status
        .next
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!((290..=330).contains(&wait.as_secs()), "{wait:?}");
    fetcher.pause(true);
    until("paused", || fetcher.status().activity == Activity::Paused);
    fetcher.stop();
}

#[test]
fn the_thread_says_what_is_wrong() {
    let mut account = Account::new(mails(0..5), Quirks::default());
    account.options.secret = Arc::new(|_| Ok(Secret::new("wrong")));
    let fetcher =
        Fetcher::start(Arc::new(account.store()), account.options.clone(), |_| ()).unwrap();
    until("failure", || fetcher.status().failed.is_some());
    let (_, failure) = fetcher.status().failed.unwrap();
    assert_eq!(failure.class(), Class::Account);
    assert!(
        failure.detail().contains("Authentication failed"),
        "{failure}"
    );
    until("idle", || fetcher.status().next.is_some());
    let wait = fetcher.status().next.unwrap();
    assert!(wait > SystemTime::now() + Duration::from_secs(500));
    fetcher.stop();
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    let mut account = Account::new(mails(0..5), Quirks::default());
    account.options.is_token = true;
    account.options.secret =
        Arc::new(|fresh| Ok(Secret::new(if fresh { PASSWORD } else { "expired" })));
    assert_eq!(account.sync().unwrap().fetched, 5);
    account.options.secret = Arc::new(|_| Ok(Secret::new("expired")));
    assert_eq!(account.sync().unwrap_err().class(), Class::Account);
    assert_eq!(account.server.count("AUTH XOAUTH2"), 4);
}

#[test]
fn the_thread_stops_in_the_middle_of_a_session() {
    let mut account = Account::deleting(mails(0..500), ServerDelete::AfterFetch);
    account.options.endpoint.timeout = Duration::from_secs(60);
    account
        .server
        .with(|s| s.quirks.drip = Some(Duration::from_millis(1)));
    let fetcher =
        Fetcher::start(Arc::new(account.store()), account.options.clone(), |_| ()).unwrap();
    until("fetching", || !account.server.with(|s| s.log.is_empty()));
    let before = Instant::now();
    fetcher.stop();
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(account.server.uidls().len(), 500);
    account.store();
}
