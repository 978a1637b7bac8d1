//! The arithmetic of SCRAM (RFC 5802, 3): everything is a chain of HMAC-SHA-256 from the password.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The output of SHA-256; every key, proof and signature of SCRAM-SHA-256 is one.
pub type ScramKey = [u8; 32];

/// HMAC over the parts one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> ScramKey {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `Hi`: PBKDF2 with one block. Half a microsecond for each iteration.
pub(super) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<ScramKey> {
    // Keyed once and copied: keying costs as much as the round itself.
    let keyed = keyed(password);
    let round = |parts: &[&[u8]]| -> ScramKey {
        let mut mac = keyed.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut last = round(&[salt, &1_u32.to_be_bytes()]);
    let mut sum = Zeroizing::new(last);
    for _ in 1..iterations {
        last = round(&[&last]);
        *sum = xor(&sum, &last);
    }
    last.zeroize();
    sum
}

pub(super) fn client_key(salted_password: &ScramKey) -> ScramKey {
    hmac(salted_password, &[b"Client Key"])
}

pub(super) fn server_key(salted_password: &ScramKey) -> ScramKey {
    hmac(salted_password, &[b"Server Key"])
}

pub(super) fn stored_key(client_key: &ScramKey) -> ScramKey {
    Sha256::digest(client_key).into()
}

/// Between a client's key and its proof, in both directions.
pub(super) fn xor(left: &ScramKey, right: &ScramKey) -> ScramKey {
    std::array::from_fn(|index| left[index] ^ right[index])
}

/// A salt that is always the same for the same user and seed, and tells nothing of either. At most 32 bytes.
pub(in crate::auth) fn made_up_salt(user: &str, seed: &[u8; 32], bytes: usize) -> Vec<u8> {
    let mut salt = hmac(seed, &[b"salt\0", user.as_bytes()]).to_vec();
    salt.truncate(bytes);
    salt
}

/// A number that is always the same for the same user and seed.
pub(in crate::auth) fn keyed_number(user: &str, seed: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hmac(seed, &[b"number\0", user.as_bytes()]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}
