//! Connecting and logging in: startup packet, password, parameters, the first ReadyForQuery.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{Canceler, Greeting, Server, ServerLogin};
use crate::{
    net::{Attempt, ServerTls, Stream},
    tasks::{self, Length},
};
use poolhouse_core::{
    auth::{self, scram},
    session::{ParameterError, ServerState},
    wire::{
        self, ErrorFields,
        frame::HEADER_BYTES,
        reply::Authentication,
        request,
        startup::{self, CancelKey},
    },
};

/// Longest message that a login may bring.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Most bytes that a login may bring in all: a server that never comes to an end is given up long before the time is.
const LOGIN_BYTES_MAX: usize = 1 << 20;

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect: {0}")]
    Unreachable(Arc<io::Error>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server said no, in its own words.
    #[error("{}", fields.message())]
    Refused { fields: Arc<ErrorFields> },
    #[error("the connection was closed during the login")]
    Closed,
    /// The server asks for something that we do not have.
    #[error("the server asks for {0}, and there is nothing to answer with")]
    NoCredential(&'static str),
    #[error("the server's login failed: {0}")]
    Auth(auth::Error),
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] wire::Error),
    #[error("the server sent a message of {0} bytes during the login")]
    Oversized(usize),
    #[error("the server sent more than {} kB during the login", LOGIN_BYTES_MAX >> 10)]
    Endless,
    #[error(transparent)]
    Parameters(#[from] ParameterError),
}

impl ConnectError {
    /// Whether nobody listens there.
    pub fn refused(&self) -> bool {
        matches!(self, ConnectError::Unreachable(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether a login might do that is encrypted where this one was not, or the other way round: TLS has failed, or the
    /// server has no entry in its pg_hba.conf for such a connection.
    fn may_lie_in_encryption(&self) -> bool {
        match self {
            ConnectError::Unreachable(error) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
            }
            ConnectError::Refused { fields } => fields.code() == "28000",
            ConnectError::Closed => true,
            _ => false,
        }
    }

    /// The SQLSTATE by which it is counted, and told of when it is told in our words.
    pub fn code(&self) -> &str {
        match self {
            ConnectError::Refused { fields } => fields.code(),
            ConnectError::NoCredential(_) | ConnectError::Auth(_) => "28000",
            ConnectError::Closed => "08006",
            ConnectError::Unreachable(_)
            | ConnectError::Timeout(_)
            | ConnectError::Protocol(_)
            | ConnectError::Oversized(_)
            | ConnectError::Endless
            | ConnectError::Parameters(_) => "08001",
        }
    }

    /// Whether the server is there but does not take this login, now or ever; another try at once brings nothing, and
    /// says nothing about the server's health.
    pub fn is_definite(&self) -> bool {
        match self {
            ConnectError::Refused { fields } => !is_passing(fields.code()),
            ConnectError::NoCredential(_) | ConnectError::Auth(_) => true,
            ConnectError::Unreachable(_)
            | ConnectError::Timeout(_)
            | ConnectError::Closed
            | ConnectError::Protocol(_)
            | ConnectError::Oversized(_)
            | ConnectError::Endless
            | ConnectError::Parameters(_) => false,
        }
    }
}

/// SQLSTATEs of a server that starts, stops or recovers.
fn is_passing(code: &str) -> bool {
    matches!(code, "57P01" | "57P02" | "57P03")
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                ConnectError::Closed
            }
            _ => ConnectError::Unreachable(Arc::new(error)),
        }
    }
}

/// Connects and logs in, within `limit`.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(login: &ServerLogin, limit: Duration) -> Result<Server, ConnectError> {
    timeout(limit, log_in(login)).await.unwrap_or(Err(ConnectError::Timeout(limit)))
}

/// With TLS and without it, as far as the mode has both (libpq's manual, "Protection Provided in Different Modes").
async fn log_in(login: &ServerLogin) -> Result<Server, ConnectError> {
    let tls = login.tls.load_full();
    let (first, second) = tls.attempts(&login.address);
    match (log_in_by(login, &tls, first).await, second) {
        (Err(error), Some(second)) if error.may_lie_in_encryption() => {
            let other = log_in_by(login, &tls, second).await;
            // The first one says more, unless the second one got further.
            other.map_err(|other| if matches!(other, ConnectError::Unreachable(_)) { error } else { other })
        }
        (logged_in, _) => logged_in,
    }
}

async fn log_in_by(login: &ServerLogin, tls: &Arc<ServerTls>, attempt: Attempt) -> Result<Server, ConnectError> {
    let stream = tls.connect(&login.address, login.tcp, attempt).await;
    let stream = stream.map_err(|error| ConnectError::Unreachable(Arc::new(error)))?;
    let mut wire = LoginWire::new(stream);
    let mut pairs = vec![("user", login.user.as_str()), ("database", login.database.as_str())];
    pairs.extend(login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut out = Vec::new();
    startup::session(&pairs, &mut out);
    wire.stream.write_all(&out).await?;
    authenticate(login, &mut wire).await?;
    let (state, key) = first_ready(&mut wire).await?;
    let (address, ends) = (login.address.clone(), wire.stream.ends());
    let tls = matches!(wire.stream, Stream::Encrypted(_)).then(|| tls.clone());
    let canceler = key.map(|key| Arc::new(Canceler { address, tls, key, ends, since: std::time::SystemTime::now() }));
    let greeting = (wire.greeting != Greeting::default()).then(|| Arc::new(wire.greeting));
    Ok(Server {
        stream: wire.stream,
        state,
        canceler,
        greeting,
        home: std::thread::current().id(),
        pass: None,
        sender: None,
    })
}

/// Whether the server at the other end takes logins: it answers a startup packet with anything but the errors of one
/// that stops, starts or recovers. Nobody is logged in. A server that does not answer within `limit` does not.
pub async fn knock(login: &ServerLogin, limit: Duration) -> bool {
    let knocking = async {
        let tls = login.tls.load_full();
        let stream = tls.connect(&login.address, login.tcp, tls.attempts(&login.address).0).await?;
        let mut wire = LoginWire::new(stream);
        let mut out = Vec::new();
        startup::session(&[("user", &login.user), ("database", &login.database)], &mut out);
        wire.stream.write_all(&out).await?;
        wire.next().await
    };
    match timeout(limit, knocking).await {
        Ok(Ok((b'E', body))) => !is_passing(ErrorFields::read(&body).code()),
        Ok(Ok(_)) => true,
        Ok(Err(_)) | Err(_) => false,
    }
}

/// The socket during the login, with what was read but not used yet.
struct LoginWire {
    stream: Stream,
    inbox: Vec<u8>,
    /// Of all messages so far.
    bytes: usize,
    greeting: Greeting,
}

impl LoginWire {
    fn new(stream: Stream) -> LoginWire {
        LoginWire { stream, inbox: Vec::with_capacity(1024), bytes: 0, greeting: Greeting::default() }
    }

    /// The next message: tag and body.
    async fn next(&mut self) -> Result<(u8, Vec<u8>), ConnectError> {
        loop {
            if let Some(head) = wire::header(&self.inbox)? {
                if head.body > LOGIN_MESSAGE_BYTES_MAX {
                    return Err(ConnectError::Oversized(head.body));
                }
                if self.inbox.len() >= head.message() {
                    self.bytes += head.message();
                    if self.bytes > LOGIN_BYTES_MAX {
                        return Err(ConnectError::Endless);
                    }
                    let rest = self.inbox.split_off(head.message());
                    let message = std::mem::replace(&mut self.inbox, rest);
                    return Ok((head.tag, message[HEADER_BYTES..].to_vec()));
                }
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Err(ConnectError::Closed);
            }
        }
    }

    async fn answer(&mut self, body: &[u8]) -> Result<(), ConnectError> {
        // Large enough at once, so that no part is left behind.
        let mut out = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + body.len()));
        request::password(body, &mut out);
        Ok(self.stream.write_all(&out).await?)
    }

    /// The next message of the exchange of passwords.
    async fn next_authentication(&mut self) -> Result<Vec<u8>, ConnectError> {
        loop {
            match self.next().await? {
                (b'R', body) => return Ok(body),
                (b'E', body) => return Err(ConnectError::Refused { fields: Arc::new(ErrorFields::read(&body)) }),
                (b'N', body) => self.greeting.add(&body, false),
                (b'v', _) => {}
                (tag, _) => return Err(wire::Error::UnknownMessage(tag).into()),
            }
        }
    }
}

async fn authenticate(login: &ServerLogin, wire: &mut LoginWire) -> Result<(), ConnectError> {
    loop {
        let body = wire.next_authentication().await?;
        match Authentication::read(&body)? {
            Authentication::Ok => return Ok(()),
            Authentication::Cleartext => {
                let credential = login.credential.load();
                let password = credential.cleartext_answer();
                let password = password.ok_or(ConnectError::NoCredential("a password in clear text"))?;
                wire.answer(&Zeroizing::new([password.as_bytes(), b"\0"].concat())).await?;
            }
            Authentication::Md5 { salt } => {
                let answer = login.credential.load().md5_answer(&login.user, salt);
                let answer = answer.ok_or(ConnectError::NoCredential("an md5 password"))?;
                wire.answer(&[answer.as_bytes(), b"\0"].concat()).await?;
            }
            Authentication::Sasl { mechanisms } => {
                if !mechanisms.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256") {
                    return Err(ConnectError::NoCredential("a SASL mechanism other than SCRAM-SHA-256"));
                }
                prove_by_scram(login, wire).await?;
            }
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                return Err(wire::Error::Malformed("Authentication").into());
            }
            Authentication::Other(_) => {
                return Err(ConnectError::NoCredential("a method of authentication that Poolhouse does not know"));
            }
        }
    }
}

async fn prove_by_scram(login: &ServerLogin, wire: &mut LoginWire) -> Result<(), ConnectError> {
    let mut nonce = [0; 18];
    getrandom::fill(&mut nonce).map_err(|error| ConnectError::Unreachable(Arc::new(io::Error::other(error))))?;
    let exchange = login.credential.load().scram_exchange(nonce);
    let exchange = exchange.map_err(|_| ConnectError::NoCredential("a password by SCRAM-SHA-256"))?;
    let first = exchange.first();
    let mut initial = b"SCRAM-SHA-256\0".to_vec();
    initial.extend_from_slice(&(first.len() as u32).to_be_bytes());
    initial.extend_from_slice(&first);
    wire.answer(&initial).await?;
    let body = wire.next_authentication().await?;
    let Authentication::SaslContinue(server_first) = Authentication::read(&body)? else {
        return Err(wire::Error::Malformed("AuthenticationSASLContinue").into());
    };
    let iterations = exchange.iterations(server_first).map_err(ConnectError::Auth)?;
    let server_first = server_first.to_vec();
    // Others must not wait for it.
    let responded = match iterations {
        0 => Some(exchange.respond(&server_first)),
        1..=scram::ITERATIONS_SHORT => {
            tasks::compute_in_turn(Length::Short, move || exchange.respond(&server_first)).await
        }
        _ => tasks::compute_in_turn(Length::Long, move || exchange.respond(&server_first)).await,
    };
    // Only a panic, or the end of Poolhouse, leaves it without.
    let (exchange, last) = responded.ok_or(ConnectError::Closed)?.map_err(ConnectError::Auth)?;
    wire.answer(&last).await?;
    let body = wire.next_authentication().await?;
    let Authentication::SaslFinal(server_final) = Authentication::read(&body)? else {
        return Err(wire::Error::Malformed("AuthenticationSASLFinal").into());
    };
    exchange.finish(server_final).map_err(ConnectError::Auth)
}

/// From AuthenticationOk to the first ReadyForQuery.
async fn first_ready(wire: &mut LoginWire) -> Result<(ServerState, Option<CancelKey>), ConnectError> {
    let mut state = ServerState::default();
    let mut key = None;
    loop {
        match wire.next().await? {
            (b'S', body) => {
                state.take_parameter(&body)?;
            }
            (b'K', body) => {
                let (process, secret) =
                    body.split_first_chunk::<4>().ok_or(wire::Error::Malformed("BackendKeyData"))?;
                key = Some(CancelKey { process: u32::from_be_bytes(*process), secret: secret.to_vec() });
            }
            (b'Z', _) => return Ok((state, key)),
            (b'E', body) => return Err(ConnectError::Refused { fields: Arc::new(ErrorFields::read(&body)) }),
            (b'N', body) => wire.greeting.add(&body, key.is_some()),
            (tag, _) => return Err(wire::Error::UnknownMessage(tag).into()),
        }
    }
}
