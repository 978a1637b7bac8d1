//! Bytes ⇄ messages of PostgreSQL's protocol 3.x. Pure.
//!
//! `frame` finds where messages begin and end, `request` reads and writes what clients send, `reply` what servers send,
//! `startup` the packets without a type byte that open a connection, `error` the ErrorResponse and its SQLSTATEs.
//! The rules come from the PostgreSQL manual, chapter "Frontend/Backend Protocol".

pub mod error;
pub mod frame;
pub mod reply;
pub mod request;
pub mod startup;

pub use error::{ErrorFields, SqlState};
pub use frame::{Header, header};

/// What a peer did that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("message type {tag:#04x} has the impossible length {length}")]
    /// A length that no message of this type may have.
    Length {
        /// The message's type.
        tag: u8,
        /// What its length word says, which counts itself.
        length: u32,
    },
    /// A type that no message has in this direction.
    #[error("unknown message type {0:#04x}")]
    UnknownMessage(u8),
    /// The body is not as the protocol lays it out; the message's name.
    #[error("malformed {0} message")]
    Malformed(&'static str),
    /// A length that no startup packet may have, in bytes.
    #[error("startup packet of {0} bytes")]
    StartupLength(u32),
    /// The startup packet is not pairs of texts with a terminator behind them.
    #[error("malformed startup packet")]
    StartupLayout,
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{}", startup::MINOR_VERSION)]
    /// A protocol that is not spoken here.
    Version {
        /// The upper half of the version's number.
        major: u16,
        /// The lower half.
        minor: u16,
    },
}
