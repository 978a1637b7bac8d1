//! What clients send: reading the parts that Poolhouse looks into, and writing messages of its own to servers.

use bytes::{Buf, BufMut};

use super::{
    Error,
    frame::{HEADER_BYTES, split_text},
};

/// The body of a Parse message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The prepared statement's name, without terminator; empty = the unnamed one.
    pub name: &'a [u8],
    /// The text, without terminator.
    pub sql: &'a [u8],
    /// What follows the text: the number of parameter types and their oids, as sent.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// # Errors
    /// [`Error::Malformed`] when a terminator is missing or the types do not fill the body.
    pub fn read(body: &'a [u8]) -> Result<Parse<'a>, Error> {
        const MALFORMED: Error = Error::Malformed("Parse");
        let (name, rest) = split_text(body).ok_or(MALFORMED)?;
        let (sql, types) = split_text(rest).ok_or(MALFORMED)?;
        let mut oids = types;
        let count = oids.try_get_u16().map_err(|_| MALFORMED)?;
        if oids.len() != 4 * usize::from(count) {
            return Err(MALFORMED);
        }
        Ok(Parse { name, sql, types })
    }

    /// Writes the message with another name.
    pub fn write(&self, name: &[u8], out: &mut Vec<u8>) {
        let body = name.len() + 1 + self.sql.len() + 1 + self.types.len();
        begin(b'P', body, out);
        for part in [name, b"\0", self.sql, b"\0", self.types] {
            out.put_slice(part);
        }
    }
}

/// The two names at the front of a Bind message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindNames<'a> {
    /// Of the portal that is made; empty = the unnamed one.
    pub portal: &'a [u8],
    /// Of the prepared statement; empty = the unnamed one.
    pub statement: &'a [u8],
    /// Bytes of both names with their terminators.
    pub bytes: usize,
}

impl<'a> BindNames<'a> {
    /// Reads the names from the front of a body; `None` when they are not all there yet.
    pub fn read(front: &'a [u8]) -> Option<BindNames<'a>> {
        let (portal, rest) = split_text(front)?;
        let (statement, rest) = split_text(rest)?;
        Some(BindNames { portal, statement, bytes: front.len() - rest.len() })
    }

    /// Writes header and names of a Bind message whose body was `body` bytes long with `self`, now with another
    /// statement name. The rest of the body has to follow unchanged.
    pub fn write_front(&self, body: usize, statement: &[u8], out: &mut Vec<u8>) {
        let body = body - self.statement.len() + statement.len();
        begin(b'B', body, out);
        for part in [self.portal, b"\0", statement, b"\0"] {
            out.put_slice(part);
        }
    }
}

/// The values of a Bind message's parameters, as far as they are there.
#[derive(Debug, Clone)]
pub struct BindValues<'a> {
    /// The formats that are still to be used, of two bytes each; when there is one for all, it stays.
    formats: &'a [u8],
    /// How many values are still to come.
    left: u16,
    rest: &'a [u8],
}

/// The value of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindValue<'a> {
    /// NULL.
    Null,
    /// In the type's text form.
    Text(&'a [u8]),
    /// In the type's binary form.
    Binary(&'a [u8]),
    /// From here on nothing is there, or what nobody can read. Of the value before it, there may be only a part.
    Missing,
}

impl<'a> BindValues<'a> {
    /// From what follows the names of a Bind message.
    pub fn read(mut rest: &'a [u8]) -> BindValues<'a> {
        let mut read = || {
            let count = rest.try_get_u16().ok()?;
            let (formats, mut rest) = rest.split_at_checked(2 * usize::from(count))?;
            let left = rest.try_get_u16().ok()?;
            Some(BindValues { formats, left, rest })
        };
        // Whoever asks for the first value is told that it is not there.
        read().unwrap_or(BindValues { formats: &[], left: 1, rest: &[] })
    }

    fn is_next_binary(&mut self) -> bool {
        let mut others = self.formats;
        let Ok(format) = others.try_get_u16() else { return false };
        if !others.is_empty() {
            self.formats = others;
        }
        format != 0
    }

    fn value(&mut self) -> Option<BindValue<'a>> {
        let binary = self.is_next_binary();
        let mut rest = self.rest;
        let length = rest.try_get_i32().ok()?;
        if length == -1 {
            self.rest = rest;
            return Some(BindValue::Null);
        }
        let length = usize::try_from(length).ok()?;
        let (value, rest) = rest.split_at_checked(length).unwrap_or_else(|| {
            self.left = self.left.max(1);
            (rest, &[])
        });
        self.rest = rest;
        Some(if binary { BindValue::Binary(value) } else { BindValue::Text(value) })
    }
}

impl<'a> Iterator for BindValues<'a> {
    type Item = BindValue<'a>;

    fn next(&mut self) -> Option<BindValue<'a>> {
        self.left = self.left.checked_sub(1)?;
        let value = self.value().unwrap_or(BindValue::Missing);
        if value == BindValue::Missing {
            self.left = 0;
        }
        Some(value)
    }
}

/// What a Describe or Close message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object<'a> {
    /// A prepared statement of this name.
    Statement(&'a [u8]),
    /// A portal of this name.
    Portal(&'a [u8]),
}

impl<'a> Object<'a> {
    /// # Errors
    /// [`Error::Malformed`] for another kind than `S` and `P`, or a missing terminator.
    pub fn read(body: &'a [u8]) -> Result<Object<'a>, Error> {
        const MALFORMED: Error = Error::Malformed("Describe or Close");
        let (&kind, rest) = body.split_first().ok_or(MALFORMED)?;
        let (name, rest) = split_text(rest).ok_or(MALFORMED)?;
        match kind {
            b'S' if rest.is_empty() => Ok(Object::Statement(name)),
            b'P' if rest.is_empty() => Ok(Object::Portal(name)),
            _ => Err(MALFORMED),
        }
    }
}

/// Whether the body of an Execute message sets no limit to the rows, so that its portal runs to its end.
pub fn runs_to_its_end(body: &[u8]) -> bool {
    split_text(body).is_some_and(|(_, limit)| limit == [0; 4])
}

/// The text of a Query message.
///
/// # Errors
/// [`Error::Malformed`] when the terminator is missing or not at the end.
pub fn query_text(body: &[u8]) -> Result<&[u8], Error> {
    match split_text(body) {
        Some((text, [])) => Ok(text),
        _ => Err(Error::Malformed("Query")),
    }
}

/// Writes a message's header.
pub fn begin(tag: u8, body: usize, out: &mut Vec<u8>) {
    out.reserve(HEADER_BYTES + body);
    out.put_u8(tag);
    out.put_u32(body as u32 + 4);
}

/// Writes a Query message.
pub fn query(sql: &str, out: &mut Vec<u8>) {
    query_bytes(sql.as_bytes(), out);
}

/// Writes a Query message with a text in any encoding; it must not hold a zero.
pub fn query_bytes(sql: &[u8], out: &mut Vec<u8>) {
    begin(b'Q', sql.len() + 1, out);
    out.put_slice(sql);
    out.put_u8(0);
}

/// Writes a Flush message.
pub fn flush(out: &mut Vec<u8>) {
    begin(b'H', 0, out);
}

/// Writes what runs the unnamed statement, which has no parameters, by way of the unnamed portal, and closes that.
pub fn run_unnamed(out: &mut Vec<u8>) {
    begin(b'B', 8, out);
    out.put_slice(&[0; 8]);
    begin(b'E', 5, out);
    out.put_slice(&[0; 5]);
    begin(b'C', 2, out);
    out.put_slice(b"P\0");
}

/// Writes what runs a prepared statement with one parameter, in text form, by way of the unnamed portal.
pub fn run_with(statement: &[u8], value: &[u8], out: &mut Vec<u8>) {
    begin(b'B', statement.len() + value.len() + 12, out);
    for part in [b"\0", statement, b"\0\0\0\0\x01", &(value.len() as u32).to_be_bytes(), value, b"\0\0"] {
        out.put_slice(part);
    }
    begin(b'E', 5, out);
    out.put_slice(&[0; 5]);
}

/// Writes a Sync message.
pub fn sync(out: &mut Vec<u8>) {
    begin(b'S', 0, out);
}

/// Writes a CopyFail message.
pub fn copy_fail(why: &str, out: &mut Vec<u8>) {
    begin(b'f', why.len() + 1, out);
    out.put_slice(why.as_bytes());
    out.put_u8(0);
}

/// Writes a Close or Describe (`tag`) message about a prepared statement.
pub fn about_statement(tag: u8, name: &[u8], out: &mut Vec<u8>) {
    begin(tag, name.len() + 2, out);
    out.put_u8(b'S');
    out.put_slice(name);
    out.put_u8(0);
}

/// Writes a password message: PasswordMessage, SASLResponse.
pub fn password(body: &[u8], out: &mut Vec<u8>) {
    begin(b'p', body.len(), out);
    out.put_slice(body);
}

/// A Terminate message.
pub const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header;
    use proptest::prelude::*;

    #[test]
    fn parse_messages() {
        let body = b"s1\0select $1\0\0\x01\0\0\0\x17";
        let parse = Parse::read(body).unwrap();
        assert_eq!((parse.name, parse.sql, parse.types), (&b"s1"[..], &b"select $1"[..], &b"\0\x01\0\0\0\x17"[..]));
        let mut out = Vec::new();
        parse.write(b"other", &mut out);
        assert_eq!(&out[..], b"P\0\0\0\x1aother\0select $1\0\0\x01\0\0\0\x17");
        for bad in [&b""[..], b"s1", b"s1\0select", b"s1\0select\0", b"s1\0select\0\0", b"\0\0\0\x01", b"\0\0\0\0x"] {
            assert_eq!(Parse::read(bad), Err(Error::Malformed("Parse")), "{bad:?}");
        }
    }

    #[test]
    fn a_statement_that_is_run_with_a_text() {
        let mut out = Vec::new();
        run_with(b"s", b"{x}", &mut out);
        let head = header(&out).unwrap().unwrap();
        let (bind, execute) = out.split_at(head.message());
        let names = BindNames::read(&bind[5..]).unwrap();
        assert_eq!((head.tag, names.portal, names.statement), (b'B', b"".as_slice(), b"s".as_slice()));
        assert_eq!(&bind[5 + names.bytes..], b"\0\0\0\x01\0\0\0\x03{x}\0\0");
        assert_eq!(execute, b"E\0\0\0\x09\0\0\0\0\0");
    }

    #[test]
    fn bind_names() {
        let body = b"p\0s1\0\0\0rest";
        let names = BindNames::read(body).unwrap();
        assert_eq!((names.portal, names.statement, names.bytes), (&b"p"[..], &b"s1"[..], 5));
        let mut out = Vec::new();
        names.write_front(body.len(), b"longer", &mut out);
        out.extend_from_slice(&body[names.bytes..]);
        assert_eq!(&out[..], b"B\0\0\0\x13p\0longer\0\0\0rest");
        assert_eq!(BindNames::read(b"p\0s1"), None);
    }

    #[test]
    fn bind_values() {
        let values = |rest: &[u8]| BindValues::read(rest).map(|value| format!("{value:?}")).collect::<Vec<_>>();
        let three = b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x02bc";
        let of = |formats: &[u8]| values(&[formats, three].concat());
        assert_eq!(of(b"\0\0"), ["Text([97])", "Null", "Text([98, 99])"]);
        assert_eq!(of(b"\0\x01\0\x01"), ["Binary([97])", "Null", "Binary([98, 99])"], "one format for all");
        assert_eq!(of(b"\0\x03\0\x01\0\0\0\0"), ["Binary([97])", "Null", "Text([98, 99])"]);
        assert_eq!(values(b"\0\0\0\0"), [""; 0]);
        // As far as it has come, and what the server will refuse.
        assert_eq!(values(b"\0\0\0\x03\0\0\0\x01a\0\0\0"), ["Text([97])", "Missing"]);
        assert_eq!(values(b"\0\0\0\x01\0\0\0\x05a"), ["Text([97])", "Missing"]);
        assert_eq!(values(b"\0\0\0\x02\xff\xff\xff\xfea"), ["Missing"]);
        assert_eq!(values(b""), ["Missing"]);
    }

    #[test]
    fn objects() {
        assert_eq!(Object::read(b"Sname\0"), Ok(Object::Statement(b"name")));
        assert_eq!(Object::read(b"P\0"), Ok(Object::Portal(b"")));
        for bad in [&b""[..], b"S", b"Xname\0", b"Sname", b"Sname\0x"] {
            assert!(Object::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn query_texts() {
        assert_eq!(query_text(b"select 1\0"), Ok(&b"select 1"[..]));
        assert_eq!(query_text(b"\0"), Ok(&b""[..]));
        for bad in [&b""[..], b"select 1", b"select\0 1\0"] {
            assert!(query_text(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>) {
            let _ = (Parse::read(&body), BindNames::read(&body), Object::read(&body), query_text(&body));
            BindValues::read(&body).for_each(drop);
        }

        #[test]
        fn a_renamed_bind_keeps_its_length_right(
            portal in "[a-z]{0,9}", statement in "[a-z]{0,9}", name in "[a-z]{0,9}", rest: Vec<u8>,
        ) {
            let mut body = format!("{portal}\0{statement}\0").into_bytes();
            body.extend_from_slice(&rest);
            let mut out = Vec::new();
            let names = BindNames::read(&body).unwrap();
            names.write_front(body.len(), name.as_bytes(), &mut out);
            out.extend_from_slice(&body[names.bytes..]);
            prop_assert_eq!(header(&out).unwrap().unwrap().message(), out.len());
            let again = BindNames::read(&out[HEADER_BYTES..]).unwrap();
            prop_assert_eq!(again.statement, name.as_bytes());
            prop_assert_eq!(again.portal, portal.as_bytes());
        }
    }
}
