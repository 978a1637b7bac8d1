//! Figures. `traffic` is what is counted by database, user and node, `queries` by statement, `histogram` how long things took,
//! `sqlstate` what went wrong, `counter` how all that is added up. Nothing here is global: who counts is handed what it counts with.

pub(crate) mod counter;
pub(crate) mod histogram;
mod queries;
mod sqlstate;
mod traffic;

pub use histogram::{Distribution, SHOWN_BOUNDS};
pub use queries::{Queries, QueryFigures, Ran};
pub use sqlstate::{Class, Errors};
pub use traffic::{Account, Accounts, Count, Figures, NodeNames, Tally};
