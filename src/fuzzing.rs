//! Doors for the fuzz targets (`fuzz/`): each gives a parser bytes as a stranger would, and checks
//! what must hold whatever they are. Not part of the program: behind the feature `fuzzing`, and in
//! the tests, which try them with a little noise.
#![allow(clippy::panic, clippy::missing_panics_doc)]

use std::time::{Duration, UNIX_EPOCH};

use crate::ftp::listing::{self, Hints};
use crate::vfs::attr::DirEntry;

/// A control connection, and all that is read out of replies.
pub fn replies(bytes: &[u8]) {
    crate::ftp::fuzz_replies(bytes);
}

/// What comes in MODE Z.
pub fn packed(bytes: &[u8]) {
    crate::ftp::fuzz_inflater(bytes);
}

/// The log of what is under way on the server.
pub fn intents(bytes: &[u8]) {
    crate::ftp::fuzz_intents(bytes);
}

/// A URL.
pub fn url(bytes: &[u8]) {
    crate::config::fuzz_url(bytes);
}

/// A configuration file.
pub fn configuration(bytes: &[u8]) {
    crate::config::fuzz_configuration(bytes);
}

/// A `.netrc`.
pub fn netrc(bytes: &[u8]) {
    crate::secret::fuzz_netrc(bytes);
}

/// LIST, NLST and MLSD, as whole listings.
pub fn listing(bytes: &[u8]) {
    let hints = Hints {
        now: UNIX_EPOCH + Duration::from_secs(1_718_452_800),
        offset_secs: 3600,
        dialect: None,
    };
    sound(&listing::parse_list(bytes, &hints).entries);
    sound(&listing::parse_mlsx(bytes).entries);
    for name in listing::parse_nlst(bytes).0 {
        assert!(is_one_name(name.as_bytes()), "{name:?}");
    }
}

/// One line of MLST.
pub fn facts(bytes: &[u8]) {
    let _ = listing::parse_facts(bytes);
}

/// What a listing may never let through to the filesystem.
fn sound(entries: &[DirEntry]) {
    for entry in entries {
        assert!(is_one_name(entry.name.as_bytes()), "{:?}", entry.name);
    }
}

fn is_one_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|b| matches!(b, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Pieces of what is meant, mixed with noise.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let words = prop_oneof![
            Just(&b"220-"[..]),
            Just(&b"220 "[..]),
            Just(&b"257 \"/a\"\"b\""[..]),
            Just(&b"229 (|||1|)"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"\n"[..]),
            Just(&b"type=OS.unix=slink:/x;size=1; n"[..]),
            Just(&b"-rw-r--r-- 1 a b 1 Jan  1 00:00 n"[..]),
            Just(&b"ftp://a%0ab@[::1]:1/"[..]),
            Just(&b"machine h login u password \"p"[..]),
            Just(&b"[mount.a]\nurl = "[..]),
            Just(&b"{\"Begun\":{\"name\":\"YS9i\",\"intent\":\"Remove\"}}\n"[..]),
        ]
        .prop_map(<[u8]>::to_vec);
        let piece = prop_oneof![words, proptest::collection::vec(any::<u8>(), 0..20)];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn noise_is_harmless(bytes in noise()) {
            for target in [
                super::replies,
                super::packed,
                super::intents,
                super::url,
                super::configuration,
                super::netrc,
                super::listing,
                super::facts,
            ] {
                target(&bytes);
            }
        }
    }
}
