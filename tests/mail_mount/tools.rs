//! Each of the tools people send with sends one whole message, once.

use super::lab::{Lab, text};
use crate::support::smtpd::Quirks;

/// The message is in `$M`; `$O` is the name to write to.
const TOOLS: &[(&str, &str)] = &[
    ("echo", "echo \"$(cat $M)\" > $O"),
    ("cat", "cat > $O <<END\n$(cat $M)\nEND"),
    (
        "braces",
        "{ head -3 $M; cat $M | sed -n 4p; sleep 0.2; sed 1,4d $M; } > $O",
    ),
    ("cp", "cp $M $O"),
    ("cp -p", "cp -p $M $O"),
    ("mv", "cp $M $M.x; mv $M.x $O"),
    ("tee", "tee $O < $M > /dev/null"),
    ("dd", "dd if=$M of=$O conv=fsync status=none"),
    ("dd in pieces", "dd if=$M of=$O bs=7 status=none"),
    ("install", "install -m 600 $M $O"),
    ("rsync", "rsync -t $M $O"),
    ("sed", "sed s/body/BODY/ $M > $O; sed -i s/BODY/body/ $O"),
    (
        "python",
        "python3 -c 'import sys; open(sys.argv[2],\"w\").write(open(sys.argv[1]).read())' $M $O",
    ),
    ("perl", "perl -pe 1 $M > $O"),
    ("touch", "touch $O; cat $M > $O; touch $O"),
    ("append", "head -5 $M > $O; sed 1,5d $M >> $O"),
    ("sync", "cat $M > $O; sync $O"),
    ("mv within", "cp $M drafts/m; mv drafts/m $O"),
    (
        "vi",
        "ex -s -u NONE -c 'set swapfile' -c \"0r $M\" -c wq $O",
    ),
    (
        "ed",
        "printf 'r %s\\nw %s\\nq\\n' $M $O | ed -s > /dev/null",
    ),
];

#[test]
fn every_tool_sends_one_whole_message_once() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    let body: String = (0..400).map(|line| format!("body line {line}\n")).collect();
    let message = lab.mount.local("message");
    for (number, (tool, script)) in TOOLS.iter().enumerate() {
        let whole = format!("To: bob@example.org\nSubject: {tool}\n\nfirst\n{body}");
        std::fs::write(&message, whole).unwrap();
        let script = script.replace("$M", &message.display().to_string());
        let script = script.replace("$O", &format!("outbox/m{number}"));
        lab.mount.sh(&script);
    }
    let sent = lab.sent(TOOLS.len());
    for (tool, _) in TOOLS {
        let of_tool: Vec<_> = sent
            .iter()
            .map(text)
            .filter(|m| m.contains(&format!("Subject: {tool}\n")))
            .collect();
        assert_eq!(of_tool.len(), 1, "{tool}");
        let body = format!("\n\nfirst\n{body}");
        assert!(of_tool[0].ends_with(&body), "{tool}: {}", of_tool[0]);
    }
    assert_eq!(lab.mount.sh("ls failed"), "");
    lab.mount.finish();
}

#[test]
fn what_editors_leave_behind_is_never_sent() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    lab.mount
        .sh("for name in .x.swp x~ '#x#' x.tmp x.part 4913 .hidden; do
             printf 'To: bob@example.org\\n\\nhi\\n' > \"outbox/$name\"
         done; touch outbox/empty");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    lab.sent(0);
    lab.mount
        .sh("rm -f outbox/.x.swp outbox/* outbox/.hidden 2>/dev/null || true");
    lab.mount.finish();
}

/// Tools that must end with an error when a message is refused, as `mail-peers.md` 5.3 measured.
const HEAR: &[(&str, &str)] = &[
    ("bash echo", "bash -c 'echo \"$(cat $M)\" > $O'"),
    ("dash echo", "sh -c 'echo \"$(cat $M)\" > $O'"),
    ("cat", "cat $M > $O"),
    ("here document", "cat > $O <<END\n$(cat $M)\nEND"),
    ("braces", "bash -c '{ cat $M; } > $O'"),
    ("cp", "cp $M $O"),
    ("mv", "cp $M $M.x; mv $M.x $O"),
    ("tee", "tee $O < $M > /dev/null"),
    ("dd", "dd if=$M of=$O status=none"),
    ("install", "install -m 600 $M $O"),
    ("rsync", "rsync -t $M $O"),
    (
        "python",
        "python3 -c 'import sys
with open(sys.argv[2],\"w\") as f: f.write(open(sys.argv[1]).read())' $M $O",
    ),
    (
        "perl",
        "perl -e 'open(F, \">\", $ARGV[1]); open(G, \"<\", $ARGV[0]); print F <G>; close(F) or exit 1' $M $O",
    ),
    ("mv within", "cp $M drafts/m; mv drafts/m $O"),
];

#[test]
fn every_tool_hears_of_a_message_that_is_refused() {
    let Some(lab) = Lab::start(Vec::new(), Quirks::default()) else {
        return;
    };
    let message = lab.mount.local("message");
    for (number, (tool, script)) in HEAR.iter().enumerate() {
        for (kind, header) in [
            ("nobody", "Subject: x"),
            ("address", "To: bob@@example.org"),
        ] {
            std::fs::write(&message, format!("{header}\n\nbody\n")).unwrap();
            let script = script.replace("$M", &message.display().to_string());
            let script = script.replace("$O", &format!("outbox/{kind}{number}"));
            let (status, printed) = lab.mount.try_sh(&script);
            assert!(!status.success(), "{tool}, {kind}: {printed}");
        }
    }
    lab.sent(0);
    assert_eq!(lab.mount.sh("ls queue"), "");
    lab.mount.sh("rm -f drafts/m");
    lab.mount.finish();
}
