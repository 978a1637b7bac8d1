//! A connected socket, whatever its kind, under TLS or not; everything above reads and writes through this.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
    task::coop,
    time::timeout,
};

use super::{
    Address, Tcp,
    encrypted::{Encrypted, Encryption},
    tcp::Unheard,
};

/// How long a peer is heard out that has been told the last thing.
const PART_LIMIT: Duration = Duration::from_secs(1);

/// The addresses of a connection's ends; a Unix socket has none. And how it is encrypted in between, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    pub peer: Option<std::net::SocketAddr>,
    pub local: Option<std::net::SocketAddr>,
    pub encryption: Option<Encryption>,
}

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// TCP under TLS.
    Encrypted(Box<Encrypted>),
    /// A move to another event loop has failed.
    Gone,
}

impl Stream {
    /// Connects to a server; the caller bounds the time. Not to be cancelled half-way only in the sense that the
    /// attempt is then given up.
    pub async fn connect(address: &Address, tcp: Tcp) -> io::Result<Stream> {
        match address {
            Address::Tcp { host, port } => Stream::from_tcp(TcpStream::connect((host.as_str(), *port)).await?, tcp),
            Address::Unix { directory, port } => {
                Ok(Stream::Unix(UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?))
            }
        }
    }

    /// Shakes hands with a client that wants TLS. The caller bounds the time, and must not use the stream any more when it
    /// gives up or this fails.
    ///
    /// # Errors
    /// Those of the socket; what the client did wrong is `InvalidData`.
    pub async fn encrypt(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let Stream::Tcp(socket) = std::mem::replace(self, Stream::Gone) else { return Err(gone()) };
        *self = Stream::Encrypted(Box::new(Encrypted::to_client(socket, config).await?));
        Ok(())
    }

    /// Whether this is TCP without TLS.
    pub fn is_plain_tcp(&self) -> bool {
        matches!(self, Stream::Tcp(_))
    }

    /// The protocol that was agreed on with TLS, by ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Stream::Encrypted(stream) => stream.protocol(),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Gone => None,
        }
    }

    /// The first byte that comes over TCP, which is left there; nothing at the end of the stream.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let Stream::Tcp(socket) = self else { return Err(gone()) };
        let mut byte = [0];
        let count = socket.peek(&mut byte).await?;
        Ok((count > 0).then_some(byte[0]))
    }

    /// Sets what every TCP connection of ours has: no delay for small messages, and keepalive, since a peer that
    /// vanished without a word would hold a place for ever.
    pub fn from_tcp(stream: TcpStream, tcp: Tcp) -> io::Result<Stream> {
        stream.set_nodelay(true)?;
        if let Some(idle) = tcp.keepalive_idle {
            let keepalive = TcpKeepalive::new()
                .with_time(idle)
                .with_interval(tcp.keepalive_interval)
                .with_retries(tcp.keepalive_count);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        }
        Ok(Stream::Tcp(stream))
    }

    /// Moves the socket to the event loop of the calling thread, where the task that uses it runs.
    ///
    /// # Errors
    /// When the kernel refuses; the stream must not be used any more then.
    pub fn rehome(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Stream::Gone) {
            Stream::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Stream::Unix(stream) => Stream::Unix(UnixStream::from_std(stream.into_std()?)?),
            Stream::Encrypted(stream) => Stream::Encrypted(stream.rehome()?),
            Stream::Gone => return Err(gone()),
        };
        Ok(())
    }

    /// Ready when there is something to read, or the peer has closed. Reads nothing, and holds no buffer meanwhile.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::Encrypted(stream) => stream.poll_readable(cx),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }

    /// Whether the event loop has seen something arrive, or the end of the stream, that has not been read. Costs next
    /// to nothing, and wakes nobody later.
    #[inline]
    pub fn has_news(&self) -> bool {
        match self {
            Stream::Encrypted(stream) => stream.has_news(),
            plain => plain.try_io(Interest::READABLE, || Ok(())).is_ok(),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_write_ready(cx),
            Stream::Unix(stream) => stream.poll_write_ready(cx),
            Stream::Encrypted(stream) => stream.socket().poll_write_ready(cx),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }

    /// Calls, when the event loop has seen that it can be of use.
    #[inline]
    fn try_io(&self, interest: Interest, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.try_io(interest, call),
            Stream::Unix(stream) => stream.try_io(interest, call),
            Stream::Encrypted(stream) => stream.socket().try_io(interest, call),
            Stream::Gone => Err(gone()),
        }
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Stream::Tcp(stream) => Ok(stream.as_fd()),
            Stream::Unix(stream) => Ok(stream.as_fd()),
            Stream::Encrypted(stream) => Ok(stream.socket().as_fd()),
            Stream::Gone => Err(gone()),
        }
    }

    /// As [`Stream::try_io`], for a call that moves at most `most` bytes. One that moves fewer has shown that no more
    /// can be moved now, so that the next one waits for the event loop instead of asking the kernel in vain.
    #[inline]
    fn try_move(
        &self,
        interest: Interest,
        most: usize,
        call: impl FnOnce(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        let fd = self.fd()?;
        let mut count = 0;
        let called = self.try_io(interest, || {
            count = call(fd)?;
            if 0 < count && count < most { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if count > 0 { Ok(count) } else { called.map(|()| 0) }
    }

    #[inline]
    fn try_fill(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        self.try_move(Interest::READABLE, room, |fd| Ok(recv(fd, spare_capacity(buffer), RecvFlags::empty())?.1))
    }

    /// Reads into the spare room of `buffer`, without waiting and, as long as the event loop has seen nothing arrive,
    /// without asking the kernel. 0 is the end of the stream.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read(buffer),
            Stream::Unix(stream) => stream.try_read(buffer),
            Stream::Encrypted(stream) => stream.try_read(buffer),
            Stream::Gone => Err(gone()),
        }
    }

    /// Whether nothing has arrived, not even the end of the stream, as the kernel knows at this moment.
    /// ([`Stream::try_read`] knows what the event loop has seen, which may lag.)
    pub fn is_quiet(&self) -> bool {
        let (mut byte, flags) = ([0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        let peeked = match self {
            Stream::Tcp(stream) => recv(stream, &mut byte, flags),
            Stream::Unix(stream) => recv(stream, &mut byte, flags),
            Stream::Encrypted(stream) if stream.has_waiting() => return false,
            Stream::Encrypted(stream) => recv(stream.socket(), &mut byte, flags),
            Stream::Gone => return false,
        };
        matches!(peeked, Err(Errno::AGAIN))
    }

    /// Whether the peer has closed its side, or the connection has failed, whatever is still to be read before that: as
    /// the kernel knows at this moment.
    pub fn has_hung_up(&self) -> bool {
        let Ok(fd) = self.fd() else { return true };
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, Some(&now)).is_ok() && asked[0].revents().intersects(ends)
    }

    /// Ready when the peer has closed the connection and nothing is left to be read. Once something has arrived this
    /// pends for ever: the end may be behind it.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stream::Encrypted(stream) = self {
            return stream.poll_gone(cx);
        }
        loop {
            if ready!(self.poll_readable(cx)).is_err() {
                return Poll::Ready(());
            }
            match self.peek() {
                Ok(0) => return Poll::Ready(()),
                Ok(_) => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// How many bytes there are to be read, at most 1, without taking them.
    fn peek(&self) -> io::Result<usize> {
        let (mut byte, flags) = ([0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        let count = match self {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut byte, flags)?)),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut byte, flags)?)),
            // It looks by itself.
            Stream::Encrypted(_) | Stream::Gone => return Err(gone()),
        };
        count.map(|(_, count)| count)
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
            Stream::Encrypted(stream) => stream.try_write(bytes),
            Stream::Gone => Err(gone()),
        }
    }

    /// Appends what has arrived to `buffer`, at most up to its capacity, which must not be full. 0 is the end of the
    /// stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        debug_assert!(buffer.len() < buffer.capacity(), "a read into a full buffer looks like the end of the stream");
        if let Stream::Encrypted(stream) = self {
            return stream.poll_fill(cx, buffer);
        }
        if self.has_news() {
            let turn = ready!(coop::poll_proceed(cx));
            let filled = self.try_fill(buffer);
            if !would_block(&filled) {
                turn.made_progress();
                return Poll::Ready(filled);
            }
        }
        loop {
            ready!(self.poll_readable(cx))?;
            let filled = self.try_fill(buffer);
            if !would_block(&filled) {
                return Poll::Ready(filled);
            }
        }
    }

    /// Writes as much of `bytes` from `*written` on as the socket takes; ready when all of it is written.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, bytes: &[u8], written: &mut usize) -> Poll<io::Result<()>> {
        if let Stream::Encrypted(stream) = self {
            return stream.poll_drain(cx, bytes, written);
        }
        while *written < bytes.len() {
            let turn = ready!(coop::poll_proceed(cx));
            let rest = &bytes[*written..];
            let sent = self.try_move(Interest::WRITABLE, rest.len(), |fd| send(fd, rest, SendFlags::NOSIGNAL));
            if would_block(&sent) {
                drop(turn);
                ready!(self.poll_writable(cx))?;
                continue;
            }
            turn.made_progress();
            match sent? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes, and then hears the peer out for a while: what it has sent, and nobody reads, would
    /// make the kernel break the connection, and what it was told last would be lost on its way. Not to be used
    /// afterwards.
    pub async fn part(&mut self) {
        if self.shutdown().await.is_err() {
            return;
        }
        let hear_out = async {
            let mut heard = [0; 512];
            while !matches!(self.read(&mut heard).await, Ok(0) | Err(_)) {}
        };
        // One that goes on for longer has had its time to read.
        let _ = timeout(PART_LIMIT, hear_out).await;
    }

    /// Both ends of the connection.
    pub fn ends(&self) -> Ends {
        let end = |address: io::Result<std::net::SocketAddr>| address.ok();
        let encryption = match self {
            Stream::Encrypted(stream) => stream.encryption(),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Gone => None,
        };
        match self.tcp() {
            Some(socket) => Ends { peer: end(socket.peer_addr()), local: end(socket.local_addr()), encryption },
            None => Ends::default(),
        }
    }

    /// Whether the peer has acknowledged nothing for so long of what it was sent: the way to it, or it itself, is gone.
    pub fn is_unheard(&self, limit: Duration) -> bool {
        let unheard = self.tcp().and_then(Unheard::of);
        unheard.is_some_and(|unheard| unheard.is_longer_than(limit))
    }

    /// What has been written and has not arrived when the stream is dropped is not delivered any more: the peer gets a
    /// reset.
    pub fn reset_at_close(&self) {
        if let Some(stream) = self.tcp() {
            // When the kernel refuses, the rest is delivered as usual.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The TCP connection, under TLS or not.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            Stream::Encrypted(stream) => Some(stream.socket()),
            Stream::Unix(_) | Stream::Gone => None,
        }
    }

    /// The peer's address, for logs.
    pub fn peer(&self) -> String {
        match self {
            Stream::Tcp(_) | Stream::Encrypted(_) => {
                self.ends().peer.map_or_else(|| "unknown".into(), |address| address.to_string())
            }
            Stream::Unix(_) => "unix".into(),
            Stream::Gone => "gone".into(),
        }
    }
}

fn would_block(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Encrypted(stream) => {
                let count = ready!(stream.poll_read(cx, buffer.initialize_unfilled()))?;
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Encrypted(stream) => stream.poll_write(cx, bytes),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Encrypted(stream) => stream.poll_shutdown(cx),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_stream_is_quiet_until_something_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let open = async || (Stream::connect(&address, Tcp::TO_SERVERS).await.unwrap(), listener.accept().unwrap().0);
        let (stream, mut peer) = open().await;
        assert!(stream.is_quiet());
        peer.write_all(b"x").unwrap();
        // Without a turn of the event loop.
        assert!(!stream.is_quiet());
        let (stream, peer) = open().await;
        drop(peer);
        assert!(!stream.is_quiet());
    }

    #[tokio::test]
    async fn what_has_been_read_is_no_news() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let (mut stream, mut peer) =
            (Stream::connect(&address, Tcp::TO_SERVERS).await.unwrap(), listener.accept().unwrap().0);
        assert!(!stream.has_news());
        for text in [b"one", b"two"] {
            peer.write_all(text).unwrap();
            poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
            assert!(stream.has_news());
            let mut buffer = Vec::with_capacity(16);
            assert_eq!(poll_fn(|cx| stream.poll_fill(cx, &mut buffer)).await.unwrap(), 3);
            assert_eq!(buffer, text);
            assert!(!stream.has_news(), "less came than there was room for");
        }
        peer.write_all(b"more").unwrap();
        for part in [b"mo", b"re"] {
            let mut buffer = Vec::with_capacity(2);
            assert_eq!(poll_fn(|cx| stream.poll_fill(cx, &mut buffer)).await.unwrap(), 2);
            assert_eq!(buffer, part);
        }
        drop(peer);
        let mut buffer = Vec::with_capacity(16);
        assert_eq!(poll_fn(|cx| stream.poll_fill(cx, &mut buffer)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_of_a_peer_is_known_behind_what_is_still_to_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let (mut stream, mut peer) =
            (Stream::connect(&address, Tcp::TO_SERVERS).await.unwrap(), listener.accept().unwrap().0);
        peer.write_all(b"x").unwrap();
        poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
        assert!(!stream.has_hung_up());
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let hung_up = async {
            while !stream.has_hung_up() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), hung_up).await.unwrap();
        let mut buffer = [0; 2];
        assert_eq!(stream.try_read(&mut buffer).unwrap(), 1, "it is still there");
    }

    #[tokio::test]
    async fn the_end_of_a_peer_is_noticed_without_reading() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let open = async || (Stream::connect(&address, Tcp::TO_SERVERS).await.unwrap(), listener.accept().unwrap().0);
        let gone = async |stream: &mut Stream| poll_fn(|cx| stream.poll_gone(cx)).await;
        let (mut stream, peer) = open().await;
        assert!(timeout(Duration::from_millis(20), gone(&mut stream)).await.is_err(), "it is there");
        drop(peer);
        timeout(Duration::from_secs(30), gone(&mut stream)).await.unwrap();
        let (mut stream, mut peer) = open().await;
        peer.write_all(b"x").unwrap();
        drop(peer);
        assert!(timeout(Duration::from_millis(20), gone(&mut stream)).await.is_err(), "there is something to be read");
    }
}
