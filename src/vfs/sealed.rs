//! Lines of a log: a checksum, and a value in JSON. A line that a crash left torn is seen as such
//! and never believed.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// `value` as a line, its end included. JSON has no raw line end in it.
pub(crate) fn seal<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    Ok(format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes())))
}

/// The value of a line without its end; `None` for what is no whole line.
pub(crate) fn unseal<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line).ok()?;
    let (sum, text) = line.split_once(' ')?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(text.as_bytes()) {
        return None;
    }
    serde_json::from_str(text).ok()
}
