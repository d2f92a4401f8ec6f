//! TLS sessions to resume, counted: a TLS 1.3 ticket is good for one connection only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

/// As many tickets as [`ClientSessionMemoryCache`] keeps for a name.
const KEPT: usize = 8;

/// rustls' own store, counted.
#[derive(Debug)]
pub(super) struct Tickets {
    store: ClientSessionMemoryCache,
    given: AtomicBool,
    left: AtomicUsize,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            store: ClientSessionMemoryCache::new(1),
            given: AtomicBool::new(false),
            left: AtomicUsize::new(0),
        }
    }
}

impl Tickets {
    /// Whether there were TLS 1.3 tickets and all are used up.
    pub(super) fn are_used_up(&self) -> bool {
        self.given.load(Ordering::Relaxed) && self.left.load(Ordering::Relaxed) == 0
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
        self.left.store((left + 1).min(KEPT), Ordering::Relaxed);
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
