//! The commands that change something. Each is an event, whoever gives it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::sleep};

use super::{Desk, Request, command::OperatorAction};
use crate::{clients::LeaveOrder, databases::Gate, frontend::CONSOLES};
use poolhouse_core::wire::error::{Report, SqlState};

/// How often a command that waits looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// The one setting that can be changed while Poolhouse runs.
pub const LOG_LEVEL: &str = "log.level";

impl Desk {
    /// Carries a command out, and returns when it is done, with what there is to say about it. Cancel-safe: the order stands when nobody waits for its end
    /// any more. `client` is the id of the client that gives it.
    ///
    /// # Errors
    /// It is impossible.
    pub async fn act(&self, action: &OperatorAction, who: &str, client: u64) -> Result<Vec<String>, Report> {
        let result = self.carry_out(action, client).await;
        let why = result.as_ref().err().map(|report| report.message.clone()).unwrap_or_default();
        let what = shown(action);
        tracing::info!(user = who, command = what, error = why, "an operator's command");
        self.events.add("command", what, who, why);
        result
    }

    async fn carry_out(&self, action: &OperatorAction, client: u64) -> Result<Vec<String>, Report> {
        let gates = &self.frontend.gates;
        match action {
            OperatorAction::Pause(None) => {
                if !gates.pause_all() {
                    return Err(state("already suspended/paused"));
                }
                self.until_closed(&self.all_gates()).await;
            }
            OperatorAction::Pause(Some(database)) => {
                let gate = self.gate(database, "pause")?;
                gate.pause();
                self.until_closed(&[gate]).await;
            }
            OperatorAction::Resume(None) => {
                if !gates.resume_all() {
                    return Err(state("pooler is not paused/suspended"));
                }
            }
            OperatorAction::Resume(Some(database)) => self.gate(database, "resume")?.resume(),
            OperatorAction::Disable(database) => self.gate(database, "disable")?.set_disabled(true),
            OperatorAction::Enable(database) => self.gate(database, "enable")?.set_disabled(false),
            OperatorAction::Reconnect(database) => {
                self.some_gates(database.as_deref(), "reconnect")?.iter().for_each(|gate| gate.reconnect())
            }
            OperatorAction::WaitClose(database) => {
                let gates = self.some_gates(database.as_deref(), "wait for")?;
                while gates.iter().any(|gate| gate.outdated() > 0) {
                    sleep(LOOK).await;
                }
            }
            OperatorAction::Kill(database) => self.kill(database.as_deref()).await?,
            OperatorAction::KillClient(id) => self.kill_client(*id)?,
            OperatorAction::Suspend => {
                if gates.suspended.send_replace(true) {
                    return Err(state("already suspended/paused"));
                }
                *self.suspended_by() = Some(client);
                gates.pause_all();
                self.until_closed(&self.all_gates()).await;
            }
            OperatorAction::Shutdown(how) => {
                // Nobody is there to hear it only when it has begun already.
                let _ = self.orders.send(Request::Shutdown(*how));
            }
            OperatorAction::Reload { dry } => return self.reload(*dry).await,
            OperatorAction::Set { name, value } if name.eq_ignore_ascii_case(LOG_LEVEL) => {
                let set = self.set_log_level(value);
                set.map_err(|why| Report::error(SqlState::INVALID_PARAMETER_VALUE, why))?;
            }
            OperatorAction::Set { name, .. } => {
                let what = format!("parameter \"{name}\" cannot be changed now");
                return Err(Report::error(SqlState::CANNOT_CHANGE_PARAMETER, what)
                    .hint("Change it in the configuration. SHOW CONFIG says which can be changed here."));
            }
        }
        Ok(Vec::new())
    }

    async fn reload(&self, dry: bool) -> Result<Vec<String>, Report> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.orders.send(Request::Reload { dry, result: sender });
        let reloaded = receiver.await.map_err(|_| state("Poolhouse is being shut down"))?;
        reloaded.map_err(|mistakes| {
            let what = "the configuration is wrong, and nothing was changed";
            Report::error(SqlState::CONFIG_FILE, what).detail(mistakes)
        })
    }

    fn suspended_by(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.suspended_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A client of the console has left: if it has suspended everything, nobody else could come in to end that.
    pub fn left(&self, client: u64) {
        let mut suspended_by = self.suspended_by();
        if *suspended_by == Some(client) {
            *suspended_by = None;
            if *self.frontend.gates.suspended.borrow() {
                self.frontend.gates.resume_all();
                self.events.add("command", "RESUME", "", "the client that had suspended Poolhouse has left");
                tracing::warn!("resumed: the operator who had suspended Poolhouse has left");
            }
        }
    }

    /// Those of all databases, also of the ones that nobody has asked for yet.
    fn all_gates(&self) -> Vec<Arc<Gate>> {
        self.frontend.gates.all().into_iter().map(|(_, gate)| gate).collect()
    }

    /// That of one database.
    fn gate(&self, database: &str, verb: &str) -> Result<Arc<Gate>, Report> {
        if CONSOLES.contains(&database) {
            return Err(Report::error(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot {verb} admin db: {database}")));
        }
        let live = self.frontend.live();
        let by_name = &live.databases.by_name;
        if database == "*" || !(by_name.contains_key(database) || by_name.contains_key("*")) {
            return Err(Report::error(SqlState::UNKNOWN_DATABASE, format!("no such database: {database}"))
                .hint("SHOW DATABASES has the names."));
        }
        Ok(self.frontend.gates.of(database))
    }

    fn some_gates(&self, database: Option<&str>, verb: &str) -> Result<Vec<Arc<Gate>>, Report> {
        match database {
            Some(database) => Ok(vec![self.gate(database, verb)?]),
            None => Ok(self.all_gates()),
        }
    }

    async fn until_closed(&self, gates: &[Arc<Gate>]) {
        while gates.iter().any(|gate| gate.is_paused() && gate.connections() > 0) {
            sleep(LOOK).await;
        }
    }

    async fn kill(&self, database: Option<&str>) -> Result<(), Report> {
        let gates = match database {
            Some(database) => {
                let gate = self.gate(database, "kill")?;
                gate.pause();
                vec![gate]
            }
            None => {
                self.frontend.gates.pause_all();
                self.all_gates()
            }
        };
        for slot in self.frontend.registry.slots() {
            let of = &*slot.account.database;
            if !CONSOLES.contains(&of) && database.is_none_or(|database| database == of) {
                slot.give(LeaveOrder::Kill);
            }
        }
        self.until_closed(&gates).await;
        Ok(())
    }

    fn kill_client(&self, id: u64) -> Result<(), Report> {
        let slots = self.frontend.registry.slots();
        let slot = slots.iter().find(|slot| slot.id == id).ok_or_else(|| {
            Report::error(SqlState::UNDEFINED_OBJECT, format!("client not found: {id}"))
                .hint("SHOW CLIENTS has the numbers in its column id.")
        })?;
        slot.give(LeaveOrder::Kill);
        Ok(())
    }
}

fn state(what: &str) -> Report {
    Report::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, what)
}

/// The command as it could have been typed.
fn shown(action: &OperatorAction) -> String {
    let tag = action.tag();
    match action {
        OperatorAction::Pause(database)
        | OperatorAction::Resume(database)
        | OperatorAction::Reconnect(database)
        | OperatorAction::WaitClose(database)
        | OperatorAction::Kill(database) => {
            database.as_ref().map_or(tag.to_owned(), |database| format!("{tag} {database}"))
        }
        OperatorAction::Disable(database) | OperatorAction::Enable(database) => format!("{tag} {database}"),
        OperatorAction::KillClient(id) => format!("{tag} {id}"),
        OperatorAction::Shutdown(super::Shutdown::WaitForServers) => format!("{tag} WAIT_FOR_SERVERS"),
        OperatorAction::Shutdown(super::Shutdown::WaitForClients) => format!("{tag} WAIT_FOR_CLIENTS"),
        OperatorAction::Set { name, value } => format!("{tag} {name} = '{value}'"),
        OperatorAction::Shutdown(super::Shutdown::Now) | OperatorAction::Suspend | OperatorAction::Reload { .. } => {
            tag.to_owned()
        }
    }
}
