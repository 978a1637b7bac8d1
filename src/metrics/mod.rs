//! Figures. `traffic` is where is counted by database, user and node, and `counts` declares what; `queries` is by
//! statement, `histogram` how long things took, `sqlstate` what went wrong, `counter` how all that is added up. Nothing
//! here is global: who counts is handed what it counts with.
//!
//! # A new metric
//!
//! 1. Its declaration, with its name, kind, help and labels: of what is counted by database, user and node, in `counts`; of
//!    all else, in `admin::metrics`, together with how it is read. The page comes from these.
//! 2. Its use: `Tally::add`, or whatever is read.
//! 3. Its row in docs/metrics.md, which a test compares with the declaration, and prints when it lacks.
//!
//! Those of `counts` that SHOW STATS has, too, are named in `admin::totals`.

pub(crate) mod counter;
mod counts;
pub(crate) mod histogram;
mod metric;
mod queries;
mod sqlstate;
mod traffic;

pub use counts::{COUNTED, Count, TIMED};
pub use histogram::{Distribution, SHOWN_BOUNDS};
pub use metric::{Kind, Metric};
pub use queries::{Queries, QueryFigures, Ran};
pub use sqlstate::{Errors, SqlStateClass};
pub use traffic::{Account, Accounts, Figures, NodeNames, Tally};
