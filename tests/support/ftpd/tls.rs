//! TLS for the scripted server: a relay in the same process ends it, so that everything else may
//! go on with plain sockets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// The certificate of scripted servers, self-signed, for 127.0.0.1: what `cafile=` is given.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ftp_session/cert.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ftp_session/key.pem");

/// TLS 1.2 and 1.3, with tickets.
pub fn config() -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_file(KEY).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

/// Makes the handshake on `tcp`, and returns a socket with what is inside.
pub fn accept(mut tcp: TcpStream, config: &Arc<ServerConfig>) -> io::Result<TcpStream> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        if tls.complete_io(&mut tcp)?.0 == 0 && tls.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    tcp.set_read_timeout(None)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let inner = TcpStream::connect(listener.local_addr()?)?;
    let outer = listener.accept()?.0;
    outer.set_nodelay(true)?;
    inner.set_nodelay(true)?;
    let tls = Arc::new(Mutex::new(tls));
    let (up, down) = ((tcp.try_clone()?, outer.try_clone()?), (outer, tcp));
    let shared = Arc::clone(&tls);
    thread::spawn(move || {
        let (mut from, mut to) = up;
        let _ = decrypt(&shared, &mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let (mut from, mut to) = down;
        let _ = encrypt(&tls, &mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    Ok(inner)
}

type Tls = Mutex<ServerConnection>;

/// From the client: what is read ends with close_notify, or with the connection.
fn decrypt(tls: &Tls, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let mut plain = Vec::new();
        // What came together with the handshake is inside already.
        let over = tls.lock().unwrap().reader().read_to_end(&mut plain).is_ok();
        to.write_all(&plain)?;
        if over {
            return Ok(());
        }
        let got = from.read(&mut bytes)?;
        if got == 0 {
            return Ok(());
        }
        let mut rest = &bytes[..got];
        let mut tls = tls.lock().unwrap();
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

/// To the client, with close_notify at the end.
fn encrypt(tls: &Tls, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let got = from.read(&mut bytes)?;
        let mut sealed = Vec::new();
        {
            let mut tls = tls.lock().unwrap();
            if got == 0 {
                tls.send_close_notify();
            } else {
                tls.writer().write_all(&bytes[..got])?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut sealed)?;
            }
        }
        to.write_all(&sealed)?;
        if got == 0 {
            return Ok(());
        }
    }
}
