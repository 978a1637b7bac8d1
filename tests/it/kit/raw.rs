//! A client that sends exactly the bytes that a test says, and shows each message that comes back.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    time::Duration,
};

use postgres_protocol::{
    IsNull,
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::frontend,
};
use tokio_util::bytes::{BufMut, BytesMut};

use super::PATIENCE;

/// The message that a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of ErrorResponse or NoticeResponse: `C` is the SQLSTATE, `M` the message, `S` the severity, `H` the hint.
    pub fn field(&self, field: u8) -> Option<String> {
        assert!(matches!(self.tag, b'E' | b'N'), "no error and no notice: {self:?}");
        let mut fields = self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
        let text = fields.find(|text| text[0] == field)?;
        Some(String::from_utf8(text[1..].to_vec()).unwrap())
    }

    /// The SQLSTATE of an ErrorResponse.
    pub fn sqlstate(&self) -> String {
        self.field(b'C').unwrap()
    }

    /// The names of the columns in a RowDescription.
    pub fn columns(&self) -> Vec<String> {
        const COLUMN_BYTES: usize = 18;
        let mut names = Vec::new();
        let mut rest = &self.body[2..];
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            rest = &rest[end + 1 + COLUMN_BYTES..];
        }
        names
    }

    /// The values of a DataRow as text; `None` is NULL.
    pub fn values(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "no row: {self:?}");
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            let value = usize::try_from(length).ok().map(|length| &rest[4..4 + length]);
            values.push(value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
            rest = &rest[4 + value.map_or(0, <[u8]>::len)..];
        }
        values
    }

    /// The bytes before the first zero, as text: the tag of CommandComplete, the name of ParameterStatus.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap()
    }
}

/// A connection to a server or to Poolhouse.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    /// From BackendKeyData: the process and the secret, which cancel requests repeat.
    pub cancel_key: Option<Vec<u8>>,
}

impl RawClient {
    /// Connects to a port of 127.0.0.1, and sends nothing.
    pub fn connect(port: u16) -> RawClient {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        RawClient { stream, cancel_key: None }
    }

    /// Connects and logs in with protocol 3.0. Fails the test when the server refuses.
    #[track_caller]
    pub fn login(port: u16, database: &str, user: &str, password: &str) -> RawClient {
        let mut client = RawClient::connect(port);
        client.send(&messages::startup(0x30000, &[("user", user), ("database", database)]));
        let answer = client.finish_login(user, password);
        assert_eq!(answer.last().map(|message| message.tag), Some(b'Z'), "login refused: {answer:?}");
        client
    }

    /// Answers what the server asks after a startup message, until ReadyForQuery or an error; returns all but the
    /// requests for authentication.
    pub fn finish_login(&mut self, user: &str, password: &str) -> Vec<Message> {
        let mut scram = None;
        let mut others = Vec::new();
        loop {
            let message = self.read();
            match message.tag {
                b'R' => self.authenticate(&message.body, user, password, &mut scram),
                tag => {
                    if tag == b'K' {
                        self.cancel_key = Some(message.body.clone());
                    }
                    others.push(message);
                    if matches!(tag, b'Z' | b'E') {
                        return others;
                    }
                }
            }
        }
    }

    fn authenticate(&mut self, body: &[u8], user: &str, password: &str, scram: &mut Option<ScramSha256>) {
        let (code, data) = (u32::from_be_bytes(body[..4].try_into().unwrap()), &body[4..]);
        let mut answer = BytesMut::new();
        match code {
            0 => {}
            3 => frontend::password_message(password.as_bytes(), &mut answer).unwrap(),
            5 => {
                let hash = md5_hash(user.as_bytes(), password.as_bytes(), data.try_into().unwrap());
                frontend::password_message(hash.as_bytes(), &mut answer).unwrap();
            }
            10 => {
                let machine = scram.insert(ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported()));
                frontend::sasl_initial_response(SCRAM_SHA_256, machine.message(), &mut answer).unwrap();
            }
            11 => {
                let machine = scram.as_mut().unwrap();
                machine.update(data).unwrap();
                frontend::sasl_response(machine.message(), &mut answer).unwrap();
            }
            12 => scram.as_mut().unwrap().finish(data).unwrap(),
            other => panic!("authentication request {other} is not known here"),
        }
        self.send(&answer);
    }

    /// Reads and writes fail when the other side does nothing for so long.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes as they are, unless the other side does not take them.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent (FIN).
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads one byte: the answer to SSLRequest and GSSENCRequest.
    #[track_caller]
    pub fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Reads one message. Fails the test when the connection ends.
    #[track_caller]
    pub fn read(&mut self) -> Message {
        self.try_read().unwrap().expect("a message, but the connection has ended")
    }

    /// Reads one message; `None` when the connection ends in good order before it.
    pub fn try_read(&mut self) -> io::Result<Option<Message>> {
        let mut head = [0; 5];
        match self.stream.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => self.stream.read_exact(&mut head[1..])?,
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body)?;
        Ok(Some(Message { tag: head[0], body }))
    }

    /// Reads until ReadyForQuery, which is the last message returned.
    #[track_caller]
    pub fn read_until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.read());
            if messages.last().is_some_and(|message| message.tag == b'Z') {
                return messages;
            }
        }
    }

    /// Sends a simple query and reads its whole answer.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&messages::query(sql));
        self.read_until_ready()
    }

    /// Begins a transaction on a server connection: a BEGIN alone need not reach one.
    #[track_caller]
    pub fn begin(&mut self) {
        self.query("BEGIN");
        self.query("SELECT");
    }

    /// The first value of the first row of a simple query.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> Option<String> {
        let messages = self.query(sql);
        let row = messages.iter().find(|message| message.tag == b'D');
        row.unwrap_or_else(|| panic!("a row for {sql}, not {messages:?}")).values()[0].clone()
    }

    /// The id of the server process that answers, which is not the client's own.
    #[track_caller]
    pub fn server_process(&mut self) -> Option<String> {
        self.value("SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    }

    /// The process id that the client was given at its login.
    #[track_caller]
    pub fn process(&self) -> u32 {
        let key = self.cancel_key.as_ref().expect("a client that is logged in");
        key[..4].try_into().map(u32::from_be_bytes).expect("four bytes of a process id")
    }

    /// Reads what is left, and fails the test when the other side does not end the connection (by FIN or RST) then.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return messages;
                }
                Err(error) => panic!("the connection is still open: {error}; came: {messages:?}"),
            }
        }
    }
}

/// Messages of a client, as bytes to send. Several are sent as one with `[a, b].concat()`.
pub mod messages {
    use super::{BufMut, BytesMut, IsNull, frontend};

    /// Protocol 3.0 is 0x30000, 3.2 is 0x30002.
    pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap();
        [length.to_be_bytes().to_vec(), body].concat()
    }

    pub fn ssl_request() -> Vec<u8> {
        built(frontend::ssl_request)
    }

    /// With the whole body of BackendKeyData.
    pub fn cancel_request(cancel_key: &[u8]) -> Vec<u8> {
        let length = u32::try_from(cancel_key.len() + 8).unwrap();
        [&length.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), cancel_key].concat()
    }

    pub fn query(sql: &str) -> Vec<u8> {
        built(|buffer| frontend::query(sql, buffer).unwrap())
    }

    /// With all types of parameters left to the server.
    pub fn parse(statement: &str, sql: &str) -> Vec<u8> {
        built(|buffer| frontend::parse(statement, sql, [], buffer).unwrap())
    }

    /// With parameters and results as text; `None` is NULL.
    pub fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
        let serialise = |value: &Option<&str>, buffer: &mut BytesMut| match value {
            Some(text) => {
                buffer.put_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        };
        built(|buffer| {
            let bound = frontend::bind(portal, statement, [], values, serialise, [], buffer);
            assert!(bound.is_ok(), "a value is too long");
        })
    }

    /// `kind` is `S` for a statement and `P` for a portal.
    pub fn describe(kind: u8, name: &str) -> Vec<u8> {
        built(|buffer| frontend::describe(kind, name, buffer).unwrap())
    }

    /// `kind` is `S` for a statement and `P` for a portal.
    pub fn close(kind: u8, name: &str) -> Vec<u8> {
        built(|buffer| frontend::close(kind, name, buffer).unwrap())
    }

    /// No limit when `rows_max` is 0.
    pub fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
        built(|buffer| frontend::execute(portal, rows_max, buffer).unwrap())
    }

    pub fn sync() -> Vec<u8> {
        built(frontend::sync)
    }

    pub fn flush() -> Vec<u8> {
        built(frontend::flush)
    }

    pub fn terminate() -> Vec<u8> {
        built(frontend::terminate)
    }

    pub fn copy_data(data: &[u8]) -> Vec<u8> {
        any(b'd', data)
    }

    pub fn copy_done() -> Vec<u8> {
        built(frontend::copy_done)
    }

    pub fn copy_fail(why: &str) -> Vec<u8> {
        built(|buffer| frontend::copy_fail(why, buffer).unwrap())
    }

    /// Any message, known or not.
    pub fn any(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn built(build: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        build(&mut buffer);
        buffer.to_vec()
    }
}
