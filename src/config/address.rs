//! Addresses as the configuration spells them: where servers are and where Poolhouse listens.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use super::mistake::{Findings, Place, Wrong};
use crate::net::{Address, Listen};

/// PostgreSQL's port.
pub(super) const SERVER_PORT: u16 = 5432;
/// Poolhouse's own.
const LISTEN_PORT: u16 = 6432;
/// Where clients connect when nothing is said.
pub(super) const LISTEN_DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], LISTEN_PORT);
/// The path of a Unix socket must fit into `sockaddr_un` with its closing NUL.
const SOCKET_PATH_MAX: usize = 107;
/// RFC 1035, section 2.3.4.
const HOST_NAME_MAX: usize = 253;

/// A server: `host`, `host:port`, `[::1]:5432` or `unix:/directory`, with `:port` when it is not 5432.
pub(super) fn server(text: &str, directory: &Path) -> Result<Address, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        let (path, port) = socket_directory(path)?;
        return unix_server(&directory.join(path), port.unwrap_or(SERVER_PORT));
    }
    let (host, port) = split_port(text)?;
    let host = host_name(host)?;
    match port {
        Some(0) => Err(Wrong::new(format!("\"{text}\" has port 0"), "give the server's port, usually 5432")),
        port => Ok(Address::Tcp { host, port: port.unwrap_or(SERVER_PORT) }),
    }
}

pub(super) fn unix_server(directory: &Path, port: u16) -> Result<Address, Wrong> {
    fits_socket(directory, port)?;
    Ok(Address::Unix { directory: directory.to_owned(), port })
}

/// The addresses to listen at. A Unix socket without a port takes that of the first TCP address, else 6432.
pub(super) fn listens(entries: &[(Place, &str)], directory: &Path, findings: &mut Findings) -> Vec<Listen> {
    let tcp = |text: &str| (!text.starts_with("unix:")).then(|| tcp_listen(text));
    let first = entries.iter().find_map(|(_, text)| tcp(text)?.ok());
    let port = first.map_or(LISTEN_PORT, |address| if address.port() == 0 { LISTEN_PORT } else { address.port() });
    let mut listens = Vec::new();
    for (place, text) in entries {
        let parsed = match text.strip_prefix("unix:") {
            Some(path) => unix_listen(path, directory, port),
            None => tcp_listen(text).map(Listen::Tcp),
        };
        match parsed {
            Err(wrong) => findings.wrong(place, wrong),
            Ok(listen) if listens.contains(&listen) && !is_any_port(&listen) => {
                findings.mistake(place, format!("\"{text}\" is already in the list"), "remove one of them");
            }
            Ok(listen) => listens.push(listen),
        }
    }
    listens
}

fn is_any_port(listen: &Listen) -> bool {
    matches!(listen, Listen::Tcp(address) if address.port() == 0)
}

fn unix_listen(path: &str, directory: &Path, port: u16) -> Result<Listen, Wrong> {
    let (path, own_port) = socket_directory(path)?;
    let directory = directory.join(path);
    let port = own_port.unwrap_or(port);
    fits_socket(&directory, port)?;
    Ok(Listen::Unix { directory, port })
}

fn tcp_listen(text: &str) -> Result<SocketAddr, Wrong> {
    if let Some(port) = text.strip_prefix("*:").or_else(|| text.strip_prefix(':')) {
        let mend = format!("write \"0.0.0.0:{port}\", and \"[::]:{port}\" for IPv6, to listen on every interface");
        return Err(Wrong::new(format!("\"{text}\" names no interface"), mend));
    }
    if text.parse::<u16>().is_ok() {
        return Err(Wrong::new(
            format!("\"{text}\" is a port without an address"),
            format!("write \"127.0.0.1:{text}\""),
        ));
    }
    let (host, port) = split_port(text)?;
    let address = match host_name(host)?.as_str() {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().map_err(|_| {
            let mend = "write the IP address of the interface, or \"localhost\"";
            Wrong::new(format!("\"{text}\" is a host name, which may be any interface"), mend)
        })?,
    };
    Ok(SocketAddr::new(address, port.unwrap_or(LISTEN_PORT)))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` into host and port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), Wrong> {
    if text.contains("://") || text.contains('@') {
        return Err(Wrong::new("is a URL where an address is expected", "write only host:port"));
    }
    if text.starts_with('/') {
        return Err(Wrong::new(format!("\"{text}\" is a path"), format!("write \"unix:{text}\" for a Unix socket")));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let unclosed = || Wrong::new(format!("\"{text}\" lacks its `]`"), "write it like \"[::1]:5432\"");
        let (host, rest) = rest.split_once(']').ok_or_else(unclosed)?;
        (host, (!rest.is_empty()).then_some(rest).map(|rest| rest.strip_prefix(':').unwrap_or(rest)))
    } else if text.matches(':').count() > 1 {
        let mend = "write IPv6 addresses in brackets, like \"[::1]:5432\"";
        return Err(Wrong::new(format!("\"{text}\" has more than one colon"), mend));
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let port = port.map(|port| parse_port(port).ok_or_else(|| bad_port(text))).transpose()?;
    Ok((host, port))
}

/// Digits only: no sign, no space.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn bad_port(text: &str) -> Wrong {
    Wrong::new(format!("\"{text}\" has no valid port"), "write a port from 1 to 65535 after the colon")
}

/// A name or an IP address without brackets, checked for its letters only: names are looked up while running.
pub(super) fn host_name(host: &str) -> Result<String, Wrong> {
    if host.is_empty() {
        return Err(Wrong::new("has no host", "write it like \"db.example.com:5432\""));
    }
    let is_v6 = host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let is_letters = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let is_name = is_letters && host.len() <= HOST_NAME_MAX;
    let is_numbers = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_v6 || is_name && (!is_numbers || host.parse::<Ipv4Addr>().is_ok()) {
        return Ok(host.to_owned());
    }
    Err(Wrong::new(
        format!("{host:?} is no host name and no IP address"),
        "write it like \"db.example.com\" or \"10.0.0.1\"",
    ))
}

/// A directory and, after a last colon, a port.
fn socket_directory(path: &str) -> Result<(&str, Option<u16>), Wrong> {
    let (path, port) = match path.rsplit_once(':') {
        Some((path, port)) => {
            let port = parse_port(port).filter(|port| *port > 0);
            (path, Some(port.ok_or_else(|| bad_port(path))?))
        }
        None => (path, None),
    };
    if path.is_empty() {
        return Err(Wrong::new("has no directory", "write it like \"unix:/run/postgresql\""));
    }
    if path.contains(".s.PGSQL.") {
        let mend = "write the directory that holds it; the port is part of the socket's name";
        return Err(Wrong::new(format!("\"{path}\" is the socket itself"), mend));
    }
    Ok((path, port))
}

fn fits_socket(directory: &Path, port: u16) -> Result<(), Wrong> {
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    if socket.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok(());
    }
    let what = format!("the socket's path {} is longer than {SOCKET_PATH_MAX} bytes", socket.display());
    Err(Wrong::new(what, "choose a shorter directory"))
}

/// Whether only this machine can connect there.
pub(super) fn is_local(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(address) => address.ip().is_loopback(),
        Listen::Unix { .. } => true,
    }
}

/// Whether a server's address is surely where Poolhouse itself listens: it would connect to itself for ever.
pub(super) fn is_own(address: &Address, listens: &[Listen]) -> bool {
    listens.iter().any(|listen| match (listen, address) {
        (Listen::Unix { directory, port }, Address::Unix { directory: other, port: other_port }) => {
            directory == other && port == other_port
        }
        (Listen::Tcp(own), Address::Tcp { host, port }) => {
            own.port() == *port && reaches(own.ip(), host.parse().ok(), host == "localhost")
        }
        _ => false,
    })
}

fn reaches(own: IpAddr, host: Option<IpAddr>, is_localhost: bool) -> bool {
    let is_loopback = is_localhost || host.is_some_and(|host| host.is_loopback());
    host == Some(own) || is_localhost && own.is_loopback() || own.is_unspecified() && is_loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = server(text, Path::new("/etc/poolhouse")).ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("10.0.0.1:5433", Some("10.0.0.1:5433"));
        check("10.0.0.1", Some("10.0.0.1:5432"));
        check("db.example.com", Some("db.example.com:5432"));
        check("db_1:5432", Some("db_1:5432"));
        check("[::1]:5433", Some("[::1]:5433"));
        check("[::1]", Some("[::1]:5432"));
        check("[fe80::1%eth0]:5432", Some("[fe80::1%eth0]:5432"));
        check("unix:/var/run/postgresql", Some("unix:/var/run/postgresql:5432"));
        check("unix:/var/run/postgresql:5433", Some("unix:/var/run/postgresql:5433"));
        check("unix:sockets", Some("unix:/etc/poolhouse/sockets:5432"));
        for wrong in [
            "",
            ":5432",
            "db:",
            "db:0",
            "db:65536",
            "db:+1",
            "db:x",
            "::1",
            "::1:5432",
            "[::1",
            "[::1]5432x",
            "[db]:x",
            "10.0.0.256",
            "10.0.0",
            "a b",
            "dé",
            "postgres://db",
            "user@db",
            "/run",
            "unix:",
            "unix:/run:0",
            "unix:/run/.s.PGSQL.5432",
        ] {
            check(wrong, None);
        }
        check(&format!("unix:/{}", "x".repeat(120)), None);
        check(&"x".repeat(254), None);
    }

    #[test]
    fn listen_addresses() {
        let check = |texts: &[&str], expected: &[&str], mistakes: usize| {
            let mut findings = Findings::new("test", "");
            let entries: Vec<_> = texts.iter().map(|text| (Place::absent("listen"), *text)).collect();
            let found = listens(&entries, Path::new("/etc"), &mut findings);
            let found: Vec<String> = found.iter().map(Listen::to_string).collect();
            assert_eq!(found, expected, "{texts:?}");
            assert_eq!(findings.refuse().mistakes.len(), mistakes, "{texts:?}");
        };
        check(&["127.0.0.1:6432"], &["127.0.0.1:6432"], 0);
        check(&["localhost:7000", "[::1]:7000"], &["127.0.0.1:7000", "[::1]:7000"], 0);
        check(&["127.0.0.1"], &["127.0.0.1:6432"], 0);
        check(&["unix:/run/poolhouse"], &["unix:/run/poolhouse/.s.PGSQL.6432"], 0);
        check(&["unix:/run", "0.0.0.0:7000"], &["unix:/run/.s.PGSQL.7000", "0.0.0.0:7000"], 0);
        check(&["unix:run:8000"], &["unix:/etc/run/.s.PGSQL.8000"], 0);
        check(&["127.0.0.1:0", "127.0.0.1:0"], &["127.0.0.1:0", "127.0.0.1:0"], 0);
        check(&["127.0.0.1:0", "unix:/run"], &["127.0.0.1:0", "unix:/run/.s.PGSQL.6432"], 0);
        check(&["127.0.0.1:1", "127.0.0.1:1"], &["127.0.0.1:1"], 1);
        check(&["*:6432", ":6432", "6432", "example.com:1", "127.0.0.1:x", ""], &[], 6);
    }

    #[test]
    fn a_server_must_not_be_poolhouse_itself() {
        let check = |listen: &str, address: &str, expected: bool| {
            let own = Listen::Tcp(tcp_listen(listen).unwrap());
            assert_eq!(is_own(&server(address, Path::new("")).unwrap(), &[own]), expected, "{listen} {address}");
        };
        check("127.0.0.1:6432", "127.0.0.1:6432", true);
        check("127.0.0.1:6432", "localhost:6432", true);
        check("0.0.0.0:6432", "127.0.0.1:6432", true);
        check("[::]:6432", "[::1]:6432", true);
        check("127.0.0.1:6432", "127.0.0.1:5432", false);
        check("127.0.0.1:6432", "127.0.0.2:6432", false);
        check("0.0.0.0:5432", "10.0.0.1:5432", false);
    }
}
