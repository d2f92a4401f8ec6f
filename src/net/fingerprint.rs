//! SHA-256 fingerprints of certificates.

use std::fmt;
use std::str::FromStr;

use ring::digest;

/// The SHA-256 of a certificate's DER bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the certificate `der`.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let digest = digest::digest(&digest::SHA256, der);
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

/// `SHA256:84:B7:…`, or what `openssl x509 -fingerprint -sha256` prints, or the 64 digits alone.
impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "not a fingerprint; write SHA256: and 64 hexadecimal digits".to_owned();
        let text = text.trim();
        let digits = ["sha256:", "sha256 fingerprint=", "sha-256:"]
            .iter()
            .find_map(|prefix| {
                let head = text.get(..prefix.len())?;
                let rest = text.get(prefix.len()..)?;
                head.eq_ignore_ascii_case(prefix).then_some(rest)
            })
            .unwrap_or(text);
        let digits: Vec<u8> = digits.bytes().filter(|b| *b != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(bad());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16)
                .ok()
                .filter(|_| !pair.starts_with('+'))
                .ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256")?;
        self.0.iter().try_for_each(|byte| write!(f, ":{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_in_the_forms_that_programs_print() {
        let print = Fingerprint::of(b"a certificate");
        let shown = print.to_string();
        let digits = shown.strip_prefix("SHA256:").unwrap();
        for form in [
            shown.clone(),
            digits.to_owned(),
            digits.replace(':', ""),
            shown.to_lowercase(),
            format!("sha256 Fingerprint={digits}"),
            format!(" SHA256:{} ", digits.replace(':', "").to_lowercase()),
        ] {
            assert_eq!(form.parse(), Ok(print), "{form}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        let short = "AB:".repeat(31);
        let signs = "+1".repeat(32);
        let wide = "é".repeat(32);
        for bad in ["", "SHA256:", "SHA1:AB", &short, &signs, &wide, "SHA256:zz"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
