//! Which certificates are trusted, and with which TLS configuration a session speaks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore,
    SignatureScheme, version,
};

use crate::sync::Locked;
use crate::vfs::error::{Error, ErrorKind, Result};

/// The roots: the system's and those of `cafile=`. Loaded once for a mount.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of `cafile=` themselves. One that is the server's own is trusted as it is,
    /// whatever its name: `openssl req -x509` marks a self-signed one as a CA, which no verifier
    /// accepts from a server.
    pinned: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// # Errors
    /// `Invalid` if `ca_file` cannot be read or has no certificate in it, or if nothing at all is
    /// trusted.
    pub(super) fn load(ca_file: Option<&Path>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for err in &system.errors {
            log::debug!("system certificates: {err}");
        }
        roots.add_parsable_certificates(system.certs);
        let mut pinned = Vec::new();
        if let Some(file) = ca_file {
            let unusable = |why: &dyn std::fmt::Display| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("cafile {}: {why}", file.display()),
                )
            };
            let found = CertificateDer::pem_file_iter(file).map_err(|err| unusable(&err))?;
            for certificate in found {
                pinned.push(certificate.map_err(|err| unusable(&err))?);
            }
            if pinned.is_empty() {
                return Err(unusable(&"no certificate in it"));
            }
            roots.add_parsable_certificates(pinned.iter().cloned());
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|err| {
                    Error::new(
                        ErrorKind::Invalid,
                        format!("no certificates to trust ({err}): give one with -o cafile=FILE"),
                    )
                })?;
        Ok(Self {
            provider,
            verifier,
            pinned,
        })
    }

    /// The configuration of one session: its control connection and the data connections that
    /// resume it. Servers tie the two together, so sessions never share tickets.
    pub(super) fn session(self: &Arc<Self>, host: &str, tls12_only: bool) -> Result<TlsIdentity> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::new(
                ErrorKind::Invalid,
                format!("{host}: not a name TLS can ask for"),
            )
        })?;
        let versions: &[_] = if tls12_only {
            &[&version::TLS12]
        } else {
            &[&version::TLS13, &version::TLS12]
        };
        let checker = Arc::new(Checker {
            trust: Arc::clone(self),
            refused: Locked::default(),
        });
        let tickets = Arc::new(Tickets::default());
        let verifier: Arc<dyn ServerCertVerifier> = checker.clone();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|err| Error::new(ErrorKind::Unsupported, format!("TLS: {err}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let store: Arc<dyn ClientSessionStore> = tickets.clone();
        config.resumption = Resumption::store(store);
        Ok(TlsIdentity {
            config: Arc::new(config),
            name,
            checker,
            tickets,
        })
    }
}

/// What the TLS connections of one session have in common.
#[derive(Debug)]
pub(super) struct TlsIdentity {
    pub(super) config: Arc<ClientConfig>,
    /// The same for control and data: tickets are kept by name.
    pub(super) name: ServerName<'static>,
    checker: Arc<Checker>,
    tickets: Arc<Tickets>,
}

impl TlsIdentity {
    /// Whether the server gave TLS 1.3 tickets and all are used up, so that the next data
    /// connection could not resume. ProFTPD gives none on uploads and then refuses.
    pub(super) fn is_out_of_tickets(&self) -> bool {
        self.tickets.given.load(Ordering::Relaxed) && self.tickets.left.load(Ordering::Relaxed) == 0
    }

    /// The error of a handshake that failed: for a certificate one line with all that is needed.
    pub(super) fn failure(&self, err: &std::io::Error) -> Error {
        let host = self.name.to_str();
        match err.get_ref().and_then(|e| e.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                let fingerprint = self.checker.refused.with(|refused| refused.clone());
                Error::new(
                    ErrorKind::Untrusted,
                    format!(
                        "{host}: certificate refused: {}; its SHA-256 fingerprint is {}; if it is \
                         the right one, save it and mount with -o cafile=FILE",
                        explain(reason),
                        fingerprint.as_deref().unwrap_or("unknown"),
                    ),
                )
            }
            Some(tls) => Error::new(ErrorKind::Untrusted, format!("{host}: TLS: {tls}")),
            None => crate::net::failure(format_args!("{host}: TLS handshake"), err),
        }
    }
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

/// The system's verifier, which also knows pinned certificates and remembers what it refused.
#[derive(Debug)]
struct Checker {
    trust: Arc<Trust>,
    /// SHA-256 of the refused certificate, as `openssl x509 -fingerprint -sha256` prints it.
    refused: Locked<Option<String>>,
}

impl ServerCertVerifier for Checker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.trust.pinned.iter().any(|pin| pin == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.trust.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        if verified.is_err() {
            self.refused
                .with(|refused| *refused = fingerprint(end_entity));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.trust
            .verifier
            .verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.trust
            .verifier
            .verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.verifier.supported_verify_schemes()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Option<String> {
    let sha256 = ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()?
        .common
        .hash_provider;
    let digest = sha256.hash(certificate);
    let bytes: Vec<_> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    Some(bytes.join(":"))
}

/// rustls' own store, counted: a TLS 1.3 ticket is good for one connection only.
#[derive(Debug)]
struct Tickets {
    store: ClientSessionMemoryCache,
    given: AtomicBool,
    left: AtomicUsize,
}

/// As many tickets as [`ClientSessionMemoryCache`] keeps for a name.
const TICKETS_KEPT: usize = 8;

impl Default for Tickets {
    fn default() -> Self {
        Self {
            store: ClientSessionMemoryCache::new(1),
            given: AtomicBool::new(false),
            left: AtomicUsize::new(0),
        }
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.store.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.store.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.store.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.store.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.store.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.given.store(true, Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed);
        self.left
            .store((left + 1).min(TICKETS_KEPT), Ordering::Relaxed);
        self.store.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        let ticket = self.store.take_tls13_ticket(server_name)?;
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        Some(ticket)
    }
}
