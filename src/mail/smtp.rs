//! SMTP (RFC 5321) as a client: submission to a relay (RFC 6409), or to a domain's own servers.
//!
//! A [`Session`] is connected, secured, greeted and logged in ([`Session::open`]); then it carries
//! one [`Transaction`] after the other. What an [`Outcome`] says of each recipient keeps three
//! phases apart: up to the final dot nothing has happened and everything may be tried again; a
//! reply to the dot is final; no reply to the dot means [`Verdict::InDoubt`].

mod body;
mod dialogue;
mod extensions;
mod login;
mod reply;
mod session;
mod transaction;
mod verdict;

pub use body::{DotStuffing, Measure};
pub use extensions::Extensions;
pub use login::Credentials;
pub use reply::{Enhanced, Reply};
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use reply::{Gathering, Line};
pub use session::{Encryption, Session, Terms, Timeouts};
pub use transaction::{Answer, Outcome, Transaction, Unfit};
pub use verdict::{Stage, Verdict, meaning, verdict};
