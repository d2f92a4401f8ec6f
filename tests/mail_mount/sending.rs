//! The outbox: what is sent, what is refused and where that is heard.

use std::fs;

use super::lab::{Lab, text};
use crate::support::smtpd::Quirks;

fn lab(quirks: Quirks) -> Option<Lab> {
    Lab::start(Vec::new(), quirks)
}

#[test]
fn a_whole_message_that_is_moved_in_is_sent_and_kept() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    let mount = &lab.mount;
    mount.sh(
        "printf 'To: bob@example.org\\nBcc: eve@example.org\\nSubject: Hi\\n\\nHello\\n.\\n' > drafts/m
         mv drafts/m outbox/",
    );
    let sent = lab.sent(1);
    assert!(sent[0].mail.contains("alice@example.org"), "{:?}", sent[0]);
    assert_eq!(sent[0].rcpts.len(), 2, "{:?}", sent[0]);
    let message = text(&sent[0]);
    assert!(message.contains("\nSubject: Hi\n") || message.starts_with("Subject: Hi\n"));
    assert!(message.ends_with("\n\nHello\n.\n"), "{message}");
    assert!(
        message.contains("Message-ID: <") && message.contains("Date: "),
        "{message}"
    );
    assert!(!message.contains("eve@"), "{message}");
    lab.wait("outbox not empty", || {
        mount.sh("ls outbox | tr '\\n' ' '") == "at now "
    });
    assert_eq!(mount.sh("cat .Sent/cur/* | grep -c Hello").trim(), "1");
    lab.mount.finish();
}

#[test]
fn a_text_for_an_address_needs_no_header() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    lab.mount
        .sh("echo 'All is well.' > 'outbox/bob@example.org/Weekly report.txt'");
    let sent = lab.sent(1);
    let message = text(&sent[0]);
    assert!(message.contains("Subject: Weekly report\n"), "{message}");
    assert!(message.contains("To: bob@example.org\n"), "{message}");
    assert!(message.ends_with("\n\nAll is well.\n"), "{message}");
    lab.wait("outbox not empty", || {
        lab.mount.sh("ls outbox | tr '\\n' ' '") == "at now "
    });
    lab.mount.finish();
}

#[test]
fn a_directory_is_a_message_with_attachments() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    lab.mount.sh(
        "mkdir outbox/.m; echo Look > outbox/.m/text.txt; printf '\\211PNG\\r\\n' > outbox/.m/a.png
         mv outbox/.m outbox/bob@example.org/",
    );
    let sent = lab.sent(1);
    let message = text(&sent[0]);
    assert!(
        message.contains("multipart/mixed") && message.contains("image/png"),
        "{message}"
    );
    lab.mount.finish();
}

#[test]
fn faults_are_heard_at_the_earliest_call() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    let refused = |script: &str, words: &str| {
        let (status, printed) = lab.mount.try_sh(script);
        assert!(
            !status.success() && printed.contains(words),
            "{script}: {printed}"
        );
    };
    refused(
        "/usr/bin/printf 'Subject: x\\n\\nhello\\n' > outbox/a",
        "Destination address required",
    );
    refused("/bin/echo hello > outbox/b", "Destination address required");
    refused(
        "/usr/bin/printf 'To: a@@b\\n\\nhello\\n' > outbox/c",
        "Bad message",
    );
    refused(
        "printf 'Subject: x\\n\\nhello\\n' > drafts/d; mv drafts/d outbox/",
        "Destination address required",
    );
    assert_eq!(lab.mount.sh("ls drafts").trim(), "d");
    refused("touch drafts/e; mv drafts/e outbox/", "Bad message");
    refused("echo x > queue/new", "");
    assert_eq!(lab.mount.sh("ls outbox | tr '\\n' ' '"), "at now ");
    lab.sent(0);
    lab.mount.finish();
}

#[test]
fn second_thoughts_within_the_linger_take_a_message_back() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    lab.mount
        .sh("printf 'To: bob@example.org\\n\\nno\\n' > outbox/a; rm outbox/a");
    lab.mount.sh(
        "printf 'To: bob@example.org\\n\\none\\n' > outbox/b; sleep 0.2; echo two >> outbox/b
         printf 'To: bob@example.org\\n\\nold\\n' > outbox/c; sed -i s/old/new/ outbox/c",
    );
    let mut sent: Vec<_> = lab.sent(2).iter().map(text).collect();
    sent.sort();
    assert!(
        sent.iter().any(|m| m.ends_with("\n\none\ntwo\n")),
        "{sent:?}"
    );
    assert!(sent.iter().any(|m| m.ends_with("\n\nnew\n")), "{sent:?}");
    lab.mount.finish();
}

#[test]
fn who_writes_more_may_take_his_time() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    let outbox = "outbox/bob@example.org";
    lab.mount.sh(&format!(
        "echo header > {outbox}/Report.txt; {{ sleep 3; echo body; }} >> {outbox}/Report.txt
         echo touched > {outbox}/Touched.txt; touch {outbox}/Touched.txt
         exec 3<> {outbox}/Touched.txt; sleep 0.1; exec 3>&-"
    ));
    let sent: Vec<_> = lab.sent(2).iter().map(text).collect();
    assert!(
        sent.iter().any(|mail| mail.ends_with("\n\nheader\nbody\n")),
        "{sent:?}"
    );
    assert!(
        sent.iter().any(|mail| mail.ends_with("\n\ntouched\n")),
        "{sent:?}"
    );
    lab.mount.finish();
}

#[test]
fn what_is_written_to_a_file_that_was_sent_is_refused() {
    let Some(mut lab) = lab(Quirks::default()) else {
        return;
    };
    lab.mount.expect_log("was sent meanwhile");
    // Moved in, so that opening it takes nothing back.
    let script = "printf 'To: bob@example.org\\n\\nhi\\n' > drafts/m
        printf pause > ctl; mv drafts/m outbox/m; exec 3>> outbox/m; printf resume > ctl
        while [ -e outbox/m ]; do sleep 0.1; done; echo more >&3";
    let (status, printed) = lab.mount.try_sh(script);
    assert!(!status.success(), "{printed}");
    lab.sent(1);
    lab.mount.finish();
}

#[test]
fn the_same_name_twice_is_two_messages_though_the_server_is_away() {
    let Some(lab) = lab(Quirks::default().recipient("bob@example.org", &["450 later"])) else {
        return;
    };
    let send = |n: u32| {
        lab.mount.sh(&format!(
            "printf 'To: bob@example.org\\n\\nmoved {n}\\n' > drafts/m; mv drafts/m outbox/m
             echo written {n} > outbox/bob@example.org/Report.txt"
        ));
        lab.wait("not tried", || {
            lab.mount
                .sh("cat queue/* | grep -c '^State: deferred' || true")
                .trim()
                == (2 * n).to_string()
        });
    };
    send(1);
    send(2);
    let queued = |lab: &Lab| lab.mount.sh("ls queue; ls outbox outbox/bob@example.org");
    let before = queued(&lab);
    let lab = Lab {
        mount: lab.mount.kill().remount(),
        ..lab
    };
    assert_eq!(queued(&lab), before);
    lab.smtpd.with(|server| server.quirks = Quirks::default());
    lab.mount.sh("echo flush > ctl");
    let sent = lab.sent(4);
    for body in ["moved 1", "moved 2", "written 1", "written 2"] {
        let whole = format!("\n\n{body}\n");
        assert!(
            sent.iter().any(|m| text(m).ends_with(&whole)),
            "{body}: {sent:?}"
        );
    }
    lab.wait("outbox not empty", || {
        lab.mount.sh("ls outbox | tr '\\n' ' '") == "at now "
    });
}

#[test]
fn a_name_can_be_used_again_in_the_moment_its_message_is_done() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    let (draft, there) = (lab.mount.path("drafts/m"), lab.mount.path("outbox/m"));
    for number in 0..200 {
        let mail = format!("To: bob@example.org\nSubject: number {number}.\n\nhi\n");
        fs::write(&draft, mail).unwrap();
        fs::rename(&draft, &there).unwrap_or_else(|err| panic!("{number}: {err}"));
    }
    let sent = lab.sent(200);
    let mut lost = 0..200;
    let lost = lost.find(|number| {
        let line = format!("Subject: number {number}.\n");
        !sent.iter().any(|mail| text(mail).contains(&line))
    });
    assert_eq!(lost, None);
    lab.mount.finish();
}

#[test]
fn a_refused_recipient_is_in_failed_and_a_report_in_the_inbox() {
    let quirks = Quirks::default().recipient("nobody@example.org", &["550 5.1.1 no such user"]);
    let Some(lab) = lab(quirks) else { return };
    lab.mount.sh("printf 'To: bob@example.org, nobody@example.org\\n\\nhi\\n' > drafts/m; mv drafts/m outbox/");
    lab.sent(1);
    lab.wait("no failed/", || !lab.mount.sh("ls failed").is_empty());
    lab.mount
        .sh("grep -q 'no such user' failed/*/reason; grep -q '^hi' failed/*/message");
    lab.mount.sh("grep -q 'Status: 5.1.1' new/*");
    lab.mount.finish();
}

#[test]
fn now_gives_the_word_of_the_server() {
    let quirks = Quirks::default()
        .recipient("nobody@example.org", &["550 5.1.1 no such user"])
        .recipient("grey@example.org", &["450 4.7.1 greylisted"]);
    let Some(lab) = lab(quirks) else { return };
    let now = |to: &str| {
        let script = format!("printf 'To: {to}\\n\\nhi\\n' > drafts/m; mv drafts/m outbox/now/");
        lab.mount.try_sh(&script)
    };
    let (status, printed) = now("bob@example.org");
    assert!(status.success(), "{printed}");
    assert_eq!(lab.smtpd.kept().len(), 1);
    let (status, printed) = now("nobody@example.org");
    assert!(
        !status.success() && printed.contains("Remote I/O error"),
        "{printed}"
    );
    assert_eq!(lab.mount.sh("ls drafts").trim(), "m");
    let (status, printed) = now("grey@example.org");
    assert!(
        !status.success() && printed.contains("temporarily unavailable"),
        "{printed}"
    );
    assert_eq!(lab.mount.sh("ls drafts").trim(), "m");
    lab.wait("not cancelled", || lab.mount.sh("ls queue").is_empty());
    lab.mount.finish();
}

#[test]
fn now_says_when_only_some_were_reached_and_else_leaves_nothing_queued() {
    let quirks = Quirks::default()
        .recipient("nobody@example.org", &["550 5.1.1 no such user"])
        .recipient("grey@example.org", &["450 4.7.1 greylisted", "250 ok"]);
    let Some(lab) = lab(quirks) else { return };
    let now = |to: &str, fields: &str| {
        // mv(1) has words of its own for a file that went.
        let script = format!(
            "printf 'To: {to}\\n{fields}\\nhi\\n' > drafts/m
             python3 -c 'import os; os.rename(\"drafts/m\", \"outbox/now/m\")'"
        );
        lab.mount.try_sh(&script)
    };
    // Refused by one, put off by the other: given back, and so nobody gets it later.
    let (status, printed) = now("nobody@example.org, grey@example.org", "");
    assert!(
        !status.success() && printed.contains("Remote I/O error"),
        "{printed}"
    );
    assert_eq!(lab.mount.sh("ls drafts").trim(), "m");
    lab.wait("still queued", || {
        lab.mount.sh("echo flush > ctl; ls queue").is_empty()
    });
    assert_eq!(lab.smtpd.kept().len(), 0);
    // Who sends it again after this would send it twice to bob.
    for fields in ["", "X-Separate: yes\\n"] {
        let before = lab.smtpd.kept().len();
        let (status, printed) = now("nobody@example.org, bob@example.org", fields);
        assert!(
            !status.success() && printed.contains("in progress"),
            "{printed}"
        );
        lab.wait("not done", || lab.mount.sh("ls queue").is_empty());
        assert_eq!(lab.smtpd.kept().len(), before + 1);
        assert_eq!(
            lab.mount
                .sh("ls drafts outbox/now | grep -c m || true")
                .trim(),
            "0"
        );
        lab.mount.sh("rm -r failed/*/* 2>/dev/null || true");
    }
    lab.mount.finish();
}

#[test]
fn mail_for_later_waits_and_the_queue_survives_a_kill() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    lab.mount.sh(
        "printf 'To: bob@example.org\\nSubject: Hi\\n\\nhi\\n' > 'outbox/at/2027-09-01T09:00/m'",
    );
    // The kernel tells us of the close after it has told the shell.
    lab.wait("not queued", || {
        lab.mount
            .sh("cat queue/* 2>&1 || true")
            .contains("2027-09-01")
    });
    // Not the name of the file.
    assert!(lab.mount.sh("cat queue/*").contains("\nSubject: Hi\n"));
    let Lab {
        mount,
        pop3d,
        smtpd,
    } = lab;
    let mount = mount.kill().remount();
    let lab = Lab {
        mount,
        pop3d,
        smtpd,
    };
    assert_eq!(lab.mount.sh("ls queue | wc -l").trim(), "1");
    lab.mount.sh("rm 'outbox/at/2027-09-01T09:00/m'");
    lab.wait("not cancelled", || lab.mount.sh("ls queue").is_empty());
    lab.sent(0);
}

#[test]
fn an_alias_stands_for_addresses_and_shows_them() {
    let Some(lab) = lab(Quirks::default()) else {
        return;
    };
    lab.mount.sh(
        "printf 'team: bob@example.org, carol\\ncarol: carol@example.net\\n' > aliases/.aliases
         echo hi > 'outbox/team/Lunch.txt'",
    );
    let shown = lab.mount.sh("cat aliases/team; ls aliases");
    assert!(
        shown.contains("carol@example.net") && shown.contains("team"),
        "{shown}"
    );
    let sent = lab.sent(1);
    assert_eq!(sent[0].rcpts.len(), 2, "{:?}", sent[0]);
    lab.mount.finish();
}
