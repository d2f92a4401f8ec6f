//! What comes back: Bcc in the own copy, retrying from `failed/`, reports of other machines, and
//! limits of the server.

use super::lab::{Lab, text};
use crate::support::pop3d::Mail;
use crate::support::small_disk::SmallDisk;
use crate::support::smtpd::Quirks;

#[test]
fn bcc_is_kept_in_the_own_copy_only() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    lab.mount
        .sh("printf 'To: bob@example.org\\nBcc: eve@example.org\\n\\nhi\\n' > outbox/m");
    let sent = lab.sent(1);
    assert!(!text(&sent[0]).contains("eve@") && sent[0].rcpts.len() == 2);
    lab.mount.sh("grep -q '^Bcc: eve@example.org$' .Sent/cur/*");
    let size = lab
        .mount
        .sh("stat -c %s .Sent/cur/*; cat .Sent/cur/* | wc -c");
    let sizes: Vec<_> = size.lines().map(str::trim).collect();
    assert_eq!(sizes[0], sizes[1]);
    assert!(
        lab.mount
            .sh("ls .Sent/cur")
            .contains(&format!(",S={}:2,S", sizes[0]))
    );
    lab.mount.finish();
}

#[test]
fn retrying_from_failed_reaches_those_who_did_not_get_it() {
    let quirks =
        Quirks::default().recipient("late@example.org", &["550 5.1.1 not yet", "250 2.1.5 now"]);
    let Some(lab) = Lab::start(Vec::new(), quirks) else {
        return;
    };
    lab.mount.sh(
        "printf 'To: bob@example.org, late@example.org\\nBcc: eve@example.org\\nSubject: x\\n\\nhi\\n' > drafts/m
         mv drafts/m outbox/",
    );
    lab.wait("no failed/", || !lab.mount.sh("ls failed").is_empty());
    lab.sent(1);
    lab.mount.sh("mv failed/*/message outbox/again");
    let sent = lab.sent(2);
    assert_eq!(sent[0].rcpts.len(), 2, "{sent:?}");
    assert_eq!(sent[1].rcpts.len(), 1, "{sent:?}");
    assert!(sent[1].rcpts[0].contains("late@example.org"), "{sent:?}");
    let (first, second) = (text(&sent[0]), text(&sent[1]));
    assert_eq!(first, second, "the same message, Message-ID and all");
    lab.mount.finish();
}

#[test]
fn those_who_failed_before_are_not_forgotten_by_the_next_failure() {
    let quirks = Quirks::default()
        .recipient("gone@example.org", &["550 5.1.1 not yet", "250 2.1.5 now"])
        .recipient(
            "grey@example.org",
            &["450 4.7.1 greylisted", "550 5.1.1 not yet", "250 2.1.5 now"],
        );
    let Some(lab) = Lab::start(Vec::new(), quirks) else {
        return;
    };
    lab.mount.sh(
        "printf 'To: bob@example.org, carol@example.org, gone@example.org, grey@example.org\\nSubject: x\\n\\nhi\\n' > drafts/m
         mv drafts/m outbox/",
    );
    lab.wait("no failed/", || {
        !lab.mount
            .sh("ls failed/*/message 2>/dev/null || true")
            .is_empty()
    });
    lab.mount.sh("echo flush > ctl");
    lab.sent(1);
    // And two came back, from hosts that know nothing of each other.
    lab.pop3d.with(|maildrop| {
        for to in ["bob@example.org", "carol@example.org"] {
            let text = format!(
                "From: MAILER-DAEMON@far.example\nTo: alice@example.org\nSubject: Returned\n\
                 Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\nx\n\
                 --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; far.example\n\
                 Original-Envelope-Id: {}\n\nFinal-Recipient: rfc822; {to}\nAction: failed\n\
                 Status: 5.2.2\n\n--b--\n",
                lab.mount.sh("ls failed").trim()
            );
            maildrop.mails.push(Mail {
                uidl: to.into(),
                text: text.into_bytes(),
            });
        }
    });
    lab.mount.sh("echo poll > ctl");
    lab.wait("not matched", || {
        lab.mount
            .sh("grep -l '^Final-Recipient: rfc822; bob' new/* | wc -l; cat failed/*/reason")
            .contains("came back")
    });
    lab.fetched(2);
    lab.mount.sh("sleep 0.3; mv failed/*/message outbox/again");
    let sent = lab.sent(2);
    let mut rcpts = sent[1].rcpts.clone();
    rcpts.sort();
    assert_eq!(rcpts.len(), 4, "{rcpts:?}");
    lab.mount.finish();
}

#[test]
fn a_file_that_is_written_anew_is_not_sent_half() {
    let Some(small) = SmallDisk::mount("3m") else {
        return crate::support::mount::skip("no tmpfs may be mounted");
    };
    let state_dir = format!("state_dir={}", small.path().display());
    if let Some(mut lab) = Lab::with(Vec::new(), Quirks::default(), &[&state_dir]) {
        lab.mount.expect_log("No space");
        lab.mount.expect_log("no space");
        let full = small.path().join("full").display().to_string();
        lab.mount.sh(&format!(
            "exec 3> outbox/bob@example.org/Report.txt; echo first >&3
             head -c 4000000 /dev/zero > {full} 2>/dev/null || true; exec 3>&-"
        ));
        lab.wait("not stuck", || {
            lab.mount
                .sh("cat status")
                .contains("outbox/bob@example.org/Report.txt: not queued")
        });
        // Something wakes the sender meanwhile, and again.
        lab.mount.sh(&format!(
            "exec 3> outbox/bob@example.org/Report.txt; rm {full}
             echo half >&3; echo flush > ctl; sleep 3; echo flush > ctl; sleep 0.3
             echo whole >&3; exec 3>&-"
        ));
        let sent = lab.sent(1);
        assert!(
            text(&sent[0]).contains("half\nwhole\n"),
            "{}",
            text(&sent[0])
        );
        lab.mount.finish();
    }
    small.unmount();
}

#[test]
fn a_report_from_elsewhere_is_matched_to_what_was_sent() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    lab.mount.sh(
        "printf 'To: bob@example.org, carol@example.org\\nX-DSN: success, failure, headers\\nSubject: x\\n\\nhi\\n' > drafts/m
         mv drafts/m outbox/",
    );
    let sent = lab.sent(1);
    assert!(sent[0].mail.contains("RET=HDRS"), "{sent:?}");
    assert!(
        sent[0].rcpts[0].contains("NOTIFY=SUCCESS,FAILURE"),
        "{sent:?}"
    );
    let envelope_id = sent[0]
        .mail
        .split("ENVID=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let report = |recipients: &str, id: &str| {
        format!(
            "From: MAILER-DAEMON@far.example\nTo: alice@example.org\nSubject: Returned\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\nx\n\
             --b\nContent-Type: text/plain\n\nSorry.\n\
             --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; far.example\n\
             Original-Envelope-Id: {id}\n\n{recipients}\n--b--\n"
        )
    };
    let delivered =
        "Final-Recipient: rfc822; carol@example.org\nAction: delivered\nStatus: 2.0.0\n";
    let lost = "Final-Recipient: rfc822; bob@example.org\nAction: failed\nStatus: 5.2.2\n\
                Diagnostic-Code: smtp; 552 mailbox full\n";
    lab.pop3d.with(|maildrop| {
        for (number, text) in [
            report(delivered, envelope_id),
            report(lost, envelope_id),
            report(lost, "other"),
        ]
        .into_iter()
        .enumerate()
        {
            maildrop.mails.push(Mail {
                uidl: format!("r{number}"),
                text: text.into_bytes(),
            });
        }
    });
    lab.mount.sh("echo poll > ctl");
    lab.fetched(3);
    lab.wait("not matched", || !lab.mount.sh("ls failed").is_empty());
    assert_eq!(lab.mount.sh("ls failed").trim(), envelope_id);
    let attributes = lab.mount.sh(
        "python3 -c 'import os,sys
for name in os.listxattr(sys.argv[1]): print(name, os.getxattr(sys.argv[1], name).decode())' .Sent/cur/*",
    );
    assert!(
        attributes.contains(&format!("user.mail.id {envelope_id}")),
        "{attributes}"
    );
    assert!(
        attributes.contains("user.mail.state failed"),
        "{attributes}"
    );
    assert!(
        attributes.contains("delivered carol@example.org 2.0.0 (by far.example)"),
        "{attributes}"
    );
    assert!(
        lab.mount
            .sh("cat failed/*/reason")
            .contains("552 mailbox full")
    );
    // Anybody may have read the Message-ID: with it, reports are of those only whom the header names.
    let sent_text = text(&sent[0]);
    let id = sent_text
        .lines()
        .find(|line| line.starts_with("Message-ID:"));
    let lost = "Final-Recipient: rfc822; eve@evil.example\nAction: failed\nStatus: 5.2.2\n\n\
                Final-Recipient: rfc822; carol@example.org\nAction: failed\nStatus: 5.2.2\n";
    let forged = report(lost, "other").replace(
        "\n--b--",
        &format!(
            "\n--b\nContent-Type: text/rfc822-headers\n\n{}\n\n--b--",
            id.unwrap()
        ),
    );
    lab.pop3d.with(|maildrop| {
        maildrop.mails.push(Mail {
            uidl: "forged".into(),
            text: forged.into_bytes(),
        });
    });
    lab.mount.sh("echo poll > ctl");
    lab.fetched(4);
    lab.wait("not matched", || {
        lab.mount.sh("cat failed/*/reason").contains("carol@")
    });
    lab.mount.sh("mv failed/*/message outbox/");
    let sent = lab.sent(2);
    let mut rcpts = sent[1].rcpts.clone();
    rcpts.sort();
    assert_eq!(rcpts.len(), 2, "{sent:?}");
    assert!(rcpts[0].contains("bob@example.org"), "{sent:?}");
    assert!(rcpts[1].contains("carol@example.org"), "{sent:?}");
    lab.mount.finish();
}

#[test]
fn a_full_disk_is_heard_at_the_write_and_half_a_message_is_never_sent() {
    let Some(small) = SmallDisk::mount("3m") else {
        return crate::support::mount::skip("no tmpfs may be mounted");
    };
    let state_dir = format!("state_dir={}", small.path().display());
    if let Some(mut lab) = Lab::with(Vec::new(), Quirks::default(), &[&state_dir]) {
        lab.mount.expect_log("No space");
        lab.mount.expect_log("no space");
        let (status, printed) = lab.mount.try_sh(
            "{ printf 'To: bob@example.org\n\n'; head -c 2000000 /dev/zero | tr '\\0' x | fold; } > ../big
             cp ../big outbox/big",
        );
        assert!(
            !status.success() && printed.contains("No space left"),
            "{printed}"
        );
        // There is room for this one, and then for what was cut off.
        lab.mount
            .sh("printf 'To: bob@example.org\n\nhi\n' > outbox/small");
        lab.sent(1);
        lab.mount
            .sh("rm -rf failed/*/* outbox/big; echo flush > ctl");
        std::thread::sleep(std::time::Duration::from_millis(2500));
        let sent = lab.sent(1);
        assert!(text(&sent[0]).ends_with("\n\nhi\n"));
        lab.mount.sh("rmdir failed/* 2>/dev/null || true");
        lab.mount.finish();
    }
    small.unmount();
}

#[test]
fn a_message_over_the_servers_limit_fails_at_the_write() {
    let quirks = Quirks::default().without("SIZE").with("SIZE 20000");
    let Some(lab) = Lab::start(Vec::new(), quirks) else {
        return;
    };
    // Until it was asked once, nobody knows.
    lab.mount
        .sh("printf 'To: bob@example.org\\n\\nhi\\n' > drafts/m; mv drafts/m outbox/now/");
    let large =
        "{ printf 'To: bob@example.org\\n\\n'; head -c 30000 /dev/zero | tr '\\0' x | fold; }";
    let (status, printed) = lab
        .mount
        .try_sh(&format!("{large} | /bin/cat > outbox/large"));
    assert!(
        !status.success() && printed.contains("Message too long"),
        "{printed}"
    );
    let mut lab = Lab {
        mount: lab.mount.kill().remount(),
        ..lab
    };
    lab.mount.expect_log("Message too long");
    lab.mount.expect_log("server takes at most");
    let (status, printed) = lab
        .mount
        .try_sh(&format!("{large} | /bin/cat > outbox/large"));
    assert!(
        !status.success() && printed.contains("Message too long"),
        "{printed}"
    );
    // An attachment that is small enough until it is encoded.
    let (status, printed) = lab.mount.try_sh(
        "head -c 16000 /dev/urandom > drafts/x.bin; mkdir outbox/.d; mv drafts/x.bin outbox/.d/
         mv outbox/.d outbox/bob@example.org/",
    );
    assert!(
        !status.success() && printed.contains("Message too long"),
        "{printed}"
    );
    lab.sent(1);
    lab.mount.sh("rm -r outbox/.d");
}
