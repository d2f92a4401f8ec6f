//! Checksums of contents, computed while the bytes pass by.

use std::fmt;

use ring::digest;

/// An algorithm that servers compute, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// FIPS 180-4.
    Sha512,
    /// FIPS 180-4.
    Sha256,
    /// FIPS 180-4; good enough against accidents.
    Sha1,
    /// RFC 1321; the same.
    Md5,
    /// That of IEEE 802.3, zip and gzip.
    Crc32,
}

impl Algorithm {
    /// What HASH (draft-bryan-ftpext-hash section 3) and people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha512 => "SHA-512",
            Self::Sha256 => "SHA-256",
            Self::Sha1 => "SHA-1",
            Self::Md5 => "MD5",
            Self::Crc32 => "CRC32",
        }
    }

    /// Hexadecimal digits of a checksum.
    #[must_use]
    pub const fn digits(self) -> usize {
        match self {
            Self::Sha512 => 128,
            Self::Sha256 => 64,
            Self::Sha1 => 40,
            Self::Md5 => 32,
            Self::Crc32 => 8,
        }
    }

    /// A checksum of nothing yet.
    #[must_use]
    pub fn begin(self) -> Running {
        let state = match self {
            Self::Sha512 => State::Sha(digest::Context::new(&digest::SHA512)),
            Self::Sha256 => State::Sha(digest::Context::new(&digest::SHA256)),
            Self::Sha1 => State::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            Self::Md5 => State::Md5(md5::Context::new()),
            Self::Crc32 => State::Crc32(crc32fast::Hasher::new()),
        };
        Running {
            algorithm: self,
            state,
            len: 0,
        }
    }
}

/// A checksum of what has passed so far.
#[derive(Clone)]
pub struct Running {
    algorithm: Algorithm,
    state: State,
    len: u64,
}

#[derive(Clone)]
enum State {
    Sha(digest::Context),
    Md5(md5::Context),
    Crc32(crc32fast::Hasher),
}

impl Running {
    /// More bytes pass.
    pub fn add(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha(context) => context.update(bytes),
            State::Md5(context) => context.consume(bytes),
            State::Crc32(hasher) => hasher.update(bytes),
        }
        self.len += bytes.len() as u64;
    }

    /// Bytes so far.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has passed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The checksum of all of it.
    #[must_use]
    pub fn end(self) -> Checksum {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let digits: String = match self.state {
            State::Sha(context) => hex(context.finish().as_ref()),
            State::Md5(context) => hex(&context.finalize().0),
            State::Crc32(hasher) => format!("{:08x}", hasher.finalize()),
        };
        Checksum {
            algorithm: self.algorithm,
            digits,
            len: self.len,
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.algorithm.name(), self.len)
    }
}

/// The checksum of a whole content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// Hexadecimal, lower case, all digits.
    pub digits: String,
    /// Bytes of the content.
    pub len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        for (algorithm, expected) in [
            (
                Algorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (
                Algorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Crc32, "352441c2"),
        ] {
            let mut running = algorithm.begin();
            running.add(b"a");
            running.add(b"");
            running.add(b"bc");
            let sum = running.end();
            assert_eq!((sum.digits.as_str(), sum.len), (expected, 3));
            assert_eq!(sum.digits.len(), algorithm.digits());
        }
    }
}
