//! The databases as they are configured, by the names that clients ask for.

use std::{collections::BTreeMap, sync::Arc};

use super::cluster::Cluster;
use crate::pool;
use poolhouse_core::{auth::Credential, session, topology::Routing};

/// What is configured for one database and user.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    pub cluster: Arc<Cluster>,
    /// Name on the server; `None` = as the client calls it.
    pub database: Option<String>,
    /// Who logs in to the server; `None` = the client itself.
    pub login: Option<(String, Credential)>,
    pub pool: pool::Settings,
    pub session: session::Settings,
    pub routing: Routing,
    /// Settings with which sessions begin that do not say so themselves.
    pub defaults: Vec<(String, String)>,
}

impl DatabaseSettings {
    /// Whether nothing but the lending of connections differs.
    pub fn serves_like(&self, other: &DatabaseSettings) -> bool {
        Arc::ptr_eq(&self.cluster, &other.cluster)
            && (&self.database, &self.login) == (&other.database, &other.login)
            && (&self.session, &self.routing, &self.defaults) == (&other.session, &other.routing, &other.defaults)
    }
}

/// What is configured, by the name that clients ask for; `"*"` serves any other name.
#[derive(Debug, Default)]
pub struct Databases {
    pub by_name: BTreeMap<String, ConfiguredDatabase>,
}

/// One database as clients see it.
#[derive(Debug)]
pub struct ConfiguredDatabase {
    pub settings: DatabaseSettings,
    /// What is different for some users, and under `"*"` for all others.
    pub by_user: BTreeMap<String, DatabaseSettings>,
}

impl ConfiguredDatabase {
    /// What holds for a user.
    pub fn settings_of(&self, user: &str) -> &DatabaseSettings {
        self.by_user.get(user).or_else(|| self.by_user.get("*")).unwrap_or(&self.settings)
    }
}

impl Databases {
    /// The one that serves a name.
    pub fn entry(&self, name: &str) -> Option<&ConfiguredDatabase> {
        self.by_name.get(name).or_else(|| self.by_name.get("*"))
    }

    /// Any of them, when all are on one cluster and log in there as the same user.
    pub fn only(&self) -> Option<&ConfiguredDatabase> {
        let first = self.by_name.values().next()?;
        let alike = |other: &ConfiguredDatabase| {
            let (one, other) = (&first.settings, &other.settings);
            let user = |settings: &DatabaseSettings| settings.login.as_ref().map(|(user, _)| user.clone());
            Arc::ptr_eq(&one.cluster, &other.cluster) && user(one) == user(other)
        };
        self.by_name.values().all(alike).then_some(first)
    }
}
