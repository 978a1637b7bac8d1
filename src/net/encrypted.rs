//! A TCP connection under TLS: rustls between our buffers and the socket, driven by readiness like a plain one.
//!
//! rustls keeps what it has decrypted and nobody has taken, and what it has encrypted and the socket has not taken. So
//! "is there something to read" has two places to look at, and "is it written" means that the socket has taken it.

use std::{
    fmt,
    io::{self, Read, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection,
    pki_types::ServerName,
};
use tokio::{
    io::{AsyncWrite, Interest},
    net::TcpStream,
    task::coop,
};

/// A connection under TLS.
#[derive(Debug)]
pub struct Encrypted {
    socket: TcpStream,
    tls: Connection,
    /// Decrypted bytes that nobody has taken.
    waiting: usize,
    /// The peer sends nothing more.
    ended: bool,
    /// Bytes of what is being written that rustls has taken, and that are not said to be written before the socket has
    /// taken all.
    taken: usize,
}

/// How a connection is encrypted, as PgBouncer and PostgreSQL spell it: `TLSv1.3/TLS_AES_256_GCM_SHA384`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encryption {
    version: ProtocolVersion,
    suite: CipherSuite,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLS",
        };
        // TLS 1.3's suites have a number in rustls's names.
        let suite = self.suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_");
        write!(f, "{version}/{suite}")
    }
}

/// The socket, for rustls: each call is one call of the kernel, when the event loop has seen that it can be of use.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encrypted {
    /// Shakes hands with a server. The caller bounds the time.
    ///
    /// # Errors
    /// Those of the socket; what the peer or its certificate did wrong is `InvalidData`.
    pub async fn to_server(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Encrypted> {
        let tls = ClientConnection::new(config, name).map_err(invalid)?;
        let mut stream = Encrypted { socket, tls: tls.into(), waiting: 0, ended: false, taken: 0 };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// Shakes hands with a client. The caller bounds the time.
    ///
    /// # Errors
    /// As [`Encrypted::to_server`].
    pub async fn to_client(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Encrypted> {
        let tls = ServerConnection::new(config).map_err(invalid)?;
        let mut stream = Encrypted { socket, tls: tls.into(), waiting: 0, ended: false, taken: 0 };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush_tls(cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Exchanges the socket for itself, on another event loop.
    ///
    /// # Errors
    /// When the kernel refuses; the stream must not be used any more then.
    pub fn rehome(self: Box<Self>) -> io::Result<Box<Encrypted>> {
        let Encrypted { socket, tls, waiting, ended, taken } = *self;
        let socket = TcpStream::from_std(socket.into_std()?)?;
        Ok(Box::new(Encrypted { socket, tls, waiting, ended, taken }))
    }

    /// The protocol that was agreed on by ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// What was agreed on.
    pub fn encryption(&self) -> Option<Encryption> {
        let (version, suite) = (self.tls.protocol_version()?, self.tls.negotiated_cipher_suite()?);
        Some(Encryption { version, suite: suite.suite() })
    }

    /// Whether something was decrypted, or the end has come, that nobody has taken.
    pub fn has_waiting(&self) -> bool {
        self.waiting > 0 || self.ended
    }

    /// Takes records in from the socket once.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_read_ready(cx))?,
                received => return Poll::Ready(received),
            }
        }
    }

    /// The same, without waiting.
    fn receive(&mut self) -> io::Result<()> {
        if self.tls.read_tls(&mut Socket(&self.socket))? == 0 {
            self.ended = true;
        }
        let state = self.tls.process_new_packets();
        if self.tls.wants_write() {
            // An alert, which says to the peer what is wrong, or an answer of the protocol's own; it can wait.
            let _ = self.send();
        }
        let state = state.map_err(invalid)?;
        self.waiting = state.plaintext_bytes_to_read();
        self.ended |= state.peer_has_closed();
        Ok(())
    }

    /// Gives the socket what is encrypted, without waiting.
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Socket(&self.socket))?;
        }
        Ok(())
    }

    fn poll_flush_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(cx))?,
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// See [`super::Stream::poll_readable`].
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_waiting() { Poll::Ready(Ok(())) } else { self.socket.poll_read_ready(cx) }
    }

    /// Takes in what there is, until something is decrypted or the end has come; pends when neither is so.
    fn poll_decrypted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = ready!(coop::poll_proceed(cx));
        while !self.has_waiting() {
            if self.tls.wants_write() {
                // What has been written before a read and was not taken then; the wait below is for both.
                let _ = self.poll_flush_tls(cx)?;
            }
            ready!(self.poll_receive(cx))?;
        }
        turn.made_progress();
        Poll::Ready(Ok(()))
    }

    /// What has been decrypted, as much as there is room for. 0 is the end.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.waiting == 0 && self.ended {
            return Ok(0);
        }
        let count = self.tls.reader().read(buffer)?;
        self.waiting = self.waiting.saturating_sub(count);
        Ok(count)
    }

    /// See [`super::Stream::poll_fill`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        ready!(self.poll_decrypted(cx))?;
        let start = buffer.len();
        let room = (buffer.capacity() - start).min(self.waiting);
        buffer.resize(start + room, 0);
        let taken = self.take(&mut buffer[start..]);
        buffer.truncate(start + *taken.as_ref().unwrap_or(&0));
        Poll::Ready(taken)
    }

    /// As [`tokio::io::AsyncRead::poll_read`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_decrypted(cx))?;
        Poll::Ready(self.take(buffer))
    }

    /// See [`super::Stream::try_read`].
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.has_waiting() {
            self.receive()?;
        }
        self.take(buffer)
    }

    /// See [`super::Stream::poll_drain`]. The last byte that rustls has taken counts as written once the socket has taken all
    /// of it: before, the peer may have heard of the others.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, bytes: &[u8], written: &mut usize) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush_tls(cx))?;
            *written = bytes.len().min(*written + std::mem::take(&mut self.taken));
            if *written == bytes.len() {
                return Poll::Ready(Ok(()));
            }
            let turn = ready!(coop::poll_proceed(cx));
            let count = self.tls.writer().write(&bytes[*written..])?;
            (*written, self.taken) = (*written + count.saturating_sub(1), count.min(1));
            turn.made_progress();
        }
    }

    /// As [`AsyncWrite::poll_write`]; a caller that was told to wait comes again with the same bytes.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.taken == 0 {
            ready!(self.poll_flush_tls(cx))?;
            self.taken = self.tls.writer().write(bytes)?;
        }
        ready!(self.poll_flush_tls(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.taken).min(bytes.len())))
    }

    /// See [`super::Stream::try_write`]: what rustls takes is written as soon as the socket can.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send()?;
        let count = self.tls.writer().write(bytes)?;
        match self.send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    /// Says that nothing more comes, and closes this direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Once is enough; rustls says nothing the second time.
        self.tls.send_close_notify();
        ready!(self.poll_flush_tls(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// See [`super::Stream::poll_gone`]. What arrives is decrypted, to see whether it is the end.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting > 0 {
                return Poll::Pending;
            }
            if self.ended || ready!(self.poll_receive(cx)).is_err() {
                return Poll::Ready(());
            }
        }
    }

    /// As [`TcpStream::try_io`]: whether the event loop has seen something arrive.
    pub fn has_news(&self) -> bool {
        self.has_waiting() || self.socket.try_io(Interest::READABLE, || Ok(())).is_ok()
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
