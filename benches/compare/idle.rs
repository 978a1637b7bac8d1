//! What idle clients cost: many logged-in connections, before and after each of them has run one query, and how much
//! memory the proxy has then. The client is as small as it can be: it logs in without a password and asks one thing.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Duration,
};

use super::{Outcome, cells::Contender, lab::Lab, proxy::Proxy};

/// Who logs in, everywhere.
pub const USER: &str = "bench";

/// The database of pgbench's tables.
pub const DATABASE: &str = "bench";

/// Clients that come and go before the first look, so that what the proxy sets up once is not counted.
const VISITORS: usize = 30;

/// A proxy may put away things a moment later.
const SETTLE: Duration = Duration::from_millis(700);

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Protocol 3.0, as a startup packet says it.
const PROTOCOL: u32 = 3 << 16;

/// No answer here is longer.
const MESSAGE_MAX: usize = 10_000;

/// One measurement of a contender; KiB of memory that each client adds.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// After it has logged in.
    pub fresh: f64,
    /// After it has run a query, too.
    pub used: f64,
    /// KiB of the whole process without a client.
    pub base: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { fresh, used, base } = self;
        write!(f, "{fresh:6.2} KiB per client, {used:6.2} KiB after a query, {base:.0} KiB without clients")
    }
}

/// Logs in so many clients to a fresh process.
pub fn run(lab: &Lab, contender: Contender, clients: usize) -> Outcome<Sample> {
    let proxy = lab.launch_with(contender, None)?;
    for _ in 0..VISITORS {
        Client::connect(proxy.port())?.query("SELECT 1")?;
    }
    let base = settled(&proxy)?;
    let mut crowd = (0..clients).map(|_| Client::connect(proxy.port())).collect::<Outcome<Vec<Client>>>()?;
    let fresh = settled(&proxy)?;
    crowd.iter_mut().try_for_each(|client| client.query("SELECT 1"))?;
    let used = settled(&proxy)?;
    let per_client = |memory: f64| (memory - base) / clients as f64;
    Ok(Sample { fresh: per_client(fresh), used: per_client(used), base })
}

fn settled(proxy: &Proxy) -> Outcome<f64> {
    thread::sleep(SETTLE);
    proxy.memory_kib()
}

/// A logged-in connection.
pub struct Client(TcpStream);

impl Client {
    /// Logs in through a port of 127.0.0.1.
    pub fn connect(port: u16) -> Outcome<Client> {
        Client::connect_to(port, DATABASE)
    }

    /// The same, to another database.
    pub fn connect_to(port: u16, database: &str) -> Outcome<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for word in ["user", USER, "database", database, "application_name", "compare", ""] {
            body.extend(word.as_bytes());
            body.push(0);
        }
        let mut client = Client(stream);
        client.0.write_all(&with_length(&body)?)?;
        client.read_until_ready()?;
        Ok(client)
    }

    /// Runs a statement in the simple protocol; its result does not matter.
    pub fn query(&mut self, sql: &str) -> Outcome<()> {
        let mut message = vec![b'Q'];
        message.extend(with_length(&[sql.as_bytes(), b"\0"].concat())?);
        self.0.write_all(&message)?;
        self.read_until_ready()
    }

    /// Nothing comes after ReadyForQuery before the next query, so the reader has read no byte too many.
    fn read_until_ready(&self) -> Outcome<()> {
        let mut reader = BufReader::new(&self.0);
        loop {
            let mut head = [0; 5];
            reader.read_exact(&mut head)?;
            let [tag, length @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes(length))?;
            let body = length.checked_sub(4).filter(|body| *body < MESSAGE_MAX).ok_or("a message's length is wrong")?;
            match tag {
                b'E' => return Err(words_of_error(&mut reader, body)?.into()),
                b'R' => {
                    let mut method = vec![0; body];
                    reader.read_exact(&mut method)?;
                    if method != [0; 4] {
                        return Err("it asks for a password".into());
                    }
                }
                _ => discard(&mut reader, body)?,
            }
            if tag == b'Z' {
                return Ok(());
            }
        }
    }
}

fn discard(reader: &mut impl BufRead, length: usize) -> Outcome<()> {
    let mut body = vec![0; length];
    Ok(reader.read_exact(&mut body)?)
}

/// The text of an ErrorResponse: fields of a type byte and a string; `M` is the message.
fn words_of_error(reader: &mut impl BufRead, length: usize) -> Outcome<String> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let message = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M"));
    Ok(String::from_utf8_lossy(message.unwrap_or(b"an error without words")).into_owned())
}

/// Puts the length, which counts itself, before a body.
fn with_length(body: &[u8]) -> Outcome<Vec<u8>> {
    let length = u32::try_from(body.len() + 4)?;
    Ok([&length.to_be_bytes(), body].concat())
}
