//! ferryfs makes old Internet services into directories. This comment is the map.

pub mod ftp;
pub mod mail;
pub mod net;
pub mod secret;
pub mod sync;
pub mod vfs;
