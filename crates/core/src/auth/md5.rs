//! The md5 exchange (<https://www.postgresql.org/docs/current/auth-password.html>): a salted hash of the hash that is stored.
//! Weak, and kept for servers and clients that know nothing better.

use std::fmt::Write;

use ::md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::Secret;

/// What PostgreSQL stores for a user: `md5` and md5(password, user) in hexadecimal digits.
pub fn hash(user: &str, password: &str) -> String {
    prefixed_digest(password.as_bytes(), user.as_bytes())
}

/// What a client answers to a server's salt: `md5` and md5(stored digits, salt). None when the secret is a SCRAM
/// verifier or an empty password.
pub fn response(secret: &Secret, user: &str, salt: [u8; 4]) -> Option<String> {
    let stored = match secret {
        Secret::Plain(_) => hash(user, secret.password()?),
        Secret::Md5(stored) => stored.clone(),
        Secret::Scram(_) => return None,
    };
    Some(prefixed_digest(stored.strip_prefix("md5")?.as_bytes(), &salt))
}

/// Whether a client's answer (without the zero byte at its end) is right. Takes the same time wherever it is wrong.
pub fn verify(secret: &Secret, user: &str, salt: [u8; 4], answer: &[u8]) -> bool {
    response(secret, user, salt).is_some_and(|expected| expected.as_bytes().ct_eq(answer).into())
}

fn prefixed_digest(first: &[u8], second: &[u8]) -> String {
    let digest = Md5::new().chain_update(first).chain_update(second).finalize();
    let mut text = String::with_capacity(35);
    text.push_str("md5");
    for byte in digest {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored by PostgreSQL 15 for user `old` with password `sesame`.
    const STORED: &str = "md582b97a2d11135bae28f72b6c023e8b4c";

    #[test]
    fn hashes_as_postgresql_does() {
        assert_eq!(hash("old", "sesame"), STORED);
    }

    #[test]
    fn both_forms_give_the_same_answer() {
        let (plain, hashed) = (Secret::Plain("sesame".into()), Secret::Md5(STORED.into()));
        let answer = response(&plain, "old", [1, 2, 3, 0]).unwrap();
        assert_eq!(response(&hashed, "old", [1, 2, 3, 0]), Some(answer.clone()));
        for secret in [plain, hashed] {
            assert!(verify(&secret, "old", [1, 2, 3, 0], answer.as_bytes()));
            assert!(!verify(&secret, "old", [1, 2, 3, 1], answer.as_bytes()));
            assert!(!verify(&secret, "old", [1, 2, 3, 0], answer.to_uppercase().as_bytes()));
            assert!(!verify(&secret, "old", [1, 2, 3, 0], &answer.as_bytes()[..34]));
            assert!(!verify(&secret, "old", [1, 2, 3, 0], b""));
            assert!(!verify(&secret, "old", [1, 2, 3, 0], STORED.as_bytes()));
        }
    }

    #[test]
    fn the_user_is_part_of_a_password_hash() {
        let answer = response(&Secret::Plain("sesame".into()), "new", [0; 4]).unwrap();
        assert!(!verify(&Secret::Plain("sesame".into()), "old", [0; 4], answer.as_bytes()));
    }

    #[test]
    fn a_verifier_or_an_empty_password_answers_nothing() {
        for secret in [Secret::Scram("SCRAM-SHA-256$…".into()), Secret::Plain(String::new())] {
            assert_eq!(response(&secret, "old", [0; 4]), None);
            assert!(!verify(&secret, "old", [0; 4], hash("old", "").as_bytes()));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_guess_is_accepted(answer: Vec<u8>, salt: [u8; 4]) {
            proptest::prop_assert!(!verify(&Secret::Md5(STORED.into()), "old", salt, &answer));
        }
    }
}
