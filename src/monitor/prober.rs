//! Asks one node at every interval, and at once when told to, over a connection that it keeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{sleep_until, timeout},
};

use super::{Event, Health, MonitorState, inquiry, now, probe};
use crate::{
    backend::{self, ConnectError, QueryError, Server, ServerLogin},
    tasks::Scope,
};
use poolhouse_core::topology::{FailoverMode, NodeId, NodeSettings, Observation};

/// Between two probes of a node that answers, however often they are asked for.
const SPACING: Duration = Duration::from_millis(10);
/// After this long a kept connection is opened anew: the name may lead elsewhere by now, and a server that takes no
/// new connections would not be noticed.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);

/// An inquiry and what follows it take less.
const LEFTOVER_AGE: Duration = Duration::from_secs(50);

const INQUIRY_LACK: &str = "a replica can't be made to ask whether the primary lives, so that a primary that writes nothing \
     is replaced when only we cannot reach it (a superuser may, and since PostgreSQL 15 whoever is allowed)";
const PROMOTION_GRANT: &str = "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf()";
const PROMOTION_LACK: &str = "no replica can be promoted; to point replicas at a new primary the user also needs \
     pg_read_all_settings and, since PostgreSQL 15, ALTER SYSTEM ON PARAMETER primary_conninfo";

/// Asks a prober for a probe.
#[derive(Debug, Clone)]
pub(super) struct Bell {
    rung: Arc<Notify>,
    reopen: Arc<AtomicBool>,
    /// Of the prober.
    scope: Scope,
}

impl Bell {
    /// Probe as soon as you may.
    pub(super) fn ring(&self) {
        self.rung.notify_one();
    }

    /// Use a new connection for the next probe.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

/// Said once per cluster, not once per node.
#[derive(Debug, Default)]
pub(super) struct Advice {
    receiver: AtomicBool,
    control: AtomicBool,
    promotion: AtomicBool,
    inquiry: AtomicBool,
}

/// Starts a prober, which heeds its bell, for each node that has none, and ends those of nodes that are gone.
pub(super) fn settle(shared: &Arc<MonitorState>) {
    let before = shared.bells.load();
    let bell = |(at, node): (usize, &NodeSettings)| {
        let bell = match before.get(at).filter(|bell| !bell.scope.is_stopping()) {
            Some(bell) => bell.clone(),
            None => Bell { rung: Arc::default(), reopen: Arc::default(), scope: shared.scope.child() },
        };
        if node.gone {
            bell.scope.stop();
        } else if before.get(at).is_none_or(|before| before.scope.is_stopping()) {
            start(shared, NodeId(at as u16), &bell);
        }
        bell
    };
    let bells = shared.settings().topology.nodes.iter().enumerate().map(bell).collect();
    shared.bells.store(Arc::new(bells));
}

fn start(shared: &Arc<MonitorState>, node: NodeId, bell: &Bell) {
    let settings = shared.settings();
    let prober = Prober {
        node,
        login: settings.login(node),
        health: settings.health.clone(),
        shared: Arc::clone(shared),
        bell: bell.clone(),
        kept: None,
        leftover: None,
        with_control: true,
        refused: false,
    };
    let stopping = bell.scope.clone();
    // Of the monitor's branch, which is waited for at the end; the bell's own only says when to stop.
    shared.scope.spawn("probe a node", async move {
        tokio::select! {
            () = stopping.stopping() => {}
            () = prober.run() => {}
        }
    });
}

struct Prober {
    node: NodeId,
    login: ServerLogin,
    /// What the login was made of.
    health: Health,
    shared: Arc<MonitorState>,
    bell: Bell,
    kept: Option<Kept>,
    /// Since when a setting of an inquiry is known to have stayed there.
    leftover: Option<Instant>,
    /// The user may call pg_control_*, as far as we know.
    with_control: bool,
    /// The last probe was not let in.
    refused: bool,
}

struct Kept {
    server: Server,
    opened: Instant,
    /// The question is prepared there: it is asked up to a hundred times a second.
    prepared: bool,
}

fn is_false(rows: &[Vec<Option<String>>]) -> bool {
    rows.first().and_then(|row| row.first()?.as_deref()) == Some("f")
}

enum Failure {
    Connect(ConnectError),
    Query(QueryError),
    Nonsense(probe::Nonsense),
}

impl Prober {
    async fn run(mut self) {
        loop {
            let started = now();
            let observation = self.observe(started).await;
            let answered = matches!(observation, Observation::Probe(_));
            self.note_refusal(&observation);
            let event = Event { node: self.node, observation, reported: false };
            if self.shared.events.send(event).await.is_err() {
                return;
            }
            self.rest(started, answered).await;
        }
    }

    /// Nothing else is known of a server that does not let us in: a person must see why, once.
    fn note_refusal(&mut self, observation: &Observation) {
        let refusal = match observation {
            Observation::LoginRefused { reason } => Some(reason),
            _ => None,
        };
        if let Some(reason) = refusal.filter(|_| !self.refused) {
            let (cluster, user) = (&self.shared.settings().name, &self.login.user);
            let (address, database) = (&self.login.address, &self.login.database);
            tracing::warn!(cluster, %address, user, database, reason, "the health check is not let in");
        }
        self.refused = refusal.is_some();
    }

    /// A node that fails is not asked more often than at every interval, so that `failures` keeps its meaning.
    async fn rest(&self, started: Instant, answered: bool) {
        let due = started + self.interval();
        let earliest = if answered { started + SPACING } else { due };
        sleep_until(earliest.into()).await;
        tokio::select! {
            () = sleep_until(due.into()) => {}
            () = self.bell.rung.notified() => {}
        }
    }

    async fn observe(&mut self, started: Instant) -> Observation {
        let limit = self.limit();
        let failure = match timeout(limit, self.probe(started)).await {
            Ok(Ok(probe)) => {
                self.tell(None);
                return probe;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Query(QueryError::Timeout(limit)),
        };
        self.kept = None;
        self.tell(match &failure {
            Failure::Connect(error) => Some(error.clone()),
            Failure::Query(QueryError::Timeout(limit)) => Some(ConnectError::Timeout(*limit)),
            Failure::Query(_) | Failure::Nonsense(_) => None,
        });
        match failure {
            // A server that starts or stops refuses too, and is as good as gone.
            Failure::Connect(error) if error.is_definite() => Observation::LoginRefused { reason: error.to_string() },
            Failure::Connect(error) => Observation::ProbeFailed { reason: error.to_string() },
            Failure::Query(error) => Observation::ProbeFailed { reason: error.to_string() },
            Failure::Nonsense(error) => Observation::ProbeFailed { reason: error.to_string() },
        }
    }

    /// Makes known why the check failed, before anybody can ask because of what follows from it.
    fn tell(&self, error: Option<ConnectError>) {
        let Some(told) = self.shared.told.get(usize::from(self.node.0)) else { return };
        if error.is_some() || told.load().is_some() {
            told.store(error.map(Arc::new));
        }
    }

    async fn probe(&mut self, started: Instant) -> Result<Observation, Failure> {
        let settings = self.shared.settings();
        let other = (&settings.health.user, &settings.health.password, &settings.health.database)
            != (&self.health.user, &self.health.password, &self.health.database);
        if other {
            (self.login, self.health) = (settings.login(self.node), settings.health.clone());
        }
        let reopen = self.bell.reopen.swap(false, Ordering::Relaxed) || other;
        let is_old = |kept: &Kept| started.saturating_duration_since(kept.opened) > CONNECTION_AGE_MAX;
        // A kept connection that breaks proves nothing but that it broke: an administrator may have ended it.
        if let Some(mut kept) = self.kept.take().filter(|kept| !reopen && !is_old(kept)) {
            match self.ask(&mut kept, started).await {
                Err(Failure::Query(QueryError::Lost(_))) => {}
                result => return self.keep(kept, result),
            }
        }
        let limit = self.limit();
        let server = backend::connect(&self.login, limit).await.map_err(Failure::Connect)?;
        let mut kept = Kept { server, opened: started, prepared: false };
        self.advise_on_promotion(&mut kept.server).await;
        self.tidy_up(&mut kept.server, started).await;
        let result = self.ask(&mut kept, started).await;
        self.keep(kept, result)
    }

    fn keep(&mut self, kept: Kept, result: Result<Observation, Failure>) -> Result<Observation, Failure> {
        self.kept = Some(kept).filter(|_| result.is_ok());
        result
    }

    async fn ask(&mut self, kept: &mut Kept, started: Instant) -> Result<Observation, Failure> {
        let limit = self.limit();
        let mut answer = if std::mem::replace(&mut kept.prepared, true) {
            kept.server.query(probe::REPEATED, limit).await
        } else {
            kept.server.query(&probe::first_question(self.with_control), limit).await
        };
        let not_allowed = answer.as_ref().err().and_then(QueryError::code) == Some("42501");
        if self.with_control && not_allowed {
            self.with_control = false;
            self.advise(
                &self.shared.advice.control,
                "GRANT EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint(), pg_control_recovery()",
                "whether a node belongs to the cluster, and a replica's timeline, can't be checked",
            );
            answer = kept.server.query(&probe::first_question(false), limit).await;
        }
        let rows = answer.map_err(Failure::Query)?;
        let (probe, sight) = probe::read(&rows, started).map_err(Failure::Nonsense)?;
        if sight.receiver_hidden {
            self.advise(
                &self.shared.advice.receiver,
                "GRANT pg_monitor",
                "whether a replica streams can't be seen, and its timeline only late",
            );
        }
        Ok(Observation::Probe(probe))
    }

    /// Says in good time what a promotion would lack.
    async fn advise_on_promotion(&self, server: &mut Server) {
        const SUPERUSER: &str = "SELECT current_setting('is_superuser') = 'on'";
        const MAY: &str = "SELECT current_setting('is_superuser') = 'on' OR \
             has_function_privilege('pg_promote(boolean, integer)', 'execute')";
        let settings = self.shared.settings();
        if settings.topology.failover != FailoverMode::Promote {
            return;
        }
        if settings.topology.silence.is_some() && !self.shared.advice.inquiry.load(Ordering::Relaxed) {
            let may = server.query(inquiry::MAY, self.limit()).await;
            let unknown = may.as_ref().err().and_then(QueryError::code) == Some("42883");
            let rows = if unknown { server.query(SUPERUSER, self.limit()).await } else { may };
            if is_false(&rows.unwrap_or_default()) {
                self.advise(&self.shared.advice.inquiry, inquiry::GRANT, INQUIRY_LACK);
            }
        }
        if self.shared.advice.promotion.load(Ordering::Relaxed) {
            return;
        }
        let rows = server.query(MAY, self.limit()).await.unwrap_or_default();
        if is_false(&rows) {
            self.advise(&self.shared.advice.promotion, PROMOTION_GRANT, PROMOTION_LACK);
        }
    }

    /// Undoes what somebody of us has left who died in an inquiry: it takes less time than we wait.
    async fn tidy_up(&mut self, server: &mut Server, started: Instant) {
        if self.shared.settings().topology.failover != FailoverMode::Promote {
            return;
        }
        let left = matches!(inquiry::has_leftover(server).await, Ok(true));
        let since = *self.leftover.get_or_insert(started);
        if !left {
            self.leftover = None;
        } else if started.saturating_duration_since(since) >= LEFTOVER_AGE {
            let reset = inquiry::reset(server).await;
            let (cluster, address) = (&self.shared.settings().name, &self.login.address);
            let done = reset.is_ok();
            tracing::warn!(cluster, %address, done, "an inquiry that was cut short had left wal_receiver_timeout short");
        }
    }

    fn advise(&self, said: &AtomicBool, grant: &str, without: &str) {
        if !said.swap(true, Ordering::Relaxed) {
            let settings = self.shared.settings();
            tracing::warn!(cluster = settings.name, "{without}: {grant} TO {}", settings.health.user);
        }
    }

    fn interval(&self) -> Duration {
        self.shared.settings().health.interval
    }

    fn limit(&self) -> Duration {
        self.shared.settings().health.timeout
    }
}
