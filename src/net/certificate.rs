//! What a certificate says of itself, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, X509Certificate};

/// The lines of a certificate that people ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Reads a certificate; `None` where that is not one.
#[must_use]
pub fn describe(der: &[u8]) -> Option<Description> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let plain = |text: String| -> String { text.chars().filter(|c| !c.is_control()).collect() };
    let seconds = certificate.validity().not_after.timestamp();
    Some(Description {
        subject: plain(certificate.subject().to_string()),
        issuer: plain(certificate.issuer().to_string()),
        not_after: UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    })
}
