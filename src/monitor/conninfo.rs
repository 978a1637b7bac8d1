//! `primary_conninfo`: the same string with another server in it. libpq's two notations, keywords and URL ("Connection
//! Strings" in its manual). Never logged: it may hold a password.

use crate::net::Address;

/// Why a connection string is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeftAlone {
    #[error("primary_conninfo is empty: there is no user to connect as")]
    Empty,
    #[error("primary_conninfo is not a connection string that libpq would read")]
    Broken,
    #[error("primary_conninfo is a URL that names its host among the parameters: write it as keywords")]
    HostInParameters,
}

/// `conninfo` with `address` in the place of its server; `None` = it names that one already.
pub(super) fn point_at(conninfo: &str, address: &Address) -> Result<Option<String>, LeftAlone> {
    let conninfo = conninfo.trim();
    if conninfo.is_empty() {
        return Err(LeftAlone::Empty);
    }
    let scheme = ["postgresql://", "postgres://"].into_iter().find(|scheme| conninfo.starts_with(scheme));
    let pointed = match scheme {
        Some(scheme) => point_url(scheme, &conninfo[scheme.len()..], address)?,
        None => point_keywords(conninfo, address)?,
    };
    Ok(pointed.filter(|pointed| pointed != conninfo))
}

fn point_keywords(conninfo: &str, address: &Address) -> Result<Option<String>, LeftAlone> {
    let (host, port) = parts(address);
    let pairs = keywords(conninfo).ok_or(LeftAlone::Broken)?;
    let value = |name| pairs.iter().rev().find(|(keyword, _)| keyword == name).map(|(_, value)| value.as_str());
    let same_port = value("port").unwrap_or("5432") == port;
    if value("host") == Some(&host) && same_port && value("hostaddr").is_none() {
        return Ok(None);
    }
    let kept = pairs.iter().filter(|(keyword, _)| !matches!(keyword.as_str(), "host" | "hostaddr" | "port"));
    let mut pointed = format!("host={} port={port}", quoted(&host));
    for (keyword, value) in kept {
        pointed.push_str(&format!(" {keyword}={}", quoted(value)));
    }
    Ok(Some(pointed))
}

/// `keyword = value` pairs; a value may stand in single quotes, and a backslash keeps the next character.
fn keywords(conninfo: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = conninfo.trim_start();
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=')?;
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return None;
        }
        let (value, after) = value(after.trim_start())?;
        pairs.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Some(pairs)
}

/// The value at the start of `text`, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if is_quoted => return Some((value, &text[index + 1..])),
            _ if !is_quoted && character.is_whitespace() => return Some((value, &text[index..])),
            _ => value.push(character),
        }
    }
    (!is_quoted).then_some((value, ""))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `rest` is what follows the scheme: `[user[:password]@][host[:port]][,…][/database][?parameters]`.
fn point_url(scheme: &str, rest: &str, address: &Address) -> Result<Option<String>, LeftAlone> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let parameters = tail.split_once('?').map_or("", |(_, parameters)| parameters);
    let names_host = |parameter: &str| matches!(parameter.split('=').next(), Some("host" | "hostaddr" | "port"));
    if parameters.split('&').any(names_host) {
        return Err(LeftAlone::HostInParameters);
    }
    let login = authority.rfind('@').map_or("", |at| &authority[..=at]);
    let (host, port) = parts(address);
    let host = match address {
        Address::Unix { .. } => host.replace('%', "%25").replace('/', "%2F"),
        Address::Tcp { .. } if host.contains(':') => format!("[{host}]"),
        Address::Tcp { .. } => host,
    };
    Ok(Some(format!("{scheme}{login}{host}:{port}{tail}")))
}

fn parts(address: &Address) -> (String, String) {
    match address {
        Address::Tcp { host, port } => (host.clone(), port.to_string()),
        Address::Unix { directory, port } => (directory.display().to_string(), port.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(conninfo: &str) -> Result<Option<String>, LeftAlone> {
        point_at(conninfo, &Address::Tcp { host: "10.0.0.2".into(), port: 5433 })
    }

    #[test]
    fn replaces_the_server_and_keeps_the_rest() {
        for (conninfo, expected) in [
            ("host=a user=u", "host='10.0.0.2' port=5433 user='u'"),
            ("user = 'u v' password='it''s' port=1", ""),
            (
                r"user=u password='it\'s \\ so' hostaddr=1.2.3.4 host=a,b port=1,2 application_name=n\ 1",
                r"host='10.0.0.2' port=5433 user='u' password='it\'s \\ so' application_name='n 1'",
            ),
            ("user= host=a", "host='10.0.0.2' port=5433 user='host=a'"),
            (
                "postgresql://u:p%40@a:1,b/d?application_name=n",
                "postgresql://u:p%40@10.0.0.2:5433/d?application_name=n",
            ),
            ("postgres://a", "postgres://10.0.0.2:5433"),
            ("postgres://u@[::1]:5?sslmode=require", "postgres://u@10.0.0.2:5433?sslmode=require"),
        ] {
            match check(conninfo) {
                Ok(pointed) => assert_eq!(pointed.as_deref(), Some(expected)),
                Err(error) => assert_eq!((error, expected), (LeftAlone::Broken, ""), "{conninfo}"),
            }
        }
    }

    #[test]
    fn other_kinds_of_address() {
        let socket = Address::Unix { directory: "/run/postgresql".into(), port: 5432 };
        assert_eq!(point_at("user=u", &socket), Ok(Some("host='/run/postgresql' port=5432 user='u'".into())));
        assert_eq!(point_at("postgres://u@a/", &socket), Ok(Some("postgres://u@%2Frun%2Fpostgresql:5432/".into())));
        let six = Address::Tcp { host: "::1".into(), port: 5432 };
        assert_eq!(point_at("host=::1 user=u", &six), Ok(None));
        assert_eq!(point_at("postgres://u@a", &six), Ok(Some("postgres://u@[::1]:5432".into())));
    }

    #[test]
    fn is_idempotent() {
        for conninfo in ["host=a user='u' password='x y'", "postgres://u:p@a:1/d", r"user=a\'b"] {
            let once = check(conninfo).expect("readable").expect("another server");
            assert_eq!(check(&once), Ok(None), "{conninfo}");
        }
    }

    #[test]
    fn leaves_alone_what_it_cannot_read() {
        assert_eq!(check(" "), Err(LeftAlone::Empty));
        for broken in ["host", "=a", "host='a", r"host=a\", "a b=c"] {
            assert_eq!(check(broken), Err(LeftAlone::Broken), "{broken}");
        }
        assert_eq!(check("postgres://u@/d?host=a"), Err(LeftAlone::HostInParameters));
    }
}
