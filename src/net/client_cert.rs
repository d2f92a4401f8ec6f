//! Our own certificate, for servers that want to see one.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::secret::read_private;
use crate::vfs::error::{Error, ErrorKind, Result, words};

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// PEM: the certificate, then those that lead from it to an authority.
    pub cert: PathBuf,
    /// PEM: the key, not encrypted, closed to others. May be the same file.
    pub key: PathBuf,
}

impl ClientCert {
    /// Both, read and understood.
    pub(super) fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = certificates("cert", &self.cert)?;
        let unusable = |why: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Invalid,
                format!("key {}: {why}", self.key.display()),
            )
        };
        let text = read_private(&self.key).map_err(|err| unusable(&err))?;
        if text.contains("ENCRYPTED") {
            return Err(unusable(
                &"it is encrypted, which is not supported; make a copy with openssl pkey and keep \
                  it at mode 0600",
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| unusable(&"no private key in it"))?;
        Ok((chain, key))
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// `Invalid`, with the name of the option that named the file.
pub(super) fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unusable = |why: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::Invalid,
            format!("{option} {}: {why}", file.display()),
        )
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|err| match err {
            pem::Error::Io(err) => unusable(&words(&err)),
            err => unusable(&err),
        })?;
    if found.is_empty() {
        return Err(unusable(&"no certificate in it"));
    }
    Ok(found)
}
