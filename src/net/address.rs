//! Where a server is and where we listen, as the configuration spells it.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// Where a PostgreSQL server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or IP address (without brackets) and a port.
    Tcp { host: String, port: u16 },
    /// The directory that holds PostgreSQL's socket `.s.PGSQL.<port>`.
    Unix { directory: PathBuf, port: u16 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix { directory, port } => write!(f, "unix:{}:{port}", directory.display()),
        }
    }
}

/// One entry of `server.listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    /// A directory, in which the socket is called `.s.PGSQL.<port>` as libpq expects it.
    Unix {
        directory: PathBuf,
        port: u16,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix { directory, port } => write!(f, "unix:{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}
