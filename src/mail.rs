//! Mail as files.
//!
//! Everything a mount shows is local: network is spoken by two threads only, one that fetches
//! (POP3) and one that sends (SMTP).
//!
//! * [`connect`], [`line`], [`sasl`]: what both protocols need of a connection.
//! * [`pop3`], [`smtp`]: one session with a server.
//! * [`store`], [`ledger`]: the Maildir on disk, and what is known of each message on the server.
//! * [`fetch`]: brings the two together, on a thread of its own.
//! * [`envelope`], [`smtp`], [`mx`]: one message to one server, and who that is.
//! * [`queue`], [`schedule`]: what is to be sent, on disk, and when it is tried.
//! * [`sender`], [`dsn`]: sends it, on threads of its own, and reports what failed.
//! * [`draft`], [`compose`]: what was dropped into `outbox/`, judged, and the message it makes.
//! * [`aliases`], [`address`], [`dates`]: who, and when.
//! * [`structure`]: where the parts of a message begin and end.
//! * [`fields`], [`words`], [`parameters`] (the header), [`filter`], [`encode`], [`decode`],
//!   [`scan`] (the content), [`media`] (its types).

pub mod address;
pub mod aliases;
pub mod compose;
pub mod content;
pub mod dates;
pub mod decode;
pub mod draft;
pub mod encode;
pub mod envelope;
pub mod failure;
pub mod fetch;
pub mod fields;
pub mod filter;
pub mod media;
pub mod parameters;
pub mod parts;
pub mod scan;
pub mod schedule;
pub mod sender;
pub mod smtp;
pub mod step;
pub mod store;
pub mod structure;
pub mod templates;
pub mod words;
