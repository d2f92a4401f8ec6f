//! Mail as files.
//!
//! Everything a mount shows is local: network is spoken by two threads only, one that fetches
//! (POP3) and one that sends (SMTP).
//!
//! * [`connect`], [`line`], [`sasl`]: what both protocols need of a connection.
//! * [`pop3`]: one session with a maildrop.
//! * [`store`], [`ledger`]: the Maildir on disk, and what is known of each message on the server.
//! * [`fetch`]: brings the two together, on a thread of its own.
//! * [`envelope`], [`smtp`], [`mx`]: one message to one server, and who that is.
//! * [`queue`], [`schedule`]: what is to be sent, on disk, and when it is tried.
//! * [`sender`], [`dsn`]: sends it, on threads of its own, and reports what failed.

pub mod connect;
pub mod dsn;
pub mod envelope;
pub mod failure;
pub mod fetch;
pub mod header;
pub mod ledger;
pub mod line;
pub mod mx;
pub mod pop3;
pub mod queue;
pub mod sasl;
pub mod schedule;
pub mod sender;
pub mod smtp;
pub mod step;
pub mod store;
mod trust;
