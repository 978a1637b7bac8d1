//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, as machines that consume themselves: a message goes in, the next
//! state and the message to send come out. Channel binding (`-PLUS`) is not offered.
//!
//! A client: [`ClientExchange`] → first → respond → finish. A server: [`ServerExchange`] → first → last, checked against
//! a [`Verifier`]. The client's key that a server sees in a good exchange can log in elsewhere: [`Proven::credential`].

mod attributes;
mod client;
mod keys;
mod server;
#[cfg(test)]
mod tests;
mod verifier;

pub use client::{ClientExchange, ClientExpectFinal};
pub use keys::ScramKey;
pub(super) use keys::{keyed_number, made_up_salt};
pub use server::{Proven, ServerExchange, ServerExpectFinal};
pub use verifier::{MalformedVerifier, Verifier};

/// The name of the mechanism in AuthenticationSASL and SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// PostgreSQL's own default.
pub const ITERATIONS_DEFAULT: u32 = 4096;

/// The most rounds that a server may ask of us: about half a second of work, and more than is recommended anywhere for
/// passwords. Without a limit, whoever answers at a server's address could keep a processor busy for minutes.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// What is done in a few hundredths of a second. More is put behind all others' work, since a server may ask for it that
/// is not what it should be.
pub const ITERATIONS_SHORT: u32 = 32_768;

/// The length of the salts that PostgreSQL makes.
pub const SALT_BYTES: usize = 16;

/// The longest message that is taken from a client: PostgreSQL's limit.
const CLIENT_MESSAGE_BYTES_MAX: usize = 1024;

/// The longest message that is taken from a server. Salts may have any length; nobody makes them this long.
const SERVER_MESSAGE_BYTES_MAX: usize = 4096;
