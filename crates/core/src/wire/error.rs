//! ErrorResponse and NoticeResponse: fields, severities, and the SQLSTATEs that Poolhouse itself answers with.

use bytes::BufMut;

use super::{frame::split_text, request::begin};

/// A SQLSTATE: five upper-case letters and digits (manual, appendix "PostgreSQL Error Codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlState(pub &'static str);

impl SqlState {
    /// successful_completion.
    pub const SUCCESS: SqlState = SqlState("00000");
    /// warning.
    pub const WARNING: SqlState = SqlState("01000");
    /// sqlclient_unable_to_establish_sqlconnection: no server can be reached.
    pub const CONNECTION_UNREACHABLE: SqlState = SqlState("08001");
    /// connection_failure: the server connection was lost under a statement.
    pub const CONNECTION_LOST: SqlState = SqlState("08006");
    /// protocol_violation.
    pub const PROTOCOL_VIOLATION: SqlState = SqlState("08P01");
    /// feature_not_supported.
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState("0A000");
    /// invalid_parameter_value.
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState("22023");
    /// character_not_in_repertoire.
    pub const UNTRANSLATABLE: SqlState = SqlState("22021");
    /// invalid_regular_expression.
    pub const INVALID_REGULAR_EXPRESSION: SqlState = SqlState("2201B");
    /// invalid_text_representation.
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState("22P02");
    /// active_sql_transaction.
    pub const ACTIVE_TRANSACTION: SqlState = SqlState("25001");
    /// no_active_sql_transaction.
    pub const NO_ACTIVE_TRANSACTION: SqlState = SqlState("25P01");
    /// in_failed_sql_transaction.
    pub const IN_FAILED_TRANSACTION: SqlState = SqlState("25P02");
    /// idle_in_transaction_session_timeout.
    pub const IDLE_IN_TRANSACTION_TIMEOUT: SqlState = SqlState("25P03");
    /// invalid_sql_statement_name: no such prepared statement.
    pub const UNDEFINED_STATEMENT: SqlState = SqlState("26000");
    /// invalid_authorization_specification.
    pub const INVALID_AUTHORIZATION: SqlState = SqlState("28000");
    /// invalid_password.
    pub const INVALID_PASSWORD: SqlState = SqlState("28P01");
    /// invalid_cursor_name: no such cursor or portal.
    pub const UNDEFINED_CURSOR: SqlState = SqlState("34000");
    /// invalid_catalog_name: no such database.
    pub const UNKNOWN_DATABASE: SqlState = SqlState("3D000");
    /// insufficient_privilege.
    pub const INSUFFICIENT_PRIVILEGE: SqlState = SqlState("42501");
    /// undefined_column.
    pub const UNDEFINED_COLUMN: SqlState = SqlState("42703");
    /// undefined_parameter.
    pub const UNDEFINED_PARAMETER: SqlState = SqlState("42P02");
    /// duplicate_cursor.
    pub const DUPLICATE_CURSOR: SqlState = SqlState("42P03");
    /// duplicate_prepared_statement.
    pub const DUPLICATE_PREPARED_STATEMENT: SqlState = SqlState("42P05");
    /// syntax_error.
    pub const SYNTAX_ERROR: SqlState = SqlState("42601");
    /// undefined_object.
    pub const UNDEFINED_OBJECT: SqlState = SqlState("42704");
    /// too_many_connections.
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState("53300");
    /// program_limit_exceeded.
    pub const LIMIT_EXCEEDED: SqlState = SqlState("54000");
    /// object_not_in_prerequisite_state.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState("55000");
    /// cant_change_runtime_param.
    pub const CANNOT_CHANGE_PARAMETER: SqlState = SqlState("55P02");
    /// query_canceled.
    pub const QUERY_CANCELED: SqlState = SqlState("57014");
    /// admin_shutdown.
    pub const ADMIN_SHUTDOWN: SqlState = SqlState("57P01");
    /// cannot_connect_now.
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState("57P03");
    /// idle_session_timeout.
    pub const IDLE_SESSION_TIMEOUT: SqlState = SqlState("57P05");
    /// config_file_error.
    pub const CONFIG_FILE: SqlState = SqlState("F0000");
    /// internal_error.
    pub const INTERNAL: SqlState = SqlState("XX000");
}

/// An error as Poolhouse sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// FATAL ends the connection, ERROR only the statement.
    pub fatal: bool,
    /// The SQLSTATE (field `C`).
    pub code: SqlState,
    /// The sentence (field `M`).
    pub message: String,
    /// More of it (field `D`).
    pub detail: Option<String>,
    /// What to do about it (field `H`).
    pub hint: Option<String>,
}

impl Report {
    /// An error that ends the statement only, without detail and hint.
    pub fn error(code: SqlState, message: impl Into<String>) -> Report {
        Report { fatal: false, code, message: message.into(), detail: None, hint: None }
    }

    /// An error that ends the connection, without detail and hint.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Report {
        Report { fatal: true, ..Report::error(code, message) }
    }

    /// With this hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Report {
        self.hint = Some(hint.into());
        self
    }

    /// With this detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Report {
        self.detail = Some(detail.into());
        self
    }

    /// Writes the ErrorResponse.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_as(b'E', if self.fatal { "FATAL" } else { "ERROR" }, out);
    }

    /// Writes a NoticeResponse of this severity, such as `WARNING`.
    pub fn write_notice(&self, severity: &str, out: &mut Vec<u8>) {
        self.write_as(b'N', severity, out);
    }

    fn write_as(&self, tag: u8, severity: &str, out: &mut Vec<u8>) {
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.code.0)),
            (b'M', Some(self.message.as_str())),
            (b'D', self.detail.as_deref()),
            (b'H', self.hint.as_deref()),
        ];
        let fields = fields.iter().filter_map(|(tag, text)| text.map(|text| (*tag, text.as_bytes())));
        write_fields(tag, fields, out);
    }
}

/// The fields of a server's ErrorResponse or NoticeResponse, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorFields {
    /// Field type and text, in the order sent.
    pub fields: Vec<(u8, Vec<u8>)>,
}

impl ErrorFields {
    /// Reads a body; what is malformed at its end is left out, since a broken error is still an error.
    pub fn read(mut body: &[u8]) -> ErrorFields {
        let mut fields = Vec::new();
        while let Some((&tag, rest)) = body.split_first() {
            let Some((text, after)) = split_text(rest).filter(|_| tag != 0) else { break };
            fields.push((tag, text.to_vec()));
            body = after;
        }
        ErrorFields { fields }
    }

    /// A field's text, when it is there and UTF-8.
    pub fn text(&self, tag: u8) -> Option<&str> {
        let (_, text) = self.fields.iter().find(|(field, _)| *field == tag)?;
        std::str::from_utf8(text).ok()
    }

    /// The SQLSTATE; `XX000` when it has none.
    pub fn code(&self) -> &str {
        self.text(b'C').unwrap_or("XX000")
    }

    /// The sentence; one of our own when it has none.
    pub fn message(&self) -> &str {
        self.text(b'M').unwrap_or("(no message)")
    }

    /// Whether the server ends the connection after this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.text(b'V').or(self.text(b'S')), Some("FATAL" | "PANIC"))
    }

    /// Whether this is the warning with which a server process ends at once: at an immediate shutdown, or because another
    /// process has crashed. Servers since version 14 send it from `quickdie`, just before they close the connection; what
    /// code of users raises names another routine.
    pub fn is_farewell(&self) -> bool {
        matches!(self.code(), "57P01" | "57P02")
            && self.text(b'V') == Some("WARNING")
            && self.text(b'R') == Some("quickdie")
    }

    /// Adds a hint, behind that of the server if there is one.
    pub fn add_hint(&mut self, hint: &str) {
        if hint.is_empty() {
            return;
        }
        match self.fields.iter_mut().find(|(tag, _)| *tag == b'H') {
            Some((_, text)) => text.extend_from_slice(format!("\n{hint}").as_bytes()),
            None => self.fields.push((b'H', hint.as_bytes().to_vec())),
        }
    }

    /// Replaces the severity, spelled in English.
    pub fn set_severity(&mut self, severity: &str) {
        for (tag, text) in &mut self.fields {
            if matches!(tag, b'S' | b'V') {
                *text = severity.as_bytes().to_vec();
            }
        }
    }

    /// Writes the message; `tag` is `E` or `N`.
    pub fn write(&self, tag: u8, out: &mut Vec<u8>) {
        write_fields(tag, self.fields.iter().map(|(tag, text)| (*tag, text.as_slice())), out);
    }
}

fn write_fields<'a>(tag: u8, fields: impl Iterator<Item = (u8, &'a [u8])> + Clone, out: &mut Vec<u8>) {
    let body = 1 + fields.clone().map(|(_, text)| text.len() + 2).sum::<usize>();
    begin(tag, body, out);
    for (field, text) in fields {
        out.put_u8(field);
        out.put_slice(text);
        out.put_u8(0);
    }
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header;
    use proptest::prelude::*;

    #[test]
    fn a_report_reads_back() {
        let mut out = Vec::new();
        Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "too many").hint("raise it").write(&mut out);
        assert_eq!(header(&out).unwrap().unwrap().message(), out.len());
        let mut fields = ErrorFields::read(&out[5..]);
        assert_eq!((fields.code(), fields.message(), fields.text(b'H')), ("53300", "too many", Some("raise it")));
        assert!(fields.is_fatal());
        fields.set_severity("ERROR");
        assert!(!fields.is_fatal());
        let mut again = Vec::new();
        fields.write(b'E', &mut again);
        assert_eq!(again.len(), out.len());
    }

    #[test]
    fn a_warning_of_users_is_no_farewell() {
        let farewell = |routine: &str| {
            let body = format!("SWARNING\0VWARNING\0C57P01\0Mends\0Fpostgres.c\0L1\0R{routine}\0\0");
            ErrorFields::read(body.as_bytes()).is_farewell()
        };
        assert!(farewell("quickdie") && !farewell("exec_stmt_raise"));
    }

    #[test]
    fn broken_errors_are_read_as_far_as_they_go() {
        assert_eq!(ErrorFields::read(b"").code(), "XX000");
        assert_eq!(ErrorFields::read(b"C57014\0Mno end").code(), "57014");
        assert_eq!(ErrorFields::read(b"C57014\0\0Mignored\0").message(), "(no message)");
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>) {
            let fields = ErrorFields::read(&body);
            let mut out = Vec::new();
            fields.write(b'E', &mut out);
            prop_assert_eq!(ErrorFields::read(&out[5..]), fields);
        }
    }
}
