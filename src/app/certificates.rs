//! Certificates that clients are shown, read again when their files change: nobody has to tell Poolhouse that they were
//! renewed.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{frontend::Frontend, net::ClientTls, tasks::Scope};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Looks until `scope` stops. While the files do not fit each other the old ones stay: a certificate and its key cannot change
/// at one moment.
pub async fn watch(frontend: Arc<Frontend>, scope: Scope) {
    let files = |frontend: &Frontend| frontend.settings().tls.files().clone();
    let mut seen = files(&frontend).stamps();
    let mut told = String::new();
    loop {
        tokio::select! {
            biased;
            () = scope.stopping() => return,
            () = sleep(INTERVAL) => {}
        }
        let now = files(&frontend);
        let stamps = now.stamps();
        if stamps == seen {
            continue;
        }
        match ClientTls::new(now) {
            Ok(tls) => {
                if tls != *frontend.settings().tls {
                    frontend.set_tls(Arc::new(tls));
                    tracing::info!("the certificates for clients have changed and were read again");
                }
                seen = stamps;
                told.clear();
            }
            Err(mistake) => {
                let why = format!("tls.{} {}", mistake.key, mistake.what);
                if why != told {
                    tracing::warn!(
                        why,
                        mend = mistake.mend,
                        "the certificates for clients have changed, and the old ones stay"
                    );
                    told = why;
                }
            }
        }
    }
}
