//! The filesystem: what each operation means, in inodes and handles, without FUSE and without a
//! network.

pub mod attr;
pub mod backend;
pub mod content;
pub mod error;
pub mod path;
mod staging;
