//! May what a client has sent be sent again? As long as the client has seen nothing of an answer it may, in two cases:
//!
//! - elsewhere, when it only reads and its server was lost, or is a replica that refuses it;
//! - here, when the server has lost a prepared statement, or what it has is stale: that is mended, and all is sent once
//!   more.
//!
//! What was sent is kept as the client sent it, while one of the two holds.

use poolhouse_core::{
    session::RefusedRead,
    wire::{ErrorFields, frame::HEADER_BYTES, header},
};

/// Whatever is longer than this is not sent again.
const SENT_BYTES_MAX: usize = 8 << 10;

/// What may be sent again, if anything.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Resend {
    elsewhere: bool,
    here: bool,
    /// As the client sent it. Without meaning while both are false.
    sent: Vec<u8>,
    /// The beginning of an answer that came together with the server's last words: the client has seen nothing of it
    /// yet.
    withheld: Vec<u8>,
}

// A part of what each busy client holds.
const _: () = assert!(size_of::<Resend>() <= 56);

impl Resend {
    /// Nothing has been sent yet. It may be sent again elsewhere when it only `reads`, and here when the session
    /// `has_statements` that can be mended.
    pub fn begin(&mut self, reads: bool, has_statements: bool) {
        (self.elsewhere, self.here) = (reads, has_statements);
        self.sent.clear();
    }

    /// The server connection is gone from the client.
    pub fn end(&mut self) {
        self.forbid();
        self.withheld = Vec::new();
    }

    /// The client is told something that is not to be told twice.
    #[inline]
    pub fn forbid(&mut self) {
        (self.elsewhere, self.here) = (false, false);
    }

    /// Whether what is sent has to be noted.
    #[inline]
    pub fn may(&self) -> bool {
        self.elsewhere || self.here
    }

    #[inline]
    pub fn may_elsewhere(&self) -> bool {
        self.elsewhere
    }

    #[inline]
    pub fn may_here(&self) -> bool {
        self.here
    }

    /// Something was sent that may be sent elsewhere.
    #[inline]
    pub fn has_reads(&self) -> bool {
        self.elsewhere && !self.sent.is_empty()
    }

    /// A message goes to the server; `None` for one that has not come to its end.
    #[inline]
    pub fn note_sent(&mut self, message: Option<&[u8]>) {
        match message {
            Some(message) if self.sent.len() + message.len() <= SENT_BYTES_MAX => self.sent.extend_from_slice(message),
            _ => self.forbid(),
        }
    }

    /// What is to be sent elsewhere, once.
    pub fn take_reads(&mut self) -> Option<Vec<u8>> {
        let has_reads = self.has_reads();
        self.elsewhere = false;
        has_reads.then(|| std::mem::take(&mut self.sent))
    }

    /// What is to be sent here once more, and only once. It is noted again when it goes.
    pub fn take_here(&mut self) -> Vec<u8> {
        self.here = false;
        std::mem::take(&mut self.sent)
    }

    /// Something is there for the client. What Poolhouse answers itself, or is a server's last word, is withheld from
    /// it while all may still be sent elsewhere. True when the client sees the first of an answer to what it could.
    pub fn note_answer(&mut self, answer: &mut Vec<u8>, is_last_word: impl FnOnce() -> bool) -> bool {
        self.here = false;
        if !self.elsewhere {
            return false;
        }
        if is_last_word() {
            self.withheld = std::mem::take(answer);
            return false;
        }
        self.elsewhere = false;
        true
    }

    /// Nothing is sent again: the client sees what was withheld.
    pub fn stop_withholding(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.withheld);
    }
}

/// Whether an answer is an error of a replica that the primary would not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaRefusal {
    Not,
    /// The error is there, and ReadyForQuery is still to come.
    Begun(RefusedRead),
    Whole(RefusedRead),
}

/// Why a replica refuses, by its error; codes and the names of the server's routines are the same in all languages.
///
/// - 25006: it writes.
/// - 0A000 of `get_relation_info`, when the planner meets a table: it is unlogged, and a replica has nothing of it.
/// - 40001, and 40P01 when it was found as a deadlock: replication takes away what it reads. A read that is alone in
///   its transaction gets neither for any other cause.
///
/// A client's own cancel is 57014 and is never run again.
fn refused_read(fields: &ErrorFields) -> Option<RefusedRead> {
    if fields.is_fatal() {
        return None;
    }
    match fields.code() {
        "25006" => Some(RefusedRead::Lasting),
        "0A000" if fields.text(b'R') == Some("get_relation_info") => Some(RefusedRead::Lasting),
        "40001" | "40P01" => Some(RefusedRead::Once),
        _ => None,
    }
}

impl ReplicaRefusal {
    pub fn of(mut answer: &[u8]) -> ReplicaRefusal {
        let mut refusal = ReplicaRefusal::Not;
        while let Ok(Some(head)) = header(answer) {
            let Some((message, rest)) = answer.split_at_checked(head.message()) else { return refusal };
            match head.tag {
                b'E' => {
                    let fields = ErrorFields::read(&message[HEADER_BYTES..]);
                    let Some(why) = refused_read(&fields) else { return ReplicaRefusal::Not };
                    refusal = ReplicaRefusal::Begun(why);
                }
                b'Z' => match refusal {
                    ReplicaRefusal::Begun(why) if rest.is_empty() => return ReplicaRefusal::Whole(why),
                    _ => return ReplicaRefusal::Not,
                },
                _ => {}
            }
            answer = rest;
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"S\0\0\0\x04";

    #[test]
    fn what_is_sent_again_here_is_noted_once() {
        let mut resend = Resend::default();
        resend.begin(true, true);
        resend.note_sent(Some(ONE));
        assert!(resend.may_here() && resend.has_reads());
        assert_eq!(resend.take_here(), ONE);
        assert!(!resend.may_here() && resend.may_elsewhere() && !resend.has_reads());
        // As it goes once more.
        resend.note_sent(Some(ONE));
        assert_eq!(resend.take_reads().as_deref(), Some(ONE), "a lost server does not make two of it");
        assert_eq!(resend.take_reads(), None);
    }

    #[test]
    fn nothing_is_sent_again_once_the_client_has_seen_something() {
        let begun = |reads, mends| {
            let mut resend = Resend::default();
            resend.begin(reads, mends);
            resend.note_sent(Some(ONE));
            resend
        };
        let mut answer = b"x".to_vec();
        let mut resend = begun(true, true);
        assert!(!resend.note_answer(&mut answer, || true), "its last words are not shown yet");
        assert_eq!((answer.as_slice(), resend.may_here(), resend.has_reads()), (&b""[..], false, true));
        resend.stop_withholding(&mut answer);
        assert_eq!(answer, b"x");
        assert!(resend.note_answer(&mut answer, || false), "the first of an answer");
        assert!(!resend.may() && !resend.note_answer(&mut answer, || false));
        for too_much in [None, Some(&[0; SENT_BYTES_MAX][..])] {
            let mut resend = begun(true, true);
            resend.note_sent(too_much);
            assert_eq!((resend.may(), resend.take_reads()), (false, None));
        }
        let mut resend = begun(false, true);
        assert_eq!((resend.may(), resend.take_reads()), (true, None), "it writes");
        resend.forbid();
        assert!(!resend.may());
    }

    /// An answer to a query: an error with these fields, and ReadyForQuery.
    fn failed(fields: &[(u8, &str)]) -> Vec<u8> {
        let fields = fields.iter().map(|(tag, text)| (*tag, text.as_bytes().to_vec())).collect();
        let mut answer = Vec::new();
        ErrorFields { fields }.write(b'E', &mut answer);
        answer.extend_from_slice(b"Z\0\0\0\x05I");
        answer
    }

    #[test]
    fn errors_that_only_a_replica_gives_are_told_from_all_others() {
        let cases: [(&[(u8, &str)], _); 8] = [
            (&[(b'V', "ERROR"), (b'C', "25006")], ReplicaRefusal::Whole(RefusedRead::Lasting)),
            (&[(b'C', "0A000"), (b'R', "get_relation_info")], ReplicaRefusal::Whole(RefusedRead::Lasting)),
            (&[(b'C', "0A000"), (b'R', "transformFromClause")], ReplicaRefusal::Not),
            (&[(b'C', "40001"), (b'R', "ProcessInterrupts")], ReplicaRefusal::Whole(RefusedRead::Once)),
            (&[(b'C', "40P01")], ReplicaRefusal::Whole(RefusedRead::Once)),
            (&[(b'V', "FATAL"), (b'C', "40001")], ReplicaRefusal::Not),
            // What a client's own cancel looks like.
            (&[(b'C', "57014"), (b'R', "ProcessInterrupts")], ReplicaRefusal::Not),
            (&[(b'C', "42P01")], ReplicaRefusal::Not),
        ];
        for (fields, refusal) in cases {
            let mut answer = failed(fields);
            assert_eq!(ReplicaRefusal::of(&answer), refusal, "{fields:?}");
            // As long as its end is still to come, nothing is passed on.
            if let ReplicaRefusal::Whole(why) = refusal {
                assert_eq!(ReplicaRefusal::of(&answer[..answer.len() - 1]), ReplicaRefusal::Begun(why));
                answer.extend_from_slice(&failed(&[(b'C', "42P01")]));
                assert_eq!(ReplicaRefusal::of(&answer), ReplicaRefusal::Not, "more was asked than is run again");
            }
        }
    }
}
