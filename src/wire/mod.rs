//! Bytes ⇄ messages of PostgreSQL's protocol 3.x. Pure.
