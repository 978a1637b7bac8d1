//! Sockets for everyone: addresses, streams and listeners, and who may be there before it is known who they are.

pub mod address;
pub mod admission;
pub mod client_tls;
pub mod encrypted;
pub mod listener;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod wrong_guesses;

pub use address::{Address, Listen};
pub use admission::{Admission, Admitted, Crowd};
pub use client_tls::{ClientTls, ClientTlsFiles, HANDSHAKE};
pub use listener::Listener;
pub use stream::{Ends, Stream};
pub use tcp::Tcp;
pub use tls::{Attempt, LiveTls, SYSTEM, ServerTls, TlsFiles, TlsMistake, TlsMode, TlsVersion};
pub use wrong_guesses::WrongGuesses;
