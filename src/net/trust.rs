//! Which certificates are trusted, and with which TLS configuration connections speak. Nothing is
//! ever accepted unseen.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme, SupportedProtocolVersion, version,
};

use super::client_cert::{self, ClientCert};
use super::fingerprint::Fingerprint;
use super::known_hosts::{Known, KnownHosts};
use super::tickets::Tickets;
use crate::sync::Locked;
use crate::vfs::error::{Error, ErrorKind, Result};

/// What the user says of TLS and certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file of certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Only these certificates, and those whatever else is wrong with them; none: all that are
    /// otherwise trusted.
    pub fingerprints: Vec<Fingerprint>,
    /// What no authority vouches for is trusted when first seen, and put on record in this file.
    pub first_use: Option<PathBuf>,
    /// Our own certificate.
    pub client: Option<ClientCert>,
    /// The oldest version spoken.
    pub min: TlsVersion,
    /// The newest version spoken.
    pub max: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V12,
    /// RFC 8446.
    V13,
}

/// The roots: the system's and those of `cafile=`. Loaded once for a mount.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of `cafile=` themselves. One that is the server's own is trusted as it is,
    /// whatever its name: `openssl req -x509` marks a self-signed one as a CA, which no verifier
    /// accepts from a server.
    given: Vec<CertificateDer<'static>>,
    fingerprints: Vec<Fingerprint>,
    known: Option<KnownHosts>,
    /// What was vouched for last at `name:port`, since this began: from then on nothing there is
    /// trusted for being the first.
    vouched: Locked<HashMap<String, Fingerprint>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: (TlsVersion, TlsVersion),
}

impl TlsOptions {
    /// Looks whether the files that are named are what they should be.
    ///
    /// # Errors
    /// `Invalid`, with the name of the option.
    pub fn check(&self) -> Result<()> {
        if let Some(file) = &self.ca_file {
            client_cert::certificates("cafile", file)?;
        }
        self.client
            .as_ref()
            .map_or(Ok(()), |client| client.load().map(drop))
    }
}

impl Trust {
    /// Reads the files that `options` name, and the system's certificates.
    ///
    /// # Errors
    /// `Invalid` if a file cannot be read or holds nothing of use, or if nothing at all is trusted.
    pub fn load(options: &TlsOptions) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for err in &system.errors {
            log::debug!("system certificates: {err}");
        }
        roots.add_parsable_certificates(system.certs);
        let given = match &options.ca_file {
            Some(file) => client_cert::certificates("cafile", file)?,
            None => Vec::new(),
        };
        roots.add_parsable_certificates(given.iter().cloned());
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
        let trust = Self {
            provider,
            verifier,
            given,
            fingerprints: options.fingerprints.clone(),
            known: options.first_use.clone().map(KnownHosts::new),
            vouched: Locked::default(),
            client: options.client.as_ref().map(ClientCert::load).transpose()?,
            versions: (options.min, options.max.unwrap_or(TlsVersion::V13)),
        };
        Ok(trust)
    }

    /// Whether TLS 1.2 may be spoken.
    #[must_use]
    pub fn speaks_tls12(&self) -> bool {
        self.versions.0 == TlsVersion::V12
    }

    /// The configuration of one FTP session (its control connection and the data connections that
    /// resume it: servers tie the two together, so sessions never share tickets), or of the
    /// connections to one mail server. `tls12_only` where that is spoken at all.
    ///
    /// # Errors
    /// `Invalid` for a host that TLS cannot ask for, and for a key that does not fit its
    /// certificate.
    pub fn identity(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        tls12_only: bool,
    ) -> Result<TlsIdentity> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::new(
                ErrorKind::Invalid,
                format!("{host}: not a name TLS can ask for"),
            )
        })?;
        let tls13 = self.versions.1 == TlsVersion::V13 && !(tls12_only && self.speaks_tls12());
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        versions.extend(tls13.then_some(&version::TLS13));
        versions.extend(self.speaks_tls12().then_some(&version::TLS12));
        let bracketed = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{}:{port}", host.to_ascii_lowercase())
        };
        let checker = Arc::new(Checker {
            trust: Arc::clone(self),
            host: bracketed,
            seen: Locked::default(),
        });
        let tickets = Arc::new(Tickets::default());
        let verifier: Arc<dyn ServerCertVerifier> = checker.clone();
        let unusable = |err| Error::new(ErrorKind::Invalid, format!("TLS: {err}"));
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            Some((chain, key)) => config
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|err| {
                    Error::new(
                        ErrorKind::Invalid,
                        format!("-o cert and key: the key is not the certificate's ({err})"),
                    )
                })?,
            None => config.with_no_client_auth(),
        };
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

/// Why a certificate is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// An authority of the system or of `cafile=` vouches for it and for the name.
    Authority,
    /// It is in `cafile=` itself.
    Given,
    /// Its fingerprint was given.
    Pinned,
    /// It is the one that was trusted when it was first seen.
    FirstUse,
}

impl Basis {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Authority => "vouched for by an authority",
            Self::Given => "given in cafile",
            Self::Pinned => "fingerprint given",
            Self::FirstUse => "trusted when first seen",
        }
    }
}

/// A server's certificate as it was shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// Its SHA-256.
    pub fingerprint: Fingerprint,
    /// Why it is trusted; `None`: it is not.
    pub basis: Option<Basis>,
    /// To be put on record when the handshake has proven that the server has the key.
    is_new: bool,
    /// Why it is not trusted, where rustls does not know.
    refusal: Option<Error>,
}

/// What the TLS connections to one server have in common.
#[derive(Debug)]
pub struct TlsIdentity {
    /// The configuration of each connection.
    pub config: Arc<ClientConfig>,
    /// The name asked for, the same on control and data connections: tickets are kept by name.
    pub name: ServerName<'static>,
    checker: Arc<Checker>,
    tickets: Arc<Tickets>,
}

impl TlsIdentity {
    /// Whether the server gave TLS 1.3 tickets and all are used up, so that the next data
    /// connection could not resume. ProFTPD gives none on uploads and then refuses.
    #[must_use]
    pub fn is_out_of_tickets(&self) -> bool {
        self.tickets.are_used_up()
    }

    /// The certificate the server showed last; resumed sessions show none.
    #[must_use]
    pub fn shown(&self) -> Option<Shown> {
        self.checker.seen.with(|seen| seen.clone())
    }

    /// A handshake is done: a certificate that is trusted for being the first is put on record.
    ///
    /// # Errors
    /// `Untrusted` if another one is on record by now, or the record cannot be written.
    pub fn confirm(&self) -> Result<()> {
        let new = self.checker.seen.with(|seen| {
            let shown = seen.as_mut()?;
            std::mem::take(&mut shown.is_new).then_some(shown.fingerprint)
        });
        let (Some(print), Some(known)) = (new, &self.checker.trust.known) else {
            return Ok(());
        };
        let host = &self.checker.host;
        match known.record(host, print)? {
            Known::Nothing => {
                log::info!(
                    "{host}: certificate {print} trusted, being the first; it is on record in {}",
                    known.path().display()
                );
                Ok(())
            }
            Known::Same => Ok(()),
            Known::Other(other, line) => Err(changed(host, print, other, known, line)),
        }
    }

    /// The error of a handshake that failed: for a certificate one line with all that is needed.
    #[must_use]
    pub fn failure(&self, err: &std::io::Error) -> Error {
        let host = self.name.to_str();
        let seen = self.shown();
        match err.get_ref().and_then(|e| e.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                if let Some(refusal) = seen.as_ref().and_then(|seen| seen.refusal.clone()) {
                    return refusal;
                }
                let print = seen.map_or("unknown".to_owned(), |seen| seen.fingerprint.to_string());
                Error::new(
                    ErrorKind::Untrusted,
                    format!(
                        "{host}: certificate refused: {}; if {print} is the right one's \
                         fingerprint, mount with -o fingerprint={print}, or save the certificate \
                         and mount with -o cafile=FILE",
                        explain(reason),
                    ),
                )
            }
            // Broken on the way, by chance or on purpose: another connection may do better.
            Some(
                tls @ (rustls::Error::DecryptError
                | rustls::Error::AlertReceived(
                    AlertDescription::BadRecordMac
                    | AlertDescription::DecodeError
                    | AlertDescription::DecryptError,
                )),
            ) => Error::new(ErrorKind::Disconnected, format!("{host}: TLS: {tls}")),
            // Plain text, most often.
            Some(tls @ rustls::Error::InvalidMessage(_)) => Error::new(
                ErrorKind::Untrusted,
                format!("{host}: what answers does not speak TLS ({tls})"),
            ),
            Some(tls) => Error::new(
                ErrorKind::Untrusted,
                match refused_ours(err) {
                    Some(refusal) => format!("{host}: {refusal}"),
                    None => format!("{host}: TLS: {tls}"),
                },
            ),
            None => super::failure(format_args!("{host}: TLS handshake"), err),
        }
    }
}

/// What the server has against us, where it wants a certificate that we did not show or do not have.
/// In TLS 1.3 it says so after the handshake.
pub(super) fn refused_ours(err: &std::io::Error) -> Option<String> {
    use rustls::AlertDescription as Alert;
    let Some(rustls::Error::AlertReceived(alert)) = err.get_ref()?.downcast_ref() else {
        return None;
    };
    let said = match alert {
        Alert::CertificateRequired => "the server wants a certificate of yours".to_owned(),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => format!("the server refuses our certificate ({alert:?})"),
        // Of a server before TLS 1.3 that wants a certificate, among other things.
        Alert::HandshakeFailure => {
            "the server refuses the TLS handshake; it may want a certificate of yours".to_owned()
        }
        _ => return None,
    };
    Some(format!("{said}; give it with -o cert=FILE,key=FILE"))
}

/// Whether a failed handshake failed for the server's certificate, or since it speaks no TLS there.
#[must_use]
pub fn needs_the_user(err: &std::io::Error) -> bool {
    matches!(
        err.get_ref().and_then(|e| e.downcast_ref()),
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_))
    )
}

fn explain(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "its issuer is not known here".into(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is self-signed".into()
        }
        CertificateError::Expired => "it has expired".into(),
        other => other.to_string(),
    }
}

fn changed(
    host: &str,
    now: Fingerprint,
    was: Fingerprint,
    file: &KnownHosts,
    line: usize,
) -> Error {
    let file = file.path().display();
    Error::new(
        ErrorKind::Untrusted,
        format!(
            "{host}: the certificate has changed: it was {was} and is now {now}; somebody may be \
             listening in; if the change is right, remove line {line} of {file} ({host} {was})"
        ),
    )
}

/// The refusal of a certificate that nobody vouches for, where one was vouched for just before.
fn not_the_first(host: &str, now: Fingerprint, before: Fingerprint) -> Error {
    Error::new(
        ErrorKind::Untrusted,
        format!(
            "{host}: the certificate has changed: {before} was vouched for, and {now} is not; \
             somebody may be listening in; if the change is right, mount again"
        ),
    )
}

/// The system's verifier, which also knows what was given, and remembers what it saw.
#[derive(Debug)]
struct Checker {
    trust: Arc<Trust>,
    /// `name:port`, as it is on record.
    host: String,
    seen: Locked<Option<Shown>>,
}

impl Checker {
    /// Why `end_entity` is trusted, and whether it is to be put on record.
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        print: Fingerprint,
        verify: impl FnOnce() -> std::result::Result<ServerCertVerified, rustls::Error>,
    ) -> std::result::Result<(Basis, bool), (rustls::Error, Option<Error>)> {
        let trust = &self.trust;
        if !trust.fingerprints.is_empty() {
            if trust.fingerprints.contains(&print) {
                return Ok((Basis::Pinned, false));
            }
            let own = Error::new(
                ErrorKind::Untrusted,
                format!(
                    "{}: certificate refused: its fingerprint {print} is not the one of -o \
                     fingerprint",
                    self.host
                ),
            );
            let reason = CertificateError::ApplicationVerificationFailure;
            return Err((reason.into(), Some(own)));
        }
        let vouched = |basis| {
            let host = self.host.clone();
            trust.vouched.with(|vouched| vouched.insert(host, print));
            Ok((basis, false))
        };
        if trust.given.iter().any(|given| given == end_entity) {
            return vouched(Basis::Given);
        }
        let err = match verify() {
            Ok(_) => return vouched(Basis::Authority),
            Err(err) => err,
        };
        let Some(known) = trust.known.as_ref().filter(|_| may_be_first(&err)) else {
            return Err((err, None));
        };
        match known.look_up(&self.host, print) {
            Ok(Known::Same) => Ok((Basis::FirstUse, false)),
            Ok(Known::Nothing) => {
                let before = trust
                    .vouched
                    .with(|vouched| vouched.get(&self.host).copied());
                match before.filter(|before| *before != print) {
                    Some(before) => Err((err, Some(not_the_first(&self.host, print, before)))),
                    None => Ok((Basis::FirstUse, true)),
                }
            }
            Ok(Known::Other(was, line)) => {
                Err((err, Some(changed(&self.host, print, was, known, line))))
            }
            Err(own) => Err((err, Some(own))),
        }
    }
}

/// Whether a certificate may be trusted on first use though the verifier says this: it is unknown,
/// old or another's, but what it is.
fn may_be_first(err: &rustls::Error) -> bool {
    matches!(
        err,
        rustls::Error::InvalidCertificate(reason)
            if !matches!(
                reason,
                CertificateError::BadEncoding
                    | CertificateError::BadSignature
                    | CertificateError::Revoked
            )
    )
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
        let fingerprint = Fingerprint::of(end_entity);
        let judged = self.judge(end_entity, fingerprint, || {
            let verifier = &self.trust.verifier;
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        });
        let (basis, is_new, refusal, verdict) = match judged {
            Ok((basis, is_new)) => {
                let verified = ServerCertVerified::assertion();
                (Some(basis), is_new, None, Ok(verified))
            }
            Err((err, refusal)) => (None, false, refusal, Err(err)),
        };
        let shown = Shown {
            certificate: end_entity.clone().into_owned(),
            fingerprint,
            basis,
            is_new,
            refusal,
        };
        self.seen.with(|seen| *seen = Some(shown));
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let verifier = &self.trust.verifier;
        verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let verifier = &self.trust.verifier;
        verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.verifier.supported_verify_schemes()
    }
}
