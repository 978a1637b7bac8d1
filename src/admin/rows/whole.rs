//! All of it together.

use super::Rows;
use crate::{
    admin::{Desk, Setting, actions::LOG_LEVEL, desk::timestamp, table::row},
    clients::ClientError,
};

pub fn lists(desk: &Desk) -> Rows {
    let clients = desk.frontend.registry.slots().len();
    let strangers = desk.frontend.strangers.len();
    let counts = desk.counts();
    let targets = desk.frontend.targets();
    [
        ("databases", super::databases(desk).len()),
        ("users", super::users(desk).len()),
        ("peers", 0),
        ("pools", targets.len()),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", clients),
        ("login_clients", strangers + desk.frontend.registry.connected().saturating_sub(clients)),
        ("free_servers", counts.idle),
        ("used_servers", counts.lent),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ]
    .into_iter()
    .map(|(name, items)| row![name, items])
    .collect()
}

/// What the process holds of the machine's memory, as the system says.
pub fn mem() -> Rows {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let page = rustix::param::page_size() as u64;
    resident.map(|pages| row!["resident", 0_u64, 0_u64, 0_u64, pages * page]).into_iter().collect()
}

pub fn state(desk: &Desk) -> Rows {
    let gates = &desk.frontend.gates;
    let (paused, suspended) = (gates.is_paused(), *gates.suspended.borrow());
    let word = |yes: bool| if yes { "yes" } else { "no" };
    [("active", !paused && !suspended), ("paused", paused && !suspended), ("suspended", suspended)]
        .into_iter()
        .map(|(key, yes)| row![key, word(yes)])
        .collect()
}

pub fn config(desk: &Desk) -> Rows {
    let level = desk.log_level.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let row = |setting: &Setting| {
        let Setting { key, mut value, default, takes_effect } = setting.clone();
        if let Some(level) = level.as_ref().filter(|_| key == LOG_LEVEL) {
            value.clone_from(level);
        }
        let changeable = if takes_effect == "restart" { "no" } else { "yes" };
        row![key, value, default, changeable, takes_effect]
    };
    desk.catalog.load().config.iter().map(row).collect()
}

pub fn errors(desk: &Desk) -> Rows {
    let row = |mishap: ClientError| {
        let ClientError { time, database, user, client, node, code, message } = mishap;
        row![timestamp(time), database, user, client, code, message, node]
    };
    desk.frontend.registry.last_errors.all().into_iter().map(row).collect()
}
