//! What can go wrong while somebody proves who they are. For the log: a client is told one sentence for all of it,
//! lest it learns which part was right.

/// An exchange that failed. Holds no secret and no bytes of the peer, except for what a server said was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a SCRAM message of {bytes} bytes, more than the {limit} that are allowed")]
    MessageTooLong { bytes: usize, limit: usize },
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    #[error("the client asks for channel binding, which was not offered")]
    ChannelBindingNotOffered,
    #[error("the channel binding data is not what the exchange began with")]
    ChannelBindingChanged,
    #[error("the client asks to act as another user (a SCRAM authorization identity)")]
    AuthorizationIdentity,
    #[error("the peer demands a SCRAM extension (m=) that is not known")]
    MandatoryExtension,
    #[error("the nonce is not the one of this exchange")]
    NonceMismatch,
    /// Wrong password, unknown user, or a user that cannot log in by this method: `Directory::refusal` tells.
    #[error("the proof does not fit the password")]
    WrongProof,
    #[error(
        "the server asks for {iterations} SCRAM iterations, and Poolhouse takes 1 to {limit}: set the user's password \
         there anew with a smaller scram_iterations"
    )]
    IterationsOutOfRange { iterations: u32, limit: u32 },
    #[error(
        "the server's SCRAM salt or iteration count is not that of the keys: its stored password differs from ours"
    )]
    KeysDoNotFit,
    #[error("there is no password and there are no SCRAM keys to log in with")]
    NothingToProve,
    #[error("the server's signature is wrong: it does not know the password")]
    WrongServerSignature,
    #[error("the server ended the SCRAM exchange: {reason}")]
    ServerRefused { reason: String },
}
