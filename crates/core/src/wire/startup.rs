//! The packets that open a connection: they have a length but no type byte.

use bytes::{Buf, BufMut};

use super::{Error, frame::split_text};

/// PostgreSQL's bound on a startup packet (`MAX_STARTUP_PACKET_LENGTH`), in bytes with its length word.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The newest minor version of protocol 3 that we speak.
pub const MINOR_VERSION: u16 = 2;

/// What a client opens its connection with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    /// SSLRequest: the answer is one byte.
    Tls,
    /// GSSENCRequest: the answer is one byte.
    Gss,
    /// CancelRequest.
    Cancel(CancelKey),
    /// A session begins, with these parameters.
    Session(Parameters),
}

/// What CancelRequest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The process id that the client was told.
    pub process: u32,
    /// 4 bytes in protocol 3.0, 4 to 256 in 3.2.
    pub secret: Vec<u8>,
}

/// A StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The minor version of protocol 3 that the client asked for; may be above [`MINOR_VERSION`].
    pub minor: u16,
    /// In the order sent, with `user` and `database` among them.
    pub pairs: Vec<(String, String)>,
}

impl Parameters {
    /// The last value given for a name, as in PostgreSQL.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The whole packet's length from its first four bytes; `None` when fewer are there.
///
/// # Errors
/// [`Error::StartupLength`] when no packet is that long.
pub fn packet_length(mut bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Ok(length) = bytes.try_get_u32() else { return Ok(None) };
    match usize::try_from(length) {
        Ok(bytes) if (8..=STARTUP_BYTES_MAX).contains(&bytes) => Ok(Some(bytes)),
        _ => Err(Error::StartupLength(length)),
    }
}

/// Reads a whole packet, with its length word.
///
/// # Errors
/// [`Error::StartupLength`], [`Error::StartupLayout`]; [`Error::Version`] when it asks for another major version.
pub fn read(packet: &[u8]) -> Result<Startup, Error> {
    const LAYOUT: Error = Error::StartupLayout;
    if packet_length(packet)? != Some(packet.len()) {
        return Err(LAYOUT);
    }
    let mut body = &packet[4..];
    let mut number = || body.try_get_u16().map_err(|_| LAYOUT);
    match (number()?, number()?) {
        (1234, 5678) => cancel_key(body).map(Startup::Cancel),
        (1234, 5679) => Ok(Startup::Tls),
        (1234, 5680) => Ok(Startup::Gss),
        (3, minor) => Ok(Startup::Session(Parameters { minor, pairs: pairs(body)? })),
        (major, minor) => Err(Error::Version { major, minor }),
    }
}

fn cancel_key(mut secret: &[u8]) -> Result<CancelKey, Error> {
    let process = secret.try_get_u32().map_err(|_| Error::StartupLayout)?;
    if !(4..=256).contains(&secret.len()) {
        return Err(Error::StartupLayout);
    }
    Ok(CancelKey { process, secret: secret.to_vec() })
}

/// Names and values up to an empty name, which must end the packet.
fn pairs(mut body: &[u8]) -> Result<Vec<(String, String)>, Error> {
    const LAYOUT: Error = Error::StartupLayout;
    let mut pairs = Vec::new();
    loop {
        let (name, rest) = split_text(body).ok_or(LAYOUT)?;
        if name.is_empty() {
            return if rest.is_empty() { Ok(pairs) } else { Err(LAYOUT) };
        }
        let (value, rest) = split_text(rest).ok_or(LAYOUT)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| LAYOUT);
        pairs.push((text(name)?, text(value)?));
        body = rest;
    }
}

/// Writes a StartupMessage of protocol 3.0.
pub fn session(pairs: &[(&str, &str)], out: &mut Vec<u8>) {
    let length = 9 + pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    out.put_u32(length as u32);
    out.put_slice(&[0, 3, 0, 0]);
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.put_slice(text.as_bytes());
        out.put_u8(0);
    }
    out.put_u8(0);
}

/// Writes an SSLRequest, which the server answers with one byte.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.put_slice(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
}

/// Writes a CancelRequest.
pub fn cancel(key: &CancelKey, out: &mut Vec<u8>) {
    out.put_u32(12 + key.secret.len() as u32);
    out.put_slice(&[0x04, 0xd2, 0x16, 0x2e]);
    out.put_u32(key.process);
    out.put_slice(&key.secret);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_session_reads_back() {
        let mut packet = Vec::new();
        session(&[("user", "alice"), ("database", "app"), ("user", "bob")], &mut packet);
        let Startup::Session(parameters) = read(&packet).unwrap() else { panic!("not a session") };
        assert_eq!(parameters.minor, 0);
        assert_eq!(parameters.value("user"), Some("bob"));
        assert_eq!(parameters.value("database"), Some("app"));
        assert_eq!(parameters.value("options"), None);
    }

    #[test]
    fn a_request_for_tls_reads_back() {
        let mut packet = Vec::new();
        ssl_request(&mut packet);
        assert_eq!(read(&packet), Ok(Startup::Tls));
    }

    #[test]
    fn a_cancel_reads_back() {
        for secret in [vec![1, 2, 3, 4], vec![9; 256]] {
            let key = CancelKey { process: 77, secret };
            let mut packet = Vec::new();
            cancel(&key, &mut packet);
            assert_eq!(read(&packet), Ok(Startup::Cancel(key)));
        }
        let key = CancelKey { process: 77, secret: vec![1; 3] };
        let mut packet = Vec::new();
        cancel(&key, &mut packet);
        assert_eq!(read(&packet), Err(Error::StartupLayout));
    }

    #[test]
    fn requests_without_a_body() {
        assert_eq!(read(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]), Ok(Startup::Tls));
        assert_eq!(read(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]), Ok(Startup::Gss));
        assert_eq!(read(&[0, 0, 0, 9, 0, 2, 0, 0, 0]), Err(Error::Version { major: 2, minor: 0 }));
    }

    #[test]
    fn lengths() {
        assert_eq!(packet_length(&[0, 0, 0]), Ok(None));
        assert_eq!(packet_length(&[0, 0, 0, 8]), Ok(Some(8)));
        assert_eq!(packet_length(&[0, 0, 0, 7]), Err(Error::StartupLength(7)));
        assert_eq!(packet_length(&[0xff; 4]), Err(Error::StartupLength(u32::MAX)));
        assert_eq!(packet_length(b"GET "), Err(Error::StartupLength(u32::from_be_bytes(*b"GET "))));
    }

    #[test]
    fn broken_layouts() {
        for body in [&b"user"[..], b"user\0", b"user\0alice\0", b"user\0alice\0\0more", b"us\xffr\0a\0\0"] {
            let mut packet = ((body.len() + 8) as u32).to_be_bytes().to_vec();
            packet.extend_from_slice(&[0, 3, 0, 0]);
            packet.extend_from_slice(body);
            assert_eq!(read(&packet), Err(Error::StartupLayout), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_read_without_panic(packet: Vec<u8>) {
            let _ = read(&packet);
        }

        #[test]
        fn any_body_is_read_without_panic(code: [u8; 4], body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut packet = ((body.len() + 8) as u32).to_be_bytes().to_vec();
            packet.extend_from_slice(&code);
            packet.extend_from_slice(&body);
            let _ = read(&packet);
        }
    }
}
