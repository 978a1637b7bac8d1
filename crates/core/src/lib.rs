//! The rules of Poolhouse, pure: bytes, events, `now` and seeds go in, decisions come out. There is no runtime, socket,
//! file, clock, randomness, logging or global here, and this crate's manifest names nothing that has them; so every rule
//! can be tested with examples, models, random scripts and a fuzzer.
//!
//! | module     | what it is                                                                      | may import |
//! |------------|---------------------------------------------------------------------------------|------------|
//! | `wire`     | bytes ⇄ messages of PostgreSQL protocol 3.x, startup packets, errors             | nothing of ours |
//! | `sql`      | what a statement is: the lexer, verdicts, their cache, a census of functions     | nothing of ours |
//! | `auth`     | who somebody is: SCRAM, md5, user lists                                          | nothing of ours |
//! | `session`  | one client's conversation: pipeline, transaction, prepared statements, settings  | wire, sql, auth |
//! | `topology` | the nodes as a value: states, failover decisions, routing                        | sql |
//! | `testing`  | model servers, and scripts that clients play against them: tests and fuzzing only | everything |

// What is public here is what the program stands on; what is not is said to be private.
#![warn(missing_docs, unreachable_pub)]
// Tests read seeds and take the time; clippy.toml says what the rules must not do.
#![cfg_attr(
    any(test, feature = "testing"),
    allow(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::unwrap_used,
        unreachable_pub
    )
)]

pub mod auth;
#[allow(missing_docs, unreachable_pub, reason = "not all of it is written yet")]
pub mod session;
pub mod sql;
#[cfg(any(test, feature = "testing"))]
#[allow(missing_docs, reason = "a script of steps, and a server that follows it: their names say it")]
pub mod testing;
pub mod topology;
pub mod wire;
