//! What tests share.

pub mod memory;
