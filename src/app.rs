//! Wiring and the order of shutdown. One event loop per worker thread: a client and the server connection that it holds
//! are always on the same one. The first worker is the calling thread, which also accepts, watches the nodes and keeps
//! the pools.

mod certificates;
mod fleet;
mod notify;
mod reload;

use std::{
    collections::BTreeMap,
    io,
    pin::pin,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use fleet::Fleet;
pub use reload::ReadAgain;
use reload::Reloader;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::timeout,
};

use notify::ServiceManager;

use crate::{
    admin::{self, Catalog, Desk, Http, Request, SetLevel, Shutdown, User},
    clients::LeaveOrder,
    config::{self, Database, PoolOverride, Pooling, Settings},
    databases::{self, Cluster, DatabaseSettings, Databases},
    frontend::{self, Arrivals, Frontend, Live, Lookups, Operators, Visitor, Worker, Workers},
    net::{
        Listen,
        listener::{self, Bound},
    },
    tasks::Scope,
};
use poolhouse_core::{
    auth::{Credential, Directory, Secret},
    session::Route,
};

/// The signal to read the configuration again.
const HANG_UP: &str = "SIGHUP";

/// PgBouncer's signals for PAUSE and RESUME.
const PAUSE: &str = "SIGUSR1";
const RESUME: &str = "SIGUSR2";

/// The signal that ends everything at once.
const QUIT: &str = "SIGQUIT";

/// What aborted clients may still take.
const ABORT_LIMIT: Duration = Duration::from_secs(5);

/// What clients may take to be told, when everything is to stop at once.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// Why Poolhouse cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Listen { address: Listen, error: io::Error },
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("cannot start: no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program, or another Poolhouse, listens there already",
        io::ErrorKind::PermissionDenied => "; ports below 1024 and some directories need special rights",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// Runs until a signal ends it.
///
/// # Errors
/// [`Error`], before anything is served.
pub fn run(settings: Settings, set_level: SetLevel, read_again: ReadAgain) -> Result<(), Error> {
    raise_file_limit();
    let http = bind_http(settings.admin.http.as_ref())?;
    let mut bound = Vec::new();
    let listeners = settings.listeners.iter().map(|listener| (&listener.address, Some(listener.route)));
    for (address, route) in settings.listen.iter().map(|address| (address, None)).chain(listeners) {
        let listener = listener::bind(address).map_err(|error| Error::Listen { address: address.clone(), error })?;
        bound.push((address.clone(), route, listener));
    }
    let runtime = runtime()?;
    runtime.block_on(serve(settings, set_level, read_again, bound, http))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Each client takes a file descriptor, and so does each server connection: as many as the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(
    settings: Settings,
    set_level: SetLevel,
    read_again: ReadAgain,
    bound: Vec<(Listen, Option<Route>, Bound)>,
    http: Option<std::net::TcpListener>,
) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    // From the top down: each is stopped after what uses it.
    let (watching, operators, accepting, clients) = (Scope::new(), Scope::new(), Scope::new(), Scope::new());
    let (visitors, to_console) = mpsc::unbounded_channel();
    let (fleet, frontend) = assemble(&settings, visitors, &watching)?;
    let (orders, mut ordered) = mpsc::unbounded_channel();
    let desk = Desk::new(frontend.clone(), fleet.clusters(), catalog(&settings), set_level, orders);
    if let Some(socket) = http {
        serve_http(socket, &settings, desk.clone(), operators.clone())?;
    }
    let at_desk = start_operators(desk.clone(), to_console, operators.clone())?;
    let mut reloader = Reloader { settings: settings.clone(), read_again, fleet: fleet.clone(), desk: desk.clone() };
    let (workers, arrivals) = Workers::new(settings.workers.max(1), clients.clone());
    let threads = start_workers(arrivals, &frontend, &workers, &clients)?;
    for (address, route, listener) in bound {
        let listener = listener.open()?;
        let (workers, frontend, scope) = (workers.clone(), frontend.clone(), accepting.clone());
        accepting.spawn("accept", async move { frontend::accept(listener, route, workers, frontend, scope).await });
        tracing::info!(%address, route = route.map(Route::name), "listening");
    }
    let balancing = accepting.clone();
    let (looking, scope) = (frontend.clone(), accepting.clone());
    accepting.spawn("certificates", async move { certificates::watch(looking, scope).await });
    accepting.spawn("balance", async move { frontend::balance(workers, balancing).await });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = threads.len() + 1, "Poolhouse runs");

    let manager = ServiceManager::of_environment();
    manager.ready();
    let mut watchdog = pin!(manager.keep_watchdog());
    let reload = |reloader: &mut Reloader, why| {
        manager.reloading();
        let result = reloader.reload(why);
        manager.ready();
        result
    };
    let (why, how) = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                HANG_UP => drop(reload(&mut reloader, HANG_UP)),
                PAUSE => order(&desk, admin::OperatorAction::Pause(None), PAUSE, &operators),
                RESUME => order(&desk, admin::OperatorAction::Resume(None), RESUME, &operators),
                QUIT => break (QUIT, Shutdown::Now),
                signal => break (signal, Shutdown::WaitForServers),
            },
            Some(request) = ordered.recv() => match request {
                Request::Shutdown(how) => break ("SHUTDOWN", how),
                // Nobody has to wait for the result.
                Request::Reload { dry: true, result } => drop(result.send(reloader.preview())),
                Request::Reload { dry: false, result } => drop(result.send(reload(&mut reloader, "RELOAD"))),
            },
            never = &mut watchdog => match never {},
        }
    };
    drop(reloader);
    manager.stopping();
    desk.end();
    tracing::info!(signal = why, ?how, clients = frontend.registry.connected(), "draining");
    accepting.stop();
    accepting.ended().await;
    tokio::select! {
        never = &mut watchdog => match never {},
        () = end_clients(how, &frontend, &clients) => {}
        () = at_once(&mut signals, &mut ordered) => end_at_once(&frontend, &clients).await,
    }
    operators.stop();
    let _ = timeout(FAREWELL_LIMIT, operators.ended()).await;
    if at_desk.is_finished() && at_desk.join().is_err() {
        tracing::error!("the operators' thread panicked; this is a bug in Poolhouse");
    }
    fleet.close().await;
    watching.stop();
    // Probes under way end by themselves; nothing waits for them longer than this.
    let _ = timeout(Duration::from_secs(1), watching.ended()).await;
    drop(frontend);
    for thread in threads {
        // A worker thread ends with its last client; one that hangs must not hold up the end.
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("a worker thread panicked; this is a bug in Poolhouse");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Carries out a command of the console that came as a signal. Nothing waits for its end; an impossible one is logged as all are.
fn order(desk: &Arc<Desk>, action: admin::OperatorAction, signal: &'static str, operators: &Scope) {
    let (desk, stopping) = (desk.clone(), operators.clone());
    operators.spawn("a signal's command", async move {
        tokio::select! {
            _ = desk.act(&action, signal, 0) => {}
            () = stopping.stopping() => {}
        }
    });
}

/// Binds the address of HTTP, if there is one.
///
/// # Errors
/// It is not free, and somebody has chosen it.
fn bind_http(http: Option<&Http>) -> Result<Option<std::net::TcpListener>, Error> {
    let Some(Http { address, by_default, .. }) = http else { return Ok(None) };
    let listen = Listen::Tcp(*address);
    match listener::bind(&listen) {
        Ok(Bound::Tcp(socket)) => Ok(Some(socket)),
        Err(error) if *by_default => {
            let mend = "set admin.http (--http, POOLHOUSE_HTTP) to another address, or to \"\" for none";
            tracing::warn!(%address, %error, mend, "no metrics and no HTTP: the default address is not free");
            Ok(None)
        }
        Err(error) => Err(Error::Listen { address: listen, error }),
        Ok(Bound::Unix { .. }) => Ok(None),
    }
}

/// Serves HTTP on a thread of its own.
fn serve_http(socket: std::net::TcpListener, settings: &Settings, desk: Arc<Desk>, scope: Scope) -> io::Result<()> {
    let token = match settings.admin.http.as_ref().and_then(|http| http.token.as_ref()) {
        Some(Secret::Plain(token)) => Some(Arc::from(token.as_str())),
        _ => None,
    };
    let address = socket.local_addr()?;
    let serve = async move {
        match TcpListener::from_std(socket) {
            Ok(listener) => admin::serve_http(listener, desk, token, scope).await,
            Err(error) => tracing::error!(%error, "cannot serve HTTP"),
        }
    };
    start_thread("http".to_owned(), serve)?;
    tracing::info!(%address, "serving HTTP");
    Ok(())
}

async fn end_clients(how: Shutdown, frontend: &Frontend, clients: &Scope) {
    match how {
        Shutdown::Now => end_at_once(frontend, clients).await,
        Shutdown::WaitForServers => drain(frontend, clients).await,
        Shutdown::WaitForClients => clients.ended().await,
    }
}

async fn end_at_once(frontend: &Frontend, clients: &Scope) {
    tracing::info!("stopping at once");
    clients.stop();
    frontend.registry.order_all(LeaveOrder::Abort);
    let _ = timeout(FAREWELL_LIMIT, clients.ended()).await;
}

/// While clients are still there, somebody says: now.
async fn at_once(signals: &mut Signals, ordered: &mut mpsc::UnboundedReceiver<Request>) {
    let is_now = |request: &Request| matches!(request, Request::Shutdown(Shutdown::Now));
    let now = async { while ordered.recv().await.is_some_and(|request| !is_now(&request)) {} };
    tokio::select! {
        () = signals.second() => {}
        () = now => {}
    }
}

/// What the console shows of the settings.
fn catalog(settings: &Settings) -> Catalog {
    let mut users: BTreeMap<&String, User> = BTreeMap::new();
    let known = settings.auth.users.keys().chain(settings.user_pools.keys());
    for name in known {
        let pool = settings.user_pools.get(name);
        let (pool_size, pool_mode) = (pool.and_then(PoolOverride::size), pool.and_then(PoolOverride::mode));
        users.insert(name, User { name: name.clone(), pool_size, pool_mode });
    }
    let port = settings.listen.iter().find_map(|listen| match listen {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix { .. } => None,
    });
    Catalog {
        settings: settings.admin.clone(),
        port: port.unwrap_or(0),
        users: users.into_values().collect(),
        config: config::listing(settings),
    }
}

/// Lets transactions end, for as long as the settings say, and then ends what is left.
async fn drain(frontend: &Frontend, clients: &Scope) {
    clients.stop();
    frontend.registry.order_all(LeaveOrder::Drain);
    let limit = frontend.settings().shutdown_timeout;
    if timeout(limit, clients.ended()).await.is_err() {
        tracing::warn!(clients = frontend.registry.connected(), ?limit, "ending the transactions that are left");
        frontend.registry.order_all(LeaveOrder::Abort);
        let _ = timeout(ABORT_LIMIT, clients.ended()).await;
    }
}

/// The clusters, watched and kept by tasks of this scope, and what serves clients in front of them.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn assemble(
    settings: &Settings,
    visitors: mpsc::UnboundedSender<Visitor>,
    watching: &Scope,
) -> Result<(Arc<Fleet>, Arc<Frontend>), Error> {
    let fleet = Fleet::start(&settings.clusters, watching);
    let frontend = Arc::new(build_frontend(settings, visitors, &fleet.clusters())?);
    fleet.keep(&frontend);
    Ok((fleet, frontend))
}

fn build_frontend(
    settings: &Settings,
    visitors: mpsc::UnboundedSender<Visitor>,
    clusters: &[Arc<Cluster>],
) -> Result<Frontend, Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let live = live(settings, Directory::new(settings.auth.clone(), seed), clusters);
    let frontend = Frontend::new(settings.frontend.clone(), live, visitors);
    watch(&settings.log, &frontend);
    Ok(frontend)
}

/// What the log is to tell of clients.
fn watch(log: &config::Log, frontend: &Frontend) {
    frontend.watch.set_slow(log.slow);
    frontend.watch.tell_values(log.slow_values);
    frontend.watch.tell_connections(log.connections);
}

/// What may change while clients are served.
fn live(settings: &Settings, directory: Directory, clusters: &[Arc<Cluster>]) -> Live {
    let mut by_name = BTreeMap::new();
    for (name, database) in &settings.databases {
        let plain = database_settings(database, clusters, None);
        let by_user = settings.user_pools.iter().map(|(user, changes)| {
            let mut pooling = Pooling { lending: database.pool.clone(), session: database.session.clone() };
            if let Some(of_all) = settings.user_pools.get("*") {
                of_all.apply(&mut pooling);
            }
            changes.apply(&mut pooling);
            (user.clone(), database_settings(database, clusters, Some(pooling)))
        });
        by_name.insert(name.clone(), databases::ConfiguredDatabase { settings: plain, by_user: by_user.collect() });
    }
    let admin::Settings { users, stats_users, reserved, .. } = settings.admin.clone();
    let operators = Operators { users, stats_users, reserved };
    let lookups = Lookups::new(settings.auth.lookup.clone()).map(Arc::new);
    Live { directory, databases: Databases { by_name }, operators, lookups }
}

fn database_settings(database: &Database, clusters: &[Arc<Cluster>], pooling: Option<Pooling>) -> DatabaseSettings {
    let (pool, session) = match pooling {
        Some(pooling) => (pooling.lending, pooling.session),
        None => (database.pool.clone(), database.session.clone()),
    };
    let login = database.login.as_ref().map(|login| {
        let credential = login.password.clone().map_or(Credential::None, Credential::Secret);
        (login.user.clone(), credential)
    });
    DatabaseSettings {
        cluster: clusters[database.cluster].clone(),
        database: database.database.clone(),
        login,
        pool,
        session,
        routing: database.routing.clone(),
        defaults: database.defaults.clone(),
    }
}

/// Starts the other workers; the first serves on the calling thread's event loop.
fn start_workers(
    arrivals: Vec<Arrivals>,
    frontend: &Arc<Frontend>,
    workers: &Workers,
    clients: &Scope,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let mut threads = Vec::new();
    for (number, arrivals) in arrivals.into_iter().enumerate() {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        let (frontend, workers, clients) = (frontend.clone(), workers.clone(), clients.clone());
        let serve = async move {
            let worker =
                Arc::new(Worker::new(arrivals.post.clone(), u64::from_ne_bytes(seed), clients, frontend.watch.clone()));
            frontend::serve(arrivals, frontend, worker, workers).await;
        };
        if number == 0 {
            // Not one of the clients' tasks, which a drain waits for.
            Scope::new().spawn("serve", serve);
            continue;
        }
        threads.push(start_thread(format!("worker-{number}"), serve)?);
    }
    Ok(threads)
}

/// Operators have a thread of their own: a table of ten thousand clients must not hold up any of them.
fn start_operators(
    desk: Arc<Desk>,
    visitors: mpsc::UnboundedReceiver<Visitor>,
    scope: Scope,
) -> Result<JoinHandle<()>, Error> {
    let serve = async move {
        // Counted, so that the end of all can be waited for.
        let _token = scope.token();
        admin::serve(desk, visitors, scope).await;
    };
    Ok(start_thread("operators".to_owned(), serve)?)
}

/// Starts a thread with a runtime of its own, which ends with what it serves.
#[expect(clippy::disallowed_methods, reason = "all threads but the first start here")]
fn start_thread(name: String, serve: impl Future<Output = ()> + Send + 'static) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    thread::Builder::new().name(name).spawn(move || runtime.block_on(serve))
}

/// The signals that end Poolhouse, and those that it answers otherwise.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
    pause: Signal,
    resume: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => HANG_UP,
            _ = self.quit.recv() => QUIT,
            _ = self.pause.recv() => PAUSE,
            _ = self.resume.recv() => RESUME,
        }
    }

    /// A second one that says: now.
    async fn second(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
