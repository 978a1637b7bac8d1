//! How a session begins, from the proof of who the client is to the first ReadyForQuery: its settings as the server
//! spells them, and what the server reports and says. In session mode the client gets its server connection here, too.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::refusal::LoginRefusal;
use crate::{
    backend::{self, Greeting, QueryError, ServerLogin},
    databases::{Beginning, NodeRequest, Target, request_any},
    frontend::{
        errors::{self, AcquireError, ErrorWords},
        relay::{Acquired, WaitNotice, Worker, acquire, acquire_from},
    },
    net::Stream,
    tasks::Scope,
};
use poolhouse_core::{
    session::{Carried, Mode, Probe, ProbeAnswer, Route},
    sql::{Isolation, census::before_login},
    wire::{
        error::{Report, SqlState},
        reply::{self, Authentication, Status},
        request::TERMINATE,
    },
};

/// How long a server may take to begin a session.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// How long a login waits for a connection of the pool before it takes one that is for logins alone.
const POOL_PATIENCE: Duration = Duration::from_millis(50);

/// How long a client may take to take in a NOTICE while it waits.
const NOTICE_LIMIT: Duration = Duration::from_secs(1);

/// So many connections are looked at for one that begins as a new one would.
const CURRENT_TRIES: usize = 3;

/// A session that can begin.
pub struct Begun {
    pub beginning: Beginning,
    /// The server connection that the client keeps from now on: session mode.
    pub held: Option<Acquired>,
}

impl Begun {
    /// The process at the server's end, when it is the client's own.
    pub fn process(&self) -> Option<u32> {
        self.held.as_ref().map(|(lease, _)| lease.process()).filter(|process| *process != 0)
    }
}

/// How the session begins. The first client with its startup parameters takes a server connection to have them checked
/// and spelled by the server; the next ones need none, unless each has its own anyway.
///
/// The first one's, and each one's in session mode, is where the `route` goes.
pub async fn begin(
    target: &Arc<Target>,
    worker: &Worker,
    startup: Vec<(String, String)>,
    route: Route,
) -> Result<Begun, LoginRefusal> {
    let keeps = target.shared.mode == Mode::Session;
    target.code_looked_at().await;
    target.defaults_looked_at().await;
    let (as_of, known) = (target.as_of(), target.beginning(&startup));
    if let Some(beginning) = known.clone().filter(|_| !keeps) {
        return Ok(Begun { beginning, held: None });
    }
    let request = request_any(target, route);
    let acquired = if keeps {
        acquire_current(target, worker, request).await
    } else {
        acquire_briefly(target, worker, request).await
    };
    let mut acquired = acquired.map_err(|error| LoginRefusal::Told(error.report()))?;
    let mut wanted = Carried::new(startup.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if known.is_none() && wanted.leaves_open(DATE_STYLE) {
        complete_style(target, &mut acquired, &mut wanted).await?;
    }
    match begin_on(&mut acquired.0, &wanted, known.as_ref(), !keeps).await {
        Ok(beginning) if keeps => {
            target.remember(startup, beginning.clone(), as_of);
            Ok(Begun { beginning, held: Some(acquired) })
        }
        Ok(beginning) => {
            acquired.0.give_back();
            target.remember(startup, beginning.clone(), as_of);
            Ok(Begun { beginning, held: None })
        }
        Err(QueryError::Server { fields }) => {
            // Perhaps it was what the connection carries of others that could not be taken back.
            if acquired.0.state.settings.is_empty() {
                acquired.0.give_back();
            }
            Err(LoginRefusal::Told(ErrorWords::Servers(fields.as_ref().clone())))
        }
        Err(error) => {
            Err(Report::fatal(SqlState::CONNECTION_LOST, format!("the session could not begin: {error}")).into())
        }
    }
}

/// A server connection for the questions of a login, which are answered in a moment: one of the pool or, when others keep
/// all of them, one that is for logins alone. What the client needs it for is still to come.
async fn acquire_briefly(
    target: &Arc<Target>,
    worker: &Worker,
    request: NodeRequest,
) -> Result<Acquired, AcquireError> {
    let mut pooled = pin!(acquire(target, worker, request));
    if let Ok(acquired) = timeout(POOL_PATIENCE, &mut pooled).await {
        return acquired;
    }
    let login_pool = |node| target.login_pool(node);
    tokio::select! {
        biased;
        acquired = &mut pooled => acquired,
        Ok(acquired) = acquire_from(target, worker, request, &login_pool) => Ok(acquired),
    }
}

/// A value of DateStyle that says only half builds on the configuration of the server, and not on what the role or the
/// database has for a default: a server takes startup parameters in before those. What a pooled connection returns to
/// is made of both. Where they differ, a connection that is opened with the parameter tells what becomes of it.
async fn complete_style(target: &Target, acquired: &mut Acquired, wanted: &mut Carried) -> Result<(), LoginRefusal> {
    let failed = |error: &dyn std::error::Error| {
        LoginRefusal::from(Report::fatal(SqlState::CONNECTION_LOST, format!("the session could not begin: {error}")))
    };
    let (lease, node) = acquired;
    let of_role = lease.query(STYLE_OF_ROLE, BEGIN_LIMIT).await.map_err(|error| failed(&error))?;
    if of_role.is_empty() {
        return Ok(());
    }
    let parameters = wanted.get(DATE_STYLE).map(|value| (DATE_STYLE.to_owned(), value.to_owned()));
    let login = ServerLogin { parameters: parameters.into_iter().collect(), ..target.login(*node) };
    let mut fresh = backend::connect(&login, target.cluster.connect_timeout).await.map_err(|error| failed(&error))?;
    // A server that does not take the goodbye finds out by the end of the stream.
    let _ = fresh.stream.try_write(&TERMINATE);
    if let Some(whole) = fresh.state.reported.get("DateStyle") {
        wanted.set(DATE_STYLE, whole);
    }
    Ok(())
}

const DATE_STYLE: &str = "datestyle";

/// A row for each default of the session's role or database for DateStyle.
const STYLE_OF_ROLE: &str = "\
SELECT 1 FROM pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) AS of
WHERE (setdatabase = 0 OR setdatabase = (SELECT oid FROM pg_catalog.pg_database
 WHERE datname = pg_catalog.current_database()))
AND (setrole = 0 OR setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = SESSION_USER))
AND pg_catalog.lower(of) LIKE 'datestyle=%'";

/// A server connection that becomes the client's own, and begins as one would that is opened now: what the role or the
/// database has for defaults may have changed since it was opened, or the role may be another one of the same name.
async fn acquire_current(
    target: &Arc<Target>,
    worker: &Worker,
    request: NodeRequest,
) -> Result<Acquired, AcquireError> {
    let question = before_login([target.login_user()].into_iter());
    for _ in 0..CURRENT_TRIES {
        let mut acquired = acquire_to_keep(target, worker, request).await?;
        let (lease, node) = &mut acquired;
        match lease.query(&question, BEGIN_LIMIT).await {
            Ok(mut rows) => {
                // The last row is about the server process.
                rows.pop();
                if target.begins_as_before(*node, format!("{rows:?}")) {
                    return Ok(acquired);
                }
                // This one is closed, too.
                lease.renew_pool();
            }
            // Whoever cannot be asked does not know of a change either.
            Err(QueryError::Server { .. }) => return Ok(acquired),
            Err(_) => {}
        }
    }
    acquire_to_keep(target, worker, request).await
}

/// A server connection that becomes the client's own: the client waits for it as others do for a transaction's.
async fn acquire_to_keep(
    target: &Arc<Target>,
    worker: &Worker,
    request: NodeRequest,
) -> Result<Acquired, AcquireError> {
    let mut acquiring = pin!(acquire(target, worker, request));
    let mut wait = None;
    let acquired = poll_fn(|cx| {
        let acquired = acquiring.as_mut().poll(cx);
        if acquired.is_pending() && wait.is_none() {
            wait = Some((target.account.wait_to_log_in(), Instant::now()));
        }
        acquired
    });
    let acquired = acquired.await?;
    if let Some((_, since)) = wait {
        target.account.traffic(Some(acquired.1.0.into()), Some(worker.number)).add_wait(since.elapsed());
    }
    Ok(acquired)
}

/// Brings the settings to the connection. When it is known how such a session begins, they are valid and spelled as the
/// server spells them; otherwise the server is asked, also for what decides between nodes if the session `may_choose`:
/// now, or once there are more of them.
async fn begin_on(
    server: &mut backend::Server,
    wanted: &Carried,
    known: Option<&Beginning>,
    may_choose: bool,
) -> Result<Beginning, QueryError> {
    let wanted = known.map_or(wanted, |known| &*known.settings);
    if let Some(replay) = server.state.settings.replay(wanted) {
        server.query(&replay.sql, BEGIN_LIMIT).await?;
        server.state.settings = Arc::new(wanted.clone());
    }
    let mut probe = Probe::default();
    if known.is_none() {
        wanted.iter().for_each(|(name, _)| probe.add_setting(name));
    }
    if probe != Probe::Nothing {
        let rows = server.query(&probe.sql(wanted), BEGIN_LIMIT).await?;
        let mut answer = ProbeAnswer::default();
        for row in &rows {
            let columns: Vec<_> = row.iter().map(|column| column.as_deref().map(str::as_bytes)).collect();
            answer.row(&columns);
        }
        server.state.settings = Arc::new(answer.apply(&probe, wanted));
    }
    let isolation = match known {
        Some(known) => known.isolation,
        None if may_choose => {
            let rows = server.query("SHOW default_transaction_isolation", BEGIN_LIMIT).await?;
            rows.first().and_then(|row| row.first()?.as_deref()).and_then(Isolation::of)
        }
        None => None,
    };
    let state = &mut server.state;
    if let Some(known) = known {
        // One copy serves all that are equal.
        state.settings = known.settings.clone();
        if state.reported == known.reported {
            state.reported = known.reported.clone();
        }
    }
    Ok(Beginning {
        settings: state.settings.clone(),
        reported: state.reported.clone(),
        about_server: state.about_itself.clone(),
        greeting: server.greeting.clone(),
        isolation,
    })
}

/// Waits for what a login needs of a server, unless the client leaves or Poolhouse is being shut down meanwhile. Tells
/// the client what for when that lasts, and then also that it is let in: some drivers take a NOTICE only after that.
/// Returns whether it was told.
pub async fn unless_gone<T>(
    stream: &mut Stream,
    scope: &Scope,
    target: &Target,
    route: Route,
    wait: impl Future<Output = Result<T, LoginRefusal>>,
) -> Result<(T, bool), LoginRefusal> {
    let (mut wait, mut told) = (pin!(wait), false);
    let mut notice = WaitNotice::new(target, Instant::now());
    loop {
        let report = tokio::select! {
            biased;
            result = &mut wait => return Ok((result?, told)),
            () = poll_fn(|cx| stream.poll_gone(cx)) => return Err(LoginRefusal::Gone),
            () = scope.stopping() => return Err(errors::shutting_down().into()),
            report = poll_fn(|cx| notice.poll(cx, target, || request_any(target, route))) => report,
        };
        let mut out = Vec::new();
        Authentication::Ok.write(&mut out);
        report.write_notice("NOTICE", &mut out);
        timeout(NOTICE_LIMIT, stream.write_all(&out)).await.map_err(|_| LoginRefusal::Gone)??;
        told = true;
    }
}

/// What a client is told that is in. With a server connection of its own (`own`) that is what this server has said;
/// `replicas` serve all that the session can ask for; it may have been `told` already that it is let in.
pub fn welcome(beginning: &Beginning, process: u32, secret: &[u8], own: bool, replicas: bool, told: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let quiet = Greeting::default();
    let greeting = beginning.greeting.as_deref().unwrap_or(&quiet);
    if !told {
        Authentication::Ok.write(&mut out);
    }
    out.extend_from_slice(&greeting.early);
    for (name, value) in beginning.reported.iter().chain(beginning.about_server.iter()) {
        // Behind Poolhouse there is always a server that can be written to, whichever answered first, unless the
        // session can reach none. libpq's target_session_attrs goes by this.
        let value = match name {
            "in_hot_standby" if replicas => "on",
            "in_hot_standby" if !own => "off",
            _ => value,
        };
        reply::parameter_status(name, value, &mut out);
    }
    reply::backend_key_data(process, secret, &mut out);
    out.extend_from_slice(&greeting.late);
    reply::ready_for_query(Status::Idle, &mut out);
    out
}
