//! Poolhouse: a PostgreSQL connection pooler and proxy.
//!
//! The modules, from the ground up; a module imports only what the table below allows, and `tests/it/tidy.rs`
//! checks it on every run. PURE modules know no tokio, sockets, files, clock, randomness, logging or globals:
//! they take bytes, events, `now` and seeds, and return decisions.
//!
//! | module     | what it is                                                                      | may import |
//! |------------|---------------------------------------------------------------------------------|------------|
//! | `wire`     | PURE: bytes ⇄ messages of PostgreSQL protocol 3.x, startup packets, errors       | nothing of ours |
//! | `sql`      | PURE: what a statement is: the lexer, verdicts, their cache, a census of functions  | nothing of ours |
//! | `auth`     | PURE: who somebody is: SCRAM, md5, user lists                                    | nothing of ours |
//! | `session`  | PURE: one client's conversation: pipeline, transaction, prepared statements, settings | wire, sql, auth |
//! | `topology` | PURE: the nodes as a value: states, failover decisions, routing                  | sql |
//! | `text`     | text from outside, made fit to be shown                                        | nothing of ours |
//! | `tasks`    | the only place that spawns                                                       | nothing of ours |
//! | `metrics`  | figures: what is counted and how, and every metric's name, unit and help         | nothing of ours |
//! | `net`      | sockets for everyone: addresses, streams, buffers, listeners                     | wire |
//! | `pool`     | lending connections: limits, order, lifetimes; knows no SQL                      | tasks |
//! | `backend`  | one server connection: connect, log in, query, clean, cancel                     | pool, net, session, auth, wire, tasks |
//! | `monitor`  | watches the nodes: feeds `topology` and carries out what it decides              | backend, topology, net, auth, tasks |
//! | `frontend` | clients: accept, log in, relay (the hot loop), cancel, report                    | backend, monitor, pool, session, topology, sql, auth, net, wire, tasks, metrics |
//! | `admin`    | operators: the console, SHOW, HTTP                                              | frontend, monitor, backend, pool, session, topology, auth, net, wire, tasks, metrics, text |
//! | `config`   | the file: raw (as written, with lines) → check (typed settings, all mistakes at once) | the `Settings` types of all the above |
//! | `app`      | wiring and the order of shutdown                                                 | everything |
//! | `cli`      | the commands: serve, demo, check                                                 | everything |
//!
//! # The life of a query
//!
//! `frontend::relay` reads bytes from the client, `wire::frame` recognises messages by their five-byte header,
//! `session` says what each one means as a `Step`. When the step needs a server, `topology::route` names a node and
//! `pool` lends one of its connections. Both directions are then moved by the client's own task until `session` says
//! that the server is free, and the connection goes back to its pool. Nothing else runs on this way: no channel, no
//! second task, and the pool is touched twice per transaction.
//!
//! The one thing that reaches a client from elsewhere are notifications: `frontend::listen` has a task with a connection
//! for each database that somebody listens to, and a mailbox for each client that does.

pub mod admin;
pub mod app;
pub mod auth;
pub mod backend;
pub mod cli;
pub mod config;
pub mod frontend;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod pool;
pub mod session;
pub mod sql;
pub mod tasks;
pub mod text;
pub mod topology;
pub mod wire;
