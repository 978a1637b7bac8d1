//! The notices that a server sends while it lets somebody in: a collation that has changed its version, a password that
//! expires, what a login trigger has to say. They are for the client on whose behalf we log in.

use poolhouse_core::wire::request;

/// Most bytes of notices that are kept of one login; later ones are left out.
const GREETING_BYTES_MAX: usize = 64 << 10;

/// NoticeResponse messages as the server sent them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// Those before its process id: what it found out while it checked the login.
    pub early: Vec<u8>,
    /// Those behind it: what a login trigger said.
    pub late: Vec<u8>,
}

impl Greeting {
    /// Adds a notice, of which this is the body.
    pub fn add(&mut self, body: &[u8], late: bool) {
        if self.early.len() + self.late.len() + body.len() > GREETING_BYTES_MAX {
            return;
        }
        let messages = if late { &mut self.late } else { &mut self.early };
        request::begin(b'N', body.len(), messages);
        messages.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_kept_where_they_came_and_bounded() {
        let mut greeting = Greeting::default();
        greeting.add(b"MA\0\0", false);
        greeting.add(b"MB\0\0", true);
        assert_eq!(greeting.early, b"N\0\0\0\x08MA\0\0");
        assert_eq!(greeting.late, b"N\0\0\0\x08MB\0\0");
        greeting.add(&vec![b'x'; GREETING_BYTES_MAX], true);
        assert_eq!(greeting.late.len(), 9);
    }
}
