//! What messages under way will do to the statements that a server connection holds.

use super::{keyed_queue::KeyedQueue, server_statements::ServerStatements};

/// A statement that the server will hold, or not hold any more, once a message under way has succeeded.
#[derive(Debug, Clone, Copy)]
pub struct StatementSent {
    pub id: u64,
    /// When it was prepared; nothing when it is dropped.
    pub held: Option<u64>,
    /// Length of the text that is prepared or dropped.
    pub bytes: usize,
    /// Only messages of the same batch share its fate when an error makes the server skip.
    batch: u32,
}

/// Whether the server will hold a statement when the message at hand reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Held,
    Lacking,
    /// It depends on replies that have not come.
    Unsure,
}

/// All of them, in their order.
#[derive(Debug, Default)]
pub struct StatementsUnderWay {
    queue: KeyedQueue<u64, StatementSent>,
    /// How many of them prepare something, and the bytes of that.
    prepared: usize,
    prepared_bytes: usize,
    /// The bytes of what the others drop.
    dropped_bytes: usize,
}

impl StatementsUnderWay {
    /// A statement is prepared at this moment.
    pub fn prepare(&mut self, id: u64, moment: u64, bytes: usize, batch: u32) {
        self.prepared += 1;
        self.prepared_bytes += bytes;
        self.queue.push(id, StatementSent { id, held: Some(moment), bytes, batch });
    }

    /// A statement is dropped that the server holds by its replies, or will.
    pub fn drop(&mut self, id: u64, held: &ServerStatements, batch: u32) {
        let bytes = match self.queue.newest(&id) {
            Some(sent) if sent.held.is_some() => sent.bytes,
            Some(_) => 0,
            None => held.bytes_of(id),
        };
        self.dropped_bytes += bytes;
        self.queue.push(id, StatementSent { id, held: None, bytes, batch });
    }

    pub fn pop(&mut self) -> Option<StatementSent> {
        let (_, sent) = self.queue.pop()?;
        if sent.held.is_some() {
            self.prepared -= 1;
            self.prepared_bytes -= sent.bytes;
        } else {
            self.dropped_bytes -= sent.bytes;
        }
        Some(sent)
    }

    /// Whether the server will hold a statement, of which `held` tells what is known by its replies. `doubtful` = all may
    /// be gone.
    pub fn presence(&self, id: u64, held: bool, batch: u32, doubtful: bool) -> Presence {
        match self.queue.newest(&id) {
            Some(sent) if sent.batch != batch => Presence::Unsure,
            _ if doubtful => Presence::Unsure,
            Some(sent) if sent.held.is_some() => Presence::Held,
            None if held => Presence::Held,
            _ => Presence::Lacking,
        }
    }

    /// Whether a message under way is about this statement.
    pub fn has(&self, id: u64) -> bool {
        self.queue.newest(&id).is_some()
    }

    /// How many statements the server will hold, when it holds these by its replies.
    pub fn len_then(&self, held: &ServerStatements) -> usize {
        (held.len() + self.prepared).saturating_sub(self.queue.len() - self.prepared)
    }

    /// How many bytes of texts it will hold.
    pub fn bytes_then(&self, held: &ServerStatements) -> usize {
        (held.bytes() + self.prepared_bytes).saturating_sub(self.dropped_bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn clear(&mut self) {
        *self = StatementsUnderWay::default();
    }
}
