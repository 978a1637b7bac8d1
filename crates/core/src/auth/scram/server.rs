//! The side that checks: a client's first message, our challenge, its proof, our signature.
//!
//! As in PostgreSQL, the user name inside SCRAM is ignored (the startup packet has it) and a wrong proof is answered
//! with an ErrorResponse, which is the caller's to send, not with SCRAM's own error message.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    CLIENT_MESSAGE_BYTES_MAX, ScramKey, Verifier,
    attributes::{Attributes, check_length, check_nonce, decode, decode_key, encode, split_at_comma},
    keys::{hmac, stored_key, xor},
};
use crate::auth::{Credential, Error};

/// Waits for the client's first message.
pub struct ServerExchange {
    verifier: Verifier,
    /// Our part of the nonce, as it is sent.
    server_nonce: String,
}

impl ServerExchange {
    /// `server_nonce` must be random and never used before: it is what keeps a recorded proof from being played again.
    pub fn new(verifier: Verifier, server_nonce: [u8; 18]) -> ServerExchange {
        ServerExchange { verifier, server_nonce: encode(&server_nonce) }
    }

    /// Takes the client's first message (the data of SASLInitialResponse) and makes the data of
    /// AuthenticationSASLContinue.
    ///
    /// # Errors
    /// When the message is malformed, too long, or asks for channel binding, for another user's rights or for an
    /// extension.
    pub fn first(self, client_first: &[u8]) -> Result<(ServerExpectFinal, Vec<u8>), Error> {
        check_length(client_first, CLIENT_MESSAGE_BYTES_MAX)?;
        let (gs2_header, bare) = split_gs2_header(client_first)?;
        let mut attributes = Attributes::new(bare);
        attributes.expect(b'n', "client-first-message has no user name")?;
        let client_nonce = attributes.expect(b'r', "client-first-message has no nonce")?;
        check_nonce(client_nonce)?;
        attributes.skip_extensions()?;

        let nonce = [client_nonce, self.server_nonce.as_bytes()].concat();
        let server_first = [
            b"r=".as_slice(),
            &nonce,
            format!(",s={},i={}", encode(&self.verifier.salt), self.verifier.iterations).as_bytes(),
        ]
        .concat();
        let transcript = [bare, b",", &server_first, b","].concat();
        let next = ServerExpectFinal { verifier: self.verifier, gs2_header: gs2_header.to_vec(), nonce, transcript };
        Ok((next, server_first))
    }
}

/// Waits for the client's proof.
pub struct ServerExpectFinal {
    verifier: Verifier,
    gs2_header: Vec<u8>,
    /// The client's part and ours.
    nonce: Vec<u8>,
    /// AuthMessage of RFC 5802 up to the client's last message.
    transcript: Vec<u8>,
}

impl ServerExpectFinal {
    /// Takes the client's last message (the data of SASLResponse) and checks its proof, in the same time wherever it is
    /// wrong.
    ///
    /// # Errors
    /// [`Error::WrongProof`] for a wrong password and always for a mock; others when the message is malformed or
    /// belongs to another exchange.
    pub fn last(self, client_final: &[u8]) -> Result<Proven, Error> {
        check_length(client_final, CLIENT_MESSAGE_BYTES_MAX)?;
        let answer = ClientFinal::parse(client_final)?;
        if answer.channel_binding != self.gs2_header {
            return Err(Error::ChannelBindingChanged);
        }
        if answer.nonce != self.nonce {
            return Err(Error::NonceMismatch);
        }

        let auth_message: [&[u8]; 2] = [&self.transcript, answer.without_proof];
        let client_key = Zeroizing::new(xor(&answer.proof, &hmac(&self.verifier.stored_key, &auth_message)));
        let fits: bool = stored_key(&client_key).ct_eq(&self.verifier.stored_key).into();
        if !fits || self.verifier.is_mock {
            return Err(Error::WrongProof);
        }
        let signature = hmac(&self.verifier.server_key, &auth_message);
        let server_final = format!("v={}", encode(&signature)).into_bytes();
        Ok(Proven { server_final, client_key, verifier: self.verifier })
    }
}

/// The client knows the password. Never printed.
pub struct Proven {
    /// The data of AuthenticationSASLFinal: proves to the client that we knew its verifier.
    pub server_final: Vec<u8>,
    /// Logs in as the client wherever the same verifier is stored.
    pub client_key: Zeroizing<ScramKey>,
    verifier: Verifier,
}

impl Proven {
    /// What logs in to a server that stores the same verifier. Of no use when our verifier was made from a plain
    /// password, since its salt is our own: then use the password.
    pub fn credential(&self) -> Credential {
        Credential::ScramKeys {
            client_key: *self.client_key,
            server_key: self.verifier.server_key,
            salt: self.verifier.salt.clone(),
            iterations: self.verifier.iterations,
        }
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proven(…)")
    }
}

struct ClientFinal<'a> {
    /// Decoded.
    channel_binding: Vec<u8>,
    nonce: &'a [u8],
    proof: ScramKey,
    /// client-final-message-without-proof, part of AuthMessage.
    without_proof: &'a [u8],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Result<ClientFinal<'a>, Error> {
        let mut attributes = Attributes::new(message);
        let channel_binding = attributes.expect(b'c', "client-final-message has no channel binding")?;
        let nonce = attributes.expect(b'r', "client-final-message has no nonce")?;
        let proof = loop {
            match attributes.next()? {
                Some((b'p', proof)) => break proof,
                Some((b'm', _)) => return Err(Error::MandatoryExtension),
                Some(_extension) => {}
                None => return Err(Error::Malformed("client-final-message has no proof")),
            }
        };
        if attributes.next()?.is_some() {
            return Err(Error::Malformed("something follows the proof"));
        }
        let without_proof = &message[..message.len() - ",p=".len() - proof.len()];
        Ok(ClientFinal {
            channel_binding: decode(channel_binding).ok_or(Error::Malformed("the channel binding is not base64"))?,
            nonce,
            proof: decode_key(proof).ok_or(Error::Malformed("the proof is not 32 bytes in base64"))?,
            without_proof,
        })
    }
}

/// Cuts the first message into what concerns channel binding (with both commas) and the rest, which is
/// client-first-message-bare. `y` says that the client could bind channels and thinks we could not, which is so.
fn split_gs2_header(message: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    const TRUNCATED: Error = Error::Malformed("client-first-message has no gs2 header");
    let (flag, rest) = split_at_comma(message).ok_or(TRUNCATED)?;
    match flag {
        b"n" | b"y" => {}
        [b'p', b'=', ..] => return Err(Error::ChannelBindingNotOffered),
        _ => return Err(Error::Malformed("the channel binding flag is not n, y or p")),
    }
    let (identity, bare) = split_at_comma(rest).ok_or(TRUNCATED)?;
    match identity {
        b"" => Ok((&message[..message.len() - bare.len()], bare)),
        [b'a', b'=', ..] => Err(Error::AuthorizationIdentity),
        _ => Err(Error::Malformed("the gs2 header has an unknown part")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::tests::rfc_7677;

    #[test]
    fn example_of_rfc_7677() {
        let verifier = Verifier::derive("pencil", &decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
        let exchange = ServerExchange { verifier, server_nonce: rfc_7677::SERVER_NONCE.to_owned() };
        let (exchange, server_first) = exchange.first(rfc_7677::CLIENT_FIRST).unwrap();
        assert_eq!(server_first, rfc_7677::SERVER_FIRST);
        let proven = exchange.last(rfc_7677::CLIENT_FINAL).unwrap();
        assert_eq!(proven.server_final, rfc_7677::SERVER_FINAL);
    }

    #[test]
    fn a_mock_accepts_not_even_a_right_proof() {
        let salt = decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let mut verifier = Verifier::derive("pencil", &salt, 4096);
        verifier.is_mock = true;
        let exchange = ServerExchange { verifier, server_nonce: rfc_7677::SERVER_NONCE.to_owned() };
        let (exchange, _) = exchange.first(rfc_7677::CLIENT_FIRST).unwrap();
        assert_eq!(exchange.last(rfc_7677::CLIENT_FINAL).unwrap_err(), Error::WrongProof);
    }
}
