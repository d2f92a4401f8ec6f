//! Mail as files.
//!
//! From a file in `outbox/` to a message:
//!
//! * [`place`], [`draft`]: what was dropped where, judged at the earliest write that shows a fault.
//! * [`compose`]: the message and its envelope.
//! * [`aliases`], [`address`], [`dates`]: who, and when.
//!
//! From a message to files:
//!
//! * [`structure`]: where its parts begin and end.
//! * [`parts`]: the parts under names of their own, decoded while they are read.
//! * [`templates`]: the beginning of an answer.
//!
//! For both: [`fields`], [`words`], [`parameters`] (the header), [`filter`], [`encode`],
//! [`decode`], [`scan`] (the content), [`media`] (its types).

pub mod address;
pub mod aliases;
pub mod compose;
pub mod content;
pub mod dates;
pub mod decode;
pub mod draft;
pub mod encode;
pub mod fields;
pub mod filter;
pub mod media;
pub mod parameters;
pub mod parts;
pub mod scan;
pub mod structure;
pub mod templates;
pub mod words;
