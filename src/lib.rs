//! Poolhouse: a PostgreSQL connection pooler and proxy.
//!
//! The rules are a crate of their own, `poolhouse-core`: messages, statements, logins, sessions, and the nodes as a
//! value. It knows no runtime, sockets, files or clock, and every module here may use it. This crate moves the bytes.
//!
//! The modules, from the ground up; a module imports only what the table below allows, and `tests/it/tidy.rs` checks it
//! on every run.
//!
//! | module     | what it is                                                                      | may import |
//! |------------|---------------------------------------------------------------------------------|------------|
//! | `text`     | text from outside, made fit to be shown                                        | nothing of ours |
//! | `tasks`    | the only place that spawns                                                       | nothing of ours |
//! | `metrics`  | figures: what is counted and how, and every metric's name, unit and help         | nothing of ours |
//! | `net`      | sockets for everyone: addresses, streams, buffers, listeners                     | nothing of ours |
//! | `pool`     | lending connections: limits, order, lifetimes; knows no SQL                      | tasks |
//! | `backend`  | one server connection: connect, log in, query, clean, cancel                     | pool, net, tasks |
//! | `monitor`  | watches the nodes: feeds `topology` and carries out what it decides              | backend, net, tasks |
//! | `clients`  | who is logged in: cancel keys, orders to leave, what clients were told of late    | backend, net, metrics |
//! | `databases` | clusters, databases, and what the clients of one database and user share       | clients, backend, monitor, pool, net, tasks, metrics |
//! | `frontend` | clients: accept, log in, relay (the hot loop), cancel, report                    | databases, clients, backend, monitor, pool, net, tasks, metrics |
//! | `admin`    | operators: the console, SHOW, HTTP                                              | frontend, databases, clients, monitor, backend, pool, net, tasks, metrics, text |
//! | `config`   | the file: raw (as written, with lines) → check (typed settings, all mistakes at once) | the `Settings` types of all the above |
//! | `app`      | wiring and the order of shutdown                                                 | everything |
//! | `cli`      | the commands: serve, demo, check                                                 | everything |
//!
//! # The life of a query
//!
//! `frontend::relay` is the life of a client that is logged in. Its `exchange` reads bytes from the client and recognises
//! messages by their five-byte header (`wire::frame`); `session` says what each one means as a `ClientStep`. When that is
//! `NeedServer`, `relay::lending` has `topology::route` name a node and `pool` lend one of its connections. Both directions
//! are then moved by the client's own task until a `ServerStep` says that the server is free, and the connection goes back
//! to its pool. Nothing else runs on this way: no channel, no second task, and the pool is touched twice per transaction.
//!
//! The one thing that reaches a client from elsewhere are notifications: `frontend::listening` has a task with a connection
//! for each database that somebody listens to, and each client that does has a mailbox (`databases::Mailbox`), which
//! `relay::mail` looks into.
//!
//! docs/architecture.md tells it at length.

// Tests have threads and tasks of their own.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

pub(crate) mod admin;
pub(crate) mod app;
pub(crate) mod backend;
pub(crate) mod cli;
pub(crate) mod clients;
pub(crate) mod config;
pub(crate) mod databases;
pub(crate) mod frontend;
pub(crate) mod metrics;
pub(crate) mod monitor;
pub(crate) mod net;
pub(crate) mod pool;
pub(crate) mod tasks;
pub(crate) mod text;

pub use cli::run;

/// What tests need to run Poolhouse in their own process, with its threads and figures at hand. No promise is made to
/// anybody else.
pub mod testing {
    pub use crate::{
        app::assemble,
        clients::{Activity, LeaveOrder},
        config::{Overrides, Settings, from_upstream, load},
        frontend::{Frontend, MoveOrder, Worker, Workers, accept, serve},
        metrics::{Count, Figures, QueryFigures},
        net::{
            Listen,
            listener::{Bound, bind},
        },
        tasks::Scope,
    };
}
