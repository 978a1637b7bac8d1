//! What can go wrong while somebody proves who they are. For the log: a client is told one sentence for all of it,
//! lest it learns which part was right.

/// An exchange that failed. Holds no secret and no bytes of the peer, except for what a server said was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a SCRAM message of {bytes} bytes, more than the {limit} that are allowed")]
    /// Refused before it is read, since whoever sends it has proved nothing yet.
    MessageTooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The peer's message breaks the grammar of RFC 5802, section 7; which part of it.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The client chose a mechanism or a flag with channel binding.
    #[error("the client asks for channel binding, which was not offered")]
    ChannelBindingNotOffered,
    /// `c=` of the last message is not the header of the first (RFC 5802, section 5.1).
    #[error("the channel binding data is not what the exchange began with")]
    ChannelBindingChanged,
    /// `a=` in the client's first message, which PostgreSQL refuses, too.
    #[error("the client asks to act as another user (a SCRAM authorization identity)")]
    AuthorizationIdentity,
    /// `m=`, which RFC 5802 reserves: whoever does not know it must fail.
    #[error("the peer demands a SCRAM extension (m=) that is not known")]
    MandatoryExtension,
    /// The peer's nonce does not begin with ours, or is not the one agreed on.
    #[error("the nonce is not the one of this exchange")]
    NonceMismatch,
    /// Wrong password, unknown user, or a user that cannot log in by this method: `Directory::refusal` tells.
    #[error("the proof does not fit the password")]
    WrongProof,
    #[error(
        "the server asks for {iterations} SCRAM iterations, and Poolhouse takes 1 to {limit}: set the user's password \
         there anew with a smaller scram_iterations"
    )]
    /// A server may not make us compute for as long as it likes.
    IterationsOutOfRange {
        /// What the server asks for.
        iterations: u32,
        /// Most that are computed.
        limit: u32,
    },
    #[error(
        "the server's SCRAM salt or iteration count is not that of the keys: its stored password differs from ours"
    )]
    /// A SCRAM exchange can only be repeated with the keys that a client proved when salt and iterations are the same.
    KeysDoNotFit,
    /// The credential is empty.
    #[error("there is no password and there are no SCRAM keys to log in with")]
    NothingToProve,
    /// The server's last message does not prove that it knows the verifier: it may be somebody else.
    #[error("the server's signature is wrong: it does not know the password")]
    WrongServerSignature,
    #[error("the server ended the SCRAM exchange: {reason}")]
    /// The last message is `e=` (RFC 5802, section 7).
    ServerRefused {
        /// The server's word for it, such as `invalid-proof`.
        reason: String,
    },
}
