//! A SOCKS5 and HTTP proxy for tests. It knows the host `server.invalid`, which no name server
//! does, as 127.0.0.1, and keeps a list of where it was asked to go.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The host that only the proxy can look up.
pub const HIDDEN: &str = "server.invalid";

/// A running proxy.
pub struct Proxy {
    pub address: SocketAddr,
    login: Option<(String, String)>,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// Lets in whoever gives this login, or everybody.
    pub fn start(login: Option<(&str, &str)>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&proxy);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = Arc::clone(&serving);
                thread::spawn(move || serving.serve(stream.unwrap()));
            }
        });
        proxy
    }

    /// `host:port` of every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut first = [0; 1];
        client.peek(&mut first)?;
        let server = if first == [5] {
            self.socks(&mut client)?
        } else {
            self.http(&mut client)?
        };
        let Some(server) = server else {
            return Ok(());
        };
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        let up = thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let (mut from, mut to) = (server, client);
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
        let _ = up.join();
        Ok(())
    }

    fn reach(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        self.asked.lock().unwrap().push(format!("{host}:{port}"));
        let host = if host == HIDDEN { "127.0.0.1" } else { host };
        let server = TcpStream::connect((host, port))?;
        server.set_nodelay(true)?;
        Ok(server)
    }

    fn socks(&self, client: &mut TcpStream) -> io::Result<Option<TcpStream>> {
        let [_, count] = take(client)?;
        let mut methods = vec![0; usize::from(count)];
        client.read_exact(&mut methods)?;
        let wanted = if self.login.is_some() { 2 } else { 0 };
        if !methods.contains(&wanted) {
            client.write_all(&[5, 0xFF])?;
            return Ok(None);
        }
        client.write_all(&[5, wanted])?;
        if let Some((user, password)) = &self.login {
            let [_, length] = take(client)?;
            let mut given_user = vec![0; usize::from(length)];
            client.read_exact(&mut given_user)?;
            let [length] = take(client)?;
            let mut given = vec![0; usize::from(length)];
            client.read_exact(&mut given)?;
            let right = given_user == user.as_bytes() && given == password.as_bytes();
            client.write_all(&[1, u8::from(!right)])?;
            if !right {
                return Ok(None);
            }
        }
        let [_, _, _, kind] = take(client)?;
        let host = match kind {
            1 => std::net::Ipv4Addr::from(take::<4>(client)?).to_string(),
            3 => {
                let [length] = take(client)?;
                let mut name = vec![0; usize::from(length)];
                client.read_exact(&mut name)?;
                String::from_utf8(name).unwrap()
            }
            _ => return Ok(None),
        };
        let port = u16::from_be_bytes(take(client)?);
        match self.reach(&host, port) {
            Ok(server) => {
                // With a name in it, as long as names may be.
                client.write_all(&[5, 0, 0, 3, 3, b'a', b'.', b'b', 0, 9])?;
                Ok(Some(server))
            }
            Err(_) => {
                client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0])?;
                Ok(None)
            }
        }
    }

    fn http(&self, client: &mut TcpStream) -> io::Result<Option<TcpStream>> {
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") {
            header.extend_from_slice(&take::<1>(client)?);
        }
        let header = String::from_utf8(header).unwrap();
        if let Some((user, password)) = &self.login {
            let right = BASE64_STANDARD.encode(format!("{user}:{password}"));
            if !header.contains(&format!("Proxy-Authorization: Basic {right}\r\n")) {
                client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
                return Ok(None);
            }
        }
        let target = header.split(' ').nth(1).unwrap();
        let (host, port) = target.rsplit_once(':').unwrap();
        match self.reach(host, port.parse().unwrap()) {
            Ok(server) => {
                client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")?;
                Ok(Some(server))
            }
            Err(_) => {
                client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\nsorry")?;
                Ok(None)
            }
        }
    }
}

fn take<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
