//! FTP: a server's tree as a [`Backend`](crate::vfs::backend::Backend).

mod admission;
mod connector;
mod control;
pub mod data;
pub mod encoding;
pub mod features;
pub mod host;
pub mod listing;
mod login;
mod opening;
pub mod options;
pub mod pool;
pub mod refusal;
mod rendezvous;
pub mod reply;
pub mod session;
mod tls;
mod transfer;
mod trust;
