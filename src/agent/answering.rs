//! `ferryfs mail reply` and `forward`: an answer begun, edited, and moved to `outbox/`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{inbox, mounted};
use crate::exit::{Exit, Failure};

/// Begins the answer `how` (a file of `parts/MESSAGE`), has it edited, and sends it if it was
/// changed. What was written is never lost: it stays in `drafts/` until it is queued.
///
/// # Errors
/// No mailbox is mounted, no such message, an editor that fails, and what the outbox says of it.
pub(super) fn answer(
    account: Option<&str>,
    meant: &str,
    how: &str,
    to: &[String],
) -> Result<(), Failure> {
    let found = mounted(account)?;
    let dir = &found.record.mountpoint;
    let message = inbox::find(dir, meant)?;
    let begun = dir.join("parts").join(&message.base).join(how);
    let mut text = fs::read(&begun).map_err(|err| Failure::system(begun.display(), &err))?;
    if !to.is_empty() {
        text = addressed(&text, &to.join(", "));
    }
    let draft = begin(&dir.join("drafts"), how, &text)?;
    edit(&draft)?;
    let edited = fs::read(&draft).map_err(|err| Failure::system(draft.display(), &err))?;
    if edited == text {
        let _ = fs::remove_file(&draft);
        return crate::print("not changed, not sent\n");
    }
    let name = draft.file_name().unwrap_or_default();
    fs::rename(&draft, dir.join("outbox").join(name)).map_err(|err| {
        let line = format!("{}: {err}; it is kept there", draft.display());
        Failure::new(Exit::MailData, line)
    })?;
    crate::print("queued\n")
}

/// Writes `text` to a new file in `drafts`: what is there under a like name is an answer that was not
/// sent yet, of a process that had our number before.
fn begin(drafts: &Path, how: &str, text: &[u8]) -> Result<PathBuf, Failure> {
    let mut number = u64::from(std::process::id());
    loop {
        let draft = drafts.join(format!("{how}-{number}"));
        let written = File::create_new(&draft).and_then(|mut file| file.write_all(text));
        match written {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(err) => return Err(Failure::system(draft.display(), &err)),
            Ok(()) => return Ok(draft),
        }
    }
}

/// `text` with these recipients in its `To`.
fn addressed(text: &[u8], to: &str) -> Vec<u8> {
    let mut lines = text.split_inclusive(|b| *b == b'\n');
    let mut written = format!("To: {to}\n").into_bytes();
    for line in lines.by_ref() {
        let is_to = line
            .get(..3)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"to:"));
        if !is_to {
            written.extend_from_slice(line);
        }
        if matches!(line, b"\n" | b"\r\n") {
            break;
        }
    }
    lines.for_each(|line| written.extend_from_slice(line));
    written
}

/// `$VISUAL` or `$EDITOR` may hold options, so a shell reads them, as all programs have it.
fn edit(draft: &Path) -> Result<(), Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".into());
    let mut script = OsString::from("exec ");
    script.push(&editor);
    script.push(" \"$1\"");
    let ended = Command::new("sh")
        .arg("-c")
        .arg(&script)
        .arg("sh")
        .arg(draft)
        .status();
    let shown = editor.to_string_lossy();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let line = format!("{shown}: {status}; the draft is {}", draft.display());
            Err(Failure::new(Exit::Failed, line))
        }
        Err(err) => Err(Failure::system(shown, &err)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_kept_is_not_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        let first = begin(temp.path(), "reply", b"kept").unwrap();
        let second = begin(temp.path(), "reply", b"new").unwrap();
        assert_eq!(fs::read(first).unwrap(), b"kept");
        assert_eq!(fs::read(second).unwrap(), b"new");
    }

    #[test]
    fn recipients_replace_those_of_the_template() {
        let text = b"To: \nSubject: Fwd: x\n\nTo: stays\n";
        let written = String::from_utf8(addressed(text, "a@x.org")).unwrap();
        assert_eq!(written, "To: a@x.org\nSubject: Fwd: x\n\nTo: stays\n");
    }
}
