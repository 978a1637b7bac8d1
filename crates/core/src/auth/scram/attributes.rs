//! The text of SCRAM messages: `name=value` joined by commas (RFC 5802, 5.1), and base64. Works on bytes, since nothing
//! obliges a peer to send UTF-8.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{super::Error, ScramKey};

/// Reads a message's attributes in turn.
pub(super) struct Attributes<'a> {
    /// None after the last.
    rest: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: Some(message) }
    }

    /// The next attribute must have this name; `what` says so in the error.
    pub(super) fn expect(&mut self, name: u8, what: &'static str) -> Result<&'a [u8], Error> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            Some((b'm', _)) => Err(Error::MandatoryExtension),
            _ => Err(Error::Malformed(what)),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Error> {
        let Some(rest) = self.rest else { return Ok(None) };
        let (attribute, rest) = match split_at_comma(rest) {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        match attribute {
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(Error::Malformed("an attribute is not a letter, = and a value")),
        }
    }

    /// What is left may only be extensions, which are ignored unless they are mandatory.
    pub(super) fn skip_extensions(mut self) -> Result<(), Error> {
        while let Some((name, _)) = self.next()? {
            if name == b'm' {
                return Err(Error::MandatoryExtension);
            }
        }
        Ok(())
    }
}

/// What stands before and after the first comma.
pub(super) fn split_at_comma(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let comma = text.iter().position(|&byte| byte == b',')?;
    Some((&text[..comma], &text[comma + 1..]))
}

pub(super) fn check_length(message: &[u8], limit: usize) -> Result<(), Error> {
    if message.len() > limit { Err(Error::MessageTooLong { bytes: message.len(), limit }) } else { Ok(()) }
}

/// RFC 5802, 7: printable ASCII without comma (which cannot get this far).
pub(super) fn check_nonce(nonce: &[u8]) -> Result<(), Error> {
    if !nonce.is_empty() && nonce.iter().all(u8::is_ascii_graphic) {
        Ok(())
    } else {
        Err(Error::Malformed("the nonce is empty or not printable"))
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Strict: one text for each sequence of bytes.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(super) fn decode_key(text: &[u8]) -> Option<ScramKey> {
    decode(text)?.try_into().ok()
}

/// Decimal digits only: no sign, no space.
pub(super) fn decode_number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
