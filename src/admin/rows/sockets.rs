//! One row for each connection.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Rows, databases::place};
use crate::{
    admin::{Desk, Value, desk::timestamp, table::row},
    backend::Canceler,
    clients::{Activity, Slot},
    net::Ends,
};

/// What the columns of SHOW CLIENTS and SHOW SERVERS say.
struct Socket {
    kind: &'static str,
    user: String,
    database: String,
    replicates: bool,
    state: &'static str,
    peer: (String, u16),
    local: (String, u16),
    encryption: String,
    since: SystemTime,
    waited: Duration,
    /// How long ago it last began something.
    requested: Duration,
    /// Of the client, or of the server's process.
    id: u64,
    link: String,
    remote_process: u32,
    application_name: String,
    node: String,
    pinned: Option<String>,
    /// It is to be closed as soon as nobody uses it.
    outdated: bool,
}

fn end(end: Option<SocketAddr>) -> (String, u16) {
    end.map_or_else(|| ("unix".to_owned(), 0), |end| (end.ip().to_string(), end.port()))
}

fn client_number(id: u64) -> String {
    format!("0x{id:x}")
}

/// Tells server connections apart, also those to different nodes: their local ends differ.
fn server_number(server: &Canceler) -> u64 {
    let port = server.ends.local.map_or(0, |end| end.port());
    u64::from(server.key.process) << 16 | u64::from(port)
}

/// How long ago the client last needed a server connection, or else logged in.
fn requested(slot: &Slot) -> Duration {
    slot.requested().map_or_else(|| slot.since.elapsed().unwrap_or_default(), |requested| requested.elapsed())
}

impl Socket {
    fn of_client(slot: &Slot) -> Socket {
        let Ends { peer, local, encryption } = slot.about.ends;
        let server = slot.server();
        let (state, waited) = match slot.activity() {
            Activity::Idle => ("idle", Duration::ZERO),
            Activity::Active => ("active", Duration::ZERO),
            Activity::Waiting { since } => ("waiting", since.elapsed()),
        };
        Socket {
            kind: "C",
            user: slot.account.user.to_string(),
            database: slot.account.database.to_string(),
            replicates: slot.about.replicates,
            state,
            peer: end(peer),
            local: end(local),
            encryption: encryption.map(|encryption| encryption.to_string()).unwrap_or_default(),
            since: slot.since,
            waited,
            requested: requested(slot),
            id: slot.id,
            link: server.as_ref().map(|server| client_number(server_number(server))).unwrap_or_default(),
            remote_process: 0,
            application_name: slot.about.application_name.to_string(),
            node: server.map(|server| server.address.to_string()).unwrap_or_default(),
            pinned: slot.pin().map(|pin| pin.why.reason.clone()),
            outdated: false,
        }
    }

    fn of_server(server: &Canceler, names: (&str, &str), client: Option<&Slot>, requested: Duration) -> Socket {
        let Ends { peer, local, encryption } = server.ends;
        Socket {
            kind: "S",
            user: names.1.to_owned(),
            database: names.0.to_owned(),
            replicates: client.is_some_and(|client| client.about.replicates),
            state: if client.is_some() { "active" } else { "idle" },
            peer: peer.map_or_else(|| place(&server.address), |peer| (peer.ip().to_string(), peer.port())),
            local: end(local),
            encryption: encryption.map(|encryption| encryption.to_string()).unwrap_or_default(),
            since: server.since,
            waited: Duration::ZERO,
            requested,
            id: server_number(server),
            link: client.map(|client| client_number(client.id)).unwrap_or_default(),
            remote_process: server.key.process,
            application_name: client.map(|client| client.about.application_name.to_string()).unwrap_or_default(),
            node: server.address.to_string(),
            pinned: None,
            outdated: false,
        }
    }

    /// PgBouncer's columns.
    fn row(&self) -> Vec<Value> {
        let Socket { waited, since, requested, .. } = *self;
        row![
            self.kind,
            self.user.as_str(),
            self.database.as_str(),
            if self.replicates { "logical" } else { "none" },
            self.state,
            self.peer.0.as_str(),
            u64::from(self.peer.1),
            self.local.0.as_str(),
            u64::from(self.local.1),
            timestamp(since),
            timestamp((SystemTime::now() - requested).max(since)),
            waited.as_secs(),
            u64::from(waited.subsec_micros()),
            u64::from(self.outdated),
            client_number(self.id),
            self.link.as_str(),
            self.remote_process,
            self.encryption.as_str(),
            self.application_name.as_str(),
            0_u64,
            self.id,
        ]
    }
}

fn all_clients(desk: &Desk) -> Vec<Socket> {
    let mut slots = desk.frontend.registry.slots();
    slots.sort_by_key(|slot| slot.id);
    slots.iter().map(|slot| Socket::of_client(slot)).collect()
}

fn all_servers(desk: &Desk) -> Vec<Socket> {
    let targets: BTreeMap<_, _> = desk.frontend.targets().into_iter().collect();
    let mut sockets = Vec::new();
    for slot in desk.frontend.registry.slots() {
        let Some(server) = slot.server() else { continue };
        let names = (slot.account.database.to_string(), slot.account.user.to_string());
        let mut socket = Socket::of_server(&server, (&names.0, &names.1), Some(&slot), requested(&slot));
        let pools = targets.get(&names).into_iter().flat_map(|target| target.pools().map(move |pool| (target, pool)));
        let mut own = pools.filter(|(target, (node, _))| target.cluster.node(*node).address == server.address);
        let renewed = own.next().and_then(|(_, (_, pool))| pool.renewed());
        socket.outdated = !slot.about.replicates && renewed.is_some_and(|renewed| server.since < renewed);
        sockets.push(socket);
    }
    for ((database, user), target) in &targets {
        for (_, pool) in target.pools() {
            // Under the pool's lock only what is needed is taken along.
            let idle = pool.idle(|since, server| server.canceler.clone().map(|canceler| (since.elapsed(), canceler)));
            let idle = idle.into_iter().flatten();
            sockets.extend(idle.map(|(since, server)| Socket::of_server(&server, (database, user), None, since)));
        }
    }
    sockets.sort_by(|one, other| (&one.database, &one.user, one.id).cmp(&(&other.database, &other.user, other.id)));
    sockets
}

pub fn clients(desk: &Desk) -> Rows {
    let row = |socket: Socket| {
        let mut row = socket.row();
        row.extend(row![socket.node, socket.pinned]);
        row
    };
    all_clients(desk).into_iter().map(row).collect()
}

pub fn servers(desk: &Desk) -> Rows {
    let row = |socket: Socket| {
        let mut row = socket.row();
        row.extend(row![socket.node]);
        row
    };
    all_servers(desk).into_iter().map(row).collect()
}

/// Both together, with the positions in their buffers.
pub fn sockets(desk: &Desk, active_only: bool) -> Rows {
    let all = all_clients(desk).into_iter().chain(all_servers(desk));
    let row = |socket: Socket| socket.row().into_iter().chain(std::iter::repeat_n(Value::Int(0), 7)).collect();
    all.filter(|socket| !active_only || socket.state == "active").map(row).collect()
}

pub fn pins(desk: &Desk) -> Rows {
    let mut slots = desk.frontend.registry.slots();
    slots.sort_by_key(|slot| slot.id);
    let row = |slot: &Arc<Slot>| {
        let pin = slot.pin()?;
        let node = slot.server().map(|server| server.address.to_string());
        Some(row![
            slot.id,
            &*slot.account.database,
            &*slot.account.user,
            &*slot.about.application_name,
            node,
            pin.why.reason.clone(),
            pin.why.statement.clone(),
            pin.since.elapsed().as_millis() as u64,
        ])
    };
    slots.iter().filter_map(row).collect()
}
