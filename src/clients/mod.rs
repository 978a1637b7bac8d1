//! Who is logged in: how others reach a client (cancel keys, orders to leave), what clients were told of late, and who
//! was not let in.

mod last_errors;
mod refused_logins;
mod registry;

pub use last_errors::{ClientError, LastErrors};
pub use refused_logins::RefusedLogins;
pub use registry::{
    About, Activity, Canceling, ClientPlace, Entry, LeaveOrder, PinnedClient, Registry, SECRET_BYTES, Slot,
};
