//! As whom the census of a database's own code is taken: as its users.

use std::time::Duration;

use super::{
    census::CatalogReader,
    node_choice::{NodeRequest, choose},
    target::Target,
};
use crate::{backend::ServerLogin, monitor::Monitor};
use poolhouse_core::{
    session::{Need, NewDefaults},
    sql::DefaultsOf,
    topology::{NodeId, NodeSet, RouteError},
};

impl CatalogReader for Target {
    fn database(&self) -> &str {
        self.server_database()
    }

    fn monitor(&self) -> &Monitor {
        &self.cluster.monitor
    }

    fn primary(&self) -> Result<NodeId, RouteError> {
        let request = NodeRequest { need: Need::Write, after: None, lsn: None, rule: None, seed: 0 };
        choose(self, request, NodeSet::NONE).map(|choice| choice.node)
    }

    fn login(&self, node: NodeId) -> ServerLogin {
        Target::login(self, node)
    }

    fn connect_timeout(&self) -> Duration {
        self.cluster.connect_timeout
    }

    fn renew_connections(&self) {
        self.cluster.renew(self.server_database());
    }

    fn take_defaults(&self, user: Option<&str>) {
        let database = user.is_none().then(|| self.server_database().into());
        self.cluster.take_defaults(&NewDefaults::Of(Box::new(DefaultsOf { database, user: user.map(Into::into) })));
    }

    fn take_configuration(&self) {
        self.cluster.take_defaults(&NewDefaults::Reloaded);
    }
}
