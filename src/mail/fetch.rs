//! Brings mail from the server into the store, on a thread of its own.
//!
//! One synchronisation is one short session ([`synchronise`]): log in, list, compare with the
//! ledger, fetch what is new, make it safe, delete what may go, QUIT. Between sessions the server
//! is left alone for the poll interval, or longer where it asks for that.

mod options;
mod plan;
mod receive;
mod session;
mod thread;

pub use options::{FetchOptions, SecretSource, ServerDelete};
pub use session::{Memory, Report, synchronise};
pub use thread::{Activity, FetchStatus, Fetcher};
