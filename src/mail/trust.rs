//! Which certificates a mail server may show. Nothing is ever accepted unseen.

use std::path::Path;
use std::sync::Arc;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::failure::{Class, Failure, Result};
use crate::sync::Locked;

/// The system's verifier, which also knows the certificates of `cafile=` themselves and remembers
/// what it refused. One in `cafile=` that is the server's own is trusted as it is: `openssl req
/// -x509` marks a self-signed one as a CA, which no verifier accepts from a server.
#[derive(Debug)]
pub(super) struct Trust {
    verifier: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    refused: Locked<Option<String>>,
}

impl Trust {
    /// The TLS configuration of every connection to one server.
    pub(super) fn config(ca_file: Option<&Path>) -> Result<(Arc<Self>, Arc<ClientConfig>)> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for err in &system.errors {
            log::debug!("system certificates: {err}");
        }
        roots.add_parsable_certificates(system.certs);
        let pinned = ca_file.map(read).transpose()?.unwrap_or_default();
        roots.add_parsable_certificates(pinned.iter().cloned());

        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|err| {
                    account(format!(
                        "no certificates to trust ({err}): give one with -o cafile=FILE"
                    ))
                })?;
        let trust = Arc::new(Self {
            verifier,
            pinned,
            refused: Locked::default(),
        });
        let checker: Arc<dyn ServerCertVerifier> = trust.clone();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|err| account(format!("TLS: {err}")))?
            .dangerous()
            .with_custom_certificate_verifier(checker)
            .with_no_client_auth();
        Ok((trust, Arc::new(config)))
    }

    /// The failure of a handshake with `host`: for a certificate, one line with all that is needed.
    pub(super) fn failure(&self, host: &str, err: &std::io::Error) -> Failure {
        match err.get_ref().and_then(|e| e.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                let fingerprint = self.refused.with(Option::take);
                account(format!(
                    "{host}: certificate refused: {}; its SHA-256 fingerprint is {}; if it is the \
                     right one, save it and mount with -o cafile=FILE",
                    explain(reason),
                    fingerprint.as_deref().unwrap_or("unknown"),
                ))
            }
            Some(tls) => Failure::new(Class::Protocol, format!("{host}: TLS: {tls}")),
            None => crate::net::failure(format_args!("{host}: TLS handshake"), err).into(),
        }
    }
}

fn account(detail: String) -> Failure {
    Failure::new(Class::Account, detail)
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unusable =
        |why: &dyn std::fmt::Display| account(format!("cafile {}: {why}", file.display()));
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|err| unusable(&err))?;
    if found.is_empty() {
        return Err(unusable(&"no certificate in it"));
    }
    Ok(found)
}

fn explain(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "its issuer is not known here".into(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is self-signed".into()
        }
        other => other.to_string(),
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    let bytes: Vec<_> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pin| pin == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        if verified.is_err() {
            self.refused
                .with(|refused| *refused = Some(fingerprint(end_entity)));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
