//! FTP: a server's tree as a [`Backend`](crate::vfs::backend::Backend).

mod abandon;
mod admission;
mod ahead;
mod at_once;
mod backend;
mod bar;
mod behind;
mod changes;
mod checksums;
mod conflict;
mod connector;
mod containment;
mod control;
pub mod data;
mod deflate;
mod directory;
mod doubt;
pub mod encoding;
mod examine;
mod extra;
pub mod features;
pub mod host;
mod idle;
mod in_a_row;
mod in_place;
pub mod intents;
mod links;
mod list_ahead;
mod list_command;
pub mod listing;
mod listing_stream;
mod login;
mod mode;
mod name_ends;
mod named_listing;
mod opening;
pub mod options;
pub mod pool;
mod probes;
mod publish;
pub mod refusal;
mod rename;
mod rendezvous;
mod replace;
pub mod reply;
mod report;
mod rest;
mod retrieve;
mod round_trip;
mod server;
mod server_path;
pub mod session;
mod set_attr;
mod space;
mod stat;
mod stat_listing;
mod sweep;
mod temporary;
mod time_offset;
mod times;
mod tls;
mod together;
mod transfer;
mod trial;
mod upload;
mod ways;
mod xattrs;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use deflate::fuzz_inflater;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_intents(bytes: &[u8]) {
    intents::fuzz(bytes);
}
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use reply::fuzz_replies;

/// See `fuzzing`: everything that is made of a reply.
#[cfg(any(test, feature = "fuzzing"))]
fn fuzz_reply(reply: &reply::Reply) {
    let _ = refusal::refusal("TEST", reply);
    let _ = refusal::is_crowded(reply);
    let features = features::Features::parse(reply);
    let _ = (features.opts_mlst(&["type", "size"]), features.has("MLST"));
    let _ = rendezvous::fuzz_rendezvous(reply);
    let _ = stat::size_of(reply);
    login::fuzz_login(reply);
}

pub use backend::FtpBackend;
pub use report::Report;
