//! FTP: a server's tree as a [`Backend`](crate::vfs::backend::Backend).

pub mod listing;
pub mod options;
