//! The inbox, as mail programs and copying programs use it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use super::lab::{Lab, PATIENCE, mail};
use crate::support::mount::{Place, can_mount};
use crate::support::pop3d::{self, Pop3d};
use crate::support::smtpd::Quirks;

#[test]
fn mail_is_there_as_files_of_exact_size() {
    let mails: Vec<_> = (1..=3).map(mail).collect();
    let Some(lab) = Lab::start(mails.clone(), Quirks::default()) else {
        return;
    };
    lab.fetched(3);
    for entry in fs::read_dir(lab.mount.path("new")).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        assert!(mails.iter().any(|mail| mail.text == content), "{content:?}");
        let about = fs::metadata(&path).unwrap();
        assert_eq!(about.len(), content.len() as u64);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with(&format!(",S={}", content.len())), "{name}");
        assert_eq!(about.mode() & 0o777, 0o600);
    }
    let listed = lab.mount.sh("ls -a | tr '\\n' ' '");
    assert_eq!(
        listed.trim(),
        ". .. .Sent aliases ctl cur drafts failed new outbox parts queue status tmp"
    );
    lab.mount.finish();
}

#[test]
fn flags_are_renames_and_removing_is_remembered() {
    let Some(lab) = Lab::start((1..=3).map(mail).collect(), Quirks::default()) else {
        return;
    };
    lab.fetched(3);
    let mount = &lab.mount;
    mount.sh("set -- new/*; mv \"$1\" \"cur/${1#new/}:2,S\"; rm \"$2\"");
    assert_eq!(mount.sh("ls cur | grep -c ':2,S$'").trim(), "1");
    mount.sh("echo poll > ctl; sleep 0.5; printf poll > ctl");
    lab.wait("not polled", || lab.pop3d.count("QUIT") >= 3);
    lab.fetched(2);
    assert_eq!(
        lab.pop3d.uidls().len(),
        3,
        "nothing is deleted on the server"
    );
    assert!(mount.try_sh("echo nonsense > ctl").0.code() != Some(0));
    lab.mount.finish();
}

#[test]
fn a_directory_changes_when_an_entry_does_and_not_otherwise() {
    let Some(lab) = Lab::start(vec![mail(1)], Quirks::default()) else {
        return;
    };
    lab.fetched(1);
    let mtime = || {
        fs::metadata(lab.mount.path("new"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = mtime();
    lab.mount
        .sh("cat new/* > /dev/null; ls -l new; touch -a new/*");
    assert_eq!(mtime(), before);
    lab.pop3d.with(|state| state.mails.push(mail(2)));
    lab.mount.sh("echo poll > ctl");
    lab.fetched(2);
    assert!(mtime() > before);
    lab.mount.finish();
}

#[test]
fn copying_programs_find_nothing_to_do_the_second_time() {
    let Some(lab) = Lab::start((1..=20).map(mail).collect(), Quirks::default()) else {
        return;
    };
    lab.fetched(20);
    let to = lab.mount.local("copy").display().to_string();
    lab.mount.sh(&format!("rsync -a new cur {to}/"));
    let again = lab.mount.sh(&format!("rsync -ai new cur {to}/"));
    assert_eq!(again, "");
    lab.mount
        .sh(&format!("tar cf {to}.tar new cur .Sent && tar df {to}.tar"));
    lab.mount.finish();
}

#[test]
fn without_its_servers_a_mailbox_is_served_all_the_same() {
    let Some(lab) = Lab::start(vec![mail(1)], Quirks::default()) else {
        return;
    };
    lab.fetched(1);
    let killed = lab.mount.kill();
    drop(lab.pop3d);
    let mut mount = killed.remount();
    mount.expect_log("fetching mail");
    assert_eq!(mount.sh("cat new/* | grep -c 'message 1'").trim(), "1");
    mount.sh("for i in 1 2 3 4 5 6 7 8 9; do grep -q 'inbox error' status && exit 0; sleep 0.3; done; cat status; exit 1");
}

#[test]
fn a_message_is_taken_apart_and_answered() {
    let mut letter = mail(1);
    letter.text = b"From: Bob <bob@example.org>\nTo: alice@example.org\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\
        Message-ID: <1@example.org>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n\
        --b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
        Caf=C3=A9\n--b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\
        Content-Disposition: attachment; filename=\"../../a.png\"\n\niVBORw0K\n--b--\n"
        .to_vec();
    let Some(lab) = Lab::start(vec![letter], Quirks::default()) else {
        return;
    };
    lab.fetched(1);
    let mount = &lab.mount;
    let listed = mount.sh("cd parts/*; ls | tr '\\n' ' '");
    for name in ["headers", "text", "reply", "reply-all", "forward", "a.png"] {
        assert!(listed.contains(name), "{name} in {listed}");
    }
    assert_eq!(mount.sh("cat parts/*/text").trim(), "Caf\u{e9}");
    assert_eq!(mount.sh("cat parts/*/*a.png | wc -c").trim(), "6");
    assert_eq!(mount.sh("stat -c %s parts/*/*a.png").trim(), "6");
    assert!(mount.sh("cat parts/*/headers").contains("Gr\u{fc}\u{df}e"));
    let whole = mount.local("whole").display().to_string();
    mount.sh(&format!("cp -r parts {whole} && diff -r parts {whole}"));
    mount.sh("cat parts/*/reply > drafts/r; echo Thanks >> drafts/r; mv drafts/r outbox/");
    let sent = lab.sent(1);
    let answer = super::lab::text(&sent[0]);
    assert!(answer.contains("In-Reply-To: <1@example.org>"), "{answer}");
    assert!(
        answer.contains("To: Bob <bob@example.org>") && answer.contains("Thanks"),
        "{answer}"
    );
    lab.mount.finish();
}

#[test]
fn who_waits_for_mail_is_woken() {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

    let Some(lab) = Lab::start(vec![mail(1)], Quirks::default()) else {
        return;
    };
    lab.fetched(1);
    // The kernel is asked for a name that is not there yet, and may remember that.
    let coming = fs::read_dir(lab.mount.path("new")).unwrap().next().unwrap();
    let coming = coming.unwrap().file_name().into_string().unwrap();
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    let wanted = WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
    inotify::add_watch(&watch, lab.mount.path("new"), wanted).unwrap();
    lab.mount
        .sh(&format!("rm 'new/{coming}'; ! ls 'new/{coming}' 2>&1"));
    lab.pop3d.with(|state| state.mails.push(mail(2)));
    lab.mount.sh("echo poll > ctl");
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let (mut named, mut changed) = (Vec::new(), false);
    lab.wait("nobody was told", || {
        let mut reader = Reader::new(&watch, &mut buffer);
        while let Ok(event) = reader.next() {
            match event.file_name() {
                // Who tells of the first one may be late.
                Some(name) if name.to_str() == Ok(&coming) => {}
                Some(name) if event.events().contains(ReadFlags::CLOSE_WRITE) => {
                    named.push(name.to_str().unwrap().to_owned());
                }
                None => changed = !named.is_empty(),
                Some(_) => {}
            }
        }
        changed && !named.is_empty()
    });
    let listed = lab.mount.sh("ls new");
    assert_eq!(named, listed.lines().collect::<Vec<_>>());
    assert_eq!(lab.mount.sh("cat new/* | grep -c 'message 2'").trim(), "1");
    lab.mount.finish();
}

#[test]
fn moving_by_link_and_unlink_is_moving() {
    let Some(lab) = Lab::with(
        (1..=2).map(mail).collect(),
        Quirks::default(),
        &["server_delete=on-unlink"],
    ) else {
        return;
    };
    lab.fetched(2);
    let mount = &lab.mount;
    // What mutt's safe_rename does: the two must be one file.
    mount.sh(
        "set -- new/*; old=$1 new=\"cur/${1#new/}:2,S\"; ln \"$old\" \"$new\"
         [ \"$(stat -c %i-%h \"$old\")\" = \"$(stat -c %i-%h \"$new\")\" ]
         [ \"$(stat -c %h \"$old\")\" = 2 ]
         exec 3< \"$old\"; rm \"$old\"; cmp /dev/fd/3 \"$new\"; exec 3<&-
         [ \"$(stat -c %h \"$new\")\" = 1 ]
         ! ln \"$2\" \"$new\"
         ln \"$2\" cur/another; rm \"$2\"; cat cur/another > /dev/null",
    );
    let quits = lab.pop3d.count("QUIT");
    mount.sh("echo poll > ctl");
    lab.wait("not polled", || lab.pop3d.count("QUIT") > quits);
    assert_eq!(lab.pop3d.uidls().len(), 2, "moved, not removed");
    assert_eq!(mount.sh("ls cur").lines().count(), 2);
    // Nor is one of two copies all there is.
    let quits = lab.pop3d.count("QUIT");
    mount.sh("cp cur/another new/another; rm cur/another; mv new/another cur/; echo poll > ctl");
    lab.wait("not polled", || lab.pop3d.count("QUIT") > quits);
    assert_eq!(lab.pop3d.uidls().len(), 2, "copied, not removed");
    mount.sh("rm cur/another; echo poll > ctl");
    lab.wait("not deleted", || lab.pop3d.uidls().len() == 1);
    mount.sh("printf 'To: bob@example.org\\n\\nlinked\\n' > drafts/m; ln drafts/m outbox/m");
    let sent = lab.sent(1);
    assert!(super::lab::text(&sent[0]).contains("linked"));
    assert_eq!(mount.sh("ls drafts").trim(), "m");
    assert!(
        mount
            .sh("echo nonsense > drafts/n; ln drafts/n outbox/n 2>&1 || echo $?")
            .contains('1')
    );
    assert_eq!(mount.sh("ls outbox | grep -c '^n$' || true").trim(), "0");
    lab.mount.finish();
}

#[test]
fn a_message_in_pieces_is_put_together_when_all_are_there() {
    let piece = |number: u32, body: &str| {
        crate::support::pop3d::Mail {
        uidl: format!("p{number}"),
        text: format!(
            "From: Bob <bob@example.org>\nSubject: piece {number}\nMessage-ID: <p{number}@example.org>\n\
             MIME-Version: 1.0\nContent-Type: Message/Partial; number={number}; total=3;\n id=\"abc@example.org\"\n\n{body}"
        )
        .into_bytes(),
    }
    };
    let inner = "Subject: whole\nMessage-ID: <whole@example.org>\nMIME-Version: 1.0\n\
                 Content-Type: multipart/mixed; boundary=b\n\n--b\n\nIt is\n";
    let pieces = [
        piece(1, inner),
        piece(
            2,
            "here.\n--b\nContent-Type: application/octet-stream; name=a.bin\n\none\n",
        ),
        piece(3, "two\n--b--\n"),
    ];
    let Some(lab) = Lab::start(pieces[1..].to_vec(), Quirks::default()) else {
        return;
    };
    lab.fetched(2);
    // One was read meanwhile.
    lab.mount
        .sh("set -- new/*; mv \"$1\" \"cur/${1#new/}:2,S\"");
    lab.pop3d.with(|state| state.mails.push(pieces[0].clone()));
    lab.mount.sh("echo poll > ctl");
    let whole = "grep -l 'Subject: whole' new/*.L* 2>/dev/null | sed s:new:parts:";
    lab.wait("not joined", || !lab.mount.sh(whole).is_empty());
    let printed = lab.mount.sh(&format!(
        "cd $({whole}); cat text a.bin; grep From: headers"
    ));
    assert_eq!(printed, "It is\nhere.one\ntwoFrom: Bob <bob@example.org>\n");
    lab.fetched(3);
    lab.mount.finish();
}

/// As with FTP: a wrong password is told by the mount itself, and not somewhere behind it.
#[test]
fn a_first_mount_with_a_wrong_password_fails_and_a_later_one_shows_what_is_here() {
    let pop3d = Pop3d::start(vec![mail(1)], pop3d::Quirks::default());
    let place = Place::new();
    let file = place.path("password");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mount = |password: &str| {
        let mut written = options.open(&file).unwrap();
        written.write_all(password.as_bytes()).unwrap();
        let mut command = place.command();
        command
            .arg(format!("pop3://{}@localhost:{}/", pop3d::USER, pop3d.port))
            .arg(place.mountpoint())
            .arg("-o")
            .arg(format!("tls=off,password_file={}", file.display()));
        command.output().unwrap()
    };
    let umount = || {
        let mut command = place.command();
        let ended = command.arg("umount").arg(place.mountpoint()).output();
        let ended = ended.unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{told}");
    };
    if !can_mount() {
        return;
    }
    let refused = mount("wrong");
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{line}");
    assert!(
        line.contains("localhost") && line.ends_with("; check the user and the password\n"),
        "{line}"
    );

    assert!(mount(pop3d::PASSWORD).status.success());
    let new = place.mountpoint().join("new");
    let deadline = Instant::now() + PATIENCE;
    while fs::read_dir(&new).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "nothing was fetched");
        thread::sleep(Duration::from_millis(50));
    }
    umount();
    assert!(mount("wrong").status.success());
    assert_eq!(fs::read_dir(&new).unwrap().count(), 1);
    umount();
}

/// The exit code and the line of each trouble that waiting does not mend, and nothing mounted.
#[test]
fn a_first_mount_tells_a_certificate_from_a_password() {
    if !can_mount() {
        return;
    }
    let quirks = |tls, stls| pop3d::Quirks {
        tls,
        stls,
        ..pop3d::Quirks::default()
    };
    for (scheme, quirks, told) in [
        ("pop3s", quirks(true, false), "certificate"),
        ("pop3", quirks(false, true), "certificate"),
        ("pop3", quirks(false, false), "offers no TLS (STLS)"),
        ("pop3s", quirks(false, true), "does not speak TLS"),
    ] {
        let pop3d = Pop3d::start(vec![mail(1)], quirks);
        let place = Place::new();
        let file = place.path("password");
        let mut options = fs::OpenOptions::new();
        let mut written = options.write(true).create(true).mode(0o600).open(&file);
        let password = pop3d::PASSWORD.as_bytes();
        written.as_mut().unwrap().write_all(password).unwrap();
        let mut command = place.command();
        command
            .arg(format!(
                "{scheme}://{}@localhost:{}/",
                pop3d::USER,
                pop3d.port
            ))
            .arg(place.mountpoint())
            .arg("-o")
            .arg(format!("password_file={}", file.display()));
        let refused = command.output().unwrap();
        let line = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(6), "{line}");
        assert!(line.contains(told), "{line}");
        assert_eq!(line.lines().count(), 1, "{line:?}");
        assert!(!line.contains("check the user"), "{line}");
        assert!(!place.is_mounted());
    }
}
