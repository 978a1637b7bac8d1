//! What the machine decides and a server has to do: promote itself, follow another. Each over a connection of its own.
//! Both may be carried out twice without harm.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;

use super::conninfo;
use crate::{
    backend::{self, ConnectError, QueryError, Server, ServerLogin},
    net::Address,
};
use poolhouse_core::topology::Observation;

/// How long the server waits for its own promotion, in seconds.
const PROMOTION_SECONDS: u64 = 60;
/// On top of that, for the answer to arrive.
const PROMOTION_SLACK: Duration = Duration::from_secs(5);
/// For one statement of an order that takes no time.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// "recovery is not in progress": it is a primary already.
const NOT_IN_RECOVERY: &str = "55000";

/// Makes the replica at `login` a primary.
pub(super) async fn promote(login: &ServerLogin, connect_limit: Duration) -> Observation {
    let failed = |reason: String, may_still_happen| Observation::PromotionFailed { reason, may_still_happen };
    let mut server = match backend::connect(login, connect_limit).await {
        Ok(server) => server,
        Err(error) => return failed(error.to_string(), false),
    };
    let sql = format!("SELECT pg_promote(true, {PROMOTION_SECONDS})");
    let limit = Duration::from_secs(PROMOTION_SECONDS) + PROMOTION_SLACK;
    match server.query(&sql, limit).await {
        Ok(rows) if first(&rows) == Some("t") => Observation::Promoted,
        Ok(_) => failed(format!("not promoted within {PROMOTION_SECONDS} s"), true),
        Err(error) if error.code() == Some(NOT_IN_RECOVERY) => Observation::Promoted,
        Err(error) => failed(error.to_string(), error.code().is_none()),
    }
}

/// Why a replica could not be pointed at the primary.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Unreadable(#[from] conninfo::LeftAlone),
    #[error("it is not a replica any more")]
    NotAReplica,
}

/// Points the replica at `login` to the primary at `primary`; user, password and everything else of the replica's
/// connection stay. Answers whether that was a change.
pub(super) async fn follow(
    login: &ServerLogin,
    primary: &Address,
    connect_limit: Duration,
) -> Result<bool, FollowError> {
    let mut server = backend::connect(login, connect_limit).await?;
    if ask(&mut server, "SELECT pg_is_in_recovery()").await?.as_deref() != Some("t") {
        return Err(FollowError::NotAReplica);
    }
    let conninfo = ask(&mut server, "SELECT current_setting('primary_conninfo')").await?.unwrap_or_default();
    let Some(pointed) = conninfo::point_at(&conninfo, primary)? else { return Ok(false) };
    // The literal of a text with backslashes begins with a space of its own: ` E'`.
    ask(&mut server, &format!("ALTER SYSTEM SET primary_conninfo ={}", escape_literal(&pointed))).await?;
    ask(&mut server, "SELECT pg_reload_conf()").await?;
    Ok(true)
}

async fn ask(server: &mut Server, sql: &str) -> Result<Option<String>, QueryError> {
    let rows = server.query(sql, STATEMENT_LIMIT).await?;
    Ok(first(&rows).map(str::to_owned))
}

fn first(rows: &[Vec<Option<String>>]) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}
