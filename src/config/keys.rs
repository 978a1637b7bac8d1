//! Every key of the configuration, each declared once: what it may be, where its value is kept, when a change takes effect,
//! what holds without a word on it, and its sentence. What the file may hold, overrides, the differences at RELOAD, SHOW
//! CONFIG, the nearest key to a slip of the pen, `config/reference.toml` and `config/schema.json` all come from here.
//! `declare` says how to read a declaration; the default of a setting stands with its type.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    Database as Entry, LogFormat, Pooling, Settings,
    changes::Effect,
    declare::{Field, Key, Section, Usual, Value, put, section},
    kind::{
        ByHand, Flag, Kind, LIMIT, Lag, LagLimits, Limit, NotYet, OneOf, Patterns, Shape, Time, Whole, hidden, joined,
        list,
    },
    mistake::Findings,
    raw::{Item, unknown_key},
    value::{Choice, DURATION_DAY},
};
use crate::{
    admin::{Http, Settings as Console},
    monitor,
    net::{ClientTlsFiles, Listen, Tcp as Sockets, TlsFiles, TlsMode, TlsVersion},
};
use poolhouse_core::{
    auth::{self, Method, Secret as Password},
    session::{Mode, OnPin, Route},
    sql::{Lists, Pattern},
    topology::{self, Balance, Consistency, FailoverMode, Preference, Reads, Role, Transactions},
};

pub(super) const WORKERS_MAX: usize = 1024;
const CLIENTS_MAX: usize = 1_000_000;
const CONNECTIONS_MAX: usize = 100_000;
const FAILURES_MAX: usize = 1000;
const STATEMENTS_MAX: usize = 100_000;
pub(super) const KEEPALIVES_MAX: usize = 127;
/// Most places for operators.
const RESERVED_MAX: usize = 1_000;
pub(super) const WEIGHT_MAX: f64 = 1000.0;

/// The shortest wait for a server that is not surely a slip of the pen.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(10);
const LOGIN_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

const METHODS: &[Choice<'static, Method>] = &[
    ("scram-sha-256", Some(Method::ScramSha256)),
    ("md5", Some(Method::Md5)),
    ("trust", Some(Method::Trust)),
    ("cert", None),
    ("hba", None),
];
pub(super) const ROUTES: OneOf<Route> =
    OneOf(&[("replica", Some(Route::Replica)), ("primary", Some(Route::Primary)), ("auto", Some(Route::Auto))], "");
const FORMATS: &[Choice<'static, LogFormat>] = &[("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json))];
pub(super) const MODES: OneOf<Mode> = OneOf(
    &[("session", Some(Mode::Session)), ("transaction", Some(Mode::Transaction)), ("statement", Some(Mode::Statement))],
    "",
);
const ON_PIN: &[Choice<'static, OnPin>] =
    &[("allow", Some(OnPin::Allow)), ("warn", Some(OnPin::Warn)), ("refuse", Some(OnPin::Refuse))];
pub(super) const ROLES: OneOf<Role> = OneOf(&[("primary", Some(Role::Primary)), ("replica", Some(Role::Replica))], "");
const FAILOVERS: &[Choice<'static, FailoverMode>] = &[
    ("off", Some(FailoverMode::Off)),
    ("follow", Some(FailoverMode::Follow)),
    ("promote", Some(FailoverMode::Promote)),
];
pub(super) const FENCES: OneOf<bool> = OneOf(&[("detect", Some(false)), ("strict", Some(true))], "");
const READS: &[Choice<'static, Reads>] =
    &[("primary", Some(Reads::Primary)), ("replica", Some(Reads::Replica)), ("any", Some(Reads::Any))];
const BALANCES: &[Choice<'static, Balance>] = &[
    ("least-busy", Some(Balance::LeastBusy)),
    ("round-robin", Some(Balance::RoundRobin)),
    ("random", Some(Balance::Random)),
    ("latency", Some(Balance::Latency)),
];
const CONSISTENCIES: &[Choice<'static, Consistency>] = &[
    ("eventual", Some(Consistency::Eventual)),
    ("session", Some(Consistency::Session)),
    ("global", Some(Consistency::Global)),
];
pub(super) const PREFERENCES: OneOf<Preference> = OneOf(
    &[("auto", Some(Preference::Auto)), ("primary", Some(Preference::Primary)), ("replica", Some(Preference::Replica))],
    "",
);
const TRANSACTIONS: &[Choice<'static, Transactions>] =
    &[("primary", Some(Transactions::Primary)), ("read-until-write", Some(Transactions::ReadUntilWrite))];
const CLIENT_TLS: OneOf<TlsMode> = OneOf(
    &[
        ("disable", Some(TlsMode::Disable)),
        ("allow", Some(TlsMode::Allow)),
        ("prefer", Some(TlsMode::Prefer)),
        ("require", Some(TlsMode::Require)),
        ("verify-ca", Some(TlsMode::VerifyCa)),
        ("verify-full", None),
    ],
    "write \"verify-ca\"",
);
pub(super) const CLUSTER_TLS: OneOf<TlsMode> = OneOf(
    &[
        ("disable", Some(TlsMode::Disable)),
        ("allow", Some(TlsMode::Allow)),
        ("prefer", Some(TlsMode::Prefer)),
        ("require", Some(TlsMode::Require)),
        ("verify-ca", Some(TlsMode::VerifyCa)),
        ("verify-full", Some(TlsMode::VerifyFull)),
    ],
    "",
);
pub(super) const NEGOTIATIONS: OneOf<bool> = OneOf(&[("postgres", Some(false)), ("direct", Some(true))], "");
pub(super) const TLS_VERSIONS: OneOf<TlsVersion> =
    OneOf(&[("TLSv1.2", Some(TlsVersion::V1_2)), ("TLSv1.3", Some(TlsVersion::V1_3))], "");

const NAME_USERS: &str = "remove it, and name users under [users] or in users_file";
const ONE_PROMOTES: &str = "remove it: let one Poolhouse promote, and all others \"follow\"";

const TEXTS: Shape = Shape::List(&Shape::Text);
const SOCKETS: ByHand<Sockets> = ByHand(Shape::AsOne(|| Tcp::SECTION), |_| String::new(), inline);
const NAMES: ByHand<Vec<String>> = ByHand(TEXTS, |names| joined(names), |names| list(names));
const LISTENS: ByHand<Vec<Listen>> = ByHand(TEXTS, |listens| joined(listens), |listens| list(listens));
const NAME: ByHand<String> = ByHand(Shape::Text, String::clone, |name| format!("{name:?}"));
const NAME_IF_ANY: ByHand<Option<String>> = ByHand(
    Shape::Text,
    |name| name.clone().unwrap_or_default(),
    |name| format!("{:?}", name.as_deref().unwrap_or_default()),
);
const PATH_IF_ANY: ByHand<Option<PathBuf>> = ByHand(Shape::Text, shown_path, |path| format!("{:?}", shown_path(path)));
const PATHS: ByHand<Vec<PathBuf>> =
    ByHand(Shape::AnyOf(&[Shape::Text, TEXTS]), |paths| shown_paths(paths), |paths| written_paths(paths));
const SECRET: ByHand<Option<Password>> = ByHand(Shape::Secret, hidden, hidden);
const ADDRESS: ByHand<Option<Http>> = ByHand(Shape::Text, address, |http| format!("{:?}", address(http)));

fn shown_paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
}

fn written_paths(paths: &[PathBuf]) -> String {
    format!("{:?}", paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
}

fn shown_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

fn address(http: &Option<Http>) -> String {
    http.as_ref().map(|http| http.address.to_string()).unwrap_or_default()
}

/// As an inline table.
fn inline(sockets: &Sockets) -> String {
    let fields = Tcp::FIELDS.iter().filter_map(|field| Some((field.key.name, field.value.as_ref()?)));
    let pairs: Vec<_> = fields.map(|(name, value)| format!("{name} = {}", (value.write)(sockets))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

section! {
    File at "" {
        server: Shape::Section(|| Server::SECTION), Restart;
        listener: Shape::List(&Shape::Section(|| Listener::SECTION)), Restart;
        tls: Shape::Section(|| Tls::SECTION), Now;
        auth: Shape::Section(|| Auth::SECTION), NewSessions;
        pool: Shape::Section(|| Pool::SECTION), NewSessions;
        clusters: Shape::Named(&Shape::Section(|| Cluster::SECTION)), Now;
        databases: Shape::Named(&Shape::Section(|| Database::SECTION)), NewSessions;
        users: Shape::Named(&Shape::Section(|| User::SECTION)), NewSessions;
        admin: Shape::Section(|| Admin::SECTION), Now;
        coordination: Shape::Section(|| Coordination::SECTION), Restart;
        log: Shape::Section(|| Log::SECTION), Now;
    }
}

section! {
    Server at "server", of Settings {
        /// Where clients connect. "address:port", "[::1]:6432", "localhost:6432", or "unix:/run/poolhouse" for a socket in that
        /// directory, named .s.PGSQL.PORT as PostgreSQL's clients expect it; PORT is that of the first TCP entry (else 6432), or
        /// its own as in "unix:/run/poolhouse:6432". Port 0 lets the system choose.
        listen(listen): LISTENS, Restart;
        /// Threads that serve clients, {bounds}: 0 is one per core, 1 a single-threaded runtime.
        workers(workers): Whole(0, WORKERS_MAX), Restart;
        /// Clients at the same time, {bounds}, each of whom has proved who it is. The next one gets SQLSTATE 53300.
        max_clients(frontend.max_clients): Whole(1, CLIENTS_MAX), Now;
        /// Connections at the same time that have not proved yet who they are, {bounds}. When it would be more, the oldest of
        /// the address with the most gives way. Without a word on it, as many as max_clients, and at least 1000.
        max_logins(frontend.logins.all): Whole(1, CLIENTS_MAX), Now;
        /// How many of them may come from one address, unless that is on this machine, {bounds}; half of max_logins otherwise.
        max_logins_per_address(frontend.logins.per_address): Whole(1, CLIENTS_MAX), Now;
        /// Longest time from connecting until the client has proved who it is, {bounds}. A wait for a server after that has
        /// the limits of a statement: hold and checkout_timeout.
        login_timeout(frontend.login_timeout): Time(LOGIN_TIMEOUT_MIN, DURATION_DAY), Now;
        /// How long open transactions may go on after SIGTERM, {least} (not at all) to {most}.
        shutdown_timeout(frontend.shutdown_timeout): Time(Duration::ZERO, DURATION_DAY), Now;
        /// Connections of clients over TCP: the first keepalive probe is sent after so long without traffic ("0s" sends none),
        /// the next ones after so long, and after so many without an answer the client is gone. Data that was sent may go
        /// without the kernel's acknowledgement for as long as user_timeout while the client holds a server connection ("0s":
        /// for as long as the kernel tries). A client that is there and does not read is not disconnected.
        tcp(frontend.tcp): SOCKETS, Now;
        /// Where Poolhouse is, in any words: reads prefer nodes of the same zone. Without it zones do not count.
        zone(): Shape::Text, Now, Usual::Nothing("\"eu-1a\"");
    }
}

section! {
    Tcp at "server.tcp", of Sockets {
        /// The first keepalive probe is sent after so long without traffic; "0s" sends none.
        keepalive_idle(keepalive_idle): Limit(SECOND), Now;
        /// The next ones after so long each, {bounds}.
        keepalive_interval(keepalive_interval): Time(SECOND, HOUR), Now;
        /// After so many without an answer, {bounds}, the connection is lost.
        keepalive_count(keepalive_count): Whole(1, KEEPALIVES_MAX), Now;
        /// So long may data that was sent go without the kernel's acknowledgement; "0s": for as long as the kernel tries.
        user_timeout(user_timeout): LIMIT, Now;
    }
}

section! {
    /// More addresses to listen at, for sessions of one route, which they cannot change: "replica" (a read-only address: only
    /// replicas serve it), "primary" or "auto".
    Listener at "listener" {
        /// As one of server.listen.
        address: Shape::Text, Restart, Usual::Nothing("\"127.0.0.1:6434\"");
        /// Where the statements of its sessions go: "replica", "primary" or "auto".
        route: ROUTES.shape(), Restart, Usual::Nothing("\"replica\"");
    }
}

section! {
    /// TLS between clients and Poolhouse; files are in PEM, and read again at RELOAD, and when they change. Connections that
    /// are there stay as they are. Unix sockets go without.
    Tls at "tls", of ClientTlsFiles {
        /// "disable"; "allow" and "prefer": for clients that ask for it; "require": for all who come over TCP; "verify-ca": and
        /// they show a certificate of an authority in `client_ca`. Without a certificate there is no TLS. "verify-full" is not
        /// available yet.
        mode(mode): CLIENT_TLS, Now;
        /// What clients are shown: the server's certificate and those that lead from it to an authority. Or a list of such files:
        /// the first that names the host for which a client asks is shown, else the first.
        certificate(certificates): PATHS, Now, Usual::Nothing("\"server.crt\"");
        /// Its key, or a list of those of all. Nobody else may be able to read it.
        private_key(private_keys): PATHS, Now, Usual::Nothing("\"server.key\"");
        /// Authorities of clients' certificates.
        client_ca(client_ca): PATH_IF_ANY, Now, Usual::Nothing("\"ca.crt\"");
        /// Clients' certificates that are revoked, as a list of their authority.
        crl(crl): PATH_IF_ANY, Now, Usual::Nothing("\"revoked.crl\"");
        /// The oldest version that is spoken, "TLSv1.2" or "TLSv1.3".
        min_protocol(min_protocol): TLS_VERSIONS, Now;
        /// And the newest one, "TLSv1.2" or "TLSv1.3".
        max_protocol(max_protocol): TLS_VERSIONS, Now;
    }
}

section! {
    Auth at "auth", of auth::Settings {
        /// How clients prove who they are: "scram-sha-256", "md5" (users with a SCRAM verifier log in by SCRAM) or "trust"
        /// (anyone, under any name). "cert" and "hba" are not available yet.
        method(method): OneOf(METHODS, "write \"scram-sha-256\", and name users under [users] or in users_file"), NewSessions;
        /// Users in PgBouncer's format, one "user" "secret" per line, beside those under [users]. Without it there are only
        /// those.
        users_file(): Shape::Text, NewSessions, Usual::Nothing("\"userlist.txt\"");
        /// Not available yet.
        hba_file(): NotYet(NAME_USERS), NewSessions, Usual::Nothing("\"pg_hba.conf\"");
        /// Who asks the servers for users that are neither under [users] nor in users_file, by `query`. Without it nobody is
        /// looked up.
        query_user(lookup.user): NAME_IF_ANY, NewSessions, Usual::Nothing("\"poolhouse\"");
        query_password(lookup.password): SECRET, NewSessions, Usual::Nothing("\"env:POOLHOUSE_QUERY_PASSWORD\"");
        /// Has the user's name for $1, and gives one row of the name and the secret, or none. This one needs a superuser;
        /// docs/authentication.md has a function for anybody else.
        query(lookup.query): NAME, NewSessions;
        /// Where it is asked, by the database's name on the servers; without it in the database that the client asks for.
        query_database(lookup.database): NAME_IF_ANY, NewSessions, Usual::Nothing("\"postgres\"");
        /// How long an answer counts, {bounds}. It is asked for again sooner, once a second at most, after a failed login.
        query_lifetime(lookup.lifetime): Time(Duration::ZERO, HOUR), NewSessions;
    }
}

section! {
    /// What pools are like. [databases.X.pool] overrides it key by key, and [users.X.pool] overrides both.
    Pool at "pool", of Pooling {
        /// When a client gives its server connection back: "session" when it disconnects, "transaction" at the end of each
        /// transaction, "statement" after each statement (transaction blocks are refused).
        mode(session.mode): MODES, NewSessions;
        /// Most server connections per database, user and node, {bounds}.
        size(lending.size): Whole(1, CONNECTIONS_MAX), Now;
        /// Connections beyond `size`, {bounds}, for clients that have waited for `reserve_timeout` without that any connection
        /// came back, while a session keeps one between its transactions (see `on_pin`); 0 has none.
        reserve_size(lending.reserve_size): Whole(0, CONNECTIONS_MAX), Now;
        /// After how long such a connection is opened, {bounds}.
        reserve_timeout(lending.reserve_timeout): Time(WAIT_MIN, HOUR), Now;
        /// Connections that are kept open even when nobody uses them, {least} to `size`.
        min_idle(lending.min_idle): Whole(0, CONNECTIONS_MAX), Now;
        /// How long a client waits for a server connection before it gets SQLSTATE 53300; "0s" waits for ever.
        checkout_timeout(lending.checkout_timeout): LIMIT, Now;
        /// A client that has waited for a server for so long gets a NOTICE that says what for; "0s" says nothing.
        wait_notice(lending.wait_notice): LIMIT, Now;
        /// A server connection that is idle for so long is closed; "0s" keeps it.
        idle_timeout(lending.idle_timeout): LIMIT, Now;
        /// A server connection that has idled for longer is asked whether it still works before it is lent; "0s" never asks.
        check_delay(lending.check_delay): LIMIT, Now;
        /// A server connection that is so old is closed once it is idle; "0s" keeps it.
        max_lifetime(lending.max_lifetime): LIMIT, Now;
        /// A statement that runs longer is cancelled with SQLSTATE 57014; "0s" is no limit.
        query_timeout(session.query_timeout): LIMIT, NewSessions;
        /// A transaction that idles longer ends its client with SQLSTATE 25P03; "0s" is no limit.
        idle_transaction_timeout(session.idle_transaction_timeout): LIMIT, NewSessions;
        /// A client that idles longer outside of a transaction is disconnected; "0s" is no limit.
        client_idle_timeout(session.client_idle_timeout): LIMIT, NewSessions;
        /// What is done about a session that has to keep its server connection between transactions (temporary tables,
        /// advisory locks of the session, cursors WITH HOLD, LOAD): "allow" it, "warn" the client, or "refuse" with SQLSTATE
        /// 0A000.
        on_pin(session.on_pin): OneOf(ON_PIN, ""), NewSessions;
        /// A session that keeps its server connection for longer is disconnected between transactions; "0s" is no limit.
        pin_timeout(session.pin_timeout): LIMIT, NewSessions;
        /// Prepared statements that are kept per server connection, {bounds}; 0 passes them through as they are.
        prepared_statements(session.prepared_statements): Whole(0, STATEMENTS_MAX), NewSessions;
    }
}

section! {
    /// A cluster: one primary and its replicas. The name is your own; there may be several.
    Cluster at "clusters.*", of monitor::Settings {
        /// At least one, at most 100: "host:port", "host" (port 5432), "[::1]:5432", "unix:/run/postgresql" (the directory of
        /// the socket; "unix:/run/postgresql:5433" for another port than 5432), or a table. Which one is the primary is found
        /// out.
        nodes(): Shape::List(&Shape::AnyOf(&[Shape::Text, Shape::Section(|| Node::SECTION)])), Now,
            Usual::Asked("[\"10.0.0.100:5432\", { address = \"10.0.0.101:5432\", weight = 1.0, role = \"replica\" }]");
        /// Server connections per node over all pools, {bounds}. Leave some of the server's own max_connections free.
        max_connections(max_connections): Whole(1, CONNECTIONS_MAX), Now;
        /// Longest time to connect and log in to a node, {bounds}.
        connect_timeout(connect_timeout): Time(WAIT_MIN, HOUR), Restart;
        /// As server.tcp, for the connections to the nodes: a server that is gone is to be known soon.
        tcp(tcp): SOCKETS, Restart;
        tls(): Shape::Section(|| ClusterTls::SECTION), Now;
        health(): Shape::Section(|| Health::SECTION), Now;
        failover(): Shape::Section(|| Failover::SECTION), Now;
        routing(): Shape::Section(|| Routing::SECTION), NewSessions;
    }
}

section! {
    Node at "clusters.*.nodes" {
        /// As one of nodes.
        address: Shape::Text, Now, Usual::Asked("\"10.0.0.100:5432\"");
        /// The share of reads relative to other nodes, {least}, at most {most}, default 1.
        weight: Shape::Number { or_zero: false, most: WEIGHT_MAX }, Now, Usual::Depends("1");
        /// "primary" or "replica": the node is never used as the other; default: whatever it is.
        role: ROLES.shape(), Now, Usual::Nothing("\"replica\"");
        /// Where it is; see server.zone.
        zone: Shape::Text, Now, Usual::Nothing("\"eu-1a\"");
    }
}

section! {
    /// TLS between Poolhouse and the nodes, in libpq's words; files are in PEM, and read again at RELOAD. A connection that is
    /// there stays as it is.
    ClusterTls at "clusters.*.tls", of TlsFiles {
        /// "disable"; "allow": only when a node lets nobody in without; "prefer": when a node has it; "require": always, whoever
        /// the node is (with `ca` as "verify-ca"); "verify-ca": and its certificate is of an authority in `ca`; "verify-full":
        /// and for the host that is connected to.
        mode(mode): CLUSTER_TLS, Now;
        /// Certificates of the authorities that are trusted, or the nodes' own; "system" for those that the system trusts.
        ca(ca): PATH_IF_ANY, Now, Usual::Nothing("\"upstream-ca.crt\"");
        /// Certificates that are revoked, as a list of their authority.
        crl(crl): PATH_IF_ANY, Now, Usual::Nothing("\"revoked.crl\"");
        /// What Poolhouse shows to nodes that ask for a certificate, and its key, which nobody else may be able to read.
        certificate(certificate): PATH_IF_ANY, Now, Usual::Nothing("\"poolhouse.crt\"");
        private_key(private_key): PATH_IF_ANY, Now, Usual::Nothing("\"poolhouse.key\"");
        /// "postgres": the node is asked for TLS first; "direct": TLS from the first byte (PostgreSQL 17; mode "require" or more).
        negotiation(direct): NEGOTIATIONS, Now;
        /// Whether nodes are told which host is meant, which tells proxies of clouds where to go.
        sni(sni): Flag, Now;
        /// The oldest version that is spoken, "TLSv1.2" or "TLSv1.3".
        min_protocol(min_protocol): TLS_VERSIONS, Now;
        /// And the newest one, "TLSv1.2" or "TLSv1.3".
        max_protocol(max_protocol): TLS_VERSIONS, Now;
    }
}

section! {
    Health at "clusters.*.health", of monitor::Settings {
        /// Who asks the nodes how they are. Without it: user, password and database of the first [databases.X] of this cluster
        /// that has a user, else "postgres" without a password.
        user(health.user): NAME, Now, Usual::Nothing("\"poolhouse\"");
        password(health.password): SECRET, Now, Usual::Nothing("\"env:HEALTH_PASSWORD\"");
        /// The database that is asked. Without it: that of the borrowed entry, else "postgres".
        database(health.database): NAME, Now, Usual::Nothing("\"postgres\"");
        /// Time between two checks of a node, {bounds}.
        interval(health.interval): Time(WAIT_MIN, HOUR), Now;
        /// A check that takes longer has failed, {bounds}.
        timeout(health.timeout): Time(WAIT_MIN, HOUR), Now;
        /// Failed checks in a row until a node is out, {bounds}.
        failures(topology.failures): Whole(1, FAILURES_MAX), Now;
    }
}

section! {
    Failover at "clusters.*.failover", of monitor::Settings {
        /// When the primary is lost: "off" waits for it to come back, "follow" finds the one that somebody else promotes,
        /// "promote" promotes the most advanced replica once the replicas confirm that they have lost the primary, too.
        mode(topology.failover): OneOf(FAILOVERS, ""), Now;
        /// How long statements wait for a new primary before they fail with SQLSTATE 57P03, {least} (not at all) to {most}.
        hold(hold): Time(Duration::ZERO, DURATION_DAY), Now;
        /// mode = "promote": a replica that still holds its connection to the lost primary, over which nothing has come for so
        /// long since the primary was lost, although it was made to ask for a sign of life (where that can be done), has lost
        /// it too. "0s": only one whose connection has ended has.
        witness_silence(topology.silence): LIMIT, Now;
        /// "detect", or "strict": what the primary answers reaches clients only while it has answered a health check within
        /// fence_limit; otherwise it waits for the next one.
        fence(from is_fenced): FENCES, Now;
        /// See fence, {bounds}; at least three intervals without a word on it.
        fence_limit(): Shape::Duration(WAIT_MIN, HOUR), Now, Usual::Depends("\"3s\"");
        /// Not available yet:
        patroni(): NotYet("remove it: mode = \"follow\" finds the primary that Patroni promotes by asking the nodes"), Now,
            Usual::Nothing("[\"http://10.0.0.100:8008\"]");
    }
}

fn is_fenced(cluster: &monitor::Settings) -> bool {
    cluster.fence_limit.is_some()
}

section! {
    Routing at "clusters.*.routing", of topology::Routing {
        /// Where statements go that only read: "primary", "replica" (the primary when no replica is fit) or "any".
        reads(reads): OneOf(READS, ""), NewSessions;
        /// Which of several, for their weights: "least-busy" (fewest connections lent), "latency" (the fastest to answer, for
        /// the connections lent), "round-robin" or "random".
        balance(balance): OneOf(BALANCES, ""), NewSessions;
        /// A replica that is further behind serves no reads: a time, bytes of WAL as in "64MB", or both as in ["10s", "64MB"];
        /// "0s" is no limit.
        max_lag(by lag, set_lag): Lag, NewSessions;
        /// "session": a client's reads see what it has written. "global": and what all others of its database have written by
        /// way of this Poolhouse. "eventual": they may not, yet.
        consistency(consistency): OneOf(CONSISTENCIES, ""), NewSessions;
        /// How long a read waits for a replica that has what it must see, before it goes to the primary, {least} (not at all)
        /// to {most}.
        causal_wait(causal_wait): Time(Duration::ZERO, HOUR), NewSessions;
        /// When no replica is fit, reads go to the primary; false: they wait for a replica, for as long as failover.hold.
        fallback(fallback): Flag, NewSessions;
        /// Where transactions run that may write: "primary", or "read-until-write": on a replica until they do more than read
        /// (READ COMMITTED ones; others stay in one place). READ ONLY ones run on replicas either way.
        transactions(transactions): OneOf(TRANSACTIONS, ""), NewSessions;
        /// Functions that only read, or that write, whatever their definitions say: names without schema, or regular
        /// expressions between slashes. Not for PostgreSQL's own functions.
        read_functions(by read_functions, set_read_functions): Patterns { functions: true }, NewSessions;
        write_functions(by write_functions, set_write_functions): Patterns { functions: true }, NewSessions;
        /// Tables and views that are read on the primary: names with or without schema, or regular expressions between
        /// slashes.
        primary_tables(by primary_tables, set_primary_tables): Patterns { functions: false }, NewSessions;
        /// Where sessions go that do not say so themselves, by who they are; the first rule that fits counts.
        rules(): Shape::List(&Shape::Section(|| Rule::SECTION)), NewSessions, Usual::Nothing("");
    }
}

fn lag(routing: &topology::Routing) -> LagLimits {
    (routing.max_lag, routing.max_lag_bytes)
}

fn set_lag(routing: &mut topology::Routing, limits: LagLimits) {
    (routing.max_lag, routing.max_lag_bytes) = limits;
}

fn read_functions(routing: &topology::Routing) -> Vec<Pattern> {
    routing.lists.read_functions.clone()
}

fn set_read_functions(routing: &mut topology::Routing, patterns: Vec<Pattern>) {
    lists(routing).read_functions = patterns;
}

fn write_functions(routing: &topology::Routing) -> Vec<Pattern> {
    routing.lists.write_functions.clone()
}

fn set_write_functions(routing: &mut topology::Routing, patterns: Vec<Pattern>) {
    lists(routing).write_functions = patterns;
}

fn primary_tables(routing: &topology::Routing) -> Vec<Pattern> {
    routing.lists.primary_tables.clone()
}

fn set_primary_tables(routing: &mut topology::Routing, patterns: Vec<Pattern>) {
    lists(routing).primary_tables = patterns;
}

/// Each list replaces the one above it.
fn lists(routing: &mut topology::Routing) -> &mut Lists {
    Arc::make_mut(&mut routing.lists)
}

section! {
    /// Where sessions go that do not say so themselves, by who they are; the first rule that fits counts. Each names a user, a
    /// database (as clients call it) or an application_name, or several: names, or regular expressions between slashes. It
    /// gives a route ("auto", "primary" or "replica"), or weights of nodes for them (0: not this one), or both.
    Rule at "clusters.*.routing.rules" {
        /// Whose sessions: a name, or a regular expression between slashes.
        user: Shape::Text, NewSessions, Usual::Nothing("\"/^report/\"");
        /// To which database, as clients call it: a name, or a regular expression between slashes.
        database: Shape::Text, NewSessions, Usual::Nothing("\"app\"");
        /// Of which application: a name, or a regular expression between slashes.
        application_name: Shape::Text, NewSessions, Usual::Nothing("\"nightly\"");
        /// Where their statements go: "auto", "primary" or "replica".
        route: PREFERENCES.shape(), NewSessions, Usual::Nothing("\"replica\"");
        /// The weights of nodes for them; 0: not this one.
        weights: Shape::Named(&Shape::Number { or_zero: true, most: WEIGHT_MAX }), NewSessions,
            Usual::Nothing("{ \"10.0.0.101:5432\" = 0 }");
    }
}

section! {
    /// A database, by the name that clients ask for. [databases."*"] serves every other name. The names "poolhouse" and
    /// "pgbouncer" are kept for the console.
    Database at "databases.*", of Entry {
        /// May be left out when there is only one cluster.
        cluster(): Shape::Text, NewSessions, Usual::Asked("\"main\"");
        /// Its name on the servers. Without it: the name that the client asked for.
        database(database): NAME_IF_ANY, NewSessions, Usual::Nothing("\"app_production\"");
        /// Who logs in to the servers, whoever the client is. Without it: the client, with its own name and password.
        user(from login_user): NAME_IF_ANY, NewSessions, Usual::Nothing("\"app\"");
        password(from login_password): SECRET, NewSessions, Usual::Nothing("\"env:APP_PASSWORD\"");
        pool(): Shape::Section(|| Pool::SECTION), NewSessions;
        routing(): Shape::Section(|| Routing::SECTION), NewSessions;
    }
}

fn login_user(database: &Entry) -> Option<String> {
    database.login.as_ref().map(|login| login.user.clone())
}

fn login_password(database: &Entry) -> Option<Password> {
    database.login.as_ref()?.password.clone()
}

section! {
    /// A client's user. [users."*".pool] is for all users; what [users.X.pool] says of X goes over it.
    User at "users.*" {
        /// May be left out when the user is in users_file.
        password: Shape::Secret, NewSessions, Usual::Asked(
            "\"SCRAM-SHA-256$4096:wpqejCk8AZk/aoVFdUCE1w==$SiAt5zuiRwaEdvE+CTZ/VIMsYVJeBBbCnqlkj31maec=:ItXrfhj8eHt8NGvJ3F2Q5X3NmO1DVIXqVMO3KuM/Xk8=\"",
        );
        pool: Shape::AsOne(|| Pool::SECTION), NewSessions;
    }
}

section! {
    /// The console, on the databases "poolhouse" and "pgbouncer": see docs/console.md.
    Admin at "admin", of Console {
        /// Who may look and change things. They prove who they are as all users do.
        users(users): NAMES, NewSessions;
        /// Who may only look.
        stats_users(stats_users): NAMES, NewSessions;
        /// How many operators get in when all places of clients are taken, {bounds}.
        reserved(reserved): Whole(0, RESERVED_MAX), Now;
        /// What SHOW VERSION answers instead of Poolhouse's own version, for programs that read PgBouncer's.
        pgbouncer_version(pgbouncer_version): NAME_IF_ANY, Now, Usual::Nothing("\"1.25.0\"");
        /// Where metrics, the console's tables as JSON, and /healthz and /readyz are served; "" for nowhere. When this default
        /// is not free Poolhouse starts without; one that is written here has to be free.
        http(http): ADDRESS, Restart;
        /// Whether metrics are told by node, and durations by user and node, too: with many databases that is a large page.
        metrics_by_node(metrics_by_node): Flag, Now;
        /// What those show who are not on this machine, a secret; without it they may see nothing but /healthz and /readyz.
        token(): Shape::Secret, Restart, Usual::Nothing("\"env:POOLHOUSE_TOKEN\"");
    }
}

section! {
    /// Not available yet: every key of [coordination] is refused.
    Coordination at "coordination", of () {
        etcd(): NotYet(ONE_PROMOTES), Restart, Usual::Nothing("[\"http://10.0.0.5:2379\"]");
        namespace(): NotYet(ONE_PROMOTES), Restart, Usual::Nothing("\"poolhouse/main\"");
        node(): NotYet(ONE_PROMOTES), Restart, Usual::Nothing("\"ph-1\"");
    }
}

section! {
    Log at "log", of super::Log {
        /// "off", "error", "warn", "info", "debug" or "trace", also by target: "poolhouse::monitor=debug,info". The environment
        /// variable RUST_LOG goes over it.
        level(level): NAME, Now;
        /// "text" or "json", to standard error.
        format(format): OneOf(FORMATS, ""), Restart;
        /// Statements that take this long or longer are logged, with how long they waited for a server connection and how long
        /// they ran there, the node, and the text without its values. "0s" for none.
        slow(slow): LIMIT, Now;
        /// Whether the log shows them as the client sent them, with the values in the text and those of the parameters, each
        /// cut off behind 1000 bytes. They may be secret: what may hold a password is not shown even then, but that is told by
        /// words such as "password" and "secret" only.
        slow_values(slow_values): Flag, Now;
        /// Whether logins and disconnections of clients are logged.
        connections(connections): Flag, Now;
    }
}

/// Every section; `*` stands for a name that the user chooses.
pub(super) const SECTIONS: &[Section] = &[
    File::SECTION,
    Server::SECTION,
    Tcp::SECTION,
    Listener::SECTION,
    Tls::SECTION,
    Auth::SECTION,
    Pool::SECTION,
    Cluster::SECTION,
    Node::SECTION,
    ClusterTls::SECTION,
    Health::SECTION,
    Failover::SECTION,
    Routing::SECTION,
    Rule::SECTION,
    Database::SECTION,
    User::SECTION,
    Admin::SECTION,
    Coordination::SECTION,
    Log::SECTION,
];
