//! What logs in to a server. Each helper answers one request that a server may make, or says that it cannot.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    Error, Secret, md5,
    scram::{ClientExchange, ScramKey},
};

/// What is known to log in to a server with. Never printed, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credential {
    /// Only a server that trusts lets this in.
    #[default]
    None,
    /// A password, or what is stored in its place: answers whatever it can.
    Secret(Secret),
    /// From the exchange of a client that proved its password to us: opens every server that stores the very same
    /// verifier (same salt and iterations), and no other.
    ScramKeys {
        /// ClientKey of RFC 5802, with which the proof is made.
        client_key: ScramKey,
        /// ServerKey of RFC 5802, with which the server's signature is checked.
        server_key: ScramKey,
        /// The salt that the keys were derived with; the server must name the same.
        salt: Vec<u8>,
        /// The iterations that the keys were derived with; the server must name as many.
        iterations: u32,
    },
}

impl Credential {
    /// The answer to AuthenticationCleartextPassword: needs the password.
    pub fn cleartext_answer(&self) -> Option<&str> {
        match self {
            Credential::Secret(secret) => secret.password(),
            Credential::None | Credential::ScramKeys { .. } => None,
        }
    }

    /// The answer to AuthenticationMD5Password: needs the password or its md5 hash.
    pub fn md5_answer(&self, user: &str, salt: [u8; 4]) -> Option<String> {
        match self {
            Credential::Secret(secret) => md5::response(secret, user, salt),
            Credential::None | Credential::ScramKeys { .. } => None,
        }
    }

    /// The exchange for AuthenticationSASL with `SCRAM-SHA-256`: needs the password or keys.
    ///
    /// # Errors
    /// [`Error::NothingToProve`] when there is neither.
    pub fn scram_exchange(&self, client_nonce: [u8; 18]) -> Result<ClientExchange, Error> {
        ClientExchange::new(self, client_nonce)
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        if let Credential::ScramKeys { client_key, server_key, .. } = self {
            client_key.zeroize();
            server_key.zeroize();
        }
    }
}

impl ZeroizeOnDrop for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::None => f.write_str("None"),
            Credential::Secret(secret) => f.debug_tuple("Secret").field(secret).finish(),
            Credential::ScramKeys { .. } => f.write_str("ScramKeys(…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_can_answer() {
        let hash = md5::hash("app", "sesame");
        let keys =
            Credential::ScramKeys { client_key: [1; 32], server_key: [2; 32], salt: vec![3; 16], iterations: 4096 };
        let cases = [
            (Credential::None, [false, false, false]),
            (Credential::Secret(Secret::Plain("sesame".into())), [true, true, true]),
            (Credential::Secret(Secret::Plain(String::new())), [false, false, false]),
            (Credential::Secret(Secret::Md5(hash)), [false, true, false]),
            (Credential::Secret(Secret::Scram("SCRAM-SHA-256$…".into())), [false, false, false]),
            (keys, [false, false, true]),
        ];
        for (credential, expected) in cases {
            let can = [
                credential.cleartext_answer().is_some(),
                credential.md5_answer("app", [0; 4]).is_some(),
                credential.scram_exchange([0; 18]).is_ok(),
            ];
            assert_eq!(can, expected, "{credential:?}");
        }
    }

    #[test]
    fn what_opens_servers_is_overwritten_when_it_is_dropped() {
        fn is_overwritten<T: ZeroizeOnDrop>() {}
        is_overwritten::<Secret>();
        is_overwritten::<Credential>();
        is_overwritten::<crate::auth::scram::Verifier>();
        is_overwritten::<ClientExchange>();
    }

    #[test]
    fn debug_hides_keys() {
        let keys = Credential::ScramKeys { client_key: [77; 32], server_key: [77; 32], salt: vec![77], iterations: 77 };
        assert!(!format!("{keys:?}").contains("77"));
    }
}
