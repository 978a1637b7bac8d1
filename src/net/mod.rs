//! Sockets for everyone: addresses, streams, buffers and listeners.

pub mod address;

pub use address::{Address, Listen};
