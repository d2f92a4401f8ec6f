//! A mount through a proxy: the name of the server is the proxy's to look up, the password is the
//! proxy's only, and what goes wrong is said with the proxy's name.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use ferryfs::mail::connect::{Connector, Endpoint, Security};
use ferryfs::net::proxy::Protocol;
use ferryfs::secret::Secret;

use super::bytes;
use crate::support::ftpd::{Ftpd, Quirks};
use crate::support::mount::{Mounting, Place};
use crate::support::proxy::{HIDDEN, Proxy};

const PASSWORD: &str = "s3cret:of the proxy";

fn password_file(place: &Place) -> String {
    let path = place.path("proxy-password");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600);
    std::io::Write::write_all(&mut file.open(&path).unwrap(), PASSWORD.as_bytes()).unwrap();
    path.display().to_string()
}

/// Reads, writes and lists through a proxy that speaks `scheme`.
fn works_through(scheme: &str, quirks: Quirks) {
    let server = Ftpd::with(quirks);
    let proxy = Proxy::start(Some(("me", PASSWORD)));
    let place = Place::new();
    let url = format!("ftp://{HIDDEN}:{}/", server.address().port());
    let Some(mount) = Mounting::of(url)
        .option("timeout=5s")
        .option(format!("proxy={scheme}://me@{}", proxy.address))
        .option(format!("proxy_password_file={}", password_file(&place)))
        .start()
    else {
        return;
    };
    server.put("a/there", "there");
    assert_eq!(fs::read(mount.path("a/there")).unwrap(), b"there");
    let big = bytes(300_000);
    fs::write(mount.path("big"), &big).unwrap();
    assert_eq!(server.get("big"), big);
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 2);
    let asked = proxy.asked();
    assert!(asked.len() >= 3, "{asked:?}");
    for target in &asked {
        assert!(target.starts_with(HIDDEN), "{target}");
    }
    mount.finish();
}

#[test]
fn socks5() {
    works_through("socks5", Quirks::default());
}

#[test]
fn http_connect() {
    works_through("http", Quirks::default());
}

#[test]
fn a_server_without_epsv_is_reached_by_the_port_of_pasv() {
    works_through("socks5", Quirks::default().without(&["EPSV"]));
}

/// What `ferryfs` says where it cannot mount through `proxy`.
fn refusal(proxy: &str, url: &str) -> String {
    let place = Place::new();
    let output = place
        .command()
        .args(["-f", url])
        .arg(place.mountpoint())
        .args(["-o", &format!("timeout=2s,proxy={proxy}")])
        .args(if proxy.contains('@') {
            vec![
                "-o".to_owned(),
                format!("proxy_password_file={}", password_file(&place)),
            ]
        } else {
            Vec::new()
        })
        .output()
        .unwrap();
    assert!(!output.status.success());
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(!line.contains(PASSWORD), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn what_goes_wrong_is_told() {
    let server = Ftpd::start();
    let port = server.address().port();
    let url = format!("ftp://{HIDDEN}:{port}/");
    let (open, shut) = (Proxy::start(None), Proxy::start(Some(("me", "other"))));
    // Nothing listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent
        .local_addr()
        .map(|address| (address, silent))
        .unwrap();
    for scheme in ["socks5", "http"] {
        let line = refusal(&format!("{scheme}://me@{}", shut.address), &url);
        assert!(line.contains("login as me refused"), "{line}");
        let line = refusal(&format!("{scheme}://{}", shut.address), &url);
        assert!(line.contains("wants a login"), "{line}");
        let line = refusal(&format!("{scheme}://{dead}"), &url);
        assert!(
            line.contains("proxy 127.0.0.1") && line.contains("refused"),
            "{line}"
        );
        let line = refusal(&format!("{scheme}://{}", silent.0), &url);
        assert!(line.contains("no answer in time"), "{line}");
        // An FTP server is no proxy.
        let line = refusal(&format!("{scheme}://127.0.0.1:{port}"), &url);
        assert!(line.contains("not a") && line.contains("proxy"), "{line}");
        let line = refusal(
            &format!("{scheme}://{}", open.address),
            "ftp://127.0.0.1:1/",
        );
        assert!(line.contains("127.0.0.1:1"), "{line}");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_unquoted() {
    let line = refusal("socks5://me:hunter2@127.0.0.1", "ftp://127.0.0.1/");
    assert!(
        line.contains("proxy_password_file") && !line.contains("hunter2"),
        "{line}"
    );
}

#[test]
fn mail_goes_through_it_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"+OK\r\n").unwrap();
    });
    let proxy = Proxy::start(None);
    let connector = Connector::new(Endpoint {
        host: HIDDEN.into(),
        port,
        security: Security::Off,
        trust: Box::default(),
        proxy: Some(ferryfs::net::proxy::Proxy {
            protocol: Protocol::Socks5,
            host: "127.0.0.1".into(),
            port: proxy.address.port(),
            user: None,
            password: Secret::new(""),
        }),
        timeout: std::time::Duration::from_secs(5),
        bind: None,
    })
    .unwrap();
    let mut greeting = [0; 5];
    connector
        .connect()
        .unwrap()
        .read_exact(&mut greeting)
        .unwrap();
    assert_eq!(&greeting, b"+OK\r\n");
    assert_eq!(proxy.asked(), [format!("{HIDDEN}:{port}")]);
}
