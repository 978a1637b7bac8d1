//! What a server stores of a password: enough to check a proof, not enough to make one.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    ITERATIONS_DEFAULT, SALT_BYTES, ScramKey,
    attributes::{decode, decode_key, decode_number},
    keys::{client_key, made_up_salt, salted_password, server_key, stored_key},
};
use crate::auth::saslprep;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, taken apart. Never printed.
#[derive(Clone)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: ScramKey,
    pub(super) server_key: ScramKey,
    /// A made-up one, which accepts no proof.
    pub(super) is_mock: bool,
}

/// With the server's key one could pretend to be the server.
impl Drop for Verifier {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl ZeroizeOnDrop for Verifier {}

/// The text is not a stored verifier. Does not say where, lest it repeats a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed SCRAM verifier")]
pub struct MalformedVerifier;

impl Verifier {
    /// What the stored form begins with.
    pub const PREFIX: &str = "SCRAM-SHA-256$";

    /// Reads the form that PostgreSQL stores in `pg_authid.rolpassword`.
    ///
    /// # Errors
    /// When the text has another form, keys of another length than 32 bytes, no salt, or no iterations (they are
    /// bounded by `i32::MAX`, as in PostgreSQL).
    pub fn parse(text: &str) -> Result<Verifier, MalformedVerifier> {
        Verifier::parse_fields(text).ok_or(MalformedVerifier)
    }

    fn parse_fields(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix(Verifier::PREFIX)?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = decode_number(iterations.as_bytes())?;
        let salt = decode(salt.as_bytes())?;
        if iterations == 0 || i32::try_from(iterations).is_err() || salt.is_empty() {
            return None;
        }
        Some(Verifier {
            iterations,
            salt,
            stored_key: decode_key(stored_key.as_bytes())?,
            server_key: decode_key(server_key.as_bytes())?,
            is_mock: false,
        })
    }

    /// Makes the verifier of a password. Costs half a microsecond for each iteration, of which there is at least one.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
        let iterations = iterations.max(1);
        let salted = salted_password(&saslprep(password.as_bytes()), salt, iterations);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: stored_key(&client_key(&salted)),
            server_key: server_key(&salted),
            is_mock: false,
        }
    }

    /// For a user that does not exist: the same salt for the same user each time, and no proof is accepted.
    pub fn mock(user: &str, seed: &[u8; 32]) -> Verifier {
        Verifier::mock_shaped(user, seed, ITERATIONS_DEFAULT, SALT_BYTES)
    }

    /// A mock that looks like a verifier with these iterations and this length of salt (at most 32 bytes).
    pub fn mock_shaped(user: &str, seed: &[u8; 32], iterations: u32, salt_bytes: usize) -> Verifier {
        Verifier {
            iterations,
            salt: made_up_salt(user, seed, salt_bytes),
            stored_key: [0; 32],
            server_key: [0; 32],
            is_mock: true,
        }
    }

    /// How many rounds of HMAC a password goes through.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Sent to whoever asks: no secret.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}
