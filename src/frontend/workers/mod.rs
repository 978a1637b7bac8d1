//! The threads that serve clients: how many of them work (`balance`, a pure rule), and where each is told which of its
//! clients are to move (`post`).

mod balance;
mod post;

pub use balance::{ALL, BUSY, Load, MoveOrder, Spread};
pub use post::Post;
