//! Accepting clients.

use std::{io, sync::Arc, time::Duration};

use rustix::io::Errno;
use tokio::time::sleep;

use super::serving::Workers;
use crate::{frontend::shared::Frontend, net::Listener, tasks::Scope};
use poolhouse_core::session::Route;

/// Pause after an accept that failed for want of a resource, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The same, when somebody gives way who has not proved yet who it is.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// Accepts clients until the scope is asked to stop, but not while all is suspended. All of them have the `route`, if
/// there is one.
pub async fn accept(listener: Listener, route: Option<Route>, workers: Workers, frontend: Arc<Frontend>, scope: Scope) {
    let mut suspended = frontend.gates.suspended.subscribe();
    loop {
        let is_suspended = *suspended.borrow_and_update();
        let accepted = tokio::select! {
            accepted = listener.accept(), if !is_suspended => accepted,
            Ok(()) = suspended.changed() => continue,
            () = scope.stopping() => return,
        };
        match accepted {
            Ok(client) => {
                let stranger = frontend.strangers.admit(client.peer(), frontend.settings().logins);
                workers.take_in(client, route, stranger);
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) if lacks_files(&error) && frontend.strangers.make_room() => sleep(ROOM_PAUSE).await,
            Err(error) => {
                tracing::warn!(%error, "cannot accept clients; raise the limit of open files (ulimit -n) if that is it");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that mean only that the client has gone again.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// There is no file descriptor left.
fn lacks_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
