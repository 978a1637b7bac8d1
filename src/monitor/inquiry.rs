//! Has a replica ask the server that it follows for a sign of life.
//!
//! PostgreSQL has no order for that, and the receiver of WAL can't be ended from outside. But a receiver that has heard
//! nothing for half of `wal_receiver_timeout` asks its sender for an answer, which one that lives gives at once; when
//! all of that time is over it ends the connection. So the time is made short for a few seconds (ALTER SYSTEM and a
//! reload). That is done only where ALTER SYSTEM had not set it, so that a RESET brings back what was there. Should we
//! die in between, the value is known by its odd number of milliseconds, and whoever watches next resets it: the
//! `prober`.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::now;
use crate::backend::{self, QueryError, Server, ServerLogin};
use poolhouse_core::topology::Testimony;

/// For all that is asked of the replica, its connection included.
const LIMIT: Duration = Duration::from_secs(30);
/// For one statement.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// How often the replica is looked at while it waits for the answer.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// For the sender's answer to arrive, once the receiver has asked.
const ANSWER: Duration = Duration::from_secs(1);
/// Settings that take longer to come into force may have had the receiver end its connection without a question.
const PROMPT: Duration = Duration::from_secs(1);
/// Then so long for the connection to come back: `wal_retrieve_retry_interval` is 5 s by default.
const RETURN: Duration = Duration::from_secs(8);
/// Somebody else may change the setting meanwhile.
const ATTEMPTS_MAX: usize = 3;
/// The short time is kept for so long after we know, for others of us who ask at the same moment.
const LINGER: Duration = Duration::from_secs(2);
/// A time that is set by an administrator and as short as that needs no change.
const SHORT_MS_MAX: u64 = 6_000;
/// What every short time of ours is above whole seconds.
const MARK_MS: u64 = 787;
/// Since PostgreSQL 16 a reload starts the receiver's times anew; before, they count from what it has heard last.
const COUNTS_FROM_RELOAD: u64 = 160_000;

const LOOK: &str = "SELECT current_setting('server_version_num'), setting, source, sourcefile, \
     has_function_privilege('pg_reload_conf()', 'execute'), pid, status, last_msg_receipt_time, \
     (EXTRACT(EPOCH FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint \
     FROM pg_settings LEFT JOIN pg_stat_wal_receiver ON true WHERE name = 'wal_receiver_timeout'";
const RELOAD: &str = "SELECT pg_reload_conf()";
const LEFTOVER: &str =
    "SELECT setting FROM pg_settings WHERE name = 'wal_receiver_timeout' AND sourcefile LIKE '%auto.conf'";

/// Whether a user may do all this, for PostgreSQL 15 and later; before, a superuser may.
pub(super) const MAY: &str = "SELECT has_parameter_privilege('wal_receiver_timeout', 'ALTER SYSTEM')";
/// What is missing when not.
pub(super) const GRANT: &str = "GRANT ALTER SYSTEM ON PARAMETER wal_receiver_timeout";

/// One inquiry at one replica.
pub(super) struct Inquiry<'a> {
    login: &'a ServerLogin,
    connect_limit: Duration,
    /// The setting is, or may be, ours.
    wrote: bool,
}

/// Why a replica could not be made to ask.
#[derive(Debug, thiserror::Error)]
enum Unable {
    #[error(transparent)]
    Connect(#[from] backend::ConnectError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("its user may not see pg_stat_wal_receiver: GRANT pg_monitor")]
    Hidden,
    #[error("its user may not change wal_receiver_timeout: {GRANT}")]
    NotAllowed,
    #[error("its user may not reload: GRANT EXECUTE ON FUNCTION pg_reload_conf()")]
    NoReload,
    #[error("wal_receiver_timeout is set by ALTER SYSTEM; in postgresql.conf it could be overridden for a moment")]
    SetBySystem,
    #[error("wal_receiver_timeout is set by {0}, where it can't be overridden")]
    SetElsewhere(String),
    #[error("wal_receiver_timeout does not stay what it was set to")]
    Restless,
    #[error("the replica took longer than {LIMIT:?}")]
    Late,
    #[error("its answer makes no sense")]
    Nonsense,
}

impl Unable {
    fn is_lasting(&self) -> bool {
        match self {
            Unable::Hidden | Unable::NotAllowed | Unable::NoReload | Unable::SetBySystem | Unable::SetElsewhere(_) => {
                true
            }
            Unable::Connect(_) | Unable::Query(_) | Unable::Restless | Unable::Late | Unable::Nonsense => false,
        }
    }
}

/// The replica at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    version: u64,
    timeout_ms: u64,
    source: String,
    file: Option<String>,
    may_reload: bool,
    receiver: Option<Receiving>,
}

/// Its receiver, when there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Receiving {
    /// `None` = the user may not see it.
    status: Option<String>,
    /// When it heard something last, in the server's notation.
    heard: Option<String>,
    silent_ms: u64,
}

/// How the receiver's time is made short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeoutPlan {
    timeout_ms: u64,
    /// It is so already, by somebody else's will.
    given: bool,
    /// Until the receiver asks, from when the time is in force.
    asks_after: Duration,
}

impl<'a> Inquiry<'a> {
    pub(super) fn new(login: &'a ServerLogin, connect_limit: Duration) -> Inquiry<'a> {
        Inquiry { login, connect_limit, wrote: false }
    }

    /// Finds out what the replica hears. [`Inquiry::end`] must follow, also when this was cancelled.
    pub(super) async fn ask(&mut self) -> Testimony {
        let asked = timeout(LIMIT, self.attempts()).await.unwrap_or(Err(Unable::Late));
        asked.unwrap_or_else(|error| Testimony::Unable { reason: error.to_string(), lasting: error.is_lasting() })
    }

    /// Brings the setting back that was there. `stopping`: at once.
    pub(super) async fn end(self, stopping: impl Future<Output = ()>) -> Result<(), String> {
        if !self.wrote {
            return Ok(());
        }
        tokio::select! {
            () = stopping => {}
            () = sleep(LINGER) => {}
        }
        let mut server = backend::connect(self.login, self.connect_limit).await.map_err(|error| error.to_string())?;
        if has_leftover(&mut server).await.map_err(|error| error.to_string())? {
            reset(&mut server).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn attempts(&mut self) -> Result<Testimony, Unable> {
        let mut server = backend::connect(self.login, self.connect_limit).await?;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(testimony) = self.attempt(&mut server).await? {
                return Ok(testimony);
            }
        }
        Err(Unable::Restless)
    }

    /// `None` = somebody else has changed the setting before anything could come of it.
    async fn attempt(&mut self, server: &mut Server) -> Result<Option<Testimony>, Unable> {
        let measured = now();
        let before = look(server).await?;
        let Some(receiving) = &before.receiver else { return Ok(Some(Testimony::Silent)) };
        let Some(plan) = plan(&before, receiving)? else { return Ok(Some(Testimony::Silent)) };
        if !plan.given {
            self.wrote = true;
            let sql = format!("ALTER SYSTEM SET wal_receiver_timeout = {}", plan.timeout_ms);
            match server.query(&sql, STATEMENT_LIMIT).await {
                Err(error) if error.code() == Some("42501") => {
                    self.wrote = false;
                    return Err(Unable::NotAllowed);
                }
                result => result?,
            };
            server.query(RELOAD, STATEMENT_LIMIT).await?;
        }
        let reloaded = now();
        let mut in_force: Option<Instant> = None;
        loop {
            let seen = look(server).await?;
            let at = now();
            if seen.timeout_ms == plan.timeout_ms || (in_force.is_none() && is_ours(seen.timeout_ms)) {
                in_force = in_force.or(Some(at));
            } else if in_force.is_some() || at.saturating_duration_since(reloaded) > PROMPT {
                return Ok(None);
            }
            let prompt = plan.given
                || before.version >= COUNTS_FROM_RELOAD
                || in_force.is_some_and(|at| at.saturating_duration_since(measured) < PROMPT);
            let waited = in_force.map(|since| at.saturating_duration_since(since));
            if let Some(testimony) = judge(plan, receiving, seen.receiver.as_ref(), waited, prompt) {
                return Ok(Some(testimony));
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}

/// What is seen of the receiver `waited` after the short time came into force, and `None` while that is not known.
/// `prompt`: it cannot have ended before it asked.
fn judge(
    plan: TimeoutPlan,
    before: &Receiving,
    seen: Option<&Receiving>,
    waited: Option<Duration>,
    prompt: bool,
) -> Option<Testimony> {
    let waited = waited?;
    match seen.filter(|seen| seen.is_streaming()) {
        Some(seen) if seen.heard != before.heard => Some(Testimony::Answered),
        Some(_) => (waited >= plan.asks_after + ANSWER).then_some(Testimony::Silent),
        None if prompt => Some(Testimony::Silent),
        None => (waited >= RETURN).then_some(Testimony::Silent),
    }
}

/// `None` = the receiver does not stream: there is nobody to be asked.
fn plan(before: &Look, receiving: &Receiving) -> Result<Option<TimeoutPlan>, Unable> {
    if receiving.status.is_none() {
        return Err(Unable::Hidden);
    }
    if !receiving.is_streaming() {
        return Ok(None);
    }
    let ours = is_ours(before.timeout_ms);
    let asks_after = |timeout_ms: u64| Duration::from_millis((timeout_ms / 2).saturating_sub(receiving.silent_ms));
    if !ours && (1..=SHORT_MS_MAX).contains(&before.timeout_ms) {
        let timeout_ms = before.timeout_ms;
        return Ok(Some(TimeoutPlan { timeout_ms, given: true, asks_after: asks_after(timeout_ms) }));
    }
    match (before.source.as_str(), before.file.as_deref()) {
        ("default", _) => {}
        ("configuration file", None) => return Err(Unable::Hidden),
        ("configuration file", Some(file)) if file.ends_with("auto.conf") && !ours => return Err(Unable::SetBySystem),
        ("configuration file", Some(_)) => {}
        (elsewhere, _) => return Err(Unable::SetElsewhere(elsewhere.to_owned())),
    }
    if !before.may_reload {
        return Err(Unable::NoReload);
    }
    let given = false;
    if before.version >= COUNTS_FROM_RELOAD {
        let timeout_ms = 2_000 + MARK_MS;
        return Ok(Some(TimeoutPlan { timeout_ms, given, asks_after: Duration::from_millis(timeout_ms / 2) }));
    }
    // The receiver asks at half of it, and must not have reached the whole of it: it would end without a question.
    let timeout_ms = (receiving.silent_ms + 2_000).next_multiple_of(1_000) + MARK_MS;
    Ok(Some(TimeoutPlan { timeout_ms, given, asks_after: asks_after(timeout_ms) }))
}

fn is_ours(timeout_ms: u64) -> bool {
    timeout_ms % 1_000 == MARK_MS
}

/// Whether a short time of ours is set there.
pub(super) async fn has_leftover(server: &mut Server) -> Result<bool, QueryError> {
    let rows = server.query(LEFTOVER, STATEMENT_LIMIT).await?;
    let value = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    Ok(value.is_some_and(is_ours))
}

pub(super) async fn reset(server: &mut Server) -> Result<(), QueryError> {
    server.query("ALTER SYSTEM RESET wal_receiver_timeout", STATEMENT_LIMIT).await?;
    server.query(RELOAD, STATEMENT_LIMIT).await?;
    Ok(())
}

async fn look(server: &mut Server) -> Result<Look, Unable> {
    let rows = server.query(LOOK, STATEMENT_LIMIT).await?;
    rows.first().and_then(|row| read(row)).ok_or(Unable::Nonsense)
}

fn read(row: &[Option<String>]) -> Option<Look> {
    let text = |column: usize| row.get(column)?.clone();
    let receiver = text(5).map(|_| Receiving {
        status: text(6),
        heard: text(7),
        // A clock that was set back shows a time to come.
        silent_ms: text(8).and_then(|text| text.parse::<i64>().ok()).map_or(0, |ms| ms.max(0).cast_unsigned()),
    });
    Some(Look {
        version: text(0)?.parse().ok()?,
        timeout_ms: text(1)?.parse().ok()?,
        source: text(2)?,
        file: text(3),
        may_reload: text(4)? == "t",
        receiver,
    })
}

impl Receiving {
    fn is_streaming(&self) -> bool {
        self.status.as_deref() == Some("streaming")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiving(status: &str, heard: &str, silent_ms: u64) -> Receiving {
        Receiving { status: Some(status.into()), heard: Some(heard.into()), silent_ms }
    }

    fn planned(version: u64, timeout_ms: u64, source: &str, file: Option<&str>) -> Result<Option<TimeoutPlan>, String> {
        let file = file.map(str::to_owned);
        let before = Look { version, timeout_ms, source: source.into(), file, may_reload: true, receiver: None };
        plan(&before, &receiving("streaming", "x", 4_200)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_receiver_asks_before_its_time_is_over() {
        for silent_ms in [0, 1_000, 2_900, 4_200, 29_000] {
            let before = Look {
                version: 150_000,
                timeout_ms: 60_000,
                source: "default".into(),
                file: None,
                may_reload: true,
                receiver: None,
            };
            let plan = plan(&before, &receiving("streaming", "x", silent_ms)).unwrap().unwrap();
            assert!(is_ours(plan.timeout_ms) && !plan.given);
            assert!(plan.timeout_ms >= silent_ms + 2_000, "{plan:?}");
            let asks = silent_ms + u64::try_from(plan.asks_after.as_millis()).unwrap();
            assert!(asks >= plan.timeout_ms / 2 && asks + 1_000 < plan.timeout_ms, "{silent_ms} {plan:?}");
        }
        let later = planned(160_000, 60_000, "default", None).unwrap().unwrap();
        assert_eq!((later.timeout_ms, later.asks_after.as_millis()), (2_787, 1_393));
    }

    #[test]
    fn only_a_setting_that_a_reset_brings_back_is_changed() {
        let conf = Some("/etc/postgresql.conf");
        let system = Some("/data/postgresql.auto.conf");
        let given = |answer: Result<Option<TimeoutPlan>, String>| answer.unwrap().unwrap().given;
        assert!(!given(planned(150_000, 0, "default", None)), "it never asks by itself");
        assert!(!given(planned(150_000, 60_000, "configuration file", conf)));
        assert!(!given(planned(150_000, 6_787, "configuration file", system)), "ours, from before");
        assert!(given(planned(150_000, 5_000, "configuration file", system)), "short enough as it is");
        assert!(given(planned(180_000, 5_000, "command line", None)));
        for (source, file, words) in [
            ("configuration file", system, "ALTER SYSTEM"),
            ("configuration file", None, "pg_monitor"),
            ("command line", None, "command line"),
        ] {
            let error = planned(150_000, 60_000, source, file).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_the_receiver_hears_is_testimony() {
        let plan = TimeoutPlan { timeout_ms: 2_787, given: false, asks_after: Duration::from_secs(1) };
        let before = receiving("streaming", "12:00", 4_000);
        let judged = |seen: Option<Receiving>, ms: u64, prompt| {
            judge(plan, &before, seen.as_ref(), Some(Duration::from_millis(ms)), prompt)
        };
        let same = || Some(before.clone());
        assert_eq!(judged(same(), 1_900, true), None, "it has only just asked");
        assert_eq!(judged(same(), 2_000, true), Some(Testimony::Silent));
        assert_eq!(judged(Some(receiving("streaming", "12:01", 10)), 1_100, true), Some(Testimony::Answered));
        assert_eq!(judged(None, 100, true), Some(Testimony::Silent), "the sender is gone");
        assert_eq!(judged(None, 7_900, false), None, "we may have ended it");
        assert_eq!(judged(Some(receiving("starting", "12:01", 0)), 7_900, false), None);
        assert_eq!(judged(Some(receiving("streaming", "12:01", 0)), 7_900, false), Some(Testimony::Answered));
        assert_eq!(judged(None, 8_000, false), Some(Testimony::Silent));
        assert_eq!(judge(plan, &before, None, None, true), None, "it may not know yet");
    }
}
