//! The one connection that listens for all clients of a database: what it listens to, who gets what, and what becomes of
//! it when the primary changes. It is opened when somebody listens, and closed when nobody has for a while.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    future::{pending, poll_fn},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    backend::{Senders, Server, ServerLogin, connect},
    databases::{Cluster, HubCommand, HubSubscription, LastWrite},
    monitor::ClientReport,
    tasks::Scope,
};
use poolhouse_core::{
    session::{Channel, Mail, listen_to, read_marker, unlisten},
    topology::{NodeId, State},
    wire::{self, ErrorFields, frame::HEADER_BYTES, reply, request},
};

/// How long a connection is kept that nobody needs.
const LINGER: Duration = Duration::from_secs(60);

/// Pauses before another try to connect: the first, and the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a LISTEN may take before the connection counts as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Room to read into, in bytes. A notification is at most 8 KB.
const BUFFER_BYTES: usize = 16 << 10;

/// Longest message that a server may send here.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Subscriber {
    listening: Box<HubSubscription>,
    delivering: bool,
}

/// What the hub of one database works with.
#[derive(Debug)]
struct Hub {
    cluster: Arc<Cluster>,
    /// For the log.
    database: String,
    /// The channel on which sessions mark their moves.
    marker: Arc<str>,
    commands: UnboundedReceiver<HubCommand>,
    scope: Scope,
    audience: Audience,
    writes: Arc<LastWrite>,
}

/// Who listens to what.
#[derive(Debug, Default)]
struct Audience {
    subscribers: HashMap<u64, Subscriber>,
    channels: HashMap<Channel, BTreeSet<u64>>,
}

/// Why a connection is not used any more.
enum HubEnd {
    Stopped,
    /// Nobody listens.
    Unused,
    Lost(io::Error),
}

/// Starts the hub of a database (its name on the server), below `scope`.
pub fn start(
    cluster: &Arc<Cluster>,
    database: &str,
    marker: Arc<str>,
    commands: UnboundedReceiver<HubCommand>,
    scope: &Scope,
) {
    let hub = Hub {
        cluster: cluster.clone(),
        database: database.to_owned(),
        marker,
        commands,
        scope: scope.clone(),
        audience: Audience::default(),
        writes: cluster.writes.of(database),
    };
    scope.spawn("listen for clients", hub.run());
}

impl Hub {
    /// Serves until the scope is asked to stop.
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            while self.audience.subscribers.is_empty() {
                let stopping = self.scope.clone();
                tokio::select! {
                    () = stopping.stopping() => return,
                    command = self.commands.recv() => match command {
                        Some(command) => self.audience.obey(command, &mut Vec::new()),
                        None => return,
                    },
                }
            }
            let end = match self.open(failures).await {
                Some(Ok((server, node))) => {
                    failures = 0;
                    self.serve(server, node).await
                }
                Some(Err(())) => {
                    failures += 1;
                    self.pause(failures).await
                }
                None => HubEnd::Stopped,
            };
            match end {
                HubEnd::Stopped => return,
                HubEnd::Unused => {}
                HubEnd::Lost(error) => {
                    let cluster = &self.cluster.name;
                    tracing::info!(cluster, database = self.database, %error, "lost the connection that listens");
                    for subscriber in self.audience.subscribers.values() {
                        subscriber.listening.mailbox.push(Mail::Lost);
                    }
                }
            }
        }
    }

    /// Where to listen: the primary.
    fn node(&self) -> Option<NodeId> {
        let topology = self.cluster.monitor.topology();
        topology.only().or(topology.primary)
    }

    /// Whether the node is still the one to listen on.
    fn stays(&self, node: NodeId) -> bool {
        let topology = self.cluster.monitor.topology();
        let gone = |node| topology.node(node).is_none_or(|node| matches!(node.state, State::Down | State::Stale));
        topology.primary.is_none_or(|primary| primary == node) && !gone(node)
    }

    /// Connects to the primary, once there is one; each time as another of those who listen, should some be refused.
    /// `None` when the hub is to stop.
    async fn open(&mut self, failures: usize) -> Option<Result<(Server, NodeId), ()>> {
        let stopping = self.scope.clone();
        let node = loop {
            let version = self.cluster.monitor.topology().version;
            if let Some(node) = self.node() {
                break node;
            }
            tokio::select! {
                () = stopping.stopping() => return None,
                () = self.cluster.monitor.changed(version) => {}
                command = self.commands.recv() => self.audience.obey(command?, &mut Vec::new()),
            }
        };
        let subscribers = &self.audience.subscribers;
        let Some(login) = subscribers.values().nth(failures % subscribers.len().max(1)) else { return Some(Err(())) };
        let on = self.cluster.node(node);
        let login = ServerLogin { address: on.address.clone(), ..login.listening.login.clone() };
        let connected = tokio::select! {
            () = stopping.stopping() => return None,
            connected = connect(&login, self.cluster.connect_timeout) => connected,
        };
        let (cluster, database, node_name) = (&self.cluster.name, &self.database, &on.name);
        Some(match connected {
            Ok(server) => {
                tracing::info!(
                    cluster,
                    database,
                    node = node_name,
                    process = server.process(),
                    "listening for clients"
                );
                Ok((server, node))
            }
            Err(error) => {
                tracing::info!(cluster, database, node = node_name, %error, "cannot listen for clients");
                if !error.is_definite() {
                    let reason = error.to_string();
                    self.cluster.monitor.report(node, ClientReport::ConnectionRefused { reason });
                }
                Err(())
            }
        })
    }

    /// After a failure: the longer the more there were, unless the nodes change.
    async fn pause(&mut self, failures: usize) -> HubEnd {
        let version = self.cluster.monitor.topology().version;
        let until = Instant::now() + (RETRY_PAUSE * failures.min(1_000) as u32).min(RETRY_PAUSE_MAX);
        let stopping = self.scope.clone();
        loop {
            tokio::select! {
                () = stopping.stopping() => return HubEnd::Stopped,
                () = sleep_until(until) => return HubEnd::Unused,
                () = self.cluster.monitor.changed(version) => return HubEnd::Unused,
                command = self.commands.recv() => match command {
                    Some(command) => self.audience.obey(command, &mut Vec::new()),
                    None => return HubEnd::Stopped,
                },
            }
        }
    }

    /// Listens over one connection until that ends.
    async fn serve(&mut self, server: Server, node: NodeId) -> HubEnd {
        let mut link = Link::new(server, node);
        link.begin(&self.audience, &self.marker);
        let stopping = self.scope.clone();
        loop {
            if !self.stays(node) {
                return HubEnd::Lost(io::Error::other("it is not the primary any more"));
            }
            let version = self.cluster.monitor.topology().version;
            let (unused, due) = (self.audience.subscribers.is_empty(), link.due);
            tokio::select! {
                happened = poll_fn(|cx| link.poll(cx, &mut self.commands)) => match happened {
                    Ok(None) => {}
                    Ok(Some(command)) => link.obey(command, &mut self.audience, &self.marker),
                    Err(error) => return HubEnd::Lost(error),
                },
                () = if_so(due.is_some(), sleep_until(due.unwrap_or_else(Instant::now))) => return HubEnd::Lost(io::ErrorKind::TimedOut.into()),
                () = self.cluster.monitor.changed(version) => {}
                () = if_so(unused, sleep(LINGER)) => {
                    link.close().await;
                    return HubEnd::Unused;
                }
                () = stopping.stopping() => {
                    link.close().await;
                    return HubEnd::Stopped;
                }
            }
            if self.writes.is_wanted() {
                // Whoever hears of a commit must see it, though its client may not have been told yet.
                self.writes.note();
            }
            if let Err(error) = link.digest(&mut self.audience, &self.marker, &self.cluster.senders) {
                return HubEnd::Lost(error);
            }
        }
    }
}

async fn if_so(condition: bool, future: impl Future<Output = ()>) {
    if condition { future.await } else { pending().await }
}

impl Audience {
    /// Takes in what a session asks for; what the server has to be told goes to `sql`.
    fn obey(&mut self, command: HubCommand, sql: &mut Vec<u8>) {
        match command {
            HubCommand::Subscribe { subscriber, listening } => {
                let before = self.subscribers.get(&subscriber);
                let delivering = before.is_some_and(|before| before.delivering);
                let old = before.map(|before| before.listening.channels.clone()).unwrap_or_default();
                // A client may listen to very many, and says all of them each time.
                let (had, has): (HashSet<_>, HashSet<_>) = (old.iter().collect(), listening.channels.iter().collect());
                let new: Vec<Channel> = has.difference(&had).map(|channel| (*channel).clone()).collect();
                had.difference(&has).for_each(|channel| self.forget(channel, subscriber, sql));
                listen_to(&new, sql);
                for channel in new {
                    self.channels.entry(channel).or_default().insert(subscriber);
                }
                self.subscribers.insert(subscriber, Subscriber { listening, delivering });
            }
            HubCommand::Leave { subscriber } => {
                if let Some(gone) = self.subscribers.remove(&subscriber) {
                    gone.listening.channels.iter().for_each(|channel| self.forget(channel, subscriber, sql));
                }
            }
        }
    }

    /// A session listens to a channel no longer.
    fn forget(&mut self, channel: &Channel, subscriber: u64, sql: &mut Vec<u8>) {
        let Some(listeners) = self.channels.get_mut(channel) else { return };
        listeners.remove(&subscriber);
        if listeners.is_empty() {
            self.channels.remove(channel);
            unlisten(channel, sql);
        }
    }

    /// A session's listening is met on this node.
    fn acknowledge(&mut self, promise: Promise, node: NodeId) {
        let Some(subscriber) = self.subscribers.get_mut(&promise.subscriber) else { return };
        subscriber.delivering |= promise.deliver;
        subscriber.listening.mailbox.push(Mail::Listening { version: promise.version, node: node.0 });
    }

    /// A NotificationResponse message has come; `client` finds the client that has sent it, by the server's process.
    fn deliver(
        &mut self,
        message: &mut [u8],
        marker: &str,
        client: impl Fn(u32) -> Option<u32>,
    ) -> Result<(), wire::Error> {
        let parts = reply::notification_parts(&message[HEADER_BYTES..])?;
        if *parts.channel == *marker.as_bytes() {
            self.mark(parts.payload);
        } else if let Some(listeners) = self.channels.get(parts.channel) {
            if let Some(client) = client(parts.process) {
                reply::set_notification_process(message, client);
            }
            let listeners = listeners.iter().filter_map(|listener| self.subscribers.get(listener));
            let mut listeners = listeners.filter(|listener| listener.delivering).peekable();
            if listeners.peek().is_some() {
                let message = Bytes::copy_from_slice(message);
                listeners.for_each(|listener| listener.listening.mailbox.notify(&message));
            }
        }
        Ok(())
    }

    fn mark(&mut self, payload: &[u8]) {
        let Some((subscriber, number, to_hub)) = read_marker(payload) else { return };
        let Some(subscriber) = self.subscribers.get_mut(&subscriber) else { return };
        subscriber.delivering = to_hub;
        subscriber.listening.mailbox.push(if to_hub { Mail::Started(number) } else { Mail::Ended(number) });
    }
}

/// What a session is told once the server has answered.
#[derive(Debug, Clone, Copy)]
struct Promise {
    subscriber: u64,
    version: u32,
    deliver: bool,
}

/// The connection that listens.
struct Link {
    server: Server,
    node: NodeId,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    written: usize,
    /// For each query under way.
    promises: VecDeque<Vec<Promise>>,
    /// When the oldest query has to be answered at the latest.
    due: Option<Instant>,
}

impl Link {
    fn new(server: Server, node: NodeId) -> Link {
        Link {
            server,
            node,
            inbox: Vec::with_capacity(BUFFER_BYTES),
            outbox: Vec::new(),
            written: 0,
            promises: VecDeque::new(),
            due: None,
        }
    }

    /// Listens to everything that is wanted.
    fn begin(&mut self, audience: &Audience, marker: &str) {
        // A server from version 14 on may end sessions that idle.
        let mut sql = format!(
            "SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings \
             WHERE name IN ('idle_session_timeout','statement_timeout','lock_timeout');LISTEN {marker};"
        )
        .into_bytes();
        for channel in audience.channels.keys() {
            listen_to(std::slice::from_ref(channel), &mut sql);
        }
        let promise = |(id, subscriber): (&u64, &Subscriber)| Promise {
            subscriber: *id,
            version: subscriber.listening.version,
            // Markers may have been missed: from now on the session itself tells what is for it.
            deliver: true,
        };
        let promises = audience.subscribers.iter().map(promise).collect();
        self.ask(&sql, promises);
    }

    fn obey(&mut self, command: HubCommand, audience: &mut Audience, marker: &str) {
        let promise = match &command {
            HubCommand::Subscribe { subscriber, listening } => {
                Some(Promise { subscriber: *subscriber, version: listening.version, deliver: listening.deliver })
            }
            HubCommand::Leave { .. } => None,
        };
        let mut sql = Vec::new();
        audience.obey(command, &mut sql);
        if let Some(promise) = promise {
            // Something to answer, also when all is listened to already, or will be by a query under way.
            sql.extend_from_slice(format!("LISTEN {marker}").as_bytes());
            self.ask(&sql, vec![promise]);
        } else if !sql.is_empty() {
            self.ask(&sql, Vec::new());
        }
    }

    fn ask(&mut self, sql: &[u8], promises: Vec<Promise>) {
        request::query_bytes(sql, &mut self.outbox);
        self.promises.push_back(promises);
        self.due.get_or_insert_with(|| Instant::now() + ANSWER_LIMIT);
    }

    /// Writes what is to be written, and waits for a command or for something to have been read. Cancel-safe.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        commands: &mut UnboundedReceiver<HubCommand>,
    ) -> Poll<io::Result<Option<HubCommand>>> {
        if !self.outbox.is_empty() {
            match self.server.stream.poll_drain(cx, &self.outbox, &mut self.written) {
                Poll::Ready(Ok(())) => {
                    self.outbox = Vec::new();
                    self.written = 0;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if let Poll::Ready(Some(command)) = commands.poll_recv(cx) {
            return Poll::Ready(Ok(Some(command)));
        }
        match self.server.stream.poll_fill(cx, &mut self.inbox) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks at all that has come.
    fn digest(&mut self, audience: &mut Audience, marker: &str, senders: &Senders) -> io::Result<()> {
        let node = self.node.0;
        let client = |process| senders.client(node, process);
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut used = 0;
        let mut wanted = BUFFER_BYTES;
        while let Some(head) = wire::header(&inbox[used..]).map_err(io::Error::other)? {
            if head.message() > MESSAGE_BYTES_MAX {
                return Err(io::Error::other("the server sent a message that is too long"));
            }
            let Some(message) = inbox[used..].get_mut(..head.message()) else {
                wanted = wanted.max(head.message());
                break;
            };
            used += head.message();
            match head.tag {
                b'A' => audience.deliver(message, marker, client).map_err(io::Error::other)?,
                b'Z' => self.answered(audience),
                b'E' => return Err(io::Error::other(words(&message[HEADER_BYTES..]))),
                _ => {}
            }
        }
        self.inbox = inbox;
        self.inbox.drain(..used);
        self.inbox.reserve(wanted.saturating_sub(self.inbox.len()).max(1));
        Ok(())
    }

    fn answered(&mut self, audience: &mut Audience) {
        for promise in self.promises.pop_front().unwrap_or_default() {
            audience.acknowledge(promise, self.node);
        }
        self.due = (!self.promises.is_empty()).then(|| Instant::now() + ANSWER_LIMIT);
    }

    /// Says goodbye.
    async fn close(mut self) {
        self.outbox.extend_from_slice(&request::TERMINATE);
        let (stream, written) = (&mut self.server.stream, &mut self.written);
        // A server that does not take it finds out by the end of the stream.
        let _ = timeout(Duration::from_secs(1), poll_fn(|cx| stream.poll_drain(cx, &self.outbox, written))).await;
    }
}

fn words(body: &[u8]) -> String {
    let fields = ErrorFields::read(body);
    format!("{} (SQLSTATE {})", fields.message(), fields.code())
}
