//! The `charset=` option: names as the server writes them, and names as UTF-8 here.

use std::borrow::Cow;

use encoding_rs::Encoding;

use crate::vfs::error::{Error, ErrorKind, Result};

/// Turns a name of this machine (UTF-8) into the server's bytes. Without a charset bytes are bytes.
///
/// # Errors
/// `Invalid` if the name is not UTF-8 or has a character that the charset lacks.
pub fn to_server<'a>(charset: Option<&'static Encoding>, name: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    let Some(charset) = charset else {
        return Ok(Cow::Borrowed(name));
    };
    let unmappable = || {
        let shown = String::from_utf8_lossy(name).escape_debug().to_string();
        Error::new(
            ErrorKind::Invalid,
            format!("\"{shown}\" cannot be written in {}", charset.name()),
        )
    };
    let text = std::str::from_utf8(name).map_err(|_| unmappable())?;
    let (bytes, used, failed) = charset.encode(text);
    // UTF-16 labels encode as UTF-8, which is not what the server was said to use.
    if failed || used != charset {
        return Err(unmappable());
    }
    Ok(bytes)
}

/// Turns the server's bytes into UTF-8.
///
/// # Errors
/// `Invalid` if they are not in the charset: such a name could not be sent back.
pub fn from_server<'a>(
    charset: Option<&'static Encoding>,
    bytes: &'a [u8],
) -> Result<Cow<'a, [u8]>> {
    let Some(charset) = charset else {
        return Ok(Cow::Borrowed(bytes));
    };
    match charset.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
        Some(Cow::Owned(text)) => Ok(Cow::Owned(text.into_bytes())),
        None => {
            let shown = bytes.escape_ascii();
            Err(Error::new(
                ErrorKind::Invalid,
                format!("\"{shown}\" is not {}", charset.name()),
            ))
        }
    }
}
