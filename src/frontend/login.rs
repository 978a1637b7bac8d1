//! From the first byte of a connection to the first ReadyForQuery: the startup packet, who the client is, and how its
//! session begins.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Frontend, Worker,
    acquire::{Acquired, Request, acquire},
    client::Client,
    registry::{Place, SECRET_BYTES},
    report::{self, AcquireError, Words},
    target::{Beginning, Target},
};
use crate::{
    auth::{Challenge, Credential, Secret, md5, scram},
    backend::{self, QueryError},
    net::Stream,
    session::{Answer, Carried, Need, Probe, Session},
    tasks::Scope,
    topology::{Class, RouteError},
    wire::{
        self,
        error::{Report, SqlState},
        frame::HEADER_BYTES,
        reply::{self, Authentication, Status},
        startup::{self, MINOR_VERSION, Parameters, Startup},
    },
};

/// How long a cancel request to a server may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// How long a server may take to begin a session.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// Longest answer to a request for a password.
const PASSWORD_BYTES_MAX: usize = 4 << 10;

/// Why a login ends.
enum Refusal {
    /// The client is told.
    Told(Words),
    /// It is not there any more, or was never meant to become a session.
    Gone,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Refusal::Gone
    }
}

impl From<Report> for Refusal {
    fn from(report: Report) -> Self {
        Refusal::Told(Words::Ours(report))
    }
}

impl From<wire::Error> for Refusal {
    fn from(error: wire::Error) -> Self {
        let code = match error {
            wire::Error::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        Report::fatal(code, error.to_string()).into()
    }
}

/// Logs a client in; `None` when that failed, and the client has been told.
pub async fn log_in(
    mut stream: Stream,
    frontend: Arc<Frontend>,
    worker: Arc<Worker>,
    scope: Scope,
) -> Option<Box<Client>> {
    let limit = frontend.settings.login_timeout;
    let peer = stream.peer();
    let proved = timeout(limit, prove_all(&mut stream, &frontend, &scope)).await;
    let ready = match proved.unwrap_or_else(|_| Err(report::login_timeout(limit).into())) {
        // A server may take longer to come than a client may take to log in; the wait for it has limits of its own.
        Ok(known) => start(&mut stream, &frontend, &worker, known).await,
        Err(refusal) => Err(refusal),
    };
    let refusal = match ready {
        Ok(ready) => return Some(ready.into_client(stream, worker)),
        Err(refusal) => refusal,
    };
    if let Refusal::Told(words) = refusal {
        tracing::info!(client = peer, reason = %words, "refused a client");
        let mut out = Vec::new();
        words.write(true, &mut out);
        // A client that does not take the reason goes without it.
        let _ = timeout(Duration::from_secs(1), stream.write_all(&out)).await;
        let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
    }
    None
}

/// A client that has logged in, but for its socket.
struct Ready {
    session: Session,
    target: Arc<Target>,
    entry: super::registry::Entry,
    place: Place,
}

impl Ready {
    fn into_client(self, stream: Stream, worker: Arc<Worker>) -> Box<Client> {
        Client::new(stream, self.session, self.target, worker, self.entry, self.place)
    }
}

/// A client that has proved who it is.
struct Known {
    minor: u16,
    wanted: Wanted,
    target: Arc<Target>,
    place: Place,
}

/// From the first byte to the proof of who the client is.
async fn prove_all(stream: &mut Stream, frontend: &Arc<Frontend>, scope: &Scope) -> Result<Known, Refusal> {
    let parameters = match first_packet(stream).await? {
        Startup::Cancel(key) => {
            cancel(frontend, &key, scope);
            return Err(Refusal::Gone);
        }
        Startup::Session(parameters) => parameters,
        Startup::Tls | Startup::Gss => return Err(wire::Error::StartupLayout.into()),
    };
    if scope.is_stopping() {
        return Err(report::shutting_down().into());
    }
    let max = frontend.settings.max_clients;
    let place = frontend.registry.place(max).ok_or_else(|| report::too_many_clients(max))?;
    let wanted = Wanted::read(&parameters)?;
    let negotiation = negotiate(&parameters);
    if !negotiation.is_empty() {
        stream.write_all(&negotiation).await?;
    }
    let credential = prove(stream, frontend, &wanted.user).await?;
    let target = frontend.target(&wanted.database, &wanted.user, credential);
    let target = target.ok_or_else(|| report::unknown_database(&wanted.database))?;
    Ok(Known { minor: parameters.minor, wanted, target, place })
}

/// From there to the first ReadyForQuery.
async fn start(
    stream: &mut Stream,
    frontend: &Arc<Frontend>,
    worker: &Arc<Worker>,
    known: Known,
) -> Result<Ready, Refusal> {
    let Known { minor, wanted, target, place } = known;
    let beginning = begin(&target, worker, wanted.settings).await?;
    let secret_bytes = if minor >= 2 { SECRET_BYTES } else { 4 };
    let entry = frontend
        .registry
        .enter(secret_bytes, getrandom::fill)
        .map_err(|error| Report::fatal(SqlState::INTERNAL, format!("no random numbers: {error}")))?;
    let mut out = Vec::new();
    Authentication::Ok.write(&mut out);
    for (name, value) in beginning.reported.iter().chain(beginning.about_server.iter()) {
        // Behind Poolhouse there is always a server that can be written to, whichever answered first.
        let value = if name == "in_hot_standby" { "off" } else { value };
        reply::parameter_status(name, value, &mut out);
    }
    reply::backend_key_data(entry.slot.process, entry.slot.secret(), &mut out);
    reply::ready_for_query(Status::Idle, &mut out);
    stream.write_all(&out).await?;
    tracing::debug!(
        client = stream.peer(),
        database = wanted.database,
        user = wanted.user,
        process = entry.slot.process,
        "a client logged in"
    );
    let session = Session::new(target.shared.clone(), beginning.settings, beginning.reported);
    Ok(Ready { session, target, entry, place })
}

/// Reads packets until one says what the connection is for. Encryption is not to be had yet.
async fn first_packet(stream: &mut Stream) -> Result<Startup, Refusal> {
    let (mut tls, mut gss) = (false, false);
    loop {
        let packet = startup::read(&read_packet(stream).await?)?;
        match packet {
            Startup::Tls if !tls => tls = true,
            Startup::Gss if !gss => gss = true,
            packet => return Ok(packet),
        }
        stream.write_all(b"N").await?;
    }
}

/// Reads exactly one packet: not a byte more, since encryption may begin right behind it.
async fn read_packet(stream: &mut Stream) -> Result<Vec<u8>, Refusal> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).await?;
    let length = startup::packet_length(&packet)?.unwrap_or_default();
    packet.resize(length, 0);
    stream.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// Passes a cancel request on. The client's connection is closed at once, as PostgreSQL does.
fn cancel(frontend: &Frontend, key: &startup::CancelKey, scope: &Scope) {
    let canceling = frontend.registry.find(key).and_then(|slot| slot.cancel());
    if let Some(canceling) = canceling {
        scope.spawn("cancel", async move {
            backend::cancel(&canceling.server, CANCEL_LIMIT).await;
        });
    }
}

/// What a startup packet asks for.
#[derive(Debug)]
struct Wanted {
    user: String,
    database: String,
    /// Every other parameter once, by its name in lower case. Those in `options` are weaker, as in PostgreSQL.
    settings: Vec<(String, String)>,
}

impl Wanted {
    fn read(parameters: &Parameters) -> Result<Wanted, Report> {
        let user = parameters.value("user").filter(|user| !user.is_empty()).ok_or_else(|| {
            Report::fatal(SqlState::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
        })?;
        let database = parameters.value("database").filter(|name| !name.is_empty()).unwrap_or(user);
        let replication = parameters.value("replication").unwrap_or("false");
        if !matches!(replication, "false" | "off" | "no" | "0") {
            return Err(Report::fatal(
                SqlState::FEATURE_NOT_SUPPORTED,
                "replication connections are not available yet",
            )
            .hint("Connect to the server itself."));
        }
        let plain = parameters.pairs.iter().filter(|(name, _)| {
            !matches!(name.as_str(), "user" | "database" | "replication" | "options") && !name.starts_with("_pq_.")
        });
        let options = options(parameters.value("options").unwrap_or_default())?;
        let named = options.into_iter().chain(plain.cloned());
        let settings: BTreeMap<_, _> = named.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Ok(Wanted { user: user.to_owned(), database: database.to_owned(), settings: settings.into_iter().collect() })
    }
}

/// The settings in a startup packet's `options`: `-c name=value` and `--name=value`, where a backslash keeps the character
/// behind it (manual, libpq's parameter `options`).
fn options(text: &str) -> Result<Vec<(String, String)>, Report> {
    let invalid = |word: &str| {
        Report::fatal(SqlState::SYNTAX_ERROR, format!("invalid command-line argument for server process: {word}"))
            .hint("Poolhouse understands -c name=value and --name=value in options.")
    };
    let mut settings = Vec::new();
    let mut words = split_words(text).into_iter();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("-c"), word.strip_prefix("--")) {
            (Some(""), _) => words.next().ok_or_else(|| invalid(&word))?,
            (Some(setting), _) | (None, Some(setting)) => setting.to_owned(),
            (None, None) => return Err(invalid(&word)),
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| invalid(&word))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            space if space.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// NegotiateProtocolVersion, when the client asks for more than we know.
fn negotiate(parameters: &Parameters) -> Vec<u8> {
    let unknown: Vec<&str> =
        parameters.pairs.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
    let mut out = Vec::new();
    if parameters.minor > MINOR_VERSION || !unknown.is_empty() {
        let minor = (3 << 16) | u32::from(parameters.minor.min(MINOR_VERSION));
        reply::negotiate_protocol_version(minor, &unknown, &mut out);
    }
    out
}

/// Lets the client prove who it is; what it gives is what a server may take from us in its name.
async fn prove(stream: &mut Stream, frontend: &Frontend, user: &str) -> Result<Credential, Refusal> {
    let stored = frontend.directory.secret(user).cloned().map_or(Credential::None, Credential::Secret);
    let proved = match frontend.directory.challenge(user) {
        Challenge::None => return Ok(stored),
        Challenge::Md5 { secret } => prove_md5(stream, secret, user).await?.then_some(stored),
        Challenge::Scram(verifier) => match prove_scram(stream, verifier).await? {
            // Keys open only a server that stores the same verifier; a password opens any.
            Some(keys) if !matches!(stored, Credential::Secret(Secret::Plain(_))) => Some(keys),
            Some(_) => Some(stored),
            None => None,
        },
    };
    proved.ok_or_else(|| {
        let reason = frontend.directory.refusal(user);
        tracing::info!(user, client = stream.peer(), ?reason, "a password was wrong, or cannot be checked");
        report::wrong_password(user).into()
    })
}

async fn prove_md5(stream: &mut Stream, secret: Option<&Secret>, user: &str) -> Result<bool, Refusal> {
    let salt = random::<4>()?;
    ask(stream, Authentication::Md5 { salt }).await?;
    let answer = read_password(stream).await?;
    let answer = answer.strip_suffix(b"\0").unwrap_or(&answer);
    Ok(secret.is_some_and(|secret| md5::verify(secret, user, salt, answer)))
}

async fn prove_scram(stream: &mut Stream, verifier: scram::Verifier) -> Result<Option<Credential>, Refusal> {
    let exchange = scram::ServerExchange::new(verifier, random::<18>()?);
    ask(stream, Authentication::Sasl { mechanisms: b"SCRAM-SHA-256\0\0" }).await?;
    let initial = read_password(stream).await?;
    let Some((mechanism, rest)) = wire::frame::split_text(&initial) else {
        return Err(wire::Error::Malformed("SASLInitialResponse").into());
    };
    let first = rest.split_first_chunk::<4>();
    let Some((length, client_first)) = first.filter(|_| mechanism == b"SCRAM-SHA-256") else {
        return Err(wire::Error::Malformed("SASLInitialResponse").into());
    };
    if u32::from_be_bytes(*length) as usize != client_first.len() {
        return Err(wire::Error::Malformed("SASLInitialResponse").into());
    }
    let Ok((exchange, server_first)) = exchange.first(client_first) else {
        return Err(wire::Error::Malformed("SCRAM client-first-message").into());
    };
    ask(stream, Authentication::SaslContinue(&server_first)).await?;
    let client_final = read_password(stream).await?;
    match exchange.last(&client_final) {
        Ok(proven) => {
            let mut out = Vec::new();
            Authentication::SaslFinal(&proven.server_final).write(&mut out);
            stream.write_all(&out).await?;
            Ok(Some(proven.credential()))
        }
        Err(error) => {
            tracing::debug!(%error, client = stream.peer(), "a SCRAM exchange failed");
            Ok(None)
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Report::fatal(SqlState::INTERNAL, format!("no random numbers: {error}")))?;
    Ok(bytes)
}

async fn ask(stream: &mut Stream, request: Authentication<'_>) -> Result<(), Refusal> {
    let mut out = Vec::new();
    request.write(&mut out);
    Ok(stream.write_all(&out).await?)
}

/// The body of the client's next message, which has to be a password.
async fn read_password(stream: &mut Stream) -> Result<Vec<u8>, Refusal> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let head = match wire::header(&head)? {
        Some(head) if head.tag == b'p' => head,
        Some(head) => return Err(wire::Error::UnknownMessage(head.tag).into()),
        None => return Err(wire::Error::Malformed("password").into()),
    };
    if head.body > PASSWORD_BYTES_MAX {
        return Err(wire::Error::Length { tag: head.tag, length: head.body as u32 + 4 }.into());
    }
    let mut body = vec![0; head.body];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// How the session begins. The first client with its startup parameters takes a server connection to have them checked
/// and spelled by the server; the next ones need none.
async fn begin(target: &Arc<Target>, worker: &Worker, startup: Vec<(String, String)>) -> Result<Beginning, Refusal> {
    if let Some(beginning) = target.beginning(&startup) {
        return Ok(beginning);
    }
    let (mut lease, _) = acquire_any(target, worker).await.map_err(|error| Refusal::Told(error.report()))?;
    let wanted = Carried::new(startup.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    match begin_on(&mut lease, &wanted).await {
        Ok(beginning) => {
            lease.give_back();
            target.remember(startup, beginning.clone());
            Ok(beginning)
        }
        Err(QueryError::Server { fields }) => {
            lease.give_back();
            Err(Refusal::Told(Words::Servers(fields.as_ref().clone())))
        }
        Err(error) => {
            Err(Report::fatal(SqlState::CONNECTION_LOST, format!("the session could not begin: {error}")).into())
        }
    }
}

/// A connection to the primary, or while there is none to whatever node may be read from.
async fn acquire_any(target: &Arc<Target>, worker: &Worker) -> Result<Acquired, AcquireError> {
    let route = |class| {
        let wish = crate::topology::Wish { class, after: None };
        let topology = target.cluster.monitor.topology();
        crate::topology::route(&topology, &target.routing, wish, &|_| 0, 0, std::time::Instant::now())
    };
    let no_primary = matches!(route(Class::Write), Err(RouteError::NoPrimary));
    let need = if no_primary && route(Class::Read).is_ok() { Need::Read } else { Need::Write };
    acquire(target, worker, Request { need, after: None, seed: 0 }).await
}

async fn begin_on(server: &mut backend::Server, wanted: &Carried) -> Result<Beginning, QueryError> {
    if let Some(replay) = server.state.settings.replay(wanted) {
        server.query(&replay.sql, BEGIN_LIMIT).await?;
        server.state.settings = Arc::new(wanted.clone());
    }
    let mut probe = Probe::default();
    for (name, _) in wanted.iter() {
        probe.add_setting(name);
    }
    if probe != Probe::Nothing {
        let rows = server.query(&probe.sql(wanted), BEGIN_LIMIT).await?;
        let mut answer = Answer::default();
        for row in &rows {
            let columns: Vec<_> = row.iter().map(|column| column.as_deref().map(str::as_bytes)).collect();
            answer.row(&columns);
        }
        server.state.settings = Arc::new(answer.apply(&probe, wanted));
    }
    let state = &server.state;
    Ok(Beginning {
        settings: state.settings.clone(),
        reported: state.reported.clone(),
        about_server: state.about_itself.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_read_as_postgresql_reads_them() {
        let check = |text: &str, expected: &[(&str, &str)]| assert_eq!(options(text).unwrap(), pairs(expected));
        check("", &[]);
        check("-c work_mem=1MB", &[("work_mem", "1MB")]);
        check("-cwork_mem=1MB --search-path=a", &[("work_mem", "1MB"), ("search_path", "a")]);
        check(r"-c search_path=a,\ b", &[("search_path", "a, b")]);
        check(r"  --x=\\ ", &[("x", r"\")]);
        for bad in ["-B 5", "-c", "-c nothing", "work_mem=1MB"] {
            assert_eq!(options(bad).unwrap_err().code, SqlState::SYNTAX_ERROR, "{bad}");
        }
    }

    #[test]
    fn startup_packets() {
        let read = |list: &[(&str, &str)]| Wanted::read(&Parameters { minor: 0, pairs: pairs(list) });
        let wanted =
            read(&[("user", "a"), ("TimeZone", "UTC"), ("options", "-c x.y=1 -c timezone=CET"), ("_pq_.z", "1")])
                .unwrap();
        assert_eq!((wanted.user.as_str(), wanted.database.as_str()), ("a", "a"));
        assert_eq!(wanted.settings, pairs(&[("timezone", "UTC"), ("x.y", "1")]));
        assert_eq!(read(&[]).unwrap_err().code, SqlState::INVALID_AUTHORIZATION);
        assert_eq!(read(&[("user", "a"), ("replication", "true")]).unwrap_err().code, SqlState::FEATURE_NOT_SUPPORTED);
        assert!(read(&[("user", "a"), ("replication", "false")]).is_ok());
    }

    #[test]
    fn versions_are_negotiated_down() {
        let negotiated = |minor, list: &[(&str, &str)]| negotiate(&Parameters { minor, pairs: pairs(list) });
        assert!(negotiated(0, &[]).is_empty());
        assert!(negotiated(2, &[]).is_empty());
        assert_eq!(negotiated(9, &[]), b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0");
        assert_eq!(negotiated(0, &[("_pq_.a", "")]), b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.a\0");
    }
}
