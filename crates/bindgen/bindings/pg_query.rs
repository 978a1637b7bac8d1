// Made by scripts/bindings.sh from the headers of pg_query 18.1.0; not written by hand.
pub const PG_QUERY_PARSE_MODE_BITS: u32 = 4;
pub const PG_QUERY_PARSE_MODE_BITMASK: u32 = 15;
pub const PG_QUERY_DISABLE_BACKSLASH_QUOTE: u32 = 16;
pub const PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS: u32 = 32;
pub const PG_QUERY_DISABLE_ESCAPE_STRING_WARNING: u32 = 64;
pub const PG_QUERY_FINGERPRINT_DEFAULT: u32 = 0;
pub const PG_QUERY_FINGERPRINT_RANGEVAR_IGNORE_ALIASES: u32 = 1;
pub const PG_QUERY_FINGERPRINT_RANGEVAR_INCLUDE_SCHEMA: u32 = 2;
pub const PG_QUERY_FINGERPRINT_RANGEVAR_PG17_COMPAT: u32 = 3;
pub const PG_QUERY_FINGERPRINT_FULL_RELNAME: u32 = 16;
pub const PG_MAJORVERSION: &[u8; 3] = b"18\0";
pub const PG_VERSION: &[u8; 5] = b"18.6\0";
pub const PG_VERSION_NUM: u32 = 180006;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PostgresDeparseComment {
    pub match_location: ::std::os::raw::c_int,
    pub newlines_before_comment: ::std::os::raw::c_int,
    pub newlines_after_comment: ::std::os::raw::c_int,
    pub str_: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PostgresDeparseOpts {
    pub comments: *mut *mut PostgresDeparseComment,
    pub comment_count: usize,
    pub pretty_print: bool,
    pub indent_size: ::std::os::raw::c_int,
    pub max_line_length: ::std::os::raw::c_int,
    pub trailing_newline: bool,
    pub commas_start_of_line: bool,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct StringInfoData {
    _unused: [u8; 0],
}
pub type StringInfo = *mut StringInfoData;
pub type PgQueryToken = ::std::os::raw::c_uint;
pub type PgQueryKeywordKind = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryError {
    pub message: *mut ::std::os::raw::c_char,
    pub funcname: *mut ::std::os::raw::c_char,
    pub filename: *mut ::std::os::raw::c_char,
    pub lineno: ::std::os::raw::c_int,
    pub cursorpos: ::std::os::raw::c_int,
    pub context: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryIsUtilityResult {
    pub length: ::std::os::raw::c_int,
    pub items: *mut bool,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryProtobuf {
    pub len: usize,
    pub data: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryScanResult {
    pub pbuf: PgQueryProtobuf,
    pub stderr_buffer: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryScanToken {
    pub start: ::std::os::raw::c_int,
    pub end: ::std::os::raw::c_int,
    pub token: PgQueryToken,
    pub keyword_kind: PgQueryKeywordKind,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryScanTokensResult {
    pub tokens: *mut PgQueryScanToken,
    pub n_tokens: ::std::os::raw::c_int,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryParseResult {
    pub parse_tree: *mut ::std::os::raw::c_char,
    pub stderr_buffer: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryProtobufParseResult {
    pub parse_tree: PgQueryProtobuf,
    pub stderr_buffer: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQuerySplitStmt {
    pub stmt_location: ::std::os::raw::c_int,
    pub stmt_len: ::std::os::raw::c_int,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQuerySplitResult {
    pub stmts: *mut *mut PgQuerySplitStmt,
    pub n_stmts: ::std::os::raw::c_int,
    pub stderr_buffer: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryDeparseResult {
    pub query: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryDeparseCommentsResult {
    pub comments: *mut *mut PostgresDeparseComment,
    pub comment_count: usize,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryPlpgsqlParseResult {
    pub plpgsql_funcs: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryFingerprintResult {
    pub fingerprint: u64,
    pub fingerprint_str: *mut ::std::os::raw::c_char,
    pub stderr_buffer: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQueryNormalizeResult {
    pub normalized_query: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PgQuerySummaryParseResult {
    pub summary: PgQueryProtobuf,
    pub stderr_buffer: *mut ::std::os::raw::c_char,
    pub error: *mut PgQueryError,
}
pub const PgQueryParseMode_PG_QUERY_PARSE_DEFAULT: PgQueryParseMode = 0;
pub const PgQueryParseMode_PG_QUERY_PARSE_TYPE_NAME: PgQueryParseMode = 1;
pub const PgQueryParseMode_PG_QUERY_PARSE_PLPGSQL_EXPR: PgQueryParseMode = 2;
pub const PgQueryParseMode_PG_QUERY_PARSE_PLPGSQL_ASSIGN1: PgQueryParseMode = 3;
pub const PgQueryParseMode_PG_QUERY_PARSE_PLPGSQL_ASSIGN2: PgQueryParseMode = 4;
pub const PgQueryParseMode_PG_QUERY_PARSE_PLPGSQL_ASSIGN3: PgQueryParseMode = 5;
pub type PgQueryParseMode = ::std::os::raw::c_uint;
extern "C" {
    pub fn pg_query_normalize(input: *const ::std::os::raw::c_char) -> PgQueryNormalizeResult;
}
extern "C" {
    pub fn pg_query_normalize_utility(
        input: *const ::std::os::raw::c_char,
    ) -> PgQueryNormalizeResult;
}
extern "C" {
    pub fn pg_query_scan(input: *const ::std::os::raw::c_char) -> PgQueryScanResult;
}
extern "C" {
    pub fn pg_query_scan_tokens(input: *const ::std::os::raw::c_char) -> PgQueryScanTokensResult;
}
extern "C" {
    pub fn pg_query_token_name(token: PgQueryToken) -> *const ::std::os::raw::c_char;
}
extern "C" {
    pub fn pg_query_keyword_kind_name(
        keyword_kind: PgQueryKeywordKind,
    ) -> *const ::std::os::raw::c_char;
}
extern "C" {
    pub fn pg_query_parse(input: *const ::std::os::raw::c_char) -> PgQueryParseResult;
}
extern "C" {
    pub fn pg_query_parse_opts(
        input: *const ::std::os::raw::c_char,
        parser_options: ::std::os::raw::c_int,
    ) -> PgQueryParseResult;
}
extern "C" {
    pub fn pg_query_parse_protobuf(
        input: *const ::std::os::raw::c_char,
    ) -> PgQueryProtobufParseResult;
}
extern "C" {
    pub fn pg_query_parse_protobuf_opts(
        input: *const ::std::os::raw::c_char,
        parser_options: ::std::os::raw::c_int,
    ) -> PgQueryProtobufParseResult;
}
extern "C" {
    pub fn pg_query_parse_plpgsql(
        input: *const ::std::os::raw::c_char,
    ) -> PgQueryPlpgsqlParseResult;
}
extern "C" {
    pub fn pg_query_fingerprint(input: *const ::std::os::raw::c_char) -> PgQueryFingerprintResult;
}
extern "C" {
    pub fn pg_query_fingerprint_opts(
        input: *const ::std::os::raw::c_char,
        parser_options: ::std::os::raw::c_int,
        fingerprint_options: ::std::os::raw::c_int,
    ) -> PgQueryFingerprintResult;
}
extern "C" {
    pub fn pg_query_split_with_scanner(input: *const ::std::os::raw::c_char) -> PgQuerySplitResult;
}
extern "C" {
    pub fn pg_query_split_with_parser(input: *const ::std::os::raw::c_char) -> PgQuerySplitResult;
}
extern "C" {
    pub fn pg_query_deparse_protobuf(parse_tree: PgQueryProtobuf) -> PgQueryDeparseResult;
}
extern "C" {
    pub fn pg_query_deparse_protobuf_opts(
        parse_tree: PgQueryProtobuf,
        opts: PostgresDeparseOpts,
    ) -> PgQueryDeparseResult;
}
extern "C" {
    pub fn pg_query_deparse_comments_for_query(
        query: *const ::std::os::raw::c_char,
    ) -> PgQueryDeparseCommentsResult;
}
extern "C" {
    pub fn pg_query_is_utility_stmt(query: *const ::std::os::raw::c_char)
        -> PgQueryIsUtilityResult;
}
extern "C" {
    pub fn pg_query_summary(
        input: *const ::std::os::raw::c_char,
        parser_options: ::std::os::raw::c_int,
        truncate_limit: ::std::os::raw::c_int,
    ) -> PgQuerySummaryParseResult;
}
extern "C" {
    pub fn pg_query_free_normalize_result(result: PgQueryNormalizeResult);
}
extern "C" {
    pub fn pg_query_free_scan_result(result: PgQueryScanResult);
}
extern "C" {
    pub fn pg_query_free_scan_tokens_result(result: PgQueryScanTokensResult);
}
extern "C" {
    pub fn pg_query_free_parse_result(result: PgQueryParseResult);
}
extern "C" {
    pub fn pg_query_free_split_result(result: PgQuerySplitResult);
}
extern "C" {
    pub fn pg_query_free_deparse_result(result: PgQueryDeparseResult);
}
extern "C" {
    pub fn pg_query_free_deparse_comments_result(result: PgQueryDeparseCommentsResult);
}
extern "C" {
    pub fn pg_query_free_protobuf_parse_result(result: PgQueryProtobufParseResult);
}
extern "C" {
    pub fn pg_query_free_plpgsql_parse_result(result: PgQueryPlpgsqlParseResult);
}
extern "C" {
    pub fn pg_query_free_fingerprint_result(result: PgQueryFingerprintResult);
}
extern "C" {
    pub fn pg_query_free_is_utility_result(result: PgQueryIsUtilityResult);
}
extern "C" {
    pub fn pg_query_free_summary_parse_result(result: PgQuerySummaryParseResult);
}
extern "C" {
    pub fn pg_query_exit();
}
extern "C" {
    pub fn pg_query_init();
}
