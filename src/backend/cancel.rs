//! Asking a server to cancel what one of its connections is doing (manual, "Canceling Requests in Progress").

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::Canceler;
use crate::net::{Attempt, Stream, Tcp};
use poolhouse_core::wire::startup;

/// Sends a CancelRequest and waits until the server has closed the connection: from then on the signal is delivered,
/// and what the connection runs later is safe from it. Errors are silent, as the protocol has no answer to this
/// request.
pub async fn cancel(canceler: &Canceler, limit: Duration) {
    let Canceler { address, key, tls, .. } = canceler;
    let request = async {
        let mut stream = match tls {
            Some(tls) => tls.connect(address, Tcp::TO_SERVERS, Attempt::Tls { plain: false }).await?,
            None => Stream::connect(address, Tcp::TO_SERVERS).await?,
        };
        let mut out = Vec::new();
        startup::cancel(key, &mut out);
        stream.write_all(&out).await?;
        // Nothing is sent back; the end of the stream is what is waited for.
        stream.read(&mut [0; 16]).await
    };
    match timeout(limit, request).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%address, %error, "a cancel request failed"),
        Err(_) => tracing::debug!(%address, "a cancel request was not answered in time"),
    }
}
