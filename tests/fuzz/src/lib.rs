//! The pure modules, mounted, and what the targets do with bytes.

// Much of what is mounted is used by the modules above these only.
#![allow(dead_code)]

#[path = "../../../src/auth/mod.rs"]
pub mod auth;
pub mod bodies;
// Mounted by itself as well, for within `sql` it is nobody else's business.
#[path = "../../../src/sql/lexer.rs"]
mod lexer;
#[path = "../../../src/session/tests/message.rs"]
pub mod message;
#[path = "../../../src/session/tests/model.rs"]
pub mod model;
#[path = "../../../src/session/tests/player.rs"]
pub mod player;
#[path = "../../../src/sql/tests/scanner.rs"]
pub mod scanner;
#[path = "../../../src/session/tests/script.rs"]
pub mod script;
#[path = "../../../src/session/mod.rs"]
pub mod session;
#[path = "../../../src/sql/mod.rs"]
pub mod sql;
#[path = "../../../src/topology/mod.rs"]
pub mod topology;
#[path = "../../../src/wire/mod.rs"]
pub mod wire;
