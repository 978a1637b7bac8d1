//! Queries of our own over an idle server connection: probes, cleaning, the parameters of a login.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::Server;
use poolhouse_core::{
    session::ParameterError,
    wire::{
        self, ErrorFields,
        frame::HEADER_BYTES,
        reply::{self, Status},
        request::{self, Parse},
    },
};

/// Longest answer that is gathered.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Rows of text; `None` is NULL.
pub type ServerRows = Vec<Vec<Option<String>>>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// The server said no, in its own words; the connection is usable.
    #[error("{} (SQLSTATE {})", fields.message(), fields.code())]
    Server { fields: Arc<ErrorFields> },
    /// The connection is not usable any more.
    #[error("the connection was lost: {0}")]
    Lost(Arc<io::Error>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] wire::Error),
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    Oversized,
}

impl QueryError {
    /// The server's SQLSTATE, when it was the server that refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            QueryError::Server { fields } => Some(fields.code()),
            _ => None,
        }
    }
}

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        QueryError::Lost(Arc::new(error))
    }
}

impl Server {
    /// Runs one simple query and gives the rows of all its statements. After any error but [`QueryError::Server`] the
    /// connection must be closed.
    pub async fn query(&mut self, sql: &str, limit: Duration) -> Result<ServerRows, QueryError> {
        timeout(limit, self.run(sql)).await.unwrap_or(Err(QueryError::Timeout(limit)))
    }

    /// The same for one statement, whose `$1` is this value.
    pub async fn query_with(&mut self, sql: &str, value: &str, limit: Duration) -> Result<ServerRows, QueryError> {
        let mut out = Vec::new();
        Parse { name: b"", sql: sql.as_bytes(), types: b"\0\0" }.write(b"", &mut out);
        request::run_with(b"", value.as_bytes(), &mut out);
        request::sync(&mut out);
        timeout(limit, self.answer_to(&out)).await.unwrap_or(Err(QueryError::Timeout(limit)))
    }

    async fn run(&mut self, sql: &str) -> Result<ServerRows, QueryError> {
        let mut out = Vec::new();
        request::query(sql, &mut out);
        self.answer_to(&out).await
    }

    /// The rows up to the next ReadyForQuery. The status is idle then, or the connection would not be usable by others.
    async fn answer_to(&mut self, out: &[u8]) -> Result<ServerRows, QueryError> {
        // A simple query takes the unnamed statement away, and one with a value is one.
        self.state.statements.forget_unnamed();
        self.stream.write_all(out).await?;
        let mut inbox = Vec::with_capacity(4096);
        let (mut rows, mut error, mut bytes) = (ServerRows::new(), None, 0);
        loop {
            let (tag, body) = self.next_message(&mut inbox).await?;
            bytes += body.len();
            if bytes > ANSWER_BYTES_MAX {
                return Err(QueryError::Oversized);
            }
            match tag {
                b'D' => rows.push(texts(&reply::data_row(&body)?)),
                b'E' => {
                    let fields = ErrorFields::read(&body);
                    if fields.is_fatal() {
                        return Err(QueryError::Lost(Arc::new(io::Error::other(fields.message().to_owned()))));
                    }
                    error = Some(QueryError::Server { fields: Arc::new(fields) });
                }
                b'S' => {
                    self.state.take_parameter(&body)?;
                }
                b'Z' => {
                    Status::read(&body)?;
                    return error.map_or(Ok(rows), Err);
                }
                b'T' | b'C' | b'I' | b'N' | b'A' | b'n' | b'1' | b'2' => {}
                tag => return Err(wire::Error::UnknownMessage(tag).into()),
            }
        }
    }

    async fn next_message(&mut self, inbox: &mut Vec<u8>) -> Result<(u8, Vec<u8>), QueryError> {
        loop {
            if let Some(head) = wire::header(inbox)? {
                if head.body > ANSWER_BYTES_MAX {
                    return Err(QueryError::Oversized);
                }
                if inbox.len() >= head.message() {
                    let body = inbox[HEADER_BYTES..head.message()].to_vec();
                    inbox.drain(..head.message());
                    return Ok((head.tag, body));
                }
            }
            if self.stream.read_buf(inbox).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn texts(columns: &[Option<&[u8]>]) -> Vec<Option<String>> {
    columns.iter().map(|column| column.map(|value| String::from_utf8_lossy(value).into_owned())).collect()
}
