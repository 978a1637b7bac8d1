//! The laboratory: real PostgreSQL clusters to throw away (`cluster`, `node`, `postgres`, `throwaway`: plain synchronous
//! code), and a load whose every write is accounted for (`load`, `ledger`). `poolhouse demo`, the tests and the benches
//! stand on it.

pub mod cluster;
pub mod data;
pub mod ledger;
pub mod load;
pub mod node;
pub mod postgres;
pub mod throwaway;
