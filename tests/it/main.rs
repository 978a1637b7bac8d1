//! Tests from outside: the built binary, real PostgreSQL servers, and sockets. One test binary, so that it links once.
//! `make test` runs those with `protocol` in their names on a second version of PostgreSQL too.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

mod bad_input;
mod balance;
mod blocks;
mod cancel;
mod console;
mod console_commands;
mod console_drivers;
mod console_reload;
mod defaults;
mod differential;
mod failover;
mod fencing;
mod figures;
mod fresh;
mod golden;
mod hidden_state;
mod house;
mod http;
mod identity;
mod kit;
mod leaving;
mod login;
mod login_settings;
mod long_texts;
mod lookups;
mod manifests;
mod moving;
mod new_functions;
mod notify;
mod pins;
mod pooling;
mod process_id;
mod protocol;
mod queries;
mod refusals;
mod replication;
mod service;
mod split;
mod statements;
mod steering;
mod strangers;
mod temporary;
mod tidy;
mod tls_to_clients;
mod tls_to_servers;
