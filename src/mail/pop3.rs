//! A session with a POP3 maildrop (RFC 1939, RFC 2449, RFC 2595, RFC 5034).
//!
//! [`Maildrop::open`] connects, secures and logs in. What is deleted is deleted by
//! [`Maildrop::quit`] alone: a `Maildrop` that is dropped, for whatever reason, hangs up, and then
//! the server deletes nothing (RFC 1939 section 6). After any failure of the connection `quit`
//! refuses.

mod capability;
mod dialogue;
mod login;
mod maildrop;
mod reply;
mod retrieval;

pub use capability::Capabilities;
pub use login::{Auth, Credentials};
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use maildrop::numbered;
pub use maildrop::{Entry, Maildrop};
pub use reply::{Code, Reply, Stage};
pub use retrieval::{Answer, Retrieval};
