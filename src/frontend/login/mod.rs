//! From the first byte of a connection to the first ReadyForQuery: `startup_packet` is what a client asks for,
//! `logging_in` finds out who it is, `beginning` how its session begins, and `refusal` why it is not let in.

mod beginning;
mod logging_in;
mod refusal;
mod startup_packet;

pub use logging_in::{Served, log_in};
