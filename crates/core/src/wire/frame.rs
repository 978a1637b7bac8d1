//! Where messages begin and end: one type byte, then a length that counts itself but not the type byte.

use super::Error;

/// Bytes of a message's header: type and length.
pub const HEADER_BYTES: usize = 5;

/// Longest body that PostgreSQL accepts in the messages that may be long (`PQ_LARGE_MESSAGE_LIMIT`).
pub const BODY_BYTES_MAX: usize = 0x3fff_fffb;

/// Longest body of the messages that are always short (`PQ_SMALL_MESSAGE_LIMIT`).
pub const SHORT_BODY_BYTES_MAX: usize = 10_000;

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type: the first byte.
    pub tag: u8,
    /// Length of the body in bytes, without type and length word.
    pub body: usize,
}

impl Header {
    /// The whole message in bytes.
    pub fn message(&self) -> usize {
        HEADER_BYTES + self.body
    }
}

/// Reads the header at the front of `bytes`; `None` when fewer than five bytes are there.
///
/// # Errors
/// [`Error::Length`] when the length is below 4 or above what PostgreSQL allows for any message.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, Error> {
    // One look at the length for both parts: two reads of `bytes::Buf` cost two instructions more for each message.
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    let body = length.wrapping_sub(4) as usize;
    if body > BODY_BYTES_MAX {
        return Err(Error::Length { tag, length });
    }
    Ok(Some(Header { tag, body }))
}

/// What a client can send once it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage {
    /// `B`
    Bind,
    /// `C`
    Close,
    /// `d`
    CopyData,
    /// `c`
    CopyDone,
    /// `f`
    CopyFail,
    /// `D`
    Describe,
    /// `E`
    Execute,
    /// `H`
    Flush,
    /// `F`
    FunctionCall,
    /// `P`
    Parse,
    /// `p`: also the messages of SASL.
    Password,
    /// `Q`
    Query,
    /// `S`
    Sync,
    /// `X`
    Terminate,
}

impl ClientMessage {
    /// # Errors
    /// [`Error::UnknownMessage`]; [`Error::Length`] when a message that is always short is not.
    #[inline]
    pub fn of(header: Header) -> Result<ClientMessage, Error> {
        let request = match header.tag {
            b'B' => ClientMessage::Bind,
            b'C' => ClientMessage::Close,
            b'd' => ClientMessage::CopyData,
            b'c' => ClientMessage::CopyDone,
            b'f' => ClientMessage::CopyFail,
            b'D' => ClientMessage::Describe,
            b'E' => ClientMessage::Execute,
            b'H' => ClientMessage::Flush,
            b'F' => ClientMessage::FunctionCall,
            b'P' => ClientMessage::Parse,
            b'p' => ClientMessage::Password,
            b'Q' => ClientMessage::Query,
            b'S' => ClientMessage::Sync,
            b'X' => ClientMessage::Terminate,
            tag => return Err(Error::UnknownMessage(tag)),
        };
        let long = matches!(
            request,
            ClientMessage::Bind
                | ClientMessage::CopyData
                | ClientMessage::FunctionCall
                | ClientMessage::Parse
                | ClientMessage::Query
                | ClientMessage::CopyFail
        );
        if !long && header.body > SHORT_BODY_BYTES_MAX {
            return Err(Error::Length { tag: header.tag, length: header.body as u32 + 4 });
        }
        Ok(request)
    }
}

/// What a server can send once a client is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// `2`
    BindComplete,
    /// `3`
    CloseComplete,
    /// `C`
    CommandComplete,
    /// `W`
    CopyBothResponse,
    /// `d`
    CopyData,
    /// `c`
    CopyDone,
    /// `G`
    CopyInResponse,
    /// `H`
    CopyOutResponse,
    /// `D`
    DataRow,
    /// `I`
    EmptyQueryResponse,
    /// `E`
    ErrorResponse,
    /// `V`
    FunctionCallResponse,
    /// `n`
    NoData,
    /// `N`
    NoticeResponse,
    /// `A`
    NotificationResponse,
    /// `t`
    ParameterDescription,
    /// `S`
    ParameterStatus,
    /// `1`
    ParseComplete,
    /// `s`
    PortalSuspended,
    /// `Z`
    ReadyForQuery,
    /// `T`
    RowDescription,
}

impl Reply {
    /// # Errors
    /// [`Error::UnknownMessage`], also for messages that belong to the login.
    #[inline]
    pub fn of(tag: u8) -> Result<Reply, Error> {
        Ok(match tag {
            b'D' => Reply::DataRow,
            b'C' => Reply::CommandComplete,
            b'Z' => Reply::ReadyForQuery,
            b'T' => Reply::RowDescription,
            b'2' => Reply::BindComplete,
            b'1' => Reply::ParseComplete,
            b'3' => Reply::CloseComplete,
            b'd' => Reply::CopyData,
            b'c' => Reply::CopyDone,
            b'G' => Reply::CopyInResponse,
            b'H' => Reply::CopyOutResponse,
            b'W' => Reply::CopyBothResponse,
            b'E' => Reply::ErrorResponse,
            b'I' => Reply::EmptyQueryResponse,
            b'n' => Reply::NoData,
            b'N' => Reply::NoticeResponse,
            b'A' => Reply::NotificationResponse,
            b't' => Reply::ParameterDescription,
            b'S' => Reply::ParameterStatus,
            b's' => Reply::PortalSuspended,
            b'V' => Reply::FunctionCallResponse,
            tag => return Err(Error::UnknownMessage(tag)),
        })
    }

    /// Whether a message of this type is data that never completes a reply, so that a client's passes without being looked
    /// at.
    #[inline]
    pub fn is_data(tag: u8) -> bool {
        matches!(tag, b'D' | b'd')
    }
}

/// The text up to the first NUL, and what follows it.
pub fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        assert_eq!(header(b""), Ok(None));
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
        assert_eq!(header(b"S\0\0\0\x04rest"), Ok(Some(Header { tag: b'S', body: 0 })));
        assert_eq!(header(b"Q\0\0\0\x09"), Ok(Some(Header { tag: b'Q', body: 5 })));
        assert_eq!(header(b"Q\0\0\0\x03"), Err(Error::Length { tag: b'Q', length: 3 }));
        assert_eq!(header(b"Q\0\0\0\0"), Err(Error::Length { tag: b'Q', length: 0 }));
        assert_eq!(header(b"Q\xff\xff\xff\xff"), Err(Error::Length { tag: b'Q', length: u32::MAX }));
        assert_eq!(header(b"Q\x40\x00\x00\x00"), Err(Error::Length { tag: b'Q', length: 0x4000_0000 }));
        assert!(header(b"Q\x3f\xff\xff\xff").is_ok());
    }

    #[test]
    fn short_messages_must_be_short() {
        assert!(ClientMessage::of(Header { tag: b'S', body: 20_000 }).is_err());
        assert!(ClientMessage::of(Header { tag: b'D', body: 20_000 }).is_err());
        assert_eq!(ClientMessage::of(Header { tag: b'Q', body: 20_000 }), Ok(ClientMessage::Query));
        assert_eq!(ClientMessage::of(Header { tag: b'!', body: 0 }), Err(Error::UnknownMessage(b'!')));
    }

    proptest! {
        #[test]
        fn a_header_read_back_is_the_one_written(tag: u8, body in 0usize..=BODY_BYTES_MAX) {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&(body as u32 + 4).to_be_bytes());
            prop_assert_eq!(header(&bytes), Ok(Some(Header { tag, body })));
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            if let Ok(Some(head)) = header(&bytes) {
                let _ = ClientMessage::of(head);
                let _ = Reply::of(head.tag);
            }
        }
    }
}
