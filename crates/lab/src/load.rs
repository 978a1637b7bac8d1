//! Clients that read and write through Poolhouse, note what they are told, and mend what goes wrong as an application
//! would: what surely failed is done again, and where the answer to a commit was lost, they look before that.
//!
//! Half of them write in a transaction of several statements, half in one statement; half speak the simple protocol,
//! half use prepared statements; half write much and half read much, and some connect anew all the time.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Barrier, mpsc},
    time::{sleep, timeout},
};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, Statement};
use tokio_util::task::TaskTracker;

use crate::{
    ledger::{Mishap, WriteFate, WriteKey, WriterActivity, value},
    node,
};

/// Where and as whom the clients log in.
pub use tokio_postgres::Config as Login;

/// What the clients write to. Without a unique constraint, which would hide that something was done twice.
pub const TABLES: &str = "CREATE TABLE demo_entry (client bigint, sequence bigint, value bigint); \
     CREATE INDEX ON demo_entry (client, sequence); \
     CREATE TABLE demo_tally (client bigint PRIMARY KEY, entries bigint, checksum bigint); \
     INSERT INTO demo_tally SELECT client, 0, 0 FROM generate_series(1, 1000) AS client";

/// What one statement may take: more than Poolhouse holds statements while there is no primary.
const STATEMENT_LIMIT: Duration = Duration::from_secs(45);

/// Between two turns of a client, in milliseconds.
const PAUSE: std::ops::RangeInclusive<u64> = 0..=8;

/// One of so many turns is a write, of clients that write much and of those that read much. The reads of the former go
/// to the primary, because no replica is known to show yet what they wrote a moment ago.
const TURNS_PER_WRITE: [u64; 2] = [3, 40];

/// One of so many clients connects anew after so many turns.
const RECONNECTING: u32 = 5;
const TURNS_PER_CONNECTION: u32 = 15;

/// A statement; each answers with one row of numbers.
#[derive(Debug, Clone, Copy)]
enum LoadQuery {
    /// The client's last write, as far as this node knows, and the node's port.
    Last,
    Insert,
    Tally,
    /// Insert and tally at once.
    Both,
    /// Whether a write is there.
    Look,
}

const QUERIES: [LoadQuery; 5] =
    [LoadQuery::Last, LoadQuery::Insert, LoadQuery::Tally, LoadQuery::Both, LoadQuery::Look];

impl LoadQuery {
    /// `$1` is the client, `$2` the sequence, `$3` the value.
    fn text(self) -> &'static str {
        match self {
            LoadQuery::Last => {
                "SELECT coalesce(max(sequence), 0)::bigint, (SELECT port::bigint FROM served_by) \
                 FROM demo_entry WHERE client = $1::bigint"
            }
            LoadQuery::Insert => {
                "INSERT INTO demo_entry VALUES ($1::bigint, $2::bigint, $3::bigint) \
                 RETURNING (SELECT port::bigint FROM served_by)"
            }
            LoadQuery::Tally => {
                "UPDATE demo_tally SET entries = entries + 1, checksum = checksum + $2::bigint \
                 WHERE client = $1::bigint RETURNING entries"
            }
            LoadQuery::Both => {
                "WITH entry AS (INSERT INTO demo_entry VALUES ($1::bigint, $2::bigint, $3::bigint)), \
                 tally AS (UPDATE demo_tally SET entries = entries + 1, checksum = checksum + $3::bigint \
                 WHERE client = $1::bigint) SELECT port::bigint FROM served_by"
            }
            LoadQuery::Look => "SELECT count(*) FROM demo_entry WHERE client = $1::bigint AND sequence = $2::bigint",
        }
    }
}

/// A read that did not show what its own session had written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleRead {
    pub client: u32,
    pub port: u16,
    pub written: i64,
    pub shown: i64,
}

/// Statements that a node has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadServed {
    pub reads: u64,
    /// A transaction counts once.
    pub writes: u64,
}

/// What clients noted.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub fates: BTreeMap<WriteKey, WriteFate>,
    /// When each commit was acknowledged.
    pub acknowledged: Vec<Instant>,
    /// By the port of the node.
    pub served: BTreeMap<u16, LoadServed>,
    pub mishaps: Vec<Mishap>,
    pub stale: Vec<StaleRead>,
    /// Commits whose answer was lost, that were not there, and were done again.
    pub repeated: usize,
}

impl Record {
    /// Adds what another client noted.
    pub fn add(&mut self, other: Record) {
        self.fates.extend(other.fates);
        self.acknowledged.extend(other.acknowledged);
        for (port, served) in other.served {
            let sum = self.served.entry(port).or_default();
            sum.reads += served.reads;
            sum.writes += served.writes;
        }
        self.mishaps.extend(other.mishaps);
        self.stale.extend(other.stale);
        self.repeated += other.repeated;
    }
}

/// A login to the server at `address`, where user, password and database have one name.
pub fn login(address: SocketAddr, name: &str) -> Login {
    let mut login = Config::new();
    login.host(address.ip().to_string()).port(address.port()).user(name).password(name).dbname(name);
    login
}

/// Runs statements within `limit`.
///
/// # Errors
/// What the server did instead, as the rest of a sentence about it.
pub fn execute(server: &Login, sql: &str, limit: Duration) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot be asked without a runtime: {error}"))?;
    let conversation = async {
        let (client, connection) = server.connect(NoTls).await?;
        let asking = async {
            let answer = client.batch_execute(sql).await;
            drop(client);
            answer
        };
        tokio::join!(asking, connection).0
    };
    match runtime.block_on(async { timeout(limit, conversation).await }) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("did not let the tables be made: {}", node::describe(&error))),
        Err(_) => Err(format!("did not answer within {limit:?}")),
    }
}

/// Runs `clients` clients on the calling thread, for so long after the last of them has logged in, which `started` is
/// told. Returns what they noted when the last has ended what it was doing.
///
/// # Errors
/// There is no runtime, or no random numbers.
pub fn run(server: Config, clients: u32, duration: Duration, started: Sender<Instant>) -> io::Result<Record> {
    let (server, all) = (Arc::new(server), Arc::new(Barrier::new(clients as usize)));
    let mut crowd = Vec::new();
    for number in 1..=clients {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        crowd.push(LoadClient::new(number, server.clone(), u64::from_ne_bytes(seed)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let connections = TaskTracker::new();
        let (notes, mut noted) = mpsc::unbounded_channel();
        for mut client in crowd {
            let (notes, connections, all, started) = (notes.clone(), connections.clone(), all.clone(), started.clone());
            tokio::spawn(async move {
                client.begin(&connections).await;
                if all.wait().await.is_leader() {
                    // Whoever does not wait for it any more has given up.
                    let _ = started.send(Instant::now());
                }
                let record = client.run(Instant::now() + duration, &connections).await;
                let _ = notes.send(record);
            });
        }
        drop(notes);
        let mut sum = Record::default();
        while let Some(record) = noted.recv().await {
            sum.add(record);
        }
        sum
    }))
}

/// What is left to do of the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// It surely was not committed.
    Again,
    /// It may have been committed.
    Look,
}

/// A connection, with the statements prepared if the client does that.
struct LoadSession {
    client: tokio_postgres::Client,
    prepared: Option<[Statement; QUERIES.len()]>,
    turns: u32,
}

/// Why a statement failed, and when its transaction began.
struct LoadTrouble {
    activity: WriterActivity,
    began: Instant,
    code: Option<String>,
    words: String,
}

struct LoadClient {
    number: u32,
    server: Arc<Config>,
    dice: Dice,
    session: Option<LoadSession>,
    /// Of the last write that was begun.
    sequence: i64,
    pending: Pending,
    /// What a read of this session must show at least.
    floor: i64,
    record: Record,
}

impl LoadClient {
    fn new(number: u32, server: Arc<Config>, seed: u64) -> LoadClient {
        LoadClient {
            number,
            server,
            dice: Dice(seed | 1),
            session: None,
            sequence: 0,
            pending: Pending::Nothing,
            floor: 0,
            record: Record::default(),
        }
    }

    /// Logs in.
    async fn begin(&mut self, connections: &TaskTracker) {
        match self.connect(connections).await {
            Ok(session) => self.session = Some(session),
            Err(trouble) => self.note(trouble),
        }
    }

    async fn run(mut self, until: Instant, connections: &TaskTracker) -> Record {
        while Instant::now() < until {
            if let Err(trouble) = self.turn(connections).await {
                self.note(trouble);
            }
            let span = PAUSE.end() - PAUSE.start() + 1;
            sleep(Duration::from_millis(PAUSE.start() + self.dice.next() % span)).await;
        }
        let fate = match self.pending {
            Pending::Nothing => return self.record,
            Pending::Again => WriteFate::Undone,
            Pending::Look => WriteFate::Unknown,
        };
        self.record.fates.insert(self.key(), fate);
        self.record
    }

    async fn turn(&mut self, connections: &TaskTracker) -> Result<(), LoadTrouble> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.connect(connections).await?,
        };
        let wants_to_write = self.dice.next().is_multiple_of(TURNS_PER_WRITE[usize::from(self.number % 8 >= 4)]);
        let done = match self.pending {
            Pending::Look => self.look(&session).await,
            Pending::Again => self.write(&session).await,
            Pending::Nothing if wants_to_write => {
                self.sequence += 1;
                self.write(&session).await
            }
            Pending::Nothing => self.read(&session).await,
        };
        session.turns += 1;
        let leaves = self.number.is_multiple_of(RECONNECTING) && session.turns >= TURNS_PER_CONNECTION;
        // After an error without a code nobody knows what the connection would answer next.
        let usable = done.as_ref().err().is_none_or(|trouble| trouble.code.is_some()) && !session.client.is_closed();
        if usable && !leaves {
            self.session = Some(session);
        }
        done
    }

    async fn connect(&mut self, connections: &TaskTracker) -> Result<LoadSession, LoadTrouble> {
        // What a session has written is known to that session only.
        self.floor = 0;
        let began = Instant::now();
        let connected = limited(self.server.connect(NoTls)).await;
        let (client, connection) = connected.map_err(trouble(WriterActivity::Connecting, began))?;
        connections.spawn(async move {
            // The client sees the error too.
            let _ = connection.await;
        });
        let prepared = if self.number % 4 >= 2 { Some(prepare(&client).await?) } else { None };
        Ok(LoadSession { client, prepared, turns: 0 })
    }

    async fn read(&mut self, session: &LoadSession) -> Result<(), LoadTrouble> {
        let failed = trouble(WriterActivity::Reading, Instant::now());
        let row = session.ask(LoadQuery::Last, &[self.number.into()]).await.map_err(failed)?;
        let (shown, port) = (row[0], port(&row));
        self.record.served.entry(port).or_default().reads += 1;
        if shown < self.floor {
            self.record.stale.push(StaleRead { client: self.number, port, written: self.floor, shown });
        }
        Ok(())
    }

    async fn write(&mut self, session: &LoadSession) -> Result<(), LoadTrouble> {
        let began = Instant::now();
        let failed = trouble(WriterActivity::Writing, began);
        self.pending = Pending::Look;
        let port = if self.number.is_multiple_of(2) {
            let parameters = [self.number.into(), self.sequence, value(self.key())];
            port(&session.ask(LoadQuery::Both, &parameters).await.map_err(failed)?)
        } else {
            let changed = self.begin_and_change(session).await;
            let port = match changed {
                Ok(port) => port,
                Err(error) => {
                    self.pending = Pending::Again;
                    self.roll_back(session).await;
                    return Err(failed(error));
                }
            };
            limited(session.client.batch_execute("COMMIT")).await.map_err(failed)?;
            port
        };
        self.conclude(WriteFate::Acknowledged);
        self.record.acknowledged.push(Instant::now());
        self.record.served.entry(port).or_default().writes += 1;
        Ok(())
    }

    async fn begin_and_change(&self, session: &LoadSession) -> Result<u16, LoadFailure> {
        let (client, sum) = (i64::from(self.number), value(self.key()));
        limited(session.client.batch_execute("BEGIN")).await?;
        let row = session.ask(LoadQuery::Insert, &[client, self.sequence, sum]).await?;
        session.ask(LoadQuery::Tally, &[client, sum]).await?;
        Ok(port(&row))
    }

    /// In a transaction that may write, which is always on the primary.
    async fn look(&mut self, session: &LoadSession) -> Result<(), LoadTrouble> {
        let failed = trouble(WriterActivity::Writing, Instant::now());
        limited(session.client.batch_execute("BEGIN")).await.map_err(&failed)?;
        let row = session.ask(LoadQuery::Look, &[self.number.into(), self.sequence]).await.map_err(&failed)?;
        limited(session.client.batch_execute("COMMIT")).await.map_err(&failed)?;
        if row[0] > 0 {
            self.conclude(WriteFate::Seen);
        } else {
            self.record.repeated += 1;
            self.pending = Pending::Again;
        }
        Ok(())
    }

    /// As drivers do after an error. When the server was lost there is nothing to roll back, which is only a warning.
    async fn roll_back(&mut self, session: &LoadSession) {
        let failed = trouble(WriterActivity::Writing, Instant::now());
        let is_broken = session.client.is_closed();
        if let Err(failure) = limited(session.client.batch_execute("ROLLBACK")).await
            && !is_broken
        {
            self.note(failed(failure));
        }
    }

    fn note(&mut self, trouble: LoadTrouble) {
        let LoadTrouble { activity, began, code, words } = trouble;
        self.record.mishaps.push(Mishap { client: self.number, activity, began, code, words });
    }

    fn conclude(&mut self, fate: WriteFate) {
        self.pending = Pending::Nothing;
        self.floor = self.sequence;
        self.record.fates.insert(self.key(), fate);
    }

    fn key(&self) -> WriteKey {
        (self.number, self.sequence)
    }
}

/// On the primary, if the statement writes.
async fn prepare(client: &tokio_postgres::Client) -> Result<[Statement; QUERIES.len()], LoadTrouble> {
    let prepare = async |query: LoadQuery| {
        let activity = if matches!(query, LoadQuery::Last | LoadQuery::Look) {
            WriterActivity::Reading
        } else {
            WriterActivity::Writing
        };
        let failed = trouble(activity, Instant::now());
        limited(client.prepare(query.text())).await.map_err(failed)
    };
    let [last, insert, tally, both, look] = QUERIES;
    Ok([
        prepare(last).await?,
        prepare(insert).await?,
        prepare(tally).await?,
        prepare(both).await?,
        prepare(look).await?,
    ])
}

impl LoadSession {
    /// The numbers of the answer's only row.
    async fn ask(&self, query: LoadQuery, parameters: &[i64]) -> Result<Vec<i64>, LoadFailure> {
        let row = match &self.prepared {
            Some(prepared) => {
                let references: Vec<_> = parameters.iter().map(|parameter| parameter as _).collect();
                let row = limited(self.client.query_one(&prepared[query as usize], &references)).await?;
                (0..row.len()).map(|column| row.try_get(column).ok()).collect()
            }
            None => {
                let text = (1..).zip(parameters).fold(query.text().to_owned(), |text, (number, parameter)| {
                    text.replace(&format!("${number}"), &parameter.to_string())
                });
                let messages = limited(self.client.simple_query(&text)).await?;
                first_row(&messages)
            }
        };
        row.ok_or_else(|| LoadFailure { code: None, words: format!("not one row of numbers answers {}", query.text()) })
    }
}

fn first_row(messages: &[SimpleQueryMessage]) -> Option<Vec<i64>> {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    (0..row.len()).map(|column| row.get(column)?.parse().ok()).collect()
}

/// The last column of those answers that name it; 0 is nobody's port.
fn port(row: &[i64]) -> u16 {
    row.last().and_then(|port| u16::try_from(*port).ok()).unwrap_or(0)
}

/// Why there is no answer.
struct LoadFailure {
    code: Option<String>,
    words: String,
}

async fn limited<T>(asking: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, LoadFailure> {
    match timeout(STATEMENT_LIMIT, asking).await {
        Ok(answer) => answer.map_err(|error| LoadFailure {
            code: error.code().map(|code| code.code().to_owned()),
            words: node::describe(&error).replace('\n', "; "),
        }),
        Err(_) => Err(LoadFailure { code: None, words: format!("no answer within {STATEMENT_LIMIT:?}") }),
    }
}

fn trouble(activity: WriterActivity, began: Instant) -> impl Fn(LoadFailure) -> LoadTrouble {
    move |LoadFailure { code, words }| LoadTrouble { activity, began, code, words }
}

/// Marsaglia's xorshift: good enough to spread what clients do. Never 0.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
