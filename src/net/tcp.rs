//! How long a TCP connection is believed in whose peer says nothing: keepalive while nothing is under way, and a limit
//! on how long sent data may go without an acknowledgement.
//!
//! The kernel's own option for the latter, `TCP_USER_TIMEOUT`, also ends connections whose peer is alive and does not
//! read: a client that takes its time over a long result, a server that waits for a lock in the middle of a COPY. So
//! what the kernel knows of the connection is looked at instead, see [`Unheard`].

use std::{os::fd::AsFd, time::Duration};

/// `[server.tcp]` and `[clusters.X.tcp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The first probe is sent after so long without traffic; `None` sends none.
    pub keepalive_idle: Option<Duration>,
    /// Between two probes.
    pub keepalive_interval: Duration,
    /// Probes without an answer until the connection counts as lost.
    pub keepalive_count: u32,
    /// So long may sent data go without an acknowledgement, at least a second; `None` = as long as the kernel tries,
    /// about a quarter of an hour.
    pub user_timeout: Option<Duration>,
}

impl Tcp {
    pub const TO_CLIENTS: Tcp = Tcp {
        keepalive_idle: Some(Duration::from_secs(60)),
        keepalive_interval: Duration::from_secs(10),
        keepalive_count: 6,
        ..Tcp::TO_SERVERS
    };

    /// A server that is lost is to be known soon: others wait for what it holds.
    pub const TO_SERVERS: Tcp = Tcp {
        keepalive_idle: Some(Duration::from_secs(10)),
        keepalive_interval: Duration::from_secs(5),
        keepalive_count: 3,
        user_timeout: Some(Duration::from_secs(15)),
    };
}

/// What the kernel knows of data that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unheard {
    /// Segments that were sent and have not been acknowledged. A peer that does not read acknowledges what it was sent
    /// before its window closed, and is sent no more.
    pub segments: u32,
    /// Since its last acknowledgement of anything. After a long pause that says nothing of data that was sent just now.
    pub since: Duration,
    /// The time between two attempts to send the first of the segments, by now: the kernel doubles it after each.
    pub attempt_every: Duration,
    /// How often it was doubled.
    pub doubled: u8,
    /// Since anything was sent, for the first time or again.
    pub last_sent: Duration,
}

impl Unheard {
    /// Of a TCP socket; `None` when the kernel does not say.
    pub fn of(socket: &impl AsFd) -> Option<Unheard> {
        let info = info(socket)?;
        Some(Unheard {
            segments: info.tcpi_unacked,
            since: Duration::from_millis(info.tcpi_last_ack_recv.into()),
            attempt_every: Duration::from_micros(info.tcpi_rto.into()),
            doubled: info.tcpi_backoff,
            last_sent: Duration::from_millis(info.tcpi_last_data_sent.into()),
        })
    }

    /// Whether the peer has been silent for so long although it had something to acknowledge.
    pub fn is_longer_than(self, limit: Duration) -> bool {
        self.segments > 0 && self.since > limit && self.unanswered() > limit
    }

    /// How long the first segment has waited at least: for all attempts but the last, and since that one.
    fn unanswered(self) -> Duration {
        let first_pause = self.attempt_every / 2_u32.saturating_pow(self.doubled.into());
        self.attempt_every.saturating_sub(first_pause) + self.last_sent
    }
}

/// `TCP_INFO` (tcp(7)), which no safe interface reads.
#[expect(unsafe_code, reason = "no safe interface reads TCP_INFO")]
fn info(socket: &impl AsFd) -> Option<libc::tcp_info> {
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd();
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `length` bytes into
    // `info`, which is as long, and for whose plain numbers any bytes, zeros where an older kernel writes less, are a
    // value.
    unsafe {
        let got = libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        );
        (got == 0).then(|| info.assume_init())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_peer_that_does_not_read_is_no_peer_that_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"one").unwrap();
        far.read_exact(&mut [0; 3]).unwrap();
        near.set_nonblocking(true).unwrap();
        // Until its window is closed.
        while near.write(&[0; 1 << 16]).is_ok() {}
        let settled = (0..3_000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Unheard::of(&near).unwrap().segments == 0
        });
        assert!(settled, "everything that was sent was acknowledged, and the rest waits here");
        assert!(!Unheard::of(&near).unwrap().is_longer_than(Duration::ZERO));
    }

    #[test]
    fn silence_counts_only_while_something_is_to_be_acknowledged() {
        let unheard = |segments, seconds| Unheard {
            segments,
            since: Duration::from_secs(seconds),
            last_sent: Duration::from_secs(seconds),
            attempt_every: Duration::from_millis(200),
            doubled: 0,
        };
        let limit = Duration::from_secs(15);
        assert!(unheard(1, 16).is_longer_than(limit));
        assert!(!unheard(0, 3_600).is_longer_than(limit), "nothing was asked");
        assert!(!unheard(7, 15).is_longer_than(limit));
    }

    #[test]
    fn what_was_sent_just_now_after_a_long_pause_is_waited_for() {
        let limit = Duration::from_secs(15);
        let ms = Duration::from_millis;
        let sent = |doubled: u8, last_sent| Unheard {
            segments: 1,
            since: Duration::from_secs(60) + last_sent,
            attempt_every: ms(200 << doubled.min(9)),
            doubled,
            last_sent,
        };
        assert!(!sent(0, ms(1)).is_longer_than(limit), "the answer to a statement that took a minute, on its way");
        // Sent again after 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s.
        assert!(!sent(5, ms(6_000)).is_longer_than(limit));
        assert!(!sent(6, ms(2_000)).is_longer_than(limit), "for 14.6 s");
        assert!(sent(6, ms(3_000)).is_longer_than(limit), "for 15.6 s");
        assert!(!sent(30, ms(0)).is_longer_than(Duration::MAX));
    }
}
