//! Passwords: kept out of `Debug`, logs and argv.

use std::fmt;

mod netrc;
mod private_file;
pub(crate) mod source;

pub use private_file::read_private;

/// See `fuzzing`: a `.netrc` of these bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_netrc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = netrc::find(&text, "h", "u");
}

/// A password or token. Never printed: `Debug` shows stars, there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes what was read from a file, a command, a prompt.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into_boxed_str())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub const fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}
