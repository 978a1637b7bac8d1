//! What servers send: writing the messages that Poolhouse answers itself, and reading the few that it looks into.

use bytes::{Buf, BufMut};

use super::{
    Error,
    frame::{HEADER_BYTES, split_text},
    request::begin,
};

/// The transaction status in a ReadyForQuery message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Not in a transaction block.
    #[default]
    Idle,
    /// In a transaction block.
    Transaction,
    /// In a failed transaction block: only its end is accepted.
    Failed,
}

impl Status {
    /// # Errors
    /// [`Error::Malformed`] for a body that is not one of `I`, `T` and `E`.
    pub fn read(body: &[u8]) -> Result<Status, Error> {
        match body {
            b"I" => Ok(Status::Idle),
            b"T" => Ok(Status::Transaction),
            b"E" => Ok(Status::Failed),
            _ => Err(Error::Malformed("ReadyForQuery")),
        }
    }
}

/// Writes a ReadyForQuery message.
pub fn ready_for_query(status: Status, out: &mut Vec<u8>) {
    out.put_slice(match status {
        Status::Idle => b"Z\0\0\0\x05I",
        Status::Transaction => b"Z\0\0\0\x05T",
        Status::Failed => b"Z\0\0\0\x05E",
    });
}

/// A ParseComplete message.
pub const PARSE_COMPLETE: [u8; 5] = *b"1\0\0\0\x04";
/// A BindComplete message.
pub const BIND_COMPLETE: [u8; 5] = *b"2\0\0\0\x04";
/// A NoData message.
pub const NO_DATA: [u8; 5] = *b"n\0\0\0\x04";
/// A ParameterDescription message of a statement without parameters.
pub const NO_PARAMETERS: [u8; 7] = *b"t\0\0\0\x06\0\0";
/// A CloseComplete message.
pub const CLOSE_COMPLETE: [u8; 5] = *b"3\0\0\0\x04";

/// Reads name and value of a ParameterStatus message.
///
/// # Errors
/// [`Error::Malformed`] when a terminator is missing.
pub fn parameter_status_parts(body: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    const MALFORMED: Error = Error::Malformed("ParameterStatus");
    let (name, rest) = split_text(body).ok_or(MALFORMED)?;
    let (value, _) = split_text(rest).ok_or(MALFORMED)?;
    Ok((name, value))
}

/// What a NotificationResponse message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The server process that has sent it.
    pub process: u32,
    /// The name of the channel, without terminator.
    pub channel: &'a [u8],
    /// What came with it; empty when nothing did.
    pub payload: &'a [u8],
}

/// Reads a NotificationResponse message.
///
/// # Errors
/// [`Error::Malformed`] when a part is missing.
pub fn notification_parts(mut body: &[u8]) -> Result<Notification<'_>, Error> {
    const MALFORMED: Error = Error::Malformed("NotificationResponse");
    let process = body.try_get_u32().map_err(|_| MALFORMED)?;
    let (channel, rest) = split_text(body).ok_or(MALFORMED)?;
    let (payload, _) = split_text(rest).ok_or(MALFORMED)?;
    Ok(Notification { process, channel, payload })
}

/// Names another process as the sender in a whole NotificationResponse message.
pub fn set_notification_process(message: &mut [u8], process: u32) {
    message[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&process.to_be_bytes());
}

/// Writes a ParameterStatus message.
pub fn parameter_status(name: &str, value: &str, out: &mut Vec<u8>) {
    begin(b'S', name.len() + value.len() + 2, out);
    for part in [name.as_bytes(), b"\0", value.as_bytes(), b"\0"] {
        out.put_slice(part);
    }
}

/// Writes a BackendKeyData message. `secret` is 4 bytes in protocol 3.0 and up to 256 in 3.2.
pub fn backend_key_data(process: u32, secret: &[u8], out: &mut Vec<u8>) {
    begin(b'K', 4 + secret.len(), out);
    out.put_u32(process);
    out.put_slice(secret);
}

/// Writes a CommandComplete message.
pub fn command_complete(tag: &str, out: &mut Vec<u8>) {
    begin(b'C', tag.len() + 1, out);
    out.put_slice(tag.as_bytes());
    out.put_u8(0);
}

/// Writes a RowDescription message for columns of the type `text`, all of one format.
pub fn text_columns<const N: usize>(names: [&str; N], format: u16, out: &mut Vec<u8>) {
    // The manual, "RowDescription": no table, type `text` (oid 25) of variable length, no modifier.
    const TEXT: &[u8] = b"\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff";
    let body = names.iter().map(|name| name.len() + 1 + TEXT.len() + 2).sum::<usize>();
    begin(b'T', 2 + body, out);
    out.put_u16(N as u16);
    for name in names {
        for part in [name.as_bytes(), b"\0", TEXT, &format.to_be_bytes()] {
            out.put_slice(part);
        }
    }
}

/// Writes a DataRow message; `None` is NULL.
pub fn text_row<const N: usize>(values: [Option<&str>; N], out: &mut Vec<u8>) {
    begin(b'D', 2 + values.iter().map(|value| 4 + value.map_or(0, str::len)).sum::<usize>(), out);
    out.put_u16(N as u16);
    for value in values {
        let length = value.map_or(u32::MAX, |value| value.len() as u32);
        out.put_u32(length);
        out.put_slice(value.unwrap_or_default().as_bytes());
    }
}

/// A request for a password, or the end of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// The login is done.
    Ok,
    /// The password itself is wanted.
    Cleartext,
    /// The md5 hash of password and user is wanted, hashed again with a salt.
    Md5 {
        /// For this login only.
        salt: [u8; 4],
    },
    /// The names of the mechanisms, each with its terminator, and one terminator more.
    Sasl {
        /// Each ends with a zero byte; one more ends the list.
        mechanisms: &'a [u8],
    },
    /// The server's first message of SASL.
    SaslContinue(&'a [u8]),
    /// The server's last message of SASL, which proves that it knows the password.
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI and what else there may be.
    Other(u32),
}

impl<'a> Authentication<'a> {
    /// # Errors
    /// [`Error::Malformed`] when the body is too short for its kind.
    pub fn read(mut rest: &'a [u8]) -> Result<Authentication<'a>, Error> {
        const MALFORMED: Error = Error::Malformed("Authentication");
        Ok(match rest.try_get_u32().map_err(|_| MALFORMED)? {
            0 => Authentication::Ok,
            3 => Authentication::Cleartext,
            5 => Authentication::Md5 { salt: rest.try_into().map_err(|_| MALFORMED)? },
            10 => Authentication::Sasl { mechanisms: rest },
            11 => Authentication::SaslContinue(rest),
            12 => Authentication::SaslFinal(rest),
            other => Authentication::Other(other),
        })
    }

    /// Writes the whole message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (kind, rest): (u32, &[u8]) = match self {
            Authentication::Ok => (0, &[]),
            Authentication::Cleartext => (3, &[]),
            Authentication::Md5 { salt } => (5, salt),
            Authentication::Sasl { mechanisms } => (10, mechanisms),
            Authentication::SaslContinue(data) => (11, data),
            Authentication::SaslFinal(data) => (12, data),
            Authentication::Other(kind) => (*kind, &[]),
        };
        begin(b'R', 4 + rest.len(), out);
        out.put_u32(kind);
        out.put_slice(rest);
    }
}

/// Writes a NegotiateProtocolVersion message: our newest minor version and the options that we do not know.
pub fn negotiate_protocol_version(minor: u32, unknown: &[&str], out: &mut Vec<u8>) {
    let body = 8 + unknown.iter().map(|name| name.len() + 1).sum::<usize>();
    begin(b'v', body, out);
    out.put_u32(minor);
    out.put_u32(unknown.len() as u32);
    for name in unknown {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
    }
}

/// The columns of a DataRow message as text; `None` is NULL.
///
/// # Errors
/// [`Error::Malformed`] when lengths and body do not agree.
pub fn data_row(mut rest: &[u8]) -> Result<Vec<Option<&[u8]>>, Error> {
    const MALFORMED: Error = Error::Malformed("DataRow");
    let count = rest.try_get_u16().map_err(|_| MALFORMED)?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        columns.push(match rest.try_get_i32().map_err(|_| MALFORMED)? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| MALFORMED)?;
                let (value, after) = rest.split_at_checked(length).ok_or(MALFORMED)?;
                rest = after;
                Some(value)
            }
        });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header;
    use proptest::prelude::*;

    #[test]
    fn statuses() {
        for status in [Status::Idle, Status::Transaction, Status::Failed] {
            let mut out = Vec::new();
            ready_for_query(status, &mut out);
            assert_eq!(Status::read(&out[5..]), Ok(status));
        }
        assert!(Status::read(b"x").is_err());
        assert!(Status::read(b"II").is_err());
    }

    #[test]
    fn authentication_round_trips() {
        for message in [
            Authentication::Ok,
            Authentication::Cleartext,
            Authentication::Md5 { salt: [1, 2, 3, 4] },
            Authentication::Sasl { mechanisms: b"SCRAM-SHA-256\0\0" },
            Authentication::SaslContinue(b"r=x"),
            Authentication::SaslFinal(b"v=x"),
            Authentication::Other(7),
        ] {
            let mut out = Vec::new();
            message.write(&mut out);
            assert_eq!(Authentication::read(&out[5..]), Ok(message));
        }
        assert!(Authentication::read(b"\0\0\0\x05abc").is_err());
    }

    #[test]
    fn rows() {
        let body = b"\0\x03\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(data_row(body).unwrap(), [Some(&b"hi"[..]), None, Some(&b""[..])]);
        let mut out = Vec::new();
        text_row([Some("hi"), None, Some("")], &mut out);
        assert_eq!(out[5..], *body);
        assert!(data_row(b"\0\x01\0\0\0\x09hi").is_err());
        assert!(data_row(b"\0\x01\xff\xff\xff\xfe").is_err());
    }

    #[test]
    fn notifications() {
        let parts = notification_parts(b"\0\0\0\x07bell\0rung\0").unwrap();
        assert_eq!((parts.process, parts.channel, parts.payload), (7, &b"bell"[..], &b"rung"[..]));
        for bad in [&b""[..], b"\0\0\0", b"\0\0\0\x07bell", b"\0\0\0\x07bell\0rung"] {
            assert!(notification_parts(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_are_right() {
        let mut out = Vec::new();
        parameter_status("TimeZone", "UTC", &mut out);
        assert_eq!(header(&out).unwrap().unwrap().message(), out.len());
        assert_eq!(parameter_status_parts(&out[5..]), Ok((&b"TimeZone"[..], &b"UTC"[..])));
        for write in [
            &(|out: &mut Vec<u8>| backend_key_data(7, &[0; 32], out)) as &dyn Fn(&mut Vec<u8>),
            &|out| command_complete("SELECT 1", out),
            &|out| text_columns(["a", "bc"], 0, out),
            &|out| text_row([Some("a"), None], out),
            &|out| negotiate_protocol_version(2, &["_pq_.a", "_pq_.bc"], out),
        ] {
            let mut out = Vec::new();
            write(&mut out);
            assert_eq!(header(&out).unwrap().unwrap().message(), out.len());
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>) {
            let _ = (Status::read(&body), parameter_status_parts(&body), Authentication::read(&body), data_row(&body));
        }
    }
}
