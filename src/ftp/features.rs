//! What FEAT (RFC 2389 section 3) says that a server can.

use super::reply::Reply;

/// The features of one server. A feature that is not named may still be there (servers without
/// FEAT); one that is named may still answer 502.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Whether the server answered FEAT at all.
    pub answered: bool,
    lines: Vec<String>,
}

impl Features {
    /// Reads a reply to FEAT; anything but 211 is "not answered".
    #[must_use]
    pub fn parse(reply: &Reply) -> Self {
        let _ = reply;
        Self::default()
    }

    /// Whether `name` is a feature: `MLST`, `MFMT`, `REST`, `SIZE`, `AVBL`, or with its parameter
    /// `SITE SYMLINK`. Case does not matter.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.parameters(name).is_some()
    }

    /// What follows `name` on its line, e.g. `type*;size*;` for `MLST`; empty if nothing does.
    #[must_use]
    pub fn parameters(&self, name: &str) -> Option<&str> {
        let _ = name;
        None
    }

    /// The lines as the server wrote them, trimmed.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
