//! Mail as files.
//!
//! Everything a mount shows is local: network is spoken by two threads only, one that fetches
//! (POP3) and one that sends (SMTP).
//!
//! * [`connect`], [`line`], [`sasl`]: what both protocols need of a connection.
//! * [`pop3`], [`smtp`]: one session with a server.
//! * [`store`], [`ledger`]: the Maildir on disk, and what is known of each message on the server.
//! * [`fetch`]: brings the two together, on a thread of its own.
//! * [`envelope`], [`mx`]: who a message is for, and which server that is.
//! * [`queue`], [`schedule`]: what is to be sent, on disk, and when it is tried.
//! * [`sender`], [`dsn`]: sends it, on threads of its own, and reports what failed.
//! * [`draft`], [`compose`]: what was dropped into `outbox/`, judged, and the message it makes.
//! * [`aliases`], [`address`], [`dates`]: who, and when.
//! * [`structure`]: where the parts of a message begin and end.
//! * [`parts`], [`templates`]: the parts under names of their own; the beginning of an answer.
//! * [`backend`], [`options`]: all of it as a tree of files.
//! * [`examine`]: what the servers can do, for `ferryfs doctor`.
//! * [`ask`], [`pickup`]: what programs beside the mount want, and mail from those that know
//!   sendmail(8).
//! * [`fields`], [`words`], [`parameters`] (the header), [`filter`], [`encode`], [`decode`],
//!   [`scan`] (the content), [`media`] (its types).

pub mod address;
pub mod aliases;
pub mod ask;
pub mod backend;
pub mod compose;
pub mod connect;
pub mod content;
pub mod dates;
pub mod decode;
pub mod draft;
pub mod dsn;
pub mod encode;
pub mod envelope;
pub mod examine;
pub mod failure;
pub mod fetch;
pub mod fields;
pub mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod header;
pub mod ledger;
pub mod line;
pub mod media;
pub mod mx;
pub mod options;
pub mod parameters;
pub mod parts;
pub mod pickup;
pub mod pop3;
pub mod queue;
pub mod sasl;
pub mod scan;
pub mod schedule;
pub mod sender;
pub mod smtp;
pub mod step;
pub mod store;
pub mod structure;
pub mod templates;
pub mod words;
