//! Whose certificate is trusted, and whose is not: each refusal one line with all that is needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use ferryfs::ftp::options::{FtpOptions, Protection, TlsMode};
use ferryfs::ftp::pool::{Lease, Pool, Purpose};
use ferryfs::net::ClientCert;
use ferryfs::net::fingerprint::Fingerprint;
use ferryfs::net::trust::TlsVersion;
use ferryfs::vfs::error::{Error, ErrorKind};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

use super::server::Server;
use super::tls::{Habits, TlsServer, store};

/// An authority, and the directory with its certificate.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
struct Issued {
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Issued {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let der = certificate.der().clone();
        Issued { der, key }
    }
}

/// A server with this certificate; `of_clients`: the authority whose certificates it wants to see.
fn server(address: &str, issued: &Issued, of_clients: Option<&Authority>) -> TlsServer {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match of_clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der.clone()).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = config
        .with_single_cert(vec![issued.der.clone()], issued.key())
        .unwrap();
    let habits = Habits {
        tickets: 2,
        says_goodbye: true,
    };
    TlsServer::with(address, habits, config)
}

/// A session with `server`, which must be encrypted.
fn lease(server: &TlsServer, change: impl FnOnce(&mut FtpOptions)) -> Result<Lease, Error> {
    let mut options = Server::options_for(server.address);
    options.tls = TlsMode::Explicit;
    change(&mut options);
    Pool::new(options).lease(Purpose::Transfer, true)
}

/// Why there is none.
fn refused(server: &TlsServer, change: impl FnOnce(&mut FtpOptions)) -> String {
    let error = lease(server, change).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert_eq!(server.heard("USER"), 0, "a name was sent");
    assert!(!error.detail().contains('\n'), "{error}");
    error.detail().to_owned()
}

#[test]
fn old_strange_and_unknown_certificates_are_refused_until_they_are_pinned() {
    let authority = Authority::new();
    let cases: [(Issued, &str, bool); 3] = [
        (
            authority.issue("127.0.0.1", |p| p.not_after = date_time_ymd(2020, 1, 1)),
            "expired",
            true,
        ),
        (authority.issue("192.0.2.1", |_| {}), "not valid for", true),
        (authority.issue("127.0.0.1", |_| {}), "issuer", false),
    ];
    for (issued, words, known_issuer) in cases {
        let server = server("127.0.0.1:0", &issued, None);
        let ca = known_issuer.then(|| authority.path("ca.pem"));
        let line = refused(&server, |o| o.trust.ca_file = ca.clone());
        let print = issued.fingerprint();
        assert!(line.contains(words), "{line}");
        assert!(line.contains(&format!("-o fingerprint={print}")), "{line}");
        let other = Fingerprint::of(b"other");
        let line = refused(&server, |o| o.trust.fingerprints = vec![other]);
        assert!(line.contains(&print.to_string()), "{line}");
        let pinned = |o: &mut FtpOptions| o.trust.fingerprints = vec![other, print];
        assert_eq!(
            store(&mut lease(&server, pinned).unwrap()),
            "226 50000 bytes"
        );
    }
}

#[test]
fn a_pinned_fingerprint_is_all_that_counts() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1", |_| {});
    let server = server("127.0.0.1:0", &issued, None);
    let line = refused(&server, |o| {
        o.trust.ca_file = Some(authority.path("ca.pem"));
        o.trust.fingerprints = vec![Fingerprint::of(b"other")];
    });
    assert!(line.contains("-o fingerprint"), "{line}");
}

#[test]
fn trust_on_first_use_goes_on_record_and_ends_with_a_change() {
    let authority = Authority::new();
    let record = authority.path("state/known_hosts");
    let first_use = |o: &mut FtpOptions| o.trust.first_use = Some(record.clone());
    let (one, two) = (
        authority.issue("elsewhere.example", |_| {}),
        authority.issue("127.0.0.1", |_| {}),
    );
    let before = server("127.0.0.1:0", &one, None);
    for _ in 0..2 {
        assert_eq!(
            store(&mut lease(&before, first_use).unwrap()),
            "226 50000 bytes"
        );
        let line = format!("{} {}\n", before.address, one.fingerprint());
        assert_eq!(fs::read_to_string(&record).unwrap(), line);
    }
    assert_eq!(
        fs::metadata(&record).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // The same server with another certificate: the record is made as if it had been seen.
    let after = server("127.0.0.1:0", &two, None);
    let text = format!("# mine\n{} {}\n", after.address, one.fingerprint());
    fs::write(&record, &text).unwrap();
    let line = refused(&after, first_use);
    for part in [
        one.fingerprint().to_string(),
        two.fingerprint().to_string(),
        format!("line 2 of {}", record.display()),
    ] {
        assert!(line.contains(&part), "{line}");
    }
    assert_eq!(fs::read_to_string(&record).unwrap(), text);
    // What an authority vouches for needs no record.
    let vouched = lease(&after, |o| {
        first_use(o);
        o.trust.ca_file = Some(authority.path("ca.pem"));
    });
    assert!(vouched.is_ok());
    fs::write(&record, "").unwrap();
    assert!(lease(&after, first_use).is_ok());
}

#[test]
fn a_server_that_only_shows_a_certificate_is_not_put_on_record() {
    // It has the certificate of another, and not its key.
    let authority = Authority::new();
    let record = authority.path("known_hosts");
    let (shown, own) = (
        authority.issue("127.0.0.1", |_| {}),
        authority.issue("127.0.0.1", |_| {}),
    );
    let imposter = Issued {
        der: shown.der.clone(),
        key: own.key,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider
        .key_provider
        .load_private_key(imposter.key())
        .unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![imposter.der.clone()], key);
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let habits = Habits {
        tickets: 2,
        says_goodbye: true,
    };
    let server = TlsServer::with("127.0.0.1:0", habits, config);
    refused(&server, |o| o.trust.first_use = Some(record.clone()));
    assert!(!record.exists());
}

/// One certificate, and another from some moment on.
#[derive(Debug)]
struct Changing([Arc<rustls::sign::CertifiedKey>; 2], AtomicBool);

impl rustls::server::ResolvesServerCert for Changing {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0[usize::from(self.1.load(SeqCst))]))
    }
}

#[test]
fn where_a_certificate_was_vouched_for_none_is_trusted_for_being_the_first() {
    let authority = Authority::new();
    let record = authority.path("known_hosts");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = || {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "nobody");
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Issued { der, key }
    };
    let certified = [authority.issue("127.0.0.1", |_| {}), nobody()].map(|issued| {
        let key = provider.key_provider.load_private_key(issued.key());
        let chain = vec![issued.der.clone()];
        Arc::new(rustls::sign::CertifiedKey::new(chain, key.unwrap()))
    });
    let changing = Arc::new(Changing(certified, AtomicBool::new(false)));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&changing) as _);
    // When two tickets are used up, a data connection shows a certificate.
    let habits = Habits {
        tickets: 0,
        says_goodbye: true,
    };
    let server = TlsServer::with("127.0.0.1:0", habits, config);
    let mut options = Server::options_for(server.address);
    options.tls = TlsMode::Explicit;
    options.trust.ca_file = Some(authority.path("ca.pem"));
    options.trust.first_use = Some(record.clone());
    let pool = Pool::new(options);
    let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
    assert_eq!(store(&mut lease), "226 50000 bytes");
    assert_eq!(store(&mut lease), "226 50000 bytes");
    changing.1.store(true, SeqCst);
    // Neither on the data connection of that session, nor at the next login.
    let data = lease.begin_data(b"STOR x", 0).map(drop).unwrap_err();
    let control = pool.lease(Purpose::Metadata, true).map(drop).unwrap_err();
    for error in [data, control] {
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert!(error.detail().contains("was vouched for"), "{error}");
    }
    assert!(!record.exists());
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_client_certificate_is_shown_where_it_is_wanted() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1", |_| {});
    let ours = authority.issue("anna", |_| {});
    let server = server("127.0.0.1:0", &issued, Some(&authority));
    let (cert, key) = (authority.path("cert.pem"), authority.path("key.pem"));
    let pem = rcgen_pem(&ours.der);
    write(&cert, &pem, 0o644);
    let with = |o: &mut FtpOptions| {
        o.trust.ca_file = Some(authority.path("ca.pem"));
        o.trust.client = Some(ClientCert {
            cert: cert.clone(),
            key: key.clone(),
        });
    };
    let why = || lease(&server, with).map(drop).unwrap_err().to_string();
    write(&key, &ours.key.serialize_pem(), 0o644);
    assert!(why().contains("chmod 600"), "{}", why());
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    write(&key, encrypted, 0o600);
    assert!(why().contains("not supported"), "{}", why());
    write(&key, "nothing\n", 0o600);
    assert!(why().contains("no private key"), "{}", why());
    write(&key, &KeyPair::generate().unwrap().serialize_pem(), 0o600);
    assert!(why().contains("not the certificate's"), "{}", why());
    write(&key, &ours.key.serialize_pem(), 0o600);
    assert_eq!(store(&mut lease(&server, with).unwrap()), "226 50000 bytes");
    let without = |o: &mut FtpOptions| o.trust.ca_file = Some(authority.path("ca.pem"));
    for max in [TlsVersion::V12, TlsVersion::V13] {
        let error = lease(&server, |o| {
            without(o);
            o.trust.max = Some(max);
        });
        let error = error.map(drop).unwrap_err();
        assert!(error.detail().contains("-o cert=FILE"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Untrusted);
    }
}

fn rcgen_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn the_versions_asked_for_are_spoken() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1", |_| {});
    for (min, max, version) in [
        (TlsVersion::V12, Some(TlsVersion::V12), "TLSv1_2"),
        (TlsVersion::V13, None, "TLSv1_3"),
    ] {
        let server = server("127.0.0.1:0", &issued, None);
        let mut lease = lease(&server, |o| {
            o.trust.ca_file = Some(authority.path("ca.pem"));
            (o.trust.min, o.trust.max) = (min, max);
        })
        .unwrap();
        assert_eq!(store(&mut lease), "226 50000 bytes");
        assert_eq!((server.heard(version), server.heard("TLSv")), (1, 1));
    }
}

#[test]
fn tls_1_3_alone_works_with_a_server_that_gives_too_few_tickets() {
    let authority = Authority::new();
    let server = TlsServer::start(Habits {
        tickets: 0,
        says_goodbye: true,
    });
    let mut options = Server::options_for(server.address);
    options.tls = TlsMode::Explicit;
    options.trust.min = TlsVersion::V13;
    options.trust.first_use = Some(authority.path("known_hosts"));
    let pool = Pool::new(options);
    for _ in 0..6 {
        let mut lease = pool.lease(Purpose::Transfer, true).unwrap();
        assert_eq!(store(&mut lease), "226 50000 bytes");
    }
    assert_eq!(server.heard("TLSv1_2"), 0);
}

#[test]
fn data_connections_are_in_clear_where_that_is_asked_for_only() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1", |_| {});
    let server = server("127.0.0.1:0", &issued, None);
    let mut lease = lease(&server, |o| {
        o.trust.ca_file = Some(authority.path("ca.pem"));
        o.protection = Protection::Clear;
    })
    .unwrap();
    assert_eq!(store(&mut lease), "226 50000 bytes in clear");
    assert_eq!(server.heard("PROT C"), 1);
}
