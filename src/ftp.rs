//! FTP: a server's tree as a [`Backend`](crate::vfs::backend::Backend).

pub mod data;
pub mod encoding;
pub mod features;
pub mod host;
pub mod options;
pub mod pool;
pub mod refusal;
pub mod reply;
pub mod session;
