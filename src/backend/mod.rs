//! One server connection: connect, log in, query, clean, cancel.
