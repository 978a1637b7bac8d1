//! What can be shown: each table's name, columns and explanation. The columns are PgBouncer's first, as it names, orders and
//! types them (1.25), then ours.

use super::{
    table::{Column, Table, Type},
    totals::{STATS, STATS_AVERAGES, STATS_TOTALS},
};

/// A table of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Databases,
    Pools,
    PoolNodes,
    Nodes,
    Clients,
    Servers,
    Sockets,
    ActiveSockets,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Users,
    Lists,
    Fds,
    DnsHosts,
    DnsZones,
    Mem,
    Peers,
    PeerPools,
    State,
    Config,
    Version,
    Pins,
    Queries,
    Errors,
    Events,
}

use Type::{Bytea, Int4, Int8, Numeric, Text};

type Columns = &'static [(&'static str, Type)];

impl Show {
    pub const ALL: [Show; 27] = [
        Show::Databases,
        Show::Pools,
        Show::PoolNodes,
        Show::Nodes,
        Show::Clients,
        Show::Servers,
        Show::Sockets,
        Show::ActiveSockets,
        Show::Stats,
        Show::StatsTotals,
        Show::StatsAverages,
        Show::Totals,
        Show::Users,
        Show::Lists,
        Show::Fds,
        Show::DnsHosts,
        Show::DnsZones,
        Show::Mem,
        Show::Peers,
        Show::PeerPools,
        Show::State,
        Show::Config,
        Show::Version,
        Show::Pins,
        Show::Queries,
        Show::Errors,
        Show::Events,
    ];

    /// The one of this name, in whatever case.
    pub fn named(name: &str) -> Option<Show> {
        Show::ALL.into_iter().find(|show| show.name().eq_ignore_ascii_case(name))
    }

    pub fn name(self) -> &'static str {
        match self {
            Show::Databases => "DATABASES",
            Show::Pools => "POOLS",
            Show::PoolNodes => "POOL_NODES",
            Show::Nodes => "NODES",
            Show::Clients => "CLIENTS",
            Show::Servers => "SERVERS",
            Show::Sockets => "SOCKETS",
            Show::ActiveSockets => "ACTIVE_SOCKETS",
            Show::Stats => "STATS",
            Show::StatsTotals => "STATS_TOTALS",
            Show::StatsAverages => "STATS_AVERAGES",
            Show::Totals => "TOTALS",
            Show::Users => "USERS",
            Show::Lists => "LISTS",
            Show::Fds => "FDS",
            Show::DnsHosts => "DNS_HOSTS",
            Show::DnsZones => "DNS_ZONES",
            Show::Mem => "MEM",
            Show::Peers => "PEERS",
            Show::PeerPools => "PEER_POOLS",
            Show::State => "STATE",
            Show::Config => "CONFIG",
            Show::Version => "VERSION",
            Show::Pins => "PINS",
            Show::Queries => "QUERIES",
            Show::Errors => "ERRORS",
            Show::Events => "EVENTS",
        }
    }

    /// What it shows, for SHOW HELP.
    pub fn about(self) -> &'static str {
        match self {
            Show::Databases => {
                "the databases that clients can ask for. host and port are those of the primary as it is now; reserve_pool_size and max_client_connections are 0, there are no such limits. Ours: cluster."
            }
            Show::Pools => {
                "clients and server connections by database and user, over all nodes. cl_active are the clients that do not wait, idle ones among them; sv_used and sv_tested are 0, since nothing is tested after use; cancel requests have no places of their own and count 0."
            }
            Show::PoolNodes => {
                "the nodes with Pgpool-II's columns. select_cnt counts statements that read; replication_delay is in bytes; replication_sync_state is empty, it is not asked for."
            }
            Show::Nodes => {
                "the servers: role, state and why it is so, WAL position and distance to the primary's, for how long (ms ago) a replica is known to have had all commits, connections open, lent and idle, statements and errors so far."
            }
            Show::Clients => {
                "the clients that are logged in. ptr and link are numbers of Poolhouse's own; wait is since when the client has waited for a server connection. Ours: node, and pinned, why the client keeps its server connection."
            }
            Show::Servers => "the server connections. link is the client that has it. Ours: node.",
            Show::Sockets => {
                "clients and server connections together. Positions in buffers are 0: idle clients have no buffers, and those of busy ones belong to their tasks."
            }
            Show::ActiveSockets => "the same, for those that do something now.",
            Show::Stats => {
                "totals by database, and averages per second of the last full minute; times are in microseconds, avg_*_time is the mean of one transaction, query or wait."
            }
            Show::StatsTotals => "the totals alone.",
            Show::StatsAverages => "the averages alone.",
            Show::Totals => "totals and averages over all databases.",
            Show::Users => {
                "the users of the configuration, and those who are connected. pool_size and pool_mode are there when [users.NAME.pool] says them; limits by user do not exist and are 0."
            }
            Show::Lists => {
                "how many there are of everything. free_* are 0, places are not made beforehand; names are looked up by the system, so dns_* are 0."
            }
            Show::Fds => "always empty: file descriptors and passwords are not handed out.",
            Show::DnsHosts => {
                "always empty: names are looked up by the system for each new connection, and no answer is kept."
            }
            Show::DnsZones => "always empty, for the same reason.",
            Show::Mem => {
                "memory of the process in bytes: resident is what it holds. There are no caches of fixed size."
            }
            Show::Peers => "always empty: there are no peers.",
            Show::PeerPools => "always empty, for the same reason.",
            Show::State => "whether all of it is active, paused or suspended.",
            Show::Config => {
                "the settings as they are in force, secrets left out. A changeable one takes effect by RELOAD, for those who are there (at once) or for those who log in from then on (new sessions)."
            }
            Show::Version => "the version; admin.pgbouncer_version makes it another one's.",
            Show::Pins => "the clients that keep their server connections between transactions, why, and for how long.",
            Show::Queries => {
                "statements by database and by their texts without values (? stands for a value, three of them for three or more): calls, errors among them, and times in microseconds: all together, the mean, and what half, 95 % and 99 % of the calls did not exceed. nodes is how many of the calls ran on each. Statements that ended together share their time. The many that ran least are one line without a text."
            }
            Show::Errors => {
                "the last errors that clients got: those of servers, with the node that has reported them, and those of Poolhouse's own. Messages may name values. The newest comes last."
            }
            Show::Events => "the last changes of nodes, and commands of this console. The newest comes last.",
        }
    }

    fn columns(self) -> Columns {
        match self {
            Show::Databases => DATABASES,
            Show::Pools => POOLS,
            Show::PoolNodes => POOL_NODES,
            Show::Nodes => NODES,
            Show::Clients | Show::Servers | Show::Sockets | Show::ActiveSockets => CONNECTIONS,
            Show::Stats => STATS,
            Show::StatsTotals => STATS_TOTALS,
            Show::StatsAverages => STATS_AVERAGES,
            Show::Totals => TOTALS,
            Show::Users => USERS,
            Show::Lists => LISTS,
            Show::Fds => FDS,
            Show::DnsHosts => DNS_HOSTS,
            Show::DnsZones => DNS_ZONES,
            Show::Mem => MEM,
            Show::Peers => PEERS,
            Show::PeerPools => PEER_POOLS,
            Show::State => STATE,
            Show::Config => CONFIG,
            Show::Version => VERSION,
            Show::Pins => PINS,
            Show::Queries => QUERIES,
            Show::Errors => ERRORS,
            Show::Events => EVENTS,
        }
    }

    /// What is behind those that several tables share.
    fn own_columns(self) -> Columns {
        match self {
            Show::Clients => &[("node", Text), ("pinned", Text)],
            Show::Servers => &[("node", Text)],
            Show::Sockets | Show::ActiveSockets => BUFFERS,
            _ => &[],
        }
    }

    /// Without rows.
    pub fn table(self) -> Table {
        let columns = self.columns().iter().chain(self.own_columns());
        Table::new(columns.map(|(name, kind)| Column::new(name, *kind)).collect())
    }

    /// Only who may change things may see it.
    pub fn is_for_admins(self) -> bool {
        self == Show::Fds
    }
}

const DATABASES: Columns = &[
    ("name", Text),
    ("host", Text),
    ("port", Int4),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
    ("reserve_pool_size", Int4),
    ("server_lifetime", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
    ("max_connections", Int4),
    ("current_connections", Int4),
    ("max_client_connections", Int4),
    ("current_client_connections", Int4),
    ("paused", Int4),
    ("disabled", Int4),
    ("cluster", Text),
];

const POOLS: Columns = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int4),
    ("cl_waiting", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active", Int4),
    ("sv_active_cancel", Int4),
    ("sv_being_canceled", Int4),
    ("sv_idle", Int4),
    ("sv_used", Int4),
    ("sv_tested", Int4),
    ("sv_login", Int4),
    ("maxwait", Int4),
    ("maxwait_us", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
];

const POOL_NODES: Columns = &[
    ("node_id", Text),
    ("hostname", Text),
    ("port", Text),
    ("status", Text),
    ("pg_status", Text),
    ("lb_weight", Text),
    ("role", Text),
    ("pg_role", Text),
    ("select_cnt", Text),
    ("load_balance_node", Text),
    ("replication_delay", Text),
    ("replication_state", Text),
    ("replication_sync_state", Text),
    ("last_status_change", Text),
];

const NODES: Columns = &[
    ("cluster", Text),
    ("node", Text),
    ("role", Text),
    ("state", Text),
    ("timeline", Int4),
    ("lsn", Text),
    ("lag_bytes", Int8),
    ("fresh_for_ms", Int8),
    ("connections", Int4),
    ("connections_used", Int4),
    ("connections_idle", Int4),
    ("max_connections", Int4),
    ("statements", Int8),
    ("errors", Int8),
    ("changed_ms_ago", Int8),
    ("reason", Text),
];

/// Of clients and server connections alike.
const CONNECTIONS: Columns = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int4),
    ("id", Int8),
];

const BUFFERS: Columns = &[
    ("recv_pos", Int4),
    ("pkt_pos", Int4),
    ("pkt_remain", Int4),
    ("send_pos", Int4),
    ("send_remain", Int4),
    ("pkt_avail", Int4),
    ("send_avail", Int4),
];

const TOTALS: Columns = &[("name", Text), ("value", Numeric)];

const USERS: Columns = &[
    ("name", Text),
    ("pool_size", Int4),
    ("reserve_pool_size", Int4),
    ("pool_mode", Text),
    ("max_user_connections", Int4),
    ("current_connections", Int4),
    ("max_user_client_connections", Int4),
    ("current_client_connections", Int4),
];

const LISTS: Columns = &[("list", Text), ("items", Int4)];

const FDS: Columns = &[
    ("fd", Int4),
    ("task", Text),
    ("user", Text),
    ("database", Text),
    ("addr", Text),
    ("port", Int4),
    ("cancel", Int8),
    ("link", Int4),
    ("client_encoding", Text),
    ("std_strings", Text),
    ("datestyle", Text),
    ("timezone", Text),
    ("password", Text),
    ("scram_client_key", Bytea),
    ("scram_server_key", Bytea),
];

const DNS_HOSTS: Columns = &[("hostname", Text), ("ttl", Int8), ("addrs", Text)];

const DNS_ZONES: Columns = &[("zonename", Text), ("serial", Int8), ("count", Int4)];

const MEM: Columns = &[("name", Text), ("size", Int4), ("used", Int4), ("free", Int4), ("memtotal", Int4)];

const PEERS: Columns = &[("peer_id", Int4), ("host", Text), ("port", Int4), ("pool_size", Int4)];

const PEER_POOLS: Columns = &[
    ("peer_id", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active_cancel", Int4),
    ("sv_login", Int4),
];

const STATE: Columns = &[("key", Text), ("value", Text)];

const CONFIG: Columns =
    &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text), ("takes_effect", Text)];

const VERSION: Columns = &[("version", Text)];

const PINS: Columns = &[
    ("id", Int8),
    ("database", Text),
    ("user", Text),
    ("application_name", Text),
    ("node", Text),
    ("reason", Text),
    ("statement", Text),
    ("age_ms", Int8),
];

const QUERIES: Columns = &[
    ("database", Text),
    ("query_id", Text),
    ("calls", Int8),
    ("errors", Int8),
    ("total_time", Int8),
    ("avg_time", Int8),
    ("p50", Int8),
    ("p95", Int8),
    ("p99", Int8),
    ("nodes", Text),
    ("query", Text),
];

const ERRORS: Columns = &[
    ("time", Text),
    ("database", Text),
    ("user", Text),
    ("client", Text),
    ("code", Text),
    ("message", Text),
    ("node", Text),
];

const EVENTS: Columns = &[("time", Text), ("kind", Text), ("what", Text), ("who", Text), ("why", Text)];
