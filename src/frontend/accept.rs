//! Accepting clients.

use std::{io, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::Workers;
use crate::{net::Listener, session::Route, tasks::Scope};

/// Pause after an accept that failed for want of a resource, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients until the scope is asked to stop, but not while all is suspended. All of them have the `route`, if there
/// is one.
pub async fn accept(
    listener: Listener,
    route: Option<Route>,
    workers: Workers,
    mut suspended: watch::Receiver<bool>,
    scope: Scope,
) {
    loop {
        let is_suspended = *suspended.borrow_and_update();
        let accepted = tokio::select! {
            accepted = listener.accept(), if !is_suspended => accepted,
            Ok(()) = suspended.changed() => continue,
            () = scope.stopping() => return,
        };
        match accepted {
            Ok(client) => workers.take_in(client, route),
            Err(error) if is_of_one_client(&error) => {}
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
