//! The side that proves: from a password, or from the keys that a client of ours left in its own exchange.
//! Checks the server in return: one that does not know the verifier cannot sign.

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    ITERATIONS_MAX, SERVER_MESSAGE_BYTES_MAX, ScramKey,
    attributes::{Attributes, check_length, check_nonce, decode, decode_key, decode_number, encode},
    keys::{client_key, hmac, salted_password, server_key, stored_key, xor},
};
use crate::auth::{Credential, Error, saslprep};

/// No channel binding, no authorization identity.
const GS2_HEADER: &str = "n,,";

/// Has the first message to send, and waits for the server's.
pub struct ClientExchange {
    prover: Prover,
    nonce: String,
    /// client-first-message-bare: the first message without [`GS2_HEADER`].
    first_bare: String,
}

enum Prover {
    Password(Zeroizing<Vec<u8>>),
    Keys { client_key: Zeroizing<ScramKey>, server_key: Zeroizing<ScramKey>, salt: Vec<u8>, iterations: u32 },
}

/// All that it holds of the credential is.
impl ZeroizeOnDrop for ClientExchange {}

impl ClientExchange {
    /// `client_nonce` must be random and never used before: it keeps a server's signature from being played again.
    ///
    /// # Errors
    /// [`Error::NothingToProve`] when the credential is neither a password nor keys.
    pub fn new(credential: &Credential, client_nonce: [u8; 18]) -> Result<ClientExchange, Error> {
        let prover = match credential {
            Credential::Secret(secret) => {
                let password = secret.password().ok_or(Error::NothingToProve)?;
                Prover::Password(Zeroizing::new(saslprep(password.as_bytes()).into_owned()))
            }
            Credential::ScramKeys { client_key, server_key, salt, iterations } => Prover::Keys {
                client_key: Zeroizing::new(*client_key),
                server_key: Zeroizing::new(*server_key),
                salt: salt.clone(),
                iterations: *iterations,
            },
            Credential::None => return Err(Error::NothingToProve),
        };
        let nonce = encode(&client_nonce);
        // The user name is left out, as libpq does: it is in the startup packet.
        let first_bare = format!("n=,r={nonce}");
        Ok(ClientExchange { prover, nonce, first_bare })
    }

    /// The data of SASLInitialResponse.
    pub fn first(&self) -> Vec<u8> {
        format!("{GS2_HEADER}{}", self.first_bare).into_bytes()
    }

    /// How many rounds [`ClientExchange::respond`] to this message will take, each half a microsecond; 0 when it takes
    /// none, as with keys. Up to [`ITERATIONS_MAX`] of them: they are not for a thread that has others to serve.
    ///
    /// # Errors
    /// When the message is malformed, or asks for more.
    pub fn iterations(&self, server_first: &[u8]) -> Result<u32, Error> {
        check_length(server_first, SERVER_MESSAGE_BYTES_MAX)?;
        let offer = ServerFirst::parse(server_first)?;
        Ok(match self.prover {
            Prover::Password(_) => offer.iterations,
            Prover::Keys { .. } => 0,
        })
    }

    /// Takes the server's first message (the data of AuthenticationSASLContinue) and makes the data of SASLResponse.
    ///
    /// # Errors
    /// When the message is malformed or of another exchange, the iterations are out of range, or the keys belong to
    /// another verifier than the server's.
    pub fn respond(self, server_first: &[u8]) -> Result<(ClientExpectFinal, Vec<u8>), Error> {
        check_length(server_first, SERVER_MESSAGE_BYTES_MAX)?;
        let offer = ServerFirst::parse(server_first)?;
        // A server that adds nothing leaves the exchange open to replay.
        if !offer.nonce.starts_with(self.nonce.as_bytes()) || offer.nonce.len() == self.nonce.len() {
            return Err(Error::NonceMismatch);
        }
        let (client_key, server_key) = self.prover.keys(&offer)?;
        let without_proof = [b"c=", encode(GS2_HEADER.as_bytes()).as_bytes(), b",r=", offer.nonce].concat();
        let auth_message: [&[u8]; 5] = [self.first_bare.as_bytes(), b",", server_first, b",", &without_proof];
        let proof = xor(&client_key, &hmac(&stored_key(&client_key), &auth_message));
        let server_signature = hmac(&*server_key, &auth_message);
        let client_final = [without_proof.as_slice(), b",p=", encode(&proof).as_bytes()].concat();
        Ok((ClientExpectFinal { server_signature }, client_final))
    }
}

impl Prover {
    /// ClientKey and ServerKey.
    fn keys(self, offer: &ServerFirst<'_>) -> Result<(Zeroizing<ScramKey>, Zeroizing<ScramKey>), Error> {
        match self {
            Prover::Password(password) => {
                let salted = salted_password(&password, &offer.salt, offer.iterations);
                Ok((Zeroizing::new(client_key(&salted)), Zeroizing::new(server_key(&salted))))
            }
            Prover::Keys { client_key, server_key, salt, iterations } => {
                if salt != offer.salt || iterations != offer.iterations {
                    return Err(Error::KeysDoNotFit);
                }
                Ok((client_key, server_key))
            }
        }
    }
}

/// Waits for the server's signature.
pub struct ClientExpectFinal {
    server_signature: ScramKey,
}

impl ClientExpectFinal {
    /// Takes the server's last message (the data of AuthenticationSASLFinal). A server whose AuthenticationOk comes
    /// without it must be refused as well; that is the caller's to see.
    ///
    /// # Errors
    /// When the server's signature is wrong, or it sends an error in its place.
    pub fn finish(self, server_final: &[u8]) -> Result<(), Error> {
        check_length(server_final, SERVER_MESSAGE_BYTES_MAX)?;
        let mut attributes = Attributes::new(server_final);
        let signature = match attributes.next()? {
            Some((b'v', signature)) => signature,
            Some((b'e', reason)) => return Err(Error::ServerRefused { reason: printable(reason) }),
            _ => return Err(Error::Malformed("server-final-message has neither signature nor error")),
        };
        // An extension here would be signed by nobody.
        if attributes.next()?.is_some() {
            return Err(Error::Malformed("something follows the signature"));
        }
        let signature = decode_key(signature).ok_or(Error::Malformed("the signature is not 32 bytes in base64"))?;
        if self.server_signature.ct_eq(&signature).into() { Ok(()) } else { Err(Error::WrongServerSignature) }
    }
}

struct ServerFirst<'a> {
    nonce: &'a [u8],
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<ServerFirst<'a>, Error> {
        let mut attributes = Attributes::new(message);
        let nonce = attributes.expect(b'r', "server-first-message has no nonce")?;
        check_nonce(nonce)?;
        let salt = attributes.expect(b's', "server-first-message has no salt")?;
        let iterations = attributes.expect(b'i', "server-first-message has no iteration count")?;
        attributes.skip_extensions()?;
        let salt = decode(salt).filter(|salt| !salt.is_empty()).ok_or(Error::Malformed("the salt is not base64"))?;
        let iterations = decode_number(iterations).ok_or(Error::Malformed("the iteration count is not a number"))?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(Error::IterationsOutOfRange { iterations, limit: ITERATIONS_MAX });
        }
        Ok(ServerFirst { nonce, salt, iterations })
    }
}

/// What a server says goes to the log: no control characters, and not too much.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::tests::rfc_7677;

    fn exchange() -> ClientExchange {
        ClientExchange {
            prover: Prover::Password(b"pencil".to_vec().into()),
            nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(),
            first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
        }
    }

    #[test]
    fn example_of_rfc_7677() {
        assert_eq!(exchange().first(), rfc_7677::CLIENT_FIRST);
        let (expect_final, client_final) = exchange().respond(rfc_7677::SERVER_FIRST).unwrap();
        assert_eq!(client_final, rfc_7677::CLIENT_FINAL);
        assert_eq!(expect_final.finish(rfc_7677::SERVER_FINAL), Ok(()));
    }

    #[test]
    fn bad_offers_are_refused() {
        let refusal = |offer: &str| exchange().respond(offer.as_bytes()).err();
        let limit = ITERATIONS_MAX;
        for (offer, error) in [
            ("r=rOprNGfwEbeRWgbNEkqO,s=QSXCR+Q6sek8bf92,i=1", Error::NonceMismatch),
            ("r=another,s=QSXCR+Q6sek8bf92,i=1", Error::NonceMismatch),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QSXCR+Q6sek8bf92,i=0", Error::IterationsOutOfRange { iterations: 0, limit }),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=QSXCR+Q6sek8bf92,i=4294967295",
                Error::IterationsOutOfRange { iterations: u32::MAX, limit },
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=QSXCR+Q6sek8bf92,i=+1",
                Error::Malformed("the iteration count is not a number"),
            ),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=,i=1", Error::Malformed("the salt is not base64")),
            ("r=rOprNGfwEbeRWgbNEkqOx,i=1", Error::Malformed("server-first-message has no salt")),
            ("m=x,r=rOprNGfwEbeRWgbNEkqOx,s=QSXCR+Q6sek8bf92,i=1", Error::MandatoryExtension),
            ("", Error::Malformed("an attribute is not a letter, = and a value")),
        ] {
            assert_eq!(refusal(offer), Some(error), "{offer}");
        }
        assert_eq!(refusal("r=rOprNGfwEbeRWgbNEkqOx,s=QSXCR+Q6sek8bf92,i=1,x=later"), None);
        // Those who are asked how long it takes hear the same.
        let asked = |iterations: u32| {
            exchange().iterations(format!("r=rOprNGfwEbeRWgbNEkqOx,s=QSXCR+Q6sek8bf92,i={iterations}").as_bytes())
        };
        assert_eq!((asked(4096), asked(limit)), (Ok(4096), Ok(limit)));
        assert_eq!(asked(limit + 1), Err(Error::IterationsOutOfRange { iterations: limit + 1, limit }));
        let long = format!("r=rOprNGfwEbeRWgbNEkqO{}", "x".repeat(5000));
        assert!(matches!(refusal(&long), Some(Error::MessageTooLong { limit: SERVER_MESSAGE_BYTES_MAX, .. })));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let finish = |last: &[u8]| exchange().respond(rfc_7677::SERVER_FIRST).unwrap().0.finish(last);
        assert_eq!(finish(format!("v={}", encode(&[0; 32])).as_bytes()), Err(Error::WrongServerSignature));
        assert_eq!(finish(b"e=invalid\x1b-proof"), Err(Error::ServerRefused { reason: "invalid-proof".to_owned() }));
        let followed = [rfc_7677::SERVER_FINAL, b",x=y"].concat();
        for last in ["", "v=", "v=AAAA", "x=y", str::from_utf8(&followed).unwrap()] {
            assert!(matches!(finish(last.as_bytes()), Err(Error::Malformed(_))), "{last}");
        }
    }
}
