//! What is measured: the cells (a load at a number of clients) and the contenders.

/// The load of pgbench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// One row by its key, per transaction.
    Select(Protocol),
    /// pgbench's own mixture of three updates, a read and an insert, in the simple protocol.
    Tpcb,
    /// One row by its key, on a new connection each time.
    Connect,
}

/// pgbench's `-M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
    Prepared,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Prepared];

    /// As pgbench calls it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
            Protocol::Prepared => "prepared",
        }
    }
}

/// A load at a number of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub load: Load,
    pub clients: usize,
}

impl Cell {
    /// Everything that a full run measures.
    pub fn all() -> Vec<Cell> {
        let select = |protocol| [1, 50, 500].map(|clients| Cell { load: Load::Select(protocol), clients });
        let mut cells: Vec<Cell> = Protocol::ALL.into_iter().flat_map(select).collect();
        cells.push(Cell { load: Load::Tpcb, clients: 50 });
        cells.push(Cell { load: Load::Connect, clients: 20 });
        cells
    }

    /// Enough to see that the benchmark itself works.
    pub fn smoke() -> Vec<Cell> {
        let select = |protocol| Cell { load: Load::Select(protocol), clients: 50 };
        vec![select(Protocol::Simple), select(Protocol::Prepared), Cell { load: Load::Connect, clients: 20 }]
    }

    /// `simple-50`, `tpcb-50`, `connect-20`: what BENCH_ONLY chooses by.
    pub fn name(&self) -> String {
        let load = match self.load {
            Load::Select(protocol) => protocol.name(),
            Load::Tpcb => "tpcb",
            Load::Connect => "connect",
        };
        format!("{load}-{}", self.clients)
    }

    /// For people.
    pub fn title(&self) -> String {
        let clients = if self.clients == 1 { "client" } else { "clients" };
        match self.load {
            Load::Select(protocol) => format!("select-only, {}, {} {clients}", protocol.name(), self.clients),
            Load::Tpcb => format!("tpcb-like, simple, {} {clients}", self.clients),
            Load::Connect => format!("connect per transaction, {} {clients}", self.clients),
        }
    }

    /// Whether statements are prepared by name.
    pub fn is_prepared(&self) -> bool {
        self.load == Load::Select(Protocol::Prepared)
    }
}

/// What stands between pgbench and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    PgBouncer,
    Haproxy,
    OneWorker,
    TwoWorkers,
}

/// Those that multiplex, and so may have thousands of idle clients.
pub const IDLE_CONTENDERS: [Contender; 3] = [Contender::PgBouncer, Contender::OneWorker, Contender::TwoWorkers];

impl Contender {
    /// All of them; the first is what the others are compared with.
    pub const ALL: [Contender; 4] =
        [Contender::PgBouncer, Contender::Haproxy, Contender::OneWorker, Contender::TwoWorkers];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Contender::PgBouncer => "PgBouncer",
            Contender::Haproxy => "haproxy (TCP)",
            Contender::OneWorker => "Poolhouse, 1 worker",
            Contender::TwoWorkers => "Poolhouse, 2 workers",
        }
    }
}
