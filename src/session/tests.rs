//! Sessions against model servers: transcripts that can be read, and random scripts whose every client must see what it
//! would see alone on a server of its own.

#[path = "../../tests/fuzz/src/bodies.rs"]
mod bodies;
pub mod costs;
mod leaving;
mod listening;
mod message;
mod model;
mod own;
mod player;
mod random;
mod roaming;
mod script;
mod seeds;
mod transcripts;
mod verbatim;
