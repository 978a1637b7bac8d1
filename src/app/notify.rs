//! Tells the service manager how things stand, by systemd's protocol (manual, `sd_notify(3)`): a datagram to the socket that
//! NOTIFY_SOCKET names. Without that variable nothing is said.

use std::{
    convert::Infallible,
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    time::Duration,
};

/// The service manager, if there is one that wants to know.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that all is well; `None` when it does not.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn of_environment() -> ServiceManager {
        let variable = |name| env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|path| open(&path));
        let watchdog = socket.as_ref().and_then(|_| {
            interval(variable("WATCHDOG_USEC")?.as_str(), variable("WATCHDOG_PID").as_deref(), process::id())
        });
        ServiceManager { socket, watchdog }
    }

    /// Clients are served.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration is read again; [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000));
    }

    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says now and then that all is well, for as long as it is awaited: whoever hangs says nothing.
    pub async fn keep_watchdog(&self) -> Infallible {
        let Some(interval) = self.watchdog else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, what: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
            tracing::warn!(%error, what, "cannot tell the service manager");
        }
    }
}

/// A path begins with a slash, an abstract name with @.
fn open(path: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    };
    let opened = address.and_then(|address| Ok((UnixDatagram::unbound()?, address)));
    opened.map_err(|error| tracing::warn!(%error, path, "NOTIFY_SOCKET cannot be used")).ok()
}

/// Half of the time within which a word is expected; `None` when it is another process that is watched.
fn interval(micros: &str, of: Option<&str>, process: u32) -> Option<Duration> {
    let is_ours = of.is_none_or(|of| of.parse() == Ok(process));
    let micros = micros.parse::<u64>().ok().filter(|micros| *micros > 0 && is_ours)?;
    Some(Duration::from_micros(micros / 2).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_wants_to_hear_twice_as_often() {
        assert_eq!(interval("2000000", None, 7), Some(Duration::from_secs(1)));
        assert_eq!(interval("2000000", Some("7"), 7), Some(Duration::from_secs(1)));
        for (micros, of) in [("2000000", Some("8")), ("0", None), ("", None), ("x", None), ("2000000", Some(""))] {
            assert_eq!(interval(micros, of, 7), None, "{micros} {of:?}");
        }
    }

    #[test]
    fn words_reach_a_socket_by_path_or_abstract_name() {
        let name = format!("poolhouse-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listening = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager { socket: open(&format!("@{name}")), watchdog: None };
        manager.ready();
        manager.stopping();
        let mut buffer = [0; 64];
        for expected in ["READY=1", "STOPPING=1"] {
            let length = listening.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
        assert!(ServiceManager { socket: None, watchdog: None }.socket.is_none());
    }
}
