//! `sendmail`, `mailq` and `ferryfs mail`, as cron, mutt, git and scripts call them.

use super::lab::{Lab, mail, text};
use crate::support::smtpd::Quirks;

/// Links named `sendmail`, `mailq` and `ferryfs` in front of the script's path.
fn prefixed(lab: &Lab, script: &str) -> String {
    let bin = lab.mount.local("bin");
    let program = env!("CARGO_BIN_EXE_ferryfs");
    format!(
        "mkdir -p {bin}; for name in sendmail mailq newaliases ferryfs; do
             ln -sf {program} {bin}/$name
         done
         PATH={bin}:$PATH
         {script}",
        bin = bin.display()
    )
}

fn run(lab: &Lab, script: &str) -> (i32, String) {
    let (status, printed) = lab.mount.try_sh(&prefixed(lab, script));
    (status.code().unwrap_or(-1), printed)
}

#[test]
fn sendmail_as_programs_call_it() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    let (code, printed) = run(
        &lab,
        // cron
        "printf 'From: root (Cron Daemon)\\nTo: root\\nSubject: cron\\nX-Cron-Env: <A=b>\\n\\nout\\n.\\nput\\n' |
             sendmail -i -FCronDaemon -B8BITMIME -oem root
         # mutt, with a Bcc that only the command line has
         printf 'From: Al <al@example.org>\\nTo: bob@example.org\\nSubject: mutt\\nMessage-ID: <own@x>\\n\\nhi\\n' |
             sendmail -oem -oi -f bounce@example.org -- bob@example.org eve@example.org
         # a script
         printf 'Subject: script\\nTo: bob@example.org\\nBcc: eve@example.org\\n\\nuntil here\\n.\\nnot this\\n' | sendmail -t
         # a text without a header
         echo 'disk is full' | sendmail -F 'The Disk' carol@example.org
         # a report, never answered
         printf 'Subject: null\\nTo: bob@example.org\\n\\nhi\\n' | sendmail -ti -f '<>' -N success,failure -R hdrs -V env1
         newaliases",
    );
    assert_eq!(code, 0, "{printed}");
    assert_eq!(printed, "");
    let sent = lab.sent(5);
    let of = |words: &str| {
        let found = sent.iter().find(|received| text(received).contains(words));
        found.unwrap_or_else(|| panic!("no {words}: {sent:?}"))
    };
    let cron = of("Subject: cron\n");
    assert_eq!(cron.rcpts.len(), 1);
    assert!(cron.rcpts[0].contains("<alice@example.org>"), "{cron:?}");
    let message = text(cron);
    assert!(
        message.contains("From: Cron Daemon <alice@example.org>\n"),
        "{message}"
    );
    assert!(
        message.contains("To: root <alice@example.org>\n"),
        "{message}"
    );
    assert!(message.contains("X-Cron-Env: <A=b>\n"), "{message}");
    assert!(message.ends_with("\n\nout\n.\nput\n"), "{message}");

    let mutt = of("Subject: mutt\n");
    assert!(mutt.mail.contains("<bounce@example.org>"), "{mutt:?}");
    assert_eq!(mutt.rcpts.len(), 2, "{mutt:?}");
    assert!(text(mutt).contains("Message-ID: <own@x>\n") && !text(mutt).contains("eve@"));

    let script = of("Subject: script\n");
    assert_eq!(script.rcpts.len(), 2, "{script:?}");
    assert!(text(script).ends_with("\n\nuntil here\n") && !text(script).contains("eve@"));

    let bare = of("disk is full\n");
    let message = text(bare);
    assert!(
        message.contains("From: The Disk <alice@example.org>\n"),
        "{message}"
    );
    assert!(message.contains("To: carol@example.org\n"), "{message}");
    assert!(!message.contains("Subject:"), "{message}");

    let null = of("Subject: null\n");
    assert!(
        null.mail.contains("<>") && null.mail.contains("RET=HDRS ENVID=env1"),
        "{null:?}"
    );
    assert!(null.rcpts[0].contains("NOTIFY=SUCCESS,FAILURE"), "{null:?}");
    lab.mount.finish();
}

#[test]
fn nobody_of_many_is_turned_away() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    let (status, printed) = run(
        &lab,
        "for n in $(seq 100); do
             { echo $n | sendmail bob@example.org || echo \"$n: $?\"; } &
         done; wait",
    );
    assert_eq!((status, printed.as_str()), (0, ""));
    lab.sent(100);
    lab.mount.finish();
}

#[test]
fn git_sends_patches() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    let (home, bin) = (lab.mount.local("home"), lab.mount.local("bin"));
    let script = format!(
        "mkdir {home}; export HOME={home} GIT_CONFIG_NOSYSTEM=1
         git init -q {home}/repo; cd {home}/repo
         git config user.name Al; git config user.email al@example.org
         for word in one two; do
             echo $word > file; git add file; git commit -qm \"$word: caf\u{e9}\" -m .from
         done
         set -- --to bob@example.org --bcc eve@example.org --confirm=never --quiet
         git -c sendemail.sendmailCmd='{bin}/ferryfs sendmail' send-email \"$@\" -1 HEAD~1
         git -c sendemail.smtpServer={bin}/sendmail send-email \"$@\" -1 HEAD",
        home = home.display(),
        bin = bin.display()
    );
    let (code, printed) = run(&lab, &script);
    assert_eq!(code, 0, "{printed}");
    let sent = lab.sent(2);
    for word in ["one", "two"] {
        let one = sent.iter().find(|one| {
            let end = format!("\n+{word}\n");
            text(one).contains(&end)
        });
        let one = one.unwrap_or_else(|| panic!("no {word}: {sent:?}"));
        // The author gets a copy, too.
        assert_eq!(one.rcpts.len(), 3, "{one:?}");
        let text = text(one);
        assert!(
            text.contains("\n.from\n") && !text.contains("eve@"),
            "{text}"
        );
    }
    lab.mount.finish();
}

#[test]
fn mistakes_have_the_exit_codes_that_callers_know() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    for (script, code) in [
        ("echo hi | sendmail", 64),
        ("printf 'Subject: x\\n\\nhi\\n' | sendmail -t", 64),
        ("echo hi | sendmail -bd", 64),
        ("echo hi | sendmail 'a@@b'", 65),
        ("printf 'To: a@@b\\n\\nhi\\n' | sendmail -t", 65),
        ("printf 'no header\\n' | sendmail -t", 65),
        ("printf '' | sendmail bob@example.org", 65),
        ("echo hi | sendmail no-such-user-here", 67),
        ("echo hi | sendmail --account=/nowhere bob@example.org", 69),
        ("echo hi | sendmail --account nothing bob@example.org", 2),
        ("ferryfs mail wait nosuchid", 67),
    ] {
        let (got, printed) = run(&lab, script);
        assert_eq!(got, code, "{script}: {printed}");
        assert_eq!(printed.lines().count(), 1, "{script}: {printed}");
    }
    lab.sent(0);
    lab.mount.finish();
}

#[test]
fn waiting_ends_with_the_verdict() {
    let quirks = Quirks::default()
        .recipient("nobody@example.org", &["550 5.1.1 no such user"])
        .recipient("grey@example.org", &["450 4.7.1 greylisted"]);
    let Some(lab) = Lab::start(Vec::new(), quirks) else {
        return;
    };
    let (code, printed) = run(
        &lab,
        "echo hi | sendmail -v bob@example.org; ferryfs mail wait --all --timeout 10s; mailq",
    );
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("bob@example.org: accepted 250"),
        "{printed}"
    );
    assert!(printed.ends_with("Mail queue is empty\n"), "{printed}");
    let (code, printed) = run(
        &lab,
        "echo hi | sendmail grey@example.org; id=$(ls queue); mailq
         ferryfs mail wait $id --timeout 1s",
    );
    assert_eq!(code, 75, "{printed}");
    assert!(printed.contains("450 4.7.1 greylisted"), "{printed}");
    assert!(printed.contains("-Queue ID-"), "{printed}");
    let (code, printed) = run(
        &lab,
        "rm queue/*; printf 'To: nobody@example.org\\n\\nhi\\n' > drafts/m; mv drafts/m outbox/
         ferryfs mail wait $(ls queue failed | grep -v : | head -1)",
    );
    assert_eq!(code, 67, "{printed}");
    assert!(printed.contains("no such user"), "{printed}");
    // Long after.
    let (code, printed) = run(&lab, "ferryfs mail wait $(ls failed)");
    assert_eq!(code, 67, "{printed}");
    lab.mount.finish();
}

#[test]
fn a_mailbox_that_is_not_mounted_queues_for_its_next_mount() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    let config = lab.mount.local("config/ferryfs");
    let port = lab.pop3d.port;
    let described = format!(
        "[mount.work]\nurl = \"pop3://alice@localhost:{port}/\"\nsmtp = \"smtp://localhost:{}\"\n\
         tls = \"off\"\nfrom = \"alice@example.org\"\n",
        lab.smtpd.port
    );
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), described).unwrap();
    let script = prefixed(
        &lab,
        "echo one | sendmail -v --account work bob@example.org
         for n in 2 3 4 5; do echo $n | sendmail bob@example.org & done; wait; mailq",
    );
    let first = prefixed(&lab, "umask 022; echo hi | sendmail bob@example.org");
    // Not in the mount, whose end it outlives.
    let script = format!("cd /\n{script}");
    let outside = lab.mount.local("script");
    std::fs::write(&outside, script).unwrap();
    let home = lab.mount.local("");
    let Lab {
        mount,
        pop3d,
        smtpd,
    } = lab;
    let killed = mount.kill();
    // Nobody else may read what is sent from it, even if it was never mounted.
    let never = home.join("never");
    let output = std::process::Command::new("sh")
        .args(["-euc", &first])
        .env("HOME", &home)
        .env("XDG_STATE_HOME", &never)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for dir in ["ferryfs", "ferryfs/mail", "ferryfs/mail/alice@localhost"] {
        let mode = std::fs::metadata(never.join(dir)).unwrap().permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
    let output = std::process::Command::new("sh")
        .arg("-eu")
        .arg(&outside)
        .env("HOME", &home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}{errors}");
    assert!(printed.contains(": queued; sent when pop3://"), "{printed}");
    assert!(printed.contains("in 5 Requests."), "{printed}");
    let lab = Lab {
        mount: killed.remount(),
        pop3d,
        smtpd,
    };
    lab.sent(5);
    lab.mount.finish();
}

#[test]
fn list_read_reply_and_forward_work_on_the_files() {
    let Some(lab) = Lab::start(vec![mail(1), mail(2)], Quirks::default()) else {
        return;
    };
    lab.fetched(2);
    let (code, printed) = run(
        &lab,
        "ferryfs mail list; ferryfs mail read 1; ls cur; ferryfs mail list -n 1",
    );
    assert_eq!(code, 0, "{printed}");
    let lines: Vec<_> = printed.lines().collect();
    assert!(
        lines[0].trim_start().starts_with("2 N 2026-11-23"),
        "{printed}"
    );
    assert!(
        lines[1].contains("bob@example.org") && lines[1].ends_with("Number 2"),
        "{printed}"
    );
    assert!(printed.contains("\nThis is message 2.\n"), "{printed}");
    assert!(printed.contains(":2,S\n"), "{printed}");
    assert!(
        lines.last().unwrap().trim_start().starts_with("1   2026"),
        "{printed}"
    );
    let (code, printed) = run(
        &lab,
        "EDITOR=true ferryfs mail reply 1
         EDITOR='sh -c \"echo Thanks >> \\\"\\$0\\\"\"' ferryfs mail reply 1
         EDITOR='sed -i s/Number/Count/' ferryfs mail forward 2 carol@example.org
         ferryfs mail wait --timeout 10s; ls drafts",
    );
    assert_eq!(code, 0, "{printed}");
    assert_eq!(printed, "not changed, not sent\nqueued\nqueued\n");
    let sent = lab.sent(2);
    let all: String = sent.iter().map(text).collect();
    assert!(
        all.contains("\nThanks\n") && all.contains("Re: Number 2"),
        "{all}"
    );
    assert!(
        all.contains("To: carol@example.org\n") && all.contains("Count 1"),
        "{all}"
    );
    lab.mount.finish();
}
