//! Names: which ones a file may have, and whether it keeps them.

use super::Examination;
use super::files::below;
use crate::finding::Verdict;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

impl Examination<'_> {
    pub(super) fn names(&mut self, dir: &RemotePath) -> Result<()> {
        let longest = [b'x'; 255];
        let names: [(&str, &[u8]); 10] = [
            ("with a space", b"two words"),
            ("beginning with a space", b" leading"),
            ("ending with a space", b"trailing "),
            ("beginning with a dot", b".hidden"),
            ("beginning with a dash", b"-dash"),
            ("in UTF-8", "na\u{ef}ve \u{4f60}\u{597d}".as_bytes()),
            ("not in UTF-8", b"latin1-\xe4\xf6"),
            ("with ; and ->", b"a;b -> c"),
            ("with quotes and brackets", b"a\"b'[c]*?{d}"),
            ("of 255 bytes", &longest),
        ];
        for (what, name) in names {
            self.go_on()?;
            let outcome = self.keeps(dir, name);
            self.findings.tried("names", what, outcome);
        }
        let lower = self.server.stat(&below(dir, b"FILE")?);
        match lower {
            Ok(_) => self.findings.fact("names", "case", "does not matter"),
            Err(err) if err.kind() == ErrorKind::NotFound => {
                self.findings.fact("names", "case", "matters");
            }
            Err(err) => self
                .findings
                .add("names", "case", Verdict::Untried, err.to_string()),
        }
        if self.findings.verdict("in UTF-8") == Some(Verdict::No)
            && self.server.options().charset.is_none()
        {
            self.findings.advise(
                "charset=windows-1252",
                "names are not kept in UTF-8; use the charset the server has",
            );
        }
        Ok(())
    }

    /// Makes a file of that name, finds it in a listing, reads it, removes it.
    fn keeps(&self, dir: &RemotePath, name: &[u8]) -> Result<String> {
        let path = below(dir, name)?;
        self.write(&path, b"content")?;
        let wanted = Name::new(name)?;
        let listed = self.server.list(dir)?;
        let shown = listed.iter().any(|entry| entry.name == wanted);
        let read = self.read(&path, 0, 100)?;
        self.server.unlink(&path)?;
        if !shown {
            let detail = "it is made, but listed under another name or not at all";
            return Err(Error::new(ErrorKind::Protocol, detail));
        }
        if read != b"content" {
            return Err(Error::new(ErrorKind::Protocol, "it cannot be read back"));
        }
        Ok(String::new())
    }
}
