//! What a session counts until somebody adds it up.

/// Numbers since they were taken last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// The client's ReadyForQuery messages that the server has sent.
    pub queries: u32,
    /// Those of them outside of a transaction.
    pub transactions: u32,
    /// Statements sent that surely only read.
    pub reads: u32,
    /// All other statements sent.
    pub writes: u32,
    /// The client's Parse messages for named statements.
    pub client_parses: u32,
    /// Parse messages for named statements that were sent to the server, those of the client among them.
    pub server_parses: u32,
    /// Bind messages for named statements that were sent to the server.
    pub binds: u32,
}

impl SessionCounts {
    /// A Parse message of the client for a named statement is sent, under its name or ours.
    pub fn add_passed_parse(&mut self) {
        self.client_parses += 1;
        self.server_parses += 1;
    }

    /// A statement is sent.
    pub fn add_statement(&mut self, reads: bool) {
        if reads { self.reads += 1 } else { self.writes += 1 }
    }
}
