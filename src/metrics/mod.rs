//! Figures. `traffic` is what is counted by database, user and node, `queries` by statement, `histogram` how long things took,
//! `sqlstate` what went wrong, `counter` how all that is added up. Nothing here is global: who counts is handed what it counts with.

mod counter;
mod histogram;
mod queries;
mod sqlstate;
mod traffic;

pub use counter::Writers;
pub use histogram::{Distribution, Histogram, SHOWN_BOUNDS};
pub use queries::{Queries, QueryFigures, Ran};
pub use sqlstate::{Class, ErrorCounters, Errors};
pub use traffic::{Account, Accounts, Count, Figures, LoginWait, NodeNames, Tally, Traffic};
