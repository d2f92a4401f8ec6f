//! SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2, rand};

use super::SaslError;
use crate::secret::Secret;

/// Fewer iterations than RFC 7677 section 4 allows would hand the password to whoever asks.
const FEWEST: u32 = 4096;
/// More would be a server that wants us busy.
const MOST: u32 = 2_000_000;

/// The client's side of one exchange.
#[derive(Debug)]
pub(super) struct Scram {
    password: Secret,
    first_bare: String,
    nonce: String,
    /// What the server has to send at the end.
    proof: Option<Vec<u8>>,
    verified: bool,
}

impl Scram {
    pub(super) fn new(user: &str, password: &str) -> Result<Self, SaslError> {
        let mut random = [0; 18];
        rand::SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| SaslError::Unfit("no random numbers here"))?;
        Ok(Self::with_nonce(user, password, BASE64.encode(random)))
    }

    fn with_nonce(user: &str, password: &str, nonce: String) -> Self {
        Self {
            password: Secret::new(password),
            first_bare: format!("n={},r={nonce}", escape(user)),
            nonce,
            proof: None,
            verified: false,
        }
    }

    /// client-first-message.
    pub(super) fn first(&self) -> Secret {
        Secret::new(format!("n,,{}", self.first_bare))
    }

    /// client-final-message, or nothing once the server has proved itself.
    pub(super) fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        let challenge =
            std::str::from_utf8(challenge).map_err(|_| SaslError::Challenge("not UTF-8"))?;
        if let Some(why) = challenge.strip_prefix("e=") {
            return Err(SaslError::Refused(why.escape_debug().take(100).collect()));
        }
        if let Some(proof) = self.proof.take() {
            return self.verify(challenge, &proof);
        }
        if challenge.is_empty() {
            // The server asks for the first message.
            return Ok(self.first());
        }
        self.prove(challenge)
    }

    pub(super) const fn is_verified(&self) -> bool {
        self.verified
    }

    fn prove(&mut self, server_first: &str) -> Result<Secret, SaslError> {
        let mut fields = server_first.split(',');
        let mut field = |name: &str, why| {
            fields
                .next()
                .and_then(|f| f.strip_prefix(name))
                .ok_or(SaslError::Challenge(why))
        };
        let nonce = field("r=", "no nonce")?;
        let salt = field("s=", "no salt")?;
        let iterations = field("i=", "no iteration count")?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(SaslError::Challenge("not our nonce"));
        }
        let salt = BASE64
            .decode(salt)
            .map_err(|_| SaslError::Challenge("salt is not base64"))?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|i| (FEWEST..=MOST).contains(i))
            .and_then(NonZeroU32::new)
            .ok_or(SaslError::Challenge("iteration count out of range"))?;

        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            self.password.reveal().as_bytes(),
            &mut salted,
        );
        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        // biws is base64 of "n,,": no channel binding.
        let final_bare = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{final_bare}", self.first_bare);
        let signature = mac(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        let server_key = mac(&salted, b"Server Key");
        self.proof = Some(
            mac(server_key.as_ref(), signed.as_bytes())
                .as_ref()
                .to_vec(),
        );
        Ok(Secret::new(format!(
            "{final_bare},p={}",
            BASE64.encode(proof)
        )))
    }

    fn verify(&mut self, server_final: &str, proof: &[u8]) -> Result<Secret, SaslError> {
        let signature = server_final
            .strip_prefix("v=")
            .and_then(|v| v.split(',').next())
            .and_then(|v| BASE64.decode(v).ok());
        if signature.as_deref() != Some(proof) {
            return Err(SaslError::Impostor);
        }
        self.verified = true;
        Ok(Secret::new(""))
    }
}

fn mac(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

/// A name as GS2 wants it (RFC 5801 section 4).
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn exchange() -> Scram {
        Scram::with_nonce("user", "pencil", "rOprNGfwEbeRWgbNEkqO".into())
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let mut scram = exchange();
        assert_eq!(scram.first().reveal(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            scram.respond(FIRST.as_bytes()).unwrap().reveal(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!scram.is_verified());
        let last = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(scram.respond(last).unwrap().reveal(), "");
        assert!(scram.is_verified());
    }

    #[test]
    fn an_impostor_is_found_out() {
        let mut scram = exchange();
        scram.respond(FIRST.as_bytes()).unwrap();
        let forged = b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(scram.respond(forged), Err(SaslError::Impostor));
        assert!(!scram.is_verified());
    }

    #[test]
    fn a_challenge_that_weakens_or_replays_is_refused() {
        for bad in [
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
            "m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "gibberish",
        ] {
            let refused = exchange().respond(bad.as_bytes());
            assert!(matches!(refused, Err(SaslError::Challenge(_))), "{bad}");
        }
        assert!(matches!(
            exchange().respond(b"e=unknown-user"),
            Err(SaslError::Refused(_))
        ));
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("a=b,c"), "a=3Db=2Cc");
    }
}
