//! The life of a client that is logged in.
//!
//! `client` is its task; `exchange` moves the bytes between it and the server connection that it holds, and `resend`
//! says whether what it sent may be sent again; `lending` finds it a server connection, `waiting` is what it is told
//! while there is none, and `kept_back` one that it may want back at once. `limits` is how long it may take, `judge`
//! what its session asks of the world, `mail` what it does about notifications, `counting` what it counts, and `worker`
//! what the clients of one thread share.

mod client;
mod counting;
mod exchange;
mod judge;
mod kept_back;
mod lending;
mod limits;
mod mail;
mod resend;
mod waiting;
mod worker;

pub use client::{Client, ClientParts, Leave};
pub use judge::{OperatorJudge, begins_with};
pub use lending::{Acquired, acquire, acquire_from};
pub use waiting::WaitNotice;
pub use worker::Worker;
