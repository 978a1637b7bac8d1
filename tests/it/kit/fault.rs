//! A TCP relay that fails on purpose, between Poolhouse and a server or between a client and Poolhouse. It runs on
//! threads of its own, so that it goes on while a test waits.

use std::{
    io::{self, ErrorKind, Read},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use poolhouse_lab::throwaway::free_port;
use rustix::net::SendFlags;
use socket2::SockRef;

use super::{PATIENCE, wait_until};

/// How soon a waiting thread notices what a test asks for.
const TICK: Duration = Duration::from_millis(5);

/// The way that bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In good order (FIN), on both sides.
    Close,
    /// With a reset (RST), on both sides, and bytes on their way are lost.
    Reset,
}

/// What is wrong with the network at the moment.
#[derive(Debug, Clone, Default)]
struct Plan {
    delay: Duration,
    stalled: bool,
    /// Bytes leave one by one, with this pause after each.
    trickle: Option<Duration>,
    /// When so many more bytes have gone that way, the connection that carries the last is cut.
    budget: Option<(Direction, u64, Cut)>,
    half_closed: Option<Direction>,
    refusing: bool,
    /// Counts the cuts of everything; a connection ends when it began under a smaller number.
    generation: u64,
    cut: Option<Cut>,
    ended: bool,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    /// Whether the port is open.
    listening: bool,
    /// Pumps at work: two per connection.
    pumps: usize,
    passed: [u64; 2],
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay to a port of 127.0.0.1. Dropping it closes everything.
#[derive(Debug)]
pub struct Fault {
    port: u16,
    shared: Shared,
    listener: Option<JoinHandle<()>>,
}

impl Fault {
    /// Starts a relay to that port, with nothing wrong yet.
    pub fn to(target: u16) -> Fault {
        let shared = Shared::default();
        let (port, bound) = (0..20)
            .find_map(|_| {
                let port = free_port().unwrap();
                Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?))
            })
            .expect("a port is free");
        shared.lock().listening = true;
        let listener = thread::spawn({
            let shared = shared.clone();
            move || listen(port, bound, target, &shared)
        });
        Fault { port, shared, listener: Some(listener) }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every chunk of bytes waits so long.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().plan.delay = delay;
    }

    /// Nothing passes in either direction, and new connections are accepted and go nowhere: a black hole.
    pub fn stall(&self) {
        self.shared.lock().plan.stalled = true;
    }

    /// Bytes pass one by one, each in a packet of its own, with a pause after each.
    pub fn trickle(&self, pause: Duration) {
        self.shared.lock().plan.trickle = Some(pause);
    }

    /// When `bytes` more have passed in that direction, the connection that carried the last one ends.
    pub fn cut_after(&self, direction: Direction, bytes: u64, cut: Cut) {
        self.shared.lock().plan.budget = Some((direction, bytes, cut));
    }

    /// Ends all connections, and returns when they are gone.
    pub fn cut(&self, cut: Cut) {
        {
            let mut state = self.shared.lock();
            state.plan.generation += 1;
            state.plan.cut = Some(cut);
        }
        wait_until("connections through the relay are cut", PATIENCE, || self.shared.lock().pumps == 0);
    }

    /// Says the end of the stream (FIN) to one side of every connection; the other direction goes on.
    pub fn half_close(&self, direction: Direction) {
        self.shared.lock().plan.half_closed = Some(direction);
    }

    /// New connections are refused, as by a machine without a server. Open ones go on.
    pub fn refuse(&self) {
        self.shared.lock().plan.refusing = true;
        wait_until("the relay's port is closed", PATIENCE, || !self.shared.lock().listening);
    }

    /// Ends all faults. Connections that were stalled go on; cut ones stay lost.
    pub fn heal(&self) {
        {
            let plan = &mut self.shared.lock().plan;
            *plan = Plan { generation: plan.generation, cut: plan.cut, ..Plan::default() };
        }
        wait_until("the relay's port is open", PATIENCE, || self.shared.lock().listening);
    }

    /// How many bytes have passed in that direction.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.lock().passed[direction as usize]
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.lock().pumps.div_ceil(2)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.shared.lock().plan.ended = true;
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn listen(port: u16, bound: TcpListener, target: u16, shared: &Shared) {
    let mut listener = Some(bound);
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let plan = shared.lock().plan.clone();
        if plan.ended {
            break;
        }
        if plan.refusing {
            // Closing is not enough while another thread starts a process, which holds a copy for a moment.
            let _ = listener.take().map(|listener| SockRef::from(&listener).shutdown(Shutdown::Both));
        } else if listener.is_none() {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        }
        shared.lock().listening = listener.is_some();
        let accepted = listener.as_ref().and_then(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().ok()
        });
        match accepted {
            Some((client, _)) => pumps.extend(relay(client, target, shared)),
            None => thread::sleep(TICK),
        }
        pumps.retain(|pump| !pump.is_finished());
    }
    drop(listener);
    for pump in pumps {
        let _ = pump.join();
    }
}

/// Starts the two pumps of a connection; none when the server cannot be reached, and the client's connection ends.
fn relay(client: TcpStream, target: u16, shared: &Shared) -> Vec<JoinHandle<()>> {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return Vec::new() };
    for stream in [&client, &server] {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TICK)).unwrap();
    }
    let ways = [(Direction::ToServer, [&client, &server]), (Direction::ToClient, [&server, &client])];
    let generation = {
        let mut state = shared.lock();
        state.pumps += ways.len();
        state.plan.generation
    };
    let connection = Arc::new(Connection { generation, end: Mutex::default() });
    let pumps = ways.map(|(direction, [from, to])| Pump {
        direction,
        from: from.try_clone().unwrap(),
        to: to.try_clone().unwrap(),
        connection: connection.clone(),
        is_half_closed: false,
        shared: shared.clone(),
        _count: Count(shared.clone()),
    });
    pumps.into_iter().map(|pump| thread::spawn(move || pump.run())).collect()
}

/// What the two pumps of a connection share.
#[derive(Debug)]
struct Connection {
    generation: u64,
    end: Mutex<End>,
}

#[derive(Debug, Default)]
struct End {
    /// Set by the pump that ends the connection, for the other one.
    cut: Option<Cut>,
    /// How many directions have ended in good order.
    ways: usize,
}

/// Moves the bytes of one direction.
#[derive(Debug)]
struct Pump {
    direction: Direction,
    from: TcpStream,
    to: TcpStream,
    connection: Arc<Connection>,
    is_half_closed: bool,
    shared: Shared,
    /// The last field: dropped when the sockets are closed.
    _count: Count,
}

/// The connection is over.
struct Over;

impl Pump {
    fn run(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while self.step(&mut buffer).is_ok() {}
        let cut = *self.connection.end.lock().unwrap().cut.get_or_insert(Cut::Close);
        for stream in [&self.from, &self.to] {
            match cut {
                Cut::Close => drop(stream.shutdown(Shutdown::Both)),
                // The reset leaves when the last handle is closed.
                Cut::Reset => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            }
        }
    }

    /// Moves one chunk, or waits for one a little.
    fn step(&mut self, buffer: &mut [u8]) -> Result<(), Over> {
        if self.look()?.stalled {
            thread::sleep(TICK);
            return Ok(());
        }
        let length = match self.from.read(buffer) {
            Ok(0) => return self.pass_on_the_end(),
            Ok(length) => length,
            Err(error) if is_tick(error.kind()) => return Ok(()),
            Err(_) => return Err(self.over(Cut::Reset)),
        };
        // What the test asked for while the read waited counts already.
        thread::sleep(self.look()?.delay);
        self.forward(&buffer[..length])
    }

    /// The source has ended its stream: so does this direction, and the other one goes on.
    fn pass_on_the_end(&mut self) -> Result<(), Over> {
        let _ = self.to.shutdown(Shutdown::Write);
        self.connection.end.lock().unwrap().ways += 1;
        loop {
            self.look()?;
            if self.connection.end.lock().unwrap().ways == 2 {
                return Err(Over);
            }
            thread::sleep(TICK);
        }
    }

    fn forward(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let plan = self.look()?;
            let chunk = if plan.trickle.is_some() { 1 } else { rest.len() };
            let written = if plan.stalled { 0 } else { self.write(&rest[..chunk])? };
            rest = &rest[written..];
            if written == 0 {
                thread::sleep(TICK);
            } else if let Some(pause) = plan.trickle {
                thread::sleep(pause);
            }
        }
        Ok(())
    }

    /// Writes what fits in and what a cut allows, and counts it at the same moment: who has seen the bytes sees the
    /// count too.
    fn write(&self, bytes: &[u8]) -> Result<usize, Over> {
        let mut state = self.shared.lock();
        let budget = state.plan.budget.filter(|(direction, _, _)| *direction == self.direction);
        let allowed = budget.map_or(bytes.len(), |(_, left, _)| bytes.len().min(usize::try_from(left).unwrap()));
        let written = match rustix::net::send(&self.to, &bytes[..allowed], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => written,
            Err(error) if is_tick(io::Error::from(error).kind()) => 0,
            Err(_) => return Err(self.over(Cut::Reset)),
        };
        state.passed[self.direction as usize] += written as u64;
        if let Some((direction, left, cut)) = budget {
            let left = left - written as u64;
            state.plan.budget = (left > 0).then_some((direction, left, cut));
            if left == 0 {
                return Err(self.over(cut));
            }
        }
        Ok(written)
    }

    /// The plan as it is now, when the connection goes on.
    fn look(&mut self) -> Result<Plan, Over> {
        if self.connection.end.lock().unwrap().cut.is_some() {
            return Err(Over);
        }
        let plan = self.shared.lock().plan.clone();
        if plan.ended {
            return Err(self.over(Cut::Close));
        }
        if plan.generation > self.connection.generation {
            return Err(self.over(plan.cut.unwrap_or(Cut::Close)));
        }
        if plan.half_closed == Some(self.direction) && !self.is_half_closed {
            self.is_half_closed = true;
            let _ = self.to.shutdown(Shutdown::Write);
        }
        Ok(plan)
    }

    fn over(&self, cut: Cut) -> Over {
        self.connection.end.lock().unwrap().cut.get_or_insert(cut);
        Over
    }
}

/// Says that a pump has ended.
#[derive(Debug)]
struct Count(Shared);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.lock().pumps -= 1;
    }
}

fn is_tick(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
