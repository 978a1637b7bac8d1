//! Sockets that accept clients. They are bound before any runtime exists, so that a port in use is told at once.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::PathBuf,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{Listen, Stream, Tcp};

/// Connections that may wait in the kernel until they are accepted.
const BACKLOG: i32 = 4096;

/// A bound socket that does not belong to an event loop yet.
#[derive(Debug)]
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix { listener: StdUnixListener, path: PathBuf },
}

/// A listener on the event loop of the thread that opened it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// Its file is removed when the listener goes.
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
}

/// Binds one address of `server.listen`. A socket file that nobody listens on any more is replaced.
pub fn bind(listen: &Listen) -> io::Result<Bound> {
    match listen {
        Listen::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(Bound::Tcp(socket.into()))
        }
        Listen::Unix { directory, port } => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            if path.exists() && StdUnixStream::connect(&path).is_err() {
                fs::remove_file(&path)?;
            }
            let listener = StdUnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            listener.set_nonblocking(true)?;
            Ok(Bound::Unix { listener, path })
        }
    }
}

impl Bound {
    /// Joins the event loop of the calling thread.
    pub fn open(self) -> io::Result<Listener> {
        Ok(match self {
            Bound::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix { listener, path } => Listener::Unix { listener: UnixListener::from_std(listener)?, path },
        })
    }
}

impl Listener {
    /// The next client. Cancel-safe.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(stream.into_std()?, peer.ip()))
            }
            Listener::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix { path, .. } = self {
            // Whoever removed it before has done what we want.
            let _ = fs::remove_file(path);
        }
    }
}

/// An accepted client on its way to the thread that will serve it.
#[derive(Debug)]
pub enum Accepted {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(StdUnixStream),
}

impl Accepted {
    /// Where it comes from; a Unix socket has no address.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp(_, peer) => Some(*peer),
            Accepted::Unix(_) => None,
        }
    }

    /// Joins the event loop of the calling thread.
    pub fn open(self, tcp: Tcp) -> io::Result<Stream> {
        match self {
            Accepted::Tcp(stream, _) => Stream::from_tcp(tokio::net::TcpStream::from_std(stream)?, tcp),
            Accepted::Unix(stream) => Ok(Stream::Unix(tokio::net::UnixStream::from_std(stream)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error() {
        let first = bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Bound::Tcp(listener) = &first else { panic!("not TCP") };
        let again = bind(&Listen::Tcp(listener.local_addr().unwrap()));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let directory = std::env::temp_dir().join(format!("poolhouse-listener-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let listen = Listen::Unix { directory: directory.clone(), port: 6432 };
        drop(bind(&listen).unwrap());
        let live = bind(&listen).unwrap().open().unwrap();
        assert_eq!(bind(&listen).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(!directory.join(".s.PGSQL.6432").exists());
        fs::remove_dir_all(directory).unwrap();
    }
}
