//! The way into PostgreSQL's own parser: SQL text in, the raw parse tree out, as JSON text.
//!
//! The safe `pg_query::parse` is not used: it decodes the tree into nested structs by recursion, which takes about
//! 20 KiB of stack for each level, so that `SELECT 1+1+…` with fifty terms overflows the 2 MiB stack of a worker
//! thread and ends the process. libpg_query's JSON output checks the depth of the stack and fails in good order, and
//! `tree` reads it without recursion. This file holds the only `unsafe` of this module.

#![expect(unsafe_code, reason = "libpg_query is C")]

use std::ffi::{CStr, CString, c_char, c_int};

/// How the parser reads a backslash in a plain string literal: `standard_conforming_strings` of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strings {
    Standard,
    Escaping,
}

/// Why there is no tree. What the parser found wrong is of no use here: the server will say it to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// `pg_query.h`: `PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS | PG_QUERY_DISABLE_ESCAPE_STRING_WARNING`.
const OPTIONS_ESCAPING: c_int = 32 | 64;

/// `pg_query.h`: `PgQueryParseResult`. The error is only compared with null, so its fields are not declared.
#[repr(C)]
struct ParseResult {
    parse_tree: *mut c_char,
    stderr_buffer: *mut c_char,
    error: *mut std::ffi::c_void,
}

// The functions are in the C library that the crate `pg_query` builds and links.
unsafe extern "C" {
    fn pg_query_parse_opts(input: *const c_char, parser_options: c_int) -> ParseResult;
    fn pg_query_free_parse_result(result: ParseResult);
}

/// Parses SQL text, which may hold several statements, and returns the raw parse tree as JSON.
///
/// # Errors
/// `Unreadable` when the text holds a NUL byte, is not valid for the parser's grammar, or is nested too deeply.
pub(super) fn parse(sql: &str, strings: Strings) -> Result<String, Unreadable> {
    let input = CString::new(sql).map_err(|_| Unreadable)?;
    let options = match strings {
        Strings::Standard => 0,
        Strings::Escaping => OPTIONS_ESCAPING,
    };
    // SAFETY: `input` is a NUL-terminated string that outlives the call. The result is owned by us: the tree, when
    // there is one, is a NUL-terminated string that lives until the result is freed, which happens exactly once.
    unsafe {
        let result = pg_query_parse_opts(input.as_ptr(), options);
        let tree = if result.error.is_null() && !result.parse_tree.is_null() {
            CStr::from_ptr(result.parse_tree).to_str().map(str::to_owned).map_err(|_| Unreadable)
        } else {
            Err(Unreadable)
        };
        pg_query_free_parse_result(result);
        tree
    }
}

// Links the C library even where nothing else of the crate is used.
use pg_query as _;
