//! Taking clients in: `accept` accepts their connections, and `serving` hands each to a thread and lets it be served
//! there.

mod accept;
mod serving;

pub use accept::accept;
pub use serving::{Arrivals, Workers, balance, serve};
