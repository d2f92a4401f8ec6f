//! What FEAT (RFC 2389 section 3) says that a server can.

use super::reply::Reply;

/// The features of one server. One that is not named may still be there (servers without FEAT);
/// one that is named may still answer 502.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    answered: bool,
    lines: Vec<String>,
}

impl Features {
    /// Reads the reply to FEAT; anything but 2xx means that the server would not tell.
    #[must_use]
    pub fn parse(reply: &Reply) -> Self {
        if !reply.is_ok() {
            return Self::default();
        }
        // One space of indentation is the rule; none, several and a tab exist, and the `211-` that
        // some put before every line is cut off already.
        let lines = reply
            .body()
            .iter()
            .map(|line| String::from_utf8_lossy(line).trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        Self {
            answered: true,
            lines,
        }
    }

    /// Whether the server answered FEAT, so that what it does not name is worth no try.
    #[must_use]
    pub const fn answered(&self) -> bool {
        self.answered
    }

    /// Whether `name` is a feature: `MLST`, `MFMT`, `AVBL`, or with its parameter `SITE SYMLINK`,
    /// `REST STREAM`. Case does not matter.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.parameters(name).is_some()
    }

    /// What follows `name` on its line, e.g. `type*;size*;` for `MLST`; empty if nothing does.
    #[must_use]
    pub fn parameters(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (head, rest) = line.split_at_checked(name.len())?;
            let whole = rest.is_empty() || rest.starts_with([' ', '\t']);
            (whole && head.eq_ignore_ascii_case(name)).then(|| rest.trim_start())
        })
    }

    /// The lines as the server wrote them, trimmed.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What to send so that MLSx replies have all facts of `wanted` that the server has: OPTS MLST
    /// (RFC 3659 section 7.9). `None` where they are on already.
    ///
    /// The facts are named without the asterisks of FEAT: with them ProFTPD and pyftpdlib turn
    /// every fact off.
    #[must_use]
    pub fn opts_mlst(&self, wanted: &[&str]) -> Option<String> {
        let mut names = String::new();
        let mut all_on = true;
        for fact in self.parameters("MLST")?.split(';').map(str::trim) {
            let name = fact.trim_end_matches('*');
            if wanted.iter().any(|w| w.eq_ignore_ascii_case(name)) {
                all_on &= name.len() < fact.len();
                names.push_str(name);
                names.push(';');
            }
        }
        (!all_on).then(|| format!("OPTS MLST {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    const PROFTPD: &[u8] = b"211-Features:\r\n AUTH TLS\r\n CCC\r\n EPRT\r\n MFMT\r\n \
        MLST modify*;perm*;size*;type*;unique*;UNIX.group*;UNIX.mode*;UNIX.owner*;\r\n \
        REST STREAM\r\n SITE MKDIR\r\n SITE SYMLINK\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End\r\n";

    #[test]
    fn names_and_parameters() {
        let features = Features::parse(&reply(PROFTPD));
        assert!(features.answered());
        for name in [
            "MFMT",
            "mfmt",
            "AUTH TLS",
            "SITE SYMLINK",
            "REST",
            "REST STREAM",
        ] {
            assert!(features.has(name), "{name}");
        }
        for name in ["MFM", "SITE UTIME", "REST STR", "EPSV", "", "\u{fc}"] {
            assert!(!features.has(name), "{name}");
        }
        assert_eq!(features.parameters("REST"), Some("STREAM"));
    }

    #[test]
    fn odd_layouts() {
        let odd = b"211-ok\r\n211-mdtm\r\n\tSIZE\r\nREST  STREAM\r\n\r\n211 end\r\n";
        let features = Features::parse(&reply(odd));
        assert!(features.has("MDTM") && features.has("SIZE"));
        assert_eq!(features.parameters("REST"), Some("STREAM"));
    }

    #[test]
    fn no_feat_is_not_no_features() {
        let features = Features::parse(&reply(b"500 Unknown\r\n"));
        assert!(!features.answered() && !features.has("SIZE"));
        assert!(Features::parse(&reply(b"211 none\r\n")).answered());
    }

    #[test]
    fn only_facts_that_are_off_are_asked_for() {
        let wanted = ["type", "size", "unix.mode"];
        let features = |mlst: &str| {
            Features::parse(&reply(
                format!("211-x\r\n MLST {mlst}\r\n211 y\r\n").as_bytes(),
            ))
        };
        assert_eq!(
            features("Type*;Size*;UNIX.mode*;lang;").opts_mlst(&wanted),
            None
        );
        assert_eq!(
            features("type*;perm*;size*;unix.mode;")
                .opts_mlst(&wanted)
                .as_deref(),
            Some("OPTS MLST type;size;unix.mode;")
        );
        assert_eq!(Features::default().opts_mlst(&wanted), None);
    }
}
