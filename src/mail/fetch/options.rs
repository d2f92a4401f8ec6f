//! What the command line says of fetching, already checked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::mail::connect::Endpoint;
use crate::mail::pop3::Auth;
use crate::secret::Secret;

/// Gives the password or the token. The argument asks for a fresh one: the last was refused.
pub type SecretSource = Arc<dyn Fn(bool) -> Result<Secret, String> + Send + Sync>;

/// When messages are deleted on the server. Never before they are safe here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerDelete {
    /// Never.
    Never,
    /// When the user removes them here.
    OnUnlink,
    /// As soon as they are fetched.
    AfterFetch,
    /// When they were fetched so long ago, or the user removes them here.
    After(Duration),
}

/// Everything one account is fetched with.
#[derive(Clone)]
pub struct FetchOptions {
    /// The server.
    pub endpoint: Endpoint,
    /// User name.
    pub user: String,
    /// How to log in.
    pub auth: Auth,
    /// Password or token.
    pub secret: SecretSource,
    /// `secret` gives OAuth tokens.
    pub is_token: bool,
    /// How often to look; `None`: only when asked to.
    pub poll: Option<Duration>,
    /// What is deleted on the server.
    pub delete: ServerDelete,
    /// Larger messages, in octets, stay on the server.
    pub largest: u64,
    /// Commands sent ahead where the server allows it.
    pub window: usize,
}

impl FetchOptions {
    /// The usual: every five minutes, nothing deleted, messages up to 1 GiB, 128 commands ahead.
    #[must_use]
    pub fn new(endpoint: Endpoint, user: impl Into<String>, secret: SecretSource) -> Self {
        Self {
            endpoint,
            user: user.into(),
            auth: Auth::Auto,
            secret,
            is_token: false,
            poll: Some(Duration::from_secs(300)),
            delete: ServerDelete::Never,
            largest: 1 << 30,
            window: 128,
        }
    }

    /// `user@host`, by which the store knows the account.
    #[must_use]
    pub fn account(&self) -> String {
        format!("{}@{}", self.user, self.endpoint.host)
    }
}

impl fmt::Debug for FetchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchOptions")
            .field("endpoint", &self.endpoint)
            .field("user", &self.user)
            .field("auth", &self.auth)
            .field("poll", &self.poll)
            .field("delete", &self.delete)
            .finish_non_exhaustive()
    }
}
