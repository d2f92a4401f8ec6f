//! Parses what is mounted: `ftp://user@host:port/directory`, `pop3s://user@host/`; and the server
//! that mail is sent through: `smtps://user@host`.
//!
//! No error quotes the URL: it may hold a password, even where it does not look like one.

use std::fmt::Write as _;

use crate::ftp::options::TlsMode;
use crate::mail::connect::Security;
use crate::net::proxy::{Protocol, Proxy};
use crate::secret::Secret;

/// What a URL's scheme says: the protocol and its TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `ftp`, `ftps`, `ftpes`.
    Ftp(TlsMode),
    /// `pop3`, `pop3s`.
    Pop3(Security),
    /// `smtp`, `smtps`.
    Smtp(Security),
}

impl Scheme {
    /// The scheme, and its port.
    const fn spelling(self) -> (&'static str, u16) {
        match self {
            Self::Ftp(TlsMode::Implicit) => ("ftps", 990),
            Self::Ftp(TlsMode::Explicit) => ("ftpes", 21),
            Self::Ftp(TlsMode::Auto | TlsMode::Off) => ("ftp", 21),
            Self::Pop3(Security::Implicit) => ("pop3s", 995),
            Self::Pop3(Security::Upgrade | Security::Off) => ("pop3", 110),
            Self::Smtp(Security::Implicit) => ("smtps", 465),
            Self::Smtp(Security::Upgrade | Security::Off) => ("smtp", 587),
        }
    }
}

/// A URL of a server, checked and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// What the scheme says.
    pub(crate) scheme: Scheme,
    /// User name; `None` means anonymous.
    pub(crate) user: Option<String>,
    /// Name or address; an IPv6 address without its brackets.
    pub(crate) host: String,
    /// The port named, or the scheme's own.
    pub(crate) port: u16,
    /// As [`FtpOptions::directory`](crate::ftp::options::FtpOptions::directory).
    pub(crate) directory: Vec<u8>,
}

/// Whether `source` is meant to be a URL and not the name of a mount.
pub(crate) fn looks_like_url(source: &str) -> bool {
    source.contains("://")
}

impl ServerUrl {
    /// Parses `text`.
    ///
    /// # Errors
    /// One line, `cause; remedy`, that quotes nothing a secret could be in.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("not a URL; write ftp://host/directory")?;
        let scheme = scheme_of(scheme)?;
        let place = Place::parse(rest)?;
        Ok(Self {
            scheme,
            user: place.user,
            host: place.host,
            port: place.port.unwrap_or(scheme.spelling().1),
            directory: directory(place.path)?,
        })
    }

    /// The URL in one spelling, with `user` in it unless that is `None`; safe to show, and without a
    /// comma, so that it can be a mount option.
    pub(crate) fn shown(&self, user: Option<&str>) -> String {
        let (scheme, default_port) = self.scheme.spelling();
        let mut shown = format!("{scheme}://");
        if let Some(user) = user {
            encode(user.as_bytes(), b"/:@,", &mut shown);
            shown.push('@');
        }
        if self.host.contains(':') {
            shown.push('[');
            encode(self.host.as_bytes(), b"", &mut shown);
            shown.push(']');
        } else {
            shown.push_str(&self.host);
        }
        if self.port != default_port {
            let _ = write!(shown, ":{}", self.port);
        }
        shown.push('/');
        if let Some(below_root) = self.directory.strip_prefix(b"/") {
            shown.push_str("%2F");
            encode(below_root, b",@", &mut shown);
        } else {
            // An '@' behind a port would pass for the end of a password.
            encode(&self.directory, b",@", &mut shown);
        }
        shown
    }
}

/// What follows the scheme.
struct Place<'a> {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn parse(rest: &'a str) -> Result<Self, String> {
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        // A password may hold '/', '?' or '#', and then '@' comes after what was taken for the end
        // of the authority.
        let cut_short = login.is_none() && bad_port(place) && path.contains('@');
        if login.is_some_and(|login| login.contains(':')) || cut_short {
            return Err(PASSWORD_IN_URL.to_owned());
        }
        let user = match login {
            None | Some("") => None,
            Some(login) => Some(user_name(&decode(login)?)?),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self {
            user,
            host,
            port,
            path,
        })
    }
}

/// The URL of a proxy; its password comes later.
///
/// # Errors
/// As [`ServerUrl::parse`].
pub(super) fn proxy(text: &str) -> Result<Proxy, String> {
    let syntax = "write socks5://host:1080 or http://host:3128, with USER@ before the host where \
                  the proxy wants a login";
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| format!("not a URL; {syntax}"))?;
    let (protocol, usual) = match scheme.to_ascii_lowercase().as_str() {
        // curl's word for names that the proxy looks up, as ours does always.
        "socks5" | "socks5h" => (Protocol::Socks5, 1080),
        "http" => (Protocol::Http, 3128),
        _ => return Err(format!("the scheme is neither socks5 nor http; {syntax}")),
    };
    let place = Place::parse(rest).map_err(|cause| match cause.as_str() {
        PASSWORD_IN_URL => "a password in the URL is refused, everyone on this machine could see \
                            it; use -o proxy_password_file=FILE"
            .to_owned(),
        _ => cause,
    })?;
    if !matches!(place.path, "" | "/") {
        return Err(format!("a proxy has no directory; {syntax}"));
    }
    Ok(Proxy {
        protocol,
        host: place.host,
        port: place.port.unwrap_or(usual),
        user: place.user,
        password: Secret::new(""),
    })
}

/// The remedy is in the line, the password is not.
const PASSWORD_IN_URL: &str = "a password in the URL is refused, everyone on this machine could \
    see it; leave it out and type it when asked, or put it into ~/.netrc, or use \
    -o password_file=FILE or -o password_command=COMMAND";

fn scheme_of(scheme: &str) -> Result<Scheme, String> {
    match scheme.to_ascii_lowercase().as_str() {
        "ftp" => Ok(Scheme::Ftp(TlsMode::Auto)),
        "ftpes" => Ok(Scheme::Ftp(TlsMode::Explicit)),
        "ftps" => Ok(Scheme::Ftp(TlsMode::Implicit)),
        "pop3" => Ok(Scheme::Pop3(Security::Upgrade)),
        "pop3s" => Ok(Scheme::Pop3(Security::Implicit)),
        "smtp" => Ok(Scheme::Smtp(Security::Upgrade)),
        "smtps" => Ok(Scheme::Smtp(Security::Implicit)),
        "sftp" => Err("sftp is ssh, not FTP; use sshfs".to_owned()),
        _ => Err(
            "the scheme is not one of ftp, ftps (TLS from the start, port 990), ftpes \
                  (AUTH TLS), pop3 and pop3s; write ftp://host/directory"
                .to_owned(),
        ),
    }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = if let Some(literal) = place.strip_prefix('[') {
        let (host, after) = literal
            .split_once(']')
            .ok_or("the IPv6 address has no closing bracket; write ftp://[::1]:21/")?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err("something follows the bracket; write ftp://[::1]:21/".to_owned()),
        };
        (ipv6_literal(host)?, port)
    } else {
        if place.matches(':').count() > 1 {
            return Err("an IPv6 address wants brackets; write ftp://[::1]:21/".to_owned());
        }
        let (host, port) = match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        (host_name(host)?, port)
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) => match number(port) {
            Some(port) => Ok((host, Some(port))),
            None => Err("the port is not a number from 1 to 65535".to_owned()),
        },
    }
}

fn bad_port(place: &str) -> bool {
    let port = place.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && number(port).is_none())
}

fn number(port: &str) -> Option<u16> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port != 0)
}

fn host_name(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("no host; write ftp://host/directory".to_owned());
    }
    if !host.is_ascii() {
        return Err("the host name is not ASCII; write its xn-- form".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.len() > 253 || host.starts_with(['-', '.']) || !host.bytes().all(allowed) {
        return Err("the host is not a name; write ftp://host/directory".to_owned());
    }
    Ok(host.to_ascii_lowercase())
}

/// `::1`, or with a zone as RFC 6874 writes it, `fe80::1%25eth0`.
fn ipv6_literal(text: &str) -> Result<String, String> {
    let bad = "what is in the brackets is not an IPv6 address; write ftp://[::1]:21/";
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone.strip_prefix("25").unwrap_or(zone))),
        None => (text, None),
    };
    let address: std::net::Ipv6Addr = address.parse().map_err(|_| bad)?;
    match zone {
        None => Ok(address.to_string()),
        Some(zone) => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if zone.is_empty() || !zone.bytes().all(allowed) {
                return Err(bad.to_owned());
            }
            Ok(format!("{address}%{zone}"))
        }
    }
}

fn user_name(bytes: &[u8]) -> Result<String, String> {
    let user = std::str::from_utf8(bytes)
        .map_err(|_| "the user name is not UTF-8; give it with -o user=NAME")?;
    if user.chars().any(char::is_control) {
        return Err("the user name holds a control character".to_owned());
    }
    Ok(user.to_owned())
}

/// The bytes after the slash that ends the host (RFC 1738 section 3.2.2), in one spelling: without
/// empty components, `.` and a trailing slash.
fn directory(path: &str) -> Result<Vec<u8>, String> {
    if let Some(at) = path.find(['?', '#']) {
        let found = if path[at..].starts_with('?') {
            ("?", "%3F")
        } else {
            ("#", "%23")
        };
        let (sign, code) = found;
        return Err(format!(
            "an FTP URL has no part after {sign}; a {sign} in a name is {code}"
        ));
    }
    if let Some((_, code)) = path.rsplit_once(";type=")
        && code.len() == 1
    {
        return Err("leave out ;type=, a mount is always binary; a ; in a name is %3B".to_owned());
    }
    let raw = path.strip_prefix('/').unwrap_or(path);
    let bytes = decode(raw)?;
    if bytes.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
        return Err("the directory holds a NUL or a line end".to_owned());
    }
    let parts: Vec<&[u8]> = bytes
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err("the directory holds '..'; name it from the server's root, \
                    ftp://host/%2Fabsolute/path"
            .to_owned());
    }
    let mut directory = parts.join(&b'/');
    if bytes.starts_with(b"/") {
        directory.insert(0, b'/');
    }
    Ok(directory)
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
            }
            _ => {
                return Err("a % is not followed by two hexadecimal digits; a % is %25".to_owned());
            }
        }
    }
    Ok(decoded)
}

fn encode(bytes: &[u8], also: &[u8], into: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let reserved =
                matches!(c, '%' | '?' | '#') || u8::try_from(c).is_ok_and(|b| also.contains(&b));
            if reserved || c.is_control() || c.is_whitespace() {
                let mut utf8 = [0; 4];
                escape(c.encode_utf8(&mut utf8).as_bytes(), into);
            } else {
                into.push(c);
            }
        }
        escape(chunk.invalid(), into);
    }
}

fn escape(bytes: &[u8], into: &mut String) {
    for byte in bytes {
        let _ = write!(into, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests;
