//! From the first byte of a connection to the first ReadyForQuery: the startup packet, who the client is, and what it
//! gets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    beginning::{self, Begun, begin, unless_gone},
    refusal::LoginRefusal,
    startup_packet::{Purpose, StartupRequest, negotiate},
};
use crate::{
    clients::{About, ClientPlace, Entry, SECRET_BYTES},
    databases::Target,
    frontend::{
        errors::{self, ErrorWords},
        operators::{CONSOLES, Visitor},
        relay::{Acquired, Client, ClientParts, Worker, begins_with},
        replication::{self, Replication},
        shared::Frontend,
    },
    metrics::Account,
    net::{Admitted, ClientTls, HANDSHAKE, Stream},
    tasks::{self, Length, Scope},
};
use poolhouse_core::{
    auth::{Challenge, Credential, Secret, md5, scram},
    session::{Mode, PoolhouseSettings, Route, RouteBy, Session},
    topology::Who,
    wire::{
        self,
        error::{Report, SqlState},
        frame::HEADER_BYTES,
        reply::Authentication,
        startup::{self, CancelKey, Startup},
    },
};

/// Longest answer to a request for a password.
const PASSWORD_BYTES_MAX: usize = 4 << 10;

/// How long a client may take to accept the reason why it is not let in.
const TELL_LIMIT: Duration = Duration::from_secs(1);

/// One that is logged in.
pub enum Served {
    Client(Box<Client>),
    Replication(Box<Replication>),
}

/// Logs a client in; `None` when that failed, and the client has been told.
///
/// `route` is that of all sessions at the address that it has connected to. The client is a `stranger` until it has
/// proved who it is.
pub async fn log_in(
    mut stream: Stream,
    route: Option<Route>,
    stranger: Admitted,
    frontend: Arc<Frontend>,
    worker: Arc<Worker>,
    scope: Scope,
) -> Option<Served> {
    let limit = frontend.settings().login_timeout;
    let proved = tokio::select! {
        biased;
        proved = timeout(limit, prove_all(&mut stream, &frontend, &worker, &scope)) => {
            proved.unwrap_or_else(|_| Err(errors::login_timeout(limit).into()))
        }
        () = stranger.gives_way() => Err(errors::crowded_out().into()),
    };
    let refusal = match proved {
        // A server may take longer to come than a client may take to log in; the wait for it has limits of its own.
        Ok(Proved::Known(known)) => {
            drop(stranger);
            match start(&mut stream, &frontend, &worker, &scope, ProvedClient { route, ..*known }).await {
                Ok(ready) => return Some(ready.serve(stream, worker)),
                Err(refusal) => refuse(stream, refusal, None, &frontend).await,
            }
            return None;
        }
        Ok(Proved::Operator(operator)) => match operator.enter(&frontend, &stream) {
            Ok(visitor) => {
                // Fails only when Poolhouse ends: the client sees its socket closed.
                let _ = frontend.visitors.send(visitor(stream));
                return None;
            }
            Err(refusal) => refusal,
        },
        Ok(Proved::Cancel(key)) => {
            drop(stranger);
            cancel(&frontend, &key, &worker).await;
            // Under TLS the client wants to hear that this is the end (libpq 17).
            let _ = timeout(TELL_LIMIT, stream.shutdown()).await;
            return None;
        }
        Err(refusal) => refusal,
    };
    refuse(stream, refusal, Some(stranger), &frontend).await;
    None
}

/// Tells a client that it is not let in. It counts as a stranger until it has gone, so that no crowd can stay that way.
async fn refuse(mut stream: Stream, refusal: LoginRefusal, stranger: Option<Admitted>, frontend: &Frontend) {
    let (words, why) = match refusal {
        LoginRefusal::Told(words) => (words, None),
        LoginRefusal::Unproved(words, why) => (words, why),
        LoginRefusal::Gone => return,
    };
    let peer = stream.peer();
    let (code, message) = words.code_and_message();
    frontend.registry.last_errors.refuse(peer.clone(), code, message);
    if frontend.registry.refused.note(code, Instant::now()) {
        match why {
            Some(why) => tracing::info!(client = peer, reason = %words, %why, "refused a client"),
            None => tracing::info!(client = peer, reason = %words, "refused a client"),
        }
    }
    let address = stream.ends().peer.map(|peer| peer.ip());
    // It is counted by the code that the client sees, so an unknown user waits like a wrong password.
    let guessed = code == SqlState::INVALID_PASSWORD.0 && stranger.is_some();
    let pause = if guessed { frontend.wrong_guesses.note(address, Instant::now()) } else { Duration::ZERO };
    let stranger = stranger.unwrap_or_else(|| frontend.strangers.admit(address, frontend.settings().logins));
    let mut out = Vec::new();
    words.write(true, &mut out);
    let told = async {
        sleep(pause).await;
        // A client that does not take the reason goes without it.
        if let Ok(Ok(())) = timeout(TELL_LIMIT, stream.write_all(&out)).await {
            stream.part().await;
        }
    };
    tokio::select! {
        biased;
        () = told => {}
        () = stranger.gives_way() => {}
    }
}

/// A client that has logged in, but for its socket.
struct Ready {
    life: Life,
    target: Arc<Target>,
    entry: Entry,
    rule: Option<u16>,
    place: ClientPlace,
}

/// What it goes on with.
enum Life {
    /// A session, with a server connection that it keeps in session mode.
    Session(Session, Option<Acquired>),
    Replication(Acquired),
}

impl Ready {
    fn serve(mut self, stream: Stream, worker: Arc<Worker>) -> Served {
        if worker.watch.tells_connections() {
            self.entry.tell_login();
        }
        match self.life {
            Life::Session(session, held) => {
                let mut client = Client::new(ClientParts {
                    stream,
                    session,
                    target: self.target,
                    worker,
                    entry: self.entry,
                    rule: self.rule,
                    place: self.place,
                });
                if let Some(held) = held {
                    client.keep(held);
                }
                Served::Client(client)
            }
            Life::Replication(lent) => {
                Served::Replication(Replication::new(stream, lent, self.target, self.entry, self.place))
            }
        }
    }
}

/// A client that has proved who it is.
enum Proved {
    Known(Box<ProvedClient>),
    Operator(Operator),
    /// It wants a statement cancelled; whether it knows the secret will be seen.
    Cancel(CancelKey),
}

/// One for the console.
struct Operator {
    minor: u16,
    wanted: StartupRequest,
    may_change: bool,
    place: ClientPlace,
}

impl Operator {
    /// What those who serve the console get, but for its socket.
    fn enter(
        self,
        frontend: &Frontend,
        stream: &Stream,
    ) -> Result<impl FnOnce(Stream) -> Visitor + use<>, LoginRefusal> {
        let Operator { minor, wanted, may_change, place } = self;
        let account = frontend.accounts.of(CONSOLES[1], &wanted.user, None);
        account.add_login();
        let entry = enter(frontend, &account, wanted.about(stream.ends()), None, minor)?;
        let parameters = wanted.settings(&[])?;
        tracing::debug!(user = wanted.user, may_change, "an operator logged in to the console");
        Ok(move |stream| Visitor {
            stream,
            user: wanted.user,
            database: wanted.database,
            may_change,
            parameters,
            entry,
            place,
        })
    }
}

/// One for a database.
struct ProvedClient {
    minor: u16,
    wanted: StartupRequest,
    target: Arc<Target>,
    /// That of the listener.
    route: Option<Route>,
    place: ClientPlace,
}

/// From the first byte to the proof of who the client is.
async fn prove_all(
    stream: &mut Stream,
    frontend: &Arc<Frontend>,
    worker: &Worker,
    scope: &Scope,
) -> Result<Proved, LoginRefusal> {
    let tls = frontend.settings().tls.clone();
    let parameters = match first_packet(stream, &tls, frontend).await? {
        Startup::Cancel(key) => return Ok(Proved::Cancel(key)),
        Startup::Session(parameters) => parameters,
        Startup::Tls | Startup::Gss => return Err(wire::Error::StartupLayout.into()),
    };
    if tls.is_required() && stream.is_plain_tcp() {
        return Err(errors::not_encrypted().into());
    }
    if scope.is_stopping() {
        return Err(errors::shutting_down().into());
    }
    let wanted = StartupRequest::read(&parameters)?;
    let negotiation = negotiate(&parameters);
    if !negotiation.is_empty() {
        stream.write_all(&negotiation).await?;
    }
    let credential = prove(stream, frontend, worker, &wanted).await?;
    let max = frontend.settings().max_clients;
    let place = |reserved: usize| {
        let place = frontend.registry.place(max.saturating_add(reserved));
        place.ok_or_else(|| errors::too_many_clients(max))
    };
    if CONSOLES.contains(&wanted.database.as_str()) {
        if wanted.purpose != Purpose::Session {
            return Err(errors::no_replication().into());
        }
        let operators = &frontend.live().operators;
        let (may_change, place) = (operators.may_change(&wanted.user)?, place(operators.reserved)?);
        return Ok(Proved::Operator(Operator { minor: parameters.minor, wanted, may_change, place }));
    }
    let place = place(0)?;
    if frontend.gates.of(&wanted.database).is_disabled() {
        return Err(errors::disabled(&wanted.database).into());
    }
    let target = match wanted.purpose {
        Purpose::Session => {
            let target = frontend.target(&wanted.database, &wanted.user, credential);
            target.ok_or_else(|| errors::unknown_database(&wanted.database))?
        }
        Purpose::Physical | Purpose::Logical => {
            let whole_server = wanted.purpose == Purpose::Physical;
            frontend.target_alone(&wanted.database, &wanted.user, whole_server, credential)?
        }
    };
    Ok(Proved::Known(Box::new(ProvedClient { minor: parameters.minor, wanted, target, route: None, place })))
}

/// Enters a client in the registry, under the process id of the server connection that it keeps, if any.
fn enter(
    frontend: &Frontend,
    account: &Arc<Account>,
    about: About,
    process: Option<u32>,
    minor: u16,
) -> Result<Entry, LoginRefusal> {
    let secret_bytes = if minor >= 2 { SECRET_BYTES } else { 4 };
    let entry = frontend.registry.enter(account, about, process, secret_bytes, getrandom::fill);
    entry.map_err(|error| Report::fatal(SqlState::INTERNAL, format!("no random numbers: {error}")).into())
}

/// From there to the first ReadyForQuery.
async fn start(
    stream: &mut Stream,
    frontend: &Arc<Frontend>,
    worker: &Arc<Worker>,
    scope: &Scope,
    known: ProvedClient,
) -> Result<Ready, LoginRefusal> {
    let ProvedClient { minor, wanted, target, route, place } = known;
    let (mut own, mut rule) = (PoolhouseSettings::default(), None);
    let (begun, told) = match wanted.purpose {
        Purpose::Session => {
            let mut settings = wanted.settings(&target.settings.defaults)?;
            rule = rule_for(&target, &wanted, &settings);
            own = begins_with(target.routing.rule(rule), route);
            own.take(&mut settings)?;
            let keeps = target.shared.mode == Mode::Session || own.by == RouteBy::Listener;
            let first = if keeps { own.route } else { Route::Auto };
            unless_gone(stream, scope, &target, first, begin(&target, worker, settings, first)).await?
        }
        Purpose::Physical | Purpose::Logical => {
            let parameters = wanted.own_parameters();
            let begin = async {
                let connected = replication::connect(&target, worker, parameters).await;
                let (beginning, acquired) = connected.map_err(|error| LoginRefusal::Told(error.report()))?;
                Ok(Begun { beginning, held: Some(acquired) })
            };
            unless_gone(stream, scope, &target, Route::Auto, begin).await?
        }
    };
    let about = wanted.about(stream.ends());
    let entry = enter(frontend, &target.account, about, begun.process(), minor)?;
    let Begun { beginning, held } = begun;
    let (process, secret) = (entry.slot.process, entry.slot.secret());
    let replicas = own.by == RouteBy::Listener && own.route == Route::Replica;
    let welcome = beginning::welcome(&beginning, process, secret, held.is_some(), replicas, told);
    stream.write_all(&welcome).await?;
    let (client, database, user) = (stream.peer(), &wanted.database, &wanted.user);
    target.account.add_login();
    tracing::debug!(client, database, user, process, purpose = ?wanted.purpose, "a client logged in");
    let life = match (wanted.purpose, held) {
        (Purpose::Physical | Purpose::Logical, Some(held)) => Life::Replication(held),
        (_, held) => {
            let mut session = Session::new(target.shared.clone(), beginning.settings, beginning.reported)
                .with_default_isolation(beginning.isolation)
                .with_process(process);
            session.steer(own);
            Life::Session(session, held)
        }
    };
    Ok(Ready { life, target, entry, rule, place })
}

/// The rule of the configuration that a session is under.
fn rule_for(target: &Target, wanted: &StartupRequest, settings: &[(String, String)]) -> Option<u16> {
    let named = settings.iter().find(|(name, _)| name == "application_name");
    let application_name = named.map_or("", |(_, value)| value);
    target.routing.rule_for(Who { user: &wanted.user, database: &wanted.database, application_name })
}

/// Reads packets until one says what the connection is for. Encryption begins on the way, when the client asks for it, or at
/// once (PostgreSQL 17's direct negotiation).
async fn first_packet(stream: &mut Stream, tls: &ClientTls, frontend: &Frontend) -> Result<Startup, LoginRefusal> {
    let (mut asked_tls, mut asked_gss) = (false, false);
    let config = tls.config().filter(|_| stream.is_plain_tcp());
    if let Some(config) = config
        && stream.first_byte().await? == Some(HANDSHAKE)
    {
        asked_tls = true;
        encrypt(stream, config.clone(), frontend).await?;
        if stream.protocol().is_none() {
            return Err(errors::direct_without_protocol().into());
        }
    }
    loop {
        let packet = startup::read(&read_packet(stream).await?)?;
        match packet {
            Startup::Tls if !asked_tls => {
                asked_tls = true;
                if let Some(config) = config {
                    // Whatever comes before the answer was not the client's to send, and would count as encrypted
                    // (CVE-2021-23214).
                    if !stream.is_quiet() {
                        return Err(errors::data_before_encryption().into());
                    }
                    stream.write_all(b"S").await?;
                    encrypt(stream, config.clone(), frontend).await?;
                    continue;
                }
            }
            Startup::Gss if !asked_gss => asked_gss = true,
            packet => return Ok(packet),
        }
        stream.write_all(b"N").await?;
    }
}

/// Shakes hands. Why that fails cannot be told to the client in words: operators see it.
async fn encrypt(stream: &mut Stream, config: Arc<ServerConfig>, frontend: &Frontend) -> Result<(), LoginRefusal> {
    let peer = stream.peer();
    stream.encrypt(config).await.map_err(|error| {
        let (code, why) = ("08P01", format!("the TLS handshake failed: {error}"));
        if frontend.registry.refused.note(code, Instant::now()) {
            tracing::info!(client = peer, reason = why, "refused a client");
        }
        frontend.registry.last_errors.refuse(peer, code, &why);
        LoginRefusal::Gone
    })
}

/// Reads exactly one packet: not a byte more, since encryption may begin right behind it.
async fn read_packet(stream: &mut Stream) -> Result<Vec<u8>, LoginRefusal> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).await?;
    let length = startup::packet_length(&packet)?.unwrap_or_default();
    packet.resize(length, 0);
    stream.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// Passes a cancel request on. The connection is closed once the server has done what it asks for, as PostgreSQL does:
/// a client that has waited for that may go on without fear for its next statement.
async fn cancel(frontend: &Frontend, key: &CancelKey, worker: &Worker) {
    let canceling = frontend.registry.find(key).and_then(|slot| slot.cancel());
    if let Some(canceling) = canceling {
        // An error would mean that the task was never run.
        let _ = worker.cancel(canceling).await;
    }
}

/// Lets the client prove who it is; what it gives is what a server may take from us in its name.
async fn prove(
    stream: &mut Stream,
    frontend: &Frontend,
    worker: &Worker,
    wanted: &StartupRequest,
) -> Result<Credential, LoginRefusal> {
    let (user, live) = (&wanted.user, frontend.live());
    let found = frontend.who_is(&live, worker, &wanted.database, user).await;
    let (known, looked_up) = found.map_err(|(words, why)| LoginRefusal::Unproved(words, why.map(Into::into)))?;
    if let Some(known) = known.clone().filter(|known| live.directory.has_to_derive(known)) {
        let (live, user) = (live.clone(), user.clone());
        // What is made there is found here; should it not be, it is made here.
        let _ = tasks::compute_in_turn(Length::Short, move || {
            let _ = live.directory.challenge(&user, Some(&known));
        })
        .await;
    }
    let (directory, known) = (&live.directory, known.as_deref());
    let stored = known.map_or(Credential::None, |known| Credential::Secret(known.secret().clone()));
    let proved = match directory.challenge(user, known) {
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
        if let (Some(lookups), Some(key)) = (&live.lookups, &looked_up) {
            lookups.doubt(key);
        }
        let why = directory.refusal(known).map(Into::into);
        LoginRefusal::Unproved(ErrorWords::Ours(errors::wrong_password(user)), why)
    })
}

async fn prove_md5(stream: &mut Stream, secret: Option<&Secret>, user: &str) -> Result<bool, LoginRefusal> {
    let salt = random::<4>()?;
    ask(stream, Authentication::Md5 { salt }).await?;
    let answer = read_password(stream).await?;
    let answer = answer.strip_suffix(b"\0").unwrap_or(&answer);
    Ok(secret.is_some_and(|secret| md5::verify(secret, user, salt, answer)))
}

async fn prove_scram(stream: &mut Stream, verifier: scram::Verifier) -> Result<Option<Credential>, LoginRefusal> {
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

fn random<const N: usize>() -> Result<[u8; N], LoginRefusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Report::fatal(SqlState::INTERNAL, format!("no random numbers: {error}")))?;
    Ok(bytes)
}

async fn ask(stream: &mut Stream, request: Authentication<'_>) -> Result<(), LoginRefusal> {
    let mut out = Vec::new();
    request.write(&mut out);
    Ok(stream.write_all(&out).await?)
}

/// The body of the client's next message, which has to be a password.
async fn read_password(stream: &mut Stream) -> Result<Vec<u8>, LoginRefusal> {
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
