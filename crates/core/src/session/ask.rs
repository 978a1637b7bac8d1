//! The one way to ask a server something of ours between what clients say.
//!
//! A simple query takes the server's unnamed statement away, whoever has sent it (manual, "Extended Query"). So whoever asks
//! something goes through here, and a client whose unnamed statement it was gets it anew with its next Bind.

use super::{Outboxes, Pipeline, ServerState, owed::Owed};
use crate::wire::request;

/// The server connection that is lent, with what is under way there.
pub(super) struct Lent<'a, 'o> {
    pub pipeline: &'a mut Pipeline,
    pub server: &'a mut ServerState,
    pub out: &'a mut Outboxes<'o>,
}

/// Sends a query of ours, for which this is owed.
pub(super) fn ask_ours(
    sql: &[u8],
    owed: Owed,
    pipeline: &mut Pipeline,
    server: &mut ServerState,
    out: &mut Outboxes<'_>,
) {
    request::query_bytes(sql, out.to_server);
    server.statements.forget_unnamed();
    pipeline.drop_long_unnamed();
    pipeline.owed.push(owed);
}
