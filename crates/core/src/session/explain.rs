//! Why a statement goes where it goes: EXPLAIN ROUTE, and the notice of `poolhouse.explain`. Both ask what decides.

use super::{Judge, Need, Pipeline, Rule, ServerState, Session};
use crate::{
    sql::{Composition, KnownText},
    wire::{
        error::{Report, SqlState},
        reply::{self, Status},
    },
};

/// The columns of EXPLAIN ROUTE's answer.
pub const ROUTE_COLUMNS: [&str; 14] = [
    "verdict",
    "reason",
    "rule",
    "node",
    "role",
    "state",
    "lag_bytes",
    "lag_seconds",
    "position",
    "weight",
    "busy",
    "standing",
    "zone",
    "chosen",
];

/// A node as it is for one statement.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    pub id: u16,
    pub name: String,
    /// `None` until it has said what it is.
    pub role: Option<&'static str>,
    pub state: &'static str,
    /// WAL that a replica lacks of what the primary has: bytes, and for how many seconds. `None` when that is not known.
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    /// WAL position: inserted on a primary, replayed on a replica; 0 = not known.
    pub position: u64,
    pub weight: f64,
    /// Server connections that are lent to clients.
    pub busy: usize,
    /// Why it is not among those of which one is taken; `None` when it is.
    pub unfit: Option<String>,
    /// It is in Poolhouse's own zone, or no zones are named.
    pub near: bool,
    /// A statement would go there now.
    pub chosen: bool,
}

/// A node in the answer to EXPLAIN ROUTE.
pub type RouteRow = [Option<String>; ROUTE_COLUMNS.len()];

/// What explains a route, for a text under way.
pub(super) struct Explained<'a> {
    pub sql: &'a [u8],
    pub pipeline: &'a Pipeline,
    /// The node of the server connection that the session has.
    pub node: Option<u16>,
}

/// Describes the answer to EXPLAIN ROUTE.
pub(super) fn describe_route(format: u16, to_client: &mut Vec<u8>) {
    reply::text_columns(ROUTE_COLUMNS, format, to_client);
}

impl Session {
    /// Where a text would go that is sent now, in the rows of EXPLAIN ROUTE.
    ///
    /// # Errors
    /// There is no statement in it.
    pub fn route_of(&self, sql: &[u8], judge: &impl Judge) -> Result<Vec<RouteRow>, Report> {
        self.route_rows(&Explained { sql, pipeline: &Pipeline::default(), node: None }, judge)
    }

    /// Answers EXPLAIN ROUTE, without a description of its rows.
    pub(super) fn explain_route(
        &self,
        explained: &Explained<'_>,
        judge: &impl Judge,
        to_client: &mut Vec<u8>,
    ) -> Result<(), Report> {
        let rows = self.route_rows(explained, judge)?;
        for row in &rows {
            reply::text_row(row.each_ref().map(Option::as_deref), to_client);
        }
        reply::command_complete(&format!("EXPLAIN {}", rows.len()), to_client);
        Ok(())
    }

    fn route_rows(&self, explained: &Explained<'_>, judge: &impl Judge) -> Result<Vec<RouteRow>, Report> {
        // Whoever keeps what is known of the database's code is to know that it is wanted.
        self.shared.code.hidden();
        let verdict = judge.verdict(explained.sql);
        if verdict.composition == Composition::None && verdict.own.is_none() {
            return Err(Report::error(SqlState::SYNTAX_ERROR, "EXPLAIN ROUTE needs a statement")
                .hint("Write it like EXPLAIN ROUTE SELECT 1."));
        }
        let pipeline = explained.pipeline;
        let (need, rule) = self.why(Some(&verdict), pipeline, explained.node.is_some());
        let stays = matches!(rule, Rule::Transaction | Rule::Pinned).then_some(explained.node).flatten();
        let reads = if self.reads(&verdict, pipeline) { "read" } else { "write" };
        let reason = match &verdict.own {
            Some(_) => "answered by Poolhouse itself, no server is asked".into(),
            None => self.verdict_words(Some(&verdict), pipeline),
        };
        let rule = rule.to_string();
        let row = |node: NodeView| {
            let chosen = stays.map_or(node.chosen, |stays| stays == node.id) && verdict.own.is_none();
            let standing = match &node.unfit {
                Some(_) if stays.is_some() && chosen => "fit",
                Some(why) => why,
                None => "fit",
            };
            let lag_bytes = node.lag_bytes.map(|bytes| bytes.to_string());
            let lag_seconds = node.lag_seconds.map(|seconds| format!("{seconds:.3}"));
            let position = (node.position > 0).then(|| position(node.position));
            let standing = Some(standing.to_owned());
            [
                Some(reads.to_owned()),
                Some(reason.to_string()),
                Some(rule.clone()),
                Some(node.name),
                node.role.map(str::to_owned),
                Some(node.state.to_owned()),
                lag_bytes,
                lag_seconds,
                position,
                Some(node.weight.to_string()),
                Some(node.busy.to_string()),
                standing,
                Some(if node.near { "near" } else { "far" }.to_owned()),
                Some(if chosen { "yes" } else { "no" }.to_owned()),
            ]
        };
        Ok(judge.nodes(need, self.poolhouse_settings().lsn).into_iter().map(row).collect())
    }

    /// What a text needs and the rule that says so, seen from where the session is.
    fn why(&self, verdict: Option<&KnownText>, pipeline: &Pipeline, attached: bool) -> (Need, Rule) {
        let (need, rule) = self.decide(verdict, pipeline);
        let rule = match rule {
            Rule::NoChoice => Rule::NoChoice,
            _ if attached && pipeline.owed.status() != Status::Idle => Rule::Transaction,
            _ if attached && self.is_pinned() => Rule::Pinned,
            rule => rule,
        };
        (need, rule)
    }

    /// For `poolhouse.explain`: where a statement runs that is about to be sent, and why.
    pub(super) fn explanation(&self, verdict: Option<&KnownText>, pipeline: &Pipeline, server: &ServerState) -> String {
        let (_, rule) = self.why(verdict, pipeline, true);
        let node = self.shared.nodes.name(server.node);
        let words = self.verdict_words(verdict, pipeline);
        match rule {
            Rule::Verdict => format!("runs on {node}: {words}"),
            rule => format!("runs on {node}: {rule} (verdict: {words})"),
        }
    }
}

/// A WAL position as PostgreSQL writes it (manual, "pg_lsn Type").
pub(super) fn position(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn as u32)
}
