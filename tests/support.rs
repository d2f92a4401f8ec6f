//! What tests share.

// The lab offers quirks and faults for every area of the program; which of them a test uses is
// not the lab's business.
#![allow(dead_code, unused_imports)]

pub mod far;
pub mod ftpd;
pub mod memory;
pub mod mount;
pub mod opening;
pub mod pop3d;
pub mod proxy;
pub mod real;
pub mod small_disk;
pub mod smtpd;
pub mod wire;
