//! Sessions against model servers: transcripts that can be read, and random scripts whose every client must see what it
//! would see alone on a server of its own.

pub mod costs;
mod leaving;
mod listening;
mod own;
mod random;
mod roaming;
mod seeds;
mod transcripts;
mod verbatim;

use crate::testing::{bodies, message, player, script};
