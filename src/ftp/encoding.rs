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
/// `Invalid` if they are not in the charset, or would come back as other bytes (Shift_JIS has two
/// codes for some characters): such a name could not be opened.
pub fn from_server<'a>(
    charset: Option<&'static Encoding>,
    bytes: &'a [u8],
) -> Result<Cow<'a, [u8]>> {
    let Some(charset) = charset else {
        return Ok(Cow::Borrowed(bytes));
    };
    let text = charset
        .decode_without_bom_handling_and_without_replacement(bytes)
        .filter(|text| charset.encode(text).0 == bytes);
    match text {
        Some(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
        Some(Cow::Owned(text)) => Ok(Cow::Owned(text.into_bytes())),
        None => Err(Error::new(
            ErrorKind::Invalid,
            format!("\"{}\" is not {}", bytes.escape_ascii(), charset.name()),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use encoding_rs::{SHIFT_JIS, UTF_8, UTF_16LE, WINDOWS_1252};

    #[test]
    fn without_a_charset_bytes_are_bytes() {
        let bytes = b"caf\xe9 \xff";
        assert_eq!(*to_server(None, bytes).unwrap(), bytes[..]);
        assert_eq!(*from_server(None, bytes).unwrap(), bytes[..]);
    }

    #[test]
    fn names_are_converted_both_ways() {
        for (charset, here, there) in [
            (WINDOWS_1252, "caf\u{e9} \u{20ac}", &b"caf\xe9 \x80"[..]),
            (SHIFT_JIS, "\u{30c6}", b"\x83\x65"),
            (UTF_8, "caf\u{e9}", b"caf\xc3\xa9"),
        ] {
            assert_eq!(*to_server(Some(charset), here.as_bytes()).unwrap(), *there);
            assert_eq!(
                *from_server(Some(charset), there).unwrap(),
                *here.as_bytes()
            );
        }
    }

    #[test]
    fn what_would_not_come_back_is_refused() {
        for (charset, name) in [
            (WINDOWS_1252, "\u{30c6}".as_bytes()),
            (WINDOWS_1252, b"caf\xe9"),
            // Encodes as UTF-8 by the WHATWG's rules.
            (UTF_16LE, b"a"),
        ] {
            let error = to_server(Some(charset), name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        // Not UTF-8; and one of two codes for the same character.
        for (charset, name) in [(UTF_8, &b"caf\xe9"[..]), (SHIFT_JIS, b"\xed\x40")] {
            let error = from_server(Some(charset), name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
