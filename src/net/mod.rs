//! Sockets for everyone: addresses, streams and listeners.

pub mod address;
pub mod listener;
pub mod stream;

pub use address::{Address, Listen};
pub use listener::Listener;
pub use stream::{Ends, Stream};
