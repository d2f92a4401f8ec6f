//! `--help`: one screen.

use std::fmt::Write as _;

use crate::config::options::OPTIONS;

const HEAD: &str = "\
Mounts FTP servers and mailboxes as directories.

Usage: ferryfs [mount] URL|NAME DIR [-f] [-d] [-v] [-r] [-o OPTION,...]
       ferryfs umount DIR [--lazy] [--timeout DURATION]
       ferryfs status [DIR] [--json|--watch]
       ferryfs flush DIR [--timeout DURATION]
       ferryfs sendmail [OPTION...] [ADDRESS...]
       ferryfs mail list|read|reply|forward|wait ...
       ferryfs doctor URL|NAME [--json] [-o OPTION,...]
       ferryfs completions bash|zsh|fish

URL is ftp://[user@]host[:port]/directory, ftps:// or ftpes:// for TLS, or a
mailbox, pop3s://user@host/; NAME is a mount of ~/.config/ferryfs/config.toml.

  -f  stay in the foreground     -d  show the conversation with the server
  -r  mount read-only            -v  say more (-vv: yet more)
  -o  options, separated by commas:
";

const TAIL: &str = "man ferryfs has them all, with examples for fstab and systemd.\n";

/// The widest line of a terminal nobody has made wider.
const COLUMNS: usize = 80;

/// The whole of it: the options with a help line explained, the others named.
pub(super) fn text() -> String {
    let mut text = HEAD.to_owned();
    for spec in OPTIONS {
        if let Some(help) = spec.help {
            let _ = writeln!(text, "    {:<26}{help}", spec.syntax());
        }
    }
    text.push_str("  and");
    let mut column = 5;
    for spec in OPTIONS.iter().filter(|spec| spec.help.is_none()) {
        if column + 1 + spec.name.len() > COLUMNS {
            text.push_str("\n     ");
            column = 5;
        }
        let _ = write!(text, " {}", spec.name);
        column += 1 + spec.name.len();
    }
    text.push('\n');
    text + TAIL
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_a_screen() {
        let text = text();
        assert!(text.lines().count() <= 48, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }
}
