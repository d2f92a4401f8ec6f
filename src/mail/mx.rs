//! Which servers take mail for a domain (RFC 5321 section 5.1), asked of the name servers in
//! `/etc/resolv.conf`.
//!
//! Own code: the resolver library crates want an asynchronous run-time, and three record types over
//! one UDP packet are less than what such a crate brings along.

mod packet;
mod resolver;

use std::fmt;
use std::net::IpAddr;

use packet::{Data, Kind};
pub use resolver::Resolver;

/// More servers of one domain are not tried.
const MOST_HOSTS: usize = 8;

/// A server that takes mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub host: String,
    /// Where it is; never empty.
    pub addresses: Vec<IpAddr>,
}

/// Why there is no server to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxError {
    /// The domain takes no mail and says so (RFC 7505): 5.1.10.
    NullMx,
    /// There is no such domain: 5.1.2.
    NoDomain,
    /// There is, without any address: 5.4.4.
    NoAddress,
    /// Not known now: 4.4.3.
    Unknown(String),
    /// No name server answers: nothing is known of any domain.
    NoServer(String),
}

impl MxError {
    /// Whether it may be different later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::NoServer(_))
    }
}

impl fmt::Display for MxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullMx => f.write_str("556 5.1.10 the domain takes no mail (null MX)"),
            Self::NoDomain => f.write_str("550 5.1.2 there is no such domain"),
            Self::NoAddress => f.write_str("550 5.4.4 the domain has no mail server"),
            Self::Unknown(why) | Self::NoServer(why) => write!(f, "451 4.4.3 {why}"),
        }
    }
}

impl Resolver {
    /// The servers of `domain` in the order in which they are to be tried: by preference, equal
    /// ones at random; the domain itself where it names none. `[192.0.2.1]` is an address.
    ///
    /// # Errors
    /// [`MxError`].
    pub fn exchanges(&self, domain: &str) -> Result<Vec<Exchange>, MxError> {
        if let Some(address) = literal(domain) {
            return Ok(vec![Exchange {
                host: address.to_string(),
                addresses: vec![address],
            }]);
        }
        let mut hosts: Vec<(u16, u8, String)> = Vec::new();
        for data in self.ask(domain, Kind::Mx)? {
            if let Data::Mx(preference, host) = data {
                hosts.push((preference, random(), host));
            }
        }
        if let [(_, _, host)] = hosts.as_slice()
            && host.is_empty()
        {
            return Err(MxError::NullMx);
        }
        // A root among others is a mistake, and no server.
        hosts.retain(|(_, _, host)| !host.is_empty());
        if hosts.is_empty() {
            hosts.push((0, 0, domain.to_owned()));
        }
        hosts.sort();
        self.locate(hosts.into_iter().map(|(_, _, host)| host))
    }

    fn locate(&self, hosts: impl Iterator<Item = String>) -> Result<Vec<Exchange>, MxError> {
        let mut exchanges = Vec::new();
        let mut unknown = None;
        for host in hosts.take(MOST_HOSTS) {
            let mut addresses = Vec::new();
            for kind in [Kind::Aaaa, Kind::A] {
                match self.ask(&host, kind) {
                    Ok(found) => {
                        addresses.extend(found.into_iter().filter_map(|data| match data {
                            Data::Address(address) => Some(address),
                            Data::Mx(..) => None,
                        }))
                    }
                    Err(err) if err.is_temporary() => unknown = Some(err),
                    Err(_) => {}
                }
            }
            if !addresses.is_empty() {
                exchanges.push(Exchange { host, addresses });
            }
        }
        match (exchanges.is_empty(), unknown) {
            (false, _) => Ok(exchanges),
            (true, Some(err)) => Err(err),
            (true, None) => Err(MxError::NoAddress),
        }
    }
}

fn literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    let text = inside
        .get(..5)
        .filter(|tag| tag.eq_ignore_ascii_case("IPv6:"))
        .map_or(inside, |_| inside.get(5..).unwrap_or_default());
    text.parse().ok()
}

fn random() -> u8 {
    let mut byte = [0];
    // Without randomness the server's order is as good.
    let _ = getrandom::fill(&mut byte);
    let [byte] = byte;
    byte
}
